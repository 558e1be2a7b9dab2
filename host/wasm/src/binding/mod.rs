//! A binding that has been proven to work: checked configuration, compiled code, one instance that started, configured and met a stream.
//!
//! [`Binding::load`] does all of it, on the caller's thread; [`Loader`] keeps it off the threads that serve. Nothing becomes a `Binding`
//! that has not passed every step, so whatever used the previous one keeps it when loading fails.

mod canary;
mod config;
mod loader;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmtime::{Instance, InstancePre, Store};

use crate::backoff::Backoff;
use crate::engine::Engine;
use crate::error::{LoadError, LoadFault};
use crate::host::Side;
use crate::metrics::MetricSet;
use crate::module::callbacks::Callback;
use crate::module::{LoadLimits, LoadOptions, Module};
use crate::shared::{DataCounters, QueueCounters, Scope};
use crate::stats::BindingStats;
use crate::stream::may_write;
use crate::vm::state::State;
pub use config::{BindingConfig, BodyAccess, FailurePolicy, HeaderPause, Kind, Limits, Routing, Upstreams, Variant};
pub use loader::{LoadRequest, Loader};

/// Makes the host that the proving instance runs against, on the thread that loads.
pub type CanaryHost = dyn Fn() -> crate::host::SharedHost + Send + Sync;

/// A filter binding, ready to be started on any worker.
pub struct Binding {
    engine: Engine,
    config: BindingConfig,
    module: Module,
    pre: InstancePre<State>,
    stats: Arc<BindingStats>,
    metrics: Arc<MetricSet>,
    scope: Arc<Scope>,
    /// How long the proving instance took to start.
    proven: OnceLock<Duration>,
    /// By side: it changes lengths that it lets go first.
    resizes: [AtomicBool; 2],
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Binding({}, {})", self.config.name, self.module.describe())
    }
}

impl Binding {
    /// Checks, compiles (or finds compiled), instantiates, starts, configures and probes a binding. Slow; see [`Loader`].
    ///
    /// # Errors
    /// At the first step that fails, saying which, why, and what to do.
    pub fn load(
        engine: &Engine,
        config: BindingConfig,
        name: &str,
        bytes: &[u8],
        canary: Option<&CanaryHost>,
    ) -> Result<Arc<Self>, LoadError> {
        checked(&config, name)?;
        let limits = LoadLimits::default().memory_bytes(config.limits.memory as u64);
        let options = LoadOptions { cache: engine.cache(), limits };
        let module = Module::load(engine.wasmtime(), name, bytes, &options)?;
        Self::from_module(engine, config, module, canary)
    }

    /// The same from a module that is compiled already: bindings share code.
    ///
    /// # Errors
    /// As [`Binding::load`].
    pub fn from_module(
        engine: &Engine,
        config: BindingConfig,
        module: Module,
        canary: Option<&CanaryHost>,
    ) -> Result<Arc<Self>, LoadError> {
        checked(&config, module.name())?;
        canary::check_kind(&config, &module)?;
        let pre = engine
            .linker()
            .instantiate_pre(module.code())
            .map_err(|error| module.fault(LoadFault::Link { cause: format!("{error:#}") }))?;
        let (stats, metrics, scope) = (engine.stats(&config), engine.metrics(&config), engine.scope(&config));
        let writes = config.body_access == BodyAccess::ReadWrite;
        let resizes = [AtomicBool::new(writes), AtomicBool::new(writes)];
        let binding =
            Arc::new(Self { engine: engine.clone(), config, module, pre, stats, metrics, scope, proven: OnceLock::new(), resizes });
        canary::prove(&binding, canary)?;
        Ok(binding)
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &BindingConfig {
        &self.config
    }

    /// Its code.
    #[must_use]
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// What it has cost and how often it failed, over all workers and reloads.
    #[must_use]
    pub fn stats(&self) -> &Arc<BindingStats> {
        &self.stats
    }

    /// The metrics it defined, over all workers and reloads.
    #[must_use]
    pub fn metrics(&self) -> &Arc<MetricSet> {
        &self.metrics
    }

    /// What the shared data of its `vm_id` holds, and what its bounds have cost.
    #[must_use]
    pub fn shared_data(&self) -> DataCounters {
        self.scope.counters()
    }

    /// The same of each of its `vm_id`'s queues.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueCounters> {
        self.engine.shared().queues().counters(self.config.vm_id())
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn shared(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instance> {
        self.pre.instantiate(store)
    }

    /// How long one step of a start may take. On the thread that loads: what is configured. On a worker, which serves nobody meanwhile: a small
    /// multiple of what has been seen there.
    pub(crate) fn start_patience(&self) -> Duration {
        const LEAST: Duration = Duration::from_millis(100);
        let most = self.config.limits.start_deadline;
        self.proven.get().map_or(most, |proven| proven.saturating_mul(4).max(LEAST).min(most))
    }

    /// Between restarts: the first at once, then from 100 ms up to half a minute.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(30)).with_free_failures(1).with_stable_period(Duration::from_secs(30))
    }

    /// Whether the filter has any callback for the messages of a side.
    pub(crate) fn wants(&self) -> [bool; 2] {
        use Callback::{DownstreamData, NewConnection, RequestBody, RequestHeaders, RequestTrailers};
        use Callback::{ResponseBody, ResponseHeaders, ResponseTrailers, UpstreamData};
        let any = |callbacks: &[Callback]| callbacks.iter().any(|callback| self.module.exports(*callback));
        match self.config.kind {
            Kind::Http => [any(&[RequestHeaders, RequestBody, RequestTrailers]), any(&[ResponseHeaders, ResponseBody, ResponseTrailers])],
            Kind::Tcp => [any(&[NewConnection, DownstreamData]), any(&[UpstreamData])],
        }
    }

    /// Whether the filter may change this side's bodies.
    pub(crate) fn may_write_body(&self, side: Side) -> bool {
        let callback = match side {
            Side::Request => Callback::RequestBody,
            Side::Response => Callback::ResponseBody,
        };
        may_write(self.config.body_access, self.module.exports(callback) && self.module.imports("proxy_set_buffer_bytes"))
    }

    /// Whether no length can be promised for a body of `side` before all of it has passed the filter: it was declared so, or has shown it.
    pub(crate) fn resizes(&self, side: Side) -> bool {
        self.resizes[side as usize].load(Ordering::Relaxed)
    }

    /// It has changed a body's length after the length had gone on: from now on none goes first.
    pub(crate) fn has_resized(&self, side: Side) {
        self.resizes[side as usize].store(true, Ordering::Relaxed);
    }
}

fn checked(config: &BindingConfig, module: &str) -> Result<(), LoadError> {
    let fault = |problems| LoadFault::Configuration { binding: config.name.to_string(), problems };
    config.check().map_err(|problems| LoadError::new(module, None, fault(problems)))
}
