//! Bodies: reading and writing what follows a head.
//!
//! What always holds: chunk sizes are hexadecimal digits and nothing else, lines end with CR LF, and the bytes around the data are bounded: a chunk's line
//! to [`MAX_CHUNK_LINE`], all extensions to a share of the data, trailers to the limits of a head. A body of known length has that length, or is an error on
//! both sides.
//!
//! The decoder's result does not depend on how the bytes were split, but for where data is split into frames. Small chunks that arrive together become one
//! frame: a flood of them costs a copy, not a trip through the filters for each.

use bytes::{Buf, Bytes, BytesMut};

use super::line::{self, Stop};
use super::request::finds_end;
use super::{Framing, HeadLimits, Refusal};
use crate::http::fields::{Fields, Known};
use crate::http::{Frame, StreamError};

/// Most bytes of a line with a chunk's size and extensions.
pub const MAX_CHUNK_LINE: usize = 1024;
/// What all extensions of a body may have, beside a quarter of its data.
const EXTENSION_ALLOWANCE: u64 = 16 << 10;
/// Most bytes of a body's trailers.
pub const MAX_TRAILERS: usize = 16 << 10;
/// Chunks that are smaller are copied together when more have arrived.
const SMALL: usize = 512;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk's size is missing or no number.
    #[error("chunk_size")]
    ChunkSize,
    /// A chunk's size is larger than can be.
    #[error("chunk_size_overflow")]
    ChunkSizeOverflow,
    /// A control character or a line that does not end with CR LF.
    #[error("chunk_line")]
    ChunkLine,
    /// A chunk's data does not end with CR LF.
    #[error("chunk_end")]
    ChunkEnd,
    /// Too many bytes of chunk extensions.
    #[error("chunk_extensions")]
    ChunkExtensions,
    /// Trailers that are no fields.
    #[error("trailers")]
    Trailers,
    /// Too many bytes of trailers, or too many of them.
    #[error("trailers_too_large")]
    TrailersTooLarge,
    /// The connection ended before the body.
    #[error("body_truncated")]
    Truncated,
    /// More bytes than announced, or bytes where there is no body.
    #[error("body_too_long")]
    TooLong,
    /// Fewer bytes than announced.
    #[error("body_too_short")]
    TooShort,
}

impl BodyError {
    /// The error's stable name.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::ChunkSize => "chunk_size",
            Self::ChunkSizeOverflow => "chunk_size_overflow",
            Self::ChunkLine => "chunk_line",
            Self::ChunkEnd => "chunk_end",
            Self::ChunkExtensions => "chunk_extensions",
            Self::Trailers => "trailers",
            Self::TrailersTooLarge => "trailers_too_large",
            Self::Truncated => "body_truncated",
            Self::TooLong => "body_too_long",
            Self::TooShort => "body_too_short",
        }
    }
}

impl From<BodyError> for StreamError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::ChunkExtensions | BodyError::TrailersTooLarge => Self::Limit(error.detail()),
            BodyError::Truncated => Self::Closed,
            _ => Self::Protocol(error.detail()),
        }
    }
}

/// What the decoder found in a buffer.
#[derive(Debug)]
pub enum Decoded {
    /// A piece of the body.
    Frame(Frame),
    /// The buffer has no more for now.
    More,
    /// The message is over. What is left in the buffer is the next one's.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Data of which this much is missing; then the end.
    Data(u64),
    /// In a chunk's line: the size so far, its digits, and the bytes of the line.
    Size {
        size: u64,
        digits: u8,
        line: usize,
    },
    /// After the digits: bytes of the line so far; whether a CR was the last one.
    Extension {
        size: u64,
        line: usize,
        cr: bool,
    },
    /// Data of a chunk of which this much is missing.
    Chunk(u64),
    /// After a chunk's data; whether its CR was there.
    ChunkEnd {
        cr: bool,
    },
    /// In the trailers: bytes searched for their end, and bytes that were parsed in vain.
    Trailers {
        searched: usize,
        parsed: usize,
    },
    /// All bytes, until there are no more.
    UntilClose,
    End,
}

const LINE_START: State = State::Size { size: 0, digits: 0, line: 0 };

/// What one step found. `skip` bytes belong to the framing.
enum Step {
    More { skip: usize },
    Data { skip: usize, length: usize },
    Trailers { skip: usize, fields: Box<Fields> },
    End { skip: usize },
}

/// Reads a body from bytes as they come.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    data: u64,
    extensions: u64,
}

impl Decoder {
    /// For the body that a head announced.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Known(0) => State::End,
            Framing::Known(length) => State::Data(length),
            Framing::Chunked => LINE_START,
            Framing::UntilClose | Framing::Tunnel => State::UntilClose,
        };
        Self { state, data: 0, extensions: 0 }
    }

    /// Whether the body is over.
    #[must_use]
    #[inline]
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// How many bytes of data are certain to come next, for who wants to read straight into their place. 0 when framing is next.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        match self.state {
            State::Data(left) | State::Chunk(left) => left,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// Takes the next piece off the front of `buffer`. Call it again until it says otherwise than [`Decoded::Frame`].
    ///
    /// # Errors
    /// When the bytes are no such body. Nothing else can be read from the connection then.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BodyError> {
        match self.step(buffer)? {
            Step::More { skip } => {
                buffer.advance(skip);
                Ok(Decoded::More)
            }
            Step::End { skip } => {
                buffer.advance(skip);
                Ok(Decoded::End)
            }
            Step::Trailers { skip, fields } => {
                buffer.advance(skip);
                Ok(Decoded::Frame(Frame::Trailers(fields)))
            }
            Step::Data { skip, length } => {
                buffer.advance(skip);
                if length < SMALL && matches!(self.state, State::ChunkEnd { .. }) && buffer.len() > length + 2 + b"0\r\n\r\n".len() {
                    return Ok(Decoded::Frame(Frame::Data(self.gather(buffer, length))));
                }
                Ok(Decoded::Frame(Frame::Data(buffer.split_to(length).freeze())))
            }
        }
    }

    /// Copies a small chunk and the small ones behind it into one piece, as far as they have arrived.
    #[cold]
    fn gather(&mut self, buffer: &mut BytesMut, first: usize) -> Bytes {
        let mut gathered = Vec::with_capacity(buffer.len());
        let mut length = first;
        loop {
            gathered.extend_from_slice(buffer.get(..length).unwrap_or_default());
            buffer.advance(length.min(buffer.len()));
            let before = self.clone();
            match self.step(buffer) {
                Ok(Step::Data { skip, length: next }) if next < SMALL => {
                    buffer.advance(skip);
                    length = next;
                }
                Ok(Step::More { skip }) => {
                    buffer.advance(skip);
                    return gathered.into();
                }
                // For the next call: it finds the same bytes in the same state.
                _ => {
                    *self = before;
                    return gathered.into();
                }
            }
        }
    }

    /// Takes the next piece off the front of `buffer` without copying, however small it is.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_bytes(&mut self, buffer: &mut Bytes) -> Result<Decoded, BodyError> {
        Ok(match self.step(buffer)? {
            Step::More { skip } => {
                buffer.advance(skip);
                Decoded::More
            }
            Step::End { skip } => {
                buffer.advance(skip);
                Decoded::End
            }
            Step::Trailers { skip, fields } => {
                buffer.advance(skip);
                Decoded::Frame(Frame::Trailers(fields))
            }
            Step::Data { skip, length } => {
                buffer.advance(skip);
                Decoded::Frame(Frame::Data(buffer.split_to(length)))
            }
        })
    }

    /// Notes that no more bytes come.
    ///
    /// # Errors
    /// When the body is not complete.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::End | State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    #[inline]
    fn step(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        match self.state {
            State::End => Ok(Step::End { skip: 0 }),
            _ if bytes.is_empty() => Ok(Step::More { skip: 0 }),
            State::Data(left) => {
                let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - length as u64;
                self.state = if left == 0 { State::End } else { State::Data(left) };
                Ok(Step::Data { skip: 0, length })
            }
            State::UntilClose => Ok(Step::Data { skip: 0, length: bytes.len() }),
            _ => self.chunked(bytes),
        }
    }

    fn chunked(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Chunk(left) => {
                    let length = (bytes.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                    if length == 0 {
                        return Ok(Step::More { skip: at });
                    }
                    let left = left - length as u64;
                    self.data += length as u64;
                    self.state = if left == 0 { State::ChunkEnd { cr: false } } else { State::Chunk(left) };
                    return Ok(Step::Data { skip: at, length });
                }
                State::Trailers { searched, parsed } => return self.trailers(bytes, at, searched, parsed),
                State::End => return Ok(Step::End { skip: at }),
                _ => {}
            }
            let Some(byte) = bytes.get(at) else { return Ok(Step::More { skip: at }) };
            at += 1;
            self.state = self.framing_byte(*byte)?;
        }
    }

    /// One byte of the framing between data: the state after it.
    #[inline]
    fn framing_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        match self.state {
            State::ChunkEnd { cr: false } if byte == b'\r' => Ok(State::ChunkEnd { cr: true }),
            State::ChunkEnd { cr: true } if byte == b'\n' => Ok(LINE_START),
            State::ChunkEnd { .. } => Err(BodyError::ChunkEnd),
            State::Size { size, digits, line } => match byte {
                b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
                    // More digits than a size has are refused even when they are zeros.
                    if digits == 16 {
                        return Err(BodyError::ChunkSizeOverflow);
                    }
                    let digit = match byte {
                        b'0'..=b'9' => byte - b'0',
                        _ => (byte | 0x20) - b'a' + 10,
                    };
                    Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1, line: line + 1 })
                }
                _ if digits == 0 => Err(BodyError::ChunkSize),
                b';' => Ok(State::Extension { size, line: line + 1, cr: false }),
                b'\r' => Ok(State::Extension { size, line, cr: true }),
                b'\n' => Err(BodyError::ChunkLine),
                _ => Err(BodyError::ChunkSize),
            },
            State::Extension { size, cr: true, .. } => match byte {
                b'\n' if size > i64::MAX as u64 => Err(BodyError::ChunkSizeOverflow),
                b'\n' if size == 0 => Ok(State::Trailers { searched: 0, parsed: 0 }),
                b'\n' => Ok(State::Chunk(size)),
                _ => Err(BodyError::ChunkLine),
            },
            State::Extension { size, line, cr: false } => {
                self.extensions += 1;
                match byte {
                    b'\r' => Ok(State::Extension { size, line, cr: true }),
                    b'\t' | b' '..=b'~' | 0x80.. if line < MAX_CHUNK_LINE && self.extensions <= EXTENSION_ALLOWANCE + self.data / 4 => {
                        Ok(State::Extension { size, line: line + 1, cr: false })
                    }
                    b'\t' | b' '..=b'~' | 0x80.. => Err(BodyError::ChunkExtensions),
                    _ => Err(BodyError::ChunkLine),
                }
            }
            state => Ok(state),
        }
    }

    /// Reads the trailers at `at`, when all of them are there. They stay in the buffer until then.
    fn trailers(&mut self, bytes: &[u8], at: usize, mut searched: usize, parsed: usize) -> Result<Step, BodyError> {
        let rest = bytes.get(at..).unwrap_or_default();
        match rest {
            [b'\r', b'\n', ..] => {
                self.state = State::End;
                return Ok(Step::End { skip: at + 2 });
            }
            [] | [b'\r'] => return Ok(Step::More { skip: at }),
            _ => {}
        }
        if rest.len() < parsed * 2 && rest.len() <= MAX_TRAILERS && !finds_end(rest, &mut searched) {
            self.state = State::Trailers { searched, parsed };
            return Ok(Step::More { skip: at });
        }
        match parse_trailers(rest) {
            Ok((fields, length)) if length <= MAX_TRAILERS => {
                self.state = State::End;
                let skip = at + length;
                Ok(if fields.is_empty() { Step::End { skip } } else { Step::Trailers { skip, fields } })
            }
            Err(Stop::Incomplete) if rest.len() <= MAX_TRAILERS => {
                self.state = State::Trailers { searched: rest.len(), parsed: rest.len() };
                Ok(Step::More { skip: at })
            }
            Err(Stop::Refused(refusal)) if !refusal.is_limit() => Err(BodyError::Trailers),
            _ => Err(BodyError::TrailersTooLarge),
        }
    }
}

/// Reads trailers and drops those that may not be in trailers.
fn parse_trailers(bytes: &[u8]) -> Result<(Box<Fields>, usize), Stop> {
    let mut fields = Box::new(Fields::new());
    let mut at = 0;
    let mut left = HeadLimits::default().count;
    while let Some(line) = line::field(bytes, at)? {
        if left == 0 {
            return Err(Refusal::TooManyHeaders.into());
        }
        left -= 1;
        at = line.next;
        let name = line.name.of(bytes).to_ascii_lowercase();
        if !is_forbidden_trailer(&name) {
            fields.push(&name, line.value.of(bytes));
        }
    }
    Ok((fields, at + 2))
}

/// Whether a field may not be in trailers: it would frame, route, authenticate or describe a message that was dealt with already, or is a statement of this
/// proxy's about the client. `name` is lower case.
#[must_use]
pub fn is_forbidden_trailer(name: &[u8]) -> bool {
    let known = match Known::of(name) {
        Some(
            Known::GrpcStatus | Known::GrpcMessage | Known::Traceparent | Known::Tracestate | Known::Server | Known::Via | Known::Date,
        )
        | None => false,
        Some(_) => true,
    };
    let others: &[&[u8]] = &[
        b"age",
        b"allow",
        b"content-range",
        b"expires",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"max-forwards",
        b"pragma",
        b"proxy-authenticate",
        b"range",
        b"vary",
        b"warning",
        b"www-authenticate",
    ];
    let prefixes: &[&[u8]] = &[b":", b"x-forwarded-", b"x-envoy-", b"x-weir-"];
    known || others.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Most bytes that the framing of a chunk has before its data.
pub const CHUNK_PREFIX: usize = 18;

/// Writes a body's framing. The data itself goes between [`Encoder::before`] and [`Encoder::after`], from wherever it is.
#[derive(Debug)]
pub struct Encoder {
    framing: Framing,
    left: u64,
    is_end: bool,
}

impl Encoder {
    /// For the framing that the head was written with.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let left = if let Framing::Known(length) = framing { length } else { 0 };
        Self { framing, left, is_end: framing == Framing::None }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.is_end
    }

    /// Whether the body's end is the end of what the connection says.
    #[must_use]
    pub fn is_ended_by_close(&self) -> bool {
        matches!(self.framing, Framing::UntilClose | Framing::Tunnel)
    }

    /// Whether data is written as it is, so that only [`Encoder::before`]'s judgement is needed.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.framing != Framing::Chunked
    }

    /// Writes what goes before `length` bytes of data, after checking that they may come.
    ///
    /// # Errors
    /// When the body has fewer bytes, or ended. Nothing was written then.
    #[inline]
    pub fn before(&mut self, length: usize, out: &mut Vec<u8>) -> Result<(), BodyError> {
        if length == 0 {
            return Ok(());
        }
        if self.is_end {
            return Err(BodyError::TooLong);
        }
        match self.framing {
            Framing::None => return Err(BodyError::TooLong),
            Framing::Known(_) => self.left = self.left.checked_sub(length as u64).ok_or(BodyError::TooLong)?,
            Framing::Chunked => write_size(length, out),
            Framing::UntilClose | Framing::Tunnel => {}
        }
        Ok(())
    }

    /// Writes what goes after `length` bytes of data.
    #[inline]
    pub fn after(&self, length: usize, out: &mut Vec<u8>) {
        if self.framing == Framing::Chunked && length > 0 {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Writes data with its framing, and the end if it is the last.
    ///
    /// # Errors
    /// When the body has fewer bytes, or ended, or this is its end and more were announced.
    pub fn data(&mut self, data: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.before(data.len(), out)?;
        out.extend_from_slice(data);
        self.after(data.len(), out);
        if end { self.finish(out) } else { Ok(()) }
    }

    /// Writes the end of a body without trailers.
    ///
    /// # Errors
    /// When more bytes were announced.
    #[inline]
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        if self.is_end {
            return Ok(());
        }
        if self.left > 0 {
            return Err(BodyError::TooShort);
        }
        if self.framing == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.is_end = true;
        Ok(())
    }

    /// Writes the end of a body with trailers. Those that may not be trailers, or could be taken for more than one field, are left out; all of them
    /// when the framing has no place for any.
    ///
    /// # Errors
    /// When more bytes were announced.
    pub fn trailers(&mut self, trailers: &Fields, out: &mut Vec<u8>) -> Result<(), BodyError> {
        if self.framing != Framing::Chunked || self.is_end {
            return self.finish(out);
        }
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter() {
            if line::is_token(name) && line::is_value(value) && !is_forbidden_trailer(name) {
                for part in [name, b": ", value, b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        out.extend_from_slice(b"\r\n");
        self.is_end = true;
        Ok(())
    }
}

/// Writes a chunk's size and CR LF.
fn write_size(length: usize, out: &mut Vec<u8>) {
    let mut text = [0; CHUNK_PREFIX];
    let mut at = text.len() - 2;
    let mut left = length;
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    text[CHUNK_PREFIX - 2..].copy_from_slice(b"\r\n");
    out.extend_from_slice(&text[at..]);
}
