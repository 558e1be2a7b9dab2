//! The request's way in: what is done to it once, and its body's way through the filters.

use std::task::{Context, Poll};

use bytes::Bytes;
use weir_wasm::Side;

use super::deadlines::Late;
use super::failure::Failure;
use super::record::Flags;
use super::{Downstream, Exchange};
use crate::http::fields::Known;
use crate::http::path::Normalized;
use crate::http::{BodyLength, Frame, StreamError};
use crate::worker::Entry;

impl<D: Downstream> Exchange<'_, D> {
    /// What every request meets before its filters.
    pub(super) fn begin(&mut self) {
        let service = std::rc::Rc::clone(&self.service);
        let mut host = self.pipe.host_mut();
        let connection = std::rc::Rc::clone(&host.connection);
        let kind = host.request.get_known(Known::ContentType).unwrap_or_default();
        if kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';'))) {
            host.record.grpc_messages = Some(Box::default());
        }
        host.client = Some(service.config.forwarded.apply(&mut host.request, &connection.peer()));
        let mut path = Vec::new();
        let judged =
            if host.request.has(Known::Path) { service.config.path.apply(host.request.path(), &mut path) } else { Ok(Normalized::AsIs) };
        if judged == Ok(Normalized::Changed) {
            host.request.set_known(Known::Path, &path);
        }
        self.entry = service.worker.process().enter();
        let full = service.worker.is_overloaded() || self.entry == Entry::Full;
        let shed = full && !service.config.is_exempt(host.request.path());
        drop(host);
        match judged {
            Err(error) => return self.fail(Failure::BadRequest(error.detail())),
            Ok(Normalized::Redirect) => return self.redirect_path(&path),
            Ok(_) if shed => return self.fail(Failure::Overload),
            Ok(_) => {}
        }
        self.pipe.feed_head(Side::Request, self.request.length.is_none());
        self.request.fed = self.request.length.is_none();
    }

    /// The client's body, into the filters.
    pub(super) fn poll_request(&mut self, cx: &mut Context<'_>) -> bool {
        let waits_for_switch = self.request.length == BodyLength::Tunnel && !self.response.tunnel;
        let answered = self.response.sent && !self.response.tunnel;
        if self.request.fed || waits_for_switch || answered || !self.pipe.wants(Side::Request) || self.must_hold() {
            return false;
        }
        match self.down.poll_frame(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(frame))) => match frame {
                Frame::Data(data) => {
                    self.request.fed = self.down.is_end();
                    let mut host = self.pipe.host_mut();
                    host.record.received += data.len() as u64;
                    if let Some(messages) = &mut host.record.grpc_messages {
                        messages[0].see(&data);
                    }
                    drop(host);
                    self.feed_request(data);
                }
                Frame::Trailers(trailers) => {
                    self.request.fed = true;
                    self.pipe.feed_trailers(Side::Request, trailers);
                }
            },
            Poll::Ready(None) => {
                self.request.fed = true;
                self.feed_request(Bytes::new());
            }
            Poll::Ready(Some(Err(error))) => self.client_broke(error),
        }
        if self.request.fed {
            self.deadlines.request = None;
        }
        true
    }

    fn feed_request(&mut self, data: Bytes) {
        let end = self.request.fed;
        match &mut self.web {
            None => self.pipe.feed_data(Side::Request, data, end),
            Some(web) => match web.request(data, end) {
                Ok(data) => self.pipe.feed_data(Side::Request, data, end),
                Err(_) => self.client_broke(StreamError::Protocol("grpc_web_text")),
            },
        }
    }

    /// Whether the request's body must stay with the client for now: the last piece has not gone on.
    fn must_hold(&self) -> bool {
        !self.request.pending.data.is_empty()
    }

    fn client_broke(&mut self, error: StreamError) {
        self.request.fed = true;
        match error {
            StreamError::Closed | StreamError::Reset | StreamError::Refused => self.client_gone(),
            StreamError::Protocol(detail) | StreamError::Limit(detail) => {
                self.service.refused(detail);
                if self.response.head_out {
                    return self.reset(Flags::DOWNSTREAM_PROTOCOL_ERROR, detail);
                }
                let status = if matches!(error, StreamError::Limit(_)) { 413 } else { 400 };
                self.respond(status, detail, Flags::DOWNSTREAM_PROTOCOL_ERROR, "bad request\n");
            }
        }
    }

    /// Lets filters go on whose delay is over.
    fn end_delays(&mut self) {
        let now = self.service.worker.instant();
        while let Some(binding) = { self.pipe.host_mut().delay_over(now) } {
            self.pipe.release(&binding);
        }
        self.deadlines.delay = self.pipe.host().next_delay();
    }

    /// Handles what is too late. Whether anything was.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(late) = self.deadlines.poll(self.timer, cx, self.service.worker.instant()) else { return false };
        match late {
            Late::Delay => self.end_delays(),
            Late::Retry => self.start_attempt(),
            Late::Attempt => self.attempt_failed(Failure::TryTimeout),
            Late::Response => self.give_up(Failure::Timeout),
            Late::Request => self.fail(Failure::RequestTimeout),
            Late::Stream => self.fail(Failure::MaxDuration),
            Late::Idle => {
                let failure = if self.request.sent { Failure::Idle } else { Failure::RequestTimeout };
                self.give_up(failure);
            }
        }
        true
    }
}
