//! A TCP connection as its filters see it: attributes, and a way to be woken.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Instant, SystemTime};

use weir_wasm::{Attribute, Chain, Headers, LocalReply, MessageMap, Path, Side, Stream, StreamHost};

use super::Refusal;
use super::relay::Counted;
use crate::tls::accept::ConnectionInfo;

/// What filters see of a connection.
pub(super) struct TcpHost {
    info: Rc<ConnectionInfo>,
    facts: Facts,
    started: Instant,
    wake: Rc<Wake>,
    /// How it went; known when filters see its end.
    pub(super) counted: Counted,
    pub(super) end: Option<Refusal>,
    /// The endpoint's address.
    pub(super) endpoint: Option<String>,
    /// A filter has logged it, or left it out on purpose.
    pub(super) logged: bool,
}

/// What is known of a connection before its filters see it.
pub(super) struct Facts {
    pub(super) cluster: Option<Arc<str>>,
    pub(super) local: Option<SocketAddr>,
    pub(super) revision: u64,
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
pub(super) fn open(chain: &Chain, info: Rc<ConnectionInfo>, facts: Facts) -> Filters {
    let wake = Rc::<Wake>::default();
    let host = TcpHost {
        info,
        facts,
        started: Instant::now(),
        wake: Rc::clone(&wake),
        counted: Counted::default(),
        end: None,
        endpoint: None,
        logged: false,
    };
    let mut stream = Stream::new(chain, host);
    stream.new_connection();
    Filters { stream, wake }
}

impl Filters {
    /// The filters see the end. Whether one of them has logged the connection.
    pub(super) fn end(&mut self, end: Refusal, counted: Counted) -> bool {
        let mut host = self.stream.host_mut();
        (host.end, host.counted) = (Some(end), counted);
        drop(host);
        self.stream.finish();
        self.stream.host().logged
    }
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
        let number = |number: u64| Some(Attribute::Int(i64::try_from(number).unwrap_or(i64::MAX)));
        let nanos = |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let local = || self.info.tls.as_deref()?.local.as_deref()?.leaf();
        match (first, second) {
            (b"request", b"time") => {
                let wall = SystemTime::now() - self.started.elapsed();
                Some(Attribute::Time(nanos(wall.duration_since(SystemTime::UNIX_EPOCH).ok()?)))
            }
            (b"request", b"duration") => Some(Attribute::Duration(nanos(self.started.elapsed()))),
            (b"response", b"flags") => number(self.end?.1.bits().into()),
            (b"response", b"code_details") => text(self.end?.0),
            (b"connection", b"received_bytes") => number(self.counted.received),
            (b"connection", b"sent_bytes") => number(self.counted.sent),
            (b"connection", b"uri_san_local_certificate") => text(local()?.uri_san()?),
            (b"connection", b"tls_version") => text(self.info.tls.as_deref()?.version),
            (b"destination", b"address") => text(&self.facts.local?.to_string()),
            (b"destination", b"port") => number(self.facts.local?.port().into()),
            (b"upstream", b"address") => text(self.endpoint.as_deref()?),
            (b"weir", b"revision") => number(self.facts.revision),
            (b"source", b"address") => text(&self.info.peer?.to_string()),
            (b"source", b"port") => number(self.info.peer?.port().into()),
            (b"source", b"direct_address") => text(&self.info.direct_peer?.to_string()),
            (b"connection", b"mtls") => Some(Attribute::Bool(self.info.peer_identity().is_some())),
            (b"connection", b"requested_server_name") => text(self.info.server_name.as_deref()?),
            (b"connection", b"uri_san_peer_certificate") => text(self.info.peer_identity()?.facts().uri_san()?),
            (b"xds", b"cluster_name") | (b"cluster_name", _) => text(self.facts.cluster.as_deref()?),
            _ => None,
        }
    }

    fn start_local_reply(&mut self, _reply: &LocalReply) {}

    fn logged(&mut self) {
        self.logged = true;
    }

    fn wake(&mut self) {
        self.wake.woken.set(true);
        if let Some(waker) = &*self.wake.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
