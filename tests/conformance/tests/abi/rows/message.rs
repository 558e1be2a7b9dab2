//! Header maps, buffers, and what a filter does to its stream.

use weir_wasm::MessageMap;
use weir_wasm::stats::Counter;

use super::{
    ON_CONFIGURE, ON_LOG, ON_REQUEST, ON_REQUEST_BODY, ON_REQUEST_TRAILERS, ON_RESPONSE, ON_RESPONSE_BODY, ON_RESPONSE_TRAILERS, ON_TICK,
};
use crate::guest::{Arg, At, Data, I, M, Out, S, call, map};
use crate::table::{BAD_ARGUMENT, NOT_FOUND, Row, request_values, response, row};

const REQUEST: Arg = I(0);
const REQUEST_TRAILERS: Arg = I(1);
const RESPONSE: Arg = I(2);
const RESPONSE_TRAILERS: Arg = I(3);

const GET: &str = "proxy_get_header_map_value";
const PAIRS: &str = "proxy_get_header_map_pairs";
const SIZE: &str = "proxy_get_header_map_size";
const SET: &str = "proxy_set_header_map_pairs";
const ADD: &str = "proxy_add_header_map_value";
const REPLACE: &str = "proxy_replace_header_map_value";
const REMOVE: &str = "proxy_remove_header_map_value";

fn request_map() -> Vec<u8> {
    let pseudo = [(":method", "POST"), (":path", "/path?q=1"), (":authority", "test.example"), (":scheme", "http")];
    map(&[&pseudo[..], &[("x-a", "1"), ("x-a", "2"), ("x-empty", "")]].concat())
}

#[rustfmt::skip] // one row a line, as far as that goes
#[expect(clippy::too_many_lines, reason = "a table, one row a line")]
pub fn maps() -> Vec<Row> {
    let mut rows = vec![
        row(ON_REQUEST, GET, [REQUEST, S("x-a"), Data]).data("1"),
        row(ON_REQUEST, GET, [REQUEST, S("X-A"), Data]).data("1"),
        row(ON_REQUEST, GET, [REQUEST, S("x-empty"), Data]).data(""),
        row(ON_REQUEST, GET, [REQUEST, S("nope"), Data]).is(NOT_FOUND),
        row(ON_REQUEST, GET, [REQUEST, S(""), Data]).is(NOT_FOUND),
        row(ON_REQUEST, GET, [REQUEST, S("nope"), Data]).abi("0_1_0").data(""),
        row(ON_REQUEST, GET, [REQUEST, S("nope"), Data]).abi("0_2_0").is(NOT_FOUND),
        row(ON_REQUEST, GET, [REQUEST, S(":path"), Data]).data("/path?q=1"),
        row(ON_REQUEST, GET, [REQUEST, S("host"), Data]).data("test.example"),
        row(ON_REQUEST, GET, [REQUEST, S("Host"), Data]).data("test.example"),
        row(ON_REQUEST, GET, [I(8), S("x-a"), Data]).is(BAD_ARGUMENT),
        row(ON_REQUEST, GET, [I(u32::MAX), S("x-a"), Data]).is(BAD_ARGUMENT),
        row(ON_REQUEST, GET, [RESPONSE, S("server"), Data]).is(NOT_FOUND).counts(Counter::WrongPhase),
        row(ON_REQUEST, GET, [I(6), S(":status"), Data]).is(NOT_FOUND).counts(Counter::WrongPhase),
        row(ON_CONFIGURE, GET, [REQUEST, S("x-a"), Data]).is(NOT_FOUND).counts(Counter::WrongPhase),
        row(ON_RESPONSE, GET, [REQUEST, S("x-a"), Data]).data("1"),
        row(ON_RESPONSE, GET, [RESPONSE, S(":status"), Data]).data("200"),
        row(ON_LOG, GET, [RESPONSE, S("server"), Data]).data("up"),
        row(ON_LOG, GET, [REQUEST, S("x-a"), Data]).data("1"),
        row(ON_REQUEST_TRAILERS, GET, [REQUEST_TRAILERS, S("t"), Data]).data("1"),
        row(ON_RESPONSE_TRAILERS, GET, [RESPONSE_TRAILERS, S("T"), Data]).data("1"),

        row(ON_REQUEST, PAIRS, [REQUEST, Data]).data(request_map()),
        row(ON_REQUEST, PAIRS, [RESPONSE, Data]).data("").counts(Counter::WrongPhase),
        row(ON_REQUEST, PAIRS, [I(4), Data]).data("").counts(Counter::WrongPhase),
        row(ON_CONFIGURE, PAIRS, [REQUEST, Data]).data("").counts(Counter::WrongPhase),
        row(ON_REQUEST_TRAILERS, PAIRS, [REQUEST_TRAILERS, Data]).data(map(&[("t", "1")])),
        row(ON_REQUEST_TRAILERS, PAIRS, [REQUEST_TRAILERS, Data]).data([0; 4]).after([call(REMOVE, [REQUEST_TRAILERS, S("t")])]),
        row(ON_REQUEST, PAIRS, [I(8), Data]).is(BAD_ARGUMENT),

        row(ON_REQUEST, SIZE, [REQUEST, Out]).cell(request_map().len() as u64),
        row(ON_REQUEST, SIZE, [RESPONSE, Out]).cell(0),
        row(ON_CONFIGURE, SIZE, [REQUEST, Out]).cell(0),
        row(ON_REQUEST, SIZE, [I(8), Out]).is(BAD_ARGUMENT),

        row(ON_REQUEST, ADD, [REQUEST, S("x-a"), S("3")]).then("three values", |seen| request_values(seen, "x-a") == ["1", "2", "3"]),
        row(ON_REQUEST, ADD, [REQUEST, S("X-New"), S("Value")]).then("lower-case name", |seen| request_values(seen, "x-new") == ["Value"]),
        row(ON_REQUEST, ADD, [REQUEST, S("x-e"), S("")]).then("an empty value", |seen| request_values(seen, "x-e") == [""]),
        row(ON_REQUEST, ADD, [REQUEST, S("host"), S("other")]).then("the authority", |seen| request_values(seen, ":authority") == ["other"] && request_values(seen, "host").is_empty()),
        row(ON_REQUEST, ADD, [REQUEST, S(":path"), S("/new")]).then("it is set", |seen| request_values(seen, ":path") == ["/new"]),
        row(ON_REQUEST, ADD, [I(8), S("x"), S("1")]).is(BAD_ARGUMENT),
        row(ON_REQUEST, ADD, [I(6), S("x"), S("1")]).counts(Counter::WrongPhase),
        row(ON_RESPONSE, ADD, [RESPONSE, S("x-r"), S("1")]).then("it is there", |seen| response(seen, "x-r").as_deref() == Some("1")),
        row(ON_RESPONSE, ADD, [REQUEST, S("x-late"), S("1")]).counts(Counter::WrongPhase).then("it is not", |seen| request_values(seen, "x-late").is_empty()),
        row(ON_RESPONSE_BODY, ADD, [RESPONSE, S("x-late"), S("1")]).counts(Counter::WrongPhase).then("it is not", |seen| response(seen, "x-late").is_none()),
        row(ON_TICK, ADD, [REQUEST, S("x"), S("1")]).counts(Counter::WrongPhase),
        row(ON_LOG, ADD, [RESPONSE, S("x"), S("1")]).counts(Counter::WrongPhase),
        row(ON_REQUEST_TRAILERS, ADD, [REQUEST_TRAILERS, S("u"), S("2")]).then("a second trailer", |seen| seen.exchange.stream.host().header(MessageMap::RequestTrailers, "u") == Some("2")),
        row(ON_REQUEST, ADD, [REQUEST_TRAILERS, S("u"), S("2")]).counts(Counter::WrongPhase),

        row(ON_REQUEST, REPLACE, [REQUEST, S("x-a"), S("3")]).then("one value", |seen| request_values(seen, "x-a") == ["3"]),
        row(ON_REQUEST, REPLACE, [REQUEST, S("X-A"), S("3")]).then("one value", |seen| request_values(seen, "x-a") == ["3"]),
        row(ON_REQUEST, REPLACE, [REQUEST, S("x-n"), S("3")]).then("created", |seen| request_values(seen, "x-n") == ["3"]),
        row(ON_REQUEST, REPLACE, [REQUEST, S("Host"), S("h")]).then("the authority", |seen| request_values(seen, ":authority") == ["h"]),
        row(ON_RESPONSE, REPLACE, [RESPONSE, S(":status"), S("404")]).then("another status", |seen| seen.exchange.status() == 404),
        row(ON_RESPONSE, REPLACE, [RESPONSE, S(":status"), S("20")]).counts(Counter::HeaderValuesRefused).then("the old status", |seen| seen.exchange.status() == 200),
        row(ON_REQUEST, REPLACE, [I(99), S("x"), S("1")]).is(BAD_ARGUMENT),

        row(ON_REQUEST, REMOVE, [REQUEST, S("x-a")]).then("both values are gone", |seen| request_values(seen, "x-a").is_empty()),
        row(ON_REQUEST, REMOVE, [REQUEST, S("X-Empty")]).then("gone", |seen| request_values(seen, "x-empty").is_empty()),
        row(ON_REQUEST, REMOVE, [REQUEST, S("nope")]),
        row(ON_REQUEST, REMOVE, [REQUEST, S(":path")]).counts(Counter::HeaderValuesRefused).then("it stays", |seen| request_values(seen, ":path") == ["/path?q=1"]),
        row(ON_REQUEST, REMOVE, [REQUEST, S("host")]).counts(Counter::HeaderValuesRefused).then("it stays", |seen| request_values(seen, ":authority") == ["test.example"]),
        row(ON_RESPONSE, REMOVE, [RESPONSE, S(":status")]).counts(Counter::HeaderValuesRefused).then("it stays", |seen| seen.exchange.status() == 200),
        row(ON_RESPONSE, REMOVE, [REQUEST, S("x-a")]).counts(Counter::WrongPhase).then("it stays", |seen| request_values(seen, "x-a") == ["1", "2"]),
        row(ON_REQUEST, REMOVE, [I(8), S("x")]).is(BAD_ARGUMENT),

        row(ON_REQUEST, SET, [REQUEST, M(&[("x-b", "1"), ("X-B", "2"), (":path", "/new")])]).then("all but pseudo headers are replaced", |seen| {
            request_values(seen, "x-b") == ["1", "2"] && request_values(seen, "x-a").is_empty() && request_values(seen, ":path") == ["/new"] && request_values(seen, ":method") == ["POST"]
        }),
        row(ON_REQUEST, SET, [I(8), M(&[])]).is(BAD_ARGUMENT),
        row(ON_RESPONSE, SET, [REQUEST, M(&[])]).counts(Counter::WrongPhase).then("nothing changed", |seen| request_values(seen, "x-a") == ["1", "2"]),
        row(ON_REQUEST, SET, [REQUEST, S("nonsense")]).counts(Counter::HeaderValuesRefused).then("nothing changed", |seen| request_values(seen, "x-a") == ["1", "2"]),
        row(ON_REQUEST, SET, [REQUEST, M(&[("x-a", "evil\r\nx: 1"), ("x-b", "1")])]).counts(Counter::HeaderValuesRefused).then("only the good one", |seen| {
            request_values(seen, "x-a").is_empty() && request_values(seen, "x-b") == ["1"]
        }),
        row(ON_CONFIGURE, SET, [REQUEST, M(&[])]).counts(Counter::WrongPhase),
    ];
    // The three ways to write an empty map.
    for empty in [At(0, 0), Arg::B(vec![0; 4]), Arg::B(vec![0])] {
        rows.push(row(ON_REQUEST, SET, [REQUEST, empty]).then("only pseudo headers are left", |seen| {
            request_values(seen, "x-a").is_empty() && request_values(seen, ":path") == ["/path?q=1"]
        }));
    }
    for (name, value) in [("x-v", "a\r\nb: c"), ("x-v", "a\nb"), ("x-v", "a\0b"), ("x v", "1"), ("x-v\r\n", "1"), ("", "1"), (":status", "200"), (":new", "1")] {
        for function in [ADD, REPLACE] {
            let row = row(ON_REQUEST, function, [REQUEST, S(name), S(value)]).counts(Counter::HeaderValuesRefused);
            rows.push(row.then("nothing was added", |seen| seen.exchange.stream.host().map(MessageMap::RequestHeaders).is_some_and(|map| map.0.len() == 7)));
        }
    }
    rows
}

#[rustfmt::skip] // one row a line, as far as that goes
#[expect(clippy::too_many_lines, reason = "a table, one row a line")]
pub fn buffers() -> Vec<Row> {
    const GET: &str = "proxy_get_buffer_bytes";
    const STATUS: &str = "proxy_get_buffer_status";
    const SET: &str = "proxy_set_buffer_bytes";
    const BODY: Arg = I(0);
    const RESPONSE_BODY: Arg = I(1);
    // The last of two chunks is the one that these rows see.
    let mut rows = vec![
        row(ON_REQUEST_BODY, GET, [BODY, I(0), I(100), Data]).data("&b=2"),
        row(ON_REQUEST_BODY, GET, [BODY, I(1), I(2), Data]).data("b="),
        row(ON_REQUEST_BODY, GET, [BODY, I(4), I(1), Data]).data(""),
        row(ON_REQUEST_BODY, GET, [BODY, I(99), I(1), Data]).data(""),
        row(ON_REQUEST_BODY, GET, [BODY, I(0), I(0), Data]).data(""),
        row(ON_REQUEST_BODY, GET, [BODY, I(0), I(0x7FFF_FFFF), Data]).data("&b=2"),
        row(ON_REQUEST_BODY, GET, [BODY, I(0), I(u32::MAX), Data]).data("&b=2"),
        row(ON_REQUEST_BODY, GET, [BODY, I(u32::MAX), I(0), Data]).data(""),
        row(ON_REQUEST_BODY, GET, [BODY, I(1), I(u32::MAX), Data]).is(BAD_ARGUMENT),
        row(ON_REQUEST_BODY, GET, [BODY, I(u32::MAX), I(1), Data]).is(BAD_ARGUMENT),
        row(ON_REQUEST_BODY, GET, [I(9), I(0), I(1), Data]).is(BAD_ARGUMENT),
        row(ON_REQUEST_BODY, GET, [I(u32::MAX), I(0), I(1), Data]).is(BAD_ARGUMENT),
        row(ON_REQUEST_BODY, GET, [RESPONSE_BODY, I(0), I(1), Data]).is(NOT_FOUND),
        row(ON_REQUEST_BODY, GET, [I(4), I(0), I(1), Data]).is(NOT_FOUND),
        row(ON_REQUEST_BODY, GET, [I(5), I(0), I(1), Data]).is(NOT_FOUND),
        row(ON_REQUEST, GET, [BODY, I(0), I(1), Data]).is(NOT_FOUND),
        row(ON_CONFIGURE, GET, [BODY, I(0), I(1), Data]).is(NOT_FOUND),
        row(ON_CONFIGURE, GET, [I(7), I(0), I(100), Data]).data("conf"),
        row(ON_CONFIGURE, GET, [I(6), I(2), I(100), Data]).data("conf"),
        row("vm_start", GET, [I(6), I(0), I(100), Data]).data("vmconf"),
        row(ON_RESPONSE_BODY, GET, [RESPONSE_BODY, I(0), I(100), Data]).data("world"),

        row(ON_REQUEST_BODY, STATUS, [BODY, Out, Out]).cell(4),
        row(ON_CONFIGURE, STATUS, [I(7), Out, Out]).cell(4),
        row(ON_RESPONSE_BODY, STATUS, [RESPONSE_BODY, Out, Out]).cell(5),
        row(ON_REQUEST, STATUS, [BODY, Out, Out]).is(NOT_FOUND),
        row(ON_REQUEST, STATUS, [I(4), Out, Out]).is(NOT_FOUND),
        row(ON_REQUEST, STATUS, [I(9), Out, Out]).is(BAD_ARGUMENT),

        row(ON_REQUEST, "proxy_get_configuration", [Data]).abi("0_1_0").data("conf"),
        row(ON_CONFIGURE, "proxy_get_configuration", [Data]).abi("0_1_0").data("conf"),
        row(ON_CONFIGURE, "proxy_get_configuration", [Data]).with(|binding| binding.configuration = "".into()).data(""),
    ];
    type Effect = fn(&crate::table::Seen<'_>) -> bool;
    let splices: [(u32, u32, &str, Effect); 9] = [
        (0, u32::MAX, "new", |seen| seen.exchange.body() == "new"),
        (0, 5, "new", |seen| seen.exchange.body() == "new"),
        (0, 0, "new ", |seen| seen.exchange.body() == "new world"),
        (5, 0, "!", |seen| seen.exchange.body() == "world!"),
        (99, 99, "!", |seen| seen.exchange.body() == "world!"),
        (u32::MAX, u32::MAX, "!", |seen| seen.exchange.body() == "world!"),
        (1, 3, "in", |seen| seen.exchange.body() == "wind"),
        (1, 0, "--", |seen| seen.exchange.body() == "w--orld"),
        (0, u32::MAX, "", |seen| seen.exchange.body().is_empty()),
    ];
    for (start, size, data, effect) in splices {
        rows.push(row(ON_RESPONSE_BODY, SET, [RESPONSE_BODY, I(start), I(size), S(data)]).then("the body is spliced", effect));
    }
    rows.extend([
        row(ON_RESPONSE_BODY, SET, [I(9), I(0), I(0), S("x")]).is(BAD_ARGUMENT),
        row(ON_RESPONSE_BODY, SET, [BODY, I(0), I(0), S("x")]).counts(Counter::WrongPhase),
        row(ON_REQUEST, SET, [BODY, I(0), I(0), S("x")]).counts(Counter::WrongPhase),
        row(ON_CONFIGURE, SET, [I(7), I(0), I(0), S("x")]).counts(Counter::WrongPhase),
        row(ON_TICK, SET, [BODY, I(0), I(0), S("x")]).counts(Counter::WrongPhase),
        row(ON_RESPONSE_BODY, SET, [RESPONSE_BODY, I(0), I(0), S("x")])
            .with(|binding| binding.body_access = weir_wasm::BodyAccess::ReadOnly)
            .counts(Counter::WrongPhase)
            .then("nothing is changed", |seen| seen.exchange.body() == "world"),
    ]);
    rows
}

#[rustfmt::skip] // one row a line, as far as that goes
pub fn streams() -> Vec<Row> {
    const CONTINUE: &str = "proxy_continue_stream";
    const CLOSE: &str = "proxy_close_stream";
    const REPLY: &str = "proxy_send_local_response";
    const UNSET: Arg = I(u32::MAX);
    let reply = |at, status: u32| row(at, REPLY, [I(status), S("why not"), S("body"), M(&[("X-Why", "not")]), UNSET]);
    vec![
        row(ON_REQUEST, CONTINUE, [I(0)]).pausing().then("the pause has no effect", |seen| seen.exchange.status() == 200),
        row(ON_REQUEST, CONTINUE, [I(1)]).pausing().then("the request waits", |seen| seen.exchange.stream.is_paused(weir_wasm::Side::Request)),
        row(ON_REQUEST, CONTINUE, [I(2)]).pausing().then("downstream is the request's side", |seen| seen.exchange.status() == 200),
        row(ON_RESPONSE, CONTINUE, [I(1)]).pausing().then("the pause has no effect", |seen| seen.exchange.is_complete()),
        row(ON_RESPONSE, CONTINUE, [I(3)]).pausing().then("upstream is the response's side", |seen| seen.exchange.is_complete()),
        row(ON_REQUEST, CONTINUE, [I(0)]).then("it was not paused", |seen| seen.exchange.status() == 200),
        row(ON_REQUEST, CONTINUE, [I(4)]).is(BAD_ARGUMENT),
        row(ON_TICK, CONTINUE, [I(0)]),
        row(ON_LOG, CONTINUE, [I(0)]),
        row(ON_REQUEST, "proxy_continue_request", []).abi("0_1_0").pausing().then("the pause has no effect", |seen| seen.exchange.status() == 200),
        row(ON_CONFIGURE, "proxy_continue_request", []).abi("0_1_0"),
        row(ON_RESPONSE, "proxy_continue_response", []).abi("0_1_0").pausing().then("the pause has no effect", |seen| seen.exchange.is_complete()),
        row(ON_CONFIGURE, "proxy_continue_response", []).abi("0_1_0"),

        row(ON_REQUEST, CLOSE, [I(0)]).then("the stream is reset", |seen| seen.exchange.stream.is_reset() && !seen.exchange.reached_upstream()),
        row(ON_RESPONSE, CLOSE, [I(1)]).then("the stream is reset", |seen| seen.exchange.stream.is_reset() && seen.exchange.status() == 0),
        row(ON_REQUEST, CLOSE, [I(4)]).is(BAD_ARGUMENT),
        row(ON_CONFIGURE, CLOSE, [I(0)]),

        row(ON_REQUEST, "proxy_clear_route_cache", []).abi("0_1_0").then("the host is told", |seen| seen.exchange.stream.host().route_clears == 1),
        row(ON_CONFIGURE, "proxy_clear_route_cache", []).abi("0_1_0"),

        reply(ON_REQUEST, 403).counts(Counter::LocalReplies).then("403 with all of it", |seen| {
            let reply = seen.exchange.local_reply().unwrap();
            (seen.exchange.status(), seen.exchange.body().as_str(), response(seen, "x-why").as_deref()) == (403, "body", Some("not")) && reply.details == "why_not" && !seen.exchange.reached_upstream()
        }),
        reply(ON_RESPONSE, 502).counts(Counter::LocalReplies).then("the response is replaced", |seen| {
            (seen.exchange.status(), seen.exchange.body().as_str(), response(seen, "server")) == (502, "body", None)
        }),
        reply(ON_REQUEST, 403).after([call(REPLY, [I(401), S(""), S("first"), M(&[]), UNSET])]).counts(Counter::DuplicatesIgnored).then("the first wins", |seen| {
            (seen.exchange.status(), seen.exchange.body().as_str()) == (401, "first")
        }),
        reply(ON_RESPONSE_BODY, 502).counts(Counter::DuplicatesIgnored).then("too late", |seen| seen.exchange.status() == 200),
        reply(ON_CONFIGURE, 403).counts(Counter::WrongPhase),
        reply(ON_TICK, 403).counts(Counter::WrongPhase),
        reply(ON_LOG, 403).counts(Counter::WrongPhase),
        reply(ON_REQUEST, 99).counts(Counter::HeaderValuesRefused).then("500", |seen| seen.exchange.status() == 500),
        reply(ON_REQUEST, 70_000).counts(Counter::HeaderValuesRefused).then("500", |seen| seen.exchange.status() == 500),
        reply(ON_REQUEST, 101).counts(Counter::HeaderValuesRefused).then("500", |seen| seen.exchange.status() == 500),
        row(ON_REQUEST, REPLY, [I(200), S(""), S(""), S("nonsense"), UNSET]).counts(Counter::HeaderValuesRefused).then("sent without headers", |seen| seen.exchange.status() == 200 && seen.exchange.body().is_empty()),
        row(ON_REQUEST, REPLY, [I(200), S(""), S(""), M(&[("a b", "1"), ("c", "x\r\ny"), (":status", "500"), ("d", "1")]), UNSET])
            .counts(Counter::HeaderValuesRefused)
            .then("only the sound header", |seen| seen.exchange.status() == 200 && response(seen, "d").is_some() && response(seen, "c").is_none()),
        row(ON_REQUEST, REPLY, [I(403), S(""), S("no\nway"), M(&[]), I(7)])
            .after([call(REPLACE, [REQUEST, S("content-type"), S("application/grpc")])])
            .then("trailers-only", |seen| {
                let named = ["grpc-status", "grpc-message"].map(|name| response(seen, name).unwrap_or_default());
                seen.exchange.status() == 200 && named == ["7", "no%0Away"] && seen.exchange.body().is_empty()
            }),
        row(ON_REQUEST, REPLY, [I(403), S(""), S(""), M(&[]), I(99)])
            .after([call(REPLACE, [REQUEST, S("content-type"), S("application/grpc")])])
            .then("a status that is none follows from HTTP's", |seen| response(seen, "grpc-status").as_deref() == Some("7")),
        row(ON_REQUEST, REPLY, [I(204), S(""), S(""), At(0, 0), I(7)]).then("gRPC status means nothing for HTTP", |seen| seen.exchange.status() == 204 && response(seen, "grpc-status").is_none()),
    ]
}
