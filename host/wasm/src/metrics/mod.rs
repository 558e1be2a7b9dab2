//! The metrics that guests define: counters, gauges and histograms, with labels, one [`MetricSet`] per binding.
//!
//! A set outlives instances and reloads, and a series keeps its number as long as the set lives. A worker updates through
//! its [`Shard`]: counters and histograms are the worker's own numbers, summed when read, so an update is a load and a store;
//! a gauge is one atomic shared by all. Updating takes no lock and, once a series was touched, allocates nothing.
//!
//! What always holds: the number of series is bounded, and a definition beyond the bound gets its kind's overflow series
//! instead of an error (guests built on the SDKs panic on one), and is counted; one name has one kind; counters never go
//! back, whatever comes and goes, and stop at the top instead of wrapping.
//!
//! What it does not do: make names fit for Prometheus, prefix them, or print them.

mod histogram;
mod registry;

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex};

pub use histogram::{BOUNDS, BUCKETS, Histogram};
pub use registry::{DefineError, MetricLimits};

use crate::cells::{Cells, Reading, Retire, Sharded, Writer};
use crate::sync::lock;
use registry::{Overflow, Registry};

/// What a metric measures; the numbers are the ABI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MetricKind {
    /// Something that happened so many times.
    Counter = 0,
    /// Something that is so many now.
    Gauge = 1,
    /// How large things are: counts per bucket.
    Histogram = 2,
}

impl MetricKind {
    /// All kinds, by number.
    pub const ALL: [Self; 3] = [Self::Counter, Self::Gauge, Self::Histogram];

    /// The kind with the ABI's number `raw`.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.get(raw as usize).copied()
    }

    /// Its name in messages and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The number of a series, as guests hold it: never 0, and any other number may come back from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesId(u32);

impl SeriesId {
    /// The number for the guest.
    #[must_use]
    pub fn raw(self) -> u32 {
        self.0
    }

    /// A number from a guest. Whether it is a series shows on use.
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Two bits of kind under the place among its kind, from 1.
    fn new(kind: MetricKind, index: u32) -> Self {
        Self((index + 1) << 2 | kind as u32)
    }

    #[inline]
    fn parts(self) -> Option<(MetricKind, u32)> {
        let kind = match self.0 & 3 {
            0 => MetricKind::Counter,
            1 => MetricKind::Gauge,
            2 => MetricKind::Histogram,
            _ => return None,
        };
        Some((kind, (self.0 >> 2).checked_sub(1)?))
    }
}

/// Why a series was not updated or read; each is a status of the ABI that the SDKs survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// No series has this number.
    #[error("metrics: no series has this number; define the metric first, anew in every instance")]
    NotFound,
    /// The series' kind does not allow it: a counter that would not go up, a histogram incremented or read.
    #[error("metrics: this kind of metric does not allow that; counters go up by 1 or more, histograms are only recorded to")]
    BadArgument,
}

/// One series and its value at some moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The metric's name as the guest gave it.
    pub name: Arc<str>,
    /// Its labels, sorted by key.
    pub labels: Arc<[(Box<str>, Box<str>)]>,
    /// The value, and with it the kind.
    pub value: Value,
}

impl Series {
    /// The metric's kind.
    #[must_use]
    pub fn kind(&self) -> MetricKind {
        match self.value {
            Value::Counter(_) => MetricKind::Counter,
            Value::Gauge(_) => MetricKind::Gauge,
            Value::Histogram(_) => MetricKind::Histogram,
        }
    }
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge; one that was decremented below 0 is negative, not huge.
    Gauge(i64),
    /// Of a histogram.
    Histogram(Box<Histogram>),
}

/// The metrics of one binding.
pub struct MetricSet {
    registry: Mutex<Registry>,
    /// How many series of each kind there are: what makes a number valid without the lock.
    defined: [AtomicU32; 3],
    counters: Arc<Sharded>,
    histograms: Arc<Sharded>,
    gauges: Cells,
    overflowed: AtomicU64,
}

impl MetricSet {
    /// An empty set.
    #[must_use]
    pub fn new(limits: MetricLimits) -> Arc<Self> {
        let registry = Registry::new(limits);
        let defined = MetricKind::ALL.map(|kind| AtomicU32::new(registry.len(kind)));
        Arc::new(Self {
            registry: Mutex::new(registry),
            defined,
            counters: Sharded::new(Retire::Fold),
            histograms: Sharded::new(Retire::Fold),
            gauges: Cells::default(),
            overflowed: AtomicU64::new(0),
        })
    }

    /// Changes the limits, for definitions from now on; no series is lost.
    pub fn set_limits(&self, limits: MetricLimits) {
        lock(&self.registry).set_limits(limits);
    }

    /// The series `name` with `labels`, in any order: the same number each time. Takes a lock, but allocates only for a new
    /// series. Beyond the limit of series it is the kind's overflow series, and counted.
    ///
    /// # Errors
    /// [`DefineError`] when name or labels are empty, too long, too many or twice the same, or the name is of another kind.
    pub fn define(&self, kind: MetricKind, name: &str, labels: &[(&str, &str)]) -> Result<SeriesId, DefineError> {
        let mut registry = lock(&self.registry);
        match registry.define(kind, name, labels)? {
            Ok(id) => {
                self.defined[kind as usize].store(registry.len(kind), Release);
                Ok(id)
            }
            Err(Overflow(id)) => {
                self.overflowed.fetch_add(1, Relaxed);
                Ok(id)
            }
        }
    }

    /// A worker's own view, through which its instances update.
    #[must_use]
    pub fn shard(self: &Arc<Self>) -> Shard {
        Shard { set: Arc::clone(self), counters: self.counters.writer(), histograms: self.histograms.writer() }
    }

    /// How many definitions got an overflow series because the limit was reached.
    #[must_use]
    pub fn series_dropped(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }

    /// How many series there are, the overflow series not counted.
    #[must_use]
    pub fn series(&self) -> usize {
        lock(&self.registry).guest_series()
    }

    /// Every series with its value, by kind and in the order of definition; an overflow series only once it was handed out.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Series> {
        let registry = lock(&self.registry);
        let (counters, histograms) = (self.counters.read(), self.histograms.read());
        registry
            .iter()
            .map(|(kind, index, described)| Series {
                name: Arc::clone(&described.name),
                labels: Arc::clone(&described.labels),
                value: self.value(kind, index, &counters, &histograms),
            })
            .collect()
    }

    fn value(&self, kind: MetricKind, index: u32, counters: &Reading<'_>, histograms: &Reading<'_>) -> Value {
        match kind {
            MetricKind::Counter => Value::Counter(counters.sum(index)),
            MetricKind::Gauge => Value::Gauge(self.gauges.peek(index).cast_signed()),
            MetricKind::Histogram => Value::Histogram(Box::new(Histogram::read(histograms, index))),
        }
    }

    /// What `id` names, if it is a series of this set.
    #[inline]
    fn locate(&self, id: SeriesId) -> Result<(MetricKind, u32), MetricError> {
        let (kind, index) = id.parts().ok_or(MetricError::NotFound)?;
        if index < self.defined[kind as usize].load(Acquire) { Ok((kind, index)) } else { Err(MetricError::NotFound) }
    }
}

/// A worker's own view of a [`MetricSet`]: it may move to another thread, but has one user at a time. What it has counted
/// stays in the set when it is dropped.
pub struct Shard {
    set: Arc<MetricSet>,
    counters: Writer,
    histograms: Writer,
}

impl Shard {
    /// The set it belongs to.
    #[must_use]
    pub fn set(&self) -> &Arc<MetricSet> {
        &self.set
    }

    /// Adds `delta` to a counter (1 or more) or a gauge (anything).
    ///
    /// # Errors
    /// [`MetricError::NotFound`]; [`MetricError::BadArgument`] for a counter that would not go up, or a histogram.
    #[inline]
    pub fn increment(&self, id: SeriesId, delta: i64) -> Result<(), MetricError> {
        match self.set.locate(id)? {
            (MetricKind::Counter, index) if delta > 0 => {
                self.counters.add(index, delta.cast_unsigned());
            }
            (MetricKind::Gauge, index) => {
                self.set.gauges.cell(index).fetch_add(delta.cast_unsigned(), Relaxed);
            }
            (MetricKind::Counter | MetricKind::Histogram, _) => {
                return Err(MetricError::BadArgument);
            }
        }
        Ok(())
    }

    /// Adds `value` to a counter (as Envoy does), sets a gauge to it, or puts it into a histogram.
    ///
    /// # Errors
    /// [`MetricError::NotFound`].
    #[inline]
    pub fn record(&self, id: SeriesId, value: u64) -> Result<(), MetricError> {
        match self.set.locate(id)? {
            (MetricKind::Counter, index) => {
                self.counters.add(index, value);
            }
            (MetricKind::Gauge, index) => self.set.gauges.cell(index).store(value, Relaxed),
            (MetricKind::Histogram, index) => histogram::observe(&self.histograms, index, value),
        }
        Ok(())
    }

    /// The value of a counter, over all workers, or of a gauge: for one below 0, its two's complement. Reading a counter
    /// takes a lock.
    ///
    /// # Errors
    /// [`MetricError::NotFound`]; [`MetricError::BadArgument`] for a histogram.
    pub fn get(&self, id: SeriesId) -> Result<u64, MetricError> {
        match self.set.locate(id)? {
            (MetricKind::Counter, index) => Ok(self.set.counters.read().sum(index)),
            (MetricKind::Gauge, index) => Ok(self.set.gauges.peek(index)),
            (MetricKind::Histogram, _) => Err(MetricError::BadArgument),
        }
    }
}

#[cfg(test)]
mod tests;
