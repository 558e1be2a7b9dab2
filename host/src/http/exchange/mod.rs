//! The engine: one request from its head to the last byte of its response, whatever the versions of HTTP on both sides.
//!
//! [`Exchange::run`] polls one state machine in the task of the request. Everything that a request waits for (the client's body, filters, a
//! connection, the upstream's answer, a retry's pause) is polled there together, so that no wait hides another one's event. Parts:
//!
//! - `request`: from the client through the filters,
//! - `dispatch`: the action, the cluster, the endpoint, the connection,
//! - `answer`: from the upstream through the filters to the client, retries included,
//! - `reply`: answers of the core itself,
//! - `deadlines`: every timeout of a request.
//!
//! What always holds: a response is begun at most once; whatever ended a request, its filters see the end and it is counted and logged once; no more
//! is held of a body than the filters and the two sides' buffers allow.

mod answer;
mod deadlines;
mod dispatch;
pub mod failure;
mod finish;
mod mirror;
mod pipe;
pub mod record;
mod reply;
mod request;
mod variables;

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use weir_wasm::{Output, Side};

use super::connection::Connection;
use super::fields::{Fields, Known};
use super::grpc_web::GrpcWeb;
use super::service::HttpService;
use super::{BodyLength, Downstream, Outgoing, ResetReason, StreamError};
use crate::filter::RequestHost;
use crate::timer::LazyTimer;
use crate::worker::Entry;
use deadlines::Deadlines;
use dispatch::Route;
use failure::Failure;
use pipe::Pipe;
use record::{Flags, Record};

/// A request that has arrived, as a version of HTTP hands it over.
#[derive(Debug)]
pub struct Arrived {
    /// Headers with pseudo headers; hop-by-hop ones are gone.
    pub head: Fields,
    /// What follows.
    pub body: BodyLength,
    /// When the head was complete.
    pub at: Instant,
}

/// How a request ended, for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The response is complete, and so is the request.
    Complete,
    /// The response is complete; part of the request was not read.
    Unread,
    /// The stream was reset, or the client is gone.
    Broken,
}

/// One request.
pub struct Exchange<'t, D: Downstream> {
    service: Rc<HttpService>,
    down: D,
    pipe: Pipe,
    timer: &'t mut LazyTimer,
    deadlines: Deadlines,
    request: RequestSide,
    response: ResponseSide,
    route: Option<Box<Route>>,
    is_grpc: bool,
    web: Option<Box<GrpcWeb>>,
    is_head: bool,
    entry: Entry,
    ended: Option<Ended>,
}

/// The request's way: client, filters, upstream.
struct RequestSide {
    length: BodyLength,
    /// The filters got all of it.
    fed: bool,
    /// The filters let the head go, and its action is chosen.
    head_out: bool,
    /// How often the filters that choose it had to choose again.
    rounds: u32,
    /// What the filters let go and the upstream did not take yet.
    pending: Output,
    /// The upstream got all of it.
    sent: bool,
}

/// The response's way: upstream, filters, client.
#[derive(Default)]
struct ResponseSide {
    /// The filters got a head: the upstream's or the core's.
    head_fed: bool,
    /// The filters got all of it.
    fed: bool,
    /// The client got a head.
    head_out: bool,
    /// What the filters let go and the client did not take yet.
    pending: Output,
    /// All of it was given to the client's side.
    sent: bool,
    /// Bytes both ways from here on.
    tunnel: bool,
}

impl<'t, D: Downstream> Exchange<'t, D> {
    /// A request that arrived on `connection`.
    pub fn new(connection: &Rc<Connection>, arrived: Arrived, down: D, timer: &'t mut LazyTimer) -> Self {
        let service = connection.service();
        service.begin(connection.http2.get());
        let Arrived { mut head, body, at } = arrived;
        let web = service.config.grpc_web.then(|| GrpcWeb::begin(&mut head)).flatten();
        let is_grpc = head.get_known(Known::ContentType).is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let is_head = head.method() == b"HEAD";
        let response = service.worker.fields();
        let host = RequestHost::new(head, response, Rc::clone(connection), Rc::clone(&service), Record::new(at));
        let pipe = Pipe::new(service.chain(), host);
        let request = RequestSide { length: body, fed: false, head_out: false, rounds: 0, pending: Output::default(), sent: false };
        let deadlines = Deadlines::new(&service.config.timeouts, at, !body.is_none());
        let response = ResponseSide::default();
        Self {
            service,
            down,
            pipe,
            timer,
            deadlines,
            request,
            response,
            route: None,
            is_grpc,
            web,
            is_head,
            entry: Entry::Free,
            ended: None,
        }
    }

    /// Answers a request that its version of HTTP refused: nothing of it reaches a filter before the end.
    pub async fn refuse(&mut self, status: u16, detail: &'static str) -> Ended {
        self.request.fed = true;
        self.respond(status, detail, Flags::DOWNSTREAM_PROTOCOL_ERROR, "bad request\n");
        self.go().await
    }

    /// Runs it to its end.
    pub async fn run(&mut self) -> Ended {
        self.begin();
        self.go().await
    }

    async fn go(&mut self) -> Ended {
        let ended = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.finish(ended);
        ended
    }

    /// The client's side.
    pub fn downstream(&self) -> &D {
        &self.down
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.service.worker.tick();
        self.pipe.host_mut().set_waker(cx.waker());
        loop {
            let mut moved = self.poll_filters();
            moved |= self.poll_request(cx);
            moved |= self.poll_forward(cx);
            moved |= self.poll_answer(cx);
            moved |= self.poll_respond(cx);
            if let Some(ended) = self.ended {
                return self.poll_end(cx, ended);
            }
            if !moved {
                moved = self.poll_flush(cx);
            }
            if moved {
                self.deadlines.moved = true;
            } else if !self.poll_late(cx) {
                break;
            }
        }
        Poll::Pending
    }

    /// Lets filters go on that asked for it, or whose delay is over.
    fn poll_filters(&mut self) -> bool {
        if self.pipe.is_reset() {
            self.reset(Flags::LOCAL_RESET, "filter_reset");
            return false;
        }
        if !self.pipe.host_mut().take_woken() {
            return false;
        }
        self.deadlines.delay = self.pipe.host().next_delay();
        self.pipe.resume();
        true
    }

    /// Hands what was queued to both sockets. Whether that made room.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(upstream) = self.upstream()
            && let Poll::Ready(Err(error)) = upstream.poll_flush(cx)
        {
            return self.upstream_broke(error);
        }
        if self.response.head_out
            && let Poll::Ready(Err(_)) = self.down.poll_flush(cx)
        {
            self.client_gone();
            return true;
        }
        // A client that leaves while nothing is sent to it shows only when somebody looks.
        if self.request.fed
            && !self.response.sent
            && !self.response.tunnel
            && let Poll::Ready(error) = self.down.poll_closed(cx)
        {
            let _ = error;
            self.client_gone();
            return true;
        }
        false
    }

    /// The response is with the client's side: waits until it was written.
    fn poll_end(&mut self, cx: &mut Context<'_>, ended: Ended) -> Poll<Ended> {
        if ended == Ended::Broken {
            return Poll::Ready(ended);
        }
        let tunnel = self.response.tunnel;
        let upstream = self.upstream().filter(|_| tunnel).map(|upstream| upstream.poll_flush(cx));
        match self.down.poll_flush(cx) {
            Poll::Ready(Ok(())) if upstream.is_none_or(|flushed| flushed.is_ready()) => Poll::Ready(ended),
            Poll::Ready(Err(_)) => {
                self.explain("downstream_closed", Flags::DOWNSTREAM_TERMINATION);
                Poll::Ready(Ended::Broken)
            }
            _ => {
                if self.deadlines.poll_stalled(self.timer, cx).is_ready() {
                    self.explain("downstream_stalled", Flags::STREAM_IDLE_TIMEOUT);
                    self.down.reset(ResetReason::Cancel);
                    return Poll::Ready(Ended::Broken);
                }
                Poll::Pending
            }
        }
    }

    /// Ends the stream without a proper end.
    fn reset(&mut self, flags: Flags, details: &'static str) {
        self.explain(details, flags);
        self.down.reset(ResetReason::Internal);
        self.ended = Some(Ended::Broken);
    }

    fn client_gone(&mut self) {
        self.explain("downstream_closed", Flags::DOWNSTREAM_TERMINATION);
        self.ended = Some(Ended::Broken);
    }

    fn explain(&mut self, details: &'static str, flags: Flags) {
        self.pipe.host_mut().record.explain(details, flags);
    }

    /// Ends the request for a reason of the core: a reply if the response has not begun, a reset otherwise.
    fn fail(&mut self, failure: Failure) {
        if self.response.head_out || self.response.tunnel {
            return self.reset(failure.flags(), failure.detail());
        }
        self.respond(failure.status(), failure.detail(), failure.flags(), failure.sentence());
    }

    /// Whether something waits to be sent on `side`, taking it from the filters if nothing does.
    fn take_pending(&mut self, side: Side) -> bool {
        let pending = match side {
            Side::Request => &mut self.request.pending,
            Side::Response => &mut self.response.pending,
        };
        if is_nothing(pending) {
            *pending = self.pipe.take(side);
        }
        !is_nothing(pending)
    }
}

#[inline]
fn is_nothing(output: &Output) -> bool {
    !output.head && output.data.is_empty() && !output.trailers && !output.end
}

/// What body a message has, by its head and whether it ends with it.
fn body_length(fields: &Fields, ends: bool) -> BodyLength {
    if ends {
        return BodyLength::None;
    }
    match fields.get_known(Known::ContentLength).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()) {
        Some(length) => BodyLength::Known(length),
        None => BodyLength::Unknown,
    }
}

/// The first piece to send of what is pending, and whether it ends the message.
fn next_data(pending: &mut Output) -> (Bytes, bool) {
    (std::mem::take(&mut pending.data), std::mem::take(&mut pending.end))
}

/// How a stream that broke is counted.
fn broken(error: StreamError) -> (Flags, &'static str) {
    let failure = Failure::Upstream(error);
    (failure.flags(), failure.detail())
}
