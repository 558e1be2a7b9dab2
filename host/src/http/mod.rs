//! HTTP: what the two versions share, and the interface between a protocol and the engine that runs a request.
//!
//! A version of HTTP is a pair of adapters: [`Downstream`] for a request that came in, [`Upstream`] for one that goes out. Both move
//! [`Frame`]s and never decide anything. The engine (`exchange`) sits between the two, and does not know which version it talks to.
//!
//! What always holds: an adapter buffers at most what was sent to it since it last said it was ready; it reports framing errors instead of passing on
//! what is ambiguous; dropping one before its message ended resets the stream (HTTP/2) or closes the connection (HTTP/1).

use std::task::{Context, Poll};

use bytes::Bytes;

pub mod connection;
pub mod exchange;
pub mod fields;
pub mod forwarded;
pub mod grpc_web;
pub mod h1;
pub mod h2;
pub mod h2_serve;
pub mod known;
pub mod path;
pub mod service;

pub use connection::Connection;
use fields::Fields;

/// One piece of a message after its head.
#[derive(Debug)]
pub enum Frame {
    /// Body bytes, never empty.
    Data(Bytes),
    /// Trailers; the message ends with them.
    Trailers(Box<Fields>),
}

/// What is known about a body when its head is sent or has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none: the head ends the message.
    None,
    /// As `content-length` says.
    Known(u64),
    /// Until its end: chunked in HTTP/1.1, until the connection closes in HTTP/1.0.
    Unknown,
    /// After an accepted upgrade or CONNECT: bytes both ways until each side ends.
    Tunnel,
}

impl BodyLength {
    /// Whether the head ends the message.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::None
    }
}

/// Why a stream ended before its message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer closed the connection, or it broke.
    #[error("connection closed")]
    Closed,
    /// The peer reset this stream (HTTP/2), whatever the code.
    #[error("stream reset")]
    Reset,
    /// The peer did not look at the request and says so (HTTP/2 REFUSED_STREAM, GOAWAY): a retry is safe.
    #[error("stream refused")]
    Refused,
    /// The peer broke the protocol; the name is for logs, for example `chunk_size`.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// A limit was passed; the name says which.
    #[error("limit exceeded: {0}")]
    Limit(&'static str),
}

/// How to end a stream that cannot end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// Nobody needs it any more.
    Cancel,
    /// Something failed on this side or behind it.
    Internal,
    /// The peer broke the protocol.
    Protocol,
    /// The peer may try again.
    Refused,
}

/// The bytes of a message on their way out: the same for requests to an upstream and responses to a client.
pub trait Outgoing {
    /// Whether more may be sent. Pending while too much waits for the peer.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;
    /// Queues body bytes; `end` ends the message.
    ///
    /// # Errors
    /// When the stream is gone.
    fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError>;
    /// Queues trailers, which end the message.
    ///
    /// # Errors
    /// When the stream is gone.
    fn send_trailers(&mut self, trailers: &Fields) -> Result<(), StreamError>;
    /// Writes what was queued. Ready when all of it was handed to the kernel (HTTP/2: to the connection).
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;
    /// Ends the stream at once.
    fn reset(&mut self, reason: ResetReason);
}

/// A request that came in.
pub trait Downstream: Outgoing {
    /// The next piece of the request's body; `None` is its end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>>;
    /// Whether it is known already that nothing follows the pieces that were taken. May say no where [`Downstream::poll_frame`] would find the end.
    fn is_end(&self) -> bool;
    /// Queues a 1xx head (not 101).
    ///
    /// # Errors
    /// When the stream is gone.
    fn send_informational(&mut self, head: &Fields) -> Result<(), StreamError>;
    /// Queues the response's head: `:status` first, then fields without hop-by-hop ones. Framing fields are the adapter's.
    ///
    /// # Errors
    /// When the stream is gone.
    fn send_head(&mut self, head: &Fields, body: BodyLength) -> Result<(), StreamError>;
    /// Ready when the client is gone. Need not look further than what has been read.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError>;
}

/// A request on its way to an upstream.
pub trait Upstream: Outgoing {
    /// Queues the request's head: pseudo headers first, then fields without hop-by-hop ones. Framing fields are the adapter's.
    ///
    /// # Errors
    /// When the stream is gone.
    fn send_head(&mut self, head: &Fields, body: BodyLength) -> Result<(), StreamError>;
    /// The next response head, 1xx ones included: fills `head` (cleared first) and says what body follows.
    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut Fields) -> Poll<Result<BodyLength, StreamError>>;
    /// The next piece of the response's body; `None` is its end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>>;
    /// Whether it is known already that nothing follows the pieces that were taken. May say no where [`Upstream::poll_frame`] would find the end.
    fn is_end(&self) -> bool;
}
