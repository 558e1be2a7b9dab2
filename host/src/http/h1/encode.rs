//! Heads on their way out.
//!
//! What always holds: framing fields and `connection` are written here and nowhere else, from what the caller says about the body, never from the block; a name
//! that is no token, a value with a control character, a target or host that could be taken for more than that: nothing is written, whichever
//! version of HTTP or filter it came from. A 101 is written only to who asked for an upgrade.

use super::line::{self, Span};
use super::response::Asked;
use super::{Framing, Version};
use crate::http::fields::{Field, Fields, Known, decimal};
use crate::http::{BodyLength, StreamError};

/// Fields that this module writes itself, or that are between neighbours.
const OWN: u64 = Known::Host.bit()
    | Known::ContentLength.bit()
    | Known::TransferEncoding.bit()
    | Known::Connection.bit()
    | Known::Upgrade.bit()
    | Known::Te.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::Http2Settings.bit();

/// Why a head cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// `:method` is no token.
    #[error("encode_method")]
    Method,
    /// `:path` is no target for its method.
    #[error("encode_path")]
    Path,
    /// `:authority` is no host.
    #[error("encode_authority")]
    Authority,
    /// `:status` is no status, or not one that can be answered to what was asked.
    #[error("encode_status")]
    Status,
    /// A field name that is no token.
    #[error("encode_name")]
    Name,
    /// A field value with a control character.
    #[error("encode_value")]
    Value,
    /// The block was too large to hold all that was put into it.
    #[error("encode_size")]
    Size,
}

impl EncodeError {
    /// The error's stable name.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Method => "encode_method",
            Self::Path => "encode_path",
            Self::Authority => "encode_authority",
            Self::Status => "encode_status",
            Self::Name => "encode_name",
            Self::Value => "encode_value",
            Self::Size => "encode_size",
        }
    }
}

impl From<EncodeError> for StreamError {
    fn from(error: EncodeError) -> Self {
        Self::Protocol(error.detail())
    }
}

/// What a request's head says beside its fields.
#[derive(Clone, Copy, Debug)]
pub struct RequestOut {
    /// The body that follows. [`BodyLength::Tunnel`] writes no framing.
    pub body: BodyLength,
    /// Whether to ask for the protocol in the field `upgrade`.
    pub upgrade: bool,
    /// Whether to tell the upstream that nothing else follows.
    pub close: bool,
}

/// What a response's head says beside its fields.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOut {
    /// The body that follows.
    pub body: BodyLength,
    /// The client's version.
    pub version: Version,
    /// What the client asked.
    pub asked: Asked,
    /// Whether the client may send another request.
    pub keep_alive: bool,
}

/// Appends a request's head to `out`. Returns how its body must be framed.
///
/// # Errors
/// When the head could be read as something else than the block says. `out` is as it was then.
pub fn request(fields: &Fields, say: RequestOut, out: &mut Vec<u8>) -> Result<Framing, EncodeError> {
    let start = out.len();
    let framing = write_request(fields, say, out);
    if framing.is_err() {
        out.truncate(start);
    }
    framing
}

/// Appends a response's head to `out`, also one with a 1xx status. Returns how its body must be framed: [`Framing::UntilClose`] ends with the
/// connection, and the head says so.
///
/// # Errors
/// When the head could be read as something else than the block says. `out` is as it was then.
pub fn response(fields: &Fields, say: ResponseOut, out: &mut Vec<u8>) -> Result<Framing, EncodeError> {
    let start = out.len();
    let framing = write_response(fields, say, out);
    if framing.is_err() {
        out.truncate(start);
    }
    framing
}

fn write_request(fields: &Fields, say: RequestOut, out: &mut Vec<u8>) -> Result<Framing, EncodeError> {
    if fields.is_overflowed() {
        return Err(EncodeError::Size);
    }
    let judged =
        |known, judge: fn(&[u8]) -> bool| fields.find(known).filter(|field| field.judged || judge(field.value)).map(|field| field.value);
    let method = judged(Known::Method, line::is_token).ok_or(EncodeError::Method)?;
    let authority = judged(Known::Authority, line::is_host).ok_or(EncodeError::Authority)?;
    let target = target(fields, method)?;
    reserve(fields, out);
    put(out, &[method, b" ", target, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"]);
    write_fields(fields, fields.get_all_known(Known::Cookie).nth(1).is_some(), out)?;
    let te = fields.get_all_known(Known::Te).any(|value| line::list(value).any(|part| part.eq_ignore_ascii_case(b"trailers")));
    if te {
        put(out, &[b"te: trailers\r\n"]);
    }
    let upgrade = if say.upgrade { Some(protocol(fields).ok_or(EncodeError::Value)?) } else { None };
    write_connection(&[(upgrade.is_some(), b"upgrade"), (te, b"te"), (say.close, b"close")], upgrade, out);
    let framing = match say.body {
        BodyLength::None | BodyLength::Known(0) => {
            if !matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"DELETE" | b"CONNECT" | b"TRACE") {
                write_length(0, out);
            }
            Framing::None
        }
        BodyLength::Known(length) => {
            write_length(length, out);
            Framing::Known(length)
        }
        BodyLength::Unknown => {
            put(out, &[CHUNKED]);
            Framing::Chunked
        }
        BodyLength::Tunnel => Framing::Tunnel,
    };
    put(out, &[b"\r\n"]);
    Ok(framing)
}

fn target<'a>(fields: &'a Fields, method: &[u8]) -> Result<&'a [u8], EncodeError> {
    if method == b"CONNECT" {
        // An extended CONNECT means nothing in HTTP/1: the engine makes it an upgrade.
        return if fields.has(Known::Protocol) { Err(EncodeError::Method) } else { Ok(fields.authority()) };
    }
    let path = fields.path();
    let is_form = path.first() == Some(&b'/') || (path == b"*" && method == b"OPTIONS");
    if is_form && line::find_target_end(path, 0) == path.len() { Ok(path) } else { Err(EncodeError::Path) }
}

fn write_response(fields: &Fields, say: ResponseOut, out: &mut Vec<u8>) -> Result<Framing, EncodeError> {
    if fields.is_overflowed() {
        return Err(EncodeError::Size);
    }
    let status = fields.status().ok_or(EncodeError::Status)?;
    let framing = response_framing(status, say)?;
    reserve(fields, out);
    put(out, &[b"HTTP/1.1 ", fields.get_known(Known::Status).unwrap_or_default(), b" ", reason(status).as_bytes(), b"\r\n"]);
    write_fields(fields, false, out)?;
    match framing {
        Framing::Known(length) => write_length(length, out),
        Framing::Chunked => put(out, &[CHUNKED]),
        Framing::None => write_no_body(fields, status, say, out),
        Framing::UntilClose | Framing::Tunnel => {}
    }
    let upgrade = if status == 101 { Some(protocol(fields).ok_or(EncodeError::Value)?) } else { None };
    let is_last = status >= 200 && framing != Framing::Tunnel;
    let close = is_last && (!say.keep_alive || framing == Framing::UntilClose);
    let keep_alive = is_last && !close && say.version == Version::Http10;
    write_connection(&[(upgrade.is_some(), b"upgrade"), (close, b"close"), (keep_alive, b"keep-alive")], upgrade, out);
    put(out, &[b"\r\n"]);
    Ok(framing)
}

fn response_framing(status: u16, say: ResponseOut) -> Result<Framing, EncodeError> {
    let is_tunnel = say.body == BodyLength::Tunnel;
    match (status, say.asked) {
        (101, Asked::Upgrade) | (200..=299, Asked::Connect) if is_tunnel => return Ok(Framing::Tunnel),
        // The client would take what follows for the other protocol.
        (101, _) | (200..=299, Asked::Connect) => return Err(EncodeError::Status),
        _ if is_tunnel => return Err(EncodeError::Status),
        (100..=199 | 204 | 304, _) | (_, Asked::Head) => return Ok(Framing::None),
        _ => {}
    }
    Ok(match say.body {
        BodyLength::Known(length @ 1..) => Framing::Known(length),
        BodyLength::Unknown if say.version == Version::Http11 => Framing::Chunked,
        BodyLength::Unknown => Framing::UntilClose,
        BodyLength::None | BodyLength::Known(_) | BodyLength::Tunnel => Framing::None,
    })
}

/// The length of a response without a body: its own, or that of the body which another request would have got.
fn write_no_body(fields: &Fields, status: u16, say: ResponseOut, out: &mut Vec<u8>) {
    match status {
        100..=199 | 204 => {}
        _ if status == 304 || say.asked == Asked::Head => {
            let stated = fields.get_known(Known::ContentLength).and_then(line::decimal);
            let length = if let BodyLength::Known(length) = say.body { Some(length) } else { stated };
            if let Some(length) = length {
                write_length(length, out);
            }
        }
        _ => write_length(0, out),
    }
}

const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";

#[inline]
fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// One reservation for all that may be written.
fn reserve(fields: &Fields, out: &mut Vec<u8>) {
    out.reserve(fields.wire_size() + 192);
}

/// Writes the fields that are not this module's own; lines that came next to each other at once. HTTP/2 may split `cookie`; HTTP/1 may not.
fn write_fields(fields: &Fields, join_cookies: bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut cookies_written = false;
    let mut lines = Span::default();
    for (Field { known, name, value, judged }, line) in fields.regular_lines() {
        match known {
            Some(known) if known.bit() & OWN != 0 => continue,
            Some(Known::Cookie) if join_cookies => {
                if !cookies_written {
                    cookies_written = true;
                    out.extend_from_slice(fields.lines(std::mem::take(&mut lines)));
                    write_cookies(fields, out)?;
                }
                continue;
            }
            None if !judged && !line::is_token(name) => return Err(EncodeError::Name),
            _ => {}
        }
        match line {
            Some(line) if line.start == lines.end => lines.end = line.end,
            Some(line) => out.extend_from_slice(fields.lines(std::mem::replace(&mut lines, line))),
            None if !judged && !line::is_value(value) => return Err(EncodeError::Value),
            None => put(out, &[fields.lines(std::mem::take(&mut lines)), name, b": ", value, b"\r\n"]),
        }
    }
    out.extend_from_slice(fields.lines(lines));
    Ok(())
}

#[cold]
fn write_cookies(fields: &Fields, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    for (index, value) in fields.get_all_known(Known::Cookie).enumerate() {
        if !line::is_value(value) {
            return Err(EncodeError::Value);
        }
        put(out, &[if index == 0 { b"cookie: " } else { b"; " }, value]);
    }
    put(out, &[b"\r\n"]);
    Ok(())
}

fn protocol(fields: &Fields) -> Option<&[u8]> {
    fields.get_known(Known::Upgrade).filter(|value| !value.is_empty() && line::is_value(value))
}

fn write_connection(options: &[(bool, &[u8])], upgrade: Option<&[u8]>, out: &mut Vec<u8>) {
    let mut separator: &[u8] = b"connection: ";
    for (_, option) in options.iter().filter(|(said, _)| *said) {
        put(out, &[separator, option]);
        separator = b", ";
    }
    if separator == b", " {
        put(out, &[b"\r\n"]);
    }
    if let Some(protocol) = upgrade {
        put(out, &[b"upgrade: ", protocol, b"\r\n"]);
    }
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    put(out, &[b"content-length: ", decimal(length, &mut [0; 20]), b"\r\n"]);
}

/// The reason phrase of a status; empty for those that no standard has.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400..=499 => client_error(status),
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}

fn client_error(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        _ => "",
    }
}
