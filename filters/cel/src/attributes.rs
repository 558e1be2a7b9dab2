//! The names that expressions may use, and where their values come from.

use std::borrow::Cow;
use std::rc::Rc;

use weir_sdk::Stream;

use crate::value::Value;

/// A header map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `request.headers`
    RequestHeaders,
    /// `request.trailers`
    RequestTrailers,
    /// `response.headers`
    ResponseHeaders,
    /// `response.trailers`
    ResponseTrailers,
}

/// What a request says of itself: a stream of the SDK, or a test.
pub trait Source {
    /// An attribute by the segments of its path, as the ABI encodes it.
    fn attribute(&self, path: &[&str]) -> Option<&[u8]>;
    /// A header by its name in lower case.
    fn header(&self, side: Side, name: &str) -> Option<&[u8]>;
    /// All headers.
    fn headers(&self, side: Side) -> Vec<(&[u8], &[u8])>;
}

/// No request: for expressions over literals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nothing;

impl Source for Nothing {
    fn attribute(&self, _: &[&str]) -> Option<&[u8]> {
        None
    }

    fn header(&self, _: Side, _: &str) -> Option<&[u8]> {
        None
    }

    fn headers(&self, _: Side) -> Vec<(&[u8], &[u8])> {
        Vec::new()
    }
}

impl<S: 'static> Source for Stream<'_, S> {
    fn attribute(&self, path: &[&str]) -> Option<&[u8]> {
        match path {
            [first, second] if !first.contains('.') && !second.contains('.') => {
                // Most have two segments: joined without an allocation.
                let mut joined = [0; 64];
                let length = first.len() + 1 + second.len();
                let Some(room) = joined.get_mut(..length) else { return self.attributes().at(path) };
                room[..first.len()].copy_from_slice(first.as_bytes());
                room[first.len()] = b'.';
                room[first.len() + 1..].copy_from_slice(second.as_bytes());
                std::str::from_utf8(room).ok().and_then(|path| self.attributes().get(path))
            }
            _ => self.attributes().at(path),
        }
    }

    fn header(&self, side: Side, name: &str) -> Option<&[u8]> {
        map(self, side).get(name)
    }

    fn headers(&self, side: Side) -> Vec<(&[u8], &[u8])> {
        map(self, side).iter().collect()
    }
}

fn map<'c, S: 'static>(stream: &Stream<'c, S>, side: Side) -> weir_sdk::Headers<'c> {
    match side {
        Side::RequestHeaders => stream.request(),
        Side::RequestTrailers => stream.request_trailers(),
        Side::ResponseHeaders => stream.response(),
        Side::ResponseTrailers => stream.response_trailers(),
    }
}

/// A name, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    Header(Side, Box<str>),
    Headers(Side),
    Of(Type, Box<[Box<str>]>),
}

/// How the ABI encodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Int,
    Bool,
    Time,
    Duration,
    Map,
}

/// Every leaf with a type, by its first segment.
const KNOWN: [(&str, Type, &[&str]); 15] = [
    ("request", Type::Text, &["path", "url_path", "host", "scheme", "method", "referer", "useragent", "id", "protocol", "query"]),
    ("request", Type::Time, &["time"]),
    ("request", Type::Duration, &["duration"]),
    ("request", Type::Int, &["size", "total_size", "headers_bytes"]),
    ("response", Type::Int, &["code", "flags", "grpc_status", "size", "total_size", "headers_bytes"]),
    ("response", Type::Text, &["code_details"]),
    ("response", Type::Duration, &["backend_latency"]),
    ("source", Type::Text, &["address"]),
    ("source", Type::Int, &["port"]),
    ("destination", Type::Text, &["address"]),
    ("destination", Type::Int, &["port"]),
    ("connection", Type::Int, &["id"]),
    ("connection", Type::Bool, &["mtls"]),
    ("upstream", Type::Int, &["port", "request_attempt_count"]),
    ("xds", Type::Map, &["route_metadata", "upstream_host_metadata"]),
];

/// First segments behind which there is a text wherever [`KNOWN`] says nothing.
const TEXTS: [(&str, &[&str]); 3] = [
    (
        "connection",
        &[
            "requested_server_name",
            "tls_version",
            "subject_local_certificate",
            "subject_peer_certificate",
            "dns_san_local_certificate",
            "dns_san_peer_certificate",
            "uri_san_local_certificate",
            "uri_san_peer_certificate",
            "sha256_peer_certificate_digest",
        ],
    ),
    ("upstream", &["address", "locality", "transport_failure_reason"]),
    ("xds", &["cluster_name", "route_name", "listener_name", "filter_chain_name"]),
];

/// First segments behind which anything may be; it is a text.
const OPEN: [&str; 6] = ["metadata", "filter_state", "node", "wasm", "listener_metadata", "auth"];

/// Whether expressions may begin with this name.
pub(crate) fn is_root(name: &str) -> bool {
    OPEN.contains(&name) || KNOWN.iter().any(|(root, ..)| *root == name)
}

/// What this path means; `None` if nothing.
pub(crate) fn lookup(path: &[&str]) -> Option<Attribute> {
    let (root, rest) = path.split_first()?;
    let of = |ty| Some(Attribute::Of(ty, path.iter().map(|segment| (*segment).into()).collect()));
    let side = match (*root, rest.first().copied()) {
        ("request", Some("headers")) => Some(Side::RequestHeaders),
        ("request", Some("trailers")) => Some(Side::RequestTrailers),
        ("response", Some("headers")) => Some(Side::ResponseHeaders),
        ("response", Some("trailers")) => Some(Side::ResponseTrailers),
        _ => None,
    };
    match (side, rest) {
        (Some(side), [_]) => return Some(Attribute::Headers(side)),
        (Some(side), [_, name]) => return Some(Attribute::Header(side, name.to_ascii_lowercase().into())),
        _ => {}
    }
    if OPEN.contains(root) {
        return if rest.is_empty() { None } else { of(Type::Text) };
    }
    let [leaf] = rest else { return None };
    let typed = KNOWN.iter().find(|(known, _, leaves)| known == root && leaves.contains(leaf)).map(|(_, ty, _)| *ty);
    let text = TEXTS.iter().any(|(known, leaves)| known == root && leaves.contains(leaf));
    typed.or(text.then_some(Type::Text)).and_then(of)
}

impl Attribute {
    /// Its name, for errors.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Header(Side::RequestHeaders, name) => format!("request.headers[{name:?}]"),
            Self::Header(_, name) => format!("the header {name:?}"),
            Self::Headers(_) => "headers".into(),
            Self::Of(_, path) => path.join("."),
        }
    }

    /// Its value, if there is one.
    pub(crate) fn value<'v>(&'v self, source: &'v dyn Source) -> Option<Value<'v>> {
        match self {
            Self::Header(side, name) => source.header(*side, name).map(text),
            Self::Headers(side) => {
                Some(Value::Map(Rc::new(source.headers(*side).into_iter().map(|(name, value)| (text(name), text(value))).collect())))
            }
            Self::Of(ty, path) => {
                let path: [&str; 8] = std::array::from_fn(|at| path.get(at).map_or("", |segment| segment));
                let count = path.iter().take_while(|segment| !segment.is_empty()).count();
                decode(*ty, source.attribute(&path[..count])?)
            }
        }
    }
}

fn text(bytes: &[u8]) -> Value<'_> {
    Value::Text(String::from_utf8_lossy(bytes))
}

fn decode(ty: Type, bytes: &[u8]) -> Option<Value<'_>> {
    let number = || bytes.try_into().ok().map(i64::from_le_bytes);
    match ty {
        Type::Text => Some(text(bytes)),
        Type::Bool => bytes.first().map(|byte| Value::Bool(*byte != 0)),
        Type::Int => number().map(Value::Int),
        Type::Time => number().map(Value::Timestamp),
        Type::Duration => number().map(Value::Duration),
        Type::Map => {
            let pairs = weir_sdk::Pairs::read(bytes);
            let entry = |(name, value): (&[u8], &[u8])| {
                let owned = |bytes: &[u8]| Value::Text(Cow::Owned(String::from_utf8_lossy(bytes).into_owned()));
                (owned(name), owned(value))
            };
            Some(Value::Map(Rc::new(pairs.map(entry).collect())))
        }
    }
}
