//! The host's imports.

#![allow(unsafe_code, reason = "the ABI is raw pointers and lengths; here they end")]

use std::ptr;

use super::arena::lent;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_log_level(level: *mut u32) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: u32, most: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: u32, size: u32, data: *const u8, length: usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_header_map_value(map: u32, key: *const u8, length: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_add_header_map_value(map: u32, key: *const u8, key_size: usize, value: *const u8, size: usize) -> u32;
    fn proxy_replace_header_map_value(map: u32, key: *const u8, key_size: usize, value: *const u8, size: usize) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, size: usize) -> u32;
    fn proxy_get_property(path: *const u8, length: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, length: usize, value: *const u8, size: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc: u32,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        id: *mut u32,
    ) -> u32;
    fn proxy_grpc_call(
        cluster: *const u8,
        cluster_size: usize,
        service: *const u8,
        service_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        message: *const u8,
        message_size: usize,
        timeout: u32,
        id: *mut u32,
    ) -> u32;
    fn proxy_grpc_stream(
        cluster: *const u8,
        cluster_size: usize,
        service: *const u8,
        service_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        id: *mut u32,
    ) -> u32;
    fn proxy_grpc_send(id: u32, message: *const u8, size: usize, end: u32) -> u32;
    fn proxy_grpc_close(id: u32) -> u32;
    fn proxy_grpc_cancel(id: u32) -> u32;
    fn proxy_register_shared_queue(name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_resolve_shared_queue(vm: *const u8, vm_size: usize, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_enqueue_shared_queue(id: u32, item: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_status(code: *mut u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_get_shared_data(key: *const u8, length: usize, data: *mut *mut u8, size: *mut usize, version: *mut u32) -> u32;
    fn proxy_set_shared_data(key: *const u8, length: usize, value: *const u8, size: usize, version: u32) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn random_get(buffer: *mut u8, size: usize) -> u32;
}

/// What a call answered with bytes.
#[inline]
fn answer<'a>(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<&'a [u8], u32> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    match call(&mut data, &mut size) {
        0 => Ok(lent(data, size)),
        status => Err(status),
    }
}

/// What a call answered with a number.
#[inline]
fn number(call: impl FnOnce(*mut u32) -> u32) -> Result<u32, u32> {
    let mut out = 0;
    match call(&mut out) {
        0 => Ok(out),
        status => Err(status),
    }
}

// SAFETY of every block below: each pointer is that of a live slice with its own length, or of a live local that outlives the call.

#[inline]
pub(super) fn get_header<'a>(map: u32, name: &[u8]) -> Result<&'a [u8], u32> {
    // SAFETY: see above.
    answer(|data, size| unsafe { proxy_get_header_map_value(map, name.as_ptr(), name.len(), data, size) })
}

pub(super) fn get_headers<'a>(map: u32) -> Result<&'a [u8], u32> {
    // SAFETY: see above.
    answer(|data, size| unsafe { proxy_get_header_map_pairs(map, data, size) })
}

pub(super) fn set_headers(map: u32, encoded: &[u8]) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_set_header_map_pairs(map, encoded.as_ptr(), encoded.len()) }
}

#[inline]
pub(super) fn add_header(map: u32, name: &[u8], value: &[u8]) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_add_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
}

#[inline]
pub(super) fn replace_header(map: u32, name: &[u8], value: &[u8]) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
}

#[inline]
pub(super) fn remove_header(map: u32, name: &[u8]) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_remove_header_map_value(map, name.as_ptr(), name.len()) }
}

pub(super) fn get_buffer<'a>(buffer: u32, start: u32, most: u32) -> Result<&'a [u8], u32> {
    // SAFETY: see above.
    answer(|data, size| unsafe { proxy_get_buffer_bytes(buffer, start, most, data, size) })
}

pub(super) fn set_buffer(buffer: u32, start: u32, size: u32, bytes: &[u8]) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_set_buffer_bytes(buffer, start, size, bytes.as_ptr(), bytes.len()) }
}

#[inline]
pub(super) fn get_property<'a>(path: &[u8]) -> Result<&'a [u8], u32> {
    // SAFETY: see above.
    answer(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

#[inline]
pub(super) fn set_property(path: &[u8], value: &[u8]) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
}

pub(super) fn local_reply(status: u32, details: &[u8], body: &[u8], headers: &[u8], grpc: u32) -> u32 {
    let (d, b, h) = (details, body, headers);
    // SAFETY: see above.
    unsafe { proxy_send_local_response(status, d.as_ptr(), d.len(), b.as_ptr(), b.len(), h.as_ptr(), h.len(), grpc) }
}

pub(super) fn resume(stream: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { proxy_continue_stream(stream) }
}

pub(super) fn close(stream: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { proxy_close_stream(stream) }
}

pub(super) fn http_call(cluster: &[u8], headers: &[u8], body: &[u8], trailers: &[u8], timeout: u32) -> Result<u32, u32> {
    let (c, h, b, t) = (cluster, headers, body, trailers);
    // SAFETY: see above.
    number(|id| unsafe { proxy_http_call(c.as_ptr(), c.len(), h.as_ptr(), h.len(), b.as_ptr(), b.len(), t.as_ptr(), t.len(), timeout, id) })
}

pub(super) fn grpc_call(cluster: &[u8], service: &[u8], method: &[u8], metadata: &[u8], message: &[u8], timeout: u32) -> Result<u32, u32> {
    let (c, s, m, i, b) = (cluster, service, method, metadata, message);
    // SAFETY: see above.
    number(|id| unsafe {
        proxy_grpc_call(
            c.as_ptr(),
            c.len(),
            s.as_ptr(),
            s.len(),
            m.as_ptr(),
            m.len(),
            i.as_ptr(),
            i.len(),
            b.as_ptr(),
            b.len(),
            timeout,
            id,
        )
    })
}

pub(super) fn grpc_stream(cluster: &[u8], service: &[u8], method: &[u8], metadata: &[u8]) -> Result<u32, u32> {
    let (c, s, m, h) = (cluster, service, method, metadata);
    // SAFETY: see above.
    number(|id| unsafe { proxy_grpc_stream(c.as_ptr(), c.len(), s.as_ptr(), s.len(), m.as_ptr(), m.len(), h.as_ptr(), h.len(), id) })
}

pub(super) fn grpc_send(id: u32, message: &[u8], end: bool) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_grpc_send(id, message.as_ptr(), message.len(), end.into()) }
}

pub(super) fn grpc_close(id: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { proxy_grpc_close(id) }
}

pub(super) fn register_queue(name: &[u8]) -> Result<u32, u32> {
    // SAFETY: see above.
    number(|id| unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), id) })
}

pub(super) fn resolve_queue(vm: &[u8], name: &[u8]) -> Result<u32, u32> {
    // SAFETY: see above.
    number(|id| unsafe { proxy_resolve_shared_queue(vm.as_ptr(), vm.len(), name.as_ptr(), name.len(), id) })
}

pub(super) fn enqueue(queue: u32, item: &[u8]) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_enqueue_shared_queue(queue, item.as_ptr(), item.len()) }
}

pub(super) fn dequeue<'a>(queue: u32) -> Result<&'a [u8], u32> {
    // SAFETY: see above.
    answer(|data, size| unsafe { proxy_dequeue_shared_queue(queue, data, size) })
}

pub(super) fn grpc_cancel(call: u32) {
    // SAFETY: no pointers.
    unsafe { proxy_grpc_cancel(call) };
}

pub(super) fn call_status<'a>() -> Result<(u32, &'a [u8]), u32> {
    let mut code = 0;
    // SAFETY: see above.
    let text = answer(|data, size| unsafe { proxy_get_status(&mut code, data, size) })?;
    Ok((code, text))
}

pub(super) fn effective_context(context: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { proxy_set_effective_context(context) }
}

#[inline]
pub(super) fn now() -> u64 {
    let mut time = 0;
    // SAFETY: see above.
    unsafe { proxy_get_current_time_nanoseconds(&mut time) };
    time
}

pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: see above.
    unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    u64::from_le_bytes(bytes)
}

pub(super) fn set_tick(millis: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { proxy_set_tick_period_milliseconds(millis) }
}

pub(super) fn log(level: u32, message: &[u8]) {
    // SAFETY: see above.
    unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

pub(super) fn log_level() -> Option<u32> {
    // SAFETY: see above.
    number(|level| unsafe { proxy_get_log_level(level) }).ok()
}

pub(super) fn define_metric(kind: u32, name: &[u8]) -> Result<u32, u32> {
    // SAFETY: see above.
    number(|id| unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), id) })
}

#[inline]
pub(super) fn increment_metric(metric: u32, by: i64) {
    // SAFETY: no pointers.
    unsafe { proxy_increment_metric(metric, by) };
}

#[inline]
pub(super) fn record_metric(metric: u32, value: u64) {
    // SAFETY: no pointers.
    unsafe { proxy_record_metric(metric, value) };
}

pub(super) fn shared_data<'a>(key: &[u8]) -> Result<(&'a [u8], u32), u32> {
    let mut version = 0;
    // SAFETY: see above.
    let value = answer(|data, size| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut version) })?;
    Ok((value, version))
}

pub(super) fn set_shared_data(key: &[u8], value: &[u8], version: u32) -> u32 {
    // SAFETY: see above.
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version) }
}

pub(super) fn foreign<'a>(name: &[u8], arguments: &[u8]) -> Result<&'a [u8], u32> {
    let (n, a) = (name, arguments);
    // SAFETY: see above.
    answer(|data, size| unsafe { proxy_call_foreign_function(n.as_ptr(), n.len(), a.as_ptr(), a.len(), data, size) })
}
