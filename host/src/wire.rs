//! The bytes of one connection, in and out: buffers that exist only while something is in them.
//!
//! Reading goes to the worker's own large buffer, of which a connection keeps the piece that was read; what a body leaves is handed on without a copy.
//! An idle connection holds no buffer at all, so ten thousand of them cost their sockets and tasks only.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio_rustls::TlsStream;

use crate::http::StreamError;
use crate::tls::io::Io;
use crate::worker::Worker;

/// What is read at once from TLS, whose library fills what it is given with zeros first.
const TLS_READ: usize = 16 << 10;
/// Plain text that one record of TLS holds.
const TLS_RECORD: usize = 16 << 10;
/// What is read at once otherwise.
const READ: usize = 256 << 10;
/// Room that a read must at least have.
const LEAST_ROOM: usize = 32 << 10;
/// A piece of a message that begins in one read and goes on in the next grows by this much.
const GROW: usize = 8 << 10;
/// Pieces up to this size are copied behind what is staged instead of written from their own place.
const COPY: usize = 8 << 10;
/// More than this waiting to be written stops the other side.
const HIGH_WATER: usize = 256 << 10;
/// Pieces of one write.
const SLICES: usize = 32;

pub(crate) struct Wire {
    pub(crate) io: Io,
    /// What was read and not used.
    pub(crate) input: BytesMut,
    /// What is written next: whole pieces first, then what is staged.
    queue: VecDeque<Bytes>,
    pub(crate) staged: Vec<u8>,
    /// How much of `staged` was written.
    written: usize,
    queued: usize,
    /// The other side learns that nothing more comes, once everything is written.
    ending: bool,
    /// Nothing follows what waits, in either direction.
    last: bool,
    /// TLS has said goodbye.
    parted: bool,
    worker: Rc<Worker>,
    is_tls: bool,
}

impl Wire {
    pub(crate) fn new(io: Io, worker: &Rc<Worker>) -> Self {
        let is_tls = matches!(io, Io::Tls(_));
        let (input, queue, staged) = (BytesMut::new(), VecDeque::new(), Vec::new());
        let (ending, last, parted) = (false, false, false);
        Self { io, input, queue, staged, written: 0, queued: 0, ending, last, parted, worker: Rc::clone(worker), is_tls }
    }

    /// Reads more into `input`; 0 is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let most = if self.is_tls { TLS_READ } else { READ };
        if !self.input.is_empty() {
            self.input.reserve(GROW);
            return tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input);
        }
        // Lets go of the worker's buffer, so that it can be used again from its start.
        self.input = BytesMut::new();
        let mut scratch = self.worker.scratch();
        // From its hot beginning, unless somebody still holds a piece of it.
        if scratch.capacity() < READ && !scratch.try_reclaim(READ) && scratch.capacity() < LEAST_ROOM {
            scratch.reserve(READ);
        }
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut (&mut *scratch).limit(most));
        self.input = scratch.split();
        read
    }

    /// Reads if that is possible at once. False: not now. At the end `input` stays empty.
    pub(crate) fn poll_fill_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, ()> {
        if !self.input.is_empty() {
            return Ok(true);
        }
        match self.poll_fill(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(_)) => Err(()),
        }
    }

    /// Takes bytes off the front of `input`, and lets go of the buffer with the last one.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        if count >= self.input.len() {
            self.input = BytesMut::new();
        } else {
            self.input.advance(count);
        }
    }

    /// Its worker.
    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Keeps what is left of a read in a place of its own, if that is little: a slow sender must not keep the worker's buffer.
    pub(crate) fn settle(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        } else if self.input.len() < GROW {
            self.input = BytesMut::from(&*self.input);
        }
    }

    /// Room for a head, or for the framing of a body.
    #[inline]
    pub(crate) fn stage(&mut self) -> &mut Vec<u8> {
        if self.staged.capacity() == 0 {
            self.staged = self.worker.take_buffer();
        }
        &mut self.staged
    }

    /// Queues a piece of a body.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() <= COPY {
            self.stage().extend_from_slice(&data);
            return;
        }
        if self.staged.len() > self.written {
            let mut staged = Bytes::from(std::mem::take(&mut self.staged));
            staged.advance(self.written);
            self.written = 0;
            self.queued += staged.len();
            self.queue.push_back(staged);
        }
        self.queued += data.len();
        self.queue.push_back(data);
    }

    /// Nothing more will be pushed or staged: closes this direction after what waits. The other one goes on.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }

    /// What waits is the last of the connection. TLS says goodbye with it, where it fits into one record.
    #[inline]
    pub(crate) fn part(&mut self) {
        self.last = true;
    }

    /// Whether the socket can be closed as it is, once everything is written.
    pub(crate) fn is_closable(&self) -> bool {
        !self.is_tls || self.parted
    }

    /// Bytes that wait to be written.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.queued + self.staged.len() - self.written
    }

    #[inline]
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.waiting() < HIGH_WATER {
            return Poll::Ready(Ok(()));
        }
        match self.poll_write(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(StreamError::Closed)),
            _ if self.waiting() < HIGH_WATER => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    #[inline]
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.waiting() == 0 && !self.is_tls && !self.ending {
            return Poll::Ready(Ok(()));
        }
        if ready!(self.poll_write(cx)).is_err() {
            return Poll::Ready(Err(StreamError::Closed));
        }
        if self.ending {
            // A peer that is gone already needs no farewell.
            let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            self.ending = false;
        }
        if self.is_tls {
            return Pin::new(&mut self.io).poll_flush(cx).map_err(|_| StreamError::Closed);
        }
        Poll::Ready(Ok(()))
    }

    fn write_last(&mut self) -> io::Result<()> {
        let Io::Tls(stream) = &mut self.io else { return Ok(()) };
        let TlsStream::Server(stream) = &mut **stream else { return Ok(()) };
        let session = stream.get_mut().1;
        let mut slices = [IoSlice::new(&[]); SLICES];
        let rest = self.staged.get(self.written..).unwrap_or_default();
        let pieces = self.queue.iter().map(|piece| &**piece).chain([rest]);
        let used = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
        let count = session.writer().write_vectored(&slices[..used])?;
        self.parted = count == self.queued + rest.len();
        if self.parted {
            session.send_close_notify();
        }
        self.wrote(count);
        Ok(())
    }

    /// Writes until nothing waits.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_tls && self.last && (1..=TLS_RECORD).contains(&self.waiting()) {
            self.write_last()?;
        }
        while self.waiting() > 0 {
            let count = if self.queue.is_empty() {
                let rest = self.staged.get(self.written..).unwrap_or_default();
                ready!(Pin::new(&mut self.io).poll_write(cx, rest))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let rest = self.staged.get(self.written..).unwrap_or_default();
                let pieces = self.queue.iter().map(|piece| &**piece).chain([rest]);
                let used = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
                ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..used]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(count);
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut count: usize) {
        while count > 0
            && let Some(first) = self.queue.front_mut()
        {
            let part = count.min(first.len());
            first.advance(part);
            self.queued -= part;
            count -= part;
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
        self.written += count;
        if self.written >= self.staged.len() {
            self.written = 0;
            self.staged.clear();
        }
    }

    /// Gives buffers back that are not needed while the connection is idle.
    pub(crate) fn rest(&mut self) {
        if self.staged.is_empty() && self.staged.capacity() > 0 {
            self.worker.give_buffer(std::mem::take(&mut self.staged));
        }
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
        self.settle();
    }
}
