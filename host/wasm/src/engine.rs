//! What every filter of a process shares: compiler settings, host functions, the epoch clock, the native-code cache and the stores.
//!
//! An [`Engine`] is made once and cloned freely. It holds what must outlive reloads: shared data and queues by `vm_id`, metrics and accounting
//! by binding name. It owns one thread, which advances the epoch that deadlines are measured in, and which sleeps while no filter runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::{Linker, OptLevel, WasmBacktraceDetails};

use crate::abi;
use crate::binding::BindingConfig;
use crate::host::CallId;
use crate::metrics::{MetricLimits, MetricSet};
use crate::module::cache::Cache;
use crate::shared::{DataLimits, QueueLimits, Scope, SharedLimits, SharedStores};
use crate::stats::BindingStats;
use crate::sync::lock;
use crate::vm::state::State;

/// How an engine is made.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Where compiled native code is kept between runs. `None`: nowhere.
    pub cache: Option<Arc<Cache>>,
    /// Compile without epoch checks: nothing then bounds a callback. Only for measuring what they cost.
    pub without_deadlines: bool,
}

/// The Wasm engine of a process.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    wasmtime: wasmtime::Engine,
    linker: Linker<State>,
    ticker: Ticker,
    cache: Option<Arc<Cache>>,
    shared: SharedStores,
    accounts: Mutex<BTreeMap<Arc<str>, Account>>,
    last_call: AtomicU64,
}

#[derive(Clone)]
struct Account {
    stats: Arc<BindingStats>,
    metrics: Arc<MetricSet>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// The engine could not be made: this machine or build lacks something.
#[derive(Debug, thiserror::Error)]
#[error("the Wasm engine cannot run on this machine: {0:#}")]
pub struct EngineError(wasmtime::Error);

impl Engine {
    /// Makes the engine and starts its clock.
    ///
    /// # Errors
    /// When this machine cannot run compiled Wasm.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let mut config = wasmtime::Config::new();
        config.cranelift_opt_level(OptLevel::Speed);
        config.epoch_interruption(!options.without_deadlines);
        config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
        config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(64));
        // What no SDK emits stays off, so that a module cannot reach code that nobody here has tried.
        config.wasm_memory64(false).wasm_multi_memory(false).wasm_relaxed_simd(false);
        let wasmtime = wasmtime::Engine::new(&config).map_err(EngineError)?;
        let linker = abi::linker(&wasmtime).map_err(EngineError)?;
        let ticker = Ticker::start(&wasmtime, !options.without_deadlines).map_err(|error| EngineError(error.into()))?;
        Ok(Self(Arc::new(Inner {
            wasmtime,
            linker,
            ticker,
            cache: options.cache,
            shared: SharedStores::default(),
            accounts: Mutex::default(),
            last_call: AtomicU64::new(0),
        })))
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.wasmtime
    }

    pub(crate) fn linker(&self) -> &Linker<State> {
        &self.0.linker
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.0.ticker
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.0.cache.as_deref()
    }

    pub(crate) fn shared(&self) -> &SharedStores {
        &self.0.shared
    }

    pub(crate) fn scope(&self, config: &BindingConfig) -> Arc<Scope> {
        let limits = &config.limits;
        let data = DataLimits { entries: limits.shared_entries, bytes: limits.shared_bytes, ..DataLimits::default() };
        let queue = QueueLimits { items: limits.shared_entries, bytes: limits.shared_bytes, ..QueueLimits::default() };
        self.0.shared.scope(config.vm_id(), SharedLimits { data, queue })
    }

    pub(crate) fn next_call(&self) -> CallId {
        CallId(self.0.last_call.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn account(&self, config: &BindingConfig) -> Account {
        let mut accounts = lock(&self.0.accounts);
        let limits = MetricLimits { series: config.limits.metric_series, ..MetricLimits::default() };
        let make = || Account { stats: BindingStats::new(), metrics: MetricSet::new(limits) };
        let account = accounts.entry(config.name.clone()).or_insert_with(make).clone();
        account.metrics.set_limits(limits);
        account
    }

    pub(crate) fn stats(&self, config: &BindingConfig) -> Arc<BindingStats> {
        self.account(config).stats
    }

    pub(crate) fn metrics(&self, config: &BindingConfig) -> Arc<MetricSet> {
        self.account(config).metrics
    }

    /// Accounting and metrics of every binding this engine has had, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<(Arc<str>, Arc<BindingStats>, Arc<MetricSet>)> {
        let accounts = lock(&self.0.accounts);
        accounts.iter().map(|(name, account)| (name.clone(), account.stats.clone(), account.metrics.clone())).collect()
    }
}

/// The clock of deadlines: one epoch every few milliseconds while filters run.
#[derive(Clone)]
pub(crate) struct Ticker {
    shared: Arc<TickerState>,
    thread: Option<Thread>,
}

#[derive(Default)]
struct TickerState {
    epoch: AtomicU64,
    /// Somebody entered a guest since the last epoch.
    active: AtomicBool,
    /// The longest deadline that anybody has asked for, in epochs.
    longest: AtomicU64,
    parked: AtomicBool,
    stop: AtomicBool,
}

const EPOCH: Duration = Duration::from_millis(5);

impl Ticker {
    fn start(engine: &wasmtime::Engine, enabled: bool) -> std::io::Result<Self> {
        let shared = Arc::new(TickerState::default());
        let (state, engine) = (shared.clone(), engine.clone());
        let run = move || {
            let mut quiet = 0;
            while !state.stop.load(Ordering::Acquire) {
                std::thread::sleep(EPOCH);
                engine.increment_epoch();
                state.epoch.fetch_add(1, Ordering::Relaxed);
                quiet = if state.active.swap(false, Ordering::SeqCst) { 0 } else { quiet + 1 };
                // Whoever was entered last has returned by then, or has been stopped.
                if quiet > state.longest.load(Ordering::SeqCst) {
                    state.parked.store(true, Ordering::SeqCst);
                    if !state.active.load(Ordering::SeqCst) && !state.stop.load(Ordering::SeqCst) {
                        std::thread::park();
                    }
                    state.parked.store(false, Ordering::SeqCst);
                    quiet = 0;
                }
            }
        };
        let thread = match enabled {
            true => Some(std::thread::Builder::new().name("weir-wasm-epoch".into()).spawn(run)?.thread().clone()),
            false => None,
        };
        Ok(Self { shared, thread })
    }

    /// Somebody enters a guest: the clock must run.
    #[inline]
    pub(crate) fn touch(&self) {
        if !self.shared.active.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        self.shared.active.store(true, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.unpark();
        }
    }

    /// The time in so many epochs, counted since the engine was made.
    #[inline]
    pub(crate) fn after(&self, epochs: u64) -> u64 {
        self.shared.epoch.load(Ordering::Relaxed).saturating_add(epochs)
    }

    /// Whether it is that time.
    #[inline]
    pub(crate) fn is_past(&self, time: u64) -> bool {
        self.shared.epoch.load(Ordering::Relaxed) >= time
    }

    /// A deadline in epochs: never early, at most one epoch late.
    pub(crate) fn epochs(&self, deadline: Duration) -> u64 {
        let epochs = (deadline.as_nanos().div_ceil(EPOCH.as_nanos()) as u64).saturating_add(1);
        self.shared.longest.fetch_max(epochs, Ordering::SeqCst);
        epochs
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ticker.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = &self.ticker.thread {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(what: &str, done: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_clock_stands_still_while_no_filter_runs_and_outlasts_every_deadline() {
        let engine = Engine::new(EngineOptions::default()).expect("an engine");
        let ticker = engine.ticker();
        let is_parked = || ticker.shared.parked.load(Ordering::SeqCst);
        wait_for("an engine without filters parks its clock", is_parked);
        let deadline = ticker.epochs(Duration::from_millis(30));
        for _ in 0..3 {
            ticker.touch();
            let end = ticker.after(deadline);
            wait_for("the clock runs until the deadline is past", || ticker.is_past(end));
            wait_for("and then stands still again", is_parked);
        }
    }
}
