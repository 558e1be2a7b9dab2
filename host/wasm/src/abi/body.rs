//! Buffers: bodies, TCP data, what callouts brought, configurations, foreign-function arguments.

use bytes::Bytes;
use wasmtime::{Caller, Linker};

use super::{Answer, BAD_ARGUMENT, Guest, NOT_FOUND, OK, enter};
use crate::binding::BodyAccess;
use crate::host::Side;
use crate::stats::Counter;
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_get_buffer_bytes", get_bytes)?;
    linker.func_wrap("env", "proxy_get_buffer_status", get_status)?;
    linker.func_wrap("env", "proxy_set_buffer_bytes", set_bytes)?;
    linker.func_wrap("env", "proxy_get_configuration", |caller: Caller<'_, State>, pointer: u32, size: u32| {
        let mut guest = enter!(caller, "proxy_get_configuration");
        let configuration = guest.state().configuration();
        guest.give(&configuration, pointer, size)
    })?;
    Ok(())
}

/// The side whose body a buffer number means. TCP data and HTTP bodies are one thing here.
fn side_of(buffer: u32) -> Option<Side> {
    match buffer {
        0 | 2 => Some(Side::Request),
        1 | 3 => Some(Side::Response),
        _ => None,
    }
}

/// The buffers that belong to no stream, cheap to hold while guest memory is written.
fn fixed(state: &State, buffer: u32) -> Option<Bytes> {
    match buffer {
        4 => state.delivered.as_ref()?.body.clone(),
        5 => state.delivered.as_ref()?.message.clone(),
        6 => Some(state.config().vm_configuration.clone()),
        7 => Some(state.configuration()),
        8 => Some(state.foreign_arguments.clone()),
        _ => None,
    }
}

fn get_bytes(caller: Caller<'_, State>, buffer: u32, start: u32, max: u32, out_pointer: u32, out_size: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_get_buffer_bytes");
    if buffer > 8 || start.checked_add(max).is_none() {
        return Ok(BAD_ARGUMENT);
    }
    let (start, max) = (start as usize, max as usize);
    let Some(side) = side_of(buffer) else {
        let Some(bytes) = fixed(guest.state(), buffer) else { return Ok(NOT_FOUND) };
        let rest = bytes.get(start..).unwrap_or_default();
        return guest.give(rest.get(..max).unwrap_or(rest), out_pointer, out_size);
    };
    let Some((cell, stage)) = guest.state().stream().map(|stream| (stream.cell.clone(), stream.stage)) else { return Ok(NOT_FOUND) };
    let Ok(mut flow) = cell.flow.try_borrow_mut() else { return Ok(NOT_FOUND) };
    match flow.body(stage, side) {
        Some(body) => guest.give(body.slice(start, max), out_pointer, out_size),
        None => Ok(NOT_FOUND),
    }
}

fn get_status(caller: Caller<'_, State>, buffer: u32, out_size: u32, out_flags: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_get_buffer_status");
    let size = match side_of(buffer) {
        None if buffer > 8 => return Ok(BAD_ARGUMENT),
        None => fixed(guest.state(), buffer).map(|bytes| bytes.len()),
        Some(side) => guest.state().stream().and_then(|stream| {
            let mut flow = stream.cell.flow.try_borrow_mut().ok()?;
            flow.body(stream.stage, side).map(|body| body.len())
        }),
    };
    let Some(size) = size else { return Ok(NOT_FOUND) };
    guest.write_u32(out_size, size as u32)?;
    guest.write_u32(out_flags, 0)?;
    Ok(OK)
}

fn set_bytes(caller: Caller<'_, State>, buffer: u32, start: u32, size: u32, data: u32, length: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_set_buffer_bytes");
    if buffer > 8 {
        return Ok(BAD_ARGUMENT);
    }
    let (data, _, state) = guest.take_two((data, length), (0, 0))?;
    if let Some(side) = side_of(buffer)
        && outgrows(state, side, start as usize, size as usize, data.len())
    {
        too_large(state, side);
        return Ok(OK);
    }
    let written = match side_of(buffer) {
        None => Err("only bodies can be changed"),
        Some(side) => splice(state, side, start as usize, size as usize, data),
    };
    if let Err(why) = written {
        guest.state_mut().wrong_phase("proxy_set_buffer_bytes", why);
    }
    Ok(OK)
}

/// Whether the change would make a body larger than one callback may hand over and than the binding may hold. Without this a filter could
/// let a body that it holds grow a little in every callback.
fn outgrows(state: &State, side: Side, start: usize, size: usize, added: usize) -> bool {
    let limits = &state.config().limits;
    let length = state.stream().and_then(|stream| stream.cell.flow.try_borrow_mut().ok()?.body(stream.stage, side).map(|body| body.len()));
    length.is_some_and(|length| {
        let start = start.min(length);
        let kept = length - size.min(length - start);
        added > 0 && kept.saturating_add(added) > limits.body.max(limits.host_output)
    })
}

/// The stream ends as it does when more of a body arrives than may be held.
fn too_large(state: &mut State, side: Side) {
    state.odd(Counter::BodyLimitHits, "proxy_set_buffer_bytes", "the body would be larger than limits.body and limits.host_output");
    let binding = state.config().name.clone();
    let Some(stream) = state.stream() else { return };
    if let Ok(mut flow) = stream.cell.flow.try_borrow_mut() {
        flow.body_too_large(&binding, side);
    }
    stream.cell.wake();
}

fn splice(state: &State, side: Side, start: usize, size: usize, data: &[u8]) -> Result<(), &'static str> {
    let stream = state.stream().ok_or("there is no stream in this context")?;
    let mut flow = stream.cell.flow.try_borrow_mut().map_err(|_| "the stream is busy")?;
    if flow.stages[stream.stage].body_access == BodyAccess::ReadOnly {
        return Err("this binding only reads bodies (bodyAccess: ReadOnly)");
    }
    let body = flow.body(stream.stage, side).ok_or("the body can be changed in its callback, and while the filter holds it")?;
    let before = body.len();
    body.splice(start, size, data);
    let resized = body.len() != before;
    flow.stages[stream.stage].resized[side as usize] |= resized;
    Ok(())
}
