//! What the pages show, as JSON of a stable shape: fields are added, not renamed. Nothing here is a type of the data path or of the schema.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::observe::metrics::FilterMetrics;
use crate::source::SourceStatus;

/// `/ready`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ready {
    /// Whether new traffic is welcome.
    pub ready: bool,
    /// If not, why: `starting`, `waiting for the controller`, `draining`.
    pub reasons: Vec<String>,
}

/// `/config`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The version of the proxy.
    pub version: String,
    /// Who it is.
    pub node: String,
    /// The newest snapshot's number.
    pub generation: u64,
    /// The number that each worker takes new work on.
    pub workers: Vec<u64>,
    /// Snapshots that still have streams, the newest among them.
    pub live_snapshots: u64,
    /// Every source.
    pub sources: Vec<Source>,
    /// Every resource.
    pub resources: Vec<Resource>,
}

/// A source of configuration.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// `file` or `controller`.
    pub name: String,
    /// Where its applied share is from.
    pub provenance: Option<String>,
    /// When that began to serve, in seconds since 1970.
    pub applied_at: Option<u64>,
    /// Changes that were applied.
    pub accepted: u64,
    /// Changes of which something was refused.
    pub rejected: u64,
    /// Why the last change was not applied; empty once one was.
    pub last_error: Vec<String>,
    /// What the source has to say: its connection.
    pub message: String,
}

impl Source {
    /// As the hub has it.
    #[must_use]
    pub fn of(name: &str, status: &SourceStatus) -> Self {
        let seconds = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            name: name.into(),
            provenance: status.provenance.as_ref().map(ToString::to_string),
            applied_at: status.applied_at.map(seconds),
            accepted: status.accepted,
            rejected: status.rejected,
            last_error: status.last_error.clone(),
            message: status.message.clone(),
        }
    }
}

/// A resource that is loaded.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// `listener`, `cluster`…
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The file or the controller.
    pub origin: String,
}

impl Resource {
    /// All of `resources`.
    #[must_use]
    pub fn all(resources: &crate::source::Resources) -> Vec<Self> {
        let view = |(key, entry): (crate::source::Key, &crate::source::Entry)| Self {
            kind: key.kind.label().into(),
            name: key.name.to_string(),
            version: entry.version.to_string(),
            origin: entry.origin.to_string(),
        };
        resources.iter().map(view).collect()
    }
}

/// An item of `/clusters`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// How endpoints are found: `static`, `dns`, `discovery`, `originalDestination`.
    pub discovery: String,
    /// How one is chosen.
    pub balancer: String,
    /// Whether connections are secured.
    pub tls: bool,
    /// In flight over all workers.
    pub requests: u64,
    /// Open over all workers.
    pub connections: u64,
    /// Waiting for a connection over all workers.
    pub pending: u64,
    /// Every endpoint.
    pub endpoints: Vec<Endpoint>,
    /// Why endpoints could not be found the last time: DNS.
    pub last_error: Option<String>,
}

/// An endpoint of a cluster.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `10.0.0.1:80` or `unix:/path`.
    pub address: String,
    /// Its host name, if it has one.
    pub hostname: String,
    /// `healthy`, `degraded`, `draining`, `unhealthy`.
    pub health: String,
    /// Until when it is ejected, in seconds from now.
    pub ejected_for: Option<u64>,
    /// How often it was ejected.
    pub ejections: u64,
    /// Its share.
    pub weight: u32,
    /// Its priority; lower is used first.
    pub priority: u32,
    /// `region/zone/sub-zone`.
    pub locality: String,
    /// Requests in flight.
    pub active_requests: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Among them failures and 5xx.
    pub errors: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// An item of `/listeners`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens; the port that was given when it asked for any.
    pub address: String,
    /// Open connections.
    pub connections: u64,
    /// Most connections; 0 is no limit of its own.
    pub max_connections: u64,
    /// Whether it no longer accepts.
    pub draining: bool,
    /// Its branches, in the order in which they are matched.
    pub branches: Vec<Branch>,
}

/// A branch of a listener.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Branch {
    /// Its name.
    pub name: String,
    /// What it matches, as text.
    pub matches: String,
    /// `http` or `tcp`.
    pub protocol: String,
    /// `plaintext`, `tls`, `mtls`, `permissive`.
    pub security: String,
    /// Its chain of filters.
    pub filter_chain: String,
}

/// An item of `/certs`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The secret's name.
    pub secret: String,
    /// `keyPair` or `trustRoots`.
    pub kind: String,
    /// Who it is for.
    pub subject: String,
    /// Names in it: DNS, URI, IP.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// In hex.
    pub serial: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Days until it ends; negative when it has.
    pub days_left: i64,
    /// Where it is from.
    pub origin: String,
}

/// An item of `/filters`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// The chain's name.
    pub chain: String,
    /// The binding's name.
    pub name: String,
    /// `builtin://headers`, a path, `inline`.
    pub module: String,
    /// The module's SHA-256.
    pub sha256: String,
    /// Its phase.
    pub phase: String,
    /// Its priority.
    pub priority: i32,
    /// `closed` or `open`.
    pub failure_policy: String,
    /// What it costs.
    pub accounting: Accounting,
}

/// What a filter costs, over all workers.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accounting {
    /// Calls by callback.
    pub calls: BTreeMap<&'static str, u64>,
    /// Estimated time in callbacks, in microseconds.
    pub cpu_micros: u64,
    /// What happened, by name.
    pub counters: BTreeMap<&'static str, u64>,
    /// Instances that were lost, by cause.
    pub traps: BTreeMap<&'static str, u64>,
    /// What it uses now, by name.
    pub levels: BTreeMap<&'static str, i64>,
    /// The most memory that one instance had.
    pub peak_instance_memory_bytes: u64,
    /// Series that it defined.
    pub series: usize,
    /// Definitions beyond its limit.
    pub series_dropped: u64,
}

impl Accounting {
    /// As the host has it.
    #[must_use]
    pub fn of(filter: &FilterMetrics) -> Self {
        use weir_wasm::stats::{Callback, Counter, Level, TrapKind};
        let stats = filter.stats.snapshot();
        let callbacks = || Callback::ALL.iter().map(|callback| (callback.name(), stats.callback(*callback)));
        let nanos = callbacks().fold(0_u64, |sum, (_, calls)| sum.saturating_add(calls.estimated_nanos()));
        Self {
            calls: callbacks().filter(|(_, calls)| calls.calls > 0).map(|(name, calls)| (name, calls.calls)).collect(),
            cpu_micros: nanos / 1_000,
            counters: Counter::ALL.into_iter().map(|counter| (counter.name(), stats.counter(counter))).collect(),
            traps: TrapKind::ALL.into_iter().map(|kind| (kind.name(), stats.traps(kind))).collect(),
            levels: Level::ALL.into_iter().map(|level| (level.name(), stats.level(level))).collect(),
            peak_instance_memory_bytes: stats.peak_instance_memory,
            series: filter.metrics.series(),
            series_dropped: filter.metrics.series_dropped(),
        }
    }
}
