//! A token bucket for things that may be dropped, such as a guest's log lines: pure, with the time passed in.
//!
//! What always holds: in any period of `t` seconds at most `burst + rate × t` pass; what was dropped is counted, and the
//! next one that passes learns how many, so that the log can say so. Time that goes back counts as time that stands still.

use crate::time::Nanos;

/// Parts a token is divided into: one per nanosecond at a rate of 1/s, so that no rounding is ever needed.
const TOKEN: u64 = 1_000_000_000;

/// Lets `burst` pass at once and `rate` per second after that.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    rate: u32,
    burst: u32,
    /// Parts of tokens in the bucket.
    filled: u64,
    last: Nanos,
    dropped: u64,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 never refills; a burst of 0 lets nothing pass.
    #[must_use]
    pub(crate) fn new(rate: u32, burst: u32, now: Nanos) -> Self {
        Self { rate, burst, filled: u64::from(burst) * TOKEN, last: now, dropped: 0 }
    }

    /// Whether one may pass at `now`: `Some` with how many were dropped since the last that did, or `None`: drop it.
    pub(crate) fn take(&mut self, now: Nanos) -> Option<u64> {
        self.refill(now);
        match self.filled.checked_sub(TOKEN) {
            Some(left) => {
                self.filled = left;
                Some(std::mem::take(&mut self.dropped))
            }
            None => {
                self.dropped = self.dropped.saturating_add(1);
                None
            }
        }
    }

    fn refill(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        let gained = elapsed.saturating_mul(u64::from(self.rate));
        self.filled = self.filled.saturating_add(gained).min(u64::from(self.burst) * TOKEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut bucket = TokenBucket::new(2, 3, 0);
        let passed: Vec<_> = (0..5).map(|_| bucket.take(0)).collect();
        assert_eq!(passed, [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(bucket.take(SECOND / 2 - 1), None);
        assert_eq!(bucket.take(SECOND / 2), Some(3), "the next line says how many are missing");
        assert_eq!(bucket.take(SECOND / 2), None);
        assert_eq!(bucket.take(SECOND), Some(1));
    }

    #[test]
    fn silence_fills_no_further_than_the_burst() {
        let mut bucket = TokenBucket::new(u32::MAX, 2, 0);
        let now = u64::MAX;
        assert_eq!([bucket.take(now), bucket.take(now), bucket.take(now)], [Some(0), Some(0), None]);
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let mut bucket = TokenBucket::new(1, 1, 5 * SECOND);
        assert_eq!(bucket.take(5 * SECOND), Some(0));
        assert_eq!(bucket.take(0), None);
        assert_eq!(bucket.take(5 * SECOND), None, "the second between was not counted twice");
        assert_eq!(bucket.take(6 * SECOND), Some(2));
    }

    #[test]
    fn the_ends_of_the_scale() {
        assert_eq!(TokenBucket::new(5, 0, 0).take(SECOND), None);
        let mut no_refill = TokenBucket::new(0, 1, 0);
        assert_eq!([no_refill.take(0), no_refill.take(u64::MAX)], [Some(0), None]);
    }

    proptest! {
        #[test]
        fn no_more_pass_than_burst_and_rate_allow_and_none_is_lost(
            rate in 0_u32..1000, burst in 0_u32..50, steps in prop::collection::vec(0_u64..SECOND / 100, 0..300),
        ) {
            let mut bucket = TokenBucket::new(rate, burst, 0);
            let (mut now, mut passed, mut reported) = (0, 0_u64, 0);
            for step in &steps {
                now += step;
                if let Some(dropped) = bucket.take(now) {
                    passed += 1;
                    reported += dropped;
                }
            }
            reported += bucket.dropped;
            prop_assert_eq!(passed + reported, steps.len() as u64);
            prop_assert!(passed <= u64::from(burst) + now * u64::from(rate) / SECOND);
        }
    }
}
