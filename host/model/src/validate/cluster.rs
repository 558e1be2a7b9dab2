//! Clusters, their endpoints, and how those are chosen and watched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::check::{Check, Zero, is_token, short};
use super::secret;
use crate::address::{Address, is_host_name};
use crate::config::{
    Balancer, Cluster, Dns, Endpoint, Endpoints, HealthCheck, OutlierDetection, SlowStart, SubsetFallback, UpstreamProtocol, balancer,
    cluster, health_check,
};
use crate::diagnostic::Code;
use crate::path::At;
use crate::resource::Kind;

/// The ring's and the table's sizes, and priorities, as others have them.
const MAX_RING: u32 = 8 << 20;
const MAX_TABLE: u32 = 5_000_011;
const MAX_PRIORITY: u32 = 127;
/// Connections that a worker opens unasked.
const MAX_WARM: u32 = 1000;

pub(super) fn cluster(check: &mut Check<'_>, at: &At<'_>, cluster: &Cluster) {
    check.name(at, &cluster.name);
    match &cluster.discovery {
        None => check.error(
            at,
            Code::Missing,
            "it is not said where its endpoints are",
            "write one of `endpoints`, `endpointsFrom`, `dns` and `originalDestination`",
        ),
        Some(cluster::Discovery::Endpoints(list)) => endpoints(check, &at.field("endpoints"), list),
        Some(cluster::Discovery::EndpointsFrom(name)) => {
            let name = if name.is_empty() { &cluster.name } else { name };
            check.reference(&at.field("endpointsFrom"), Kind::Endpoints, name);
        }
        Some(cluster::Discovery::Dns(settings)) => dns(check, &at.field("dns"), settings),
        Some(cluster::Discovery::OriginalDestination(settings)) => {
            let here = at.field("originalDestination");
            check.within(&here.field("port"), settings.port, 0, 65_535);
            if !settings.header.is_empty() {
                check.header_name(&here.field("header"), &settings.header);
                check.warning(
                    &here.field("header"),
                    Code::Insecure,
                    "clients may name any address that this proxy reaches",
                    "remove it unless all clients are trusted",
                );
            }
        }
    }
    if let Some(settings) = &cluster.balancer {
        balancer(check, &at.field("balancer"), settings);
    }
    if let Some(tls) = &cluster.tls {
        secret::upstream_tls(check, &at.field("tls"), tls);
    } else if cluster.protocol() == UpstreamProtocol::Negotiate {
        check.warning(
            &at.field("protocol"),
            Code::NoEffect,
            "without TLS nothing is negotiated: HTTP/1.1 is spoken",
            "add `tls`, or write `protocol: http2`",
        );
    }
    connections(check, at, cluster);
    if let Some(detection) = &cluster.outlier_detection {
        outliers(check, &at.field("outlierDetection"), detection);
    }
    let list = at.field("healthChecks");
    for (index, one) in cluster.health_checks.iter().enumerate() {
        health(check, &list.index(index), one);
    }
}

fn connections(check: &mut Check<'_>, at: &At<'_>, cluster: &Cluster) {
    check.durations(at, Zero::Wrong, &[("connectTimeout", cluster.connect_timeout)]);
    check.durations(at, Zero::Fine, &[("idleTimeout", cluster.idle_timeout), ("keepalive", cluster.keepalive)]);
    check.within(&at.field("warmConnections"), cluster.warm_connections, 0, MAX_WARM);
    check.within(&at.field("proxyProtocol"), cluster.proxy_protocol, 0, 2);
    if !cluster.source_address.is_empty() && cluster.source_address.parse::<IpAddr>().is_err() {
        let help = "write an address of this machine without a port: `10.0.0.1`";
        check.error(
            &at.field("sourceAddress"),
            Code::InvalidAddress,
            format!("`{}` is no IP address", short(&cluster.source_address)),
            help,
        );
    }
    if let Some(budget) = cluster.circuit_breakers.as_ref().and_then(|breakers| breakers.retry_budget.as_ref()) {
        let here = at.field("circuitBreakers");
        let here = here.field("retryBudget");
        check.percent(&here.field("percent"), budget.percent);
    }
}

pub(super) fn endpoints_resource(check: &mut Check<'_>, at: &At<'_>, list: &Endpoints) {
    check.name(at, &list.name);
    endpoints(check, at, list);
}

fn endpoints(check: &mut Check<'_>, at: &At<'_>, endpoints: &Endpoints) {
    check.within(&at.field("panicThreshold"), endpoints.panic_threshold.unwrap_or(0), 0, 100);
    if endpoints.overprovisioning != 0 {
        check.within(&at.field("overprovisioning"), endpoints.overprovisioning, 100, 100_000);
    }
    let list = at.field("localities");
    let mut weights: BTreeMap<u32, u64> = BTreeMap::new();
    for (index, locality) in endpoints.localities.iter().enumerate() {
        let here = list.index(index);
        check.within(&here.field("priority"), locality.priority, 0, MAX_PRIORITY);
        *weights.entry(locality.priority).or_default() += u64::from(locality.weight);
        let items = here.field("endpoints");
        check.weights(&items, locality.endpoints.iter().map(|endpoint| endpoint.weight.max(1)));
        for (index, one) in locality.endpoints.iter().enumerate() {
            endpoint(check, &items.index(index), one);
        }
    }
    if weights.values().any(|sum| *sum > u64::from(u32::MAX)) {
        check.error(
            &list,
            Code::OutOfRange,
            "the weights of a priority add up to more than 4294967295",
            "divide all of them by the same number",
        );
    }
}

fn endpoint(check: &mut Check<'_>, at: &At<'_>, endpoint: &Endpoint) {
    let here = at.field("address");
    if let Some(Address::Socket(socket)) = check.address(&here, &endpoint.address, false)
        && socket.ip().is_unspecified()
    {
        check.error(
            &here,
            Code::InvalidAddress,
            format!("`{}` is no address that one can connect to", socket.ip()),
            "write the address of the server",
        );
    }
    if !endpoint.hostname.is_empty() {
        check.authority(&at.field("hostname"), &endpoint.hostname);
    }
}

fn dns(check: &mut Check<'_>, at: &At<'_>, dns: &Dns) {
    let list = at.field("names");
    if dns.names.is_empty() {
        check.error(&list, Code::Missing, "there is no name to look up", "write `names: [{name: HOST, port: 80}]`");
    } else if dns.logical && dns.names.len() > 1 {
        check.error(
            &at.field("logical"),
            Code::Conflict,
            "a logical cluster has one name",
            "write `logical: false`, or a cluster for each name",
        );
    }
    for (index, one) in dns.names.iter().enumerate() {
        let here = list.index(index);
        if one.name.is_empty() {
            check.error(&here.field("name"), Code::Missing, "the name is missing", "");
        } else if !is_host_name(&one.name) && one.name.parse::<IpAddr>().is_err() {
            let help = if one.name.contains(':') { "the port stands in `port`" } else { "write it as DNS knows it: `a.example.com`" };
            check.error(&here.field("name"), Code::InvalidName, format!("`{}` is no host name", short(&one.name)), help);
        }
        if one.port == 0 {
            check.error(&here.field("port"), Code::Missing, "the port is missing", "write `port: 80`");
        } else {
            check.within(&here.field("port"), one.port, 1, 65_535);
        }
        check.within(&here.field("priority"), one.priority, 0, MAX_PRIORITY);
    }
    check.weights(&list, dns.names.iter().map(|name| name.weight.max(1)));
    check.durations(at, Zero::Fine, &[("minRefresh", dns.min_refresh)]);
    check.durations(at, Zero::Wrong, &[("refresh", dns.refresh)]);
    let list = at.field("servers");
    for (index, server) in dns.servers.iter().enumerate() {
        if let Some(Address::Unix(_)) = check.address(&list.index(index), server, false) {
            check.error(&list.index(index), Code::InvalidAddress, "a name server has an IP address", "write `10.0.0.53:53`");
        }
    }
}

fn balancer(check: &mut Check<'_>, at: &At<'_>, balancer: &Balancer) {
    match &balancer.policy {
        Some(balancer::Policy::LeastRequest(policy)) if policy.choices != 0 => {
            let here = at.field("leastRequest");
            check.within(&here.field("choices"), policy.choices, 2, 100);
        }
        Some(balancer::Policy::PeakEwma(policy)) => {
            let here = at.field("peakEwma");
            check.duration(&here.field("decay"), policy.decay, Zero::Wrong);
        }
        Some(balancer::Policy::RingHash(policy)) => {
            let here = at.field("ringHash");
            check.within(&here.field("minSize"), policy.min_size, 0, MAX_RING);
            check.within(&here.field("maxSize"), policy.max_size, 0, MAX_RING);
            let min = if policy.min_size == 0 { 1024 } else { policy.min_size };
            if policy.max_size != 0 && policy.max_size < min {
                check.error(
                    &here.field("maxSize"),
                    Code::Conflict,
                    format!("`maxSize` is below `minSize`, which is {min}"),
                    "exchange them",
                );
            }
        }
        Some(balancer::Policy::Maglev(policy)) => {
            let here = at.field("maglev");
            table(check, &here.field("tableSize"), policy.table_size);
        }
        _ => {}
    }
    if let Some(settings) = &balancer.slow_start {
        slow_start(check, &at.field("slowStart"), settings);
    }
    let list = at.field("subsets");
    let mut seen = BTreeSet::new();
    for (index, subset) in balancer.subsets.iter().enumerate() {
        let here = list.index(index);
        let here = here.field("keys");
        if subset.keys.iter().all(String::is_empty) {
            check.error(&here, Code::Missing, "a subset needs the names of labels", "write `keys: [version]`");
        } else if !seen.insert(subset.keys.iter().collect::<BTreeSet<_>>()) {
            check.error(&here, Code::DuplicateName, "these labels stand here twice", "remove one of them");
        }
    }
    if balancer.subsets.is_empty() && balancer.subset_fallback() != SubsetFallback::NoEndpoint {
        check.warning(&at.field("subsetFallback"), Code::NoEffect, "`subsetFallback` has no effect without `subsets`", "");
    }
}

/// The size of a Maglev table.
fn table(check: &mut Check<'_>, at: &At<'_>, size: u32) {
    check.within(at, size, 0, MAX_TABLE);
    let prime = |number: u32| number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor));
    if size != 0 && size <= MAX_TABLE && !prime(size) {
        let next = (size..=MAX_TABLE).find(|number| prime(*number)).unwrap_or(MAX_TABLE);
        check.error(at, Code::OutOfRange, format!("{size} is no prime"), format!("write {next}"));
    }
}

fn slow_start(check: &mut Check<'_>, at: &At<'_>, settings: &SlowStart) {
    if settings.window.is_none() {
        check.error(&at.field("window"), Code::Missing, "it is not said how long the slow start lasts", "write `window: 30s`");
    }
    check.duration(&at.field("window"), settings.window, Zero::Wrong);
    check.within(&at.field("minWeightPercent"), settings.min_weight_percent, 0, 100);
    if let Some(aggression) = settings.aggression
        && !(aggression > 0.0 && aggression.is_finite())
    {
        check.error(
            &at.field("aggression"),
            Code::OutOfRange,
            format!("{aggression} is out of range"),
            "write a number above 0; 1 is linear",
        );
    }
}

fn outliers(check: &mut Check<'_>, at: &At<'_>, detection: &OutlierDetection) {
    let base = ("baseEjectionTime", detection.base_ejection_time);
    let most = ("maxEjectionTime", detection.max_ejection_time);
    check.durations(at, Zero::Wrong, &[("interval", detection.interval), base, most]);
    check.in_order(at, base, most);
    check.within(&at.field("maxEjectionPercent"), detection.max_ejection_percent.unwrap_or(0), 0, 100);
    check.within(&at.field("minHealthPercent"), detection.min_health_percent, 0, 100);
}

fn health(check: &mut Check<'_>, at: &At<'_>, health: &HealthCheck) {
    check.durations(at, Zero::Wrong, &[("interval", health.interval), ("timeout", health.timeout)]);
    check.within(&at.field("port"), health.port, 0, 65_535);
    match &health.check {
        None => check.error(at, Code::Missing, "it is not said how health is checked", "write one of `http`, `grpc` and `tcp`"),
        Some(health_check::Check::Tcp(_)) => {}
        Some(health_check::Check::Grpc(grpc)) => {
            if !grpc.authority.is_empty() {
                let here = at.field("grpc");
                check.authority(&here.field("authority"), &grpc.authority);
            }
        }
        Some(health_check::Check::Http(http)) => http_check(check, &at.field("http"), http),
    }
}

fn http_check(check: &mut Check<'_>, at: &At<'_>, http: &health_check::HttpCheck) {
    let path = http.path.split_once('?').map_or(&*http.path, |(path, _)| path);
    if !path.is_empty() {
        check.path(&at.field("path"), path);
    }
    check.header_value(&at.field("path"), &http.path);
    if !http.host.is_empty() {
        check.authority(&at.field("host"), &http.host);
    }
    if !http.method.is_empty() && !is_token(&http.method) {
        check.error(&at.field("method"), Code::InvalidName, format!("`{}` is no method", short(&http.method)), "write `GET` or `HEAD`");
    }
    let list = at.field("expected");
    for (index, range) in http.expected.iter().enumerate() {
        let here = list.index(index);
        check.within(&here.field("from"), range.from, 100, 599);
        if range.to != 0 {
            check.within(&here.field("to"), range.to, 100, 599);
            if range.to < range.from {
                check.error(&here.field("to"), Code::Conflict, "`to` is below `from`", "exchange them");
            }
        }
    }
    let list = at.field("headers");
    for (index, header) in http.headers.iter().enumerate() {
        let here = list.index(index);
        check.header_name(&here.field("name"), &header.name);
        check.header_value(&here.field("value"), &header.value);
    }
}
