//! What a request costs, and a test that fails when it gets costlier.
//!
//! Host calls are counted exactly: the same code makes the same calls on every machine, so that is the number to hold a filter to. Time is the best of many
//! runs in the host that was compiled for tests: for catching what became many times slower, not for comparing.

use std::time::{Duration, Instant};

use crate::Worker;

/// Runs of which the best time counts.
const RUNS: u32 = 32;
/// No measurement takes longer, however slow the filter is.
const MOST: Duration = Duration::from_secs(2);

/// What something cost: see [`Worker::budget`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Host calls of one run, after a first one that may have filled caches of the filter's own.
    pub host_calls: u64,
    /// The best run's time.
    pub micros: f64,
    /// The most memory that an instance of the filter has had, in bytes.
    pub memory: u64,
}

impl Budget {
    pub(crate) fn measure<T>(worker: &Worker, mut run: impl FnMut(&Worker) -> T) -> Self {
        drop(run(worker));
        let before = worker.host_calls();
        drop(run(worker));
        let host_calls = worker.host_calls().saturating_sub(before);
        let (begun, mut best) = (Instant::now(), Duration::MAX);
        for _ in 0..RUNS {
            let start = Instant::now();
            drop(run(worker));
            best = best.min(start.elapsed());
            if begun.elapsed() > MOST {
                break;
            }
        }
        Self { host_calls, micros: best.as_secs_f64() * 1e6, memory: worker.stats().peak_instance_memory }
    }

    /// Exactly this many host calls.
    ///
    /// # Panics
    /// When there are more or fewer: fewer are good news to write down.
    #[track_caller]
    pub fn host_calls(self, expected: u64) -> Self {
        assert_eq!(self.host_calls, expected, "host calls of one run (left) are not what the budget says (right)");
        self
    }

    /// At most this long. Be generous: other tests run beside this one.
    ///
    /// # Panics
    /// When it took longer.
    #[track_caller]
    pub fn micros(self, most: f64) -> Self {
        assert!(self.micros <= most, "one run took {:.1} µs, and the budget says {most:.1} µs", self.micros);
        self
    }

    /// At most this much memory, in bytes.
    ///
    /// # Panics
    /// When an instance had more.
    #[track_caller]
    pub fn memory(self, most: u64) -> Self {
        assert!(self.memory <= most, "an instance had {} bytes of memory, and the budget says {most}", self.memory);
        self
    }
}
