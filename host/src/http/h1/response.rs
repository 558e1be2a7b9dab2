//! Heads of responses.
//!
//! What always holds: the body's framing follows from the head and from what was asked, in the order of RFC 9112 section 6.3; what leaves a doubt is
//! refused, or ends with the connection.

use super::head::Head;
use super::line::{self, Span, Stop};
use super::request::{finds_end, version};
use super::{Framing, HeadLimits, Refusal, Version};
use crate::http::fields::{Fields, Known, MAX_BYTES};

/// What was asked, as far as it decides how the answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Any method but these.
    Other,
    /// HEAD.
    Head,
    /// CONNECT.
    Connect,
    /// A request that was sent with `upgrade`.
    Upgrade,
}

/// What a response's head says, beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The upstream's version.
    pub version: Version,
    /// The status; one below 200 other than 101 is followed by another head.
    pub status: u16,
    /// Whether the connection can carry another request after the body.
    pub keep_alive: bool,
    /// How the body ends.
    pub framing: Framing,
    /// Bytes of the head.
    pub consumed: usize,
}

impl ResponseHead {
    /// Whether another head follows.
    #[must_use]
    pub fn is_informational(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Reads heads of responses from a buffer that grows; one for each connection.
#[derive(Debug, Default)]
pub struct Parser {
    searched: usize,
    parsed: usize,
}

impl Parser {
    /// A parser at the start of a response.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the head at the start of `bytes` into `fields`; nothing as long as its end is missing.
    ///
    /// # Errors
    /// With the cause to refuse the response. What is left of the connection cannot be understood.
    #[inline]
    pub fn parse(&mut self, bytes: &[u8], asked: Asked, limits: &HeadLimits, fields: &mut Fields) -> Result<Option<ResponseHead>, Refusal> {
        if self.parsed > 0 && bytes.len() < self.parsed * 2 && bytes.len() <= limits.bytes && !finds_end(bytes, &mut self.searched) {
            return Ok(None);
        }
        match parse(bytes, asked, limits, fields) {
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
}

fn parse(bytes: &[u8], asked: Asked, limits: &HeadLimits, fields: &mut Fields) -> Result<ResponseHead, Stop> {
    let (version, at) = version(bytes, 0).map_err(|stop| match stop {
        Stop::Refused(Refusal::Version) => Stop::Refused(Refusal::StartLine),
        other => other,
    })?;
    let (status, status_span, at) = status_line(bytes, at)?;
    let mut head = Head::default();
    fields.begin(1);
    fields.place_pseudo(0, Known::Status, status_span);
    let end = head.read(bytes, at, limits, false, fields)?;
    let (framing, certain) = framing(&head, version, status, asked)?;
    head.finish(bytes.get(..end).unwrap_or_default(), b"", status == 101, fields)?;
    if matches!(status, 100..=199 | 204) || framing == Framing::Tunnel {
        // Such a response has no length, whatever it says.
        fields.remove_known(Known::ContentLength);
    }
    let keep_alive = certain && head.keeps_alive(version) && !matches!(framing, Framing::UntilClose | Framing::Tunnel);
    Ok(ResponseHead { version, status, keep_alive, framing, consumed: end })
}

/// How the body ends, and whether the upstream can be trusted to see it alike.
fn framing(head: &Head, version: Version, status: u16, asked: Asked) -> Result<(Framing, bool), Refusal> {
    if head.chunked && version == Version::Http10 {
        return Err(Refusal::TransferEncodingVersion);
    }
    if head.chunked && head.content_length.is_some() {
        return Err(Refusal::FramingConflict);
    }
    let says_body = head.chunked || head.content_length.is_some_and(|length| length > 0);
    match (status, asked) {
        (101, Asked::Upgrade) if head.asks_upgrade() => Ok((Framing::Tunnel, true)),
        (101, _) => Err(Refusal::UnexpectedUpgrade),
        (200..=299, Asked::Connect) => Ok((Framing::Tunnel, true)),
        // No body by rule. Who announces one all the same may send it, so nothing else can follow on this connection.
        (100..=199, _) if says_body => Err(Refusal::FramingConflict),
        (100..=199 | 204, _) => Ok((Framing::None, !says_body)),
        (304, _) | (_, Asked::Head) => Ok((Framing::None, true)),
        _ => Ok(match head.content_length {
            _ if head.chunked => (Framing::Chunked, true),
            Some(0) => (Framing::None, true),
            Some(length) => (Framing::Known(length), true),
            None => (Framing::UntilClose, true),
        }),
    }
}

/// The status, its bytes, and where the fields start. The reason is read over.
fn status_line(bytes: &[u8], at: usize) -> Result<(u16, Span, usize), Stop> {
    let span = Span { start: at + 1, end: at + 4 };
    let rest = bytes.get(at..).unwrap_or_default();
    let digits = match rest {
        [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => [*a, *b, *c],
        [_, _, _, _, ..] => return Err(Refusal::Status.into()),
        _ => return Err(Stop::Incomplete),
    };
    let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    let mut at = span.end;
    if let Some(b' ') = bytes.get(at) {
        at = line::value_end(bytes, at);
    }
    Ok((status, span, line::line_end(bytes, at, Refusal::Status)?))
}
