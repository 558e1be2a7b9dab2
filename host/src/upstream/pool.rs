//! Connections to upstreams, kept by the worker that opened them.
//!
//! What always holds: a connection carries at most one HTTP/1 exchange, or as many HTTP/2 streams as both sides allow; it goes back to its endpoint's
//! pool only after a complete exchange that left it clean; an idle connection on which anything arrives, the end included, is not used again. For
//! HTTP/2 there is one connect in flight per endpoint, and requests that find one wait for it.
//!
//! Nothing here is shared between threads. What a pool counts for all workers (connections, waiting requests) are the cluster's circuit breakers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_model::config::UpstreamProtocol;

use super::balancer::{self, Balancer, PickContext, Unavailable};
use super::options::Discovery;
use super::{Address, ClusterState, Permit, SubsetId};
use crate::http::fields::{Fields, Known};
use crate::http::h1::client::{H1Upstream, UpstreamConnection};
use crate::http::h2::{self, ClientHandle, H2Upstream};
use crate::http::{BodyLength, Frame, Outgoing, ResetReason, StreamError, Upstream};
use crate::observe::metrics::ClusterMetrics;
use crate::tls::accept::ConnectionInfo;
use crate::tls::client::ClientTls;
use crate::tls::io::Io;
use crate::worker::Worker;

/// An attempt at an endpoint whose connections are kept here.
pub type Attempt = balancer::Attempt<HostPool>;

/// How long an idle HTTP/1 connection is kept, unless the cluster says otherwise: less than most servers keep it.
const IDLE: Duration = Duration::from_secs(90);

/// A cluster on one worker.
pub struct WorkerCluster {
    name: Arc<str>,
    state: Arc<ClusterState>,
    tls: Option<Arc<ClientTls>>,
    balancer: Rc<RefCell<Balancer<HostPool>>>,
    worker: Rc<Worker>,
    metrics: ClusterMetrics,
    /// By the label sets that routes ask for.
    subsets: RefCell<Vec<(BTreeMap<String, String>, SubsetId)>>,
    /// Spare connections that are being opened.
    warming: Cell<usize>,
}

/// What a worker keeps with an endpoint.
#[derive(Default)]
pub struct HostPool {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Shared>>,
    /// Requests that wait for the HTTP/2 connect in flight; `None` when there is none.
    waiting: RefCell<Option<Vec<tokio::sync::oneshot::Sender<()>>>>,
}

struct Idle {
    connection: Box<UpstreamConnection>,
    server_name: Option<Rc<str>>,
    since: Instant,
}

struct Shared {
    handle: ClientHandle,
    server_name: Option<Rc<str>>,
    used: Rc<Cell<Instant>>,
}

/// A connection, or one that is on its way.
pub enum Leased {
    /// A kept one.
    Ready(Lease),
    /// A new one.
    Connecting(Connecting),
}

/// A connection that is on its way.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Lease, ConnectError>>>>;

/// A new connection.
enum Dialled {
    Http1(Box<UpstreamConnection>),
    Http2(ClientHandle),
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// A circuit breaker is open.
    Overflow,
    /// It took too long.
    TimedOut,
    /// Nobody accepted it.
    Refused,
    /// The secure connection could not be made.
    Tls,
}

/// One exchange on a connection to an upstream.
pub enum Lease {
    /// Alone on an HTTP/1 connection.
    H1(H1Upstream),
    /// A stream of an HTTP/2 connection.
    H2(H2Upstream),
}

impl Lease {
    /// Whether anything of the request has left for the upstream.
    #[must_use]
    pub fn wrote(&self) -> bool {
        match self {
            Self::H1(upstream) => upstream.wrote(),
            Self::H2(_) => true,
        }
    }
}

impl std::fmt::Debug for WorkerCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WorkerCluster({})", self.name)
    }
}

impl WorkerCluster {
    /// A cluster on `worker`.
    #[must_use]
    pub fn new(state: Arc<ClusterState>, tls: Option<Arc<ClientTls>>, worker: &Rc<Worker>) -> Self {
        let balancer = Balancer::new(Arc::clone(&state), fastrand::u64(..), worker.now());
        let (name, metrics) = (state.name().into(), worker.process().metrics.cluster(state.name()));
        Self {
            name,
            state,
            tls,
            balancer: Rc::new(RefCell::new(balancer)),
            worker: Rc::clone(worker),
            metrics,
            subsets: RefCell::default(),
            warming: Cell::default(),
        }
    }

    /// The same cluster with new settings: keeps connections if they still fit.
    #[must_use]
    pub fn renew(self: Rc<Self>, state: Arc<ClusterState>, tls: Option<Arc<ClientTls>>) -> Rc<Self> {
        let same_tls = match (&self.tls, &tls) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if Arc::ptr_eq(&self.state, &state) && same_tls {
            return self;
        }
        // Connections stay if a new one would be made the same way.
        let (old, new) = (self.state.config(), state.config());
        let keep = same_tls
            && old.protocol == new.protocol
            && old.proxy_protocol == new.proxy_protocol
            && old.source_address == new.source_address;
        self.balancer.borrow_mut().replace(Arc::clone(&state), keep, self.worker.now());
        Rc::new(Self {
            name: Arc::clone(&self.name),
            state,
            tls,
            balancer: Rc::clone(&self.balancer),
            worker: Rc::clone(&self.worker),
            metrics: self.metrics.clone(),
            subsets: RefCell::default(),
            warming: Cell::default(),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Whether this is its name.
    #[must_use]
    #[inline]
    pub fn is_named(&self, name: &str) -> bool {
        *self.name == *name
    }

    /// What all workers share of it.
    #[must_use]
    pub fn state(&self) -> &Arc<ClusterState> {
        &self.state
    }

    /// Its numbers.
    #[must_use]
    pub fn metrics(&self) -> &ClusterMetrics {
        &self.metrics
    }

    /// Its worker.
    #[must_use]
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    /// When there is none, or too many requests are in progress.
    #[inline]
    pub fn attempt(&self, context: &PickContext<'_>) -> Result<Attempt, Unavailable> {
        self.balancer.borrow_mut().attempt(context)
    }

    /// The number of a route's label set.
    #[must_use]
    pub fn subset(&self, labels: &BTreeMap<String, String>, more: Option<&BTreeMap<String, String>>) -> SubsetId {
        if labels.is_empty() && more.is_none_or(BTreeMap::is_empty) {
            return SubsetId::ALL;
        }
        let mut all = labels.clone();
        all.extend(more.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        let mut known = self.subsets.borrow_mut();
        if let Some((_, id)) = known.iter().find(|(labels, _)| *labels == all) {
            return *id;
        }
        let id = self.state.subset(&all);
        if known.len() < 1024 {
            known.push((all, id));
        }
        id
    }

    /// Where a request goes in a cluster of original destinations.
    #[must_use]
    pub fn destination(&self, original: Option<std::net::SocketAddr>, request: &Fields) -> Option<Address> {
        let Discovery::OriginalDestination { header, .. } = &self.state.options().discovery else { return None };
        let named = header.as_ref().and_then(|name| std::str::from_utf8(request.get(name.as_bytes())?).ok()?.parse().ok());
        named.or_else(|| original.map(Address::from))
    }

    /// Where a connection goes in a cluster of original destinations.
    #[must_use]
    pub fn original(&self, original: Option<std::net::SocketAddr>) -> Option<Address> {
        matches!(self.state.options().discovery, Discovery::OriginalDestination { .. }).then(|| original.map(Address::from)).flatten()
    }

    /// A new connection for bytes as they are, with its place among the cluster's connections.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open_raw(&self, attempt: &Attempt, info: &ConnectionInfo) -> Result<(Io, Permit), ConnectError> {
        let pending = self.state.pending_permit().map_err(|_| ConnectError::Overflow)?;
        let endpoint = attempt.target().endpoint();
        let permit = self.state.connection_permit(endpoint).map_err(|_| ConnectError::Overflow)?;
        let opening = super::connect::open(&self.state, self.tls.as_deref(), endpoint, None, false, info.peer);
        let opened = tokio::time::timeout(self.state.options().connect_timeout, opening).await.map_err(|_| ConnectError::TimedOut)??;
        drop(pending);
        Ok((opened.io, permit))
    }

    /// A connection for one exchange.
    pub fn lease(self: &Rc<Self>, attempt: &Attempt, request: &Fields, from_http2: bool) -> Leased {
        let target = attempt.target();
        let host = target.local();
        let server_name = self.server_name(target.endpoint(), request);
        let http2 = match self.state.options().protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Negotiate => self.secures(target.endpoint()),
            UpstreamProtocol::LikeDownstream => from_http2,
        };
        if let Some(lease) = http2.then(|| host.stream(server_name.as_deref(), self.worker.instant())).flatten() {
            return Leased::Ready(Lease::H2(lease));
        }
        let may_be_http1 = !http2 || self.state.options().protocol == UpstreamProtocol::Negotiate;
        if may_be_http1 && let Some(connection) = host.take_idle(server_name.as_deref()) {
            return Leased::Ready(Lease::H1(H1Upstream::new(connection, Rc::clone(target), server_name)));
        }
        let cluster = Rc::clone(self);
        let target = Rc::clone(target);
        Leased::Connecting(Box::pin(async move { cluster.connect(target, server_name, http2).await }))
    }

    fn secures(&self, endpoint: &super::Endpoint) -> bool {
        self.tls.is_some() && !endpoint.plaintext
    }

    /// The name that a secure connection is for, when it depends on the request.
    fn server_name(&self, endpoint: &super::Endpoint, request: &Fields) -> Option<Rc<str>> {
        let tls = self.tls.as_ref().filter(|_| !endpoint.plaintext)?;
        let host = (!endpoint.hostname.is_empty()).then_some(&*endpoint.hostname);
        if !tls.depends_on_request(host) {
            return None;
        }
        let (host, _) = crate::route::split_port(request.authority());
        Some(std::str::from_utf8(host).ok()?.into())
    }

    async fn connect(
        self: Rc<Self>,
        target: Rc<balancer::Target<HostPool>>,
        server_name: Option<Rc<str>>,
        http2: bool,
    ) -> Result<Lease, ConnectError> {
        let pending = self.state.pending_permit().map_err(|_| ConnectError::Overflow)?;
        let host = target.local();
        if http2 {
            while let Some(ready) = host.wait() {
                let _ = ready.await;
                if let Some(stream) = host.stream(server_name.as_deref(), self.worker.instant()) {
                    return Ok(Lease::H2(stream));
                }
            }
        }
        // Whoever waits is woken however this ends.
        let _flight = http2.then(|| Flight::begin(host));
        let dialled = self.dial(&target, server_name.as_deref(), http2).await?;
        drop(pending);
        match dialled {
            Dialled::Http1(connection) => Ok(Lease::H1(H1Upstream::new(connection, Rc::clone(&target), server_name))),
            Dialled::Http2(handle) => {
                let stream = handle.open().ok_or(ConnectError::Refused)?;
                host.share(handle, server_name);
                Ok(Lease::H2(stream))
            }
        }
    }

    async fn dial(&self, target: &balancer::Target<HostPool>, server_name: Option<&str>, http2: bool) -> Result<Dialled, ConnectError> {
        let permit = self.state.connection_permit(target.endpoint()).map_err(|_| ConnectError::Overflow)?;
        let opening = super::connect::open(&self.state, self.tls.as_deref(), target.endpoint(), server_name, http2, None);
        let opened = tokio::time::timeout(self.state.options().connect_timeout, opening).await.map_err(|_| ConnectError::TimedOut)??;
        if !opened.is_http2 {
            return Ok(Dialled::Http1(Box::new(UpstreamConnection::new(opened.io, permit, &self.worker))));
        }
        let options = h2::ClientOptions { concurrent_streams: self.state.options().max_concurrent_streams, ..Default::default() };
        let (handle, driver) = h2::connect(opened.io, &options).await.map_err(|_| ConnectError::Refused)?;
        tokio::task::spawn_local(drive(driver, permit));
        Ok(Dialled::Http2(handle))
    }

    /// Opens what is missing of the spare connections that the cluster wants. For a slow timer of the worker.
    pub fn warm(self: &Rc<Self>) {
        let wanted = self.state.options().warm_connections as usize;
        if wanted == 0 {
            return;
        }
        let context = PickContext { now: self.worker.now(), ..PickContext::default() };
        let mut balancer = self.balancer.borrow_mut();
        let targets = balancer.targets(context.now);
        let spare: usize = targets.iter().map(|target| target.local().spare()).sum();
        if targets.is_empty() {
            return;
        }
        for _ in spare + self.warming.get()..wanted {
            let Some(target) = balancer.pick(&context) else { return };
            self.warming.set(self.warming.get() + 1);
            let cluster = Rc::clone(self);
            tokio::task::spawn_local(async move {
                cluster.warm_up(&target).await;
                cluster.warming.set(cluster.warming.get() - 1);
            });
        }
    }

    /// One spare connection. One that is secured under a request's own name cannot be there before the request.
    async fn warm_up(&self, target: &balancer::Target<HostPool>) {
        let (endpoint, host) = (target.endpoint(), target.local());
        if self.server_name(endpoint, &Fields::new()).is_some() {
            return;
        }
        let http2 = match self.state.options().protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::LikeDownstream => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Negotiate => self.secures(endpoint),
        };
        match self.dial(target, None, http2).await {
            Ok(Dialled::Http1(connection)) => host.give_back(connection, None, Instant::now()),
            Ok(Dialled::Http2(handle)) => host.share(handle, None),
            Err(error) => tracing::debug!(target: "upstream", cluster = &*self.name, ?error, "no spare connection"),
        }
    }

    /// Closes what was idle for too long. For a slow timer of the worker.
    pub fn sweep(&self, now: Instant) {
        let options = self.state.options();
        let idle = options.idle_timeout;
        let mut balancer = self.balancer.borrow_mut();
        balancer.expire(self.worker.now());
        for target in balancer.targets(self.worker.now()) {
            target.local().sweep(now, idle.unwrap_or(IDLE), idle.unwrap_or(Duration::from_secs(3600)));
        }
    }
}

async fn drive(driver: impl Future<Output = ()>, permit: Permit) {
    driver.await;
    drop(permit);
}

/// The HTTP/2 connect in flight to an endpoint.
struct Flight<'a>(&'a HostPool);

impl<'a> Flight<'a> {
    fn begin(host: &'a HostPool) -> Self {
        host.waiting.borrow_mut().get_or_insert_default();
        Self(host)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        for waiting in self.0.waiting.take().into_iter().flatten() {
            // Who waited may have given up.
            let _ = waiting.send(());
        }
    }
}

impl HostPool {
    /// An idle connection on which nothing has happened.
    #[inline]
    fn take_idle(&self, server_name: Option<&str>) -> Option<Box<UpstreamConnection>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut last = match server_name {
                None => idle.pop()?,
                Some(_) => {
                    let at = idle.iter().rposition(|idle| idle.server_name.as_deref() == server_name)?;
                    idle.remove(at)
                }
            };
            if last.connection.is_usable() {
                return Some(last.connection);
            }
        }
    }

    /// Takes a connection back after a clean exchange.
    pub fn give_back(&self, connection: Box<UpstreamConnection>, server_name: Option<Rc<str>>, now: Instant) {
        self.idle.borrow_mut().push(Idle { connection, server_name, since: now });
    }

    /// Lets others use a connection, too.
    fn share(&self, handle: ClientHandle, server_name: Option<Rc<str>>) {
        self.shared.borrow_mut().push(Shared { handle, server_name, used: Rc::new(Cell::new(Instant::now())) });
    }

    /// Connections that could be used at once.
    fn spare(&self) -> usize {
        self.idle.borrow().len() + self.shared.borrow().iter().filter(|shared| shared.handle.can_open()).count()
    }

    /// A stream of a connection that has room for one.
    fn stream(&self, server_name: Option<&str>, now: Instant) -> Option<H2Upstream> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|shared| !(shared.handle.is_closed() || shared.handle.is_leaving() && shared.handle.active() == 0));
        let fits = |shared: &&Shared| shared.server_name.as_deref() == server_name && shared.handle.can_open();
        let chosen = shared.iter().filter(fits).min_by_key(|shared| shared.handle.active())?;
        chosen.used.set(now);
        chosen.handle.open()
    }

    /// A place among those who wait for the connect in flight, if there is one.
    fn wait(&self) -> Option<tokio::sync::oneshot::Receiver<()>> {
        let mut waiting = self.waiting.borrow_mut();
        let (send, receive) = tokio::sync::oneshot::channel();
        waiting.as_mut()?.push(send);
        Some(receive)
    }

    fn sweep(&self, now: Instant, idle: Duration, idle_http2: Duration) {
        self.idle.borrow_mut().retain_mut(|kept| now.saturating_duration_since(kept.since) < idle && kept.connection.is_usable());
        self.shared.borrow_mut().retain(|shared| {
            let unused = shared.handle.active() == 0 && now.saturating_duration_since(shared.used.get()) >= idle_http2;
            !shared.handle.is_closed() && !unused
        });
    }
}

/// An upgrade of HTTP/1 as an extended CONNECT of HTTP/2.
fn as_connect(head: &Fields) -> Fields {
    let mut connect = Fields::new();
    connect.copy_from(head);
    connect.remove_known(Known::Upgrade);
    connect.set_known(Known::Method, b"CONNECT");
    connect.set_known(Known::Protocol, head.get_known(Known::Upgrade).unwrap_or_default());
    connect
}

macro_rules! on_both {
    ($self:ident, $upstream:ident => $do:expr) => {
        match $self {
            Self::H1($upstream) => $do,
            Self::H2($upstream) => $do,
        }
    };
}

impl Outgoing for Lease {
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        on_both!(self, upstream => upstream.poll_ready(cx))
    }

    fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError> {
        on_both!(self, upstream => upstream.send_data(data, end))
    }

    fn send_trailers(&mut self, trailers: &Fields) -> Result<(), StreamError> {
        on_both!(self, upstream => upstream.send_trailers(trailers))
    }

    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        on_both!(self, upstream => upstream.poll_flush(cx))
    }

    fn reset(&mut self, reason: ResetReason) {
        on_both!(self, upstream => upstream.reset(reason));
    }
}

impl Upstream for Lease {
    fn send_head(&mut self, head: &Fields, body: BodyLength) -> Result<(), StreamError> {
        match self {
            Self::H2(upstream) if body == BodyLength::Tunnel && head.has(Known::Upgrade) => upstream.send_head(&as_connect(head), body),
            Self::H1(upstream) => upstream.send_head(head, body),
            Self::H2(upstream) => upstream.send_head(head, body),
        }
    }

    #[inline]
    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut Fields) -> Poll<Result<BodyLength, StreamError>> {
        on_both!(self, upstream => upstream.poll_head(cx, head))
    }

    #[inline]
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        on_both!(self, upstream => upstream.poll_frame(cx))
    }

    #[inline]
    fn is_end(&self) -> bool {
        on_both!(self, upstream => upstream.is_end())
    }
}
