//! The listeners of a gateway: one for each port that a Gateway object opens on it.
//!
//! Plain HTTP servers of a port share one table of routes, whoever's object they are; servers with TLS have branches by server name. A virtual service
//! takes part where it names the gateway and has a host that the server allows its namespace to have. Those of one host are merged, the older before the
//! newer, with the routes that mean every request at the end.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use weir_model::config::{self, branch};

use crate::api::istio::VirtualService;
use crate::api::istio::gateway::{Gateway, Server, ServerTlsMode};
use crate::translate::chain;
use crate::translate::names::common;
use crate::translate::protocol::Protocol;
use crate::translate::route::{Here, Variants, is_gateway, routes};
use crate::translate::sidecar::{destinations, tcp_branch};
use crate::translate::world::{Named, World};
use crate::translate::{Derived, Proxy};

/// A server with the object that it stands in.
#[derive(Clone, Copy)]
struct Open<'a> {
    gateway: &'a Named<Gateway>,
    server: &'a Server,
}

impl Open<'_> {
    /// `namespace/name`.
    fn full_name(&self) -> String {
        format!("{}/{}", self.gateway.id.namespace, self.gateway.id.name)
    }

    /// What a virtual service's host and this server have in common.
    fn host(&self, host: &str, namespace: &str) -> Option<String> {
        self.server.hosts.iter().find_map(|allowed| {
            let (from, allowed) = allowed.split_once('/').unwrap_or(("*", allowed));
            let may = match from {
                "*" => true,
                "." => *self.gateway.id.namespace == *namespace,
                named => named == namespace,
            };
            common(allowed, host).filter(|_| may).map(str::to_owned)
        })
    }

    fn is_plain_http(&self) -> bool {
        let protocol = self.server.port.as_ref().and_then(|port| Protocol::named(&port.protocol));
        protocol.is_some_and(Protocol::is_http)
    }

    fn terminates(&self) -> bool {
        let mode = self.server.tls.as_ref().map(|tls| tls.mode);
        mode.is_some_and(|mode| !matches!(mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough))
    }
}

/// Adds the listeners of all Gateway objects that select the proxy.
pub(super) fn listeners(world: &World, proxy: &Proxy, derived: &mut Derived) {
    let selects = |gateway: &&Named<Gateway>| {
        gateway.spec.selector.iter().all(|(key, value)| proxy.labels.get(key.as_str()).is_some_and(|has| **has == **value))
    };
    let mut ports: BTreeMap<u16, Vec<Open<'_>>> = BTreeMap::new();
    for gateway in world.gateways.iter().filter(selects) {
        for server in &gateway.spec.servers {
            let Some(number) = server.port.as_ref().and_then(|port| u16::try_from(port.number).ok()) else { continue };
            ports.entry(number).or_default().push(Open { gateway, server });
        }
    }
    for (port, servers) in ports {
        let mut listener =
            config::Listener { name: format!("gateway_{port}"), address: format!("0.0.0.0:{port}"), ..config::Listener::default() };
        if let Some(bind) = servers.iter().map(|open| open.server.bind.as_str()).find(|bind| !bind.is_empty()) {
            listener.address = format!("{bind}:{port}");
        }
        let (plain, others): (Vec<_>, Vec<_>) = servers.into_iter().partition(Open::is_plain_http);
        if !plain.is_empty() {
            let name = format!("http.{port}");
            derived.chains.push(http_chain(&name, &plain, world, proxy, port));
            let http = config::Http { filter_chain: name.clone(), ..config::Http::default() };
            let branch = config::Branch { name, protocol: Some(branch::Protocol::Http(http)), ..config::Branch::default() };
            listener.default_branch = Some(branch);
        }
        for (at, open) in others.iter().enumerate() {
            if open.terminates() {
                terminated(&mut listener, derived, *open, at, world, proxy, port);
            } else if open.server.tls.is_some() {
                passed_on(&mut listener, *open, world, proxy, port);
            } else {
                raw(&mut listener, *open, world, proxy, port);
            }
        }
        derived.listeners.push(listener);
    }
}

/// The virtual services that a server takes part of, each with the hosts that they have in common.
fn bound<'a>(open: Open<'_>, world: &'a World) -> Vec<(Vec<String>, &'a Named<VirtualService>)> {
    let full_name = open.full_name();
    let names = |service: &&Named<VirtualService>| {
        service.visibility.reaches(&open.gateway.id.namespace)
            && service.spec.gateways.iter().any(|gateway| is_gateway(gateway, Some(&full_name), &service.id.namespace))
    };
    let hosts = |service: &'a Named<VirtualService>| {
        let common =
            service.spec.hosts.iter().filter_map(|host| open.host(&world.host(host, &service.id.namespace), &service.id.namespace));
        (common.collect::<Vec<_>>(), service)
    };
    world.virtual_services.iter().filter(names).map(hosts).filter(|(hosts, _)| !hosts.is_empty()).collect()
}

fn http_chain(name: &str, servers: &[Open<'_>], world: &World, proxy: &Proxy, port: u16) -> config::FilterChain {
    let mut variants = Variants::default();
    // By host: routes for some requests, then those for all.
    let mut hosts: BTreeMap<String, (Vec<Json>, Vec<Json>)> = BTreeMap::new();
    for open in servers {
        let full_name = open.full_name();
        let here = Here { world, namespace: &proxy.namespace, labels: &proxy.labels, gateway: Some(&full_name), port };
        let redirects = open.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        for (names, service) in bound(*open, world) {
            if redirects {
                let to_https = json!({ "action": { "name": "https_redirect", "redirect": { "status": 301, "scheme": "https" } } });
                for host in names {
                    hosts.entry(host).or_default().1.push(to_https.clone());
                }
                continue;
            }
            if service.spec.http.is_empty() {
                continue;
            }
            let (mut list, ends) = routes(service, here, &mut variants);
            let last = if ends { list.pop() } else { None };
            for host in names {
                let (some, every) = hosts.entry(host).or_default();
                some.extend(list.iter().cloned());
                every.extend(last.iter().cloned());
            }
        }
    }
    let virtual_hosts = hosts.into_iter().map(|(host, (some, every))| json!({ "hosts": [host], "routes": ([some, every].concat()) }));
    chain::routed(name, virtual_hosts.collect(), variants)
}

/// A server that ends TLS: a branch of its own, for its names.
fn terminated(listener: &mut config::Listener, derived: &mut Derived, open: Open<'_>, at: usize, world: &World, proxy: &Proxy, port: u16) {
    let Some(tls) = &open.server.tls else { return };
    let names = server_names(open.server);
    let matches = config::Match { server_names: names, transport: config::Transport::Tls.into(), ..config::Match::default() };
    let mut secured = config::DownstreamTls::default();
    let credentials = std::iter::once(&tls.credential_name).chain(&tls.credential_names).filter(|name| !name.is_empty());
    secured.certificates = credentials.map(|name| format!("{}/{name}", proxy.namespace)).collect();
    if !tls.server_certificate.is_empty() {
        let name = format!("file:{}", tls.server_certificate);
        let file = |path: &str| Some(config::DataSource { source: Some(config::data_source::Source::File(path.to_owned())) });
        let pair = config::KeyPair {
            certificate_chain: file(&tls.server_certificate),
            private_key: file(&tls.private_key),
            ..config::KeyPair::default()
        };
        derived.secrets.push(config::Secret { name: name.clone(), kind: Some(config::secret::Kind::KeyPair(pair)) });
        secured.certificates.push(name);
    }
    if matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual | ServerTlsMode::IstioMutual) {
        let mut client = config::ClientAuth {
            trust_roots: format!("{}/{}-cacert", proxy.namespace, tls.credential_name),
            ..config::ClientAuth::default()
        };
        client.set_mode(if tls.mode == ServerTlsMode::OptionalMutual {
            config::client_auth::Mode::Optional
        } else {
            config::client_auth::Mode::Required
        });
        secured.client_auth = Some(client);
    }
    let is_http = open.server.port.as_ref().is_some_and(|port| Protocol::named(&port.protocol) == Some(Protocol::Https));
    let name = format!("{}.{port}.{at}", if is_http { "https" } else { "tls" });
    let protocol = if is_http {
        derived.chains.push(http_chain(&name, &[open], world, proxy, port));
        branch::Protocol::Http(config::Http { filter_chain: name.clone(), ..config::Http::default() })
    } else {
        let full_name = open.full_name();
        let here = Here { world, namespace: &proxy.namespace, labels: &proxy.labels, gateway: Some(&full_name), port };
        let clusters = bound(open, world).iter().find_map(|(_, service)| tcp_rule(service, here)).unwrap_or_default();
        branch::Protocol::Tcp(config::Tcp { clusters, ..config::Tcp::default() })
    };
    listener.branches.push(config::Branch { name, r#match: Some(matches), tls: Some(secured), protocol: Some(protocol) });
}

/// The names that a server's connections ask for; none is every name.
fn server_names(server: &Server) -> Vec<String> {
    let names = server.hosts.iter().map(|host| host.split_once('/').map_or(host.as_str(), |(_, host)| host));
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.iter().any(|name| name == "*") { Vec::new() } else { names }
}

/// A server that lets TLS through: branches by the names that virtual services match.
fn passed_on(listener: &mut config::Listener, open: Open<'_>, world: &World, proxy: &Proxy, port: u16) {
    let full_name = open.full_name();
    let here = Here { world, namespace: &proxy.namespace, labels: &proxy.labels, gateway: Some(&full_name), port };
    for (_, service) in bound(open, world) {
        for rule in &service.spec.tls {
            for block in &rule.matches {
                let fits = (block.port == 0 || block.port == u32::from(port))
                    && (block.gateways.is_empty()
                        || block.gateways.iter().any(|gateway| is_gateway(gateway, Some(&full_name), &service.id.namespace)));
                if !fits {
                    continue;
                }
                let matches = config::Match {
                    server_names: block.sni_hosts.clone(),
                    transport: config::Transport::Tls.into(),
                    destination_ranges: block.destination_subnets.clone(),
                    ..config::Match::default()
                };
                let name = format!("tls.{port}.{}", block.sni_hosts.first().map_or("", String::as_str));
                listener.branches.push(tcp_branch(&name, Some(matches), destinations(&rule.route, &service.id.namespace, here)));
            }
        }
    }
}

/// A server for bytes.
fn raw(listener: &mut config::Listener, open: Open<'_>, world: &World, proxy: &Proxy, port: u16) {
    let full_name = open.full_name();
    let here = Here { world, namespace: &proxy.namespace, labels: &proxy.labels, gateway: Some(&full_name), port };
    let clusters = bound(open, world).iter().find_map(|(_, service)| tcp_rule(service, here));
    if let (Some(clusters), None) = (clusters, &listener.default_branch) {
        listener.default_branch = Some(tcp_branch(&format!("tcp.{port}"), None, clusters));
    }
}

fn tcp_rule(service: &Named<VirtualService>, here: Here<'_>) -> Option<Vec<config::WeightedCluster>> {
    let fits = |block: &crate::api::istio::virtual_service::L4Match| {
        (block.port == 0 || block.port == u32::from(here.port))
            && (block.gateways.is_empty() || block.gateways.iter().any(|gateway| is_gateway(gateway, here.gateway, &service.id.namespace)))
    };
    let rule = service.spec.tcp.iter().find(|rule| rule.matches.is_empty() || rule.matches.iter().any(fits))?;
    Some(destinations(&rule.route, &service.id.namespace, here))
}
