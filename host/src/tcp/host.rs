//! A TCP connection as its filters see it: attributes, and a way to be woken.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use weir_wasm::{Attribute, Chain, Headers, LocalReply, MessageMap, Path, Side, Stream, StreamHost};

use crate::tls::accept::ConnectionInfo;

/// What filters see of a connection.
pub(super) struct TcpHost {
    info: Rc<ConnectionInfo>,
    local: Option<SocketAddr>,
    cluster: Option<Arc<str>>,
    wake: Rc<Wake>,
}

/// Whether filters want to go on, and whom to tell.
#[derive(Default)]
pub(super) struct Wake {
    waker: RefCell<Option<Waker>>,
    woken: std::cell::Cell<bool>,
}

impl Wake {
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        match &*known {
            Some(known) if known.will_wake(waker) => {}
            _ => *known = Some(waker.clone()),
        }
    }

    pub(super) fn take(&self) -> bool {
        self.woken.take()
    }
}

/// The filters of a connection.
pub(super) struct Filters {
    pub(super) stream: Stream<TcpHost>,
    pub(super) wake: Rc<Wake>,
}

/// Begins a connection's way through a chain.
pub(super) fn open(chain: &Chain, info: Rc<ConnectionInfo>, local: Option<SocketAddr>, cluster: Option<Arc<str>>) -> Filters {
    let wake = Rc::<Wake>::default();
    let mut stream = Stream::new(chain, TcpHost { info, local, cluster, wake: Rc::clone(&wake) });
    stream.new_connection();
    Filters { stream, wake }
}

impl StreamHost for TcpHost {
    fn headers(&mut self, _map: MessageMap) -> Option<&mut dyn Headers> {
        None
    }

    fn make_trailers(&mut self, _side: Side) -> Option<&mut dyn Headers> {
        None
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        let (first, rest) = path.split();
        let (second, _) = rest.split();
        let text = |text: &str| Some(Attribute::Bytes(Cow::Owned(text.as_bytes().to_vec())));
        let number = |number: u16| Some(Attribute::Int(number.into()));
        match (first, second) {
            (b"source", b"address") => text(&self.info.peer?.to_string()),
            (b"source", b"port") => number(self.info.peer?.port()),
            (b"source", b"direct_address") => text(&self.info.direct_peer?.to_string()),
            (b"destination", b"address") => text(&self.local?.to_string()),
            (b"destination", b"port") => number(self.local?.port()),
            (b"connection", b"mtls") => Some(Attribute::Bool(self.info.peer_identity().is_some())),
            (b"connection", b"requested_server_name") => text(self.info.server_name.as_deref()?),
            (b"connection", b"uri_san_peer_certificate") => text(self.info.peer_identity()?.facts().uri_san()?),
            (b"xds", b"cluster_name") | (b"cluster_name", _) => text(self.cluster.as_deref()?),
            _ => None,
        }
    }

    fn start_local_reply(&mut self, _reply: &LocalReply) {}

    fn wake(&mut self) {
        self.wake.woken.set(true);
        if let Some(waker) = &*self.wake.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
