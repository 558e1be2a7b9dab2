//! What concerns the filter as a whole, not one stream: its timer, its own tasks, its clock, what it shares, and routes.

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Flow;
use crate::abi::{self, Status, pairs};
use crate::call::{GrpcCall, HttpCall};
use crate::conversation::GrpcOpening;
use crate::runtime::task::Tasks;
use crate::sleep::Sleep;

/// The filter as a whole, during a callback of its own.
#[derive(Debug, Clone)]
pub struct Plugin {
    root: u32,
    tasks: Rc<Tasks>,
}

impl Plugin {
    pub(crate) fn new(root: u32, tasks: Rc<Tasks>) -> Self {
        Self { root, tasks }
    }

    /// The number of its context, which tells the configurations of one instance apart in the log.
    #[must_use]
    pub fn context(&self) -> u32 {
        self.root
    }

    /// Calls `on_tick` this often from now on; never if it is 0.
    ///
    /// # Errors
    /// When the host has no timer.
    pub fn tick_every(&self, period: Duration) -> Result<(), Status> {
        self.tasks.clocks.tick_every(self.root, u32::try_from(period.as_millis()).unwrap_or(u32::MAX))
    }

    /// Runs a task of the filter's own, beside all streams: to fetch keys, to send a report.
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.tasks.later(Box::pin(async move {
            work.await;
            Flow::Continue
        }));
    }

    /// Waits, in a task: `plugin.sleep(SECOND).await`. As precise as the host's timer.
    pub fn sleep(&self, time: Duration) -> Sleep {
        Sleep::new(Rc::clone(&self.tasks), time)
    }

    /// An HTTP callout.
    #[must_use]
    pub fn call(&self, cluster: &str, method: &str, path: &str) -> HttpCall {
        HttpCall::new(Rc::clone(&self.tasks), cluster, method, path)
    }

    /// A gRPC stream: messages both ways.
    pub fn grpc_stream(&self, cluster: &str, service: &str, method: &str) -> GrpcOpening {
        GrpcOpening::new(Rc::clone(&self.tasks), cluster, service, method)
    }

    /// A unary gRPC callout.
    #[must_use]
    pub fn grpc(&self, cluster: &str, service: &str, method: &str) -> GrpcCall {
        GrpcCall::new(Rc::clone(&self.tasks), cluster, service, method)
    }
}

/// The time of day, by the host's clock: in a test, the test's.
#[must_use]
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(abi::now())
}

/// Nanoseconds since 1970: [`now`], for arithmetic.
#[must_use]
pub fn now_nanos() -> u64 {
    abi::now()
}

/// Randomness of the host's, for seeds and keys; one host call. A filter that needs much of it draws from a generator that this has seeded.
#[must_use]
pub fn random() -> u64 {
    abi::random()
}

/// A value that all workers and all reloads of a binding share. Its version is for [`set_shared`].
#[must_use]
pub fn shared(key: &str) -> Option<(Vec<u8>, u32)> {
    abi::shared_data(key.as_bytes()).map(|(value, version)| (value.to_vec(), version))
}

/// Sets a shared value: over that version only, or over any if it is 0.
///
/// # Errors
/// [`Status::CasMismatch`] when somebody was faster; others when the store is full.
pub fn set_shared(key: &str, value: impl AsRef<[u8]>, version: u32) -> Result<(), Status> {
    abi::set_shared_data(key.as_bytes(), value.as_ref(), version)
}

/// Adds to a shared number at once, and starts it at 0; `expires` after it was made. An extension of Weir's.
///
/// # Errors
/// [`Status::NotFound`] on another host.
pub fn add_shared(key: &str, delta: i64, expires: Option<Duration>) -> Result<i64, Status> {
    let (delta, expires) = (delta.to_string(), expires.map(|after| after.as_millis().to_string()).unwrap_or_default());
    let pairs = [("key", key), ("delta", &delta), ("ttl_ms", &expires)];
    let sum = abi::foreign("weir.shared.add", &pairs::encode(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))))?;
    sum.try_into().map(i64::from_le_bytes).map_err(|_| Status::Other(0))
}

/// Calls any extension of the host.
///
/// # Errors
/// [`Status::NotFound`] when the host does not know it.
pub fn extension(name: &str, arguments: &[u8]) -> Result<Vec<u8>, Status> {
    abi::foreign(name, arguments).map(<[u8]>::to_vec)
}
