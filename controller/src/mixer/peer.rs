//! What is known of a workload, by Mixer's names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Something known of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// One of its labels.
    Label(String),
    /// Its namespace.
    Namespace,
    /// The name of its pod.
    Name,
    /// The name of what its pod is of: a Deployment, mostly.
    Workload,
    /// Its service account.
    ServiceAccount,
    /// The host of a service that it is behind: `reviews.default.svc.cluster.local`.
    ServiceHost,
    /// The name of a service that it is behind.
    ServiceName,
    /// The namespace of a service that it is behind.
    ServiceNamespace,
}

impl Fact {
    /// By what follows `source.` or `destination.` in the name of an attribute.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "namespace" | "workload.namespace" => Self::Namespace,
            "name" => Self::Name,
            "workload.name" => Self::Workload,
            "serviceAccount" => Self::ServiceAccount,
            "service" | "service.host" => Self::ServiceHost,
            "service.name" => Self::ServiceName,
            "service.namespace" => Self::ServiceNamespace,
            _ => return None,
        })
    }
}

/// A service that a workload is behind.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its host.
    pub host: &'a str,
}

/// What is known of a workload.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Its labels.
    pub labels: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// Its namespace.
    pub namespace: &'a str,
    /// The name of its pod.
    pub name: &'a str,
    /// The name of what its pod is of; empty if that is not known.
    pub workload: &'a str,
    /// Its service account; empty if that is not known.
    pub service_account: &'a str,
    /// The services that it is behind.
    pub services: &'a [Service<'a>],
    /// Its addresses.
    pub addresses: &'a [IpAddr],
}

impl<'a> Peer<'a> {
    /// What is known; several values only of services.
    pub(super) fn fact(&self, fact: &Fact) -> Vec<&'a str> {
        let one = |text: &'a str| if text.is_empty() { Vec::new() } else { vec![text] };
        match fact {
            Fact::Label(name) => self.labels.get(name.as_str()).map(|value| &**value).into_iter().collect(),
            Fact::Namespace => one(self.namespace),
            Fact::Name => one(self.name),
            Fact::Workload => one(self.workload),
            Fact::ServiceAccount => one(self.service_account),
            Fact::ServiceHost => self.services.iter().map(|service| service.host).collect(),
            Fact::ServiceName => self.services.iter().map(|service| service.name).collect(),
            Fact::ServiceNamespace => self.services.iter().map(|service| service.namespace).collect(),
        }
    }
}
