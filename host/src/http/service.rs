//! How one branch of a listener serves HTTP: its compiled options, and on each worker its filters and clusters.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_model::config;
use weir_wasm::Chain;

use super::fields::{Fields, Known};
use super::forwarded::ForwardedRules;
use super::path::PathRules;
use crate::filter::chain::Running;
use crate::observe::access_log::Sink;
use crate::observe::metrics::{Detailed, ListenerCounter, ListenerLevel, ListenerMetrics};
use crate::route::{Action, ActionError, timeout};
use crate::upstream::pool::WorkerCluster;
use crate::worker::{ClusterMap, Worker, WorkerSnapshot};

/// The options of a branch, shared by all workers.
#[derive(Debug)]
pub struct HttpOptions {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The branch's name.
    pub branch: Arc<str>,
    /// The chain of filters, if any.
    pub filter_chain: Option<String>,
    /// For requests that no filter chose an action for.
    pub default_action: Arc<Action>,
    /// By name.
    pub actions: HashMap<String, Arc<Action>>,
    /// What is spoken.
    pub versions: config::HttpVersions,
    /// How paths are made one spelling.
    pub path: PathRules,
    /// What a message may be.
    pub limits: Limits,
    /// What may take how long.
    pub timeouts: Timeouts,
    /// What is done with `x-forwarded-*`.
    pub forwarded: ForwardedRules,
    /// What is done with `server`.
    pub server_header: ServerHeader,
    /// Where requests are logged, if anywhere.
    pub access_log: Option<Sink>,
    /// Whether only those are that no filter logs.
    pub access_log_fallback: bool,
    /// Whether gRPC-Web is made gRPC.
    pub grpc_web: bool,
    exempt_paths: Vec<String>,
}

/// What a message may be, defaults filled in.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a head.
    pub header_bytes: usize,
    /// Fields of a head.
    pub header_count: usize,
    /// Bytes of a request target.
    pub path_bytes: usize,
    /// Requests on a connection.
    pub requests_per_connection: u64,
    /// HTTP/2 streams at once.
    pub concurrent_streams: u32,
    /// HTTP/2 window of a stream.
    pub stream_window: u32,
    /// HTTP/2 window of a connection.
    pub connection_window: u32,
    /// HTTP/2 resets in 30 s.
    pub resets: u32,
    /// HTTP/2 frames that carry nothing in 30 s.
    pub idle_frames: u32,
}

impl Limits {
    fn compile(given: Option<&config::HttpLimits>) -> Self {
        let given = given.cloned().unwrap_or_default();
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        Self {
            header_bytes: or(given.header_bytes, 60 << 10) as usize,
            header_count: or(given.header_count, 100) as usize,
            path_bytes: or(given.path_bytes, 16 << 10) as usize,
            requests_per_connection: if given.requests_per_connection == 0 { u64::MAX } else { given.requests_per_connection.into() },
            concurrent_streams: or(given.concurrent_streams, 100),
            stream_window: or(given.stream_window, 1 << 20),
            connection_window: or(given.connection_window, 4 << 20),
            resets: or(given.resets, 200),
            idle_frames: or(given.idle_frames, 2000),
        }
    }
}

/// What may take how long; `None` is for ever.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From a head's first byte to its end.
    pub request_headers: Duration,
    /// From the head to the end of the request's body.
    pub request: Option<Duration>,
    /// A connection without a request.
    pub idle: Option<Duration>,
    /// A stream on which nothing moves.
    pub stream_idle: Option<Duration>,
    /// A connection's life.
    pub max_connection_age: Option<Duration>,
    /// A stream's life.
    pub max_stream: Option<Duration>,
}

impl Timeouts {
    fn compile(given: Option<&config::HttpTimeouts>) -> Result<Self, ActionError> {
        let given = given.cloned().unwrap_or_default();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Ok(Self {
            request_headers: timeout("timeouts.requestHeaders", given.request_headers.as_ref(), seconds(10))?.unwrap_or(Duration::MAX),
            request: timeout("timeouts.request", given.request.as_ref(), None)?,
            idle: timeout("timeouts.idle", given.idle.as_ref(), seconds(3600))?,
            stream_idle: timeout("timeouts.streamIdle", given.stream_idle.as_ref(), seconds(300))?,
            max_connection_age: timeout("timeouts.maxConnectionAge", given.max_connection_age.as_ref(), None)?,
            max_stream: timeout("timeouts.maxStream", given.max_stream.as_ref(), None)?,
        })
    }
}

/// What the `server` header of responses becomes.
#[derive(Clone, Debug)]
pub enum ServerHeader {
    /// The upstream's passes; the core's own answers have this one.
    Pass(Vec<u8>),
    /// Every response has this one.
    Overwrite(Vec<u8>),
    /// None has one.
    Remove,
}

impl ServerHeader {
    fn compile(given: Option<&config::ServerHeader>) -> Self {
        let given = given.cloned().unwrap_or_default();
        let value = if given.value.is_empty() { b"weir".to_vec() } else { given.value.clone().into_bytes() };
        match given.mode() {
            config::server_header::Mode::Pass => Self::Pass(value),
            config::server_header::Mode::Overwrite => Self::Overwrite(value),
            config::server_header::Mode::Remove => Self::Remove,
        }
    }

    /// Does it to a response.
    #[inline]
    pub fn apply(&self, response: &mut Fields, is_upstreams: bool) {
        match self {
            Self::Pass(_) if is_upstreams => {}
            Self::Pass(value) | Self::Overwrite(value) => response.set_known(Known::Server, value),
            Self::Remove => response.remove_known(Known::Server),
        }
    }
}

impl HttpOptions {
    /// Compiles a branch's options.
    ///
    /// # Errors
    /// At the first field that cannot work.
    pub fn compile(listener: &Arc<str>, branch: &str, given: &config::Http, access_log: Option<Sink>) -> Result<Self, ActionError> {
        let default_action = given.default_action.as_ref().map(Action::compile).transpose()?.unwrap_or_else(Action::not_found);
        let actions = given.actions.iter().map(|action| Ok((action.name.clone(), Arc::new(Action::compile(action)?))));
        Ok(Self {
            listener: Arc::clone(listener),
            branch: branch.into(),
            filter_chain: (!given.filter_chain.is_empty()).then(|| given.filter_chain.clone()),
            default_action: Arc::new(default_action),
            actions: actions.collect::<Result<_, ActionError>>()?,
            versions: given.versions(),
            path: PathRules::new(&given.path.unwrap_or_default()),
            limits: Limits::compile(given.limits.as_ref()),
            timeouts: Timeouts::compile(given.timeouts.as_ref())?,
            forwarded: ForwardedRules::new(&given.forwarded.unwrap_or_default()),
            server_header: ServerHeader::compile(given.server_header.as_ref()),
            access_log,
            access_log_fallback: given.access_log.as_ref().is_some_and(|log| log.fallback),
            grpc_web: given.grpc_web,
            exempt_paths: given.exempt_paths.clone(),
        })
    }

    /// Whether requests for this path are answered while the process sheds load.
    #[must_use]
    pub fn is_exempt(&self, path: &[u8]) -> bool {
        let end = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
        self.exempt_paths.iter().any(|exempt| path.get(..end) == Some(exempt.as_bytes()))
    }
}

/// A branch on one worker, in one configuration.
pub struct HttpService {
    /// Its options.
    pub config: Arc<HttpOptions>,
    /// The worker.
    pub worker: Rc<Worker>,
    /// The configuration that it is part of.
    pub snapshot: std::rc::Weak<WorkerSnapshot>,
    /// The numbers of its listener.
    pub metrics: ListenerMetrics,
    clusters: Rc<ClusterMap>,
    /// The cluster that was asked for last: mostly the one that is asked for next.
    recent: RefCell<Option<Rc<WorkerCluster>>>,
    chain: Option<(Chain, Vec<Running>)>,
}

impl std::fmt::Debug for HttpService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpService({}/{})", self.config.listener, self.config.branch)
    }
}

impl HttpService {
    /// A branch on `worker`.
    #[must_use]
    pub fn new(
        config: Arc<HttpOptions>,
        worker: Rc<Worker>,
        snapshot: std::rc::Weak<WorkerSnapshot>,
        metrics: ListenerMetrics,
        clusters: Rc<ClusterMap>,
        chain: Option<(Chain, Vec<Running>)>,
    ) -> Self {
        Self { config, worker, snapshot, metrics, clusters, recent: RefCell::default(), chain }
    }

    /// Its filters, if it has any.
    #[must_use]
    pub fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref().map(|(chain, _)| chain)
    }

    /// Whether it belongs to the worker's newest configuration.
    #[must_use]
    #[inline]
    pub fn is_current(&self) -> bool {
        self.worker.is_current(&self.snapshot)
    }

    /// The same branch in the newest configuration.
    #[must_use]
    pub fn successor(&self) -> Option<Rc<Self>> {
        self.worker.snapshot()?.http_service(&self.config.listener, &self.config.branch)
    }

    /// The action that a filter names: by the number that defining it gave, else by name.
    #[must_use]
    pub fn action(&self, binding: &str, named: &[u8]) -> Option<Arc<Action>> {
        if let Ok(number) = named.try_into().map(u32::from_le_bytes)
            && let Some((_, filters)) = &self.chain
            && let Some(running) = filters.iter().find(|running| *running.filter.binding().config().name == *binding)
            && let Some(action) = running.routes.action(number)
        {
            return Some(action);
        }
        self.config.actions.get(std::str::from_utf8(named).ok()?).cloned()
    }

    /// Counts a request that begins.
    #[inline]
    pub fn begin(&self, http2: bool) {
        let counter = if http2 { ListenerCounter::Http2Requests } else { ListenerCounter::Http1Requests };
        self.worker.metrics.listener(&self.metrics, counter);
        self.worker.metrics.listener_level(&self.metrics, ListenerLevel::Requests, 1);
    }

    /// A cluster of this configuration.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<Rc<WorkerCluster>> {
        let mut recent = self.recent.borrow_mut();
        if !recent.as_ref().is_some_and(|recent| recent.is_named(name)) {
            *recent = Some(Rc::clone(self.clusters.get(name)?));
        }
        recent.clone()
    }

    /// Counts a request that broke the protocol, by name.
    pub fn refused(&self, detail: &'static str) {
        self.worker.metrics.detail(&self.metrics, Detailed::ProtocolRefusal, detail);
    }
}
