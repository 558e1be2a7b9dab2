//! Names of hosts, ports, labels, gateways and namespaces, and addresses: what each may look like, as Istio has it.

use std::net::IpAddr;

use super::At;

/// Letters, digits and inner hyphens, 63 at most.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63 && bytes.iter().all(|byte| inner(*byte)) && ends(bytes.first()) && ends(bytes.last())
}

/// The same, or with `*` or `*-` before it, or `*` alone.
fn is_wildcard_label(text: &str) -> bool {
    let rest = text.strip_prefix('*').map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    text.len() <= 63 && (is_label(text) || text == "*" || rest.is_some_and(is_label))
}

fn sized(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("a host name must not be empty".into()),
        1..=255 => Ok(()),
        _ => Err(format!("the host name `{name}` is longer than 255 characters")),
    }
}

fn labels_of(domain: &str) -> Result<(), String> {
    let parts: Vec<&str> = domain.split('.').collect();
    let last = parts.last().copied().unwrap_or_default();
    if !last.is_empty() && last.trim_start_matches(['+', '-']).bytes().all(|byte| byte.is_ascii_digit()) && last.parse::<i64>().is_ok() {
        return Err(format!("the host name `{domain}` must not end in a number"));
    }
    for (index, part) in parts.iter().enumerate() {
        // A name may end in a dot.
        if part.is_empty() && index + 1 == parts.len() {
            return Ok(());
        }
        if !is_label(part) {
            return Err(format!("`{part}` cannot be a part of the host name `{domain}`"));
        }
    }
    Ok(())
}

/// A host name without wildcards.
pub(super) fn fqdn(name: &str) -> Result<(), String> {
    sized(name)?;
    labels_of(name)
}

/// A host name whose first label may be, or begin with, `*`.
pub(super) fn wildcard(name: &str) -> Result<(), String> {
    sized(name)?;
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    if !is_wildcard_label(first) {
        return Err(format!("`{first}` cannot be a part of the host name `{name}`"));
    }
    rest.map_or(Ok(()), labels_of)
}

/// The same where a gateway serves it; `outbound_.PORT_.SUBSET_.HOST` is what names a cluster in a TLS handshake.
pub(super) fn wildcard_at_gateway(name: &str, tls: bool) -> Result<(), String> {
    let Some(cluster) = name.strip_prefix("outbound_.").filter(|_| tls) else { return wildcard(name) };
    sized(name)?;
    let parts: Vec<&str> = cluster.splitn(3, '.').collect();
    let [port, subset, host] = parts[..] else { return Err(format!("`{name}` is not of the form outbound_.PORT_.SUBSET_.HOST")) };
    let number = port.strip_suffix('_').and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
    let subset = subset.strip_suffix('_').filter(|subset| subset.is_empty() || is_label(subset));
    if number.is_none() || subset.is_none() {
        return Err(format!("`{name}` is not of the form outbound_.PORT_.SUBSET_.HOST"));
    }
    fqdn(host)
}

/// A wildcard that is not a whole label.
pub(super) fn partial_wildcard(name: &str) -> Result<(), String> {
    if name.contains('*') && name != "*" && !name.starts_with("*.") {
        return Err(format!("`{name}`: a wildcard must be all of the first label"));
    }
    Ok(())
}

/// Whether each host that `b` means is one that `a` means, or the other way round.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(a), None) => b.ends_with(a),
        (None, Some(b)) => a.ends_with(b),
        (None, None) => a == b,
    }
}

/// Whether each host that `inner` means is one that `outer` means.
pub(super) fn within(inner: &str, outer: &str) -> bool {
    match (inner.strip_prefix('*'), outer.strip_prefix('*')) {
        (Some(inner), Some(outer)) => inner.ends_with(outer),
        (Some(_), None) => false,
        (None, Some(outer)) => inner.ends_with(outer),
        (None, None) => inner == outer,
    }
}

/// `[namespace/]host` of a Gateway, `namespace/host` of a Sidecar.
pub(super) fn namespaced_host(text: &str, gateway: bool) -> Result<(), String> {
    let Some((namespace, host)) = text.split_once('/') else {
        return if gateway { edge_host(text, true) } else { Err(format!("`{text}` must be of the form namespace/host")) };
    };
    if namespace.is_empty() || host.is_empty() {
        return Err(format!("`{text}`: neither the namespace nor the host may be empty"));
    }
    let special = matches!(namespace, "*" | ".") || (namespace == "~" && !gateway);
    // `~` before a namespace's name leaves a host out.
    let named = if gateway { namespace } else { namespace.strip_prefix('~').unwrap_or(namespace) };
    if !special && !is_label(named) {
        return Err(format!("`{namespace}` cannot be a namespace"));
    }
    edge_host(host, gateway)
}

fn edge_host(host: &str, gateway: bool) -> Result<(), String> {
    if host != "*" && !host.contains('.') && !(gateway && host.contains(':')) {
        return Err(format!("`{host}` is a short name, and must be a whole one"));
    }
    if let Err(message) = wildcard(host)
        && !(gateway && ip(host).is_ok())
    {
        return Err(message);
    }
    partial_wildcard(host)
}

/// An address, which may have a zone.
pub(super) fn ip(text: &str) -> Result<(), String> {
    let address = match text.split_once('%') {
        Some((address, zone)) if !zone.is_empty() && address.contains(':') => address,
        _ => text,
    };
    address.parse::<IpAddr>().map(drop).map_err(|_| format!("`{text}` is not an IP address"))
}

/// An address, or a range of them.
pub(super) fn subnet(text: &str) -> Result<(), String> {
    let Some((address, bits)) = text.split_once('/') else { return ip(text) };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return Err(format!("`{text}` is not a range of addresses")),
    };
    let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|byte| byte.is_ascii_digit()));
    match bits.parse::<u8>() {
        Ok(bits) if plain && bits <= most => Ok(()),
        _ => Err(format!("`{text}` is not a range of addresses")),
    }
}

/// 1 to 65535.
pub(super) fn port(number: u32) -> Result<(), String> {
    if (1..=65535).contains(&number) { Ok(()) } else { Err(format!("the port {number} is not within 1 to 65535")) }
}

/// A name of a port.
pub(super) fn port_name(name: &str) -> Result<(), String> {
    if is_label(name) { Ok(()) } else { Err(format!("`{name}` cannot be the name of a port")) }
}

/// The name of a subset.
pub(super) fn subset(name: &str) -> Result<(), String> {
    if is_label(name) { Ok(()) } else { Err(format!("`{name}` cannot be the name of a subset")) }
}

/// The path of a Unix socket, or a name of Linux' own with `@` before it.
pub(super) fn unix(path: &str) -> Result<(), String> {
    if path.starts_with('@') || (path.starts_with('/') && !path.ends_with('/')) {
        return Ok(());
    }
    Err(format!("`{path}` is not the absolute path of a socket"))
}

/// What is before the path of a Unix socket.
pub(super) const UNIX: &str = "unix://";

/// What may be spoken on a port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Tls,
    Tcp,
    Udp,
}

/// What the name of a protocol means.
pub(super) fn protocol(name: &str) -> Option<Protocol> {
    match name.to_ascii_lowercase().as_str() {
        "http" | "http2" | "http_proxy" | "grpc" | "grpc-web" => Some(Protocol::Http),
        "https" | "tls" => Some(Protocol::Tls),
        "tcp" | "mongo" | "redis" | "mysql" | "hbone" | "double-hbone" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// The names of the protocols, for people.
pub(super) const PROTOCOLS: &str = "The protocols are HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, REDIS, MYSQL.";

/// What the name of a protocol, which may be left out, must be.
pub(super) fn check_protocol(at: &At<'_>, name: &str) {
    if !name.is_empty() && protocol(name).is_none() {
        at.tell(crate::Code::Invalid, format!("`{name}` is not a protocol"), PROTOCOLS);
    }
}

fn is_qualified(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inner)
}

/// Labels of workloads.
pub(super) fn check_labels(at: &At<'_>, labels: &crate::api::istio::common::Texts) {
    for (key, value) in labels {
        let (prefix, name) = key.split_once('/').map_or((None, key.as_str()), |(prefix, name)| (Some(prefix), name));
        let prefix_fits = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_label));
        if !prefix_fits || !is_qualified(name) {
            at.key(key).invalid(format!("`{key}` cannot be the key of a label"));
        }
        if !value.is_empty() && !is_qualified(value) {
            at.key(key).invalid(format!("`{value}` cannot be the value of a label"));
        }
    }
}

/// Names of gateways: `namespace/name`, `name`, `mesh`.
pub(super) fn check_gateways(at: &At<'_>, names: &[String]) {
    at.each("gateways", names, |at, name| match name.split_once('/') {
        Some((namespace, gateway)) => {
            if !is_label(namespace) {
                at.invalid(format!("`{namespace}` cannot be a namespace"));
            }
            if !is_label(gateway) {
                at.invalid(format!("`{gateway}` cannot be the name of a Gateway"));
            }
        }
        None => at.check(fqdn(name)),
    });
}

/// Which namespaces see an object.
pub(super) fn check_export_to(at: &At<'_>, entries: &[String], nobody: bool, selector: bool) {
    let list = at.key("exportTo");
    let namespace = &*at.object().id.namespace;
    let mut seen: Vec<&str> = Vec::new();
    for (index, entry) in entries.iter().enumerate().take(super::MAX_COMPARED) {
        let here = list.index(index);
        let meant = if entry == "." { namespace } else { entry };
        if seen.contains(&meant) {
            here.conflict(format!("`{entry}` stands here twice"));
        } else if meant == "~" && !nobody {
            here.invalid("`~`, nobody, is for ServiceEntries only");
        } else if meant != "*" && meant != "~" && !is_label(meant) {
            here.invalid(format!("`{entry}` is neither `.`, `*` nor a namespace"));
        } else {
            seen.push(meant);
        }
    }
    if selector && !seen.is_empty() && seen != [namespace] {
        list.conflict("a rule with a workloadSelector is for its own namespace only");
    }
    for all in ["*", "~"] {
        if seen.contains(&all) && entries.len() > 1 {
            list.conflict(format!("`{all}` excludes everything else"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        let long = format!("{}.com", "a".repeat(64));
        for (name, plain, starred) in [
            ("a.example.com", true, true),
            ("a.example.com.", true, true),
            ("reviews", true, true),
            ("A-1.b", true, true),
            ("*", false, true),
            ("*.example.com", false, true),
            ("*-a.example.com", false, true),
            ("*a.example.com", false, true),
            ("a*.example.com", false, false),
            ("a.*.com", false, false),
            ("1.1.1", false, false),
            ("a..b", false, false),
            ("-a.b", false, false),
            ("", false, false),
            (&long, false, false),
        ] {
            assert_eq!((fqdn(name).is_ok(), wildcard(name).is_ok()), (plain, starred), "{name}");
        }
        assert!(fqdn(&vec!["a"; 129].join(".")).is_err());
    }

    #[test]
    fn cluster_names_in_handshakes() {
        for (name, fits) in [
            ("outbound_.80_._.e2e.foobar.mesh", true),
            ("outbound_.80_.v1_.e2e.foobar.mesh", true),
            ("outbound_.x_._.e2e.foobar.mesh", false),
            ("outbound_.0_._.e2e.foobar.mesh", false),
            ("outbound_.80_._", false),
            ("inbound_.80_._.e2e.mesh", false),
        ] {
            assert_eq!(wildcard_at_gateway(name, true).is_ok(), fits, "{name}");
        }
        assert!(wildcard_at_gateway("outbound_.80_._.e2e.foobar.mesh", false).is_err());
    }

    #[test]
    fn hosts_that_overlap() {
        for (a, b, both, inside) in [
            ("a.b", "a.b", true, true),
            ("a.b", "c.b", false, false),
            ("*.b", "a.b", true, false),
            ("a.b", "*.b", true, true),
            ("*.a.b", "*.b", true, true),
            ("*.b", "*.a.b", true, false),
            ("*", "a", true, false),
            ("*.b", "b", false, false),
        ] {
            assert_eq!((overlap(a, b), within(a, b)), (both, inside), "{a} {b}");
        }
    }

    #[test]
    fn addresses() {
        for (text, address, range) in [
            ("10.1.2.3", true, true),
            ("::1", true, true),
            ("fe80::1%eth0", true, true),
            ("10.1.2", false, false),
            ("10.1.0.0/16", false, true),
            ("10.1.0.0/33", false, false),
            ("2001:db8::/128", false, true),
            ("10.0.0.0/08", false, false),
            ("10.0.0.0/+8", false, false),
            ("10.0.0.0/8/8", false, false),
            ("", false, false),
        ] {
            assert_eq!((ip(text).is_ok(), subnet(text).is_ok()), (address, range), "{text}");
        }
    }

    #[test]
    fn hosts_with_namespaces() {
        for (text, gateway, sidecar) in [
            ("ns/a.b", true, true),
            ("*/*", true, true),
            ("./*.b", true, true),
            ("~/a.b", false, true),
            ("~ns/a.b", false, true),
            ("a.b", true, false),
            ("10.0.0.1", true, false),
            ("::1", true, false),
            ("ns/", false, false),
            ("ns/short", false, false),
            ("n.s/a.b", false, false),
            ("ns/*b.c", false, false),
        ] {
            assert_eq!((namespaced_host(text, true).is_ok(), namespaced_host(text, false).is_ok()), (gateway, sidecar), "{text}");
        }
    }
}
