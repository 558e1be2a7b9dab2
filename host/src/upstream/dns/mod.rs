//! Clusters whose endpoints are names: looked up when their records run out, for as long as the cluster exists.
//!
//! What always holds: a lookup that fails changes nothing but the time of the next one, which moves away exponentially; two lookups of a name are never
//! closer than the cluster's `minRefresh`; a name that is an IP address is never looked up. Strict clusters have an endpoint per address, logical
//! ones an endpoint per name whose connections go to the addresses in turn.
//!
//! [`Names`] is the pure part and knows no resolver and no clock; [`run`] drives it.

mod resolver;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use super::cluster::ClusterState;
use super::endpoint::{EndpointSpec, Locality};
use super::options::{DnsOptions, Family};
use super::set::{Builder, EndpointSet};
use super::{Address, Nanos, nanos};

pub use resolver::System;

/// Longest wait after failures, unless a refresh is rarer.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Longest lookup, all servers and retries included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// How long that is true.
    pub ttl: Duration,
}

/// Looks names up.
pub trait Resolve: Send + Sync + 'static {
    /// Addresses of `name`. The error is for the log.
    fn resolve<'a>(&'a self, name: &'a str, family: Family) -> BoxFuture<'a, Result<Resolved, String>>;
}

/// The names of a cluster, and what is known of them.
#[derive(Debug)]
pub(crate) struct Names {
    options: DnsOptions,
    states: Vec<NameState>,
}

#[derive(Clone, Debug)]
struct NameState {
    addresses: Vec<IpAddr>,
    due: Nanos,
    failures: u32,
}

impl Names {
    /// `known` are the cluster's endpoints from before: what they say of a name is true until its first lookup.
    pub(crate) fn new(options: DnsOptions, known: &EndpointSet) -> Self {
        let state = |name: &weir_model::config::DnsName| match name.name.trim_matches(['[', ']']).parse() {
            Ok(literal) => NameState { addresses: vec![literal], due: Nanos::MAX, failures: 0 },
            Err(_) => NameState { addresses: known_addresses(&name.name, known), due: 0, failures: 0 },
        };
        Self { states: options.names.iter().map(state).collect(), options }
    }

    /// Which names to look up now.
    fn due(&self, now: Nanos) -> Vec<usize> {
        (0..self.states.len()).filter(|at| self.states[*at].due <= now).collect()
    }

    /// When the next lookup is.
    fn next_due(&self) -> Nanos {
        self.states.iter().map(|state| state.due).min().unwrap_or(Nanos::MAX)
    }

    /// Takes an answer; whether the addresses are different now. `random` spreads lookups: any number.
    fn answer(&mut self, at: usize, answer: Option<Resolved>, now: Nanos, random: u64) -> bool {
        let least = self.options.min_refresh;
        let Some(state) = self.states.get_mut(at) else { return false };
        match answer {
            Some(mut resolved) if !resolved.addresses.is_empty() => {
                resolved.addresses.sort_unstable();
                resolved.addresses.dedup();
                state.failures = 0;
                state.due = now.saturating_add(nanos(self.options.refresh.unwrap_or(resolved.ttl).max(least)));
                let changed = state.addresses != resolved.addresses;
                state.addresses = resolved.addresses;
                changed
            }
            _ => {
                let step = least.saturating_mul(1_u32.checked_shl(state.failures).unwrap_or(u32::MAX)).min(MAX_BACKOFF.max(least));
                state.failures = state.failures.saturating_add(1);
                state.due = now.saturating_add(nanos(step)).saturating_add(random % (nanos(step) / 4).max(1));
                false
            }
        }
    }

    /// The endpoints that the names stand for.
    pub(crate) fn endpoints(&self, previous: &EndpointSet, now: Nanos) -> EndpointSet {
        let mut builder = Builder::new(previous, now);
        for (name, state) in self.options.names.iter().zip(&self.states) {
            let locality = name.locality.as_ref().map(Locality::new).unwrap_or_default();
            let group = builder.group(locality, name.priority, 0);
            let port = u16::try_from(name.port).unwrap_or(0);
            let spec = EndpointSpec { hostname: name.name.clone(), weight: name.weight, labels: name.labels.clone(), ..Default::default() };
            let addresses = state.addresses.iter().map(|ip| Address::Ip(SocketAddr::new(*ip, port)));
            if self.options.logical {
                builder.endpoint(group, format!("{}:{port}", name.name), addresses.collect(), spec);
            } else {
                addresses.for_each(|address| builder.endpoint(group, address.to_string(), vec![address], spec.clone()));
            }
        }
        builder.build()
    }
}

fn known_addresses(name: &str, known: &EndpointSet) -> Vec<IpAddr> {
    let named = known.endpoints().iter().filter(|endpoint| *endpoint.hostname == *name);
    let mut addresses: Vec<_> = named
        .flat_map(|endpoint| endpoint.addresses())
        .filter_map(|address| if let Address::Ip(address) = address { Some(address.ip()) } else { None })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Keeps the endpoints of `cluster` what its names stand for. Never ends.
pub(crate) async fn run(
    cluster: Arc<ClusterState>,
    options: DnsOptions,
    resolver: Arc<dyn Resolve>,
    now: Arc<dyn Fn() -> Nanos + Send + Sync>,
) {
    let family = options.family;
    let mut names = Names::new(options, &cluster.endpoints());
    // Addresses that need no lookup are published with the first round.
    let mut changed = true;
    let mut first = true;
    loop {
        let due = names.due(now());
        let lookups = due.iter().map(|at| lookup(&*resolver, &names.options.names[*at].name, family));
        let answers = join_all(lookups).await;
        for (at, answer) in due.into_iter().zip(answers) {
            let counters = cluster.counters();
            if answer.is_some() { &counters.lookups } else { &counters.lookup_failures }.increment();
            changed |= names.answer(at, answer, now(), fastrand::u64(..));
        }
        if changed {
            changed = false;
            cluster.set_endpoints(names.endpoints(&cluster.endpoints(), now()));
        }
        if first {
            first = false;
            cluster.set_looked_up();
        }
        match names.next_due() {
            Nanos::MAX => std::future::pending().await,
            due => tokio::time::sleep(Duration::from_nanos(due.saturating_sub(now()))).await,
        }
    }
}

async fn lookup(resolver: &dyn Resolve, name: &str, family: Family) -> Option<Resolved> {
    match tokio::time::timeout(LOOKUP_TIMEOUT, resolver.resolve(name, family)).await {
        Ok(Ok(resolved)) if !resolved.addresses.is_empty() => return Some(resolved),
        Ok(Ok(_)) => tracing::warn!(name, "name has no address; the last known ones stay"),
        Ok(Err(error)) => tracing::warn!(name, %error, "name cannot be resolved; the last known addresses stay"),
        Err(_) => tracing::warn!(name, "resolving took too long; the last known addresses stay"),
    }
    None
}

#[cfg(test)]
mod tests;
