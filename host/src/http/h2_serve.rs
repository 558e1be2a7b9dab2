//! A downstream connection of HTTP/2: each of its streams becomes a request of the engine, in a task of its own.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::BodyLength;
use super::connection::Connection;
use super::exchange::{Arrived, Exchange};
use super::fields::Fields;
use super::h2::{self, Handler, Incoming, ServerOptions};
use super::service::HttpService;
use crate::timer::LazyTimer;
use crate::tls::io::Io;
use crate::worker::Ticket;

/// Longest wait of a stream for its client to take data, unless the listener's idle timeout is shorter.
const FLOW_STALL: Duration = Duration::from_secs(30);

struct Streams {
    connection: Rc<Connection>,
}

impl Handler for Streams {
    fn stream(&mut self, incoming: Incoming) {
        let connection = Rc::clone(&self.connection);
        connection.requests.set(connection.requests.get() + 1);
        let Incoming { head, body, downstream } = incoming;
        let at = Instant::now();
        match body {
            Ok(body) => {
                tokio::task::spawn_local(async move {
                    let worker = Rc::clone(&connection.service().worker);
                    let mut timer = worker.timer();
                    Exchange::new(&connection, Arrived { head, body, at }, downstream, &mut timer).run().await;
                    worker.give_timer(timer);
                });
            }
            Err(refusal) => {
                connection.service().refused(refusal.detail());
                tokio::task::spawn_local(async move {
                    let mut timer = LazyTimer::new();
                    let arrived = Arrived { head, body: BodyLength::None, at };
                    Exchange::new(&connection, arrived, downstream, &mut timer).refuse(refusal.status(), refusal.detail()).await;
                });
            }
        }
    }

    fn count(&mut self, name: &'static str) {
        self.connection.service().refused(name);
    }

    fn fields(&mut self) -> Fields {
        self.connection.service().worker.fields()
    }
}

/// Serves a connection until it ends. `read` is what was read of it already.
pub async fn serve(io: Io, read: Bytes, connection: Rc<Connection>, ticket: Ticket) {
    connection.http2.set(true);
    let options = options(&connection.service(), connection.info.tls.is_some());
    let drain = leaving(&connection, &ticket);
    let mut streams = Streams { connection: Rc::clone(&connection) };
    match h2::serve(io, read, &options, drain, &mut streams).await {
        h2::End::Abuse(name) | h2::End::Protocol(name) => {
            tracing::debug!(target: "listener", peer = ?connection.info.peer, "HTTP/2 connection ended: {name}");
        }
        h2::End::Closed | h2::End::Broken | h2::End::HandshakeTimeout => {}
    }
}

/// Completes when the connection should end in order.
async fn leaving(connection: &Connection, ticket: &Ticket) {
    std::future::poll_fn(|cx| {
        ticket.wait(cx.waker());
        if connection.is_leaving() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn options(service: &HttpService, encrypted: bool) -> ServerOptions {
    let (limits, timeouts) = (&service.config.limits, &service.config.timeouts);
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    ServerOptions {
        concurrent_streams: limits.concurrent_streams,
        stream_window: limits.stream_window,
        connection_window: limits.connection_window,
        header_bytes: number(limits.header_bytes),
        header_count: number(limits.header_count),
        path_bytes: number(limits.path_bytes),
        requests: (limits.requests_per_connection != u64::MAX).then_some(limits.requests_per_connection),
        resets: limits.resets,
        idle_frames: limits.idle_frames,
        handshake: timeouts.request_headers.min(Duration::from_secs(60)),
        idle: timeouts.idle,
        max_age: timeouts.max_connection_age,
        flow_stall: timeouts.stream_idle.map_or(FLOW_STALL, |idle| idle.min(FLOW_STALL)),
        encrypted,
        ..ServerOptions::default()
    }
}
