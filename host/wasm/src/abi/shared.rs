//! Shared data with compare-and-swap, and queues: what filters of one `vm_id` share across workers and reloads.
//!
//! A queue's number works only in an instance that registered or resolved the queue: it cannot be guessed. A queue of another `vm_id` cannot be
//! resolved: whoever wants to share one gives both bindings the same.

use std::sync::Arc;

use wasmtime::{Caller, Linker};

use super::{Answer, CAS_MISMATCH, EMPTY, Guest, NOT_FOUND, OK, enter};
use crate::shared::{Notifier, QueueError, SetError};
use crate::stats::Counter;
use crate::sync::lock;
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_get_shared_data", get)?;
    linker.func_wrap("env", "proxy_set_shared_data", set)?;
    linker.func_wrap("env", "proxy_register_shared_queue", register)?;
    linker.func_wrap("env", "proxy_resolve_shared_queue", resolve)?;
    linker.func_wrap("env", "proxy_enqueue_shared_queue", enqueue)?;
    linker.func_wrap("env", "proxy_dequeue_shared_queue", dequeue)?;
    Ok(())
}

fn get(caller: Caller<'_, State>, key: u32, length: u32, out_pointer: u32, out_size: u32, out_cas: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_get_shared_data");
    let mut value = std::mem::take(&mut guest.state_mut().scratch);
    let (key, _, state) = guest.take_two((key, length), (0, 0))?;
    let cas = state.binding.shared().get(key, state.host.monotonic_nanos(), &mut value);
    let answer = match cas {
        Some(cas) => {
            guest.write_u32(out_cas, cas)?;
            guest.give(&value, out_pointer, out_size)
        }
        None => Ok(NOT_FOUND),
    };
    guest.state_mut().keep_scratch(value);
    answer
}

fn set(caller: Caller<'_, State>, key: u32, key_length: u32, value: u32, value_length: u32, cas: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_set_shared_data");
    let (key, value, state) = guest.take_two((key, key_length), (value, value_length))?;
    match state.binding.shared().set(key, value, cas, state.host.monotonic_nanos()) {
        Ok(()) => Ok(OK),
        Err(SetError::CasMismatch) => Ok(CAS_MISMATCH),
        // No status for this is survivable; the store is a cache, and an entry may be gone at any time.
        Err(error @ SetError::TooLarge { .. }) => {
            state.odd(Counter::SharedRefused, "proxy_set_shared_data", &error.to_string());
            Ok(OK)
        }
    }
}

/// Wakes this worker, which then tells the guest once for each item. One for all queues of an instance.
fn notifier(state: &mut State) -> Notifier {
    if let Some(notifier) = &state.notifier {
        return notifier.clone();
    }
    let (announced, wake) = (state.announced.clone(), state.host.queue_notifier());
    // Of more items than a queue can have, the others were dropped.
    let most = u32::try_from(state.config().limits.shared_entries).unwrap_or(u32::MAX);
    let notifier: Notifier = Arc::new(move |queue| {
        let mut announced = lock(&announced);
        match announced.iter_mut().find(|(known, _)| *known == queue) {
            Some((_, count)) => *count = count.saturating_add(1).min(most),
            None => announced.push_back((queue, 1)),
        }
        drop(announced);
        wake();
    });
    state.notifier = Some(notifier.clone());
    notifier
}

/// From now on the instance may use `queue`.
fn know(state: &mut State, queue: u32) {
    if !state.queues.contains(&queue) {
        state.queues.push(queue);
    }
}

fn register(caller: Caller<'_, State>, name: u32, length: u32, out: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_register_shared_queue");
    let name = String::from_utf8_lossy(guest.take(name, length)?).into_owned();
    let state = guest.state_mut();
    let notifier = notifier(state);
    let registered = state.binding.engine().shared().queues().register(state.config().vm_id(), &name, &notifier);
    match registered {
        Ok(queue) => {
            know(state, queue);
            guest.write_u32(out, queue)?;
            Ok(OK)
        }
        Err(error) => {
            state.odd(Counter::SharedRefused, "proxy_register_shared_queue", &error.to_string());
            Ok(NOT_FOUND)
        }
    }
}

fn resolve(caller: Caller<'_, State>, vm: u32, vm_length: u32, name: u32, name_length: u32, out: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_resolve_shared_queue");
    let (vm, name, state) = guest.take_two((vm, vm_length), (name, name_length))?;
    let own = state.config().vm_id();
    // Bindings share nothing unless they have one `vm_id`: another's queues are as good as absent.
    let queue = match vm.is_empty() || vm == own.as_bytes() {
        true => state.binding.engine().shared().queues().resolve(own, &String::from_utf8_lossy(name)),
        false => None,
    };
    match queue {
        Some(queue) => {
            know(state, queue);
            guest.write_u32(out, queue)?;
            Ok(OK)
        }
        None => Ok(NOT_FOUND),
    }
}

fn enqueue(caller: Caller<'_, State>, queue: u32, item: u32, length: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_enqueue_shared_queue");
    let (item, _, state) = guest.take_two((item, length), (0, 0))?;
    if !state.queues.contains(&queue) {
        return Ok(NOT_FOUND);
    }
    match state.binding.engine().shared().queues().enqueue(queue, item) {
        Ok(()) => Ok(OK),
        Err(QueueError::NotFound) => Ok(NOT_FOUND),
        Err(error) => {
            state.odd(Counter::SharedRefused, "proxy_enqueue_shared_queue", &error.to_string());
            Ok(OK)
        }
    }
}

fn dequeue(caller: Caller<'_, State>, queue: u32, out_pointer: u32, out_size: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_dequeue_shared_queue");
    if !guest.state().queues.contains(&queue) {
        return Ok(NOT_FOUND);
    }
    let mut item = std::mem::take(&mut guest.state_mut().scratch);
    let taken = guest.state().binding.engine().shared().queues().dequeue(queue, &mut item);
    let answer = match taken {
        Ok(()) => guest.give(&item, out_pointer, out_size),
        Err(QueueError::Empty) => Ok(EMPTY),
        Err(_) => Ok(NOT_FOUND),
    };
    guest.state_mut().keep_scratch(item);
    answer
}
