//! WorkloadEntry and WorkloadGroup: addresses, ports and probes.

use super::{At, headers, names};
use crate::api::istio::common::Port;
use crate::api::istio::workload::Probe;
use crate::api::istio::{WorkloadEntry, WorkloadGroup};

pub(super) fn check_entry(at: &At<'_>, spec: &WorkloadEntry) {
    check(at, spec, None, true);
}

/// An endpoint: of the service with these ports, if it is known. `named` ones may have a host name for an address.
pub(super) fn check(at: &At<'_>, entry: &WorkloadEntry, ports: Option<&[Port]>, named: bool) {
    let address = at.key("address");
    let socket = entry.address.strip_prefix(names::UNIX);
    match (socket, entry.address.as_str()) {
        (Some(path), _) => {
            address.check(names::unix(path));
            if !entry.ports.is_empty() {
                at.key("ports").conflict("a Unix socket has no ports");
            }
            if ports.is_some_and(|ports| ports.len() != 1) {
                address.conflict("a service with Unix sockets for endpoints must have one port");
            }
        }
        (None, "") if entry.network.is_empty() => at.missing("address is missing"),
        (None, "") => at.no_effect("without an address, the network's gateway is what is meant"),
        (None, text) if names::ip(text).is_ok() => {}
        (None, text) if !named => address.invalid(format!("`{text}` is not an IP address")),
        (None, text) => check_host(&address, text),
    }
    check_rest(at, entry, ports);
}

/// An endpoint that is looked up by name.
pub(super) fn check_named(at: &At<'_>, entry: &WorkloadEntry, ports: &[Port]) {
    let address = at.key("address");
    if entry.address.is_empty() && entry.network.is_empty() {
        at.missing("address is missing");
    } else if names::ip(&entry.address).is_err() {
        check_host(&address, &entry.address);
    }
    check_rest(at, entry, Some(ports));
}

fn check_host(at: &At<'_>, text: &str) {
    if names::fqdn(text).is_err() {
        at.invalid(format!("`{text}` is neither an IP address nor a host name"));
    }
}

fn check_rest(at: &At<'_>, entry: &WorkloadEntry, ports: Option<&[Port]>) {
    let list = at.key("ports");
    for (name, port) in &entry.ports {
        let here = list.key(name);
        if ports.is_some_and(|ports| ports.iter().all(|port| port.name != *name)) {
            here.invalid(format!("the service has no port `{name}`"));
        }
        here.check(names::port_name(name));
        here.check(names::port(*port));
    }
    names::check_labels(&at.key("labels"), &entry.labels);
}

pub(super) fn check_group(at: &At<'_>, spec: &WorkloadGroup) {
    match &spec.template {
        None => at.missing("template is missing"),
        Some(template) => check_template(&at.key("template"), template),
    }
    at.some("metadata", spec.metadata.as_ref(), |at, meta| names::check_labels(&at.key("labels"), &meta.labels));
    at.some("probe", spec.probe.as_ref(), check_probe);
}

/// What the definition of the kind asks of a template.
fn check_template(at: &At<'_>, template: &WorkloadEntry) {
    let list = at.key("ports");
    for (name, port) in &template.ports {
        list.key(name).check(names::port_name(name));
        list.key(name).check(names::port(*port));
    }
    if let Some(path) = template.address.strip_prefix(names::UNIX) {
        at.key("address").check(names::unix(path));
    }
}

fn check_probe(at: &At<'_>, probe: &Probe) {
    for (key, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if number < 0 {
            at.key(key).invalid(format!("{number} is less than 0"));
        }
    }
    let ways = [
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("exec", probe.exec.is_some()),
        ("grpc", probe.grpc.is_some()),
    ];
    at.at_most_one(&ways);
    if ways.iter().all(|(_, set)| !set) {
        at.missing("a probe needs one of httpGet, tcpSocket, exec and grpc");
    }
    at.some("httpGet", probe.http_get.as_ref(), |at, probe| {
        at.key("port").check(names::port(probe.port));
        if !matches!(probe.scheme.as_str(), "" | "HTTP" | "HTTPS") {
            at.key("scheme").invalid(format!("`{}` is neither HTTP nor HTTPS", probe.scheme));
        }
        at.each("httpHeaders", &probe.http_headers, |at, header| at.key("name").check(headers::plain_name(&header.name)));
    });
    at.some("tcpSocket", probe.tcp_socket.as_ref(), |at, probe| at.key("port").check(names::port(probe.port)));
    at.some("grpc", probe.grpc.as_ref(), |at, probe| at.key("port").check(names::port(probe.port)));
    at.some("exec", probe.exec.as_ref(), |at, probe| {
        if probe.command.is_empty() || probe.command[0].is_empty() {
            at.missing("command is missing");
        }
    });
}
