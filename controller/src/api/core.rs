//! Kubernetes' own kinds, as far as traffic depends on them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

/// What a Service says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its address; `None` for a headless one.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Its addresses of both families.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Which pods are behind it.
    pub selector: BTreeMap<String, String>,
    /// What it stands for, if it is of that type.
    pub external_name: String,
    /// Pods are behind it before they are ready, too.
    pub publish_not_ready_addresses: bool,
}

impl ServiceSpec {
    /// Its addresses; none for a headless one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let all = if self.cluster_ips.is_empty() { std::slice::from_ref(&self.cluster_ip) } else { &self.cluster_ips };
        all.iter().filter_map(|address| address.parse().ok())
    }
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// What slices and routes call it.
    pub name: String,
    /// Where clients connect.
    pub port: u16,
    /// `TCP` unless written.
    pub protocol: String,
    /// Where pods listen.
    pub target_port: Option<IntOrString>,
    /// What is spoken.
    pub app_protocol: Option<String>,
    /// Where nodes listen.
    pub node_port: Option<u16>,
}

/// A number, or a name for one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(u16),
    /// A name.
    String(String),
}

/// An EndpointSlice, which has no spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The ports that each endpoint has.
    pub ports: Vec<SlicePort>,
    /// Who is behind the service.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SlicePort {
    /// The service port that it belongs to.
    pub name: Option<String>,
    /// Its number.
    pub port: Option<u16>,
    /// `TCP` unless written.
    pub protocol: Option<String>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Addresses of one endpoint; the first is used.
    pub addresses: Vec<String>,
    /// Whether it may be used.
    pub conditions: Conditions,
    /// Its name in DNS.
    pub hostname: Option<String>,
    /// The pod.
    pub target_ref: Option<TargetRef>,
    /// Its node.
    pub node_name: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
}

/// Whether an endpoint may be used; unknown counts as yes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// It wants connections.
    pub ready: Option<bool>,
    /// It would serve.
    pub serving: Option<bool>,
    /// It ends.
    pub terminating: Option<bool>,
}

/// An object by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// A Pod, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// What it should be.
    pub spec: PodSpec,
    /// What it is.
    pub status: PodStatus,
}

/// What a pod should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Where it runs.
    pub node_name: String,
    /// Who it is.
    pub service_account_name: String,
    /// What runs in it.
    pub containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its ports, which a service may call by name.
    pub ports: Vec<ContainerPort>,
}

/// A port of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub container_port: u16,
}

/// What a pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
}
