//! A request on its way to an upstream over HTTP/2, as the engine sees it.
//!
//! What always holds: the stream is opened with the head, not before, so an adapter that is never used costs the peer nothing; dropping this before the
//! response has ended resets the stream; a stream counts against the connection until this is dropped.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, client::ResponseFuture};
use http::StatusCode;

use super::{
    super::{BodyLength, Frame, Outgoing, ResetReason, StreamError, Upstream, fields::Fields},
    client::Client,
    convert,
    downstream::Receiver,
    reset_code,
    sender::Sender,
    stream_error,
};

enum Response {
    NotAsked,
    Awaited(ResponseFuture),
    Body(Receiver),
    /// The response has no body, or it failed.
    Done,
}

/// One stream of a connection to an upstream.
pub struct H2Upstream {
    client: Rc<Client>,
    sender: Sender,
    response: Response,
    asked: Asked,
}

/// What of a request decides how its response is framed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Head,
    Tunnel,
    Other,
}

impl H2Upstream {
    pub(super) fn new(client: Rc<Client>) -> Self {
        client.opened();
        Self { client, sender: Sender::new(None), response: Response::NotAsked, asked: Asked::Other }
    }

    fn body(&self, status: StatusCode, fields: &Fields, body: &RecvStream) -> BodyLength {
        let bodiless = self.asked == Asked::Head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        if bodiless || body.is_end_stream() {
            BodyLength::None
        } else if self.asked == Asked::Tunnel && status.is_success() {
            BodyLength::Tunnel
        } else {
            convert::length(fields)
        }
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.client.finished();
    }
}

impl Outgoing for H2Upstream {
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
        if let Some(stream) = self.sender.stream() {
            stream.send_reset(reset_code(reason));
        }
        // Dropping the halves resets what the line above could not reach.
        self.sender = Sender::new(None);
        self.response = Response::Done;
    }
}

impl Upstream for H2Upstream {
    fn send_head(&mut self, head: &Fields, body: BodyLength) -> Result<(), StreamError> {
        let request = convert::request(head, body, self.client.values())?;
        self.asked = match (head.method(), body) {
            (b"HEAD", _) => Asked::Head,
            (b"CONNECT", _) | (_, BodyLength::Tunnel) => Asked::Tunnel,
            _ => Asked::Other,
        };
        let end = body.is_none();
        let (response, stream) = self.client.request(request, end)?;
        self.sender.open(stream, end);
        self.response = Response::Awaited(response);
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut Fields) -> Poll<Result<BodyLength, StreamError>> {
        let Response::Awaited(response) = &mut self.response else { return Poll::Ready(Err(StreamError::Closed)) };
        head.clear();
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            let (parts, ()) = interim.into_parts();
            convert::response_head(parts.status, &parts.headers, head, self.client.header_count())?;
            return Poll::Ready(Ok(BodyLength::None));
        }
        let result = ready!(Pin::new(response).poll(cx));
        self.response = Response::Done;
        let (parts, body) = result.map_err(|error| stream_error(&error))?.into_parts();
        convert::response_head(parts.status, &parts.headers, head, self.client.header_count())?;
        let length = self.body(parts.status, head, &body);
        self.response = Response::Body(Receiver::new(body));
        Poll::Ready(Ok(length))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        match &mut self.response {
            Response::Body(receiver) => receiver.poll_frame(cx),
            Response::Done => Poll::Ready(None),
            Response::NotAsked | Response::Awaited(_) => Poll::Ready(Some(Err(StreamError::Closed))),
        }
    }

    /// Says no: the end is found when the next piece is asked for, which also gives the window back.
    fn is_end(&self) -> bool {
        false
    }
}
