//! Envoy's command operators: `%REQ(X-A?:PATH):10%`, each a value of a request.
//!
//! What always holds: an operator that is not known here refuses the configuration; a value that a request has not is `-` in a text and null in JSON; no
//! value can break out of its field or its line, whatever a client sends.

use std::borrow::Cow;
use std::fmt::Write;

use weir_sdk::{AttributeSet, Values};

use crate::time::TimeFormat;
use crate::value::{Kind, flags, kind, segments, shown};

/// Of one value, unless the operator says less.
const LONGEST: usize = 8 << 10;

/// What an operator shows, from which attributes. The first that is there counts.
#[derive(Debug)]
pub(crate) struct Operator {
    at: Vec<usize>,
    show: Show,
    most: usize,
}

#[derive(Debug)]
enum Show {
    Attribute(Kind),
    /// Nanoseconds as milliseconds.
    Millis,
    Start(TimeFormat),
    Flags,
    /// An address without its port.
    Host,
    Grpc(GrpcStyle),
    /// JSON, as it is where that is possible.
    Json,
    TraceId,
    Absent,
}

#[derive(Debug, Clone, Copy)]
enum GrpcStyle {
    Camel,
    Snake,
    Number,
}

/// A value.
#[derive(Debug, PartialEq)]
pub(crate) enum Shown<'v> {
    Absent,
    Text(Cow<'v, str>),
    Number(i64),
    /// A moment, in the operator's own format.
    Time(String),
    Json(&'v str),
}

/// What an operator is made of.
struct Call<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    most: Option<usize>,
}

impl<'a> Call<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let name_end = text.find(['(', ':']).unwrap_or(text.len());
        let (name, rest) = text.split_at(name_end);
        let (argument, rest) = match rest.strip_prefix('(') {
            None => (None, rest),
            Some(inner) => {
                let (argument, rest) = inner.rsplit_once(')').ok_or_else(|| format!("`%{text}%` has no closing parenthesis"))?;
                (Some(argument), rest)
            }
        };
        let most = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(format!("`%{text}%` is no operator")),
            Some(number) => Some(number.parse().map_err(|_| format!("`%{text}%`: {number:?} is no length"))?),
        };
        Ok(Self { name, argument, most })
    }
}

/// Operators that show one attribute, or the first of several that is there.
const PLAIN: [(&str, &[&str]); 29] = [
    ("PROTOCOL", &["request.protocol"]),
    ("RESPONSE_CODE", &["response.code"]),
    ("RESPONSE_CODE_DETAILS", &["response.code_details"]),
    ("CONNECTION_TERMINATION_DETAILS", &["connection.termination_details"]),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", &["upstream.transport_failure_reason"]),
    ("BYTES_RECEIVED", &["connection.received_bytes", "request.size"]),
    ("BYTES_SENT", &["connection.sent_bytes", "response.size"]),
    ("UPSTREAM_HOST", &["upstream.address"]),
    ("UPSTREAM_REMOTE_ADDRESS", &["upstream.address"]),
    ("UPSTREAM_REMOTE_PORT", &["upstream.port"]),
    ("UPSTREAM_LOCAL_ADDRESS", &["upstream.local_address"]),
    ("UPSTREAM_CLUSTER", &["xds.cluster_name"]),
    ("UPSTREAM_CLUSTER_RAW", &["xds.cluster_name"]),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", &["upstream.request_attempt_count"]),
    ("ROUTE_NAME", &["xds.route_name"]),
    ("DOWNSTREAM_REMOTE_ADDRESS", &["source.address"]),
    ("DOWNSTREAM_REMOTE_PORT", &["source.port"]),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", &["source.address"]),
    ("DOWNSTREAM_LOCAL_ADDRESS", &["destination.address"]),
    ("DOWNSTREAM_LOCAL_PORT", &["destination.port"]),
    ("DOWNSTREAM_PEER_URI_SAN", &["connection.uri_san_peer_certificate"]),
    ("DOWNSTREAM_LOCAL_URI_SAN", &["connection.uri_san_local_certificate"]),
    ("DOWNSTREAM_PEER_SUBJECT", &["connection.subject_peer_certificate"]),
    ("DOWNSTREAM_LOCAL_SUBJECT", &["connection.subject_local_certificate"]),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", &["connection.sha256_peer_certificate_digest"]),
    ("DOWNSTREAM_TLS_VERSION", &["connection.tls_version"]),
    ("REQUESTED_SERVER_NAME", &["connection.requested_server_name"]),
    ("CONNECTION_ID", &["connection.id"]),
    ("STREAM_ID", &["request.id"]),
];

/// Those that exist in Envoy and have no value here.
const NEVER: [&str; 6] = [
    "VIRTUAL_CLUSTER_NAME",
    "REQUEST_TX_DURATION",
    "RESPONSE_TX_DURATION",
    "REQUEST_DURATION",
    "UPSTREAM_WIRE_BYTES_SENT",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
];

impl Operator {
    /// Reads what stands between two percent signs.
    pub(crate) fn parse(text: &str, set: &mut AttributeSet) -> Result<Self, String> {
        let call = Call::parse(text)?;
        let mut attributes = |paths: &[&str]| paths.iter().map(|path| set.add(&segments(path))).collect::<Vec<_>>();
        let argument = |what: &str| call.argument.filter(|argument| !argument.is_empty()).ok_or(format!("`%{}%` needs {what}", call.name));
        let is_plain = PLAIN.iter().find(|(name, _)| *name == call.name);
        let (at, show) = match call.name {
            _ if is_plain.is_some() => {
                let paths = is_plain.map(|(_, paths)| *paths).unwrap_or_default();
                (attributes(paths), Show::Attribute(paths.first().map_or(Kind::Text, |path| kind(path))))
            }
            "REQ" | "RESP" | "TRAILER" => {
                let map = match call.name {
                    "REQ" => "request.headers.",
                    "RESP" => "response.headers.",
                    _ => "response.trailers.",
                };
                return headers(&call, map, argument("a header's name")?, set);
            }
            "START_TIME" => (attributes(&["request.time"]), Show::Start(TimeFormat::parse(call.argument.unwrap_or_default())?)),
            "DURATION" => (attributes(&["request.duration"]), Show::Millis),
            "RESPONSE_DURATION" => (attributes(&["response.backend_latency"]), Show::Millis),
            "RESPONSE_FLAGS" => (attributes(&["response.flags"]), Show::Flags),
            "GRPC_STATUS_NUMBER" => (attributes(&["response.grpc_status"]), Show::Grpc(GrpcStyle::Number)),
            "GRPC_STATUS" => {
                let style = match call.argument {
                    None | Some("CAMEL_STRING") => GrpcStyle::Camel,
                    Some("SNAKE_STRING") => GrpcStyle::Snake,
                    Some("NUMBER") => GrpcStyle::Number,
                    Some(other) => return Err(format!("`{other}`: GRPC_STATUS has CAMEL_STRING, SNAKE_STRING and NUMBER")),
                };
                (attributes(&["response.grpc_status"]), Show::Grpc(style))
            }
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
                (attributes(&["source.address"]), Show::Host)
            }
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => (attributes(&["destination.address"]), Show::Host),
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "UPSTREAM_HOST_WITHOUT_PORT" => (attributes(&["upstream.address"]), Show::Host),
            "FILTER_STATE" => {
                let (key, style) = argument("a key")?.rsplit_once(':').unwrap_or((argument("a key")?, "TYPED"));
                let show = match style {
                    "PLAIN" => Show::Attribute(Kind::Text),
                    "TYPED" => Show::Json,
                    other => return Err(format!("`{other}`: FILTER_STATE has PLAIN and TYPED")),
                };
                // What a filter set under a name is that name as it is.
                (vec![set.add(&[key])], show)
            }
            "DYNAMIC_METADATA" => {
                let path = argument("a namespace and keys")?;
                (vec![set.add(&[&path.replace(':', ".")])], Show::Json)
            }
            "ATTRIBUTE" => {
                let path = argument("an attribute's path")?;
                (attributes(&[path]), Show::Attribute(kind(path)))
            }
            "TRACE_ID" => (Vec::new(), Show::TraceId),
            never if NEVER.contains(&never) => (Vec::new(), Show::Absent),
            other => return Err(unknown(other)),
        };
        Ok(Self { at, show, most: call.most.unwrap_or(LONGEST).min(LONGEST) })
    }

    /// Its value. `trace`: the id of the request's trace.
    pub(crate) fn value<'v>(&self, values: &'v Values<'_>, trace: Option<&str>) -> Shown<'v> {
        let Some(at) = self.at.iter().copied().find(|at| values.get(*at).is_some()) else {
            return match (&self.show, trace) {
                (Show::TraceId, Some(trace)) => Shown::Text(Cow::Owned(trace.to_owned())),
                (Show::Flags, _) => Shown::Text(Cow::Borrowed("-")),
                _ => Shown::Absent,
            };
        };
        let integer = values.integer(at);
        let nanos = || integer.and_then(|nanos| u64::try_from(nanos).ok());
        match &self.show {
            Show::Attribute(Kind::Integer) => integer.map_or(Shown::Absent, Shown::Number),
            Show::Attribute(kind) => shown(values, at, *kind).filter(|text| !text.is_empty()).map_or(Shown::Absent, |text| self.cut(text)),
            Show::Millis => integer.map_or(Shown::Absent, |nanos| Shown::Number(nanos / 1_000_000)),
            Show::Start(format) => {
                let mut text = String::new();
                format.write(nanos().unwrap_or(0), &mut text);
                Shown::Time(text)
            }
            Show::Flags => Shown::Text(flags(integer.unwrap_or(0))),
            Show::Host => values.text(at).map_or(Shown::Absent, |text| {
                let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
                Shown::Text(host.trim_start_matches('[').trim_end_matches(']').into())
            }),
            Show::Grpc(style) => integer.map_or(Shown::Absent, |status| grpc(status, *style)),
            Show::Json => {
                values.text(at).map_or(Shown::Absent, |text| match serde_json::from_str::<weir_sdk::serde::de::IgnoredAny>(text) {
                    Ok(_) if !text.chars().any(char::is_control) => Shown::Json(text),
                    _ => self.cut(text.into()),
                })
            }
            Show::TraceId | Show::Absent => Shown::Absent,
        }
    }

    fn cut<'v>(&self, text: Cow<'v, str>) -> Shown<'v> {
        let end = text.floor_char_boundary(self.most);
        Shown::Text(match text {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
            Cow::Owned(mut text) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        })
    }
}

fn headers(call: &Call<'_>, map: &str, names: &str, set: &mut AttributeSet) -> Result<Operator, String> {
    let mut at = Vec::new();
    let mut show = Show::Attribute(Kind::Text);
    for name in names.split('?') {
        let name = name.to_ascii_lowercase();
        if name.is_empty() {
            return Err(format!("`%{}({names})%` has an empty name", call.name));
        }
        at.push(set.add(&segments(&format!("{map}{name}"))));
        // Envoy tells that time by a header; here it is an attribute.
        if name == "x-envoy-upstream-service-time" && names == "X-ENVOY-UPSTREAM-SERVICE-TIME" && call.name == "RESP" {
            at = vec![set.add(&["response", "backend_latency"])];
            show = Show::Millis;
        }
    }
    Ok(Operator { at, show, most: call.most.unwrap_or(LONGEST).min(LONGEST) })
}

fn unknown(name: &str) -> String {
    const MORE: [&str; 15] = [
        "REQ",
        "RESP",
        "TRAILER",
        "START_TIME",
        "DURATION",
        "RESPONSE_DURATION",
        "RESPONSE_FLAGS",
        "GRPC_STATUS",
        "GRPC_STATUS_NUMBER",
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        "FILTER_STATE",
        "DYNAMIC_METADATA",
        "ATTRIBUTE",
        "TRACE_ID",
    ];
    let names: Vec<&str> = PLAIN.iter().map(|(name, _)| *name).chain(MORE).collect();
    format!("there is no operator `%{name}%` here; there are {}", names.join(", "))
}

fn grpc(status: i64, style: GrpcStyle) -> Shown<'static> {
    const NAMES: [(&str, &str); 17] = [
        ("OK", "OK"),
        ("Canceled", "CANCELLED"),
        ("Unknown", "UNKNOWN"),
        ("InvalidArgument", "INVALID_ARGUMENT"),
        ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
        ("NotFound", "NOT_FOUND"),
        ("AlreadyExists", "ALREADY_EXISTS"),
        ("PermissionDenied", "PERMISSION_DENIED"),
        ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
        ("FailedPrecondition", "FAILED_PRECONDITION"),
        ("Aborted", "ABORTED"),
        ("OutOfRange", "OUT_OF_RANGE"),
        ("Unimplemented", "UNIMPLEMENTED"),
        ("Internal", "INTERNAL"),
        ("Unavailable", "UNAVAILABLE"),
        ("DataLoss", "DATA_LOSS"),
        ("Unauthenticated", "UNAUTHENTICATED"),
    ];
    match (usize::try_from(status).ok().and_then(|status| NAMES.get(status)), style) {
        (Some((camel, _)), GrpcStyle::Camel) => Shown::Text((*camel).into()),
        (Some((_, snake)), GrpcStyle::Snake) => Shown::Text((*snake).into()),
        _ => Shown::Number(status),
    }
}

/// Appends a value to a text. In a field without quotes of its own, spaces are escaped too: nothing in it may look like two fields.
pub(crate) fn write_text(shown: &Shown<'_>, is_quoted: bool, out: &mut String) {
    let text = match shown {
        Shown::Absent => return out.push('-'),
        Shown::Number(number) => {
            let _ = write!(out, "{number}");
            return;
        }
        Shown::Time(text) => return out.push_str(text),
        Shown::Text(text) => &**text,
        Shown::Json(text) => text,
    };
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' ' if !is_quoted => out.push_str("\\x20"),
            ' '..='~' => out.push(letter),
            other => {
                let mut bytes = [0; 4];
                other.encode_utf8(&mut bytes).bytes().for_each(|byte| {
                    let _ = write!(out, "\\x{byte:02x}");
                });
            }
        }
    }
}

/// Appends a value to JSON.
pub(crate) fn write_json(shown: &Shown<'_>, out: &mut String) {
    let _ = match shown {
        Shown::Absent => out.write_str("null"),
        Shown::Number(number) => write!(out, "{number}"),
        Shown::Json(text) => out.write_str(text),
        Shown::Time(text) => {
            json_string(text, out);
            Ok(())
        }
        Shown::Text(text) => {
            json_string(text, out);
            Ok(())
        }
    };
}

/// Appends a string of JSON. What a terminal would obey is escaped, though JSON would let it stand.
pub(crate) fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
