//! Foreign functions: Envoy's that filters rely on, and Weir's own.
//!
//! Here are those that concern the instance and its stores; any other name is asked of the stream, then of the worker, and is NOT_FOUND if nobody
//! knows it. Envoy's `sign`, `verify_signature` and `expr_*` are not provided.
//!
//! | name | arguments | result |
//! |---|---|---|
//! | `clear_route_cache` | none | none |
//! | `compress`, `uncompress` | bytes | bytes, in the zlib format, as in Envoy |
//! | `set_envoy_filter_state` | protobuf: 1 path, 2 value | none |
//! | `declare_property` | protobuf | none; accepted, since properties need no declaration here |
//! | `weir.attributes.get` | paths, each behind its u16 length | for each path a u32 offset and a u32 size, 2³²-1 if absent; then the values |
//! | `weir.access_log.open` | a path of the binding's allow-list | u32 number |
//! | `weir.access_log.write` | u32 number, then the line; without a line, the stream is one that is not to be logged | none |
//! | `weir.metric.define` | a map: `type`, `name`, then labels | u32 id |
//! | `weir.shared.delete` | the key | one byte: was it there |
//! | `weir.shared.set` | a map: `key`, `value`, `ttl_ms` | none |
//! | `weir.shared.add` | a map: `key`, `delta`, `ttl_ms` (decimal) | i64, the new value |

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use wasmtime::{Caller, Linker};

use super::{Answer, BAD_ARGUMENT, Guest, INTERNAL_FAILURE, NOT_FOUND, OK, enter, metric, property, stream};
use crate::codec::{Pairs, Path, parse_map};
use crate::error::Shown;
use crate::host::{Foreign, Headers, Level};
use crate::metrics::MetricKind;
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_call_foreign_function", call)?;
    Ok(())
}

fn call(
    caller: Caller<'_, State>,
    name: u32,
    name_length: u32,
    arguments: u32,
    arguments_length: u32,
    out_pointer: u32,
    out_size: u32,
) -> Answer {
    let mut guest = enter!(caller, "proxy_call_foreign_function");
    // Those that a filter calls for every request are not worth a copy of their arguments.
    match guest.take(name, name_length)? {
        b"weir.attributes.get" => return property::many(&mut guest, (arguments, arguments_length), (out_pointer, out_size)),
        b"weir.access_log.write" => return write_log(&mut guest, arguments, arguments_length),
        _ => {}
    }
    let name = String::from_utf8_lossy(guest.take(name, name_length)?).into_owned();
    let arguments = Bytes::copy_from_slice(guest.take(arguments, arguments_length)?);
    let result = own(guest.state_mut(), &name, &arguments).unwrap_or_else(|| of_host(guest.state(), &name, &arguments));
    match result {
        Foreign::Done(bytes) if out_pointer == 0 || out_size == 0 => {
            drop(bytes);
            Ok(OK)
        }
        Foreign::Done(bytes) => guest.give(&bytes, out_pointer, out_size),
        Foreign::Unknown => Ok(NOT_FOUND),
        Foreign::BadArgument => Ok(BAD_ARGUMENT),
        Foreign::Failed => Ok(INTERNAL_FAILURE),
    }
}

fn of_host(state: &State, name: &str, arguments: &[u8]) -> Foreign {
    let binding = &state.config().name;
    let cell = state.stream().map(|stream| stream.cell.clone());
    let stream = cell.as_ref().and_then(|cell| cell.host.try_borrow_mut().ok());
    match stream.map(|mut stream| stream.foreign(binding, name, arguments)) {
        None | Some(Foreign::Unknown) => state.host.foreign(binding, name, arguments),
        Some(known) => known,
    }
}

/// The functions that need nothing but the instance; `None` for any other name.
fn own(state: &mut State, name: &str, arguments: &Bytes) -> Option<Foreign> {
    Some(match name {
        "clear_route_cache" => {
            stream::clear_route_cache(state);
            Foreign::Done(Vec::new())
        }
        "compress" => compress(arguments),
        "uncompress" => uncompress(arguments, state.config().limits.host_output),
        "declare_property" => Foreign::Done(Vec::new()),
        "set_envoy_filter_state" => match (protobuf_field(arguments, 1), protobuf_field(arguments, 2)) {
            (Some(path), Some(value)) => {
                property::set_property(state, Path::new(path), value);
                Foreign::Done(Vec::new())
            }
            _ => Foreign::BadArgument,
        },
        "weir.access_log.open" => open_log(state, arguments),
        "weir.metric.define" => define_metric(state, arguments).unwrap_or(Foreign::BadArgument),
        "weir.shared.delete" => {
            let there = state.binding.shared().delete(arguments, state.host.monotonic_nanos());
            Foreign::Done(vec![u8::from(there)])
        }
        "weir.shared.set" => shared_set(state, arguments).unwrap_or(Foreign::BadArgument),
        "weir.shared.add" => shared_add(state, arguments).unwrap_or(Foreign::BadArgument),
        _ => return None,
    })
}

/// Access logs that one instance may have open.
const MOST_LOGS: usize = 64;

fn open_log(state: &mut State, path: &[u8]) -> Foreign {
    let Ok(path) = std::str::from_utf8(path) else { return Foreign::BadArgument };
    if !state.config().access_logs.allow(path) {
        let what = format!("the binding does not allow the access log {} (accessLogs)", Shown(path));
        state.tell(Level::Error, &what);
        return Foreign::BadArgument;
    }
    if state.access_logs.len() >= MOST_LOGS {
        return Foreign::Failed;
    }
    match state.host.open_access_log(&state.config().name, path) {
        Some(log) => {
            state.access_logs.push(log);
            Foreign::Done((state.access_logs.len() as u32 - 1).to_le_bytes().to_vec())
        }
        None => Foreign::Unknown,
    }
}

fn write_log(guest: &mut Guest<'_>, arguments: u32, length: u32) -> Answer {
    let host = guest.state().host.clone();
    let (line, _, state) = guest.take_two((arguments, length), (0, 0))?;
    let Some((log, line)) = line.split_first_chunk() else { return Ok(BAD_ARGUMENT) };
    let Some(log) = state.access_logs.get(u32::from_le_bytes(*log) as usize) else { return Ok(BAD_ARGUMENT) };
    if let Some(stream) = state.stream()
        && let Ok(mut stream) = stream.cell.host.try_borrow_mut()
    {
        stream.logged();
    }
    if !line.is_empty() {
        host.access_log(*log, line);
    }
    Ok(OK)
}

fn compress(bytes: &[u8]) -> Foreign {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    match encoder.write_all(bytes).and_then(|()| encoder.finish()) {
        Ok(bytes) => Foreign::Done(bytes),
        Err(_) => Foreign::Failed,
    }
}

fn uncompress(bytes: &[u8], most: usize) -> Foreign {
    let mut out = Vec::new();
    match flate2::read::ZlibDecoder::new(bytes).take(most as u64 + 1).read_to_end(&mut out) {
        Ok(size) if size <= most => Foreign::Done(out),
        Ok(_) => Foreign::Failed,
        Err(_) => Foreign::BadArgument,
    }
}

fn text<'p>(pairs: &'p Pairs, name: &str) -> Option<&'p str> {
    std::str::from_utf8(pairs.get(name.as_bytes())?).ok()
}

fn ttl(pairs: &Pairs) -> Option<Option<Duration>> {
    match text(pairs, "ttl_ms") {
        None | Some("") => Some(None),
        Some(milliseconds) => milliseconds.parse().ok().map(|milliseconds| Some(Duration::from_millis(milliseconds))),
    }
}

fn define_metric(state: &mut State, arguments: &Bytes) -> Option<Foreign> {
    let pairs = Pairs(parse_map(arguments).ok()?);
    let kind = match text(&pairs, "type")? {
        "counter" => MetricKind::Counter,
        "gauge" => MetricKind::Gauge,
        "histogram" => MetricKind::Histogram,
        _ => return None,
    };
    let name = text(&pairs, "name")?;
    let mut labels = Vec::new();
    for (key, value) in &pairs.0 {
        if key != "type" && key != "name" {
            labels.push((std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?));
        }
    }
    metric::define_labelled(state, kind, name, &labels).map(|id| Foreign::Done(id.raw().to_le_bytes().to_vec()))
}

fn shared_set(state: &State, arguments: &Bytes) -> Option<Foreign> {
    let pairs = Pairs(parse_map(arguments).ok()?);
    let (key, value) = (pairs.get(b"key")?, pairs.get(b"value")?);
    let (store, now) = (state.binding.shared(), state.host.monotonic_nanos());
    let set = match ttl(&pairs)? {
        Some(ttl) => store.set_expiring(key, value, 0, ttl, now),
        None => store.set(key, value, 0, now),
    };
    Some(if set.is_ok() { Foreign::Done(Vec::new()) } else { Foreign::Failed })
}

fn shared_add(state: &State, arguments: &Bytes) -> Option<Foreign> {
    let pairs = Pairs(parse_map(arguments).ok()?);
    let delta: i64 = text(&pairs, "delta")?.parse().ok()?;
    let sum = state.binding.shared().add(pairs.get(b"key")?, delta, ttl(&pairs)?, state.host.monotonic_nanos());
    Some(sum.map_or(Foreign::Failed, |sum| Foreign::Done(sum.to_le_bytes().to_vec())))
}

/// The last length-delimited field of this number in a protobuf message.
fn protobuf_field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    let mut found = None;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                varint(&mut message)?;
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                if key >> 3 == wanted {
                    found = Some(value);
                }
                message = rest;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_fields_are_found_among_others() {
        let message = b"\x18\x96\x01\x0a\x04path\x2d\0\0\0\0\x12\x05value";
        assert_eq!(protobuf_field(message, 1), Some(&b"path"[..]));
        assert_eq!(protobuf_field(message, 2), Some(&b"value"[..]));
        assert_eq!(protobuf_field(message, 4), None);
        for cut in 1..message.len() {
            let _ = protobuf_field(&message[..cut], 2);
        }
        assert_eq!(protobuf_field(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1), None);
    }

    #[test]
    fn compression_goes_both_ways_within_bounds() {
        let Foreign::Done(packed) = compress(&[b'a'; 10_000]) else { panic!("compresses") };
        assert!(packed.len() < 100);
        assert_eq!(uncompress(&packed, 10_000), Foreign::Done(vec![b'a'; 10_000]));
        assert_eq!(uncompress(&packed, 9_999), Foreign::Failed);
        assert_eq!(uncompress(b"nonsense", 100), Foreign::BadArgument);
    }
}
