//! Counters of the data path: cut per worker, summed when somebody looks.
//!
//! A listener or a cluster has a block of numbers as long as a snapshot holds its handle; a worker updates its own copy of the block by a load and a
//! store. [`Metrics::render`] sums the copies and writes them as Prometheus text, together with the accounting of filters and what they measure
//! themselves.
//!
//! What always holds: updating takes no lock and, once a block was touched, allocates nothing; the same name has the same numbers across
//! configurations; a block that nobody holds any more is used again from 0; the number of blocks and of names is bounded.
//!
//! What it does not do: keep history, or the numbers of what is no longer configured.

mod blocks;
mod filters;
mod kinds;
mod render;
mod text;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use weir_wasm::cells::{Retire, Sharded, Writer};

use blocks::{Blocks, cluster, histogram, listener};
pub use blocks::{ClusterMetrics, ListenerMetrics};
pub use filters::FilterMetrics;
pub use kinds::{ClusterCounter, ClusterLevel, Detailed, ListenerCounter, ListenerLevel};
pub use render::Stat;

/// Names of details, such as `overload`: fixed in the code, so a few dozen.
const MOST_DETAILS: usize = kinds::DETAILS;

/// The counters of a process.
pub struct Metrics {
    counts: Arc<Sharded>,
    levels: Arc<Sharded>,
    blocks: Arc<Mutex<Blocks>>,
    details: Mutex<Vec<&'static str>>,
    filters: ArcSwap<Vec<FilterMetrics>>,
    config: ConfigMetrics,
    registry: prometheus::Registry,
    started: Instant,
}

/// What became of configurations. Counted on the control runtime.
#[derive(Debug, Default)]
pub struct ConfigMetrics {
    /// The newest snapshot's number.
    pub generation: AtomicU64,
    /// The lowest number that a worker still takes new work on.
    pub oldest_generation: AtomicU64,
    /// Updates that serve.
    pub accepted: AtomicU64,
    /// Updates that were refused.
    pub rejected: AtomicU64,
    /// When the newest began to serve, in seconds since 1970.
    pub applied_at: AtomicU64,
    /// Whether a controller is connected: 1 or 0.
    pub controller_connected: AtomicU64,
    /// Lines of access logs that were dropped because the disk did not keep up.
    pub access_log_dropped: Arc<AtomicU64>,
}

impl Metrics {
    /// All zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let metrics = Arc::new(Self {
            counts: Sharded::new(Retire::Fold),
            levels: Sharded::new(Retire::Forget),
            blocks: Arc::default(),
            // Number 0 stands for those that did not fit.
            details: Mutex::new(vec!["other"]),
            filters: ArcSwap::default(),
            config: ConfigMetrics::default(),
            registry: prometheus::Registry::new(),
            started: Instant::now(),
        });
        render::register(&metrics);
        metrics
    }

    /// A worker's own view, through which it counts. Make it once per worker.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> Worker {
        Worker { counts: self.counts.writer(), levels: self.levels.writer(), details: RefCell::default(), metrics: Arc::clone(self) }
    }

    /// The numbers of the listener `name`: the same as long as somebody holds them.
    #[must_use]
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        Blocks::listener(&self.blocks, name, self)
    }

    /// The numbers of the cluster `name`: the same as long as somebody holds them.
    #[must_use]
    pub fn cluster(&self, name: &str) -> ClusterMetrics {
        Blocks::cluster(&self.blocks, name, self)
    }

    /// What became of configurations.
    #[must_use]
    pub fn config(&self) -> &ConfigMetrics {
        &self.config
    }

    /// Whose accounting is shown: the bindings of the newest snapshot.
    pub fn set_filters(&self, filters: Vec<FilterMetrics>) {
        self.filters.store(Arc::new(filters));
    }

    /// Where others may register further collectors.
    #[must_use]
    pub fn registry(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// Everything as Prometheus text. Takes its time: not for a worker.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        render::text(&self.registry)
    }

    /// Everything as values. Takes its time: not for a worker.
    #[must_use]
    pub fn stats(&self) -> Vec<Stat> {
        render::stats(&self.registry)
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a detail; 0 if there are too many.
    fn detail(&self, name: &'static str) -> u32 {
        let mut details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = details.iter().position(|known| *known == name) {
            return at as u32;
        }
        if details.len() == MOST_DETAILS {
            return 0;
        }
        details.push(name);
        (details.len() - 1) as u32
    }
}

/// A request that has ended, whichever way.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The response's status; 0 if there was none.
    pub status: u16,
    /// From the first byte of the request to the last of the response.
    pub duration_ms: u64,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
}

/// A worker's own view of the counters: it may move to another thread, but has one user at a time. What it has counted stays when it is dropped; its
/// levels go with it.
pub struct Worker {
    counts: Writer,
    levels: Writer,
    details: RefCell<HashMap<&'static str, u32>>,
    metrics: Arc<Metrics>,
}

impl Worker {
    /// What it belongs to.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Counts one of `counter`.
    #[inline]
    pub fn listener(&self, on: &ListenerMetrics, counter: ListenerCounter) {
        self.listener_by(on, counter, 1);
    }

    /// Counts `n` of `counter`.
    #[inline]
    pub fn listener_by(&self, on: &ListenerMetrics, counter: ListenerCounter, n: u64) {
        self.counts.add(on.base + counter as u32, n);
    }

    /// Moves this worker's share of a level.
    #[inline]
    pub fn listener_level(&self, on: &ListenerMetrics, level: ListenerLevel, delta: i64) {
        self.levels.shift(on.levels + level as u32, delta);
    }

    /// Counts a request that has ended.
    #[inline]
    pub fn request(&self, on: &ListenerMetrics, ended: &Ended) {
        let base = on.base;
        self.counts.add(base + listener::status(ended.status), 1);
        self.observe(base + listener::DURATION, ended.duration_ms);
        self.observe(base + listener::REQUEST_BYTES, ended.request_bytes);
        self.observe(base + listener::RESPONSE_BYTES, ended.response_bytes);
    }

    /// Counts something that has a name: the detail of a local reply, the reason of a refusal. Not for every request.
    pub fn detail(&self, on: &ListenerMetrics, family: Detailed, name: &'static str) {
        let known = self.details.borrow().get(name).copied();
        let number = known.unwrap_or_else(|| {
            let number = self.metrics.detail(name);
            self.details.borrow_mut().insert(name, number);
            number
        });
        self.counts.add(on.base + listener::detail(family, number), 1);
    }

    /// Counts one of `counter`.
    #[inline]
    pub fn cluster(&self, on: &ClusterMetrics, counter: ClusterCounter) {
        self.cluster_by(on, counter, 1);
    }

    /// Counts `n` of `counter`.
    #[inline]
    pub fn cluster_by(&self, on: &ClusterMetrics, counter: ClusterCounter, n: u64) {
        self.counts.add(on.base + counter as u32, n);
    }

    /// Moves this worker's share of a level.
    #[inline]
    pub fn cluster_level(&self, on: &ClusterMetrics, level: ClusterLevel, delta: i64) {
        self.levels.shift(on.levels + level as u32, delta);
    }

    /// Counts an upstream's response: its status, and the time from the request's first byte to the response's last.
    #[inline]
    pub fn response(&self, on: &ClusterMetrics, status: u16, duration_ms: u64) {
        self.counts.add(on.base + cluster::class(status), 1);
        self.observe(on.base + cluster::DURATION, duration_ms);
    }

    #[inline]
    fn observe(&self, base: u32, value: u64) {
        self.counts.add(base + histogram::bucket(value), 1);
        if value > 0 {
            self.counts.add(base + histogram::SUM, value);
        }
    }
}

/// Sets `atomic` to the seconds since 1970.
pub fn stamp(atomic: &AtomicU64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    atomic.store(now.as_secs(), Relaxed);
}

#[cfg(test)]
mod tests;
