//! What a worker offers to a filter: clocks, randomness, log, callouts, and the definition of route actions.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use weir_wasm::{CallId, CalloutError, Foreign, GrpcCall, Host, HttpCall, Level, LogLine, Nanos, Reply};

use super::callout::Callouts;
use super::routes::Routes;
use crate::worker::Worker;

/// A worker, as one of its filters knows it.
pub struct WorkerHost {
    worker: Weak<Worker>,
    callouts: Callouts,
    routes: Rc<Routes>,
}

impl WorkerHost {
    /// For a filter of the worker, and what it defines.
    #[must_use]
    pub fn new(worker: Weak<Worker>, routes: Rc<Routes>) -> Self {
        Self { callouts: Callouts::new(worker.clone()), worker, routes }
    }

    fn define(&self, binding: &str, encoded: &[u8]) -> Foreign {
        match self.routes.define(encoded) {
            Ok(number) => Foreign::Done(number.to_le_bytes().to_vec()),
            Err(error) => {
                tracing::warn!(target: "filter", binding, "weir.route.define: {error}");
                Foreign::BadArgument
            }
        }
    }

    /// Why an action is refused; empty if it is not.
    fn refusal(&self, encoded: &[u8]) -> Foreign {
        Foreign::Done(self.routes.define(encoded).err().unwrap_or_default().into_bytes())
    }
}

impl Host for WorkerHost {
    fn wall_nanos(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic_nanos(&self) -> Nanos {
        self.worker.upgrade().map_or(0, |worker| worker.now())
    }

    fn random(&self, out: &mut [u8]) {
        fastrand::fill(out);
    }

    fn log_level(&self, _binding: &str) -> Level {
        match tracing::level_filters::LevelFilter::current() {
            tracing::level_filters::LevelFilter::TRACE => Level::Trace,
            tracing::level_filters::LevelFilter::DEBUG => Level::Debug,
            tracing::level_filters::LevelFilter::INFO => Level::Info,
            tracing::level_filters::LevelFilter::WARN => Level::Warn,
            _ => Level::Error,
        }
    }

    fn log(&self, line: &LogLine<'_>) {
        let LogLine { binding, level, message, stream, from_guest } = *line;
        match level {
            Level::Trace => tracing::trace!(target: "filter", binding, stream, from_guest, "{message}"),
            Level::Debug => tracing::debug!(target: "filter", binding, stream, from_guest, "{message}"),
            Level::Info => tracing::info!(target: "filter", binding, stream, from_guest, "{message}"),
            Level::Warn => tracing::warn!(target: "filter", binding, stream, from_guest, "{message}"),
            Level::Error | Level::Critical => tracing::error!(target: "filter", binding, stream, from_guest, "{message}"),
        }
    }

    fn http_call(&self, id: CallId, call: HttpCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        self.callouts.http(id, call, reply)
    }

    fn grpc_call(&self, id: CallId, call: GrpcCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        self.callouts.grpc(id, call, reply)
    }

    fn grpc_send(&self, id: CallId, message: Bytes, end_of_stream: bool) {
        self.callouts.grpc_send(id, message, end_of_stream);
    }

    fn cancel(&self, id: CallId, graceful: bool) {
        self.callouts.cancel(id, graceful);
    }

    fn timer_changed(&self) {
        if let Some(worker) = self.worker.upgrade() {
            worker.wake_timers();
        }
    }

    fn queue_notifier(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.worker.upgrade().map_or_else(|| Arc::new(|| {}) as Arc<dyn Fn() + Send + Sync>, |worker| worker.timer_notifier())
    }

    fn open_access_log(&self, binding: &str, path: &str) -> Option<u32> {
        // While a filter is tried out, it logs to nowhere.
        let Some(worker) = self.worker.upgrade() else { return Some(0) };
        match worker.process().access_logs.lines(path) {
            Ok(log) => Some(log),
            Err(error) => {
                tracing::warn!(target: "filter", binding, "the access log {path:?}: {error}");
                None
            }
        }
    }

    fn access_log(&self, log: u32, line: &[u8]) {
        if let Some(worker) = self.worker.upgrade() {
            worker.log.line(log, line);
        }
    }

    fn foreign(&self, binding: &str, name: &str, arguments: &[u8]) -> Foreign {
        match name {
            "weir.route.define" => self.define(binding, arguments),
            "weir.route.refusal" => self.refusal(arguments),
            _ => Foreign::Unknown,
        }
    }
}
