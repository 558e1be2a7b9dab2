//! The endpoints of a cluster at one moment: immutable, shared by all workers, replaced as a whole.
//!
//! What always holds: an address occurs once (the first mention counts); an endpoint whose key was in the set before keeps its state; priorities
//! are numbered without gaps, however they are numbered in configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_model::config;

use super::endpoint::{Endpoint, EndpointSpec, EndpointState, Locality};
use super::{Address, Invalid, Nanos};

/// The endpoints of a cluster at one moment.
#[derive(Debug, Default)]
pub struct EndpointSet {
    endpoints: Vec<Arc<Endpoint>>,
    localities: Vec<LocalityGroup>,
    priorities: usize,
    panic_threshold: u32,
    overprovisioning: u32,
}

/// The endpoints of one locality in one priority.
#[derive(Debug)]
pub struct LocalityGroup {
    /// Where.
    pub locality: Arc<Locality>,
    /// Rank of the priority.
    pub priority: usize,
    /// Share within the priority; 0 if none was given.
    pub weight: u32,
    /// Indices of its endpoints.
    pub members: Vec<usize>,
}

impl EndpointSet {
    /// No endpoints, default thresholds.
    #[must_use]
    pub fn empty() -> Self {
        Self { panic_threshold: 50, overprovisioning: 140, ..Self::default() }
    }

    /// From configuration. `previous` gives state to endpoints that stay.
    ///
    /// # Errors
    /// An address that is none.
    pub fn compile(given: &config::Endpoints, previous: &Self, now: Nanos) -> Result<Self, Invalid> {
        let mut builder = Builder::new(previous, now);
        builder.thresholds(given.panic_threshold, given.overprovisioning);
        for (at, group) in given.localities.iter().enumerate() {
            let locality = group.locality.as_ref().map(Locality::new).unwrap_or_default();
            let group_at = builder.group(locality, group.priority, group.weight);
            for (endpoint_at, endpoint) in group.endpoints.iter().enumerate() {
                let address: Address = endpoint.address.parse().map_err(|_| {
                    let path = format!("localities[{at}].endpoints[{endpoint_at}].address");
                    Invalid::new(path, format!("`{}` is not an address", endpoint.address))
                })?;
                builder.endpoint(group_at, address.to_string(), vec![address], spec(endpoint));
            }
        }
        Ok(builder.build())
    }

    /// All endpoints, in the order of configuration.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Localities, each within its priority.
    #[must_use]
    pub fn localities(&self) -> &[LocalityGroup] {
        &self.localities
    }

    /// How many priorities there are.
    #[must_use]
    pub fn priorities(&self) -> usize {
        self.priorities
    }

    /// Healthy part, in percent, below which a priority is treated as if all were healthy; 0 is never.
    #[must_use]
    pub fn panic_threshold(&self) -> u32 {
        self.panic_threshold
    }

    /// In percent.
    #[must_use]
    pub fn overprovisioning(&self) -> u32 {
        self.overprovisioning
    }

    /// The endpoint with this key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| *endpoint.key == *key)
    }
}

fn spec(endpoint: &config::Endpoint) -> EndpointSpec {
    EndpointSpec {
        hostname: endpoint.hostname.clone(),
        weight: endpoint.weight,
        health: endpoint.health,
        labels: endpoint.labels.clone(),
        plaintext: endpoint.plaintext,
        metadata: endpoint.metadata.clone(),
    }
}

/// Collects endpoints for a set.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    known: HashMap<&'a str, &'a Arc<EndpointState>>,
    now: Nanos,
    groups: Vec<(Locality, u32, u32)>,
    endpoints: Vec<(usize, String, Vec<Address>, EndpointSpec)>,
    panic_threshold: u32,
    overprovisioning: u32,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(previous: &'a EndpointSet, now: Nanos) -> Self {
        let known = previous.endpoints.iter().map(|endpoint| (&*endpoint.key, &endpoint.state)).collect();
        Self { known, now, groups: Vec::new(), endpoints: Vec::new(), panic_threshold: 50, overprovisioning: 140 }
    }

    pub(crate) fn thresholds(&mut self, panic: Option<u32>, overprovisioning: u32) {
        self.panic_threshold = panic.unwrap_or(50).min(100);
        self.overprovisioning = if overprovisioning == 0 { 140 } else { overprovisioning.max(100) };
    }

    /// A locality of a priority; the same one if it was mentioned before.
    pub(crate) fn group(&mut self, locality: Locality, priority: u32, weight: u32) -> usize {
        let known = self.groups.iter().position(|group| group.0 == locality && group.1 == priority);
        known.unwrap_or_else(|| {
            self.groups.push((locality, priority, weight));
            self.groups.len() - 1
        })
    }

    pub(crate) fn endpoint(&mut self, group: usize, key: String, addresses: Vec<Address>, spec: EndpointSpec) {
        if !addresses.is_empty() {
            self.endpoints.push((group, key, addresses, spec));
        }
    }

    pub(crate) fn build(self) -> EndpointSet {
        let mut ranks: BTreeMap<u32, usize> = self.endpoints.iter().map(|endpoint| (self.groups[endpoint.0].1, 0)).collect();
        for (rank, slot) in ranks.values_mut().enumerate() {
            *slot = rank;
        }
        let rank = |priority: u32| ranks.get(&priority).copied().unwrap_or(0);
        let mut localities: Vec<LocalityGroup> = self
            .groups
            .into_iter()
            .map(|(locality, priority, weight)| LocalityGroup {
                locality: Arc::new(locality),
                priority: rank(priority),
                weight,
                members: Vec::new(),
            })
            .collect();
        let mut seen = std::collections::HashSet::with_capacity(self.endpoints.len());
        let mut endpoints = Vec::with_capacity(self.endpoints.len());
        for (group, key, addresses, spec) in self.endpoints {
            if !seen.insert(key.clone()) {
                continue;
            }
            let state = self.known.get(key.as_str()).map_or_else(|| Arc::new(EndpointState::new(self.now)), |state| Arc::clone(state));
            let group = &mut localities[group];
            group.members.push(endpoints.len());
            endpoints.push(Arc::new(Endpoint::new(key, addresses, spec, Arc::clone(&group.locality), group.priority, state)));
        }
        localities.retain(|group| !group.members.is_empty());
        EndpointSet {
            endpoints,
            localities,
            priorities: ranks.len(),
            panic_threshold: self.panic_threshold,
            overprovisioning: self.overprovisioning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(priority: u32, addresses: &[&str]) -> config::LocalityEndpoints {
        let endpoints = addresses.iter().map(|address| config::Endpoint { address: (*address).to_owned(), ..Default::default() }).collect();
        config::LocalityEndpoints { priority, endpoints, ..Default::default() }
    }

    fn endpoints(localities: Vec<config::LocalityEndpoints>) -> config::Endpoints {
        config::Endpoints { localities, ..Default::default() }
    }

    #[test]
    fn state_stays_with_the_address_across_changes() {
        let before = EndpointSet::compile(&endpoints(vec![group(0, &["10.0.0.1:1", "10.0.0.2:1"])]), &EndpointSet::empty(), 5).unwrap();
        let mut changed = group(3, &["10.0.0.2:1", "10.0.0.3:1"]);
        changed.endpoints[0].weight = 7;
        let after = EndpointSet::compile(&endpoints(vec![changed]), &before, 9).unwrap();
        assert!(Arc::ptr_eq(&before.endpoints()[1].state, &after.endpoints()[0].state));
        assert_eq!((after.endpoints()[0].weight, after.endpoints()[0].state.created()), (7, 5));
        assert_eq!(after.endpoints()[1].state.created(), 9);
        assert_ne!(after.endpoints()[1].id(), before.endpoints()[0].id());
    }

    #[test]
    fn priorities_have_no_gaps_and_addresses_no_doubles() {
        let given = endpoints(vec![group(9, &["10.0.0.1:1"]), group(4, &["10.0.0.2:1", "10.0.0.1:1"]), group(1, &[])]);
        let set = EndpointSet::compile(&given, &EndpointSet::empty(), 0).unwrap();
        assert_eq!(set.priorities(), 2);
        let ranks: Vec<_> = set.endpoints().iter().map(|endpoint| (endpoint.key.to_string(), endpoint.priority)).collect();
        assert_eq!(ranks, [("10.0.0.1:1".to_owned(), 1), ("10.0.0.2:1".to_owned(), 0)]);
    }

    #[test]
    fn says_which_address_is_none() {
        let error = EndpointSet::compile(&endpoints(vec![group(0, &["10.0.0.1:1", "web:80"])]), &EndpointSet::empty(), 0).unwrap_err();
        assert_eq!(error.path, "localities[0].endpoints[1].address");
    }
}
