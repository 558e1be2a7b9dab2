//! Routes of a VirtualService as the filter `router` reads them.
//!
//! Always: the order is the rules'; a condition that means every request ends the list, as in Istio. A destination that nobody knows keeps its route,
//! which then answers 503.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::api::istio::virtual_service::{
    CorsPolicy, DerivePort, Destination, Fault, HeaderOperations, HttpDestination, HttpMatch, HttpRoute, Redirect, Retries,
    UnmatchedPreflights,
};
use crate::api::istio::{Duration, StringMatch, VirtualService};
use crate::translate::world::{Named, World};

/// Where requests come in that routes are made for.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// What is known.
    pub world: &'a World,
    /// The proxy's namespace.
    pub namespace: &'a str,
    /// The proxy's labels.
    pub labels: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// The gateway, as `namespace/name`; none in a sidecar.
    pub gateway: Option<&'a str>,
    /// The port that clients connect to.
    pub port: u16,
}

/// Configurations of filters that routes use, by filter and name.
#[derive(Debug, Default)]
pub struct Variants {
    /// Of `fault`.
    pub fault: BTreeMap<String, Json>,
    /// Of `cors`.
    pub cors: BTreeMap<String, Json>,
}

impl Variants {
    /// The name of a configuration among those of its filter.
    fn keep(all: &mut BTreeMap<String, Json>, config: Json) -> String {
        if let Some((name, _)) = all.iter().find(|(_, known)| **known == config) {
            return name.clone();
        }
        let name = format!("v{}", all.len());
        all.insert(name.clone(), config);
        name
    }
}

/// A cluster's name: Istio's, which dashboards and people know.
#[must_use]
pub fn cluster_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The router's routes of a virtual service, and whether they end with one for every request.
pub fn routes(service: &Named<VirtualService>, here: Here<'_>, variants: &mut Variants) -> (Vec<Json>, bool) {
    let mut routes = Vec::new();
    for rule in &service.spec.http {
        let blocks: Vec<Option<&HttpMatch>> = match rule.matches.as_slice() {
            [] => vec![None],
            blocks => blocks.iter().map(Some).collect(),
        };
        for block in blocks {
            if block.is_some_and(|block| !is_for(block, here, &service.id.namespace)) {
                continue;
            }
            let mut action = action(rule, block, service, here, variants);
            let names = [rule.name.as_str(), block.map_or("", |block| &block.name)];
            let name = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".");
            if !name.is_empty() {
                action["name"] = json!(name);
            }
            action["metadata"] = json!({ "config": service.id.to_string() });
            let matches = block.map(condition).filter(|condition| condition != &json!({}));
            let everything = block.is_none_or(means_everything);
            routes.push(match matches {
                Some(matches) if !everything => json!({ "match": [matches], "action": action }),
                _ => json!({ "action": action }),
            });
            if everything {
                return (routes, true);
            }
        }
    }
    (routes, false)
}

/// The route that a host has which no virtual service routes.
#[must_use]
pub fn plain_route(host: &str, port: u16, here: Here<'_>) -> Json {
    let mut forward = json!({ "clusters": [{ "name": cluster_name(port, "", host) }], "timeout": "0s", "upgrades": ["*"] });
    if let Some(retry) = retry(None, here) {
        forward["retry"] = retry;
    }
    json!({ "action": { "name": "default", "forward": forward } })
}

/// Whether a condition is for this proxy at all.
fn is_for(block: &HttpMatch, here: Here<'_>, namespace: &str) -> bool {
    let port = block.port == 0 || block.port == u32::from(here.port);
    if !block.gateways.is_empty() {
        return port && block.gateways.iter().any(|gateway| is_gateway(gateway, here.gateway, namespace));
    }
    let from_here = here.gateway.is_some()
        || ((block.source_namespace.is_empty() || block.source_namespace == here.namespace)
            && block.source_labels.iter().all(|(key, value)| here.labels.get(key.as_str()).is_some_and(|has| **has == **value)));
    port && from_here
}

/// Whether what an object of `namespace` calls a gateway is this one.
#[must_use]
pub fn is_gateway(named: &str, gateway: Option<&str>, namespace: &str) -> bool {
    match gateway {
        None => named == "mesh",
        Some(gateway) if named.contains('/') => match named.strip_prefix("./") {
            Some(name) => gateway.split_once('/') == Some((namespace, name)),
            None => named == gateway,
        },
        Some(gateway) => gateway.split_once('/') == Some((namespace, named)),
    }
}

/// A rule behind one that means everything is never reached.
fn means_everything(block: &HttpMatch) -> bool {
    let every_path = match &block.uri {
        None => true,
        Some(uri) => uri.prefix.as_deref() == Some("/") || matches!(uri.regex.as_deref(), Some("*" | ".*")),
    };
    let no_more = block.headers.is_empty() && block.query_params.is_empty() && block.without_headers.is_empty();
    every_path && no_more && block.method.is_none() && block.authority.is_none() && block.scheme.is_none()
}

fn condition(block: &HttpMatch) -> Json {
    let mut condition = json!({});
    if let Some(uri) = &block.uri {
        let mut path = json!({});
        match uri {
            StringMatch { exact: Some(exact), .. } => path["exact"] = json!(exact),
            StringMatch { regex: Some(regex), .. } => path["regex"] = json!(regex),
            other => path["prefix"] = json!(other.prefix.as_deref().unwrap_or_default()),
        }
        if block.ignore_uri_case && uri.regex.is_none() {
            path["ignoreCase"] = json!(true);
        }
        condition["path"] = path;
    }
    for (field, value) in [("method", &block.method), ("scheme", &block.scheme), ("authority", &block.authority)] {
        if let Some(value) = value {
            condition[field] = text(value);
        }
    }
    let is_pseudo = |name: &str| matches!(name, "uri" | "scheme" | "method" | "authority");
    let (claims, headers): (Vec<_>, Vec<_>) =
        block.headers.iter().filter(|(name, _)| !is_pseudo(name)).partition(|(name, _)| name.starts_with("@request.auth.claims"));
    let mut all: Vec<Json> = headers.iter().map(|(name, value)| json!({ "name": name, "value": text(value) })).collect();
    all.extend(block.without_headers.iter().map(|(name, value)| json!({ "name": name, "value": absent(value) })));
    if !all.is_empty() {
        condition["headers"] = Json::Array(all);
    }
    if !block.query_params.is_empty() {
        condition["query"] = block.query_params.iter().map(|(name, value)| json!({ "name": name, "value": text(value) })).collect();
    }
    if !claims.is_empty() {
        let attribute = |name: &str| name.trim_start_matches('@').replace(['[', ']'], ".").replace("..", ".").trim_matches('.').to_owned();
        condition["attributes"] = claims.iter().map(|(name, value)| json!({ "name": attribute(name), "value": text(value) })).collect();
    }
    condition
}

fn text(value: &StringMatch) -> Json {
    match value {
        StringMatch { exact: Some(exact), .. } => json!({ "exact": exact }),
        StringMatch { prefix: Some(prefix), .. } => json!({ "prefix": prefix }),
        StringMatch { regex: Some(regex), .. } => json!({ "regex": regex }),
        _ => json!({ "present": true }),
    }
}

/// What must not be: a header that is absent is as if it were empty.
fn absent(value: &StringMatch) -> Json {
    if value.regex.as_deref() == Some("*") || *value == StringMatch::default() {
        return json!({ "present": false });
    }
    let mut text = text(value);
    text["invert"] = json!(true);
    text
}

fn action(rule: &HttpRoute, block: Option<&HttpMatch>, service: &Named<VirtualService>, here: Here<'_>, variants: &mut Variants) -> Json {
    let mut action = json!({});
    if let Some(redirect) = &rule.redirect {
        action["redirect"] = redirected(redirect, block, here);
    } else if let Some(response) = &rule.direct_response {
        let body = response.body.as_ref().and_then(|body| body.string.clone().or_else(|| body.bytes.clone())).unwrap_or_default();
        action["respond"] = json!({ "status": response.status, "body": body });
    } else {
        action["forward"] = forward(rule, block, service, here);
    }
    if let Some(headers) = &rule.headers {
        set_headers(&mut action, headers);
    }
    let mut filters = json!({});
    if let Some(fault) = rule.fault.as_ref().and_then(fault) {
        filters["fault"] = json!({ "state": "ENABLED", "variant": Variants::keep(&mut variants.fault, fault) });
    }
    if let Some(policy) = &rule.cors_policy {
        filters["cors"] = json!({ "state": "ENABLED", "variant": Variants::keep(&mut variants.cors, cors(policy)) });
    }
    if filters != json!({}) {
        action["filters"] = filters;
    }
    action
}

fn forward(rule: &HttpRoute, block: Option<&HttpMatch>, service: &Named<VirtualService>, here: Here<'_>) -> Json {
    let namespace = &*service.id.namespace;
    let alone = rule.route.len() == 1;
    let used = rule.route.iter().filter(|one| alone || one.weight > 0);
    let clusters: Vec<Json> = used.map(|one| weighted(one, alone, namespace, here)).collect();
    let timeout = rule.timeout.map_or_else(|| "0s".to_owned(), seconds);
    let mut forward = json!({ "clusters": clusters, "timeout": timeout, "upgrades": ["*"] });
    if let Some(rewrite) = &rule.rewrite {
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            forward["path"] = json!({ "regex": { "pattern": regex.matches, "substitution": regex.rewrite } });
        } else if !rewrite.uri.is_empty() {
            forward["path"] = match block.and_then(|block| block.uri.as_ref()) {
                Some(StringMatch { prefix: Some(prefix), .. }) => json!({ "prefix": { "from": prefix, "to": rewrite.uri } }),
                None => json!({ "prefix": { "from": "/", "to": rewrite.uri } }),
                Some(_) => json!({ "full": rewrite.uri }),
            };
        }
        if !rewrite.authority.is_empty() {
            forward["host"] = json!({ "literal": rewrite.authority });
        }
    }
    if let Some(retry) = retry(rule.retries.as_ref(), here) {
        forward["retry"] = retry;
    }
    let mirrors = mirrors(rule, namespace, here);
    if !mirrors.is_empty() {
        forward["mirrors"] = Json::Array(mirrors);
    }
    let hash = rule.route.iter().filter_map(|one| one.destination.as_ref()).find_map(|one| hash_policy(one, namespace, here));
    if let Some(hash) = hash {
        forward["hash"] = json!([hash]);
    }
    forward
}

fn weighted(one: &HttpDestination, alone: bool, namespace: &str, here: Here<'_>) -> Json {
    let name = one.destination.as_ref().map(|destination| destination_cluster(destination, namespace, here)).unwrap_or_default();
    let mut cluster = json!({ "name": name });
    if !alone {
        cluster["weight"] = json!(one.weight);
    }
    if let Some(headers) = &one.headers {
        set_headers(&mut cluster, headers);
    }
    cluster
}

/// The cluster that a destination means.
#[must_use]
pub fn destination_cluster(destination: &Destination, namespace: &str, here: Here<'_>) -> String {
    let host = here.world.host(&destination.host, namespace);
    let service = here.world.registry.service(&host);
    let said = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok()).filter(|port| *port > 0);
    let only = service.and_then(|service| match service.ports.as_slice() {
        [port] => Some(port.number),
        _ => None,
    });
    cluster_name(said.or(only).unwrap_or(here.port), &destination.subset, &host)
}

fn mirrors(rule: &HttpRoute, namespace: &str, here: Here<'_>) -> Vec<Json> {
    let one = |destination: &Destination, percent: Option<f64>| {
        let mut mirror = json!({ "cluster": destination_cluster(destination, namespace, here) });
        if let Some(percent) = percent {
            mirror["percent"] = json!(percent);
        }
        mirror
    };
    let old = rule.mirror_percent.map(f64::from);
    let single = rule.mirror.iter().map(|destination| one(destination, rule.mirror_percentage.map(|percent| percent.value).or(old)));
    let listed =
        rule.mirrors.iter().filter_map(|mirror| Some(one(mirror.destination.as_ref()?, mirror.percentage.map(|percent| percent.value))));
    single.chain(listed).filter(|mirror| mirror["percent"] != json!(0.0)).collect()
}

/// How a consistent hash chooses, which Istio's destination rule says and the route does.
fn hash_policy(destination: &Destination, namespace: &str, here: Here<'_>) -> Option<Json> {
    let host = here.world.host(&destination.host, namespace);
    let service = here.world.registry.service(&host)?;
    let rule = here.world.destination_rule(&host, &service.namespace, here.namespace)?;
    let port = destination.port.as_ref().map_or(here.port, |port| u16::try_from(port.number).unwrap_or_default());
    let policy = crate::translate::policy::Policy::of(&rule.spec, port, &destination.subset);
    let hash = policy.load_balancer?.consistent_hash.as_ref()?;
    if let Some(header) = &hash.http_header_name {
        return Some(json!({ "header": header }));
    }
    if let Some(cookie) = &hash.http_cookie {
        let mut policy = json!({ "name": cookie.name });
        if let Some(ttl) = cookie.ttl {
            policy["ttl"] = json!(seconds(ttl));
        }
        if !cookie.path.is_empty() {
            policy["path"] = json!(cookie.path);
        }
        if !cookie.attributes.is_empty() {
            policy["attributes"] =
                cookie.attributes.iter().map(|one| (one.name.clone(), json!(one.value))).collect::<serde_json::Map<_, _>>().into();
        }
        return Some(json!({ "cookie": policy }));
    }
    if let Some(parameter) = &hash.http_query_parameter_name {
        return Some(json!({ "queryParameter": parameter }));
    }
    (hash.use_source_ip == Some(true)).then(|| json!({ "sourceAddress": true }))
}

/// Istio's default, the mesh's, or what the rule says; none where it says 0.
fn retry(said: Option<&Retries>, here: Here<'_>) -> Option<Json> {
    let of_mesh: Option<Retries> = here.world.mesh.default_http_retry_policy.clone().and_then(|policy| serde_json::from_value(policy).ok());
    let policy = said.or(of_mesh.as_ref());
    let attempts = policy.map_or(2, |policy| policy.attempts);
    if attempts <= 0 {
        return None;
    }
    let conditions = policy.map(|policy| policy.retry_on.as_str()).filter(|on| !on.is_empty());
    let conditions = conditions.unwrap_or("connect-failure,refused-stream,unavailable,cancelled");
    let (codes, names): (Vec<&str>, Vec<&str>) =
        conditions.split(',').map(str::trim).filter(|one| !one.is_empty()).partition(|one| one.bytes().all(|byte| byte.is_ascii_digit()));
    let mut names: Vec<&str> = names;
    let mut retry = json!({ "attempts": attempts, "hostAttempts": 5 });
    if !codes.is_empty() {
        retry["statusCodes"] = codes.iter().filter_map(|code| code.parse::<u32>().ok()).collect();
        if !names.contains(&"retriable-status-codes") {
            names.push("retriable-status-codes");
        }
    }
    retry["on"] = json!(names);
    if let Some(policy) = policy {
        if let Some(timeout) = policy.per_try_timeout {
            retry["perTryTimeout"] = json!(seconds(timeout));
        }
        if let Some(backoff) = policy.backoff {
            retry["backoffBase"] = json!(seconds(backoff));
        }
        if policy.retry_remote_localities == Some(true) {
            retry["previousPriorities"] = json!(true);
        }
        if policy.retry_ignore_previous_hosts == Some(false) {
            retry["hostAttempts"] = json!(0);
        }
    }
    Some(retry)
}

fn redirected(redirect: &Redirect, block: Option<&HttpMatch>, here: Here<'_>) -> Json {
    let mut action = json!({ "status": if redirect.redirect_code == 0 { 301 } else { redirect.redirect_code } });
    if !redirect.uri.is_empty() {
        action["path"] = json!({ "full": redirect.uri });
    } else if let Some(to) = &redirect.prefix_rewrite {
        let from = block.and_then(|block| block.uri.as_ref()?.prefix.as_deref()).unwrap_or("/");
        action["path"] = json!({ "prefix": { "from": from, "to": to } });
    }
    if !redirect.authority.is_empty() {
        action["host"] = json!(redirect.authority);
    }
    if !redirect.scheme.is_empty() {
        action["scheme"] = json!(redirect.scheme);
    }
    let port = match (redirect.port, redirect.derive_port) {
        (Some(port), _) => Some(port),
        (None, Some(DerivePort::FromRequestPort)) => Some(u32::from(here.port)),
        (None, _) => None,
    };
    // The scheme's own port is not written.
    let scheme_port = match redirect.scheme.as_str() {
        "https" => 443,
        _ => 80,
    };
    if let Some(port) = port.filter(|port| *port != scheme_port) {
        action["port"] = json!(port);
    }
    action
}

fn set_headers(target: &mut Json, headers: &crate::api::istio::virtual_service::Headers) {
    for (field, operations) in [("requestHeaders", &headers.request), ("responseHeaders", &headers.response)] {
        if let Some(operations) = operations {
            target[field] = header_operations(operations);
        }
    }
}

fn header_operations(operations: &HeaderOperations) -> Json {
    let list =
        |texts: &BTreeMap<String, String>| texts.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>();
    let mut json = json!({});
    if !operations.set.is_empty() {
        json["set"] = Json::Array(list(&operations.set));
    }
    if !operations.add.is_empty() {
        json["add"] = Json::Array(list(&operations.add));
    }
    if !operations.remove.is_empty() {
        json["remove"] = json!(operations.remove);
    }
    json
}

/// The configuration of the filter `fault`; none where nothing would ever happen, which is what no percentage means.
fn fault(fault: &Fault) -> Option<Json> {
    let mut config = json!({});
    if let Some(delay) = &fault.delay {
        let percent = delay.percentage.map_or_else(|| f64::from(delay.percent), |percent| percent.value);
        if let Some(fixed) = delay.fixed_delay.filter(|_| percent > 0.0) {
            config["delay"] = json!({ "fixed": seconds(fixed), "percent": percent });
        }
    }
    if let Some(abort) = &fault.abort {
        let percent = abort.percentage.map_or(0.0, |percent| percent.value);
        if percent > 0.0 {
            let mut failure = json!({ "percent": percent });
            if let Some(status) = abort.http_status {
                failure["status"] = json!(status);
            } else if let Some(status) = abort.grpc_status.as_deref().and_then(grpc_status) {
                failure["grpcStatus"] = json!(status);
            }
            config["abort"] = failure;
        }
    }
    (config != json!({})).then_some(config)
}

/// gRPC's numbers, by name.
fn grpc_status(name: &str) -> Option<usize> {
    const NAMES: [&str; 17] = [
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
    NAMES.iter().position(|known| *known == name).or_else(|| name.parse().ok().filter(|number| *number < NAMES.len()))
}

fn cors(policy: &CorsPolicy) -> Json {
    let old = policy.allow_origin.iter().map(|origin| json!({ "exact": origin }));
    let origins: Vec<Json> = old.chain(policy.allow_origins.iter().map(text)).collect();
    let mut config = json!({ "allowOrigins": origins });
    let lists =
        [("allowMethods", &policy.allow_methods), ("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)];
    for (field, list) in lists {
        if !list.is_empty() {
            config[field] = json!(list);
        }
    }
    if let Some(age) = policy.max_age {
        config["maxAge"] = json!(seconds(age));
    }
    if let Some(allow) = policy.allow_credentials {
        config["allowCredentials"] = json!(allow);
    }
    if policy.unmatched_preflights == UnmatchedPreflights::Ignore {
        config["unmatchedPreflights"] = json!("ignore");
    }
    config
}

/// As the schema writes durations.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    let std = duration.std();
    match std.subsec_nanos() {
        0 => format!("{}s", std.as_secs()),
        nanos => format!("{}.{}s", std.as_secs(), format!("{nanos:09}").trim_end_matches('0')),
    }
}
