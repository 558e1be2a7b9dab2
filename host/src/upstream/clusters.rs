//! All clusters of a configuration: made, changed and ended together, with the tasks that look after them.
//!
//! A change is prepared, then committed. [`Clusters::prepare`] makes every cluster that is new or different and shows nothing to anybody, so that the rest
//! of a snapshot can be compiled against it and the whole be dropped if something is wrong. [`Clusters::commit`] publishes endpoints, and starts and ends
//! tasks. A cluster whose message stayed the same is the same [`ClusterState`].
//!
//! It runs on the control runtime and takes no lock that a worker takes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use weir_model::config;

use super::cluster::ClusterState;
use super::endpoint::Locality;
use super::health::Connector;
use super::options::Discovery;
use super::set::EndpointSet;
use super::{Invalid, Nanos, dns, health, outlier};

/// How often idle original destinations are looked for.
const EXPIRE: Duration = Duration::from_secs(20);

/// What the clusters' tasks need.
#[derive(Clone)]
pub struct Services {
    /// Where tasks run.
    pub handle: Handle,
    /// The clock that workers use too.
    pub now: Arc<dyn Fn() -> Nanos + Send + Sync>,
    /// Makes connections for health checks.
    pub connector: Arc<dyn Connector>,
    /// Where this proxy runs.
    pub node: Arc<Locality>,
    /// Looks names up, for all clusters; if absent each asks the servers that it names, or the system's.
    pub resolver: Option<Arc<dyn dns::Resolve>>,
}

/// A cluster's place in a [`ClusterTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterIndex(usize);

impl ClusterIndex {
    /// As an index of what is kept per cluster of the same table.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

/// The clusters of one configuration. Immutable.
#[derive(Debug, Default)]
pub struct ClusterTable {
    clusters: Vec<Arc<ClusterState>>,
    names: HashMap<String, ClusterIndex>,
}

impl ClusterTable {
    /// The cluster of this name. For compiling routes; a request has the index.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ClusterIndex> {
        self.names.get(name).copied()
    }

    /// The cluster at an index of this table.
    #[must_use]
    pub fn get(&self, index: ClusterIndex) -> Option<&Arc<ClusterState>> {
        self.clusters.get(index.0)
    }

    /// Waits until every cluster is warm, but no longer than `limit`; whether all are. Between commit and showing a table to workers.
    pub async fn warm(&self, limit: Duration) -> bool {
        let all = join_all(self.clusters.iter().map(|cluster| cluster.warm()));
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// All of them, in the order of their indices.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<ClusterState>> {
        self.clusters.iter()
    }
}

/// A change that nobody sees yet.
pub struct Prepared {
    table: Arc<ClusterTable>,
    endpoints: Vec<(Arc<ClusterState>, EndpointSet)>,
    resolvers: HashMap<String, Arc<dyn dns::Resolve>>,
    applied: HashMap<String, Arc<config::Endpoints>>,
}

impl Prepared {
    /// The clusters after the change.
    #[must_use]
    pub fn table(&self) -> &Arc<ClusterTable> {
        &self.table
    }
}

/// All clusters, and their tasks.
pub struct Clusters {
    services: Services,
    table: Arc<ClusterTable>,
    tasks: HashMap<String, (Arc<ClusterState>, JoinSet<()>)>,
    /// The endpoint resources that clusters have, by the resource's name.
    applied: HashMap<String, Arc<config::Endpoints>>,
}

impl Clusters {
    /// None yet.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services, table: Arc::default(), tasks: HashMap::new(), applied: HashMap::new() }
    }

    /// The clusters of the moment.
    #[must_use]
    pub fn table(&self) -> &Arc<ClusterTable> {
        &self.table
    }

    /// Makes what `clusters` says, with `endpoints` by name of the resource.
    ///
    /// # Errors
    /// Everything that cannot be used.
    pub fn prepare(
        &self,
        clusters: &[Arc<config::Cluster>],
        endpoints: &BTreeMap<String, Arc<config::Endpoints>>,
    ) -> Result<Prepared, Vec<Invalid>> {
        let mut prepared = Prepared { table: Arc::default(), endpoints: Vec::new(), resolvers: HashMap::new(), applied: HashMap::new() };
        let mut table = ClusterTable::default();
        let mut shared = HashMap::new();
        let mut errors = Vec::new();
        for config in clusters {
            match self.prepare_one(config, endpoints, &mut shared, &mut prepared) {
                Ok(state) => {
                    if table.names.insert(config.name.clone(), ClusterIndex(table.clusters.len())).is_some() {
                        errors.push(Invalid::new(format!("clusters.{}", config.name), "there are two of this name"));
                    }
                    table.clusters.push(state);
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        prepared.table = Arc::new(table);
        Ok(prepared)
    }

    fn prepare_one(
        &self,
        config: &Arc<config::Cluster>,
        endpoints: &BTreeMap<String, Arc<config::Endpoints>>,
        shared: &mut HashMap<Vec<SocketAddr>, Arc<dyn dns::Resolve>>,
        prepared: &mut Prepared,
    ) -> Result<Arc<ClusterState>, Invalid> {
        let named = |error: Invalid| Invalid::new(format!("clusters.{}.{}", config.name, error.path), error.problem);
        let now = (self.services.now)();
        let before = self.table.find(&config.name).and_then(|index| self.table.get(index));
        let state = match before {
            Some(before) if before.config() == config => Arc::clone(before),
            _ => {
                let node = Arc::clone(&self.services.node);
                Arc::new(ClusterState::new(Arc::clone(config), node, before.map(|before| &**before), now).map_err(named)?)
            }
        };
        match &state.options().discovery {
            Discovery::Named(resource) => match (endpoints.get(resource), self.applied.get(resource)) {
                (Some(given), applied) => {
                    if applied != Some(given) || before.is_none_or(|before| before.config().discovery != config.discovery) {
                        let set = EndpointSet::compile(given, &state.endpoints(), now).map_err(|error| in_resource(resource, error))?;
                        prepared.endpoints.push((Arc::clone(&state), set));
                    }
                    prepared.applied.insert(resource.clone(), Arc::clone(given));
                }
                (None, Some(_)) => prepared.endpoints.push((Arc::clone(&state), EndpointSet::empty())),
                (None, None) => {}
            },
            Discovery::Dns(options) => {
                let resolver = self.resolver(&options.servers, shared).map_err(|problem| named(Invalid::new("dns", problem)))?;
                prepared.resolvers.insert(config.name.clone(), resolver);
            }
            Discovery::Static | Discovery::OriginalDestination { .. } => {}
        }
        Ok(state)
    }

    /// One resolver for all clusters that ask the same servers.
    fn resolver(
        &self,
        servers: &[SocketAddr],
        shared: &mut HashMap<Vec<SocketAddr>, Arc<dyn dns::Resolve>>,
    ) -> Result<Arc<dyn dns::Resolve>, String> {
        if let Some(resolver) = &self.services.resolver {
            return Ok(Arc::clone(resolver));
        }
        if let Some(resolver) = shared.get(servers) {
            return Ok(Arc::clone(resolver));
        }
        let _inside = self.services.handle.enter();
        let resolver: Arc<dyn dns::Resolve> = Arc::new(dns::System::new(servers)?);
        shared.insert(servers.to_vec(), Arc::clone(&resolver));
        Ok(resolver)
    }

    /// Makes a change real. Endpoints first, so that the table is complete when somebody sees it.
    pub fn commit(&mut self, prepared: Prepared) -> Arc<ClusterTable> {
        for (state, set) in prepared.endpoints {
            state.set_endpoints(set);
        }
        self.applied = prepared.applied;
        self.table = prepared.table;
        let mut before = std::mem::take(&mut self.tasks);
        for state in self.table.iter() {
            let tasks = match before.remove(state.name()) {
                Some((known, tasks)) if Arc::ptr_eq(&known, state) => tasks,
                _ => {
                    forgive_if_unwatched(state);
                    self.start(state, prepared.resolvers.get(state.name()))
                }
            };
            self.tasks.insert(state.name().to_owned(), (Arc::clone(state), tasks));
        }
        Arc::clone(&self.table)
    }

    /// Replaces endpoint resources, each on its own: those that are valid count, whatever is wrong with others.
    ///
    /// # Errors
    /// What is wrong with the others.
    pub fn update_endpoints(&mut self, resources: &[Arc<config::Endpoints>]) -> Result<(), Vec<Invalid>> {
        let now = (self.services.now)();
        let mut errors = Vec::new();
        for given in resources {
            let uses = |state: &&Arc<ClusterState>| matches!(&state.options().discovery, Discovery::Named(name) if *name == given.name);
            let states: Vec<_> = self.table.iter().filter(uses).collect();
            let compiled = states.iter().map(|state| EndpointSet::compile(given, &state.endpoints(), now));
            match compiled.collect::<Result<Vec<_>, _>>() {
                Err(error) => errors.push(in_resource(&given.name, error)),
                Ok(sets) => {
                    for (state, set) in states.into_iter().zip(sets) {
                        state.set_endpoints(set);
                    }
                    self.applied.insert(given.name.clone(), Arc::clone(given));
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn start(&self, state: &Arc<ClusterState>, resolver: Option<&Arc<dyn dns::Resolve>>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let Services { handle, now, connector, .. } = &self.services;
        if let (Discovery::Dns(options), Some(resolver)) = (&state.options().discovery, resolver) {
            let lookups = dns::run(Arc::clone(state), options.clone(), Arc::clone(resolver), Arc::clone(now));
            tasks.spawn_on(lookups, handle);
        }
        if state.checked() {
            tasks.spawn_on(health::run(Arc::clone(state), Arc::clone(connector), Arc::clone(now)), handle);
        }
        if let Some(options) = state.options().outlier {
            tasks.spawn_on(outlier::run(Arc::clone(state), options.interval, Arc::clone(now)), handle);
        }
        if matches!(state.options().discovery, Discovery::OriginalDestination { .. }) {
            tasks.spawn_on(expire(Arc::clone(state), Arc::clone(now)), handle);
        }
        tasks
    }
}

impl fmt::Debug for Clusters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Clusters").field("table", &self.table).finish_non_exhaustive()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Prepared").field("table", &self.table).finish_non_exhaustive()
    }
}

fn in_resource(name: &str, error: Invalid) -> Invalid {
    Invalid::new(format!("endpoints.{name}.{}", error.path), error.problem)
}

/// Nobody would bring ejected endpoints back in a cluster without outlier detection.
fn forgive_if_unwatched(state: &ClusterState) {
    if state.options().outlier.is_some() {
        return;
    }
    let mut changed = false;
    for endpoint in state.endpoints().endpoints() {
        changed |= outlier::bring_back(&endpoint.state);
    }
    if changed {
        state.changed();
    }
}

async fn expire(cluster: Arc<ClusterState>, now: Arc<dyn Fn() -> Nanos + Send + Sync>) {
    loop {
        tokio::time::sleep(EXPIRE).await;
        cluster.expire_dynamic(now());
    }
}

#[cfg(test)]
mod tests;
