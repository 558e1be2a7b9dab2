//! One stream's way through its chain: the lanes of every filter in both directions, and what comes out at the end.
//!
//! Plain data without a guest in it. Host calls look here for what a filter may read and change; the runner moves released parts from lane to
//! lane. The first local reply wins, and nothing of the request moves after it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::binding::BodyAccess;
use crate::host::{LocalReply, MessageMap, Side};
use crate::properties::Properties;
use crate::stream::buffer::Buffer;
use crate::stream::lane::{Answer, Lane, LanePolicy, Released, Step};
use crate::stream::reply::{Asked, Asker, Refused};
use crate::vm::Vm;

/// A filter's part in the stream.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) vm: Option<Rc<Vm>>,
    pub(crate) context: u32,
    /// Which of the binding's configurations: 0, or a variant's + 1.
    pub(crate) variant: usize,
    /// It takes no part: it failed, or the stream's route does without it.
    pub(crate) failed: bool,
    /// The request's head has come past it: a response may be shown to it.
    pub(crate) reached: bool,
    /// By side: it has changed the body's length.
    pub(crate) resized: [bool; 2],
    /// Whether the filter has any callback for a side's messages; others go past it.
    wants: [bool; 2],
    pub(crate) lanes: [Lane; 2],
    /// Whether the runner has to look at a lane.
    due: [bool; 2],
    pub(crate) policy: LanePolicy,
    pub(crate) body_access: BodyAccess,
    pub(crate) body_limit: usize,
}

impl Stage {
    pub(crate) fn new(policy: LanePolicy, wants: [bool; 2], body_access: BodyAccess, body_limit: usize) -> Self {
        Self {
            vm: None,
            context: 0,
            variant: 0,
            failed: false,
            reached: false,
            resized: [false; 2],
            wants,
            lanes: Default::default(),
            due: [false; 2],
            policy,
            body_access,
            body_limit,
        }
    }

    /// As new, for the next stream.
    fn clear(&mut self) {
        self.vm = None;
        (self.context, self.variant) = (0, 0);
        (self.failed, self.reached, self.resized, self.due) = (false, false, [false; 2], [false; 2]);
        self.lanes.iter_mut().for_each(Lane::clear);
    }
}

/// A filter that a head is shown to.
pub(crate) struct Shown {
    pub(crate) stage: usize,
    /// Where it is open already.
    pub(crate) open: Option<(Rc<Vm>, u32)>,
}

/// A filter that chose a route and is shown the request's head once more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Again {
    pub(crate) stage: usize,
    /// It has paused, and not continued.
    pub(crate) paused: bool,
    /// It has continued, be it before it returned.
    pub(crate) resumed: bool,
}

/// Something for the runner to do.
pub(crate) enum Work {
    /// Begin this local reply.
    Reply(Box<Asked>),
    /// Look at this stage's lane.
    Lane(usize, Side),
}

/// What a lane comes to.
pub(crate) enum Advance {
    /// This callback is due.
    Step(Step),
    /// Nothing more for now.
    Wait,
    /// The filter's instance is gone.
    Failed,
}

/// What has come through the whole chain and is not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) head: bool,
    pub(crate) data: Buffer,
    pub(crate) end: bool,
    pub(crate) trailers: bool,
}

impl Out {
    pub(crate) fn is_nothing(&self) -> bool {
        !self.head && !self.is_over() && self.data.is_empty()
    }

    /// Whether the message is through.
    fn is_over(&self) -> bool {
        self.end || self.trailers
    }
}

/// Whether a head may go that has come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadLength {
    /// Not yet: the first piece of the body decides.
    Waits,
    /// With the length that it states.
    Stands,
    /// With this one, or with none.
    Becomes(Option<u64>),
}

/// What has arrived, and how far it got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) head_arrived: bool,
    pub(crate) head_has_end: bool,
    pub(crate) head_out: bool,
    pub(crate) finished: bool,
    /// Bytes of body that arrived.
    pub(crate) size: u64,
}

#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) tcp: bool,
    pub(crate) stages: Box<[Stage]>,
    pub(crate) out: [Out; 2],
    pub(crate) progress: [Progress; 2],
    /// The runner is at work: state changes need no wake-up.
    pub(crate) running: bool,
    /// Asked for and not yet begun.
    asked: Option<Box<Asked>>,
    /// How many lanes are due, by side.
    due: [usize; 2],
    /// A filter that is shown the request's head once more.
    pub(crate) again: Option<Again>,
    /// Begun. Only the first counts.
    pub(crate) reply: Option<Box<LocalReply>>,
    pub(crate) reset: bool,
    pub(crate) closed: bool,
    /// It never was a real stream: no `on_log`.
    pub(crate) unlogged: bool,
    pub(crate) may_write_body: [bool; 2],
    /// By side: what is missing of a body whose length has gone on and which filters may still change.
    left: [Option<u64>; 2],
    /// Filter state.
    pub(crate) properties: Properties,
}

impl Flow {
    pub(crate) fn new(tcp: bool, stages: Box<[Stage]>, may_write_body: [bool; 2]) -> Self {
        Self {
            tcp,
            stages,
            may_write_body,
            left: [None; 2],
            out: Default::default(),
            progress: Default::default(),
            running: false,
            asked: None,
            due: [0; 2],
            again: None,
            reply: None,
            reset: false,
            closed: false,
            unlogged: false,
            properties: Properties::default(),
        }
    }

    /// Nothing of the old stream is left, and nobody can do anything with it until it [begins](Self::begin).
    pub(crate) fn clear(&mut self) {
        self.closed = true;
        self.stages.iter_mut().for_each(Stage::clear);
        for out in &mut self.out {
            (out.head, out.end, out.trailers) = (false, false, false);
            out.data.clear();
        }
        self.progress = Default::default();
        self.due = [0; 2];
        if self.asked.is_some() || self.reply.is_some() {
            (self.asked, self.reply) = (None, None);
        }
        (self.reset, self.unlogged, self.left, self.again) = (false, false, [None; 2], None);
        self.properties.clear();
    }

    /// A cleared flow is a new stream's.
    pub(crate) fn begin(&mut self) {
        (self.closed, self.running) = (false, false);
    }

    /// Whether what arrives on `side` still matters.
    pub(crate) fn listens(&self, side: Side) -> bool {
        !(self.closed || self.reset || self.reply.is_some() || self.progress[side as usize].finished)
    }

    /// The stage that sees `side` first, and the one after `stage`; `None` is the end of the chain.
    pub(crate) fn first(&self, side: Side) -> Option<usize> {
        match side {
            Side::Request => (!self.stages.is_empty()).then_some(0),
            Side::Response => self.stages.len().checked_sub(1),
        }
    }

    pub(crate) fn after(&self, stage: usize, side: Side) -> Option<usize> {
        match side {
            Side::Request => Some(stage + 1).filter(|next| *next < self.stages.len()),
            Side::Response => stage.checked_sub(1),
        }
    }

    pub(crate) fn lane(&mut self, stage: usize, side: Side) -> &mut Lane {
        &mut self.stages[stage].lanes[side as usize]
    }

    /// Where a message really goes that is handed to `to`: past the filters that have no callback for it.
    fn destination(&mut self, mut to: Option<usize>, side: Side) -> Option<usize> {
        while let Some(index) = to {
            let stage = &mut self.stages[index];
            stage.reached |= side == Side::Request;
            if stage.wants[side as usize] {
                break;
            }
            to = self.after(index, side);
        }
        to
    }

    /// Hands parts of a message to a stage, or out of the chain.
    pub(crate) fn pass(&mut self, to: Option<usize>, side: Side, parts: Released) {
        let Some(stage) = self.destination(to, side) else {
            let out = &mut self.out[side as usize];
            out.head |= parts.head;
            if !parts.data.is_empty() {
                out.data.append(parts.data);
            }
            out.end |= parts.end;
            out.trailers |= parts.trailers;
            let progress = &mut self.progress[side as usize];
            progress.head_out |= parts.head;
            progress.finished |= parts.end || parts.trailers;
            return;
        };
        self.mark(stage, side);
        let lane = self.lane(stage, side);
        if parts.head {
            lane.head_arrived();
        }
        if !parts.data.is_empty() {
            lane.data_arrived(parts.data);
        }
        if parts.trailers {
            lane.trailers_arrived();
        }
        if parts.end {
            lane.end_arrived();
        }
    }

    /// The common case of [`Flow::pass`]: a head alone.
    fn pass_head(&mut self, to: Option<usize>, side: Side, end: bool) {
        match self.destination(to, side) {
            Some(stage) => {
                self.mark(stage, side);
                let lane = self.lane(stage, side);
                lane.head_arrived();
                if end {
                    lane.end_arrived();
                }
            }
            None => self.let_head_out(side, end),
        }
    }

    fn let_head_out(&mut self, side: Side, end: bool) {
        let (out, progress) = (&mut self.out[side as usize], &mut self.progress[side as usize]);
        (out.head, progress.head_out) = (true, true);
        out.end |= end;
        progress.finished |= end;
    }

    // === a head that goes straight through ===

    /// Hands a head to a stage so that its callback is what must run next. `None`: it has gone out, or there is [work](Self::work) to do.
    pub(crate) fn show_head(&mut self, to: Option<usize>, side: Side, end: bool) -> Option<Shown> {
        let Some(index) = self.destination(to, side) else {
            self.let_head_out(side, end);
            return None;
        };
        let stage = &mut self.stages[index];
        let open = match &stage.vm {
            Some(vm) if !vm.is_dead() => Some((vm.clone(), stage.context)),
            None if !stage.failed && stage.reached => None,
            _ => {
                self.pass_head(Some(index), side, end);
                return None;
            }
        };
        stage.lanes[side as usize].show_head(end);
        Some(Shown { stage: index, open })
    }

    /// A filter lets a head go that it was [shown](Self::show_head). `false`: something else has happened meanwhile, and comes first.
    pub(crate) fn let_head_go(&mut self, stage: usize, side: Side) -> bool {
        if self.has_work() {
            return false;
        }
        let stage = &mut self.stages[stage];
        let lane = &mut stage.lanes[side as usize];
        lane.answered(Answer::Continue, stage.policy);
        lane.release_head().is_some()
    }

    // === work ===

    /// Has the runner look at a lane.
    pub(crate) fn mark(&mut self, stage: usize, side: Side) {
        if !std::mem::replace(&mut self.stages[stage].due[side as usize], true) {
            self.due[side as usize] += 1;
        }
    }

    /// The next thing to do: a reply before all else, then lanes in the order of their side.
    pub(crate) fn work(&mut self) -> Option<Work> {
        if self.reset {
            return None;
        }
        if let Some(asked) = self.asked.take() {
            return Some(Work::Reply(asked));
        }
        let side = if self.due[0] > 0 {
            Side::Request
        } else if self.due[1] > 0 {
            Side::Response
        } else {
            return None;
        };
        let is_due = |stage: &Stage| stage.due[side as usize];
        let stage = match side {
            Side::Request => self.stages.iter().position(is_due),
            Side::Response => self.stages.iter().rposition(is_due),
        }?;
        self.stages[stage].due[side as usize] = false;
        self.due[side as usize] -= 1;
        Some(Work::Lane(stage, side))
    }

    /// Whether there is anything for [`Flow::work`] to find, or it has been forbidden to.
    pub(crate) fn has_work(&self) -> bool {
        self.asked.is_some() || self.reset || self.due != [0; 2]
    }

    pub(crate) fn has_reply_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// The callback that asked for a reply trapped: it has asked for nothing.
    pub(crate) fn forget_asked_by(&mut self, asker: Asker) {
        if self.asked.as_ref().is_some_and(|asked| asked.asker == Some(asker)) {
            self.asked = None;
        }
    }

    /// Passes on what a lane releases and says which callback is due on it.
    pub(crate) fn advance(&mut self, index: usize, side: Side) -> Advance {
        let next = self.after(index, side);
        let stage = &mut self.stages[index];
        if stage.vm.as_ref().is_some_and(|vm| vm.is_dead()) {
            return Advance::Failed;
        }
        // A filter that the request has not reached takes no part in the reply that came first.
        let skip = stage.failed || !stage.reached;
        let lane = &mut stage.lanes[side as usize];
        if !skip && lane.is_fresh() {
            return lane.next(stage.policy).map_or(Advance::Wait, Advance::Step);
        }
        if !skip && let Some(end) = lane.release_head() {
            self.pass_head(next, side, end);
            return Advance::Wait;
        }
        let released = if skip { lane.abandon() } else { lane.release() };
        let step = if skip { None } else { lane.next(stage.policy) };
        if released.head || released.end || released.trailers || !released.data.is_empty() {
            self.pass(next, side, released);
        }
        step.map_or(Advance::Wait, Advance::Step)
    }

    // === lengths ===

    /// Whether a head has come through whose length filters may still make wrong.
    pub(crate) fn has_open_length(&self, side: Side) -> bool {
        let index = side as usize;
        self.out[index].head && self.may_write_body[index] && !self.progress[index].head_has_end && !self.tcp
    }

    /// What to do about that length. `resizes`: a filter of the chain changes lengths.
    pub(crate) fn judge_length(&mut self, side: Side, stated: Option<u64>, resizes: bool) -> HeadLength {
        let out = &self.out[side as usize];
        let size = out.data.len() as u64;
        let resized = || self.stages.iter().any(|stage| stage.resized[side as usize]);
        if out.is_over() {
            if stated == Some(size) { HeadLength::Stands } else { HeadLength::Becomes(Some(size)) }
        } else if resizes || stated.is_none() || resized() {
            HeadLength::Becomes(None)
        } else if out.data.is_empty() {
            HeadLength::Waits
        } else {
            self.left[side as usize] = stated;
            HeadLength::Stands
        }
    }

    /// Whether what has come through fits the length that has gone on.
    pub(crate) fn keeps_length(&mut self, side: Side) -> bool {
        let (out, left) = (&self.out[side as usize], &mut self.left[side as usize]);
        let Some(missing) = *left else { return true };
        *left = missing.checked_sub(out.data.len() as u64);
        left.is_some_and(|left| left == 0 || !out.is_over())
    }

    // === host calls ===

    /// Whether a change of `map` by `stage` still has an effect.
    pub(crate) fn may_write(&self, stage: usize, map: MessageMap) -> bool {
        let lanes = &self.stages[stage].lanes;
        match map {
            MessageMap::RequestHeaders => lanes[0].holds_head() || self.again.is_some_and(|again| again.stage == stage),
            MessageMap::ResponseHeaders => lanes[1].holds_head(),
            MessageMap::RequestTrailers => lanes[0].holds_trailers(),
            MessageMap::ResponseTrailers => lanes[1].holds_trailers(),
        }
    }

    /// Whether `stage` may create the trailers of `side` now.
    pub(crate) fn may_add_trailers(&self, stage: usize, side: Side) -> bool {
        self.stages[stage].lanes[side as usize].may_add_trailers()
    }

    pub(crate) fn body(&mut self, stage: usize, side: Side) -> Option<&mut Buffer> {
        self.lane(stage, side).body()
    }

    /// The filter continues. `true`: something may move now.
    pub(crate) fn resume(&mut self, stage: usize, side: Side) -> bool {
        // After a local reply of the request phase there is nothing left to continue.
        if self.closed || (side == Side::Request && (self.reply.is_some() || self.asked.is_some())) {
            return false;
        }
        if let Some(again) = &mut self.again
            && again.stage == stage
            && side == Side::Request
        {
            again.paused = false;
            again.resumed = true;
            return true;
        }
        let resumed = self.lane(stage, side).resume();
        if resumed {
            self.mark(stage, side);
        }
        resumed
    }

    /// A local reply is asked for.
    pub(crate) fn ask_reply(&mut self, asked: Asked) -> Result<(), Refused> {
        if self.tcp {
            return Err(Refused::Tcp);
        }
        if self.asked.is_some() || self.reply.is_some() {
            return Err(Refused::Answered);
        }
        if self.closed || self.reset {
            return Err(Refused::Over);
        }
        if self.progress[1].head_out {
            return Err(Refused::Answered);
        }
        self.asked = Some(Box::new(asked));
        Ok(())
    }

    // === the ends ===

    /// More of a body than may be held: 413, 500, or the end where it is too late for either.
    pub(crate) fn body_too_large(&mut self, binding: &Arc<str>, side: Side) {
        let status = if side == Side::Request { 413 } else { 500 };
        self.give_up(Asked::too_large(binding, status));
    }

    /// A reply of the host's, or the end where it is too late for one.
    pub(crate) fn give_up(&mut self, asked: Asked) {
        if self.ask_reply(asked).is_err() {
            self.reset();
        }
    }

    /// Turns the stream around: the request moves no further, and the response begins anew.
    pub(crate) fn turn_around(&mut self) {
        for stage in &mut self.stages {
            stage.lanes = Default::default();
            (stage.due, stage.resized) = ([false; 2], [false; 2]);
            // Handed to it, but not shown yet: now it never will be.
            stage.reached &= stage.vm.is_some() || !stage.wants[Side::Request as usize];
        }
        self.due = [0; 2];
        (self.left, self.again) = ([None; 2], None);
        self.out = Default::default();
        self.progress[0].finished = true;
        self.progress[1] = Progress { head_arrived: true, ..Progress::default() };
    }

    /// What is left of the request goes nowhere: the response is through, and the filter that had to see the rest is gone.
    pub(crate) fn drop_request(&mut self) {
        for stage in &mut self.stages {
            self.due[0] -= usize::from(std::mem::take(&mut stage.due[0]));
            stage.lanes[0].clear();
        }
        self.progress[0].finished = true;
    }

    pub(crate) fn reset(&mut self) {
        self.turn_around();
        self.asked = None;
        self.reset = true;
    }

    /// Bytes that the chain holds for `side`.
    pub(crate) fn held(&self, side: Side) -> usize {
        self.stages.iter().map(|stage| stage.lanes[side as usize].held()).sum()
    }

    /// Whether more of `side` would only pile up.
    pub(crate) fn is_stopped(&self, side: Side) -> bool {
        self.stages.iter().any(|stage| stage.lanes[side as usize].is_stopped())
    }

    pub(crate) fn is_paused(&self, side: Side) -> bool {
        self.stages.iter().any(|stage| stage.lanes[side as usize].is_paused())
    }
}

/// A whole reply as released parts.
pub(crate) fn reply_parts(body: Bytes) -> Released {
    Released { head: true, data: body, end: true, trailers: false }
}
