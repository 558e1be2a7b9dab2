//! DestinationRule: how the endpoints of a host are grouped, chosen and connected to.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::common::{Duration, PortSelector, Selector, Texts};

/// How the endpoints of a host are grouped, chosen and connected to.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    /// The host, which may begin with `*.`.
    pub host: String,
    /// What holds for all subsets.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Groups of endpoints by label.
    pub subsets: Vec<Subset>,
    /// The namespaces that see it: `.`, `*` or names.
    pub export_to: Vec<String>,
    /// The clients of the namespace that it is for; none is all.
    pub workload_selector: Option<Selector>,
}

/// A group of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// All of these the endpoint must have.
    pub labels: Texts,
    /// What takes the place of the rule's policy, field by field.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How endpoints are chosen and connected to.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// How one of them is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// How much goes to them.
    pub connection_pool: Option<ConnectionPool>,
    /// When one of them is left out.
    pub outlier_detection: Option<OutlierDetection>,
    /// How TLS is spoken to them; what the mesh does if it is not written.
    pub tls: Option<ClientTls>,
    /// What holds for single ports, instead of all of the above.
    pub port_level_settings: Vec<PortPolicy>,
    /// Goes through an HTTP proxy.
    pub tunnel: Option<Tunnel>,
    /// The PROXY header that is sent to them.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many requests may be retries.
    pub retry_budget: Option<RetryBudget>,
}

/// What holds for a port.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortPolicy {
    /// Which.
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// How much goes to them.
    pub connection_pool: Option<ConnectionPool>,
    /// When one of them is left out.
    pub outlier_detection: Option<OutlierDetection>,
    /// How TLS is spoken to them.
    pub tls: Option<ClientTls>,
}

/// How an endpoint is chosen: one of `simple` and `consistentHash`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// By a rule that knows nothing of the request.
    pub simple: Option<SimpleLb>,
    /// By something of the request, so that the same endpoint is chosen again.
    pub consistent_hash: Option<ConsistentHash>,
    /// How places count.
    pub locality_lb_setting: Option<LocalityLb>,
    /// How places count, the newer way.
    pub zone_aware_lb_setting: Option<ZoneAwareLb>,
    /// How long a new endpoint is spared, as it was written once.
    pub warmup_duration_secs: Option<Duration>,
    /// How a new endpoint is spared.
    pub warmup: Option<Warmup>,
}

/// Rules that know nothing of the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// Istio's choice: the one with fewer requests of two.
    #[default]
    Unspecified,
    /// The older name of least request.
    LeastConn,
    /// Any.
    Random,
    /// The address that the client was connecting to.
    Passthrough,
    /// One after the other.
    RoundRobin,
    /// The one with fewer requests of two.
    LeastRequest,
}

/// Which of the request the endpoint follows from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// A header.
    pub http_header_name: Option<String>,
    /// A cookie, which is made if it is not there.
    pub http_cookie: Option<Cookie>,
    /// The client's address.
    pub use_source_ip: Option<bool>,
    /// A parameter of the query.
    pub http_query_parameter_name: Option<String>,
    /// By a ring.
    pub ring_hash: Option<RingHash>,
    /// By a table.
    pub maglev: Option<Maglev>,
    /// The ring's size, as it was written once.
    pub minimum_ring_size: u64,
}

/// A cookie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// How long it lives; 0 is for the session.
    pub ttl: Option<Duration>,
    /// Further attributes.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a cookie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A ring of hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// Its least size; 1024 if it is not written.
    pub minimum_ring_size: u64,
}

/// A table of hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Maglev {
    /// Its size, a prime; 65537 if it is not written.
    pub table_size: u64,
}

/// How places count: one of `distribute`, `failover` and `failoverPriority`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLb {
    /// How traffic from a place is shared out.
    pub distribute: Vec<Distribute>,
    /// Which region takes over for which.
    pub failover: Vec<Failover>,
    /// Labels that endpoints are preferred by.
    pub failover_priority: Vec<String>,
    /// Whether places count at all; what the mesh does if it is not written.
    pub enabled: Option<bool>,
}

/// How traffic from a place is shared out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Distribute {
    /// `region/zone/subzone`, which may end in `*`.
    pub from: String,
    /// Per cent to each place.
    pub to: BTreeMap<String, u32>,
}

/// Which region takes over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failover {
    /// For this one.
    pub from: String,
    /// This one.
    pub to: String,
}

/// How places count, the newer way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareLb {
    /// Whether places count at all.
    pub enabled: Option<bool>,
    /// Which region takes over for which.
    pub failover: Vec<Failover>,
    /// Labels that endpoints are preferred by.
    pub failover_priority: Vec<String>,
    /// Below so many endpoints places do not count.
    pub min_cluster_size: Option<u32>,
}

/// How a new endpoint is spared.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    /// How long.
    pub duration: Option<Duration>,
    /// What it gets at first, in per cent of its share; 10 if it is not written.
    pub minimum_percent: Option<f64>,
    /// How its share grows; 1, evenly, if it is not written.
    pub aggression: Option<f64>,
}

/// How much goes to the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPool {
    /// For connections.
    pub tcp: Option<TcpPool>,
    /// For requests.
    pub http: Option<HttpPool>,
}

/// Limits of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpPool {
    /// How many at most; 0 is no limit.
    pub max_connections: i32,
    /// How long connecting may take; 10 s if it is not written.
    pub connect_timeout: Option<Duration>,
    /// Probes of connections that are idle.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How old one may become.
    pub max_connection_duration: Option<Duration>,
    /// How long one may be idle; 1 h if it is not written.
    pub idle_timeout: Option<Duration>,
}

/// Probes of connections that are idle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// How many without an answer.
    pub probes: u32,
    /// After what time the first is sent.
    pub time: Option<Duration>,
    /// The time between them.
    pub interval: Option<Duration>,
}

/// Limits of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPool {
    /// How many may wait for a connection.
    pub http1_max_pending_requests: i32,
    /// How many may be under way.
    pub http2_max_requests: i32,
    /// How many a connection carries; 0 is no limit, 1 is no keep-alive.
    pub max_requests_per_connection: i32,
    /// How many retries may be under way.
    pub max_retries: i32,
    /// How long a connection may be without requests; 1 h if it is not written.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/2 is spoken where HTTP/1 was asked for.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Whether the client's protocol is spoken.
    pub use_client_protocol: bool,
    /// How many streams an HTTP/2 connection has at once.
    pub max_concurrent_streams: i32,
    /// Pings on HTTP/2 connections.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// Whether HTTP/2 is spoken where HTTP/1 was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// What the mesh says: no.
    #[default]
    Default,
    /// No.
    DoNotUpgrade,
    /// Yes.
    Upgrade,
}

/// Pings on HTTP/2 connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    /// The time between them.
    pub interval: Option<Duration>,
    /// How long an answer may take.
    pub timeout: Option<Duration>,
}

/// When an endpoint is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Failures in a row, as it was written once.
    pub consecutive_errors: i32,
    /// Whether failures that the proxy found are counted apart.
    pub split_external_local_origin_errors: bool,
    /// Failures that the proxy found, in a row; 5 if it is not written.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row; off if it is not written.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; 5 if it is not written, 0 is off.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// How often it is looked; 10 s if it is not written.
    pub interval: Option<Duration>,
    /// How long one is left out the first time; 30 s if it is not written.
    pub base_ejection_time: Option<Duration>,
    /// How many at most, in per cent; 10 if it is not written.
    pub max_ejection_percent: i32,
    /// Below so many healthy, in per cent, it is not done.
    pub min_health_percent: i32,
    /// Status codes that count as failures; 5xx if none is written.
    pub outlier_detection_http_error_codes: Vec<Json>,
}

/// How TLS is spoken to endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// Whether, and with which certificates.
    pub mode: ClientTlsMode,
    /// A file with the certificate.
    pub client_certificate: String,
    /// A file with its key.
    pub private_key: String,
    /// A file with the roots that the endpoint is checked against.
    pub ca_certificates: String,
    /// A Secret with all three.
    pub credential_name: String,
    /// Names that the endpoint's certificate may have.
    pub subject_alt_names: Vec<String>,
    /// The name that is asked for.
    pub sni: String,
    /// Whether the endpoint is not checked.
    pub insecure_skip_verify: Option<bool>,
    /// A file with certificates that no longer count.
    pub ca_crl: String,
}

/// How TLS is spoken to endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// Not.
    #[default]
    Disable,
    /// Without a certificate of the client.
    Simple,
    /// With one.
    Mutual,
    /// With the mesh's.
    IstioMutual,
}

/// Goes through an HTTP proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tunnel {
    /// `CONNECT`, which it is if it is not written, or `POST`.
    pub protocol: String,
    /// Where the proxy is asked to connect to.
    pub target_host: String,
    /// The port there.
    pub target_port: u32,
}

/// The PROXY header that is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// Its version.
    pub version: ProxyProtocolVersion,
}

/// Versions of the PROXY header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum ProxyProtocolVersion {
    /// As text.
    #[default]
    V1,
    /// In binary.
    V2,
}

/// How many requests may be retries.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// In per cent of the requests; 20 if it is not written.
    pub percent: Option<f64>,
    /// So many always; 3 if it is not written.
    pub min_retry_concurrency: u32,
    /// Over what time requests are counted.
    pub budget_interval: Option<Duration>,
}
