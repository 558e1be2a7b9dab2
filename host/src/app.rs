//! The process: builds what there is, starts it, applies configurations, drains and ends. Wiring only.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use weir_model::config::Bootstrap;
use weir_wasm::module::cache::Cache;
use weir_wasm::{Engine, EngineOptions};

use crate::filter::chain::ChainLoader;
use crate::listener::limits::Handshakes;
use crate::listener::socket::ListenSocket;
use crate::observe::access_log::AccessLogs;
use crate::observe::metrics::{FilterMetrics, Metrics, stamp};
use crate::snapshot::{Compiler, Secured, Snapshot};
use crate::source::{Apply, Kind, Outcome, Rejection, Resources, Update};
use crate::tls::accept::AcceptContext;
use crate::tls::refusal::RefusalCounts;
use crate::tls::server::Resumption;
use crate::upstream::clusters::{Clusters, Services};
use crate::upstream::endpoint::Locality;
use crate::upstream::health::{ConnectRequest, Connector, Io};
use crate::worker::{Command, Process, Worker};

/// How long a drain may take unless the configuration says otherwise.
const DRAIN: Duration = Duration::from_secs(45);
/// How long a configuration waits for the first addresses and health checks of its clusters.
const WARM_UP: Duration = Duration::from_secs(5);
/// Most that compiled modules may take on disk.
const CACHE_BYTES: u64 = 1 << 30;

/// The workers of a process, from outside.
pub struct Workers {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// What they share.
    pub process: Arc<Process>,
    /// Why connections were refused before anything was said.
    pub refusals: Arc<RefusalCounts>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(count: usize, origin: Instant, process: Arc<Process>, handshakes: usize) -> std::io::Result<Arc<Self>> {
        let refusals = Arc::<RefusalCounts>::default();
        let (mut commands, mut threads) = (Vec::new(), Vec::new());
        for id in 0..count {
            let (send, receive) = mpsc::unbounded_channel();
            let (process, refusals) = (Arc::clone(&process), Arc::clone(&refusals));
            let thread = std::thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(61).build_local(Default::default());
                match runtime {
                    Ok(runtime) => runtime.block_on(async move {
                        let accepting = AcceptContext { handshakes: Handshakes::new(handshakes), refusals };
                        Worker::new(id, origin, &process, accepting).run(receive).await;
                    }),
                    Err(error) => tracing::error!(target: "worker", "worker {id} cannot start: {error}"),
                }
            })?;
            commands.push(send);
            threads.push(thread);
        }
        Ok(Arc::new(Self { commands, threads: Mutex::new(threads), process, refusals }))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.commands {
            // A worker that has ended needs to be told nothing.
            let _ = worker.send(command());
        }
    }

    /// Starts `snapshot` on every worker, next to what serves; on none of them if one cannot.
    ///
    /// # Errors
    /// The first worker's reason.
    pub async fn prepare(&self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        let mut answers = Vec::new();
        for worker in &self.commands {
            let (send, receive) = oneshot::channel();
            let _ = worker.send(Command::Prepare(Arc::clone(snapshot), send));
            answers.push(receive);
        }
        let mut failed = None;
        for answer in answers {
            if let Err(reason) = answer.await.unwrap_or_else(|_| Err("a worker has ended".into())) {
                failed.get_or_insert(reason);
            }
        }
        if let Some(reason) = failed {
            self.tell(|| Command::Abandon);
            return Err(reason);
        }
        Ok(())
    }

    /// Makes what was prepared the current one everywhere.
    pub async fn commit(&self) {
        let mut commits = Vec::new();
        for worker in &self.commands {
            let (send, receive) = oneshot::channel();
            let _ = worker.send(Command::Commit(send));
            commits.push(receive);
        }
        for commit in commits {
            let _ = commit.await;
        }
    }

    /// Takes no new connections. Each worker says when it does not any more; what waits in queues that end is still accepted then.
    #[must_use]
    pub fn begin_drain(&self) -> Vec<oneshot::Receiver<()>> {
        self.process.draining.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for worker in &self.commands {
            let (send, receive) = oneshot::channel();
            let _ = worker.send(Command::Drain(send));
            answers.push(receive);
        }
        answers
    }

    /// Takes no new connections and waits until those that there are have ended, or `patience` is over.
    pub async fn drain(&self, patience: Duration) {
        let end = Instant::now() + patience;
        for answer in self.begin_drain() {
            // A worker that has ended accepts nothing.
            let _ = answer.await;
        }
        while self.process.is_busy() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = self.process.connections.open();
        if left > 0 {
            tracing::warn!(target: "app", "{left} connections are cut: the drain took longer than {patience:?}");
        }
    }

    /// Ends all threads.
    pub fn stop(&self) {
        self.tell(|| Command::Stop);
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if thread.join().is_err() {
                tracing::error!(target: "worker", "a worker panicked");
            }
        }
    }
}

/// What is known of the newest configuration, for the operator's pages.
#[derive(Debug, Default)]
pub struct Current {
    newest: Mutex<Option<Arc<Snapshot>>>,
    older: Mutex<Vec<Weak<Snapshot>>>,
}

impl Current {
    /// The newest snapshot that serves.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Snapshot>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, snapshot: Arc<Snapshot>) {
        let before = self.newest.lock().unwrap_or_else(PoisonError::into_inner).replace(snapshot);
        let mut older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        older.extend(before.as_ref().map(Arc::downgrade));
        drop(before);
        older.retain(|snapshot| snapshot.strong_count() > 0);
    }

    /// Snapshots that something still uses, the newest among them.
    #[must_use]
    pub fn live(&self) -> u64 {
        let older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        let used = older.iter().filter(|snapshot| snapshot.strong_count() > 0).count();
        used as u64 + u64::from(self.get().is_some())
    }
}

/// Applies what the sources bring: compiles, starts on every worker, commits.
pub struct Applier {
    compiler: Arc<Mutex<Compiler>>,
    workers: Arc<Workers>,
    current: Arc<Current>,
}

impl Applier {
    fn abandon(&self) {
        self.compiler.lock().unwrap_or_else(PoisonError::into_inner).abandoned();
    }
}

impl Apply for Applier {
    async fn apply(&mut self, update: Update) -> Outcome {
        let config = self.workers.process.metrics.config();
        let (compiler, resources) = (Arc::clone(&self.compiler), update.resources.clone());
        let complete = update.complete;
        let compile = move || compiler.lock().unwrap_or_else(PoisonError::into_inner).compile(&resources, complete);
        let refused = |rejected: Vec<Rejection>| {
            config.rejected.fetch_add(1, Ordering::Relaxed);
            Outcome { rejected }
        };
        let everything = |reason: String| update.changed.first().map(|key| Rejection::new(key.clone(), reason)).into_iter().collect();
        if self.workers.process.draining.load(Ordering::Relaxed) && update.changed.iter().any(|key| key.kind == Kind::Listener) {
            return refused(everything("this process drains: its listeners do not change any more".into()));
        }
        let snapshot = match tokio::task::spawn_blocking(compile).await {
            Ok(Ok(snapshot)) => snapshot,
            Ok(Err(rejected)) => {
                self.abandon();
                return refused(rejected);
            }
            Err(_) => return refused(everything("the compiler failed: see the log".into())),
        };
        if let Err(reason) = self.workers.prepare(&snapshot).await {
            self.abandon();
            return refused(everything(reason));
        }
        let clusters = self.compiler.lock().unwrap_or_else(PoisonError::into_inner).commit_clusters();
        if let Some(clusters) = clusters
            && !clusters.warm(WARM_UP).await
        {
            tracing::info!(target: "config", "some clusters have no endpoints or no first health check yet; serving without waiting longer");
        }
        self.workers.commit().await;
        self.compiler.lock().unwrap_or_else(PoisonError::into_inner).committed(&snapshot);
        config.accepted.fetch_add(1, Ordering::Relaxed);
        config.generation.store(snapshot.generation, Ordering::Relaxed);
        config.oldest_generation.store(snapshot.generation, Ordering::Relaxed);
        stamp(&config.applied_at);
        self.workers.process.metrics.set_filters(filters(&snapshot));
        let (listeners, clusters) = (snapshot.listeners.len(), snapshot.clusters.len());
        tracing::info!(target: "config", generation = snapshot.generation, listeners, clusters, "configuration serves, from {}", update.provenance);
        self.current.set(snapshot);
        Outcome::applied()
    }
}

fn filters(snapshot: &Snapshot) -> Vec<FilterMetrics> {
    let of_chain = |chain: &crate::filter::chain::LoadedChain| {
        let name = Arc::clone(&chain.name);
        let metrics = move |binding: &Arc<weir_wasm::Binding>| FilterMetrics {
            chain: Arc::clone(&name),
            filter: Arc::clone(&binding.config().name),
            stats: Arc::clone(binding.stats()),
            metrics: Arc::clone(binding.metrics()),
        };
        chain.bindings.iter().map(|loaded| metrics(&loaded.binding)).collect::<Vec<_>>()
    };
    snapshot.chains.iter().flat_map(of_chain).collect()
}

/// Everything of a proxy that runs.
pub struct App {
    /// Its workers.
    pub workers: Arc<Workers>,
    /// The newest configuration.
    pub current: Arc<Current>,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Who this proxy is.
    pub node: String,
}

impl App {
    /// Snapshots that something still uses.
    #[must_use]
    pub fn live_snapshots(&self) -> u64 {
        self.current.live()
    }

    /// The newest configuration that serves, once every source has had its say.
    #[must_use]
    pub fn complete(&self) -> Option<Arc<Snapshot>> {
        self.current.get().filter(|snapshot| snapshot.complete)
    }

    /// Starts workers as `bootstrap` says, with a predecessor's sockets if there are any. Returns the proxy and what applies configurations to it.
    ///
    /// # Errors
    /// When this machine lacks something.
    pub fn start(bootstrap: &Bootstrap, inherited: HashMap<String, Vec<ListenSocket>>) -> anyhow::Result<(Self, Applier)> {
        let count = worker_count(bootstrap.workers);
        let limits = bootstrap.limits.unwrap_or_default();
        let metrics = Metrics::new();
        let access_logs = AccessLogs::counting(Arc::clone(&metrics.config().access_log_dropped))?;
        let connections = if limits.connections == 0 { 100_000 } else { limits.connections };
        let process = Process::new(metrics, Arc::clone(&access_logs), connections.into());
        let handshakes = if limits.handshakes == 0 { 1000 } else { limits.handshakes as usize };
        let origin = Instant::now();
        process.max_requests.store(limits.requests.into(), Ordering::Relaxed);
        if let Some(limit) = crate::overload::limit(limits.memory_mib) {
            tokio::spawn(crate::overload::watch(Arc::clone(&process), limit));
        }
        let workers = Workers::start(count, origin, process, handshakes)?;
        let compiler = compiler(bootstrap, origin, access_logs, count, inherited)?;
        let current = Arc::<Current>::default();
        let applier = Applier { compiler: Arc::new(Mutex::new(compiler)), workers: Arc::clone(&workers), current: Arc::clone(&current) };
        let drain_timeout = weir_model::duration::or(bootstrap.drain_timeout, DRAIN);
        let node = bootstrap.node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
        Ok((Self { workers, current, drain_timeout, node }, applier))
    }
}

/// Says whether a configuration could serve, without serving it. Slow: loads and proves its filters.
///
/// # Errors
/// When this machine lacks something; inside, every resource that stands in the way, and why.
pub async fn check(bootstrap: &Bootstrap, resources: Resources) -> anyhow::Result<Result<(), Vec<Rejection>>> {
    let mut compiler = compiler(bootstrap, Instant::now(), AccessLogs::start()?, 1, HashMap::new())?;
    Ok(tokio::task::spawn_blocking(move || compiler.check(&resources)).await?)
}

/// What makes snapshots as `bootstrap` says, for `count` workers.
fn compiler(
    bootstrap: &Bootstrap,
    origin: Instant,
    access_logs: Arc<AccessLogs>,
    count: usize,
    inherited: HashMap<String, Vec<ListenSocket>>,
) -> anyhow::Result<Compiler> {
    let cache = (!bootstrap.module_cache.is_empty()).then(|| PathBuf::from(&bootstrap.module_cache));
    let cache = cache.map(|path| Cache::open(path, CACHE_BYTES)).transpose()?.map(Arc::new);
    let engine = Engine::new(EngineOptions { cache, ..EngineOptions::default() })?;
    let secured = Arc::<Secured>::default();
    let services = Services {
        handle: tokio::runtime::Handle::current(),
        now: Arc::new(move || u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        connector: Arc::new(CheckConnector(Arc::clone(&secured))),
        node: Arc::new(bootstrap.node.as_ref().and_then(|node| node.locality.as_ref()).map(Locality::new).unwrap_or_default()),
        resolver: None,
    };
    Ok(Compiler::new(ChainLoader::new(engine), Clusters::new(services), secured, Resumption::new()?, access_logs, count, inherited))
}

/// As many as asked for, else as many as the process may use CPUs.
fn worker_count(asked: u32) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count as usize,
    }
}

/// Connects for health checks the way that requests do: over TLS where the cluster has it.
struct CheckConnector(Arc<Secured>);

impl Connector for CheckConnector {
    fn connect(&self, request: ConnectRequest) -> Pin<Box<dyn Future<Output = std::io::Result<Box<dyn Io>>> + Send>> {
        let tls = self.0.get(request.cluster.name());
        Box::pin(crate::upstream::connect::for_check(tls, request))
    }
}
