//! Streams whose client does not take what it asked for.
//!
//! A stream gets a [`Gauge`] when it first has to wait for its peer's window, and only then: most never do. The connection's driver sweeps the
//! gauges four times in the time that a stall may last. One that waited at every sweep and moved less than [`MIN_PROGRESS`] in all of them is reset, so
//! a client that opens its window byte by byte gains nothing. A response whose end is queued outlives its adapter here, until it is sent or
//! reaped.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use h2::{Reason, SendStream};

use super::{Chunk, keep_waker};

/// Bytes that a waiting stream must move in the time that a stall may last.
pub const MIN_PROGRESS: usize = 4096;
/// How often a stream is looked at in that time.
pub(crate) const SWEEPS: u8 = 4;
/// The counter of streams reaped.
pub const FLOW_STALL: &str = "h2_flow_stall";

/// How a stream that waited is doing.
#[derive(Default)]
pub(crate) struct Gauge {
    /// Bytes that the library holds above the window.
    queued: Cell<usize>,
    moved: Cell<usize>,
    waiting: Cell<bool>,
    strikes: Cell<u8>,
    reaped: Cell<bool>,
    task: RefCell<Option<Waker>>,
    orphan: RefCell<Option<SendStream<Chunk>>>,
}

impl Gauge {
    pub(super) fn queue(&self, count: usize) {
        self.queued.set(self.queued.get() + count);
    }

    /// Bytes of a queued piece went out.
    pub(super) fn moved(&self, count: usize) {
        self.dropped(count);
        self.progressed(count);
    }

    /// Bytes went out.
    pub(super) fn progressed(&self, count: usize) {
        self.moved.set(self.moved.get().saturating_add(count));
    }

    /// Bytes of a queued piece will never go out.
    pub(super) fn dropped(&self, count: usize) {
        self.queued.set(self.queued.get().saturating_sub(count));
    }

    pub(super) fn has_queued(&self) -> bool {
        self.queued.get() > 0
    }

    /// The stream's task waits for its window.
    pub(super) fn wait(&self, waker: &Waker) {
        self.waiting.set(true);
        keep_waker(&mut self.task.borrow_mut(), waker);
    }

    pub(super) fn waited(&self) {
        self.waiting.set(false);
    }

    pub(super) fn is_reaped(&self) -> bool {
        self.reaped.get()
    }

    /// Whether the stream has stood still for too long.
    fn strike(&self) -> bool {
        let stalled = self.waiting.get() || self.has_queued();
        if !stalled || self.moved.get() >= MIN_PROGRESS {
            self.strikes.set(0);
            self.moved.set(0);
            return false;
        }
        self.strikes.set(self.strikes.get() + 1);
        // The first sweep may come right after the wait began.
        self.strikes.get() > SWEEPS
    }

    fn reap(&self) {
        self.reaped.set(true);
        if let Some(mut stream) = self.orphan.borrow_mut().take() {
            stream.send_reset(Reason::CANCEL);
        }
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }
}

/// The gauges of a connection.
#[derive(Default)]
pub(crate) struct Watch {
    gauges: RefCell<Vec<Rc<Gauge>>>,
    closed: Cell<bool>,
}

impl Watch {
    pub(super) fn add(&self) -> Rc<Gauge> {
        let gauge = Rc::<Gauge>::default();
        self.gauges.borrow_mut().push(Rc::clone(&gauge));
        gauge
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gauges.borrow().is_empty()
    }

    /// Keeps a stream whose message is complete until it is sent. Drops it when nobody would sweep it.
    pub(super) fn adopt(&self, gauge: &Gauge, stream: SendStream<Chunk>) {
        gauge.waiting.set(false);
        if !self.closed.get() && !gauge.is_reaped() && gauge.has_queued() {
            *gauge.orphan.borrow_mut() = Some(stream);
        }
    }

    /// The connection is over. A stream and its gauge own each other, so this must come.
    pub(super) fn close(&self) {
        self.closed.set(true);
        for gauge in self.gauges.take() {
            drop(gauge.orphan.take());
        }
    }

    /// Looks at every stream, and returns how many were reaped.
    pub(super) fn sweep(&self) -> usize {
        let mut reaped = 0;
        self.gauges.borrow_mut().retain(|gauge| {
            // The adapter is gone and the library holds nothing of the stream.
            if Rc::strong_count(gauge) == 1 {
                return false;
            }
            let stuck = gauge.strike();
            if stuck {
                gauge.reap();
                reaped += 1;
            }
            !stuck
        });
        reaped
    }
}
