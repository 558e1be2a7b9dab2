//! What the puppet is told to do, and what that does to the model.

use weir_conformance::puppet::{self, Arg, Call, Outcome, Program};
use weir_wasm::{CallId, Side};

use super::{CONFIGURE, CREATE, CallState, Callout, DONE, Frame, Life, Model, Pause, Phase, SIDES, TICK, VM_START};
use crate::script::{Act, Edit, LIMIT, Step};

fn buffer(side: Side) -> Arg {
    Arg::Value(side as u64)
}

impl Model {
    pub(super) fn decide(&mut self, callback: usize, number: u32) -> Step {
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

    pub(super) fn program(&mut self, frame: &mut Frame, args: [u32; 5]) -> Program {
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
            // One that traps has asked for nothing.
            Act::Reply(_) if !over && state.reply.is_none() && !frame.step.trap => {
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
}
