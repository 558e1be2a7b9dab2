//! Runs the callbacks that are due, until every filter waits or the messages are through.
//!
//! Guests run with nothing borrowed: what they change through host calls is picked up after each callback. A filter that cannot run, now or any
//! more, meets its failure policy here and nowhere else.

use std::rc::Rc;

use crate::binding::FailurePolicy;
use crate::filter::Filter;
use crate::host::{MessageMap, Side, StreamHost};
use crate::stats::Counter;
use crate::stream::flow::{Advance, Work, reply_parts};
use crate::stream::lane::{Answer, Step};
use crate::stream::reply::Asked;
use crate::stream::{Chain, Close, StreamCell};
use crate::vm::contexts::StreamRef;
use crate::vm::{Dead, Vm, count_of};

type Cell = Rc<StreamCell<dyn StreamHost>>;

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
    loop {
        let work = cell.flow.borrow_mut().work();
        match work {
            Some(Work::Lane(stage, side)) => drive(cell, &chain.filters()[stage], stage, side),
            Some(Work::Reply(asked)) => begin_reply(cell, *asked),
            None => break,
        }
    }
    cell.flow.borrow_mut().running = false;
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
        match call(cell, filter, index, side, step) {
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

/// The instance and context of a stage, created right before its first callback.
fn open(cell: &Cell, filter: &Filter, index: usize) -> Result<(Rc<Vm>, u32), &'static str> {
    let variant = {
        let flow = cell.flow.borrow();
        let stage = &flow.stages[index];
        if let Some(vm) = &stage.vm {
            return Ok((vm.clone(), stage.context));
        }
        stage.variant
    };
    let vm = filter.instance().ok_or("unavailable")?;
    let opened = vm.open(StreamRef { cell: cell.clone(), stage: index, root: 0 }, variant);
    let mut flow = cell.flow.borrow_mut();
    let stage = &mut flow.stages[index];
    stage.context = opened.map_err(|Dead| "trap")?;
    stage.vm = Some(vm.clone());
    Ok((vm, stage.context))
}

fn call(cell: &Cell, filter: &Filter, index: usize, side: Side, step: Step) -> Result<Answer, &'static str> {
    let (vm, context) = open(cell, filter, index)?;
    let tcp = {
        let flow = cell.flow.borrow();
        // `on_context_create` has answered or closed the stream: the callback it was created for is no longer due.
        if flow.reset || flow.has_reply_waiting() {
            return Ok(Answer::Continue);
        }
        flow.tcp
    };
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
fn fail(cell: &Cell, filter: &Filter, index: usize, why: &str) {
    let mut flow = cell.flow.borrow_mut();
    let stage = &mut flow.stages[index];
    if stage.failed {
        return;
    }
    stage.failed = true;
    stage.vm = None;
    // What it held goes on or is dropped, on both sides.
    flow.mark(index, Side::Request);
    flow.mark(index, Side::Response);
    let config = filter.binding().config();
    match config.failure_policy {
        FailurePolicy::Open => filter.count(Counter::FailedOpen),
        FailurePolicy::Closed => {
            filter.count(Counter::FailedClosed);
            // A reply on its way keeps going; what had already been answered cannot be taken back.
            let answered = flow.has_reply_waiting() || (flow.reply.is_some() && !flow.progress[1].head_out);
            if !answered && (flow.tcp || !flow.ask_reply(Asked::failure(&config.name, why))) {
                flow.reset();
            }
        }
    }
}

/// Turns the stream around into its local reply.
fn begin_reply(cell: &Cell, asked: Asked) {
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
        let open = {
            let flow = cell.flow.borrow();
            let stage = &flow.stages[index];
            stage.vm.clone().map(|vm| (vm, stage.context))
        };
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
        let skip = {
            let flow = cell.flow.borrow();
            let stage = &flow.stages[index];
            stage.failed || flow.unlogged || (stage.vm.is_none() && !filter.wants_end(stage.reached))
        };
        if skip {
            continue;
        }
        if let Ok((vm, context)) = open(cell, filter, index) {
            let _ = vm.log(context);
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
