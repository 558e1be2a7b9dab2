//! Where the numbers of a listener or a cluster lie: blocks of cells, lent as long as somebody holds the handle.
//!
//! What always holds: two living handles of different names share no cell, unless there are too many names and both got the overflow block; a
//! block that is lent again shows what was counted since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Metrics;
use super::kinds::{ClusterCounter, ClusterLevel, DETAILS, Detailed, ListenerCounter, ListenerLevel};

/// What stands for all names beyond the bound.
pub(super) const OVERFLOW: &str = "_other";
const MOST_LISTENERS: usize = 1_000;
const MOST_CLUSTERS: usize = 20_000;

/// Cells of a histogram: Istio's buckets.
pub(super) mod histogram {
    use weir_wasm::metrics::{BOUNDS, BUCKETS};

    pub(crate) const SUM: u32 = BUCKETS as u32;
    pub(crate) const CELLS: u32 = SUM + 1;

    /// The bounds rounded down: a whole number is above one exactly when it is above the other.
    const WHOLE: [u64; BOUNDS.len()] = {
        let mut whole = [0; BOUNDS.len()];
        let mut at = 0;
        while at < whole.len() {
            whole[at] = BOUNDS[at] as u64;
            at += 1;
        }
        whole
    };

    /// The first bucket whose bound is not below `value`.
    #[inline]
    pub(crate) fn bucket(value: u64) -> u32 {
        WHOLE.partition_point(|bound| *bound < value) as u32
    }
}

/// The cells of a listener: counters, one per status, histograms, details.
pub(super) mod listener {
    use super::{DETAILS, Detailed, ListenerCounter, histogram};

    /// Statuses 100 to 599, and one for everything else.
    pub(crate) const STATUSES: u32 = 501;
    pub(crate) const STATUS: u32 = ListenerCounter::COUNT as u32;
    pub(crate) const DURATION: u32 = STATUS + STATUSES;
    pub(crate) const REQUEST_BYTES: u32 = DURATION + histogram::CELLS;
    pub(crate) const RESPONSE_BYTES: u32 = REQUEST_BYTES + histogram::CELLS;
    pub(crate) const DETAIL: u32 = RESPONSE_BYTES + histogram::CELLS;
    pub(crate) const CELLS: u32 = DETAIL + (Detailed::COUNT * DETAILS) as u32;

    #[inline]
    pub(crate) fn status(status: u16) -> u32 {
        STATUS + u32::from(status).wrapping_sub(100).min(STATUSES - 1)
    }

    pub(crate) fn detail(family: Detailed, number: u32) -> u32 {
        DETAIL + family as u32 * DETAILS as u32 + number
    }
}

/// The cells of a cluster: counters, one per class of status, a histogram.
pub(super) mod cluster {
    use super::{ClusterCounter, histogram};

    /// 1xx to 5xx, and one for everything else.
    pub(crate) const CLASSES: u32 = 6;
    pub(crate) const CLASS: u32 = ClusterCounter::COUNT as u32;
    pub(crate) const DURATION: u32 = CLASS + CLASSES;
    pub(crate) const CELLS: u32 = DURATION + histogram::CELLS;

    #[inline]
    pub(crate) fn class(status: u16) -> u32 {
        CLASS + u32::from(status / 100).wrapping_sub(1).min(CLASSES - 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    Listener,
    Cluster,
}

impl Family {
    fn cells(self) -> u32 {
        match self {
            Self::Listener => listener::CELLS,
            Self::Cluster => cluster::CELLS,
        }
    }

    fn level_cells(self) -> u32 {
        match self {
            Self::Listener => ListenerLevel::COUNT as u32,
            Self::Cluster => ClusterLevel::COUNT as u32,
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Listener => MOST_LISTENERS,
            Self::Cluster => MOST_CLUSTERS,
        }
    }
}

/// A block that is lent.
pub(super) struct Block {
    pub(super) name: Arc<str>,
    pub(super) base: u32,
    pub(super) levels: u32,
    /// What the cells held before; nothing if they were new.
    counted: Box<[u64]>,
    levelled: Box<[i64]>,
    family: Family,
    home: Weak<Mutex<Blocks>>,
}

impl Block {
    /// What `sum`, the sum of cell `at`, has gained since the block was lent.
    pub(super) fn since(&self, at: u32, sum: u64) -> u64 {
        sum.saturating_sub(self.counted.get(at as usize).copied().unwrap_or(0))
    }

    /// The same of a level.
    pub(super) fn level_since(&self, at: u32, sum: i64) -> i64 {
        sum.wrapping_sub(self.levelled.get(at as usize).copied().unwrap_or(0))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut blocks = home.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.family, Arc::clone(&self.name));
        // The name may have got another block meanwhile.
        if blocks.lent.get(&key).is_some_and(|block| block.strong_count() == 0) {
            blocks.lent.remove(&key);
            blocks.names[self.family as usize] -= 1;
        }
        blocks.free[self.family as usize].push((self.base, self.levels));
    }
}

/// The numbers of a listener. A clone is another hold on the same.
#[derive(Clone)]
pub struct ListenerMetrics {
    pub(super) base: u32,
    pub(super) levels: u32,
    block: Arc<Block>,
}

impl ListenerMetrics {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.block.name
    }
}

/// The numbers of a cluster. A clone is another hold on the same.
#[derive(Clone)]
pub struct ClusterMetrics {
    pub(super) base: u32,
    pub(super) levels: u32,
    block: Arc<Block>,
}

impl ClusterMetrics {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.block.name
    }
}

/// Which blocks are lent.
#[derive(Default)]
pub(super) struct Blocks {
    lent: HashMap<(Family, Arc<str>), Weak<Block>>,
    /// How many of each family `lent` holds.
    names: [usize; 2],
    free: [Vec<(u32, u32)>; 2],
    next: u32,
    next_level: u32,
    /// Held for ever, once there are too many names.
    overflow: [Option<Arc<Block>>; 2],
}

impl Blocks {
    pub(super) fn listener(blocks: &Arc<Mutex<Self>>, name: &str, metrics: &Metrics) -> ListenerMetrics {
        let block = Self::lend(blocks, Family::Listener, name, metrics);
        ListenerMetrics { base: block.base, levels: block.levels, block }
    }

    pub(super) fn cluster(blocks: &Arc<Mutex<Self>>, name: &str, metrics: &Metrics) -> ClusterMetrics {
        let block = Self::lend(blocks, Family::Cluster, name, metrics);
        ClusterMetrics { base: block.base, levels: block.levels, block }
    }

    fn lend(home: &Arc<Mutex<Self>>, family: Family, name: &str, metrics: &Metrics) -> Arc<Block> {
        let mut blocks = home.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (family, Arc::<str>::from(name));
        if let Some(block) = blocks.lent.get(&key).and_then(Weak::upgrade) {
            return block;
        }
        if blocks.names[family as usize] >= family.most() {
            if let Some(block) = &blocks.overflow[family as usize] {
                return Arc::clone(block);
            }
            let block = blocks.cut(home, family, OVERFLOW.into(), metrics);
            blocks.overflow[family as usize] = Some(Arc::clone(&block));
            return block;
        }
        let block = blocks.cut(home, family, Arc::clone(&key.1), metrics);
        if blocks.lent.insert(key, Arc::downgrade(&block)).is_none() {
            blocks.names[family as usize] += 1;
        }
        block
    }

    fn cut(&mut self, home: &Arc<Mutex<Self>>, family: Family, name: Arc<str>, metrics: &Metrics) -> Arc<Block> {
        let (cells, level_cells) = (family.cells(), family.level_cells());
        let home = Arc::downgrade(home);
        if let Some((base, levels)) = self.free[family as usize].pop() {
            let (sums, now) = (metrics.counts.read(), metrics.levels.read());
            let counted = (0..cells).map(|at| sums.sum(base + at)).collect();
            let levelled = (0..level_cells).map(|at| now.level(levels + at)).collect();
            return Arc::new(Block { name, base, levels, counted, levelled, family, home });
        }
        let (base, levels) = (self.next, self.next_level);
        self.next += cells;
        self.next_level += level_cells;
        Arc::new(Block { name, base, levels, counted: Box::default(), levelled: Box::default(), family, home })
    }

    /// All blocks that are lent, by name.
    pub(super) fn living(&self, family: Family) -> Vec<Arc<Block>> {
        let lent = self.lent.iter().filter(|((other, _), _)| *other == family).filter_map(|(_, block)| block.upgrade());
        let mut living: Vec<_> = lent.chain(self.overflow[family as usize].clone()).collect();
        living.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        living
    }
}
