//! The clusters and endpoints that a proxy may need: of every service that it sees, one for each port, and one for each subset of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_model::config::{self, cluster};
use weir_model::duration;

use crate::api::istio::destination_rule::{ClientTls, ClientTlsMode};
use crate::translate::mesh::Mesh;
use crate::translate::policy::Policy;
use crate::translate::registry::{Endpoint, Port, Resolution, Service};
use crate::translate::route::cluster_name;
use crate::translate::world::World;

/// Where connections go that nobody knows, as they are.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// Where nothing goes.
pub const BLACK_HOLE: &str = "BlackHoleCluster";

/// Clusters with the endpoints of those that list them.
#[derive(Debug, Default)]
pub struct Clusters {
    /// By name.
    pub clusters: Vec<config::Cluster>,
    /// By the name of their cluster.
    pub endpoints: Vec<config::Endpoints>,
    /// Trust roots that clusters name.
    pub secrets: BTreeMap<String, config::Secret>,
}

impl Clusters {
    /// Those of every service that a proxy in `namespace` sees.
    #[must_use]
    pub fn outbound(world: &World, namespace: &str) -> Self {
        let mut all = Self::default();
        for service in world.registry.services().filter(|service| service.visibility.reaches(namespace)) {
            let rule = world.destination_rule(&service.host, &service.namespace, namespace);
            for port in &service.ports {
                let policy = |subset: &str| rule.map(|rule| Policy::of(&rule.spec, port.number, subset)).unwrap_or_default();
                all.add(world, service, port, "", &BTreeMap::new(), policy(""));
                for subset in rule.iter().flat_map(|rule| &rule.spec.subsets) {
                    all.add(world, service, port, &subset.name, &subset.labels, policy(&subset.name));
                }
            }
        }
        all.clusters.push(original_destination(PASSTHROUGH, &world.mesh));
        all.clusters.push(config::Cluster {
            discovery: Some(cluster::Discovery::Endpoints(config::Endpoints::default())),
            ..named(BLACK_HOLE, &world.mesh)
        });
        all
    }

    fn add(&mut self, world: &World, service: &Service, port: &Port, subset: &str, labels: &BTreeMap<String, String>, policy: Policy<'_>) {
        let name = cluster_name(port.number, subset, &service.host);
        let mut cluster = named(&name, &world.mesh);
        let has_labels =
            |endpoint: &&Endpoint| labels.iter().all(|(key, value)| endpoint.labels.get(key.as_str()).is_some_and(|has| **has == **value));
        let mut endpoints = world.registry.endpoints(&service.host, port.number).iter().filter(has_labels);
        cluster.discovery = Some(match &service.resolution {
            _ if policy.passes_through() => cluster::Discovery::OriginalDestination(config::OriginalDestinationCluster::default()),
            Resolution::Client => cluster::Discovery::OriginalDestination(config::OriginalDestinationCluster::default()),
            Resolution::Dns { logical } => {
                let names = endpoints.map(dns_name).collect();
                cluster::Discovery::Dns(config::Dns { names, logical: *logical, ..config::Dns::default() })
            }
            Resolution::Listed => {
                let list = localities(&mut endpoints);
                self.endpoints.push(config::Endpoints { name: name.clone(), localities: list, ..config::Endpoints::default() });
                cluster::Discovery::EndpointsFrom(name.clone())
            }
        });
        if port.protocol.is_http2() {
            cluster.set_protocol(config::UpstreamProtocol::Http2);
        }
        policy.apply(&mut cluster);
        cluster.tls = policy.tls.and_then(|tls| upstream_tls(tls, service, &mut self.secrets));
        cluster.metadata.insert("service".into(), service.host.to_string());
        cluster.metadata.insert("namespace".into(), service.namespace.to_string());
        self.clusters.push(cluster);
    }
}

/// How connections are secured that leave the mesh. Those inside of it get their identities with the mesh's certificates.
fn upstream_tls(tls: &ClientTls, service: &Service, secrets: &mut BTreeMap<String, config::Secret>) -> Option<config::UpstreamTls> {
    if matches!(tls.mode, ClientTlsMode::Disable | ClientTlsMode::IstioMutual) {
        return None;
    }
    let mut secured = config::UpstreamTls { sni: tls.sni.clone(), ..config::UpstreamTls::default() };
    if secured.sni.is_empty() && !service.host.starts_with('*') {
        secured.sni = service.host.to_string();
    }
    let file = |path: &str| Some(config::DataSource { source: Some(config::data_source::Source::File(path.to_owned())) });
    if !tls.ca_certificates.is_empty() && tls.ca_certificates != "system" {
        let name = format!("file:{}", tls.ca_certificates);
        let roots = config::TrustRoots { certificates: file(&tls.ca_certificates), ..config::TrustRoots::default() };
        secrets.insert(name.clone(), config::Secret { name: name.clone(), kind: Some(config::secret::Kind::TrustRoots(roots)) });
        secured.trust_roots = name;
    }
    if tls.mode == ClientTlsMode::Mutual && !tls.client_certificate.is_empty() {
        let name = format!("file:{}", tls.client_certificate);
        let pair = config::KeyPair {
            certificate_chain: file(&tls.client_certificate),
            private_key: file(&tls.private_key),
            ..config::KeyPair::default()
        };
        secrets.insert(name.clone(), config::Secret { name: name.clone(), kind: Some(config::secret::Kind::KeyPair(pair)) });
        secured.certificate = name;
    }
    secured.insecure_skip_verify = tls.insecure_skip_verify == Some(true);
    let names = if tls.subject_alt_names.is_empty() { &service.subject_alt_names } else { &tls.subject_alt_names };
    let exact =
        |name: &String| config::SanMatch { pattern: Some(config::san_match::Pattern::Exact(name.clone())), ..config::SanMatch::default() };
    secured.names = names.iter().map(exact).collect();
    Some(secured)
}

fn named(name: &str, mesh: &Mesh) -> config::Cluster {
    let said = mesh.connect_timeout.as_deref().and_then(crate::api::istio::Duration::parse);
    let timeout = said.map_or(std::time::Duration::from_secs(10), crate::api::istio::Duration::std);
    config::Cluster { name: name.to_owned(), connect_timeout: Some(duration::from_std(timeout)), ..config::Cluster::default() }
}

fn original_destination(name: &str, mesh: &Mesh) -> config::Cluster {
    let discovery = Some(cluster::Discovery::OriginalDestination(config::OriginalDestinationCluster::default()));
    config::Cluster { discovery, ..named(name, mesh) }
}

/// A cluster for the workload beside the proxy.
#[must_use]
pub fn inbound(port: u16, target: u16, mesh: &Mesh) -> config::Cluster {
    let endpoint = config::Endpoint { address: format!("127.0.0.1:{target}"), ..config::Endpoint::default() };
    let locality = config::LocalityEndpoints { endpoints: vec![endpoint], ..config::LocalityEndpoints::default() };
    let endpoints = config::Endpoints { localities: vec![locality], ..config::Endpoints::default() };
    config::Cluster { discovery: Some(cluster::Discovery::Endpoints(endpoints)), ..named(&format!("inbound|{port}||"), mesh) }
}

fn dns_name(endpoint: &Endpoint) -> config::DnsName {
    config::DnsName {
        name: endpoint.address.clone(),
        port: endpoint.port.into(),
        weight: endpoint.weight,
        locality: locality(&endpoint.locality),
        labels: labels(endpoint),
        ..config::DnsName::default()
    }
}

fn localities<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<config::LocalityEndpoints> {
    let mut by_place: BTreeMap<&str, Vec<config::Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let address = match endpoint.address.parse::<IpAddr>() {
            Ok(address) => std::net::SocketAddr::new(address, endpoint.port).to_string(),
            Err(_) if endpoint.address.starts_with("unix:") => endpoint.address.replacen("unix://", "unix:", 1),
            Err(_) => continue,
        };
        let health = if endpoint.draining { config::Health::Draining } else { config::Health::Unknown };
        let mut one = config::Endpoint { address, weight: endpoint.weight, labels: labels(endpoint), ..config::Endpoint::default() };
        one.set_health(health);
        by_place.entry(&endpoint.locality).or_default().push(one);
    }
    let one =
        |(place, endpoints)| config::LocalityEndpoints { locality: locality(place), endpoints, ..config::LocalityEndpoints::default() };
    by_place.into_iter().map(one).collect()
}

fn labels(endpoint: &Endpoint) -> BTreeMap<String, String> {
    endpoint.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// `region/zone/subzone`.
fn locality(text: &str) -> Option<config::Locality> {
    if text.is_empty() {
        return None;
    }
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Some(config::Locality { region: next(), zone: next(), sub_zone: next() })
}
