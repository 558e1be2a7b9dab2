//! HTTP/1 from clients: heads read one after another, each handed to the engine, until one side wants no more.
//!
//! What always holds: at most one request of a connection is in progress, later ones wait in the buffer; after a request that was refused, or whose
//! body was not read to its end, the connection closes, so that nothing of one message is ever taken for the next.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::body::{Decoder, Encoder};
use super::client::{poll_body, send_body};
use super::encode::{self, ResponseOut};
use super::request::{Parser, RequestHead};
use super::response::Asked;
use super::{Framing, HeadLimits, Refusal, Version};
use crate::http::connection::Connection;
use crate::http::exchange::{Arrived, Ended, Exchange};
use crate::http::fields::Fields;
use crate::http::service::HttpService;
use crate::http::{BodyLength, Downstream, Frame, Outgoing, ResetReason, StreamError, h2};
use crate::timer::{LazyTimer, earliest};
use crate::tls::io::Io;
use crate::wire::Wire;
use crate::worker::Ticket;

/// How long and how much is read of a client that was told to go, so that it sees the response before the connection's end.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;
/// How long a connection that should end waits for one more request, which may be under way: a client that sends it to a closed connection loses it.
const GRACE: Duration = Duration::from_secs(2);
/// What is read ahead of a client that sends requests without waiting for answers.
const PIPELINE: usize = 64 << 10;

/// What to do with a connection after it was served as HTTP/1.
pub enum Served {
    /// It is over.
    Over,
    /// It speaks HTTP/2: these bytes were read.
    Http2(Io, Bytes, Ticket),
}

enum Head {
    Request(RequestHead, Instant),
    Refused(Refusal),
    TimedOut,
    Over,
    Http2,
}

struct Http1 {
    wire: Wire,
    parser: Parser,
    timer: LazyTimer,
    connection: Rc<Connection>,
    ticket: Ticket,
    scheme: &'static [u8],
    limits: HeadLimits,
    /// The client said that it sends nothing else, and has not.
    silent: bool,
}

/// Serves a connection until it ends.
pub async fn serve(io: Io, connection: Rc<Connection>, ticket: Ticket, may_be_http2: bool) -> Served {
    let service = connection.service();
    let scheme: &'static [u8] = if connection.info.tls.is_some() { b"https" } else { b"http" };
    let given = &service.config.limits;
    let limits = HeadLimits { bytes: given.header_bytes, count: given.header_count, target: given.path_bytes };
    let wire = Wire::new(io, &service.worker);
    let timer = service.worker.timer();
    drop(service);
    let mut http = Http1 { wire, parser: Parser::new(), timer, connection, ticket, scheme, limits, silent: false };
    let http2 = http.requests(may_be_http2).await;
    http.wire.worker().give_timer(std::mem::take(&mut http.timer));
    if http2 { Served::Http2(http.wire.io, http.wire.input.freeze(), http.ticket) } else { Served::Over }
}

impl Http1 {
    /// Serves requests until one side wants no more. Whether the client turned out to speak HTTP/2.
    async fn requests(&mut self, may_be_http2: bool) -> bool {
        loop {
            let service = self.connection.service();
            let mut fields = service.worker.fields();
            match self.read_head(&service, &mut fields, may_be_http2).await {
                Head::Request(head, at) => {
                    if !self.request(&service, head, fields, at).await {
                        break;
                    }
                }
                Head::Refused(refusal) => {
                    service.refused(refusal.detail());
                    self.refuse(fields, refusal.status(), refusal.detail()).await;
                    break;
                }
                Head::TimedOut => {
                    self.refuse(fields, 408, "request_header_timeout").await;
                    break;
                }
                Head::Http2 => return true,
                Head::Over => {
                    service.worker.give_fields(fields);
                    return false;
                }
            }
        }
        self.linger().await;
        self.wire.rest();
        false
    }

    /// Waits for a request's head.
    async fn read_head(&mut self, service: &HttpService, fields: &mut Fields, may_be_http2: bool) -> Head {
        let timeouts = &service.config.timeouts;
        let is_first = self.connection.requests.get() == 0;
        let end_of_life = timeouts.max_connection_age.map(|age| self.connection.accepted + age);
        let mut idle_until: Option<Instant> = None;
        let mut head_until: Option<Instant> = None;
        let mut leave_at: Option<Instant> = None;
        std::future::poll_fn(|cx| {
            loop {
                if !self.wire.input.is_empty() {
                    if is_first && may_be_http2 && is_preface(&self.wire.input) {
                        if self.wire.input.len() >= h2::PREFACE.len() {
                            return Poll::Ready(Head::Http2);
                        }
                    } else {
                        match self.parser.parse(&self.wire.input, self.scheme, &self.limits, fields) {
                            Err(refusal) => return Poll::Ready(Head::Refused(refusal)),
                            Ok(Some(head)) => {
                                self.wire.consume(head.consumed);
                                return Poll::Ready(Head::Request(head, service.worker.tick()));
                            }
                            Ok(None) => {}
                        }
                    }
                }
                match self.wire.poll_fill(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Head::Over),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending => {}
                }
                self.wire.rest();
                let deadline = if self.wire.input.is_empty() {
                    self.ticket.wait(cx.waker());
                    if self.connection.is_leaving() {
                        leave_at.get_or_insert_with(|| Instant::now() + GRACE);
                    }
                    let idle = *idle_until.get_or_insert_with(|| {
                        // The worker may have slept until this connection came: its clock then still shows when it fell asleep.
                        let now = if is_first { service.worker.tick() } else { service.worker.instant() };
                        now + timeouts.idle.unwrap_or(FOREVER)
                    });
                    earliest(earliest(Some(idle), end_of_life), leave_at)
                } else {
                    Some(*head_until.get_or_insert_with(|| Instant::now() + timeouts.request_headers.min(FOREVER)))
                };
                if self.timer.poll(cx, deadline).is_ready() {
                    return Poll::Ready(if self.wire.input.is_empty() { Head::Over } else { Head::TimedOut });
                }
                return Poll::Pending;
            }
        })
        .await
    }

    /// Runs a request. Whether another one may follow.
    async fn request(&mut self, service: &HttpService, head: RequestHead, fields: Fields, at: Instant) -> bool {
        let requests = self.connection.requests.get() + 1;
        self.connection.requests.set(requests);
        let timeouts = &service.config.timeouts;
        let old = timeouts.max_connection_age.is_some_and(|age| at.saturating_duration_since(self.connection.accepted) >= age);
        let stay = head.keep_alive && !old && requests < service.config.limits.requests_per_connection && !self.connection.is_leaving();
        let asked = if head.connect {
            Asked::Connect
        } else if head.upgrade {
            Asked::Upgrade
        } else if fields.method() == b"HEAD" {
            Asked::Head
        } else {
            Asked::Other
        };
        let body = if head.connect || head.upgrade { BodyLength::Tunnel } else { head.framing.into() };
        let down = H1Downstream {
            wire: &mut self.wire,
            decoder: Decoder::new(if body == BodyLength::Tunnel { Framing::Tunnel } else { head.framing }),
            encoder: Encoder::new(Framing::None),
            version: head.version,
            asked,
            keep_alive: stay,
            last: !head.keep_alive,
            expects: head.expect_continue,
            connection: &self.connection,
            sent_head: false,
        };
        let arrived = Arrived { head: fields, body, at };
        let mut exchange = Exchange::new(&self.connection, arrived, down, &mut self.timer);
        let ended = exchange.run().await;
        let down = exchange.downstream();
        let complete = ended == Ended::Complete && down.encoder.is_end();
        let stay = complete && down.keep_alive;
        self.silent = complete && !head.keep_alive && self.wire.input.is_empty();
        stay
    }

    /// Answers what is no request.
    async fn refuse(&mut self, mut fields: Fields, status: u16, detail: &'static str) {
        fields.clear();
        let down = H1Downstream {
            wire: &mut self.wire,
            decoder: Decoder::new(Framing::None),
            encoder: Encoder::new(Framing::None),
            version: Version::Http11,
            asked: Asked::Other,
            keep_alive: false,
            last: false,
            expects: false,
            connection: &self.connection,
            sent_head: false,
        };
        let arrived = Arrived { head: fields, body: BodyLength::None, at: Instant::now() };
        Exchange::new(&self.connection, arrived, down, &mut self.timer).refuse(status, detail).await;
    }

    /// Closes the connection so that the client can read the last response: what it still sends is read and dropped for a while. A client that takes
    /// nothing is left all the same; one that sends nothing any more, and has got everything, needs no such care.
    async fn linger(&mut self) {
        let silent = self.silent;
        let wire = &mut self.wire;
        if silent && wire.waiting() == 0 && wire.is_closable() {
            return;
        }
        let farewell = async {
            if std::future::poll_fn(|cx| wire.poll_flush(cx)).await.is_err() {
                return;
            }
            let mut io = std::pin::Pin::new(&mut wire.io);
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut io).await;
            if silent {
                return;
            }
            let mut buffer = [0; 4096];
            let mut read = 0;
            while read < LINGER_BYTES {
                match tokio::io::AsyncReadExt::read(&mut wire.io, &mut buffer).await {
                    Ok(count @ 1..) => read += count,
                    _ => break,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, Box::pin(farewell)).await;
    }
}

/// Longer than any process lives.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

fn is_preface(input: &[u8]) -> bool {
    let length = input.len().min(h2::PREFACE.len());
    length >= 4 && input.get(..length) == h2::PREFACE.get(..length)
}

/// One request of an HTTP/1 client.
struct H1Downstream<'c> {
    wire: &'c mut Wire,
    decoder: Decoder,
    encoder: Encoder,
    version: Version,
    asked: Asked,
    keep_alive: bool,
    /// The client said that it sends nothing else.
    last: bool,
    /// The client waits for a 100 before it sends the body.
    expects: bool,
    connection: &'c Connection,
    sent_head: bool,
}

impl Outgoing for H1Downstream<'_> {
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.wire.poll_ready(cx)
    }

    fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError> {
        send_body(self.wire, &mut self.encoder, data, end)
    }

    fn send_trailers(&mut self, trailers: &Fields) -> Result<(), StreamError> {
        Ok(self.encoder.trailers(trailers, self.wire.stage())?)
    }

    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.last && self.sent_head && self.encoder.is_end() && self.decoder.is_end() && self.wire.input.is_empty() {
            self.wire.part();
        }
        self.wire.poll_flush(cx)
    }

    fn reset(&mut self, _reason: ResetReason) {
        self.keep_alive = false;
    }
}

impl Downstream for H1Downstream<'_> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        if std::mem::take(&mut self.expects) && !self.sent_head && self.wire.input.is_empty() {
            self.wire.stage().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !self.sent_head
            && self.wire.waiting() > 0
            && let Poll::Ready(Err(error)) = self.wire.poll_flush(cx)
        {
            return Poll::Ready(Some(Err(error)));
        }
        poll_body(self.wire, &mut self.decoder, cx)
    }

    #[inline]
    fn is_end(&self) -> bool {
        self.decoder.is_end()
    }

    fn send_informational(&mut self, head: &Fields) -> Result<(), StreamError> {
        if self.version == Version::Http10 || self.sent_head {
            return Ok(());
        }
        let say = ResponseOut { body: BodyLength::None, version: self.version, asked: self.asked, keep_alive: true };
        encode::response(head, say, self.wire.stage())?;
        Ok(())
    }

    fn send_head(&mut self, head: &Fields, body: BodyLength) -> Result<(), StreamError> {
        // A response that overtakes its request ends the connection: what is left of the request would have to be read first.
        let request_over = self.decoder.is_end();
        self.keep_alive &= request_over && !self.connection.is_leaving();
        let say = ResponseOut { body, version: self.version, asked: self.asked, keep_alive: self.keep_alive };
        let framing = encode::response(head, say, self.wire.stage())?;
        self.keep_alive &= !matches!(framing, Framing::UntilClose | Framing::Tunnel);
        self.sent_head = true;
        self.encoder = Encoder::new(framing);
        Ok(())
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        if self.wire.input.len() >= PIPELINE {
            return Poll::Pending;
        }
        match self.wire.poll_fill(cx) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(StreamError::Closed),
            Poll::Ready(Ok(_)) => self.poll_closed(cx),
            Poll::Pending => {
                self.wire.settle();
                Poll::Pending
            }
        }
    }
}
