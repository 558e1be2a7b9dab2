//! From objects to the configuration of each proxy.
//!
//! Always: pure. The same objects give the same configuration, byte for byte; nothing here reads a clock, a file or a socket. What is wrong with a single
//! object is validation's business: what cannot be read is not there, and takes nothing else down.

mod chain;
pub mod cluster;
mod delegate;
mod gateway;
pub mod mesh;
pub mod names;
pub mod policy;
pub mod protocol;
pub mod registry;
pub mod route;
pub mod sidecar;
pub mod visibility;
pub mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::config;

use crate::api::istio::security::MutualTlsMode;
pub use world::World;

/// Whom a configuration is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proxy {
    /// At the edge, or beside a workload.
    pub role: Role,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its workload's labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Its workload's addresses.
    pub addresses: Vec<String>,
}

/// Where a proxy stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Beside a workload.
    #[default]
    Sidecar,
    /// At the edge: it does what Gateway objects say that select it.
    Gateway,
}

/// What a proxy is to do.
#[derive(Debug, Default)]
pub struct Derived {
    /// Where it listens.
    pub listeners: Vec<config::Listener>,
    /// Its filters.
    pub chains: Vec<config::FilterChain>,
    /// Where it sends.
    pub clusters: Vec<config::Cluster>,
    /// Who is there.
    pub endpoints: Vec<config::Endpoints>,
    /// What it needs to know for it.
    pub secrets: Vec<config::Secret>,
    /// By inbound branch, whether clients must come with a certificate. Certificates come with the mesh's own authority.
    pub mutual_tls: BTreeMap<String, MutualTlsMode>,
}

impl Derived {
    /// As a proxy reads it.
    #[must_use]
    pub fn bootstrap(self) -> config::Bootstrap {
        config::Bootstrap {
            listeners: self.listeners,
            filter_chains: self.chains,
            clusters: self.clusters,
            endpoints: self.endpoints,
            secrets: self.secrets,
            ..config::Bootstrap::default()
        }
    }
}

/// What `proxy` is to do in `world`.
#[must_use]
pub fn translate(world: &World, proxy: &Proxy) -> Derived {
    let outbound = cluster::Clusters::outbound(world, &proxy.namespace);
    let mut derived = Derived {
        clusters: outbound.clusters,
        endpoints: outbound.endpoints,
        secrets: outbound.secrets.into_values().collect(),
        ..Derived::default()
    };
    match proxy.role {
        Role::Gateway => gateway::listeners(world, proxy, &mut derived),
        Role::Sidecar => {
            sidecar::outbound(world, proxy, &mut derived);
            sidecar::inbound(world, proxy, &mut derived);
        }
    }
    derived
}
