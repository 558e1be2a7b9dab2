//! Active health checks: ask every endpoint of a cluster at intervals, and say which of them are fit.
//!
//! One task per cluster follows its endpoints and runs a task per endpoint and check. The first answer decides at once, after that it takes as
//! many in a row as the thresholds say. An endpoint must pass all checks; before the first answer it is unfit, and if that is true of too many,
//! panic routing applies.
//!
//! What always holds: a check ends within its timeout and reads a bounded answer; at most `CONCURRENCY` checks of a cluster run at once; an endpoint
//! that left is not asked again.

mod probe;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::cluster::ClusterState;
use super::endpoint::{ActiveHealth, Endpoint, EndpointId};
use super::options::HealthCheckOptions;
use super::{Address, Nanos, outlier};

/// Most checks of one cluster at once.
const CONCURRENCY: usize = 64;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What a connection is wanted for.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// The cluster: its TLS settings count.
    pub cluster: Arc<ClusterState>,
    /// The endpoint: it may speak plain text.
    pub endpoint: Arc<Endpoint>,
    /// Where to, which may be another port than the endpoint's.
    pub address: Address,
    /// HTTP/2 will be spoken, whatever is negotiated.
    pub http2: bool,
}

/// Makes connections for the control runtime, as the data path would.
pub trait Connector: Send + Sync + 'static {
    /// Connects, TLS included.
    fn connect(&self, request: ConnectRequest) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;
}

/// Connects without TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainConnector;

impl Connector for PlainConnector {
    fn connect(&self, request: ConnectRequest) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            Ok(match request.address {
                Address::Ip(address) => Box::new(TcpStream::connect(address).await?) as Box<dyn Io>,
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        })
    }
}

/// Follows the answers of one check of one endpoint.
#[derive(Debug)]
struct Tracker {
    health: ActiveHealth,
    /// Answers in a row that contradict `health`.
    against: u32,
    healthy_threshold: u32,
    unhealthy_threshold: u32,
}

impl Tracker {
    fn new(options: &HealthCheckOptions) -> Self {
        let (healthy_threshold, unhealthy_threshold) = (options.healthy_threshold, options.unhealthy_threshold);
        Self { health: ActiveHealth::Unknown, against: 0, healthy_threshold, unhealthy_threshold }
    }

    /// Takes an answer; what the check says now.
    fn record(&mut self, passed: bool) -> ActiveHealth {
        let said = if passed { ActiveHealth::Healthy } else { ActiveHealth::Unhealthy };
        if said == self.health {
            self.against = 0;
            return said;
        }
        self.against += 1;
        let needed = match self.health {
            ActiveHealth::Unknown => 1,
            ActiveHealth::Healthy => self.unhealthy_threshold,
            ActiveHealth::Unhealthy => self.healthy_threshold,
        };
        if self.against >= needed {
            self.health = said;
            self.against = 0;
        }
        self.health
    }
}

/// What all checks together say.
fn together(checks: &[ActiveHealth]) -> ActiveHealth {
    if checks.contains(&ActiveHealth::Unhealthy) {
        ActiveHealth::Unhealthy
    } else if checks.contains(&ActiveHealth::Unknown) {
        ActiveHealth::Unknown
    } else {
        ActiveHealth::Healthy
    }
}

/// What the tasks of one cluster share.
#[derive(Clone)]
struct Checker {
    cluster: Arc<ClusterState>,
    connector: Arc<dyn Connector>,
    now: Arc<dyn Fn() -> Nanos + Send + Sync>,
    running: Arc<Semaphore>,
}

/// What the tasks of one endpoint share.
struct Subject {
    endpoint: ArcSwap<Endpoint>,
    checks: Mutex<Vec<ActiveHealth>>,
}

/// Checks the endpoints of `cluster`. Never ends.
pub(crate) async fn run(cluster: Arc<ClusterState>, connector: Arc<dyn Connector>, now: Arc<dyn Fn() -> Nanos + Send + Sync>) {
    let checker = Checker { cluster, connector, now, running: Arc::new(Semaphore::new(CONCURRENCY)) };
    let mut subjects: HashMap<EndpointId, (Arc<Subject>, JoinSet<()>)> = HashMap::new();
    loop {
        let set = checker.cluster.endpoints();
        subjects.retain(|id, _| set.endpoints().iter().any(|endpoint| endpoint.id() == *id));
        for endpoint in set.endpoints() {
            if let Some((subject, _)) = subjects.get(&endpoint.id()) {
                subject.endpoint.store(Arc::clone(endpoint));
            } else {
                subjects.insert(endpoint.id(), checker.begin(endpoint));
            }
        }
        checker.cluster.endpoints_changed().await;
    }
}

impl Checker {
    /// Dropping the set ends the tasks.
    fn begin(&self, endpoint: &Arc<Endpoint>) -> (Arc<Subject>, JoinSet<()>) {
        let count = self.cluster.options().health_checks.len();
        let subject =
            Arc::new(Subject { endpoint: ArcSwap::new(Arc::clone(endpoint)), checks: Mutex::new(vec![ActiveHealth::Unknown; count]) });
        let mut tasks = JoinSet::new();
        for number in 0..count {
            tasks.spawn(self.clone().check(Arc::clone(&subject), number));
        }
        (subject, tasks)
    }

    async fn check(self, subject: Arc<Subject>, number: usize) {
        let Some(options) = self.cluster.options().health_checks.get(number).cloned() else { return };
        let mut tracker = Tracker::new(&options);
        loop {
            let passed = self.ask(&subject.endpoint.load_full(), &options).await;
            self.apply(&subject, number, tracker.record(passed));
            tokio::time::sleep(jittered(options.interval, fastrand::f64())).await;
        }
    }

    async fn ask(&self, endpoint: &Arc<Endpoint>, options: &HealthCheckOptions) -> bool {
        let Ok(_running) = self.running.acquire().await else { return false };
        let address = endpoint.connect_address();
        let address = options.port.map_or_else(|| address.clone(), |port| address.with_port(port));
        let http2 = probe::speaks_http2(&self.cluster, &options.check);
        let request = ConnectRequest { cluster: Arc::clone(&self.cluster), endpoint: Arc::clone(endpoint), address, http2 };
        let answer = async {
            let connection = self.connector.connect(request).await?;
            probe::ask(connection, &options.check, http2).await
        };
        let failure = match tokio::time::timeout(options.timeout, answer).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let counters = self.cluster.counters();
        if failure.is_none() { &counters.checks_passed } else { &counters.checks_failed }.increment();
        if let Some(error) = &failure {
            tracing::debug!(cluster = self.cluster.name(), endpoint = &*endpoint.key, %error, "health check failed");
        }
        failure.is_none()
    }

    fn apply(&self, subject: &Subject, number: usize, health: ActiveHealth) {
        let all = {
            let mut checks = subject.checks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(check) = checks.get_mut(number) {
                *check = health;
            }
            together(&checks)
        };
        let endpoint = subject.endpoint.load();
        if all == ActiveHealth::Unknown || !endpoint.state.set_active_health(all, (self.now)()) {
            return;
        }
        if all == ActiveHealth::Healthy {
            outlier::bring_back(&endpoint.state);
        }
        tracing::info!(cluster = self.cluster.name(), endpoint = &*endpoint.key, health = ?all, "health changed");
        self.cluster.changed();
    }
}

/// The interval, up to a tenth longer or shorter. `random` is from 0 to 1.
fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + random.clamp(0.0, 1.0) * 0.2)
}

#[cfg(test)]
mod tests;
