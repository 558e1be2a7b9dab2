//! Listeners: addresses, branches and what tells them apart.

use std::collections::HashMap;

use super::check::{Check, Zero, short};
use super::{http, secret};
use crate::address::{Address, Cidr, is_host_name};
use crate::config::{Branch, Listener, Match, OriginalDestination, Tcp, Transport, branch, proxy_protocol};
use crate::diagnostic::Code;
use crate::path::At;
use crate::resource::Kind;

/// Combinations of criteria on one listener.
const MAX_COMBINATIONS: usize = 65_536;
/// Length of the queue of connections.
const MAX_BACKLOG: u32 = 1 << 20;

pub(super) fn listener(check: &mut Check<'_>, at: &At<'_>, listener: &Listener) {
    check.name(at, &listener.name);
    let here = at.field("address");
    let address = check.address(&here, &listener.address, true);
    if matches!(address, Some(Address::Unix(_))) && listener.original_destination() != OriginalDestination::None {
        check.error(
            &at.field("originalDestination"),
            Code::Conflict,
            "a Unix socket's connections have no original destination",
            "remove it",
        );
    }
    if let Some(proxy) = &listener.proxy_protocol {
        let here = at.field("proxyProtocol");
        check.ranges(&here.field("trusted"), &proxy.trusted);
        if proxy.trusted.is_empty() && proxy.mode() == proxy_protocol::Mode::Optional {
            check.warning(
                &here,
                Code::Insecure,
                "every client may claim another address",
                "write the ranges of your load balancers: `trusted: [10.0.0.0/8]`",
            );
        }
    }
    check.duration(&at.field("detectTimeout"), listener.detect_timeout, Zero::Wrong);
    if let Some(tcp) = &listener.tcp {
        let here = at.field("tcp");
        check.duration(&here.field("keepalive"), tcp.keepalive, Zero::Fine);
        check.within(&here.field("backlog"), tcp.backlog, 0, MAX_BACKLOG);
    }
    branches(check, at, listener);
}

fn branches(check: &mut Check<'_>, at: &At<'_>, listener: &Listener) {
    let list = at.field("branches");
    if listener.branches.is_empty() && listener.default_branch.is_none() {
        check.error(
            &list,
            Code::Missing,
            "it is not said what connections meet",
            "write `branches: [{http: {...}}]` or `branches: [{tcp: {...}}]`",
        );
    }
    check.distinct(&list, "branch of this listener", listener.branches.iter().map(|branch| &*branch.name));
    for (index, one) in listener.branches.iter().enumerate() {
        branch(check, &list.index(index), one);
    }
    if let Some(one) = &listener.default_branch {
        let here = at.field("defaultBranch");
        branch(check, &here, one);
        if one.r#match.is_some() {
            check.warning(
                &here.field("match"),
                Code::NoEffect,
                "the default branch serves what no other does, whatever it says here",
                "remove `match`",
            );
        }
    }
    equal(check, &list, &listener.branches);
}

/// Branches that serve the same connections: which of them wins would be chance.
fn equal(check: &mut Check<'_>, at: &At<'_>, branches: &[Branch]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut left = MAX_COMBINATIONS;
    for (index, one) in branches.iter().enumerate() {
        let criteria = one.r#match.as_ref().map_or_else(|| sets(&Match::default()), sets);
        let count = criteria.iter().fold(1usize, |count, set| count.saturating_mul(set.len()));
        let here = at.index(index);
        let here = here.field("match");
        let Some(rest) = left.checked_sub(count) else {
            let help = "split the listener, or match by fewer criteria at once";
            check.error(&here, Code::TooLarge, format!("a listener has at most {MAX_COMBINATIONS} combinations of criteria"), help);
            return;
        };
        left = rest;
        let combinations = criteria.iter().fold(vec![String::new()], |combinations, set| {
            combinations.iter().flat_map(|start| set.iter().map(move |item| format!("{start}{item}\n"))).collect()
        });
        let mut first = None;
        for combination in combinations {
            match seen.get(&combination) {
                Some(other) if *other != index => first = first.or(Some(*other)),
                Some(_) => {}
                None => drop(seen.insert(combination, index)),
            }
        }
        if let Some(first) = first {
            let other = at.index(first);
            let place = check.places.find(&other).map_or_else(String::new, |place| format!(", at {place}"));
            let message = format!("it serves connections that `{other}` serves too{place}");
            check.error(&here, Code::EqualMatch, message, "let the two differ in a port, range, server name, transport or protocol");
        }
    }
}

/// The criteria in a form that is the same for equal ones; an empty field is one that matches all.
fn sets(criteria: &Match) -> [Vec<String>; 6] {
    let text = |list: &[String]| list.iter().map(|text| text.to_ascii_lowercase()).collect();
    let ranges =
        |list: &[String]| list.iter().map(|text| text.parse::<Cidr>().map_or_else(|_| text.clone(), |range| range.to_string())).collect();
    let mut sets: [Vec<String>; 6] = [
        criteria.destination_ports.iter().map(u32::to_string).collect(),
        ranges(&criteria.destination_ranges),
        text(&criteria.server_names),
        vec![criteria.transport.to_string()],
        criteria.application_protocols.clone(),
        ranges(&criteria.source_ranges),
    ];
    for set in &mut sets {
        set.sort_unstable();
        set.dedup();
        if set.is_empty() {
            set.push(String::new());
        }
    }
    sets
}

fn branch(check: &mut Check<'_>, at: &At<'_>, branch: &Branch) {
    let transport = branch.r#match.as_ref().map_or(Transport::Any, Match::transport);
    if let Some(criteria) = &branch.r#match {
        matching(check, &at.field("match"), criteria);
    }
    if let Some(tls) = &branch.tls {
        let here = at.field("tls");
        secret::downstream_tls(check, &here, tls);
        if transport == Transport::Plaintext && !tls.permissive {
            check.error(
                &here,
                Code::Conflict,
                "this branch serves plain text only, so that its TLS never begins",
                "write `transport: tls`, or remove `tls`",
            );
        }
    }
    match &branch.protocol {
        None => check.error(at, Code::Missing, "it is not said which protocol is spoken", "write `http: {}` or `tcp: {}`"),
        Some(branch::Protocol::Http(settings)) => http::http(check, &at.field("http"), settings),
        Some(branch::Protocol::Tcp(settings)) => tcp(check, &at.field("tcp"), settings),
    }
}

fn matching(check: &mut Check<'_>, at: &At<'_>, criteria: &Match) {
    let list = at.field("destinationPorts");
    for (index, port) in criteria.destination_ports.iter().enumerate() {
        check.within(&list.index(index), *port, 1, 65_535);
    }
    check.ranges(&at.field("destinationRanges"), &criteria.destination_ranges);
    check.ranges(&at.field("sourceRanges"), &criteria.source_ranges);
    check.alpn(&at.field("applicationProtocols"), &criteria.application_protocols);
    let list = at.field("serverNames");
    for (index, name) in criteria.server_names.iter().enumerate() {
        let rest = name.strip_prefix("*.").unwrap_or(name);
        if !is_host_name(rest) {
            let help = if name == "*" {
                "leave `serverNames` out to match every name"
            } else if name.contains('*') {
                "a `*` stands for the first labels alone: `*.example.com`"
            } else if name.contains(':') {
                "a server name has no port"
            } else {
                "write `a.example.com` or `*.example.com`"
            };
            check.error(&list.index(index), Code::InvalidName, format!("`{}` is no server name", short(name)), help);
        }
    }
    if criteria.transport() == Transport::Plaintext && !(criteria.server_names.is_empty() && criteria.application_protocols.is_empty()) {
        let message = "plain text has neither server names nor ALPN, so that nothing matches";
        check.error(&at.field("transport"), Code::Conflict, message, "write `transport: tls`");
    }
}

fn tcp(check: &mut Check<'_>, at: &At<'_>, tcp: &Tcp) {
    if !tcp.filter_chain.is_empty() {
        check.reference(&at.field("filterChain"), Kind::FilterChain, &tcp.filter_chain);
    }
    super::route::clusters(check, &at.field("clusters"), &tcp.clusters);
    for (index, cluster) in tcp.clusters.iter().enumerate() {
        if cluster.request_headers.is_some() || cluster.response_headers.is_some() {
            let list = at.field("clusters");
            check.error(
                &list.index(index),
                Code::Conflict,
                "a TCP connection has no headers",
                "remove `requestHeaders` and `responseHeaders`",
            );
        }
    }
    check.durations(at, Zero::Fine, &[("idleTimeout", tcp.idle_timeout)]);
    check.durations(at, Zero::Wrong, &[("maxDuration", tcp.max_duration)]);
}
