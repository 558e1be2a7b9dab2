//! One write for many frames.
//!
//! The library flushes its socket after every DATA frame, which would be a system call for every response. A [`Cork`] keeps what is written to it
//! instead, and the connection's driver lets it go through the [`Tap`] once the library has nothing more to say for now: all responses that became ready
//! together leave together.
//!
//! What always holds: bytes leave in the order in which they came; at most [`ROOM`] is kept; until the driver takes the tap (the handshake) a flush
//! flushes; a shutdown flushes first.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are kept.
pub(super) const ROOM: usize = 32 << 10;
/// What is at least this large is written from its own place, behind what is kept.
pub(super) const LARGE: usize = 8 << 10;

/// The stream that the library writes to.
#[derive(Debug)]
pub(super) struct Cork<IO> {
    kept: Rc<Kept<IO>>,
}

/// What the driver lets bytes go with.
#[derive(Debug)]
pub(super) struct Tap<IO> {
    kept: Rc<Kept<IO>>,
}

#[derive(Debug)]
struct Kept<IO> {
    stream: RefCell<Stream<IO>>,
    /// The driver flushes.
    tapped: Cell<bool>,
}

#[derive(Debug)]
struct Stream<IO> {
    io: IO,
    /// No memory while nothing is kept: most connections are idle.
    bytes: Vec<u8>,
    /// How much of `bytes` was written.
    gone: usize,
    /// Something was written since the last flush, or waits to be.
    unflushed: bool,
    /// The last write was refused.
    blocked: bool,
    /// Bytes written so far.
    written: u64,
}

impl<IO> Cork<IO> {
    pub(super) fn new(io: IO) -> (Self, Tap<IO>) {
        let stream = Stream { io, bytes: Vec::new(), gone: 0, unflushed: false, blocked: false, written: 0 };
        let kept = Rc::new(Kept { stream: RefCell::new(stream), tapped: Cell::new(false) });
        (Self { kept: Rc::clone(&kept) }, Tap { kept })
    }
}

impl<IO: AsyncWrite + Unpin> Tap<IO> {
    /// From here on nothing leaves without [`Tap::poll_flush`], unless there is no more room.
    pub(super) fn take(&self) {
        self.kept.tapped.set(true);
    }

    /// Writes what is kept.
    #[inline]
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.kept.stream.borrow_mut();
        if stream.unflushed { stream.poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Whether the last write was refused: the peer does not read.
    pub(super) fn blocked(&self) -> bool {
        self.kept.stream.borrow().blocked
    }

    /// Bytes that the peer's side took so far.
    pub(super) fn written(&self) -> u64 {
        self.kept.stream.borrow().written
    }
}

impl<IO: AsyncWrite + Unpin> Stream<IO> {
    /// Writes all that is kept.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.bytes.get(self.gone..) {
            let result = Pin::new(&mut self.io).poll_write(cx, rest);
            let count = ready!(self.count(result))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += count;
        }
        self.gone = 0;
        self.bytes = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.blocked = result.is_pending();
        if let Poll::Ready(Ok(count)) = result {
            self.written = self.written.wrapping_add(count as u64);
        }
        result
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if length >= LARGE || self.bytes.len() + length > ROOM {
            ready!(self.poll_empty(cx))?;
        }
        self.unflushed = true;
        if length >= LARGE {
            let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
            return self.count(result);
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(ROOM);
        }
        slices.iter().for_each(|slice| self.bytes.extend_from_slice(slice));
        Poll::Ready(Ok(length))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Cork<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.kept.stream.borrow_mut().io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Cork<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.kept.stream.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.kept.stream.borrow_mut().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kept.tapped.get() { Poll::Ready(Ok(())) } else { self.kept.stream.borrow_mut().poll_flush(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.kept.stream.borrow_mut();
        ready!(stream.poll_flush(cx))?;
        Pin::new(&mut stream.io).poll_shutdown(cx)
    }
}
