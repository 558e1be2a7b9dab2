//! What filters cost, and what they measure themselves, as Prometheus families.
//!
//! A filter's own metrics keep their names, so that dashboards made for other hosts work; a name that looks like ours is put behind `wasm_`. Series of
//! the same name and labels from several filters are one, added up.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_wasm::metrics::{BOUNDS, BUCKETS, MetricKind, MetricSet, Value};
use weir_wasm::stats::{BindingStats, Callback, Counter, Level, Snapshot, TIME_BUCKETS, TrapKind, time_bound};

use super::text::{Family, legal};

/// Whose accounting to show.
#[derive(Clone)]
pub struct FilterMetrics {
    /// The chain's name.
    pub chain: Arc<str>,
    /// The binding's.
    pub filter: Arc<str>,
    /// What it costs.
    pub stats: Arc<BindingStats>,
    /// What it measures.
    pub metrics: Arc<MetricSet>,
}

const NANOS: f64 = 1e9;

/// The families of all `filters`.
pub(super) fn collect(filters: &[FilterMetrics], families: &mut Vec<Family>) {
    let read: Vec<(&FilterMetrics, Snapshot)> = filters.iter().map(|filter| (filter, filter.stats.snapshot())).collect();
    costs(&read, families);
    callbacks(&read, families);
    own(filters, families);
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn costs(read: &[(&FilterMetrics, Snapshot)], families: &mut Vec<Family>) {
    for counter in Counter::ALL {
        let mut family = Family::counter(format!("weir_filter_{}_total", counter.name()), "What happened to a filter.");
        for (filter, stats) in read {
            let always = matches!(counter, Counter::DeadlineMisses | Counter::FailedClosed | Counter::FailedOpen);
            if always || stats.counter(counter) > 0 {
                family.count(&labels(filter), stats.counter(counter));
            }
        }
        families.push(family);
    }
    let mut traps = Family::counter("weir_filter_traps_total", "Instances that were lost, by cause.");
    for (filter, stats) in read {
        for kind in TrapKind::ALL.into_iter().filter(|kind| stats.traps(*kind) > 0) {
            let [chain, name] = labels(filter);
            traps.count(&[chain, name, ("cause", kind.name())], stats.traps(kind));
        }
    }
    families.push(traps);
    for level in Level::ALL {
        let mut family = Family::gauge(format!("weir_filter_{}", level.name()), "What a filter uses now.");
        for (filter, stats) in read {
            family.level(&labels(filter), stats.level(level) as f64);
        }
        families.push(family);
    }
    let mut peak = Family::gauge("weir_filter_peak_instance_memory_bytes", "The most memory that one instance had.");
    for (filter, stats) in read {
        peak.level(&labels(filter), stats.peak_instance_memory as f64);
    }
    families.push(peak);
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn callbacks(read: &[(&FilterMetrics, Snapshot)], families: &mut Vec<Family>) {
    let mut calls = Family::counter("weir_filter_calls_total", "Calls of a filter's callbacks.");
    let mut cpu = Family::gauge("weir_filter_cpu_seconds", "Time in a filter's callbacks, estimated from the calls that were timed.");
    let mut times = Family::histogram("weir_filter_call_duration_seconds", "How long callbacks took that were timed (one in 32).");
    for (filter, stats) in read {
        let [chain, name] = labels(filter);
        let (mut buckets, mut sum) = ([0_u64; TIME_BUCKETS], 0_u64);
        for callback in Callback::ALL.iter().copied() {
            let one = stats.callback(callback);
            if one.calls == 0 {
                continue;
            }
            let labels = [chain, name, ("callback", callback.name())];
            calls.count(&labels, one.calls);
            cpu.level(&labels, one.estimated_nanos() as f64 / NANOS);
            buckets.iter_mut().zip(one.buckets).for_each(|(all, count)| *all += count);
            sum += one.sampled_nanos;
        }
        if buckets.iter().any(|count| *count > 0) {
            let bounds = (0..TIME_BUCKETS).map_while(time_bound).map(|nanos| nanos as f64 / NANOS);
            times.distribution(&[chain, name], &buckets, bounds, sum as f64 / NANOS);
        }
    }
    families.extend([calls, cpu, times]);
}

fn labels(filter: &FilterMetrics) -> [(&str, &str); 2] {
    [("chain", &filter.chain), ("filter", &filter.filter)]
}

type Labels = Vec<(String, String)>;

/// What filters measure themselves.
#[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn own(filters: &[FilterMetrics], families: &mut Vec<Family>) {
    let mut series: BTreeMap<String, (MetricKind, BTreeMap<Labels, Value>)> = BTreeMap::new();
    let mut dropped = Family::counter("weir_filter_series_dropped_total", "Series beyond a filter's limit.");
    let mut seen: Vec<*const MetricSet> = Vec::new();
    for filter in filters {
        dropped.count(&labels(filter), filter.metrics.series_dropped());
        // Bindings of several chains may share a set.
        let address = Arc::as_ptr(&filter.metrics);
        if seen.contains(&address) {
            continue;
        }
        seen.push(address);
        for one in filter.metrics.snapshot() {
            let name = exposed(&one.name);
            let kind = one.kind();
            // A name has one kind on the page.
            let taken = series.get(&name).is_some_and(|(known, _)| *known != kind);
            let name = if taken { format!("{name}_{}", kind.name()) } else { name };
            let labels = one.labels.iter().map(|(key, value)| (legal(key), value.to_string())).collect();
            let (known, values) = series.entry(name).or_insert_with(|| (kind, BTreeMap::new()));
            if *known == kind {
                add(values, labels, one.value);
            }
        }
    }
    families.push(dropped);
    for (name, (kind, values)) in series {
        let help = "Measured by a filter.";
        let mut family = match kind {
            MetricKind::Counter => Family::counter(name, help),
            MetricKind::Gauge => Family::gauge(name, help),
            MetricKind::Histogram => Family::histogram(name, help),
        };
        for (labels, value) in values {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            match value {
                Value::Counter(value) => family.count(&labels, value),
                Value::Gauge(value) => family.level(&labels, value as f64),
                Value::Histogram(histogram) => family.distribution(&labels, &histogram.buckets, BOUNDS, histogram.sum as f64),
            }
        }
        families.push(family);
    }
}

fn exposed(name: &str) -> String {
    let name = legal(name);
    let ours = name.starts_with("weir_") || name.starts_with("process_");
    if ours { format!("wasm_{name}") } else { name }
}

fn add(values: &mut BTreeMap<Labels, Value>, labels: Labels, value: Value) {
    use std::collections::btree_map::Entry;
    match values.entry(labels) {
        Entry::Vacant(entry) => {
            entry.insert(value);
        }
        Entry::Occupied(mut entry) => match (entry.get_mut(), value) {
            (Value::Counter(all), Value::Counter(one)) => *all = all.saturating_add(one),
            (Value::Gauge(all), Value::Gauge(one)) => *all = all.saturating_add(one),
            (Value::Histogram(all), Value::Histogram(one)) => {
                for at in 0..BUCKETS {
                    all.buckets[at] = all.buckets[at].saturating_add(one.buckets[at]);
                }
                all.sum = all.sum.saturating_add(one.sum);
            }
            _ => {}
        },
    }
}
