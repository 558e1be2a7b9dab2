//! What the host promised about the life of contexts and streams, as a state machine over the callbacks and actions of a case.
//!
//! Judged: a context is created before anything else and never called after its `on_delete`; `on_log`, `on_done`, `on_delete` once each and last;
//! head before body before trailers, the end at most once; nothing while everything is paused; body callbacks see exactly what the filter holds
//! and what came since (contents, so sizes too); what a filter lets go reaches the next one unchanged; after a reply nothing of the request moves
//! and only filters that saw the request see the reply; the first reply wins; a callout is answered at most once, to the instance that started it,
//! and never after its context is gone; nothing runs in an instance that trapped or ended.
//!
//! It takes effects as done at once, where the host queues them: between the two no callback of that lane may run, so nobody can tell.

use std::collections::{BTreeMap, VecDeque};

use weir_conformance::puppet::{self, Arg, Call, Outcome, Program};
use weir_wasm::{CallId, Side};

use crate::script::{Act, Edit, LIMIT, Policy, Step};

pub(crate) const SIDES: [Side; 2] = [Side::Request, Side::Response];

/// Callback numbers of [`puppet::CALLBACKS`].
const CREATE: usize = 0;
const VM_START: usize = 1;
const CONFIGURE: usize = 2;
const TICK: usize = 3;
const CALL_RESPONSE: usize = 10;
const FOREIGN: usize = 11;
const LOG: usize = 12;
const DONE: usize = 13;
const DELETE: usize = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    No,
    All,
    Showing,
}

/// A filter's part of one direction.
#[derive(Debug)]
struct Lane {
    head: bool,
    ended: bool,
    final_body: bool,
    /// Continued by `on_context_create`: that counts for the headers the context was created for.
    early: bool,
    pause: Pause,
    held: Vec<u8>,
    consumed: usize,
    released: Flowing,
}

impl Default for Lane {
    fn default() -> Self {
        let (held, released) = Default::default();
        Self { head: false, ended: false, final_body: false, early: false, pause: Pause::No, held, consumed: 0, released }
    }
}

/// What has come so far of a message, at some point of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flowing {
    pub(crate) head: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) end: bool,
    pub(crate) trailers: bool,
}

impl Flowing {
    pub(crate) fn is_over(&self) -> bool {
        self.end || self.trailers
    }
}

#[derive(Debug)]
struct Place {
    context: Option<(u32, u32)>,
    failed: bool,
    /// It was opened for the log only.
    late: bool,
    lanes: [Lane; 2],
}

#[derive(Debug)]
pub(crate) struct Stream {
    places: Vec<Place>,
    pub(crate) input: [Flowing; 2],
    /// Replies that were asked for, and whether the response's head seemed out already.
    asked: Vec<(String, bool)>,
    pub(crate) reply: Option<String>,
    /// The reply goes past the filters.
    direct: bool,
    pub(crate) reset: bool,
    pub(crate) closing: bool,
    limit_hit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Starting,
    Ready,
    Done,
    Dead,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Created,
    Serving,
    Logged,
    Done,
    Deleted,
}

#[derive(Debug)]
struct Instance {
    position: usize,
    root: u32,
    life: Life,
    contexts: BTreeMap<u32, (usize, Phase)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    Pending,
    Answered,
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct Callout {
    pub(crate) id: CallId,
    instance: u32,
    token: u32,
    context: u32,
    pub(crate) state: CallState,
}

/// The callback that runs.
#[derive(Debug)]
struct Frame {
    callback: usize,
    instance: u32,
    context: u32,
    /// The stream and side, for callbacks of messages.
    lane: Option<(usize, Side)>,
    step: Step,
    /// For every call of the program: which action it is, on which context, and how a reply is named.
    plan: Vec<Option<(Act, u32, String)>>,
    body: Option<(usize, bool)>,
    resumed: bool,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) trace: Vec<String>,
    pub(crate) errors: Vec<String>,
    pub(crate) steps: VecDeque<Step>,
    policies: Vec<Policy>,
    instances: Vec<Instance>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) calls: Vec<Callout>,
    /// The stream whose method the test is in, and the callout it answers.
    pub(crate) driving: Option<usize>,
    pub(crate) answering: Option<usize>,
    /// An instance of that filter died or did not start.
    trouble: Vec<bool>,
    /// From now on every tick continues every stream, and nobody decides anything else.
    pub(crate) draining: bool,
    frame: Option<Frame>,
    replies: usize,
}

fn buffer(side: Side) -> Arg {
    Arg::Value(side as u64)
}

impl Model {
    pub(crate) fn new(policies: &[Policy], steps: &[Step]) -> Self {
        Self {
            trace: Vec::new(),
            errors: Vec::new(),
            steps: VecDeque::new(),
            policies: policies.to_vec(),
            instances: Vec::new(),
            streams: Vec::new(),
            calls: Vec::new(),
            driving: None,
            answering: None,
            trouble: vec![false; policies.len()],
            draining: false,
            frame: None,
            replies: 0,
        }
        .with(steps)
    }

    fn with(mut self, steps: &[Step]) -> Self {
        self.steps = steps.iter().cloned().collect();
        self
    }

    pub(crate) fn open(&mut self) -> usize {
        let place = |_| Place { context: None, failed: false, late: false, lanes: Default::default() };
        let places = (0..self.policies.len()).map(place).collect();
        let (input, asked) = Default::default();
        let (reply, direct, reset, closing, limit_hit) = Default::default();
        self.streams.push(Stream { places, input, asked, reply, direct, reset, closing, limit_hit });
        self.streams.len() - 1
    }

    fn error(&mut self, text: String) {
        self.trace.push(format!("  !! {text}"));
        self.errors.push(text);
    }

    fn check(&mut self, holds: bool, text: &str) {
        if !holds {
            self.error(text.to_owned());
        }
    }

    // === callbacks ===

    /// `puppet.next`: judges the callback and says what the puppet does in it.
    pub(crate) fn next(&mut self, arguments: &[u8]) -> Vec<u8> {
        let (callback, instance, args) = puppet::asked(arguments);
        let name = puppet::CALLBACKS[callback].0.trim_start_matches("proxy_on_");
        self.trace.push(format!("  i{instance} {name}{:?}", &args[..puppet::CALLBACKS[callback].1]));
        if let Some(frame) = &self.frame {
            self.error(format!("{name} while {} runs", puppet::CALLBACKS[frame.callback].0));
        }
        let fresh = instance == 0;
        let instance = if fresh { self.new_instance(callback, args) } else { instance };
        let lane = if fresh { None } else { self.judge(callback, instance, args) };
        let step = self.decide(callback, instance);
        self.trace.push(format!("    answers {}{}", step.answer, if step.trap { " (no: traps)" } else { "" }));
        let early = lane.and_then(|(stream, _)| {
            let position = self.instance(instance).position;
            self.streams[stream].places[position].lanes.get_mut((callback - 4) / 3).map(|lane| std::mem::take(&mut lane.early))
        });
        let mut frame =
            Frame { callback, instance, context: args[0], lane, step, plan: Vec::new(), body: None, resumed: early == Some(true) };
        let mut program = self.program(&mut frame, args);
        program.instance = if fresh { instance } else { 0 };
        self.frame = Some(frame);
        program.encode()
    }

    fn new_instance(&mut self, callback: usize, args: [u32; 5]) -> u32 {
        self.check(callback == CREATE && args[1] == 0, "an instance starts with something else than its root context");
        self.instances.push(Instance { position: usize::MAX, root: args[0], life: Life::Starting, contexts: BTreeMap::new() });
        self.instances.len() as u32
    }

    fn instance(&mut self, number: u32) -> &mut Instance {
        &mut self.instances[number as usize - 1]
    }

    /// Judges a callback of a known instance. The stream and side it belongs to, for callbacks of messages.
    fn judge(&mut self, callback: usize, number: u32, args: [u32; 5]) -> Option<(usize, Side)> {
        let instance = self.instance(number);
        let (life, root) = (instance.life, instance.root);
        self.check(!matches!(life, Life::Dead | Life::Ended), "a callback in an instance that is over");
        match callback {
            VM_START => {
                self.instance(number).position = args[1] as usize - 1;
                self.check(life == Life::Starting && args[0] == root, "vm_start not once, or not on the root context");
            }
            CONFIGURE => {
                self.check(life == Life::Starting && args[0] == root, "configure not once, or not on the root context");
                self.instance(number).life = Life::Ready;
            }
            CREATE => self.judge_create(number, args),
            TICK | FOREIGN => self.check(life == Life::Ready && args[0] == root, "a root callback out of place"),
            CALL_RESPONSE => self.judge_answer(number, args),
            DONE | DELETE if args[0] == root => {
                let live = self.instance(number).contexts.values().any(|(_, phase)| *phase != Phase::Deleted);
                self.check(!live, "a root context ends before its streams");
                self.check(callback == DELETE || life == Life::Ready, "on_done of a root context twice");
                self.instance(number).life = if callback == DONE { Life::Done } else { Life::Ended };
            }
            LOG | DONE | DELETE => self.judge_end(callback, number, args[0]),
            4..=9 => return self.judge_message(callback, number, args),
            _ => self.error("a callback that nothing caused".into()),
        }
        None
    }

    fn judge_create(&mut self, number: u32, args: [u32; 5]) {
        let stream = self.driving;
        let instance = self.instance(number);
        let (position, root, life) = (instance.position, instance.root, instance.life);
        let newest = instance.contexts.keys().next_back().copied().unwrap_or(root);
        self.check(life == Life::Ready, "a stream context in an instance that is not ready");
        self.check(args[1] == root && args[0] > newest, "a context with a wrong parent or a used id");
        let Some(stream) = stream else { return self.error("a context for no stream".into()) };
        self.instance(number).contexts.insert(args[0], (stream, Phase::Created));
        let closing = self.streams[stream].closing;
        let place = &mut self.streams[stream].places[position];
        let sound = place.context.is_none() && !place.failed;
        place.late = closing;
        place.context = Some((number, args[0]));
        self.check(sound, "a second context for one filter of a stream");
    }

    fn judge_answer(&mut self, number: u32, args: [u32; 5]) {
        let root = self.instance(number).root;
        let Some(at) = self.calls.iter().position(|call| call.instance == number && call.token == args[1]) else {
            return self.error("an answer to a token that was never given".into());
        };
        let gone = self.is_gone(number, self.calls[at].context);
        let sound = self.calls[at].state == CallState::Pending && self.answering == Some(at) && args[0] == root;
        self.calls[at].state = CallState::Answered;
        self.check(sound, "an answer twice, unasked or to the wrong root");
        self.check(!gone, "an answer after its context is gone");
    }

    fn is_gone(&self, number: u32, context: u32) -> bool {
        let instance = &self.instances[number as usize - 1];
        let over = matches!(instance.life, Life::Dead | Life::Ended);
        over || instance.contexts.get(&context).is_some_and(|(_, phase)| *phase == Phase::Deleted)
    }

    /// The stream of a context, whose phase must be below `next`, which it then has.
    fn phase(&mut self, number: u32, context: u32, next: Phase) -> Option<usize> {
        let Some((stream, phase)) = self.instance(number).contexts.get_mut(&context) else {
            self.error(format!("a callback of context {context}, which was never created"));
            return None;
        };
        let (stream, before) = (*stream, *phase);
        *phase = next;
        let late = if next == Phase::Serving { before > next } else { before >= next };
        self.check(!late, &format!("{next:?} after {before:?}"));
        self.check(self.driving == Some(stream), "a callback of another stream than the one that moves");
        Some(stream)
    }

    fn judge_end(&mut self, callback: usize, number: u32, context: u32) {
        let next = [Phase::Logged, Phase::Done, Phase::Deleted][callback - LOG];
        let before = self.instance(number).contexts.get(&context).map(|(_, phase)| *phase);
        self.check(
            next == Phase::Logged || before == Some([Phase::Logged, Phase::Done][callback - DONE]),
            "log, done, delete out of order",
        );
        if let Some(stream) = self.phase(number, context, next) {
            self.check(self.streams[stream].closing, "a context ends before its stream");
        }
    }

    fn judge_message(&mut self, callback: usize, number: u32, args: [u32; 5]) -> Option<(usize, Side)> {
        let side = SIDES[(callback - 4) / 3];
        let position = self.instance(number).position;
        let fresh = self.instance(number).contexts.get(&args[0]).is_some_and(|(_, phase)| *phase == Phase::Created);
        let stream = self.phase(number, args[0], Phase::Serving)?;
        let in_reply = side == Side::Response && self.streams[stream].reply.is_some();
        self.check(!fresh || callback == 4 || in_reply, "the first callback of a context is not its request's headers");
        let state = &self.streams[stream];
        let over = state.reset || state.closing || (side == Side::Request && state.reply.is_some()) || state.places[position].failed;
        self.check(!over, "a message callback on a stream where this filter's part is over");
        self.infer_skipped(stream, Some(position));
        let here = self.flowing_into(stream, side, self.order(position, side));
        let lane = &mut self.streams[stream].places[position].lanes[side as usize];
        let everything = lane.consumed == here.data.len();
        let sound = match (callback - 4) % 3 {
            0 => {
                let end = here.end && here.data.is_empty();
                !std::mem::replace(&mut lane.head, true) && here.head && (args[2] != 0) == end
            }
            1 => {
                let end = args[2] != 0;
                let before_trailers = end && here.trailers && self.policies[position].final_body && !lane.final_body;
                lane.final_body |= end;
                let size = lane.held.len() + here.data.len() - lane.consumed;
                let due = end || !everything;
                lane.head && !lane.ended && due && args[1] as usize == size && (!end || here.end || before_trailers)
            }
            _ => lane.head && !lane.ended && everything && here.trailers,
        };
        let paused = lane.pause == Pause::All;
        lane.ended |= match (callback - 4) % 3 {
            0 | 1 => args[2] != 0 && here.end,
            _ => true,
        };
        self.check(sound, &format!("not the callback that is due: {here:?} has come"));
        self.check(!paused, "a callback while everything is paused");
        Some((stream, side))
    }

    /// A filter without a context that let the message through was skipped: it had no instance, and is allowed to be absent.
    fn infer_skipped(&mut self, stream: usize, before: Option<usize>) {
        for position in 0..before.unwrap_or(self.policies.len()) {
            let here = self.flowing_into(stream, Side::Request, position);
            let may_be_absent = self.trouble[position] && self.policies[position].open;
            let place = &mut self.streams[stream].places[position];
            if here.head && place.context.is_none() && !place.failed {
                place.failed = true;
                self.check(may_be_absent, "a filter was passed over");
            }
        }
    }

    // === messages ===

    /// A filter's rank on a side, and back.
    fn order(&self, position: usize, side: Side) -> usize {
        if side == Side::Request { position } else { self.policies.len() - 1 - position }
    }

    /// What has come to the filter of this rank; the one after the last is the way out.
    pub(crate) fn flowing_into(&self, stream: usize, side: Side, rank: usize) -> Flowing {
        let state = &self.streams[stream];
        if rank == 0 || (side == Side::Response && state.direct) {
            return state.input[side as usize].clone();
        }
        let place = &state.places[self.order(rank - 1, side)];
        let lane = &place.lanes[side as usize];
        if !(place.failed || (side == Side::Response && (place.context.is_none() || place.late))) {
            return lane.released.clone();
        }
        let mut through = self.flowing_into(stream, side, rank - 1);
        through.data = [&lane.released.data, &lane.held, through.data.get(lane.consumed..).unwrap_or_default()].concat();
        through
    }

    pub(crate) fn flowing_out(&self, stream: usize, side: Side) -> Flowing {
        self.flowing_into(stream, side, self.policies.len())
    }

    fn release(&mut self, stream: usize, position: usize, side: Side) {
        let rank = self.order(position, side);
        let here = self.flowing_into(stream, side, rank);
        let lane = &mut self.streams[stream].places[position].lanes[side as usize];
        lane.pause = Pause::No;
        let held = std::mem::take(&mut lane.held);
        lane.released.data.extend(held);
        lane.released.head |= lane.head;
        lane.released.end |= lane.ended && here.end;
        lane.released.trailers |= lane.ended && here.trailers;
    }

    // === what the puppet does ===

    fn decide(&mut self, callback: usize, number: u32) -> Step {
        let calm = Step { acts: Vec::new(), answer: u32::from(matches!(callback, 1 | 2 | DONE)), edit: Edit::Keep, trap: false };
        if self.draining {
            let mut step = calm;
            if callback == TICK {
                let live = self.live(number).len() as u8;
                step.acts = (0..live).flat_map(|at| SIDES.map(|side| Act::Continue(Some(at), side))).collect();
            }
            return step;
        }
        // The first instances of a case must start; later ones may fail to.
        if matches!(callback, CREATE | VM_START | CONFIGURE) && self.driving.is_none() {
            return calm;
        }
        let mut step = self.steps.pop_front().unwrap_or(calm);
        if matches!(callback, VM_START | CONFIGURE) {
            step.acts.clear();
            step.answer = u32::from(step.answer < 4);
        }
        step
    }

    fn live(&self, number: u32) -> Vec<u32> {
        let contexts = &self.instances[number as usize - 1].contexts;
        contexts.iter().filter(|(_, (_, phase))| *phase != Phase::Deleted).map(|(id, _)| *id).collect()
    }

    fn program(&mut self, frame: &mut Frame, args: [u32; 5]) -> Program {
        let mut program = Program { answer: frame.step.answer, trap: frame.step.trap, ..Program::default() };
        let call = |name: &str, args: Vec<Arg>| Call::new(puppet::function(name), args);
        if frame.callback == CONFIGURE {
            program.calls.push(call("proxy_set_tick_period_milliseconds", vec![Arg::Value(1)]));
        }
        if let (Some((_, side)), 5 | 8) = (frame.lane, frame.callback) {
            frame.body = Some((args[1] as usize, false));
            let (zero, size) = (Arg::Value(0), Arg::Value(u64::from(args[1])));
            program.calls.push(call("proxy_get_buffer_bytes", vec![buffer(side), zero.clone(), size.clone(), Arg::Out(0), Arg::Out(1)]));
            program.calls.push(Call::see());
            let (start, length, fill) = match frame.step.edit {
                Edit::Keep => (zero.clone(), zero, None),
                Edit::Replace(fill) => (zero, size, Some(fill)),
                Edit::Append(fill) => (size, zero, Some(fill)),
                Edit::Prepend(fill) => (zero.clone(), zero, Some(fill)),
            };
            if let Some(fill) = fill {
                program.calls.push(call("proxy_set_buffer_bytes", vec![buffer(side), start, length, Arg::Bytes(vec![b'e'; fill])]));
            }
        }
        frame.plan = vec![None; program.calls.len()];
        let live = self.live(frame.instance);
        for act in frame.step.acts.clone() {
            let (Act::Continue(target, _) | Act::Reply(target) | Act::Callout(target) | Act::Close(target)) = &act;
            let target = match target {
                Some(other) if !live.is_empty() => live[usize::from(*other) % live.len()],
                _ => frame.context,
            };
            program.calls.push(call("proxy_set_effective_context", vec![Arg::Value(target.into())]));
            program.calls.push(match &act {
                Act::Continue(_, side) => call("proxy_continue_stream", vec![Arg::Value(*side as u64)]),
                Act::Close(_) => call("proxy_close_stream", vec![Arg::Value(0)]),
                Act::Callout(_) => {
                    let headers = puppet::map(&[(":method", "GET"), (":path", "/"), (":authority", "up")]);
                    let empty = || Arg::Bytes(Vec::new());
                    let args = vec![Arg::Bytes(b"up".to_vec()), Arg::Bytes(headers), empty(), empty(), Arg::Value(0), Arg::Out(0)];
                    call("proxy_http_call", args)
                }
                Act::Reply(_) => {
                    self.replies += 1;
                    let (details, body) = (format!("r{}", self.replies), format!("reply {}", self.replies));
                    let (details, body) = (Arg::Bytes(details.into_bytes()), Arg::Bytes(body.into_bytes()));
                    let args = vec![Arg::Value(200), details, body, Arg::Bytes(Vec::new()), Arg::Value(u64::from(u32::MAX))];
                    call("proxy_send_local_response", args)
                }
            });
            frame.plan.extend([None, Some((act, target, format!("r{}", self.replies)))]);
        }
        program
    }

    /// `puppet.see`: what a body callback found in the buffer.
    pub(crate) fn see(&mut self, content: &[u8]) {
        let Some(frame) = self.frame.as_mut() else { return self.error("a look outside of callbacks".into()) };
        let (Some((stream, side)), Some((size, seen)), number, edit) = (frame.lane, frame.body.as_mut(), frame.instance, frame.step.edit)
        else {
            return self.error("a body that nobody asked for".into());
        };
        *seen = true;
        let size = *size;
        let position = self.instance(number).position;
        let here = self.flowing_into(stream, side, self.order(position, side));
        let lane = &mut self.streams[stream].places[position].lanes[side as usize];
        let want = [&lane.held[..], &here.data[lane.consumed.min(here.data.len())..]].concat();
        lane.consumed = here.data.len();
        lane.held = match edit {
            Edit::Keep => content.to_vec(),
            Edit::Replace(fill) => vec![b'e'; fill],
            Edit::Append(fill) => [content, &vec![b'e'; fill]].concat(),
            Edit::Prepend(fill) => [&vec![b'e'; fill], content].concat(),
        };
        self.check(content.len() == size && content == want, &format!("the body is {content:?}, not {want:?}"));
    }

    /// `puppet.done`: what the puppet did. `started`: the callouts that the proxy got meanwhile.
    pub(crate) fn done(&mut self, report: &[u8], started: Vec<CallId>) {
        let Some(mut frame) = self.frame.take() else { return self.error("a report outside of callbacks".into()) };
        let mut started = started.into_iter();
        let plan = std::mem::take(&mut frame.plan);
        for (planned, outcome) in plan.into_iter().zip(puppet::outcomes(report)) {
            let Some((act, target, name)) = planned else { continue };
            self.trace.push(format!("    {act:?} on {target}: {}", outcome.status));
            self.check(outcome.status == 0, "a good call was not answered OK");
            self.act(&mut frame, (&act, &name), target, outcome, &mut started);
        }
        self.check(started.next().is_none(), "a callout that nobody made");
        self.answer(&frame);
        let refuses = matches!(frame.callback, VM_START | CONFIGURE) && frame.step.answer == 0;
        if frame.step.trap || refuses {
            self.trace.push(if refuses { "    refuses".into() } else { "    traps".into() });
            self.bury(frame.instance);
        }
    }

    fn act(
        &mut self,
        frame: &mut Frame,
        (act, name): (&Act, &str),
        target: u32,
        outcome: Outcome,
        started: &mut impl Iterator<Item = CallId>,
    ) {
        let number = frame.instance;
        let position = self.instance(number).position;
        let stream = self.instance(number).contexts.get(&target).map(|(stream, _)| *stream);
        if let Act::Callout(_) = act {
            let Some(id) = started.next() else { return self.error("a callout that the proxy never got".into()) };
            let token = outcome.out[0];
            let used = self.calls.iter().any(|call| call.instance == number && call.token == token);
            self.check(!used, "a token twice");
            return self.calls.push(Callout { id, instance: number, token, context: target, state: CallState::Pending });
        }
        let Some(stream) = stream else { return };
        let late = self.flowing_out(stream, Side::Response).head;
        let state = &mut self.streams[stream];
        let over = state.closing || state.reset;
        match act {
            Act::Close(_) => state.reset |= !state.closing,
            Act::Reply(_) if !over && state.reply.is_none() => {
                state.asked.push((name.to_owned(), late));
            }
            Act::Continue(_, side) => {
                let answered = state.reply.is_some() || state.asked.iter().any(|(_, late)| !late);
                if over || (*side == Side::Request && answered) {
                    return;
                }
                if frame.lane == Some((stream, *side)) && frame.context == target {
                    frame.resumed = true;
                } else if frame.callback == CREATE && frame.context == target && *side == Side::Request {
                    state.places[position].lanes[0].early = true;
                } else if state.places[position].lanes[*side as usize].pause != Pause::No {
                    self.release(stream, position, *side);
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, frame: &Frame) {
        let Some((stream, side)) = frame.lane else { return };
        let position = self.instance(frame.instance).position;
        let stream_headers = self.policies[position].pause_streams;
        if let Some((size, seen)) = frame.body {
            self.check(seen || size == 0, "a body callback that did not look");
        }
        let body = frame.body.is_some();
        let head = matches!(frame.callback, 4 | 7);
        let pause = match frame.step.answer {
            _ if frame.resumed => Pause::No,
            1 if head && !stream_headers => Pause::All,
            1 => Pause::Showing,
            3 | 4 if head => Pause::All,
            2 | 3 if body => Pause::Showing,
            _ => Pause::No,
        };
        let lane = &mut self.streams[stream].places[position].lanes[side as usize];
        lane.pause = pause;
        // A trap leaves the answer unsaid, and what the filter held goes where its policy says.
        if frame.step.trap {
            return;
        }
        if pause == Pause::No {
            return self.release(stream, position, side);
        }
        if body && frame.step.answer == 3 {
            lane.held.clear();
        }
        if body && self.policies[position].limited && lane.held.len() > LIMIT {
            self.streams[stream].limit_hit = true;
        }
    }

    fn bury(&mut self, number: u32) {
        let instance = self.instance(number);
        instance.life = Life::Dead;
        let position = instance.position;
        let streams: Vec<usize> =
            instance.contexts.values().filter(|(_, phase)| *phase != Phase::Deleted).map(|(stream, _)| *stream).collect();
        // An instance that dies in its very first callback has not said whose it is: any filter may be the one.
        match self.trouble.get_mut(position) {
            Some(trouble) => *trouble = true,
            None => self.trouble.fill(true),
        }
        for stream in streams {
            self.streams[stream].places[position].failed = true;
        }
    }

    // === what the proxy sees ===

    /// A local reply takes the response's place.
    pub(crate) fn reply_started(&mut self, stream: usize, details: &str, body: &[u8]) {
        self.trace.push(format!("  s{stream} is answered: {details}"));
        let failures = || (0..self.policies.len()).filter(|at| self.trouble[*at] && !self.policies[*at].open);
        let failed = failures().any(|at| details == format!("wasm_trap{{f{at}}}") || details == format!("wasm_unavailable{{f{at}}}"));
        let state = &mut self.streams[stream];
        let limited = state.limit_hit && details.starts_with("wasm_body_limit{");
        let first = state.asked.iter().position(|(_, late)| !late);
        let named = state.asked.iter().position(|(name, _)| name == details);
        let wins = match (named, first) {
            (Some(named), first) => first.is_none_or(|first| named <= first),
            (None, first) => first.is_none() && (failed || limited),
        };
        let only = state.reply.replace(details.to_owned()).is_none() && !state.reset && !state.closing;
        state.direct = state.input[1].head;
        state.input[1] = Flowing { head: true, data: body.to_vec(), end: true, trailers: false };
        state.places.iter_mut().for_each(|place| place.lanes = Default::default());
        self.check(wins, "a reply that did not win, or that nobody asked for");
        self.check(only, "a second reply, or one after the end");
    }

    /// Judges a stream that has nothing to do: what should have moved has.
    pub(crate) fn at_rest(&mut self, stream: usize, reset: bool, paused: [bool; 2], taken: &[Flowing; 2]) {
        let closed_failed = (0..self.policies.len()).any(|at| self.streams[stream].places[at].failed && !self.policies[at].open);
        let unavailable = (0..self.policies.len()).any(|at| self.trouble[at] && !self.policies[at].open);
        let state = &mut self.streams[stream];
        let may_reset = state.reset || state.limit_hit || closed_failed || unavailable;
        let must_reset = std::mem::replace(&mut state.reset, reset);
        if reset || must_reset {
            self.check(reset == (must_reset || reset) && may_reset, "reset without a cause, or not reset although it must be");
            return self.check(reset, "a closed stream is not reset");
        }
        let answered = state.reply.is_some();
        let asked = state.asked.iter().any(|(_, late)| !late);
        let limit_hit = state.limit_hit;
        self.check(answered || !asked, "a reply was lost");
        self.check(answered || !(closed_failed || limit_hit), "a failed stream hangs");
        if !answered {
            self.infer_skipped(stream, None);
        }
        for side in SIDES {
            if side == Side::Request && answered {
                continue;
            }
            let out = self.flowing_out(stream, side);
            let came = &taken[side as usize];
            self.check(out == *came, &format!("{side:?}: {came:?} came through, not {out:?}"));
            self.lanes_at_rest(stream, side, paused[side as usize]);
        }
    }

    fn lanes_at_rest(&mut self, stream: usize, side: Side, paused: bool) {
        let mut any = false;
        for position in 0..self.policies.len() {
            let here = self.flowing_into(stream, side, self.order(position, side));
            let place = &self.streams[stream].places[position];
            if place.failed || place.context.is_none() || self.streams[stream].direct && side == Side::Response {
                continue;
            }
            let lane = &place.lanes[side as usize];
            any |= lane.pause != Pause::No;
            let seen = lane.head == here.head && lane.consumed == here.data.len() && lane.ended == here.is_over();
            let sound = (lane.pause == Pause::All || seen) && (lane.pause != Pause::No || lane.held.is_empty());
            self.check(sound, &format!("filter {position} was not shown what there is of the {side:?}: {here:?}"));
        }
        self.check(any == paused, "the host and the model disagree about a pause");
    }

    /// Judges a stream that was dropped: every filter that lives has been told so.
    pub(crate) fn after_drop(&mut self, stream: usize) {
        for position in 0..self.policies.len() {
            let place = &self.streams[stream].places[position];
            let told = match place.context {
                Some((number, context)) => self.is_gone(number, context),
                None => place.failed || self.trouble[position],
            };
            self.check(told, "a filter was not told of the end of a stream");
        }
    }

    /// Callouts that nobody waits for any more, and that are not known to be cancelled.
    pub(crate) fn check_cancelled(&mut self, cancelled: &[CallId]) {
        for at in 0..self.calls.len() {
            let call = &self.calls[at];
            if call.state == CallState::Pending && self.is_gone(call.instance, call.context) {
                let known = cancelled.contains(&call.id);
                self.calls[at].state = CallState::Cancelled;
                self.check(known, "a callout outlives its context");
            }
        }
        let early = self.calls.iter().any(|call| call.state != CallState::Cancelled && cancelled.contains(&call.id));
        self.check(!early, "a callout was cancelled while somebody waits for it, or after its answer");
    }

    /// The answer to a callout has been given: the filter knows, if it still can.
    pub(crate) fn after_answer(&mut self, at: usize) {
        self.check(
            self.calls[at].state != CallState::Pending || self.is_gone(self.calls[at].instance, self.calls[at].context),
            "an answer got lost",
        );
    }

    /// Everything is over.
    pub(crate) fn after_all(&mut self) {
        let over = self.instances.iter().all(|instance| matches!(instance.life, Life::Dead | Life::Ended));
        self.check(over, "an instance was not told of its end");
    }
}
