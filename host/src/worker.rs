//! A worker: one thread with everything that it serves with, and nothing that another thread locks.
//!
//! It owns its filters' instances, its clusters' balancers and pools, its buffers and counters. From outside come only [`Command`]s: prepare a
//! configuration, make it the current one, drain, stop. What always holds: a configuration becomes current only after all of it started here; requests in
//! progress finish on the one that they began with.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use slab::Slab;
use tokio::sync::{Notify, mpsc, oneshot};
use weir_wasm::{Filter, Nanos};

use crate::filter::chain::Running;
use crate::http::fields::Fields;
use crate::http::service::HttpService;
use crate::listener::limits::ConnectionCount;
use crate::observe::access_log::{AccessLogs, WorkerLog};
use crate::observe::metrics::{self, Metrics};
use crate::snapshot::{Protocol, Snapshot};
use crate::tcp::TcpService;
use crate::timer::LazyTimer;
use crate::tls::accept::AcceptContext;
use crate::upstream::pool::WorkerCluster;

/// Buffers that a worker keeps for its connections, and the size up to which it does.
const KEPT_BUFFERS: usize = 256;
const KEPT_SIZE: usize = 64 << 10;
/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// What all workers of a process share.
pub struct Process {
    /// Too much memory is in use, or too many requests are in progress.
    pub overloaded: AtomicBool,
    /// Downstream connections.
    pub connections: Arc<ConnectionCount>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Access logs.
    pub access_logs: Arc<AccessLogs>,
    /// Requests in progress that are allowed; 0 is no limit.
    pub max_requests: AtomicU64,
    /// No new work is taken.
    pub draining: AtomicBool,
    requests: AtomicU64,
    next_connection: AtomicU64,
    ending: Arc<AtomicU64>,
}

/// A queue of connections that is being emptied.
#[derive(Debug)]
pub struct Ending(Arc<AtomicU64>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// What a worker is told.
pub enum Command {
    /// Start all of a configuration, and keep it ready.
    Prepare(Arc<Snapshot>, oneshot::Sender<Result<(), String>>),
    /// Make the prepared configuration the current one.
    Commit(oneshot::Sender<()>),
    /// Forget the prepared configuration.
    Abandon,
    /// Take no new connections; end those that there are in order. Answers when none of this worker's listeners accepts as usual.
    Drain(oneshot::Sender<()>),
    /// End.
    Stop,
}

/// One thread's state.
pub struct Worker {
    id: usize,
    origin: Instant,
    clock: Cell<Instant>,
    process: Arc<Process>,
    /// What this thread counts with.
    pub metrics: metrics::Worker,
    /// What this thread logs requests with.
    pub log: Rc<WorkerLog>,
    /// What accepting connections needs.
    pub accepting: AcceptContext,
    scratch: RefCell<BytesMut>,
    buffers: RefCell<Vec<Vec<u8>>>,
    fields: RefCell<Vec<Fields>>,
    deadlines: RefCell<Vec<LazyTimer>>,
    snapshot: RefCell<Option<Rc<WorkerSnapshot>>>,
    prepared: RefCell<Option<Rc<WorkerSnapshot>>>,
    retired: RefCell<Vec<Rc<Filter>>>,
    tickets: Rc<RefCell<Slab<Option<Waker>>>>,
    draining: Cell<bool>,
    timers: Arc<Notify>,
}

/// The clusters of a configuration, by name.
pub type ClusterMap = HashMap<Arc<str>, Rc<WorkerCluster>>;

/// A configuration at work on one worker.
pub struct WorkerSnapshot {
    /// What it was made from.
    pub shared: Arc<Snapshot>,
    clusters: Rc<ClusterMap>,
    http: HashMap<(Arc<str>, Arc<str>), Rc<HttpService>>,
    tcp: HashMap<(Arc<str>, Arc<str>), Rc<TcpService>>,
    filters: Vec<Running>,
}

/// The place of a connection in its worker's list: how it learns that it should go.
pub struct Ticket {
    tickets: Rc<RefCell<Slab<Option<Waker>>>>,
    key: usize,
}

impl Ticket {
    /// Asks to be woken when the worker drains or gets a new configuration.
    #[inline]
    pub fn wait(&self, waker: &Waker) {
        let mut tickets = self.tickets.borrow_mut();
        let Some(place) = tickets.get_mut(self.key) else { return };
        match place {
            Some(known) if known.will_wake(waker) => {}
            _ => *place = Some(waker.clone()),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tickets.borrow_mut().try_remove(self.key);
    }
}

impl Process {
    /// A process that counts with `metrics` and logs requests with `access_logs`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, access_logs: Arc<AccessLogs>, max_connections: u64) -> Arc<Self> {
        Arc::new(Self {
            overloaded: AtomicBool::new(false),
            connections: Arc::new(ConnectionCount::new(max_connections)),
            metrics,
            access_logs,
            max_requests: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            next_connection: AtomicU64::new(0),
            ending: Arc::default(),
        })
    }

    /// Counts a queue of connections that is being emptied.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending.fetch_add(1, Ordering::Relaxed);
        Ending(Arc::clone(&self.ending))
    }

    /// Whether there are connections, or may be more in queues.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        // Queues first: what comes out of one is counted as a connection before the queue is over.
        self.ending.load(Ordering::Acquire) > 0 || self.connections.open() > 0
    }
}

impl Process {
    /// Takes a place among the requests in progress. Counted only where there is a limit, for counting is shared by all workers.
    #[must_use]
    #[inline]
    pub fn enter(&self) -> Entry {
        let most = self.max_requests.load(Ordering::Relaxed);
        if most == 0 {
            return Entry::Free;
        }
        if self.requests.fetch_add(1, Ordering::Relaxed) >= most {
            self.requests.fetch_sub(1, Ordering::Relaxed);
            return Entry::Full;
        }
        Entry::Counted
    }

    /// Gives a counted place back.
    pub fn leave(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a request may be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Yes; nobody counts.
    Free,
    /// Yes, and its place must be given back.
    Counted,
    /// No.
    Full,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.id)
    }
}

impl Worker {
    /// A worker without a configuration.
    #[must_use]
    pub fn new(id: usize, origin: Instant, process: &Arc<Process>, accepting: AcceptContext) -> Rc<Self> {
        Rc::new(Self {
            id,
            origin,
            clock: Cell::new(Instant::now()),
            metrics: process.metrics.worker(),
            log: process.access_logs.worker(),
            process: Arc::clone(process),
            accepting,
            scratch: RefCell::default(),
            buffers: RefCell::default(),
            fields: RefCell::default(),
            deadlines: RefCell::default(),
            snapshot: RefCell::default(),
            prepared: RefCell::default(),
            retired: RefCell::default(),
            tickets: Rc::default(),
            draining: Cell::new(false),
            timers: Arc::default(),
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> usize {
        self.id
    }

    /// What all workers share.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Reads the clock. Everything that runs until the next reading shares the time: whoever begins to run calls this first.
    #[inline]
    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.clock.set(now);
        now
    }

    /// The time of the last reading.
    #[must_use]
    #[inline]
    pub fn instant(&self) -> Instant {
        self.clock.get()
    }

    /// The same in nanoseconds since the process began.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Nanos {
        u64::try_from(self.clock.get().saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number for a new connection.
    #[must_use]
    pub fn next_connection(&self) -> u64 {
        self.process.next_connection.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The buffer that every connection of this thread reads into, empty between reads.
    pub fn scratch(&self) -> RefMut<'_, BytesMut> {
        self.scratch.borrow_mut()
    }

    /// An empty buffer.
    #[must_use]
    pub fn take_buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(4 << 10))
    }

    /// Takes an empty buffer back.
    pub fn give_buffer(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < KEPT_BUFFERS && buffer.capacity() <= KEPT_SIZE && buffer.is_empty() {
            buffers.push(buffer);
        }
    }

    /// An empty header block.
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.fields.borrow_mut().pop().unwrap_or_else(|| Fields::with_capacity(1 << 10, 24))
    }

    /// Takes a header block back.
    pub fn give_fields(&self, mut fields: Fields) {
        let mut kept = self.fields.borrow_mut();
        if kept.len() < KEPT_BUFFERS {
            fields.clear();
            kept.push(fields);
        }
    }

    /// A timer, which may be armed: for an earlier time than anybody waits for now.
    #[must_use]
    pub fn timer(&self) -> LazyTimer {
        self.deadlines.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a timer back: arming it again would cost the next request more than leaving it armed.
    pub fn give_timer(&self, timer: LazyTimer) {
        let mut kept = self.deadlines.borrow_mut();
        if kept.len() < KEPT_BUFFERS {
            kept.push(timer);
        }
    }

    /// The current configuration.
    #[must_use]
    pub fn snapshot(&self) -> Option<Rc<WorkerSnapshot>> {
        self.snapshot.borrow().clone()
    }

    /// Whether `snapshot` is the current configuration.
    #[must_use]
    #[inline]
    pub fn is_current(&self, snapshot: &Weak<WorkerSnapshot>) -> bool {
        self.snapshot.borrow().as_ref().is_some_and(|current| std::ptr::eq(Rc::as_ptr(current), snapshot.as_ptr()))
    }

    /// Whether no new work is taken.
    #[must_use]
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether requests are to be shed.
    #[must_use]
    #[inline]
    pub fn is_overloaded(&self) -> bool {
        self.process.overloaded.load(Ordering::Relaxed)
    }

    /// A place in the list of connections.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket { key: self.tickets.borrow_mut().insert(None), tickets: Rc::clone(&self.tickets) }
    }

    /// Connections that are open on this worker.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.tickets.borrow().len()
    }

    fn wake_connections(&self) {
        let wakers: Vec<Waker> = self.tickets.borrow().iter().filter_map(|(_, waker)| waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A filter's timer has changed.
    pub fn wake_timers(&self) {
        self.timers.notify_one();
    }

    /// What other threads call when a filter here has something to do.
    #[must_use]
    pub fn timer_notifier(&self) -> Arc<dyn Fn() + Send + Sync> {
        let timers = Arc::clone(&self.timers);
        Arc::new(move || timers.notify_one())
    }

    /// Starts all of a configuration here, next to the current one.
    fn prepare(self: &Rc<Self>, shared: Arc<Snapshot>) -> Result<Rc<WorkerSnapshot>, String> {
        let current = self.snapshot();
        let worker = Rc::downgrade(self);
        let running = current.as_ref().map_or(&[][..], |current| &current.filters);
        let (mut filters, mut chains) = (Vec::new(), HashMap::new());
        for chain in &shared.chains {
            let (started, of_chain) = chain.start(&worker, running).map_err(|error| format!("filterChains[{}]: {error}", chain.name))?;
            filters.extend(of_chain.iter().cloned());
            chains.insert(Arc::clone(&chain.name), (started, of_chain));
        }
        // Last, because it changes what the current configuration shares with the next one.
        let mut clusters = ClusterMap::new();
        for cluster in &shared.clusters {
            let before = current.as_ref().and_then(|current| current.cluster(cluster.state.name()));
            let next = match before {
                Some(before) => before.renew(Arc::clone(&cluster.state), cluster.tls.clone()),
                None => Rc::new(WorkerCluster::new(Arc::clone(&cluster.state), cluster.tls.clone(), self)),
            };
            clusters.insert(next.name(), next);
        }
        let clusters = Rc::new(clusters);
        let snapshot = Rc::new_cyclic(|weak| {
            let (mut http, mut tcp) = (HashMap::new(), HashMap::new());
            for listener in &shared.listeners {
                let metrics = self.process.metrics.listener(&listener.name);
                for branch in &listener.branches {
                    let key = (Arc::clone(&listener.name), Arc::clone(&branch.name));
                    match &branch.protocol {
                        Protocol::Http(config) => {
                            let chain = config.filter_chain.as_deref().and_then(|name| chains.get(name).cloned());
                            let service = HttpService::new(
                                Arc::clone(config),
                                Rc::clone(self),
                                weak.clone(),
                                metrics.clone(),
                                Rc::clone(&clusters),
                                chain,
                            );
                            http.insert(key, Rc::new(service));
                        }
                        Protocol::Tcp(config) => {
                            let chain = config.filter_chain.as_deref().and_then(|name| chains.get(name)).map(|(chain, _)| chain.clone());
                            let (config, revision) = (Arc::clone(config), shared.generation);
                            let service = TcpService::new(config, Rc::clone(self), metrics.clone(), Rc::clone(&clusters), chain, revision);
                            tcp.insert(key, Rc::new(service));
                        }
                    }
                }
            }
            WorkerSnapshot { shared, clusters, http, tcp, filters }
        });
        Ok(snapshot)
    }

    /// Makes the prepared configuration the current one.
    fn commit(&self) {
        let Some(next) = self.prepared.take() else { return };
        let before = self.snapshot.replace(Some(Rc::clone(&next)));
        for Running { filter, .. } in before.iter().flat_map(|before| &before.filters) {
            if !next.filters.iter().any(|kept| Rc::ptr_eq(&kept.filter, filter)) {
                filter.retire();
                self.retired.borrow_mut().push(Rc::clone(filter));
            }
        }
        next.clusters.values().for_each(WorkerCluster::warm);
        self.wake_timers();
        self.wake_connections();
    }

    /// Runs what is due on every filter; when to look again.
    fn run_timers(&self) -> Option<Nanos> {
        self.tick();
        let filters: Vec<Running> = self.snapshot().map(|snapshot| snapshot.filters.clone()).unwrap_or_default();
        let retired = self.retired.borrow().clone();
        let next = filters.iter().map(|running| &running.filter).chain(&retired).filter_map(|filter| filter.run_timers()).min();
        self.retired.borrow_mut().retain(|filter| !filter.is_gone());
        next
    }

    async fn timers(self: Rc<Self>) {
        loop {
            let wait = self.run_timers().map(|at| Duration::from_nanos(at.saturating_sub(self.now())));
            match wait {
                Some(wait) => drop(tokio::time::timeout(wait, self.timers.notified()).await),
                None => self.timers.notified().await,
            }
        }
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            if let Some(snapshot) = self.snapshot() {
                let now = self.tick();
                for cluster in snapshot.clusters.values() {
                    cluster.sweep(now);
                    if !self.is_draining() {
                        cluster.warm();
                    }
                }
            }
        }
    }

    /// Serves commands until told to stop.
    pub async fn run(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        tokio::task::spawn_local(Rc::clone(&self).timers());
        tokio::task::spawn_local(Rc::clone(&self).sweep());
        tokio::task::spawn_local(Rc::clone(&self.log).linger());
        let mut listening = crate::listener::accept::Listening::default();
        while let Some(command) = commands.recv().await {
            self.tick();
            match command {
                Command::Prepare(shared, answer) => {
                    let prepared = self.prepare(shared).map(|snapshot| *self.prepared.borrow_mut() = Some(snapshot));
                    // Who asked may have given up.
                    let _ = answer.send(prepared);
                }
                Command::Commit(answer) => {
                    let before = self.snapshot();
                    self.commit();
                    if let Some(now) = self.snapshot().filter(|_| !self.is_draining()) {
                        listening.update(&self, before.as_ref(), &now);
                    }
                    let _ = answer.send(());
                }
                Command::Abandon => {
                    if let Some(abandoned) = self.prepared.take() {
                        self.retire_new(&abandoned);
                    }
                }
                Command::Drain(answer) => {
                    self.draining.set(true);
                    listening.stop(&self, self.snapshot().as_ref());
                    self.wake_connections();
                    let _ = answer.send(());
                }
                Command::Stop => break,
            }
        }
    }

    /// Ends what was started for a configuration that will not be used.
    fn retire_new(&self, abandoned: &WorkerSnapshot) {
        let current = self.snapshot();
        let in_use = |filter: &Rc<Filter>| {
            current.as_ref().is_some_and(|current| current.filters.iter().any(|used| Rc::ptr_eq(&used.filter, filter)))
        };
        for Running { filter, .. } in abandoned.filters.iter().filter(|running| !in_use(&running.filter)) {
            filter.retire();
            self.retired.borrow_mut().push(Rc::clone(filter));
        }
        self.wake_timers();
    }
}

impl WorkerSnapshot {
    /// A cluster by name.
    #[must_use]
    #[inline]
    pub fn cluster(&self, name: &str) -> Option<Rc<WorkerCluster>> {
        self.clusters.get(name).cloned()
    }

    /// How a branch of a listener serves HTTP.
    #[must_use]
    pub fn http_service(&self, listener: &Arc<str>, branch: &Arc<str>) -> Option<Rc<HttpService>> {
        self.http.get(&(Arc::clone(listener), Arc::clone(branch))).cloned()
    }

    /// How a branch of a listener serves TCP.
    #[must_use]
    pub fn tcp_service(&self, listener: &Arc<str>, branch: &Arc<str>) -> Option<Rc<TcpService>> {
        self.tcp.get(&(Arc::clone(listener), Arc::clone(branch))).cloned()
    }
}
