//! Streams: continue, close, answer, switch to another context, finish.
//!
//! Nothing here runs another callback: what is asked for is written down, and the stream's runner acts on it when this callback has returned.

use bytes::Bytes;
use wasmtime::{Caller, Linker};

use super::{Answer, BAD_ARGUMENT, Guest, NOT_FOUND, OK, enter};
use crate::codec::parse_map;
use crate::host::Side;
use crate::stats::Counter;
use crate::stream::reply::{Asked, Asker, Refused};
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_continue_stream", |caller: Caller<'_, State>, stream: u32| match side_of(stream) {
        Some(side) => resume(caller, side),
        None => Ok(BAD_ARGUMENT),
    })?;
    linker.func_wrap("env", "proxy_continue_request", |caller: Caller<'_, State>| resume(caller, Side::Request))?;
    linker.func_wrap("env", "proxy_continue_response", |caller: Caller<'_, State>| resume(caller, Side::Response))?;
    linker.func_wrap("env", "proxy_close_stream", close)?;
    linker.func_wrap("env", "proxy_send_local_response", send_local_response)?;
    linker.func_wrap("env", "proxy_clear_route_cache", |caller: Caller<'_, State>| {
        let mut guest = enter!(caller, "proxy_clear_route_cache");
        clear_route_cache(guest.state_mut());
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_set_effective_context", set_effective_context)?;
    linker.func_wrap("env", "proxy_done", done)?;
    Ok(())
}

/// Request and downstream are one direction, response and upstream the other.
fn side_of(stream: u32) -> Option<Side> {
    match stream {
        0 | 2 => Some(Side::Request),
        1 | 3 => Some(Side::Response),
        _ => None,
    }
}

fn resume(caller: Caller<'_, State>, side: Side) -> Answer {
    let guest = enter!(caller, "proxy_continue_stream");
    let Some(stream) = guest.state().stream() else { return Ok(OK) };
    let moved = stream.cell.flow.try_borrow_mut().is_ok_and(|mut flow| flow.resume(stream.stage, side));
    if moved {
        stream.cell.wake();
    }
    Ok(OK)
}

fn close(caller: Caller<'_, State>, stream: u32) -> Answer {
    let guest = enter!(caller, "proxy_close_stream");
    if side_of(stream).is_none() {
        return Ok(BAD_ARGUMENT);
    }
    let Some(stream) = guest.state().stream() else { return Ok(OK) };
    if let Ok(mut flow) = stream.cell.flow.try_borrow_mut() {
        flow.reset();
    }
    stream.cell.wake();
    Ok(OK)
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn send_local_response(
    caller: Caller<'_, State>,
    status: u32,
    details: u32,
    details_length: u32,
    body: u32,
    body_length: u32,
    headers: u32,
    headers_length: u32,
    grpc_status: u32,
) -> Answer {
    let mut guest = enter!(caller, "proxy_send_local_response");
    let details = String::from_utf8_lossy(guest.take(details, details_length)?).into_owned();
    let body = Bytes::copy_from_slice(guest.take(body, body_length)?);
    let headers = Bytes::copy_from_slice(guest.take(headers, headers_length)?);
    let state = guest.state_mut();
    let headers = match parse_map(&headers) {
        Ok(headers) => sound_headers(state, headers),
        Err(error) => {
            state.odd(Counter::HeaderValuesRefused, "proxy_send_local_response", &error.to_string());
            Vec::new()
        }
    };
    let status = u16::try_from(status).ok().filter(|status| (200..=599).contains(status)).unwrap_or_else(|| {
        state.odd(Counter::HeaderValuesRefused, "proxy_send_local_response", &format!("{status} is no final HTTP status; 500 is sent"));
        500
    });
    let binding = state.config().name.clone();
    let details = if details.is_empty() { format!("wasm_reply{{{binding}}}") } else { details };
    let Some(stream) = state.stream() else {
        state.wrong_phase("proxy_send_local_response", "there is no stream in this context");
        return Ok(OK);
    };
    let asker = Some(Asker { stage: stream.stage, turn: state.turn });
    let grpc_status = (grpc_status != u32::MAX).then_some(grpc_status);
    let asked = Asked { status, details, headers, body, grpc_status, binding, asker };
    match stream.cell.flow.try_borrow_mut().map_or(Err(Refused::Busy), |mut flow| flow.ask_reply(asked)) {
        Ok(()) => stream.cell.wake(),
        Err(Refused::Answered) => {
            state.odd(
                Counter::DuplicatesIgnored,
                "proxy_send_local_response",
                "this stream has been answered already; the reply is ignored",
            );
        }
        Err(why) => state.wrong_phase("proxy_send_local_response", why.explanation()),
    }
    Ok(OK)
}

/// The headers that may stand in a reply, names in lower case.
fn sound_headers(state: &mut State, headers: Vec<(Bytes, Bytes)>) -> Vec<(Bytes, Bytes)> {
    let count = headers.len();
    let sound = |(name, value): (Bytes, Bytes)| {
        let fine = super::header::is_sound(&name, &value);
        fine.then(|| (if super::header::has_uppercase(&name) { name.to_ascii_lowercase().into() } else { name }, value))
    };
    let headers: Vec<_> = headers.into_iter().filter_map(sound).collect();
    if headers.len() < count {
        state.odd(Counter::HeaderValuesRefused, "proxy_send_local_response", "headers with impossible names or values were left out");
    }
    headers
}

pub(super) fn clear_route_cache(state: &mut State) {
    if let Some(stream) = state.stream()
        && let Ok(mut host) = stream.cell.host.try_borrow_mut()
    {
        host.clear_route_cache();
    }
}

fn set_effective_context(caller: Caller<'_, State>, context: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_set_effective_context");
    let state = guest.state_mut();
    if state.contexts.get(context).is_none() {
        return Ok(BAD_ARGUMENT);
    }
    state.effective = context;
    Ok(OK)
}

fn done(caller: Caller<'_, State>) -> Answer {
    let mut guest = enter!(caller, "proxy_done");
    let state = guest.state_mut();
    let id = state.root();
    match state.roots.iter_mut().find(|root| root.id == id && root.lingers) {
        Some(root) => {
            root.lingers = false;
            Ok(OK)
        }
        None => Ok(NOT_FOUND),
    }
}
