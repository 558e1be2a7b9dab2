//! Header maps: reading, changing, replacing.
//!
//! Names are lower case on both ways. A value with CR, LF or NUL, a name that is no token, and a required pseudo header's removal have no effect
//! and are counted: they would let a filter break the message's framing. A map that is not there reads as empty.

use std::rc::Rc;

use bytes::Bytes;
use wasmtime::{Caller, Linker};

use super::{Answer, BAD_ARGUMENT, Guest, Map, NOT_FOUND, OK, enter};
use crate::callout::Delivered;
use crate::codec::{MAX_MAP_BYTES, MAX_MAP_PAIRS, map_size, parse_map, write_map};
use crate::host::{Headers, MessageMap, Side, StreamHost};
use crate::stats::Counter;
use crate::stream::StreamCell;
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_get_header_map_size", get_size)?;
    linker.func_wrap("env", "proxy_get_header_map_pairs", get_pairs)?;
    linker.func_wrap("env", "proxy_set_header_map_pairs", set_pairs)?;
    linker.func_wrap("env", "proxy_get_header_map_value", get_value)?;
    linker.func_wrap("env", "proxy_add_header_map_value", |caller: Caller<'_, State>, map: u32, k: u32, kl: u32, v: u32, vl: u32| {
        change(caller, "proxy_add_header_map_value", map, (k, kl), Some((v, vl)), true)
    })?;
    linker.func_wrap(
        "env",
        "proxy_replace_header_map_value",
        |caller: Caller<'_, State>, map: u32, k: u32, kl: u32, v: u32, vl: u32| {
            change(caller, "proxy_replace_header_map_value", map, (k, kl), Some((v, vl)), false)
        },
    )?;
    linker.func_wrap("env", "proxy_remove_header_map_value", |caller: Caller<'_, State>, map: u32, k: u32, kl: u32| {
        change(caller, "proxy_remove_header_map_value", map, (k, kl), None, false)
    })?;
    Ok(())
}

/// Whoever owns a map that a guest may read, held so that the guest's memory can be touched meanwhile.
enum Source {
    Stream(Rc<StreamCell<dyn StreamHost>>, MessageMap),
    Delivered(Rc<Delivered>, usize),
    Nothing,
}

impl Source {
    fn of(state: &State, map: Map) -> Self {
        match map {
            Map::Message(message) => state.stream().map_or(Self::Nothing, |stream| Self::Stream(stream.cell.clone(), message)),
            Map::Delivered(index) => state.delivered.as_ref().map_or(Self::Nothing, |delivered| Self::Delivered(delivered.clone(), index)),
        }
    }

    /// Runs `read` on the map, if it is there.
    #[inline]
    fn read<R>(&self, read: impl FnOnce(&dyn Headers) -> R) -> Option<R> {
        match self {
            Self::Stream(cell, message) => {
                let mut host = cell.host.try_borrow_mut().ok()?;
                host.headers(*message).map(|headers| read(headers))
            }
            Self::Delivered(delivered, index) => delivered.maps[*index].as_ref().map(|pairs| read(pairs)),
            Self::Nothing => None,
        }
    }
}

fn get_size(caller: Caller<'_, State>, map: u32, out: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_get_header_map_size");
    guest.in_time()?;
    let Some(map) = Map::from_abi(map) else { return Ok(BAD_ARGUMENT) };
    let size = Source::of(guest.state(), map).read(map_size).unwrap_or(0);
    guest.write_u32(out, size as u32)?;
    Ok(OK)
}

fn get_pairs(caller: Caller<'_, State>, map: u32, out_pointer: u32, out_size: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_get_header_map_pairs");
    guest.in_time()?;
    let Some(map) = Map::from_abi(map) else { return Ok(BAD_ARGUMENT) };
    let source = Source::of(guest.state(), map);
    let answer = source.read(|headers| guest.give_with(map_size(headers), out_pointer, out_size, |target| write_map(headers, target)));
    match answer {
        Some(answer) => answer,
        None => {
            missing(&mut guest, map);
            guest.give(&[], out_pointer, out_size)
        }
    }
}

fn get_value(caller: Caller<'_, State>, map: u32, key: u32, key_length: u32, out_pointer: u32, out_size: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_get_header_map_value");
    let Some(map) = Map::from_abi(map) else { return Ok(BAD_ARGUMENT) };
    let source = Source::of(guest.state(), map);
    let (cell, message) = match &source {
        Source::Stream(cell, message) => (cell, *message),
        Source::Delivered(delivered, index) => {
            let key = guest.take(key, key_length)?;
            let value = delivered.maps[*index].as_ref().and_then(|pairs| find(pairs, key));
            return answer_value(&mut guest, value, out_pointer, out_size);
        }
        Source::Nothing => {
            missing(&mut guest, map);
            return answer_value(&mut guest, None, out_pointer, out_size);
        }
    };
    let Ok(mut host) = cell.host.try_borrow_mut() else { return answer_value(&mut guest, None, out_pointer, out_size) };
    let Some(headers) = host.headers(message) else {
        missing(&mut guest, map);
        return answer_value(&mut guest, None, out_pointer, out_size);
    };
    let name = guest.take(key, key_length)?;
    let value = match find(headers, name) {
        // In Envoy `host` finds `:authority`.
        None if name.eq_ignore_ascii_case(b"host") => headers.get(b":authority"),
        value => value,
    };
    answer_value(&mut guest, value, out_pointer, out_size)
}

/// The first value under `name`, in whatever case the guest wrote it. Nearly all write lower case, as the map has it.
#[inline]
pub(super) fn find<'h>(headers: &'h dyn Headers, name: &[u8]) -> Option<&'h [u8]> {
    match headers.get(name) {
        None if has_uppercase(name) => headers.get(&name.to_ascii_lowercase()),
        value => value,
    }
}

#[inline]
fn answer_value(guest: &mut Guest<'_>, value: Option<&[u8]>, out_pointer: u32, out_size: u32) -> Answer {
    match value {
        Some(value) => guest.give(value, out_pointer, out_size),
        // 0.1.0 knows no absent headers, only empty ones.
        None if guest.state().binding.module().is_abi_0_1_0() => guest.give(&[], out_pointer, out_size),
        None => Ok(NOT_FOUND),
    }
}

fn missing(guest: &mut Guest<'_>, map: Map) {
    let name = guest.name;
    guest.state_mut().wrong_phase(name, &format!("{map:?} is not there in this phase; it reads as empty"));
}

/// Adds (`add`), sets, or removes (`value` is `None`) a header.
fn change(caller: Caller<'_, State>, function: &'static str, map: u32, key: (u32, u32), value: Option<(u32, u32)>, add: bool) -> Answer {
    let mut guest = match Guest::enter(caller, function)? {
        Ok(guest) => guest,
        Err(status) => return Ok(status),
    };
    let Some(map) = Map::from_abi(map) else { return Ok(BAD_ARGUMENT) };
    let (name, new, state) = guest.take_two(key, value.unwrap_or((0, 0)))?;
    let outcome = match writable(state, map) {
        Err(why) => Err((Counter::WrongPhase, why)),
        Ok((cell, message)) => match cell.host.try_borrow_mut() {
            Err(_) => Err((Counter::WrongPhase, "the stream is busy")),
            Ok(mut host) => match host.headers(message) {
                None => Err((Counter::WrongPhase, "the map is not there")),
                Some(headers) => write(headers, message, name, value.map(|_| new), add).map_err(|why| (Counter::HeaderValuesRefused, why)),
            },
        },
    };
    if let Err((counter, why)) = outcome {
        guest.state_mut().odd(counter, function, why);
    }
    Ok(OK)
}

fn write(headers: &mut dyn Headers, map: MessageMap, name: &[u8], value: Option<&[u8]>, add: bool) -> Result<(), &'static str> {
    let lowered;
    let mut name = name;
    if has_uppercase(name) {
        lowered = name.to_ascii_lowercase();
        name = &lowered;
    }
    if name == b"host" && map == MessageMap::RequestHeaders {
        name = b":authority";
    }
    check_name(name, map)?;
    let Some(value) = value else {
        if name.starts_with(b":") {
            return Err("pseudo headers cannot be removed");
        }
        headers.remove(name);
        return Ok(());
    };
    check_value(name, value)?;
    let appends = add && !name.starts_with(b":");
    if headers.count() >= MAX_MAP_PAIRS && (appends || headers.get(name).is_none()) {
        return Err("the map has 1024 headers already");
    }
    // Small ones are bounded by their number.
    let size = name.len() + value.len();
    if size > MAX_MAP_BYTES / MAX_MAP_PAIRS {
        let goes = if appends { 0 } else { headers.get(name).map_or(0, <[u8]>::len) };
        if map_size(headers) - goes + size > MAX_MAP_BYTES {
            return Err("the map would be larger than 1 MiB");
        }
    }
    if appends {
        headers.add(name, value);
    } else {
        headers.set(name, value);
    }
    Ok(())
}

/// Without an early exit, so that a whole name is looked at in a few instructions.
#[inline]
pub(super) fn has_uppercase(name: &[u8]) -> bool {
    name.iter().fold(false, |found, byte| found | byte.is_ascii_uppercase())
}

/// Only tokens, and only the pseudo headers that the message has.
fn check_name(name: &[u8], map: MessageMap) -> Result<(), &'static str> {
    if let Some(pseudo) = name.strip_prefix(b":") {
        let known: &[&[u8]] = match map {
            MessageMap::RequestHeaders => &[b"method", b"path", b"authority", b"scheme", b"protocol"],
            MessageMap::ResponseHeaders => &[b"status"],
            MessageMap::RequestTrailers | MessageMap::ResponseTrailers => &[],
        };
        return if known.contains(&pseudo) { Ok(()) } else { Err("this message has no such pseudo header") };
    }
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(token) {
        return Err("this is not a header name");
    }
    Ok(())
}

fn check_value(name: &[u8], value: &[u8]) -> Result<(), &'static str> {
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err("header values have no CR, LF or NUL");
    }
    match name {
        b":status" if !(value.len() == 3 && value.iter().all(u8::is_ascii_digit) && value[0] != b'0') => Err("this is not an HTTP status"),
        b":path" | b":method" if value.is_empty() || value.contains(&b' ') => Err("this pseudo header is neither empty nor has spaces"),
        _ => Ok(()),
    }
}

/// What of `headers` may stand in a request that a filter makes, names in lower case: sound names and values, and not the framing, which is the
/// proxy's. Whether anything was left out.
pub(super) fn sound_request(headers: Vec<(Bytes, Bytes)>) -> (Vec<(Bytes, Bytes)>, bool) {
    let count = headers.len();
    let sound = |(name, value): (Bytes, Bytes)| {
        let name = if has_uppercase(&name) { name.to_ascii_lowercase().into() } else { name };
        let framing = matches!(name.as_ref(), b"content-length" | b"transfer-encoding" | b"connection");
        let fine = !framing && check_name(&name, MessageMap::RequestHeaders).is_ok() && check_value(&name, &value).is_ok();
        fine.then_some((name, value))
    };
    let kept: Vec<_> = headers.into_iter().filter_map(sound).collect();
    let fewer = kept.len() < count;
    (kept, fewer)
}

/// Whether a header may stand in a response that a filter makes.
pub(super) fn is_sound(name: &[u8], value: &[u8]) -> bool {
    !name.starts_with(b":")
        && check_name(&name.to_ascii_lowercase(), MessageMap::ResponseHeaders).is_ok()
        && check_value(name, value).is_ok()
}

type Writable = (Rc<StreamCell<dyn StreamHost>>, MessageMap);

/// The stream whose map may be changed now, its trailers created if this is the moment.
fn writable(state: &State, map: Map) -> Result<Writable, &'static str> {
    let Map::Message(message) = map else { return Err("what a callout brought cannot be changed") };
    let Some(stream) = state.stream() else { return Err("there is no stream in this context") };
    let mut flow = stream.cell.flow.try_borrow_mut().map_err(|_| "the stream is busy")?;
    if flow.may_write(stream.stage, message) {
        return Ok((stream.cell.clone(), message));
    }
    let side = match message {
        MessageMap::RequestTrailers => Side::Request,
        MessageMap::ResponseTrailers => Side::Response,
        _ => return Err("the headers have gone on already, or have not arrived"),
    };
    if !flow.may_add_trailers(stream.stage, side) {
        return Err("trailers can be changed in their callback, or added at the end of the body");
    }
    let made = stream.cell.host.try_borrow_mut().is_ok_and(|mut host| host.make_trailers(side).is_some());
    if !made {
        return Err("this message cannot have trailers");
    }
    flow.lane(stream.stage, side).trailers_added();
    Ok((stream.cell.clone(), message))
}

fn set_pairs(caller: Caller<'_, State>, map: u32, pointer: u32, length: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_set_header_map_pairs");
    let Some(map) = Map::from_abi(map) else { return Ok(BAD_ARGUMENT) };
    let bytes = Bytes::copy_from_slice(guest.take(pointer, length)?);
    let function = guest.name;
    let pairs = match parse_map(&bytes) {
        Ok(pairs) => pairs,
        Err(error) => {
            guest.state_mut().odd(Counter::HeaderValuesRefused, function, &error.to_string());
            return Ok(OK);
        }
    };
    let mut refused = None;
    match writable(guest.state(), map) {
        Err(why) => guest.state_mut().wrong_phase(function, why),
        Ok((cell, message)) => {
            if let Ok(mut host) = cell.host.try_borrow_mut()
                && let Some(headers) = host.headers(message)
            {
                refused = replace_all(headers, message, &pairs);
            }
        }
    }
    if let Some(why) = refused {
        guest.state_mut().odd(Counter::HeaderValuesRefused, function, why);
    }
    Ok(OK)
}

/// Replaces the complete map; pseudo headers that `pairs` lacks stay as they were.
fn replace_all(headers: &mut dyn Headers, map: MessageMap, pairs: &[(Bytes, Bytes)]) -> Option<&'static str> {
    let mut old = Vec::with_capacity(headers.count());
    headers.visit(&mut |name, _| {
        if !name.starts_with(b":") {
            old.push(Bytes::copy_from_slice(name));
        }
    });
    for name in old {
        headers.remove(&name);
    }
    let mut refused = None;
    for (name, value) in pairs {
        refused = write(headers, map, name, Some(value), true).err().or(refused);
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Pairs;

    fn pairs(list: &[(&'static str, &'static str)]) -> Pairs {
        Pairs(list.iter().map(|(k, v)| (Bytes::from(*k), Bytes::from(*v))).collect())
    }

    #[test]
    fn what_would_break_framing_is_refused() {
        let request = MessageMap::RequestHeaders;
        for (name, value, fine) in [
            ("x-a", Some("b"), true),
            ("X-A", Some("b"), true),
            ("x-a", Some("b\r\nx-evil: 1"), false),
            ("x-a", Some("b\0"), false),
            ("x a", Some("b"), false),
            ("", Some("b"), false),
            ("x:a", Some("b"), false),
            (":path", Some("/new"), true),
            (":path", Some("/new HTTP/1.1"), false),
            (":path", Some(""), false),
            (":path", None, false),
            (":status", Some("200"), false),
            (":nonsense", Some("1"), false),
        ] {
            let mut map = pairs(&[(":path", "/"), ("x-a", "1")]);
            let result = write(&mut map, request, name.as_bytes(), value.map(str::as_bytes), false);
            assert_eq!(result.is_ok(), fine, "{name:?}: {value:?}: {result:?}");
        }
        let status =
            |value: &str| write(&mut pairs(&[(":status", "200")]), MessageMap::ResponseHeaders, b":status", Some(value.as_bytes()), false);
        assert!(status("404").is_ok() && status("99").is_err() && status("099").is_err() && status("4o4").is_err());
    }

    #[test]
    fn host_is_the_authority() {
        let mut map = pairs(&[(":authority", "a"), ("x", "1")]);
        assert!(write(&mut map, MessageMap::RequestHeaders, b"Host", Some(b"b"), false).is_ok());
        assert_eq!(map, pairs(&[(":authority", "b"), ("x", "1")]));
    }

    #[test]
    fn replacing_the_map_keeps_pseudo_headers_it_does_not_name() {
        let mut map = pairs(&[(":method", "GET"), (":path", "/"), ("a", "1"), ("b", "2")]);
        let new = pairs(&[(":path", "/new"), ("B", "3"), ("b", "4")]);
        assert_eq!(replace_all(&mut map, MessageMap::RequestHeaders, &new.0), None);
        assert_eq!(map, pairs(&[(":method", "GET"), (":path", "/new"), ("b", "3"), ("b", "4")]));
    }
}
