//! Counts what a connection's peer spends, frame by frame, as the bytes pass.
//!
//! `Metered` wraps the byte stream below the `h2` crate and reads nothing but the nine bytes that open each frame,
//! and the code of RST_STREAM and GOAWAY. Whatever
//! carries nothing (PING, SETTINGS, PRIORITY, empty DATA, unknown types), breaks off work (RST_STREAM, from either side) or has no end
//! (CONTINUATION) has a budget in a window of 30 seconds. What passes it is dropped unread, and the driver says goodbye.
//!
//! What always holds: no byte is copied or changed; the clock is read only when a budget is used up, so a peer that behaves costs no clock read. A
//! window starts anew when it is found to be over, so the most that passes in 30 seconds is twice the budget.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::PREFACE;

/// How long a budget lasts.
pub const WINDOW: Duration = Duration::from_secs(30);
/// WINDOW_UPDATE frames that a DATA frame may be answered with, and that a request may bring.
const UPDATES_PER_DATA: u32 = 10;
const UPDATES_PER_STREAM: u32 = 4;

/// What a peer did too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Streams that it opened and reset.
    RapidReset,
    /// Streams that it made this side reset.
    MadeYouReset,
    /// A header block in too many pieces, or without an end.
    ContinuationFlood,
    /// PING.
    PingFlood,
    /// SETTINGS.
    SettingsFlood,
    /// PRIORITY, or frames of unknown types.
    PriorityFlood,
    /// DATA without data.
    EmptyDataFlood,
    /// WINDOW_UPDATE beyond what the data that it was sent explains.
    WindowUpdateFlood,
    /// A header list far above the limit.
    HeaderBomb,
}

impl Abuse {
    /// The counter's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RapidReset => "h2_rapid_reset",
            Self::MadeYouReset => "h2_made_you_reset",
            Self::ContinuationFlood => "h2_continuation_flood",
            Self::PingFlood => "h2_ping_flood",
            Self::SettingsFlood => "h2_settings_flood",
            Self::PriorityFlood => "h2_priority_flood",
            Self::EmptyDataFlood => "h2_empty_data_flood",
            Self::WindowUpdateFlood => "h2_window_update_flood",
            Self::HeaderBomb => "h2_header_bomb",
        }
    }

    /// What the library tells a peer that it sends away.
    fn said(debug_data: &[u8]) -> Option<Self> {
        match debug_data {
            b"too_many_resets" => Some(Self::RapidReset),
            b"too_many_internal_resets" => Some(Self::MadeYouReset),
            b"too_many_continuations" => Some(Self::ContinuationFlood),
            b"too_many_data_frames" => Some(Self::EmptyDataFlood),
            b"header_list_way_too_large" => Some(Self::HeaderBomb),
            _ => None,
        }
    }
}

/// What a peer may do in [`WINDOW`].
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Streams reset by it, or because of it.
    pub resets: u32,
    /// Frames of one kind that carry nothing.
    pub idle_frames: u32,
    /// Bytes of one header block as it is sent, compressed.
    pub header_bytes: usize,
    /// CONTINUATION frames of one header block that do not end it.
    pub continuations: u32,
}

/// What a connection's driver learns from the bytes.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    verdict: Cell<Option<Abuse>>,
    said: Cell<Option<Abuse>>,
    goaway: Cell<bool>,
}

impl Signals {
    /// What the peer did too much of.
    pub(crate) fn verdict(&self) -> Option<Abuse> {
        self.verdict.get()
    }

    /// What the library sent the peer away for.
    pub(crate) fn said(&self) -> Option<Abuse> {
        self.said.get()
    }

    /// Whether the peer sent GOAWAY.
    pub(crate) fn goaway(&self) -> bool {
        self.goaway.get()
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const FLAG_ACK: u8 = 1;
const FLAG_END_STREAM: u8 = 1;
const FLAG_END_HEADERS: u8 = 4;

const HEAD: usize = 9;
/// What is read of a payload at most: the end of a connection and its reason.
const PEEK: usize = 40;

/// How a frame opens.
#[derive(Clone, Copy, Debug)]
struct Opening {
    length: usize,
    kind: u8,
    flags: u8,
}

impl Opening {
    /// How much of the payload is read too.
    fn peek(self) -> usize {
        match self.kind {
            RST_STREAM => self.length.min(4),
            GOAWAY => self.length.min(PEEK),
            _ => 0,
        }
    }
}

/// Finds where frames begin.
#[derive(Debug)]
struct Walker {
    kept: [u8; HEAD + PEEK],
    have: usize,
    skip: usize,
}

impl Walker {
    fn new(skip: usize) -> Self {
        Self { kept: [0; HEAD + PEEK], have: 0, skip }
    }

    /// Shows each frame's opening, with the first bytes of its payload where they are of interest.
    #[inline]
    fn walk(&mut self, mut bytes: &[u8], mut each: impl FnMut(Opening, &[u8])) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            if self.have == 0
                && let Some(head) = bytes.first_chunk::<HEAD>()
            {
                let opening = parse(head);
                if opening.peek() == 0 {
                    bytes = &bytes[HEAD..];
                    self.skip = opening.length;
                    each(opening, &[]);
                    continue;
                }
            }
            let Some(opening) = self.gather(&mut bytes) else { return };
            each(opening, &self.kept[HEAD..HEAD + opening.peek()]);
        }
    }

    /// Takes bytes until an opening is complete.
    fn gather(&mut self, bytes: &mut &[u8]) -> Option<Opening> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            self.kept[self.have] = byte;
            self.have += 1;
            if self.have < HEAD {
                continue;
            }
            let opening = parse(self.kept.first_chunk()?);
            if self.have == HEAD + opening.peek() {
                self.have = 0;
                self.skip = opening.length - opening.peek();
                return Some(opening);
            }
        }
        None
    }
}

#[inline]
fn parse(head: &[u8; HEAD]) -> Opening {
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    Opening { length, kind: head[3], flags: head[4] }
}

/// What happened since the window began.
#[derive(Debug, Default)]
struct Counts {
    resets: u32,
    made_resets: u32,
    pings: u32,
    settings: u32,
    priorities: u32,
    empty_data: u32,
    window_updates: u32,
    streams: u32,
    data_sent: u32,
}

/// The header block that is being received.
#[derive(Debug, Default)]
struct Block {
    bytes: usize,
    continuations: u32,
}

#[derive(Debug)]
struct Meter {
    budgets: Budgets,
    started: Instant,
    counts: Counts,
    block: Block,
    signals: Rc<Signals>,
}

impl Meter {
    fn received(&mut self, frame: Opening) {
        let idle = self.budgets.idle_frames;
        let counts = &mut self.counts;
        let over = match frame.kind {
            HEADERS => {
                counts.streams = counts.streams.saturating_add(1);
                self.block = Block { bytes: frame.length, continuations: 0 };
                self.header_piece(frame)
            }
            CONTINUATION => {
                self.block.bytes = self.block.bytes.saturating_add(frame.length);
                self.block.continuations += u32::from(frame.flags & FLAG_END_HEADERS == 0);
                self.header_piece(frame)
            }
            DATA if frame.length > 0 || frame.flags & FLAG_END_STREAM != 0 => None,
            DATA => bump(&mut counts.empty_data, idle, Abuse::EmptyDataFlood),
            RST_STREAM => bump(&mut counts.resets, self.budgets.resets, Abuse::RapidReset),
            // An answer to this side's own.
            SETTINGS | PING if frame.flags & FLAG_ACK != 0 => None,
            SETTINGS => bump(&mut counts.settings, idle, Abuse::SettingsFlood),
            PING => bump(&mut counts.pings, idle, Abuse::PingFlood),
            WINDOW_UPDATE => {
                let data = counts.data_sent.saturating_mul(UPDATES_PER_DATA);
                let allowed = idle.saturating_add(data).saturating_add(counts.streams.saturating_mul(UPDATES_PER_STREAM));
                bump(&mut counts.window_updates, allowed, Abuse::WindowUpdateFlood)
            }
            // The library ends the connection.
            PUSH_PROMISE => None,
            GOAWAY => {
                self.signals.goaway.set(true);
                bump(&mut counts.priorities, idle, Abuse::PriorityFlood)
            }
            // PRIORITY too.
            _ => bump(&mut counts.priorities, idle, Abuse::PriorityFlood),
        };
        self.judge(over);
    }

    fn header_piece(&self, frame: Opening) -> Option<Abuse> {
        let too_long = self.block.bytes > self.budgets.header_bytes || self.block.continuations > self.budgets.continuations;
        // A block that ends with this frame is the library's to judge: it answers 431.
        (too_long && frame.flags & FLAG_END_HEADERS == 0).then_some(Abuse::ContinuationFlood)
    }

    fn sent(&mut self, frame: Opening, payload: &[u8]) {
        match frame.kind {
            DATA => self.counts.data_sent = self.counts.data_sent.saturating_add(1),
            // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM: the peer's doing.
            RST_STREAM if matches!(payload, [0, 0, 0, 1 | 3 | 5 | 6 | 7]) => {
                let over = bump(&mut self.counts.made_resets, self.budgets.resets, Abuse::MadeYouReset);
                self.judge(over);
            }
            GOAWAY => self.signals.said.set(payload.get(8..).and_then(Abuse::said)),
            _ => {}
        }
    }

    #[inline]
    fn judge(&mut self, over: Option<Abuse>) {
        if let Some(abuse) = over {
            self.convict(abuse);
        }
    }

    #[cold]
    fn convict(&mut self, abuse: Abuse) {
        let now = Instant::now();
        if abuse != Abuse::ContinuationFlood && now.duration_since(self.started) >= WINDOW {
            self.started = now;
            self.counts = Counts::default();
        } else if self.signals.verdict.get().is_none() {
            self.signals.verdict.set(Some(abuse));
        }
    }
}

#[inline]
fn bump(count: &mut u32, budget: u32, abuse: Abuse) -> Option<Abuse> {
    *count = count.saturating_add(1);
    (*count > budget).then_some(abuse)
}

/// A byte stream whose frames are counted.
#[derive(Debug)]
pub(crate) struct Metered<IO> {
    io: IO,
    /// Bytes that were read before this stream was handed over.
    read: Bytes,
    inbound: Walker,
    outbound: Walker,
    meter: Meter,
}

impl<IO> Metered<IO> {
    /// The side of a server: the peer begins with the preface.
    pub(crate) fn server(io: IO, read: Bytes, budgets: Budgets) -> Self {
        Self::new(io, read, budgets, PREFACE.len(), 0)
    }

    /// The side of a client: this side begins with the preface.
    pub(crate) fn client(io: IO, budgets: Budgets) -> Self {
        Self::new(io, Bytes::new(), budgets, 0, PREFACE.len())
    }

    fn new(io: IO, read: Bytes, budgets: Budgets, skip_in: usize, skip_out: usize) -> Self {
        let meter = Meter { budgets, started: Instant::now(), counts: Counts::default(), block: Block::default(), signals: Rc::default() };
        Self { io, read, inbound: Walker::new(skip_in), outbound: Walker::new(skip_out), meter }
    }

    pub(crate) fn signals(&self) -> Rc<Signals> {
        Rc::clone(&self.meter.signals)
    }

    fn wrote(&mut self, result: &Poll<io::Result<usize>>, slices: &[IoSlice<'_>]) {
        let Poll::Ready(Ok(mut left)) = *result else { return };
        for slice in slices {
            let part = &slice[..left.min(slice.len())];
            self.outbound.walk(part, |frame, payload| self.meter.sent(frame, payload));
            left -= part.len();
            if left == 0 {
                break;
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.meter.signals.verdict.get().is_some() {
            // The driver acts on the verdict as soon as this returns: no waker is needed.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.read.is_empty() {
            match Pin::new(&mut this.io).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        } else {
            let count = this.read.len().min(buffer.remaining());
            buffer.put_slice(&this.read[..count]);
            this.read.advance(count);
        }
        this.inbound.walk(buffer.filled().get(before..).unwrap_or_default(), |frame, _| this.meter.received(frame));
        if this.meter.signals.verdict.get().is_some() {
            buffer.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(&result, &[IoSlice::new(bytes)]);
        result
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.wrote(&result, slices);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
