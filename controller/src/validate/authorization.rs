//! AuthorizationPolicy and PeerAuthentication: whom they are for, and what rules may ask.

use super::{At, names, policy};
use crate::Code;
use crate::api::istio::security::{Action, Condition, Operation, Rule, Source};
use crate::api::istio::{AuthorizationPolicy, PeerAuthentication};

/// Rules, and parts of one.
const MAX_RULES: usize = 512;
const ANYBODY: &str = "Write `rules: [{}]` if it is meant for every request.";

pub(super) fn check_peers(at: &At<'_>, spec: &PeerAuthentication) {
    policy::check_selector(at, spec.selector.as_ref());
    let ports = at.key("portLevelMtls");
    if !spec.port_level_mtls.is_empty() && spec.selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty()) {
        ports.tell(Code::Conflict, "ports can only be told apart for single workloads", "Add a selector.");
    }
    for port in spec.port_level_mtls.keys() {
        ports.key(&port.to_string()).check(names::port(*port));
    }
}

pub(super) fn check(at: &At<'_>, spec: &AuthorizationPolicy) {
    policy::check_targets(at, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    policy::check_dry_run(at, matches!(spec.action, Action::Allow | Action::Deny));
    let name = if spec.action == Action::Custom { "CUSTOM" } else { "DENY" };
    if matches!(spec.action, Action::Custom | Action::Deny) && spec.rules.is_empty() {
        at.tell(Code::Missing, format!("{name} without rules matches nothing"), ANYBODY);
    }
    let provider = spec.provider.as_ref().map(|provider| &*provider.name);
    match (spec.action, provider) {
        (Action::Custom, None | Some("")) if !spec.rules.is_empty() => at.missing("CUSTOM needs the name of a provider"),
        (Action::Custom, _) | (_, None) => {}
        (_, Some(_)) => at.key("provider").conflict("only CUSTOM asks somebody else"),
    }
    at.key("rules").at_most(MAX_RULES, spec.rules.len());
    at.each("rules", &spec.rules, |at, rule| check_rule(at, rule, spec.action));
}

fn check_rule(at: &At<'_>, rule: &Rule, action: Action) {
    at.key("from").at_most(MAX_RULES, rule.from.len());
    at.each("from", &rule.from, |at, from| match &from.source {
        None => at.missing("source is missing"),
        Some(source) => check_source(&at.key("source"), source, action == Action::Custom),
    });
    at.each("to", &rule.to, |at, to| match &to.operation {
        None => at.missing("operation is missing"),
        Some(operation) => check_operation(&at.key("operation"), operation),
    });
    at.each("when", &rule.when, |at, condition| check_condition(at, condition, action == Action::Custom));
    let tcp_from = rule.from.iter().filter_map(|from| from.source.as_ref()).any(is_for_tcp);
    let tcp_to = rule.to.iter().filter_map(|to| to.operation.as_ref()).any(|to| !to.ports.is_empty() || !to.not_ports.is_empty());
    let http_only = if rule.to.is_empty() { !rule.from.is_empty() && !tcp_from } else { !tcp_to };
    if http_only && action == Action::Deny {
        at.tell(
            Code::NoEffect,
            "on ports that are not HTTP, only its ports are looked at: all of their traffic is denied",
            "Name the ports that it is meant for.",
        );
    }
}

fn is_for_tcp(source: &Source) -> bool {
    [
        &source.principals,
        &source.not_principals,
        &source.ip_blocks,
        &source.not_ip_blocks,
        &source.namespaces,
        &source.not_namespaces,
        &source.remote_ip_blocks,
        &source.not_remote_ip_blocks,
        &source.service_accounts,
        &source.not_service_accounts,
    ]
    .iter()
    .any(|list| !list.is_empty())
}

fn check_source(at: &At<'_>, source: &Source, custom: bool) {
    let identities = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    let addresses = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    if identities.iter().chain(&addresses).all(|(_, list)| list.is_empty()) {
        at.missing("a source must say something");
    }
    for (key, list) in identities {
        at.each(key, list, |at, text| check_filled(at, text));
        if custom && !list.is_empty() {
            at.key(key).conflict("identities are not known before CUSTOM asks");
        }
    }
    for (key, list) in addresses {
        at.each(key, list, |at, text| at.check(names::subnet(text)));
    }
    for (key, list) in [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)] {
        at.key(key).at_most(16, list.len());
        at.each(key, list, |at, text| at.check(policy::service_account(text)));
    }
    let set = |list: &[String]| !list.is_empty();
    for (key, accounts, others) in [
        ("serviceAccounts", &source.service_accounts, [&source.namespaces, &source.principals]),
        ("notServiceAccounts", &source.not_service_accounts, [&source.not_namespaces, &source.not_principals]),
    ] {
        if set(accounts) && others.iter().any(|list| set(list)) {
            at.key(key).conflict("it does not go together with namespaces or principals");
        }
    }
}

fn check_filled(at: &At<'_>, text: &str) {
    if text.is_empty() {
        at.invalid("it must not be empty");
    }
}

fn check_operation(at: &At<'_>, operation: &Operation) {
    let lists = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    if lists.iter().all(|(_, list)| list.is_empty()) {
        at.missing("an operation must say something");
    }
    for (key, list) in lists {
        at.each(key, list, |at, text| {
            check_filled(at, text);
            match key {
                "ports" | "notPorts" => check_port(at, text),
                "paths" | "notPaths" => at.check(path(text)),
                _ => {}
            }
        });
    }
}

fn check_port(at: &At<'_>, text: &str) {
    if text.starts_with('+') || text.parse::<u16>().is_err() {
        at.invalid(format!("`{text}` is not a port"));
    }
}

/// A path, or a template of one: `{*}` is a segment of it, `{**}` all that is left.
fn path(text: &str) -> Result<(), String> {
    if !text.contains("{*}") && !text.contains("{**}") {
        return Ok(());
    }
    let refuse = |why: &str| Err(format!("`{text}` is not a template of a path: {why}"));
    let bare = text.replace("{**}", "").replace("{*}", "");
    if bare.contains('*') {
        return refuse("a `*` stands in braces");
    }
    if bare.contains(['{', '}']) {
        return refuse("there are no names in braces");
    }
    let inside = text.split('/').any(|part| part.contains('{') && !matches!(part, "{*}" | "{**}"));
    let last = text.find("{**}").is_none_or(|at| !text[at + 4..].contains("{**}") && !text[at + 4..].contains("{*}"));
    match (inside, last) {
        (true, _) => refuse("a `{*}` is all of a segment"),
        (_, false) => refuse("a `{**}` must be the last"),
        _ => Ok(()),
    }
}

/// Attributes that a condition can look at, and what their values are.
fn check_condition(at: &At<'_>, condition: &Condition, custom: bool) {
    let key = condition.key.as_str();
    let here = at.key("key");
    if key.is_empty() {
        return at.missing("key is missing");
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        at.missing("a condition needs values or notValues");
    }
    let identity = matches!(key, "source.namespace" | "source.principal" | "source.serviceAccount" | "source.trustDomain");
    if custom && (identity || key.starts_with("request.auth.")) {
        here.conflict("identities are not known before CUSTOM asks");
    }
    let bracketed = |prefix: &str| {
        let inner = key.strip_prefix(prefix).and_then(|rest| rest.split_once('['));
        inner.is_some_and(|(_, inner)| inner.ends_with(']') && inner.len() > 1)
    };
    let help = |message: &str, help: &str| here.tell(Code::Invalid, message, help);
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => check_values(at, condition, |at, text| at.check(names::subnet(text))),
        "destination.port" => check_values(at, condition, check_port),
        "source.serviceAccount" => check_values(at, condition, |at, text| at.check(policy::service_account(text))),
        "source.namespace"
        | "source.principal"
        | "source.trustDomain"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter"
        | "connection.sni" => check_values(at, condition, |_, _| {}),
        _ if ["request.headers", "request.auth.claims", "experimental.envoy.filters."].iter().any(|prefix| key.starts_with(prefix)) => {
            if !bracketed("") {
                here.invalid(format!("`{key}` is not of the form a[b]"));
            }
            check_values(at, condition, |_, _| {});
        }
        "destination.namespace" => help("a policy is for its own namespace", "Put it into the namespace that is meant."),
        _ if key.starts_with("destination.labels") => help("this is no condition", "Write a selector."),
        _ => here.invalid(format!("there is no attribute `{key}`")),
    }
}

fn check_values(at: &At<'_>, condition: &Condition, check: impl Fn(&At<'_>, &str)) {
    for (key, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        at.each(key, list, |at, text| {
            check_filled(at, text);
            check(at, text);
        });
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn templates_of_paths() {
        for (text, fits) in [
            ("/a*", true),
            ("*", true),
            ("/{a}", true),
            ("/a/{*}/b", true),
            ("/a/{**}", true),
            ("/a/{*}/{**}/b", true),
            ("/a/{**}/{*}", false),
            ("/{*}/{x}", false),
            ("/{*}/{x=*}", false),
            ("/{*}/*", false),
            ("/{*}/{}", false),
            ("/a{*}", false),
        ] {
            assert_eq!(super::path(text).is_ok(), fits, "{text}");
        }
    }
}
