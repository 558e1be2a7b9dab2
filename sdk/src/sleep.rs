//! Waiting for time to pass.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::abi;
use crate::runtime::task::Tasks;

/// Time that passes, once it is awaited. It needs nothing of the host but the ABI's timer.
#[derive(Debug)]
#[must_use = "no time passes until it is awaited"]
pub struct Sleep {
    tasks: Rc<Tasks>,
    time: Duration,
    until: Option<u64>,
}

impl Sleep {
    pub(crate) fn new(tasks: Rc<Tasks>, time: Duration) -> Self {
        Self { tasks, time, until: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let now = abi::now();
        match self.until {
            Some(until) if until <= now => Poll::Ready(()),
            Some(_) => Poll::Pending,
            None => {
                let until = now.saturating_add(u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX));
                self.until = Some(until);
                self.tasks.sleep(until);
                Poll::Pending
            }
        }
    }
}
