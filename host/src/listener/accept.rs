//! Accepting connections on one worker, and handing each to what serves it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use super::limits::{AcceptBackoff, AcceptFailures, ConnectionGuard, admit};
use super::socket::ListenSocket;
use crate::http::connection::Connection;
use crate::http::{h1, h2_serve};
use crate::observe::metrics::{Detailed, ListenerCounter, ListenerLevel, ListenerMetrics};
use crate::snapshot::{Protocol, Snapshot, SnapshotListener};
use crate::tls::accept::{Accepted, Alpn, accept};
use crate::tls::io::Socket;
use crate::worker::{Ticket, Worker};
use weir_model::config::HttpVersions;

/// How long to wait after an error that is not the listener's fault.
const PAUSE: Duration = Duration::from_millis(10);

/// The listeners of a worker that accept.
#[derive(Default)]
pub struct Listening {
    running: HashMap<(Arc<str>, String), Vec<AbortHandle>>,
}

impl Listening {
    /// Starts listeners that are new and stops those that are gone. Those that stay are not touched.
    pub fn update(&mut self, worker: &Rc<Worker>, snapshot: &Snapshot) {
        let key = |listener: &SnapshotListener| (Arc::clone(&listener.name), listener.bound.clone());
        let wanted: Vec<_> = snapshot.listeners.iter().map(|listener| key(listener)).collect();
        self.running.retain(|known, tasks| {
            let stays = wanted.contains(known);
            if !stays {
                tasks.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        for listener in &snapshot.listeners {
            if self.running.contains_key(&key(listener)) {
                continue;
            }
            let sockets = match listener.sockets.of_worker(worker.id()) {
                Ok(sockets) => sockets,
                Err(error) => {
                    tracing::error!(target: "listener", listener = &*listener.name, "cannot use the socket: {error}");
                    continue;
                }
            };
            let start = |socket| tokio::task::spawn_local(listen(Rc::clone(worker), Arc::clone(&listener.name), socket)).abort_handle();
            self.running.insert(key(listener), sockets.into_iter().map(start).collect());
        }
    }

    /// Stops all.
    pub fn stop(&mut self) {
        self.running.drain().flat_map(|(_, tasks)| tasks).for_each(|task| task.abort());
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

async fn listen(worker: Rc<Worker>, name: Arc<str>, socket: ListenSocket) {
    let acceptor = match Acceptor::new(socket) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(target: "listener", listener = &*name, "cannot accept: {error}");
            return;
        }
    };
    let metrics = worker.process().metrics.listener(&name);
    let mut backoff = AcceptBackoff::default();
    let failures = AcceptFailures::default();
    loop {
        match acceptor.accept().await {
            Ok((socket, peer)) => {
                backoff.succeeded();
                take(&worker, &name, &metrics, socket, peer);
            }
            Err(error) => {
                tracing::warn!(target: "listener", listener = &*name, "accept: {error}");
                tokio::time::sleep(backoff.failed(&error, &failures).unwrap_or(PAUSE)).await;
            }
        }
    }
}

/// Begins to serve a connection, if there is room for it.
fn take(worker: &Rc<Worker>, name: &Arc<str>, metrics: &ListenerMetrics, socket: Socket, peer: Option<std::net::SocketAddr>) {
    let Some(snapshot) = worker.snapshot() else { return };
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
    tokio::task::spawn_local(serve(listener, socket, peer, worker.ticket(), open));
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

async fn serve(listener: Arc<SnapshotListener>, socket: Socket, peer: Option<std::net::SocketAddr>, ticket: Ticket, open: Open) {
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
            let Some(service) = snapshot.tcp_service(&listener.name, &branch.name) else { return };
            drop(snapshot);
            Box::pin(service.serve(io, info, ticket)).await;
        }
        Protocol::Http(options) => {
            let Some(service) = snapshot.http_service(&listener.name, &branch.name) else { return };
            drop(snapshot);
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

    fn size<A, B, C, D, E, F>(_: fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle connection is its sockets and this.
    #[test]
    fn a_connection_is_small() {
        let task = size(serve);
        assert!(task <= 2048, "{task} bytes");
    }
}
