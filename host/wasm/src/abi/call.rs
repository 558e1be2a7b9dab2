//! Callouts: HTTP requests, gRPC calls and gRPC streams to the upstreams that the binding allows.

use std::time::Duration;

use bytes::Bytes;
use wasmtime::{Caller, Linker};

use super::{Answer, BAD_ARGUMENT, Guest, INTERNAL_FAILURE, NOT_FOUND, OK, PARSE_FAILURE, enter, header};
use crate::callout::{CallKind, Pending, Reply};
use crate::codec::parse_map;
use crate::error::Shown;
use crate::host::{CalloutError, GrpcCall, HttpCall};
use crate::stats;
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_http_call", http_call)?;
    linker.func_wrap("env", "proxy_grpc_call", grpc_call)?;
    linker.func_wrap("env", "proxy_grpc_stream", grpc_stream)?;
    linker.func_wrap("env", "proxy_grpc_send", grpc_send)?;
    linker.func_wrap("env", "proxy_grpc_cancel", |caller: Caller<'_, State>, token: u32| grpc_end(caller, token, false))?;
    linker.func_wrap("env", "proxy_grpc_close", |caller: Caller<'_, State>, token: u32| grpc_end(caller, token, true))?;
    linker.func_wrap("env", "proxy_get_status", get_status)?;
    Ok(())
}

/// Why a callout does not start; which status that is depends on the function.
enum Refusal {
    NotAllowed,
    BadMap,
    TooMany,
}

/// Counts and says, seldom, that a callout does not start.
fn refused(state: &mut State, function: &'static str, why: &str) {
    state.odd(stats::Counter::CalloutsRefused, function, why);
}

/// What every callout needs before it can start.
struct Start {
    upstream: String,
    metadata: Vec<(Bytes, Bytes)>,
    /// Bytes of the metadata.
    size: usize,
}

impl Start {
    fn read(guest: &mut Guest<'_>, upstream: (u32, u32), metadata: (u32, u32)) -> wasmtime::Result<Result<Self, Refusal>> {
        let upstream = String::from_utf8_lossy(guest.take(upstream.0, upstream.1)?).into_owned();
        let metadata = Bytes::copy_from_slice(guest.take(metadata.0, metadata.1)?);
        let name = guest.name;
        let state = guest.state_mut();
        if !state.config().upstreams.allow(&upstream) {
            refused(state, name, &format!("the binding does not allow the upstream {} (upstreams)", Shown(&upstream)));
            return Ok(Err(Refusal::NotAllowed));
        }
        if state.calls.bytes() > state.config().limits.memory {
            refused(state, name, "the callouts in flight carry more than the binding may have memory (limits.memory)");
            return Ok(Err(Refusal::TooMany));
        }
        if state.calls.len() >= state.config().limits.callouts {
            state.odd(stats::Counter::CalloutsRefused, name, "too many callouts are in flight (limits.callouts)");
            return Ok(Err(Refusal::TooMany));
        }
        Ok(match parse_map(&metadata) {
            Ok(parsed) => {
                let (sound, fewer) = header::sound_request(parsed);
                if fewer {
                    state.odd(stats::Counter::HeaderValuesRefused, name, "headers that no request of a filter may have were left out");
                }
                Ok(Self { upstream, size: metadata.len(), metadata: sound })
            }
            Err(error) => {
                state.odd(stats::Counter::HeaderValuesRefused, name, &error.to_string());
                Err(Refusal::BadMap)
            }
        })
    }
}

/// A callout's token and where its answer goes.
fn begin(state: &mut State, kind: CallKind, bytes: usize) -> (u32, Pending, Reply) {
    let token = state.calls.token(kind);
    let context = if state.effective == 0 { state.context } else { state.effective };
    let pending = Pending { kind, root: state.root(), context, id: state.binding.engine().next_call(), bytes };
    let reply = Reply { vm: state.vm.clone(), token };
    (token, pending, reply)
}

fn started(guest: &mut Guest<'_>, token: u32, pending: Pending, out: u32) -> Answer {
    let state = guest.state_mut();
    state.calls.insert(token, pending);
    state.stats.shift(stats::Level::PendingCallouts, 1);
    guest.write_u32(out, token)?;
    Ok(OK)
}

fn bounded(timeout: u32, state: &State) -> Duration {
    let longest = state.config().limits.callout_timeout;
    match timeout {
        0 => longest,
        milliseconds => Duration::from_millis(milliseconds.into()).min(longest),
    }
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn http_call(
    caller: Caller<'_, State>,
    upstream: u32,
    upstream_length: u32,
    headers: u32,
    headers_length: u32,
    body: u32,
    body_length: u32,
    trailers: u32,
    trailers_length: u32,
    timeout: u32,
    out: u32,
) -> Answer {
    let mut guest = enter!(caller, "proxy_http_call");
    let start = match Start::read(&mut guest, (upstream, upstream_length), (headers, headers_length))? {
        Ok(start) => start,
        Err(Refusal::TooMany) => return Ok(INTERNAL_FAILURE),
        Err(Refusal::NotAllowed | Refusal::BadMap) => return Ok(BAD_ARGUMENT),
    };
    let body = Bytes::copy_from_slice(guest.take(body, body_length)?);
    let trailers = Bytes::copy_from_slice(guest.take(trailers, trailers_length)?);
    let state = guest.state_mut();
    let has = |wanted: &str| start.metadata.iter().any(|(name, value)| name == wanted && !value.is_empty());
    for required in [":method", ":path", ":authority"] {
        if !has(required) {
            refused(state, "proxy_http_call", &format!("the request to {} lacks {required}", Shown(&start.upstream)));
            return Ok(BAD_ARGUMENT);
        }
    }
    let trailers_size = trailers.len();
    let Ok(trailers) = parse_map(&trailers) else { return Ok(BAD_ARGUMENT) };
    let (mut trailers, _) = header::sound_request(trailers);
    trailers.retain(|(name, _)| !name.starts_with(b":"));
    let (token, pending, reply) = begin(state, CallKind::Http, start.size + body.len() + trailers_size);
    let timeout = bounded(timeout, state);
    let binding = state.config().name.clone();
    let call = HttpCall { binding: &binding, upstream: &start.upstream, headers: start.metadata, body, trailers, timeout };
    match state.host.clone().http_call(pending.id, call, reply) {
        Ok(()) => started(&mut guest, token, pending, out),
        Err(CalloutError::UnknownUpstream) => {
            refused(guest.state_mut(), "proxy_http_call", &format!("there is no upstream {}", Shown(&start.upstream)));
            Ok(BAD_ARGUMENT)
        }
        Err(CalloutError::Failed) => Ok(INTERNAL_FAILURE),
    }
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn grpc_call(
    caller: Caller<'_, State>,
    upstream: u32,
    upstream_length: u32,
    service: u32,
    service_length: u32,
    method: u32,
    method_length: u32,
    metadata: u32,
    metadata_length: u32,
    message: u32,
    message_length: u32,
    timeout: u32,
    out: u32,
) -> Answer {
    let mut guest = enter!(caller, "proxy_grpc_call");
    let message = Bytes::copy_from_slice(guest.take(message, message_length)?);
    let timeout = bounded(timeout, guest.state());
    let target = Target { upstream: (upstream, upstream_length), service: (service, service_length), method: (method, method_length) };
    grpc_open(guest, &target, (metadata, metadata_length), Some((message, timeout)), out)
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn grpc_stream(
    caller: Caller<'_, State>,
    upstream: u32,
    upstream_length: u32,
    service: u32,
    service_length: u32,
    method: u32,
    method_length: u32,
    metadata: u32,
    metadata_length: u32,
    out: u32,
) -> Answer {
    let guest = enter!(caller, "proxy_grpc_stream");
    let target = Target { upstream: (upstream, upstream_length), service: (service, service_length), method: (method, method_length) };
    grpc_open(guest, &target, (metadata, metadata_length), None, out)
}

/// Where a gRPC call goes, as pointers and lengths.
struct Target {
    upstream: (u32, u32),
    service: (u32, u32),
    method: (u32, u32),
}

fn grpc_open(mut guest: Guest<'_>, target: &Target, metadata: (u32, u32), unary: Option<(Bytes, Duration)>, out: u32) -> Answer {
    let start = match Start::read(&mut guest, target.upstream, metadata)? {
        Ok(start) => start,
        Err(Refusal::NotAllowed | Refusal::TooMany) => return Ok(INTERNAL_FAILURE),
        Err(Refusal::BadMap) => return Ok(PARSE_FAILURE),
    };
    let service = String::from_utf8_lossy(guest.take(target.service.0, target.service.1)?).into_owned();
    let method = String::from_utf8_lossy(guest.take(target.method.0, target.method.1)?).into_owned();
    let (message, timeout) = unary.unzip();
    let state = guest.state_mut();
    let kind = if message.is_some() { CallKind::GrpcUnary } else { CallKind::GrpcStream };
    let (token, pending, reply) = begin(state, kind, start.size + message.as_ref().map_or(0, Bytes::len));
    let binding = state.config().name.clone();
    let call = GrpcCall {
        binding: &binding,
        upstream: &start.upstream,
        service: &service,
        method: &method,
        metadata: start.metadata,
        message,
        timeout,
    };
    match state.host.clone().grpc_call(pending.id, call, reply) {
        Ok(()) => started(&mut guest, token, pending, out),
        Err(error) => {
            let why = if error == CalloutError::UnknownUpstream { "there is no such upstream" } else { "it cannot be reached" };
            let name = guest.name;
            refused(guest.state_mut(), name, &format!("the gRPC call to {}: {why}", Shown(&start.upstream)));
            Ok(INTERNAL_FAILURE)
        }
    }
}

fn grpc_send(caller: Caller<'_, State>, token: u32, message: u32, length: u32, end_of_stream: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_grpc_send");
    let Some(pending) = guest.state().calls.get(token).filter(|call| call.kind == CallKind::GrpcStream) else { return Ok(NOT_FOUND) };
    let message = Bytes::copy_from_slice(guest.take(message, length)?);
    guest.state().host.grpc_send(pending.id, message, end_of_stream != 0);
    Ok(OK)
}

/// Cancels a call. Closing a stream is its polite form: what the peer still sends arrives, and then the close.
fn grpc_end(caller: Caller<'_, State>, token: u32, polite: bool) -> Answer {
    let mut guest = enter!(caller, "proxy_grpc_cancel");
    let state = guest.state_mut();
    let Some(pending) = state.calls.get(token).filter(|call| call.kind != CallKind::Http) else { return Ok(NOT_FOUND) };
    let half_close = polite && pending.kind == CallKind::GrpcStream;
    if !half_close {
        state.calls.remove(token);
        state.stats.shift(stats::Level::PendingCallouts, -1);
    }
    state.host.cancel(pending.id, half_close);
    Ok(OK)
}

fn get_status(caller: Caller<'_, State>, out_code: u32, out_pointer: u32, out_size: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_get_status");
    let (code, message) = guest.state().status.clone();
    guest.write_u32(out_code, code)?;
    guest.give(message.as_bytes(), out_pointer, out_size)
}
