//! One instance of a filter: its callbacks, and its end.
//!
//! A [`Vm`] belongs to one worker and is entered by one callback at a time. What arrives while the guest runs (an answer to a callout, say) is
//! queued and delivered after the callback returned: nothing but the guest's allocator is ever called from inside a host call. The first trap,
//! missed deadline or exit buries the instance: no callback runs again, its callouts are cancelled and its streams are woken to meet the
//! failure policy. Starting another one is [`crate::Filter`]'s decision.

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
use wasmtime::{Store, TypedFunc, WasmParams, WasmResults};

use crate::binding::Binding;
use crate::callout::{CallKind, Delivered, Event};
use crate::codec::Pairs;
use crate::host::{self, Headers, SharedHost, Side};
use crate::metrics::Shard;
use crate::stats::{Callback, Counter, Level, StatsShard};
use crate::stream::Close;
use crate::sync::lock;
use crate::time::Nanos;
use contexts::{Context, StreamRef};
use exports::{Exports, OnHeaders};
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
    /// Deadline of a callback in epochs.
    deadline: u64,
    output: usize,
}

type Typed<P, R> = Option<TypedFunc<P, R>>;

impl Core {
    /// Runs one guest function under a deadline, with `context` in effect.
    #[inline]
    fn enter<R>(
        &mut self,
        callback: Callback,
        context: u32,
        run: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<R>,
    ) -> wasmtime::Result<R> {
        self.store.set_epoch_deadline(self.deadline);
        let state = self.store.data_mut();
        state.binding.engine().ticker().touch();
        state.overdue = state.clock.after(self.deadline);
        state.mode = Mode::Running;
        state.context = context;
        state.effective = context;
        state.output_left = self.output;
        let started = state.stats.begin(callback);
        let result = run(&self.exports, &mut self.store);
        let state = self.store.data_mut();
        state.effective = 0;
        if let Some(started) = started {
            state.stats.end(callback, started.elapsed());
        }
        if state.limiter.refused > 0 || state.limiter.now != state.limiter.known {
            state.account_growth(result.is_ok());
        }
        result
    }

    /// The same for a callback that may not exist: `None` if it does not.
    #[inline]
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        callback: Callback,
        context: u32,
        pick: impl Fn(&Exports) -> &Typed<P, R>,
        params: P,
    ) -> wasmtime::Result<Option<R>> {
        if pick(&self.exports).is_none() {
            return Ok(None);
        }
        self.enter(callback, context, |exports, store| pick(exports).as_ref().map(|func| func.call(store, params)).transpose())
    }

    #[inline]
    fn call_headers(
        &mut self,
        callback: Callback,
        context: u32,
        pick: impl Fn(&Exports) -> &Option<OnHeaders>,
        count: u32,
        end: bool,
    ) -> wasmtime::Result<Option<u32>> {
        if pick(&self.exports).is_none() {
            return Ok(None);
        }
        self.enter(callback, context, |exports, store| pick(exports).as_ref().map(|func| func.call(store, context, count, end)).transpose())
    }
}

impl Vm {
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Runs `work` in the instance, buries it on a trap, and afterwards delivers what arrived meanwhile.
    #[inline]
    fn with<R>(&self, callback: Callback, work: impl FnOnce(&mut Core) -> wasmtime::Result<R>) -> Result<R, Dead> {
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
                self.bury(callback, &error);
                Err(Dead)
            }
        }
    }

    /// Ends the instance after a trap. Its streams meet the failure policy when they wake.
    #[cold]
    fn bury(&self, callback: Callback, error: &wasmtime::Error) {
        self.dead.set(true);
        let Some(mut core) = self.core.borrow_mut().take() else { return };
        let state = core.store.data_mut();
        let trap = Trap::classify(&self.binding, callback, error, state);
        start::count(state, &trap);
        state.tell(host::Level::Error, &trap.to_string());
        let streams = self.take_apart(core);
        for stream in streams {
            stream.cell.wake();
        }
    }

    /// Cancels and forgets everything the instance holds.
    fn take_apart(&self, mut core: Core) -> Vec<StreamRef> {
        let state = core.store.data_mut();
        state.release();
        state.stats.shift(Level::LiveInstances, -1);
        let streams: Vec<StreamRef> = state.contexts.streams().cloned().collect();
        state.stats.shift(Level::LiveContexts, -(streams.len() as i64));
        self.streams.set(0);
        self.deferred.borrow_mut().clear();
        streams
    }

    // === streams ===

    /// Creates the context of a stream, under the root of the binding's own configuration (0) or of a variant (1…).
    pub(crate) fn open(&self, stream: StreamRef, variant: usize) -> Result<u32, Dead> {
        let context = self.with(Callback::ContextCreate, |core| {
            let state = core.store.data_mut();
            let root = state.roots.get(variant).or(state.roots.first()).map_or(0, |root| root.id);
            stream.cell.set_root(stream.stage, root);
            let context = state.contexts.insert(Context::Stream(stream));
            state.stats.shift(Level::LiveContexts, 1);
            self.streams.set(self.streams.get() + 1);
            core.call(Callback::ContextCreate, context, |exports| &exports.context_create, (context, root))?;
            Ok(context)
        })?;
        Ok(context)
    }

    pub(crate) fn log(&self, context: u32) -> Result<(), Dead> {
        self.with(Callback::Log, |core| core.call(Callback::Log, context, |exports| &exports.log, context)).map(drop)
    }

    /// `on_done`, `on_delete`, and the end of everything the context had started.
    pub(crate) fn close(&self, context: u32) -> Result<(), Dead> {
        let done = self.with(Callback::Done, |core| core.call(Callback::Done, context, |exports| &exports.done, context));
        let deleted = match done {
            Ok(_) => self.with(Callback::Delete, |core| core.call(Callback::Delete, context, |exports| &exports.delete, context)),
            Err(Dead) => Err(Dead),
        };
        if let Ok(Some(core)) = self.core.try_borrow_mut().as_deref_mut() {
            let state = core.store.data_mut();
            state.cancel_calls_of(context);
            if state.contexts.remove(context).is_some() {
                state.stats.shift(Level::LiveContexts, -1);
                self.streams.set(self.streams.get().saturating_sub(1));
            }
        }
        deleted.map(drop)
    }

    /// The head of a message; for TCP, the new connection. `None`: the filter does not look at it.
    #[inline]
    pub(crate) fn on_head(&self, context: u32, side: Side, tcp: bool, count: u32, end: bool) -> Result<Option<u32>, Dead> {
        match (tcp, side) {
            (false, Side::Request) => self.with(Callback::RequestHeaders, |core| {
                core.call_headers(Callback::RequestHeaders, context, |exports| &exports.request_headers, count, end)
            }),
            (false, Side::Response) => self.with(Callback::ResponseHeaders, |core| {
                core.call_headers(Callback::ResponseHeaders, context, |exports| &exports.response_headers, count, end)
            }),
            (true, Side::Request) => self.with(Callback::NewConnection, |core| {
                core.call(Callback::NewConnection, context, |exports| &exports.new_connection, context)
            }),
            (true, Side::Response) => Ok(None),
        }
    }

    pub(crate) fn on_body(&self, context: u32, side: Side, tcp: bool, size: u32, end: bool) -> Result<Option<u32>, Dead> {
        let params = (context, size, u32::from(end));
        let (callback, pick): (Callback, fn(&Exports) -> &Typed<(u32, u32, u32), u32>) = match (tcp, side) {
            (false, Side::Request) => (Callback::RequestBody, |exports| &exports.request_body),
            (false, Side::Response) => (Callback::ResponseBody, |exports| &exports.response_body),
            (true, Side::Request) => (Callback::DownstreamData, |exports| &exports.downstream_data),
            (true, Side::Response) => (Callback::UpstreamData, |exports| &exports.upstream_data),
        };
        self.with(callback, |core| core.call(callback, context, pick, params))
    }

    pub(crate) fn on_trailers(&self, context: u32, side: Side, count: u32) -> Result<Option<u32>, Dead> {
        let (callback, pick): (Callback, fn(&Exports) -> &Typed<(u32, u32), u32>) = match side {
            Side::Request => (Callback::RequestTrailers, |exports| &exports.request_trailers),
            Side::Response => (Callback::ResponseTrailers, |exports| &exports.response_trailers),
        };
        self.with(callback, |core| core.call(callback, context, pick, (context, count)))
    }

    pub(crate) fn on_metadata(&self, context: u32, side: Side, count: u32) -> Result<Option<u32>, Dead> {
        let (callback, pick): (Callback, fn(&Exports) -> &Typed<(u32, u32), u32>) = match side {
            Side::Request => (Callback::RequestMetadata, |exports| &exports.request_metadata),
            Side::Response => (Callback::ResponseMetadata, |exports| &exports.response_metadata),
        };
        self.with(callback, |core| core.call(callback, context, pick, (context, count)))
    }

    /// A TCP connection closed on one side.
    pub(crate) fn on_connection_close(&self, context: u32, side: Side, by: Close) -> Result<(), Dead> {
        let (callback, pick): (Callback, fn(&Exports) -> &Typed<(u32, u32), ()>) = match side {
            Side::Request => (Callback::DownstreamClose, |exports| &exports.downstream_close),
            Side::Response => (Callback::UpstreamClose, |exports| &exports.upstream_close),
        };
        self.with(callback, |core| core.call(callback, context, pick, (context, by as u32))).map(drop)
    }

    // === callouts ===

    pub(crate) fn waits_for(&self, token: u32) -> bool {
        match self.core.try_borrow() {
            Ok(core) => core.as_ref().is_some_and(|core| core.store.data().calls.get(token).is_some()),
            Err(_) => !self.is_dead(),
        }
    }

    /// Something happened on a callout. Told to the guest now, or after the callback it is in.
    pub(crate) fn deliver(&self, token: u32, event: Event) {
        if self.is_dead() {
            return;
        }
        // Not there yet: it is still being started.
        let ready = self.core.try_borrow_mut().is_ok_and(|core| core.is_some());
        if ready {
            self.deliver_now(token, event);
        } else {
            self.deferred.borrow_mut().push_back((token, event));
        }
    }

    /// Delivers what arrived while the guest ran: not from inside another delivery, and not for ever, though a host that answers callouts at
    /// once and a guest that asks again at each answer would go on. What is left is for the next time.
    #[cold]
    fn run_deferred(&self) {
        const MOST: u32 = 100;
        if self.delivering.replace(true) {
            return;
        }
        for _ in 0..MOST {
            let Some((token, event)) = ({ self.deferred.borrow_mut().pop_front() }) else { break };
            self.deliver_now(token, event);
        }
        self.delivering.set(false);
        if !self.deferred.borrow().is_empty()
            && let Ok(Some(core)) = self.core.try_borrow().as_deref()
        {
            core.store.data().host.timer_changed();
        }
    }

    fn deliver_now(&self, token: u32, event: Event) {
        let pending = match self.core.borrow().as_ref().map(|core| core.store.data().calls.get(token)) {
            Some(Some(pending)) => pending,
            _ => return,
        };
        let root = pending.root;
        match (pending.kind, event) {
            (CallKind::Http, Event::Http(reply)) => {
                let counts = [reply.headers.len(), reply.body.len(), reply.trailers.len()].map(|count| count as u32);
                let status = (0, "");
                let maps = [None, None, Some(Pairs(reply.headers)), Some(Pairs(reply.trailers))];
                let callback = Callback::HttpCallResponse;
                self.answer(callback, (token, true), Delivered { maps, body: Some(reply.body), message: None }, status, |core| {
                    let params = (root, token, counts[0], counts[1], counts[2]);
                    core.call(callback, root, |exports| &exports.http_call_response, params).map(drop)
                });
            }
            (CallKind::Http, Event::Failed(code, reason)) => {
                let callback = Callback::HttpCallResponse;
                self.answer(callback, (token, true), Delivered::default(), (code, &reason), |core| {
                    let params = (root, token, 0, 0, 0);
                    core.call(callback, root, |exports| &exports.http_call_response, params).map(drop)
                });
            }
            (CallKind::GrpcStream, Event::GrpcInitialMetadata(metadata)) => {
                let count = metadata.len() as u32;
                let maps = [Some(Pairs(metadata)), None, None, None];
                let callback = Callback::GrpcInitialMetadata;
                self.answer(callback, (token, false), Delivered { maps, ..Delivered::default() }, (0, ""), |core| {
                    let params = (root, token, count);
                    core.call(callback, root, |exports| &exports.grpc_receive_initial_metadata, params).map(drop)
                });
            }
            (CallKind::GrpcStream | CallKind::GrpcUnary, Event::GrpcMessage(message)) => {
                let size = message.len() as u32;
                let last = pending.kind == CallKind::GrpcUnary;
                let callback = Callback::GrpcReceive;
                self.answer(callback, (token, last), Delivered { message: Some(message), ..Delivered::default() }, (0, ""), |core| {
                    core.call(callback, root, |exports| &exports.grpc_receive, (root, token, size)).map(drop)
                });
            }
            (CallKind::GrpcStream, Event::GrpcTrailingMetadata(metadata)) => {
                let count = metadata.len() as u32;
                let maps = [None, Some(Pairs(metadata)), None, None];
                let callback = Callback::GrpcTrailingMetadata;
                self.answer(callback, (token, false), Delivered { maps, ..Delivered::default() }, (0, ""), |core| {
                    let params = (root, token, count);
                    core.call(callback, root, |exports| &exports.grpc_receive_trailing_metadata, params).map(drop)
                });
            }
            (CallKind::GrpcStream | CallKind::GrpcUnary, Event::GrpcClosed(status, message) | Event::Failed(status, message)) => {
                // A unary call that closes well without an answer is a broken peer: INTERNAL.
                let status = if pending.kind == CallKind::GrpcUnary && status == 0 { 13 } else { status };
                let callback = Callback::GrpcClose;
                self.answer(callback, (token, true), Delivered::default(), (status, &message), |core| {
                    core.call(callback, root, |exports| &exports.grpc_close, (root, token, status)).map(drop)
                });
            }
            // Unary calls have no metadata callbacks, and an answer of the wrong protocol is nobody's.
            _ => {}
        }
    }

    fn answer(
        &self,
        callback: Callback,
        (token, last): (u32, bool),
        delivered: Delivered,
        status: (u32, &str),
        call: impl FnOnce(&mut Core) -> wasmtime::Result<()>,
    ) {
        let _ = self.with(callback, |core| {
            let state = core.store.data_mut();
            if last {
                state.calls.remove(token);
                state.stats.shift(Level::PendingCallouts, -1);
            }
            state.delivered = Some(Rc::new(delivered));
            state.status = (status.0, status.1.into());
            let result = call(core);
            core.store.data_mut().delivered = None;
            result
        });
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
            let result = self.with(Callback::Tick, |core| {
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
                let told = self.with(Callback::QueueReady, |core| {
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

    /// The proxy calls a foreign function of the filter: `proxy_on_foreign_function`, arguments in buffer 8.
    pub(crate) fn call_foreign(&self, function: u32, arguments: Bytes) -> Result<(), Dead> {
        self.with(Callback::ForeignFunction, |core| {
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
        let _ = self.with(Callback::Done, |core| {
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
        let _ = self.with(Callback::Delete, |core| {
            for index in (0..core.store.data().roots.len()).rev() {
                let id = core.store.data().roots[index].id;
                core.call(Callback::Delete, id, |exports| &exports.delete, id)?;
            }
            Ok(())
        });
        self.dead.set(true);
        let core = self.core.try_borrow_mut().ok().and_then(|mut core| core.take());
        if let Some(core) = core {
            for stream in self.take_apart(core) {
                stream.cell.wake();
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
