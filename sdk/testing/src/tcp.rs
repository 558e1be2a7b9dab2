//! A TCP connection through the chain: bytes in at one end, out at the other.
//!
//! What always holds: every piece is taken out as soon as the filters let it go, as a proxy would send it. What it does not do: wait; a filter that paused
//! for a callout goes on with [`Connection::go_on`].

use bytes::Bytes;
use weir_wasm::{Close, Side, Stream};

use crate::MemoryStream;

/// A connection under way.
#[derive(Debug)]
pub struct Connection {
    /// The stream itself.
    pub stream: Stream<MemoryStream>,
    /// What came through, by side.
    through: [Vec<u8>; 2],
}

impl Connection {
    pub(crate) fn new(mut stream: Stream<MemoryStream>) -> Self {
        stream.new_connection();
        Self { stream, through: Default::default() }
    }

    /// The client sends these bytes.
    pub fn from_client(&mut self, bytes: &[u8]) {
        self.stream.request_body(Bytes::copy_from_slice(bytes), false);
        self.go_on();
    }

    /// The upstream sends these bytes.
    pub fn from_upstream(&mut self, bytes: &[u8]) {
        self.stream.response_body(Bytes::copy_from_slice(bytes), false);
        self.go_on();
    }

    /// The client sends nothing more, and closes.
    pub fn client_closes(&mut self) {
        self.stream.request_body(Bytes::new(), true);
        self.stream.connection_closed(Side::Request, Close::Remote);
        self.go_on();
    }

    /// The upstream sends nothing more, and closes.
    pub fn upstream_closes(&mut self) {
        self.stream.response_body(Bytes::new(), true);
        self.stream.connection_closed(Side::Response, Close::Remote);
        self.go_on();
    }

    /// Moves what can move.
    pub fn go_on(&mut self) {
        loop {
            for (side, through) in [Side::Request, Side::Response].into_iter().zip(&mut self.through) {
                through.extend_from_slice(&self.stream.take(side).data);
            }
            if std::mem::take(&mut self.stream.host_mut().wakes) == 0 {
                return;
            }
            self.stream.resume();
        }
    }

    /// What the upstream has got so far.
    #[must_use]
    pub fn to_upstream(&self) -> &[u8] {
        &self.through[0]
    }

    /// What the client has got so far.
    #[must_use]
    pub fn to_client(&self) -> &[u8] {
        &self.through[1]
    }

    /// Whether a filter has closed it, or failed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.stream.is_reset()
    }
}
