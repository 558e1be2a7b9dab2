//! Telemetry: what is counted, traced and logged.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::common::{Duration, Selector, TargetRef};

/// What is counted, traced and logged.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// The workloads; none is the whole namespace.
    pub selector: Option<Selector>,
    /// What it is attached to, as it was written once.
    pub target_ref: Option<TargetRef>,
    /// What it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// What is traced.
    pub tracing: Vec<Tracing>,
    /// What is counted.
    pub metrics: Vec<Metrics>,
    /// What is logged.
    pub access_logging: Vec<AccessLogging>,
}

/// Something that the mesh configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderRef {
    /// Its name there.
    pub name: String,
}

/// On which side of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    /// Both.
    #[default]
    ClientAndServer,
    /// Where requests go out.
    Client,
    /// Where requests come in.
    Server,
    /// As the kind has it.
    Undefined,
}

/// On which side of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModeMatch {
    /// Which.
    pub mode: WorkloadMode,
}

/// What is traced.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// On which side.
    #[serde(rename = "match")]
    pub matches: Option<ModeMatch>,
    /// Where spans go: one.
    pub providers: Vec<ProviderRef>,
    /// The share of requests; 1 % if it is not written.
    pub random_sampling_percentage: Option<f64>,
    /// Whether no spans are sent.
    pub disable_span_reporting: Option<bool>,
    /// Further tags, in the place of those of a wider scope.
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Whether the request id decides on sampling.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Whether spans carry Istio's own tags.
    pub enable_istio_tags: Option<bool>,
    /// Whether trace headers are not passed on.
    pub disable_context_propagation: Option<bool>,
}

/// A tag: one of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomTag {
    /// As it is written.
    pub literal: Option<Literal>,
    /// From the proxy's environment.
    pub environment: Option<Named>,
    /// From a header of the request.
    pub header: Option<Named>,
    /// From what a log could say.
    pub formatter: Option<Literal>,
}

/// A value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Literal {
    /// It.
    pub value: String,
}

/// A value by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The value if there is none.
    pub default_value: String,
}

/// What is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Where it goes.
    pub providers: Vec<ProviderRef>,
    /// Changes of single metrics.
    pub overrides: Vec<MetricOverride>,
    /// How often it is told.
    pub reporting_interval: Option<Duration>,
}

/// A change of metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricOverride {
    /// Which; all if it is not written.
    #[serde(rename = "match")]
    pub matches: Option<MetricMatch>,
    /// Whether they are left out.
    pub disabled: Option<bool>,
    /// Changes of their labels.
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// Which metrics: one of `metric` and `customMetric`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricMatch {
    /// One of Istio's.
    pub metric: Option<Metric>,
    /// One by its name.
    pub custom_metric: Option<String>,
    /// On which side.
    pub mode: WorkloadMode,
}

/// Istio's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Metric {
    /// All.
    #[default]
    AllMetrics,
    /// `istio_requests_total`
    RequestCount,
    /// `istio_request_duration_milliseconds`
    RequestDuration,
    /// `istio_request_bytes`
    RequestSize,
    /// `istio_response_bytes`
    ResponseSize,
    /// `istio_tcp_connections_opened_total`
    TcpOpenedConnections,
    /// `istio_tcp_connections_closed_total`
    TcpClosedConnections,
    /// `istio_tcp_sent_bytes_total`
    TcpSentBytes,
    /// `istio_tcp_received_bytes_total`
    TcpReceivedBytes,
    /// `istio_request_messages_total`
    GrpcRequestMessages,
    /// `istio_response_messages_total`
    GrpcResponseMessages,
}

/// A change of a label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TagOverride {
    /// What is done.
    pub operation: TagOperation,
    /// The value, as a CEL expression.
    pub value: String,
}

/// What is done with a label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    /// It gets the value.
    #[default]
    Upsert,
    /// It goes.
    Remove,
}

/// What is logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogging {
    /// On which side.
    #[serde(rename = "match")]
    pub matches: Option<ModeMatch>,
    /// Where it goes.
    pub providers: Vec<ProviderRef>,
    /// Whether nothing is.
    pub disabled: Option<bool>,
    /// Which requests.
    pub filter: Option<LogFilter>,
}

/// Which requests are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogFilter {
    /// A CEL expression that must be true.
    pub expression: String,
}
