//! What this proxy says about a client in a request, and what it believes of what others said: `x-forwarded-*`, `x-request-id`, `x-forwarded-client-cert`.
//!
//! What always holds: with no trusted proxy in front, nothing that a client sends becomes its address; at the edge, nothing that it sends under these names
//! or under `x-envoy-` and `x-weir-` goes on, but for what trusted proxies said.
//!
//! The same names in trailers are dropped where trailers are read (`h1::body::is_forbidden_trailer`).

use std::fmt::Write;
use std::net::IpAddr;

use weir_model::config::{ClientCertHeader, Forwarded};

use super::fields::{Field, Fields, Known};

/// An identifier that is longer was not made to be one.
const LONGEST_REQUEST_ID: usize = 256;

/// What a listener's configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedRules {
    trusted_hops: usize,
    edge: bool,
    client_cert: ClientCertHeader,
    request_id: bool,
}

impl Default for ForwardedRules {
    fn default() -> Self {
        Self::new(&Forwarded::default())
    }
}

/// The connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The other end.
    pub address: IpAddr,
    /// The same as text.
    pub text: &'a [u8],
    /// Whether it is TLS.
    pub tls: bool,
    /// The client's certificate as [`client_cert_element`] wrote it, on mTLS.
    pub client_cert: Option<&'a [u8]>,
}

impl ForwardedRules {
    /// The rules that a configuration asks for.
    #[must_use]
    pub fn new(config: &Forwarded) -> Self {
        Self {
            trusted_hops: config.trusted_hops as usize,
            edge: config.edge,
            client_cert: config.client_cert(),
            request_id: config.request_id.unwrap_or(true),
        }
    }

    /// Brings a request's fields into order. Returns the client's address: the peer's, or the one that the outermost trusted proxy saw.
    pub fn apply(&self, fields: &mut Fields, peer: &Peer<'_>) -> IpAddr {
        let client = self.client_address(fields, peer.address);
        if self.edge {
            self.sanitize(fields);
        }
        join(fields, Known::XForwardedFor);
        fields.append_to_list(Known::XForwardedFor, peer.text);
        let scheme: &[u8] = if peer.tls { b"https" } else { b"http" };
        if !self.believes_proto(fields) {
            fields.set_known(Known::XForwardedProto, scheme);
        }
        if self.edge {
            fields.set_known(Known::XEnvoyExternalAddress, AddressText::of(client).as_bytes());
        }
        if self.request_id {
            ensure_request_id(fields);
        }
        self.client_cert(fields, peer.client_cert);
        client
    }

    /// The address that a trusted proxy saw, `trusted_hops` entries from the end of `x-forwarded-for`. The peer's when there are fewer, or it is none.
    #[must_use]
    pub fn client_address(&self, fields: &Fields, peer: IpAddr) -> IpAddr {
        let Some(skip) = self.trusted_hops.checked_sub(1) else { return peer };
        let values = fields.get_all_known(Known::XForwardedFor).flat_map(entries);
        let Some(at) = values.clone().count().checked_sub(skip + 1) else { return peer };
        values.clone().nth(at).and_then(parse_address).unwrap_or(peer)
    }

    /// Whether `x-forwarded-proto` comes from where it is believed, and is one.
    fn believes_proto(&self, fields: &Fields) -> bool {
        let mut values = fields.get_all_known(Known::XForwardedProto);
        let trusted = !self.edge || self.trusted_hops > 0;
        trusted && matches!(values.next(), Some(b"http" | b"https")) && values.next().is_none()
    }

    /// Removes what only proxies say, unless trusted ones may have said it.
    fn sanitize(&self, fields: &mut Fields) {
        if self.trusted_hops > 0 {
            self.keep_trusted_hops(fields);
        }
        let trusted = self.trusted_hops > 0;
        fields.retain(|Field { known, name, .. }| match known {
            // Has rules of its own.
            Some(Known::XForwardedClientCert) => true,
            Some(Known::Forwarded | Known::XRealIp) => trusted,
            _ if name.starts_with(b"x-forwarded-") => trusted,
            _ => !name.starts_with(b"x-envoy-") && !name.starts_with(b"x-weir-"),
        });
    }

    /// Cuts what is left of the trusted entries of `x-forwarded-for`: the client may have written it.
    fn keep_trusted_hops(&self, fields: &mut Fields) {
        let all = fields.get_all_known(Known::XForwardedFor).flat_map(entries).count();
        let trusted = fields.get_all_known(Known::XForwardedFor).flat_map(entries).skip(all.saturating_sub(self.trusted_hops));
        let kept = trusted.collect::<Vec<_>>().join(&b", "[..]);
        if kept.is_empty() {
            fields.remove_known(Known::XForwardedFor);
        } else {
            fields.set_known(Known::XForwardedFor, &kept);
        }
    }

    fn client_cert(&self, fields: &mut Fields, element: Option<&[u8]>) {
        let name = Known::XForwardedClientCert;
        match (self.client_cert, element) {
            (ClientCertHeader::SanitizeSet, Some(element)) => fields.set_known(name, element),
            (ClientCertHeader::AppendForward, Some(element)) => {
                join_with(fields, name, b",");
                let value = match fields.get_known(name) {
                    Some(others) if !others.is_empty() => [others, b",", element].concat(),
                    _ => element.to_vec(),
                };
                fields.set_known(name, &value);
            }
            (ClientCertHeader::ForwardOnly, Some(_)) | (ClientCertHeader::AlwaysForwardOnly, _) => {}
            (ClientCertHeader::Sanitize, _)
            | (ClientCertHeader::SanitizeSet | ClientCertHeader::AppendForward | ClientCertHeader::ForwardOnly, None) => {
                fields.remove_known(name);
            }
        }
    }
}

/// Makes several fields of a name one list.
fn join(fields: &mut Fields, known: Known) {
    join_with(fields, known, b", ");
}

fn join_with(fields: &mut Fields, known: Known, separator: &[u8]) {
    if fields.get_all_known(known).nth(1).is_some() {
        let joined = fields.get_all_known(known).filter(|value| !value.is_empty()).collect::<Vec<_>>().join(separator);
        fields.set_known(known, &joined);
    }
}

fn entries(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
}

/// An address, which may be in brackets or have a port.
fn parse_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let address = text.parse().or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()));
    let address = address.ok().or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

/// An address as text, without allocating.
#[derive(Clone, Copy, Debug)]
pub struct AddressText {
    /// No address is longer.
    text: [u8; 45],
    length: usize,
}

impl AddressText {
    /// Writes `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let mut text = Self { text: [0; 45], length: 0 };
        // There is room, so this cannot fail.
        let _ = write!(text, "{}", address.to_canonical());
        text
    }

    /// What was written.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }
}

impl Write for AddressText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let place = self.text.get_mut(self.length..self.length + text.len()).ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// Gives a request an identifier unless it has a usable one.
fn ensure_request_id(fields: &mut Fields) {
    if !has_request_id(fields) {
        fields.set_known(Known::XRequestId, &request_id());
    }
}

fn has_request_id(fields: &Fields) -> bool {
    let mut values = fields.get_all_known(Known::XRequestId);
    values.next().is_some_and(|value| matches!(value.len(), 1..=LONGEST_REQUEST_ID)) && values.next().is_none()
}

/// A random UUID (version 4) as text. For telling requests apart, not for secrets.
#[must_use]
pub fn request_id() -> [u8; 36] {
    let mut random = fastrand::u128(..).to_le_bytes();
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    for (byte, at) in random.into_iter().zip(UUID_PLACES) {
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
    }
    text
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Where the bytes of a UUID go: there are dashes between some.
const UUID_PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// What `x-forwarded-client-cert` says about a client's certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCert<'a> {
    /// URI names in this proxy's own certificate.
    pub by: &'a [&'a str],
    /// SHA-256 of the client's certificate.
    pub hash: [u8; 32],
    /// Its subject (RFC 2253).
    pub subject: &'a str,
    /// Its URI names.
    pub uris: &'a [&'a str],
    /// Its DNS names.
    pub dns: &'a [&'a str],
}

/// Writes a certificate as an element of `x-forwarded-client-cert`, in Envoy's form. Once for each connection.
#[must_use]
pub fn client_cert_element(cert: &ClientCert<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    for name in cert.by {
        pair(b"By=", name, false, &mut out);
    }
    pair(b"Hash=", "", false, &mut out);
    for byte in cert.hash {
        out.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
    }
    pair(b"Subject=", cert.subject, true, &mut out);
    for name in cert.uris {
        pair(b"URI=", name, false, &mut out);
    }
    for name in cert.dns {
        pair(b"DNS=", name, false, &mut out);
    }
    out
}

/// Writes one pair. The certificate's holder chose the value: it is quoted when it could end the pair, and bytes that a field cannot have become `?`.
fn pair(key: &[u8], value: &str, quoted: bool, out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b';');
    }
    out.extend_from_slice(key);
    let quoted = quoted || value.bytes().any(|byte| matches!(byte, b',' | b';' | b'=' | b'"' | b'\\' | b' '));
    if quoted {
        out.push(b'"');
    }
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b' '..=b'~' | 0x80.. => out.push(byte),
            _ => out.push(b'?'),
        }
    }
    if quoted {
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests;
