//! DestinationRule: its host, its subsets and their policies.

use std::collections::BTreeSet;

use super::{At, locality, names, policy, values};
use crate::Code;
use crate::api::istio::DestinationRule;
use crate::api::istio::destination_rule::{
    ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, H2UpgradePolicy, HttpPool, LoadBalancer, OutlierDetection, PortPolicy,
    RetryBudget, SimpleLb, Subset, TcpPool, TrafficPolicy, Tunnel,
};

/// A maglev table must be smaller than this prime.
const MAX_TABLE: u64 = 5_000_011;

pub(super) fn check(at: &At<'_>, spec: &DestinationRule) {
    match spec.host.as_str() {
        "" => at.missing("host is missing"),
        host => at.key("host").check(names::wildcard(host)),
    }
    at.some("trafficPolicy", spec.traffic_policy.as_ref(), check_policy);
    let list = at.key("subsets");
    let mut names_seen = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let here = list.index(index);
        if !names_seen.insert(&*subset.name) {
            here.key("name").conflict(format!("there is a subset `{}` already", subset.name));
        }
        check_subset(&here, subset);
    }
    names::check_export_to(at, &spec.export_to, false, spec.workload_selector.is_some());
    policy::check_rule_selector(at, spec.workload_selector.as_ref());
}

fn check_subset(at: &At<'_>, subset: &Subset) {
    if subset.name.is_empty() {
        at.missing("the name of the subset is missing");
    } else {
        at.key("name").check(names::subset(&subset.name));
    }
    names::check_labels(&at.key("labels"), &subset.labels);
    at.some("trafficPolicy", subset.traffic_policy.as_ref(), check_policy);
}

fn check_policy(at: &At<'_>, policy: &TrafficPolicy) {
    if *policy == (TrafficPolicy { retry_budget: policy.retry_budget.clone(), ..TrafficPolicy::default() }) && policy.retry_budget.is_none()
    {
        at.missing("a traffic policy needs at least one field");
    }
    at.at_most_one(&[("tunnel", policy.tunnel.is_some()), ("proxyProtocol", policy.proxy_protocol.is_some())]);
    let outlier = policy.outlier_detection.as_ref();
    at.some("outlierDetection", outlier, check_outlier);
    at.some("connectionPool", policy.connection_pool.as_ref(), check_pool);
    at.some("loadBalancer", policy.load_balancer.as_ref(), |at, settings| check_balancer(at, settings, outlier.is_some()));
    at.some("tls", policy.tls.as_ref(), check_tls);
    at.key("portLevelSettings").at_most(4096, policy.port_level_settings.len());
    at.each("portLevelSettings", &policy.port_level_settings, check_port);
    at.some("tunnel", policy.tunnel.as_ref(), check_tunnel);
    at.some("retryBudget", policy.retry_budget.as_ref(), check_budget);
}

fn check_port(at: &At<'_>, policy: &PortPolicy) {
    if policy.port.is_none() {
        at.missing("port is missing");
    }
    if *policy == (PortPolicy { port: policy.port.clone(), ..PortPolicy::default() }) {
        at.missing("the policy of a port needs at least one field");
    }
    let outlier = policy.outlier_detection.as_ref();
    at.some("outlierDetection", outlier, check_outlier);
    at.some("connectionPool", policy.connection_pool.as_ref(), check_pool);
    at.some("loadBalancer", policy.load_balancer.as_ref(), |at, settings| check_balancer(at, settings, outlier.is_some()));
    at.some("tls", policy.tls.as_ref(), check_tls);
}

fn check_tunnel(at: &At<'_>, tunnel: &Tunnel) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        at.key("protocol").invalid(format!("`{}` is neither CONNECT nor POST", tunnel.protocol));
    }
    if names::ip(&tunnel.target_host).is_err() {
        at.key("targetHost").check(names::fqdn(&tunnel.target_host));
    }
    at.key("targetPort").check(names::port(tunnel.target_port));
}

fn check_budget(at: &At<'_>, budget: &RetryBudget) {
    at.some("percent", budget.percent.as_ref(), |at, percent| at.check(values::share(*percent)));
    at.some("budgetInterval", budget.budget_interval.as_ref(), |at, interval| at.check(values::duration_or_zero(*interval)));
}

fn check_outlier(at: &At<'_>, outlier: &OutlierDetection) {
    values::check_duration(at, "baseEjectionTime", outlier.base_ejection_time);
    values::check_duration(at, "interval", outlier.interval);
    if outlier.consecutive_errors != 0 {
        at.key("consecutiveErrors").tell(
            Code::NoEffect,
            "this is an older field, which counts nothing any more",
            "Write consecutive5xxErrors or consecutiveGatewayErrors.",
        );
    }
    if !outlier.split_external_local_origin_errors && outlier.consecutive_local_origin_failures.unwrap_or(0) > 0 {
        at.key("consecutiveLocalOriginFailures").conflict("it needs splitExternalLocalOriginErrors: true");
    }
    at.each("outlierDetectionHttpErrorCodes", &outlier.outlier_detection_http_error_codes, |at, code| {
        if code.as_f64().is_some_and(|code| !(100.0..=599.0).contains(&code)) {
            at.invalid(format!("{code} is not a status within 100 to 599"));
        }
    });
    at.key("maxEjectionPercent").check(values::percent(outlier.max_ejection_percent));
    at.key("minHealthPercent").check(values::percent(outlier.min_health_percent));
}

/// Limits of connections and requests.
pub(super) fn check_pool(at: &At<'_>, pool: &ConnectionPool) {
    if pool.http.is_none() && pool.tcp.is_none() {
        at.missing("a connection pool needs http or tcp");
    }
    at.some("http", pool.http.as_ref(), check_http_pool);
    at.some("tcp", pool.tcp.as_ref(), check_tcp_pool);
}

fn check_counts(at: &At<'_>, counts: &[(&str, i32)]) {
    for (key, count) in counts.iter().filter(|(_, count)| *count < 0) {
        at.key(key).invalid(format!("{count} is less than 0"));
    }
}

fn check_http_pool(at: &At<'_>, pool: &HttpPool) {
    check_counts(
        at,
        &[
            ("http1MaxPendingRequests", pool.http1_max_pending_requests),
            ("http2MaxRequests", pool.http2_max_requests),
            ("maxRequestsPerConnection", pool.max_requests_per_connection),
            ("maxRetries", pool.max_retries),
            ("maxConcurrentStreams", pool.max_concurrent_streams),
        ],
    );
    at.some("idleTimeout", pool.idle_timeout.as_ref(), |at, timeout| at.check(values::duration_or_zero(*timeout)));
    if pool.h2_upgrade_policy == H2UpgradePolicy::Upgrade && pool.use_client_protocol {
        at.key("useClientProtocol").conflict("it contradicts h2UpgradePolicy: UPGRADE");
    }
    at.some("http2KeepAlive", pool.http2_keep_alive.as_ref(), |at, pings| {
        for (key, value) in [("interval", pings.interval), ("timeout", pings.timeout)] {
            match value {
                None => at.missing(format!("{key} is missing")),
                Some(value) => at.key(key).check(values::duration(value)),
            }
        }
    });
}

fn check_tcp_pool(at: &At<'_>, pool: &TcpPool) {
    check_counts(at, &[("maxConnections", pool.max_connections)]);
    values::check_duration(at, "connectTimeout", pool.connect_timeout);
    values::check_duration(at, "maxConnectionDuration", pool.max_connection_duration);
    at.some("idleTimeout", pool.idle_timeout.as_ref(), |at, timeout| at.check(values::duration_or_zero(*timeout)));
    at.some("tcpKeepalive", pool.tcp_keepalive.as_ref(), |at, probes| {
        values::check_duration(at, "time", probes.time);
        values::check_duration(at, "interval", probes.interval);
    });
}

fn check_balancer(at: &At<'_>, settings: &LoadBalancer, outlier: bool) {
    at.at_most_one(&[("simple", settings.simple.is_some()), ("consistentHash", settings.consistent_hash.is_some())]);
    at.some("consistentHash", settings.consistent_hash.as_ref(), check_hash);
    at.at_most_one(&[
        ("localityLbSetting", settings.locality_lb_setting.is_some()),
        ("zoneAwareLbSetting", settings.zone_aware_lb_setting.is_some()),
    ]);
    at.some("localityLbSetting", settings.locality_lb_setting.as_ref(), |at, setting| locality::check(at, setting, outlier));
    at.some("zoneAwareLbSetting", settings.zone_aware_lb_setting.as_ref(), |at, setting| locality::check_zone_aware(at, setting, outlier));
    values::check_duration(at, "warmupDurationSecs", settings.warmup_duration_secs);
    at.at_most_one(&[("warmup", settings.warmup.is_some()), ("warmupDurationSecs", settings.warmup_duration_secs.is_some())]);
    at.some("warmup", settings.warmup.as_ref(), |at, warmup| {
        match warmup.duration {
            None => at.missing("duration is missing"),
            Some(duration) => at.key("duration").check(values::duration(duration)),
        }
        at.some("minimumPercent", warmup.minimum_percent.as_ref(), |at, percent| at.check(values::share(*percent)));
        if warmup.aggression.is_some_and(|aggression| aggression < 1.0) {
            at.key("aggression").invalid("it must be 1 or more");
        }
    });
    let spares =
        matches!(settings.simple, None | Some(SimpleLb::RoundRobin | SimpleLb::LeastRequest | SimpleLb::LeastConn | SimpleLb::Unspecified));
    if (settings.warmup.is_some() || settings.warmup_duration_secs.is_some()) && (!spares || settings.consistent_hash.is_some()) {
        at.no_effect("only ROUND_ROBIN and LEAST_REQUEST spare new endpoints");
    }
}

fn check_hash(at: &At<'_>, hash: &ConsistentHash) {
    at.at_most_one(&[
        ("httpHeaderName", hash.http_header_name.is_some()),
        ("httpCookie", hash.http_cookie.is_some()),
        ("useSourceIp", hash.use_source_ip.is_some()),
        ("httpQueryParameterName", hash.http_query_parameter_name.is_some()),
    ]);
    at.at_most_one(&[
        ("minimumRingSize", hash.minimum_ring_size != 0),
        ("ringHash", hash.ring_hash.is_some()),
        ("maglev", hash.maglev.is_some()),
    ]);
    at.some("httpCookie", hash.http_cookie.as_ref(), |at, cookie| {
        if cookie.name.is_empty() {
            at.missing("the name of the cookie is missing");
        }
        at.some("ttl", cookie.ttl.as_ref(), |at, ttl| {
            if ttl.nanos < 0 {
                at.invalid("it is less than nothing");
            }
        });
        let list = at.key("attributes");
        for (index, attribute) in cookie.attributes.iter().enumerate().take(super::MAX_COMPARED) {
            if attribute.name.is_empty() {
                list.index(index).missing("the name of the attribute is missing");
            } else if cookie.attributes[..index].iter().any(|other| other.name == attribute.name) {
                list.index(index).conflict(format!("there is an attribute `{}` already", attribute.name));
            }
        }
    });
    if hash.minimum_ring_size != 0 {
        at.key("minimumRingSize").tell(
            Code::NoEffect,
            "this is the older form of the ring's size",
            "Write `ringHash: {minimumRingSize: …}`.",
        );
    }
    at.some("maglev", hash.maglev.as_ref(), |at, maglev| {
        let at = at.key("tableSize");
        if maglev.table_size == 0 {
            at.invalid("the size of the table must be set");
        } else if maglev.table_size >= MAX_TABLE {
            at.invalid(format!("the table must be smaller than {MAX_TABLE}"));
        } else if !is_prime(maglev.table_size) {
            at.invalid("the size of the table must be a prime number");
        }
    });
}

/// For what is smaller than the square of a few thousand; 1 counts, as it does for Envoy.
fn is_prime(number: u64) -> bool {
    matches!(number, 1..=3)
        || (number > 1
            && !number.is_multiple_of(2)
            && (3..).step_by(2).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor)))
}

/// How TLS is spoken to endpoints.
pub(super) fn check_tls(at: &At<'_>, tls: &ClientTls) {
    use ClientTlsMode::{IstioMutual, Mutual, Simple};
    if tls.insecure_skip_verify == Some(true) && matches!(tls.mode, Simple | Mutual) {
        let checks = [
            ("caCertificates", !tls.ca_certificates.is_empty()),
            ("credentialName", !tls.credential_name.is_empty() && tls.mode == Simple),
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ];
        for (key, _) in checks.into_iter().filter(|(_, set)| *set) {
            at.key(key).conflict("insecureSkipVerify is set, so nothing is checked with it");
        }
    }
    let files = [
        ("clientCertificate", !tls.client_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("caCrl", !tls.ca_crl.is_empty()),
    ];
    if matches!(tls.mode, Simple | Mutual) && !tls.credential_name.is_empty() {
        for (key, _) in files.into_iter().filter(|(_, set)| *set) {
            at.key(key).conflict("the Secret of credentialName has it");
        }
        return;
    }
    if tls.mode == Mutual {
        for (key, _) in files[..2].iter().filter(|(_, set)| !*set) {
            at.missing(format!("MUTUAL needs {key}, or credentialName"));
        }
    }
    if tls.mode == IstioMutual {
        for (key, _) in files.into_iter().filter(|(_, set)| *set) {
            at.key(key).no_effect("ISTIO_MUTUAL uses the mesh's certificates");
        }
    }
}
