//! Heads of requests.
//!
//! What always holds: the block that comes out has `:method` and `:authority` (and, but for CONNECT, `:scheme` and `:path`), no `host`, and no field that
//! is between neighbours, but for `te: trailers` and the `upgrade` of a request that asks for one; the target is in one of RFC 9112's four forms and the right
//! one for its method.
//!
//! A target's path is passed on as it came: `path` normalises it.

use super::head::Head;
use super::line::{self, Span, Stop, TOKEN};
use super::{Framing, HeadLimits, Refusal, Version};
use crate::http::fields::{Fields, Known, MAX_BYTES};

/// Methods are short words; what is longer is somebody else's protocol.
const LONGEST_METHOD: usize = 32;

/// What a request's head says, beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The client's version.
    pub version: Version,
    /// Whether the client would send another request on this connection.
    pub keep_alive: bool,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the client waits for a 100 before it sends the body.
    pub expect_continue: bool,
    /// Whether the client asks to switch protocols: the field `upgrade` says to which. Never with a body, and not to `h2c`.
    pub upgrade: bool,
    /// Whether this is CONNECT: `:authority` is its target, and there is no `:path`.
    pub connect: bool,
    /// Bytes of the head. What comes after them is body, or the next request.
    pub consumed: usize,
}

/// Reads heads of requests from a buffer that grows; one for each connection.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes without an end, as far as searched.
    searched: usize,
    /// Bytes that were parsed in vain.
    parsed: usize,
}

impl Parser {
    /// A parser at the start of a request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the head at the start of `bytes` into `fields`; nothing as long as its end is missing. Then call it again with the same bytes and more
    /// behind them. `scheme` is the connection's: `http` or `https`.
    ///
    /// # Errors
    /// With the cause to refuse the request. What is left of the connection cannot be understood.
    #[inline]
    pub fn parse(&mut self, bytes: &[u8], scheme: &[u8], limits: &HeadLimits, fields: &mut Fields) -> Result<Option<RequestHead>, Refusal> {
        // Bytes that come one by one are searched once each, and parsed when the end is there, twice as many are, or a limit was passed.
        if self.parsed > 0 && bytes.len() < self.parsed * 2 && bytes.len() <= limits.bytes {
            let longest_start = limits.target.saturating_add(LONGEST_METHOD + 2);
            let passed = self.parsed <= longest_start && bytes.len() > longest_start;
            if !passed && !self.finds_end(bytes) {
                return Ok(None);
            }
        }
        match parse(bytes, scheme, limits, fields) {
            Ok(head) => {
                *self = Self::default();
                if head.consumed > limits.bytes.min(MAX_BYTES) { Err(Refusal::HeadersTooLarge) } else { Ok(Some(head)) }
            }
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(Stop::Incomplete) if bytes.len() >= limits.bytes.min(MAX_BYTES) => Err(Refusal::HeadersTooLarge),
            Err(Stop::Incomplete) => {
                (self.searched, self.parsed) = (bytes.len(), bytes.len());
                Ok(None)
            }
        }
    }

    #[cold]
    fn finds_end(&mut self, bytes: &[u8]) -> bool {
        finds_end(bytes, &mut self.searched)
    }
}

/// Whether parsing can say more than before: an empty line came since `searched`, or a line feed on its own.
pub(super) fn finds_end(bytes: &[u8], searched: &mut usize) -> bool {
    let from = (*searched).min(bytes.len());
    *searched = bytes.len();
    memchr::memchr_iter(b'\n', &bytes[from..]).any(|at| {
        let before = &bytes[..from + at];
        !before.ends_with(b"\r") || before.ends_with(b"\r\n\r")
    })
}

fn parse(bytes: &[u8], scheme: &[u8], limits: &HeadLimits, fields: &mut Fields) -> Result<RequestHead, Stop> {
    let line = RequestLine::read(bytes, limits)?;
    let mut head = Head::default();
    fields.begin(4);
    let end = head.read(bytes, line.next, limits, true, fields)?;
    let target = line.target(bytes)?;
    if head.host.is_none() && (line.version == Version::Http11 || target.authority.is_none()) {
        return Err(Refusal::HostMissing.into());
    }
    let framing = framing(&head, line.version, target.connect)?;
    let upgrade = head.asks_upgrade()
        && line.version == Version::Http11
        && framing == Framing::None
        && !target.connect
        && head.upgrade.is_some_and(|protocol| !protocol.of(bytes).eq_ignore_ascii_case(b"h2c"));
    fields.place_pseudo(0, Known::Method, line.method);
    fields.place_pseudo(1, Known::Scheme, Span { start: end, end: end + scheme.len() });
    fields.place_pseudo(2, Known::Authority, target.authority.or(head.host).unwrap_or_default());
    fields.place_pseudo(3, Known::Path, target.path);
    head.finish(bytes.get(..end).unwrap_or_default(), scheme, upgrade, fields)?;
    if target.is_unusual {
        target.fix(fields);
    }
    Ok(RequestHead {
        version: line.version,
        keep_alive: head.keeps_alive(line.version),
        framing,
        expect_continue: head.expect_continue && line.version == Version::Http11 && framing != Framing::None,
        upgrade,
        connect: target.connect,
        consumed: end,
    })
}

fn framing(head: &Head, version: Version, connect: bool) -> Result<Framing, Refusal> {
    match (head.chunked, head.content_length) {
        (true, _) if version == Version::Http10 => Err(Refusal::TransferEncodingVersion),
        (true, Some(_)) => Err(Refusal::FramingConflict),
        (true, None) | (false, Some(1..)) if connect => Err(Refusal::ConnectBody),
        (true, None) => Ok(Framing::Chunked),
        (false, None | Some(0)) => Ok(Framing::None),
        (false, Some(length)) => Ok(Framing::Known(length)),
    }
}

struct RequestLine {
    method: Span,
    target: Span,
    version: Version,
    next: usize,
}

impl RequestLine {
    fn read(bytes: &[u8], limits: &HeadLimits) -> Result<Self, Stop> {
        let start = first_line(bytes)?;
        let mut at = start;
        while bytes.get(at).is_some_and(|byte| TOKEN[usize::from(*byte)] != 0) {
            at += 1;
        }
        let method = Span { start, end: at };
        if method.len() > LONGEST_METHOD {
            return Err(Refusal::Method.into());
        }
        match bytes.get(at) {
            None => return Err(Stop::Incomplete),
            Some(b' ') if at > start => {}
            Some(b'\r' | b'\n') => return Err(Refusal::StartLine.into()),
            Some(_) => return Err(Refusal::Method.into()),
        }
        let target = Span { start: at + 1, end: line::find_target_end(bytes, at + 1) };
        if target.len() > limits.target {
            return Err(Refusal::PathTooLong.into());
        }
        match bytes.get(target.end) {
            None => return Err(Stop::Incomplete),
            Some(b' ') if target.len() > 0 => {}
            Some(b'#') => return Err(Refusal::TargetFragment.into()),
            Some(b' ' | b'\r' | b'\n') => return Err(Refusal::StartLine.into()),
            Some(_) => return Err(Refusal::Target.into()),
        }
        let (version, at) = version(bytes, target.end + 1)?;
        Ok(Self { method, target, version, next: line::line_end(bytes, at, Refusal::Version)? })
    }

    fn target(&self, bytes: &[u8]) -> Result<Target, Refusal> {
        let target = self.target.of(bytes);
        let method = self.method.of(bytes);
        if method == b"CONNECT" {
            return match target.iter().rposition(|byte| *byte == b':') {
                Some(colon) if line::is_host(target) && target.last() != Some(&b']') && colon > 0 => Ok(Target {
                    authority: Some(self.target),
                    path: Span::default(),
                    is_unusual: true,
                    connect: true,
                    query_only: false,
                    asterisk: false,
                }),
                _ => Err(Refusal::TargetForm),
            };
        }
        let origin = Target { authority: None, path: self.target, is_unusual: false, connect: false, query_only: false, asterisk: false };
        match target {
            [b'/', ..] => Ok(origin),
            b"*" if method == b"OPTIONS" => Ok(origin),
            _ => self.absolute(bytes, target, method == b"OPTIONS"),
        }
    }

    #[cold]
    fn absolute(&self, bytes: &[u8], target: &[u8], is_options: bool) -> Result<Target, Refusal> {
        let colon = target.iter().position(|byte| *byte == b':').ok_or(Refusal::TargetForm)?;
        let (scheme, rest) = target.split_at(colon);
        let is_http = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
        if !is_http || !rest.starts_with(b"://") {
            return Err(Refusal::TargetForm);
        }
        let start = self.target.start + colon + 3;
        let rest = Span { start, end: self.target.end };
        let length = rest.of(bytes).iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let authority = Span { start, end: start + length };
        if !line::is_host(authority.of(bytes)) {
            return Err(Refusal::HostInvalid);
        }
        let path = Span { start: authority.end, end: self.target.end };
        let query_only = path.of(bytes).first() != Some(&b'/');
        let asterisk = is_options && path.len() == 0;
        Ok(Target { authority: Some(authority), path, is_unusual: query_only, connect: false, query_only, asterisk })
    }
}

struct Target {
    /// Of the target, if it has one.
    authority: Option<Span>,
    path: Span,
    is_unusual: bool,
    connect: bool,
    /// The path is empty; there may be a query.
    query_only: bool,
    /// OPTIONS for the whole server, in absolute form.
    asterisk: bool,
}

impl Target {
    #[cold]
    fn fix(&self, fields: &mut Fields) {
        if self.connect {
            fields.remove_known(Known::Scheme);
            fields.remove_known(Known::Path);
        } else if self.asterisk {
            fields.set_known(Known::Path, b"*");
        } else if self.query_only {
            let path = [b"/", fields.path()].concat();
            fields.set_known(Known::Path, &path);
        }
    }
}

/// Where the request line starts: one empty line before it is skipped, as some clients send one after a body.
fn first_line(bytes: &[u8]) -> Result<usize, Stop> {
    match bytes.first() {
        Some(b'\r' | b'\n') => {
            let start = line::line_end(bytes, 0, Refusal::StartLine)?;
            match bytes.get(start) {
                Some(b'\r' | b'\n') => Err(Refusal::StartLine.into()),
                _ => Ok(start),
            }
        }
        _ => Ok(0),
    }
}

/// Reads the version at `at`. Returns what comes after it.
#[inline]
pub(super) fn version(bytes: &[u8], at: usize) -> Result<(Version, usize), Stop> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(text) = rest.get(..8) else {
        let is_start = rest.iter().zip(b"HTTP/").all(|(got, wanted)| got == wanted) && !rest.contains(&b'\n');
        return Err(if is_start { Stop::Incomplete } else { Refusal::Version.into() });
    };
    match text {
        b"HTTP/1.1" => Ok((Version::Http11, at + 8)),
        b"HTTP/1.0" => Ok((Version::Http10, at + 8)),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::VersionUnsupported.into()),
        _ => Err(Refusal::Version.into()),
    }
}
