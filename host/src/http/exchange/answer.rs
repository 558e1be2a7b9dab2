//! The response's way: from the upstream through the filters to the client; and whether to try again instead.

use std::task::{Context, Poll};

use bytes::Bytes;
use weir_wasm::Side;

use super::failure::Failure;
use super::record::Details;
use super::{BodyLength, Downstream, Ended, Exchange, body_length, next_data};
use crate::http::fields::Known;
use crate::http::{Frame, StreamError, Upstream};
use crate::upstream::Outcome;

/// A piece of a body that goes to the client before the next one is read: while the processor's caches still have it, and into the same buffer.
const LARGE: usize = 64 << 10;

impl<D: Downstream> Exchange<'_, D> {
    /// From the upstream into the filters.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> bool {
        if self.response.fed {
            return false;
        }
        if !self.response.head_fed {
            return self.poll_answer_head(cx);
        }
        if !self.pipe.wants(Side::Response) || !self.response.pending.data.is_empty() {
            return false;
        }
        let Some(upstream) = self.upstream() else { return false };
        match upstream.poll_frame(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(frame))) => {
                let end = upstream.is_end();
                match frame {
                    Frame::Data(data) => {
                        self.response.fed = end;
                        self.pipe.feed_data(Side::Response, data, end);
                    }
                    Frame::Trailers(trailers) => {
                        self.response.fed = true;
                        self.note_grpc_status(trailers.get_known(Known::GrpcStatus).map(<[u8]>::to_vec).as_deref());
                        self.pipe.feed_trailers(Side::Response, trailers);
                    }
                }
            }
            Poll::Ready(None) => {
                self.response.fed = true;
                self.pipe.feed_data(Side::Response, Bytes::new(), true);
            }
            Poll::Ready(Some(Err(error))) => return self.upstream_broke(error),
        }
        true
    }

    fn poll_answer_head(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(route) = self.route.as_mut() else { return false };
        let Some(attempt) = route.attempt.as_mut() else { return false };
        let mut host = self.pipe.host_mut();
        let length = match attempt.lease.poll_head(cx, &mut host.response) {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) => {
                drop(host);
                return self.upstream_broke(error);
            }
            Poll::Ready(Ok(length)) => length,
        };
        let status = host.response.status().unwrap_or(502);
        if (100..200).contains(&status) && length != BodyLength::Tunnel {
            if status != 100 {
                let _ = self.down.send_informational(&host.response);
            }
            host.response.clear();
            return true;
        }
        drop(host);
        self.deadlines.attempt = None;
        if self.retries_answer(status) {
            return true;
        }
        self.accept_answer(length);
        true
    }

    /// The answer that the client gets.
    fn accept_answer(&mut self, length: BodyLength) {
        let mut host = self.pipe.host_mut();
        host.has_response = true;
        if length == BodyLength::Tunnel {
            host.switch();
        }
        host.record.upstream_time = Some(self.service.worker.instant().saturating_duration_since(host.record.started));
        if host.record.details.as_str().is_empty() {
            host.record.details = Details::Fixed("via_upstream");
        }
        let grpc = host.response.get_known(Known::GrpcStatus).map(<[u8]>::to_vec);
        let ends = length.is_none();
        if length == BodyLength::Tunnel {
            self.response.tunnel = true;
            self.deadlines.tunnel();
        } else if self.request.length == BodyLength::Tunnel {
            // The upstream did not switch: there is no request body then.
            self.request.fed = true;
            self.request.sent = true;
        }
        drop(host);
        self.response.head_fed = true;
        self.response.fed = ends;
        self.note_grpc_status(grpc.as_deref());
        self.pipe.feed_head(Side::Response, ends);
    }

    fn note_grpc_status(&mut self, value: Option<&[u8]>) {
        if let Some(status) = value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()) {
            self.pipe.host_mut().record.grpc_status = Some(status);
        }
    }

    /// The upstream's side failed. Tries again if that is safe and wanted.
    pub(super) fn upstream_broke(&mut self, error: StreamError) -> bool {
        let outcome =
            if matches!(error, StreamError::Protocol(_) | StreamError::Limit(_)) { Outcome::Response(502) } else { Outcome::Reset };
        self.report(outcome);
        if self.response.head_fed {
            let (flags, details) = super::broken(error);
            self.drop_upstream();
            self.response.fed = true;
            self.reset(flags, details);
        } else {
            self.attempt_failed(Failure::Upstream(error));
        }
        true
    }

    /// From the filters to the client.
    pub(super) fn poll_respond(&mut self, cx: &mut Context<'_>) -> bool {
        if self.response.sent || !self.take_pending(Side::Response) {
            return false;
        }
        if self.response.pending.head {
            self.response.pending.head = false;
            if !self.response.head_fed {
                self.filter_replied();
            }
            if self.send_head().is_err() {
                self.client_gone();
                return true;
            }
        }
        match self.down.poll_ready(cx) {
            Poll::Pending => return false,
            Poll::Ready(Err(_)) => {
                self.client_gone();
                return true;
            }
            Poll::Ready(Ok(())) => {}
        }
        let large = self.response.pending.data.len() >= LARGE;
        if self.send_body().is_err() {
            self.client_gone();
        } else if large && let Poll::Ready(Err(_)) = self.down.poll_flush(cx) {
            self.client_gone();
        }
        true
    }

    fn send_body(&mut self) -> Result<(), StreamError> {
        let trailers = std::mem::take(&mut self.response.pending.trailers);
        let (data, end) = next_data(&mut self.response.pending);
        let already_ended = self.response.sent;
        if !already_ended && (!data.is_empty() || end) {
            let mut host = self.pipe.host_mut();
            host.record.sent += data.len() as u64;
            if let Some(messages) = &mut host.record.grpc_messages {
                messages[1].see(&data);
            }
            drop(host);
            if !self.is_head {
                let data = match &self.web {
                    None => data,
                    Some(web) => web.data(data),
                };
                self.down.send_data(data, end)?;
            }
        }
        if trailers && !already_ended {
            let host = self.pipe.host();
            if let Some(trailers) = &host.response_trailers {
                match self.web.as_ref().and_then(|web| web.trailers(trailers)) {
                    Some(piece) => self.down.send_data(piece, true)?,
                    None => self.down.send_trailers(trailers)?,
                }
            }
        }
        if end || trailers {
            self.response_sent();
        }
        Ok(())
    }

    /// The whole response is with the client's side.
    fn response_sent(&mut self) {
        self.response.sent = true;
        if self.response.tunnel && !self.request.sent && self.ended.is_none() {
            // One half of a tunnel; the other may go on.
            return self.half_closed();
        }
        let complete = self.request.fed && self.request.length != BodyLength::Tunnel;
        self.ended = Some(if complete { Ended::Complete } else { Ended::Unread });
    }

    /// A filter answered instead of the upstream.
    fn filter_replied(&mut self) {
        self.response.head_fed = true;
        self.response.fed = true;
        self.deadlines.retry = None;
        if self.pipe.local_reply().is_some() {
            self.drop_upstream();
        }
    }

    fn send_head(&mut self) -> Result<(), StreamError> {
        let ends = self.response.pending.end && self.response.pending.data.is_empty() && !self.response.pending.trailers;
        self.finish_head();
        let length = {
            let host = self.pipe.host();
            match self.response.tunnel {
                true => BodyLength::Tunnel,
                false => body_length(&host.response, ends),
            }
        };
        self.response.head_out = true;
        self.down.send_head(&self.pipe.host().response, if self.is_head { BodyLength::None } else { length })?;
        if ends && !self.response.tunnel {
            self.response.pending.end = false;
            self.response_sent();
        } else if self.is_head {
            // Nothing of a body is sent, however much of it a filter makes.
            self.response.pending = weir_wasm::Output::default();
            self.response_sent();
        }
        Ok(())
    }

    /// The last changes to the response's head.
    fn finish_head(&mut self) {
        let service = std::rc::Rc::clone(&self.service);
        let mut host = self.pipe.host_mut();
        let host = &mut *host;
        host.record.status = host.response.status().unwrap_or(0);
        if let Some(route) = &self.route {
            route.finish_response(host);
        }
        if let Some(web) = &mut self.web {
            web.response(&mut host.response);
        }
        service.config.server_header.apply(&mut host.response, host.record.upstream_time.is_some());
    }
}
