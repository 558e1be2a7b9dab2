//! The sending half of a stream, the same for requests and responses.
//!
//! What always holds: it says that it is ready only while the peer's window is open, so at most one piece of body waits above the window; it asks the
//! library for one byte of window ahead, never more, because what one stream has reserved of the connection's window no other can use.

use std::{
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{Reason, SendStream};

use super::{
    super::{StreamError, fields::Fields},
    Chunk, convert,
    stall::{FLOW_STALL, Gauge, Watch},
    stream_error,
};

/// Sends a body and trailers.
pub(super) struct Sender {
    /// None before the head is sent, and when that was all.
    stream: Option<SendStream<Chunk>>,
    gauge: Option<Rc<Gauge>>,
    /// None on the side of a client: the engine's timeouts cover it.
    watch: Option<Rc<Watch>>,
    ended: bool,
    /// The peer has answered and wants no more of this message.
    unwanted: bool,
}

impl Sender {
    pub(super) fn new(watch: Option<Rc<Watch>>) -> Self {
        Self { stream: None, gauge: None, watch, ended: false, unwanted: false }
    }

    /// The head was sent; `end` if it was all.
    pub(super) fn open(&mut self, stream: SendStream<Chunk>, end: bool) {
        self.ended = end;
        if !end {
            self.stream = Some(stream);
        }
    }

    pub(super) fn stream(&mut self) -> Option<&mut SendStream<Chunk>> {
        self.stream.as_mut()
    }

    fn reaped(&self) -> Result<(), StreamError> {
        let reaped = self.gauge.as_ref().is_some_and(|gauge| gauge.is_reaped());
        if reaped { Err(StreamError::Limit(FLOW_STALL)) } else { Ok(()) }
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.reaped()?;
        let (Some(stream), false) = (self.stream.as_mut(), self.ended || self.unwanted) else { return Poll::Ready(Ok(())) };
        stream.reserve_capacity(1);
        if stream.capacity() == 0 {
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(stream_error(&error))),
                Poll::Ready(None) => return Poll::Ready(self.closed()),
                Poll::Pending => {
                    if let Some(gauge) = self.gauge() {
                        gauge.wait(cx.waker());
                    }
                    return Poll::Pending;
                }
            }
        }
        if let Some(gauge) = &self.gauge {
            gauge.waited();
        }
        Poll::Ready(Ok(()))
    }

    /// The stream's gauge, made when it is first needed.
    fn gauge(&mut self) -> Option<&Rc<Gauge>> {
        if self.gauge.is_none() {
            self.gauge = self.watch.as_ref().map(|watch| watch.add());
        }
        self.gauge.as_ref()
    }

    pub(super) fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError> {
        self.reaped()?;
        if self.unwanted {
            return Ok(());
        }
        let Some(stream) = self.stream.as_mut() else {
            return if self.ended && data.is_empty() { Ok(()) } else { Err(StreamError::Closed) };
        };
        let mut fits = true;
        if self.watch.is_some() && !data.is_empty() {
            stream.reserve_capacity(data.len());
            fits = stream.capacity() >= data.len();
        }
        let chunk = if fits {
            if let Some(gauge) = &self.gauge {
                gauge.progressed(data.len());
            }
            Chunk::new(data, None)
        } else {
            let gauge = self.gauge().cloned();
            Chunk::new(data, gauge)
        };
        let Some(stream) = self.stream.as_mut() else { return Err(StreamError::Closed) };
        if stream.send_data(chunk, end).is_err() {
            return self.closed();
        }
        self.ended = end;
        Ok(())
    }

    pub(super) fn send_trailers(&mut self, trailers: &Fields) -> Result<(), StreamError> {
        self.reaped()?;
        if self.unwanted {
            return Ok(());
        }
        let map = convert::trailers_out(trailers)?;
        let Some(stream) = self.stream.as_mut() else { return Err(StreamError::Closed) };
        if stream.send_trailers(map).is_err() {
            return self.closed();
        }
        self.ended = true;
        Ok(())
    }

    /// Why the stream takes no more. A server that has answered may reset the rest of the request without an error: its answer stands.
    fn closed(&mut self) -> Result<(), StreamError> {
        let Some(stream) = self.stream.as_mut() else { return Err(StreamError::Closed) };
        match stream.poll_reset(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Reason::NO_ERROR)) if self.watch.is_none() => {
                self.unwanted = true;
                Ok(())
            }
            Poll::Ready(Ok(Reason::REFUSED_STREAM)) if self.watch.is_none() => Err(StreamError::Refused),
            Poll::Ready(Ok(_)) => Err(StreamError::Reset),
            Poll::Ready(Err(error)) => Err(stream_error(&error)),
            Poll::Pending => Err(StreamError::Closed),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn poll_flush(&self) -> Poll<Result<(), StreamError>> {
        Poll::Ready(self.reaped())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let (Some(stream), Some(gauge), Some(watch), true) = (self.stream.take(), &self.gauge, &self.watch, self.ended) {
            watch.adopt(gauge, stream);
        }
    }
}
