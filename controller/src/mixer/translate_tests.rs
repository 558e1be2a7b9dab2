//! Mixer's resources, in all the ways they were written, and what they come to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::json;
use weir_model::yaml::document::documents;

use super::*;
use crate::mixer::peer::Peer;

fn objects(text: &str) -> Vec<Object> {
    let read = documents("f.yaml", text.as_bytes());
    assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
    read.documents.into_iter().flat_map(|document| Object::of_document(document).0).collect()
}

const HANDLERS: &str = "
apiVersion: config.istio.io/v1alpha2
kind: denier
metadata: {name: old, namespace: default}
spec: {status: {code: 7, message: Not allowed}}
---
apiVersion: config.istio.io/v1alpha2
kind: checknothing
metadata: {name: nothing, namespace: default}
spec:
---
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: new, namespace: default}
spec: {compiledAdapter: denier}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: nothing, namespace: default}
spec: {compiledTemplate: checknothing}
---
";

fn rule(matches: &str) -> Mixer {
    let rule = json!({"apiVersion": "config.istio.io/v1alpha2", "kind": "rule", "metadata": {"name": "r", "namespace": "default"},
        "spec": {"match": matches, "actions": [{"handler": "old.denier", "instances": ["nothing.checknothing"]}]}});
    let mut objects = objects(HANDLERS);
    objects.push(Object::read(&rule).unwrap());
    translate(&objects, "istio-system")
}

fn labels(text: &str) -> BTreeMap<Arc<str>, Arc<str>> {
    text.split_terminator(',').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

fn peer<'a>(labels: &'a BTreeMap<Arc<str>, Arc<str>>, addresses: &'a [IpAddr]) -> Peer<'a> {
    Peer { labels, namespace: "default", name: "", workload: "", service_account: "", services: &[], addresses }
}

/// The rules without their names and answers, for a workload `app=ratings` and clients `app=reviews` at 10.0.0.2, v3 of it at 10.0.0.3.
fn rules(matches: &str) -> Vec<Json> {
    let mixer = rule(matches);
    assert!(mixer.findings.is_empty(), "{matches}: {:?}", mixer.findings);
    let (ratings, reviews, newest) = (labels("app=ratings"), labels("app=reviews,version=v2"), labels("app=reviews,version=v3"));
    let addresses: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()];
    let clients = [peer(&reviews, &addresses[..1]), peer(&newest, &addresses[1..])];
    let applying = mixer.denials.iter().filter(|denial| denial.applies(&peer(&ratings, &[])));
    let bare = |mut rule: Json| {
        assert_eq!(rule["name"], "r.default");
        let map = rule.as_object_mut().unwrap();
        map.remove("name");
        map.remove("answer");
        rule
    };
    applying.filter_map(|denial| denial.rule(&clients)).map(bare).collect()
}

#[test]
fn expressions_become_conditions() {
    let attribute = |name: &str, value: Json| json!({"attributes": [{"name": name, "value": value}]});
    let header = |value: Json| json!({"when": {"headers": [{"name": "x", "value": value}]}});
    let from = |addresses: &[&str]| json!({"when": {"sourceAddresses": addresses}});
    let cases = [
        ("", vec![json!({})]),
        ("true", vec![json!({})]),
        (
            "destination.labels[\"app\"] == \"ratings\" && source.labels[\"app\"]==\"reviews\" && source.labels[\"version\"] == \"v3\"",
            vec![from(&["10.0.0.3"])],
        ),
        ("destination.labels[\"app\"] == \"details\"", vec![]),
        ("destination.labels[\"app\"] != \"details\" && destination.namespace == \"default\"", vec![json!({})]),
        ("source.labels[\"app\"] == \"unheard-of\"", vec![]),
        ("source.labels[\"version\"] != \"v3\"", vec![from(&["10.0.0.2"])]),
        ("(source.labels[\"version\"] | \"v1\") != \"v3\"", vec![json!({"unless": {"sourceAddresses": ["10.0.0.3"]}})]),
        ("source.ip == ip(\"10.9.9.9\")", vec![from(&["10.9.9.9"])]),
        ("source.ip != ip(\"10.9.9.9\")", vec![json!({"unless": {"sourceAddresses": ["10.9.9.9"]}})]),
        ("source.ip == ip(\"10.9.9.9\") && source.labels[\"app\"] == \"reviews\"", vec![]),
        ("request.headers[\"X\"] == \"john\"", vec![header(json!({"exact": "john"}))]),
        ("request.headers[\"x\"] != \"john\"", vec![header(json!({"exact": "john", "invert": true}))]),
        ("request.headers[\"x\"] == \"\"", vec![header(json!({"exact": ""})), header(json!({"present": false}))]),
        (
            "(request.headers[\"x\"] | \"no\") != \"no\"",
            vec![json!({"when": {"headers": [
            {"name": "x", "value": {"exact": "no", "invert": true}}, {"name": "x", "value": {"present": true}}]}})],
        ),
        ("match(request.headers[\"x\"], \"user=*\") == false", vec![header(json!({"prefix": "user=", "invert": true}))]),
        ("toLower(request.headers[\"x\"]) == \"john\"", vec![header(json!({"exact": "john", "ignoreCase": true}))]),
        ("\"^jo\".matches(request.headers[\"x\"])", vec![header(json!({"regex": "(?s:.*)(?:^jo)(?s:.*)"}))]),
        ("\"(?i)jo\".matches(request.headers[\"x\"])", vec![header(json!({"regex": "(?s:.*)(?:(?i)jo)(?s:.*)"}))]),
        ("request.path.startsWith(\"/a\")", vec![attribute("request.path", json!({"prefix": "/a"}))]),
        (
            "request.method == \"GET\" || request.host == \"a\"",
            vec![attribute("request.method", json!({"exact": "GET"})), attribute("request.host", json!({"exact": "a"}))],
        ),
        ("connection.mtls == false", vec![attribute("connection.mtls", json!({"exact": "\u{1}", "invert": true}))]),
        (
            "source.user == \"cluster.local/ns/a/sa/b\"",
            vec![attribute("connection.uri_san_peer_certificate", json!({"exact": "spiffe://cluster.local/ns/a/sa/b"}))],
        ),
        // Without an identity the first comparison fails, and with it the whole; so it must be there.
        (
            "source.principal != \"a\"",
            vec![json!({"attributes": [
            {"name": "connection.uri_san_peer_certificate", "value": {"exact": "spiffe://a", "invert": true}},
            {"name": "connection.uri_san_peer_certificate", "value": {"present": true}}]})],
        ),
        (
            "conditional(request.method == \"GET\", request.path, request.host) == \"a\"",
            vec![
                json!({"attributes": [{"name": "request.method", "value": {"exact": "GET"}}, {"name": "request.path", "value": {"exact": "a"}}]}),
                json!({"attributes": [{"name": "request.method", "value": {"exact": "GET", "invert": true}}, {"name": "request.host", "value": {"exact": "a"}}]}),
            ],
        ),
    ];
    for (matches, wanted) in cases {
        assert_eq!(rules(matches), wanted, "{matches}");
    }
}

#[test]
fn what_no_filter_can_check_is_refused_by_name() {
    for (matches, named) in [
        ("request.size > 3", "GT($request.size, 3)"),
        ("request.path == request.host", "`$request.path` with `$request.host`"),
        ("request.auth.principal == \"a\"", "`request.auth.principal`"),
        ("request.headers[request.path] == \"a\"", "INDEX($request.headers, $request.path)"),
        ("target.labels[\"app\"] == \"a\"", "unknown attribute target.labels"),
        ("request.path", "this is a STRING"),
        ("\"(\".matches(request.path)", "no regular expression"),
        ("false", "never true"),
    ] {
        let mixer = rule(matches);
        assert!(mixer.denials.is_empty(), "{matches}");
        let said: Vec<_> = mixer.findings.iter().map(|finding| finding.message.as_str()).collect();
        assert!(said.len() == 1 && said[0].contains(named) && mixer.findings[0].way.to_string() == "spec.match", "{matches}: {said:?}");
    }
    let wide = ["(request.path == \"a\" || request.path == \"b\")"; 8].join(" && ");
    assert!(rule(&wide).findings[0].message.contains("alternatives"));
}

#[test]
fn references_are_found_in_every_form() {
    for (handler, instance, body) in [
        ("old.denier", "nothing.checknothing", Some("PERMISSION_DENIED:old.denier.default:Not allowed")),
        ("old.denier.default", "nothing.checknothing.default", Some("PERMISSION_DENIED:old.denier.default:Not allowed")),
        ("new", "nothing", Some("FAILED_PRECONDITION:new.default:")),
        ("new.default", "nothing.instance.default", Some("FAILED_PRECONDITION:new.default:")),
        ("old", "nothing", None),
        ("new", "none", None),
    ] {
        let rule = json!({"apiVersion": "config.istio.io/v1alpha2", "kind": "rule", "metadata": {"name": "r", "namespace": "default"},
            "spec": {"actions": [{"handler": handler, "instances": [instance]}]}});
        let mut objects = objects(HANDLERS);
        objects.push(Object::read(&rule).unwrap());
        let mixer = translate(&objects, "istio-system");
        let found: Vec<_> = mixer.denials.iter().map(|denial| denial.answer.body.as_str()).collect();
        assert_eq!(found, body.into_iter().collect::<Vec<_>>(), "{handler}");
        assert_eq!(mixer.findings.len(), usize::from(body.is_none()), "{:?}", mixer.findings);
    }
}

#[test]
fn lists_become_lists() {
    let list = |checker: &str, value: &str| {
        let text = format!(
            "apiVersion: config.istio.io/v1alpha2\nkind: listchecker\nmetadata: {{name: l}}\nspec: {checker}\n---\napiVersion: config.istio.io/v1alpha2\n\
             kind: listentry\nmetadata: {{name: e}}\nspec:\n  value: {value}\n---\napiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {{name: r}}\n\
             spec: {{actions: [{{handler: l.listchecker, instances: [e.listentry]}}]}}\n"
        );
        translate(&objects(&text), "default")
    };
    let rules = |mixer: &Mixer| mixer.denials.iter().filter_map(|denial| denial.rule(&[])).collect::<Vec<_>>();
    let found = list("{overrides: [10.57.0.0/16], entryType: IP_ADDRESSES}", "source.ip | ip(\"0.0.0.0\")");
    assert!(found.findings.is_empty() && found.denials[0].namespace.is_none(), "{:?}", found.findings);
    assert_eq!(
        rules(&found)[0]["list"],
        json!({"of": "sourceAddress", "entries": ["10.57.0.0/16"], "compare": "cidr", "refuse": "unlisted"})
    );
    assert_eq!(rules(&found)[0]["answer"]["status"], 403);
    let found = list("{overrides: [a, b], blacklist: true, entryType: REGEX}", "request.headers[\"x\"]");
    let entries = json!(["(?s:.*)(?:a)(?s:.*)", "(?s:.*)(?:b)(?s:.*)"]);
    assert_eq!(rules(&found)[0]["list"], json!({"of": {"header": "x"}, "entries": entries, "compare": "regex", "refuse": "listed"}));
    // What is absent stands for something that is in the list: only what is there can be refused.
    let found = list("{overrides: [a]}", "request.headers[\"x\"] | \"a\"");
    assert_eq!((rules(&found).len(), &rules(&found)[0]["when"]), (1, &json!({"headers": [{"name": "x", "value": {"present": true}}]})));
    for (checker, value, named) in [
        ("{providerUrl: \"http://x\"}", "source.ip", "not fetched"),
        ("{overrides: [1.2.3.4/33], entryType: IP_ADDRESSES}", "source.ip", "no entry"),
        ("{overrides: [a]}", "request.size", "INT64"),
        ("{overrides: [a]}", "nothing.known", "unknown attribute"),
        ("{overrides: [a]}", "request.path + request.host", "ADD"),
        ("{overrides: a}", "request.path", ""),
    ] {
        let found = list(checker, value);
        assert!(
            found.denials.is_empty() && found.findings.len() == 1 && found.findings[0].message.contains(named),
            "{checker}: {:?}",
            found.findings
        );
    }
}

#[test]
fn destination_policies_become_destination_rules() {
    let text = "apiVersion: config.istio.io/v1alpha2\nkind: DestinationPolicy\nmetadata: {name: reviews}\nspec:\n  destination: {name: reviews, labels: {version: v1}}\n  \
                loadBalancing: {name: LEAST_CONN}\n  circuitBreaker: {simpleCb: {maxConnections: 100, httpMaxPendingRequests: 5, sleepWindow: 1m}}\n";
    let mixer = translate(&objects(text), "istio-system");
    let [rule] = &mixer.replacements[..] else { panic!("{:?}", mixer.findings) };
    assert_eq!(rule.id.to_string(), "DestinationRule default/reviews");
    let policy = json!({
        "loadBalancer": {"simple": "LEAST_REQUEST"},
        "connectionPool": {"tcp": {"maxConnections": 100}, "http": {"http1MaxPendingRequests": 5}},
        "outlierDetection": {"consecutive5xxErrors": 5, "interval": "10s", "baseEjectionTime": "60000000000ns", "maxEjectionPercent": 10},
    });
    assert_eq!(rule.spec(), &json!({"host": "reviews", "subsets": [{"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": policy}]}));
    let read = decode::<crate::api::istio::destination_rule::DestinationRule>(&rule.id, &Way::ROOT, rule.spec());
    assert!(read.value.is_some() && read.findings.is_empty(), "{:?}", read.findings);
    let refused = translate(&objects(&text.replace("loadBalancing: {", "source: {name: a}\n  loadBalancing: {")), "istio-system");
    assert!(refused.replacements.is_empty() && refused.findings.iter().any(|finding| finding.way.to_string() == "spec.source"));
}
