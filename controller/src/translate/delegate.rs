//! VirtualServices that hand some of their requests to others.
//!
//! A root has hosts, a delegate none. A delegate's rule is used where it lies inside the root's; what lies outside is dropped. What a delegate does not
//! say, its root does. There is one level: a delegate's own delegates do nothing.

use crate::api::istio::virtual_service::{Headers, HttpMatch, HttpRoute};
use crate::api::istio::{StringMatch, VirtualService};
use crate::translate::world::Named;

/// The virtual services with hosts, in the order given, with what they delegate in its place.
pub(super) fn resolve(all: Vec<Named<VirtualService>>) -> Vec<Named<VirtualService>> {
    let (mut roots, delegates): (Vec<_>, Vec<_>) = all.into_iter().partition(|service| !service.spec.hosts.is_empty());
    for root in &mut roots {
        let namespace = root.id.namespace.clone();
        let routes = std::mem::take(&mut root.spec.http);
        for route in routes {
            let Some(wanted) = &route.delegate else {
                root.spec.http.push(route);
                continue;
            };
            let place = if wanted.namespace.is_empty() { &namespace } else { &std::sync::Arc::from(wanted.namespace.as_str()) };
            let found = delegates
                .iter()
                .find(|one| one.id.namespace == *place && *one.id.name == *wanted.name && one.visibility.reaches(&namespace));
            // One that is missing makes its rule vanish, and no other.
            let inner = found.map(|found| found.spec.http.as_slice()).unwrap_or_default();
            root.spec.http.extend(inner.iter().filter_map(|inner| merge(&route, inner)));
        }
    }
    roots
}

/// A delegate's rule as its root has it; none where it lies outside.
fn merge(root: &HttpRoute, inner: &HttpRoute) -> Option<HttpRoute> {
    let mut merged = inner.clone();
    merged.matches = match (root.matches.as_slice(), inner.matches.as_slice()) {
        (outer, []) => outer.to_vec(),
        ([], inner) => inner.to_vec(),
        (outer, inner) => {
            let both: Vec<HttpMatch> = inner.iter().flat_map(|leaf| outer.iter().filter_map(|root| narrow(root, leaf))).collect();
            if both.is_empty() {
                return None;
            }
            both
        }
    };
    merged.delegate = None;
    merged.name = match (root.name.as_str(), inner.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (root, inner) => format!("{root}-{inner}"),
    };
    merged.rewrite = merged.rewrite.or_else(|| root.rewrite.clone());
    merged.timeout = merged.timeout.or(root.timeout);
    merged.retries = merged.retries.or_else(|| root.retries.clone());
    merged.fault = merged.fault.or_else(|| root.fault.clone());
    merged.cors_policy = merged.cors_policy.or_else(|| root.cors_policy.clone());
    if merged.mirror.is_none() && merged.mirrors.is_empty() {
        merged.mirror.clone_from(&root.mirror);
        merged.mirrors.clone_from(&root.mirrors);
        merged.mirror_percent = root.mirror_percent;
        merged.mirror_percentage = root.mirror_percentage;
    }
    merged.headers = match (&root.headers, merged.headers) {
        (Some(root), Some(inner)) => Some(join(root, inner)),
        (root, inner) => inner.or_else(|| root.clone()),
    };
    Some(merged)
}

fn join(root: &Headers, mut inner: Headers) -> Headers {
    for (outer, inner) in [(&root.request, &mut inner.request), (&root.response, &mut inner.response)] {
        let Some(outer) = outer else { continue };
        let inner = inner.get_or_insert_default();
        for (into, from) in [(&mut inner.set, &outer.set), (&mut inner.add, &outer.add)] {
            for (name, value) in from {
                into.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        inner.remove.extend(outer.remove.iter().cloned());
    }
    inner
}

/// What both conditions mean; none where they contradict each other, or the inner one is not inside.
fn narrow(root: &HttpMatch, leaf: &HttpMatch) -> Option<HttpMatch> {
    let inside = |outer: &Option<StringMatch>, inner: &Option<StringMatch>| match (outer, inner) {
        (Some(outer), Some(inner)) => is_inside(outer, inner),
        _ => true,
    };
    let texts = [(&root.uri, &leaf.uri), (&root.scheme, &leaf.scheme), (&root.method, &leaf.method), (&root.authority, &leaf.authority)];
    let maps = [(&root.headers, &leaf.headers), (&root.query_params, &leaf.query_params), (&root.without_headers, &leaf.without_headers)];
    let agree = texts.iter().all(|(outer, inner)| inside(outer, inner))
        && maps.iter().all(|(outer, inner)| outer.iter().all(|(name, outer)| inner.get(name).is_none_or(|inner| is_inside(outer, inner))))
        && (leaf.uri.is_none() || root.uri.is_none() || root.ignore_uri_case == leaf.ignore_uri_case)
        && (root.port == 0 || leaf.port == 0 || root.port == leaf.port)
        && (root.source_namespace.is_empty() || leaf.source_namespace.is_empty() || root.source_namespace == leaf.source_namespace)
        && root.source_labels.iter().all(|(key, value)| leaf.source_labels.get(key).is_none_or(|inner| inner == value))
        && (root.gateways.is_empty() || leaf.gateways.iter().all(|gateway| root.gateways.contains(gateway)));
    if !agree {
        return None;
    }
    let mut both = leaf.clone();
    if both.uri.is_none() {
        both.uri.clone_from(&root.uri);
        both.ignore_uri_case = root.ignore_uri_case;
    }
    for (into, from) in [(&mut both.scheme, &root.scheme), (&mut both.method, &root.method), (&mut both.authority, &root.authority)] {
        if into.is_none() {
            into.clone_from(from);
        }
    }
    let maps = [
        (&mut both.headers, &root.headers),
        (&mut both.query_params, &root.query_params),
        (&mut both.without_headers, &root.without_headers),
    ];
    for (into, from) in maps {
        for (name, value) in from {
            into.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    for (key, value) in &root.source_labels {
        both.source_labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if both.port == 0 {
        both.port = root.port;
    }
    if both.source_namespace.is_empty() {
        both.source_namespace.clone_from(&root.source_namespace);
    }
    if both.gateways.is_empty() {
        both.gateways.clone_from(&root.gateways);
    }
    Some(both)
}

/// Whether every text that the inner condition means is meant by the outer one. Of regular expressions nobody can say.
fn is_inside(outer: &StringMatch, inner: &StringMatch) -> bool {
    match (outer, inner) {
        (StringMatch { regex: Some(_), .. }, _) | (_, StringMatch { regex: Some(_), .. }) => false,
        (StringMatch { prefix: Some(outer), .. }, StringMatch { prefix: Some(inner), .. } | StringMatch { exact: Some(inner), .. }) => {
            inner.starts_with(outer.as_str())
        }
        (StringMatch { exact: Some(outer), .. }, StringMatch { exact: Some(inner), .. }) => outer == inner,
        (StringMatch { exact: Some(_), .. }, StringMatch { prefix: Some(_), .. }) => false,
        _ => true,
    }
}
