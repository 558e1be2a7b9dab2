//! One or more filters, started on one worker in memory.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use weir_sdk::native::Registered;
use weir_wasm::module::cache::Cache;
use weir_wasm::{
    Binding, BindingConfig, Chain, Engine, EngineOptions, FailurePolicy, Filter, Foreign, Kind, LoadError, SharedHost, StartError, Stream,
    Upstreams,
};

use crate::budget::Budget;
use crate::exchange::RequestBuilder;
use crate::native::Relay;
use crate::{Connection, MemoryHost, MemoryStream};

/// A filter under test. Built like its binding, then started.
#[derive(Debug)]
pub struct Tester {
    engine: Engine,
    config: BindingConfig,
    wasm: Vec<u8>,
    relay: Option<Relay>,
    provided: Vec<Provided>,
    more: Vec<Self>,
}

/// A foreign function of the test's host.
#[derive(Clone)]
struct Provided {
    name: String,
    function: Arc<dyn Fn(&[u8]) -> Foreign + Send + Sync>,
}

impl std::fmt::Debug for Provided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Provided {
    fn to(list: &[Self], host: &MemoryHost) {
        for Self { name, function } in list {
            let function = Arc::clone(function);
            host.provide(name, move |arguments| function(arguments));
        }
    }
}

/// A test's filter could not be loaded or started.
#[derive(Debug)]
pub enum TestError {
    /// See [`LoadError`].
    Load(LoadError),
    /// See [`StartError`], and what the filter logged.
    Start(StartError, Vec<String>),
}

impl std::fmt::Display for TestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Load(error) => write!(f, "{error}\n  help: {}", error.help()),
            Self::Start(error, log) => {
                error.fmt(f)?;
                log.iter().try_for_each(|line| write!(f, "\n  log: {line}"))
            }
        }
    }
}

impl std::error::Error for TestError {}

/// Native code that is kept between runs.
const CACHE_BYTES: u64 = 256 << 20;

/// The engine that all tests of a process share: it compiles nothing twice that is still in use, and has one clock thread.
///
/// # Panics
/// When this machine cannot run Wasm at all.
#[must_use]
#[expect(clippy::expect_used, reason = "a test cannot go on without an engine, and every test would say the same")]
pub(crate) fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    // Compiled once for all tests and runs: compiling takes longer than most tests do.
    let cache = crate::build::target().and_then(|target| Cache::open(target.join("wasm-native"), CACHE_BYTES).ok()).map(Arc::new);
    let options = EngineOptions { cache, ..EngineOptions::default() };
    ENGINE.get_or_init(|| Engine::new(options).expect("a Wasm engine")).clone()
}

impl Tester {
    /// A filter from its module. Its binding has the proxy's defaults but for the callback deadline, which is a second: the machine that tests
    /// may be busy. [`Tester::binding`] changes that.
    #[must_use]
    pub fn new(wasm: &[u8]) -> Self {
        Self::with_engine(&engine(), wasm)
    }

    /// The same in an engine of one's own: stores, metrics and accounting are then its own too.
    #[must_use]
    pub fn with_engine(engine: &Engine, wasm: &[u8]) -> Self {
        let mut config = BindingConfig::new("test");
        config.limits.callback_deadline = Duration::from_secs(1);
        Self { engine: engine.clone(), config, wasm: wasm.to_vec(), relay: None, provided: Vec::new(), more: Vec::new() }
    }

    /// A filter's native code, in the same host: what a debugger and a coverage tool can look into. Only its costs are not those of the module.
    #[must_use]
    pub fn native<F: Registered>() -> Self {
        let relay = Relay::new::<F>();
        let mut tester = Self::new(&relay.wasm()).alone();
        // Each turn waits for another thread.
        tester.config.limits.callback_deadline = Duration::from_secs(10);
        tester.relay = Some(relay);
        tester
    }

    /// The filter that the crate in this folder compiles to for wasm32; a test says `env!("CARGO_MANIFEST_DIR")`. Compiled once a process.
    ///
    /// # Panics
    /// With what the compiler said, when it does not compile.
    #[must_use]
    pub fn of_crate(folder: &str) -> Self {
        Self::new(&crate::build::module(folder)).alone()
    }

    /// Under a name of its own: metrics and shared data outlive what made them, under the binding's name.
    fn alone(mut self) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        self.config.name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed)).into();
        self
    }

    /// A filter from WebAssembly text.
    ///
    /// # Panics
    /// When the text does not parse.
    #[must_use]
    #[expect(clippy::panic, reason = "the text is the test's own: what is wrong with it is for its author")]
    pub fn from_wat(wat: &str) -> Self {
        match wat::parse_str(wat) {
            Ok(wasm) => Self::new(&wasm),
            Err(error) => panic!("{error}"),
        }
    }

    /// The configuration that `proxy_on_configure` reads.
    #[must_use]
    pub fn configuration(mut self, text: &str) -> Self {
        self.config.configuration = text.as_bytes().to_vec().into();
        self
    }

    /// Whom the filter may call, as the operator's YAML would say it.
    #[must_use]
    pub fn may_call(mut self, upstreams: &[&str]) -> Self {
        self.config.upstreams = Upstreams::Only(upstreams.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// To which access logs the filter may write; the lines are at [`MemoryHost::access_log`].
    #[must_use]
    pub fn may_log(mut self, logs: &[&str]) -> Self {
        self.config.access_logs = Upstreams::Only(logs.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// Anything else about the binding.
    #[must_use]
    pub fn binding(mut self, change: impl FnOnce(&mut BindingConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Provides a foreign function, also for the proof that comes before the filter runs: what a filter calls while it is configured.
    #[must_use]
    pub fn provide(mut self, name: &str, function: impl Fn(&[u8]) -> Foreign + Send + Sync + 'static) -> Self {
        self.provided.push(Provided { name: name.to_owned(), function: Arc::new(function) });
        self
    }

    /// For TCP connections: see [`Worker::connect`].
    #[must_use]
    pub fn tcp(self) -> Self {
        self.binding(|binding| binding.kind = Kind::Tcp)
    }

    /// What happens to streams when the filter cannot run; `Closed` unless this is called.
    #[must_use]
    pub fn failure_policy(self, policy: FailurePolicy) -> Self {
        self.binding(|binding| binding.failure_policy = policy)
    }

    /// A further filter behind this one in the chain.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        let Self { more, .. } = &mut self;
        more.push(next);
        self
    }

    /// Loads and starts it.
    ///
    /// # Errors
    /// When the module is refused, or the filter does not start or refuses its configuration.
    pub fn start(self) -> Result<Worker, TestError> {
        self.start_on(MemoryHost::default())
    }

    /// The same on a host that was prepared: what it provides is there when the filter starts and is configured.
    ///
    /// # Errors
    /// As [`Tester::start`].
    pub fn start_on(self, host: MemoryHost) -> Result<Worker, TestError> {
        let host = Rc::new(host);
        let shared: SharedHost = host.clone();
        let kind = self.config.kind;
        let mut filters = Vec::new();
        let engine = self.engine.clone();
        self.start_filters(&host, &shared, &mut filters)?;
        Ok(Worker { host, chain: Chain::new(kind, filters), engine })
    }

    fn start_filters(self, host: &MemoryHost, shared: &SharedHost, filters: &mut Vec<Rc<Filter>>) -> Result<(), TestError> {
        if let Some(relay) = &self.relay {
            relay.serve(host);
        }
        Provided::to(&self.provided, host);
        let name = self.config.name.clone();
        let (relay, provided) = (self.relay.clone(), self.provided.clone());
        let canary = move || {
            let host = MemoryHost::default();
            Provided::to(&provided, &host);
            match &relay {
                Some(relay) => relay.canary(host),
                None => Rc::new(host) as SharedHost,
            }
        };
        let binding = Binding::load(&self.engine, self.config, &name, &self.wasm, Some(&canary)).map_err(TestError::Load)?;
        let log = || host.log_lines().into_iter().map(|line| line.message).collect();
        filters.push(Filter::start(&binding, shared.clone()).map_err(|error| TestError::Start(error, log()))?);
        self.more.into_iter().try_for_each(|next| next.start_filters(host, shared, filters))
    }
}

/// Filters that run.
#[derive(Debug)]
pub struct Worker {
    /// Clock, log and callouts.
    pub host: Rc<MemoryHost>,
    /// The filters, in request order.
    pub chain: Chain,
    /// Where they run.
    pub engine: Engine,
}

impl Worker {
    /// The first filter.
    #[must_use]
    pub fn filter(&self) -> &Rc<Filter> {
        &self.chain.filters()[0]
    }

    /// What the first filter has cost and how it fared.
    #[must_use]
    pub fn stats(&self) -> weir_wasm::stats::Snapshot {
        self.filter().binding().stats().snapshot()
    }

    /// The value of a counter or gauge that the first filter defined.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<i64> {
        let series = self.filter().binding().metrics().snapshot();
        series.iter().find(|series| &*series.name == name).map(|series| value(&series.value))
    }

    /// The value of one series: a metric with exactly these labels, in any order.
    #[must_use]
    pub fn metric_with(&self, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let series = self.filter().binding().metrics().snapshot();
        let fits =
            |of: &[(Box<str>, Box<str>)]| of.len() == labels.len() && of.iter().all(|(name, value)| labels.contains(&(&**name, &**value)));
        series.iter().find(|series| &*series.name == name && fits(&series.labels)).map(|series| value(&series.value))
    }

    /// Whether any line so far contains `text`.
    #[must_use]
    pub fn logged(&self, text: &str) -> bool {
        self.host.logged(text)
    }

    /// How many host calls the first filter's instance has made. Those of a native filter are the same as those of its module: what the relay
    /// needs for itself is not counted.
    #[must_use]
    pub fn host_calls(&self) -> u64 {
        self.filter().host_calls() - self.host.relayed()
    }

    /// The first filter's instance ends at its `nth` host call from now, as if it had trapped there: what becomes of the stream is the failure
    /// policy's. 0 takes that back. For modules: a native filter's relay makes host calls of its own.
    pub fn trap_at(&self, nth: u64) {
        self.filter().fail_at_host_call(nth);
    }

    /// Measures what `run` costs, to compare it with what it may cost:
    /// `worker.budget(|worker| worker.get("/").run()).host_calls(3).micros(200.0);`
    #[must_use = "it fails a test once it is compared: .host_calls(N)"]
    pub fn budget<T>(&self, run: impl FnMut(&Self) -> T) -> Budget {
        Budget::measure(self, run)
    }

    /// A TCP connection through the chain, for filters under [`Tester::tcp`].
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::new(self.stream())
    }

    /// Lets time pass: moves the clocks, then runs what is due.
    pub fn pass(&self, time: Duration) {
        self.host.advance(time);
        self.run_timers();
    }

    /// A stream of one's own.
    #[must_use]
    pub fn stream(&self) -> Stream<MemoryStream> {
        Stream::new(&self.chain, MemoryStream::new())
    }

    /// A request to run.
    #[must_use]
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder<'_> {
        RequestBuilder::new(self, method, path)
    }

    /// A GET request to run.
    #[must_use]
    pub fn get(&self, path: &str) -> RequestBuilder<'_> {
        self.request("GET", path)
    }

    /// Runs what is due on every filter: timers and queues.
    pub fn run_timers(&self) {
        for filter in self.chain.filters() {
            filter.run_timers();
        }
    }
}

fn value(value: &weir_wasm::metrics::Value) -> i64 {
    use weir_wasm::metrics::Value;
    match value {
        Value::Counter(count) => count.cast_signed(),
        Value::Gauge(value) => *value,
        Value::Histogram(histogram) => histogram.count().cast_signed(),
    }
}
