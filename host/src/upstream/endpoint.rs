//! One endpoint: what configuration says of it, and what all workers know of it.
//!
//! An [`Endpoint`] is immutable and belongs to one version of a cluster's endpoints. Its [`EndpointState`] is atomics, and lives as long as the address
//! stays in the cluster, whatever else changes. Counts are exact; they are read without order between them, which is enough to choose by and to show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use weir_model::config::Health;

use super::{Address, Nanos};

/// Identifies an [`EndpointState`] in this process; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(u64);

impl EndpointId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Relaxed))
    }

    /// As a number, for hashing.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Region, zone and sub-zone; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
}

impl Locality {
    /// From configuration.
    #[must_use]
    pub fn new(given: &weir_model::config::Locality) -> Self {
        Self { region: given.region.clone(), zone: given.zone.clone(), sub_zone: given.sub_zone.clone() }
    }

    /// How far `other` is: 0 in the same sub-zone, 1 in the same zone, 2 in the same region, 3 elsewhere.
    #[must_use]
    pub fn distance(&self, other: &Self) -> usize {
        match (self.region == other.region, self.zone == other.zone, self.sub_zone == other.sub_zone) {
            (true, true, true) => 0,
            (true, true, false) => 1,
            (true, false, _) => 2,
            (false, ..) => 3,
        }
    }
}

/// An endpoint as one version of the configuration describes it.
#[derive(Debug)]
pub struct Endpoint {
    /// What it is told apart by: its address, for logical DNS its name.
    pub key: Box<str>,
    /// Where to connect; more than one in logical DNS only, never none.
    addresses: Vec<Address>,
    cursor: AtomicUsize,
    /// Host name, or nothing.
    pub hostname: Box<str>,
    /// At least 1.
    pub weight: u32,
    /// What configuration says about its health.
    pub health: Health,
    /// Labels that subsets select by.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// Rank among the cluster's priorities, without gaps.
    pub priority: usize,
    /// Speaks plain text, whatever the cluster says.
    pub plaintext: bool,
    /// Opaque.
    pub metadata: BTreeMap<String, String>,
    /// What is known of it by experience.
    pub state: Arc<EndpointState>,
}

/// What makes an [`Endpoint`].
#[derive(Clone, Debug, Default)]
pub struct EndpointSpec {
    /// Host name, or nothing.
    pub hostname: String,
    /// 1 if 0.
    pub weight: u32,
    /// What configuration says about its health.
    pub health: i32,
    /// Labels that subsets select by.
    pub labels: BTreeMap<String, String>,
    /// Speaks plain text.
    pub plaintext: bool,
    /// Opaque.
    pub metadata: BTreeMap<String, String>,
}

impl Endpoint {
    pub(crate) fn new(
        key: String,
        addresses: Vec<Address>,
        spec: EndpointSpec,
        locality: Arc<Locality>,
        priority: usize,
        state: Arc<EndpointState>,
    ) -> Self {
        Self {
            key: key.into(),
            addresses,
            cursor: AtomicUsize::new(0),
            hostname: spec.hostname.into(),
            weight: spec.weight.max(1),
            health: Health::try_from(spec.health).unwrap_or(Health::Unknown),
            labels: spec.labels,
            locality,
            priority,
            plaintext: spec.plaintext,
            metadata: spec.metadata,
            state,
        }
    }

    /// Where the next connection goes.
    #[must_use]
    pub fn connect_address(&self) -> &Address {
        match self.addresses.as_slice() {
            [only] => only,
            several => &several[self.cursor.fetch_add(1, Relaxed) % several.len()],
        }
    }

    /// Every address of it.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.state.id
    }

    /// Whether it may be chosen now, all sources taken together. `checked` says that the cluster has active health checks.
    #[must_use]
    pub fn availability(&self, checked: bool) -> Availability {
        match self.health {
            Health::Draining => Availability::Draining,
            Health::Unhealthy => Availability::Unhealthy,
            _ if !self.state.fit(checked) => Availability::Unhealthy,
            Health::Degraded => Availability::Degraded,
            Health::Healthy | Health::Unknown => Availability::Healthy,
        }
    }
}

/// Whether an endpoint may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Yes.
    Healthy,
    /// If there are not enough healthy ones.
    Degraded,
    /// In panic only.
    Unhealthy,
    /// Never: it finishes what it has. It counts as if it were not there.
    Draining,
}

/// What active health checks found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveHealth {
    /// Nothing yet.
    Unknown,
    /// It answers.
    Healthy,
    /// It does not.
    Unhealthy,
}

/// What all workers know about an endpoint.
#[derive(Debug)]
pub struct EndpointState {
    id: EndpointId,
    created: Nanos,
    /// When slow start began: creation, or the last recovery that active health checks saw.
    fresh_since: AtomicU64,
    active: AtomicU32,
    successes: AtomicU64,
    failures: AtomicU64,
    connections: AtomicU32,
    connections_total: AtomicU64,
    connect_failures: AtomicU64,
    last_used: AtomicU64,
    active_health: AtomicU8,
    ejected: AtomicBool,
    /// The outlier detector's memory.
    pub(crate) outlier: OutlierState,
}

/// What outlier detection remembers about an endpoint.
#[derive(Debug, Default)]
pub(crate) struct OutlierState {
    pub(crate) consecutive_5xx: AtomicU32,
    pub(crate) consecutive_gateway: AtomicU32,
    pub(crate) consecutive_local: AtomicU32,
    /// Multiplier of the ejection time.
    pub(crate) ejections: AtomicU32,
    pub(crate) ejections_total: AtomicU64,
    pub(crate) ejected_until: AtomicU64,
    pub(crate) interval_total: AtomicU32,
    pub(crate) interval_successes: AtomicU32,
    /// Of the last interval with enough requests, in thousandths, plus one; 0 if there was none.
    pub(crate) last_rate: AtomicU32,
}

impl EndpointState {
    pub(crate) fn new(now: Nanos) -> Self {
        Self {
            id: EndpointId::next(),
            created: now,
            fresh_since: AtomicU64::new(now),
            active: AtomicU32::new(0),
            successes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            connections: AtomicU32::new(0),
            connections_total: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            last_used: AtomicU64::new(now),
            active_health: AtomicU8::new(ActiveHealth::Unknown as u8),
            ejected: AtomicBool::new(false),
            outlier: OutlierState::default(),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// When it was first seen.
    #[must_use]
    pub fn created(&self) -> Nanos {
        self.created
    }

    /// When its slow start began.
    #[must_use]
    pub fn fresh_since(&self) -> Nanos {
        self.fresh_since.load(Relaxed)
    }

    /// Attempts in progress, over all workers.
    #[inline]
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    #[inline]
    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    #[inline]
    pub(crate) fn end(&self) {
        self.active.fetch_sub(1, Relaxed);
    }

    /// Attempts that ended well.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.successes.load(Relaxed)
    }

    /// Attempts that ended badly.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    #[inline]
    pub(crate) fn count(&self, success: bool) {
        if success { &self.successes } else { &self.failures }.fetch_add(1, Relaxed);
    }

    /// Open connections, over all workers.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Connections that were ever asked for.
    #[must_use]
    pub fn connections_total(&self) -> u64 {
        self.connections_total.load(Relaxed)
    }

    /// Connections that could not be made.
    #[must_use]
    pub fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Relaxed)
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connections_total.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Relaxed);
    }

    /// When an attempt last chose it; kept for endpoints of original destinations only.
    #[must_use]
    pub fn last_used(&self) -> Nanos {
        self.last_used.load(Relaxed)
    }

    pub(crate) fn used(&self, now: Nanos) {
        self.last_used.fetch_max(now, Relaxed);
    }

    /// What active health checks found.
    #[must_use]
    pub fn active_health(&self) -> ActiveHealth {
        match self.active_health.load(Relaxed) {
            1 => ActiveHealth::Healthy,
            2 => ActiveHealth::Unhealthy,
            _ => ActiveHealth::Unknown,
        }
    }

    /// Says what active health checks found; whether that is new.
    pub(crate) fn set_active_health(&self, health: ActiveHealth, now: Nanos) -> bool {
        let before = self.active_health.swap(health as u8, Relaxed);
        if before == ActiveHealth::Unhealthy as u8 && health == ActiveHealth::Healthy {
            self.fresh_since.store(now, Relaxed);
        }
        before != health as u8
    }

    /// Whether outlier detection ejected it.
    #[must_use]
    pub fn ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    pub(crate) fn set_ejected(&self, ejected: bool) -> bool {
        self.ejected.swap(ejected, Relaxed) != ejected
    }

    /// How often it was ejected.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.outlier.ejections_total.load(Relaxed)
    }

    /// Part of attempts that ended well in the last interval that had enough of them, 0 to 1.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        let thousandths = self.outlier.last_rate.load(Relaxed);
        (thousandths > 0).then(|| f64::from(thousandths - 1) / 1000.0)
    }

    fn fit(&self, checked: bool) -> bool {
        !self.ejected() && (!checked || self.active_health() == ActiveHealth::Healthy)
    }
}

/// How an attempt ended, as far as the endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered with this status. For gRPC, [`grpc_to_http`] of the answer's `grpc-status`.
    Response(u16),
    /// No connection, TLS included.
    ConnectFailure,
    /// Connecting took too long.
    ConnectTimeout,
    /// The connection broke, or the stream was reset or refused.
    Reset,
    /// It did not answer in time.
    Timeout,
    /// The attempt ended for a reason that says nothing about the endpoint: the client left, or a limit of our own.
    Cancelled,
}

impl Outcome {
    /// The status that stands for it.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Response(status) => Some(status),
            Self::ConnectFailure | Self::Reset => Some(503),
            Self::ConnectTimeout | Self::Timeout => Some(504),
            Self::Cancelled => None,
        }
    }

    /// Whether it was found on this side of the connection, without an answer.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::ConnectFailure | Self::ConnectTimeout | Self::Reset | Self::Timeout)
    }
}

/// The HTTP status that says what a gRPC status says.
#[must_use]
pub fn grpc_to_http(status: u32) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
