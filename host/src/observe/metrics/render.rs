//! The counters as Prometheus families.
//!
//! What is zero is left out, apart from what people look for first: a family with a series per status and listener would be mostly zeros.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder as _, Registry, TextEncoder};
use weir_wasm::cells::Reading;
use weir_wasm::metrics::{BOUNDS, BUCKETS};

use super::blocks::{Block, Family as Blocks, cluster, histogram, listener};
use super::kinds::{ClusterCounter, ClusterLevel, Detailed, ListenerCounter, ListenerLevel};
use super::text::Family;
use super::{Metrics, filters};

/// Makes `metrics` part of its own registry.
pub(super) fn register(metrics: &Arc<Metrics>) {
    let desc = Desc::new("weir_info".into(), "The running version.".into(), Vec::new(), HashMap::new());
    let collector = All { metrics: Arc::downgrade(metrics), desc: desc.ok() };
    if let Err(error) = metrics.registry.register(Box::new(collector)) {
        tracing::error!(%error, "the metrics page has no counters");
    }
}

/// Everything in `registry` as text.
pub(super) fn text(registry: &Registry) -> Vec<u8> {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text) {
        tracing::error!(%error, "the metrics page is not whole");
    }
    text
}

/// A series at some moment, for programs that read JSON.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stat {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Of a counter or a gauge: its value. Of a histogram: how many values there were.
    pub value: f64,
    /// Of a histogram: the sum of its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// Of a histogram: pairs of a bound and how many values were not above it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(f64, u64)>,
}

/// Everything in `registry`.
#[allow(clippy::cast_precision_loss, reason = "JSON has no other numbers")]
pub(super) fn stats(registry: &Registry) -> Vec<Stat> {
    let mut stats = Vec::new();
    for family in registry.gather() {
        for metric in family.get_metric() {
            let labels = metric.get_label().iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect();
            let mut stat = Stat { name: family.name().to_owned(), labels, value: 0.0, sum: None, buckets: Vec::new() };
            match family.get_field_type() {
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    stat.value = histogram.get_sample_count() as f64;
                    stat.sum = Some(histogram.get_sample_sum());
                    stat.buckets = histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
                }
                MetricType::COUNTER => stat.value = metric.get_counter().get_value(),
                _ => stat.value = metric.get_gauge().get_value(),
            }
            stats.push(stat);
        }
    }
    stats
}

struct All {
    metrics: Weak<Metrics>,
    desc: Option<Desc>,
}

impl Collector for All {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(metrics) = self.metrics.upgrade() else { return Vec::new() };
        let mut families = Vec::new();
        process(&metrics, &mut families);
        listeners(&metrics, &mut families);
        clusters(&metrics, &mut families);
        filters::collect(&metrics.filters.load(), &mut families);
        families.into_iter().filter_map(Family::done).collect()
    }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn process(metrics: &Metrics, families: &mut Vec<Family>) {
    let config = &metrics.config;
    let mut info = Family::gauge("weir_info", "The running version.");
    info.level(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let mut uptime = Family::gauge("weir_uptime_seconds", "Since the process started.");
    uptime.level(&[], metrics.started.elapsed().as_secs_f64());
    let mut updates = Family::counter("weir_config_updates_total", "Configurations that were offered, by what became of them.");
    updates.count(&[("result", "accepted")], config.accepted.load(Relaxed));
    updates.count(&[("result", "rejected")], config.rejected.load(Relaxed));
    families.extend([info, uptime, updates]);
    for (name, help, value) in [
        ("weir_config_generation", "The newest configuration's number.", &config.generation),
        ("weir_config_oldest_generation", "The oldest that a worker still takes new work on.", &config.oldest_generation),
        ("weir_config_applied_timestamp_seconds", "When the newest began to serve.", &config.applied_at),
        ("weir_controller_connected", "Whether a controller is connected.", &config.controller_connected),
    ] {
        let mut family = Family::gauge(name, help);
        family.level(&[], value.load(Relaxed) as f64);
        families.push(family);
    }
    let mut dropped = Family::counter("weir_access_log_dropped_total", "Lines of access logs that did not fit.");
    dropped.count(&[], config.access_log_dropped.load(Relaxed));
    families.push(dropped);
    if let Some(resident) = resident_bytes() {
        let mut family = Family::gauge("process_resident_memory_bytes", "Resident memory.");
        family.level(&[], resident as f64);
        families.push(family);
    }
}

/// Resident memory of this process.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Counters and levels that every block of a family has; those of `always` are shown when they are zero too.
struct Common<'a> {
    label: &'static str,
    blocks: &'a [Arc<Block>],
    counts: &'a Reading<'a>,
    levels: &'a Reading<'a>,
}

impl Common<'_> {
    fn counter(&self, name: String, help: &str, cell: u32, always: bool) -> Family {
        let mut family = Family::counter(name, help);
        for block in self.blocks {
            let value = self.sum(block, cell);
            if always || value > 0 {
                family.count(&[(self.label, &block.name)], value);
            }
        }
        family
    }

    #[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    fn level(&self, name: String, help: &str, cell: u32) -> Family {
        let mut family = Family::gauge(name, help);
        for block in self.blocks {
            let value = block.level_since(cell, self.levels.level(block.levels + cell));
            family.level(&[(self.label, &block.name)], value as f64);
        }
        family
    }

    /// `per`: how many of what is counted make one of what is shown.
    #[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    fn distribution(&self, name: &str, help: &str, cell: u32, per: f64) -> Family {
        let mut family = Family::histogram(name, help);
        for block in self.blocks {
            let buckets: [u64; BUCKETS] = std::array::from_fn(|at| self.sum(block, cell + at as u32));
            if buckets.iter().any(|count| *count > 0) {
                let sum = self.sum(block, cell + histogram::SUM) as f64;
                family.distribution(&[(self.label, &block.name)], &buckets, BOUNDS.map(|bound| bound / per), sum / per);
            }
        }
        family
    }

    fn sum(&self, block: &Block, cell: u32) -> u64 {
        block.since(cell, self.counts.sum(block.base + cell))
    }
}

/// Durations are counted in milliseconds, and shown in seconds.
const MILLIS: f64 = 1000.0;

fn listeners(metrics: &Metrics, families: &mut Vec<Family>) {
    let blocks = metrics.blocks().living(Blocks::Listener);
    let details = metrics.details.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (counts, levels) = (metrics.counts.read(), metrics.levels.read());
    let common = Common { label: "listener", blocks: &blocks, counts: &counts, levels: &levels };
    for counter in ListenerCounter::ALL {
        let always = counter == ListenerCounter::Connections;
        families.push(common.counter(format!("weir_listener_{}", counter.name()), counter.help(), counter as u32, always));
    }
    for level in ListenerLevel::ALL {
        families.push(common.level(format!("weir_listener_{}", level.name()), level.help(), level as u32));
    }
    let mut responses = Family::counter("weir_http_responses_total", "Responses to clients, by status; 0 is none or an impossible one.");
    for block in &blocks {
        for at in 0..listener::STATUSES {
            let value = common.sum(block, listener::STATUS + at);
            if value > 0 {
                let code = if at + 1 == listener::STATUSES { 0 } else { at + 100 };
                responses.count(&[("listener", &block.name), ("code", &code.to_string())], value);
            }
        }
    }
    families.push(responses);
    for family in Detailed::ALL {
        let label = if family == Detailed::ConnectionRefusal { "reason" } else { "detail" };
        let mut counter = Family::counter(format!("weir_{}", family.name()), family.help());
        for block in &blocks {
            for (number, name) in (0..).zip(&details) {
                let value = common.sum(block, listener::detail(family, number));
                if value > 0 {
                    counter.count(&[("listener", &block.name), (label, name)], value);
                }
            }
        }
        families.push(counter);
    }
    for (name, help, cell, per) in [
        ("weir_http_request_duration_seconds", "From a request's first byte to its response's last.", listener::DURATION, MILLIS),
        ("weir_http_request_bytes", "Bodies of requests.", listener::REQUEST_BYTES, 1.0),
        ("weir_http_response_bytes", "Bodies of responses.", listener::RESPONSE_BYTES, 1.0),
    ] {
        families.push(common.distribution(name, help, cell, per));
    }
    drop((counts, levels));
}

fn clusters(metrics: &Metrics, families: &mut Vec<Family>) {
    let blocks = metrics.blocks().living(Blocks::Cluster);
    let (counts, levels) = (metrics.counts.read(), metrics.levels.read());
    let common = Common { label: "cluster", blocks: &blocks, counts: &counts, levels: &levels };
    for counter in ClusterCounter::ALL {
        let always = counter == ClusterCounter::Requests;
        families.push(common.counter(format!("weir_cluster_{}", counter.name()), counter.help(), counter as u32, always));
    }
    for level in ClusterLevel::ALL {
        families.push(common.level(format!("weir_cluster_{}", level.name()), level.help(), level as u32));
    }
    let mut responses = Family::counter("weir_cluster_responses_total", "Responses of upstreams, by class of status.");
    for block in &blocks {
        for (class, name) in (0..).zip(["1xx", "2xx", "3xx", "4xx", "5xx", "other"]) {
            let value = common.sum(block, cluster::CLASS + class);
            if value > 0 {
                responses.count(&[("cluster", &block.name), ("class", name)], value);
            }
        }
    }
    families.push(responses);
    let help = "From a request's first byte to its response's last.";
    families.push(common.distribution("weir_cluster_request_duration_seconds", help, cluster::DURATION, MILLIS));
    drop((counts, levels));
}
