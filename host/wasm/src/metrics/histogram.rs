//! Histograms: Envoy's default buckets, as numbers in a row of cells.
//!
//! What always holds: a value is in exactly one bucket, the first whose bound is not below it; finding it takes one look in a
//! table and one comparison, because no two bounds lie between neighbouring powers of two.

use crate::cells::{Reading, Writer};

/// Buckets of a histogram: one per bound, and one for what is above them all.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// The upper bounds of the buckets, inclusive: what Envoy uses for Prometheus unless told otherwise.
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Cells of one histogram: its buckets and its sum, filled up to whole cache lines.
const CELLS: u32 = 24;
const SUM: u32 = BUCKETS as u32;
const _: () = assert!(SUM < CELLS);

/// The bounds rounded down: a whole number is above one exactly when it is above the other.
const WHOLE_BOUNDS: [u64; BOUNDS.len()] = {
    let mut whole = [0; BOUNDS.len()];
    let mut bucket = 0;
    while bucket < whole.len() {
        whole[bucket] = BOUNDS[bucket] as u64;
        bucket += 1;
    }
    whole
};

/// For each number of significant bits: the first bucket such a value may be in.
const FIRST_BUCKET: [u8; 65] = {
    let mut first = [0; 65];
    let mut bits = 1;
    while bits <= 64 {
        let least = 1_u64 << (bits - 1);
        let mut bucket = 0;
        while bucket < WHOLE_BOUNDS.len() && least > WHOLE_BOUNDS[bucket] {
            bucket += 1;
        }
        first[bits] = bucket as u8;
        bits += 1;
    }
    first
};

/// The bucket of `value`.
#[inline]
fn bucket(value: u64) -> u32 {
    let first = usize::from(FIRST_BUCKET[(u64::BITS - value.leading_zeros()) as usize]);
    let above = WHOLE_BOUNDS.get(first).is_some_and(|bound| value > *bound);
    (first + usize::from(above)) as u32
}

/// Puts `value` into histogram `index`.
#[inline]
pub(super) fn observe(writer: &Writer, index: u32, value: u64) {
    let base = index * CELLS;
    writer.add(base + bucket(value), 1);
    writer.add(base + SUM, value);
}

/// What was recorded to a histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many values each bucket holds; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    pub(super) fn read(cells: &Reading<'_>, index: u32) -> Self {
        let base = index * CELLS;
        Self { buckets: std::array::from_fn(|bucket| cells.sum(base + bucket as u32)), sum: cells.sum(base + SUM) }
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_first_bucket_that_reaches_it() {
        let around = |value: u64| [value.saturating_sub(1), value, value.saturating_add(1)];
        let bounds = BOUNDS.iter().flat_map(|bound| around(*bound as u64));
        let powers = (0..64).flat_map(|bit| around(1 << bit));
        for value in bounds.chain(powers).chain(0..20_000).chain([u64::MAX]) {
            let expected = BOUNDS.iter().position(|bound| value as f64 <= *bound).unwrap_or(BOUNDS.len());
            assert_eq!(bucket(value) as usize, expected, "value {value}");
        }
    }
}
