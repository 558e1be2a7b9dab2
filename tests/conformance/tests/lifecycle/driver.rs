//! Plays a case: a proxy with one worker, its client and its upstream, and asks the model about everything that can be seen.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weir_conformance::puppet;
use weir_sdk_testing::{Callout, MemoryHost, MemoryStream};
use weir_wasm::stats::Level;
use weir_wasm::{
    Attribute, Binding, BindingConfig, Chain, Engine, EngineOptions, FailurePolicy, Filter, Foreign, HeaderPause, Headers, HttpReply, Kind,
    LocalReply, MessageMap, Path, Side, Stream, StreamHost, Upstreams,
};

use crate::model::{CallState, Flowing, Model, SIDES};
use crate::script::{Answer, Case, Event, LIMIT, Message, Policy};

type Shared = Rc<RefCell<Model>>;

/// The proxy's side of a stream, which tells the model of replies.
struct Watched {
    inner: MemoryStream,
    model: Shared,
    number: usize,
    woken: Rc<Cell<bool>>,
}

impl StreamHost for Watched {
    fn headers(&mut self, map: MessageMap) -> Option<&mut dyn Headers> {
        self.inner.headers(map)
    }

    fn make_trailers(&mut self, side: Side) -> Option<&mut dyn Headers> {
        self.inner.make_trailers(side)
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        self.inner.attribute(path)
    }

    fn start_local_reply(&mut self, reply: &LocalReply) {
        self.inner.start_local_reply(reply);
        self.model.borrow_mut().reply_started(self.number, &reply.details, &reply.body);
    }

    fn wake(&mut self) {
        self.woken.set(true);
    }
}

thread_local! {
    /// A test's own: accounting is by the name of a binding, and every test looks at it.
    static ENGINE: Engine = Engine::new(EngineOptions::default()).expect("an engine");
    static BINDINGS: RefCell<HashMap<(usize, Policy), Arc<Binding>>> = RefCell::default();
}

/// A filter of this position and policy; compiled once, kept for all cases.
fn binding(position: usize, policy: Policy) -> Arc<Binding> {
    if let Some(known) = BINDINGS.with_borrow(|bindings| bindings.get(&(position, policy)).cloned()) {
        return known;
    }
    let mut config = BindingConfig::new(&format!("f{position}"));
    config.vm_configuration = vec![b'.'; position + 1].into();
    config.failure_policy = if policy.open { FailurePolicy::Open } else { FailurePolicy::Closed };
    config.header_pause = if policy.pause_streams { HeaderPause::Stream } else { HeaderPause::StopAll };
    config.final_body_before_trailers = policy.final_body;
    config.upstreams = Upstreams::Any;
    // A slow machine is not what is tested here.
    config.limits.callback_deadline = Duration::from_secs(10);
    if policy.limited {
        config.limits.body = LIMIT;
    }
    let known = BINDINGS.with_borrow(|bindings| bindings.values().next().map(|binding| binding.module().clone()));
    let binding = ENGINE.with(|engine| match known {
        Some(module) => Binding::from_module(engine, config, module, None),
        None => Binding::load(engine, config, "puppet", &puppet::wasm(), None),
    });
    let binding = binding.expect("the puppet loads");
    BINDINGS.with_borrow_mut(|bindings| bindings.insert((position, policy), binding.clone()));
    binding
}

/// A message on its way into the chain.
struct Feed {
    message: Message,
    /// 0: the head; then the chunks; then the end. Past that: nothing is left.
    next: usize,
    sent: u8,
}

struct Running {
    stream: Stream<Watched>,
    woken: Rc<Cell<bool>>,
    feeds: [Feed; 2],
    taken: [Flowing; 2],
}

struct World {
    model: Shared,
    host: Rc<MemoryHost>,
    chain: Chain,
    streams: Vec<Option<Running>>,
    /// Callouts by their place in the model; `None` once answered.
    callouts: Rc<RefCell<Vec<Option<Callout>>>>,
}

/// Runs a case.
pub(crate) fn run(case: &Case) -> Result<(), String> {
    let mut world = World::new(case);
    let story = |model: &Shared| {
        let model = model.borrow();
        format!("{}\n{}", model.errors.join("\n"), model.trace.join("\n"))
    };
    let model = world.model.clone();
    if world.play(case).is_err() {
        let story = story(&model);
        // The rest goes unjudged, but in the order that a proxy must keep.
        world.streams.clear();
        return Err(story);
    }
    world.finish().map_err(|Found| story(&model))
}

/// The model has found something.
struct Found;

impl World {
    fn new(case: &Case) -> Self {
        let (host, shared) = MemoryHost::shared();
        host.be_quiet();
        let model = Rc::new(RefCell::new(Model::new(&case.chain, &case.steps)));
        let callouts: Rc<RefCell<Vec<Option<Callout>>>> = Rc::default();
        let (asked, saw, done) = (model.clone(), model.clone(), model.clone());
        host.provide("puppet.next", move |arguments| Foreign::Done(asked.borrow_mut().next(arguments)));
        host.provide("puppet.see", move |content| {
            saw.borrow_mut().see(content);
            Foreign::Done(Vec::new())
        });
        let (kept, weak) = (callouts.clone(), Rc::downgrade(&host));
        host.provide("puppet.done", move |report| {
            let started = weak.upgrade().map(|host| host.take_callouts()).unwrap_or_default();
            done.borrow_mut().done(report, started.iter().map(|callout| callout.id).collect());
            kept.borrow_mut().extend(started.into_iter().map(Some));
            Foreign::Done(Vec::new())
        });
        let start = |(position, policy): (usize, &Policy)| Filter::start(&binding(position, *policy), shared.clone()).expect("it starts");
        let filters = case.chain.iter().enumerate().map(start).collect();
        Self { model, host, chain: Chain::new(Kind::Http, filters), streams: Vec::new(), callouts }
    }

    fn note(&self, text: String) {
        self.model.borrow_mut().trace.push(text);
    }

    fn verdict(&self) -> Result<(), Found> {
        if self.model.borrow().errors.is_empty() { Ok(()) } else { Err(Found) }
    }

    fn play(&mut self, case: &Case) -> Result<(), Found> {
        self.note(format!("{:?}", case.chain));
        for event in &case.events {
            self.note(format!("{event:?}"));
            self.event(event);
            self.look(matches!(event, Event::Pump))?;
        }
        self.note("draining".to_owned());
        self.drain()?;
        for at in 0..self.streams.len() {
            self.close(at);
            self.look(true)?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Open(request, response) => self.open(request, response),
            Event::Feed(stream, side) => {
                if let Some(at) = self.pick(*stream) {
                    self.feed(at, *side);
                }
            }
            Event::Answer(callout, answer) => self.answer(*callout, *answer),
            Event::Tick => self.tick(),
            Event::Foreign(filter) => self.filter(*filter).call_foreign(1, Bytes::new()),
            Event::Drop(stream) => {
                if let Some(at) = self.pick(*stream) {
                    self.close(at);
                }
            }
            Event::Retire(filter) => self.filter(*filter).retire(),
            Event::Clock(milliseconds) => self.host.advance(Duration::from_millis(*milliseconds)),
            Event::Pump => self.pump(),
        }
    }

    fn filter(&self, number: u8) -> Rc<Filter> {
        let filters = self.chain.filters();
        filters[usize::from(number) % filters.len()].clone()
    }

    /// One of the streams that are open.
    fn pick(&self, number: u8) -> Option<usize> {
        let open: Vec<usize> = (0..self.streams.len()).filter(|at| self.streams[*at].is_some()).collect();
        (!open.is_empty()).then(|| open[usize::from(number) % open.len()])
    }

    fn open(&mut self, request: &Message, response: &Message) {
        let number = self.model.borrow_mut().open();
        let woken = Rc::new(Cell::new(false));
        let mut inner = MemoryStream::new();
        inner.set_map(MessageMap::RequestHeaders, &[(":method", "POST"), (":path", "/"), (":authority", "a")]);
        let host = Watched { inner, model: self.model.clone(), number, woken: woken.clone() };
        let feed = |message: &Message| Feed { message: message.clone(), next: 0, sent: (number as u8).wrapping_mul(50) };
        let feeds = [feed(request), feed(response)];
        self.streams.push(Some(Running { stream: Stream::new(&self.chain, host), woken, feeds, taken: Default::default() }));
    }

    /// Runs something of a stream, with the model knowing whose turn it is.
    fn drive(&mut self, at: usize, work: impl FnOnce(&mut Running)) {
        let Some(running) = self.streams[at].as_mut() else { return };
        self.model.borrow_mut().driving = Some(at);
        work(running);
        self.model.borrow_mut().driving = None;
    }

    /// The next piece of a message. `false`: nothing is left of it, or a response has no request yet.
    fn feed(&mut self, at: usize, side: Side) -> bool {
        let model = self.model.clone();
        let mut fed = false;
        self.drive(at, |running| {
            let early = side == Side::Response && !running.taken[0].head;
            let feed = &mut running.feeds[side as usize];
            let chunks = feed.message.chunks.len();
            let over = feed.next > chunks + 1 || (feed.next == chunks + 1 && !feed.message.trailers && !feed.message.late_end);
            if early || over {
                return;
            }
            fed = true;
            let piece = feed.next;
            feed.next += 1;
            let end = piece == chunks && !feed.message.trailers && !feed.message.late_end;
            let size = if piece == 0 || piece > chunks { 0 } else { feed.message.chunks[piece - 1] };
            let data: Vec<u8> = (0..size).map(|at| feed.sent.wrapping_add(at as u8)).collect();
            feed.sent = feed.sent.wrapping_add(size as u8);
            let trailers = piece == chunks + 1 && feed.message.trailers;
            let last = end || (piece == chunks + 1 && !trailers);
            let ignored = {
                let mut model = model.borrow_mut();
                let state = &mut model.streams[at];
                let ignored = state.reply.is_some() || state.reset;
                if !ignored {
                    let input = &mut state.input[side as usize];
                    input.head = true;
                    input.data.extend(&data);
                    input.end |= last;
                    input.trailers |= trailers;
                }
                ignored
            };
            if !ignored {
                running.put(side, piece, data, last, trailers);
            }
        });
        self.take(at);
        fed
    }

    fn take(&mut self, at: usize) {
        let Some(running) = self.streams[at].as_mut() else { return };
        for side in SIDES {
            let out = running.stream.take(side);
            let taken = &mut running.taken[side as usize];
            taken.head |= out.head;
            taken.data.extend_from_slice(&out.data);
            taken.end |= out.end;
            taken.trailers |= out.trailers;
        }
    }

    fn pump(&mut self) {
        // Streams may wake each other, but not for ever.
        for _ in 0..100 {
            let woken: Vec<usize> =
                (0..self.streams.len()).filter(|at| self.streams[*at].as_ref().is_some_and(|r| r.woken.take())).collect();
            if woken.is_empty() {
                return;
            }
            for at in woken {
                self.note(format!("  s{at} resumes"));
                self.drive(at, |running| running.stream.resume());
                self.take(at);
            }
        }
        self.model.borrow_mut().errors.push("streams wake each other without end".to_owned());
    }

    fn answer(&mut self, number: u8, answer: Answer) {
        let count = self.callouts.borrow().len();
        if count == 0 {
            return;
        }
        let at = usize::from(number) % count;
        let Some(callout) = self.callouts.borrow_mut()[at].take() else { return };
        self.model.borrow_mut().answering = Some(at);
        match answer {
            Answer::Good => callout.reply.http(HttpReply { headers: vec![(":status".into(), "200".into())], ..HttpReply::default() }),
            Answer::Bad => callout.reply.fail(14, "no"),
            Answer::Dropped => drop(callout),
        }
        let mut model = self.model.borrow_mut();
        model.answering = None;
        model.after_answer(at);
    }

    fn tick(&self) {
        self.host.advance(Duration::from_millis(2));
        for filter in self.chain.filters() {
            filter.run_timers();
        }
    }

    /// The client goes, or the exchange is over.
    fn close(&mut self, at: usize) {
        self.model.borrow_mut().streams[at].closing = true;
        self.model.borrow_mut().driving = Some(at);
        let open = self.streams[at].take().is_some();
        let mut model = self.model.borrow_mut();
        model.driving = None;
        if open {
            model.after_drop(at);
        }
    }

    /// What can be seen from outside. `rest`: nothing is left to do for streams that were woken.
    fn look(&self, rest: bool) -> Result<(), Found> {
        let cancelled: Vec<_> = self.host.cancelled.borrow().iter().map(|(id, _)| *id).collect();
        self.model.borrow_mut().check_cancelled(&cancelled);
        for (at, running) in self.streams.iter().enumerate() {
            let Some(running) = running else { continue };
            if rest || !running.woken.get() {
                let stream = &running.stream;
                let paused = SIDES.map(|side| stream.is_paused(side));
                self.model.borrow_mut().at_rest(at, stream.is_reset(), paused, &running.taken);
            }
        }
        self.verdict()
    }

    /// Nobody pauses any more: every stream must come to its end.
    fn drain(&mut self) -> Result<(), Found> {
        self.model.borrow_mut().draining = true;
        for _ in 0..4 * self.chain.filters().len() + 4 {
            for at in 0..self.streams.len() {
                while SIDES.map(|side| self.feed(at, side)).contains(&true) {}
            }
            self.pump();
            if self.hanging().is_none() {
                break;
            }
            self.tick();
            self.pump();
            self.look(true)?;
        }
        if let Some(hanging) = self.hanging() {
            self.model.borrow_mut().errors.push(hanging);
        }
        self.verdict()
    }

    /// A stream that has not come to its end.
    fn hanging(&self) -> Option<String> {
        let model = self.model.borrow();
        self.streams.iter().enumerate().find_map(|(at, running)| {
            let (taken, state) = (&running.as_ref()?.taken, &model.streams[at]);
            let request_over = taken[0].is_over() || state.reply.is_some() || state.lost_a_filter();
            let ended = state.reset || (taken[1].is_over() && request_over);
            (!ended).then(|| format!("stream {at} hangs: {taken:?}"))
        })
    }

    /// The worker shuts down, in its orderly way.
    fn finish(self) -> Result<(), Found> {
        for filter in self.chain.filters() {
            filter.retire();
        }
        self.host.advance(Duration::from_secs(10));
        for filter in self.chain.filters() {
            filter.run_timers();
            let live = filter.binding().stats().snapshot();
            let left = [Level::LiveContexts, Level::PendingCallouts, Level::LiveInstances].map(|level| live.level(level));
            if !filter.is_gone() || left != [0, 0, 0] {
                self.model.borrow_mut().errors.push(format!("left behind (contexts, callouts, instances): {left:?}"));
            }
        }
        self.look(true)?;
        self.model.borrow_mut().after_all();
        // Answers that come when nobody is left must do nothing.
        self.callouts.borrow_mut().clear();
        let answered = self.model.borrow().calls.iter().all(|call| call.state != CallState::Pending);
        if !answered {
            self.model.borrow_mut().errors.push("a callout was neither answered nor cancelled".to_owned());
        }
        self.verdict()
    }
}

impl Running {
    fn put(&mut self, side: Side, piece: usize, data: Vec<u8>, end: bool, trailers: bool) {
        let map = if trailers { side.trailers() } else { side.headers() };
        if trailers || (piece == 0 && side == Side::Response) {
            self.stream.host_mut().inner.set_map(map, &[(if trailers { "x-t" } else { ":status" }, "200")]);
        }
        match (side, piece, trailers) {
            (Side::Request, _, true) => self.stream.request_trailers(),
            (Side::Response, _, true) => self.stream.response_trailers(),
            (Side::Request, 0, _) => self.stream.request_headers(end),
            (Side::Response, 0, _) => self.stream.response_headers(end),
            (Side::Request, ..) => self.stream.request_body(data.into(), end),
            (Side::Response, ..) => self.stream.response_body(data.into(), end),
        }
    }
}
