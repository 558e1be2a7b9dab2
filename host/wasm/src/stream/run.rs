//! Runs the callbacks that are due, until every filter waits or the messages are through.
//!
//! Guests run with nothing borrowed: what they change through host calls is picked up after each callback. A filter that cannot run, now or any
//! more, meets its failure policy here and nowhere else.

use std::rc::Rc;

use crate::binding::{FailurePolicy, Kind, Routing};
use crate::filter::Filter;
use crate::host::{MessageMap, PerRoute, Side};
use crate::stats::Counter;
use crate::stream::flow::{Advance, Shown, Work, reply_parts};
use crate::stream::lane::{Answer, Released, Step};
use crate::stream::reply::Asked;
use crate::stream::{Chain, Close};
use crate::vm::contexts::{StreamCellRef as Cell, StreamRef};
use crate::vm::{Dead, Vm, count_of};

/// Runs everything that can run.
pub(crate) fn run(cell: &Cell, chain: &Chain) {
    {
        let mut flow = cell.flow.borrow_mut();
        // Re-entry from inside a host call, or after the end: whoever runs already picks the change up.
        if flow.running || flow.closed {
            return;
        }
        flow.running = true;
    }
    settle(cell, chain);
}

/// Does what there is to do, and says that nobody is at it any more.
fn settle(cell: &Cell, chain: &Chain) {
    loop {
        let work = {
            let mut flow = cell.flow.borrow_mut();
            let work = flow.work();
            flow.running = work.is_some();
            work
        };
        match work {
            Some(Work::Lane(stage, side)) => drive(cell, &chain.filters()[stage], stage, side),
            Some(Work::Reply(asked)) => begin_reply(cell, chain, *asked),
            None => return,
        }
    }
}

/// A message's head has arrived: the filters take it one after the other. Lanes are marked and searched only once one of them does anything but
/// let it go.
pub(crate) fn run_head(cell: &Cell, chain: &Chain, side: Side, end: bool) {
    let mut shown = {
        let mut flow = cell.flow.borrow_mut();
        let first = flow.first(side);
        if flow.running || flow.has_work() {
            flow.pass(first, side, Released { head: true, end, ..Released::default() });
            drop(flow);
            return run(cell, chain);
        }
        flow.running = true;
        flow.show_head(first, side, end)
    };
    while let Some(Shown { stage, open }) = shown {
        let filter = &chain.filters()[stage];
        let step = Step::Head { end };
        let answer = call(cell, filter, stage, open, side, step);
        let mut flow = cell.flow.borrow_mut();
        shown = match answer {
            Ok(Answer::Continue) if flow.let_head_go(stage, side) => {
                let next = flow.after(stage, side);
                flow.show_head(next, side, end)
            }
            Ok(answer) => {
                flow.mark(stage, side);
                drop(flow);
                answered(cell, filter, stage, side, step, answer);
                None
            }
            Err(why) => {
                drop(flow);
                fail(cell, filter, stage, why);
                None
            }
        };
    }
    settle(cell, chain);
}

/// Runs the callbacks of one lane until it waits.
fn drive(cell: &Cell, filter: &Filter, index: usize, side: Side) {
    loop {
        let advance = cell.flow.borrow_mut().advance(index, side);
        let step = match advance {
            Advance::Step(step) => step,
            Advance::Wait => return,
            Advance::Failed => {
                fail(cell, filter, index, "trap");
                return;
            }
        };
        let open = opened(cell, index);
        match call(cell, filter, index, open, side, step) {
            Ok(answer) => {
                if answered(cell, filter, index, side, step, answer) {
                    return;
                }
            }
            Err(why) => {
                fail(cell, filter, index, why);
                return;
            }
        }
    }
}

/// A filter's instance, and its context there.
type Open = (Rc<Vm>, u32);

fn opened(cell: &Cell, index: usize) -> Option<Open> {
    let flow = cell.flow.borrow();
    let stage = &flow.stages[index];
    stage.vm.as_ref().map(|vm| (vm.clone(), stage.context))
}

/// Which of a filter's configurations the stream's route wants; `None`: it does without the filter.
fn per_route(cell: &Cell, filter: &Filter, index: usize) -> Result<Option<usize>, &'static str> {
    let Routing::Follows { name, disabled } = &filter.binding().config().routing else { return Ok(Some(0)) };
    match cell.host.borrow().per_route(name, *disabled) {
        PerRoute::Off => Ok(None),
        PerRoute::AsConfigured => Ok(Some(cell.flow.borrow().stages[index].variant)),
        PerRoute::Variant(name) => filter.variant(name).map(Some).ok_or("unknown_variant"),
    }
}

/// Creates a stage's context, right before its first callback. `None`: what it was created for is not due, because that has answered or closed the
/// stream, or because the stream's route does without the filter.
fn open(cell: &Cell, filter: &Filter, index: usize) -> Result<Option<Open>, &'static str> {
    let variant = match filter.follows_routes() {
        true => match per_route(cell, filter, index)? {
            Some(variant) => variant,
            None => {
                cell.flow.borrow_mut().stages[index].failed = true;
                return Ok(None);
            }
        },
        false if filter.has_variants() => cell.flow.borrow().stages[index].variant,
        false => 0,
    };
    let vm = filter.instance().ok_or("unavailable")?;
    let context = vm.open(StreamRef { cell, stage: index }, variant).map_err(|Dead| "trap")?;
    let mut flow = cell.flow.borrow_mut();
    let stage = &mut flow.stages[index];
    stage.context = context;
    stage.vm = Some(vm.clone());
    Ok((!flow.reset && !flow.has_reply_waiting()).then_some((vm, context)))
}

fn call(cell: &Cell, filter: &Filter, index: usize, opened: Option<Open>, side: Side, step: Step) -> Result<Answer, &'static str> {
    let (vm, context) = match opened {
        Some(open) => open,
        None => match open(cell, filter, index)? {
            Some(open) => open,
            None => return Ok(Answer::Continue),
        },
    };
    let tcp = filter.binding().config().kind == Kind::Tcp;
    let value = match step {
        Step::Head { end } => {
            let count = if tcp { 0 } else { count_of(cell.host.borrow_mut().headers(side.headers())) };
            vm.on_head(context, side, tcp, count, end)
        }
        Step::Body { size, end } => vm.on_body(context, side, tcp, u32::try_from(size).unwrap_or(u32::MAX), end),
        Step::Trailers => {
            let count = count_of(cell.host.borrow_mut().headers(side.trailers()));
            vm.on_trailers(context, side, count)
        }
    };
    value.map(|value| Answer::from_abi(step, value)).map_err(|Dead| "trap")
}

/// Takes the guest's answer in. `true`: a reply is asked for, and the lane's turn is over.
fn answered(cell: &Cell, filter: &Filter, index: usize, side: Side, step: Step, answer: Answer) -> bool {
    let mut flow = cell.flow.borrow_mut();
    // After a local reply the callback's own answer means nothing: its lanes start anew.
    if flow.has_reply_waiting() {
        return true;
    }
    let stage = &mut flow.stages[index];
    let (policy, limit) = (stage.policy, stage.body_limit);
    stage.resized[side as usize] |= answer == Answer::PauseAndDrop;
    let lane = &mut stage.lanes[side as usize];
    lane.answered(answer, policy);
    if !matches!(step, Step::Body { .. }) || lane.held_by_filter() <= limit {
        return false;
    }
    filter.count(Counter::BodyLimitHits);
    flow.body_too_large(&filter.binding().config().name, side);
    true
}

/// The filter cannot run: its policy decides.
pub(super) fn fail(cell: &Cell, filter: &Filter, index: usize, why: &str) {
    let mut flow = cell.flow.borrow_mut();
    let stage = &mut flow.stages[index];
    if stage.failed {
        return;
    }
    stage.failed = true;
    stage.vm = None;
    let config = filter.binding().config();
    let closed = config.failure_policy == FailurePolicy::Closed;
    let is_through = |side: Side| flow.progress[side as usize].finished;
    if is_through(Side::Request) && is_through(Side::Response) {
        // There is nothing left that it would have had to see.
        return;
    }
    if closed && is_through(Side::Response) && flow.reply.is_none() {
        // The client has its whole answer; what it still sends, this filter will not have seen.
        filter.count(Counter::FailedClosed);
        flow.drop_request();
        return;
    }
    // What it held goes on or is dropped, on both sides.
    flow.mark(index, Side::Request);
    flow.mark(index, Side::Response);
    if !closed {
        filter.count(Counter::FailedOpen);
        return;
    }
    filter.count(Counter::FailedClosed);
    // A reply on its way keeps going; what had already been answered cannot be taken back.
    let answered = flow.has_reply_waiting() || (flow.reply.is_some() && !flow.progress[1].head_out);
    if !answered && flow.ask_reply(Asked::failure(&config.name, why)).is_err() {
        flow.reset();
    }
}

/// Turns the stream around into its local reply.
fn begin_reply(cell: &Cell, chain: &Chain, asked: Asked) {
    if let Some(asker) = asked.asker {
        chain.filters()[asker.stage].count(Counter::LocalReplies);
    }
    let reply = {
        let mut host = cell.host.borrow_mut();
        let reply = asked.complete(host.headers(MessageMap::RequestHeaders));
        host.start_local_reply(&reply);
        reply
    };
    let mut flow = cell.flow.borrow_mut();
    // In the request phase the reply passes the response side of the chain; a response that filters have begun to see is just replaced.
    let direct = flow.progress[1].head_arrived;
    flow.turn_around();
    let to = if direct { None } else { flow.first(Side::Response) };
    flow.pass(to, Side::Response, reply_parts(reply.body.clone()));
    flow.reply = Some(Box::new(reply));
}

/// What every open stage is told, outside the order of messages.
fn tell_all(cell: &Cell, chain: &Chain, tell: impl Fn(&Vm, u32) -> Result<(), Dead>) {
    if std::mem::replace(&mut cell.flow.borrow_mut().running, true) {
        return;
    }
    for (index, filter) in chain.filters().iter().enumerate() {
        let open = opened(cell, index);
        if let Some((vm, context)) = open
            && tell(&vm, context).is_err()
        {
            fail(cell, filter, index, "trap");
        }
    }
    cell.flow.borrow_mut().running = false;
    run(cell, chain);
}

pub(crate) fn metadata(cell: &Cell, chain: &Chain, side: Side, count: u32) {
    tell_all(cell, chain, |vm, context| vm.on_metadata(context, side, count).map(drop));
}

pub(crate) fn connection_closed(cell: &Cell, chain: &Chain, side: Side, by: Close) {
    tell_all(cell, chain, |vm, context| vm.on_connection_close(context, side, by));
}

/// Creates every stage's context and marks the stream as over, so that its end deletes them without `on_log`.
pub(crate) fn open_all(cell: &Cell, chain: &Chain) {
    for (index, filter) in chain.filters().iter().enumerate() {
        let _ = open(cell, filter, index);
    }
    cell.flow.borrow_mut().unlogged = true;
}

/// `on_log` for every filter, those included that the stream never reached, then `on_done` and `on_delete`.
pub(crate) fn finish(cell: &Cell, chain: &Chain) {
    {
        let mut flow = cell.flow.borrow_mut();
        if flow.closed {
            return;
        }
        flow.closed = true;
        flow.running = true;
    }
    for (index, filter) in chain.filters().iter().enumerate() {
        if filter.ends().any {
            log(cell, filter, index);
        }
    }
    for index in 0..chain.filters().len() {
        let stage = {
            let mut flow = cell.flow.borrow_mut();
            let stage = &mut flow.stages[index];
            stage.vm.take().map(|vm| (vm, stage.context))
        };
        if let Some((vm, context)) = stage {
            let _ = vm.close(context);
        }
    }
}

/// Tells one filter that its stream is over.
fn log(cell: &Cell, filter: &Filter, index: usize) {
    let ends = filter.ends();
    let ready = {
        let flow = cell.flow.borrow();
        let stage = &flow.stages[index];
        if stage.failed || flow.unlogged {
            return;
        }
        match &stage.vm {
            Some(_) if !ends.log => return,
            Some(vm) => Some((vm.clone(), stage.context)),
            // A stream that no message callback was due on.
            None if ends.log || stage.reached => None,
            None => return,
        }
    };
    let ready = match ready {
        Some(ready) => Some(ready),
        // The stream is closed: that it has been answered or reset matters no more.
        None => open(cell, filter, index).ok().and_then(|_| opened(cell, index)),
    };
    if let Some((vm, context)) = ready {
        let _ = vm.log(context);
    }
}
