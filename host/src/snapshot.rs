//! A whole configuration, compiled: what workers serve from.
//!
//! Compiling is done off the workers and finds everything that is wrong, by resource. What always holds: a snapshot is complete (every cluster, chain
//! and certificate that it names is in it); what has not changed since the last one is the same object, so that its connections, instances and
//! counters go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use weir_model::config::{self, branch};
use weir_model::resource::Kind;
use weir_wasm::Kind as ChainKind;

use crate::filter::chain::{ChainLoader, LoadedChain};
use crate::http::service::HttpOptions;
use crate::listener::accept::LONGEST;
use crate::listener::limits::ConnectionCount;
use crate::listener::socket::{ListenAddress, ListenSocket, SocketOptions, adjust, bind};
use crate::listener::sockets::Sockets;
use crate::observe::access_log::{AccessLogs, Format, Sink};
use crate::source::{Key, Rejection, Resources};
use crate::tcp::TcpOptions;
use crate::tls::accept::CompiledListener;
use crate::tls::client::ClientTls;
use crate::tls::server::Resumption;
use crate::tls::store::SecretStore;
use crate::upstream::clusters::{ClusterTable, Clusters, Prepared};
use crate::upstream::{ClusterState, Invalid};

/// A configuration that workers can serve from.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up from 1.
    pub generation: u64,
    /// Whether every source has had its say.
    pub complete: bool,
    /// Every cluster.
    pub clusters: Vec<SnapshotCluster>,
    /// Every chain that something uses.
    pub chains: Vec<LoadedChain>,
    /// Every listener.
    pub listeners: Vec<Arc<SnapshotListener>>,
    /// Keys and roots.
    pub secrets: Arc<SecretStore>,
    /// What it was made from.
    pub resources: Resources,
}

/// A cluster with how it is secured.
#[derive(Debug)]
pub struct SnapshotCluster {
    /// What all workers share.
    pub state: Arc<ClusterState>,
    /// `None` is plain text.
    pub tls: Option<Arc<ClientTls>>,
}

/// A listener with its sockets.
#[derive(Debug)]
pub struct SnapshotListener {
    /// Its name.
    pub name: Arc<str>,
    /// The address with its real port.
    pub bound: String,
    /// How a connection finds its branch.
    pub compiled: CompiledListener,
    /// In the order of the configuration, the default one last.
    pub branches: Vec<SnapshotBranch>,
    /// Open connections.
    pub connections: Arc<ConnectionCount>,
    /// Where it accepts.
    pub sockets: Arc<Sockets>,
}

/// One way to serve connections.
#[derive(Debug)]
pub struct SnapshotBranch {
    /// Its name; its number if it has none.
    pub name: Arc<str>,
    /// What is spoken.
    pub protocol: Protocol,
}

/// What a branch speaks.
#[derive(Debug)]
pub enum Protocol {
    /// HTTP.
    Http(Arc<HttpOptions>),
    /// Bytes.
    Tcp(Arc<TcpOptions>),
}

impl Snapshot {
    /// The listener of this name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Arc<SnapshotListener>> {
        self.listeners.iter().find(|listener| &*listener.name == name)
    }
}

/// How clusters are secured, for health checks: they connect outside of workers.
#[derive(Debug, Default)]
pub struct Secured(Mutex<HashMap<String, Arc<ClientTls>>>);

impl Secured {
    /// How connections to a cluster are secured.
    #[must_use]
    pub fn get(&self, cluster: &str) -> Option<Arc<ClientTls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(cluster).cloned()
    }

    fn set(&self, tls: HashMap<String, Arc<ClientTls>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tls;
    }
}

/// Makes snapshots, one after another.
pub struct Compiler {
    chains: ChainLoader,
    clusters: Clusters,
    prepared: Option<Prepared>,
    secured: Arc<Secured>,
    resumption: Arc<Resumption>,
    access_logs: Arc<AccessLogs>,
    workers: usize,
    generation: AtomicU64,
    last: Option<Arc<Snapshot>>,
    /// By their key. Kept until a snapshot without them serves.
    sockets: HashMap<String, Arc<Sockets>>,
    /// A predecessor's, until the first complete snapshot serves.
    inherited: HashMap<String, Vec<ListenSocket>>,
    /// When sockets were last closed: until workers have emptied their queues, their addresses are taken.
    closed: Option<Instant>,
}

/// A listener without sockets.
struct Unbound {
    compiled: CompiledListener,
    branches: Vec<SnapshotBranch>,
}

/// Longer than workers take to empty a queue.
const EMPTYING: Duration = LONGEST.saturating_add(Duration::from_secs(1));

type Rejections = Vec<Rejection>;

fn reject(kind: Kind, name: &str, reason: &dyn std::fmt::Display) -> Rejection {
    Rejection::new(Key::new(kind, name), reason.to_string())
}

impl Compiler {
    /// A compiler for this many workers. `inherited` are a predecessor's sockets by key.
    #[must_use]
    pub fn new(
        chains: ChainLoader,
        clusters: Clusters,
        secured: Arc<Secured>,
        resumption: Arc<Resumption>,
        access_logs: Arc<AccessLogs>,
        workers: usize,
        inherited: HashMap<String, Vec<ListenSocket>>,
    ) -> Self {
        let generation = AtomicU64::new(0);
        Self {
            chains,
            clusters,
            prepared: None,
            secured,
            resumption,
            access_logs,
            workers,
            generation,
            last: None,
            sockets: HashMap::new(),
            inherited,
            closed: None,
        }
    }

    /// Compiles `resources`. Blocks: it reads files, compiles filters and binds sockets.
    ///
    /// # Errors
    /// Every resource that stands in the way, and why.
    pub fn compile(&mut self, resources: &Resources, complete: bool) -> Result<Arc<Snapshot>, Rejections> {
        let mut rejected = Rejections::new();
        let secrets = self.secrets(resources, &mut rejected);
        let tls = cluster_tls(resources, &secrets, self.last.as_deref(), &mut rejected);
        let chains = self.chains(resources, &mut rejected);
        let mut listeners = Vec::new();
        for (listener, _) in resources.listeners() {
            match self.listener(listener, &secrets, &listeners) {
                Ok(compiled) => listeners.push(Arc::new(compiled)),
                Err(reason) => rejected.push(reject(Kind::Listener, &listener.name, &reason)),
            }
        }
        if !rejected.is_empty() {
            return Err(rejected);
        }
        let prepared = self.prepare_clusters(resources)?;
        let clusters = prepared
            .table()
            .iter()
            .map(|state| SnapshotCluster { tls: tls.get(state.name()).cloned(), state: Arc::clone(state) })
            .collect();
        self.secured.set(tls);
        self.prepared = Some(prepared);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Arc::new(Snapshot { generation, complete, clusters, chains, listeners, secrets, resources: resources.clone() }))
    }

    /// Whether `resources` could serve: all that [`Compiler::compile`] does, but no address is taken and nothing is kept. Filters are loaded, started,
    /// configured and probed.
    ///
    /// # Errors
    /// Every resource that stands in the way, and why.
    pub fn check(&mut self, resources: &Resources) -> Result<(), Rejections> {
        let mut rejected = Rejections::new();
        let secrets = self.secrets(resources, &mut rejected);
        cluster_tls(resources, &secrets, None, &mut rejected);
        self.chains(resources, &mut rejected);
        for (listener, _) in resources.listeners() {
            if let Err(reason) = self.unbound(listener, &secrets) {
                rejected.push(reject(Kind::Listener, &listener.name, &reason));
            }
        }
        if let Err(clusters) = self.prepare_clusters(resources) {
            rejected.extend(clusters);
        }
        if rejected.is_empty() { Ok(()) } else { Err(rejected) }
    }

    /// Workers are ready for what was compiled last: its endpoints become visible, its lookups and checks begin.
    /// Their table, to wait for the first of these.
    pub fn commit_clusters(&mut self) -> Option<Arc<ClusterTable>> {
        Some(self.clusters.commit(self.prepared.take()?))
    }

    /// `snapshot` serves: what only older ones needed is let go.
    pub fn committed(&mut self, snapshot: &Arc<Snapshot>) {
        self.last = Some(Arc::clone(snapshot));
        self.abandoned();
        if snapshot.complete {
            self.inherited.clear();
        }
    }

    /// What was compiled last will not serve: sockets that were opened for it are closed, for nobody would accept.
    pub fn abandoned(&mut self) {
        let (last, inherited) = (self.last.as_ref(), &self.inherited);
        self.sockets.retain(|key, sockets| {
            let in_use = last.is_some_and(|last| last.listeners.iter().any(|listener| Arc::ptr_eq(&listener.sockets, sockets)));
            match in_use {
                true => {}
                // The predecessor serves them still.
                false if inherited.contains_key(key) => sockets.hand_over(),
                false => {
                    sockets.close();
                    self.closed = Some(Instant::now());
                }
            }
            in_use
        });
    }

    fn prepare_clusters(&self, resources: &Resources) -> Result<Prepared, Rejections> {
        let clusters: Vec<_> = resources.clusters().map(|(cluster, _)| Arc::clone(cluster)).collect();
        let endpoints = resources.all_endpoints().map(|(endpoints, _)| (endpoints.name.clone(), Arc::clone(endpoints))).collect();
        // The path begins with what it is about: `clusters[NAME]`, `endpoints[NAME]`.
        let rejection = |error: Invalid| {
            let (kind, name) = subject(&error.path);
            reject(kind, name, &error)
        };
        self.clusters.prepare(&clusters, &endpoints).map_err(|errors| errors.into_iter().map(rejection).collect())
    }

    fn secrets(&self, resources: &Resources, rejected: &mut Rejections) -> Arc<SecretStore> {
        let given: Vec<config::Secret> = resources.secrets().map(|(secret, _)| config::Secret::clone(secret)).collect();
        match SecretStore::build(&given, &|path| std::fs::read(path)) {
            Ok(store) => Arc::new(store),
            Err(errors) => {
                rejected.extend(errors.into_iter().map(|error| reject(Kind::Secret, &error.secret, &error)));
                Arc::default()
            }
        }
    }

    /// Loads the chains that listeners name.
    fn chains(&mut self, resources: &Resources, rejected: &mut Rejections) -> Vec<LoadedChain> {
        let mut wanted: Vec<(&config::FilterChain, ChainKind)> = Vec::new();
        for (listener, _) in resources.listeners() {
            for branch in listener.branches.iter().chain(&listener.default_branch) {
                let (name, kind) = match &branch.protocol {
                    Some(branch::Protocol::Http(http)) => (&http.filter_chain, ChainKind::Http),
                    Some(branch::Protocol::Tcp(tcp)) => (&tcp.filter_chain, ChainKind::Tcp),
                    None => continue,
                };
                if name.is_empty() || wanted.iter().any(|(chain, _)| chain.name == *name) {
                    continue;
                }
                match resources.filter_chain(name) {
                    Some(chain) => wanted.push((chain, kind)),
                    None => rejected.push(reject(Kind::Listener, &listener.name, &format!("there is no filter chain {name:?}"))),
                }
            }
        }
        match self.chains.load(&wanted) {
            Ok(chains) => chains,
            Err(errors) => {
                rejected.extend(errors.into_iter().map(|(name, error)| reject(Kind::FilterChain, &name, &error)));
                Vec::new()
            }
        }
    }

    fn listener(
        &mut self,
        listener: &config::Listener,
        secrets: &SecretStore,
        others: &[Arc<SnapshotListener>],
    ) -> Result<SnapshotListener, String> {
        let name: Arc<str> = listener.name.as_str().into();
        let Unbound { mut compiled, branches } = self.unbound(listener, secrets)?;
        let transparent = listener.original_destination() == config::OriginalDestination::Transparent;
        let options = SocketOptions::new(listener.tcp.as_ref(), transparent);
        let sockets = self.bind(&name, &listener.address, &options)?;
        if let Some(other) = others.iter().find(|other| Arc::ptr_eq(&other.sockets, &sockets)) {
            return Err(format!("address: the listener {:?} has this address", other.name));
        }
        let bound = sockets.address();
        if let Some(ListenAddress::Tcp(address)) = &bound {
            compiled.set_port(address.port());
        }
        let before = self.last.as_ref().and_then(|last| last.listener(&name));
        let connections = before.map_or_else(Arc::default, |before| Arc::clone(&before.connections));
        connections.set_most(u64::from(listener.max_connections));
        let bound = bound.map_or_else(|| listener.address.clone(), |bound| bound.to_string());
        Ok(SnapshotListener { name, bound, compiled, branches, connections, sockets })
    }

    /// All of a listener but its sockets.
    fn unbound(&self, listener: &config::Listener, secrets: &SecretStore) -> Result<Unbound, String> {
        let name: Arc<str> = listener.name.as_str().into();
        let compiled = CompiledListener::compile(listener, secrets, &self.resumption)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let mut branches = Vec::new();
        for (at, branch) in listener.branches.iter().chain(&listener.default_branch).enumerate() {
            let field = if at < listener.branches.len() { format!("branches[{at}]") } else { "defaultBranch".to_owned() };
            branches.push(self.branch(&name, at, branch).map_err(|error| format!("{field}: {error}"))?);
        }
        Ok(Unbound { compiled, branches })
    }

    fn branch(&self, listener: &Arc<str>, at: usize, branch: &config::Branch) -> Result<SnapshotBranch, String> {
        let name = if branch.name.is_empty() { at.to_string() } else { branch.name.clone() };
        let protocol = match &branch.protocol {
            Some(branch::Protocol::Http(http)) => {
                let sink = self.sink(http.access_log.as_ref())?;
                let options = HttpOptions::compile(listener, &name, http, sink).map_err(|error| format!("http.{error}"))?;
                Protocol::Http(Arc::new(options))
            }
            Some(branch::Protocol::Tcp(tcp)) => {
                let sink = self.sink(tcp.access_log.as_ref())?;
                Protocol::Tcp(Arc::new(TcpOptions::compile(listener, &name, tcp, sink).map_err(|error| error.to_string())?))
            }
            None => return Err("one of http, tcp must be set".into()),
        };
        Ok(SnapshotBranch { name: name.as_str().into(), protocol })
    }

    fn sink(&self, log: Option<&config::AccessLog>) -> Result<Option<Sink>, String> {
        let Some(log) = log.filter(|log| !log.path.is_empty()) else { return Ok(None) };
        let format = match log.format() {
            config::access_log::Format::Text => Format::Text,
            config::access_log::Format::Json => Format::Json,
        };
        self.access_logs.sink(&log.path, format).map(Some)
    }

    /// The sockets of an address: those in use, a predecessor's, or new ones.
    fn bind(&mut self, listener: &str, address: &str, options: &SocketOptions) -> Result<Arc<Sockets>, String> {
        let parsed: ListenAddress = address.parse().map_err(|error| format!("address: {error}"))?;
        let failed = |error: std::io::Error| format!("address: cannot listen on {address}: {error}");
        let key = Sockets::key(&parsed, listener);
        if let Some(sockets) = self.sockets.get(&key) {
            sockets.adjust(options).map_err(failed)?;
            return Ok(Arc::clone(sockets));
        }
        // Out of the map only when they serve: a configuration that is refused gives them back.
        let inherited: Option<std::io::Result<Vec<_>>> =
            self.inherited.get(&key).map(|sockets| sockets.iter().map(ListenSocket::try_clone).collect());
        let sockets = match inherited {
            Some(sockets) => {
                let sockets = sockets.map_err(failed)?;
                sockets.iter().try_for_each(|socket| adjust(socket, options)).map_err(failed)?;
                sockets
            }
            None => self.bind_new(&parsed, options).map_err(failed)?,
        };
        let sockets = Arc::new(Sockets::new(key.clone(), sockets, *options, self.workers).map_err(failed)?);
        self.sockets.insert(key, Arc::clone(&sockets));
        Ok(sockets)
    }
}

impl Compiler {
    /// New sockets; waits for an address that this process itself is about to give up.
    fn bind_new(&self, address: &ListenAddress, options: &SocketOptions) -> std::io::Result<Vec<ListenSocket>> {
        loop {
            match bind(address, options, self.workers) {
                Err(error)
                    if error.kind() == std::io::ErrorKind::AddrInUse && self.closed.is_some_and(|closed| closed.elapsed() < EMPTYING) =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                bound => return bound,
            }
        }
    }
}

/// How each cluster is secured. What has not changed is the same object, so that connections stay.
fn cluster_tls(
    resources: &Resources,
    secrets: &SecretStore,
    last: Option<&Snapshot>,
    rejected: &mut Rejections,
) -> HashMap<String, Arc<ClientTls>> {
    let mut compiled = HashMap::new();
    for (cluster, _) in resources.clusters() {
        let Some(tls) = &cluster.tls else { continue };
        let same = |last: &Snapshot| {
            let unchanged = last
                .resources
                .cluster(&cluster.name)
                .is_some_and(|before| before.tls == cluster.tls && before.protocol == cluster.protocol);
            let secret = |name: &str| last.resources.secret(name) == resources.secret(name);
            let kept = unchanged && secret(&tls.trust_roots) && secret(&tls.certificate);
            kept.then(|| last.clusters.iter().find(|known| known.state.name() == cluster.name)?.tls.clone()).flatten()
        };
        let offered: &[&[u8]] = match cluster.protocol() {
            config::UpstreamProtocol::Http1 => &[],
            config::UpstreamProtocol::Http2 => &[b"h2"],
            config::UpstreamProtocol::Negotiate | config::UpstreamProtocol::LikeDownstream => &[b"h2", b"http/1.1"],
        };
        match last.and_then(same).map_or_else(|| ClientTls::compile(tls, offered, secrets).map(Arc::new), Ok) {
            Ok(tls) => {
                if tls.is_insecure() {
                    tracing::warn!(target: "config", cluster = cluster.name, "tls.insecureSkipVerify: servers of this cluster are not verified");
                }
                compiled.insert(cluster.name.clone(), tls);
            }
            Err(error) => rejected.push(reject(Kind::Cluster, &cluster.name, &format!("tls.{error}"))),
        }
    }
    compiled
}

/// Which resource a path of the upstream side is about.
fn subject(path: &str) -> (Kind, &str) {
    let kind = if path.starts_with("endpoints") { Kind::Endpoints } else { Kind::Cluster };
    let name = path.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(name, _)| name);
    (kind, name)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use weir_wasm::{Engine, EngineOptions};

    use super::*;
    use crate::source::{Entry, Value};
    use crate::upstream::clusters::Services;
    use crate::upstream::health::{ConnectRequest, Connector, Io};

    struct NoConnector;

    impl Connector for NoConnector {
        fn connect(&self, _: ConnectRequest) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Box<dyn Io>>> + Send>> {
            Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) })
        }
    }

    fn compiler() -> Compiler {
        let services = Services {
            handle: tokio::runtime::Handle::current(),
            now: Arc::new(|| 0),
            connector: Arc::new(NoConnector),
            node: Arc::default(),
            resolver: None,
        };
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let (resumption, logs) = (Resumption::new().unwrap(), AccessLogs::start().unwrap());
        Compiler::new(ChainLoader::new(engine), Clusters::new(services), Arc::default(), resumption, logs, 2, HashMap::new())
    }

    fn listeners(named: &[(&str, &str)]) -> Resources {
        let entry = |(name, address): &(&str, &str)| {
            let tcp = branch::Protocol::Tcp(config::Tcp::default());
            let branches = vec![config::Branch { protocol: Some(tcp), ..config::Branch::default() }];
            let listener = config::Listener { name: (*name).into(), address: (*address).into(), branches, ..config::Listener::default() };
            Entry { value: Value::Listener(Arc::new(listener)), version: "1".into(), origin: "test".into() }
        };
        named.iter().map(entry).collect()
    }

    #[tokio::test]
    async fn every_listener_has_an_address_of_its_own() {
        let mut compiler = compiler();
        let any = "127.0.0.1:0";
        let snapshot = compiler.compile(&listeners(&[("one", any), ("two", any)]), true).unwrap();
        let [one, two] = &snapshot.listeners[..] else { panic!("two listeners") };
        assert_ne!(one.bound, two.bound);
        // Discovery brings listeners one by one: that each is valid alone does not say that they are together.
        let folder = tempfile::tempdir().unwrap();
        let unix = format!("unix:{}", folder.path().join("s.sock").display());
        let rejected = compiler.compile(&listeners(&[("a", &unix), ("b", &unix)]), true).unwrap_err();
        assert_eq!((rejected[0].key.name.as_ref(), rejected[0].reason.as_str()), ("b", "address: the listener \"a\" has this address"));
    }

    #[tokio::test]
    async fn sockets_of_a_snapshot_that_never_serves_are_closed() {
        let mut compiler = compiler();
        let serves = compiler.compile(&listeners(&[("one", "127.0.0.1:0")]), true).unwrap();
        compiler.committed(&serves);
        let refused = compiler.compile(&listeners(&[("one", "127.0.0.1:0"), ("two", "127.0.0.1:0")]), true).unwrap();
        let bound = |snapshot: &Snapshot, name: &str| snapshot.listener(name).unwrap().bound.clone();
        let (one, two) = (bound(&refused, "one"), bound(&refused, "two"));
        assert_eq!(one, bound(&serves, "one"));
        assert!(TcpStream::connect(&two).is_ok());
        compiler.abandoned();
        assert_eq!(TcpStream::connect(&two).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(TcpStream::connect(&one).is_ok());
    }
}
