//! HTTP/1 to an upstream, in the task of the request: no task of its own, no channel.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::body::{Decoded, Decoder, Encoder};
use super::encode::{self, RequestOut};
use super::response::{Asked, Parser};
use super::{Framing, HeadLimits};
use crate::http::fields::{Fields, Known};
use crate::http::{BodyLength, Frame, Outgoing, ResetReason, StreamError, Upstream};
use crate::tls::io::Io;
use crate::upstream::Permit;
use crate::upstream::balancer::Target;
use crate::upstream::pool::HostPool;
use crate::wire::Wire;
use crate::worker::Worker;

/// A connection to an upstream.
pub struct UpstreamConnection {
    wire: Wire,
    parser: Parser,
    requests: u32,
    _permit: Permit,
}

impl UpstreamConnection {
    /// A connection on which nothing was said yet.
    #[must_use]
    pub fn new(io: Io, permit: Permit, worker: &Rc<Worker>) -> Self {
        Self { wire: Wire::new(io, worker), parser: Parser::new(), requests: 0, _permit: permit }
    }

    /// Whether nothing has arrived since the last exchange, the end included. No system call unless something has.
    pub fn is_usable(&mut self) -> bool {
        let nothing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        self.wire.input.is_empty() && self.wire.io.try_read(&mut [0; 1]).is_err_and(|error| nothing(&error))
    }
}

/// One exchange on a connection to an upstream.
pub struct H1Upstream {
    connection: Option<Box<UpstreamConnection>>,
    target: Rc<Target<HostPool>>,
    server_name: Option<Rc<str>>,
    asked: Asked,
    encoder: Encoder,
    decoder: Decoder,
    keep_alive: bool,
    answered: bool,
    wrote: bool,
}

impl H1Upstream {
    /// An exchange that has not begun.
    #[must_use]
    pub fn new(connection: Box<UpstreamConnection>, target: Rc<Target<HostPool>>, server_name: Option<Rc<str>>) -> Self {
        Self {
            connection: Some(connection),
            target,
            server_name,
            asked: Asked::Other,
            encoder: Encoder::new(Framing::None),
            decoder: Decoder::new(Framing::None),
            keep_alive: false,
            answered: false,
            wrote: false,
        }
    }

    /// Whether anything of the request was written.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.wrote
    }

    fn connection(&mut self) -> Result<&mut UpstreamConnection, StreamError> {
        self.connection.as_deref_mut().ok_or(StreamError::Closed)
    }
}

impl Drop for H1Upstream {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let complete = self.answered && self.keep_alive && self.decoder.is_end() && self.encoder.is_end() && connection.wire.waiting() == 0;
        let most = self.target.cluster().options().max_requests_per_connection;
        if complete && connection.wire.input.is_empty() && (most == 0 || connection.requests < most) {
            let now = connection.wire.worker().instant();
            connection.wire.rest();
            self.target.local().give_back(connection, self.server_name.take(), now);
        }
    }
}

impl Outgoing for H1Upstream {
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        match self.connection() {
            Ok(connection) => connection.wire.poll_ready(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError> {
        let connection = self.connection.as_deref_mut().ok_or(StreamError::Closed)?;
        send_body(&mut connection.wire, &mut self.encoder, data, end)
    }

    fn send_trailers(&mut self, trailers: &Fields) -> Result<(), StreamError> {
        let connection = self.connection.as_deref_mut().ok_or(StreamError::Closed)?;
        Ok(self.encoder.trailers(trailers, connection.wire.stage())?)
    }

    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let Ok(connection) = self.connection() else { return Poll::Ready(Err(StreamError::Closed)) };
        let before = connection.wire.waiting();
        let flushed = connection.wire.poll_flush(cx);
        let wrote = connection.wire.waiting() < before;
        self.wrote |= wrote;
        flushed
    }

    fn reset(&mut self, _reason: ResetReason) {
        self.connection = None;
    }
}

impl Upstream for H1Upstream {
    fn send_head(&mut self, head: &Fields, body: BodyLength) -> Result<(), StreamError> {
        let method = head.method();
        self.asked = match (method, body) {
            (b"HEAD", _) => Asked::Head,
            (b"CONNECT", _) if !head.has(Known::Protocol) => Asked::Connect,
            (_, BodyLength::Tunnel) => Asked::Upgrade,
            _ => Asked::Other,
        };
        let upgrade = self.asked == Asked::Upgrade;
        let connection = self.connection.as_deref_mut().ok_or(StreamError::Closed)?;
        connection.requests += 1;
        let say = RequestOut { body, upgrade, close: false };
        let framing = match head.get_known(Known::Protocol) {
            Some(protocol) => encode::request(&as_upgrade(head, protocol), say, connection.wire.stage())?,
            None => encode::request(head, say, connection.wire.stage())?,
        };
        self.encoder = Encoder::new(framing);
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut Fields) -> Poll<Result<BodyLength, StreamError>> {
        let asked = self.asked;
        let Ok(connection) = self.connection() else { return Poll::Ready(Err(StreamError::Closed)) };
        loop {
            if !connection.wire.input.is_empty() {
                let parsed = connection.parser.parse(&connection.wire.input, asked, &HeadLimits::default(), head);
                match parsed {
                    Err(refusal) => return Poll::Ready(Err(StreamError::Protocol(refusal.detail()))),
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        connection.wire.consume(found.consumed);
                        if found.is_informational() {
                            return Poll::Ready(Ok(BodyLength::None));
                        }
                        self.decoder = Decoder::new(found.framing);
                        self.keep_alive = found.keep_alive && !matches!(found.framing, Framing::UntilClose | Framing::Tunnel);
                        self.answered = true;
                        return Poll::Ready(Ok(found.framing.into()));
                    }
                }
            }
            match connection.wire.poll_fill(cx) {
                Poll::Pending => {
                    connection.wire.settle();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(StreamError::Closed)),
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        let Some(connection) = self.connection.as_deref_mut() else { return Poll::Ready(Some(Err(StreamError::Closed))) };
        poll_body(&mut connection.wire, &mut self.decoder, cx)
    }

    #[inline]
    fn is_end(&self) -> bool {
        self.decoder.is_end()
    }
}

/// An extended CONNECT of HTTP/2 as an upgrade of HTTP/1.
fn as_upgrade(head: &Fields, protocol: &[u8]) -> Fields {
    let mut upgrade = Fields::new();
    upgrade.copy_from(head);
    upgrade.remove_known(Known::Protocol);
    upgrade.set_known(Known::Method, b"GET");
    upgrade.set_known(Known::Upgrade, protocol);
    if protocol.eq_ignore_ascii_case(b"websocket") && upgrade.get(b"sec-websocket-key").is_none() {
        upgrade.push(b"sec-websocket-key", &websocket_key());
    }
    upgrade
}

/// A nonce as WebSocket has it in HTTP/1 but not in HTTP/2: 16 random bytes in base64.
fn websocket_key() -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = *b"______________________==";
    for digit in &mut key[..22] {
        *digit = DIGITS[fastrand::usize(..64)];
    }
    // The last digit has two bits; the others of it are 0.
    key[21] = DIGITS[16 * fastrand::usize(..4)];
    key
}

/// The next piece of a body: the same for both sides of an HTTP/1 proxy.
pub(super) fn poll_body(wire: &mut Wire, decoder: &mut Decoder, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
    loop {
        match decoder.decode(&mut wire.input) {
            Err(error) => return Poll::Ready(Some(Err(error.into()))),
            Ok(Decoded::Frame(frame)) => {
                wire.consume(0);
                return Poll::Ready(Some(Ok(frame)));
            }
            Ok(Decoded::End) => return Poll::Ready(None),
            Ok(Decoded::More) => {}
        }
        match wire.poll_fill(cx) {
            Poll::Pending => {
                wire.settle();
                return Poll::Pending;
            }
            Poll::Ready(Ok(0)) => {
                return match decoder.finish() {
                    Ok(()) => Poll::Ready(None),
                    Err(error) => Poll::Ready(Some(Err(error.into()))),
                };
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(StreamError::Closed))),
            Poll::Ready(Ok(_)) => {}
        }
    }
}

/// Queues a piece of a body with its framing.
pub(super) fn send_body(wire: &mut Wire, encoder: &mut Encoder, data: Bytes, end: bool) -> Result<(), StreamError> {
    let length = data.len();
    if length > 0 {
        encoder.before(length, wire.stage())?;
        wire.push(data);
        encoder.after(length, wire.stage());
    }
    if end {
        encoder.finish(wire.stage())?;
        if encoder.is_ended_by_close() {
            wire.end();
        }
    }
    Ok(())
}
