//! Outlier detection: endpoints that answer worse than they should get no requests for a while.
//!
//! Failures in a row are counted by workers as they happen, and eject at once. Success rates are compared by an interval task, which also brings
//! ejected endpoints back. The time out grows with every ejection, and shrinks by one step for every interval that passes without one.
//!
//! What always holds: the cap on ejected endpoints is never passed, whoever decides; one endpoint may always be ejected. Counting takes no lock; a
//! decision does, and there is at most one per threshold's worth of failures.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::cluster::{ClusterState, Counter, Counters};
use super::endpoint::{Availability, Endpoint, EndpointState, Outcome};
use super::options::{OutlierOptions, SuccessRateOptions};
use super::{Nanos, nanos};

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Server errors in a row.
    Consecutive5xx,
    /// Gateway errors in a row.
    ConsecutiveGateway,
    /// Local failures in a row.
    ConsecutiveLocal,
    /// Its success rate is far below the others'.
    SuccessRate,
}

impl Reason {
    fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Self::Consecutive5xx => &counters.ejections_5xx,
            Self::ConsecutiveGateway => &counters.ejections_gateway,
            Self::ConsecutiveLocal => &counters.ejections_local,
            Self::SuccessRate => &counters.ejections_success_rate,
        }
    }
}

/// Takes note of an outcome, and ejects the endpoint if it was one too many.
pub(crate) fn report(cluster: &ClusterState, endpoint: &Endpoint, outcome: Outcome, now: Nanos) {
    let Some(options) = &cluster.options().outlier else { return };
    if let Some(reason) = count(options, &endpoint.state, outcome) {
        eject(cluster, options, endpoint, reason, now);
    }
}

fn count(options: &OutlierOptions, state: &EndpointState, outcome: Outcome) -> Option<Reason> {
    let status = outcome.status()?;
    let memory = &state.outlier;
    let failed = status >= 500;
    if options.success_rate.is_some() {
        memory.interval_total.fetch_add(1, Relaxed);
        if !failed {
            memory.interval_successes.fetch_add(1, Relaxed);
        }
    }
    if options.consecutive_local > 0 {
        if outcome.is_local() {
            return reached(&memory.consecutive_local, options.consecutive_local).then_some(Reason::ConsecutiveLocal);
        }
        reset(&memory.consecutive_local);
    }
    if !failed {
        reset(&memory.consecutive_5xx);
        reset(&memory.consecutive_gateway);
        return None;
    }
    let mut reason = None;
    if matches!(status, 502..=504) {
        if reached(&memory.consecutive_gateway, options.consecutive_gateway) {
            reason = Some(Reason::ConsecutiveGateway);
        }
    } else {
        reset(&memory.consecutive_gateway);
    }
    if reached(&memory.consecutive_5xx, options.consecutive_5xx) {
        reason = Some(Reason::Consecutive5xx);
    }
    reason
}

/// Counts one more; at the threshold the count starts again.
fn reached(counter: &AtomicU32, threshold: u32) -> bool {
    if threshold == 0 || counter.fetch_add(1, Relaxed).saturating_add(1) < threshold {
        return false;
    }
    counter.store(0, Relaxed);
    true
}

/// Reads before it writes: in a healthy cluster nothing is written.
fn reset(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

fn eject(cluster: &ClusterState, options: &OutlierOptions, endpoint: &Endpoint, reason: Reason, now: Nanos) -> bool {
    let deciding = cluster.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
    if endpoint.state.ejected() {
        return false;
    }
    if !may_eject(cluster, options) {
        cluster.counters().ejections_refused.increment();
        return false;
    }
    let memory = &endpoint.state.outlier;
    let times = memory.ejections.fetch_add(1, Relaxed).saturating_add(1);
    let time = options.base_ejection.saturating_mul(u64::from(times)).min(options.max_ejection.max(options.base_ejection));
    let jitter = fastrand::u64(0..=options.base_ejection / 10);
    memory.ejected_until.store(now.saturating_add(time).saturating_add(jitter), Relaxed);
    memory.ejections_total.fetch_add(1, Relaxed);
    endpoint.state.set_ejected(true);
    drop(deciding);
    reason.counter(cluster.counters()).increment();
    cluster.changed();
    true
}

fn may_eject(cluster: &ClusterState, options: &OutlierOptions) -> bool {
    let set = cluster.endpoints();
    let total = set.endpoints().len();
    let ejected = set.endpoints().iter().filter(|endpoint| endpoint.state.ejected()).count();
    if options.min_health_percent > 0 {
        let fit =
            |endpoint: &&Arc<Endpoint>| matches!(endpoint.availability(cluster.checked()), Availability::Healthy | Availability::Degraded);
        let healthy = set.endpoints().iter().filter(fit).count();
        if healthy * 100 < total * options.min_health_percent as usize {
            return false;
        }
    }
    ejected == 0 || (ejected + 1) * 100 <= total * options.max_percent as usize
}

/// Brings endpoints back whose time has passed.
pub fn release(cluster: &ClusterState, now: Nanos) {
    let mut changed = false;
    for endpoint in cluster.endpoints().endpoints() {
        if endpoint.state.ejected() && now >= endpoint.state.outlier.ejected_until.load(Relaxed) {
            changed |= bring_back(&endpoint.state);
        }
    }
    if changed {
        cluster.changed();
    }
}

/// Forgets an ejection; whether there was one. Workers must be told.
pub(crate) fn bring_back(state: &EndpointState) -> bool {
    reset(&state.outlier.consecutive_5xx);
    reset(&state.outlier.consecutive_gateway);
    reset(&state.outlier.consecutive_local);
    state.set_ejected(false)
}

/// What is done at the end of every interval: good conduct shortens the next ejection, success rates are compared.
pub fn interval(cluster: &ClusterState, now: Nanos) {
    let Some(options) = cluster.options().outlier else { return };
    release(cluster, now);
    for endpoint in cluster.endpoints().endpoints() {
        let ejections = &endpoint.state.outlier.ejections;
        if !endpoint.state.ejected() && ejections.load(Relaxed) > 0 {
            ejections.fetch_sub(1, Relaxed);
        }
    }
    if let Some(rate) = &options.success_rate {
        compare(cluster, &options, rate, now);
    }
}

fn compare(cluster: &ClusterState, options: &OutlierOptions, rate: &SuccessRateOptions, now: Nanos) {
    let set = cluster.endpoints();
    let mut rates = Vec::new();
    for endpoint in set.endpoints() {
        let total = endpoint.state.outlier.interval_total.swap(0, Relaxed);
        let successes = endpoint.state.outlier.interval_successes.swap(0, Relaxed).min(total);
        if total >= rate.request_volume.max(1) {
            let thousandths = u64::from(successes) * 1000 / u64::from(total);
            endpoint.state.outlier.last_rate.store(u32::try_from(thousandths + 1).unwrap_or(1001), Relaxed);
            rates.push((endpoint, f64::from(successes) / f64::from(total)));
        }
    }
    if rates.len() < rate.minimum_hosts as usize {
        return;
    }
    let threshold = ejection_threshold(&rates.iter().map(|(_, rate)| *rate).collect::<Vec<_>>(), rate.stdev_factor);
    for (endpoint, success) in rates {
        if success < threshold {
            eject(cluster, options, endpoint, Reason::SuccessRate, now);
        }
    }
}

/// Does the interval work of `cluster`. Ejections end within a second of their time, however long the interval is. Never ends.
pub(crate) async fn run(cluster: Arc<ClusterState>, every: Duration, now: Arc<dyn Fn() -> Nanos + Send + Sync>) {
    let tick = every.min(Duration::from_secs(1));
    let mut due = now().saturating_add(nanos(every));
    loop {
        tokio::time::sleep(tick).await;
        let time = now();
        if time < due {
            release(&cluster, time);
        } else {
            interval(&cluster, time);
            due = time.saturating_add(nanos(every));
        }
    }
}

/// So many standard deviations below the mean.
fn ejection_threshold(rates: &[f64], factor: f64) -> f64 {
    let count = rates.len().max(1) as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - factor * variance.sqrt()
}

#[cfg(test)]
mod tests;
