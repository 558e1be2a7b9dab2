//! A client's connection over HTTP/2.
//!
//! [`serve`] is the connection's driver: it shakes hands, hands every request to its [`Handler`], and keeps the connection moving until it is
//! over. One timer serves idleness, age and stalls; it is set when a deadline is near for the first time, never per request.
//!
//! What always holds: a connection is told that it ends (GOAWAY) before it does, unless it is broken; one that drains finishes the streams it
//! has; one that spent a budget ends within a second whatever its peer does.
//!
//! Requests above the limit on the header list are answered 431 by the library, without the handler; so are those that it finds malformed, by a reset.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    super::{BodyLength, fields::Fields, h1::Refusal},
    Chunk, H2Downstream,
    convert::{self, HeadLimits, Values},
    cork::{Cork, Tap},
    meter::{Abuse, Budgets, Metered, Signals},
    stall::{FLOW_STALL, SWEEPS, Watch},
};

/// How long the goodbye to a peer that spent a budget may take.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often a draining connection is looked at.
const DRAIN_CHECK: Duration = Duration::from_secs(1);
/// In how many steps the idle timeout is watched: it is late by at most one of them.
const IDLE_STEPS: u32 = 4;
/// For connections without any deadline.
const FAR: Duration = Duration::from_secs(3600);
/// What one stream keeps ready for the connection.
const SEND_BUFFER: usize = 64 << 10;

/// How connections are served.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Streams in progress at once.
    pub concurrent_streams: u32,
    /// Window of a stream.
    pub stream_window: u32,
    /// Window of the connection.
    pub connection_window: u32,
    /// Largest frame to accept.
    pub frame_bytes: u32,
    /// Bytes of a request's head, as RFC 9113 counts them.
    pub header_bytes: u32,
    /// Fields of a request's head.
    pub header_count: u32,
    /// Bytes of a request's target.
    pub path_bytes: u32,
    /// Requests before the connection drains.
    pub requests: Option<u64>,
    /// Resets in 30 s.
    pub resets: u32,
    /// Frames of a kind that carry nothing, in 30 s.
    pub idle_frames: u32,
    /// How long the preface and settings may take.
    pub handshake: Duration,
    /// How long the connection may be without a stream.
    pub idle: Option<Duration>,
    /// How long the connection may live before it drains.
    pub max_age: Option<Duration>,
    /// How long a stream may wait for its client to take data.
    pub flow_stall: Duration,
    /// Whether requests that name no scheme came over TLS.
    pub encrypted: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            concurrent_streams: 100,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            frame_bytes: 16 << 10,
            header_bytes: 60 << 10,
            header_count: 100,
            path_bytes: 16 << 10,
            requests: None,
            resets: 200,
            idle_frames: 2000,
            handshake: Duration::from_secs(10),
            idle: Some(Duration::from_secs(3600)),
            max_age: None,
            flow_stall: Duration::from_secs(30),
            encrypted: false,
        }
    }
}

/// The largest window that HTTP/2 knows.
const MAX_WINDOW: u32 = (1 << 31) - 1;

impl ServerOptions {
    fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(self.concurrent_streams)
            .initial_window_size(self.stream_window.min(MAX_WINDOW))
            .initial_connection_window_size(self.connection_window.min(MAX_WINDOW))
            .max_frame_size(self.frame_bytes.clamp(16 << 10, (1 << 24) - 1))
            .max_header_list_size(self.header_bytes)
            .max_send_buffer_size(SEND_BUFFER)
            // The meter judges before, and knows windows of time.
            .max_pending_accept_reset_streams(self.resets as usize + 1)
            .enable_connect_protocol();
        builder
    }

    fn budgets(&self) -> Budgets {
        budgets(self.resets, self.idle_frames, self.header_bytes, self.frame_bytes)
    }
}

/// Budgets of a connection. The pieces of a header block are as many as the library takes.
pub(super) fn budgets(resets: u32, idle_frames: u32, header_bytes: u32, frame_bytes: u32) -> Budgets {
    let frames = (header_bytes / frame_bytes.max(1)).max(1);
    Budgets { resets, idle_frames, header_bytes: header_bytes as usize, continuations: frames.saturating_add(frames / 4).max(5) }
}

/// A request that came in.
pub struct Incoming {
    /// Its head; what was read of it when it is refused.
    pub head: Fields,
    /// What body follows; or the answer that it must get, through `downstream`.
    pub body: Result<BodyLength, Refusal>,
    /// Its stream.
    pub downstream: H2Downstream,
}

/// What a connection tells its owner.
pub trait Handler {
    /// A request: runs it elsewhere (a task of its own) and returns.
    fn stream(&mut self, incoming: Incoming);
    /// Something happened that has a counter.
    fn count(&mut self, name: &'static str);
    /// An empty block for a request's head.
    fn fields(&mut self) -> Fields {
        Fields::with_capacity(512, 16)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order: the peer left, or the connection was idle, old or drained.
    Closed,
    /// The peer did too much of something; counted by that name.
    Abuse(&'static str),
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// The connection broke.
    Broken,
    /// There was no handshake in time.
    HandshakeTimeout,
}

/// Serves a connection until it ends. `read` is what was read of it already; `drain` completes when it shall end in order.
pub async fn serve<IO, H, D>(io: IO, read: Bytes, options: &ServerOptions, drain: D, handler: &mut H) -> End
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    D: Future<Output = ()>,
{
    let (io, tap) = Cork::new(io);
    let metered = Metered::server(io, read, options.budgets());
    let signals = metered.signals();
    let connection = match timeout(options.handshake, options.builder().handshake(metered)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return end_of(&error, None),
        Err(_) => return End::HandshakeTimeout,
    };
    tap.take();
    let now = Instant::now();
    let mut drain = std::pin::pin!(drain);
    let mut driver = Driver {
        connection,
        tap,
        signals,
        options,
        handler,
        shared: Shared { watch: Rc::default(), values: Rc::default() },
        timer: Box::pin(sleep_until(now)),
        deadlines: Deadlines::new(now, options),
        phase: Phase::Open,
        requests: 0,
    };
    driver.arm(now);
    let mut draining = false;
    std::future::poll_fn(|cx| {
        if !draining && drain.as_mut().poll(cx).is_ready() {
            draining = true;
            driver.drain(Instant::now());
        }
        match driver.poll(cx) {
            Poll::Pending => driver.let_go(cx),
            over => over,
        }
    })
    .await
}

/// How a connection ended that ended with an error; `said` is what the library told the peer.
fn end_of(error: &h2::Error, said: Option<Abuse>) -> End {
    match (said, error.reason()) {
        (Some(abuse), _) => End::Abuse(abuse.name()),
        (None, Some(Reason::NO_ERROR)) => End::Closed,
        (None, Some(reason)) if error.is_library() => End::Protocol(super::reason_name(reason)),
        (None, Some(_)) => End::Closed,
        (None, None) => End::Broken,
    }
}

/// What streams share.
struct Shared {
    watch: Rc<Watch>,
    values: Rc<Values>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watch.close();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Told to end; `quiet` counts the checks without a stream.
    Draining {
        quiet: u8,
    },
    /// Ends at once, for this.
    Leaving(End),
}

/// When something is due.
struct Deadlines {
    idle: Option<Instant>,
    idle_steps: u32,
    /// Requests when idleness was last looked at.
    requests: u64,
    age: Option<Instant>,
    stall: Option<Instant>,
    /// Bytes written, and how often in a row there were no more while a write waited.
    written: u64,
    stuck: u8,
    phase: Option<Instant>,
}

impl Deadlines {
    fn new(now: Instant, options: &ServerOptions) -> Self {
        Self {
            idle: options.idle.map(|idle| now + idle / IDLE_STEPS),
            idle_steps: 0,
            requests: 0,
            age: options.max_age.map(|age| now + age),
            stall: None,
            written: 0,
            stuck: 0,
            phase: None,
        }
    }

    fn next(&self, now: Instant) -> Instant {
        [self.idle, self.age, self.stall, self.phase].into_iter().flatten().min().unwrap_or(now + FAR)
    }
}

/// Whether a deadline has passed; it is taken then.
fn due(deadline: &mut Option<Instant>, now: Instant) -> bool {
    let due = deadline.is_some_and(|at| at <= now);
    if due {
        *deadline = None;
    }
    due
}

struct Driver<'a, IO, H> {
    connection: Connection<Metered<Cork<IO>>, Chunk>,
    tap: Tap<IO>,
    signals: Rc<Signals>,
    options: &'a ServerOptions,
    handler: &'a mut H,
    shared: Shared,
    timer: Pin<Box<Sleep>>,
    deadlines: Deadlines,
    phase: Phase,
    requests: u64,
}

impl<IO, H> Driver<'_, IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.failed(&error)),
                Poll::Ready(None) => return Poll::Ready(self.closed()),
                Poll::Pending => {
                    let verdict = self.signals.verdict();
                    if let (Some(abuse), false) = (verdict, self.is_leaving()) {
                        self.convict(abuse);
                    } else if self.poll_timer(cx).is_ready() {
                        return Poll::Ready(self.closed());
                    } else {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Writes what the library has said since the last time. Ready when that is not possible any more.
    fn let_go(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.tap.poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(if let Phase::Leaving(end) = self.phase { end } else { End::Broken }),
            Poll::Pending if self.poll_timer(cx).is_ready() => Poll::Ready(self.closed()),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_))
    }

    fn accept(&mut self, request: Request<RecvStream>, respond: SendResponse<Chunk>) {
        if self.is_leaving() {
            return;
        }
        self.requests += 1;
        let (parts, body) = request.into_parts();
        let mut head = self.handler.fields();
        let scheme: &[u8] = if self.options.encrypted { b"https" } else { b"http" };
        let limits = HeadLimits { fields: self.options.header_count as usize, path: self.options.path_bytes as usize };
        let length = convert::request_head(&parts, body.is_end_stream(), scheme, limits, &mut head);
        let downstream = H2Downstream::new(body, respond, Rc::clone(&self.shared.watch), Rc::clone(&self.shared.values));
        self.handler.stream(Incoming { head, body: length, downstream });
        if self.options.requests.is_some_and(|most| self.requests >= most) {
            self.drain(Instant::now());
        }
    }

    fn failed(&mut self, error: &h2::Error) -> End {
        match self.phase {
            Phase::Leaving(end) => return end,
            // The peer left before the last goodbye.
            Phase::Draining { .. } if error.is_io() => return End::Closed,
            _ => {}
        }
        let end = end_of(error, self.signals.said());
        if let End::Abuse(name) = end {
            self.handler.count(name);
        }
        end
    }

    fn closed(&self) -> End {
        if let Phase::Leaving(end) = self.phase { end } else { End::Closed }
    }

    fn convict(&mut self, abuse: Abuse) {
        self.handler.count(abuse.name());
        self.leave(Reason::ENHANCE_YOUR_CALM, End::Abuse(abuse.name()), Instant::now());
    }

    /// Ends the connection at once, with a last word if the peer takes it.
    fn leave(&mut self, reason: Reason, end: End, now: Instant) {
        self.phase = Phase::Leaving(end);
        self.deadlines.phase = Some(now + LAST_WORDS);
        self.connection.abrupt_shutdown(reason);
        self.arm(now);
    }

    /// Ends the connection when its streams have ended.
    fn drain(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining { quiet: 0 };
            self.deadlines.phase = Some(now + DRAIN_CHECK);
            self.connection.graceful_shutdown();
            self.arm(now);
        }
    }

    fn arm(&mut self, now: Instant) {
        let next = self.deadlines.next(now);
        self.timer.as_mut().reset(next);
    }

    /// Ready when the connection is over, whatever the peer thinks.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadlines.stall.is_none() && self.is_strained() {
            let now = Instant::now();
            self.deadlines.stall = Some(now + self.options.flow_stall / u32::from(SWEEPS));
            self.arm(now);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.is_leaving() && due(&mut self.deadlines.phase, now) {
                return Poll::Ready(());
            }
            let before = self.phase;
            self.look(now);
            self.arm(now);
            if self.phase != before {
                // The library has something to say.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Whether something waits for the peer.
    fn is_strained(&self) -> bool {
        self.tap.blocked() || !self.shared.watch.is_empty()
    }

    fn look(&mut self, now: Instant) {
        if due(&mut self.deadlines.idle, now) {
            self.look_at_idleness(now);
        }
        if due(&mut self.deadlines.age, now) {
            self.drain(now);
        }
        if due(&mut self.deadlines.stall, now) {
            self.look_at_stalls(now);
        }
        if !self.is_leaving() && due(&mut self.deadlines.phase, now) {
            self.look_at_drain(now);
        }
    }

    fn look_at_idleness(&mut self, now: Instant) {
        let Some(idle) = self.options.idle else { return };
        let used = self.requests != self.deadlines.requests || self.connection.has_streams();
        self.deadlines.requests = self.requests;
        self.deadlines.idle_steps = if used { 0 } else { self.deadlines.idle_steps + 1 };
        if self.deadlines.idle_steps >= IDLE_STEPS {
            self.drain(now);
        } else {
            self.deadlines.idle = Some(now + idle / IDLE_STEPS);
        }
    }

    fn look_at_stalls(&mut self, now: Instant) {
        for _ in 0..self.shared.watch.sweep() {
            self.handler.count(FLOW_STALL);
        }
        let written = self.tap.written();
        let stuck = self.tap.blocked() && written == self.deadlines.written;
        self.deadlines.stuck = if stuck { self.deadlines.stuck + 1 } else { 0 };
        self.deadlines.written = written;
        if self.deadlines.stuck >= SWEEPS && !self.is_leaving() {
            // The peer reads nothing at all: neither streams nor a goodbye would get through.
            self.handler.count(FLOW_STALL);
            self.leave(Reason::ENHANCE_YOUR_CALM, End::Abuse(FLOW_STALL), now);
        } else if self.is_strained() {
            self.deadlines.stall = Some(now + self.options.flow_stall / u32::from(SWEEPS));
        }
    }

    /// A peer that answers no PING would keep a draining connection open for ever.
    fn look_at_drain(&mut self, now: Instant) {
        let Phase::Draining { quiet } = self.phase else { return };
        let quiet = if self.connection.has_streams() { 0 } else { quiet + 1 };
        if quiet >= 3 {
            self.leave(Reason::NO_ERROR, End::Closed, now);
        } else {
            self.phase = Phase::Draining { quiet };
            self.deadlines.phase = Some(now + DRAIN_CHECK);
        }
    }
}
