//! HTTP/2 on both sides, over the `h2` crate: [`server`] for connections that clients open, [`client`] for those that are opened to upstreams.
//!
//! A connection is one future, its driver, which its owner runs as a task; every stream is an adapter ([`H2Downstream`], [`H2Upstream`]) that
//! lives in the task of its request. [`meter`] follows the frames as they pass and ends a connection that spends more than its budget; [`stall`]
//! reaps streams whose client takes no data.
//!
//! What always holds: a request that leaves here can be written as HTTP/1.1 without changing its meaning ([`convert`] refuses the others); what
//! a stream buffers for its peer is the peer's window and at most one piece of body above it; the window for what a peer sends opens only after
//! the engine came back for more.
//!
//! Not done here: server push (refused by the settings), priorities (read and ignored), upgrade from HTTP/1.1 (ignored, as RFC 9113 wants it).

use std::{rc::Rc, task::Waker};

use bytes::{Buf, Bytes};
use h2::Reason;

use super::{ResetReason, StreamError};

pub mod client;
pub mod convert;
mod cork;
pub mod downstream;
pub mod meter;
mod sender;
pub mod server;
pub mod stall;
pub mod upstream;

pub use client::{ClientHandle, ClientOptions, connect};
pub use downstream::H2Downstream;
pub use server::{End, Handler, Incoming, ServerOptions, serve};
pub use upstream::H2Upstream;

use stall::Gauge;

/// What a connection of HTTP/2 begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A piece of a body on its way out. One that does not fit into the peer's window says when it is gone.
pub(crate) struct Chunk {
    bytes: Bytes,
    gauge: Option<Rc<Gauge>>,
}

impl Chunk {
    fn new(bytes: Bytes, gauge: Option<Rc<Gauge>>) -> Self {
        if let Some(gauge) = &gauge {
            gauge.queue(bytes.len());
        }
        Self { bytes, gauge }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(gauge) = &self.gauge {
            gauge.moved(count);
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(gauge) = &self.gauge {
            gauge.dropped(self.bytes.len());
        }
    }
}

/// What an error of the library means to the engine.
pub(crate) fn stream_error(error: &h2::Error) -> StreamError {
    match error.reason() {
        // Only the peer's word makes a retry safe; the library uses the same codes for its own resets.
        Some(Reason::REFUSED_STREAM) if error.is_remote() => StreamError::Refused,
        Some(_) if error.is_go_away() && error.is_remote() => StreamError::Refused,
        Some(_) if error.is_go_away() => StreamError::Closed,
        Some(_) if error.is_remote() => StreamError::Reset,
        Some(reason) if error.is_library() => StreamError::Protocol(reason_name(reason)),
        Some(_) => StreamError::Reset,
        None => StreamError::Closed,
    }
}

/// The name of an error code, for logs.
pub(crate) fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::NO_ERROR => "no_error",
        Reason::INTERNAL_ERROR => "internal_error",
        Reason::FLOW_CONTROL_ERROR => "flow_control_error",
        Reason::SETTINGS_TIMEOUT => "settings_timeout",
        Reason::STREAM_CLOSED => "stream_closed",
        Reason::FRAME_SIZE_ERROR => "frame_size_error",
        Reason::REFUSED_STREAM => "refused_stream",
        Reason::CANCEL => "cancel",
        Reason::COMPRESSION_ERROR => "compression_error",
        Reason::CONNECT_ERROR => "connect_error",
        Reason::ENHANCE_YOUR_CALM => "enhance_your_calm",
        Reason::INADEQUATE_SECURITY => "inadequate_security",
        Reason::HTTP_1_1_REQUIRED => "http_1_1_required",
        _ => "protocol_error",
    }
}

fn reset_code(reason: ResetReason) -> Reason {
    match reason {
        ResetReason::Cancel => Reason::CANCEL,
        ResetReason::Internal => Reason::INTERNAL_ERROR,
        ResetReason::Protocol => Reason::PROTOCOL_ERROR,
        ResetReason::Refused => Reason::REFUSED_STREAM,
    }
}

/// Keeps the waker of whoever polled last.
fn keep_waker(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests;
