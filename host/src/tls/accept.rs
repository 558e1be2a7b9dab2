//! From an accepted socket to a connection that a branch can serve: PROXY header, original destination, first bytes, branch, handshake.
//!
//! What a listener does not need is not done: where one branch serves everything in plain text, [`accept`] is a few moves without a system call,
//! a timer or an allocation. Everything else happens under a deadline and in bounded buffers, and ends in a [`Refusal`] with a stable name.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::HandshakeKind;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use weir_model::config::proxy_protocol::Mode;
use weir_model::config::{Branch, Http, Listener, OriginalDestination, branch};

use super::io::{Io, Prefixed, Socket, version_name};
use super::peer::PeerIdentity;
use super::refusal::{Refusal, RefusalCounts};
use super::server::{Resumption, ServerTls, Speaks};
use super::sniff::{Detected, SniffError, Sniffer};
use super::store::{KeyEntry, SecretStore};
use super::{TlsError, duration};
use crate::listener::cidr::{self, Cidr};
use crate::listener::limits::Handshakes;
use crate::listener::matching::{ConnectionFacts, Matcher, parse_ranges};
use crate::listener::proxy_protocol::{self, Parsed, ProxyHeader};
use crate::listener::socket::{ListenAddress, is_of_this_machine, original_destination};

const DEFAULT_DETECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much is read at a time while looking; a ClientHello with post-quantum keys fits.
const READ: usize = 2048;

/// A listener's part in this, compiled for a snapshot.
#[derive(Debug)]
pub struct CompiledListener {
    matcher: Matcher,
    branches: Vec<BranchPlan>,
    default_branch: Option<usize>,
    detect_timeout: Duration,
    proxy: Option<ProxyPlan>,
    original: OriginalDestination,
    /// The address that connections arrive at, where it is the same for all.
    address: Option<SocketAddr>,
    port: Option<u16>,
    /// The branch that serves everything in plain text, if so.
    plain: Option<usize>,
}

#[derive(Debug)]
struct BranchPlan {
    tls: Option<Arc<ServerTls>>,
    /// The server may speak first: a client that says nothing is no fault.
    silent: bool,
}

#[derive(Debug)]
struct ProxyPlan {
    required: bool,
    trusted: Vec<Cidr>,
}

impl CompiledListener {
    /// Compiles a listener. Branches are numbered as in the configuration; the default branch is the number after the last.
    ///
    /// # Errors
    /// Everything that is wrong, with paths below the listener.
    pub fn compile(listener: &Listener, store: &SecretStore, resumption: &Arc<Resumption>) -> Result<Self, Vec<TlsError>> {
        let mut errors = Vec::new();
        let address: Option<ListenAddress> =
            listener.address.parse().map_err(|error| errors.push(TlsError::new("address", format!("{error}")))).ok();
        let matcher = Matcher::compile(&listener.branches);
        let mut branches = Vec::new();
        for (i, branch) in listener.branches.iter().enumerate() {
            branches.push(plan(branch, &format!("branches[{i}]"), store, resumption, &mut errors));
        }
        let default_branch = listener.default_branch.as_ref().map(|branch| {
            branches.push(plan(branch, "defaultBranch", store, resumption, &mut errors));
            branches.len() - 1
        });
        let proxy = listener.proxy_protocol.as_ref().map(|proxy| {
            let trusted = parse_ranges(&proxy.trusted).unwrap_or_else(|(i, error)| {
                errors.push(TlsError::new(format!("proxyProtocol.trusted[{i}]"), error.to_string()));
                Vec::new()
            });
            ProxyPlan { required: proxy.mode() == Mode::Required, trusted }
        });
        let matcher = match matcher {
            Ok(matcher) if errors.is_empty() => matcher,
            Ok(_) => return Err(errors),
            Err(more) => {
                errors.extend(more.into_iter().map(|error| TlsError { field: error.field, problem: error.problem }));
                return Err(errors);
            }
        };
        let bound = if let Some(ListenAddress::Tcp(address)) = address { Some(address) } else { None };
        let mut compiled = Self {
            default_branch,
            detect_timeout: listener.detect_timeout.as_ref().map(duration).filter(|time| !time.is_zero()).unwrap_or(DEFAULT_DETECT_TIMEOUT),
            proxy,
            original: listener.original_destination(),
            address: bound.filter(|address| !address.ip().is_unspecified() && address.port() != 0),
            port: bound.map(|address| address.port()).filter(|port| *port != 0),
            plain: None,
            matcher,
            branches,
        };
        compiled.plain = compiled.everything_plain();
        Ok(compiled)
    }

    /// Tells the port that was taken where the configuration left it open.
    pub fn set_port(&mut self, port: u16) {
        self.port = Some(port);
    }

    /// The branch of every connection, if nothing has to be found out first.
    #[must_use]
    pub fn plain_branch(&self) -> Option<usize> {
        self.plain
    }

    /// How a branch secures connections.
    #[must_use]
    pub fn tls(&self, branch: usize) -> Option<&Arc<ServerTls>> {
        self.branches.get(branch)?.tls.as_ref()
    }

    fn everything_plain(&self) -> Option<usize> {
        let nothing_before = self.proxy.is_none() && self.original == OriginalDestination::None;
        let only = if self.branches.len() == 1 { self.matcher.always().or(self.default_branch) } else { None };
        only.filter(|index| nothing_before && self.branches[*index].tls.is_none())
    }

    fn select(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        self.matcher.select(facts).or(self.default_branch)
    }
}

fn plan(branch: &Branch, path: &str, store: &SecretStore, resumption: &Arc<Resumption>, errors: &mut Vec<TlsError>) -> BranchPlan {
    let speaks = match &branch.protocol {
        Some(branch::Protocol::Http(http)) => Speaks::Http(Http::versions(http)),
        Some(branch::Protocol::Tcp(_)) | None => Speaks::Tcp,
    };
    let tls = branch.tls.as_ref().and_then(|tls| {
        let compiled = ServerTls::compile(tls, speaks, store, resumption);
        compiled.map(Arc::new).map_err(|error| errors.push(TlsError::new(format!("{path}.tls.{}", error.field), error.problem))).ok()
    });
    BranchPlan { tls, silent: speaks == Speaks::Tcp }
}

/// The protocol that ALPN chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// Nothing was negotiated.
    None,
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
    /// Another.
    Other(Box<[u8]>),
}

impl Alpn {
    /// From what a session negotiated.
    #[must_use]
    pub fn new(chosen: Option<&[u8]>) -> Self {
        match chosen {
            None => Self::None,
            Some(b"h2") => Self::Http2,
            Some(b"http/1.1") => Self::Http1,
            Some(other) => Self::Other(other.into()),
        }
    }
}

/// What a handshake settled.
#[derive(Debug)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite's name.
    pub cipher: &'static str,
    /// The application protocol.
    pub alpn: Alpn,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// The client, where it proved who it is.
    pub peer: Option<PeerIdentity>,
    /// This side's certificate.
    pub local: Option<Arc<KeyEntry>>,
}

impl TlsInfo {
    /// Whether both sides proved who they are.
    #[must_use]
    pub fn mtls(&self) -> bool {
        self.peer.is_some()
    }
}

/// What is known about an accepted connection.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The client: by the PROXY header, else the other end of the socket. None on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The other end of the socket.
    pub direct_peer: Option<SocketAddr>,
    /// Where the client was going before it was redirected here.
    pub original_destination: Option<SocketAddr>,
    /// The server name of the ClientHello, lower case, terminated here or not.
    pub server_name: Option<Box<str>>,
    /// What the handshake settled.
    pub tls: Option<Box<TlsInfo>>,
    local: OnceCell<Option<SocketAddr>>,
}

impl ConnectionInfo {
    /// Of a connection of which nothing but its other end is known.
    #[must_use]
    pub fn new(peer: Option<SocketAddr>) -> Self {
        Self { peer, direct_peer: peer, original_destination: None, server_name: None, tls: None, local: OnceCell::new() }
    }

    /// The address that the client connected to: by the PROXY header, else this side's of the socket. Asked of the kernel at most once, and only
    /// where the listener's address does not say.
    pub fn local(&self, socket: &Io) -> Option<SocketAddr> {
        *self.local.get_or_init(|| socket.local_addr().map(canonical))
    }

    fn local_of(&self, socket: &Socket) -> Option<SocketAddr> {
        *self.local.get_or_init(|| socket.local_addr().map(canonical))
    }

    /// The client's proven identity.
    #[must_use]
    pub fn peer_identity(&self) -> Option<&PeerIdentity> {
        self.tls.as_ref()?.peer.as_ref()
    }
}

/// A connection that a branch can serve.
#[derive(Debug)]
pub struct Accepted {
    /// Its bytes.
    pub io: Io,
    /// What is known about it.
    pub info: ConnectionInfo,
    /// The branch: its position in the configuration, or the number of branches for the default one.
    pub branch: usize,
}

/// What a worker lends to all its connections.
#[derive(Clone, Debug, Default)]
pub struct AcceptContext {
    /// Handshakes in progress on this worker.
    pub handshakes: Handshakes,
    /// Why connections were refused.
    pub refusals: Arc<RefusalCounts>,
}

/// IPv4 addresses as such, however they arrived.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Makes a connection out of a socket, or closes it for a reason that is counted.
///
/// # Errors
/// The reason; the socket is closed.
pub async fn accept(
    listener: &CompiledListener,
    socket: Socket,
    peer: Option<SocketAddr>,
    context: &AcceptContext,
) -> Result<Accepted, Refusal> {
    let mut info = ConnectionInfo::new(peer.map(canonical));
    if let Some(address) = listener.address {
        let _ = info.local.set(Some(address));
    }
    if let Some(branch) = listener.plain {
        return Ok(Accepted { io: socket.into(), info, branch });
    }
    let outcome = Box::pin(async move {
        let mut arrival = Arrival { socket, buffer: BytesMut::new(), deadline: Instant::now() + listener.detect_timeout };
        arrival.proxy_header(listener, &mut info).await?;
        arrival.destination(listener, &mut info);
        let branch = arrival.branch(listener, &mut info).await?;
        arrival.secure(listener, branch, info, context).await
    });
    outcome.await.inspect_err(|reason| context.refusals.count(*reason))
}

/// A socket and what was read of it.
struct Arrival {
    socket: Socket,
    buffer: BytesMut,
    deadline: Instant,
}

impl Arrival {
    /// Reads more, unless nothing comes in time.
    async fn more(&mut self) -> Result<(), Refusal> {
        self.buffer.reserve(READ);
        match timeout_at(self.deadline, self.socket.read_buf(&mut self.buffer)).await {
            Err(_) => Err(Refusal::DetectTimeout),
            Ok(Ok(0)) => Err(Refusal::DetectClosed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Refusal::ConnectionError),
        }
    }

    async fn proxy_header(&mut self, listener: &CompiledListener, info: &mut ConnectionInfo) -> Result<(), Refusal> {
        let Some(plan) = &listener.proxy else { return Ok(()) };
        // On a Unix socket there is no address to distrust: who may connect is the file's to say.
        let trusted = plan.trusted.is_empty() || info.peer.is_none_or(|peer| cidr::any_contains(&plan.trusted, peer.ip()));
        let absent = if plan.required { Err(Refusal::ProxyProtocolMissing) } else { Ok(()) };
        if !trusted {
            return absent;
        }
        loop {
            match proxy_protocol::parse(&self.buffer).map_err(|_| Refusal::ProxyProtocolInvalid)? {
                Parsed::Absent => return absent,
                Parsed::Header(header, length) => {
                    self.buffer.advance(length);
                    if let ProxyHeader::Proxied { source, destination } = header {
                        info.peer = Some(canonical(source));
                        info.local = OnceCell::from(Some(canonical(destination)));
                    }
                    return Ok(());
                }
                Parsed::Incomplete => match self.more().await {
                    // Where the server speaks first, a client without a header says nothing.
                    Err(Refusal::DetectTimeout) if self.buffer.is_empty() && !plan.required => {
                        self.deadline = Instant::now();
                        return Ok(());
                    }
                    other => other?,
                },
            }
        }
    }

    fn destination(&mut self, listener: &CompiledListener, info: &mut ConnectionInfo) {
        let needs = listener.matcher.needs();
        match listener.original {
            OriginalDestination::Redirect => {
                let local = info.local_of(&self.socket);
                info.original_destination = local.and_then(|local| original_destination(self.socket.as_fd(), local));
            }
            OriginalDestination::Transparent => {
                // The listener's own address says nothing: the socket's is the destination.
                if listener.proxy.is_none() {
                    info.local = OnceCell::new();
                }
                // Who connects to the listener itself was going nowhere else: this would be its own next client.
                let itself = |local: &SocketAddr| listener.port == Some(local.port()) && is_of_this_machine(local.ip());
                info.original_destination = info.local_of(&self.socket).filter(|local| !itself(local));
            }
            OriginalDestination::None if needs.destination_address || (needs.destination_port && listener.port.is_none()) => {
                info.local_of(&self.socket);
            }
            OriginalDestination::None => {}
        }
    }

    /// What branches tell apart by.
    fn select(listener: &CompiledListener, info: &ConnectionInfo, tls: bool, alpn: &[u8]) -> Option<usize> {
        let known = info.original_destination.or_else(|| info.local.get().copied().flatten());
        // Where only the port matters it is the listener's; the address is not looked at then.
        let by_port = || listener.port.filter(|_| info.peer.is_some()).map(|port| SocketAddr::new(IpAddr::from([0; 4]), port));
        let facts = ConnectionFacts {
            destination: known.or_else(by_port),
            source: info.peer.map(|peer| peer.ip()),
            tls,
            server_name: info.server_name.as_deref(),
            alpn,
        };
        listener.select(&facts)
    }

    async fn branch(&mut self, listener: &CompiledListener, info: &mut ConnectionInfo) -> Result<usize, Refusal> {
        if !listener.matcher.needs().sniff {
            return Self::select(listener, info, false, &[]).ok_or(Refusal::NoMatchingBranch);
        }
        match self.detect().await {
            Ok(Detected::Tls { server_name, alpn }) => {
                info.server_name = server_name;
                Self::select(listener, info, true, &alpn).ok_or(Refusal::NoMatchingBranch)
            }
            Ok(Detected::Plain) => Self::select(listener, info, false, &[]).ok_or(Refusal::NoMatchingBranch),
            // A client that waits for the server to speak first, if a branch is for that.
            Err(Refusal::DetectTimeout) if self.buffer.is_empty() => {
                let chosen = Self::select(listener, info, false, &[]);
                chosen
                    .filter(|branch| listener.branches[*branch].silent && listener.branches[*branch].tls.is_none())
                    .ok_or(Refusal::DetectTimeout)
            }
            Err(reason) => Err(reason),
        }
    }

    async fn detect(&mut self) -> Result<Detected, Refusal> {
        let mut sniffer = Sniffer::default();
        loop {
            match sniffer.look(&self.buffer) {
                Ok(Some(detected)) => return Ok(detected),
                Ok(None) => self.more().await?,
                Err(SniffError::Invalid) => return Err(Refusal::ClientHelloInvalid),
                Err(SniffError::TooLarge) => return Err(Refusal::ClientHelloTooLarge),
            }
        }
    }

    /// Whether a permissive branch meets plain text; the first byte says.
    async fn is_plain(&mut self, silent: bool) -> Result<bool, Refusal> {
        const HANDSHAKE: u8 = 22;
        if self.buffer.is_empty() {
            match self.more().await {
                Err(Refusal::DetectTimeout) if silent => return Ok(true),
                other => other?,
            }
        }
        Ok(self.buffer.first() != Some(&HANDSHAKE))
    }

    async fn secure(
        mut self,
        listener: &CompiledListener,
        branch: usize,
        mut info: ConnectionInfo,
        context: &AcceptContext,
    ) -> Result<Accepted, Refusal> {
        let plan = &listener.branches[branch];
        let Some(tls) = &plan.tls else {
            return Ok(Accepted { io: Io::plain(self.socket, self.buffer.freeze()), info, branch });
        };
        if tls.permissive() && self.is_plain(plan.silent).await? {
            return Ok(Accepted { io: Io::plain(self.socket, self.buffer.freeze()), info, branch });
        }
        let _place = context.handshakes.begin().ok_or(Refusal::TooManyHandshakes)?;
        let stream = handshake(tls, self.socket, self.buffer.freeze()).await?;
        let (_, session) = stream.get_ref();
        info.server_name = session.server_name().map(Into::into);
        info.tls = Some(Box::new(settled(tls, session)?));
        Ok(Accepted { io: Io::Tls(Box::new(stream.into())), info, branch })
    }
}

type ServerStream = tokio_rustls::server::TlsStream<Prefixed<Socket>>;

async fn handshake(tls: &ServerTls, socket: Socket, prefix: Bytes) -> Result<ServerStream, Refusal> {
    let acceptor = TlsAcceptor::from(Arc::clone(tls.config()));
    match timeout(tls.handshake_timeout(), acceptor.accept(Prefixed::with_prefix(socket, prefix))).await {
        Err(_) => Err(Refusal::TlsHandshakeTimeout),
        Ok(result) => result.map_err(|error| Refusal::of_handshake(&error)),
    }
}

/// What a finished handshake says. The identity of a resumed session comes from its ticket: its certificate may have expired since.
fn settled(tls: &ServerTls, session: &rustls::ServerConnection) -> Result<TlsInfo, Refusal> {
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let peer = match session.peer_certificates() {
        Some(chain) if !chain.is_empty() => Some(PeerIdentity::read(chain)?),
        _ => None,
    };
    if peer.as_ref().is_some_and(|peer| expired(resumed, peer, now())) {
        return Err(Refusal::ClientCertificateExpired);
    }
    Ok(TlsInfo {
        version: session.protocol_version().map_or("unknown", version_name),
        cipher: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        alpn: Alpn::new(session.alpn_protocol()),
        resumed,
        peer,
        local: tls.local_certificate(session.server_name()).cloned(),
    })
}

/// Whether a certificate that was good when its session began is no longer.
fn expired(resumed: bool, peer: &PeerIdentity, now: i64) -> bool {
    resumed && peer.facts().not_after < now
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|time| i64::try_from(time.as_secs()).ok()).unwrap_or(0)
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
