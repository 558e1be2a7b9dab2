//! A binding on one worker: the instance that serves it now, the ones that are on their way out, and when to try again after a failure.
//!
//! One instance serves all streams of a worker. When it dies, the next stream starts a fresh one; when starting or running fails again and
//! again, attempts back off exponentially with jitter, and streams meet the failure policy meanwhile. Not shared between threads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::backoff::Backoff;
use crate::binding::{Binding, Routing};
use crate::host::{Level, LogLine, SharedHost, Side};
use crate::module::callbacks::Callback;
use crate::stats::Counter;
use crate::time::Nanos;
use crate::vm::{StartError, Vm, WorkerParts};

/// A binding at work on one worker.
pub struct Filter {
    binding: Arc<Binding>,
    parts: WorkerParts,
    current: RefCell<Option<Rc<Vm>>>,
    retired: RefCell<Vec<Retired>>,
    backoff: RefCell<Backoff>,
    has_run: Cell<bool>,
    wants: [bool; 2],
    ends: Ends,
    has_variants: bool,
    follows_routes: bool,
}

/// What a filter has for the end of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// `on_log`: for every stream, also one that never reached it.
    pub(crate) log: bool,
    /// That, or callbacks for a stream that reached it though no message callback was due.
    pub(crate) any: bool,
}

struct Retired {
    vm: Rc<Vm>,
    /// Set once its roots have been told to finish.
    deadline: Option<Nanos>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({})", self.binding.config().name)
    }
}

impl Filter {
    /// Starts the binding's first instance on this worker.
    ///
    /// # Errors
    /// When it does not start or refuses its configuration: this worker cannot serve the binding, and whatever served before should go on.
    pub fn start(binding: &Arc<Binding>, host: SharedHost) -> Result<Rc<Self>, StartError> {
        let filter = Self::idle(binding, host);
        let vm = Vm::start(binding, &filter.parts)?;
        filter.has_run.set(true);
        *filter.current.borrow_mut() = Some(vm);
        Ok(filter)
    }

    /// The binding without an instance: the first stream starts one.
    #[must_use]
    pub fn idle(binding: &Arc<Binding>, host: SharedHost) -> Rc<Self> {
        let exports = |callback| binding.module().exports(callback);
        let parts = WorkerParts { host, stats: Rc::new(binding.stats().shard()), metrics: Rc::new(binding.metrics().shard()) };
        Rc::new(Self {
            binding: binding.clone(),
            parts,
            current: RefCell::new(None),
            retired: RefCell::default(),
            backoff: RefCell::new(binding.backoff()),
            has_run: Cell::new(false),
            wants: binding.wants(),
            ends: Ends {
                log: exports(Callback::Log),
                any: [Callback::Log, Callback::ContextCreate, Callback::Done, Callback::Delete].into_iter().any(exports),
            },
            has_variants: !binding.config().variants.is_empty(),
            follows_routes: matches!(binding.config().routing, Routing::Follows { .. }),
        })
    }

    /// What it runs.
    #[must_use]
    pub fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    /// The instance for a new stream, started if need be. `None`: it cannot be had now.
    #[inline]
    pub(crate) fn instance(&self) -> Option<Rc<Vm>> {
        match &*self.current.borrow() {
            Some(vm) if !vm.is_dead() => return Some(vm.clone()),
            _ => {}
        }
        self.restart()
    }

    #[cold]
    fn restart(&self) -> Option<Rc<Vm>> {
        let now = self.parts.host.monotonic_nanos();
        let mut random = [0; 8];
        self.parts.host.random(&mut random);
        // Taken already: a host that starts a stream from inside the start of this filter's instance.
        let Ok(mut backoff) = self.backoff.try_borrow_mut() else { return None };
        if self.current.borrow_mut().take().is_some() {
            backoff.failure(now, u64::from_le_bytes(random));
        }
        if !backoff.ready(now) {
            self.count(Counter::RestartsDelayed);
            return None;
        }
        if self.has_run.get() {
            self.count(Counter::InstanceRestarts);
        }
        match Vm::start(&self.binding, &self.parts) {
            Ok(vm) => {
                self.has_run.set(true);
                backoff.success(now);
                *self.current.borrow_mut() = Some(vm.clone());
                Some(vm)
            }
            Err(error) => {
                backoff.failure(now, u64::from_le_bytes(random));
                let wait = std::time::Duration::from_nanos(backoff.not_before().saturating_sub(now));
                let times = backoff.failures();
                self.tell(Level::Error, &format!("could not be started ({times} failures in a row, next attempt in {wait:?}): {error}"));
                None
            }
        }
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.parts.stats.count(counter);
    }

    fn tell(&self, level: Level, message: &str) {
        let binding = &self.binding.config().name;
        self.parts.host.log(&LogLine { binding, level, message, stream: "", from_guest: false });
    }

    pub(crate) fn ends(&self) -> Ends {
        self.ends
    }

    pub(crate) fn has_variants(&self) -> bool {
        self.has_variants
    }

    pub(crate) fn follows_routes(&self) -> bool {
        self.follows_routes
    }

    /// Which of the binding's configurations a name stands for.
    pub(crate) fn variant(&self, name: &str) -> Option<usize> {
        let index = self.binding.config().variants.iter().position(|variant| variant.name == name)?;
        Some(index + 1)
    }

    /// Whether it has any callback for the messages of a side.
    pub(crate) fn wants(&self) -> [bool; 2] {
        self.wants
    }

    /// It has made a body longer or shorter than the length that had gone on.
    pub(crate) fn breaks_length(&self, side: Side) {
        self.binding.has_resized(side);
        self.count(Counter::LengthsBroken);
        self.tell(
            Level::Warn,
            &format!(
                "has changed the length of a {side:?} body after its head had gone on with a content-length; the message was broken off. From \
                 now on such heads lose the header: let the filter remove it in its headers callback, or set bodyAccess: readWrite"
            ),
        );
    }

    pub(crate) fn may_write_body(&self, side: Side) -> bool {
        self.binding.may_write_body(side)
    }

    /// Runs what is due: timers, queue items that other threads announced, and the end of retired instances. Returns when to call again at the
    /// latest; earlier if [`crate::Host::timer_changed`] or the queue notifier says so.
    pub fn run_timers(&self) -> Option<Nanos> {
        let now = self.parts.host.monotonic_nanos();
        let current = self.current.borrow().clone();
        let next = current.and_then(|vm| vm.run_timers(now));
        // Streams of a retired instance may wait for its timer; once its roots were told to finish it has none.
        let leaving: Vec<Rc<Vm>> = self.retired.borrow().iter().map(|retired| retired.vm.clone()).collect();
        let last = leaving.iter().filter_map(|vm| vm.run_timers(now)).min();
        let retired = self.run_retired(now);
        [next, last, retired].into_iter().flatten().min()
    }

    /// How many host calls the current instance has made, its start included; 0 without one.
    #[must_use]
    pub fn host_calls(&self) -> u64 {
        self.current.borrow().as_ref().map_or(0, |vm| vm.host_calls())
    }

    /// For tests of failures: the current instance ends at its `nth` host call from now, as if it had trapped there. 0 takes that back.
    pub fn fail_at_host_call(&self, nth: u64) {
        if let Some(vm) = &*self.current.borrow() {
            vm.fail_at_host_call(nth);
        }
    }

    /// Calls the filter's `proxy_on_foreign_function`.
    pub fn call_foreign(&self, function: u32, arguments: Bytes) {
        let current = self.current.borrow().clone();
        if let Some(vm) = current {
            let _ = vm.call_foreign(function, arguments);
        }
    }

    /// No new stream enters the current instance; it ends when its last stream has, and its root contexts have finished or run out of time.
    /// Call [`Filter::run_timers`] until [`Filter::is_gone`].
    pub fn retire(&self) {
        if let Some(vm) = self.current.borrow_mut().take() {
            self.retired.borrow_mut().push(Retired { vm, deadline: None });
        }
        self.run_retired(self.parts.host.monotonic_nanos());
    }

    /// Whether no instance is left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.current.borrow().is_none() && self.retired.borrow().is_empty()
    }

    fn run_retired(&self, now: Nanos) -> Option<Nanos> {
        const LOOK_AGAIN: Nanos = 100_000_000;
        let retired = std::mem::take(&mut *self.retired.borrow_mut());
        let mut left: Vec<Retired> = retired.into_iter().filter_map(|retired| self.move_on(retired, now)).collect();
        let mut still = self.retired.borrow_mut();
        still.append(&mut left);
        (!still.is_empty()).then(|| now.saturating_add(LOOK_AGAIN))
    }

    /// One step towards the end of a retired instance; `None` once it is gone.
    fn move_on(&self, mut retired: Retired, now: Nanos) -> Option<Retired> {
        if retired.vm.is_dead() {
            return None;
        }
        if retired.vm.streams() > 0 {
            return Some(retired);
        }
        let finished = match retired.deadline {
            None => {
                let patience = self.binding.config().limits.done_deadline;
                retired.deadline = Some(now.saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX)));
                retired.vm.finish_roots()
            }
            Some(_) => retired.vm.has_finished(),
        };
        if !finished && retired.deadline.is_some_and(|deadline| now < deadline) {
            return Some(retired);
        }
        if !finished {
            self.tell(Level::Warn, "did not finish in time after proxy_on_done (limits.done_deadline): ended anyway");
            self.count(Counter::DeadlineMisses);
        }
        retired.vm.end();
        None
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(vm) = self.current.borrow_mut().take() {
            vm.end();
        }
        for retired in self.retired.borrow_mut().drain(..) {
            retired.vm.end();
        }
    }
}
