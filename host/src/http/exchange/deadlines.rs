//! Every timeout of a request, as one deadline for one lazy timer.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::http::service::Timeouts;
use crate::timer::{LazyTimer, earliest};

/// A response that waits for a client which does not read it at all.
const STALLED: Duration = Duration::from_secs(60);

/// What is too late when, and what that means.
pub(super) struct Deadlines {
    /// The client must have sent its request.
    pub(super) request: Option<Instant>,
    /// The stream must have ended.
    pub(super) stream: Option<Instant>,
    /// The whole response must be there.
    pub(super) response: Option<Instant>,
    /// This try's response head must be there.
    pub(super) attempt: Option<Instant>,
    /// The next try begins.
    pub(super) retry: Option<Instant>,
    /// A filter's delay ends.
    pub(super) delay: Option<Instant>,
    idle: Option<Duration>,
    idle_at: Option<Instant>,
    /// Something moved since the idle deadline was set.
    pub(super) moved: bool,
}

/// What a deadline was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    Request,
    Stream,
    Response,
    Attempt,
    Retry,
    Delay,
    Idle,
}

impl Deadlines {
    pub(super) fn new(timeouts: &Timeouts, now: Instant, has_body: bool) -> Self {
        Self {
            request: timeouts.request.filter(|_| has_body).map(|timeout| now + timeout),
            stream: timeouts.max_stream.map(|timeout| now + timeout),
            response: None,
            attempt: None,
            retry: None,
            delay: None,
            idle: timeouts.stream_idle,
            idle_at: timeouts.stream_idle.map(|timeout| now + timeout),
            moved: false,
        }
    }

    /// The route has its own idle timeout.
    pub(super) fn set_idle(&mut self, idle: Duration) {
        self.idle = Some(idle);
        self.moved = true;
    }

    /// No timeout bounds a tunnel but idleness.
    pub(super) fn tunnel(&mut self) {
        (self.request, self.response, self.attempt) = (None, None, None);
    }

    /// What is too late, if anything.
    pub(super) fn poll(&mut self, timer: &mut LazyTimer, cx: &mut Context<'_>, now: Instant) -> Poll<Late> {
        if std::mem::take(&mut self.moved) {
            self.idle_at = self.idle.map(|idle| now + idle);
        }
        let Some(deadline) = self.next() else { return Poll::Pending };
        if timer.poll(cx, Some(deadline)).is_pending() {
            return Poll::Pending;
        }
        let late = |at: &mut Option<Instant>| at.take_if(|at| *at <= deadline).is_some();
        Poll::Ready(if late(&mut self.delay) {
            Late::Delay
        } else if late(&mut self.retry) {
            Late::Retry
        } else if late(&mut self.attempt) {
            Late::Attempt
        } else if late(&mut self.response) {
            Late::Response
        } else if late(&mut self.request) {
            Late::Request
        } else if late(&mut self.stream) {
            Late::Stream
        } else {
            self.idle_at = None;
            Late::Idle
        })
    }

    /// Ready when a client has taken nothing of a complete response for too long.
    pub(super) fn poll_stalled(&mut self, timer: &mut LazyTimer, cx: &mut Context<'_>) -> Poll<()> {
        let stalled = self.idle.map_or(STALLED, |idle| idle.min(STALLED));
        let at = *self.idle_at.get_or_insert_with(|| Instant::now() + stalled);
        timer.poll(cx, Some(at))
    }

    fn next(&self) -> Option<Instant> {
        [self.request, self.stream, self.response, self.attempt, self.retry, self.delay].into_iter().fold(self.idle_at, earliest)
    }
}
