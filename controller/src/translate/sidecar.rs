//! The listeners of a sidecar: what its workload sends, and what is sent to it.
//!
//! Outbound, one listener catches everything by its original destination. A port that some service speaks HTTP on has a branch whose router knows every
//! host on that port; other ports have branches by address and by the name in TLS. Inbound, each port of the workload has its branch.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use weir_model::config::{self, branch};

use crate::api::istio::VirtualService;
use crate::api::istio::security::MutualTlsMode;
use crate::api::istio::virtual_service::RouteDestination;
use crate::translate::chain;
use crate::translate::cluster::{BLACK_HOLE, PASSTHROUGH, inbound as inbound_cluster};
use crate::translate::mesh::OutboundMode;
use crate::translate::names::{complete, covers};
use crate::translate::protocol::Protocol;
use crate::translate::registry::{Port, Service};
use crate::translate::route::{Here, Variants, cluster_name, destination_cluster, is_gateway, plain_route, routes};
use crate::translate::world::{Named, World, is_for_mesh};
use crate::translate::{Derived, Proxy};

/// Where a workload's outgoing connections are redirected to.
pub const OUTBOUND: &str = "127.0.0.1:15001";
/// Where incoming ones are.
pub const INBOUND: &str = "0.0.0.0:15006";

/// Adds the listener for what the workload sends.
pub fn outbound(world: &World, proxy: &Proxy, derived: &mut Derived) {
    let visible: Vec<&Service> = world.registry.services().filter(|service| service.visibility.reaches(&proxy.namespace)).collect();
    let mut listener = config::Listener { name: "outbound".into(), address: OUTBOUND.into(), ..config::Listener::default() };
    listener.set_original_destination(config::OriginalDestination::Redirect);
    for port in http_ports(world, proxy, &visible) {
        let here = Here { world, namespace: &proxy.namespace, labels: &proxy.labels, gateway: None, port };
        let name = format!("outbound_{port}");
        derived.chains.push(http_chain(&name, here, &visible));
        let http = config::Http { filter_chain: name.clone(), ..config::Http::default() };
        let matches = config::Match {
            destination_ports: vec![port.into()],
            transport: config::Transport::Plaintext.into(),
            ..config::Match::default()
        };
        listener.branches.push(config::Branch {
            name,
            r#match: Some(matches),
            protocol: Some(branch::Protocol::Http(http)),
            ..config::Branch::default()
        });
    }
    tls_branches(world, proxy, &visible, &mut listener);
    tcp_branches(world, proxy, &visible, &mut listener);
    let rest = if passes_unknown(world) { PASSTHROUGH } else { BLACK_HOLE };
    listener.default_branch = Some(tcp_branch("unknown", None, vec![weighted(rest, 0)]));
    derived.listeners.push(listener);
}

fn passes_unknown(world: &World) -> bool {
    world.mesh.outbound_traffic_policy.mode == OutboundMode::AllowAny
}

/// Ports that requests can be told apart on: a service says that it speaks HTTP there, or does not say and has routes for requests.
fn http_ports(world: &World, proxy: &Proxy, visible: &[&Service]) -> BTreeSet<u16> {
    let is_http = |service: &Service, port: &Port| {
        port.protocol.is_http() || (port.protocol == Protocol::Unknown && has_http_routes(world, proxy, service))
    };
    visible.iter().flat_map(|service| service.ports.iter().filter(|port| is_http(service, port)).map(|port| port.number)).collect()
}

fn has_http_routes(world: &World, proxy: &Proxy, service: &Service) -> bool {
    world.mesh_routes(&service.host, &proxy.namespace).is_some_and(|routes| !routes.spec.http.is_empty())
}

fn http_chain(name: &str, here: Here<'_>, visible: &[&Service]) -> config::FilterChain {
    let mut variants = Variants::default();
    let mut hosts = Vec::new();
    let on_port = |service: &&&Service| {
        service.ports.iter().any(|port| port.number == here.port && !port.protocol.is_tls() && port.protocol != Protocol::Tcp)
    };
    let services: Vec<&&Service> = visible.iter().filter(on_port).collect();
    for service in &services {
        let routed = here.world.mesh_routes(&service.host, here.namespace).filter(|found| !found.spec.http.is_empty());
        let list = match routed {
            Some(found) => routes(found, here, &mut variants).0,
            None => vec![plain_route(&service.host, here.port, here)],
        };
        hosts.push(json!({ "hosts": domains(service, here), "routes": list }));
    }
    for (host, found) in foreign_hosts(here, visible) {
        let (list, _) = routes(found, here, &mut variants);
        hosts.push(json!({ "hosts": [host], "routes": list }));
    }
    let unknown = match passes_unknown(here.world) {
        true => json!({ "name": "allow_any", "forward": { "clusters": [{ "name": PASSTHROUGH }], "timeout": "0s", "upgrades": ["*"] } }),
        false => json!({ "name": "block_all", "respond": { "status": 502 } }),
    };
    hosts.push(json!({ "hosts": ["*"], "routes": [{ "action": unknown }] }));
    chain::routed(name, without_twins(hosts), variants)
}

/// Hosts that virtual services route and no service has: on port 80 they are known all the same.
fn foreign_hosts<'a>(here: Here<'a>, visible: &[&Service]) -> Vec<(String, &'a Named<VirtualService>)> {
    if here.port != 80 {
        return Vec::new();
    }
    let mut hosts = BTreeMap::new();
    for service in here.world.virtual_services.iter().filter(|one| is_for_mesh(&one.spec) && one.visibility.reaches(here.namespace)) {
        for host in &service.spec.hosts {
            let host = here.world.host(host, &service.id.namespace);
            if !visible.iter().any(|known| covers(&host, &known.host)) && !service.spec.http.is_empty() {
                hosts.entry(host).or_insert(service);
            }
        }
    }
    hosts.into_iter().collect()
}

/// What clients in a namespace may call a service, with its addresses.
fn domains(service: &Service, here: Here<'_>) -> Vec<String> {
    let host = &*service.host;
    let mut names = vec![host.to_owned()];
    if let Some(name) = &service.name {
        let (namespace, domain) = (&*service.namespace, &here.world.mesh.cluster_domain);
        debug_assert_eq!(complete(name, namespace, domain), host);
        names.push(format!("{name}.{namespace}.svc"));
        names.push(format!("{name}.{namespace}"));
        if namespace == here.namespace {
            names.push(name.to_string());
        }
    }
    names.extend(service.addresses.iter().filter_map(|range| match range.split_once('/') {
        Some((address, "32")) => Some(address.to_owned()),
        Some((address, "128")) => Some(format!("[{address}]")),
        _ => None,
    }));
    names
}

/// A name that two virtual hosts have is the first's.
fn without_twins(hosts: Vec<Json>) -> Vec<Json> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for mut host in hosts {
        let names: Vec<Json> = match host["hosts"].take() {
            Json::Array(names) => {
                names.into_iter().filter(|name| seen.insert(name.as_str().unwrap_or_default().to_ascii_lowercase())).collect()
            }
            _ => Vec::new(),
        };
        if !names.is_empty() {
            host["hosts"] = Json::Array(names);
            kept.push(host);
        }
    }
    kept
}

/// Connections that begin with TLS of the application's own: by the name they ask for.
fn tls_branches(world: &World, proxy: &Proxy, visible: &[&Service], listener: &mut config::Listener) {
    let mut seen = BTreeSet::new();
    let here = |port| Here { world, namespace: &proxy.namespace, labels: &proxy.labels, gateway: None, port };
    for found in world.virtual_services.iter().filter(|one| is_for_mesh(&one.spec) && one.visibility.reaches(&proxy.namespace)) {
        for rule in &found.spec.tls {
            for block in &rule.matches {
                let wanted = u16::try_from(block.port).unwrap_or_default();
                let for_mesh =
                    block.gateways.is_empty() || block.gateways.iter().any(|gateway| is_gateway(gateway, None, &found.id.namespace));
                let from_here =
                    block.source_labels.iter().all(|(key, value)| proxy.labels.get(key.as_str()).is_some_and(|has| **has == **value))
                        && (block.source_namespace.is_empty() || *block.source_namespace == *proxy.namespace);
                if !for_mesh || !from_here {
                    continue;
                }
                let ports: BTreeSet<u16> = match wanted {
                    0 => visible.iter().flat_map(|service| tls_ports(service)).collect(),
                    port => [port].into(),
                };
                for port in ports {
                    let names: Vec<String> = block.sni_hosts.iter().filter(|name| seen.insert((port, (*name).clone()))).cloned().collect();
                    if !names.is_empty() {
                        let clusters = destinations(&rule.route, &found.id.namespace, here(port));
                        listener.branches.push(sni_branch(port, names, clusters));
                    }
                }
            }
        }
    }
    for service in visible {
        for port in tls_ports(service) {
            let name = service.host.to_string();
            if name != "*" && seen.insert((port, name.clone())) {
                listener.branches.push(sni_branch(port, vec![name], vec![weighted(&cluster_name(port, "", &service.host), 0)]));
            }
        }
    }
}

fn tls_ports(service: &Service) -> impl Iterator<Item = u16> + '_ {
    service.ports.iter().filter(|port| port.protocol.is_tls()).map(|port| port.number)
}

fn sni_branch(port: u16, names: Vec<String>, clusters: Vec<config::WeightedCluster>) -> config::Branch {
    let title = format!("outbound_{port}_{}", names.first().map_or("", String::as_str));
    let matches = config::Match {
        destination_ports: vec![port.into()],
        server_names: names,
        transport: config::Transport::Tls.into(),
        ..config::Match::default()
    };
    tcp_branch(&title, Some(matches), clusters)
}

/// Connections that nothing can be told of but where they go.
fn tcp_branches(world: &World, proxy: &Proxy, visible: &[&Service], listener: &mut config::Listener) {
    let mut without_address = BTreeSet::new();
    for service in visible {
        for port in service.ports.iter().filter(|port| matches!(port.protocol, Protocol::Tcp | Protocol::Unknown)) {
            if port.protocol == Protocol::Unknown && has_http_routes(world, proxy, service) {
                continue;
            }
            // Where it has no address, the port alone tells it; the first such service has it.
            if service.addresses.is_empty() && !without_address.insert(port.number) {
                continue;
            }
            let here = Here { world, namespace: &proxy.namespace, labels: &proxy.labels, gateway: None, port: port.number };
            let clusters = tcp_routes(service, here).unwrap_or_else(|| vec![weighted(&cluster_name(port.number, "", &service.host), 0)]);
            let matches = config::Match {
                destination_ports: vec![port.number.into()],
                destination_ranges: service.addresses.clone(),
                ..config::Match::default()
            };
            listener.branches.push(tcp_branch(&format!("outbound_{}_{}", port.number, service.host), Some(matches), clusters));
        }
    }
}

fn tcp_routes(service: &Service, here: Here<'_>) -> Option<Vec<config::WeightedCluster>> {
    let found = here.world.mesh_routes(&service.host, here.namespace)?;
    let fits = |block: &crate::api::istio::virtual_service::L4Match| {
        (block.port == 0 || block.port == u32::from(here.port))
            && (block.gateways.is_empty() || block.gateways.iter().any(|gateway| is_gateway(gateway, None, &found.id.namespace)))
            && block.source_labels.iter().all(|(key, value)| here.labels.get(key.as_str()).is_some_and(|has| **has == **value))
            && (block.source_namespace.is_empty() || block.source_namespace == here.namespace)
    };
    let rule = found.spec.tcp.iter().find(|rule| rule.matches.is_empty() || rule.matches.iter().any(fits))?;
    Some(destinations(&rule.route, &found.id.namespace, here))
}

/// Where connections go, by weight.
#[must_use]
pub fn destinations(all: &[RouteDestination], namespace: &str, here: Here<'_>) -> Vec<config::WeightedCluster> {
    let alone = all.len() == 1;
    let used = all.iter().filter(|one| alone || one.weight > 0);
    used.filter_map(|one| {
        let destination = one.destination.as_ref()?;
        Some(weighted(&destination_cluster(destination, namespace, here), if alone { 0 } else { one.weight }))
    })
    .collect()
}

/// A cluster with its weight.
#[must_use]
pub fn weighted(name: &str, weight: i32) -> config::WeightedCluster {
    config::WeightedCluster { name: name.to_owned(), weight: u32::try_from(weight).unwrap_or(0), ..config::WeightedCluster::default() }
}

/// A branch for bytes.
#[must_use]
pub fn tcp_branch(name: &str, matches: Option<config::Match>, clusters: Vec<config::WeightedCluster>) -> config::Branch {
    let tcp = config::Tcp { clusters, ..config::Tcp::default() };
    config::Branch { name: name.to_owned(), r#match: matches, protocol: Some(branch::Protocol::Tcp(tcp)), ..config::Branch::default() }
}

/// Adds the listener for what is sent to the workload.
pub fn inbound(world: &World, proxy: &Proxy, derived: &mut Derived) {
    let mut listener = config::Listener { name: "inbound".into(), address: INBOUND.into(), ..config::Listener::default() };
    listener.set_original_destination(config::OriginalDestination::Redirect);
    let mut seen = BTreeSet::new();
    for service in world.registry.services() {
        for port in &service.ports {
            let here = |endpoint: &&crate::translate::registry::Endpoint| proxy.addresses.contains(&endpoint.address);
            let Some(own) = world.registry.endpoints(&service.host, port.number).iter().find(here) else { continue };
            if !seen.insert(own.port) {
                continue;
            }
            let cluster = inbound_cluster(own.port, own.port, &world.mesh);
            let name = format!("inbound_{}", own.port);
            let mode = mutual_tls(world, proxy, own.port);
            let matches = config::Match { destination_ports: vec![own.port.into()], ..config::Match::default() };
            let protocol = match port.protocol.is_http() {
                true => {
                    branch::Protocol::Http(config::Http { default_action: Some(inbound_action(&cluster.name)), ..config::Http::default() })
                }
                false => branch::Protocol::Tcp(config::Tcp { clusters: vec![weighted(&cluster.name, 0)], ..config::Tcp::default() }),
            };
            derived.mutual_tls.insert(name.clone(), mode);
            listener.branches.push(config::Branch { name, r#match: Some(matches), protocol: Some(protocol), ..config::Branch::default() });
            derived.clusters.push(cluster);
        }
    }
    listener.default_branch = Some(tcp_branch("unknown", None, vec![weighted(PASSTHROUGH, 0)]));
    derived.listeners.push(listener);
}

fn inbound_action(cluster: &str) -> config::RouteAction {
    let forward = config::Forward {
        clusters: vec![weighted(cluster, 0)],
        timeout: Some(weir_model::protobuf::Duration::default()),
        upgrades: vec!["*".into()],
        ..config::Forward::default()
    };
    config::RouteAction {
        name: "default".into(),
        action: Some(config::route_action::Action::Forward(forward)),
        ..config::RouteAction::default()
    }
}

/// Whether clients of a workload's port must come with a certificate: the port's setting, else the workload's, the namespace's, the mesh's; the oldest
/// of each.
#[must_use]
pub fn mutual_tls(world: &World, proxy: &Proxy, port: u16) -> MutualTlsMode {
    let of_workload = world.peer_authentications.iter().filter(|policy| *policy.id.namespace == *proxy.namespace).find(|policy| {
        policy.spec.selector.as_ref().is_some_and(|selector| {
            !selector.match_labels.is_empty()
                && selector.match_labels.iter().all(|(key, value)| proxy.labels.get(key.as_str()).is_some_and(|has| **has == **value))
        })
    });
    let whole = |namespace: &str| {
        let selects_all = |policy: &&Named<crate::api::istio::PeerAuthentication>| {
            *policy.id.namespace == *namespace && policy.spec.selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty())
        };
        world.peer_authentications.iter().find(selects_all).and_then(|policy| policy.spec.mtls).map(|mtls| mtls.mode)
    };
    let at_port = of_workload.and_then(|policy| policy.spec.port_level_mtls.get(&u32::from(port))).map(|mtls| mtls.mode);
    let candidates = [
        at_port,
        of_workload.and_then(|policy| policy.spec.mtls).map(|mtls| mtls.mode),
        whole(&proxy.namespace),
        whole(&world.mesh.root_namespace),
    ];
    candidates.into_iter().flatten().find(|mode| *mode != MutualTlsMode::Unset).unwrap_or(MutualTlsMode::Permissive)
}
