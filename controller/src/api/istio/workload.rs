//! WorkloadEntry and WorkloadGroup: workloads that are no pods.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::common::Texts;

/// A workload that is no pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// An address, a name, or `unix://` and a path.
    pub address: String,
    /// Its port for each port of the service, by name.
    pub ports: BTreeMap<String, u32>,
    /// What selectors look at.
    pub labels: Texts,
    /// The network that it is in.
    pub network: String,
    /// `region/zone/subzone`
    pub locality: String,
    /// Its part of the traffic.
    pub weight: u32,
    /// The account that it runs as.
    pub service_account: String,
}

/// What WorkloadEntries that register themselves have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadGroup {
    /// Labels and annotations of the entries.
    pub metadata: Option<GroupMeta>,
    /// The entries, but for the address.
    pub template: Option<WorkloadEntry>,
    /// How an entry's health is found out.
    pub probe: Option<Probe>,
}

/// Labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupMeta {
    /// What selectors look at.
    pub labels: Texts,
    /// What people and tools noted.
    pub annotations: Texts,
}

/// How health is found out: by one of `httpGet`, `tcpSocket`, `exec` and `grpc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// Seconds before the first.
    pub initial_delay_seconds: i32,
    /// Seconds that an answer may take; 1 if it is not written.
    pub timeout_seconds: i32,
    /// Seconds between two; 10 if it is not written.
    pub period_seconds: i32,
    /// Good answers in a row after which it is healthy.
    pub success_threshold: i32,
    /// Bad answers in a row after which it is not; 3 if it is not written.
    pub failure_threshold: i32,
    /// A request.
    pub http_get: Option<HttpProbe>,
    /// A connection.
    pub tcp_socket: Option<TcpProbe>,
    /// A command.
    pub exec: Option<ExecProbe>,
    /// A call of the gRPC health service.
    pub grpc: Option<GrpcProbe>,
}

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpProbe {
    /// Its path.
    pub path: String,
    /// The port.
    pub port: u32,
    /// The host.
    pub host: String,
    /// `HTTP` or `HTTPS`.
    pub scheme: String,
    /// Its headers.
    pub http_headers: Vec<ProbeHeader>,
}

/// A header of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpProbe {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u32,
}

/// A command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecProbe {
    /// It, with its arguments.
    pub command: Vec<String>,
}

/// A call of the gRPC health service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcProbe {
    /// The port.
    pub port: u32,
    /// The service that is asked about.
    pub service: String,
}
