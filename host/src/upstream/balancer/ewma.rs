//! How slow an endpoint lately was, as one worker has seen it: the peak of its response times, forgotten exponentially.
//!
//! A slower answer counts at once, a faster one little by little. A failure counts as a slow answer, so that an endpoint which fails quickly does
//! not attract requests.

use std::cell::Cell;

use crate::upstream::Nanos;

/// The least that an endpoint is taken to need: a new one must not look free.
pub(crate) const FLOOR: f64 = 1_000_000.0;
/// What a failure counts as, at least.
const PENALTY: f64 = 1_000_000_000.0;

/// A decaying peak of response times.
#[derive(Debug)]
pub(crate) struct Latency {
    peak: Cell<f64>,
    at: Cell<Nanos>,
}

impl Latency {
    pub(crate) fn new(seed: f64, now: Nanos) -> Self {
        Self { peak: Cell::new(seed.max(FLOOR)), at: Cell::new(now) }
    }

    /// The peak, as if nothing had been seen since.
    pub(crate) fn get(&self, now: Nanos, decay: Nanos) -> f64 {
        (self.peak.get() * self.kept(now, decay)).max(FLOOR)
    }

    /// An answer took this long.
    pub(crate) fn observe(&self, took: Nanos, success: bool, now: Nanos, decay: Nanos) {
        let took = if success { took as f64 } else { (took as f64).max(PENALTY) };
        let peak = self.peak.get();
        let kept = self.kept(now, decay);
        self.peak.set(if took >= peak { took } else { peak * kept + took * (1.0 - kept) });
        self.at.set(self.at.get().max(now));
    }

    fn kept(&self, now: Nanos, decay: Nanos) -> f64 {
        let age = now.saturating_sub(self.at.get());
        if age == 0 { 1.0 } else { (-(age as f64) / decay as f64).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let latency = Latency::new(0.0, 0);
        assert_eq!(latency.get(0, SECOND), FLOOR);
        latency.observe(SECOND / 2, true, SECOND, SECOND);
        assert_eq!(latency.get(SECOND, SECOND), 5e8);
        latency.observe(10_000_000, true, SECOND, SECOND);
        assert_eq!(latency.get(SECOND, SECOND), 5e8, "one fast answer at the same moment changes nothing");
        latency.observe(10_000_000, true, 2 * SECOND, SECOND);
        let faded = latency.get(2 * SECOND, SECOND);
        assert!((1.5e8..2.5e8).contains(&faded), "{faded}");
        assert_eq!(latency.get(60 * SECOND, SECOND), FLOOR);
    }

    #[test]
    fn a_quick_failure_is_not_fast() {
        let latency = Latency::new(0.0, 0);
        latency.observe(1000, false, SECOND, SECOND);
        assert_eq!(latency.get(SECOND, SECOND), 1e9);
    }
}
