//! Choosing an endpoint: one [`Balancer`] per worker and cluster, without a lock.
//!
//! It keeps tables that were derived from the cluster's endpoints, and derives them again when the cluster's version has grown or a weight has
//! changed with time; otherwise a choice is one atomic load and a few instructions. A chosen [`Target`] carries what the worker keeps per endpoint
//! (its connection pool), which stays as long as the endpoint does. An [`Attempt`] is a request on its way to a target: it counts as in
//! progress until it is dropped, and tells the endpoint how it went.

pub(crate) mod consistent;
mod ewma;
mod picker;
mod schedule;
mod spread;
mod table;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::breaker::{Overflow, Resource};
use super::cluster::{ClusterState, DYNAMIC_IDLE};
use super::endpoint::{Availability, Endpoint, EndpointId, Outcome};
use super::options::{Discovery, Policy};
use super::set::EndpointSet;
use super::subset::SubsetId;
use super::{Address, Nanos, outlier};

use ewma::{FLOOR, Latency};
use table::{Ask, Source, Table};
pub use worker::Balancers;

/// Most original destinations that a worker remembers; others are looked up where all workers do.
const MAX_LOCAL_DYNAMIC: usize = 4096;

/// What a choice depends on. `Default` asks for any endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// The worker's clock.
    pub now: Nanos,
    /// What hash policies made of the request.
    pub hash: Option<u64>,
    /// Which endpoints the route allows.
    pub subset: SubsetId,
    /// Endpoints that were tried.
    pub tried: &'a [EndpointId],
    /// How often to choose again in order to avoid them.
    pub host_attempts: u32,
    /// Priorities to avoid, one bit each; see [`Target::priority_bit`].
    pub tried_priorities: u64,
    /// This very endpoint, if there is one. In clusters of original destinations it is where to connect, and must be given.
    pub destination: Option<&'a Address>,
}

/// An endpoint as a worker sees it. `L` is what the worker keeps with it.
#[derive(Debug)]
pub struct Target<L = ()> {
    cluster: Arc<ClusterState>,
    endpoint: Arc<Endpoint>,
    local: Rc<Local<L>>,
}

/// What stays with an endpoint when it is described anew.
#[derive(Debug)]
struct Local<L> {
    latency: Latency,
    kept: L,
}

impl<L> Target<L> {
    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<ClusterState> {
        &self.cluster
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Identity of the endpoint, for [`PickContext::tried`].
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.endpoint.id()
    }

    /// What this worker keeps with the endpoint: the same value for as long as the endpoint is in the cluster.
    #[must_use]
    pub fn local(&self) -> &L {
        &self.local.kept
    }

    /// Its priority, for [`PickContext::tried_priorities`].
    #[must_use]
    pub fn priority_bit(&self) -> u64 {
        1_u64.checked_shl(u32::try_from(self.endpoint.priority).unwrap_or(64)).unwrap_or(0)
    }
}

/// What pickers want to know about targets.
pub(crate) trait Loads {
    /// Attempts in progress, over all workers.
    fn active(&self, at: usize) -> u32;
    /// Lately seen response time, in nanoseconds.
    fn latency(&self, at: usize, now: Nanos, decay: Nanos) -> f64;
}

impl<L> Loads for Vec<Rc<Target<L>>> {
    fn active(&self, at: usize) -> u32 {
        self[at].endpoint.state.active()
    }

    fn latency(&self, at: usize, now: Nanos, decay: Nanos) -> f64 {
        self[at].local.latency.get(now, decay)
    }
}

/// Why there is nowhere to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No endpoint may be chosen.
    #[error("no healthy endpoint")]
    NoEndpoint,
    /// A circuit breaker is open.
    #[error(transparent)]
    Overflow(#[from] Overflow),
}

/// Chooses endpoints of one cluster for one worker.
pub struct Balancer<L = ()> {
    cluster: Arc<ClusterState>,
    version: u64,
    expires: Nanos,
    set: Arc<EndpointSet>,
    targets: Vec<Rc<Target<L>>>,
    /// By number of the subset; the first is for all endpoints.
    tables: Vec<Option<Table>>,
    dynamic: HashMap<Address, (Rc<Target<L>>, Nanos)>,
    rng: fastrand::Rng,
}

impl<L: Default> Balancer<L> {
    /// For `cluster`; `seed` makes workers differ, or tests repeat.
    #[must_use]
    pub fn new(cluster: Arc<ClusterState>, seed: u64, now: Nanos) -> Self {
        let mut balancer = Self {
            set: cluster.endpoints(),
            cluster,
            version: 0,
            expires: Nanos::MAX,
            targets: Vec::new(),
            tables: Vec::new(),
            dynamic: HashMap::new(),
            rng: fastrand::Rng::with_seed(seed),
        };
        balancer.rebuild(now);
        balancer
    }

    /// The cluster that it chooses in.
    #[must_use]
    pub fn cluster(&self) -> &Arc<ClusterState> {
        &self.cluster
    }

    /// Goes on with the cluster's new settings. What the worker keeps with endpoints stays if `keep`; it must not if old connections do not
    /// fit the new settings.
    pub fn replace(&mut self, cluster: Arc<ClusterState>, keep: bool, now: Nanos) {
        self.cluster = cluster;
        self.dynamic.clear();
        if !keep {
            self.targets.clear();
        }
        self.rebuild(now);
    }

    /// All endpoints of the moment; for warming up.
    pub fn targets(&mut self, now: Nanos) -> &[Rc<Target<L>>] {
        self.refresh(now);
        &self.targets
    }

    /// Chooses an endpoint.
    #[inline]
    pub fn pick(&mut self, context: &PickContext<'_>) -> Option<Rc<Target<L>>> {
        self.refresh(context.now);
        if let Some(destination) = context.destination
            && let Some(found) = self.destination(destination, context.now)
        {
            return found;
        }
        let Some(at) = self.pick_index(context) else {
            self.cluster.counters().no_endpoint.increment();
            return None;
        };
        self.targets.get(at).cloned()
    }

    /// Chooses an endpoint and begins an attempt at it.
    ///
    /// # Errors
    /// When there is no endpoint, or too many requests are in progress.
    pub fn attempt(&mut self, context: &PickContext<'_>) -> Result<Attempt<L>, Unavailable> {
        let target = self.pick(context).ok_or(Unavailable::NoEndpoint)?;
        Ok(Attempt::begin(target, context.now)?)
    }

    #[inline]
    fn refresh(&mut self, now: Nanos) {
        if self.cluster.version() != self.version || now >= self.expires {
            self.rebuild(now);
        }
    }

    /// The version is read before the endpoints: a change in between is seen next time.
    #[cold]
    fn rebuild(&mut self, now: Nanos) {
        self.version = self.cluster.version();
        self.set = self.cluster.endpoints();
        self.expires = Nanos::MAX;
        self.tables.clear();
        let locals: HashMap<EndpointId, Rc<Local<L>>> = self.targets.iter().map(|target| (target.id(), Rc::clone(&target.local))).collect();
        let seed = self.usual_latency(now);
        self.targets.clear();
        for endpoint in self.set.endpoints() {
            let local = locals.get(&endpoint.id()).cloned().unwrap_or_else(|| Rc::new(Local::new(seed, now)));
            self.targets.push(Rc::new(Target { cluster: Arc::clone(&self.cluster), endpoint: Arc::clone(endpoint), local }));
        }
        self.table(0, now);
    }

    /// What a new endpoint is taken to need: as much as the others do.
    fn usual_latency(&self, now: Nanos) -> f64 {
        let Policy::PeakEwma { decay } = self.cluster.options().policy else { return FLOOR };
        let sum: f64 = self.targets.iter().map(|target| target.local.latency.get(now, decay)).sum();
        if self.targets.is_empty() { FLOOR } else { sum / self.targets.len() as f64 }
    }

    /// The table with this number, derived if need be. `None` if it stands for nothing.
    fn table(&mut self, number: usize, now: Nanos) -> Option<&mut Table> {
        if !matches!(self.tables.get(number), Some(Some(_))) {
            self.derive(number, now)?;
        }
        self.tables.get_mut(number)?.as_mut()
    }

    #[cold]
    fn derive(&mut self, number: usize, now: Nanos) -> Option<()> {
        let labels = if number == 0 { None } else { Some(self.cluster.subset_labels(number)?) };
        let source = Source { cluster: &self.cluster, set: &self.set, labels: labels.as_ref(), now };
        let table = Table::build(&source, &mut self.rng);
        self.expires = self.expires.min(table.expires);
        if self.tables.len() <= number {
            self.tables.resize_with(number + 1, || None);
        }
        self.tables[number] = Some(table);
        Some(())
    }

    /// The number of the table for a subset: that of all endpoints if it is empty and that is what it falls back to.
    #[cold]
    fn subset_table(&mut self, subset: SubsetId, now: Nanos) -> Option<usize> {
        let number = subset.index();
        let fallback = self.cluster.options().subset_fallback_any.then_some(0);
        match self.table(number, now) {
            Some(table) if !table.is_empty() => Some(number),
            _ => fallback,
        }
    }

    #[inline]
    fn pick_index(&mut self, context: &PickContext<'_>) -> Option<usize> {
        let number = if context.subset == SubsetId::ALL { 0 } else { self.subset_table(context.subset, context.now)? };
        let table = self.tables.get_mut(number)?.as_mut()?;
        let attempts = if context.tried.is_empty() { 0 } else { context.host_attempts.min(100) };
        let mut ask = Ask {
            loads: &self.targets,
            rng: &mut self.rng,
            now: context.now,
            hash: context.hash,
            attempt: 0,
            excluded_priorities: context.tried_priorities,
        };
        loop {
            let (at, panicked) = table.pick(&mut ask)?;
            if ask.attempt >= attempts || !context.tried.contains(&self.targets.get(at)?.id()) {
                if panicked {
                    self.cluster.counters().panics.increment();
                }
                return Some(at);
            }
            ask.attempt += 1;
        }
    }

    /// The endpoint at an address. The outer `None`: choose as usual.
    #[cold]
    fn destination(&mut self, address: &Address, now: Nanos) -> Option<Option<Rc<Target<L>>>> {
        let Discovery::OriginalDestination { port, .. } = self.cluster.options().discovery else {
            let checked = self.cluster.checked();
            let fits = |target: &&Rc<Target<L>>| {
                target.endpoint.addresses().contains(address) && target.endpoint.availability(checked) != Availability::Unhealthy
            };
            return self.targets.iter().find(fits).map(|target| Some(Rc::clone(target)));
        };
        let address = port.map_or_else(|| address.clone(), |port| address.with_port(port));
        Some(self.dynamic_target(&address, now))
    }

    fn dynamic_target(&mut self, address: &Address, now: Nanos) -> Option<Rc<Target<L>>> {
        if let Some((target, used)) = self.dynamic.get_mut(address) {
            // All workers share the endpoint's own mark of use: it is touched now and then.
            if now.saturating_sub(*used) <= DYNAMIC_IDLE / 8 {
                return Some(Rc::clone(target));
            }
            let known = target.id();
            *used = now;
            if self.cluster.dynamic_endpoint(address, now)?.id() == known {
                return Some(Rc::clone(target));
            }
        }
        let endpoint = self.cluster.dynamic_endpoint(address, now)?;
        let target = self.cluster_target(endpoint, now);
        if self.dynamic.len() >= MAX_LOCAL_DYNAMIC {
            self.dynamic.retain(|_, (_, used)| now.saturating_sub(*used) < DYNAMIC_IDLE);
        }
        if self.dynamic.len() < MAX_LOCAL_DYNAMIC {
            self.dynamic.insert(address.clone(), (Rc::clone(&target), now));
        }
        Some(target)
    }

    fn cluster_target(&self, endpoint: Arc<Endpoint>, now: Nanos) -> Rc<Target<L>> {
        Rc::new(Target { cluster: Arc::clone(&self.cluster), endpoint, local: Rc::new(Local::new(FLOOR, now)) })
    }

    /// Forgets original destinations that were not used for a while. For a slow timer of the worker.
    pub fn expire(&mut self, now: Nanos) {
        self.dynamic.retain(|_, (target, used)| Rc::strong_count(target) > 1 || now.saturating_sub(*used) < DYNAMIC_IDLE);
    }
}

impl<L: Default> Local<L> {
    fn new(seed: f64, now: Nanos) -> Self {
        Self { latency: Latency::new(seed, now), kept: L::default() }
    }
}

impl<L> fmt::Debug for Balancer<L> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Balancer").field("cluster", &self.cluster.name()).field("endpoints", &self.targets.len()).finish_non_exhaustive()
    }
}

/// A request on its way to an endpoint, counted as in progress until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Attempt<L = ()> {
    target: Rc<Target<L>>,
    began: Nanos,
    counted: bool,
}

impl<L> Attempt<L> {
    /// Begins an attempt.
    ///
    /// # Errors
    /// When the cluster has too many requests in progress.
    #[inline]
    pub fn begin(target: Rc<Target<L>>, now: Nanos) -> Result<Self, Overflow> {
        let cluster = &target.cluster;
        if !cluster.usage().requests.take(cluster.options().breakers.requests) {
            return Err(Overflow(Resource::Requests));
        }
        target.endpoint.state.begin();
        Ok(Self { target, began: now, counted: false })
    }

    /// Where it goes.
    #[must_use]
    pub fn target(&self) -> &Rc<Target<L>> {
        &self.target
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Nanos {
        self.began
    }

    /// Says how it went: when the response head is there, or when it is sure that none will come. A body that breaks off later may be reported as
    /// well; the attempt is counted once, by the first report.
    pub fn report(&mut self, outcome: Outcome, now: Nanos) {
        let Some(status) = outcome.status() else { return };
        let success = status < 500;
        let endpoint = &self.target.endpoint;
        if matches!(outcome, Outcome::ConnectFailure | Outcome::ConnectTimeout) {
            endpoint.state.connect_failed();
        }
        if !self.counted {
            self.counted = true;
            endpoint.state.count(success);
            if let Policy::PeakEwma { decay } = self.target.cluster.options().policy {
                self.target.local.latency.observe(now.saturating_sub(self.began), success, now, decay);
            }
        }
        outlier::report(&self.target.cluster, endpoint, outcome, now);
    }
}

impl<L> Drop for Attempt<L> {
    fn drop(&mut self) {
        self.target.endpoint.state.end();
        self.target.cluster.usage().requests.give();
    }
}

#[cfg(test)]
mod tests;
