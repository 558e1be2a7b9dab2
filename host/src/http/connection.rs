//! What all requests of a downstream connection share.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::forwarded::{AddressText, ClientCert, Peer, client_cert_element};
use super::service::HttpService;
use crate::tls::accept::ConnectionInfo;
use crate::tls::io::Io;

/// A downstream connection that speaks HTTP.
#[derive(Debug)]
pub struct Connection {
    /// Unique in this process.
    pub id: u64,
    /// Who the peer is, and where it was going.
    pub info: ConnectionInfo,
    /// When it was accepted.
    pub accepted: Instant,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The branch's name.
    pub branch: Arc<str>,
    /// Requests so far.
    pub requests: Cell<u64>,
    /// Whether it turned out to speak HTTP/2.
    pub http2: Cell<bool>,
    /// What `x-forwarded-client-cert` says of the client.
    client_cert: Option<Vec<u8>>,
    /// The other end, as headers tell of it. On a Unix socket it is this machine.
    address: IpAddr,
    address_text: AddressText,
    local: Option<SocketAddr>,
    service: RefCell<Rc<HttpService>>,
}

impl Connection {
    /// A connection that `service` serves for now.
    #[must_use]
    pub fn new(io: &Io, info: ConnectionInfo, service: Rc<HttpService>) -> Self {
        let address = info.peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip());
        Self {
            id: service.worker.next_connection(),
            local: info.local(io),
            client_cert: client_cert(&info),
            address,
            address_text: AddressText::of(address),
            info,
            accepted: Instant::now(),
            listener: Arc::clone(&service.config.listener),
            branch: Arc::clone(&service.config.branch),
            requests: Cell::new(0),
            http2: Cell::new(false),
            service: RefCell::new(service),
        }
    }

    /// What serves the next request: of the newest configuration that has this listener's branch, else what served the last one.
    #[must_use]
    pub fn service(&self) -> Rc<HttpService> {
        let current = Rc::clone(&self.service.borrow());
        if current.is_current() {
            return current;
        }
        match current.successor() {
            Some(newer) => {
                *self.service.borrow_mut() = Rc::clone(&newer);
                newer
            }
            None => current,
        }
    }

    /// Whether the connection should end after what it has begun: this process drains, or the listener's branch is gone.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        let service = self.service.borrow();
        service.worker.is_draining() || (!service.is_current() && service.successor().is_none())
    }

    /// The address that the client connected to.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The other end, as headers tell of it.
    #[must_use]
    pub fn peer(&self) -> Peer<'_> {
        let text = self.address_text.as_bytes();
        Peer { address: self.address, text, tls: self.info.tls.is_some(), client_cert: self.client_cert.as_deref() }
    }

    /// `HTTP/1.1` or `HTTP/2`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if self.http2.get() { "HTTP/2" } else { "HTTP/1.1" }
    }
}

fn client_cert(info: &ConnectionInfo) -> Option<Vec<u8>> {
    let peer = info.peer_identity()?.facts();
    let local = info.tls.as_ref()?.local.as_ref().and_then(|local| local.leaf());
    let by = local.map(|local| texts(&local.uris)).unwrap_or_default();
    let (uris, dns) = (texts(&peer.uris), texts(&peer.dns));
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(peer.sha256.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0);
    }
    Some(client_cert_element(&ClientCert { by: &by, hash, subject: &peer.subject, uris: &uris, dns: &dns }))
}

fn texts(names: &[Box<str>]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}
