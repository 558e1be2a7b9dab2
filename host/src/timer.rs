//! A timer that costs nothing as long as nothing is late.
//!
//! Deadlines of a proxy move with every byte, and almost none is ever reached. Registering and removing a timer for each costs more than parsing a
//! request, so a [`LazyTimer`] stays armed for the earliest time it was ever asked for: when a deadline moves back, nothing is done, and
//! when the timer then fires too early, it is armed again. One registration serves many requests of a connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// One timer for all deadlines of a connection or stream, one after another.
#[derive(Debug, Default)]
pub struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl LazyTimer {
    /// A timer that is not armed.
    #[must_use]
    pub const fn new() -> Self {
        Self { sleep: None }
    }

    /// Ready once `deadline` has passed. With `None` it never is, and wakes nobody.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if sleep.deadline().into_std() > deadline {
            sleep.as_mut().reset(deadline.into());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            // It was armed for an earlier deadline that has moved since.
            sleep.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }
}

/// The earlier of two deadlines.
#[must_use]
pub fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_that_moves_back_is_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut timer = LazyTimer::new();
            let start = Instant::now();
            let first = start + Duration::from_millis(10);
            let second = start + Duration::from_millis(30);
            assert!(std::future::poll_fn(|cx| Poll::Ready(timer.poll(cx, Some(first)))).await.is_pending());
            std::future::poll_fn(|cx| timer.poll(cx, Some(second))).await;
            assert!(Instant::now() >= second, "not before the later deadline");
            let earlier = Instant::now() + Duration::from_millis(1);
            std::future::poll_fn(|cx| timer.poll(cx, Some(earlier))).await;
            assert!(Instant::now() >= earlier);
        });
    }

    #[test]
    fn no_deadline_never_comes() {
        let mut timer = LazyTimer::new();
        let waker = std::task::Waker::noop();
        assert!(timer.poll(&mut Context::from_waker(waker), None).is_pending());
        assert!(timer.sleep.is_none(), "and costs no timer");
    }
}
