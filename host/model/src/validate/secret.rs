//! Secrets, and how connections are secured.

use super::check::{Check, Zero, short};
use crate::address::is_host_name;
use crate::config::{
    ClientAuth, DataSource, DownstreamTls, SanMatch, Secret, TlsVersion, UpstreamTls, client_auth, data_source, san_match, secret,
};
use crate::diagnostic::Code;
use crate::path::At;

pub(super) fn secret(check: &mut Check<'_>, at: &At<'_>, secret: &Secret) {
    check.name(at, &secret.name);
    match &secret.kind {
        None => check.error(at, Code::Missing, "a secret has a `keyPair` or `trustRoots`", ""),
        Some(secret::Kind::KeyPair(pair)) => {
            let at = at.field("keyPair");
            data(check, &at, "certificateChain", pair.certificate_chain.as_ref(), Some("CERTIFICATE"), true);
            data(check, &at, "privateKey", pair.private_key.as_ref(), Some("PRIVATE KEY"), true);
            data(check, &at, "ocsp", pair.ocsp.as_ref(), None, false);
        }
        Some(secret::Kind::TrustRoots(roots)) => {
            let at = at.field("trustRoots");
            data(check, &at, "certificates", roots.certificates.as_ref(), Some("CERTIFICATE"), true);
            data(check, &at, "revocationLists", roots.revocation_lists.as_ref(), Some("X509 CRL"), false);
        }
    }
}

fn data(check: &mut Check<'_>, at: &At<'_>, name: &str, source: Option<&DataSource>, label: Option<&str>, needed: bool) {
    let at = at.field(name);
    let Some(source) = source else {
        if needed {
            check.error(&at, Code::Missing, format!("`{name}` is missing"), format!("write `{name}: {{file: PATH}}`"));
        }
        return;
    };
    let empty = match &source.source {
        None => true,
        Some(data_source::Source::File(path)) => path.is_empty(),
        Some(data_source::Source::Inline(text)) => text.is_empty(),
        Some(data_source::Source::InlineBytes(bytes)) => bytes.is_empty(),
    };
    if empty {
        check.error(&at, Code::Missing, "there is no data", "write one of `file`, `inline` and `inlineBytes`");
        return;
    }
    let inline: Option<&[u8]> = match &source.source {
        Some(data_source::Source::Inline(text)) => Some(text.as_bytes()),
        Some(data_source::Source::InlineBytes(bytes)) => Some(bytes),
        _ => None,
    };
    if let (Some(text), Some(label)) = (inline, label) {
        let begins = |line: &[u8]| line.starts_with(b"-----BEGIN ") && line.windows(label.len()).any(|part| part == label.as_bytes());
        if !text.split(|byte| *byte == b'\n').any(begins) {
            check.error(
                &at,
                Code::InvalidPem,
                format!("there is no PEM block of a {label}"),
                format!("it begins with `-----BEGIN {label}-----`"),
            );
        }
    }
}

pub(super) fn downstream_tls(check: &mut Check<'_>, at: &At<'_>, tls: &DownstreamTls) {
    let list = at.field("certificates");
    if tls.certificates.is_empty() {
        check.error(&list, Code::Missing, "TLS needs a certificate", "name a secret with a key pair: `certificates: [NAME]`");
    }
    for (index, name) in tls.certificates.iter().enumerate() {
        check.secret(&list.index(index), name, false);
    }
    check.alpn(&at.field("alpn"), &tls.alpn);
    versions(check, at, tls.min_version(), tls.max_version());
    check.duration(&at.field("handshakeTimeout"), tls.handshake_timeout, Zero::Wrong);
    if let Some(auth) = &tls.client_auth {
        client_auth(check, &at.field("clientAuth"), auth);
    }
}

fn client_auth(check: &mut Check<'_>, at: &At<'_>, auth: &ClientAuth) {
    if auth.mode() == client_auth::Mode::None {
        if !auth.trust_roots.is_empty() || !auth.names.is_empty() || !auth.trust_domains.is_empty() {
            check.error(
                &at.field("mode"),
                Code::Conflict,
                "no client certificate is asked for, but it is said which are trusted",
                "write `mode: required` or `mode: optional`",
            );
        }
    } else if auth.trust_roots.is_empty() {
        check.error(
            &at.field("trustRoots"),
            Code::Missing,
            "it is not said which client certificates are trusted",
            "name a secret with roots: `trustRoots: NAME`",
        );
    }
    if !auth.trust_roots.is_empty() {
        check.secret(&at.field("trustRoots"), &auth.trust_roots, true);
    }
    names(check, &at.field("names"), &auth.names);
    let list = at.field("trustDomains");
    for (index, domain) in auth.trust_domains.iter().enumerate() {
        if !is_host_name(domain) {
            let help = if domain.starts_with("spiffe://") {
                "write the trust domain alone: `cluster.local`"
            } else {
                "write it as in `spiffe://DOMAIN/…`"
            };
            check.error(&list.index(index), Code::InvalidName, format!("`{}` is no trust domain", short(domain)), help);
        }
    }
}

pub(super) fn upstream_tls(check: &mut Check<'_>, at: &At<'_>, tls: &UpstreamTls) {
    if !tls.trust_roots.is_empty() {
        check.secret(&at.field("trustRoots"), &tls.trust_roots, true);
    }
    if !tls.certificate.is_empty() {
        check.secret(&at.field("certificate"), &tls.certificate, false);
    }
    if !tls.sni.is_empty() {
        check.host_name(&at.field("sni"), &tls.sni);
    }
    names(check, &at.field("names"), &tls.names);
    check.alpn(&at.field("alpn"), &tls.alpn);
    versions(check, at, tls.min_version(), tls.max_version());
    if tls.insecure_skip_verify {
        check.warning(
            &at.field("insecureSkipVerify"),
            Code::Insecure,
            "the server is not verified: anyone in between can read and change everything",
            "name its roots in `trustRoots`",
        );
    }
}

fn versions(check: &mut Check<'_>, at: &At<'_>, min: TlsVersion, max: TlsVersion) {
    let rank = |version, default| match version {
        TlsVersion::Default => default,
        TlsVersion::Tls12 => 2,
        TlsVersion::Tls13 => 3,
    };
    if rank(min, 2) > rank(max, 3) {
        check.error(&at.field("minVersion"), Code::Conflict, "`minVersion` is above `maxVersion`", "exchange them");
    }
}

fn names(check: &mut Check<'_>, at: &At<'_>, list: &[SanMatch]) {
    for (index, name) in list.iter().enumerate() {
        let at = at.index(index);
        let empty = match &name.pattern {
            None => true,
            Some(san_match::Pattern::Exact(text) | san_match::Pattern::Prefix(text) | san_match::Pattern::Suffix(text)) => text.is_empty(),
        };
        if empty {
            check.error(&at, Code::Missing, "it is not said which names match", "write one of `exact`, `prefix` and `suffix`");
        }
        if !name.kind.is_empty() {
            check.one_of(&at.field("kind"), &name.kind, &["uri", "dns", "ip", "email"]);
        }
    }
}
