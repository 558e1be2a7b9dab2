//! Heads and trailers between [`Fields`] and the types of the `http` crate that `h2` speaks.
//!
//! What comes in is checked as if it would go out as HTTP/1.1: a request whose target, authority or framing could be read in two ways is refused, with a
//! status and a name. The library has refused before that: upper-case and invalid names, control characters in values, connection-specific
//! fields, `te` other than `trailers`, pseudo headers that are missing, repeated, unknown or late, a `content-length` that is no number, and a body
//! that does not have its length. It cuts a fragment off `:path` instead of refusing it; everyone behind sees the path without.
//!
//! What goes out: values of a head share one buffer of the connection's ([`Values`]), names with a number cost no allocation, and
//! connection-specific fields are left out, whoever added them.

use std::{cell::RefCell, sync::LazyLock};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::super::{
    BodyLength, StreamError,
    fields::{Field, Fields, Known, decimal},
    h1::{Refusal, line::is_host},
};

/// Fields of a message's trailers.
pub const MAX_TRAILERS: usize = 100;

/// What a request's head may have.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Fields, crumbs of cookies counted one by one.
    pub fields: usize,
    /// Bytes of the target.
    pub path: usize,
}

/// Fills `head` with a request's head and says what body follows. `scheme` is for requests that have none.
///
/// # Errors
/// When the request must not be passed on. `head` then has what was read until there.
pub(crate) fn request_head(
    parts: &Parts,
    end: bool,
    scheme: &'static [u8],
    limits: HeadLimits,
    head: &mut Fields,
) -> Result<BodyLength, Refusal> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let connect = parts.method == Method::CONNECT;
    head.push_known(Known::Method, parts.method.as_str().as_bytes());
    if !connect || protocol.is_some() {
        target(parts, limits, head)?;
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    head.push_known(Known::Authority, checked_authority(authority, &parts.headers)?);
    if !connect || protocol.is_some() {
        head.push_known(Known::Scheme, checked_scheme(parts, scheme)?);
    } else if !has_port(head.authority()) {
        return Err(Refusal::HostInvalid);
    }
    if let Some(protocol) = protocol {
        head.push_known(Known::Protocol, protocol.as_str().as_bytes());
    }
    if parts.headers.len() > limits.fields {
        return Err(Refusal::TooManyHeaders);
    }
    let length = request_fields(&parts.headers, head)?;
    if head.is_overflowed() {
        return Err(Refusal::HeadersTooLarge);
    }
    match (connect, length) {
        (true, Some(_)) => Err(Refusal::ConnectBody),
        (true, None) => Ok(BodyLength::Tunnel),
        _ if end => Ok(BodyLength::None),
        (_, Some(length)) => Ok(BodyLength::Known(length)),
        (_, None) => Ok(BodyLength::Unknown),
    }
}

fn target(parts: &Parts, limits: HeadLimits, head: &mut Fields) -> Result<(), Refusal> {
    let Some(path) = parts.uri.path_and_query().map(|path| path.as_str().as_bytes()) else { return Err(Refusal::Target) };
    if path.len() > limits.path {
        return Err(Refusal::PathTooLong);
    }
    if !path.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'#') {
        return Err(Refusal::Target);
    }
    if path.first() != Some(&b'/') && !(path == b"*" && parts.method == Method::OPTIONS) {
        return Err(Refusal::TargetForm);
    }
    head.push_known(Known::Path, path);
    Ok(())
}

fn checked_scheme(parts: &Parts, default: &'static [u8]) -> Result<&'static [u8], Refusal> {
    match parts.uri.scheme_str() {
        None => Ok(default),
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => Ok(b"https"),
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => Ok(b"http"),
        Some(_) => Err(Refusal::Scheme),
    }
}

/// The one authority of a request, from `:authority` and `host`.
fn checked_authority<'a>(authority: Option<&'a [u8]>, headers: &'a HeaderMap) -> Result<&'a [u8], Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Refusal::HostDuplicate);
    }
    let chosen = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => return Err(Refusal::HostMismatch),
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) => return Err(Refusal::HostMissing),
    };
    if is_host(chosen) { Ok(chosen) } else { Err(Refusal::HostInvalid) }
}

/// Whether a host that is one has a port.
fn has_port(host: &[u8]) -> bool {
    !host.ends_with(b"]") && host.contains(&b':')
}

/// Copies the fields, and returns `content-length`.
fn request_fields(headers: &HeaderMap, head: &mut Fields) -> Result<Option<u64>, Refusal> {
    let mut length = None;
    let mut cookies = false;
    for (name, value) in headers {
        let value = value.as_bytes();
        if let ([b' ' | b'\t', ..], _) | (_, [.., b' ' | b'\t']) = (value, value) {
            return Err(Refusal::FieldValue);
        }
        let name = name.as_str().as_bytes();
        match Known::of(name) {
            Some(known) if is_hop_by_hop(known) => return Err(Refusal::FieldName),
            Some(Known::Host | Known::Http2Settings) => {}
            Some(Known::ContentLength) => {
                if length.is_some() {
                    return Err(Refusal::ContentLengthDuplicate);
                }
                length = Some(parse_length(value).ok_or(Refusal::ContentLength)?);
                head.push_known(Known::ContentLength, value);
            }
            // Values of one name come one after the other: the first stands for all.
            Some(Known::Cookie) if cookies => {}
            Some(Known::Cookie) => {
                cookies = true;
                push_cookies(headers, head);
            }
            Some(known) => head.push_known(known, value),
            None => head.push(name, value),
        }
    }
    Ok(length)
}

/// One `cookie` field of all the crumbs.
fn push_cookies(headers: &HeaderMap, head: &mut Fields) {
    let mut crumbs = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    match (crumbs.next(), crumbs.next()) {
        (Some(only), None) => head.push_known(Known::Cookie, only),
        (Some(first), Some(second)) => {
            let mut joined = first.to_vec();
            for crumb in std::iter::once(second).chain(crumbs) {
                joined.extend_from_slice(b"; ");
                joined.extend_from_slice(crumb);
            }
            head.push_known(Known::Cookie, &joined);
        }
        _ => {}
    }
}

fn is_hop_by_hop(known: Known) -> bool {
    matches!(known, Known::Connection | Known::TransferEncoding | Known::Upgrade | Known::KeepAlive | Known::ProxyConnection)
}

fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| byte.is_ascii_digit().then(|| length * 10 + u64::from(byte - b'0')))
}

/// Fills `head` with a response's head.
///
/// # Errors
/// When it has more than `limit` fields, or two lengths.
pub(crate) fn response_head(status: StatusCode, headers: &HeaderMap, head: &mut Fields, limit: usize) -> Result<(), StreamError> {
    if headers.len() > limit {
        return Err(StreamError::Limit("header_count"));
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(StreamError::Protocol("status_101"));
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(StreamError::Protocol("content_length_duplicate"));
    }
    head.push_known(Known::Status, status.as_str().as_bytes());
    for (name, value) in headers {
        head.push(name.as_str().as_bytes(), value.as_bytes());
    }
    if head.is_overflowed() { Err(StreamError::Limit("header_bytes")) } else { Ok(()) }
}

/// What `content-length` says of the body of a message that has one.
pub(crate) fn length(head: &Fields) -> BodyLength {
    head.get_known(Known::ContentLength).and_then(parse_length).map_or(BodyLength::Unknown, BodyLength::Known)
}

/// Trailers as they came, without what only a head may say.
///
/// # Errors
/// When there are more than [`MAX_TRAILERS`].
pub(crate) fn trailers_in(map: &HeaderMap) -> Result<Fields, StreamError> {
    if map.len() > MAX_TRAILERS {
        return Err(StreamError::Limit("trailer_count"));
    }
    let mut trailers = Fields::new();
    for (name, value) in map {
        let name = name.as_str().as_bytes();
        if !Known::of(name).is_some_and(is_head_only) {
            trailers.push(name, value.as_bytes());
        }
    }
    Ok(trailers)
}

/// Fields that mean something for a connection, a message's framing or its routing: never in trailers.
fn is_head_only(known: Known) -> bool {
    is_hop_by_hop(known)
        || matches!(known, Known::ContentLength | Known::Host | Known::Te | Known::Trailer | Known::Http2Settings | Known::Expect)
        || known.is_pseudo()
}

/// Where values of heads are copied to, so that a head costs no allocation per field.
///
/// The peer's table of fields keeps some of them, and with them their buffer: it is small for that reason.
#[derive(Default)]
pub(crate) struct Values(RefCell<BytesMut>);

const VALUES: usize = 2048;

impl Values {
    fn copy(&self, value: &[u8]) -> Bytes {
        if value.is_empty() {
            return Bytes::new();
        }
        let mut buffer = self.0.borrow_mut();
        if buffer.capacity() < value.len() {
            buffer.reserve(value.len().max(VALUES));
        }
        buffer.extend_from_slice(value);
        buffer.split().freeze()
    }

    fn value(&self, value: &[u8]) -> Result<HeaderValue, StreamError> {
        HeaderValue::from_maybe_shared(self.copy(value)).map_err(|_| StreamError::Protocol("header_value"))
    }
}

static NAMES: LazyLock<Vec<Option<HeaderName>>> =
    LazyLock::new(|| Known::ALL.iter().map(|known| HeaderName::from_bytes(known.name()).ok()).collect());

fn name(field: &Field<'_>) -> Result<HeaderName, StreamError> {
    if let Some(known) = field.known
        && let Some(Some(name)) = NAMES.get(known as usize)
    {
        return Ok(name.clone());
    }
    HeaderName::from_lowercase(field.name).map_err(|_| StreamError::Protocol("header_name"))
}

/// Whether a field goes out with a head. `content-length` does so in its own way.
fn goes_out(field: &Field<'_>) -> bool {
    match field.known {
        Some(Known::Te) => field.value.eq_ignore_ascii_case(b"trailers"),
        Some(Known::ContentLength | Known::Host | Known::Http2Settings) => false,
        Some(known) => !is_hop_by_hop(known),
        None => true,
    }
}

fn map_out(head: &Fields, length: Option<&[u8]>, values: &Values) -> Result<HeaderMap, StreamError> {
    if head.is_overflowed() {
        return Err(StreamError::Limit("header_bytes"));
    }
    let mut map = HeaderMap::new();
    let full = |_| StreamError::Limit("header_count");
    map.try_reserve(head.len()).map_err(full)?;
    for field in head.regular().filter(goes_out) {
        map.try_append(name(&field)?, values.value(field.value)?).map_err(full)?;
    }
    if let Some(length) = length {
        map.try_append(header::CONTENT_LENGTH, values.value(length)?).map_err(full)?;
    }
    Ok(map)
}

/// A response's head as it goes out.
///
/// # Errors
/// When a name, a value or the status cannot be written.
pub(crate) fn response(head: &Fields, body: BodyLength, values: &Values) -> Result<Response<()>, StreamError> {
    let mut status = head.status().unwrap_or_default();
    if body == BodyLength::Tunnel && status == 101 {
        // RFC 8441: an accepted upgrade is a success.
        status = 200;
    }
    if !(200..1000).contains(&status) {
        return Err(StreamError::Protocol("status"));
    }
    let mut digits = [0; 20];
    let length = match body {
        BodyLength::Known(length) => Some(decimal(length, &mut digits)),
        // To HEAD, or 304: the length that there would have been.
        BodyLength::None if status != 204 => head.get_known(Known::ContentLength),
        _ => None,
    };
    build(status, map_out(head, length, values)?)
}

/// A 1xx head as it goes out.
///
/// # Errors
/// As [`response`], and for 101.
pub(crate) fn informational(head: &Fields, values: &Values) -> Result<Response<()>, StreamError> {
    let status = head.status().unwrap_or_default();
    if !(100..200).contains(&status) || status == 101 {
        return Err(StreamError::Protocol("status"));
    }
    build(status, map_out(head, None, values)?)
}

fn build(status: u16, headers: HeaderMap) -> Result<Response<()>, StreamError> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| StreamError::Protocol("status"))?;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A request's head as it goes out.
///
/// # Errors
/// When a name, a value or a part of the target cannot be written.
pub(crate) fn request(head: &Fields, body: BodyLength, values: &Values) -> Result<Request<()>, StreamError> {
    let protocol = head.get_known(Known::Protocol);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method()).map_err(|_| StreamError::Protocol("method"))?;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri(head, request.method() == Method::CONNECT && protocol.is_none(), values)?;
    if let Some(protocol) = protocol {
        let protocol = std::str::from_utf8(protocol).map_err(|_| StreamError::Protocol("protocol"))?;
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    let mut digits = [0; 20];
    let length = match body {
        BodyLength::Known(length) => Some(decimal(length, &mut digits)),
        BodyLength::None if head.has(Known::ContentLength) => Some(&b"0"[..]),
        _ => None,
    };
    *request.headers_mut() = map_out(head, length, values)?;
    Ok(request)
}

fn uri(head: &Fields, connect: bool, values: &Values) -> Result<Uri, StreamError> {
    let mut parts = http::uri::Parts::default();
    let authority = Authority::from_maybe_shared(values.copy(head.authority()));
    parts.authority = Some(authority.map_err(|_| StreamError::Protocol("authority"))?);
    if !connect {
        let path = PathAndQuery::from_maybe_shared(values.copy(head.path()));
        parts.path_and_query = Some(path.map_err(|_| StreamError::Protocol("path"))?);
        parts.scheme = Some(if head.scheme() == b"https" { Scheme::HTTPS } else { Scheme::HTTP });
    }
    Uri::from_parts(parts).map_err(|_| StreamError::Protocol("target"))
}

/// Trailers as they go out.
///
/// # Errors
/// When a name or a value cannot be written.
pub(crate) fn trailers_out(trailers: &Fields) -> Result<HeaderMap, StreamError> {
    let mut map = HeaderMap::new();
    let full = |_| StreamError::Limit("trailer_count");
    map.try_reserve(trailers.len()).map_err(full)?;
    for field in trailers.regular().filter(|field| !field.known.is_some_and(is_head_only)) {
        let value = HeaderValue::from_bytes(field.value).map_err(|_| StreamError::Protocol("header_value"))?;
        map.try_append(name(&field)?, value).map_err(full)?;
    }
    Ok(map)
}
