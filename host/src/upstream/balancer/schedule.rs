//! Taking turns by weight: whoever's turn is due first goes first, and its next turn is due after the inverse of its weight.
//!
//! What always holds: after any number of turns, everyone's count differs from its share by at most one turn and its part of one round. Beginnings
//! are random, so that workers do not move in step.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Turns by weight.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    due: f64,
    step: f64,
    index: usize,
}

impl Schedule {
    /// Turns for `weights`, of which those that are not above zero get none.
    pub(crate) fn new(weights: impl Iterator<Item = f64>, rng: &mut fastrand::Rng) -> Self {
        let turn = |(index, weight): (usize, f64)| Turn { due: rng.f64() / weight, step: 1.0 / weight, index };
        Self { heap: weights.enumerate().filter(|(_, weight)| *weight > 0.0 && weight.is_finite()).map(turn).collect() }
    }

    /// Whose turn it is.
    pub(crate) fn next(&mut self) -> Option<usize> {
        let mut turn = self.heap.peek_mut()?;
        turn.due += turn.step;
        Some(turn.index)
    }
}

impl Ord for Turn {
    /// Reversed: the heap gives its greatest, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.total_cmp(&self.due).then_with(|| other.index.cmp(&self.index))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everyone_gets_its_share(weights in prop::collection::vec(1_u32..1000, 1..20), turns in 1_usize..3000, seed in any::<u64>()) {
            let mut schedule = Schedule::new(weights.iter().map(|weight| f64::from(*weight)), &mut fastrand::Rng::with_seed(seed));
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..turns {
                counts[schedule.next().unwrap()] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let share = turns as f64 * f64::from(*weight) / f64::from(total);
                let slack = 2.0 + weights.len() as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((f64::from(*count) - share).abs() < slack, "{count} instead of {share}");
            }
        }
    }

    #[test]
    fn nobody_without_weight_has_a_turn() {
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(Schedule::new([0.0, f64::NAN, -1.0].into_iter(), &mut rng).next(), None);
        let mut schedule = Schedule::new([0.0, 3.0].into_iter(), &mut rng);
        assert!((0..10).all(|_| schedule.next() == Some(1)));
    }
}
