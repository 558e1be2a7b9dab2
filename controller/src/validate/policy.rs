//! What policies have in common: whom they are for, and what stands around their `spec`.

use super::{At, names};
use crate::Code;
use crate::api::istio::common::{Selector, TargetRef, Texts, WorkloadSelector};

/// Targets of one policy.
const MAX_TARGETS: usize = 16;
const DRY_RUN: &str = "istio.io/dry-run";

/// What a policy may be attached to, by group.
const TARGETS: [(&str, &str); 4] = [
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// Annotations that change what an object means.
pub(super) fn check_meta(root: &At<'_>) {
    let object = root.object();
    let meta = root.key("metadata");
    let meta = meta.key("annotations");
    if object.meta.annotations.contains_key(DRY_RUN) && &*object.id.kind != "AuthorizationPolicy" {
        meta.key(DRY_RUN).tell(Code::Invalid, format!("a {} cannot be tried out", object.id.kind), "Remove the annotation.");
    }
    let reject = "internal.istio.io/webhook-always-reject";
    if object.meta.annotations.contains_key(reject) {
        meta.key(reject).invalid("the annotation asks for the object to be refused");
    }
}

/// The annotation by which a policy only logs what it would do.
pub(super) fn check_dry_run(spec: &At<'_>, allowed: bool) {
    let Some(value) = spec.object().meta.annotations.get(DRY_RUN) else { return };
    let root = At { report: spec.report, up: None, step: super::Link::Root };
    let meta = root.key("metadata");
    let meta = meta.key("annotations");
    let here = meta.key(DRY_RUN);
    if !allowed {
        here.invalid("only policies with the action ALLOW or DENY can be tried out");
    } else if !matches!(&**value, "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False") {
        here.invalid(format!("`{value}` is neither true nor false"));
    }
}

/// Whether the object was made of one of the Gateway API's, which some rules do not hold for: as a `gateway`, or as a `route`.
pub(super) fn is_converted(at: &At<'_>, into: &str) -> bool {
    at.object().meta.annotations.get(&*format!("internal.istio.io/{into}-semantics")).is_some_and(|value| &**value == "gateway")
}

fn check_texts(at: &At<'_>, labels: &Texts) {
    for (key, value) in labels {
        let here = at.key(key);
        if key.is_empty() {
            here.invalid("the key of a label must not be empty");
        }
        if key.contains('*') || value.contains('*') {
            here.invalid(format!("`{key}: {value}`: labels are selected without wildcards"));
        }
        if value.len() > 63 {
            here.invalid("the value of a label is at most 63 characters long");
        }
    }
    if labels.is_empty() {
        at.no_effect("a selector without labels is for everything in the namespace");
    }
}

/// Which workloads a policy is for.
pub(super) fn check_selector(at: &At<'_>, selector: Option<&Selector>) {
    at.some("selector", selector, |at, selector| check_texts(&at.key("matchLabels"), &selector.match_labels));
}

/// The same of a DestinationRule, whose selector has another name.
pub(super) fn check_rule_selector(at: &At<'_>, selector: Option<&Selector>) {
    at.some("workloadSelector", selector, |at, selector| check_texts(&at.key("matchLabels"), &selector.match_labels));
}

/// Which workloads a Sidecar or a ServiceEntry is for.
pub(super) fn check_workload_selector(at: &At<'_>, selector: Option<&WorkloadSelector>) {
    at.some("workloadSelector", selector, |at, selector| check_texts(&at.key("labels"), &selector.labels));
}

/// Whom a policy is for: a selector, or what it is attached to.
pub(super) fn check_targets(at: &At<'_>, selector: Option<&Selector>, target: Option<&TargetRef>, targets: &[TargetRef]) {
    at.at_most_one(&[("selector", selector.is_some()), ("targetRef", target.is_some()), ("targetRefs", !targets.is_empty())]);
    check_selector(at, selector);
    at.some("targetRef", target, check_target);
    at.key("targetRefs").at_most(MAX_TARGETS, targets.len());
    at.each("targetRefs", targets, check_target);
}

fn check_target(at: &At<'_>, target: &TargetRef) {
    if target.name.is_empty() {
        at.missing("the name of the target is missing");
    }
    if target.name.len() > 253 {
        at.key("name").invalid("the name of the target is longer than 253 characters");
    }
    if !target.namespace.is_empty() {
        at.key("namespace").tell(Code::Invalid, "a target is in the policy's own namespace", "Remove it.");
    }
    let group = if target.group.is_empty() { "core" } else { &target.group };
    if !TARGETS.contains(&(group, &target.kind)) {
        let help = "A policy is attached to a Service, a ServiceEntry (networking.istio.io), a Gateway or a GatewayClass (gateway.networking.k8s.io).";
        at.key("kind").tell(Code::Invalid, format!("a policy cannot be attached to `{}` of `{}`", target.kind, target.group), help);
    }
}

/// `namespace/name`, or the name of an account.
pub(super) fn service_account(text: &str) -> Result<(), String> {
    let (namespace, name) = text.split_once('/').map_or((None, text), |(namespace, name)| (Some(namespace), name));
    let subdomain = |text: &str| !text.is_empty() && text.len() <= 253 && text.split('.').all(names::is_label);
    if text.contains('*') || text.len() > 320 || !subdomain(name) || namespace.is_some_and(|namespace| !names::is_label(namespace)) {
        return Err(format!("`{text}` is neither the name of a service account nor `namespace/name`"));
    }
    Ok(())
}
