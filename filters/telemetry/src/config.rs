//! What the operator writes.

use std::collections::BTreeMap;

use weir_sdk::config;

/// The configuration of the filter. Without anything written, it counts.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Telemetry {
    /// Which side of a call this proxy is on.
    pub reporter: Reporter,
    /// What this proxy stands for.
    pub workload: Workload,
    /// Istio's standard metrics.
    pub metrics: Metrics,
    /// Access logs; none unless written.
    pub access_logs: Vec<AccessLog>,
    /// Traces; none unless written.
    pub tracing: Option<Tracing>,
    /// How much of what is sent to collectors may wait.
    pub report: Report,
}

/// A side of a call.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// The side that is called: a sidecar's inbound listener, a gateway.
    #[default]
    Destination,
    /// The side that calls: a sidecar's outbound listener.
    Source,
}

/// What a proxy stands for. What is not written is `unknown`.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Workload {
    /// Of the deployment: `reviews-v1`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its cluster.
    pub cluster: String,
    /// Its label `app`.
    pub app: String,
    /// Its label `version`.
    pub version: String,
    /// Its canonical service: `reviews`.
    pub canonical_service: String,
    /// Its canonical revision: `v1`.
    pub canonical_revision: String,
    /// Its identity, where the connection does not show it: `spiffe://cluster.local/ns/default/sa/reviews`.
    pub principal: String,
    /// The host of the service that it serves: `reviews.default.svc.cluster.local`. Where it calls, the service follows from the cluster.
    pub service: String,
}

/// Istio's standard metrics.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Metrics {
    /// Counts nothing.
    pub disabled: bool,
    /// What is different, the later ones winning.
    pub overrides: Vec<Override>,
}

/// What is different about metrics.
#[config]
#[derive(Debug)]
pub struct Override {
    /// Which metric.
    #[serde(default)]
    pub metric: MetricName,
    /// On which side of a call.
    #[serde(default)]
    pub mode: Mode,
    /// Leaves it out, or brings it back.
    pub disabled: Option<bool>,
    /// Labels that it has, has not, or has from elsewhere.
    #[serde(default)]
    pub tags: BTreeMap<String, Tag>,
}

/// A metric, as Istio's Telemetry resource names it.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum MetricName {
    /// Every one.
    #[default]
    All,
    /// `istio_requests_total`.
    RequestCount,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestSize,
    /// `istio_response_bytes`.
    ResponseSize,
    /// `istio_request_messages_total`, of gRPC.
    GrpcRequestMessages,
    /// `istio_response_messages_total`, of gRPC.
    GrpcResponseMessages,
    /// `istio_tcp_connections_opened_total`.
    TcpOpenedConnections,
    /// `istio_tcp_connections_closed_total`.
    TcpClosedConnections,
    /// `istio_tcp_sent_bytes_total`.
    TcpSentBytes,
    /// `istio_tcp_received_bytes_total`.
    TcpReceivedBytes,
}

/// Sides of a call.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Both.
    #[default]
    ClientAndServer,
    /// Where the reporter is the source.
    Client,
    /// Where the reporter is the destination.
    Server,
}

impl Mode {
    /// Whether it means this side.
    #[must_use]
    pub fn means(self, reporter: Reporter) -> bool {
        match self {
            Self::ClientAndServer => true,
            Self::Client => reporter == Reporter::Source,
            Self::Server => reporter == Reporter::Destination,
        }
    }
}

/// Where a label or a tag comes from.
#[config]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// It is not there.
    Remove,
    /// An attribute, by its path with dots: `request.host`.
    Attribute(String),
    /// A request header.
    Header(String),
    /// Always the same.
    Literal(String),
}

/// An access log: where it goes, what a line says, and which requests it has.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct AccessLog {
    /// A file, `stdout` or `stderr`; the binding's `accessLogs` must allow it.
    pub path: Option<String>,
    /// A collector, instead of a file.
    pub otlp: Option<Collector>,
    /// The line, with Envoy's command operators; Istio's default unless this or `json` is written.
    pub text: Option<String>,
    /// A line of JSON: names, and texts with command operators. A text that is one operator becomes a number where its value is one, and null
    /// where there is none.
    pub json: Option<BTreeMap<String, serde_json::Value>>,
    /// Which requests; every one unless written.
    pub when: When,
    /// On which side of a call.
    pub mode: Mode,
}

/// Which requests are logged: those for which everything holds that is written.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct When {
    /// Only those that failed: a status of 400 or more, a gRPC status other than 0, or a response flag.
    pub errors_only: bool,
    /// Their status lies in one of these.
    pub status: Vec<StatusRange>,
    /// They took this long or longer.
    pub min_duration_ms: Option<u64>,
    /// So many of a hundred of them, by chance.
    pub percent: Option<f64>,
}

/// A range of statuses, both ends included.
#[config]
#[derive(Debug, Clone, Copy)]
pub struct StatusRange {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

/// Where telemetry is sent: a cluster of the proxy that the binding may call (`upstreams`).
#[config]
#[derive(Debug, Clone, Default)]
pub struct Collector {
    /// The cluster.
    pub cluster: String,
    /// The path; the format's own unless written: `/v1/traces`, `/v1/logs`, `/api/v2/spans`.
    pub path: Option<String>,
    /// The host that requests name; the cluster's name unless written.
    pub authority: Option<String>,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Traces.
#[config]
#[derive(Debug)]
#[serde(default)]
pub struct Tracing {
    /// So many of a hundred requests that bring no decision of their own.
    pub percent: f64,
    /// Whether a caller's decision is followed; if not, every request is decided upon here.
    pub follow_caller: bool,
    /// How the trace is handed on; the first that a request has is read.
    pub propagation: Vec<Propagation>,
    /// Which spans a request has here.
    pub spans: Spans,
    /// Further tags of spans.
    pub tags: BTreeMap<String, Tag>,
    /// Whether spans have Istio's own tags: `istio.canonical_service` and the like.
    pub istio_tags: bool,
    /// `service.name`; the canonical service and the namespace unless written.
    pub service: Option<String>,
    /// Longest path in a span, in bytes.
    pub max_path_length: usize,
    /// A collector of OTLP over HTTP.
    pub otlp: Option<Collector>,
    /// A collector of Zipkin's JSON.
    pub zipkin: Option<Collector>,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            percent: 1.0,
            follow_caller: true,
            propagation: vec![Propagation::W3c],
            spans: Spans::Auto,
            tags: BTreeMap::new(),
            istio_tags: true,
            service: None,
            max_path_length: 256,
            otlp: None,
            zipkin: None,
        }
    }
}

/// Headers that a trace travels in.
#[config]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `x-b3-traceid` and the like.
    B3,
    /// `b3`.
    B3Single,
}

/// Which spans a request has in this proxy.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Spans {
    /// A server's where the reporter is the destination, a client's where it is the source.
    #[default]
    Auto,
    /// A server's.
    Server,
    /// A client's.
    Client,
    /// A server's, and a client's below it: for gateways.
    Both,
}

/// How much of what is sent to collectors may wait. What does not fit is dropped and counted.
#[config]
#[derive(Debug, Clone, Copy)]
#[serde(default)]
pub struct Report {
    /// How often it is sent, in milliseconds.
    pub interval_ms: u32,
    /// Spans or log records that wait, on each worker and for each collector.
    pub max_items: usize,
    /// Bytes of them.
    pub max_bytes: usize,
    /// Of one request to a collector.
    pub batch_items: usize,
    /// How often a request is tried.
    pub attempts: u32,
    /// How long to wait for its answer, in milliseconds.
    pub timeout_ms: u32,
}

impl Default for Report {
    fn default() -> Self {
        Self { interval_ms: 1000, max_items: 4096, max_bytes: 4 << 20, batch_items: 512, attempts: 3, timeout_ms: 5000 }
    }
}
