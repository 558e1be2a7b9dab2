//! A request that came in over HTTP/2, as the engine sees it.
//!
//! What always holds: the window for a piece of the request's body opens when the engine comes for the next one; dropping this before the response
//! has ended resets the stream, dropping it after that but before the request's end tells the client to stop (NO_ERROR).

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};

use super::{
    super::{BodyLength, Downstream, Frame, Outgoing, ResetReason, StreamError, fields::Fields},
    Chunk, convert, reset_code,
    sender::Sender,
    stall::Watch,
    stream_error,
};

/// One stream of a client's connection.
pub struct H2Downstream {
    receiver: Receiver,
    respond: SendResponse<Chunk>,
    sender: Sender,
    values: Rc<convert::Values>,
}

impl H2Downstream {
    pub(super) fn new(body: RecvStream, respond: SendResponse<Chunk>, watch: Rc<Watch>, values: Rc<convert::Values>) -> Self {
        Self { receiver: Receiver::new(body), respond, sender: Sender::new(Some(watch)), values }
    }

    /// The stream's number, for logs.
    #[must_use]
    pub fn stream_id(&self) -> u32 {
        self.respond.stream_id().as_u32()
    }
}

impl Outgoing for H2Downstream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.sender.poll_ready(cx)
    }

    fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError> {
        self.sender.send_data(data, end)
    }

    fn send_trailers(&mut self, trailers: &Fields) -> Result<(), StreamError> {
        self.sender.send_trailers(trailers)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.sender.poll_flush()
    }

    fn reset(&mut self, reason: ResetReason) {
        self.respond.send_reset(reset_code(reason));
    }
}

impl Downstream for H2Downstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        self.receiver.poll_frame(cx)
    }

    /// Says no: the end is found when the next piece is asked for, which also gives the window back.
    fn is_end(&self) -> bool {
        false
    }

    fn send_informational(&mut self, head: &Fields) -> Result<(), StreamError> {
        let response = convert::informational(head, &self.values)?;
        self.respond.send_informational(response).map_err(|error| stream_error(&error))
    }

    fn send_head(&mut self, head: &Fields, body: BodyLength) -> Result<(), StreamError> {
        let response = convert::response(head, body, &self.values)?;
        let end = body.is_none();
        let stream = self.respond.send_response(response, end).map_err(|error| stream_error(&error))?;
        self.sender.open(stream, end);
        Ok(())
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let ended = self.sender.is_ended();
        let result = match self.sender.stream() {
            Some(stream) => ready!(stream.poll_reset(cx)),
            None if ended => return Poll::Pending,
            None => ready!(self.respond.poll_reset(cx)),
        };
        Poll::Ready(match result {
            Ok(_) => StreamError::Reset,
            Err(error) => stream_error(&error),
        })
    }
}

/// The receiving half of a stream.
pub(super) struct Receiver {
    body: RecvStream,
    /// Bytes handed to the engine whose window is still closed.
    taken: usize,
    done: bool,
}

impl Receiver {
    pub(super) fn new(body: RecvStream) -> Self {
        Self { body, taken: 0, done: false }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.taken > 0 {
            // Fails only when the stream is gone, and then its data went back already.
            let _ = self.body.flow_control().release_capacity(self.taken);
            self.taken = 0;
        }
        loop {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.taken = data.len();
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Some(Err(error)) => return self.fail(&error),
                None => break,
            }
        }
        let trailers = ready!(self.body.poll_trailers(cx));
        self.done = true;
        Poll::Ready(match trailers {
            Ok(Some(map)) => Some(convert::trailers_in(&map).map(|trailers| Frame::Trailers(Box::new(trailers)))),
            Ok(None) => None,
            Err(error) => Some(Err(stream_error(&error))),
        })
    }

    fn fail(&mut self, error: &h2::Error) -> Poll<Option<Result<Frame, StreamError>>> {
        self.done = true;
        Poll::Ready(Some(Err(stream_error(error))))
    }
}
