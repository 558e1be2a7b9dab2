//! HTTP/1, without I/O: heads in and out, bodies in and out, as functions over bytes.
//!
//! [`request::Parser`] and [`response::Parser`] read heads, [`body::Decoder`] reads what follows, [`encode`] and [`body::Encoder`] write. Who reads the
//! socket owns the buffers.
//!
//! What always holds: a message that two implementations could frame in different ways is refused before one byte of it goes on; nothing is written that
//! a receiver could take for more fields or messages than were meant; every byte is looked at a bounded number of times, however it arrives; no bytes
//! panic.
//!
//! Not done here: buffering, timeouts, deciding what an upgrade means, path normalisation (`path`).

use super::BodyLength;

pub mod body;
pub mod client;
pub mod encode;
mod head;
pub(super) mod line;
pub mod refusal;
pub mod request;
pub mod response;
pub mod server;

pub use refusal::Refusal;

/// Limits of a message's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, the empty line included.
    pub bytes: usize,
    /// Fields.
    pub count: usize,
    /// Bytes of the request target.
    pub target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 60 << 10, count: 100, target: 16 << 10 }
    }
}

/// The version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none: the head ends the message.
    None,
    /// As `content-length` says; not 0.
    Known(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// With the connection. Responses only.
    UntilClose,
    /// After an accepted upgrade or CONNECT: with the connection, and the other direction has its own end.
    Tunnel,
}

impl From<Framing> for BodyLength {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::None,
            Framing::Known(length) => Self::Known(length),
            Framing::Chunked | Framing::UntilClose => Self::Unknown,
            Framing::Tunnel => Self::Tunnel,
        }
    }
}

#[cfg(test)]
mod tests;
