//! ServiceEntry: its hosts, ports and endpoints, and how they go together.

use super::{At, names, policy, workload};
use crate::api::istio::service_entry::{Location, Resolution, ServiceEntry};
use names::Protocol;

/// Of hosts, addresses and ports.
const MAX_ITEMS: usize = 256;

pub(super) fn check(at: &At<'_>, spec: &ServiceEntry) {
    policy::check_workload_selector(at, spec.workload_selector.as_ref());
    at.at_most_one(&[("workloadSelector", spec.workload_selector.is_some()), ("endpoints", !spec.endpoints.is_empty())]);
    check_hosts(at, spec);
    check_ports(at, spec);
    at.key("addresses").at_most(MAX_ITEMS, spec.addresses.len());
    at.each("addresses", &spec.addresses, |at, address| {
        at.check(names::subnet(address));
        if address.contains('/') && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
            at.conflict("ranges of addresses go with the resolutions NONE and STATIC only");
        }
    });
    at.key("endpoints").at_most(4096, spec.endpoints.len());
    match spec.resolution {
        Resolution::None => check_none(at, spec),
        Resolution::Static => at.each("endpoints", &spec.endpoints, |at, endpoint| {
            workload::check(at, endpoint, Some(&spec.ports), false);
        }),
        Resolution::Dns | Resolution::DnsRoundRobin => check_dns(at, spec),
        Resolution::DynamicDns => check_dynamic(at, spec),
    }
    let plain = |port: &crate::api::istio::common::Port| !matches!(names::protocol(&port.protocol), Some(Protocol::Http | Protocol::Tls));
    if spec.resolution != Resolution::None && spec.hosts.len() > 1 && spec.ports.iter().any(plain) {
        at.key("hosts").conflict("several hosts cannot be told apart on a port that is neither HTTP nor TLS");
    }
    names::check_export_to(at, &spec.export_to, true, false);
}

fn check_hosts(at: &At<'_>, spec: &ServiceEntry) {
    if spec.hosts.is_empty() {
        at.missing("hosts is missing");
    }
    at.key("hosts").at_most(MAX_ITEMS, spec.hosts.len());
    at.each("hosts", &spec.hosts, |at, host| {
        if host == "*" {
            at.invalid("`*` would be every host there is");
            return;
        }
        at.check(names::wildcard(host));
        if let Err(message) = names::partial_wildcard(host) {
            at.no_effect(message);
        }
    });
}

fn check_ports(at: &At<'_>, spec: &ServiceEntry) {
    let list = at.key("ports");
    list.at_most(MAX_ITEMS, spec.ports.len());
    for (index, port) in spec.ports.iter().enumerate().take(MAX_ITEMS) {
        let here = list.index(index);
        if spec.ports[..index].iter().any(|other| other.name == port.name) {
            here.key("name").conflict(format!("there is a port `{}` already", port.name));
        }
        if spec.ports[..index].iter().any(|other| other.number == port.number) {
            here.key("number").conflict(format!("there is a port {} already", port.number));
        }
        here.key("name").check(names::port_name(&port.name));
        here.key("number").check(names::port(port.number));
        names::check_protocol(&here.key("protocol"), &port.protocol);
        if port.target_port != 0 {
            here.key("targetPort").check(names::port(port.target_port));
            if spec.resolution == Resolution::None {
                here.key("targetPort").no_effect("with the resolution NONE, connections go to the port that they were for");
            }
        }
    }
}

fn check_none(at: &At<'_>, spec: &ServiceEntry) {
    if !spec.endpoints.is_empty() {
        at.key("endpoints").conflict("with the resolution NONE, connections go to the address that they were for");
    }
    if spec.workload_selector.is_some() {
        at.key("workloadSelector").no_effect("with the resolution NONE, connections go to the address that they were for");
    }
}

fn check_dns(at: &At<'_>, spec: &ServiceEntry) {
    if spec.endpoints.is_empty() {
        at.each("hosts", &spec.hosts, |at, host| {
            if names::fqdn(host).is_err() && host != "*" {
                at.invalid(format!("`{host}` cannot be looked up, and there are no endpoints"));
            }
        });
    }
    if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        at.key("endpoints").conflict("the resolution DNS_ROUND_ROBIN has one endpoint at most");
    }
    at.each("endpoints", &spec.endpoints, |at, endpoint| workload::check_named(at, endpoint, &spec.ports));
    if spec.workload_selector.is_some() {
        at.key("workloadSelector").no_effect("endpoints are found by name");
    }
}

fn check_dynamic(at: &At<'_>, spec: &ServiceEntry) {
    at.each("hosts", &spec.hosts, |at, host| {
        if !host.starts_with("*.") {
            at.invalid("with the resolution DYNAMIC_DNS, a host must begin with `*.`");
        }
    });
    if !spec.endpoints.is_empty() {
        at.key("endpoints").conflict("with the resolution DYNAMIC_DNS, the request says where it goes");
    }
    if spec.workload_selector.is_some() {
        at.key("workloadSelector").conflict("with the resolution DYNAMIC_DNS, the request says where it goes");
    }
    at.each("ports", &spec.ports, |at, port| {
        if !matches!(names::protocol(&port.protocol), Some(Protocol::Http | Protocol::Tls)) {
            at.key("protocol").conflict("with the resolution DYNAMIC_DNS, it must be HTTP, HTTP2, GRPC, HTTPS or TLS");
        }
    });
    if spec.location == Location::MeshInternal && at.object().meta.labels.contains_key("istio.io/use-waypoint") {
        at.key("location").conflict("MESH_INTERNAL with DYNAMIC_DNS does not work through a waypoint");
    }
}
