//! A cluster as all workers share it: settings, limits, counters, and its endpoints of the moment.
//!
//! What always holds: the settings of a [`ClusterState`] never change, a cluster that is configured otherwise is a new one; what is counted, and the
//! state of endpoints that stay, carries over. Whatever changes a choice (endpoints, health, an ejection) ends with [`ClusterState::changed`].

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use weir_model::config;

use super::balancer::consistent::HashTables;
use super::breaker::{Overflow, Permit, Resource, Usage};
use super::endpoint::{ActiveHealth, Endpoint, EndpointSpec, EndpointState, Locality};
use super::options::{ClusterOptions, Discovery};
use super::set::EndpointSet;
use super::subset::{Labels, Registry, SubsetId};
use super::{Address, Invalid, Nanos};

/// Most endpoints that original destinations may make in one cluster.
pub const MAX_DYNAMIC: usize = 16_384;
/// How long such an endpoint stays without use.
pub const DYNAMIC_IDLE: Nanos = 60_000_000_000;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    #[inline]
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happens in a cluster seldom enough to be counted for all workers together.
#[derive(Debug, Default)]
pub struct Counters {
    /// Choices that found no endpoint.
    pub no_endpoint: Counter,
    /// Choices among unfit endpoints, because too few were fit.
    pub panics: Counter,
    /// Ejections after server errors in a row.
    pub ejections_5xx: Counter,
    /// Ejections after gateway errors in a row.
    pub ejections_gateway: Counter,
    /// Ejections after local failures in a row.
    pub ejections_local: Counter,
    /// Ejections for a low success rate.
    pub ejections_success_rate: Counter,
    /// Ejections that would have left too few endpoints.
    pub ejections_refused: Counter,
    /// Health checks that passed.
    pub checks_passed: Counter,
    /// Health checks that failed.
    pub checks_failed: Counter,
    /// Lookups that gave addresses.
    pub lookups: Counter,
    /// Lookups that failed.
    pub lookup_failures: Counter,
    /// New sets of endpoints.
    pub endpoint_changes: Counter,
    /// Retries that were begun.
    pub retries: Counter,
    /// Routes that asked for labels which make no subset, or for too many of them.
    pub unknown_subsets: Counter,
    /// Original destinations that were too many.
    pub dynamic_overflow: Counter,
}

/// What outlives a change of settings.
#[derive(Debug, Default)]
struct Lasting {
    usage: Arc<Usage>,
    counters: Counters,
    version: AtomicU64,
    subsets: Registry,
    endpoints_changed: Notify,
    changes: Notify,
}

/// A cluster as all workers share it.
#[derive(Debug)]
pub struct ClusterState {
    config: Arc<config::Cluster>,
    options: ClusterOptions,
    lasting: Arc<Lasting>,
    endpoints: ArcSwap<EndpointSet>,
    node: Arc<Locality>,
    pub(crate) hash_tables: HashTables,
    /// Held while an ejection is decided, so that two cannot both be the last one allowed.
    pub(crate) ejecting: Mutex<()>,
    dynamic: Mutex<HashMap<Address, Arc<Endpoint>>>,
    /// Every name was looked up once, successfully or not.
    looked_up: AtomicBool,
}

impl ClusterState {
    /// A cluster without endpoints, unless they are written in it. `previous` is the cluster of this name that it replaces.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn new(config: Arc<config::Cluster>, node: Arc<Locality>, previous: Option<&Self>, now: Nanos) -> Result<Self, Invalid> {
        let options = ClusterOptions::compile(&config)?;
        let before = previous.map_or_else(|| Arc::new(EndpointSet::empty()), Self::endpoints);
        let endpoints = match &config.discovery {
            Some(config::cluster::Discovery::Endpoints(given)) => {
                let set = EndpointSet::compile(given, &before, now);
                Arc::new(set.map_err(|error| Invalid::new(format!("endpoints.{}", error.path), error.problem))?)
            }
            // Found elsewhere: what was found stays until something else is.
            same if previous.is_some_and(|previous| previous.config.discovery == *same) => before,
            _ => Arc::new(EndpointSet::empty()),
        };
        Ok(Self {
            config,
            options,
            lasting: previous.map(|previous| Arc::clone(&previous.lasting)).unwrap_or_default(),
            endpoints: ArcSwap::new(endpoints),
            node,
            hash_tables: HashTables::default(),
            ejecting: Mutex::new(()),
            dynamic: Mutex::default(),
            looked_up: AtomicBool::new(false),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The message that it was made from.
    #[must_use]
    pub fn config(&self) -> &Arc<config::Cluster> {
        &self.config
    }

    /// Settings with their defaults.
    #[must_use]
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// Seldom things, counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.lasting.counters
    }

    /// What is in use now.
    #[must_use]
    pub fn usage(&self) -> &Arc<Usage> {
        &self.lasting.usage
    }

    /// Where this proxy runs.
    #[must_use]
    pub fn node(&self) -> &Locality {
        &self.node
    }

    /// Its endpoints now. Not for every request: a [`super::Balancer`] keeps them.
    #[must_use]
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.load_full()
    }

    /// Grows with every change that a choice must take into account.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.lasting.version.load(Ordering::Acquire)
    }

    /// Tells workers that endpoints or their health are different.
    pub fn changed(&self) {
        self.lasting.version.fetch_add(1, Ordering::Release);
        self.lasting.changes.notify_waiters();
    }

    /// Says that every name was looked up once.
    pub(crate) fn set_looked_up(&self) {
        self.looked_up.store(true, Ordering::Release);
        self.changed();
    }

    /// Whether it is as complete as it will become soon: names were looked up, and health checks had their first answers.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        let endpoints = self.endpoints.load();
        let known = |endpoint: &Arc<Endpoint>| endpoint.state.active_health() != ActiveHealth::Unknown;
        let found = !matches!(self.options.discovery, Discovery::Dns(_))
            || !endpoints.endpoints().is_empty()
            || self.looked_up.load(Ordering::Acquire);
        found && (!self.checked() || endpoints.endpoints().iter().all(known))
    }

    /// Ready when [`ClusterState::is_warm`]. Names and health checks have timeouts, but bound the wait all the same.
    pub async fn warm(&self) {
        loop {
            let mut change = pin!(self.lasting.changes.notified());
            // Registered before the look, so that no change falls in between.
            change.as_mut().enable();
            if self.is_warm() {
                return;
            }
            change.await;
        }
    }

    /// Replaces the endpoints.
    pub fn set_endpoints(&self, endpoints: EndpointSet) {
        self.endpoints.store(Arc::new(endpoints));
        self.lasting.counters.endpoint_changes.increment();
        self.changed();
        self.lasting.endpoints_changed.notify_one();
    }

    /// Ready after the endpoints were replaced. For the one task that checks them.
    pub(crate) async fn endpoints_changed(&self) {
        self.lasting.endpoints_changed.notified().await;
    }

    /// Whether connections of `other` could be this cluster's: whatever shapes a connection is the same.
    #[must_use]
    pub fn connects_like(&self, other: &Self) -> bool {
        let (this, that) = (&self.config, &other.config);
        this.tls == that.tls
            && this.protocol == that.protocol
            && this.proxy_protocol == that.proxy_protocol
            && this.source_address == that.source_address
            && this.keepalive == that.keepalive
            && this.max_concurrent_streams == that.max_concurrent_streams
    }

    /// The number that stands for endpoints with these labels. For routes, when they are compiled.
    #[must_use]
    pub fn subset(&self, labels: &Labels) -> SubsetId {
        let subset = self.lasting.subsets.resolve(labels, &self.options.subsets);
        if subset == SubsetId::UNKNOWN {
            self.lasting.counters.unknown_subsets.increment();
        }
        subset
    }

    /// Which labels a number stands for.
    pub(crate) fn subset_labels(&self, number: usize) -> Option<Labels> {
        self.lasting.subsets.labels(number)
    }

    /// Whether active health checks decide which endpoints are fit.
    #[must_use]
    pub fn checked(&self) -> bool {
        !self.options.health_checks.is_empty()
    }

    /// Takes a place among requests that wait for a connection.
    ///
    /// # Errors
    /// When the circuit breaker is open.
    pub fn pending_permit(&self) -> Result<Permit, Overflow> {
        self.lasting.usage.take(Resource::Pending, &self.options.breakers)
    }

    /// Takes a connection to `endpoint`; hold it as long as the connection is open or being opened.
    ///
    /// # Errors
    /// When the circuit breaker is open.
    pub fn connection_permit(&self, endpoint: &Arc<Endpoint>) -> Result<Permit, Overflow> {
        Ok(self.lasting.usage.take(Resource::Connections, &self.options.breakers)?.at(endpoint))
    }

    /// Takes a retry; hold it until the retry has ended.
    ///
    /// # Errors
    /// When the circuit breaker is open or the budget spent.
    pub fn retry_permit(&self) -> Result<Permit, Overflow> {
        let permit = self.lasting.usage.take(Resource::Retries, &self.options.breakers)?;
        self.lasting.counters.retries.increment();
        Ok(permit)
    }

    fn dynamic(&self) -> MutexGuard<'_, HashMap<Address, Arc<Endpoint>>> {
        self.dynamic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint at an original destination, made when first asked for. `None` if there are too many.
    pub(crate) fn dynamic_endpoint(&self, address: &Address, now: Nanos) -> Option<Arc<Endpoint>> {
        let mut dynamic = self.dynamic();
        if let Some(endpoint) = dynamic.get(address) {
            endpoint.state.used(now);
            return Some(Arc::clone(endpoint));
        }
        if dynamic.len() >= MAX_DYNAMIC {
            remove_idle(&mut dynamic, now);
            if dynamic.len() >= MAX_DYNAMIC {
                self.lasting.counters.dynamic_overflow.increment();
                return None;
            }
        }
        let state = Arc::new(EndpointState::new(now));
        let endpoint =
            Endpoint::new(address.to_string(), vec![address.clone()], EndpointSpec::default(), Arc::new(Locality::default()), 0, state);
        let endpoint = Arc::new(endpoint);
        dynamic.insert(address.clone(), Arc::clone(&endpoint));
        Some(endpoint)
    }

    /// Forgets original destinations that nobody used for a while.
    pub fn expire_dynamic(&self, now: Nanos) {
        remove_idle(&mut self.dynamic(), now);
    }

    /// Endpoints at original destinations.
    #[must_use]
    pub fn dynamic_endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.dynamic().values().cloned().collect()
    }
}

fn remove_idle(dynamic: &mut HashMap<Address, Arc<Endpoint>>, now: Nanos) {
    dynamic.retain(|_, endpoint| endpoint.state.active() > 0 || now.saturating_sub(endpoint.state.last_used()) < DYNAMIC_IDLE);
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn cluster(config: config::Cluster) -> ClusterState {
        ClusterState::new(Arc::new(config), Arc::default(), None, 0).unwrap()
    }

    fn original() -> ClusterState {
        let discovery = config::cluster::Discovery::OriginalDestination(config::OriginalDestinationCluster::default());
        cluster(config::Cluster { discovery: Some(discovery), ..Default::default() })
    }

    fn address(number: usize) -> Address {
        format!("10.0.{}.{}:80", number / 250, number % 250).parse().unwrap()
    }

    #[test]
    fn original_destinations_are_bounded_and_expire() {
        let cluster = original();
        for number in 0..MAX_DYNAMIC {
            assert!(cluster.dynamic_endpoint(&address(number), 0).is_some());
        }
        assert!(cluster.dynamic_endpoint(&address(MAX_DYNAMIC), DYNAMIC_IDLE - 1).is_none());
        assert_eq!(cluster.counters().dynamic_overflow.get(), 1);
        let kept = cluster.dynamic_endpoint(&address(0), DYNAMIC_IDLE - 1).unwrap();
        assert!(cluster.dynamic_endpoint(&address(MAX_DYNAMIC), DYNAMIC_IDLE).is_some(), "idle ones make room");
        assert_eq!(cluster.dynamic_endpoints().len(), 2);
        assert_eq!(cluster.dynamic_endpoint(&address(0), DYNAMIC_IDLE).unwrap().id(), kept.id());
        kept.state.begin();
        cluster.expire_dynamic(DYNAMIC_IDLE * 3);
        assert_eq!(cluster.dynamic_endpoints().len(), 1, "one in use stays");
    }

    #[test]
    fn a_connection_counts_at_its_endpoint_while_it_is_open() {
        let cluster = original();
        let endpoint = cluster.dynamic_endpoint(&address(0), 0).unwrap();
        let permit = cluster.connection_permit(&endpoint).unwrap();
        assert_eq!((endpoint.state.connections(), cluster.usage().connections.used()), (1, 1));
        drop(permit);
        assert_eq!((endpoint.state.connections(), cluster.usage().connections.used()), (0, 0));
        assert_eq!(endpoint.state.connections_total(), 1);
    }

    #[test]
    fn a_changed_cluster_keeps_what_is_in_use() {
        let before = original();
        let permit = before.pending_permit().unwrap();
        let breakers = config::CircuitBreakers { max_pending_requests: 1, ..Default::default() };
        let config = config::Cluster { circuit_breakers: Some(breakers), ..Default::default() };
        let after = ClusterState::new(Arc::new(config), Arc::default(), Some(&before), 0).unwrap();
        assert!(after.pending_permit().is_err());
        drop(permit);
        assert!(after.pending_permit().is_ok());
        let version = after.version();
        before.changed();
        assert!(after.version() > version, "an attempt of the old cluster still tells the new one");
    }
}
