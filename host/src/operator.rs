//! What the operator's pages show and change: a view of the process, made when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use weir_model::config::{self, branch};
use weir_wasm::FailurePolicy;
use weir_wasm::stats::{Callback, Counter, Level, TrapKind};

use crate::admin::{AdminState, view};
use crate::app::App;
use crate::observe::log::LogLevel;
use crate::observe::metrics::Metrics;
use crate::snapshot::{Snapshot, SnapshotListener};
use crate::source::{Key, Kind, SourceStatus};
use crate::tls::peer::CertificateFacts;
use crate::upstream::view as upstream;

/// A process, as its operator sees it.
pub struct Operator {
    app: Arc<App>,
    sources: watch::Receiver<[SourceStatus; 2]>,
    level: LogLevel,
    drain: Notify,
    draining: AtomicBool,
}

impl Operator {
    /// The operator's view of `app`.
    #[must_use]
    pub fn new(app: Arc<App>, sources: watch::Receiver<[SourceStatus; 2]>, level: LogLevel) -> Arc<Self> {
        Arc::new(Self { app, sources, level, drain: Notify::new(), draining: AtomicBool::new(false) })
    }

    /// Waits until somebody asks for a drain.
    pub async fn asked_to_drain(&self) {
        self.drain.notified().await;
    }

    /// From now on new traffic is not welcome.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.app.current.get()
    }
}

impl AdminState for Operator {
    fn ready(&self) -> view::Ready {
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("draining".to_owned());
        }
        match self.snapshot() {
            None => reasons.push("starting: no configuration serves yet".to_owned()),
            Some(snapshot) if !snapshot.complete => reasons.push("waiting for the controller".to_owned()),
            Some(_) => {}
        }
        view::Ready { ready: reasons.is_empty(), reasons }
    }

    fn config(&self) -> view::Config {
        let snapshot = self.snapshot();
        let generation = snapshot.as_ref().map_or(0, |snapshot| snapshot.generation);
        let sources = self.sources.borrow();
        view::Config {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.app.node.clone(),
            generation,
            workers: vec![generation; self.app.workers.count()],
            live_snapshots: self.app.live_snapshots(),
            sources: ["file", "controller"].iter().zip(sources.iter()).map(|(name, status)| view::Source::of(name, status)).collect(),
            resources: snapshot.map(|snapshot| view::Resource::all(&snapshot.resources)).unwrap_or_default(),
        }
    }

    fn clusters(&self) -> Vec<view::Cluster> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        snapshot
            .clusters
            .iter()
            .map(|cluster| cluster_view(cluster.state.config(), cluster.tls.is_some(), upstream::cluster(&cluster.state)))
            .collect()
    }

    fn filters(&self) -> Vec<view::Filter> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let of_chain = |chain: &crate::filter::chain::LoadedChain| {
            let config = snapshot.resources.filter_chain(&chain.name);
            let view = |binding: &Arc<weir_wasm::Binding>| {
                let name = binding.config().name.rsplit('/').next().unwrap_or_default();
                let given = config.and_then(|config| config.filters.iter().find(|filter| filter.name == name));
                filter_view(&chain.name, name, given, binding)
            };
            chain.bindings.iter().map(|loaded| view(&loaded.binding)).collect::<Vec<_>>()
        };
        snapshot.chains.iter().flat_map(of_chain).collect()
    }

    fn listeners(&self) -> Vec<view::Listener> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let draining = self.draining.load(Ordering::Relaxed);
        let view = |listener: &Arc<SnapshotListener>| listener_view(listener, snapshot.resources.listener(&listener.name), draining);
        snapshot.listeners.iter().map(view).collect()
    }

    fn certs(&self) -> Vec<view::Certificate> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let origin =
            |name: &str| snapshot.resources.get(&Key::new(Kind::Secret, name)).map(|entry| entry.origin.to_string()).unwrap_or_default();
        let keys = snapshot
            .secrets
            .keys()
            .flat_map(|key| key.chain.iter().map(|facts| certificate(&key.name, "keyPair", facts, origin(&key.name))));
        let roots = snapshot
            .secrets
            .all_roots()
            .flat_map(|roots| roots.facts.iter().map(|facts| certificate(&roots.name, "trustRoots", facts, origin(&roots.name))));
        keys.chain(roots).collect()
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.app.workers.process.metrics
    }

    fn log_level(&self) -> String {
        self.level.get()
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        self.level.set(level)
    }

    fn drain(&self) {
        self.drain.notify_one();
    }
}

fn cluster_view(config: &config::Cluster, tls: bool, of: upstream::ClusterView) -> view::Cluster {
    use config::cluster::Discovery;
    let used = |name: &str| of.limits.get(name).map_or(0, |limit| u64::from(limit.used));
    view::Cluster {
        discovery: match config.discovery {
            Some(Discovery::Dns(_)) => "dns",
            Some(Discovery::EndpointsFrom(_)) => "discovery",
            Some(Discovery::OriginalDestination(_)) => "originalDestination",
            Some(Discovery::Endpoints(_)) | None => "static",
        }
        .into(),
        balancer: balancer(config.balancer.as_ref()).into(),
        tls,
        requests: used("requests"),
        connections: used("connections"),
        pending: used("pending"),
        endpoints: of.endpoints.into_iter().map(endpoint_view).collect(),
        last_error: None,
        name: of.name,
    }
}

fn balancer(given: Option<&config::Balancer>) -> &'static str {
    use config::balancer::Policy;
    match given.and_then(|balancer| balancer.policy.as_ref()) {
        None | Some(Policy::RoundRobin(_)) => "roundRobin",
        Some(Policy::LeastRequest(_)) => "leastRequest",
        Some(Policy::PeakEwma(_)) => "peakEwma",
        Some(Policy::Random(_)) => "random",
        Some(Policy::RingHash(_)) => "ringHash",
        Some(Policy::Maglev(_)) => "maglev",
    }
}

fn endpoint_view(of: upstream::EndpointView) -> view::Endpoint {
    view::Endpoint {
        address: of.name,
        hostname: of.hostname,
        health: of.availability.into(),
        ejected_for: of.ejected.then_some(0),
        ejections: of.ejections,
        weight: of.weight,
        priority: u32::try_from(of.priority).unwrap_or(u32::MAX),
        locality: of.locality,
        active_requests: of.active_requests.into(),
        requests: of.successes + of.failures,
        errors: of.failures,
        labels: of.labels,
    }
}

fn filter_view(chain: &str, name: &str, given: Option<&config::FilterBinding>, binding: &weir_wasm::Binding) -> view::Filter {
    let stats = binding.stats().snapshot();
    let calls = Callback::ALL.iter().copied().map(|callback| (callback.name(), stats.callback(callback)));
    let phase = given.map(|given| given.phase().as_str_name().to_ascii_lowercase()).unwrap_or_default();
    view::Filter {
        chain: chain.into(),
        name: name.into(),
        module: binding.module().name().into(),
        sha256: binding.module().digest().to_string(),
        phase,
        priority: given.map_or(0, |given| given.priority),
        failure_policy: if binding.config().failure_policy == FailurePolicy::Open { "open" } else { "closed" }.into(),
        accounting: view::Accounting {
            cpu_micros: calls.clone().map(|(_, one)| one.estimated_nanos()).sum::<u64>() / 1000,
            calls: calls.filter(|(_, one)| one.calls > 0).map(|(name, one)| (name, one.calls)).collect(),
            counters: Counter::ALL
                .into_iter()
                .map(|counter| (counter.name(), stats.counter(counter)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            traps: TrapKind::ALL.into_iter().map(|kind| (kind.name(), stats.traps(kind))).filter(|(_, count)| *count > 0).collect(),
            levels: Level::ALL.into_iter().map(|level| (level.name(), stats.level(level))).collect(),
            peak_instance_memory_bytes: stats.peak_instance_memory,
            series: binding.metrics().snapshot().len(),
            series_dropped: binding.metrics().series_dropped(),
        },
    }
}

fn listener_view(listener: &SnapshotListener, given: Option<&Arc<config::Listener>>, draining: bool) -> view::Listener {
    let branches = given.iter().flat_map(|given| given.branches.iter().chain(&given.default_branch));
    view::Listener {
        name: listener.name.to_string(),
        address: listener.bound.clone(),
        connections: listener.connections.open(),
        max_connections: given.map_or(0, |given| given.max_connections.into()),
        draining,
        branches: branches.zip(&listener.branches).map(|(given, branch)| branch_view(given, &branch.name)).collect(),
    }
}

fn branch_view(given: &config::Branch, name: &str) -> view::Branch {
    let (protocol, filter_chain) = match &given.protocol {
        Some(branch::Protocol::Http(http)) => ("http", http.filter_chain.clone()),
        Some(branch::Protocol::Tcp(tcp)) => ("tcp", tcp.filter_chain.clone()),
        None => ("", String::new()),
    };
    let security = match &given.tls {
        None => "plaintext",
        Some(tls) if tls.permissive => "permissive",
        Some(tls) if tls.client_auth.as_ref().is_some_and(|auth| auth.mode() == config::client_auth::Mode::Required) => "mtls",
        Some(_) => "tls",
    };
    let matches = given.r#match.as_ref().map(|of| weir_model::yaml::print_message("Match", of)).unwrap_or_default();
    view::Branch { name: name.into(), matches, protocol: protocol.into(), security: security.into(), filter_chain }
}

fn certificate(secret: &str, kind: &str, facts: &CertificateFacts, origin: String) -> view::Certificate {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let names = facts.dns.iter().chain(&facts.uris).chain(&facts.ips);
    view::Certificate {
        secret: secret.into(),
        kind: kind.into(),
        subject: facts.subject.to_string(),
        names: names.map(ToString::to_string).collect(),
        issuer: facts.issuer.to_string(),
        serial: facts.serial.to_string(),
        not_before: facts.not_before,
        not_after: facts.not_after,
        days_left: (facts.not_after - now).div_euclid(86_400),
        origin,
    }
}
