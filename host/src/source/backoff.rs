//! Waits between attempts: twice as long each time, up to a bound, with half of each wait left to chance so that proxies do not come in step.
//!
//! What always holds: a wait is at least half of `min` and at most `max`.

use std::time::Duration;

/// The waits of one series of attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is about `min`, none is above `max`. A `min` of 0 is taken as 1 ms, a `max` below `min` as `min`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), failures: 0 }
    }

    /// Something went well: the next wait is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        let whole = self.min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.max);
        self.failures = self.failures.saturating_add(1).min(31);
        whole.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_anew() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(15));
        let mut backoff = Backoff::new(min, max);
        for round in 0..100_u32 {
            let whole = min.saturating_mul(1 << round.min(20)).min(max);
            let wait = backoff.wait();
            assert!(wait >= whole / 2 && wait <= whole, "round {round}: {wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= min);
    }

    #[test]
    fn odd_bounds_are_made_good() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        for _ in 0..40 {
            let wait = backoff.wait();
            assert!(wait > Duration::ZERO && wait <= Duration::from_millis(1));
        }
    }
}
