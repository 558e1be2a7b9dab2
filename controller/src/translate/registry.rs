//! Every service that clients can name, and who is behind it: Kubernetes' Services and Istio's ServiceEntries in one form.
//!
//! Always: services of one host name are one service, the oldest object's; endpoints are in the order of their addresses, so that the same objects
//! give the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::api;
use crate::api::core::{EndpointSlice, Pod, ServicePort, ServiceSpec, SlicePort};
use crate::api::istio::service_entry::{Location, Resolution as EntryResolution};
use crate::api::istio::{ServiceEntry, WorkloadEntry};
use crate::object::Object;
use crate::translate::mesh::Mesh;
use crate::translate::protocol::Protocol;
use crate::translate::visibility::Visibility;

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its full name.
    pub host: Arc<str>,
    /// The namespace of its object.
    pub namespace: Arc<str>,
    /// Its short name, if it is Kubernetes'.
    pub name: Option<Arc<str>>,
    /// Its ports, those of UDP left out.
    pub ports: Vec<Port>,
    /// The addresses that clients connect to, as ranges; empty where the port alone tells it.
    pub addresses: Vec<String>,
    /// How its endpoints are known.
    pub resolution: Resolution,
    /// Who sees it.
    pub visibility: Visibility,
    /// Names of which a server's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// Not part of the mesh.
    pub external: bool,
    order: (Arc<str>, Arc<str>, Arc<str>),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Where clients connect.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
}

/// How a service's endpoints are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// They are listed.
    Listed,
    /// They are looked up in DNS; `logical`: one connection at a time goes to one of them.
    Dns {
        /// Not every address is an endpoint of its own.
        logical: bool,
    },
    /// Clients know: connections go where they were going.
    Client,
}

/// Who is behind a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// An address, or a name to look up.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// What subsets look at.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// How much of the traffic; 0 is like 1.
    pub weight: u32,
    /// `region/zone/subzone`.
    pub locality: String,
    /// It ends: only those who must stay with it still go there.
    pub draining: bool,
}

/// All services.
#[derive(Debug, Default)]
pub struct Registry {
    services: BTreeMap<Arc<str>, Service>,
    endpoints: HashMap<(Arc<str>, u16), Vec<Endpoint>>,
}

/// A workload that selectors find: a pod, or an entry that stands for one.
struct Workload {
    namespace: Arc<str>,
    labels: BTreeMap<Arc<str>, Arc<str>>,
    address: String,
    ports: BTreeMap<String, u16>,
    weight: u32,
    locality: String,
}

impl Registry {
    /// What objects define.
    #[must_use]
    pub fn new(objects: &[Object], mesh: &Mesh) -> Self {
        let mut registry = Self::default();
        let workloads = workloads(objects);
        let pods: HashMap<(&str, &str), &Object> =
            objects.iter().filter(|object| is(object, "", "Pod")).map(|pod| ((&*pod.id.namespace, &*pod.id.name), pod)).collect();
        let mut slices: HashMap<(&str, &str), Vec<EndpointSlice>> = HashMap::new();
        for slice in objects.iter().filter(|object| is(object, "discovery.k8s.io", "EndpointSlice")) {
            let Some(service) = slice.meta.labels.get("kubernetes.io/service-name") else { continue };
            slices.entry((&slice.id.namespace, service)).or_default().extend(api::body::<EndpointSlice>(slice));
        }
        for object in objects {
            if is(object, "", "Service") {
                let slices = slices.get(&(&*object.id.namespace, &*object.id.name)).map_or(&[][..], Vec::as_slice);
                registry.add_kubernetes(object, slices, &pods, mesh);
            } else if is(object, "networking.istio.io", "ServiceEntry") {
                registry.add_entry(object, &workloads);
            }
        }
        for endpoints in registry.endpoints.values_mut() {
            endpoints.sort();
            endpoints.dedup();
        }
        registry
    }

    /// Every service, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The service of this full name.
    #[must_use]
    pub fn service(&self, host: &str) -> Option<&Service> {
        self.services.get(host)
    }

    /// Who is behind a service's port.
    #[must_use]
    pub fn endpoints(&self, host: &Arc<str>, port: u16) -> &[Endpoint] {
        self.endpoints.get(&(Arc::clone(host), port)).map_or(&[], Vec::as_slice)
    }

    /// Adds a service unless an older object has its name. Whether it was added.
    fn add(&mut self, service: Service) -> bool {
        match self.services.get(&service.host) {
            Some(known) if known.order <= service.order => false,
            _ => {
                self.endpoints.retain(|(host, _), _| *host != service.host);
                self.services.insert(Arc::clone(&service.host), service);
                true
            }
        }
    }

    fn add_kubernetes(&mut self, object: &Object, slices: &[EndpointSlice], pods: &HashMap<(&str, &str), &Object>, mesh: &Mesh) {
        let Some(spec) = api::spec::<ServiceSpec>(object) else { return };
        let host: Arc<str> = format!("{}.{}.svc.{}", object.id.name, object.id.namespace, mesh.cluster_domain).into();
        let ports: Vec<&ServicePort> = spec.ports.iter().filter(|port| Protocol::of(port) != Protocol::Udp).collect();
        let external_name = spec.kind == "ExternalName";
        let headless = spec.cluster_ip == "None";
        let added = self.add(Service {
            host: Arc::clone(&host),
            namespace: Arc::clone(&object.id.namespace),
            name: Some(Arc::clone(&object.id.name)),
            ports: ports.iter().map(|port| Port { number: port.port, name: port.name.clone(), protocol: Protocol::of(port) }).collect(),
            addresses: spec.addresses().map(host_range).collect(),
            resolution: match (external_name, headless && spec.selector.is_empty() && slices.is_empty()) {
                (true, _) => Resolution::Dns { logical: true },
                (_, true) => Resolution::Client,
                _ => Resolution::Listed,
            },
            visibility: Visibility::of_annotation(object),
            subject_alt_names: Vec::new(),
            external: false,
            order: object.seniority(),
        });
        if !added {
            return;
        }
        if external_name {
            for port in ports {
                let endpoint = Endpoint { address: spec.external_name.clone(), port: port.port, ..Endpoint::nowhere() };
                self.endpoints.entry((Arc::clone(&host), port.port)).or_default().push(endpoint);
            }
            return;
        }
        for slice in slices {
            for port in &ports {
                self.add_slice(&host, port, slice, &object.id.namespace, pods, spec.publish_not_ready_addresses);
            }
        }
    }

    fn add_slice(
        &mut self,
        host: &Arc<str>,
        port: &ServicePort,
        slice: &EndpointSlice,
        namespace: &str,
        pods: &HashMap<(&str, &str), &Object>,
        unready: bool,
    ) {
        let named = |candidate: &&SlicePort| candidate.name.as_deref().unwrap_or_default() == port.name;
        let Some(number) = slice.ports.iter().find(named).and_then(|found| found.port) else { return };
        let endpoints = self.endpoints.entry((Arc::clone(host), port.port)).or_default();
        for one in &slice.endpoints {
            let ready = one.conditions.ready.unwrap_or(true) || unready;
            let draining = !ready && one.conditions.serving.unwrap_or(false) && one.conditions.terminating.unwrap_or(false);
            let (true, Some(address)) = (ready || draining, one.addresses.first()) else { continue };
            let pod = one.target_ref.as_ref().filter(|target| target.kind == "Pod").and_then(|target| {
                let namespace = if target.namespace.is_empty() { namespace } else { &target.namespace };
                pods.get(&(namespace, target.name.as_str()))
            });
            endpoints.push(Endpoint {
                address: address.clone(),
                port: number,
                labels: pod.map(|pod| pod.meta.labels.clone()).unwrap_or_default(),
                locality: one.zone.clone().map(|zone| format!("/{zone}")).unwrap_or_default(),
                draining,
                ..Endpoint::nowhere()
            });
        }
    }

    fn add_entry(&mut self, object: &Object, workloads: &[Workload]) {
        let Some(entry) = api::spec::<ServiceEntry>(object) else { return };
        let resolution = match entry.resolution {
            EntryResolution::None => Resolution::Client,
            EntryResolution::Static => Resolution::Listed,
            EntryResolution::Dns => Resolution::Dns { logical: false },
            EntryResolution::DnsRoundRobin | EntryResolution::DynamicDns => Resolution::Dns { logical: true },
        };
        let numbered = entry.ports.iter().filter_map(|port| Some((u16::try_from(port.number).ok()?, port)));
        let ports: Vec<Port> = numbered
            .map(|(number, port)| Port {
                number,
                name: port.name.clone(),
                protocol: Protocol::named(&port.protocol).unwrap_or(Protocol::Tcp),
            })
            .filter(|port| port.protocol != Protocol::Udp)
            .collect();
        for host in &entry.hosts {
            let host: Arc<str> = host.as_str().into();
            if let Some(known) = self.services.get_mut(&host).filter(|known| known.name.is_some()) {
                known.subject_alt_names.extend(entry.subject_alt_names.iter().cloned());
                continue;
            }
            let added = self.add(Service {
                host: Arc::clone(&host),
                namespace: Arc::clone(&object.id.namespace),
                name: None,
                ports: ports.clone(),
                addresses: entry.addresses.iter().map(|address| address.parse().map_or_else(|_| address.clone(), host_range)).collect(),
                resolution: resolution.clone(),
                visibility: Visibility::of(&entry.export_to, &object.id.namespace),
                subject_alt_names: entry.subject_alt_names.clone(),
                external: entry.location == Location::MeshExternal,
                order: object.seniority(),
            });
            if added {
                self.add_entry_endpoints(&host, &entry, object, workloads);
            }
        }
    }

    fn add_entry_endpoints(&mut self, host: &Arc<str>, entry: &ServiceEntry, object: &Object, workloads: &[Workload]) {
        let inline: Vec<Workload> = entry.endpoints.iter().map(|endpoint| Workload::of_entry(endpoint, &object.id.namespace)).collect();
        let selected: Vec<&Workload> = match &entry.workload_selector {
            Some(selector) => workloads
                .iter()
                .filter(|workload| {
                    workload.namespace == object.id.namespace
                        && selector.labels.iter().all(|(key, value)| workload.labels.get(key.as_str()).is_some_and(|has| **has == **value))
                })
                .collect(),
            None => inline.iter().collect(),
        };
        for port in &entry.ports {
            let Ok(number) = u16::try_from(port.number) else { continue };
            let target = u16::try_from(port.target_port).ok().filter(|target| *target > 0).unwrap_or(number);
            let endpoints = self.endpoints.entry((Arc::clone(host), number)).or_default();
            for workload in &selected {
                endpoints.push(Endpoint {
                    address: workload.address.clone(),
                    port: workload.ports.get(&port.name).copied().unwrap_or(target),
                    labels: workload.labels.clone(),
                    weight: workload.weight,
                    locality: workload.locality.clone(),
                    draining: false,
                });
            }
            let looked_up = matches!(entry.resolution, EntryResolution::Dns | EntryResolution::DnsRoundRobin | EntryResolution::DynamicDns);
            if selected.is_empty() && looked_up {
                endpoints.push(Endpoint { address: host.to_string(), port: target, ..Endpoint::nowhere() });
            }
        }
    }
}

impl Endpoint {
    fn nowhere() -> Self {
        Self { address: String::new(), port: 0, labels: BTreeMap::new(), weight: 0, locality: String::new(), draining: false }
    }
}

impl Workload {
    fn of_entry(entry: &WorkloadEntry, namespace: &Arc<str>) -> Self {
        Self {
            namespace: Arc::clone(namespace),
            labels: entry.labels.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))).collect(),
            address: entry.address.clone(),
            ports: entry.ports.iter().filter_map(|(name, port)| Some((name.clone(), u16::try_from(*port).ok()?))).collect(),
            weight: entry.weight,
            locality: entry.locality.clone(),
        }
    }
}

fn workloads(objects: &[Object]) -> Vec<Workload> {
    let mut workloads = Vec::new();
    for object in objects {
        if is(object, "networking.istio.io", "WorkloadEntry") {
            workloads.extend(api::spec::<WorkloadEntry>(object).map(|entry| {
                let mut workload = Workload::of_entry(&entry, &object.id.namespace);
                for (key, value) in &object.meta.labels {
                    workload.labels.entry(Arc::clone(key)).or_insert_with(|| Arc::clone(value));
                }
                workload
            }));
        } else if is(object, "", "Pod") {
            let Some(pod) = api::body::<Pod>(object).filter(|pod| !pod.status.pod_ip.is_empty()) else { continue };
            workloads.push(Workload {
                namespace: Arc::clone(&object.id.namespace),
                labels: object.meta.labels.clone(),
                address: pod.status.pod_ip,
                ports: BTreeMap::new(),
                weight: 0,
                locality: String::new(),
            });
        }
    }
    workloads
}

/// Whether an object is of this kind.
#[must_use]
pub fn is(object: &Object, group: &str, kind: &str) -> bool {
    *object.id.kind == *kind && *object.id.group == *group
}

fn host_range(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}
