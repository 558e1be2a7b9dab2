//! A connection to an upstream over HTTP/2.
//!
//! [`connect`] shakes hands and returns a handle and a driver. The driver is a future that its owner runs as a task; the handle opens streams as
//! long as neither side's limit is reached and nobody said goodbye. Both belong to one worker.
//!
//! Not done here: choosing among connections and closing idle ones, which is the pool's: dropping the last handle lets the connection end when its
//! streams have.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use h2::{
    Ping, PingPong, SendStream,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    super::StreamError,
    Chunk, H2Upstream,
    convert::Values,
    cork::{Cork, Tap},
    meter::{Metered, Signals},
    server::budgets,
    stream_error,
};

/// What one stream keeps ready for the connection.
const SEND_BUFFER: usize = 64 << 10;
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// How connections to upstreams are made.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Streams in progress at once, if the upstream allows as many.
    pub concurrent_streams: u32,
    /// Window of a stream.
    pub stream_window: u32,
    /// Window of the connection.
    pub connection_window: u32,
    /// Largest frame to accept.
    pub frame_bytes: u32,
    /// Bytes of a response's head, as RFC 9113 counts them.
    pub header_bytes: u32,
    /// Fields of a response's head.
    pub header_count: u32,
    /// How often to ask whether the upstream is still there, and how long it may take to answer.
    pub keepalive: Option<(Duration, Duration)>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            concurrent_streams: 100,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            frame_bytes: 16 << 10,
            header_bytes: 60 << 10,
            header_count: 100,
            keepalive: None,
        }
    }
}

impl ClientOptions {
    fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder
            .initial_window_size(self.stream_window.min(MAX_WINDOW))
            .initial_connection_window_size(self.connection_window.min(MAX_WINDOW))
            .max_frame_size(self.frame_bytes.clamp(16 << 10, (1 << 24) - 1))
            .max_header_list_size(self.header_bytes)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false);
        builder
    }
}

/// What handles, streams and the driver of a connection share.
pub(super) struct Client {
    send: RefCell<SendRequest<Chunk>>,
    signals: Rc<Signals>,
    values: Values,
    most: u32,
    header_count: usize,
    active: Cell<u32>,
    requests: Cell<u64>,
    closed: Rc<Cell<bool>>,
}

impl Client {
    pub(super) fn opened(&self) {
        self.active.set(self.active.get() + 1);
    }

    pub(super) fn finished(&self) {
        self.active.set(self.active.get().saturating_sub(1));
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    pub(super) fn header_count(&self) -> usize {
        self.header_count
    }

    pub(super) fn request(&self, request: Request<()>, end: bool) -> Result<(ResponseFuture, SendStream<Chunk>), StreamError> {
        if self.closed.get() || self.signals.goaway() {
            return Err(StreamError::Refused);
        }
        // A handle of the library's takes no second stream while its first waits to be opened: a new one does.
        let mut send = self.send.borrow().clone();
        if request.extensions().get::<h2::ext::Protocol>().is_some() && !send.is_extended_connect_protocol_enabled() {
            return Err(StreamError::Protocol("extended_connect"));
        }
        let sent = send.send_request(request, end).map_err(|error| match stream_error(&error) {
            // Nothing was sent.
            StreamError::Closed | StreamError::Reset => StreamError::Refused,
            other => other,
        })?;
        self.requests.set(self.requests.get() + 1);
        Ok(sent)
    }
}

/// Opens streams of one connection.
#[derive(Clone)]
pub struct ClientHandle(Rc<Client>);

impl ClientHandle {
    /// Whether [`ClientHandle::open`] gives a stream now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        let client = &*self.0;
        !self.is_closed() && !self.is_leaving() && {
            let active = client.active.get();
            active < client.most && (active as usize) < client.send.borrow().current_max_send_streams()
        }
    }

    /// A stream for one request. None when there is no room, or the connection ends.
    #[must_use]
    pub fn open(&self) -> Option<H2Upstream> {
        self.can_open().then(|| H2Upstream::new(Rc::clone(&self.0)))
    }

    /// Streams in progress.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.0.active.get()
    }

    /// Requests sent so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.requests.get()
    }

    /// Whether the upstream said goodbye: streams in progress may finish, others are not opened.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.0.signals.goaway() || self.0.signals.verdict().is_some()
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Whether the upstream accepts CONNECT with a protocol (WebSocket). Not known before its settings came.
    #[must_use]
    pub fn accepts_protocols(&self) -> bool {
        self.0.send.borrow().is_extended_connect_protocol_enabled()
    }
}

/// Shakes hands: the first bytes are queued, the answer is not awaited. The driver must be run for anything to move.
///
/// # Errors
/// When the connection is broken.
pub async fn connect<IO>(io: IO, options: &ClientOptions) -> Result<(ClientHandle, impl Future<Output = ()> + use<IO>), StreamError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // An upstream resets streams as it likes; each is one that this side opened.
    let (io, tap) = Cork::new(io);
    let metered = Metered::client(io, budgets(u32::MAX, 2000, options.header_bytes, options.frame_bytes));
    let signals = metered.signals();
    let (send, mut connection) = options.builder().handshake(metered).await.map_err(|error| stream_error(&error))?;
    tap.take();
    let closed = Rc::<Cell<bool>>::default();
    let pings =
        options.keepalive.and_then(|(interval, patience)| connection.ping_pong().map(|pings| Keepalive::new(pings, interval, patience)));
    let client = Client {
        send: RefCell::new(send),
        signals: Rc::clone(&signals),
        values: Values::default(),
        most: options.concurrent_streams,
        header_count: options.header_count as usize,
        active: Cell::new(0),
        requests: Cell::new(0),
        closed: Rc::clone(&closed),
    };
    Ok((ClientHandle(Rc::new(client)), Driver { connection, tap, signals, closed, pings }))
}

/// Keeps a connection moving. Over when the connection is.
struct Driver<IO: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<Metered<Cork<IO>>, Chunk>,
    tap: Tap<IO>,
    signals: Rc<Signals>,
    closed: Rc<Cell<bool>>,
    pings: Option<Keepalive>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let over = Pin::new(&mut this.connection).poll(cx).is_ready()
            || this.signals.verdict().is_some()
            || this.pings.as_mut().is_some_and(|pings| pings.poll(cx).is_ready())
            || matches!(this.tap.poll_flush(cx), Poll::Ready(Err(_)));
        if over {
            this.closed.set(true);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Drop for Driver<IO> {
    fn drop(&mut self) {
        self.closed.set(true);
    }
}

/// Asks the peer for a sign of life, and ends when there is none.
struct Keepalive {
    pings: PingPong,
    interval: Duration,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

impl Keepalive {
    fn new(pings: PingPong, interval: Duration, patience: Duration) -> Self {
        Self { pings, interval, patience, timer: Box::pin(sleep_until(Instant::now() + interval)), asked: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.asked && self.pings.poll_pong(cx).is_ready() {
                self.asked = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.asked || self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.asked = true;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
    }
}
