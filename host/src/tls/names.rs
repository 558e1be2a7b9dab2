//! Names in certificates, and which of them are allowed.
//!
//! A certificate is refused whole when one of its names has a byte that names do not have: a NUL, a control character, something beyond ASCII.
//! Such a name reads differently in different places, and that difference is the attack. Patterns match whole names, their beginning or their
//! end, never something in the middle, and nothing is compiled into a regular expression.

use std::net::IpAddr;

use smallvec::SmallVec;
use weir_model::config::SanMatch;
use weir_model::config::san_match::Pattern;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::TlsError;

/// Why a certificate's names are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefusal {
    /// A name has bytes that names do not have, or the list cannot be read.
    #[error("a name in the certificate is malformed")]
    Malformed,
    /// No name is one of those allowed.
    #[error("no name in the certificate is allowed")]
    NoneAllowed,
    /// There is not exactly one URI, or it is no SPIFFE id.
    #[error("the certificate has no single SPIFFE id")]
    Spiffe,
    /// The SPIFFE id is of another trust domain.
    #[error("the trust domain is not allowed")]
    TrustDomain,
    /// More certificates than a chain needs.
    #[error("the certificate chain is too long")]
    ChainTooLong,
}

/// The alternative names of a certificate, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sans<'a> {
    /// URIs, SPIFFE ids among them.
    pub uris: SmallVec<[&'a str; 2]>,
    /// Host names, as written.
    pub dns: SmallVec<[&'a str; 4]>,
    /// Addresses.
    pub ips: SmallVec<[IpAddr; 2]>,
    /// Mail addresses.
    pub emails: SmallVec<[&'a str; 1]>,
}

/// Most alternative names that are looked at: a handshake's cost is bounded.
const MOST_NAMES: usize = 1000;

impl<'a> Sans<'a> {
    /// Reads them; other kinds are skipped.
    ///
    /// # Errors
    /// [`NameRefusal::Malformed`] when one of them cannot be trusted to mean what it looks like.
    pub fn of(certificate: &X509Certificate<'a>) -> Result<Self, NameRefusal> {
        let mut out = Self::default();
        let Some(extension) = certificate.subject_alternative_name().map_err(|_| NameRefusal::Malformed)? else { return Ok(out) };
        if extension.value.general_names.len() > MOST_NAMES {
            return Err(NameRefusal::Malformed);
        }
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(text) => out.uris.push(plain(text)?),
                GeneralName::DNSName(text) => out.dns.push(plain(text)?),
                GeneralName::RFC822Name(text) => out.emails.push(plain(text)?),
                GeneralName::IPAddress(bytes) => out.ips.push(address(bytes).ok_or(NameRefusal::Malformed)?),
                GeneralName::Invalid(..) => return Err(NameRefusal::Malformed),
                _ => {}
            }
        }
        Ok(out)
    }
}

/// The text if it has only printable ASCII characters and some of them.
fn plain(text: &str) -> Result<&str, NameRefusal> {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if good { Ok(text) } else { Err(NameRefusal::Malformed) }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Reads a certificate.
///
/// # Errors
/// [`NameRefusal::Malformed`] when it is none.
pub fn parse(der: &[u8]) -> Result<X509Certificate<'_>, NameRefusal> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(NameRefusal::Malformed),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Uri,
    Dns,
    Ip,
    Email,
}

#[derive(Clone, Debug)]
enum How {
    /// The whole name. Host names are compared without case, and a wildcard in the certificate stands for one label.
    Exact,
    Prefix,
    Suffix,
}

#[derive(Clone, Debug)]
struct NamePattern {
    kind: Kind,
    how: How,
    text: Box<str>,
    /// `text` in lower case, for host names.
    lower: Box<str>,
    /// `text` as an address.
    address: Option<IpAddr>,
}

/// Names that a peer may have: patterns of which one must match, and trust domains that its SPIFFE id must be of.
#[derive(Clone, Debug, Default)]
pub struct AllowedNames {
    patterns: Vec<NamePattern>,
    trust_domains: Vec<Box<str>>,
}

impl AllowedNames {
    /// Compiles patterns; `field` is the path of the section that has them, empty for the top.
    ///
    /// # Errors
    /// When a pattern is empty or of an unknown kind, or a trust domain is none.
    pub fn compile(names: &[SanMatch], trust_domains: &[String], field: &str) -> Result<Self, TlsError> {
        let below = if field.is_empty() { String::new() } else { format!("{field}.") };
        let mut patterns = Vec::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            patterns.push(NamePattern::compile(name).map_err(|problem| TlsError::new(format!("{below}names[{i}]"), problem))?);
        }
        let mut domains = Vec::with_capacity(trust_domains.len());
        for (i, domain) in trust_domains.iter().enumerate() {
            if !is_trust_domain(domain) {
                return Err(TlsError::new(format!("{below}trustDomains[{i}]"), format!("`{domain}` is no trust domain")));
            }
            domains.push(domain.as_str().into());
        }
        Ok(Self { patterns, trust_domains: domains })
    }

    /// Whether every name is allowed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.patterns.is_empty() && self.trust_domains.is_empty()
    }

    /// Whether there are patterns, beside trust domains.
    #[must_use]
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether a certificate with these names may pass.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check(&self, sans: &Sans<'_>) -> Result<(), NameRefusal> {
        if !self.trust_domains.is_empty() {
            // The SPIFFE standard: exactly one URI, whatever else is in the certificate.
            let [uri] = sans.uris.as_slice() else { return Err(NameRefusal::Spiffe) };
            let domain = spiffe_trust_domain(uri).ok_or(NameRefusal::Spiffe)?;
            if !self.trust_domains.iter().any(|allowed| **allowed == *domain) {
                return Err(NameRefusal::TrustDomain);
            }
        }
        if self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(sans)) {
            return Ok(());
        }
        Err(NameRefusal::NoneAllowed)
    }
}

impl NamePattern {
    fn compile(of: &SanMatch) -> Result<Self, String> {
        let kind = match of.kind.as_str() {
            "" => Kind::Any,
            "uri" => Kind::Uri,
            "dns" => Kind::Dns,
            "ip" => Kind::Ip,
            "email" => Kind::Email,
            other => return Err(format!("unknown kind `{other}`; one of uri, dns, ip, email")),
        };
        let (how, text) = match &of.pattern {
            Some(Pattern::Exact(text)) => (How::Exact, text),
            Some(Pattern::Prefix(text)) => (How::Prefix, text),
            Some(Pattern::Suffix(text)) => (How::Suffix, text),
            None => return Err("needs exact, prefix or suffix".into()),
        };
        if text.is_empty() {
            return Err("must not be empty".into());
        }
        let address = text.parse().ok().map(|ip: IpAddr| ip.to_canonical());
        if kind == Kind::Ip && matches!(how, How::Exact) && address.is_none() {
            return Err(format!("`{text}` is no address"));
        }
        Ok(Self { kind, how, text: text.as_str().into(), lower: text.to_ascii_lowercase().into(), address })
    }

    fn matches(&self, sans: &Sans<'_>) -> bool {
        let is = |kind| self.kind == kind || self.kind == Kind::Any;
        (is(Kind::Uri) && sans.uris.iter().any(|uri| self.fits(uri)))
            || (is(Kind::Dns) && sans.dns.iter().any(|host| self.fits_host(host)))
            || (is(Kind::Ip) && sans.ips.iter().any(|ip| self.fits_address(*ip)))
            || (is(Kind::Email) && sans.emails.iter().any(|email| self.fits(email)))
    }

    fn fits(&self, name: &str) -> bool {
        match self.how {
            How::Exact => *self.text == *name,
            How::Prefix => name.starts_with(&*self.text),
            How::Suffix => name.ends_with(&*self.text),
        }
    }

    fn fits_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self.how {
            How::Exact => host_matches(&host, &self.lower),
            How::Prefix => host.starts_with(&*self.lower),
            How::Suffix => host.ends_with(&*self.lower),
        }
    }

    fn fits_address(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match self.how {
            How::Exact => self.address == Some(ip),
            How::Prefix => ip.to_string().starts_with(&*self.text),
            How::Suffix => ip.to_string().ends_with(&*self.text),
        }
    }
}

/// Whether a name in a certificate is that of a host, both in lower case: the same, or `*.` for exactly one label.
#[must_use]
pub fn host_matches(name: &str, host: &str) -> bool {
    if name == host {
        return true;
    }
    let Some(rest) = name.strip_prefix("*.") else { return false };
    // A wildcard directly below a top-level domain is nobody's to have.
    rest.contains('.') && host.split_once('.').is_some_and(|(label, tail)| !label.is_empty() && tail == rest)
}

/// The trust domain of a SPIFFE id; `None` when the text is none by the standard's grammar.
#[must_use]
pub fn spiffe_trust_domain(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix("spiffe://").filter(|_| uri.len() <= 2048)?;
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    let segment =
        |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    (is_trust_domain(domain) && path.is_none_or(|path| path.split('/').all(segment))).then_some(domain)
}

fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(kind: &str, pattern: Pattern) -> AllowedNames {
        AllowedNames::compile(&[SanMatch { kind: kind.into(), pattern: Some(pattern) }], &[], "x").unwrap()
    }

    fn exact(kind: &str, text: &str) -> AllowedNames {
        allowed(kind, Pattern::Exact(text.into()))
    }

    fn uri(text: &str) -> Sans<'_> {
        Sans { uris: smallvec::smallvec![text], ..Default::default() }
    }

    fn dns(text: &str) -> Sans<'_> {
        Sans { dns: smallvec::smallvec![text], ..Default::default() }
    }

    #[test]
    fn patterns_match_whole_names_beginnings_and_ends_only() {
        assert!(exact("uri", "spiffe://td/ns/a").check(&uri("spiffe://td/ns/a")).is_ok());
        for other in ["spiffe://td/ns/ab", "xspiffe://td/ns/a", "spiffe://td/ns/A"] {
            assert_eq!(exact("uri", "spiffe://td/ns/a").check(&uri(other)), Err(NameRefusal::NoneAllowed), "{other}");
        }
        let prefix = allowed("uri", Pattern::Prefix("spiffe://td/ns/a/".into()));
        assert!(prefix.check(&uri("spiffe://td/ns/a/sa/b")).is_ok());
        assert!(prefix.check(&uri("spiffe://evil/spiffe://td/ns/a/")).is_err(), "never in the middle");
        let suffix = allowed("dns", Pattern::Suffix(".example.com".into()));
        assert!(suffix.check(&dns("A.Example.COM")).is_ok());
        assert!(suffix.check(&dns("a.example.com.evil.test")).is_err());
    }

    #[test]
    fn kinds_are_kept_apart() {
        assert!(exact("dns", "a.test").check(&uri("a.test")).is_err());
        assert!(exact("", "a.test").check(&uri("a.test")).is_ok());
        let ip = Sans { ips: smallvec::smallvec!["10.0.0.1".parse().unwrap()], ..Default::default() };
        assert!(exact("ip", "10.0.0.1").check(&ip).is_ok());
        assert!(exact("ip", "::ffff:10.0.0.1").check(&ip).is_ok());
        assert!(exact("ip", "10.0.0.10").check(&ip).is_err());
        assert!(exact("dns", "10.0.0.1").check(&ip).is_err());
        let email = Sans { emails: smallvec::smallvec!["a@b.test"], ..Default::default() };
        assert!(exact("email", "a@b.test").check(&email).is_ok());
    }

    #[test]
    fn a_wildcard_in_a_certificate_stands_for_one_label() {
        let names = exact("dns", "a.example.com");
        assert!(names.check(&dns("*.example.com")).is_ok());
        for other in ["*.com", "*", "*.*.com", "a.*.com", "*a.example.com", "*.b.example.com"] {
            assert!(names.check(&dns(other)).is_err(), "{other}");
        }
        assert!(!host_matches("*.example.com", "example.com"));
        assert!(!host_matches("*.example.com", "a.b.example.com"));
        assert!(!host_matches("*.example.com", ".example.com"));
        assert!(!host_matches("*.com", "a.com"));
    }

    #[test]
    fn trust_domains_need_exactly_one_spiffe_id() {
        let names = AllowedNames::compile(&[], &["td.test".into()], "x").unwrap();
        assert!(names.check(&uri("spiffe://td.test/ns/a/sa/b")).is_ok());
        assert_eq!(names.check(&uri("spiffe://td.test.evil/ns/a")), Err(NameRefusal::TrustDomain));
        assert_eq!(names.check(&uri("https://td.test/")), Err(NameRefusal::Spiffe));
        assert_eq!(names.check(&dns("td.test")), Err(NameRefusal::Spiffe));
        let two = Sans { uris: smallvec::smallvec!["spiffe://td.test/a", "spiffe://td.test/b"], ..Default::default() };
        assert_eq!(names.check(&two), Err(NameRefusal::Spiffe));
    }

    #[test]
    fn the_grammar_of_spiffe_ids() {
        for good in ["spiffe://td", "spiffe://td/a", "spiffe://a-b.c_d/ns/X/sa/y.z-0_1"] {
            assert!(spiffe_trust_domain(good).is_some(), "{good}");
        }
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        for bad in [
            "spiffe://",
            "spiffe:///a",
            "spiffe://TD/a",
            "spiffe://td/",
            "spiffe://td//a",
            "spiffe://td/../a",
            "spiffe://td/./a",
            "spiffe://td:80/a",
        ] {
            assert!(spiffe_trust_domain(bad).is_none(), "{bad}");
        }
        for bad in
            ["spiffe://u@td/a", "spiffe://td/a?b", "spiffe://td/a#b", "spiffe://td/%61", "SPIFFE://td/a", "http://td/a", long.as_str()]
        {
            assert!(spiffe_trust_domain(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn patterns_that_make_no_sense_are_named() {
        let compile =
            |kind: &str, pattern| AllowedNames::compile(&[SanMatch { kind: kind.into(), pattern }], &[], "clientAuth").unwrap_err();
        assert_eq!(compile("", None).to_string(), "clientAuth.names[0]: needs exact, prefix or suffix");
        assert!(compile("url", Some(Pattern::Exact("x".into()))).problem.contains("uri, dns, ip, email"));
        assert!(compile("", Some(Pattern::Suffix(String::new()))).problem.contains("empty"));
        assert!(compile("ip", Some(Pattern::Exact("x".into()))).problem.contains("no address"));
        assert!(AllowedNames::compile(&[], &["TD".into()], "c").unwrap_err().field.contains("trustDomains[0]"));
    }
}
