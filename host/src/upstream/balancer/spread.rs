//! How load is spread over priorities, by how many of their endpoints are fit. Pure arithmetic, in percent.
//!
//! A priority counts as fully available while its fit part times the overprovisioning factor is at least 100 %; what it cannot take goes to the next
//! one, healthy endpoints of all priorities first, then degraded ones. When fewer are fit than the panic threshold, a priority is used as if all
//! were; when every priority is in panic, load follows the number of endpoints.

use smallvec::SmallVec;

type Percents = SmallVec<[u32; 4]>;

/// What one priority has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PriorityHealth {
    pub(crate) total: u32,
    pub(crate) healthy: u32,
    pub(crate) degraded: u32,
}

/// Who gets how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) healthy: Percents,
    pub(crate) degraded: Percents,
    pub(crate) panic: SmallVec<[bool; 4]>,
}

/// Which endpoints of a priority are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    Healthy,
    Degraded,
}

impl Spread {
    /// Spreads load. Priorities whose bit is set in `excluded` get none, unless that leaves nobody.
    pub(crate) fn new(priorities: &[PriorityHealth], overprovisioning: u32, panic_threshold: u32, excluded: u64) -> Self {
        let part = |fit: u32, total: u32| match total {
            0 => 0,
            total => u32::try_from(u64::from(overprovisioning) * u64::from(fit) / u64::from(total)).unwrap_or(100).min(100),
        };
        let used = |at: usize| at >= 64 || excluded & (1 << at) == 0;
        let collect = |fit: fn(&PriorityHealth) -> u32| -> Percents {
            priorities.iter().enumerate().map(|(at, priority)| if used(at) { part(fit(priority), priority.total) } else { 0 }).collect()
        };
        let (healthy, degraded) = (collect(|priority| priority.healthy), collect(|priority| priority.degraded));
        let available = healthy.iter().chain(&degraded).fold(0, |sum: u32, percent| sum.saturating_add(*percent)).min(100);
        if available == 0 && excluded != 0 {
            return Self::new(priorities, overprovisioning, panic_threshold, 0);
        }
        let panic: SmallVec<[bool; 4]> = priorities.iter().map(|priority| available < 100 && in_panic(priority, panic_threshold)).collect();
        if panic_threshold > 0 && panic.iter().all(|panic| *panic) {
            return Self::by_size(priorities, panic);
        }
        let mut spread = Self { healthy: zeros(priorities), degraded: zeros(priorities), panic };
        if available > 0 {
            let left = distribute(&healthy, 100, available, &mut spread.healthy);
            let left = distribute(&degraded, left, available, &mut spread.degraded);
            spread.give_rest(left, &healthy, &degraded);
        }
        spread
    }

    /// Everyone is in panic: by number of endpoints.
    fn by_size(priorities: &[PriorityHealth], panic: SmallVec<[bool; 4]>) -> Self {
        let all: u64 = priorities.iter().map(|priority| u64::from(priority.total)).sum();
        let mut healthy = zeros(priorities);
        for (load, priority) in healthy.iter_mut().zip(priorities) {
            *load = u32::try_from((u64::from(priority.total) * 100).checked_div(all).unwrap_or(0)).unwrap_or(100);
        }
        if let Some(first) = priorities.iter().position(|priority| priority.total > 0) {
            healthy[first] += 100_u32.saturating_sub(healthy.iter().sum());
        }
        Self { healthy, degraded: zeros(priorities), panic }
    }

    /// What rounding left over goes to the first priority that has anyone.
    fn give_rest(&mut self, rest: u32, healthy: &[u32], degraded: &[u32]) {
        if let Some(first) = healthy.iter().position(|percent| *percent > 0) {
            self.healthy[first] += rest;
        } else if let Some(first) = degraded.iter().position(|percent| *percent > 0) {
            self.degraded[first] += rest;
        }
    }

    /// The one priority that gets everything, if it is so.
    pub(crate) fn only(&self) -> Option<usize> {
        self.healthy.iter().position(|percent| *percent == 100)
    }

    /// Who gets the request with this number, which is below 100.
    pub(crate) fn choose(&self, number: u32) -> Option<(usize, Fitness)> {
        let mut sum = 0;
        let healthy = self.healthy.iter().map(|percent| (Fitness::Healthy, *percent)).enumerate();
        let degraded = self.degraded.iter().map(|percent| (Fitness::Degraded, *percent)).enumerate();
        for (priority, (fitness, percent)) in healthy.chain(degraded) {
            sum += percent;
            if number < sum {
                return Some((priority, fitness));
            }
        }
        None
    }
}

fn zeros(priorities: &[PriorityHealth]) -> Percents {
    SmallVec::from_elem(0, priorities.len())
}

fn in_panic(priority: &PriorityHealth, threshold: u32) -> bool {
    let fit = u64::from(priority.healthy) + u64::from(priority.degraded);
    threshold > 0 && (priority.total == 0 || fit * 100 < u64::from(threshold) * u64::from(priority.total))
}

/// Gives `load` to whoever is available, in order; returns what is left.
pub(crate) fn distribute(available: &[u32], load: u32, total: u32, into: &mut [u32]) -> u32 {
    let mut left = load;
    for (share, percent) in into.iter_mut().zip(available) {
        *share = left.min(percent * 100 / total.max(1));
        left -= *share;
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(healthy: &[u32]) -> Spread {
        let priorities: Vec<_> = healthy.iter().map(|healthy| PriorityHealth { total: 100, healthy: *healthy, degraded: 0 }).collect();
        Spread::new(&priorities, 140, 50, 0)
    }

    #[test]
    fn two_priorities_fail_over_gradually() {
        for (healthy, expected) in [
            ([100, 100], [100, 0]),
            ([72, 100], [100, 0]),
            ([71, 100], [99, 1]),
            ([50, 100], [70, 30]),
            ([25, 100], [35, 65]),
            ([0, 100], [0, 100]),
            ([72, 0], [100, 0]),
        ] {
            assert_eq!(spread(&healthy).healthy.as_slice(), expected, "{healthy:?}");
        }
    }

    #[test]
    fn three_priorities_fail_over_in_order() {
        for (healthy, expected) in [
            ([100, 100, 100], [100, 0, 0]),
            ([72, 72, 100], [100, 0, 0]),
            ([71, 71, 100], [99, 1, 0]),
            ([50, 50, 100], [70, 30, 0]),
            ([25, 100, 100], [35, 65, 0]),
            ([25, 25, 100], [35, 35, 30]),
        ] {
            assert_eq!(spread(&healthy).healthy.as_slice(), expected, "{healthy:?}");
        }
    }

    #[test]
    fn panic_begins_when_all_together_have_too_few() {
        for (healthy, expected, panic) in [
            ([72, 72], [100, 0], [false, false]),
            ([71, 71], [99, 1], [false, false]),
            ([50, 60], [70, 30], [false, false]),
            ([25, 100], [35, 65], [false, false]),
            ([25, 25], [50, 50], [true, true]),
            ([5, 65], [8, 92], [true, false]),
            ([0, 0], [50, 50], [true, true]),
        ] {
            let spread = spread(&healthy);
            assert_eq!((spread.healthy.as_slice(), spread.panic.as_slice()), (expected.as_slice(), panic.as_slice()), "{healthy:?}");
        }
    }

    #[test]
    fn without_panic_nobody_unfit_is_used() {
        let none = [PriorityHealth { total: 4, healthy: 0, degraded: 0 }];
        assert_eq!(Spread::new(&none, 140, 0, 0).choose(0), None);
        let few = [PriorityHealth { total: 100, healthy: 1, degraded: 0 }];
        let spread = Spread::new(&few, 140, 0, 0);
        assert_eq!((spread.only(), spread.panic[0]), (Some(0), false));
    }

    #[test]
    fn degraded_ones_come_after_all_healthy_ones() {
        let health = |healthy, degraded| PriorityHealth { total: 100, healthy, degraded };
        let spread = Spread::new(&[health(30, 70), health(20, 0)], 140, 50, 0);
        assert_eq!((spread.healthy.as_slice(), spread.degraded.as_slice()), ([42, 28].as_slice(), [30, 0].as_slice()));
        assert_eq!(spread.choose(41), Some((0, Fitness::Healthy)));
        assert_eq!(spread.choose(42), Some((1, Fitness::Healthy)));
        assert_eq!(spread.choose(99), Some((0, Fitness::Degraded)));
    }

    #[test]
    fn excluded_priorities_get_nothing_unless_nobody_is_left() {
        let full = [PriorityHealth { total: 2, healthy: 2, degraded: 0 }; 2];
        assert_eq!(Spread::new(&full, 140, 50, 0b01).healthy.as_slice(), [0, 100]);
        assert_eq!(Spread::new(&full, 140, 50, 0b11).healthy.as_slice(), [100, 0]);
    }

    proptest! {
        #[test]
        fn load_is_always_all_or_nothing(
            priorities in prop::collection::vec((0_u32..50, 0_u32..50, 0_u32..50), 0..70),
            overprovisioning in 100_u32..300,
            threshold in 0_u32..=100,
            excluded in any::<u64>(),
        ) {
            let priorities: Vec<_> = priorities
                .into_iter()
                .map(|(healthy, degraded, unfit)| PriorityHealth { total: healthy + degraded + unfit, healthy, degraded })
                .collect();
            let spread = Spread::new(&priorities, overprovisioning, threshold, excluded);
            let sum: u32 = spread.healthy.iter().chain(&spread.degraded).sum();
            let somebody = priorities.iter().any(|priority| priority.healthy + priority.degraded > 0 || (threshold > 0 && priority.total > 0));
            prop_assert_eq!(sum, if somebody { 100 } else { 0 });
            for (at, priority) in priorities.iter().enumerate() {
                prop_assert!(spread.healthy[at] == 0 || priority.healthy > 0 || spread.panic[at]);
                prop_assert!(spread.degraded[at] == 0 || priority.degraded > 0 || spread.panic[at]);
            }
        }
    }
}
