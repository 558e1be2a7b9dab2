//! What the host promised about the life of contexts and streams, as a state machine over the callbacks and actions of a case.
//!
//! Judged: a context is created before anything else and never called after its `on_delete`; `on_log`, `on_done`, `on_delete` once each and last;
//! head before body before trailers, the end at most once; nothing while everything is paused; body callbacks see exactly what the filter holds
//! and what came since (contents, so sizes too); what a filter lets go reaches the next one unchanged; after a reply nothing of the request moves
//! and only filters that saw the request see the reply; the first reply wins; a callout is answered at most once, to the instance that started it,
//! and never after its context is gone; nothing runs in an instance that trapped or ended.
//!
//! It takes effects as done at once, where the host queues them: between the two no callback of that lane may run, so nobody can tell.

mod acts;
mod seen;

use std::collections::{BTreeMap, VecDeque};

use weir_conformance::puppet;
use weir_wasm::{CallId, Side};

use crate::script::{Act, Policy, Step};

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

impl Stream {
    /// Whether a filter's instance died under it: with the response through, what is left of the request then goes nowhere.
    pub(crate) fn lost_a_filter(&self) -> bool {
        self.places.iter().any(|place| place.failed)
    }
}

impl Model {
    pub(crate) fn new(policies: &[Policy], steps: &[Step]) -> Self {
        Self {
            trace: Vec::new(),
            errors: Vec::new(),
            steps: steps.iter().cloned().collect(),
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
        let in_reply = self.streams[stream].reply.is_some() && !closing;
        self.check(!in_reply, "a filter that the request never reached has a part in the reply");
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
}
