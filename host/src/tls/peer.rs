//! Who is at an end of a connection, as certificates say: read once per connection, asked by filters, logs and headers.
//!
//! Everything here is text of a certificate that was verified already, or of this side's own; what cannot be text (a control character in a
//! subject) is escaped. The PEM form is only made when somebody asks.

use std::cell::OnceCell;
use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::x509::X509Name;

use super::names::{self, NameRefusal, Sans};

/// The facts of a certificate that are shown to people and programs. No private bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Subject, as RFC 2253 writes it: `CN=a,O=b`.
    pub subject: Box<str>,
    /// Issuer, likewise.
    pub issuer: Box<str>,
    /// Serial number, hexadecimal, lower case.
    pub serial: Box<str>,
    /// SHA-256 of the certificate, hexadecimal, lower case.
    pub sha256: Box<str>,
    /// First second of validity, since 1970.
    pub not_before: i64,
    /// Last second of validity, since 1970.
    pub not_after: i64,
    /// URIs among the alternative names.
    pub uris: Box<[Box<str>]>,
    /// Host names among them.
    pub dns: Box<[Box<str>]>,
    /// Addresses among them, as text.
    pub ips: Box<[Box<str>]>,
    /// Mail addresses among them.
    pub emails: Box<[Box<str>]>,
}

impl CertificateFacts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`NameRefusal::Malformed`] when it cannot be read, or has a name that does not mean what it looks like.
    pub fn read(der: &[u8]) -> Result<Self, NameRefusal> {
        let certificate = names::parse(der)?;
        let sans = Sans::of(&certificate)?;
        let texts = |list: &[&str]| list.iter().map(|text| (*text).into()).collect();
        Ok(Self {
            subject: rfc2253(certificate.subject()).into(),
            issuer: rfc2253(certificate.issuer()).into(),
            serial: hex(certificate.raw_serial()).into(),
            sha256: hex(&Sha256::digest(der)).into(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            uris: texts(&sans.uris),
            dns: texts(&sans.dns),
            ips: sans.ips.iter().map(|ip| ip.to_string().into()).collect(),
            emails: texts(&sans.emails),
        })
    }

    /// The first URI: what `uri_san_…_certificate` shows.
    #[must_use]
    pub fn uri_san(&self) -> Option<&str> {
        self.uris.first().map(|uri| &**uri)
    }

    /// The first host name: what `dns_san_…_certificate` shows.
    #[must_use]
    pub fn dns_san(&self) -> Option<&str> {
        self.dns.first().map(|name| &**name)
    }

    /// The SPIFFE id: where there is exactly one URI, and it is one.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&str> {
        match &*self.uris {
            [only] => names::spiffe_trust_domain(only).map(|_| &**only),
            _ => None,
        }
    }
}

/// The verified peer of one connection.
#[derive(Debug)]
pub struct PeerIdentity {
    facts: CertificateFacts,
    chain: Box<[CertificateDer<'static>]>,
    pem: OnceCell<Box<str>>,
    chain_pem: OnceCell<Box<str>>,
}

impl PeerIdentity {
    /// Reads the chain that a peer presented, its own certificate first.
    ///
    /// # Errors
    /// [`NameRefusal::Malformed`] when the first cannot be read, or there is none.
    pub fn read(chain: &[CertificateDer<'_>]) -> Result<Self, NameRefusal> {
        let facts = CertificateFacts::read(chain.first().ok_or(NameRefusal::Malformed)?)?;
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        Ok(Self { facts, chain, pem: OnceCell::new(), chain_pem: OnceCell::new() })
    }

    /// What its certificate says.
    #[must_use]
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// Its certificate as PEM, percent-encoded: XFCC's `Cert`.
    #[must_use]
    pub fn encoded_pem(&self) -> &str {
        self.pem.get_or_init(|| encode_pem(&self.chain[..1]).into())
    }

    /// The whole chain as PEM, percent-encoded: XFCC's `Chain`.
    #[must_use]
    pub fn encoded_chain(&self) -> &str {
        self.chain_pem.get_or_init(|| encode_pem(&self.chain).into())
    }

    /// Appends the element of `x-forwarded-client-cert` for this peer: `By`, `Hash`, `Subject`, then every `URI` and `DNS`. `by` is the URI of
    /// this side's certificate.
    pub fn write_forwarded(&self, by: Option<&str>, out: &mut String) {
        if let Some(by) = by {
            push_pair(out, "By", by);
            out.push(';');
        }
        push_pair(out, "Hash", &self.facts.sha256);
        out.push_str(";Subject=\"");
        for character in self.facts.subject.chars() {
            if matches!(character, '"' | '\\') {
                out.push('\\');
            }
            out.push(character);
        }
        out.push('"');
        for uri in &self.facts.uris {
            out.push(';');
            push_pair(out, "URI", uri);
        }
        for name in &self.facts.dns {
            out.push(';');
            push_pair(out, "DNS", name);
        }
    }
}

/// `key=value`, quoted where the value has characters that separate.
fn push_pair(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    out.push('=');
    if !value.contains([',', ';', '=', '"', '\\', ' ']) {
        out.push_str(value);
        return;
    }
    out.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

/// PEM blocks, percent-encoded as `encodeURIComponent` does.
fn encode_pem(chain: &[CertificateDer<'_>]) -> String {
    let mut out = String::new();
    for der in chain {
        out.push_str("-----BEGIN%20CERTIFICATE-----%0A");
        for line in der.chunks(48) {
            for group in line.chunks(3) {
                push_base64(group, &mut out);
            }
            out.push_str("%0A");
        }
        out.push_str("-----END%20CERTIFICATE-----%0A");
    }
    out
}

/// Up to three bytes in base64, percent-encoded.
fn push_base64(group: &[u8], out: &mut String) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
    for i in 0..4 {
        if i > group.len() {
            out.push_str("%3D");
            continue;
        }
        match LETTERS[(bits >> (18 - 6 * i)) & 63] {
            b'+' => out.push_str("%2B"),
            b'/' => out.push_str("%2F"),
            letter => out.push(char::from(letter)),
        }
    }
}

/// A distinguished name, last part first, as RFC 2253 writes it. What is not printable ASCII is `\XX`.
pub(crate) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (i, part) in parts.iter().rev().enumerate() {
        if i > 0 {
            out.push(',');
        }
        for (j, attribute) in part.iter().enumerate() {
            if j > 0 {
                out.push('+');
            }
            let oid = attribute.attr_type().to_id_string();
            out.push_str(short_name(&oid).unwrap_or(&oid));
            out.push('=');
            match attribute.as_str() {
                Ok(text) => push_value(text, &mut out),
                Err(_) => {
                    out.push('#');
                    out.push_str(&hex(attribute.attr_value().data));
                }
            }
        }
    }
    out
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn push_value(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (i, byte) in text.bytes().enumerate() {
        let at_edge = (i == 0 && matches!(byte, b' ' | b'#')) || (i == last && byte == b' ');
        if at_edge || matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';') {
            out.push('\\');
            out.push(char::from(byte));
        } else if byte.is_ascii_graphic() || byte == b' ' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(params: &CertificateParams) -> CertificateDer<'static> {
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn params(uris: &[&str], dns: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::new(dns.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
    }

    #[test]
    fn facts_are_what_the_certificate_says() {
        let mut params = params(&["spiffe://td/ns/a/sa/b"], &["a.test", "10.0.0.1"]);
        params.distinguished_name.push(DnType::OrganizationName, "Weir, \"Inc\"");
        params.distinguished_name.push(DnType::CommonName, " caf\u{e9}\n");
        params.serial_number = Some(vec![0x01, 0xAB].into());
        let der = certificate(&params);
        let peer = PeerIdentity::read(std::slice::from_ref(&der)).unwrap();
        let facts = peer.facts();
        assert_eq!(&*facts.subject, "CN=\\ caf\\C3\\A9\\0A,O=Weir\\, \\\"Inc\\\"");
        assert_eq!(&*facts.serial, "01ab");
        assert_eq!(*facts.sha256, hex(&Sha256::digest(&der)));
        assert_eq!((facts.uri_san(), facts.dns_san()), (Some("spiffe://td/ns/a/sa/b"), Some("a.test")));
        assert_eq!(facts.spiffe_id(), Some("spiffe://td/ns/a/sa/b"));
        assert_eq!(facts.ips.iter().map(|ip| &**ip).collect::<Vec<_>>(), ["10.0.0.1"]);
        assert!(facts.not_before < facts.not_after);
    }

    #[test]
    fn two_uris_are_no_spiffe_identity() {
        let der = certificate(&params(&["spiffe://td/a", "spiffe://td/b"], &[]));
        assert_eq!(CertificateFacts::read(&der).unwrap().spiffe_id(), None);
    }

    #[test]
    fn the_pem_form_is_percent_encoded_and_decodes_to_the_same_bytes() {
        use rustls::pki_types::pem::PemObject;
        let der = certificate(&params(&["spiffe://td/a"], &[]));
        let peer = PeerIdentity::read(&[der.clone(), der.clone()]).unwrap();
        assert!(peer.encoded_pem().bytes().all(|b| b.is_ascii_alphanumeric() || b"-%".contains(&b)));
        let decode = |text: &str| text.replace("%20", " ").replace("%0A", "\n").replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
        assert_eq!(CertificateDer::from_pem_slice(decode(peer.encoded_pem()).as_bytes()).unwrap(), der);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(decode(peer.encoded_chain()).as_bytes()).map(Result::unwrap).collect();
        assert_eq!(chain, [der.clone(), der]);
    }

    #[test]
    fn the_forwarded_element_cannot_be_broken_out_of() {
        let mut params = params(&["spiffe://td/a;URI=spiffe://td/b"], &["a.test"]);
        params.distinguished_name.push(DnType::CommonName, "x\";By=evil,");
        let peer = PeerIdentity::read(&[certificate(&params)]).unwrap();
        let mut out = String::new();
        peer.write_forwarded(Some("spiffe://td/self"), &mut out);
        let hash = &peer.facts().sha256;
        let subject = r#"CN=x\\\"\\;By=evil\\,"#;
        assert_eq!(
            out,
            format!("By=spiffe://td/self;Hash={hash};Subject=\"{subject}\";URI=\"spiffe://td/a;URI=spiffe://td/b\";DNS=a.test")
        );
    }

    /// The DER of a certificate whose URI is `text`, replaced by other bytes of the same length.
    fn with_uri_bytes(text: &str, bytes: &[u8]) -> Vec<u8> {
        let mut der = certificate(&params(&[text], &[])).to_vec();
        let at = der.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        der[at..at + bytes.len()].copy_from_slice(bytes);
        der
    }

    #[test]
    fn names_with_strange_bytes_are_refused_whole() {
        for bytes in [&b"spiffe://td/a\0b"[..], b"spiffe://td/a\nb", b"spiffe://td/\xC3\xA9b", b"spiffe://td/a\xFFb"] {
            assert_eq!(CertificateFacts::read(&with_uri_bytes("spiffe://td/a-b", bytes)), Err(NameRefusal::Malformed), "{bytes:?}");
        }
        assert!(CertificateFacts::read(&with_uri_bytes("spiffe://td/a-b", b"spiffe://td/a_b")).is_ok());
        assert_eq!(CertificateFacts::read(b"junk"), Err(NameRefusal::Malformed));
        assert!(PeerIdentity::read(&[]).is_err());
    }
}
