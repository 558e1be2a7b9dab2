//! A condition on a request.

use std::net::IpAddr;

use weir_sdk::{Refusal, Stream, config};

use crate::reading::{any_header_reading, any_reading, every_header_reading};
use crate::{Cidrs, Text, TextMatch, address_of};

/// A condition on one header.
#[config]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header.
    pub name: String,
    /// Its value; all values joined with a comma where it came more than once.
    pub value: TextMatch,
}

/// A condition on one parameter of the query.
#[config]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// The parameter.
    pub name: String,
    /// Its first value, with percent signs decoded.
    pub value: TextMatch,
}

/// A condition on a request: all that is written must hold. Nothing written: every request.
#[config]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[serde(default)]
pub struct RequestMatch {
    /// Any of these methods.
    pub methods: Vec<String>,
    /// The path without its query, as the proxy normalised it.
    pub path: Option<TextMatch>,
    /// Any of these hosts, without a port; `*.example.org` is every host below it.
    pub hosts: Vec<String>,
    /// All of these headers.
    pub headers: Vec<HeaderMatch>,
    /// All of these parameters of the query.
    pub query: Vec<QueryMatch>,
    /// The client's address lies in any of these.
    pub source_addresses: Cidrs,
}

/// Which readings of a request a condition is held against: servers differ in what they take a path, a method or a repeated header for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readings {
    /// The request as the proxy has it.
    AsIs,
    /// One reading that is meant is enough: for what refuses.
    Any,
    /// All of them have to be meant: for what lets pass.
    Every,
}

/// A condition on a request, compiled.
#[derive(Debug, Clone, Default)]
pub struct RequestMatcher {
    methods: Vec<Box<[u8]>>,
    path: Option<Text>,
    hosts: Vec<Host>,
    headers: Vec<(String, Text)>,
    query: Vec<(String, Text)>,
    sources: Cidrs,
}

#[derive(Debug, Clone)]
enum Host {
    Exact(String),
    /// With the dot in front.
    Below(String),
}

impl RequestMatch {
    /// Compiles it.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn compile(&self) -> Result<RequestMatcher, Refusal> {
        let list = |of: &str, at: usize| format!("{of}[{at}]");
        let mut matcher = RequestMatcher { sources: self.source_addresses.clone(), ..RequestMatcher::default() };
        for (at, method) in self.methods.iter().enumerate() {
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
                return Err(Refusal::at(list("methods", at), format!("{method:?} is no method")));
            }
            matcher.methods.push(method.as_bytes().into());
        }
        matcher.path = self.path.as_ref().map(|path| path.compile().map_err(|refusal| refusal.within("path"))).transpose()?;
        for (at, host) in self.hosts.iter().enumerate() {
            matcher.hosts.push(Host::new(host).map_err(|cause| Refusal::at(list("hosts", at), cause))?);
        }
        for (at, header) in self.headers.iter().enumerate() {
            let text = header.value.compile().map_err(|refusal| refusal.within(&format!("headers[{at}].value")))?;
            if header.name.is_empty() || header.name.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
                return Err(Refusal::at(format!("headers[{at}].name"), format!("{:?} is no header name", header.name)));
            }
            matcher.headers.push((header.name.to_ascii_lowercase(), text));
        }
        for (at, parameter) in self.query.iter().enumerate() {
            let text = parameter.value.compile().map_err(|refusal| refusal.within(&format!("query[{at}].value")))?;
            matcher.query.push((parameter.name.clone(), text));
        }
        Ok(matcher)
    }
}

impl Host {
    fn new(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(rest) if rest.len() > 1 && rest.starts_with('.') && !rest.contains('*') => Ok(Self::Below(rest.to_owned())),
            None if !text.is_empty() && !text.contains('*') => Ok(Self::Exact(text)),
            _ => Err(format!("{text:?} is neither a host nor `*.` and a domain")),
        }
    }

    fn is(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => host.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Below(domain) => host.len() > domain.len() && host[host.len() - domain.len()..].eq_ignore_ascii_case(domain.as_bytes()),
        }
    }
}

impl RequestMatcher {
    /// Whether the request is meant, as the proxy has it.
    #[must_use]
    pub fn matches<S: 'static>(&self, stream: &Stream<'_, S>) -> bool {
        self.matches_in(stream, Readings::AsIs)
    }

    /// Whether the request is meant, in these of the readings that servers have of its path, method and headers.
    #[must_use]
    pub fn matches_in<S: 'static>(&self, stream: &Stream<'_, S>, readings: Readings) -> bool {
        let request = stream.request();
        let is_header = |(name, text): &(String, Text)| match readings {
            Readings::AsIs => text.matches(request.get(name)),
            Readings::Any => any_header_reading(request, name, |value| text.matches(value)),
            Readings::Every => every_header_reading(request, name, |value| text.matches(value)),
        };
        (self.methods.is_empty() || self.is_method(stream.method(), readings))
            && self.path.as_ref().is_none_or(|path| is_path(path, split_query(stream.path()).0, readings))
            && (self.hosts.is_empty() || self.is_host(stream.authority()))
            && self.headers.iter().all(is_header)
            && (self.query.is_empty() || self.is_query(split_query(stream.path()).1))
            && (self.sources.0.is_empty() || self.is_source(stream.attributes().source_address().and_then(address_of)))
    }

    fn is_method(&self, method: &[u8], readings: Readings) -> bool {
        let ignore_case = readings == Readings::Any;
        self.methods.iter().any(|known| **known == *method || (ignore_case && known.eq_ignore_ascii_case(method)))
    }

    fn is_host(&self, authority: &[u8]) -> bool {
        let host = split_port(authority).0;
        // The root's dot names the same host.
        let host = host.strip_suffix(b".").unwrap_or(host);
        self.hosts.iter().any(|known| known.is(host))
    }

    fn is_query(&self, query: &[u8]) -> bool {
        self.query.iter().all(|(name, text)| is_parameter(query, name, text))
    }

    /// A client without an IP address lies in no range.
    fn is_source(&self, address: Option<IpAddr>) -> bool {
        address.is_some_and(|address| self.sources.contains(address))
    }
}

fn is_path(text: &Text, path: &[u8], readings: Readings) -> bool {
    match readings {
        Readings::AsIs => text.matches(Some(path)),
        Readings::Any => any_reading(path, |reading| text.matches(Some(reading))),
        Readings::Every => !any_reading(path, |reading| !text.matches(Some(reading))),
    }
}

/// The path and what follows its first question mark.
#[must_use]
pub fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &[]),
    }
}

/// The host and the port of an authority; the port is empty if there is none.
#[must_use]
pub fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match authority.len().checked_sub(digits + 1) {
        Some(colon) if authority[colon] == b':' && (authority[..colon].ends_with(b"]") || !authority[..colon].contains(&b':')) => {
            (&authority[..colon], &authority[colon + 1..])
        }
        _ => (authority, &[]),
    }
}

/// Whether the first value of a parameter, or the lack of one, is meant. Percent signs are decoded.
#[must_use]
pub fn is_parameter(query: &[u8], name: &str, text: &Text) -> bool {
    match parameter(query, name) {
        None => text.matches(None),
        Some(raw) => text.matches(Some(&decoded(raw))),
    }
}

fn parameter<'q>(query: &'q [u8], name: &str) -> Option<&'q [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let (key, value) = pair.iter().position(|byte| *byte == b'=').map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        (key == name.as_bytes() || decoded(key) == name.as_bytes()).then_some(value)
    })
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, tail @ ..]) if let (Some(high), Some(low)) = (digit(*high), digit(*low)) => {
                out.push(high << 4 | low);
                rest = tail;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(first),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_taken_off_hosts_only() {
        for (authority, host) in [
            ("a.b:80", "a.b"),
            ("a.b", "a.b"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            (":80", ""),
            ("", ""),
            ("80", "80"),
        ] {
            assert_eq!(split_port(authority.as_bytes()).0, host.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn parameters_are_found_by_their_decoded_names() {
        assert_eq!(parameter(b"a=1&b=2&b=3", "b"), Some(&b"2"[..]));
        assert_eq!(parameter(b"a&b=", "a"), Some(&b""[..]));
        assert_eq!(parameter(b"%61dmin=yes", "admin"), Some(&b"yes"[..]));
        assert_eq!(parameter(b"", "a"), None);
        assert_eq!(decoded(b"a%2Fb+c%zz%4"), b"a/b c%zz%4");
    }

    #[test]
    fn hosts_match_without_regard_to_case() {
        let below = Host::new("*.Example.org").unwrap_or(Host::Exact(String::new()));
        for (host, is) in [("a.example.org", true), ("A.B.EXAMPLE.ORG", true), ("example.org", false), ("xexample.org", false)] {
            assert_eq!(below.is(host.as_bytes()), is, "{host}");
        }
        for wrong in ["", "*", "*.", "a*.b", "*a.b"] {
            assert!(Host::new(wrong).is_err(), "{wrong}");
        }
    }
}
