//! Attributes as text: which of them are numbers, and how each is shown.

use std::borrow::Cow;

use weir_sdk::{AttributeSet, Refusal, Values};

use crate::config::Tag;

/// What an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Boolean,
}

const INTEGERS: [&str; 25] = [
    "request.time",
    "request.duration",
    "request.size",
    "request.total_size",
    "request.headers_bytes",
    "request.grpc_messages",
    "response.code",
    "response.flags",
    "response.grpc_status",
    "response.size",
    "response.total_size",
    "response.headers_bytes",
    "response.grpc_messages",
    "response.backend_latency",
    "source.port",
    "destination.port",
    "connection.id",
    "connection.received_bytes",
    "connection.sent_bytes",
    "upstream.port",
    "upstream.request_attempt_count",
    "weir.revision",
    "listener_direction",
    "xds.listener_direction",
    "plugin.direction",
];

/// The kind of an attribute, by its path with dots.
pub(crate) fn kind(path: &str) -> Kind {
    match path {
        "connection.mtls" => Kind::Boolean,
        _ if INTEGERS.contains(&path) => Kind::Integer,
        _ => Kind::Text,
    }
}

/// An attribute's path as segments: a header's name may have dots.
pub(crate) fn segments(path: &str) -> Vec<&str> {
    for map in ["request.headers.", "request.trailers.", "response.headers.", "response.trailers.", "xds.upstream_host_metadata."] {
        if let Some(name) = path.strip_prefix(map) {
            return map.trim_end_matches('.').split('.').chain([name]).collect();
        }
    }
    // What filters set is one segment.
    if path == weir_sdk::DECISIONS { vec![path] } else { path.split('.').collect() }
}

/// A configured value of a request.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Nothing,
    Literal(String),
    At(usize, Kind),
}

impl Source {
    /// Finds room in `set` for what it needs.
    pub(crate) fn compile(tag: &Tag, set: &mut AttributeSet) -> Result<Self, Refusal> {
        match tag {
            Tag::Remove => Ok(Self::Nothing),
            Tag::Literal(text) => Ok(Self::Literal(text.clone())),
            Tag::Header(name) if name.is_empty() => Err(Refusal::new("the header has no name")),
            Tag::Header(name) => Ok(Self::At(set.add(&["request", "headers", &name.to_ascii_lowercase()]), Kind::Text)),
            Tag::Attribute(path) if path.is_empty() => Err(Refusal::new("the attribute has no path")),
            Tag::Attribute(path) => Ok(Self::At(set.add(&segments(path)), kind(path))),
        }
    }

    /// Its value, unless there is none.
    pub(crate) fn text<'v>(&'v self, values: &'v Values<'_>) -> Option<Cow<'v, str>> {
        match self {
            Self::Nothing => None,
            Self::Literal(text) => Some(Cow::Borrowed(text)),
            Self::At(at, kind) => shown(values, *at, *kind),
        }
    }
}

/// An attribute's value as text.
pub(crate) fn shown<'v>(values: &'v Values<'_>, at: usize, kind: Kind) -> Option<Cow<'v, str>> {
    match kind {
        Kind::Text => values.get(at).map(String::from_utf8_lossy),
        Kind::Integer => values.integer(at).map(|number| Cow::Owned(number.to_string())),
        Kind::Boolean => values.boolean(at).map(|yes| Cow::Borrowed(if yes { "true" } else { "false" })),
    }
}

/// Envoy's letters for the bits of `response.flags`, with commas; `-` for none.
pub(crate) fn flags(bits: i64) -> Cow<'static, str> {
    const LETTERS: [(u32, &str); 31] = [
        (0, "LH"),
        (1, "UH"),
        (2, "UT"),
        (3, "LR"),
        (4, "UR"),
        (5, "UF"),
        (6, "UC"),
        (7, "UO"),
        (8, "NR"),
        (9, "DI"),
        (10, "FI"),
        (11, "RL"),
        (12, "UAEX"),
        (13, "RLSE"),
        (14, "DC"),
        (15, "URX"),
        (16, "SI"),
        (17, "IH"),
        (18, "DPE"),
        (19, "UMSDR"),
        (20, "RFCF"),
        (21, "NFCF"),
        (22, "DT"),
        (23, "UPE"),
        (24, "NC"),
        (25, "OM"),
        (26, "DF"),
        (27, "DO"),
        (28, "DR"),
        (29, "UDO"),
        // Not Envoy's: a filter answered.
        (31, "FR"),
    ];
    let set: Vec<&'static str> = LETTERS.iter().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, letters)| *letters).collect();
    match set.as_slice() {
        [] => Cow::Borrowed("-"),
        [one] => Cow::Borrowed(one),
        more => Cow::Owned(more.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_letters() {
        assert_eq!((flags(0), flags(1 << 8), flags(1 << 2 | 1 << 15)), ("-".into(), "NR".into(), Cow::<str>::from("UT,URX")));
        assert_eq!(flags(1 << 31), "FR");
    }

    #[test]
    fn a_headers_name_is_one_segment() {
        assert_eq!(segments("request.headers.x.y"), ["request", "headers", "x.y"]);
        assert_eq!(segments("connection.mtls"), ["connection", "mtls"]);
        assert_eq!(segments("weir.decision"), ["weir.decision"]);
    }
}
