//! What the admin page shows of a cluster. Plain values, read from counters as they stand.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cluster::{ClusterState, Counters};
use super::endpoint::{ActiveHealth, Availability, Endpoint};

/// A cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// Connections, pending requests, requests and retries.
    pub limits: BTreeMap<&'static str, LimitView>,
    /// Seldom events by name.
    pub counters: BTreeMap<&'static str, u64>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
}

/// Something that a circuit breaker limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitView {
    /// In use now.
    pub used: u32,
    /// Most that may be; absent if there is no limit.
    pub limit: Option<u32>,
    /// How often one was refused.
    pub refused: u64,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointView {
    /// Its address, for logical DNS its name.
    pub name: String,
    /// Where connections go.
    pub addresses: Vec<String>,
    /// Host name, or nothing.
    pub hostname: String,
    /// `healthy`, `degraded`, `unhealthy` or `draining`: all sources together.
    pub availability: &'static str,
    /// What configuration says: `unknown`, `healthy`, `degraded`, `draining` or `unhealthy`.
    pub configured_health: &'static str,
    /// What active health checks say: `unknown`, `healthy` or `unhealthy`.
    pub checked_health: &'static str,
    /// Whether outlier detection ejected it.
    pub ejected: bool,
    /// How often it was ejected.
    pub ejections: u64,
    /// Success rate of the last interval with enough requests, 0 to 1.
    pub success_rate: Option<f64>,
    /// Requests in progress.
    pub active_requests: u32,
    /// Requests that ended well.
    pub successes: u64,
    /// Requests that ended badly.
    pub failures: u64,
    /// Open connections.
    pub connections: u32,
    /// Connections that were ever asked for.
    pub connections_total: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Weight.
    pub weight: u32,
    /// Rank of its priority.
    pub priority: usize,
    /// `region/zone/sub_zone`.
    pub locality: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Shows a cluster.
#[must_use]
pub fn cluster(cluster: &ClusterState) -> ClusterView {
    let (usage, limits) = (cluster.usage(), &cluster.options().breakers);
    let limit = |gauge: &super::breaker::Gauge, limit: u32| LimitView {
        used: gauge.used(),
        limit: (limit != u32::MAX).then_some(limit),
        refused: gauge.refused(),
    };
    let checked = cluster.checked();
    let endpoints = cluster.endpoints();
    let dynamic = cluster.dynamic_endpoints();
    ClusterView {
        name: cluster.name().to_owned(),
        limits: BTreeMap::from([
            ("connections", limit(&usage.connections, limits.connections)),
            ("pending_requests", limit(&usage.pending, limits.pending)),
            ("requests", limit(&usage.requests, limits.requests)),
            ("retries", limit(&usage.retries, usage.retry_limit(limits))),
        ]),
        counters: counters(cluster.counters()),
        endpoints: endpoints.endpoints().iter().chain(&dynamic).map(|shown| endpoint(shown, checked)).collect(),
    }
}

fn counters(counters: &Counters) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("no_endpoint", counters.no_endpoint.get()),
        ("panics", counters.panics.get()),
        ("ejections_5xx", counters.ejections_5xx.get()),
        ("ejections_gateway", counters.ejections_gateway.get()),
        ("ejections_local", counters.ejections_local.get()),
        ("ejections_success_rate", counters.ejections_success_rate.get()),
        ("ejections_refused", counters.ejections_refused.get()),
        ("checks_passed", counters.checks_passed.get()),
        ("checks_failed", counters.checks_failed.get()),
        ("lookups", counters.lookups.get()),
        ("lookup_failures", counters.lookup_failures.get()),
        ("endpoint_changes", counters.endpoint_changes.get()),
        ("retries", counters.retries.get()),
        ("unknown_subsets", counters.unknown_subsets.get()),
        ("dynamic_overflow", counters.dynamic_overflow.get()),
    ])
}

fn endpoint(endpoint: &Endpoint, checked: bool) -> EndpointView {
    use weir_model::config::Health;
    let state = &endpoint.state;
    EndpointView {
        name: endpoint.key.to_string(),
        addresses: endpoint.addresses().iter().map(ToString::to_string).collect(),
        hostname: endpoint.hostname.to_string(),
        availability: match endpoint.availability(checked) {
            Availability::Healthy => "healthy",
            Availability::Degraded => "degraded",
            Availability::Unhealthy => "unhealthy",
            Availability::Draining => "draining",
        },
        configured_health: match endpoint.health {
            Health::Unknown => "unknown",
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Draining => "draining",
            Health::Unhealthy => "unhealthy",
        },
        checked_health: match state.active_health() {
            ActiveHealth::Unknown => "unknown",
            ActiveHealth::Healthy => "healthy",
            ActiveHealth::Unhealthy => "unhealthy",
        },
        ejected: state.ejected(),
        ejections: state.ejections(),
        success_rate: state.success_rate(),
        active_requests: state.active(),
        successes: state.successes(),
        failures: state.failures(),
        connections: state.connections(),
        connections_total: state.connections_total(),
        connect_failures: state.connect_failures(),
        weight: endpoint.weight,
        priority: endpoint.priority,
        locality: format!("{}/{}/{}", endpoint.locality.region, endpoint.locality.zone, endpoint.locality.sub_zone),
        labels: endpoint.labels.clone(),
    }
}
