//! VirtualService: what its rules may say, and what excludes what.

use super::{At, headers, names, policy, unreachable, values};
use crate::Code;
use crate::api::istio::common::{PortSelector, StringMatch};
use crate::api::istio::virtual_service::{
    Abort, CorsPolicy, Delay, Destination, DirectResponse, Fault, HttpDestination, HttpMatch, HttpRoute, Mirror, Redirect, Retries,
    Rewrite, RouteDestination, TcpRoute, TlsMatch, TlsRoute, VirtualService,
};

/// Bodies of answers above this size are told of.
const LARGE_BODY: usize = 100 * 1024;
/// Bodies of answers above this size are refused.
const MAX_BODY: usize = 1024 * 1024;

pub(super) fn check(at: &At<'_>, spec: &VirtualService) {
    let delegate = spec.hosts.is_empty();
    if delegate {
        for (key, set) in [("gateways", !spec.gateways.is_empty()), ("tls", !spec.tls.is_empty()), ("tcp", !spec.tcp.is_empty())] {
            if set {
                at.key(key).conflict(format!("a VirtualService without hosts, which others delegate to, has no {key}"));
            }
        }
    }
    if !policy::is_converted(at, "route") {
        names::check_gateways(at, &spec.gateways);
    }
    let gateway = at_gateways_only(&spec.gateways);
    check_hosts(at, spec, gateway);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        at.missing("one of http, tls and tcp must have rules");
    }
    at.each("http", &spec.http, |at, route| check_http(at, route, delegate, gateway));
    at.each("tls", &spec.tls, |at, route| check_tls(at, route, spec, gateway));
    at.each("tcp", &spec.tcp, check_tcp);
    names::check_export_to(at, &spec.export_to, false, false);
    unreachable::check(at, spec);
}

/// Whether it is for gateways, and not for the mesh.
fn at_gateways_only(gateways: &[String]) -> bool {
    !gateways.is_empty() && gateways.iter().all(|name| name != "mesh")
}

fn check_hosts(at: &At<'_>, spec: &VirtualService, gateway: bool) {
    let sni = spec.tls.iter().flat_map(|route| &route.matches).any(|matches| !matches.sni_hosts.is_empty());
    let list = at.key("hosts");
    let mut good = true;
    for (index, host) in spec.hosts.iter().enumerate() {
        let here = list.index(index);
        let fits = if gateway { names::wildcard_at_gateway(host, sni) } else { names::wildcard(host) };
        match fits {
            Err(message) if names::ip(host).is_err() => {
                here.invalid(message);
                good = false;
            }
            Ok(()) if host == "*" && !gateway => {
                here.tell(Code::Invalid, "`*` would be for all the traffic of the mesh", "Name gateways, or hosts.");
                good = false;
            }
            _ => {}
        }
    }
    for (index, host) in spec.hosts.iter().enumerate().filter(|_| good).take(super::MAX_COMPARED) {
        if let Some(first) = spec.hosts[..index].iter().find(|first| names::overlap(first, host)) {
            list.index(index).conflict(format!("`{host}` and `{first}` have hosts in common"));
        }
    }
}

fn check_http(at: &At<'_>, route: &HttpRoute, delegate: bool, gateway: bool) {
    check_actions(at, route, delegate);
    at.each("match", &route.matches, |at, matches| check_http_match(at, matches, gateway));
    headers::check(at, route.headers.as_ref());
    at.some("corsPolicy", route.cors_policy.as_ref(), check_cors);
    at.some("fault", route.fault.as_ref(), check_fault);
    at.some("mirrorPercent", route.mirror_percent.as_ref(), |at, percent| {
        if *percent > 100 {
            at.invalid(format!("{percent} is more than 100"));
        }
        at.tell(Code::NoEffect, "this is the older form of the share", "Write `mirrorPercentage: {value: …}`.");
    });
    at.some("mirrorPercentage", route.mirror_percentage.as_ref(), |at, percent| at.key("value").check(values::share(percent.value)));
    at.some("mirror", route.mirror.as_ref(), check_destination);
    at.each("mirrors", &route.mirrors, check_mirror);
    at.some("redirect", route.redirect.as_ref(), |at, redirect| check_redirect(at, redirect, &route.matches));
    at.some("directResponse", route.direct_response.as_ref(), check_direct_response);
    at.some("retries", route.retries.as_ref(), check_retries);
    at.some("rewrite", route.rewrite.as_ref(), check_rewrite);
    headers::check_authority(at, route.rewrite.as_ref().map(|rewrite| &*rewrite.authority), route.headers.as_ref());
    check_http_destinations(at, &route.route);
    values::check_duration(at, "timeout", route.timeout);
}

/// What a rule does: one thing.
fn check_actions(at: &At<'_>, route: &HttpRoute, delegate: bool) {
    let (redirect, direct) = (route.redirect.is_some(), route.direct_response.is_some());
    if route.delegate.is_some() && !delegate {
        for (key, set) in [("redirect", redirect), ("route", !route.route.is_empty()), ("directResponse", direct)] {
            if set {
                at.key(key).conflict(format!("a rule that delegates has no {key} of its own"));
            }
        }
        return;
    }
    if route.delegate.is_some() {
        at.key("delegate").conflict("a VirtualService without hosts cannot delegate further");
    }
    if redirect || direct {
        let action = if redirect { "redirect" } else { "directResponse" };
        let others = [
            ("route", !route.route.is_empty()),
            ("fault", route.fault.is_some()),
            ("rewrite", route.rewrite.is_some()),
            ("directResponse", redirect && direct),
        ];
        for (key, _) in others.into_iter().filter(|(_, set)| *set) {
            at.key(key).conflict(format!("a rule with {action} has no {key}"));
        }
    } else if route.route.is_empty() {
        at.missing("a rule needs one of route, redirect and directResponse");
    }
    at.at_most_one(&[("mirror", route.mirror.is_some()), ("mirrors", !route.mirrors.is_empty())]);
}

fn check_http_match(at: &At<'_>, matches: &HttpMatch, gateway: bool) {
    for (key, map) in [("headers", &matches.headers), ("withoutHeaders", &matches.without_headers)] {
        let at = at.key(key);
        for (name, value) in map {
            at.key(name).check(headers::name_or_claim(name));
            if headers::claim(name).is_some() && !gateway {
                at.key(name).invalid("claims of tokens can be matched by rules for gateways only");
            }
            // `*` is no regular expression, and means that the header is there.
            if key == "headers" || value.regex.as_deref() != Some("*") {
                values::check_match(&at, name, Some(value), false);
            }
            if matches!(&*name.to_ascii_lowercase(), "uri" | "scheme" | "method" | "authority") {
                at.key(name).tell(Code::NoEffect, format!("a header `{name}` is not looked at"), "Match it beside `headers`.");
            }
        }
    }
    values::check_match(at, "uri", matches.uri.as_ref(), true);
    values::check_match(at, "scheme", matches.scheme.as_ref(), false);
    values::check_match(at, "method", matches.method.as_ref(), false);
    values::check_match(at, "authority", matches.authority.as_ref(), false);
    let parameters = at.key("queryParams");
    matches.query_params.iter().for_each(|(name, value)| values::check_match(&parameters, name, Some(value), false));
    if matches.port != 0 {
        at.key("port").check(names::port(matches.port));
    }
    names::check_labels(&at.key("sourceLabels"), &matches.source_labels);
    names::check_gateways(at, &matches.gateways);
    if !matches.source_namespace.is_empty() && !names::is_label(&matches.source_namespace) {
        at.key("sourceNamespace").invalid(format!("`{}` cannot be a namespace", matches.source_namespace));
    }
}

fn check_http_destinations(at: &At<'_>, destinations: &[HttpDestination]) {
    at.each("route", destinations, |at, destination| {
        check_required(at, destination.destination.as_ref());
        check_weight(at, destination.weight);
        headers::check(at, destination.headers.as_ref());
    });
    check_weights(&at.key("route"), destinations.iter().map(|destination| destination.weight));
}

fn check_required(at: &At<'_>, destination: Option<&Destination>) {
    match destination {
        Some(_) if policy::is_converted(at, "route") => {}
        Some(destination) => check_destination(&at.key("destination"), destination),
        None => at.missing("destination is missing"),
    }
}

fn check_weight(at: &At<'_>, weight: i32) {
    if weight < 0 {
        at.key("weight").invalid(format!("the weight {weight} is less than 0"));
    }
}

fn check_weights(at: &At<'_>, weights: impl ExactSizeIterator<Item = i32>) {
    if weights.len() > 1 && weights.map(i64::from).sum::<i64>() == 0 {
        at.invalid("the weights are all 0, so nothing goes anywhere");
    }
}

/// A service, which must have a name.
pub(super) fn check_destination(at: &At<'_>, destination: &Destination) {
    let host = at.key("host");
    match destination.host.as_str() {
        "" => at.missing("host is missing"),
        "*" => host.invalid("`*` is no destination"),
        name => host.check(names::wildcard(name)),
    }
    if !destination.subset.is_empty() {
        at.key("subset").check(names::subset(&destination.subset));
    }
    at.some("port", destination.port.as_ref(), check_port);
}

/// A port of a service.
pub(super) fn check_port(at: &At<'_>, port: &PortSelector) {
    at.key("number").check(names::port(port.number));
}

fn check_mirror(at: &At<'_>, mirror: &Mirror) {
    check_required(at, mirror.destination.as_ref());
    at.some("percentage", mirror.percentage.as_ref(), |at, percent| at.key("value").check(values::share(percent.value)));
}

fn check_cors(at: &At<'_>, policy: &CorsPolicy) {
    at.each("allowOrigins", &policy.allow_origins, |at, origin| {
        let StringMatch { exact, prefix, regex } = origin;
        let set: Vec<&String> = [exact, prefix, regex].into_iter().flatten().collect();
        if set.iter().all(|text| text.is_empty()) {
            at.invalid("an origin needs exact, prefix or regex, and none of them may be empty");
        } else {
            values::check_text(at, origin, false);
        }
    });
    at.each("allowMethods", &policy.allow_methods, |at, method| {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
        if !known.contains(&method.as_str()) {
            at.invalid(format!("`{method}` is not a method of HTTP"));
        }
    });
    for (key, list) in [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)] {
        at.each(key, list, |at, name| at.check(if name == "*" { Ok(()) } else { headers::name(name) }));
    }
    values::check_duration(at, "maxAge", policy.max_age);
    if policy.max_age.is_some_and(|age| age.nanos % 1_000_000_000 != 0) {
        at.key("maxAge").invalid("it must be whole seconds");
    }
}

fn check_fault(at: &At<'_>, fault: &Fault) {
    if fault.delay.is_none() && fault.abort.is_none() {
        at.missing("a fault needs a delay or an abort");
    }
    at.some("abort", fault.abort.as_ref(), check_abort);
    at.some("delay", fault.delay.as_ref(), check_delay);
}

fn check_abort(at: &At<'_>, abort: &Abort) {
    values::check_percentage(at, abort.percentage.as_ref());
    at.at_most_one(&[
        ("httpStatus", abort.http_status.is_some()),
        ("grpcStatus", abort.grpc_status.is_some()),
        ("http2Error", abort.http2_error.is_some()),
    ]);
    at.some("grpcStatus", abort.grpc_status.as_ref(), |at, status| {
        if !GRPC_STATUSES.contains(&status.as_str()) {
            at.tell(Code::Invalid, format!("`{status}` is not a status of gRPC"), "They are written as NOT_FOUND and UNAVAILABLE are.");
        }
    });
    at.some("httpStatus", abort.http_status.as_ref(), |at, status| at.check(values::status(i64::from(*status))));
    if abort.http2_error.is_some() {
        at.key("http2Error").invalid("errors of HTTP/2 cannot be made");
    }
    if abort.grpc_status.is_none() && abort.http_status.is_none() && abort.http2_error.is_none() {
        at.no_effect("an abort without httpStatus or grpcStatus does nothing");
    }
    if abort.percentage.is_none() {
        at.no_effect("without a percentage no request is aborted");
    }
}

const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn check_delay(at: &At<'_>, delay: &Delay) {
    values::check_percentage(at, delay.percentage.as_ref());
    values::check_duration(at, "fixedDelay", delay.fixed_delay);
    if delay.exponential_delay.is_some() {
        at.key("exponentialDelay").invalid("only fixed delays can be made");
    }
    if delay.percentage.is_none() && delay.percent == 0 {
        at.no_effect("without a percentage no request is delayed");
    }
}

fn check_retries(at: &At<'_>, retries: &Retries) {
    if retries.attempts < 0 {
        at.key("attempts").invalid(format!("{} attempts are less than none", retries.attempts));
    }
    let configured = retries.per_try_timeout.is_some() || !retries.retry_on.is_empty() || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && (configured || retries.backoff.is_some()) {
        at.conflict("attempts is 0, which turns retries off, and yet it is said how they are done");
    }
    values::check_duration(at, "perTryTimeout", retries.per_try_timeout);
    values::check_duration(at, "backoff", retries.backoff);
    for policy in retries.retry_on.split(',').filter(|_| !retries.retry_on.is_empty()) {
        let status = policy.parse::<u16>().is_ok_and(|code| STATUSES.contains(&code));
        if !status && !RETRY_ON.contains(&policy) {
            at.key("retryOn").tell(Code::Invalid, format!("`{policy}` is no reason to try again"), "It is a status code, or one of 5xx, gateway-error, reset, connect-failure, retriable-4xx, refused-stream, unavailable, cancelled and others.");
        }
    }
}

const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// The status codes that HTTP defines.
const STATUSES: [u16; 62] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 402, 403, 404,
    405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 500, 501, 502,
    503, 504, 505, 506, 507, 508, 510, 511,
];

fn check_redirect(at: &At<'_>, redirect: &Redirect, matches: &[HttpMatch]) {
    let prefix = redirect.prefix_rewrite.as_deref().is_some_and(|prefix| !prefix.is_empty());
    at.at_most_one(&[("port", redirect.port.is_some()), ("derivePort", redirect.derive_port.is_some())]);
    at.at_most_one(&[("uri", !redirect.uri.is_empty()), ("prefixRewrite", prefix)]);
    let port = redirect.port.is_some() || redirect.derive_port.is_some();
    if redirect.uri.is_empty() && redirect.authority.is_empty() && redirect.scheme.is_empty() && !port && !prefix {
        at.missing("a redirect needs uri, prefixRewrite, authority, scheme or port");
    }
    let by_prefix = |matches: &HttpMatch| matches.uri.as_ref().is_none_or(|uri| uri.prefix.is_some());
    if prefix && !matches.iter().all(by_prefix) {
        at.key("prefixRewrite").conflict("every match of the rule that looks at the path must do so by prefix");
    }
    if redirect.redirect_code != 0 && !(300..400).contains(&redirect.redirect_code) {
        at.key("redirectCode").invalid(format!("{} is not a redirect's status, 300 to 399", redirect.redirect_code));
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        at.key("scheme").invalid(format!("`{}` is neither http nor https", redirect.scheme));
    }
    at.some("port", redirect.port.as_ref().filter(|port| **port > 0), |at, port| at.check(names::port(*port)));
}

fn check_direct_response(at: &At<'_>, response: &DirectResponse) {
    at.some("body", response.body.as_ref(), |at, body| {
        at.at_most_one(&[("string", body.string.is_some()), ("bytes", body.bytes.is_some())]);
        let size = body.string.as_ref().map_or(0, String::len).max(body.bytes.as_ref().map_or(0, |bytes| bytes.len() / 4 * 3));
        if size > MAX_BODY {
            at.invalid("a body of more than 1 MB is too large");
        } else if size > LARGE_BODY {
            at.no_effect("a body of more than 100 KB makes every change of the configuration slow");
        }
    });
    at.key("status").check(values::status(i64::from(response.status)));
}

fn check_rewrite(at: &At<'_>, rewrite: &Rewrite) {
    at.at_most_one(&[("uri", !rewrite.uri.is_empty()), ("uriRegexRewrite", rewrite.uri_regex_rewrite.is_some())]);
    if rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_none() && rewrite.authority.is_empty() {
        at.missing("a rewrite needs uri, uriRegexRewrite or authority");
    }
    at.some("uriRegexRewrite", rewrite.uri_regex_rewrite.as_ref(), |at, rewrite| {
        if rewrite.matches.is_empty() || rewrite.rewrite.is_empty() {
            at.missing("both match and rewrite are needed");
        } else {
            at.key("match").check(values::regex(&rewrite.matches));
        }
    });
}

fn check_tls(at: &At<'_>, route: &TlsRoute, spec: &VirtualService, gateway: bool) {
    if route.matches.is_empty() {
        at.missing("a rule for TLS needs a match");
    }
    at.each("match", &route.matches, |at, matches| check_tls_match(at, matches, spec, gateway));
    check_routes(at, &route.route);
}

fn check_tls_match(at: &At<'_>, matches: &TlsMatch, spec: &VirtualService, gateway: bool) {
    if matches.sni_hosts.is_empty() {
        at.missing("a match of TLS needs sniHosts");
    }
    at.each("sniHosts", &matches.sni_hosts, |at, host| {
        let fits = if gateway { names::wildcard_at_gateway(host, true) } else { names::wildcard(host) };
        match fits {
            Err(_) if names::ip(host).is_ok() => at.no_effect("clients do not ask for addresses in TLS handshakes"),
            Err(message) => at.invalid(message),
            Ok(()) if !spec.hosts.iter().any(|outer| names::within(host, outer)) => {
                at.invalid(format!("`{host}` is not within the hosts of the VirtualService: {}", spec.hosts.join(", ")));
            }
            Ok(()) => {}
        }
    });
    at.each("destinationSubnets", &matches.destination_subnets, |at, subnet| at.check(names::subnet(subnet)));
    if matches.port != 0 {
        at.key("port").check(names::port(matches.port));
    }
    names::check_labels(&at.key("sourceLabels"), &matches.source_labels);
    names::check_gateways(at, &matches.gateways);
}

fn check_tcp(at: &At<'_>, route: &TcpRoute) {
    at.each("match", &route.matches, |at, matches| {
        at.each("destinationSubnets", &matches.destination_subnets, |at, subnet| at.check(names::subnet(subnet)));
        if matches.port != 0 {
            at.key("port").check(names::port(matches.port));
        }
        if !matches.source_subnet.is_empty() {
            at.key("sourceSubnet").no_effect("it is not looked at");
        }
        names::check_labels(&at.key("sourceLabels"), &matches.source_labels);
        names::check_gateways(at, &matches.gateways);
    });
    check_routes(at, &route.route);
}

fn check_routes(at: &At<'_>, routes: &[RouteDestination]) {
    if routes.is_empty() {
        at.missing("a rule needs a route");
    }
    at.each("route", routes, |at, route| {
        check_required(at, route.destination.as_ref());
        check_weight(at, route.weight);
    });
    check_weights(&at.key("route"), routes.iter().map(|route| route.weight));
}
