//! What the host keeps for one instance, inside its wasmtime store: everything a host call needs.
//!
//! It is touched only by the worker that owns the instance. `effective` is the context that host calls act on; it is 0 outside callbacks and
//! reset at the end of each. While `mode` is not [`Mode::Running`], host calls that reach beyond the guest answer an error.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use wasmtime::{Memory, ResourceLimiter, TypedFunc};

use crate::binding::{Binding, BindingConfig};
use crate::callout::{Calls, Delivered};
use crate::engine::Ticker;
use crate::host::{CallId, Level, LogLine, SharedHost};
use crate::metrics::Shard;
use crate::properties::Properties;
use crate::rate::TokenBucket;
use crate::shared::Notifier;
use crate::stats::{Callback, Counter, Level as Gauge, StatsShard};
use crate::sync::lock;
use crate::time::Nanos;
use crate::vm::contexts::{Contexts, StreamRef};
use crate::vm::{Vm, WorkerParts};

/// What the guest is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A start function or `_initialize`: there is no context yet.
    Starting,
    /// The guest's allocator, called for a host call.
    Allocating,
    /// A callback.
    Running,
}

/// A root context: the binding's own configuration or one of its variants.
pub(crate) struct Root {
    pub(crate) id: u32,
    pub(crate) period: Nanos,
    pub(crate) due: Nanos,
    /// `proxy_on_done` answered false and `proxy_done` has not been called.
    pub(crate) lingers: bool,
}

/// How many host calls an instance has made, and at which one it ends: counted down, so that one operation on the way of a request serves both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostCalls {
    left: u64,
    /// Calls made are this less what is left.
    total: u64,
}

impl Default for HostCalls {
    fn default() -> Self {
        Self { left: u64::MAX, total: u64::MAX }
    }
}

impl HostCalls {
    /// Counts one; `false`: it is the one that ends the instance.
    #[inline(always)]
    pub(crate) fn count(&mut self) -> bool {
        self.left = self.left.wrapping_sub(1);
        self.left != 0
    }

    pub(crate) fn made(self) -> u64 {
        self.total.wrapping_sub(self.left)
    }

    /// The `nth` from now ends the instance; 0 takes that back.
    pub(crate) fn end_at(&mut self, nth: u64) {
        let left = if nth == 0 { u64::MAX } else { nth };
        *self = Self { left, total: self.made().wrapping_add(left) };
    }
}

/// Queue items announced by any thread and not yet told to the guest: queue id and how many.
pub(crate) type Announced = Arc<Mutex<VecDeque<(u32, u32)>>>;

pub(crate) struct State {
    pub(crate) binding: Arc<Binding>,
    pub(crate) host: SharedHost,
    pub(crate) vm: Weak<Vm>,
    pub(crate) stats: Rc<StatsShard>,
    pub(crate) metrics: Rc<Shard>,

    /// Counts host calls; see [`HostCalls`].
    pub(crate) host_calls: HostCalls,
    pub(crate) mode: Mode,
    /// The callback that runs, or ran last.
    pub(crate) callback: Callback,
    /// The context that the running callback is for, and the one that host calls act on.
    pub(crate) context: u32,
    pub(crate) effective: u32,
    pub(crate) output_left: usize,
    pub(crate) output_limit: usize,
    /// Counts callbacks: what one asked for is forgotten if it then traps.
    pub(crate) turn: u64,
    /// The epoch's clock, and when on it the running callback's deadline is past: compiled code looks at it in loops and at function calls,
    /// host functions that take long by themselves.
    pub(crate) clock: Ticker,
    pub(crate) overdue: u64,
    /// Start functions and start callbacks are through: the deadline is a callback's.
    pub(crate) started: bool,

    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<Rc<TypedFunc<u32, u32>>>,
    pub(crate) limiter: MemoryLimit,

    pub(crate) roots: Vec<Root>,
    pub(crate) contexts: Contexts,
    pub(crate) calls: Calls,
    pub(crate) delivered: Option<Rc<Delivered>>,
    pub(crate) status: (u32, Rc<str>),
    pub(crate) foreign_arguments: Bytes,
    /// What this instance's queues tell of their items, once it has registered one.
    pub(crate) notifier: Option<Notifier>,
    /// The queues that it registered or resolved: the only ones that it may use. Numbers are easily guessed.
    pub(crate) queues: Vec<u32>,
    pub(crate) announced: Announced,
    pub(crate) properties: Properties,
    pub(crate) scratch: Vec<u8>,
    /// Values of properties that were asked for together; kept for its buffer.
    pub(crate) gathered: Vec<u8>,
    /// The access logs that it opened, as the host numbers them.
    pub(crate) access_logs: Vec<u32>,
    /// Buffered, unterminated output of `fd_write`.
    pub(crate) console: [Vec<u8>; 2],
    log_rate: TokenBucket,
    warn_rate: TokenBucket,
}

impl State {
    pub(crate) fn new(binding: Arc<Binding>, parts: &WorkerParts, vm: Weak<Vm>) -> Self {
        let limits = &binding.config().limits;
        let now = parts.host.monotonic_nanos();
        let log_rate = TokenBucket::new(limits.log_rate, limits.log_rate.saturating_mul(5), now);
        Self {
            limiter: MemoryLimit { ceiling: limits.memory, now: 0, known: 0, tables: 0, refused: 0 },
            output_left: limits.host_output,
            output_limit: limits.host_output,
            host: parts.host.clone(),
            stats: parts.stats.clone(),
            metrics: parts.metrics.clone(),
            vm,
            host_calls: HostCalls::default(),
            mode: Mode::Starting,
            turn: 0,
            clock: binding.engine().ticker().clone(),
            overdue: u64::MAX,
            callback: Callback::Start,
            started: false,
            context: 0,
            effective: 0,
            memory: None,
            allocate: None,
            roots: Vec::new(),
            contexts: Contexts::new(),
            calls: Calls::default(),
            delivered: None,
            status: (0, "".into()),
            foreign_arguments: Bytes::new(),
            notifier: None,
            queues: Vec::new(),
            announced: Announced::default(),
            properties: Properties::default(),
            scratch: Vec::new(),
            gathered: Vec::new(),
            access_logs: Vec::new(),
            console: Default::default(),
            log_rate,
            warn_rate: TokenBucket::new(1, 5, now),
            binding,
        }
    }

    /// Keeps a buffer for the next host call, unless it is one of the rare large ones: a guest's memory is bounded, and so is what it makes
    /// the host keep.
    #[inline]
    pub(crate) fn keep_scratch(&mut self, buffer: Vec<u8>) {
        const MOST: usize = 64 << 10;
        if buffer.capacity() <= MOST {
            self.scratch = buffer;
        }
    }

    pub(crate) fn config(&self) -> &BindingConfig {
        self.binding.config()
    }

    /// The stream that host calls act on, unless it is a root context's turn.
    #[inline]
    pub(crate) fn stream(&self) -> Option<StreamRef<'_>> {
        self.contexts.stream(self.effective)
    }

    /// The root context that the running callback belongs to.
    pub(crate) fn root(&self) -> u32 {
        use crate::vm::contexts::Context;
        for id in [self.effective, self.context] {
            match self.contexts.get(id) {
                Some(Context::Root) => return id,
                Some(Context::Stream(root)) => return root,
                None => {}
            }
        }
        self.roots.first().map_or(0, |root| root.id)
    }

    /// Which configuration the running callback reads: the binding's or a variant's.
    pub(crate) fn configuration(&self) -> Bytes {
        let root = self.root();
        match self.roots.iter().position(|known| known.id == root).unwrap_or(0) {
            0 => self.config().configuration.clone(),
            variant => self.config().variants.get(variant - 1).map(|variant| variant.configuration.clone()).unwrap_or_default(),
        }
    }

    /// Counts an access that has no effect here and says so, seldom.
    pub(crate) fn wrong_phase(&mut self, function: &str, what: &str) {
        self.odd(Counter::WrongPhase, function, what);
    }

    /// Counts something a well-made filter does not do and says so, seldom.
    pub(crate) fn odd(&mut self, counter: Counter, function: &str, what: &str) {
        self.stats.count(counter);
        if let Some(dropped) = self.warn_rate.take(self.host.monotonic_nanos()) {
            let more = if dropped > 0 { format!(" ({dropped} such warnings were not logged)") } else { String::new() };
            self.tell(Level::Warn, &format!("{function}: {what}{more}"));
        }
    }

    /// A line of the guest's: limited in rate and length.
    pub(crate) fn guest_log(&mut self, level: Level, message: &[u8]) {
        const LONGEST: usize = 8 << 10;
        let Some(dropped) = self.log_rate.take(self.host.monotonic_nanos()) else {
            self.stats.count(Counter::LogLinesDropped);
            return;
        };
        if dropped > 0 {
            self.tell(Level::Warn, &format!("{dropped} log lines of this filter were dropped: over {}/s", self.config().limits.log_rate));
        }
        let shown = message.get(..LONGEST).unwrap_or(message);
        let text = String::from_utf8_lossy(shown);
        let text = text.trim_end_matches('\n');
        if shown.len() < message.len() {
            self.line(level, &format!("{text}… ({} bytes)", message.len()), true);
        } else {
            self.line(level, text, true);
        }
    }

    /// A line of the host's about this filter.
    pub(crate) fn tell(&self, level: Level, message: &str) {
        self.line(level, message, false);
    }

    fn line(&self, level: Level, message: &str, from_guest: bool) {
        let cell = self.stream().map(|stream| stream.cell.clone());
        let stream = cell.as_ref().and_then(|cell| cell.host.try_borrow().ok());
        let id = stream.as_ref().map_or("", |stream| stream.log_id());
        self.host.log(&LogLine { binding: &self.config().name, level, message, stream: id, from_guest });
    }

    /// Takes `bytes` from what this callback may still hand to the host.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), String> {
        // Every call costs a little, so that a flood of empty ones ends too.
        match self.output_left.checked_sub(bytes.saturating_add(32)) {
            Some(left) => {
                self.output_left = left;
                Ok(())
            }
            None => {
                self.stats.count(Counter::OutputRefused);
                Err(format!("one callback handed over more than {} bytes (limits.host_output)", self.config().limits.host_output))
            }
        }
    }

    /// Cancels what `context` started: nobody waits for it any more.
    #[inline]
    pub(crate) fn cancel_calls_of(&mut self, context: u32) {
        if self.calls.len() > 0 {
            self.cancel_some_of(context);
        }
    }

    fn cancel_some_of(&mut self, context: u32) {
        let cancelled = self.calls.take_of(context);
        self.cancel(cancelled.into_iter().map(|call| call.id));
    }

    pub(crate) fn cancel_all_calls(&mut self) {
        let cancelled = self.calls.take_all();
        self.cancel(cancelled.into_iter().map(|call| call.id));
    }

    fn cancel(&self, ids: impl Iterator<Item = CallId>) {
        for id in ids {
            self.stats.shift(Gauge::PendingCallouts, -1);
            self.host.cancel(id, false);
        }
    }

    /// Gives back everything that the instance has outside of itself.
    pub(crate) fn release(&mut self) {
        self.cancel_all_calls();
        self.forget_queues();
        self.stats.memory(self.limiter.known as u64, 0);
        self.limiter.known = 0;
    }

    fn forget_queues(&mut self) {
        let queues = self.binding.engine().shared().queues();
        if let Some(notifier) = self.notifier.take() {
            queues.forget_notifier(self.binding.config().vm_id(), &notifier);
        }
        lock(&self.announced).clear();
    }
}

/// The memory ceiling. Growth past it is refused, which is the guest's problem.
pub(crate) struct MemoryLimit {
    pub(crate) ceiling: usize,
    pub(crate) now: usize,
    /// What of it the accounting knows.
    pub(crate) known: usize,
    /// Bytes of all tables.
    tables: usize,
    /// Refused growths in the running callback: a trap right after is most likely the guest's answer to it.
    pub(crate) refused: u32,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.ceiling;
        if fits {
            self.now = desired;
        } else {
            self.refused = self.refused.saturating_add(1);
        }
        Ok(fits)
    }

    /// Tables count at eight bytes an entry against the same ceiling, all of them together.
    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let tables = self.tables.saturating_add(desired.saturating_sub(current).saturating_mul(8));
        let fits = tables <= self.ceiling;
        if fits {
            self.tables = tables;
        } else {
            self.refused = self.refused.saturating_add(1);
        }
        Ok(fits)
    }
}
