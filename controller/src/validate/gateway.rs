//! Gateway: its servers, their hosts and their TLS.

use std::collections::BTreeSet;

use super::{At, names, policy};
use crate::Code;
use crate::api::istio::Gateway;
use crate::api::istio::gateway::{Server, ServerTls, ServerTlsMode, TlsVersion};
use names::Protocol;

pub(super) fn check(at: &At<'_>, spec: &Gateway) {
    let name = &*at.object().id.name;
    let converted = policy::is_converted(at, "gateway");
    if !names::is_label(name) && !converted {
        let root = At { report: at.report, up: None, step: super::Link::Root };
        root.key("metadata").key("name").invalid(format!("`{name}` cannot be the name of a Gateway: it must have no dots"));
    }
    if spec.servers.is_empty() {
        at.missing("a Gateway needs a server");
    }
    at.each("servers", &spec.servers, check_server);
    let list = at.key("servers");
    let mut seen = BTreeSet::new();
    for (index, server) in spec.servers.iter().enumerate() {
        let port = server.port.as_ref().map(|port| &*port.name).filter(|name| !name.is_empty());
        if let Some(name) = port.filter(|name| !seen.insert(*name)) {
            list.index(index).key("port").key("name").conflict(format!("there is a port `{name}` already"));
        }
    }
}

fn check_server(at: &At<'_>, server: &Server) {
    if server.hosts.is_empty() {
        at.missing("hosts is missing");
    }
    at.each("hosts", &server.hosts, |at, host| {
        // What was converted from the Gateway API may have nobody to serve.
        let unbound = host.strip_prefix("~/").filter(|_| policy::is_converted(at, "gateway"));
        at.check(names::namespaced_host(unbound.unwrap_or(host), true));
    });
    check_port(at, server);
    check_bind(at, server);
    if !server.default_endpoint.is_empty() {
        at.key("defaultEndpoint").no_effect("it does nothing");
    }
    let protocol = server.port.as_ref().and_then(|port| names::protocol(&port.protocol));
    at.some("tls", server.tls.as_ref(), check_tls);
    check_fit(at, server.tls.as_ref(), protocol);
}

fn check_port(at: &At<'_>, server: &Server) {
    let Some(port) = &server.port else { return at.missing("port is missing") };
    let at = at.key("port");
    if port.protocol.is_empty() {
        at.missing("protocol is missing");
    }
    names::check_protocol(&at.key("protocol"), &port.protocol);
    if port.name.is_empty() {
        at.missing("name is missing");
    }
    if !is_written(&at, "number") {
        at.missing("number is missing");
    } else if port.number > 0 || !server.bind.starts_with(names::UNIX) {
        at.key("number").check(names::port(port.number));
    }
    if port.target_port > 0 {
        at.key("targetPort").invalid("a Gateway's port has no targetPort");
    }
}

/// Whether a field is written, even if with the value that it would have otherwise.
fn is_written(at: &At<'_>, key: &str) -> bool {
    let pointer: String = at
        .key(key)
        .way()
        .steps()
        .iter()
        .map(|step| match step {
            weir_model::yaml::document::Step::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            weir_model::yaml::document::Step::Index(index) => format!("/{index}"),
        })
        .collect();
    let below = pointer.strip_prefix("/spec").unwrap_or_default();
    at.object().spec().pointer(below).is_some_and(|value| !value.is_null())
}

fn check_bind(at: &At<'_>, server: &Server) {
    let at = at.key("bind");
    match server.bind.strip_prefix(names::UNIX) {
        Some(path) => {
            at.check(names::unix(path));
            if server.port.as_ref().is_some_and(|port| port.number != 0) {
                at.conflict("a Unix socket has no port: its number must be 0");
            }
        }
        None if server.bind.is_empty() => {}
        None => at.check(names::ip(&server.bind)),
    }
}

/// TLS where it is spoken, and only there.
fn check_fit(at: &At<'_>, tls: Option<&ServerTls>, protocol: Option<Protocol>) {
    match (protocol, tls) {
        (Some(Protocol::Tls), None) => at.missing("a port of HTTPS or TLS needs tls"),
        (Some(Protocol::Tls), Some(tls)) if tls.https_redirect => {
            at.key("tls").key("httpsRedirect").no_effect("only plain HTTP can be redirected to HTTPS");
        }
        (Some(Protocol::Http), Some(tls)) => {
            let passes = matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough);
            let files = [&tls.ca_certificates, &tls.private_key, &tls.server_certificate].iter().any(|file| !file.is_empty());
            if !passes || files {
                at.key("tls").tell(Code::Conflict, "plain HTTP has no TLS", "Only httpsRedirect can be set, or make the protocol HTTPS.");
            }
        }
        (Some(Protocol::Tcp | Protocol::Udp), Some(_)) => {
            at.key("tls").tell(Code::Conflict, "the port's protocol has no TLS", "Make the protocol TLS or HTTPS.");
        }
        _ => {}
    }
}

/// How a server speaks TLS.
pub(super) fn check_tls(at: &At<'_>, tls: &ServerTls) {
    use ServerTlsMode::{AutoPassthrough, IstioMutual, Mutual, OptionalMutual, Passthrough, Simple};
    check_ciphers(at, tls);
    check_sources(at, tls);
    at.key("credentialNames").at_most(2, tls.credential_names.len());
    at.key("tlsCertificates").at_most(2, tls.tls_certificates.len());
    at.each("verifyCertificateSpki", &tls.verify_certificate_spki, |at, hash| {
        if hash.is_empty() {
            at.invalid("a hash must not be empty");
        }
    });
    match tls.mode {
        IstioMutual => {
            for (key, text) in
                files(tls).into_iter().chain([("credentialName", &*tls.credential_name)]).filter(|(_, text)| !text.is_empty())
            {
                at.key(key).conflict(format!("ISTIO_MUTUAL uses the mesh's certificates, not `{text}`"));
            }
            for (key, set) in [("credentialNames", !tls.credential_names.is_empty()), ("tlsCertificates", !tls.tls_certificates.is_empty())]
            {
                if set {
                    at.key(key).conflict("ISTIO_MUTUAL uses the mesh's certificates");
                }
            }
        }
        Passthrough | AutoPassthrough => {
            let named = files(tls).into_iter().chain([("credentialName", &*tls.credential_name), ("caCrl", &*tls.ca_crl)]);
            for (key, _) in named.filter(|(_, text)| !text.is_empty()) {
                at.key(key).no_effect("TLS is passed on, so no certificate is used");
            }
        }
        Simple => check_terminated(at, tls, "SIMPLE", false),
        Mutual => check_terminated(at, tls, "MUTUAL", true),
        OptionalMutual => check_terminated(at, tls, "OPTIONAL_MUTUAL", true),
    }
    if tls.insecure_skip_verify == Some(true) && !matches!(tls.mode, Mutual | OptionalMutual) {
        at.key("insecureSkipVerify").no_effect("certificates of clients are looked at by MUTUAL and OPTIONAL_MUTUAL only");
    }
}

fn files(tls: &ServerTls) -> [(&'static str, &str); 3] {
    [("serverCertificate", &tls.server_certificate), ("privateKey", &tls.private_key), ("caCertificates", &tls.ca_certificates)]
}

/// Certificates come from one place.
fn check_sources(at: &At<'_>, tls: &ServerTls) {
    at.at_most_one(&[
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("serverCertificate", !tls.server_certificate.is_empty() && !tls.private_key.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ]);
}

fn check_terminated(at: &At<'_>, tls: &ServerTls, mode: &str, mutual: bool) {
    if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
        if !tls.ca_crl.is_empty() && !tls.credential_name.is_empty() {
            at.key("caCrl").no_effect("the Secret of credentialName has it");
        }
        return;
    }
    for (key, text) in files(tls).into_iter().take(2).filter(|_| tls.tls_certificates.is_empty()) {
        if text.is_empty() {
            at.missing(format!("{mode} needs {key}, or credentialName"));
        }
    }
    at.each("tlsCertificates", &tls.tls_certificates, |at, certificate| {
        for (key, text) in [("serverCertificate", &certificate.server_certificate), ("privateKey", &certificate.private_key)] {
            if text.is_empty() {
                at.missing(format!("{key} is missing"));
            }
        }
    });
    if mutual && tls.ca_certificates.is_empty() && tls.ca_cert_credential_name.is_empty() {
        at.missing(format!("{mode} needs caCertificates, or credentialName"));
    }
    if !mutual && !tls.ca_crl.is_empty() {
        at.key("caCrl").conflict("SIMPLE looks at no certificates of clients");
    }
}

const CIPHERS: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

fn check_ciphers(at: &At<'_>, tls: &ServerTls) {
    let list = at.key("cipherSuites");
    for (index, cipher) in tls.cipher_suites.iter().enumerate().take(super::MAX_COMPARED) {
        let plain = cipher.starts_with(|c: char| c.is_ascii_alphanumeric()) && cipher != "ALL";
        if plain && !CIPHERS.contains(&cipher.as_str()) {
            list.index(index).no_effect(format!("`{cipher}` is not known, and left out"));
        } else if tls.cipher_suites[..index].contains(cipher) {
            list.index(index).no_effect(format!("`{cipher}` stands here twice"));
        }
    }
    if matches!(tls.min_protocol_version, TlsVersion::V1_0 | TlsVersion::V1_1) && tls.cipher_suites.is_empty() {
        at.key("minProtocolVersion").no_effect("versions below 1.2 need cipherSuites of their own");
    }
}
