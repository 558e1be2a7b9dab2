//! Choosing one of a group by the cluster's policy.
//!
//! What always holds: endpoints get requests in proportion to their weights as far as load permits; two candidates that are compared are different
//! ones. Where all weights are equal nothing is looked up by weight.

use std::sync::Arc;

use super::Loads;
use super::consistent::HashTable;
use super::schedule::Schedule;
use super::table::Ask;
use crate::upstream::Nanos;
use crate::upstream::options::Policy;

/// A policy's structure for one group.
#[derive(Debug)]
pub(crate) enum Picker {
    /// In turn, all alike.
    Turn { next: usize },
    /// In turn, by weight.
    Schedule(Schedule),
    /// The least busy of a few.
    Least { choices: usize, weights: Option<Weights> },
    /// The lower of two by latency × load.
    Ewma { decay: Nanos, weights: Option<Weights> },
    /// By chance.
    Random { weights: Option<Weights> },
    /// By hash.
    Hash(Arc<HashTable>),
}

/// Weights that a random number finds its owner in.
#[derive(Debug)]
pub(crate) struct Weights {
    own: Vec<f64>,
    sums: Vec<f64>,
}

impl Weights {
    /// `None` if all are alike.
    fn new(weights: &[f64]) -> Option<Self> {
        let first = *weights.first()?;
        if weights.iter().all(|weight| (weight - first).abs() <= f64::EPSILON * first) {
            return None;
        }
        let sums = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        Some(Self { own: weights.to_vec(), sums })
    }

    fn sample(&self, rng: &mut fastrand::Rng) -> usize {
        let total = self.sums.last().copied().unwrap_or(0.0);
        let number = rng.f64() * total;
        self.sums.partition_point(|sum| *sum <= number).min(self.sums.len().saturating_sub(1))
    }
}

impl Picker {
    pub(crate) fn new(policy: Policy, weights: &[f64], rng: &mut fastrand::Rng) -> Self {
        let unequal = Weights::new(weights);
        match policy {
            Policy::LeastRequest { choices } => Self::Least { choices: (choices as usize).max(1), weights: unequal },
            Policy::PeakEwma { decay } => Self::Ewma { decay, weights: unequal },
            Policy::Random => Self::Random { weights: unequal },
            _ if unequal.is_some() => Self::Schedule(Schedule::new(weights.iter().copied(), rng)),
            _ => Self::Turn { next: rng.usize(0..weights.len().max(1)) },
        }
    }

    /// The position of the chosen one in `members`.
    #[inline]
    pub(crate) fn pick<L: Loads>(&mut self, members: &[usize], ask: &mut Ask<'_, L>) -> Option<usize> {
        match self {
            Self::Turn { next } => {
                let at = if *next < members.len() { *next } else { 0 };
                *next = at + 1;
                Some(at)
            }
            Self::Schedule(schedule) => schedule.next(),
            Self::Hash(table) => table.get(ask.hash.unwrap_or_else(|| ask.rng.u64(..)), ask.attempt),
            _ if members.len() < 2 => Some(0),
            Self::Random { weights } => Some(sample(members, weights.as_ref(), ask.rng)),
            Self::Least { choices, weights } if *choices >= members.len() => Some(least_of_all(members, weights.as_ref(), ask)),
            Self::Least { choices, weights } => Some(least_of_some(members, *choices, weights.as_ref(), ask)),
            Self::Ewma { decay, weights } => Some(cheaper_of_two(members, *decay, weights.as_ref(), ask)),
        }
    }
}

#[inline]
fn sample(members: &[usize], weights: Option<&Weights>, rng: &mut fastrand::Rng) -> usize {
    match weights {
        None => rng.usize(0..members.len()),
        Some(weights) => weights.sample(rng),
    }
}

/// Someone else than `first`.
#[inline]
fn sample_other(members: &[usize], first: usize, weights: Option<&Weights>, rng: &mut fastrand::Rng) -> usize {
    let Some(weights) = weights else { return (first + 1 + rng.usize(0..members.len() - 1)) % members.len() };
    // By weight the first may come again and again; then its neighbour will do.
    (0..4).map(|_| weights.sample(rng)).find(|other| *other != first).unwrap_or((first + 1) % members.len())
}

/// Requests in progress per weight. Without weights they are compared as they are; with them an idle endpoint has no advantage over another idle one,
/// because both were drawn by weight.
#[inline]
fn busy<L: Loads>(members: &[usize], at: usize, weights: Option<&Weights>, ask: &Ask<'_, L>) -> f64 {
    let active = f64::from(ask.loads.active(members[at]));
    weights.map_or(active, |weights| active / weights.own[at])
}

fn least_of_some<L: Loads>(members: &[usize], choices: usize, weights: Option<&Weights>, ask: &mut Ask<'_, L>) -> usize {
    let mut best = sample(members, weights, ask.rng);
    let mut lowest = busy(members, best, weights, ask);
    for _ in 1..choices {
        let other = sample_other(members, best, weights, ask.rng);
        let load = busy(members, other, weights, ask);
        if load < lowest {
            (best, lowest) = (other, load);
        }
    }
    best
}

fn least_of_all<L: Loads>(members: &[usize], weights: Option<&Weights>, ask: &mut Ask<'_, L>) -> usize {
    let start = sample(members, weights, ask.rng);
    let mut best = start;
    let mut lowest = busy(members, best, weights, ask);
    for step in 1..members.len() {
        let other = (start + step) % members.len();
        let load = busy(members, other, weights, ask);
        if load < lowest {
            (best, lowest) = (other, load);
        }
    }
    best
}

fn cheaper_of_two<L: Loads>(members: &[usize], decay: Nanos, weights: Option<&Weights>, ask: &mut Ask<'_, L>) -> usize {
    let first = sample(members, weights, ask.rng);
    let second = sample_other(members, first, weights, ask.rng);
    let cost = |at: usize| {
        let in_progress = f64::from(ask.loads.active(members[at])) + 1.0;
        ask.loads.latency(members[at], ask.now, decay) * in_progress
    };
    if cost(second) < cost(first) { second } else { first }
}
