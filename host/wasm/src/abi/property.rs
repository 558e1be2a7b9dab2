//! Properties: attributes under Envoy's names and in its encodings, and filter state.
//!
//! What follows from the header maps and from the binding is answered here, the same in every proxy; the rest is the host's. What a filter sets is
//! filter state of the stream: readable by its plain name, by later filters and by access logs, also under Envoy's `wasm.` prefix.

use wasmtime::{Caller, Linker};

use super::header::find;
use super::{Answer, BAD_ARGUMENT, Guest, NOT_FOUND, OK, enter};
use crate::binding::BindingConfig;
use crate::codec::{Pairs, Path, map_size, write_map};
use crate::host::{Attribute, Headers, MessageMap, StreamHost};
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

/// What was found.
enum Found<'a> {
    Bytes(&'a [u8]),
    Map(&'a dyn Headers),
}

impl<'a> Found<'a> {
    /// A number, in eight bytes of the caller's.
    fn number(value: [u8; 8], room: &'a mut [u8; 8]) -> Self {
        *room = value;
        Self::Bytes(room)
    }
}

fn answer(guest: &mut Guest<'_>, path: Path<'_>, out_pointer: u32, out_size: u32) -> Answer {
    let found = find_property(guest, path, |guest, found| match found {
        Found::Bytes(bytes) => guest.give(bytes, out_pointer, out_size),
        Found::Map(map) => guest.give_with(map_size(map), out_pointer, out_size, |target| write_map(map, target)),
    });
    found.unwrap_or(Ok(NOT_FOUND))
}

/// `weir.attributes.get`: many properties in one call. The guest names them, each path behind its length in two bytes; the answer begins with an offset and
/// a size in four bytes each, the size 2³²-1 where there is nothing, and then has the values one after the other.
pub(super) fn many(guest: &mut Guest<'_>, paths: (u32, u32), out: (u32, u32)) -> Answer {
    let mut wanted = std::mem::take(&mut guest.state_mut().scratch);
    wanted.clear();
    wanted.extend_from_slice(guest.take(paths.0, paths.1)?);
    let mut values = std::mem::take(&mut guest.state_mut().gathered);
    values.clear();
    let count = each_path(&wanted).map_while(|path| path).count();
    let answer = if count > MOST_AT_ONCE || each_path(&wanted).any(|path| path.is_none()) {
        Ok(BAD_ARGUMENT)
    } else {
        values.resize(count * 8, 0);
        for (at, path) in each_path(&wanted).flatten().enumerate() {
            let start = values.len();
            let found = find_property(guest, path, |_, found| match found {
                Found::Bytes(bytes) => values.extend_from_slice(bytes),
                Found::Map(map) => {
                    values.resize(start + map_size(map), 0);
                    write_map(map, &mut values[start..]);
                }
            });
            let size = found.map_or(u32::MAX, |()| (values.len() - start) as u32);
            values[at * 8..at * 8 + 4].copy_from_slice(&(start as u32).to_le_bytes());
            values[at * 8 + 4..at * 8 + 8].copy_from_slice(&size.to_le_bytes());
        }
        guest.give(&values, out.0, out.1)
    };
    let state = guest.state_mut();
    state.keep_scratch(wanted);
    if values.capacity() <= KEPT {
        state.gathered = values;
    }
    answer
}

/// Properties in one call.
const MOST_AT_ONCE: usize = 256;
/// A larger answer's buffer is not kept.
const KEPT: usize = 64 << 10;

/// The paths of [`many`]; `None` at the end where they are cut off.
fn each_path(mut bytes: &[u8]) -> impl Iterator<Item = Option<Path<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let split = bytes.split_first_chunk().and_then(|(size, rest)| rest.split_at_checked(u16::from_le_bytes(*size).into()));
        let (path, rest) = split.map_or((None, &[][..]), |(path, rest)| (Some(Path::new(path)), rest));
        bytes = rest;
        Some(path)
    })
}

/// Finds a property and hands it to `give`. `None`: there is none.
fn find_property<T>(guest: &mut Guest<'_>, path: Path<'_>, give: impl FnOnce(&mut Guest<'_>, Found<'_>) -> T) -> Option<T> {
    if path.as_bytes().starts_with(b"plugin_") {
        let binding = guest.state().binding.clone();
        if let Some(value) = of_binding(binding.config(), path) {
            return Some(give(guest, Found::Bytes(value.as_bytes())));
        }
    }
    let Some(cell) = guest.state().stream().map(|stream| stream.cell.clone()) else {
        return outside_streams(guest, path, give);
    };
    if let Ok(flow) = cell.flow.try_borrow()
        && let Some(value) = flow.properties.get(path.without_prefix())
    {
        return Some(give(guest, Found::Bytes(value)));
    }
    let give = match of_headers(guest, &cell, path, give) {
        Ok(answer) => return answer,
        Err(give) => give,
    };
    let host = guest.state().host.clone();
    let stream = cell.host.try_borrow().ok();
    let value = stream.as_ref().and_then(|stream| stream.attribute(path)).or_else(|| host.attribute(path))?;
    Some(with_attribute(&value, |found| give(guest, found)))
}

fn outside_streams<T>(guest: &mut Guest<'_>, path: Path<'_>, give: impl FnOnce(&mut Guest<'_>, Found<'_>) -> T) -> Option<T> {
    // Taken out rather than copied; nothing but the guest's allocator runs meanwhile, and it reaches no properties.
    let properties = std::mem::take(&mut guest.state_mut().properties);
    let answer = match properties.get(path.without_prefix()) {
        Some(value) => Some(give(guest, Found::Bytes(value))),
        None => {
            let host = guest.state().host.clone();
            host.attribute(path).map(|value| with_attribute(&value, |found| give(guest, found)))
        }
    };
    guest.state_mut().properties = properties;
    answer
}

fn of_binding<'c>(config: &'c BindingConfig, path: Path<'_>) -> Option<&'c str> {
    match path.as_bytes() {
        b"plugin_name" => Some(&config.name),
        b"plugin_root_id" => Some(&config.root_id),
        b"plugin_vm_id" => Some(config.vm_id()),
        _ => None,
    }
}

/// `request.…` and `response.…` that are header values, parts of one, or sizes. Gives `give` back where the path is another.
fn of_headers<T, G: FnOnce(&mut Guest<'_>, Found<'_>) -> T>(
    guest: &mut Guest<'_>,
    cell: &StreamCell<dyn StreamHost>,
    path: Path<'_>,
    give: G,
) -> Result<Option<T>, G> {
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
        (b"response", b"grpc_status") => return Ok(grpc_status(guest, cell, give)),
        (b"request" | b"response", b"size" | b"headers_bytes" | b"total_size") => {
            let Some(size) = size(cell, first == b"response", second) else { return Err(give) };
            return Ok(Some(give(guest, Found::number(size.to_le_bytes(), &mut [0; 8]))));
        }
        _ => return Err(give),
    };
    let Ok(mut host) = cell.host.try_borrow_mut() else { return Err(give) };
    let Some(headers) = host.headers(map) else { return Err(give) };
    if name.is_empty() {
        return Ok(Some(give(guest, Found::Map(headers))));
    }
    let Some(value) = find(headers, name) else { return Ok(None) };
    Ok(Some(match second {
        b"url_path" => give(guest, Found::Bytes(split_query(value).0)),
        b"query" => give(guest, Found::Bytes(split_query(value).1)),
        b"code" => {
            let code: i64 = std::str::from_utf8(value).ok().and_then(|code| code.parse().ok()).unwrap_or(0);
            give(guest, Found::number(code.to_le_bytes(), &mut [0; 8]))
        }
        _ => give(guest, Found::Bytes(value)),
    }))
}

fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &[]),
    }
}

fn grpc_status<T>(
    guest: &mut Guest<'_>,
    cell: &StreamCell<dyn StreamHost>,
    give: impl FnOnce(&mut Guest<'_>, Found<'_>) -> T,
) -> Option<T> {
    let mut found = None;
    if let Ok(mut host) = cell.host.try_borrow_mut() {
        for map in [MessageMap::ResponseTrailers, MessageMap::ResponseHeaders] {
            let value = host.headers(map).and_then(|headers| headers.get(b"grpc-status"));
            found = found.or_else(|| value.and_then(|value| std::str::from_utf8(value).ok()).and_then(|value| value.parse::<i64>().ok()));
        }
    }
    found.map(|status| give(guest, Found::number(status.to_le_bytes(), &mut [0; 8])))
}

fn size(cell: &StreamCell<dyn StreamHost>, response: bool, what: &[u8]) -> Option<i64> {
    let map = if response { MessageMap::ResponseHeaders } else { MessageMap::RequestHeaders };
    let body = cell.flow.try_borrow().ok()?.progress[usize::from(response)].size as i64;
    if what == b"size" {
        return Some(body);
    }
    let mut headers = 0;
    cell.host.try_borrow_mut().ok()?.headers(map)?.visit(&mut |name, value| headers += (name.len() + value.len()) as i64);
    Some(match what {
        b"headers_bytes" => headers,
        _ => body + headers,
    })
}

/// An attribute in the ABI's encoding.
fn with_attribute<T>(value: &Attribute<'_>, give: impl FnOnce(Found<'_>) -> T) -> T {
    match value {
        Attribute::Bytes(bytes) => give(Found::Bytes(bytes)),
        Attribute::Int(number) | Attribute::Time(number) | Attribute::Duration(number) => {
            give(Found::number(number.to_le_bytes(), &mut [0; 8]))
        }
        Attribute::Uint(number) => give(Found::number(number.to_le_bytes(), &mut [0; 8])),
        Attribute::Double(number) => give(Found::number(number.to_le_bytes(), &mut [0; 8])),
        Attribute::Bool(yes) => give(Found::Bytes(&[u8::from(*yes)])),
        Attribute::Map(list) => {
            let pairs = Pairs(list.iter().map(|(key, value)| (owned(key), owned(value))).collect());
            give(Found::Map(&pairs))
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
