//! How many connections are open, how many handshakes are in progress, and what to do when `accept` fails.
//!
//! Counts are atomics, touched once when a connection opens and once when it closes. A guard gives its place back however the connection ends.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A count of open connections with a ceiling: of the process, or of one listener.
#[derive(Debug, Default)]
pub struct ConnectionCount {
    open: AtomicU64,
    /// 0 is none.
    most: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl ConnectionCount {
    /// A count with a ceiling; 0 is none.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { most: AtomicU64::new(most), ..Self::default() }
    }

    /// Changes the ceiling; connections that are open stay.
    pub fn set_most(&self, most: u64) {
        self.most.store(most, Relaxed);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Connections that were ever let in.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections that were refused because the ceiling was reached.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn enter(&self) -> bool {
        let most = self.most.load(Relaxed);
        if self.open.fetch_add(1, Relaxed) >= most && most != 0 {
            self.open.fetch_sub(1, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return false;
        }
        true
    }
}

/// The place of one open connection; given back when dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    process: Arc<ConnectionCount>,
    listener: Arc<ConnectionCount>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.process.open.fetch_sub(1, Relaxed);
        self.listener.open.fetch_sub(1, Relaxed);
    }
}

/// Takes a place in both counts; `None`, and counted by the one that is full, where there is none.
#[must_use]
pub fn admit(process: &Arc<ConnectionCount>, listener: &Arc<ConnectionCount>) -> Option<ConnectionGuard> {
    if !listener.enter() {
        return None;
    }
    if !process.enter() {
        listener.open.fetch_sub(1, Relaxed);
        return None;
    }
    process.accepted.fetch_add(1, Relaxed);
    listener.accepted.fetch_add(1, Relaxed);
    Some(ConnectionGuard { process: Arc::clone(process), listener: Arc::clone(listener) })
}

/// Handshakes in progress on one worker. Past the ceiling new ones are refused, not queued: a crowd of stalled clients must not hold up those
/// that come after it.
#[derive(Clone, Debug)]
pub struct Handshakes {
    running: Rc<Cell<usize>>,
    most: usize,
}

/// Handshakes that one worker runs at a time unless told otherwise.
pub const DEFAULT_HANDSHAKES: usize = 4096;

impl Default for Handshakes {
    fn default() -> Self {
        Self::new(DEFAULT_HANDSHAKES)
    }
}

impl Handshakes {
    /// A ceiling for this worker.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { running: Rc::default(), most }
    }

    /// How many are in progress.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.get()
    }

    /// Begins one, unless too many are in progress.
    #[must_use]
    pub fn begin(&self) -> Option<HandshakeGuard> {
        if self.running.get() >= self.most {
            return None;
        }
        self.running.set(self.running.get() + 1);
        Some(HandshakeGuard(Rc::clone(&self.running)))
    }
}

/// One handshake in progress.
#[derive(Debug)]
pub struct HandshakeGuard(Rc<Cell<usize>>);

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often `accept` failed, for metrics.
#[derive(Debug, Default)]
pub struct AcceptFailures {
    /// For lack of file descriptors or memory.
    pub exhausted: AtomicU64,
    /// For another reason.
    pub other: AtomicU64,
}

/// What to do after a failed `accept`: go on at once where only that connection is gone, pause where the process or the machine lacks something.
/// Without the pause a full file table turns into a busy loop.
#[derive(Debug, Default)]
pub struct AcceptBackoff {
    pause: Option<Duration>,
}

impl AcceptBackoff {
    /// How long to wait before the next `accept`; `None` is not at all.
    pub fn failed(&mut self, error: &io::Error, counts: &AcceptFailures) -> Option<Duration> {
        if only_that_connection(error) {
            counts.other.fetch_add(1, Relaxed);
            return None;
        }
        let counter = if exhausted(error) { &counts.exhausted } else { &counts.other };
        counter.fetch_add(1, Relaxed);
        let pause = self.pause.map_or(SHORTEST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        self.pause = Some(pause);
        Some(pause)
    }

    /// An `accept` went well: the next pause is a short one.
    pub fn succeeded(&mut self) {
        self.pause = None;
    }
}

fn errno(error: &io::Error) -> Option<rustix::io::Errno> {
    rustix::io::Errno::from_io_error(error)
}

fn exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(errno(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Errors that `accept` hands on from the connection that it took off the queue.
fn only_that_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let of_network =
        [Errno::CONNABORTED, Errno::CONNRESET, Errno::PROTO, Errno::NETDOWN, Errno::HOSTDOWN, Errno::HOSTUNREACH, Errno::NETUNREACH];
    errno(error).is_some_and(|e| of_network.contains(&e) || matches!(e, Errno::INTR | Errno::PERM | Errno::NOPROTOOPT | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_listener_refuses_and_a_closed_connection_makes_room() {
        let process = Arc::new(ConnectionCount::new(0));
        let listener = Arc::new(ConnectionCount::new(2));
        let first = admit(&process, &listener).unwrap();
        let _second = admit(&process, &listener).unwrap();
        assert!(admit(&process, &listener).is_none());
        assert_eq!((listener.open(), listener.refused(), process.open()), (2, 1, 2));
        drop(first);
        let _third = admit(&process, &listener).unwrap();
        assert_eq!((listener.open(), listener.accepted(), process.accepted()), (2, 3, 3));
    }

    #[test]
    fn a_full_process_refuses_without_a_trace_in_the_listener() {
        let process = Arc::new(ConnectionCount::new(1));
        let listener = Arc::new(ConnectionCount::default());
        let held = admit(&process, &listener).unwrap();
        assert!(admit(&process, &listener).is_none());
        assert_eq!((process.refused(), listener.refused(), listener.open(), listener.accepted()), (1, 0, 1, 1));
        process.set_most(2);
        assert!(admit(&process, &listener).is_some());
        drop(held);
        assert_eq!((process.open(), listener.open()), (0, 0));
    }

    #[test]
    fn handshakes_past_the_ceiling_are_refused() {
        let handshakes = Handshakes::new(1);
        let running = handshakes.begin().unwrap();
        assert!(handshakes.clone().begin().is_none());
        drop(running);
        assert!(handshakes.begin().is_some());
        assert_eq!(handshakes.running(), 0);
    }

    #[test]
    fn lack_of_descriptors_pauses_longer_and_longer() {
        let counts = AcceptFailures::default();
        let mut backoff = AcceptBackoff::default();
        let full = io::Error::from(rustix::io::Errno::MFILE);
        let pauses: Vec<_> = (0..9).map(|_| backoff.failed(&full, &counts).unwrap().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        let gone = io::Error::from(rustix::io::Errno::CONNABORTED);
        assert_eq!(backoff.failed(&gone, &counts), None);
        backoff.succeeded();
        assert_eq!(backoff.failed(&full, &counts), Some(SHORTEST_PAUSE));
        assert_eq!((counts.exhausted.load(Relaxed), counts.other.load(Relaxed)), (10, 1));
    }
}
