//! The choice of a route, once more: the filters that choose routes see the request's head again after another filter has cleared the choice.
//!
//! What always holds: only filters that had seen the head see it again, in their own order and in the contexts they have; what they may do with it is
//! what they might the first time; every other filter, and the body, stay where they are. How often this may happen is the proxy's business.

use crate::binding::Routing;
use crate::host::Side;
use crate::stream::Chain;
use crate::stream::flow::Again;
use crate::stream::lane::{Answer, Step};
use crate::stream::run::{fail, run};
use crate::vm::contexts::StreamCellRef as Cell;
use crate::vm::count_of;

/// Begins, or goes on where it had to wait. `false`: it waits.
pub(super) fn choose(cell: &Cell, chain: &Chain) -> bool {
    let from = match cell.flow.borrow().again {
        Some(Again { stage, paused, .. }) if paused && !is_gone(cell, stage) => return false,
        Some(Again { stage, paused: true, .. }) => stage,
        Some(Again { stage, .. }) => stage + 1,
        None => 0,
    };
    let done = (from..chain.filters().len()).all(|stage| show(cell, chain, stage));
    if done {
        cell.flow.borrow_mut().again = None;
    }
    run(cell, chain);
    done
}

/// Whether the instance that a filter had is no more.
fn is_gone(cell: &Cell, stage: usize) -> bool {
    cell.flow.borrow().stages[stage].vm.as_ref().is_none_or(|vm| vm.is_dead())
}

/// Shows the head to one filter, if it chooses routes and the stream goes on. `false`: it has paused.
fn show(cell: &Cell, chain: &Chain, index: usize) -> bool {
    let filter = &chain.filters()[index];
    let open = {
        let mut flow = cell.flow.borrow_mut();
        if filter.binding().config().routing != Routing::Chooses || flow.has_reply_waiting() || flow.reset || flow.running {
            return true;
        }
        let stage = &flow.stages[index];
        let Some(open) = stage.vm.as_ref().map(|vm| (vm.clone(), stage.context)) else { return true };
        flow.again = Some(Again { stage: index, paused: false, resumed: false });
        flow.running = true;
        open
    };
    let (vm, context) = open;
    let end = cell.flow.borrow().progress[Side::Request as usize].head_has_end;
    let count = count_of(cell.host.borrow_mut().headers(Side::Request.headers()));
    let answer = vm.on_head(context, Side::Request, false, count, end);
    cell.flow.borrow_mut().running = false;
    let Ok(value) = answer else {
        fail(cell, filter, index, "trap");
        return true;
    };
    let mut flow = cell.flow.borrow_mut();
    let goes_on = Answer::from_abi(Step::Head { end }, value) == Answer::Continue || flow.has_reply_waiting();
    match &mut flow.again {
        Some(again) if !goes_on && !again.resumed => {
            again.paused = true;
            false
        }
        _ => true,
    }
}
