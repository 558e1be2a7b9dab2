//! Consistent hashing: a ring, or Maglev's table. The same hash leads to the same endpoint as long as it is there, and when one goes, few others move.
//!
//! A table costs milliseconds to build, so workers share them: [`HashTables`] keeps the last few of a cluster. Its lock is taken when the endpoints or
//! their health changed, never for a request.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::upstream::hash::xxh64;
use crate::upstream::options::Policy;

/// How many tables a cluster keeps: some priorities and subsets, and where they were before an endpoint failed.
const KEPT: usize = 16;

/// Someone in a table: a stable name, and a weight above zero.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) weight: f64,
}

/// From hash to position in the list of entries that it was made for.
#[derive(Debug)]
pub(crate) enum HashTable {
    Ring(Vec<(u64, u32)>),
    Maglev(Vec<u32>),
}

impl HashTable {
    pub(crate) fn build(policy: Policy, entries: &[Entry]) -> Self {
        match policy {
            Policy::Maglev { table_size } => Self::Maglev(maglev(entries, table_size.max(2))),
            Policy::RingHash { min_size, max_size } => Self::Ring(ring(entries, min_size, max_size)),
            _ => Self::Ring(ring(entries, 1024, 8 << 20)),
        }
    }

    /// Who `hash` belongs to; another one with every `attempt`, as far as that is possible.
    pub(crate) fn get(&self, hash: u64, attempt: u32) -> Option<usize> {
        match self {
            Self::Ring(points) => {
                let at = points.partition_point(|point| point.0 < hash);
                points.get((at + attempt as usize) % points.len().max(1)).map(|point| point.1 as usize)
            }
            Self::Maglev(table) => {
                let hash = if attempt == 0 { hash } else { xxh64(&hash.to_le_bytes(), u64::from(attempt)) };
                let at = hash.checked_rem(table.len() as u64)?;
                table.get(usize::try_from(at).unwrap_or(0)).map(|entry| *entry as usize)
            }
        }
    }
}

/// Every entry has points in proportion to its weight, the lightest one as many as it takes to make `min_size` in all.
fn ring(entries: &[Entry], min_size: u32, max_size: u32) -> Vec<(u64, u32)> {
    let total: f64 = entries.iter().map(|entry| entry.weight).sum();
    let least = entries.iter().map(|entry| entry.weight / total).fold(f64::INFINITY, f64::min);
    if entries.is_empty() || !least.is_finite() || least <= 0.0 {
        return Vec::new();
    }
    let scale = ((least * f64::from(min_size)).ceil() / least).min(f64::from(max_size));
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let mut wanted = 0.0;
    let mut name = String::new();
    for (at, entry) in (0_u32..).zip(entries) {
        wanted += scale * entry.weight / total;
        let mut replica = 0_u32;
        while (points.len() as f64) < wanted {
            name.clear();
            let _ = std::fmt::Write::write_fmt(&mut name, format_args!("{}_{replica}", entry.key));
            points.push((xxh64(name.as_bytes(), 0), at));
            replica += 1;
        }
    }
    points.sort_unstable();
    points
}

/// Entries take turns, by weight, to claim the next free place in their own order of places.
fn maglev(entries: &[Entry], size: u32) -> Vec<u32> {
    let heaviest = entries.iter().map(|entry| entry.weight).fold(0.0, f64::max);
    if entries.is_empty() || !heaviest.is_finite() || heaviest <= 0.0 {
        return Vec::new();
    }
    const FREE: u32 = u32::MAX;
    let size = u64::from(size);
    let mut table = vec![FREE; size as usize];
    let mut orders: Vec<Order> = entries.iter().map(|entry| Order::new(&entry.key, size)).collect();
    let mut turns: BinaryHeap<Reverse<(u64, u32)>> = (0_u32..).zip(entries).map(|(at, _)| Reverse((0, at))).collect();
    for claimed in 0..size {
        let Some(Reverse((_, at))) = turns.pop() else { break };
        let order = &mut orders[at as usize];
        while table[order.place] != FREE {
            order.advance();
        }
        table[order.place] = at;
        order.claimed += 1;
        let round = (order.claimed as f64 * heaviest / entries[at as usize].weight).ceil();
        turns.push(Reverse((round as u64, at)));
        debug_assert!(claimed < size, "one claim per place");
    }
    table
}

/// The order in which an entry wants places: every place once, since the size is a prime.
struct Order {
    place: usize,
    skip: u64,
    size: u64,
    claimed: u64,
}

impl Order {
    fn new(key: &str, size: u64) -> Self {
        let place = xxh64(key.as_bytes(), 0) % size;
        Self { place: place as usize, skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1, size, claimed: 0 }
    }

    fn advance(&mut self) {
        self.place = ((self.place as u64 + self.skip) % self.size) as usize;
    }
}

/// The tables that the workers of a cluster share.
#[derive(Debug, Default)]
pub(crate) struct HashTables {
    kept: Mutex<VecDeque<(Vec<Entry>, Arc<HashTable>)>>,
}

impl HashTables {
    /// The table for `entries`, built if nobody did.
    pub(crate) fn get(&self, policy: Policy, entries: Vec<Entry>) -> Arc<HashTable> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = kept.iter().find(|(known, _)| *known == entries) {
            return Arc::clone(table);
        }
        let table = Arc::new(HashTable::build(policy, &entries));
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((entries, Arc::clone(&table)));
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: Policy = Policy::RingHash { min_size: 1024, max_size: 8 << 20 };
    const MAGLEV: Policy = Policy::Maglev { table_size: 65_537 };

    fn entries(weights: &[f64]) -> Vec<Entry> {
        let entry = |(at, weight): (usize, &f64)| Entry { key: format!("10.0.0.{at}:80").into(), weight: *weight };
        weights.iter().enumerate().map(entry).collect()
    }

    fn hashes() -> impl Iterator<Item = u64> {
        (0..20_000_u64).map(|number| xxh64(&number.to_le_bytes(), 7))
    }

    fn shares(table: &HashTable, entries: usize) -> Vec<f64> {
        let mut counts = vec![0.0; entries];
        for hash in hashes() {
            counts[table.get(hash, 0).unwrap()] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn shares_follow_weights() {
        let weights = [1.0, 1.0, 2.0, 4.0];
        for (policy, slack) in [(Policy::RingHash { min_size: 16_384, max_size: 8 << 20 }, 0.12), (MAGLEV, 0.05)] {
            let table = HashTable::build(policy, &entries(&weights));
            for (share, weight) in shares(&table, 4).iter().zip(weights) {
                let wanted = weight / 8.0;
                assert!((share - wanted).abs() < wanted * slack, "{policy:?}: {share} instead of {wanted}");
            }
        }
    }

    #[test]
    fn few_move_when_one_goes() {
        let before = entries(&[1.0; 20]);
        for policy in [RING, MAGLEV] {
            for gone in [0, 7, 19] {
                let mut after = before.clone();
                after.remove(gone);
                let (old, new) = (HashTable::build(policy, &before), HashTable::build(policy, &after));
                let moved = hashes().filter(|hash| before[old.get(*hash, 0).unwrap()] != after[new.get(*hash, 0).unwrap()]).count();
                assert!((1..=2 * 20_000 / 20).contains(&moved), "{policy:?}: {moved} of 20000 moved");
            }
        }
    }

    #[test]
    fn a_ring_moves_nobody_who_need_not_move() {
        let before = entries(&[1.0; 8]);
        let after = before[..7].to_vec();
        // One less than a multiple: rounding up gives everyone 128 points, whatever the division's last bit.
        let exact = |count: u32| Policy::RingHash { min_size: 128 * count - 1, max_size: 8 << 20 };
        let (old, new) = (HashTable::build(exact(8), &before), HashTable::build(exact(7), &after));
        for hash in hashes() {
            let owner = old.get(hash, 0).unwrap();
            assert!(owner == 7 || new.get(hash, 0) == Some(owner));
        }
    }

    #[test]
    fn another_attempt_leads_elsewhere() {
        for policy in [RING, MAGLEV] {
            let table = HashTable::build(policy, &entries(&[1.0; 5]));
            for hash in hashes().take(100) {
                let first = table.get(hash, 0);
                assert!((1..30).any(|attempt| table.get(hash, attempt) != first));
                assert_eq!(table.get(hash, 0), first);
            }
        }
    }

    #[test]
    fn every_place_is_taken_and_extremes_are_survived() {
        for weights in [vec![1.0], vec![1e9, 1.0, 1.0], vec![1.0; 300]] {
            let entries = entries(&weights);
            let HashTable::Maglev(table) = HashTable::build(Policy::Maglev { table_size: 251 }, &entries) else { panic!() };
            assert_eq!(table.len(), 251);
            assert!(table.iter().all(|entry| (*entry as usize) < entries.len()));
            let HashTable::Ring(points) = HashTable::build(Policy::RingHash { min_size: 64, max_size: 4096 }, &entries) else { panic!() };
            assert!((1..=4096).contains(&points.len()));
        }
        for policy in [RING, MAGLEV] {
            assert_eq!(HashTable::build(policy, &[]).get(5, 0), None);
        }
    }

    #[test]
    fn workers_share_tables() {
        let tables = HashTables::default();
        let first = tables.get(RING, entries(&[1.0, 1.0]));
        assert!(Arc::ptr_eq(&first, &tables.get(RING, entries(&[1.0, 1.0]))));
        for weight in 2..40 {
            tables.get(RING, entries(&[1.0, f64::from(weight)]));
        }
        assert!(!Arc::ptr_eq(&first, &tables.get(RING, entries(&[1.0, 1.0]))), "old ones are forgotten");
        assert_eq!(tables.kept.lock().unwrap().len(), KEPT);
    }
}
