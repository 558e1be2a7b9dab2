//! Sidecar: what the proxies of workloads listen on and know of.

use serde::Deserialize;

use super::common::WorkloadSelector;
use super::destination_rule::ConnectionPool;
use super::gateway::ServerTls;
use super::virtual_service::Destination;

/// What the proxies of workloads listen on and know of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// The workloads; none is the whole namespace.
    pub workload_selector: Option<WorkloadSelector>,
    /// What comes in.
    pub ingress: Vec<Ingress>,
    /// What goes out.
    pub egress: Vec<Egress>,
    /// Limits of what comes in.
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What becomes of traffic to hosts that are not known; the mesh's setting if it is not written.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// A port that a Sidecar names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarPort {
    /// Its number.
    pub number: u32,
    /// What is spoken on it.
    pub protocol: String,
    /// Its name.
    pub name: String,
    /// Has no effect.
    pub target_port: u32,
}

/// A listener for what comes in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// Its port.
    pub port: Option<SidecarPort>,
    /// Its address.
    pub bind: String,
    /// How traffic gets there.
    pub capture_mode: CaptureMode,
    /// Where the workload listens.
    pub default_endpoint: String,
    /// TLS of clients that are not of the mesh.
    pub tls: Option<ServerTls>,
    /// Limits of what comes in.
    pub connection_pool: Option<ConnectionPool>,
}

/// A listener for what goes out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Egress {
    /// Its port; all ports of the hosts if it is not written.
    pub port: Option<SidecarPort>,
    /// Its address.
    pub bind: String,
    /// How traffic gets there.
    pub capture_mode: CaptureMode,
    /// `namespace/name`: the services that are known.
    pub hosts: Vec<String>,
}

/// How traffic gets to a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// As the workload is set up.
    #[default]
    Default,
    /// By redirection.
    Iptables,
    /// By being addressed to it.
    None,
}

/// What becomes of traffic to hosts that are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// What.
    pub mode: OutboundMode,
    /// Where it goes.
    pub egress_proxy: Option<Destination>,
}

/// What becomes of traffic to hosts that are not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// It is refused.
    #[default]
    RegistryOnly,
    /// It goes where it was going.
    AllowAny,
}
