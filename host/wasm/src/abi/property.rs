//! Properties: attributes under Envoy's names and in its encodings, and filter state.
//!
//! What follows from the header maps and from the binding is answered here, the same in every proxy; the rest is the host's. What a filter sets is
//! filter state of the stream: readable by its plain name, by later filters and by access logs, also under Envoy's `wasm.` prefix.

use wasmtime::{Caller, Linker};

use super::header::find;
use super::{Answer, Guest, NOT_FOUND, OK, enter};
use crate::binding::BindingConfig;
use crate::codec::{Pairs, Path, map_size, write_map};
use crate::host::{Attribute, MessageMap, StreamHost};
use crate::stats::Counter;
use crate::stream::StreamCell;
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_get_property", get)?;
    linker.func_wrap("env", "proxy_set_property", set)?;
    Ok(())
}

fn get(caller: Caller<'_, State>, path: u32, length: u32, out_pointer: u32, out_size: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_get_property");
    let mut bytes = std::mem::take(&mut guest.state_mut().scratch);
    bytes.clear();
    bytes.extend_from_slice(guest.take(path, length)?);
    let answer = answer(&mut guest, Path::new(&bytes), out_pointer, out_size);
    guest.state_mut().keep_scratch(bytes);
    answer
}

fn answer(guest: &mut Guest<'_>, path: Path<'_>, out_pointer: u32, out_size: u32) -> Answer {
    if path.as_bytes().starts_with(b"plugin_") {
        let binding = guest.state().binding.clone();
        if let Some(value) = of_binding(binding.config(), path) {
            return guest.give(value.as_bytes(), out_pointer, out_size);
        }
    }
    let Some(cell) = guest.state().stream().map(|stream| stream.cell.clone()) else {
        return outside_streams(guest, path, out_pointer, out_size);
    };
    if let Ok(flow) = cell.flow.try_borrow()
        && let Some(value) = flow.properties.get(path.without_prefix())
    {
        return guest.give(value, out_pointer, out_size);
    }
    if let Some(answer) = of_headers(guest, &cell, path, out_pointer, out_size) {
        return answer;
    }
    let host = guest.state().host.clone();
    let stream = cell.host.try_borrow().ok();
    match stream.as_ref().and_then(|stream| stream.attribute(path)).or_else(|| host.attribute(path)) {
        Some(value) => give(guest, &value, out_pointer, out_size),
        None => Ok(NOT_FOUND),
    }
}

fn outside_streams(guest: &mut Guest<'_>, path: Path<'_>, out_pointer: u32, out_size: u32) -> Answer {
    // Taken out rather than copied; nothing but the guest's allocator runs meanwhile, and it reaches no properties.
    let properties = std::mem::take(&mut guest.state_mut().properties);
    let answer = properties.get(path.without_prefix()).map(|value| guest.give(value, out_pointer, out_size));
    guest.state_mut().properties = properties;
    if let Some(answer) = answer {
        return answer;
    }
    let host = guest.state().host.clone();
    match host.attribute(path) {
        Some(value) => give(guest, &value, out_pointer, out_size),
        None => Ok(NOT_FOUND),
    }
}

fn of_binding<'c>(config: &'c BindingConfig, path: Path<'_>) -> Option<&'c str> {
    match path.as_bytes() {
        b"plugin_name" => Some(&config.name),
        b"plugin_root_id" => Some(&config.root_id),
        b"plugin_vm_id" => Some(config.vm_id()),
        _ => None,
    }
}

/// `request.…` and `response.…` that are header values, parts of one, or sizes.
fn of_headers(guest: &mut Guest<'_>, cell: &StreamCell<dyn StreamHost>, path: Path<'_>, out_pointer: u32, out_size: u32) -> Option<Answer> {
    use MessageMap::{RequestHeaders, RequestTrailers, ResponseHeaders, ResponseTrailers};
    let (first, rest) = path.split();
    let (second, third) = rest.split();
    let (map, name): (MessageMap, &[u8]) = match (first, second) {
        (b"request", b"path") => (RequestHeaders, b":path"),
        (b"request", b"host") => (RequestHeaders, b":authority"),
        (b"request", b"scheme") => (RequestHeaders, b":scheme"),
        (b"request", b"method") => (RequestHeaders, b":method"),
        (b"request", b"referer") => (RequestHeaders, b"referer"),
        (b"request", b"useragent") => (RequestHeaders, b"user-agent"),
        (b"request", b"id") => (RequestHeaders, b"x-request-id"),
        (b"request", b"headers") => (RequestHeaders, third.as_bytes()),
        (b"request", b"trailers") => (RequestTrailers, third.as_bytes()),
        (b"response", b"headers") => (ResponseHeaders, third.as_bytes()),
        (b"response", b"trailers") => (ResponseTrailers, third.as_bytes()),
        (b"request", b"url_path" | b"query") => (RequestHeaders, b":path"),
        (b"response", b"code") => (ResponseHeaders, b":status"),
        (b"response", b"grpc_status") => return Some(grpc_status(guest, cell, out_pointer, out_size)),
        (b"request" | b"response", b"size" | b"headers_bytes" | b"total_size") => {
            return size(cell, first == b"response", second).map(|size| give(guest, &Attribute::Int(size), out_pointer, out_size));
        }
        _ => return None,
    };
    let mut host = cell.host.try_borrow_mut().ok()?;
    let headers = host.headers(map)?;
    if name.is_empty() {
        return Some(guest.give_with(map_size(headers), out_pointer, out_size, |target| write_map(headers, target)));
    }
    let Some(value) = find(headers, name) else { return Some(Ok(NOT_FOUND)) };
    Some(match second {
        b"url_path" => guest.give(split_query(value).0, out_pointer, out_size),
        b"query" => guest.give(split_query(value).1, out_pointer, out_size),
        b"code" => {
            let code = std::str::from_utf8(value).ok().and_then(|code| code.parse().ok()).unwrap_or(0);
            give(guest, &Attribute::Int(code), out_pointer, out_size)
        }
        _ => guest.give(value, out_pointer, out_size),
    })
}

fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &[]),
    }
}

fn grpc_status(guest: &mut Guest<'_>, cell: &StreamCell<dyn StreamHost>, out_pointer: u32, out_size: u32) -> Answer {
    let mut found = None;
    if let Ok(mut host) = cell.host.try_borrow_mut() {
        for map in [MessageMap::ResponseTrailers, MessageMap::ResponseHeaders] {
            let value = host.headers(map).and_then(|headers| headers.get(b"grpc-status"));
            found = found.or_else(|| value.and_then(|value| std::str::from_utf8(value).ok()).and_then(|value| value.parse().ok()));
        }
    }
    match found {
        Some(status) => give(guest, &Attribute::Int(status), out_pointer, out_size),
        None => Ok(NOT_FOUND),
    }
}

fn size(cell: &StreamCell<dyn StreamHost>, response: bool, what: &[u8]) -> Option<i64> {
    let map = if response { MessageMap::ResponseHeaders } else { MessageMap::RequestHeaders };
    let body = cell.flow.try_borrow().ok()?.progress[usize::from(response)].size as i64;
    let mut headers = 0;
    cell.host.try_borrow_mut().ok()?.headers(map)?.visit(&mut |name, value| headers += (name.len() + value.len()) as i64);
    Some(match what {
        b"size" => body,
        b"headers_bytes" => headers,
        _ => body + headers,
    })
}

fn give(guest: &mut Guest<'_>, value: &Attribute<'_>, out_pointer: u32, out_size: u32) -> Answer {
    let mut give = |bytes: &[u8]| guest.give(bytes, out_pointer, out_size);
    match value {
        Attribute::Bytes(bytes) => give(bytes),
        Attribute::Int(number) | Attribute::Time(number) | Attribute::Duration(number) => give(&number.to_le_bytes()),
        Attribute::Uint(number) => give(&number.to_le_bytes()),
        Attribute::Double(number) => give(&number.to_le_bytes()),
        Attribute::Bool(yes) => give(&[u8::from(*yes)]),
        Attribute::Map(list) => {
            let pairs = Pairs(list.iter().map(|(key, value)| (owned(key), owned(value))).collect());
            guest.give_with(map_size(&pairs), out_pointer, out_size, |target| write_map(&pairs, target))
        }
    }
}

fn owned(bytes: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(bytes)
}

fn set(caller: Caller<'_, State>, path: u32, path_length: u32, value: u32, value_length: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_set_property");
    let (path, value, state) = guest.take_two((path, path_length), (value, value_length))?;
    set_property(state, Path::new(path), value);
    Ok(OK)
}

pub(super) fn set_property(state: &mut State, path: Path<'_>, value: &[u8]) {
    let kept = match state.stream().map(|stream| stream.cell.clone()) {
        Some(cell) => {
            let kept = cell.flow.try_borrow_mut().is_ok_and(|mut flow| flow.properties.set(path.without_prefix(), value));
            // What is over the bound here would be over it in the proxy.
            if kept && let Ok(mut host) = cell.host.try_borrow_mut() {
                host.set_attribute(path, value);
            }
            kept
        }
        None => state.properties.set(path.without_prefix(), value),
    };
    if !kept {
        state.odd(Counter::OutputRefused, "proxy_set_property", "this stream or instance holds 1 MiB of properties already");
    }
}
