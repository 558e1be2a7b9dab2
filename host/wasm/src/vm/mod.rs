//! One instance of a filter: its callbacks, and its end.
//!
//! A [`Vm`] belongs to one worker and is entered by one callback at a time. What arrives while the guest runs (an answer to a callout, say) is
//! queued and delivered after the callback returned: nothing but the guest's allocator is ever called from inside a host call. The first trap,
//! missed deadline or exit buries the instance: no callback runs again, its callouts are cancelled and its streams are woken to meet the
//! failure policy. Starting another one is [`crate::Filter`]'s decision.

mod calls;
pub(crate) mod contexts;
mod exports;
mod start;
pub(crate) mod state;
pub(crate) mod trap;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::{Instance, Store, TypedFunc, WasmParams, WasmResults};

use crate::binding::Binding;
use crate::callout::Event;
use crate::host::{self, Headers, SharedHost, Side};
use crate::metrics::Shard;
use crate::stats::{Callback, Counter, Level, StatsShard};
use crate::stream::Close;
use crate::sync::lock;
use crate::time::Nanos;
use contexts::{StreamCellRef, StreamRef};
use exports::{Export, Exports, OnHeaders};
pub use start::StartError;
use state::{Mode, State};
pub use trap::Trap;

/// What all instances of one binding on one worker share.
#[derive(Clone)]
pub(crate) struct WorkerParts {
    pub(crate) host: SharedHost,
    pub(crate) stats: Rc<StatsShard>,
    pub(crate) metrics: Rc<Shard>,
}

/// The instance is gone, or busy because somebody called back from inside a host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dead;

pub(crate) struct Vm {
    binding: Arc<Binding>,
    core: RefCell<Option<Core>>,
    dead: Cell<bool>,
    deferred: RefCell<VecDeque<(u32, Event)>>,
    /// [`Vm::run_deferred`] is at work.
    delivering: Cell<bool>,
    streams: Cell<usize>,
    /// What ended it, if it did not end in peace.
    trap: RefCell<Option<Box<Trap>>>,
    me: Weak<Vm>,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vm({}, {} streams)", self.binding.config().name, self.streams.get())
    }
}

struct Core {
    store: Store<State>,
    exports: Exports,
    instance: Instance,
    bounds: Bounds,
}

/// What a callback may use.
struct Bounds {
    /// In epochs.
    deadline: u64,
    /// Bytes it may hand to the host.
    output: usize,
}

type Typed<P, R> = Export<TypedFunc<P, R>>;
/// Picks a callback out of all.
type Pick<P, R> = fn(&Exports) -> &Typed<P, R>;

impl Core {
    /// Runs one guest function under a deadline, with `context` in effect.
    #[inline]
    fn enter<R>(
        store: &mut Store<State>,
        bounds: &Bounds,
        callback: Callback,
        context: u32,
        run: impl FnOnce(&mut Store<State>) -> wasmtime::Result<R>,
    ) -> wasmtime::Result<R> {
        store.set_epoch_deadline(bounds.deadline);
        let state = store.data_mut();
        state.clock.touch();
        state.overdue = state.clock.after(bounds.deadline);
        state.turn += 1;
        state.mode = Mode::Running;
        state.callback = callback;
        state.context = context;
        state.effective = context;
        state.output_left = bounds.output;
        let started = state.stats.begin(callback);
        let result = run(store);
        let state = store.data_mut();
        state.effective = 0;
        if let Some(started) = started {
            state.stats.end(callback, started.elapsed());
        }
        if state.limiter.refused > 0 || state.limiter.now != state.limiter.known {
            state.account_growth(result.is_ok());
        }
        result
    }

    /// Calls a callback: `None` if the module has none.
    #[inline]
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        callback: Callback,
        context: u32,
        pick: impl Fn(&Exports) -> &Typed<P, R>,
        params: P,
    ) -> wasmtime::Result<Option<R>> {
        let Self { store, exports, instance, bounds } = self;
        let Some(func) = pick(exports).get(store, instance, callback.name()) else { return Ok(None) };
        Self::enter(store, bounds, callback, context, |store| func.call(store, params)).map(Some)
    }

    #[inline]
    fn call_headers(
        &mut self,
        callback: Callback,
        context: u32,
        pick: impl Fn(&Exports) -> &Export<OnHeaders>,
        count: u32,
        end: bool,
    ) -> wasmtime::Result<Option<u32>> {
        let Self { store, exports, instance, bounds } = self;
        let Some(func) = pick(exports).get(store, instance, callback.name()) else { return Ok(None) };
        Self::enter(store, bounds, callback, context, |store| func.call(store, context, count, end)).map(Some)
    }
}

impl Vm {
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    pub(crate) fn ended_by(&self) -> Option<Box<Trap>> {
        self.trap.borrow().clone()
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Runs `work` in the instance, buries it on a trap, and afterwards delivers what arrived meanwhile.
    #[inline]
    fn with<R>(&self, work: impl FnOnce(&mut Core) -> wasmtime::Result<R>) -> Result<R, Dead> {
        let result = {
            let Ok(mut guard) = self.core.try_borrow_mut() else { return Err(Dead) };
            let Some(core) = guard.as_mut() else { return Err(Dead) };
            work(core)
        };
        match result {
            Ok(value) => {
                if !self.deferred.borrow().is_empty() {
                    self.run_deferred();
                }
                Ok(value)
            }
            Err(error) => {
                self.bury(&error);
                Err(Dead)
            }
        }
    }

    /// Ends the instance after a trap. Its streams meet the failure policy when they wake.
    #[cold]
    fn bury(&self, error: &wasmtime::Error) {
        self.dead.set(true);
        let Some(mut core) = self.core.borrow_mut().take() else { return };
        let state = core.store.data_mut();
        let trap = Trap::classify(&self.binding, error, state);
        start::count(state, &trap);
        state.tell(host::Level::Error, &trap.to_string());
        *self.trap.borrow_mut() = Some(Box::new(trap));
        let turn = state.turn;
        for (cell, stage) in self.take_apart(core) {
            cell.instance_died(stage, turn);
        }
    }

    /// Cancels and forgets everything the instance holds.
    fn take_apart(&self, mut core: Core) -> Vec<(StreamCellRef, usize)> {
        let state = core.store.data_mut();
        state.release();
        state.stats.shift(Level::LiveInstances, -1);
        let streams: Vec<_> = state.contexts.streams().map(|stream| (stream.cell.clone(), stream.stage)).collect();
        state.stats.shift(Level::LiveContexts, -(streams.len() as i64));
        self.streams.set(0);
        self.deferred.borrow_mut().clear();
        streams
    }

    // === streams ===

    /// Creates the context of a stream, under the root of the binding's own configuration (0) or of a variant (1…).
    #[inline]
    pub(crate) fn open(&self, stream: StreamRef<'_>, variant: usize) -> Result<u32, Dead> {
        self.with(|core| {
            let state = core.store.data_mut();
            let root = state.roots.get(variant).or(state.roots.first()).map_or(0, |root| root.id);
            let context = state.contexts.insert_stream(stream, root);
            state.stats.shift(Level::LiveContexts, 1);
            self.streams.set(self.streams.get() + 1);
            core.call(Callback::ContextCreate, context, |exports| &exports.context_create, (context, root))?;
            Ok(context)
        })
    }

    pub(crate) fn log(&self, context: u32) -> Result<(), Dead> {
        self.with(|core| core.call(Callback::Log, context, |exports| &exports.log, context)).map(drop)
    }

    /// `on_done`, `on_delete`, and the end of everything the context had started.
    pub(crate) fn close(&self, context: u32) -> Result<(), Dead> {
        self.with(|core| {
            core.call(Callback::Done, context, |exports| &exports.done, context)?;
            core.call(Callback::Delete, context, |exports| &exports.delete, context)?;
            let state = core.store.data_mut();
            state.cancel_calls_of(context);
            if state.contexts.remove(context) {
                state.stats.shift(Level::LiveContexts, -1);
                self.streams.set(self.streams.get().saturating_sub(1));
            }
            Ok(())
        })
    }

    /// The head of a message; for TCP, the new connection. `None`: the filter does not look at it.
    #[inline]
    pub(crate) fn on_head(&self, context: u32, side: Side, tcp: bool, count: u32, end: bool) -> Result<Option<u32>, Dead> {
        match (tcp, side) {
            (false, Side::Request) => {
                self.with(|core| core.call_headers(Callback::RequestHeaders, context, |exports| &exports.request_headers, count, end))
            }
            (false, Side::Response) => {
                self.with(|core| core.call_headers(Callback::ResponseHeaders, context, |exports| &exports.response_headers, count, end))
            }
            (true, Side::Request) => {
                self.with(|core| core.call(Callback::NewConnection, context, |exports| &exports.new_connection, context))
            }
            (true, Side::Response) => Ok(None),
        }
    }

    pub(crate) fn on_body(&self, context: u32, side: Side, tcp: bool, size: u32, end: bool) -> Result<Option<u32>, Dead> {
        let params = (context, size, u32::from(end));
        let (callback, pick): (Callback, Pick<(u32, u32, u32), u32>) = match (tcp, side) {
            (false, Side::Request) => (Callback::RequestBody, |exports| &exports.request_body),
            (false, Side::Response) => (Callback::ResponseBody, |exports| &exports.response_body),
            (true, Side::Request) => (Callback::DownstreamData, |exports| &exports.downstream_data),
            (true, Side::Response) => (Callback::UpstreamData, |exports| &exports.upstream_data),
        };
        self.with(|core| core.call(callback, context, pick, params))
    }

    pub(crate) fn on_trailers(&self, context: u32, side: Side, count: u32) -> Result<Option<u32>, Dead> {
        let (callback, pick): (Callback, Pick<(u32, u32), u32>) = match side {
            Side::Request => (Callback::RequestTrailers, |exports| &exports.request_trailers),
            Side::Response => (Callback::ResponseTrailers, |exports| &exports.response_trailers),
        };
        self.with(|core| core.call(callback, context, pick, (context, count)))
    }

    pub(crate) fn on_metadata(&self, context: u32, side: Side, count: u32) -> Result<Option<u32>, Dead> {
        let (callback, pick): (Callback, Pick<(u32, u32), u32>) = match side {
            Side::Request => (Callback::RequestMetadata, |exports| &exports.request_metadata),
            Side::Response => (Callback::ResponseMetadata, |exports| &exports.response_metadata),
        };
        self.with(|core| core.call(callback, context, pick, (context, count)))
    }

    /// A TCP connection closed on one side.
    pub(crate) fn on_connection_close(&self, context: u32, side: Side, by: Close) -> Result<(), Dead> {
        let (callback, pick): (Callback, Pick<(u32, u32), ()>) = match side {
            Side::Request => (Callback::DownstreamClose, |exports| &exports.downstream_close),
            Side::Response => (Callback::UpstreamClose, |exports| &exports.upstream_close),
        };
        self.with(|core| core.call(callback, context, pick, (context, by as u32))).map(drop)
    }

    // === roots ===

    /// Runs what is due: timers and announced queue items. The time of the next timer, if there is one.
    pub(crate) fn run_timers(&self, now: Nanos) -> Option<Nanos> {
        let more = self.run_queues();
        let roots = match self.core.try_borrow().ok()?.as_ref() {
            Some(core) => core.store.data().roots.len(),
            None => return None,
        };
        let mut next = more.then_some(now);
        for index in 0..roots {
            let result = self.with(|core| {
                let root = &mut core.store.data_mut().roots[index];
                if root.period == 0 || root.due > now {
                    return Ok(root.due_if_running());
                }
                // From now, not from when it was due: ticks never pile up behind a slow callback.
                root.due = now.saturating_add(root.period);
                let id = root.id;
                core.call(Callback::Tick, id, |exports| &exports.tick, id)?;
                Ok(core.store.data().roots[index].due_if_running())
            });
            next = [next, result.ok()?].into_iter().flatten().min();
        }
        if self.deferred.borrow().is_empty() { next } else { Some(now) }
    }

    /// Tells the guest of announced items: of those that are here now, and of not too many, since it may add to them at each. Whether some
    /// are left.
    fn run_queues(&self) -> bool {
        const MOST: u32 = 100;
        let announced = match self.core.try_borrow() {
            Ok(core) => core.as_ref().map(|core| core.store.data().announced.clone()),
            Err(_) => None,
        };
        let Some(announced) = announced else { return false };
        let mut left = MOST;
        while left > 0 {
            let Some((queue, count)) = take_some(&mut lock(&announced), left) else { return false };
            left -= count;
            for _ in 0..count {
                let told = self.with(|core| {
                    let root = core.store.data().roots.first().map_or(0, |root| root.id);
                    core.call(Callback::QueueReady, root, |exports| &exports.queue_ready, (root, queue))
                });
                if told.is_err() {
                    return false;
                }
            }
        }
        !lock(&announced).is_empty()
    }

    /// How many host calls it has made; 0 while it is entered.
    pub(crate) fn host_calls(&self) -> u64 {
        self.core.try_borrow().ok().and_then(|core| Some(core.as_ref()?.store.data().host_calls.made())).unwrap_or(0)
    }

    /// Its `nth` host call from now ends it.
    pub(crate) fn fail_at_host_call(&self, nth: u64) {
        if let Ok(Some(core)) = self.core.try_borrow_mut().as_deref_mut() {
            core.store.data_mut().host_calls.end_at(nth);
        }
    }

    /// The proxy calls a foreign function of the filter: `proxy_on_foreign_function`, arguments in buffer 8.
    pub(crate) fn call_foreign(&self, function: u32, arguments: Bytes) -> Result<(), Dead> {
        self.with(|core| {
            let state = core.store.data_mut();
            let root = state.roots.first().map_or(0, |root| root.id);
            let size = arguments.len() as u32;
            state.foreign_arguments = arguments;
            let result = core.call(Callback::ForeignFunction, root, |exports| &exports.foreign_function, (root, function, size));
            core.store.data_mut().foreign_arguments = Bytes::new();
            result.map(drop)
        })
    }

    /// Tells the root contexts to finish. `true`: they have; otherwise ask [`Vm::has_finished`] again later.
    pub(crate) fn finish_roots(&self) -> bool {
        let _ = self.with(|core| {
            for index in 0..core.store.data().roots.len() {
                let root = &mut core.store.data_mut().roots[index];
                root.period = 0;
                root.lingers = true;
                let id = root.id;
                let done = core.call(Callback::Done, id, |exports| &exports.done, id)?;
                if done != Some(0) {
                    core.store.data_mut().roots[index].lingers = false;
                }
            }
            Ok(())
        });
        self.has_finished()
    }

    pub(crate) fn has_finished(&self) -> bool {
        match self.core.try_borrow() {
            Ok(core) => core.as_ref().is_none_or(|core| core.store.data().roots.iter().all(|root| !root.lingers)),
            Err(_) => false,
        }
    }

    /// Deletes the root contexts and drops the instance.
    pub(crate) fn end(&self) {
        let _ = self.with(|core| {
            for index in (0..core.store.data().roots.len()).rev() {
                let id = core.store.data().roots[index].id;
                core.call(Callback::Delete, id, |exports| &exports.delete, id)?;
            }
            Ok(())
        });
        self.dead.set(true);
        let core = self.core.try_borrow_mut().ok().and_then(|mut core| core.take());
        if let Some(core) = core {
            for (cell, _) in self.take_apart(core) {
                cell.wake();
            }
        }
    }
}

impl State {
    #[cold]
    pub(crate) fn account_growth(&mut self, survived: bool) {
        self.stats.memory(self.limiter.known as u64, self.limiter.now as u64);
        self.limiter.known = self.limiter.now;
        self.stats.count_by(Counter::GrowthRefused, self.limiter.refused.into());
        // A guest that lived with the refusal is forgiven; one that trapped is classified by it.
        if survived {
            self.limiter.refused = 0;
        }
    }
}

impl state::Root {
    fn due_if_running(&self) -> Option<Nanos> {
        (self.period > 0).then_some(self.due)
    }
}

/// Takes at most `most` announcements of the queue that waits longest; it then waits behind the others.
fn take_some(announced: &mut VecDeque<(u32, u32)>, most: u32) -> Option<(u32, u32)> {
    let (queue, count) = announced.pop_front()?;
    if count > most {
        announced.push_back((queue, count - most));
    }
    Some((queue, count.min(most)))
}

/// How many pairs a map has, as callbacks tell it.
pub(crate) fn count_of(headers: Option<&mut dyn Headers>) -> u32 {
    headers.map_or(0, |headers| u32::try_from(headers.count()).unwrap_or(u32::MAX))
}
