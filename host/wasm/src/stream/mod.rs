//! A stream and its chain of filters: the part between a proxy's connection and the guests.
//!
//! The proxy says what arrives ([`Stream::request_headers`], [`Stream::response_body`], …) and takes what came through ([`Stream::take`]). In
//! between, every filter's callbacks run in order, may pause, change what they hold, or answer instead of the upstream. Nothing here does I/O or
//! waits: a paused stream says so, and [`crate::StreamHost::wake`] asks for [`Stream::resume`] when that changes.
//!
//! What always holds: callbacks of a message come in order and never after its context is deleted; every filter of the chain gets `on_log`, then
//! `on_done`, then `on_delete`, exactly once, unless its instance died; a failed filter meets its binding's policy, whoever caused the failure.
//!
//! # What a filter may read and change, and when
//!
//! | | read | change |
//! |---|---|---|
//! | request and response headers | from their arrival to the end, `on_log` included | in their own callback, and while the filter holds them paused |
//! | trailers | from their arrival to the end | in their own callback and while paused there; *added* in the body callback with `end_of_stream` |
//! | bodies | in their callbacks and while the filter holds them | the same |
//! | a callout's headers, body, trailers | in its callback | never |
//! | configuration | in any callback of its root context | never |
//!
//! Anything else is lenient: a read finds an empty map or nothing, a change has no effect, both answer OK and are counted (`wrong_phase`) and
//! logged at a limited rate, because the SDKs panic on other answers.

mod again;
pub(crate) mod buffer;
mod flow;
mod lane;
mod pool;
pub(crate) mod reply;
mod run;

use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::binding::{BodyAccess, Kind};
use crate::filter::Filter;
use crate::host::{LocalReply, Side, StreamHost};
use crate::vm::contexts::StreamCellRef;
use flow::{Flow, HeadLength, Stage};
use lane::{LanePolicy, Released};
use pool::{Pool, Slot};
use reply::Asked;

/// Who closed a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Not known.
    Unknown = 0,
    /// This proxy.
    Local = 1,
    /// The peer.
    Remote = 2,
}

/// The filters of a listener or route, in request order.
#[derive(Clone)]
pub struct Chain(Rc<Shape>);

struct Shape {
    filters: Box<[Rc<Filter>]>,
    kind: Kind,
    /// Whether any filter may change bodies, by side.
    may_write_body: [bool; 2],
    /// The least that any filter's body may be.
    body_limit: usize,
    pool: Pool,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Chain").field(&self.0.filters).finish()
    }
}

impl Chain {
    /// A chain of `filters`, the one nearest to the client first.
    #[must_use]
    pub fn new(kind: Kind, filters: Vec<Rc<Filter>>) -> Self {
        let writes = |side: Side| filters.iter().any(|filter| filter.may_write_body(side));
        let body_limit = filters.iter().map(|filter| filter.binding().config().limits.body).min().unwrap_or(usize::MAX);
        let may_write_body = [writes(Side::Request), writes(Side::Response)];
        Self(Rc::new(Shape { may_write_body, body_limit, filters: filters.into(), kind, pool: Pool::default() }))
    }

    /// A flow of no stream's yet.
    fn flow(&self) -> Flow {
        let stages = self.0.filters.iter().map(|filter| {
            let config = filter.binding().config();
            let policy = LanePolicy { header_pause: config.header_pause, final_body_before_trailers: config.final_body_before_trailers };
            Stage::new(policy, filter.wants(), config.body_access, config.limits.body)
        });
        Flow::new(self.0.kind == Kind::Tcp, stages.collect(), self.0.may_write_body)
    }

    /// Its filters.
    #[must_use]
    pub fn filters(&self) -> &[Rc<Filter>] {
        &self.0.filters
    }
}

/// What came through the chain since the last [`Stream::take`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The headers may go on. They are in the [`StreamHost`].
    pub head: bool,
    /// Body bytes that may go on.
    pub data: Bytes,
    /// The trailers may go on, and are the end.
    pub trailers: bool,
    /// The message ends here, without trailers.
    pub end: bool,
}

/// A stream's shared part: the proxy's object and the flow of its messages.
pub(crate) struct StreamCell<H: ?Sized> {
    pub(crate) flow: RefCell<Flow>,
    pub(crate) host: RefCell<H>,
}

impl StreamCell<dyn StreamHost> {
    /// The instance of a stage died in its callback `turn`: the stage must meet its policy.
    pub(crate) fn instance_died(&self, stage: usize, turn: u64) {
        if let Ok(mut flow) = self.flow.try_borrow_mut() {
            flow.forget_asked_by(reply::Asker { stage, turn });
            flow.mark(stage, Side::Request);
            flow.mark(stage, Side::Response);
        }
        self.wake();
    }

    /// Asks the stream's owner to resume it, unless it is being run right now.
    pub(crate) fn wake(&self) {
        let asleep = self.flow.try_borrow().is_ok_and(|flow| !flow.running && !flow.closed);
        if asleep && let Ok(mut host) = self.host.try_borrow_mut() {
            host.wake();
        }
    }
}

/// One HTTP stream or TCP connection.
pub struct Stream<H: StreamHost + 'static> {
    cell: Rc<StreamCell<Slot<H>>>,
    /// The same, as guests' contexts know it.
    shared: StreamCellRef,
    chain: Chain,
}

impl<H: StreamHost> std::fmt::Debug for Stream<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("flow", &self.cell.flow.try_borrow().ok()).finish_non_exhaustive()
    }
}

impl<H: StreamHost> Stream<H> {
    /// A stream through `chain`. No callback runs yet.
    #[must_use]
    pub fn new(chain: &Chain, host: H) -> Self {
        let cell = chain.0.pool.take(|| chain.flow(), host);
        Self { shared: cell.clone(), cell, chain: chain.clone() }
    }

    /// The proxy's own object.
    ///
    /// # Panics
    /// When a [`Stream::host_mut`] is still alive.
    #[must_use]
    pub fn host(&self) -> Ref<'_, H> {
        Ref::map(self.cell.host.borrow(), Slot::get)
    }

    /// The proxy's own object, to change. It must not live across calls that run filters.
    ///
    /// # Panics
    /// When another borrow is still alive.
    #[must_use]
    pub fn host_mut(&self) -> RefMut<'_, H> {
        RefMut::map(self.cell.host.borrow_mut(), Slot::get_mut)
    }

    /// Selects the configuration of the filter at `position` before it has seen anything: a variant's name. `false`: no such variant, or too late.
    pub fn select_variant(&mut self, position: usize, name: &str) -> bool {
        let Some(filter) = self.chain.filters().get(position) else { return false };
        let Some(variant) = filter.variant(name) else { return false };
        let stage = &mut self.cell.flow.borrow_mut().stages[position];
        if stage.vm.is_some() {
            return false;
        }
        stage.variant = variant;
        true
    }

    /// The request's headers are in the host. `end`: nothing follows.
    pub fn request_headers(&mut self, end: bool) {
        self.head_arrived(Side::Request, end);
    }

    /// A piece of the request's body.
    pub fn request_body(&mut self, data: Bytes, end: bool) {
        self.arrived(Side::Request, Released { data, end, ..Released::default() });
    }

    /// The request's trailers are in the host, and end it.
    pub fn request_trailers(&mut self) {
        self.arrived(Side::Request, Released { trailers: true, ..Released::default() });
    }

    /// The response's headers are in the host. `end`: nothing follows.
    pub fn response_headers(&mut self, end: bool) {
        self.head_arrived(Side::Response, end);
    }

    /// A piece of the response's body.
    pub fn response_body(&mut self, data: Bytes, end: bool) {
        self.arrived(Side::Response, Released { data, end, ..Released::default() });
    }

    /// The response's trailers are in the host, and end it.
    pub fn response_trailers(&mut self) {
        self.arrived(Side::Response, Released { trailers: true, ..Released::default() });
    }

    /// TCP: the connection was accepted.
    pub fn new_connection(&mut self) {
        self.request_headers(false);
        // The upstream side has no head of its own.
        self.arrived(Side::Response, Released { head: true, ..Released::default() });
    }

    /// An HTTP/2 METADATA frame with this many pairs.
    pub fn metadata(&mut self, side: Side, count: u32) {
        run::metadata(&self.shared, &self.chain, side, count);
    }

    /// TCP: one side of the connection closed.
    pub fn connection_closed(&mut self, side: Side, by: Close) {
        run::connection_closed(&self.shared, &self.chain, side, by);
    }

    /// Goes on after a wake-up.
    pub fn resume(&mut self) {
        run::run(&self.shared, &self.chain);
    }

    /// Lets a filter's stream go on that it holds, on both sides: the proxy held it for the filter, and need not any longer.
    pub fn release(&mut self, binding: &str) {
        let held = self.chain.filters().iter().enumerate().filter(|(_, filter)| &*filter.binding().config().name == binding);
        for (stage, _) in held {
            let mut flow = self.cell.flow.borrow_mut();
            flow.resume(stage, Side::Request);
            flow.resume(stage, Side::Response);
        }
        run::run(&self.shared, &self.chain);
    }

    fn head_arrived(&mut self, side: Side, end: bool) {
        {
            let mut flow = self.cell.flow.borrow_mut();
            if !flow.listens(side) {
                return;
            }
            let progress = &mut flow.progress[side as usize];
            if !progress.head_arrived {
                (progress.head_arrived, progress.head_has_end) = (true, end);
            } else {
                // Twice: whatever the proxy means by it, it goes the way of everything else.
                let first = flow.first(side);
                flow.pass(first, side, Released { head: true, end, ..Released::default() });
                drop(flow);
                return run::run(&self.shared, &self.chain);
            }
        }
        run::run_head(&self.shared, &self.chain, side, end);
    }

    fn arrived(&mut self, side: Side, parts: Released) {
        {
            let mut flow = self.cell.flow.borrow_mut();
            if !flow.listens(side) {
                return;
            }
            let progress = &mut flow.progress[side as usize];
            progress.head_arrived |= parts.head;
            progress.head_has_end |= parts.head && parts.end;
            progress.size += parts.data.len() as u64;
            let first = flow.first(side);
            flow.pass(first, side, parts);
        }
        run::run(&self.shared, &self.chain);
    }

    /// What came through since the last call. A head that states a length which filters may still make wrong comes with the first piece of its
    /// body. It has then lost its length, or has the right one; a message that turns out to have another one after all is answered or reset.
    pub fn take(&mut self, side: Side) -> Output {
        let mut flow = self.cell.flow.borrow_mut();
        if flow.out[side as usize].is_nothing() {
            return Output::default();
        }
        if flow.has_open_length(side) {
            drop(flow);
            if !self.settle_length(side) {
                return Output::default();
            }
            flow = self.cell.flow.borrow_mut();
        }
        if !flow.keeps_length(side) {
            drop(flow);
            self.break_off(side);
            flow = self.cell.flow.borrow_mut();
        }
        let out = &mut flow.out[side as usize];
        let data = if out.data.is_empty() { Bytes::new() } else { out.data.take() };
        let mut taken = Output { head: out.head, data, trailers: out.trailers, end: out.end };
        (out.head, out.trailers, out.end) = (false, false, false);
        drop(flow);
        // Trailers that a later filter removed are an ordinary end.
        if taken.trailers && self.cell.host.borrow_mut().headers(side.trailers()).is_none() {
            (taken.trailers, taken.end) = (false, true);
        }
        taken
    }

    /// Decides on the length that a head states. `false`: it must wait.
    fn settle_length(&self, side: Side) -> bool {
        let mut host = self.cell.host.borrow_mut();
        let Some(stated) = host.headers(side.headers()).and_then(|headers| headers.get(b"content-length").map(parse_length)) else {
            return true;
        };
        let resizes = self.chain.filters().iter().any(|filter| filter.binding().resizes(side));
        match self.cell.flow.borrow_mut().judge_length(side, stated, resizes) {
            HeadLength::Waits => return false,
            HeadLength::Stands => {}
            HeadLength::Becomes(length) => host.repair_length(side, length),
        }
        true
    }

    /// A filter has made the body longer or shorter than the length that has gone on: the message cannot be saved. It will not happen again.
    #[cold]
    fn break_off(&mut self, side: Side) {
        {
            let mut flow = self.cell.flow.borrow_mut();
            let changed = |(index, _): &(usize, &Rc<Filter>)| flow.stages[*index].resized[side as usize];
            let mut culprits: Vec<_> = self.chain.filters().iter().enumerate().filter(changed).map(|(_, filter)| filter).collect();
            if culprits.is_empty() {
                // None has touched the body: one has stated a length of its own.
                culprits = self.chain.filters().iter().filter(|filter| filter.may_write_body(side)).collect();
            }
            culprits.iter().for_each(|filter| filter.breaks_length(side));
            let name = culprits.first().map_or_else(|| Arc::from(""), |filter| filter.binding().config().name.clone());
            flow.give_up(Asked::length_broken(&name));
        }
        run::run(&self.shared, &self.chain);
        self.shared.wake();
    }

    /// Whether the proxy should read more of `side`: `false` while a filter has stopped it or too much is held or not taken.
    #[must_use]
    pub fn wants(&self, side: Side) -> bool {
        let flow = self.cell.flow.borrow();
        !flow.is_stopped(side) && flow.held(side) + flow.out[side as usize].data.len() <= self.chain.0.body_limit
    }

    /// Shows the request's head once more to the filters that choose routes, and goes on where that had to wait. They may change it, answer or
    /// pause as before; no other filter notices. `false`: one of them has paused; its continuing wakes the stream.
    pub fn choose_again(&mut self) -> bool {
        again::choose(&self.shared, &self.chain)
    }

    /// Whether a [`Stream::choose_again`] has begun and waits.
    #[must_use]
    pub fn is_choosing(&self) -> bool {
        self.cell.flow.borrow().again.is_some()
    }

    /// Whether a filter holds `side`.
    #[must_use]
    pub fn is_paused(&self, side: Side) -> bool {
        self.cell.flow.borrow().is_paused(side)
    }

    /// The local reply that answers this stream, once there is one. Its head and body come through [`Stream::take`] like an upstream's.
    #[must_use]
    pub fn local_reply(&self) -> Option<LocalReply> {
        self.cell.flow.borrow().reply.as_deref().cloned()
    }

    /// Whether the stream must be reset (TCP: closed): a filter said so, or failed too late for a reply.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.cell.flow.borrow().reset
    }

    /// Filter state that a filter set as `path` (segments joined by NUL), for access logs.
    #[must_use]
    pub fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.cell.flow.borrow().properties.get(path).map(<[u8]>::to_vec)
    }

    /// Creates every filter's context, and nothing else.
    pub(crate) fn probe(&mut self) {
        run::open_all(&self.shared, &self.chain);
    }

    /// Ends the stream, however far it got: `on_log` for every filter, then `on_done` and `on_delete`. Dropping does the same.
    pub fn finish(&mut self) {
        run::finish(&self.shared, &self.chain);
    }
}

impl<H: StreamHost> Drop for Stream<H> {
    fn drop(&mut self) {
        self.finish();
        self.chain.0.pool.put(&self.cell);
    }
}

fn parse_length(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether a binding's filter may change bodies.
pub(crate) fn may_write(access: BodyAccess, suggests: bool) -> bool {
    match access {
        BodyAccess::Auto => suggests,
        BodyAccess::ReadOnly => false,
        BodyAccess::ReadWrite => true,
    }
}
