//! Sidecar: its listeners for what comes in and what goes out.

use std::collections::BTreeSet;

use super::{At, destination_rule, gateway, names, policy, virtual_service};
use crate::api::istio::gateway::ServerTlsMode;
use crate::api::istio::sidecar::{CaptureMode, Egress, Ingress, OutboundMode, OutboundTrafficPolicy, Sidecar, SidecarPort};

pub(super) fn check(at: &At<'_>, spec: &Sidecar) {
    policy::check_workload_selector(at, spec.workload_selector.as_ref());
    let nothing = spec.egress.is_empty() && spec.ingress.is_empty();
    if nothing && spec.outbound_traffic_policy.is_none() && spec.inbound_connection_pool.is_none() {
        at.missing("a Sidecar needs egress, ingress, outboundTrafficPolicy or inboundConnectionPool");
    }
    let mut ports = BTreeSet::new();
    at.each("ingress", &spec.ingress, |at, ingress| check_ingress(at, ingress, &mut ports));
    at.some("inboundConnectionPool", spec.inbound_connection_pool.as_ref(), destination_rule::check_pool);
    check_egress(at, &spec.egress);
    at.some("outboundTrafficPolicy", spec.outbound_traffic_policy.as_ref(), check_outbound);
}

fn check_port(at: &At<'_>, port: &SidecarPort) {
    if port.target_port > 0 {
        at.key("targetPort").invalid("a Sidecar's port has no targetPort");
    }
    if !port.name.is_empty() {
        at.key("name").check(names::port_name(&port.name));
    }
    names::check_protocol(&at.key("protocol"), &port.protocol);
}

fn check_ingress(at: &At<'_>, ingress: &Ingress, ports: &mut BTreeSet<u32>) {
    let Some(port) = &ingress.port else { return at.missing("port is missing") };
    check_port(&at.key("port"), port);
    at.key("port").key("number").check(names::port(port.number));
    if !ports.insert(port.number) {
        at.key("port").key("number").conflict(format!("there is a listener on {} already", port.number));
    }
    if !ingress.bind.is_empty() {
        at.key("bind").check(names::ip(&ingress.bind));
    }
    if !ingress.default_endpoint.is_empty() {
        check_default_endpoint(&at.key("defaultEndpoint"), &ingress.default_endpoint);
    }
    at.some("tls", ingress.tls.as_ref(), |at, tls| {
        for (key, set) in [
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
            ("httpsRedirect", tls.https_redirect),
            ("credentialName", !tls.credential_name.is_empty()),
            ("credentialNames", !tls.credential_names.is_empty()),
            ("caCertCredentialName", !tls.ca_cert_credential_name.is_empty()),
        ] {
            if set {
                at.key(key).invalid("it cannot be set in a Sidecar");
            }
        }
        if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
            at.key("mode").invalid("a Sidecar terminates TLS with certificates of its own only");
        }
        gateway::check_tls(at, tls);
        if names::protocol(&port.protocol) != Some(names::Protocol::Tls) {
            at.conflict(format!("the protocol `{}` has no TLS: it must be HTTPS or TLS", port.protocol));
        }
    });
    at.some("connectionPool", ingress.connection_pool.as_ref(), |at, pool| {
        destination_rule::check_pool(at, pool);
        if pool.http.is_some() && names::protocol(&port.protocol) != Some(names::Protocol::Http) {
            at.key("http").no_effect("the port's protocol is not HTTP");
        }
    });
}

fn check_default_endpoint(at: &At<'_>, text: &str) {
    if let Some(path) = text.strip_prefix(names::UNIX) {
        return at.check(names::unix(path));
    }
    let split = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':')),
    };
    let port = split.and_then(|(host, port)| {
        let here = matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "::1" | "::");
        port.parse::<u32>().ok().filter(|_| here)
    });
    match port {
        None => at.invalid(format!("`{text}` is not 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix://PATH")),
        Some(port) => at.check(names::port(port)),
    }
}

fn check_egress(at: &At<'_>, listeners: &[Egress]) {
    let (mut ports, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    let list = at.key("egress");
    for (index, egress) in listeners.iter().enumerate() {
        let here = list.index(index);
        match &egress.port {
            None if index + 1 < listeners.len() => here.conflict("a listener without a port is for all, and must be the last"),
            None => {}
            Some(port) => {
                check_port(&here.key("port"), port);
                check_egress_bind(&here, egress, port);
                let first = if port.number == 0 { sockets.insert(&*egress.bind) } else { ports.insert(port.number) };
                if !first {
                    here.key("port").conflict("there is a listener on it already");
                }
            }
        }
        if egress.hosts.is_empty() {
            here.missing("hosts is missing");
        }
        here.each("hosts", &egress.hosts, |at, host| at.check(names::namespaced_host(host, false)));
        check_hosts(&here, &egress.hosts);
    }
}

fn check_egress_bind(at: &At<'_>, egress: &Egress, port: &SidecarPort) {
    if port.number > 0 {
        at.key("port").key("number").check(names::port(port.number));
        if !egress.bind.is_empty() {
            at.key("bind").check(names::ip(&egress.bind));
        }
        return;
    }
    match egress.bind.strip_prefix(names::UNIX) {
        Some(path) => at.key("bind").check(names::unix(path)),
        None => at.key("port").key("number").invalid("a port of 0 needs the path of a Unix socket to bind to"),
    }
    if egress.capture_mode == CaptureMode::Iptables {
        at.key("captureMode").conflict("nothing can be redirected to a Unix socket");
    }
}

/// Hosts that others in the list are part of.
fn check_hosts(at: &At<'_>, hosts: &[String]) {
    let own = &*at.object().id.namespace;
    let pairs: Vec<(&str, &str)> = hosts
        .iter()
        .take(super::MAX_COMPARED)
        .filter_map(|host| host.split_once('/'))
        .map(|(namespace, host)| (if namespace == "." { own } else { namespace }, host))
        .collect();
    let list = at.key("hosts");
    for (index, (namespace, host)) in pairs.iter().enumerate() {
        let covered = |(other, name): &(&str, &str)| (*other == *namespace || *other == "*") && (*name == *host || *name == "*");
        if pairs
            .iter()
            .enumerate()
            .any(|(place, pair)| covered(pair) && (place < index || (*pair != (*namespace, *host) && place != index)))
        {
            list.no_effect(format!("`{namespace}/{host}` is part of another host of the list"));
        }
    }
}

fn check_outbound(at: &At<'_>, policy: &OutboundTrafficPolicy) {
    at.some("egressProxy", policy.egress_proxy.as_ref(), |at, proxy| {
        if policy.mode != OutboundMode::AllowAny {
            at.conflict("it goes with the mode ALLOW_ANY only");
        }
        at.key("host").check(names::fqdn(&proxy.host));
        if proxy.port.is_none() {
            at.missing("port is missing");
        }
        virtual_service::check_destination(at, proxy);
    });
}
