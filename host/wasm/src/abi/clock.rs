//! Log, clock and timer.

use std::time::Duration;

use wasmtime::{Caller, Linker};

use super::{Answer, BAD_ARGUMENT, Guest, OK, enter};
use crate::host::Level;
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_log", log)?;
    linker.func_wrap("env", "proxy_get_log_level", get_log_level)?;
    linker.func_wrap("env", "proxy_get_current_time_nanoseconds", get_current_time)?;
    linker.func_wrap("env", "proxy_set_tick_period_milliseconds", set_tick_period)?;
    Ok(())
}

fn log(caller: Caller<'_, State>, level: u32, message: u32, length: u32) -> Answer {
    let mut guest = Guest::harmless(caller, "proxy_log")?;
    let Some(level) = Level::from_abi(level) else { return Ok(BAD_ARGUMENT) };
    guest.take(message, length)?;
    let mut text = std::mem::take(&mut guest.state_mut().scratch);
    text.clear();
    text.extend_from_slice(super::slice(guest.parts().0, message, length, "proxy_log")?);
    let state = guest.state_mut();
    if level >= state.host.log_level(&state.config().name) {
        state.guest_log(level, &text);
    }
    state.keep_scratch(text);
    Ok(OK)
}

fn get_log_level(caller: Caller<'_, State>, out: u32) -> Answer {
    let mut guest = Guest::harmless(caller, "proxy_get_log_level")?;
    let state = guest.state();
    let level = state.host.log_level(&state.config().name) as u32;
    guest.write_u32(out, level)?;
    Ok(OK)
}

fn get_current_time(caller: Caller<'_, State>, out: u32) -> Answer {
    let mut guest = Guest::harmless(caller, "proxy_get_current_time_nanoseconds")?;
    let now = guest.state().host.wall_nanos();
    guest.write_u64(out, now)?;
    Ok(OK)
}

fn set_tick_period(caller: Caller<'_, State>, milliseconds: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_set_tick_period_milliseconds");
    let state = guest.state_mut();
    let (id, now) = (state.root(), state.host.monotonic_nanos());
    if let Some(root) = state.roots.iter_mut().find(|root| root.id == id && !root.lingers) {
        root.period = Duration::from_millis(milliseconds.into()).as_nanos() as u64;
        root.due = now.saturating_add(root.period);
        state.host.timer_changed();
    }
    Ok(OK)
}
