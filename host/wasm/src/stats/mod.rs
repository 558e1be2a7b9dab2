//! Accounting per binding: what its callbacks cost, how its instances fared, what its limits refused.
//!
//! A [`BindingStats`] outlives instances and reloads; a worker counts through its [`StatsShard`], in numbers of its own. Calls
//! are counted exactly; their time is measured for one call in `N` of each kind of callback, the first included, because a
//! clock read costs as much as an empty callback.
//!
//! What always holds: counts never go back; what a worker has now (memory, contexts) goes with its shard; nothing here takes
//! a lock or allocates once the shard was used.
//!
//! What it does not do: keep what others count. Evictions of shared data are in the scope's counters, dropped items in the
//! queues', dropped series in the metric set's.

mod kinds;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub use crate::module::callbacks::Callback;
pub use kinds::{Counter, Level, TrapKind};

use crate::cells::{Reading, Retire, Sharded, Writer};

/// Buckets of a time histogram.
pub const TIME_BUCKETS: usize = 24;
/// log2 of the first bucket's bound in nanoseconds.
const FIRST_BOUND_BITS: u32 = 6;

// The row of a shard's counts, what every call touches first.
const CALLS: u32 = 0;
const COUNTERS: u32 = CALLS + Callback::COUNT as u32;
const TRAPS: u32 = COUNTERS + Counter::COUNT as u32;
const TIMES: u32 = TRAPS + TrapKind::COUNT as u32;
/// Cells of one callback's times: the buckets and the sum.
const TIME_CELLS: u32 = TIME_BUCKETS as u32 + 1;

/// The accounting of one binding, over all its workers.
pub struct BindingStats {
    /// A call is timed when the number of calls before it has none of these bits.
    sample_mask: u64,
    counts: Arc<Sharded>,
    levels: Arc<Sharded>,
    peak_instance_memory: AtomicU64,
}

impl BindingStats {
    /// One call in how many is timed, unless told otherwise.
    pub const SAMPLE_EVERY: u32 = 32;

    /// Nothing counted; times one call in [`SAMPLE_EVERY`](Self::SAMPLE_EVERY).
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::sampling(Self::SAMPLE_EVERY)
    }

    /// Nothing counted; times one call in `every`, taken up to a power of two; 0 and 1 time all.
    #[must_use]
    pub fn sampling(every: u32) -> Arc<Self> {
        Arc::new(Self {
            sample_mask: u64::from(every).next_power_of_two() - 1,
            counts: Sharded::new(Retire::Fold),
            levels: Sharded::new(Retire::Forget),
            peak_instance_memory: AtomicU64::new(0),
        })
    }

    /// A worker's own view, through which it counts.
    #[must_use]
    pub fn shard(self: &Arc<Self>) -> StatsShard {
        StatsShard { stats: Arc::clone(self), sample_mask: self.sample_mask, counts: self.counts.writer(), levels: self.levels.writer() }
    }

    /// Everything, summed over all workers, those that are gone among them.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (counts, levels) = (self.counts.read(), self.levels.read());
        Snapshot {
            callbacks: std::array::from_fn(|index| CallbackStats::read(&counts, index as u32)),
            counters: std::array::from_fn(|index| counts.sum(COUNTERS + index as u32)),
            traps: std::array::from_fn(|index| counts.sum(TRAPS + index as u32)),
            levels: std::array::from_fn(|index| levels.level(index as u32)),
            peak_instance_memory: self.peak_instance_memory.load(Relaxed),
        }
    }
}

/// A worker's own view of a [`BindingStats`]: it may move to another thread, but has one user at a time. What it has counted
/// stays when it is dropped; its levels go with it.
pub struct StatsShard {
    stats: Arc<BindingStats>,
    sample_mask: u64,
    counts: Writer,
    levels: Writer,
}

impl StatsShard {
    /// What it belongs to.
    #[must_use]
    pub fn stats(&self) -> &Arc<BindingStats> {
        &self.stats
    }

    /// Counts a call of `callback`; where this one is timed, returns when it began: pass the time it took to
    /// [`end`](Self::end).
    #[inline]
    #[must_use]
    pub fn begin(&self, callback: Callback) -> Option<Instant> {
        let before = self.counts.add(CALLS + callback as u32, 1);
        if before & self.sample_mask == 0 { Some(Instant::now()) } else { None }
    }

    /// Records the time of a call that [`begin`](Self::begin) chose.
    #[inline]
    pub fn end(&self, callback: Callback, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let base = TIMES + callback as u32 * TIME_CELLS;
        self.counts.add(base + time_bucket(nanos), 1);
        self.counts.add(base + TIME_BUCKETS as u32, nanos);
    }

    /// Counts one of `counter`.
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.count_by(counter, 1);
    }

    /// Counts `n` of `counter`.
    #[inline]
    pub fn count_by(&self, counter: Counter, n: u64) {
        self.counts.add(COUNTERS + counter as u32, n);
    }

    /// Counts a trap.
    #[inline]
    pub fn trap(&self, kind: TrapKind) {
        self.counts.add(TRAPS + kind as u32, 1);
    }

    /// Moves this worker's share of `level` up or down.
    #[inline]
    pub fn shift(&self, level: Level, delta: i64) {
        self.levels.shift(level as u32, delta);
    }

    /// An instance's memory went from `before` to `after` bytes: 0 before its start and after its end. Keeps
    /// [`Level::Memory`] and the peak.
    pub fn memory(&self, before: u64, after: u64) {
        self.shift(Level::Memory, after.wrapping_sub(before).cast_signed());
        self.stats.peak_instance_memory.fetch_max(after, Relaxed);
    }
}

/// The bucket of a time: each holds times below twice its predecessor's bound.
#[inline]
fn time_bucket(nanos: u64) -> u32 {
    let bits = u64::BITS - nanos.leading_zeros();
    bits.saturating_sub(FIRST_BOUND_BITS).min(TIME_BUCKETS as u32 - 1)
}

/// The bound in nanoseconds that times in `bucket` are below; `None` for the last, which has none.
#[must_use]
pub fn time_bound(bucket: usize) -> Option<u64> {
    (bucket + 1 < TIME_BUCKETS).then(|| 1 << (bucket as u32 + FIRST_BOUND_BITS))
}

/// What the calls of one kind of callback cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackStats {
    /// How often it was called: exact.
    pub calls: u64,
    /// The times of the calls that were timed, by bucket; see [`time_bound`].
    pub buckets: [u64; TIME_BUCKETS],
    /// The sum of these times in nanoseconds.
    pub sampled_nanos: u64,
}

impl CallbackStats {
    fn read(counts: &Reading<'_>, index: u32) -> Self {
        let base = TIMES + index * TIME_CELLS;
        Self {
            calls: counts.sum(CALLS + index),
            buckets: std::array::from_fn(|bucket| counts.sum(base + bucket as u32)),
            sampled_nanos: counts.sum(base + TIME_BUCKETS as u32),
        }
    }

    /// How many calls were timed.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time of all calls in nanoseconds, taking those not timed to cost as much as those that were.
    #[must_use]
    pub fn estimated_nanos(&self) -> u64 {
        let nanos = u128::from(self.sampled_nanos) * u128::from(self.calls);
        let nanos = nanos.checked_div(u128::from(self.samples())).unwrap_or(0);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

/// A binding's accounting at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    callbacks: [CallbackStats; Callback::COUNT],
    counters: [u64; Counter::COUNT],
    traps: [u64; TrapKind::COUNT],
    levels: [i64; Level::COUNT],
    /// The most memory that any one instance had, in bytes.
    pub peak_instance_memory: u64,
}

impl Snapshot {
    /// What the calls of `callback` cost.
    #[must_use]
    pub fn callback(&self, callback: Callback) -> &CallbackStats {
        &self.callbacks[callback as usize]
    }

    /// How many of `counter` there were.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// How many traps of `kind` there were.
    #[must_use]
    pub fn traps(&self, kind: TrapKind) -> u64 {
        self.traps[kind as usize]
    }

    /// How many of `level` there are.
    #[must_use]
    pub fn level(&self, level: Level) -> i64 {
        self.levels[level as usize]
    }
}

#[cfg(test)]
mod tests;
