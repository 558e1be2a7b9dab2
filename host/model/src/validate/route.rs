//! What happens to requests: forwarding, redirects, direct responses.

use super::check::{Check, Zero, is_token, short};
use crate::config::{
    DirectResponse, FilterChain, Forward, HashPolicy, Header, HeaderOperations, HostRewrite, PathRewrite, Phase, Redirect, Retry,
    RouteAction, RouteFilter, WeightedCluster, hash_policy, host_rewrite, path_rewrite, route_action,
};
use crate::diagnostic::Code;
use crate::path::{At, did_you_mean};
use crate::resource::Kind;

/// Istio's and Envoy's names of conditions.
const RETRY_ON: [&str; 15] = [
    "5xx",
    "gateway-error",
    "connect-failure",
    "refused-stream",
    "reset",
    "reset-before-request",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];
/// More attempts than this do harm only.
const MAX_ATTEMPTS: u32 = 100;
/// A body held for a retry, and one that is written in a configuration.
const MAX_REPLAY_KIB: u32 = 1 << 20;
const MAX_BODY: usize = 1 << 20;
/// Headers that belong to one connection, or to how a message is framed.
const HOP_BY_HOP: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// The chain of filters around an action.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// If it is known.
    pub(super) chain: Option<&'a FilterChain>,
    /// Whether there is one.
    pub(super) named: bool,
}

pub(super) fn action(check: &mut Check<'_>, at: &At<'_>, action: &RouteAction, scope: Scope<'_>) {
    match &action.action {
        None => check.error(at, Code::Missing, "it is not said what happens", "write one of `forward`, `redirect` and `respond`"),
        Some(route_action::Action::Forward(forward)) => self::forward(check, &at.field("forward"), forward),
        Some(route_action::Action::Redirect(redirect)) => self::redirect(check, &at.field("redirect"), redirect),
        Some(route_action::Action::Respond(respond)) => self::respond(check, &at.field("respond"), respond),
    }
    operations(check, &at.field("requestHeaders"), action.request_headers.as_ref());
    operations(check, &at.field("responseHeaders"), action.response_headers.as_ref());
    let at = at.field("filters");
    for (name, filter) in &action.filters {
        route_filter(check, &at.key(name), name, filter, scope);
    }
}

fn route_filter(check: &mut Check<'_>, at: &At<'_>, name: &str, filter: &RouteFilter, scope: Scope<'_>) {
    let Some(chain) = scope.chain else {
        if !scope.named {
            check.error(
                at,
                Code::UnknownReference,
                format!("there is no filter `{name}`, for there is no chain"),
                "name the chain in `filterChain`",
            );
        }
        return;
    };
    let Some(binding) = chain.filters.iter().find(|binding| binding.name == name) else {
        let help = did_you_mean(name, chain.filters.iter().map(|binding| &*binding.name), "the filters");
        check.error(at, Code::UnknownReference, format!("the chain `{}` has no filter `{name}`", chain.name), help);
        return;
    };
    if !matches!(binding.phase(), Phase::Traffic | Phase::Stats) {
        let message = format!("the filter `{name}` runs before the route is chosen, so that a route cannot change it");
        check.error(at, Code::Conflict, message, "give the filter `phase: traffic`");
    }
    if !filter.variant.is_empty() && !binding.variants.contains_key(&filter.variant) {
        let help = did_you_mean(&filter.variant, binding.variants.keys().map(String::as_str), "the variants");
        check.error(&at.field("variant"), Code::UnknownReference, format!("the filter `{name}` has no variant `{}`", filter.variant), help);
    }
}

/// Clusters by weight.
pub(super) fn clusters(check: &mut Check<'_>, at: &At<'_>, list: &[WeightedCluster]) {
    if list.is_empty() {
        check.error(at, Code::Missing, "it is not said where to", "write `clusters: [{name: NAME}]`");
    }
    for (index, cluster) in list.iter().enumerate() {
        let here = at.index(index);
        check.reference(&here.field("name"), Kind::Cluster, &cluster.name);
        operations(check, &here.field("requestHeaders"), cluster.request_headers.as_ref());
        operations(check, &here.field("responseHeaders"), cluster.response_headers.as_ref());
    }
    check.weights(at, list.iter().map(|cluster| cluster.weight));
    if list.len() > 1 && list.iter().all(|cluster| cluster.weight == 0) {
        check.error(at, Code::Missing, "none of these clusters has a weight", "write `weight: 1` with each for equal parts");
    }
}

fn forward(check: &mut Check<'_>, at: &At<'_>, forward: &Forward) {
    let header = at.field("clusterHeader");
    if forward.cluster_header.is_empty() {
        clusters(check, &at.field("clusters"), &forward.clusters);
    } else {
        check.header_name(&header, &forward.cluster_header);
        if !forward.clusters.is_empty() {
            check.error(&header, Code::Conflict, "`clusters` and `clusterHeader` exclude each other", "keep one of them");
        }
    }
    path(check, &at.field("path"), forward.path.as_ref());
    if let Some(rewrite) = &forward.host {
        host(check, &at.field("host"), rewrite);
    }
    let durations = [("timeout", forward.timeout), ("idleTimeout", forward.idle_timeout), ("maxGrpcTimeout", forward.max_grpc_timeout)];
    check.durations(at, Zero::Fine, &durations);
    if let Some(retry) = &forward.retry {
        self::retry(check, &at.field("retry"), retry);
    }
    let list = at.field("mirrors");
    for (index, mirror) in forward.mirrors.iter().enumerate() {
        let here = list.index(index);
        check.reference(&here.field("cluster"), Kind::Cluster, &mirror.cluster);
        check.percent(&here.field("percent"), mirror.percent);
    }
    let list = at.field("hash");
    for (index, policy) in forward.hash.iter().enumerate() {
        hash(check, &list.index(index), policy);
    }
    let list = at.field("upgrades");
    for (index, name) in forward.upgrades.iter().enumerate() {
        if !is_token(name) {
            check.error(
                &list.index(index),
                Code::InvalidName,
                format!("`{}` is no protocol", short(name)),
                "write `websocket`, `connect` or `*`",
            );
        }
    }
    if forward.cluster_not_found_status != 0 {
        check.within(&at.field("clusterNotFoundStatus"), forward.cluster_not_found_status, 200, 599);
    }
}

fn path(check: &mut Check<'_>, at: &At<'_>, rewrite: Option<&PathRewrite>) {
    let Some(rewrite) = rewrite else { return };
    match &rewrite.rewrite {
        None => check.error(at, Code::Missing, "it is not said what the path becomes", "write one of `full`, `prefix` and `regex`"),
        Some(path_rewrite::Rewrite::Full(path)) => check.path(&at.field("full"), path),
        Some(path_rewrite::Rewrite::Prefix(prefix)) => {
            let at = at.field("prefix");
            check.path(&at.field("from"), &prefix.from);
            if !prefix.to.is_empty() {
                check.path(&at.field("to"), &prefix.to);
            }
        }
        Some(path_rewrite::Rewrite::Regex(regex)) => {
            let at = at.field("regex");
            let compiled = check.regex(&at.field("pattern"), &regex.pattern);
            check.header_value(&at.field("substitution"), &regex.substitution);
            if let Some(compiled) = compiled {
                groups(check, &at.field("substitution"), &regex.substitution, compiled.captures_len());
            }
        }
    }
}

/// Groups that a substitution names must be there.
fn groups(check: &mut Check<'_>, at: &At<'_>, substitution: &str, count: usize) {
    for part in substitution.split(['$', '\\']).skip(1) {
        let digits: String = part.trim_start_matches('{').chars().take_while(char::is_ascii_digit).take(6).collect();
        if let Ok(group) = digits.parse::<usize>()
            && group >= count
        {
            let help =
                if count == 1 { "the pattern has no groups".to_owned() } else { format!("the pattern's groups are 1 to {}", count - 1) };
            check.error(at, Code::UnknownReference, format!("the pattern has no group {group}"), help);
        }
    }
}

fn host(check: &mut Check<'_>, at: &At<'_>, rewrite: &HostRewrite) {
    match &rewrite.rewrite {
        None => check.error(at, Code::Missing, "it is not said what the host becomes", "write one of `literal`, `endpoint` and `header`"),
        Some(host_rewrite::Rewrite::Literal(text)) => check.authority(&at.field("literal"), text),
        Some(host_rewrite::Rewrite::Header(name)) => check.header_name(&at.field("header"), name),
        Some(host_rewrite::Rewrite::Endpoint(true)) => {}
        Some(host_rewrite::Rewrite::Endpoint(false)) => {
            check.error(
                &at.field("endpoint"),
                Code::NoEffect,
                "`endpoint: false` does nothing",
                "write `endpoint: true`, or remove `host`",
            );
        }
    }
}

fn retry(check: &mut Check<'_>, at: &At<'_>, retry: &Retry) {
    check.within(&at.field("attempts"), retry.attempts, 0, MAX_ATTEMPTS);
    check.within(&at.field("hostAttempts"), retry.host_attempts, 0, MAX_ATTEMPTS);
    check.within(&at.field("replayKib"), retry.replay_kib, 0, MAX_REPLAY_KIB);
    let list = at.field("on");
    for (index, condition) in retry.on.iter().enumerate() {
        let status = condition.len() == 3 && condition.parse::<u16>().is_ok_and(|status| (100..600).contains(&status));
        if !status {
            check.one_of(&list.index(index), condition, &RETRY_ON);
        }
    }
    let list = at.field("statusCodes");
    for (index, status) in retry.status_codes.iter().enumerate() {
        check.within(&list.index(index), *status, 100, 599);
    }
    let list = at.field("headers");
    for (index, name) in retry.headers.iter().enumerate() {
        check.header_name(&list.index(index), name);
    }
    for (field, set, condition) in [
        ("statusCodes", !retry.status_codes.is_empty(), "retriable-status-codes"),
        ("headers", !retry.headers.is_empty(), "retriable-headers"),
    ] {
        let on = retry.on.iter().any(|name| name == condition);
        if set && !on {
            check.warning(
                &at.field(field),
                Code::NoEffect,
                format!("`{field}` has no effect without the condition `{condition}`"),
                format!("add `{condition}` to `on`"),
            );
        } else if on && !set {
            check.warning(
                &at.field("on"),
                Code::NoEffect,
                format!("`{condition}` has no effect without `{field}`"),
                format!("add `{field}`"),
            );
        }
    }
    check.durations(at, Zero::Fine, &[("perTryTimeout", retry.per_try_timeout)]);
    check.durations(at, Zero::Wrong, &[("backoffBase", retry.backoff_base), ("backoffMax", retry.backoff_max)]);
    check.in_order(at, ("backoffBase", retry.backoff_base), ("backoffMax", retry.backoff_max));
}

fn hash(check: &mut Check<'_>, at: &At<'_>, policy: &HashPolicy) {
    match &policy.policy {
        None => check.error(
            at,
            Code::Missing,
            "it is not said what is hashed",
            "write one of `header`, `cookie`, `sourceAddress` and `queryParameter`",
        ),
        Some(hash_policy::Policy::Header(name)) => check.header_name(&at.field("header"), name),
        Some(hash_policy::Policy::SourceAddress(true)) => {}
        Some(hash_policy::Policy::SourceAddress(false)) => {
            check.error(
                &at.field("sourceAddress"),
                Code::NoEffect,
                "`sourceAddress: false` does nothing",
                "write `sourceAddress: true`, or remove it",
            );
        }
        Some(hash_policy::Policy::QueryParameter(name)) => {
            if name.is_empty() {
                check.error(&at.field("queryParameter"), Code::Missing, "the name of a parameter is missing", "");
            }
        }
        Some(hash_policy::Policy::Cookie(cookie)) => {
            let at = at.field("cookie");
            if !is_token(&cookie.name) {
                check.error(
                    &at.field("name"),
                    Code::InvalidName,
                    format!("`{}` is no name of a cookie", short(&cookie.name)),
                    "names are letters, digits and `-`",
                );
            }
            check.duration(&at.field("ttl"), cookie.ttl, Zero::Fine);
            let odd = |text: &str| text.chars().any(|c| c == ';' || c.is_control());
            if odd(&cookie.path) {
                check.error(&at.field("path"), Code::InvalidPath, "a cookie's path has no `;` and no control characters", "");
            }
            let at = at.field("attributes");
            for (name, value) in &cookie.attributes {
                if !is_token(name) || odd(value) {
                    check.error(
                        &at.key(name),
                        Code::InvalidName,
                        "this is no attribute of a cookie",
                        "write `SameSite: Lax`, `Secure: \"\"`",
                    );
                }
            }
        }
    }
}

fn redirect(check: &mut Check<'_>, at: &At<'_>, redirect: &Redirect) {
    if !matches!(redirect.status, 0 | 301 | 302 | 303 | 307 | 308) {
        check.error(
            &at.field("status"),
            Code::OutOfRange,
            format!("{} is no redirect", redirect.status),
            "write 301, 302, 303, 307 or 308",
        );
    }
    if !redirect.scheme.is_empty() {
        check.one_of(&at.field("scheme"), &redirect.scheme, &["http", "https"]);
    }
    if !redirect.host.is_empty() {
        check.authority(&at.field("host"), &redirect.host);
    }
    check.within(&at.field("port"), redirect.port, 0, 65_535);
    path(check, &at.field("path"), redirect.path.as_ref());
    let moves =
        !redirect.scheme.is_empty() || !redirect.host.is_empty() || redirect.port != 0 || redirect.path.is_some() || redirect.strip_query;
    if !moves {
        check.error(at, Code::Missing, "it redirects to where the client is already", "write one of `scheme`, `host`, `port` and `path`");
    }
}

fn respond(check: &mut Check<'_>, at: &At<'_>, respond: &DirectResponse) {
    let status = at.field("status");
    if respond.status == 0 {
        check.error(&status, Code::Missing, "the status is missing", "write `status: 200`");
    } else {
        check.within(&status, respond.status, 200, 599);
    }
    let body = at.field("body");
    if respond.body.len() > MAX_BODY {
        check.error(&body, Code::TooLarge, "a body in a configuration has at most 1 MiB", "serve it from an upstream");
    }
    if matches!(respond.status, 204 | 205 | 304) && !respond.body.is_empty() {
        check.warning(&body, Code::NoEffect, format!("an answer of {} has no body", respond.status), "remove it, or answer 200");
    }
    check.header_value(&at.field("contentType"), &respond.content_type);
}

/// Changes to headers.
fn operations(check: &mut Check<'_>, at: &At<'_>, operations: Option<&HeaderOperations>) {
    let Some(operations) = operations else { return };
    for (field, list) in [("set", &operations.set), ("add", &operations.add)] {
        let list_at = at.field(field);
        for (index, header) in list.iter().enumerate() {
            self::header(check, &list_at.index(index), header);
        }
    }
    let list = at.field("remove");
    for (index, name) in operations.remove.iter().enumerate() {
        changed_name(check, &list.index(index), name);
    }
}

fn header(check: &mut Check<'_>, at: &At<'_>, header: &Header) {
    changed_name(check, &at.field("name"), &header.name);
    let at = at.field("value");
    check.header_value(&at, &header.value);
    // Two make a pair: a variable, or a percent sign.
    if header.value.bytes().filter(|byte| *byte == b'%').count() % 2 != 0 {
        check.error(&at, Code::InvalidHeader, "a `%` begins a variable that does not end", "write `%%` for a percent sign");
    }
}

/// A name of a header that a route may change.
fn changed_name(check: &mut Check<'_>, at: &At<'_>, name: &str) {
    let lower = name.to_ascii_lowercase();
    if name.starts_with(':') {
        let help = match &*lower {
            ":path" => "write `path` in `forward`",
            ":authority" => "write `host` in `forward`",
            _ => "",
        };
        check.error(at, Code::InvalidHeader, format!("`{}` is a pseudo header, which routes do not change", short(name)), help);
    } else if lower == "host" {
        check.error(at, Code::InvalidHeader, "the host is not changed as a header", "write `host` in `forward`");
    } else if HOP_BY_HOP.contains(&&*lower) {
        check.error(at, Code::InvalidHeader, format!("`{lower}` belongs to the connection, which the proxy manages"), "remove it");
    } else {
        check.header_name(at, name);
    }
}
