//! What the proxy sees from outside: replies, what came through, what is left when something has ended.

use weir_wasm::{CallId, Side};

use super::{CallState, Flowing, Life, Model, Pause, SIDES};

impl Model {
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
        // A client that has its whole answer keeps it, and nothing more of its request goes on.
        let finished = taken[Side::Response as usize].end || taken[Side::Response as usize].trailers;
        self.check(answered || (finished && !limit_hit) || !(closed_failed || limit_hit), "a failed stream hangs");
        if !answered {
            self.infer_skipped(stream, None);
        }
        for side in SIDES {
            if side == Side::Request && (answered || closed_failed) {
                continue;
            }
            let mut out = self.flowing_out(stream, side);
            let came = &taken[side as usize];
            // Only replies state a length, and a head that does may wait for its body's first piece.
            if answered && out.data.is_empty() && !out.is_over() {
                out.head &= came.head;
            }
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
