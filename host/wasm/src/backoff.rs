//! How long to wait after a failure before the next attempt: exponential, with equal jitter, pure.
//!
//! What always holds: no wait is longer than `max`; every wait but the free ones is at least half of its exponential step, so
//! neither luck nor a hostile guest makes a crash loop hot; a success alone forgets nothing. Failures are forgotten only
//! after the thing has worked for a whole `stable` period, counted from its first success, so a guest that serves one
//! request and then traps climbs the ladder as one that serves none.
//!
//! It reads no clock and makes no random numbers: both come in. What is being retried is not its business.

use std::time::Duration;

use crate::time::Nanos;

/// The state of one thing that may fail: an instance of a binding, a download.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Nanos,
    max: Nanos,
    stable: Nanos,
    free: u32,
    failures: u32,
    not_before: Nanos,
    /// When it first worked after the last failure.
    working_since: Option<Nanos>,
}

impl Backoff {
    /// Waits `base`, then twice as long each time, up to `max`. The first failure is free (a fresh instance serves the very
    /// next stream), and failures are forgotten after working for `max`.
    #[must_use]
    pub(crate) fn new(base: Duration, max: Duration) -> Self {
        let base = nanos(base).max(1);
        let max = nanos(max).max(base);
        Self { base, max, stable: max, free: 1, failures: 0, not_before: 0, working_since: None }
    }

    /// Lets `free` failures in a row pass without a wait.
    #[must_use]
    pub(crate) fn with_free_failures(mut self, free: u32) -> Self {
        self.free = free;
        self
    }

    /// Forgets failures after it has worked for `stable`.
    #[must_use]
    pub(crate) fn with_stable_period(mut self, stable: Duration) -> Self {
        self.stable = nanos(stable);
        self
    }

    /// It failed at `now`; returns the time before which it must not be tried again. `random` spreads the waits of things
    /// that failed together: any uniformly distributed number.
    pub(crate) fn failure(&mut self, now: Nanos, random: u64) -> Nanos {
        self.forget_if_stable(now);
        self.working_since = None;
        self.failures = self.failures.saturating_add(1);
        let wait = self.wait(random);
        self.not_before = now.saturating_add(wait);
        self.not_before
    }

    /// It worked at `now`. Cheap enough for every request.
    #[inline]
    pub(crate) fn success(&mut self, now: Nanos) {
        if self.failures == 0 {
            return;
        }
        if self.working_since.is_none() {
            self.working_since = Some(now);
        }
        self.forget_if_stable(now);
    }

    /// Whether it may be tried at `now`.
    #[inline]
    #[must_use]
    pub(crate) fn ready(&self, now: Nanos) -> bool {
        now >= self.not_before
    }

    /// The time before which it must not be tried: 0 when there is none.
    #[must_use]
    pub(crate) fn not_before(&self) -> Nanos {
        self.not_before
    }

    /// Failures that are not forgotten yet.
    #[must_use]
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    fn forget_if_stable(&mut self, now: Nanos) {
        let stable = self.working_since.is_some_and(|since| now.saturating_sub(since) >= self.stable);
        if stable {
            self.failures = 0;
            self.not_before = 0;
            self.working_since = None;
        }
    }

    /// Half of the step for certain, the other half by `random`.
    fn wait(&self, random: u64) -> Nanos {
        let Some(doublings) = self.failures.checked_sub(self.free.saturating_add(1)) else {
            return 0;
        };
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let step = self.base.saturating_mul(factor).min(self.max);
        let sure = step.div_ceil(2);
        sure + random % (step - sure + 1)
    }
}

/// A duration in nanoseconds, as long as the clock can count.
fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Nanos = 1_000_000;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(1))
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        // (failure number, shortest, longest wait) in milliseconds: the least and the greatest random number.
        let table = [(1, 0, 0), (2, 50, 100), (3, 100, 200), (4, 200, 400), (5, 400, 800), (6, 500, 1000), (7, 500, 1000)];
        for (random, column) in [(0, 1), (u64::MAX, 2)] {
            let mut shortest = backoff();
            for row in table {
                let expected = if column == 1 { row.1 } else { row.2 } * MS;
                let got = shortest.failure(0, random);
                // `u64::MAX % n` is not `n - 1`: the longest wait is bounded, the shortest exact.
                if column == 1 {
                    assert_eq!(got, expected, "failure {}", row.0);
                } else {
                    assert!(got <= expected, "failure {}: {got} > {expected}", row.0);
                }
            }
        }
    }

    #[test]
    fn jitter_reaches_both_ends() {
        let mut low = backoff().with_free_failures(0);
        let mut high = low.clone();
        assert_eq!(low.failure(0, 0), 50 * MS);
        assert_eq!(high.failure(0, 50 * MS), 100 * MS);
    }

    #[test]
    fn it_is_ready_at_the_time_it_named() {
        let mut b = backoff().with_free_failures(0);
        assert!(b.ready(0));
        let until = b.failure(1000, 12345);
        assert!(!b.ready(until - 1));
        assert!(b.ready(until));
        assert_eq!(b.not_before(), until);
    }

    #[test]
    fn one_success_forgets_nothing() {
        let mut b = backoff();
        let mut now = 0;
        let mut waits = vec![];
        for _ in 0..5 {
            let until = b.failure(now, 0);
            waits.push(until - now);
            now = until + MS;
            b.success(now);
        }
        assert_eq!(waits, [0, 50 * MS, 100 * MS, 200 * MS, 400 * MS]);
    }

    #[test]
    fn a_stable_period_forgets_all_even_when_only_the_next_failure_tells() {
        let mut b = backoff();
        b.failure(0, 0);
        b.failure(0, 0);
        b.success(100 * MS);
        b.success(1099 * MS);
        assert_eq!(b.failures(), 2);
        b.success(1100 * MS);
        assert_eq!(b.failures(), 0);

        b.failure(2000 * MS, 0);
        b.failure(2000 * MS, 0);
        b.success(2100 * MS);
        assert_eq!(b.failure(9000 * MS, 0), 9000 * MS, "the free failure again");
        assert_eq!(b.failures(), 1);
    }

    #[test]
    fn waiting_is_not_working() {
        let mut b = backoff();
        b.failure(0, 0);
        b.failure(3_600_000 * MS, 0);
        assert_eq!(b.failures(), 2, "an hour without a success proves nothing");
    }

    proptest! {
        #[test]
        fn every_wait_is_bounded_and_at_least_half_a_step(
            base in 1_u64..1 << 40, max in 1_u64..1 << 50, free in 0_u32..4,
            failures in 1_u32..200, now in 0_u64..1 << 60, random: u64,
        ) {
            let mut b = Backoff::new(Duration::from_nanos(base), Duration::from_nanos(max)).with_free_failures(free);
            let top = max.max(base);
            for n in 1..=failures {
                let wait = b.failure(now, random) - now;
                prop_assert!(wait <= top);
                if n <= free {
                    prop_assert_eq!(wait, 0);
                } else {
                    let step = u128::from(base) << (n - free - 1).min(64);
                    prop_assert!(u128::from(wait) * 2 >= step.min(u128::from(top)));
                }
            }
        }

        #[test]
        fn no_input_panics(ops in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u64>()), 0..50)) {
            let mut b = Backoff::new(Duration::MAX, Duration::ZERO).with_free_failures(u32::MAX);
            let mut c = Backoff::new(Duration::ZERO, Duration::MAX);
            for (failed, now, random) in ops {
                for b in [&mut b, &mut c] {
                    if failed { prop_assert!(b.failure(now, random) >= now); } else { b.success(now); }
                }
            }
        }
    }
}
