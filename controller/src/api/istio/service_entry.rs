//! ServiceEntry: a service that the cluster does not know.

use serde::Deserialize;

use super::common::{Port, WorkloadSelector};
use super::workload::WorkloadEntry;

/// A service that the cluster does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntry {
    /// Its names.
    pub hosts: Vec<String>,
    /// Addresses and ranges that mean it.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Whether it belongs to the mesh.
    pub location: Location,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Its endpoints.
    pub endpoints: Vec<WorkloadEntry>,
    /// Pods and WorkloadEntries of the namespace that are its endpoints.
    pub workload_selector: Option<WorkloadSelector>,
    /// The namespaces that see it: `.`, `*`, `~` or names.
    pub export_to: Vec<String>,
    /// Names that the endpoints' certificates may have.
    pub subject_alt_names: Vec<String>,
}

/// Whether a service belongs to the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// It does not.
    #[default]
    MeshExternal,
    /// It does.
    MeshInternal,
}

/// How endpoints are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The address that the client was connecting to.
    #[default]
    None,
    /// They are written.
    Static,
    /// By name, all addresses.
    Dns,
    /// By name, one address of the last answer.
    DnsRoundRobin,
    /// By the name that the request asks for.
    DynamicDns,
}
