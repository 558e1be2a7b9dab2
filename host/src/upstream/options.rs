//! A cluster's settings with every default filled in, in the units that the code uses.
//!
//! Made once from `weir.config.v1` on the control thread. What another part of the proxy reads (TLS, metadata) stays in the configuration message.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use weir_model::config;

use super::{Invalid, Nanos, nanos};

/// What a limit of zero means.
const NO_LIMIT: u32 = u32::MAX;

/// A duration of the schema; negative ones count as zero, absurd ones as a century.
macro_rules! duration {
    ($field:expr) => {
        $field.as_ref().map(|given| {
            let seconds = u64::try_from(given.seconds).unwrap_or(0).min(100 * 365 * 86_400);
            Duration::new(seconds, u32::try_from(given.nanos).unwrap_or(0).min(999_999_999))
        })
    };
}
pub(crate) use duration;

/// Everything that the code of this module tree asks about a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How endpoints are found.
    pub discovery: Discovery,
    /// How one is chosen.
    pub policy: Policy,
    /// Gentle start of new endpoints.
    pub slow_start: Option<SlowStart>,
    /// Label keys that make subsets, each sorted.
    pub subsets: Vec<Vec<String>>,
    /// A request whose subset is empty gets any endpoint.
    pub subset_fallback_any: bool,
    /// Endpoints of the node's own locality first.
    pub zone_aware: bool,
    /// Circuit breakers.
    pub breakers: BreakerLimits,
    /// Outlier detection.
    pub outlier: Option<OutlierOptions>,
    /// Active health checks; an endpoint must pass all of them.
    pub health_checks: Vec<HealthCheckOptions>,
    /// Longest time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Longest time that a pooled connection stays without a request, if said.
    pub idle_timeout: Option<Duration>,
    /// Requests on one connection.
    pub max_requests_per_connection: u32,
    /// HTTP/2 streams on one connection at once.
    pub max_concurrent_streams: u32,
    /// Connections to open before they are asked for, per worker.
    pub warm_connections: u32,
    /// Version of the PROXY protocol header to begin with.
    pub proxy_protocol: Option<u8>,
    /// Silence before the first keep-alive probe.
    pub keepalive: Duration,
    /// Where upstream sockets are bound.
    pub source_address: Option<IpAddr>,
    /// Which HTTP version the endpoints speak.
    pub protocol: config::UpstreamProtocol,
}

/// How endpoints are found.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// Written in the cluster.
    Static,
    /// A resource of this name.
    Named(String),
    /// Names, resolved again and again.
    Dns(DnsOptions),
    /// Where the connection was going.
    OriginalDestination {
        /// Port instead of the original one.
        port: Option<u16>,
        /// Request header that overrides the address.
        header: Option<String>,
    },
}

/// DNS discovery.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsOptions {
    /// What to resolve.
    pub names: Vec<config::DnsName>,
    /// One endpoint with rotating addresses instead of one per address.
    pub logical: bool,
    /// Shortest time between two lookups.
    pub min_refresh: Duration,
    /// Instead of the record's TTL.
    pub refresh: Option<Duration>,
    /// Which addresses are wanted.
    pub family: Family,
    /// Servers to ask; the system's if empty.
    pub servers: Vec<SocketAddr>,
}

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, then IPv6 if there is none.
    Auto,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    All,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// In turn, by weight.
    RoundRobin,
    /// The least busy of so many random ones.
    LeastRequest {
        /// How many to compare.
        choices: u32,
    },
    /// The lower of two by latency × load.
    PeakEwma {
        /// How quickly an old peak is forgotten.
        decay: Nanos,
    },
    /// By chance, by weight.
    Random,
    /// Consistent hashing on a ring.
    RingHash {
        /// Least entries.
        min_size: u32,
        /// Most entries.
        max_size: u32,
    },
    /// Consistent hashing by table.
    Maglev {
        /// A prime.
        table_size: u32,
    },
}

/// Gentle start of new endpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long it takes.
    pub window: Nanos,
    /// Least part of the weight, 0 to 1.
    pub min_weight: f64,
    /// 1 is linear, more is faster at first.
    pub aggression: f64,
}

/// Circuit breakers; `u32::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerLimits {
    /// Connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests.
    pub requests: u32,
    /// Retries in progress.
    pub retries: u32,
    /// Retries in progress in relation to requests in progress.
    pub budget: Option<RetryBudget>,
}

/// Retries in progress in relation to requests in progress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Part of the requests, 0 to 1.
    pub part: f64,
    /// Always allowed.
    pub min_concurrency: u32,
}

/// Outlier detection; a threshold of 0 is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierOptions {
    /// Server errors in a row.
    pub consecutive_5xx: u32,
    /// Gateway errors in a row.
    pub consecutive_gateway: u32,
    /// Failures to connect or resets in a row, counted apart from server errors.
    pub consecutive_local: u32,
    /// Time between looks at success rates and ended ejections.
    pub interval: Duration,
    /// Times the number of ejections so far.
    pub base_ejection: Nanos,
    /// Longest ejection.
    pub max_ejection: Nanos,
    /// Most endpoints that may be ejected, in percent, one at least.
    pub max_percent: u32,
    /// No more ejections while fewer are healthy, in percent.
    pub min_health_percent: u32,
    /// Comparison of success rates.
    pub success_rate: Option<SuccessRateOptions>,
}

/// Comparison of success rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRateOptions {
    /// Endpoints with enough requests.
    pub minimum_hosts: u32,
    /// What is enough, in an interval.
    pub request_volume: u32,
    /// Standard deviations below the mean.
    pub stdev_factor: f64,
}

/// An active health check.
#[derive(Clone, Debug)]
pub struct HealthCheckOptions {
    /// Time between two checks.
    pub interval: Duration,
    /// Longest check.
    pub timeout: Duration,
    /// Successes in a row that make it healthy again.
    pub healthy_threshold: u32,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_threshold: u32,
    /// Port instead of the endpoint's.
    pub port: Option<u16>,
    /// What is asked.
    pub check: Check,
}

/// What a health check asks.
#[derive(Clone, Debug)]
pub enum Check {
    /// An HTTP request.
    Http {
        /// Request target.
        path: String,
        /// `host`.
        host: String,
        /// Method.
        method: String,
        /// Inclusive ranges of statuses that are healthy.
        expected: Vec<(u16, u16)>,
        /// More headers.
        headers: Vec<(String, String)>,
    },
    /// `grpc.health.v1`.
    Grpc {
        /// Service that is asked for; empty is the server as a whole.
        service: String,
        /// `:authority`.
        authority: String,
    },
    /// A connection, and what is said on it.
    Tcp {
        /// Bytes to send.
        send: Bytes,
        /// What the answer begins with.
        expect: Bytes,
    },
}

impl ClusterOptions {
    /// Fills in the defaults.
    ///
    /// # Errors
    /// What cannot be used, with its path in the cluster.
    pub fn compile(cluster: &config::Cluster) -> Result<Self, Invalid> {
        let balancer = cluster.balancer.clone().unwrap_or_default();
        Ok(Self {
            discovery: discovery(cluster)?,
            policy: policy(&balancer)?,
            slow_start: slow_start(&balancer),
            subsets: balancer.subsets.iter().map(|subset| sorted(&subset.keys)).collect(),
            subset_fallback_any: balancer.subset_fallback == config::SubsetFallback::AnyEndpoint as i32,
            zone_aware: balancer.zone_aware,
            breakers: breakers(cluster.circuit_breakers.as_ref()),
            outlier: cluster.outlier_detection.as_ref().map(outlier),
            health_checks: cluster
                .health_checks
                .iter()
                .enumerate()
                .map(|(at, check)| health_check(&cluster.name, at, check))
                .collect::<Result<_, _>>()?,
            connect_timeout: duration!(cluster.connect_timeout).unwrap_or(Duration::from_secs(5)),
            idle_timeout: duration!(cluster.idle_timeout),
            max_requests_per_connection: limit(cluster.max_requests_per_connection),
            max_concurrent_streams: or(cluster.max_concurrent_streams, 100),
            warm_connections: cluster.warm_connections,
            proxy_protocol: proxy_protocol(cluster.proxy_protocol)?,
            keepalive: duration!(cluster.keepalive).unwrap_or(Duration::from_secs(60)),
            source_address: source_address(&cluster.source_address)?,
            protocol: config::UpstreamProtocol::try_from(cluster.protocol).map_err(|_| Invalid::new("protocol", "no such protocol"))?,
        })
    }
}

fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

fn limit(value: u32) -> u32 {
    or(value, NO_LIMIT)
}

fn text_or(value: &str, default: &str) -> String {
    if value.is_empty() { default.to_owned() } else { value.to_owned() }
}

fn sorted(keys: &[String]) -> Vec<String> {
    let mut keys = keys.to_vec();
    keys.sort();
    keys.dedup();
    keys
}

fn port(value: u32, path: &str) -> Result<Option<u16>, Invalid> {
    match u16::try_from(value) {
        Ok(0) => Ok(None),
        Ok(port) => Ok(Some(port)),
        Err(_) => Err(Invalid::new(path, "a port is at most 65535")),
    }
}

fn proxy_protocol(version: u32) -> Result<Option<u8>, Invalid> {
    match version {
        0 => Ok(None),
        1 => Ok(Some(1)),
        2 => Ok(Some(2)),
        _ => Err(Invalid::new("proxyProtocol", "there are versions 1 and 2")),
    }
}

fn source_address(text: &str) -> Result<Option<IpAddr>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Invalid::new("sourceAddress", format!("`{text}` is not an IP address")))
}

fn discovery(cluster: &config::Cluster) -> Result<Discovery, Invalid> {
    use config::cluster::Discovery as Given;
    Ok(match &cluster.discovery {
        None | Some(Given::Endpoints(_)) => Discovery::Static,
        Some(Given::EndpointsFrom(name)) => Discovery::Named(text_or(name, &cluster.name)),
        Some(Given::Dns(dns)) => Discovery::Dns(dns_options(dns)?),
        Some(Given::OriginalDestination(given)) => Discovery::OriginalDestination {
            port: port(given.port, "originalDestination.port")?,
            header: (!given.header.is_empty()).then(|| given.header.to_ascii_lowercase()),
        },
    })
}

fn dns_options(dns: &config::Dns) -> Result<DnsOptions, Invalid> {
    use config::dns::Family as Given;
    let family = match Given::try_from(dns.family) {
        Ok(Given::V4Only) => Family::V4,
        Ok(Given::V6Only) => Family::V6,
        Ok(Given::All) => Family::All,
        Ok(Given::Auto) | Err(_) => Family::Auto,
    };
    let mut servers = Vec::with_capacity(dns.servers.len());
    for (at, server) in dns.servers.iter().enumerate() {
        let address = server.parse().or_else(|_| server.parse().map(|ip| SocketAddr::new(ip, 53)));
        servers
            .push(address.map_err(|_| Invalid::new(format!("dns.servers[{at}]"), format!("`{server}` is not an IP address with a port")))?);
    }
    for (at, name) in dns.names.iter().enumerate() {
        let path = format!("dns.names[{at}]");
        if name.name.is_empty() {
            return Err(Invalid::new(format!("{path}.name"), "missing"));
        }
        if port(name.port, &path)?.is_none() {
            return Err(Invalid::new(format!("{path}.port"), "missing"));
        }
    }
    Ok(DnsOptions {
        names: dns.names.clone(),
        logical: dns.logical,
        min_refresh: duration!(dns.min_refresh).unwrap_or(Duration::from_secs(5)).max(Duration::from_millis(1)),
        refresh: duration!(dns.refresh),
        family,
        servers,
    })
}

fn policy(balancer: &config::Balancer) -> Result<Policy, Invalid> {
    use config::balancer::Policy as Given;
    Ok(match &balancer.policy {
        None | Some(Given::RoundRobin(_)) => Policy::RoundRobin,
        Some(Given::LeastRequest(given)) => Policy::LeastRequest { choices: or(given.choices, 2) },
        Some(Given::PeakEwma(given)) => {
            Policy::PeakEwma { decay: nanos(duration!(given.decay).unwrap_or(Duration::from_secs(10))).max(1_000_000) }
        }
        Some(Given::Random(_)) => Policy::Random,
        Some(Given::RingHash(given)) => {
            let max_size = or(given.max_size, 8 << 20);
            let min_size = or(given.min_size, 1024.min(max_size));
            if max_size > 8 << 20 || min_size > max_size {
                return Err(Invalid::new("balancer.ringHash", "sizes are at most 8388608, and `minSize` at most `maxSize`"));
            }
            Policy::RingHash { min_size, max_size }
        }
        Some(Given::Maglev(given)) => {
            let table_size = or(given.table_size, 65_537);
            if table_size > 5_000_011 || !is_prime(table_size) {
                return Err(Invalid::new("balancer.maglev.tableSize", "must be a prime, at most 5000011"));
            }
            Policy::Maglev { table_size }
        }
    })
}

fn is_prime(number: u32) -> bool {
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn slow_start(balancer: &config::Balancer) -> Option<SlowStart> {
    let given = balancer.slow_start.as_ref()?;
    let window = nanos(duration!(given.window)?);
    let aggression = given.aggression.filter(|aggression| aggression.is_finite() && *aggression > 0.0).unwrap_or(1.0);
    (window > 0).then(|| SlowStart { window, min_weight: f64::from(or(given.min_weight_percent, 10).min(100)) / 100.0, aggression })
}

fn breakers(given: Option<&config::CircuitBreakers>) -> BreakerLimits {
    let Some(given) = given else {
        return BreakerLimits { connections: NO_LIMIT, pending: NO_LIMIT, requests: NO_LIMIT, retries: NO_LIMIT, budget: None };
    };
    BreakerLimits {
        connections: limit(given.max_connections),
        pending: limit(given.max_pending_requests),
        requests: limit(given.max_requests),
        retries: limit(given.max_retries),
        budget: given.retry_budget.as_ref().map(|budget| RetryBudget {
            part: budget.percent.filter(|percent| percent.is_finite()).unwrap_or(20.0).clamp(0.0, 100.0) / 100.0,
            min_concurrency: or(budget.min_concurrency, 3),
        }),
    }
}

fn outlier(given: &config::OutlierDetection) -> OutlierOptions {
    OutlierOptions {
        consecutive_5xx: given.consecutive_5xx.unwrap_or(5),
        consecutive_gateway: given.consecutive_gateway_errors.unwrap_or(0),
        consecutive_local: given.consecutive_local_failures.unwrap_or(0),
        interval: duration!(given.interval).unwrap_or(Duration::from_secs(10)).max(Duration::from_millis(1)),
        base_ejection: nanos(duration!(given.base_ejection_time).unwrap_or(Duration::from_secs(30))),
        max_ejection: nanos(duration!(given.max_ejection_time).unwrap_or(Duration::from_secs(300))),
        max_percent: given.max_ejection_percent.unwrap_or(10).min(100),
        min_health_percent: given.min_health_percent.min(100),
        success_rate: given.success_rate.as_ref().map(|rate| SuccessRateOptions {
            minimum_hosts: or(rate.minimum_hosts, 5),
            request_volume: or(rate.request_volume, 100),
            stdev_factor: f64::from(or(rate.stdev_factor, 1900)) / 1000.0,
        }),
    }
}

fn health_check(cluster: &str, at: usize, given: &config::HealthCheck) -> Result<HealthCheckOptions, Invalid> {
    let path = format!("healthChecks[{at}]");
    Ok(HealthCheckOptions {
        interval: duration!(given.interval).unwrap_or(Duration::from_secs(5)).max(Duration::from_millis(1)),
        timeout: duration!(given.timeout).unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(1)),
        healthy_threshold: or(given.healthy_threshold, 2),
        unhealthy_threshold: or(given.unhealthy_threshold, 3),
        port: port(given.port, &format!("{path}.port"))?,
        check: check(cluster, &path, given)?,
    })
}

fn check(cluster: &str, path: &str, given: &config::HealthCheck) -> Result<Check, Invalid> {
    use config::health_check::Check as Given;
    Ok(match &given.check {
        None => Check::Tcp { send: Bytes::new(), expect: Bytes::new() },
        Some(Given::Tcp(tcp)) => Check::Tcp { send: tcp.send.clone(), expect: tcp.expect.clone() },
        Some(Given::Grpc(grpc)) => Check::Grpc { service: grpc.service.clone(), authority: text_or(&grpc.authority, cluster) },
        Some(Given::Http(http)) => {
            let headers: Vec<_> = http.headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.clone())).collect();
            let check = Check::Http {
                path: text_or(&http.path, "/"),
                host: text_or(&http.host, cluster),
                method: text_or(&http.method, "GET"),
                expected: expected(path, &http.expected)?,
                headers,
            };
            refuse_unsafe_text(path, &check)?;
            check
        }
    })
}

fn expected(path: &str, ranges: &[config::health_check::StatusRange]) -> Result<Vec<(u16, u16)>, Invalid> {
    if ranges.is_empty() {
        return Ok(vec![(200, 200)]);
    }
    let status = |value: u32| u16::try_from(value).map_err(|_| Invalid::new(format!("{path}.http.expected"), "a status has three digits"));
    ranges.iter().map(|range| Ok((status(range.from)?, status(or(range.to, range.from))?))).collect()
}

/// What goes into a request is written as it stands, so it must not end a line.
fn refuse_unsafe_text(path: &str, check: &Check) -> Result<(), Invalid> {
    let Check::Http { path: target, host, method, headers, .. } = check else { return Ok(()) };
    let plain = |text: &str| text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    let value = |text: &str| text.bytes().all(|byte| (byte >= b' ' && byte != 0x7f) || byte == b'\t');
    let named = |(name, text): &(String, String)| !name.is_empty() && plain(name) && !name.contains(':') && value(text);
    if !plain(target) || !plain(host) || !plain(method) || !headers.iter().all(named) {
        return Err(Invalid::new(format!("{path}.http"), "control characters and spaces cannot be sent"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cluster_gets_the_documented_defaults() {
        let options = ClusterOptions::compile(&config::Cluster { name: "a".to_owned(), ..Default::default() }).unwrap();
        assert_eq!(options.discovery, Discovery::Static);
        assert_eq!(options.policy, Policy::RoundRobin);
        assert_eq!(options.connect_timeout, Duration::from_secs(5));
        assert_eq!(options.max_concurrent_streams, 100);
        assert_eq!(options.breakers.requests, u32::MAX);
        assert!(options.outlier.is_none() && options.health_checks.is_empty() && options.slow_start.is_none());
    }

    #[test]
    fn outlier_detection_of_nothing_gets_its_defaults() {
        let options = outlier(&config::OutlierDetection::default());
        assert_eq!((options.consecutive_5xx, options.consecutive_gateway, options.consecutive_local), (5, 0, 0));
        assert_eq!((options.base_ejection, options.max_ejection, options.max_percent), (30_000_000_000, 300_000_000_000, 10));
    }

    #[test]
    fn refuses_what_cannot_work_by_name() {
        let balancer = |policy| config::Balancer { policy: Some(policy), ..Default::default() };
        let maglev = policy(&balancer(config::balancer::Policy::Maglev(config::Maglev { table_size: 65_536 })));
        assert_eq!(maglev.unwrap_err().path, "balancer.maglev.tableSize");
        let ring = policy(&balancer(config::balancer::Policy::RingHash(config::RingHash { min_size: 10, max_size: 5 })));
        assert_eq!(ring.unwrap_err().path, "balancer.ringHash");
        let cluster = config::Cluster { proxy_protocol: 3, ..Default::default() };
        assert_eq!(ClusterOptions::compile(&cluster).unwrap_err().path, "proxyProtocol");
        let cluster = config::Cluster { source_address: "eth0".to_owned(), ..Default::default() };
        assert_eq!(ClusterOptions::compile(&cluster).unwrap_err().path, "sourceAddress");
    }

    #[test]
    fn a_health_check_cannot_smuggle_a_line() {
        let http = config::health_check::HttpCheck { path: "/ok HTTP/1.1\r\nx: y".to_owned(), ..Default::default() };
        let given = config::HealthCheck { check: Some(config::health_check::Check::Http(http)), ..Default::default() };
        assert_eq!(health_check("a", 0, &given).unwrap_err().path, "healthChecks[0].http");
    }

    #[test]
    fn primes_are_recognised() {
        let primes: Vec<u32> = (0..30).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(65_537) && is_prime(5_000_011) && !is_prime(65_536));
    }
}
