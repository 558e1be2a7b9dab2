//! What is wrong with an object, looked at alone.
//!
//! Always: an object that Istio's API server and its webhook would take is taken, and one that either would refuse is refused, with the way to every field
//! that is wrong; `weir check`, the admission webhook and every source of objects ask here and nowhere else. What is right but not done by Weir is told as
//! [`Code::Unsupported`]. What is wrong between objects, a host that nothing has for instance, is not seen here.

mod authorization;
mod cel;
mod destination_rule;
mod extension;
mod gateway;
mod headers;
mod locality;
mod names;
mod other;
mod policy;
mod re2;
mod request_authentication;
mod service_entry;
mod sidecar;
mod telemetry;
mod unreachable;
mod url;
mod values;
mod virtual_service;
mod workload;

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use weir_model::yaml::document::{Step, Way};

use crate::api::decode;
use crate::finding::{Code, Finding};
use crate::object::Object;

/// What an object may say beside `spec` and `status`.
const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
/// Items of a list that are compared with each other: it takes time of their square.
const MAX_COMPARED: usize = 1000;
/// Findings about one object; further ones are not told.
const MAX_FINDINGS: usize = 200;

/// Everything that is to be said about an object.
#[must_use]
pub fn validate(object: &Object) -> Vec<Finding> {
    let report = Report { object, findings: RefCell::new(Vec::new()) };
    let (group, kind) = (&*object.id.group, &*object.id.kind);
    match (group, kind) {
        ("networking.istio.io", "VirtualService") => report.typed(virtual_service::check),
        ("networking.istio.io", "DestinationRule") => report.typed(destination_rule::check),
        ("networking.istio.io", "Gateway") => report.typed(gateway::check),
        ("networking.istio.io", "ServiceEntry") => report.typed(service_entry::check),
        ("networking.istio.io", "WorkloadEntry") => report.typed(workload::check_entry),
        ("networking.istio.io", "WorkloadGroup") => report.typed(workload::check_group),
        ("networking.istio.io", "Sidecar") => report.typed(sidecar::check),
        ("networking.istio.io", "ProxyConfig") => report.typed(other::check_proxy_config),
        ("networking.istio.io", "EnvoyFilter") => report.typed(other::check_envoy_filter),
        ("security.istio.io", "PeerAuthentication") => report.typed(authorization::check_peers),
        ("security.istio.io", "AuthorizationPolicy") => report.typed(authorization::check),
        ("security.istio.io", "RequestAuthentication") => report.typed(request_authentication::check),
        ("telemetry.istio.io", "Telemetry") => report.typed(telemetry::check),
        ("extensions.istio.io", "WasmPlugin") => report.typed(extension::check_plugin),
        ("extensions.istio.io", "TrafficExtension") => report.typed(extension::check_extension),
        (crate::mixer::GROUP, _) => report.findings.borrow_mut().extend(crate::mixer::check(object)),
        _ => other::check_kind(&report.root()),
    }
    report.findings.into_inner()
}

/// What is told about an object while it is looked at.
struct Report<'a> {
    object: &'a Object,
    findings: RefCell<Vec<Finding>>,
}

impl<'a> Report<'a> {
    fn root(&self) -> At<'_> {
        At { report: self, up: None, step: Link::Root }
    }

    /// Looks at the `spec` of an object of Istio's as a `T`.
    fn typed<T: DeserializeOwned>(&self, check: fn(&At<'_>, &T)) {
        let root = self.root();
        policy::check_meta(&root);
        for key in self.object.body.keys().filter(|key| !TOP.contains(&key.as_str())) {
            root.key(key).tell(Code::Invalid, format!("an object has no field `{key}`"), "Fields of a kind stand in its `spec`.");
        }
        let way = Way::ROOT.key("spec");
        let decoded = decode::<T>(&self.object.id, &way, self.object.spec());
        self.findings.borrow_mut().extend(decoded.findings);
        if let Some(spec) = decoded.value {
            check(&root.key("spec"), &spec);
        }
    }
}

enum Link<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// A place in the object: a list on the stack, which becomes a way when something is told of it.
struct At<'a> {
    report: &'a Report<'a>,
    up: Option<&'a At<'a>>,
    step: Link<'a>,
}

impl<'a> At<'a> {
    fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        At { report: self.report, up: Some(self), step: Link::Key(key) }
    }

    fn index(&self, index: usize) -> At<'_> {
        At { report: self.report, up: Some(self), step: Link::Index(index) }
    }

    /// Looks at every item of a list.
    fn each<T>(&self, key: &str, items: &[T], mut check: impl FnMut(&At<'_>, &T)) {
        let list = self.key(key);
        for (index, item) in items.iter().enumerate() {
            check(&list.index(index), item);
        }
    }

    /// Looks at a field if it is written.
    fn some<T>(&self, key: &str, item: Option<&T>, check: impl FnOnce(&At<'_>, &T)) {
        if let Some(item) = item {
            check(&self.key(key), item);
        }
    }

    fn object(&self) -> &'a Object {
        self.report.object
    }

    fn way(&self) -> Way {
        let mut steps: Vec<Step> = std::iter::successors(Some(self), |at| at.up)
            .filter_map(|at| match at.step {
                Link::Root => None,
                Link::Key(key) => Some(Step::Key(key.into())),
                Link::Index(index) => Some(Step::Index(index)),
            })
            .collect();
        steps.reverse();
        steps.into_iter().collect()
    }

    fn tell(&self, code: Code, message: impl Into<String>, help: &str) {
        let mut findings = self.report.findings.borrow_mut();
        if findings.len() < MAX_FINDINGS {
            findings.push(Finding::new(code, &self.report.object.id, self.way(), message).help(help));
        }
    }

    fn invalid(&self, message: impl Into<String>) {
        self.tell(Code::Invalid, message, "");
    }

    fn missing(&self, message: impl Into<String>) {
        self.tell(Code::Missing, message, "");
    }

    fn conflict(&self, message: impl Into<String>) {
        self.tell(Code::Conflict, message, "");
    }

    fn no_effect(&self, message: impl Into<String>) {
        self.tell(Code::NoEffect, message, "");
    }

    /// What a check of a value said.
    fn check(&self, result: Result<(), String>) {
        if let Err(message) = result {
            self.invalid(message);
        }
    }

    /// Tells if more than one of these fields is set.
    fn at_most_one(&self, fields: &[(&str, bool)]) {
        let set: Vec<&str> = fields.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        if let [rest @ .., last] = &set[..]
            && !rest.is_empty()
        {
            self.key(last).conflict(format!("only one of {} may be set", set.join(", ")));
        }
    }

    /// Tells if there are more than `most`.
    fn at_most(&self, most: usize, count: usize) {
        if count > most {
            self.invalid(format!("there are {count}, and may be {most} at most"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn found(group: &str, kind: &str, spec: &Json) -> Vec<String> {
        let object =
            json!({"apiVersion": format!("{group}.istio.io/v1"), "kind": kind, "metadata": {"name": "a", "namespace": "n"}, "spec": spec});
        let object = Object::read(&object).unwrap();
        validate(&object).iter().map(|finding| format!("{} {}", finding.code, finding.way)).collect()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_way() {
        for (group, kind, spec, expect) in [
            ("networking", "VirtualService", json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "b"}}]}]}), &[][..]),
            (
                "networking",
                "VirtualService",
                json!({"hosts": ["a"], "htp": [], "http": [{"match": [{"uri": {"regex": "["}}], "route": [{"destination": {"host": "*"}}]}]}),
                &["WEIR-0004 spec.htp", "WEIR-0101 spec.http[0].match[0].uri.regex", "WEIR-0101 spec.http[0].route[0].destination.host"],
            ),
            ("networking", "Gateway", json!({"servers": [{"port": 80}]}), &["WEIR-0003 spec.servers[0].port"]),
            (
                "networking",
                "DestinationRule",
                json!({"host": "a", "trafficPolicy": {"tls": {"mode": "MUTUAL", "privateKey": "k"}}}),
                &["WEIR-0102 spec.trafficPolicy.tls"],
            ),
            ("networking", "EnvoyFilter", json!({"configPatches": []}), &["WEIR-0104 kind"]),
            ("security", "AuthorizationPolicy", json!({"action": "DENY"}), &["WEIR-0102 spec"]),
            ("rbac", "ServiceRole", json!({}), &["WEIR-0104 kind"]),
            ("networking", "Something", json!({}), &["WEIR-0002 kind"]),
        ] {
            assert_eq!(found(group, kind, &spec), expect, "{kind} {spec}");
        }
    }

    #[test]
    fn no_text_does_harm() {
        let alphabet: Vec<char> = "a.*/:-@[]{}()\\Q%\"'?+|^$0915,=&<>~# \n\u{e9}\u{301}xPsmh".chars().collect();
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap()
        };
        for _ in 0..2_000 {
            let text: String = (0..next() % 16).map(|_| alphabet[next() % alphabet.len()]).collect();
            let _ = (re2::compile(&text), cel::syntax(&text), url::parse_request(&text), headers::value(&text), headers::claim(&text));
            let _ = (names::wildcard_at_gateway(&text, true), names::subnet(&text), names::namespaced_host(&text, false));
            let _ = (crate::api::istio::Duration::parse(&text), policy::service_account(&text));
        }
        let many = vec![json!({"number": 1, "name": "a"}); 100_000];
        assert!(found("networking", "ServiceEntry", &json!({"hosts": ["a.b"], "ports": many})).len() <= MAX_FINDINGS);
    }
}
