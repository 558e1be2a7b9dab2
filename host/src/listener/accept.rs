//! Accepting connections on one worker, and handing each to what serves it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use super::limits::{AcceptBackoff, AcceptFailures, ConnectionGuard, admit};
use super::socket::ListenSocket;
use super::sockets::{Fate, Sockets};
use crate::http::connection::Connection;
use crate::http::{h1, h2_serve};
use crate::observe::metrics::{Detailed, ListenerCounter, ListenerLevel, ListenerMetrics};
use crate::snapshot::{Protocol, SnapshotListener};
use crate::tls::accept::{Accepted, Alpn, accept};
use crate::tls::io::Socket;
use crate::worker::{Ending, Ticket, Worker, WorkerSnapshot};
use weir_model::config::HttpVersions;

/// How long to wait after an error that is not the listener's fault.
const PAUSE: Duration = Duration::from_millis(10);
/// A queue that ends is over when nothing came for so long: handshakes that were in progress have completed.
const QUIET: Duration = Duration::from_millis(250);
/// The same where the queue may get new connections until it is closed.
const UNGUARDED: Duration = Duration::from_millis(20);
/// A queue that ends is closed after so long, whatever still comes.
pub(crate) const LONGEST: Duration = Duration::from_secs(2);

/// The listeners of a worker that accept.
#[derive(Default)]
pub struct Listening {
    running: HashMap<(Arc<str>, String), Running>,
}

struct Running {
    sockets: Arc<Sockets>,
    accepting: Vec<(Rc<Acceptor>, AbortHandle)>,
}

impl Listening {
    /// Starts listeners that are new and ends those that are gone; what waits for these is served as it was in `before`. Those that stay are not
    /// touched.
    pub fn update(&mut self, worker: &Rc<Worker>, before: Option<&Rc<WorkerSnapshot>>, now: &Rc<WorkerSnapshot>) {
        let key = |listener: &SnapshotListener| (Arc::clone(&listener.name), listener.bound.clone());
        let listeners = &now.shared.listeners;
        let wanted: Vec<_> = listeners.iter().map(|listener| key(listener)).collect();
        let gone: Vec<_> = self.running.keys().filter(|known| !wanted.contains(known)).cloned().collect();
        for (name, bound) in gone {
            let Some(running) = self.running.remove(&(Arc::clone(&name), bound)) else { continue };
            // Another listener may have taken the address over.
            let stays = listeners.iter().any(|listener| Arc::ptr_eq(&listener.sockets, &running.sockets));
            running.end(worker, &name, before.filter(|_| !stays));
        }
        for listener in listeners {
            if self.running.contains_key(&key(listener)) {
                continue;
            }
            match Running::start(worker, listener) {
                Ok(running) => drop(self.running.insert(key(listener), running)),
                Err(error) => tracing::error!(target: "listener", listener = &*listener.name, "cannot accept: {error}"),
            }
        }
    }

    /// Ends all; what waits for them is served as in `current`.
    pub fn stop(&mut self, worker: &Rc<Worker>, current: Option<&Rc<WorkerSnapshot>>) {
        for ((name, _), running) in self.running.drain() {
            running.end(worker, &name, current);
        }
    }
}

impl Running {
    fn start(worker: &Rc<Worker>, listener: &SnapshotListener) -> std::io::Result<Self> {
        let mut accepting = Vec::new();
        for socket in listener.sockets.of_worker(worker.id())? {
            let acceptor = Rc::new(Acceptor::new(socket)?);
            let task = tokio::task::spawn_local(listen(Rc::clone(worker), Arc::clone(&listener.name), Rc::clone(&acceptor)));
            accepting.push((acceptor, task.abort_handle()));
        }
        Ok(Self { sockets: Arc::clone(&listener.sockets), accepting })
    }

    /// Stops. What waits in queues that nobody else will serve is accepted first, and served as in `last`.
    fn end(self, worker: &Rc<Worker>, name: &Arc<str>, last: Option<&Rc<WorkerSnapshot>>) {
        if last.is_some() {
            self.sockets.close();
        }
        let quiet = match self.sockets.fate() {
            Fate::Open | Fate::Handed => None,
            Fate::Closed => Some(QUIET),
            Fate::ClosedUnguarded => Some(UNGUARDED),
        };
        for (acceptor, task) in self.accepting {
            task.abort();
            if let (Some(last), Some(quiet)) = (last, quiet) {
                let guard = worker.process().ending();
                tokio::task::spawn_local(finish(Rc::clone(worker), Rc::clone(last), Arc::clone(name), acceptor, quiet, guard));
            }
        }
    }
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: ListenSocket) -> std::io::Result<Self> {
        match socket {
            ListenSocket::Tcp(listener) => Ok(Self::Tcp(TcpListener::from_std(listener)?)),
            ListenSocket::Unix(listener) => Ok(Self::Unix(UnixListener::from_std(listener)?)),
        }
    }

    async fn accept(&self) -> std::io::Result<(Socket, Option<std::net::SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept().await?.0), None)),
        }
    }
}

async fn listen(worker: Rc<Worker>, name: Arc<str>, acceptor: Rc<Acceptor>) {
    let metrics = worker.process().metrics.listener(&name);
    let mut backoff = AcceptBackoff::default();
    let failures = AcceptFailures::default();
    loop {
        match acceptor.accept().await {
            Ok((socket, peer)) => {
                backoff.succeeded();
                if let Some(snapshot) = worker.snapshot() {
                    take(&worker, snapshot, &metrics, &name, socket, peer);
                }
            }
            Err(error) => {
                tracing::warn!(target: "listener", listener = &*name, "accept: {error}");
                tokio::time::sleep(backoff.failed(&error, &failures).unwrap_or(PAUSE)).await;
            }
        }
    }
}

/// Accepts what waits in a queue that ends.
async fn finish(worker: Rc<Worker>, last: Rc<WorkerSnapshot>, name: Arc<str>, acceptor: Rc<Acceptor>, quiet: Duration, _ending: Ending) {
    let metrics = worker.process().metrics.listener(&name);
    let accept_all = async {
        while let Ok(accepted) = tokio::time::timeout(quiet, acceptor.accept()).await {
            match accepted {
                Ok((socket, peer)) => take(&worker, Rc::clone(&last), &metrics, &name, socket, peer),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    let _ = tokio::time::timeout(LONGEST, accept_all).await;
}

/// Begins to serve a connection, if there is room for it.
fn take(
    worker: &Rc<Worker>,
    snapshot: Rc<WorkerSnapshot>,
    metrics: &ListenerMetrics,
    name: &Arc<str>,
    socket: Socket,
    peer: Option<std::net::SocketAddr>,
) {
    let Some(listener) = snapshot.shared.listener(name).cloned() else { return };
    let Some(guard) = admit(&worker.process().connections, &listener.connections) else {
        worker.metrics.detail(metrics, Detailed::ConnectionRefusal, "too_many_connections");
        return;
    };
    if worker.is_overloaded() {
        worker.metrics.detail(metrics, Detailed::ConnectionRefusal, "overload");
        return;
    }
    worker.metrics.listener(metrics, ListenerCounter::Connections);
    worker.metrics.listener_level(metrics, ListenerLevel::Connections, 1);
    let open = Open { worker: Rc::clone(worker), metrics: metrics.clone(), _guard: guard };
    tokio::task::spawn_local(serve(snapshot, listener, socket, peer, worker.ticket(), open));
}

/// A connection's share of what is counted and limited; given back when it is dropped.
struct Open {
    worker: Rc<Worker>,
    metrics: ListenerMetrics,
    _guard: ConnectionGuard,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.metrics.listener_level(&self.metrics, ListenerLevel::Connections, -1);
    }
}

/// Serves a connection as the current configuration says; where it has no such listener any more, as the one says that it was accepted with.
async fn serve(
    accepted: Rc<WorkerSnapshot>,
    listener: Arc<SnapshotListener>,
    socket: Socket,
    peer: Option<std::net::SocketAddr>,
    ticket: Ticket,
    open: Open,
) {
    let Open { worker, metrics, .. } = &open;
    let Accepted { io, info, branch } = match accept(&listener.compiled, socket, peer, &worker.accepting).await {
        Ok(accepted) => accepted,
        Err(refusal) => {
            if refusal.is_tls() {
                worker.metrics.listener(metrics, ListenerCounter::TlsFailures);
            }
            worker.metrics.detail(metrics, Detailed::ConnectionRefusal, refusal.detail());
            tracing::debug!(target: "listener", listener = &*listener.name, ?peer, "refused: {}", refusal.detail());
            return;
        }
    };
    if let Some(tls) = &info.tls {
        worker.metrics.listener(metrics, ListenerCounter::TlsHandshakes);
        if tls.resumed {
            worker.metrics.listener(metrics, ListenerCounter::TlsResumed);
        }
    }
    let (Some(branch), Some(snapshot)) = (listener.branches.get(branch), worker.snapshot()) else { return };
    match &branch.protocol {
        Protocol::Tcp(_) => {
            let of = |snapshot: &WorkerSnapshot| snapshot.tcp_service(&listener.name, &branch.name);
            let Some(service) = of(&snapshot).or_else(|| of(&accepted)) else { return };
            drop((snapshot, accepted));
            Box::pin(service.serve(io, info, ticket)).await;
        }
        Protocol::Http(options) => {
            let of = |snapshot: &WorkerSnapshot| snapshot.http_service(&listener.name, &branch.name);
            let Some(service) = of(&snapshot).or_else(|| of(&accepted)) else { return };
            drop((snapshot, accepted));
            let negotiated = info.tls.as_ref().map(|tls| tls.alpn.clone());
            let connection = Rc::new(Connection::new(&io, info, service));
            let http2 = negotiated == Some(Alpn::Http2) || options.versions == HttpVersions::Http2Only;
            if http2 {
                Box::pin(h2_serve::serve(io, bytes::Bytes::new(), connection, ticket)).await;
                return;
            }
            let may_be_http2 = options.versions == HttpVersions::All && negotiated.is_none();
            if let h1::server::Served::Http2(io, read, ticket) = h1::server::serve(io, Rc::clone(&connection), ticket, may_be_http2).await {
                Box::pin(h2_serve::serve(io, read, connection, ticket)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, E, F, T>(_: fn(A, B, C, D, E, F) -> T) -> usize {
        size_of::<T>()
    }

    /// An idle connection is its sockets and this.
    #[test]
    fn a_connection_is_small() {
        let task = size(serve);
        assert!(task <= 2048, "{task} bytes");
    }
}
