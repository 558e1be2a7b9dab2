//! The samples of three ages of Istio that speak to Mixer: each is read, and what it asks works or is refused by name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weir_controller::mixer::{GROUP, Mixer, Peer, translate};
use weir_controller::source::folder;
use weir_controller::{Code, Object};
use weir_corpus::say;
use weir_filter_deny::config::Deny;

fn samples(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            samples(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            into.push(path);
        }
    }
}

/// Denials, quotas, replacements and errors of each sample that has any of Mixer's objects.
#[test]
fn samples_work_or_are_refused_by_name() {
    let Some(corpus) = weir_corpus::folder() else { return };
    let mut files = Vec::new();
    samples(&corpus.join("mixer"), &mut files);
    files.sort();
    let mut found = BTreeMap::new();
    for file in files {
        let name = file.strip_prefix(corpus.join("mixer")).unwrap().display().to_string();
        let read = folder::read(&file).unwrap();
        let ours = |object: &Object| &*object.id.group == GROUP;
        if !read.objects.iter().any(ours) {
            continue;
        }
        let mixer = translate(&read.objects, "istio-system");
        let told = |object: &Object| mixer.findings.iter().any(|finding| finding.object == object.id);
        let works = !mixer.denials.is_empty() || !mixer.quotas.is_empty();
        for object in read.objects.iter().filter(|object| ours(object)) {
            assert!(works || told(object) || is_part(object), "{name}: nothing came of {}, and nothing is said", object.id);
        }
        for finding in mixer.findings.iter().filter(|finding| finding.is_error()) {
            assert!(matches!(finding.code, Code::Unsupported | Code::Invalid), "{name}: {finding:?}");
        }
        accepted(&name, &mixer);
        found.insert(name, mixer);
    }
    for (name, mixer) in &found {
        say(&format!("{name}: {}", shown(mixer)));
    }
    assert!(found.len() > 30, "{}", found.len());
    check(&found);
}

/// Whether there is a rule of the filter for each denial, and the filter takes it.
fn accepted(name: &str, mixer: &Mixer) {
    let addresses = ["10.0.0.1".parse().unwrap()];
    let labels = [("app", "reviews"), ("version", "v3"), ("istio", "ingressgateway")];
    let reviews = labels.map(|(name, value)| (name.into(), value.into())).into();
    let gateway = BTreeMap::from([("app".into(), "istio-egressgateway-with-sni-proxy".into())]);
    let client = |labels| Peer {
        labels,
        namespace: "default",
        name: "client",
        workload: "",
        service_account: "",
        services: &[],
        addresses: &addresses,
    };
    let rules: Vec<_> = mixer.denials.iter().filter_map(|denial| denial.rule(&[client(&reviews), client(&gateway)])).collect();
    assert_eq!(rules.len(), mixer.denials.len(), "{name}");
    let json = serde_json::json!({"rules": rules}).to_string();
    let deny = weir_sdk::parse::<Deny>(json.as_bytes()).map_err(|refusal| format!("{name}: {refusal}: {json}")).unwrap();
    assert_eq!(deny.rules.len(), rules.len());
    for rule in &deny.rules {
        rule.when.compile().unwrap();
        rule.unless.as_ref().map(|unless| unless.compile().unwrap());
        rule.answer.check().unwrap();
        for attribute in &rule.attributes {
            attribute.value.compile().unwrap();
        }
    }
}

/// What only others refer to.
fn is_part(object: &Object) -> bool {
    ["checknothing", "listentry", "quota", "instance", "handler", "denier", "memquota", "QuotaSpec", "QuotaSpecBinding"]
        .contains(&&*object.id.kind)
}

fn shown(mixer: &Mixer) -> String {
    let errors = mixer.findings.iter().filter(|finding| finding.is_error()).count();
    format!("{} denials, {} quotas, {} replacements, {errors} refusals", mixer.denials.len(), mixer.quotas.len(), mixer.replacements.len())
}

fn check(found: &BTreeMap<String, Mixer>) {
    for (name, wanted) in [
        ("0.4.0/samples/bookinfo/kube/mixer-rule-deny-label.yaml", "1 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("0.4.0/samples/bookinfo/kube/mixer-rule-ratings-denial.yaml", "2 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("0.4.0/samples/bookinfo/kube/mixer-rule-ratings-ratelimit.yaml", "0 denials, 1 quotas, 0 replacements, 0 refusals"),
        ("0.4.0/samples/bookinfo/kube/destination-policy-reviews.yaml", "0 denials, 0 quotas, 1 replacements, 0 refusals"),
        ("0.4.0/samples/bookinfo/kube/route-rule-reviews-50-v3.yaml", "0 denials, 0 quotas, 0 replacements, 1 refusals"),
        ("1.0.6/samples/bookinfo/policy/mixer-rule-deny-serviceaccount.yaml", "1 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("1.0.6/samples/bookinfo/policy/mixer-rule-ingress-denial.yaml", "1 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("1.4.9/samples/bookinfo/policy/mixer-rule-deny-label.yaml", "1 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("1.4.9/samples/bookinfo/policy/mixer-rule-deny-label-crd.yaml", "1 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("1.4.9/samples/bookinfo/policy/mixer-rule-deny-ip.yaml", "1 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("1.4.9/samples/bookinfo/policy/mixer-rule-deny-whitelist.yaml", "1 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("1.4.9/samples/bookinfo/policy/mixer-rule-ingress-denial.yaml", "1 denials, 0 quotas, 0 replacements, 0 refusals"),
        ("1.4.9/samples/bookinfo/policy/mixer-rule-productpage-ratelimit.yaml", "0 denials, 1 quotas, 0 replacements, 0 refusals"),
        (
            "1.4.9/samples/bookinfo/policy/mixer-rule-productpage-redis-quota-rolling-window.yaml",
            "0 denials, 1 quotas, 0 replacements, 0 refusals",
        ),
        ("1.4.9/samples/sleep/policy/sni-serviceaccount.yaml", "2 denials, 0 quotas, 0 replacements, 0 refusals"),
    ] {
        assert_eq!(found.get(name).map(shown).as_deref(), Some(wanted), "{name}: {:?}", found.get(name).map(|mixer| &mixer.findings));
    }
    let quota = &found["1.4.9/samples/bookinfo/policy/mixer-rule-productpage-ratelimit.yaml"].quotas[0];
    assert_eq!((quota.amount, quota.window.nanos, quota.overrides.len(), quota.charge), (500, 1_000_000_000, 3, 1));
    assert_eq!(quota.services, [("default".to_owned(), "productpage".to_owned())]);
}
