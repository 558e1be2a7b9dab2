//! Raw TCP: bytes both ways between a client and an endpoint, through TCP filters if there are any.
//!
//! What always holds: each direction holds at most one read and what the other side's buffer takes; the end of one direction is passed on and the other
//! goes on; a connection on which nothing moves for its idle timeout is closed; every connection is counted and logged once.

mod host;
mod relay;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_model::config;
use weir_wasm::Chain;

use crate::http::exchange::record::Flags;
use crate::observe::access_log::{self, Sink};
use crate::observe::metrics::{Detailed, ListenerLevel, ListenerMetrics};
use crate::route::{ActionError, timeout};
use crate::tls::accept::ConnectionInfo;
use crate::tls::io::Io;
use crate::upstream::balancer::PickContext;
use crate::upstream::pool::{Attempt, ConnectError, WorkerCluster};
use crate::upstream::{Outcome, Permit};
use crate::wire::Wire;
use crate::worker::{ClusterMap, Ticket, Worker};
use host::Facts;
use relay::Counted;

/// The options of a TCP branch, shared by all workers.
#[derive(Debug)]
pub struct TcpOptions {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The branch's name.
    pub branch: Arc<str>,
    /// The chain of filters, if any.
    pub filter_chain: Option<String>,
    targets: Vec<(Arc<str>, u64, BTreeMap<String, String>)>,
    total_weight: u64,
    idle_timeout: Option<Duration>,
    max_duration: Option<Duration>,
    hash_source_address: bool,
    access_log: Option<Sink>,
    access_log_fallback: bool,
}

impl TcpOptions {
    /// Compiles a branch's options.
    ///
    /// # Errors
    /// At the first field that cannot work.
    pub fn compile(listener: &Arc<str>, branch: &str, given: &config::Tcp, access_log: Option<Sink>) -> Result<Self, ActionError> {
        let target = |cluster: &config::WeightedCluster| {
            let mut labels = given.subset.clone();
            labels.extend(cluster.subset.clone());
            (cluster.name.as_str().into(), u64::from(cluster.weight), labels)
        };
        let targets: Vec<_> = given.clusters.iter().map(target).collect();
        Ok(Self {
            listener: Arc::clone(listener),
            branch: branch.into(),
            filter_chain: (!given.filter_chain.is_empty()).then(|| given.filter_chain.clone()),
            total_weight: targets.iter().map(|(_, weight, _)| weight).sum(),
            targets,
            idle_timeout: timeout("tcp.idleTimeout", given.idle_timeout.as_ref(), Some(Duration::from_secs(3600)))?,
            max_duration: timeout("tcp.maxDuration", given.max_duration.as_ref(), None)?,
            hash_source_address: given.hash_source_address,
            access_log,
            access_log_fallback: given.access_log.as_ref().is_some_and(|log| log.fallback),
        })
    }

    fn target(&self, random: u64) -> Option<&(Arc<str>, u64, BTreeMap<String, String>)> {
        if self.targets.len() < 2 || self.total_weight == 0 {
            return self.targets.first();
        }
        let mut at = random % self.total_weight;
        self.targets.iter().find(|(_, weight, _)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        })
    }
}

/// A TCP branch on one worker, in one configuration.
pub struct TcpService {
    /// Its options.
    pub config: Arc<TcpOptions>,
    worker: Rc<Worker>,
    metrics: ListenerMetrics,
    clusters: Rc<ClusterMap>,
    chain: Option<Chain>,
    /// The number of its configuration.
    revision: u64,
}

/// Why a connection is not relayed: in words, and in Envoy's flags.
type Refusal = (&'static str, Flags);
const FILTER_CLOSED: Refusal = ("filter_closed", Flags::FILTER_REPLY);

/// How a connection went.
struct Record {
    detail: &'static str,
    flags: Flags,
    /// A filter has logged it.
    logged: bool,
    cluster: Option<Arc<str>>,
    endpoint: String,
    counted: Counted,
}

impl TcpService {
    /// A branch on `worker`.
    #[must_use]
    pub fn new(
        config: Arc<TcpOptions>,
        worker: Rc<Worker>,
        metrics: ListenerMetrics,
        clusters: Rc<ClusterMap>,
        chain: Option<Chain>,
        revision: u64,
    ) -> Self {
        Self { config, worker, metrics, clusters, chain, revision }
    }

    /// Serves a connection until it ends.
    pub async fn serve(self: Rc<Self>, io: Io, info: ConnectionInfo, ticket: Ticket) {
        let started = self.worker.tick();
        let local = info.local(&io);
        let info = Rc::new(info);
        self.worker.metrics.listener_level(&self.metrics, ListenerLevel::Requests, 1);
        let record = self.relay(io, &info, local, &ticket).await;
        self.worker.metrics.listener_level(&self.metrics, ListenerLevel::Requests, -1);
        if record.detail != "via_upstream" {
            self.worker.metrics.detail(&self.metrics, Detailed::ConnectionRefusal, record.detail);
        }
        let steps_back = record.logged && self.config.access_log_fallback;
        if let Some(sink) = self.config.access_log.as_ref().filter(|_| !steps_back) {
            let duration = started.elapsed();
            self.worker.log.record(
                sink,
                &access_log::Record {
                    start: std::time::SystemTime::now() - duration,
                    flags: &record.flags.letters(),
                    details: record.detail,
                    bytes_received: record.counted.received,
                    bytes_sent: record.counted.sent,
                    duration,
                    upstream_host: &record.endpoint,
                    upstream_cluster: record.cluster.as_deref().unwrap_or_default(),
                    downstream_local: local,
                    downstream_remote: info.peer,
                    server_name: info.server_name.as_deref().unwrap_or_default().as_bytes(),
                    ..access_log::Record::default()
                },
            );
        }
    }

    async fn relay(&self, io: Io, info: &Rc<ConnectionInfo>, local: Option<SocketAddr>, ticket: &Ticket) -> Record {
        let mut record =
            Record { detail: "", flags: Flags::NONE, logged: false, cluster: None, endpoint: String::new(), counted: Counted::default() };
        let refused = |record: Record, (detail, flags): Refusal| Record { detail, flags, ..record };
        let (cluster, subset) = match self.choose() {
            Ok(chosen) => chosen,
            Err(refusal) => return refused(record, refusal),
        };
        record.cluster = Some(cluster.name());
        let facts = Facts { cluster: record.cluster.clone(), local, revision: self.revision };
        let mut filters = self.chain.as_ref().map(|chain| host::open(chain, Rc::clone(info), facts));
        // What a filter closes at once, no upstream hears of.
        let closed = filters.as_ref().is_some_and(|filters| filters.stream.is_reset());
        let opened = if closed { Err(FILTER_CLOSED) } else { self.open(&cluster, subset, info, &mut record).await };
        let (upstream, mut attempt, permit) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                record.logged = filters.is_some_and(|mut filters| filters.end(refusal, Counted::default()));
                return refused(record, refusal);
            }
        };
        if let Some(filters) = &mut filters {
            filters.stream.host_mut().endpoint = Some(record.endpoint.clone());
        }
        let down = Wire::new(io, &self.worker);
        let up = Wire::new(upstream, &self.worker);
        let limits = relay::Limits { idle: self.config.idle_timeout, end: self.config.max_duration.map(|most| Instant::now() + most) };
        let (end, counted, logged) = relay::run(down, up, filters, limits, ticket).await;
        attempt.report(if end == relay::End::UpstreamBroke { Outcome::Reset } else { Outcome::Response(200) }, self.worker.now());
        drop(permit);
        (record.counted, record.logged) = (counted, logged);
        (record.detail, record.flags) = end.explained();
        record
    }

    /// Chooses a cluster, and the labels that its endpoints must have.
    fn choose(&self) -> Result<(Rc<WorkerCluster>, &BTreeMap<String, String>), Refusal> {
        let (name, _, subset) = self.config.target(fastrand::u64(..)).ok_or(("no_cluster", Flags::NO_CLUSTER))?;
        Ok((self.clusters.get(name).cloned().ok_or(("cluster_not_found", Flags::NO_CLUSTER))?, subset))
    }

    /// Chooses an endpoint and connects to it.
    async fn open(
        &self,
        cluster: &Rc<WorkerCluster>,
        subset: &BTreeMap<String, String>,
        info: &ConnectionInfo,
        record: &mut Record,
    ) -> Result<(Io, Attempt, Permit), Refusal> {
        let destination = cluster.original(info.original_destination);
        let source = info.peer.filter(|_| self.config.hash_source_address);
        let context = PickContext {
            now: self.worker.now(),
            hash: source.map(|peer| crate::upstream::hash::address(peer.ip())),
            subset: cluster.subset(subset, None),
            destination: destination.as_ref(),
            ..PickContext::default()
        };
        let mut attempt = cluster.attempt(&context).map_err(|_| ("no_healthy_upstream", Flags::NO_HEALTHY_UPSTREAM))?;
        record.endpoint = attempt.target().endpoint().key.to_string();
        match cluster.open_raw(&attempt, info).await {
            Ok((io, permit)) => Ok((io, attempt, permit)),
            Err(error) => {
                let (detail, outcome) = match error {
                    ConnectError::Overflow => ("upstream_overflow", Outcome::Cancelled),
                    ConnectError::TimedOut => ("upstream_connect_timeout", Outcome::ConnectTimeout),
                    ConnectError::Refused => ("upstream_connect_failure", Outcome::ConnectFailure),
                    ConnectError::Tls => ("upstream_tls_failure", Outcome::ConnectFailure),
                };
                attempt.report(outcome, self.worker.now());
                let overflow = error == ConnectError::Overflow;
                Err((detail, if overflow { Flags::UPSTREAM_OVERFLOW } else { Flags::UPSTREAM_CONNECTION_FAILURE }))
            }
        }
    }
}
