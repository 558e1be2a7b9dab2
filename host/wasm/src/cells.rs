//! Numbers that one worker writes and anybody reads, without a lock and without a locked instruction.
//!
//! A [`Sharded`] is a row of 64-bit numbers, cut into one [`Writer`] per worker. A writer owns its copy of the row alone, so
//! it updates a number by a plain relaxed load and store; the value of a number is the sum over all copies. Metrics and
//! accounting are both built on this.
//!
//! What always holds: a number that was folded in from a dropped writer is counted exactly once, so sums never go back; a
//! row grows without moving, so a reader never waits for a writer nor the other way round; two writers never share a cache
//! line.
//!
//! What it does not do: order. Two numbers read one after the other may belong to different moments.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::sync::lock;

/// Numbers in one cache line.
const LINE: usize = 8;
/// log2 of the numbers in the first chunk; every further chunk is twice as long as the one before it.
const FIRST_BITS: u32 = 6;
/// Numbers in the first chunk.
const FIRST: u32 = 1 << FIRST_BITS;
/// Enough chunks for every `u32` index, so that no index is out of range.
const CHUNKS: usize = 26;

/// One cache line of numbers: what keeps two writers' chunks from sharing one.
#[repr(align(64))]
#[derive(Default)]
struct Line([AtomicU64; LINE]);

/// A row of numbers that grows on demand and never moves; all of them start at 0.
#[derive(Default)]
pub struct Cells {
    /// What every call touches: there from the start, and found without a look at whether it is.
    first: [Line; FIRST as usize / LINE],
    /// The chunks behind it.
    chunks: [OnceLock<Box<[Line]>>; CHUNKS],
}

/// Where number `index`, which is not in the first chunk, lives: which of the others, and its place there.
#[inline]
fn place(index: u32) -> (usize, usize) {
    let shifted = u64::from(index) + u64::from(FIRST);
    let chunk = shifted.ilog2() - FIRST_BITS - 1;
    (chunk as usize, (shifted - (2 << (chunk + FIRST_BITS))) as usize)
}

impl Cells {
    /// Number `index`, making room for it first where there is none.
    #[inline]
    pub fn cell(&self, index: u32) -> &AtomicU64 {
        if index < FIRST {
            return &self.first[index as usize / LINE].0[index as usize % LINE];
        }
        let (chunk, at) = place(index);
        let lines = match self.chunks[chunk].get() {
            Some(lines) => lines,
            None => self.grow(chunk),
        };
        &lines[at / LINE].0[at % LINE]
    }

    /// The value of number `index`: 0 where there is no room yet.
    #[inline]
    pub fn peek(&self, index: u32) -> u64 {
        if index < FIRST {
            return self.first[index as usize / LINE].0[index as usize % LINE].load(Relaxed);
        }
        let (chunk, at) = place(index);
        self.chunks[chunk].get().map_or(0, |lines| lines[at / LINE].0[at % LINE].load(Relaxed))
    }

    #[cold]
    fn grow(&self, chunk: usize) -> &[Line] {
        let lines = (2 << (chunk as u32 + FIRST_BITS)) / LINE;
        self.chunks[chunk].get_or_init(|| (0..lines).map(|_| Line::default()).collect())
    }

    /// Adds every number of `other` to the same number here. The caller sees to it that nobody writes either meanwhile.
    fn fold(&self, other: &Self) {
        fold(&self.first, &other.first);
        for (chunk, theirs) in other.chunks.iter().enumerate() {
            let Some(theirs) = theirs.get() else { continue };
            let ours = match self.chunks[chunk].get() {
                Some(ours) => ours,
                None => self.grow(chunk),
            };
            fold(ours, theirs);
        }
    }
}

fn fold(ours: &[Line], theirs: &[Line]) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        for (ours, theirs) in ours.0.iter().zip(&theirs.0) {
            ours.store(ours.load(Relaxed).saturating_add(theirs.load(Relaxed)), Relaxed);
        }
    }
}

/// What happens to the numbers of a writer that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retire {
    /// They stay in the sum: counts.
    Fold,
    /// They go with it: levels, such as memory in use on that worker.
    Forget,
}

/// A row of numbers with one [`Writer`] per worker.
pub struct Sharded {
    retire: Retire,
    live: Mutex<Vec<Arc<Cells>>>,
    /// Sums of dropped writers; written only while `live` is locked.
    retired: Cells,
}

impl Sharded {
    /// Without a writer yet.
    #[must_use]
    pub fn new(retire: Retire) -> Arc<Self> {
        Arc::new(Self { retire, live: Mutex::default(), retired: Cells::default() })
    }

    /// A new writer, all zero.
    pub fn writer(self: &Arc<Self>) -> Writer {
        let cells = Arc::new(Cells::default());
        lock(&self.live).push(Arc::clone(&cells));
        Writer { cells, home: Arc::clone(self), single: PhantomData }
    }

    /// Reads sums. Writers come and go only after the reading is dropped; they write on.
    pub fn read(&self) -> Reading<'_> {
        Reading { live: lock(&self.live), retired: &self.retired }
    }
}

/// The sums over all writers of a [`Sharded`].
pub struct Reading<'a> {
    live: MutexGuard<'a, Vec<Arc<Cells>>>,
    retired: &'a Cells,
}

impl Reading<'_> {
    /// The sum of number `index` as a count: at most `u64::MAX`, never wrapping to a smaller value.
    pub fn sum(&self, index: u32) -> u64 {
        self.live.iter().fold(self.retired.peek(index), |sum, cells| sum.saturating_add(cells.peek(index)))
    }

    /// The sum of number `index` as a level, where each writer's share may be negative.
    pub fn level(&self, index: u32) -> i64 {
        self.live.iter().fold(self.retired.peek(index), |sum, cells| sum.wrapping_add(cells.peek(index))).cast_signed()
    }
}

/// One worker's own copy of the row: `Send`, because workers are built elsewhere, but not `Sync`: it has one user at a time.
pub struct Writer {
    cells: Arc<Cells>,
    home: Arc<Sharded>,
    single: PhantomData<Cell<()>>,
}

impl Writer {
    /// Adds `n` to a count, stopping at `u64::MAX`; returns the value before.
    #[inline]
    pub fn add(&self, index: u32, n: u64) -> u64 {
        let cell = self.cells.cell(index);
        let before = cell.load(Relaxed);
        cell.store(before.saturating_add(n), Relaxed);
        before
    }

    /// Moves a level up or down.
    #[inline]
    pub fn shift(&self, index: u32, delta: i64) {
        let cell = self.cells.cell(index);
        cell.store(cell.load(Relaxed).wrapping_add_signed(delta), Relaxed);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut live = lock(&self.home.live);
        live.retain(|cells| !Arc::ptr_eq(cells, &self.cells));
        if self.home.retire == Retire::Fold {
            self.home.retired.fold(&self.cells);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn every_index_has_its_own_place() {
        let mut seen = HashSet::new();
        for index in FIRST..5000 {
            let (chunk, at) = place(index);
            assert!(at < 2 << (chunk as u32 + FIRST_BITS), "index {index} is outside chunk {chunk}");
            assert!(seen.insert((chunk, at)), "index {index} shares its place");
        }
        assert_eq!(place(64), (0, 0));
        assert_eq!(place(191), (0, 127));
        assert_eq!(place(192), (1, 0));
        assert_eq!(place(u32::MAX).0, CHUNKS - 1);
        let cells = Cells::default();
        (0..300).for_each(|index| cells.cell(index).store(u64::from(index), Relaxed));
        assert!((0..300).all(|index| cells.peek(index) == u64::from(index)));
    }

    #[test]
    fn counts_stop_at_the_top_and_outlive_their_writer() {
        let row = Sharded::new(Retire::Fold);
        let (a, b) = (row.writer(), row.writer());
        a.add(3, u64::MAX - 1);
        b.add(3, 5);
        b.add(900, 2);
        assert_eq!(row.read().sum(3), u64::MAX);
        drop(a);
        drop(b);
        let sums = row.read();
        assert_eq!([sums.sum(3), sums.sum(900), sums.sum(4)], [u64::MAX, 2, 0]);
    }

    #[test]
    fn levels_go_with_their_writer() {
        let row = Sharded::new(Retire::Forget);
        let (a, b) = (row.writer(), row.writer());
        a.shift(0, 10);
        b.shift(0, -3);
        assert_eq!(row.read().level(0), 7);
        drop(a);
        assert_eq!(row.read().level(0), -3);
    }

    #[test]
    fn sums_are_exact_and_never_go_back_while_writers_come_and_go() {
        let row = Sharded::new(Retire::Fold);
        let (start, done) = (Barrier::new(5), AtomicBool::new(false));
        thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        for _ in 0..50 {
                            let writer = row.writer();
                            for index in 0..200 {
                                writer.add(index, 1);
                                writer.add(7, 1);
                            }
                        }
                    })
                })
                .collect();
            let reader = scope.spawn(|| {
                start.wait();
                let mut last = 0;
                while !done.load(Relaxed) {
                    let now = row.read().sum(7);
                    assert!(now >= last, "the sum went from {last} to {now}");
                    last = now;
                }
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Relaxed);
            reader.join().unwrap();
        });
        assert_eq!(row.read().sum(7), 4 * 50 * 201);
        assert_eq!(row.read().sum(199), 4 * 50);
    }
}
