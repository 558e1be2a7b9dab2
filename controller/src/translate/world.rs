//! All objects in the form that configurations are derived from: typed, with full names, the older before the newer.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::api;
use crate::api::istio::{DestinationRule, Gateway, PeerAuthentication, VirtualService};
use crate::object::{Id, Object};
use crate::translate::delegate;
use crate::translate::mesh::Mesh;
use crate::translate::names::{complete, covers, specificity};
use crate::translate::registry::{Registry, is};
use crate::translate::visibility::Visibility;

/// An object's spec with what decides which of several wins.
#[derive(Debug, Clone)]
pub struct Named<T> {
    /// What it is called.
    pub id: Id,
    /// What it says.
    pub spec: T,
    /// Who sees it.
    pub visibility: Visibility,
    order: (Arc<str>, Arc<str>, Arc<str>),
}

/// Everything that configurations are derived from.
#[derive(Debug, Default)]
pub struct World {
    /// What holds for the whole mesh.
    pub mesh: Mesh,
    /// Services and their endpoints.
    pub registry: Registry,
    /// Those with hosts, what they delegate filled in.
    pub virtual_services: Vec<Named<VirtualService>>,
    /// All of them.
    pub destination_rules: Vec<Named<DestinationRule>>,
    /// All of them.
    pub gateways: Vec<Named<Gateway>>,
    /// All of them.
    pub peer_authentications: Vec<Named<PeerAuthentication>>,
}

impl World {
    /// What objects say.
    #[must_use]
    pub fn new(objects: &[Object], mesh: Mesh) -> Self {
        let registry = Registry::new(objects, &mesh);
        let all = named::<VirtualService>(objects, "networking.istio.io", "VirtualService", |spec| &spec.export_to);
        Self {
            registry,
            virtual_services: delegate::resolve(all),
            destination_rules: named(objects, "networking.istio.io", "DestinationRule", |spec: &DestinationRule| &spec.export_to),
            gateways: named(objects, "networking.istio.io", "Gateway", |_: &Gateway| &[]),
            peer_authentications: named(objects, "security.istio.io", "PeerAuthentication", |_: &PeerAuthentication| &[]),
            mesh,
        }
    }

    /// A host that an object of `namespace` names, in full.
    #[must_use]
    pub fn host(&self, host: &str, namespace: &str) -> String {
        complete(host, namespace, &self.mesh.cluster_domain)
    }

    /// The virtual service that routes a host for the mesh, as a proxy in `namespace` sees it. Only one does: the one that names the host most exactly;
    /// of equals first those for this namespace alone, then those exported to it by name, then public ones; of these the oldest.
    #[must_use]
    pub fn mesh_routes(&self, host: &str, namespace: &str) -> Option<&Named<VirtualService>> {
        let group = |service: &Named<VirtualService>| match &service.visibility {
            Visibility::Namespaces(_) if service.visibility.names(namespace) && *service.id.namespace == *namespace => 0,
            Visibility::Namespaces(_) => 1,
            Visibility::Public => 2,
        };
        let candidates = self.virtual_services.iter().filter(|service| is_for_mesh(&service.spec) && service.visibility.reaches(namespace));
        let matching = candidates.filter_map(|service| {
            let hosts = service.spec.hosts.iter().map(|named| self.host(named, &service.id.namespace));
            let best = hosts.filter(|named| covers(named, host)).map(|named| specificity(&named)).max()?;
            Some((Reverse(best), group(service), &service.order, service))
        });
        matching.min_by(|one, other| (one.0, one.1, one.2).cmp(&(other.0, other.1, other.2))).map(|(.., service)| service)
    }

    /// The rules for connections to a host, as a proxy in `namespace` sees them: the first of its own namespace's, the service's, and the root's.
    #[must_use]
    pub fn destination_rule(&self, host: &str, service_namespace: &str, namespace: &str) -> Option<&Named<DestinationRule>> {
        [namespace, service_namespace, &self.mesh.root_namespace].into_iter().find_map(|place| {
            let here = self.destination_rules.iter().filter(|rule| *rule.id.namespace == *place && rule.visibility.reaches(namespace));
            let covering = here.filter_map(|rule| {
                let named = self.host(&rule.spec.host, &rule.id.namespace);
                covers(&named, host).then(|| (Reverse(specificity(&named)), &rule.order, rule))
            });
            covering.min_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1))).map(|(.., rule)| rule)
        })
    }
}

/// Whether sidecars use it: it names the mesh, or no gateway at all.
#[must_use]
pub fn is_for_mesh(service: &VirtualService) -> bool {
    service.gateways.is_empty() || service.gateways.iter().any(|gateway| gateway == "mesh")
}

fn named<T: DeserializeOwned>(objects: &[Object], group: &str, kind: &str, exports: fn(&T) -> &[String]) -> Vec<Named<T>> {
    let read = objects.iter().filter(|object| is(object, group, kind)).filter_map(|object| {
        let spec: T = api::spec(object)?;
        let visibility = Visibility::of(exports(&spec), &object.id.namespace);
        Some(Named { id: object.id.clone(), spec, visibility, order: object.seniority() })
    });
    let mut all: Vec<Named<T>> = read.collect();
    all.sort_by(|one, other| one.order.cmp(&other.order));
    all
}
