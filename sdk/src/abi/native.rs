//! Host calls where there is no Wasm: each goes to whoever runs the filter on this thread.
//!
//! A test's host answers them, by running the same call in the production host. Without one (a plain unit test of a filter's logic) the log goes nowhere,
//! time stands at 0, and everything else answers "not implemented". What it does not do: know a single host function's meaning.

use std::cell::RefCell;

use super::arena::keep;
use crate::native::{Argument, Caller, Outcome};

thread_local! {
    static CALLER: RefCell<Option<Box<dyn Caller>>> = const { RefCell::new(None) };
}

const UNIMPLEMENTED: u32 = 12;

/// Answers this thread's host calls from now on.
pub(crate) fn install(caller: Option<Box<dyn Caller>>) {
    CALLER.set(caller);
}

fn call(function: &str, arguments: &[Argument<'_>]) -> Outcome {
    CALLER.with_borrow_mut(|caller| match caller {
        Some(caller) => caller.call(function, arguments),
        None => Outcome { status: UNIMPLEMENTED, ..Outcome::default() },
    })
}

fn status(function: &str, arguments: &[Argument<'_>]) -> u32 {
    call(function, arguments).status
}

/// A call that answers with bytes.
fn bytes<'a>(function: &str, arguments: &[Argument<'_>]) -> Result<&'a [u8], u32> {
    let outcome = call(function, arguments);
    if outcome.status == 0 { Ok(keep(&outcome.bytes)) } else { Err(outcome.status) }
}

/// A call that answers with a number.
fn number(function: &str, arguments: &[Argument<'_>]) -> Result<u32, u32> {
    let outcome = call(function, arguments);
    if outcome.status == 0 { Ok(u32::try_from(outcome.number).unwrap_or(u32::MAX)) } else { Err(outcome.status) }
}

use Argument::{Bytes as B, Number as N, OutBytes, OutNumber};

pub(super) fn get_header<'a>(map: u32, name: &[u8]) -> Result<&'a [u8], u32> {
    bytes("proxy_get_header_map_value", &[N(map.into()), B(name), OutBytes])
}

pub(super) fn get_headers<'a>(map: u32) -> Result<&'a [u8], u32> {
    bytes("proxy_get_header_map_pairs", &[N(map.into()), OutBytes])
}

pub(super) fn set_headers(map: u32, encoded: &[u8]) -> u32 {
    status("proxy_set_header_map_pairs", &[N(map.into()), B(encoded)])
}

pub(super) fn add_header(map: u32, name: &[u8], value: &[u8]) -> u32 {
    status("proxy_add_header_map_value", &[N(map.into()), B(name), B(value)])
}

pub(super) fn replace_header(map: u32, name: &[u8], value: &[u8]) -> u32 {
    status("proxy_replace_header_map_value", &[N(map.into()), B(name), B(value)])
}

pub(super) fn remove_header(map: u32, name: &[u8]) -> u32 {
    status("proxy_remove_header_map_value", &[N(map.into()), B(name)])
}

pub(super) fn get_buffer<'a>(buffer: u32, start: u32, most: u32) -> Result<&'a [u8], u32> {
    bytes("proxy_get_buffer_bytes", &[N(buffer.into()), N(start.into()), N(most.into()), OutBytes])
}

pub(super) fn set_buffer(buffer: u32, start: u32, size: u32, data: &[u8]) -> u32 {
    status("proxy_set_buffer_bytes", &[N(buffer.into()), N(start.into()), N(size.into()), B(data)])
}

pub(super) fn get_property<'a>(path: &[u8]) -> Result<&'a [u8], u32> {
    bytes("proxy_get_property", &[B(path), OutBytes])
}

pub(super) fn set_property(path: &[u8], value: &[u8]) -> u32 {
    status("proxy_set_property", &[B(path), B(value)])
}

pub(super) fn local_reply(code: u32, details: &[u8], body: &[u8], headers: &[u8], grpc: u32) -> u32 {
    status("proxy_send_local_response", &[N(code.into()), B(details), B(body), B(headers), N(grpc.into())])
}

pub(super) fn resume(stream: u32) -> u32 {
    status("proxy_continue_stream", &[N(stream.into())])
}

pub(super) fn close(stream: u32) -> u32 {
    status("proxy_close_stream", &[N(stream.into())])
}

pub(super) fn http_call(cluster: &[u8], headers: &[u8], body: &[u8], trailers: &[u8], timeout: u32) -> Result<u32, u32> {
    number("proxy_http_call", &[B(cluster), B(headers), B(body), B(trailers), N(timeout.into()), OutNumber])
}

pub(super) fn grpc_call(cluster: &[u8], service: &[u8], method: &[u8], metadata: &[u8], message: &[u8], timeout: u32) -> Result<u32, u32> {
    number("proxy_grpc_call", &[B(cluster), B(service), B(method), B(metadata), B(message), N(timeout.into()), OutNumber])
}

pub(super) fn grpc_stream(cluster: &[u8], service: &[u8], method: &[u8], metadata: &[u8]) -> Result<u32, u32> {
    number("proxy_grpc_stream", &[B(cluster), B(service), B(method), B(metadata), OutNumber])
}

pub(super) fn grpc_send(id: u32, message: &[u8], end: bool) -> u32 {
    status("proxy_grpc_send", &[N(id.into()), B(message), N(end.into())])
}

pub(super) fn grpc_close(id: u32) -> u32 {
    status("proxy_grpc_close", &[N(id.into())])
}

pub(super) fn register_queue(name: &[u8]) -> Result<u32, u32> {
    number("proxy_register_shared_queue", &[B(name), OutNumber])
}

pub(super) fn resolve_queue(vm: &[u8], name: &[u8]) -> Result<u32, u32> {
    number("proxy_resolve_shared_queue", &[B(vm), B(name), OutNumber])
}

pub(super) fn enqueue(queue: u32, item: &[u8]) -> u32 {
    status("proxy_enqueue_shared_queue", &[N(queue.into()), B(item)])
}

pub(super) fn dequeue<'a>(queue: u32) -> Result<&'a [u8], u32> {
    bytes("proxy_dequeue_shared_queue", &[N(queue.into()), OutBytes])
}

pub(super) fn grpc_cancel(id: u32) {
    status("proxy_grpc_cancel", &[N(id.into())]);
}

pub(super) fn call_status<'a>() -> Result<(u32, &'a [u8]), u32> {
    let outcome = call("proxy_get_status", &[OutNumber, OutBytes]);
    if outcome.status == 0 { Ok((u32::try_from(outcome.number).unwrap_or(u32::MAX), keep(&outcome.bytes))) } else { Err(outcome.status) }
}

pub(super) fn effective_context(context: u32) -> u32 {
    status("proxy_set_effective_context", &[N(context.into())])
}

pub(super) fn now() -> u64 {
    call("proxy_get_current_time_nanoseconds", &[OutNumber]).number
}

/// The relay has no such call: the standard library's keys are as random as a test needs.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

pub(super) fn set_tick(millis: u32) -> u32 {
    status("proxy_set_tick_period_milliseconds", &[N(millis.into())])
}

pub(super) fn log(level: u32, message: &[u8]) {
    status("proxy_log", &[N(level.into()), B(message)]);
}

pub(super) fn log_level() -> Option<u32> {
    number("proxy_get_log_level", &[OutNumber]).ok()
}

pub(super) fn define_metric(kind: u32, name: &[u8]) -> Result<u32, u32> {
    number("proxy_define_metric", &[N(kind.into()), B(name), OutNumber])
}

pub(super) fn increment_metric(metric: u32, by: i64) {
    status("proxy_increment_metric", &[N(metric.into()), N(by.cast_unsigned())]);
}

pub(super) fn record_metric(metric: u32, value: u64) {
    status("proxy_record_metric", &[N(metric.into()), N(value)]);
}

pub(super) fn shared_data<'a>(key: &[u8]) -> Result<(&'a [u8], u32), u32> {
    let outcome = call("proxy_get_shared_data", &[B(key), OutBytes, OutNumber]);
    if outcome.status == 0 { Ok((keep(&outcome.bytes), u32::try_from(outcome.number).unwrap_or(u32::MAX))) } else { Err(outcome.status) }
}

pub(super) fn set_shared_data(key: &[u8], value: &[u8], version: u32) -> u32 {
    status("proxy_set_shared_data", &[B(key), B(value), N(version.into())])
}

pub(super) fn foreign<'a>(name: &[u8], arguments: &[u8]) -> Result<&'a [u8], u32> {
    bytes("proxy_call_foreign_function", &[B(name), B(arguments), OutBytes])
}
