//! The byte streams that connections are made of, both sides: plain, plain with bytes that were read ahead, and TLS.
//!
//! One enum instead of a trait object, so that a plain connection costs a branch. Vectored writes reach the kernel, or TLS, as they are.

use std::io::{self, IoSlice, Read};
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use rustls::pki_types::CertificateDer;
use rustls::{ConnectionCommon, SideData};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Calls a method of whichever socket it is.
macro_rules! on_socket {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl Socket {
    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        on_socket!(self, socket => socket.try_read(buffer))
    }

    /// Writes what fits, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits.
    pub fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        on_socket!(self, socket => socket.try_write_vectored(buffers))
    }

    /// This side's address; none on a Unix socket. A system call.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        on_socket!(self, socket => socket.as_fd())
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_socket!(self.get_mut(), socket => Pin::new(socket).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_socket!(self.get_mut(), socket => Pin::new(socket).poll_write(cx, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        on_socket!(self.get_mut(), socket => Pin::new(socket).poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(cx))
    }
}

/// A stream whose first bytes were read already: they come first.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// A stream of which nothing was read.
    pub fn new(inner: S) -> Self {
        Self { prefix: Bytes::new(), inner }
    }

    /// A stream of which `prefix` was read.
    pub fn with_prefix(inner: S, prefix: Bytes) -> Self {
        Self { prefix, inner }
    }

    /// Takes the bytes that were read ahead and not read again.
    pub fn take_prefix(&mut self) -> Bytes {
        std::mem::take(&mut self.prefix)
    }

    /// The stream behind.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn read_prefix(&mut self, room: usize) -> Bytes {
        let piece = self.prefix.split_to(room.min(self.prefix.len()));
        if !self.prefix.has_remaining() {
            // Lets go of the buffer.
            self.prefix = Bytes::new();
        }
        piece
    }
}

impl Prefixed<Socket> {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.prefix.is_empty() {
            return self.inner.try_read(buffer);
        }
        let piece = self.read_prefix(buffer.len());
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buffer);
        }
        let piece = this.read_prefix(buffer.remaining());
        buffer.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// A TLS stream, of either side.
pub type Tls = TlsStream<Prefixed<Socket>>;

/// A connection, ready to be served, or to an upstream.
#[derive(Debug)]
pub enum Io {
    /// TCP, nothing read ahead.
    Tcp(TcpStream),
    /// A Unix socket, nothing read ahead.
    Unix(UnixStream),
    /// Plain, with first bytes that were looked at.
    Prefixed(Box<Prefixed<Socket>>),
    /// TLS.
    Tls(Box<Tls>),
}

impl From<Socket> for Io {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(socket) => Self::Tcp(socket),
            Socket::Unix(socket) => Self::Unix(socket),
        }
    }
}

impl Io {
    /// A plain stream of which `prefix` was read already.
    #[must_use]
    pub fn plain(socket: Socket, prefix: Bytes) -> Self {
        if prefix.is_empty() { socket.into() } else { Self::Prefixed(Box::new(Prefixed::with_prefix(socket, prefix))) }
    }

    /// Reads what is there, without waiting and without registering for a wake-up.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read(buffer),
            Self::Unix(socket) => socket.try_read(buffer),
            Self::Prefixed(stream) => stream.try_read(buffer),
            Self::Tls(stream) => match stream.as_mut() {
                TlsStream::Server(stream) => {
                    let (io, session) = stream.get_mut();
                    try_read_tls(io, session, buffer)
                }
                TlsStream::Client(stream) => {
                    let (io, session) = stream.get_mut();
                    try_read_tls(io, session, buffer)
                }
            },
        }
    }

    /// Takes the bytes of a plain stream that were read ahead: a codec may begin with them instead of copying them.
    pub fn take_prefix(&mut self) -> Bytes {
        match self {
            Self::Prefixed(stream) => stream.take_prefix(),
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => Bytes::new(),
        }
    }

    /// Whether it is TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The protocol that ALPN chose.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Tcp(_) | Self::Unix(_) | Self::Prefixed(_) => None,
        }
    }

    /// The version of TLS, as attributes name it: `TLSv1.3`.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.protocol_version().map(version_name),
            Self::Tcp(_) | Self::Unix(_) | Self::Prefixed(_) => None,
        }
    }

    /// The certificates that the other side presented, its own first; verified.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default(),
            Self::Tcp(_) | Self::Unix(_) | Self::Prefixed(_) => &[],
        }
    }

    /// This side's address; none on a Unix socket. A system call.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
            Self::Prefixed(stream) => stream.inner.local_addr(),
            Self::Tls(stream) => stream.get_ref().0.inner.local_addr(),
        }
    }
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
            Self::Prefixed(stream) => stream.inner.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.inner.as_fd(),
        }
    }
}

/// How attributes name a version of TLS.
pub(crate) fn version_name(version: rustls::ProtocolVersion) -> &'static str {
    match version {
        rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
        rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "unknown",
    }
}

/// A socket as blocking code sees it: it never blocks, it says `WouldBlock`.
struct Now<'a>(&'a mut Prefixed<Socket>);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

fn try_read_tls<C, D>(io: &mut Prefixed<Socket>, session: &mut C, buffer: &mut [u8]) -> io::Result<usize>
where
    C: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
{
    loop {
        match session.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        session.read_tls(&mut Now(io))?;
        session.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
}

/// Calls a method of whichever stream it is.
macro_rules! on_stream {
    ($io:expr, $inner:ident => $call:expr) => {
        match $io {
            Io::Tcp($inner) => $call,
            Io::Unix($inner) => $call,
            Io::Prefixed($inner) => $call,
            Io::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
