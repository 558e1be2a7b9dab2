//! Callouts, shared data, queues, metrics.

use weir_wasm::Upstreams;
use weir_wasm::stats::Counter;

use super::{ON_CONFIGURE, ON_LOG, ON_REQUEST, ON_TICK};
use crate::guest::{Arg, At, Data, I, Keep, L, M, Out, S, Step, Var, call};
use crate::table::{BAD_ARGUMENT, CAS_MISMATCH, EMPTY, INTERNAL_FAILURE, NOT_FOUND, PARSE_FAILURE, Row, row};

const HEAD: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "up")];

#[rustfmt::skip] // one row a line, as far as that goes
#[expect(clippy::too_many_lines, reason = "a table, one row a line")]
pub fn callouts() -> Vec<Row> {
    const HTTP: &str = "proxy_http_call";
    const UNARY: &str = "proxy_grpc_call";
    const STREAM: &str = "proxy_grpc_stream";
    const SEND: &str = "proxy_grpc_send";
    let http = |at, upstream: &str, headers: Arg| row(at, HTTP, [S(upstream), headers, S("body"), M(&[("t", "1")]), I(500), Out]);
    let unary = |at, upstream: &str, metadata: Arg| row(at, UNARY, [S(upstream), S("pkg.Service"), S("Method"), metadata, S("message"), I(500), Out]);
    let stream = |at, upstream: &str, metadata: Arg| row(at, STREAM, [S(upstream), S("pkg.Service"), S("Method"), metadata, Out]);
    let opened = || call(STREAM, [S("up"), S("pkg.Service"), S("Method"), At(0, 0), Keep(0)]);
    let called = || call(UNARY, [S("up"), S("pkg.Service"), S("Method"), At(0, 0), S(""), I(0), Keep(0)]);
    let asked = || call(HTTP, [S("up"), M(HEAD), At(0, 0), At(0, 0), I(0), Keep(0)]);
    let mut rows = vec![
        http(ON_REQUEST, "up", M(HEAD)).then("it starts", |seen| {
            let callout = seen.worker.host.take_callout().unwrap();
            (callout.upstream.as_str(), callout.header(":path"), callout.body.as_ref(), callout.trailers.len(), callout.timeout.unwrap().as_millis()) == ("up", Some("/"), b"body", 1, 500)
        }),
        http(ON_TICK, "up", M(HEAD)).then("it starts", |seen| seen.worker.host.take_callout().is_some()),
        http(ON_CONFIGURE, "up", M(HEAD)).then("it starts", |seen| seen.worker.host.take_callout().is_some()),
        http(ON_LOG, "up", M(HEAD)),
        row(ON_REQUEST, HTTP, [S("up"), M(HEAD), S(""), At(0, 0), I(0), Out]).then("no timeout is the longest", |seen| seen.worker.host.take_callout().unwrap().timeout.unwrap().as_secs() == 60),
        row(ON_REQUEST, HTTP, [S("up"), M(HEAD), S(""), At(0, 0), I(u32::MAX), Out]).then("no longer than the longest", |seen| seen.worker.host.take_callout().unwrap().timeout.unwrap().as_secs() == 60),
        http(ON_REQUEST, "other", M(HEAD)).is(BAD_ARGUMENT).then("it says why", |seen| seen.worker.host.logged("does not allow the upstream \"other\"")),
        http(ON_REQUEST, "", M(HEAD)).is(BAD_ARGUMENT),
        http(ON_REQUEST, "up", M(HEAD)).with(|binding| binding.upstreams = Upstreams::None).is(BAD_ARGUMENT),
        http(ON_REQUEST, "up", S("nonsense")).is(BAD_ARGUMENT).counts(Counter::HeaderValuesRefused),
        http(ON_REQUEST, "up", At(0, 0)).is(BAD_ARGUMENT),
        row(ON_REQUEST, HTTP, [S("up"), M(HEAD), S(""), S("nonsense"), I(0), Out]).is(BAD_ARGUMENT),
        http(ON_REQUEST, "up", M(HEAD)).with(|binding| binding.limits.callouts = 1).after([asked()]).is(INTERNAL_FAILURE).counts(Counter::CalloutsRefused),

        unary(ON_REQUEST, "up", M(&[("k", "v")])).then("it starts", |seen| {
            let callout = seen.worker.host.take_callout().unwrap();
            (callout.method.as_deref(), callout.header("k"), callout.body.as_ref()) == (Some("pkg.Service/Method"), Some("v"), b"message")
        }),
        unary(ON_REQUEST, "other", At(0, 0)).is(INTERNAL_FAILURE),
        unary(ON_REQUEST, "up", S("nonsense")).is(PARSE_FAILURE),
        unary(ON_REQUEST, "up", At(0, 0)).with(|binding| binding.limits.callouts = 1).after([asked()]).is(INTERNAL_FAILURE).counts(Counter::CalloutsRefused),
        stream(ON_REQUEST, "up", M(&[("k", "v")])).then("it starts", |seen| seen.worker.host.take_callout().unwrap().method.as_deref() == Some("pkg.Service/Method")),
        stream(ON_REQUEST, "other", At(0, 0)).is(INTERNAL_FAILURE),
        stream(ON_REQUEST, "up", S("nonsense")).is(PARSE_FAILURE),

        row(ON_REQUEST, SEND, [Var(0), S("message"), I(1)]).after([opened()]).then("it is sent", |seen| {
            seen.worker.host.grpc_sent.borrow().iter().map(|(_, message, end)| (message.as_ref().to_vec(), *end)).collect::<Vec<_>>() == [(b"message".to_vec(), true)]
        }),
        row(ON_REQUEST, SEND, [I(77), S("message"), I(0)]).is(NOT_FOUND),
        row(ON_REQUEST, SEND, [Var(0), S("message"), I(0)]).after([called()]).is(NOT_FOUND),
        row(ON_REQUEST, SEND, [Var(0), S("message"), I(0)]).after([asked()]).is(NOT_FOUND),
    ];
    for (function, polite) in [("proxy_grpc_cancel", false), ("proxy_grpc_close", true)] {
        let gone = if polite { "half-closed" } else { "cancelled" };
        let effect: fn(&crate::table::Seen<'_>) -> bool = if polite {
            |seen| seen.worker.host.cancelled.borrow().iter().map(|(_, graceful)| *graceful).collect::<Vec<_>>() == [true]
        } else {
            |seen| seen.worker.host.cancelled.borrow().iter().map(|(_, graceful)| *graceful).collect::<Vec<_>>() == [false]
        };
        rows.extend([
            row(ON_REQUEST, function, [Var(0)]).after([opened()]).then(gone, effect),
            row(ON_REQUEST, function, [Var(0)]).after([called()]).then("cancelled", |seen| seen.worker.host.cancelled.borrow().iter().all(|(_, graceful)| !*graceful)),
            row(ON_REQUEST, function, [Var(0)]).after([asked()]).is(NOT_FOUND),
            row(ON_REQUEST, function, [I(77)]).is(NOT_FOUND),
            row(ON_REQUEST, function, [I(0)]).is(NOT_FOUND),
        ]);
    }
    // Inside callout callbacks: see `callouts` and `grpc`.
    rows.push(row(ON_REQUEST, "proxy_get_status", [Out, Data]).cell(0));
    for missing in [":method", ":path", ":authority"] {
        let head: Vec<_> = HEAD.iter().copied().filter(|(name, _)| *name != missing).collect();
        let empty: Vec<_> = HEAD.iter().map(|(name, value)| (*name, if *name == missing { "" } else { *value })).collect();
        rows.extend([head, empty].map(|head| http(ON_REQUEST, "up", M(&head)).is(BAD_ARGUMENT)));
    }
    rows
}

#[rustfmt::skip] // one row a line, as far as that goes
pub fn shared() -> Vec<Row> {
    const GET: &str = "proxy_get_shared_data";
    const SET: &str = "proxy_set_shared_data";
    const REGISTER: &str = "proxy_register_shared_queue";
    const RESOLVE: &str = "proxy_resolve_shared_queue";
    const ENQUEUE: &str = "proxy_enqueue_shared_queue";
    const DEQUEUE: &str = "proxy_dequeue_shared_queue";
    let set = |value: &str| call(SET, [S("k"), S(value), I(0)]);
    let get = || Step::Call { module: "env", name: GET, args: vec![S("k"), Data, Keep(0)] };
    let registered = || call(REGISTER, [S("q"), Keep(0)]);
    let enqueued = |item: &str| call(ENQUEUE, [Var(0), S(item)]);
    vec![
        row(ON_REQUEST, SET, [S("k"), S("v"), I(0)]),
        row(ON_REQUEST, SET, [S("k"), S("v"), I(77)]),
        row(ON_REQUEST, SET, [S("k"), S("v"), I(77)]).after([set("old")]).is(CAS_MISMATCH),
        row(ON_REQUEST, SET, [S("k"), S("v"), Var(0)]).after([set("old"), get()]),
        row(ON_REQUEST, SET, [S("k"), S("v"), Var(0)]).after([set("old"), get(), set("newer")]).is(CAS_MISMATCH),
        row(ON_REQUEST, SET, [S("k"), S(""), I(0)]),
        row(ON_REQUEST, SET, [S(""), S("v"), I(0)]),
        row(ON_REQUEST, SET, [S("k"), At(0, 2000), I(0)]).with(|binding| binding.limits.shared_bytes = 1000).counts(Counter::SharedRefused),
        row(ON_CONFIGURE, SET, [S("k"), S("v"), I(0)]),

        row(ON_REQUEST, GET, [S("k"), Data, Out]).after([set("v")]).data("v").then("a cas that is not 0", |seen| seen.answer.cells[2] as u32 != 0),
        row(ON_REQUEST, GET, [S("k"), Data, Out]).after([set("")]).data(""),
        row(ON_REQUEST, GET, [S("nope"), Data, Out]).is(NOT_FOUND),
        row(ON_LOG, GET, [S("k"), Data, Out]).after([set("v")]).data("v"),

        row(ON_REQUEST, REGISTER, [S("q"), Out]).then("not 0", |seen| seen.answer.cells[0] as u32 != 0),
        row(ON_REQUEST, REGISTER, [S("q"), Out]).after([registered()]).then("the same again", |seen| {
            let ids: Vec<_> = seen.story.answers(REGISTER).iter().map(|answer| answer.cells[0]).collect();
            ids[0] == ids[1]
        }),
        row(ON_REQUEST, REGISTER, [S(""), Out]),
        row(ON_REQUEST, RESOLVE, [S("test"), S("q"), Out]).after([registered()]).then("the same queue", |seen| {
            seen.answer.cells[0] == seen.story.answers(REGISTER)[0].cells[0]
        }),
        row(ON_REQUEST, RESOLVE, [S(""), S("q"), Out]).after([registered()]).then("its own", |seen| seen.answer.cells[0] == seen.story.answers(REGISTER)[0].cells[0]),
        row(ON_REQUEST, RESOLVE, [S(""), S("nope"), Out]).is(NOT_FOUND),
        row(ON_REQUEST, RESOLVE, [S("stranger"), S("q"), Out]).after([registered()]).is(NOT_FOUND),
        row(ON_REQUEST, ENQUEUE, [Var(0), S("item")]).after([registered()]).then("announced", |seen| seen.worker.host.queue_wakes.load(std::sync::atomic::Ordering::Relaxed) == 1),
        row(ON_REQUEST, ENQUEUE, [I(77_777), S("item")]).is(NOT_FOUND),
        row(ON_REQUEST, ENQUEUE, [I(0), S("item")]).is(NOT_FOUND),
        row(ON_REQUEST, DEQUEUE, [Var(0), Data]).after([registered(), enqueued("one"), enqueued("two")]).data("one"),
        row(ON_REQUEST, DEQUEUE, [Var(0), Data]).after([registered(), enqueued("")]).data(""),
        row(ON_REQUEST, DEQUEUE, [Var(0), Data]).after([registered()]).is(EMPTY),
        row(ON_REQUEST, DEQUEUE, [I(77_777), Data]).is(NOT_FOUND),
        row(ON_TICK, DEQUEUE, [Var(0), Data]).after([registered(), enqueued("one")]).data("one"),
    ]
}

#[rustfmt::skip] // one row a line, as far as that goes
pub fn metrics() -> Vec<Row> {
    const DEFINE: &str = "proxy_define_metric";
    const INCREMENT: &str = "proxy_increment_metric";
    const RECORD: &str = "proxy_record_metric";
    const GET: &str = "proxy_get_metric";
    let defined = |kind: u32| call(DEFINE, [I(kind), S("m"), Keep(0)]);
    let (counter, gauge, histogram) = (|| defined(0), || defined(1), || defined(2));
    let plus = |delta: i64| call(INCREMENT, [Var(0), L(delta)]);
    vec![
        row(ON_REQUEST, DEFINE, [I(0), S("m"), Out]).then("a counter", |seen| seen.answer.cells[0] as u32 != 0 && seen.worker.metric("m") == Some(0)),
        row(ON_CONFIGURE, DEFINE, [I(1), S("m"), Out]),
        row(ON_REQUEST, DEFINE, [I(2), S("m"), Out]),
        row(ON_REQUEST, DEFINE, [I(3), S("m"), Out]).is(BAD_ARGUMENT),
        row(ON_REQUEST, DEFINE, [I(u32::MAX), S("m"), Out]).is(BAD_ARGUMENT),
        row(ON_REQUEST, DEFINE, [I(1), S("m"), Out]).after([counter()]).is(BAD_ARGUMENT).counts(Counter::MetricsRefused),
        row(ON_REQUEST, DEFINE, [I(0), S("m"), Out]).after([counter(), plus(1)]).then("the same series", |seen| seen.worker.metric("m") == Some(1)),
        row(ON_REQUEST, DEFINE, [I(0), S("second"), Out]).with(|binding| binding.limits.metric_series = 1).after([counter()]).then("an overflow series", |seen| seen.answer.cells[0] as u32 != 0),

        row(ON_REQUEST, INCREMENT, [Var(0), L(5)]).after([counter()]).then("counted", |seen| seen.worker.metric("m") == Some(5)),
        row(ON_REQUEST, INCREMENT, [Var(0), L(0)]).after([counter()]).is(BAD_ARGUMENT),
        row(ON_REQUEST, INCREMENT, [Var(0), L(-1)]).after([counter(), plus(3)]).is(BAD_ARGUMENT).then("it stays", |seen| seen.worker.metric("m") == Some(3)),
        row(ON_REQUEST, INCREMENT, [Var(0), L(-3)]).after([gauge(), plus(5)]).then("gauges go down", |seen| seen.worker.metric("m") == Some(2)),
        row(ON_REQUEST, INCREMENT, [Var(0), L(1)]).after([histogram()]).is(BAD_ARGUMENT),
        row(ON_REQUEST, INCREMENT, [I(0), L(1)]).is(NOT_FOUND),
        row(ON_REQUEST, INCREMENT, [I(77_777), L(1)]).is(NOT_FOUND),
        row(ON_REQUEST, INCREMENT, [I(u32::MAX), L(1)]).is(NOT_FOUND),
        row(ON_LOG, INCREMENT, [Var(0), L(1)]).after([counter()]),

        row(ON_REQUEST, RECORD, [Var(0), L(7)]).after([gauge(), plus(5)]).then("a gauge is set", |seen| seen.worker.metric("m") == Some(7)),
        row(ON_REQUEST, RECORD, [Var(0), L(7)]).after([counter(), plus(5)]).then("a counter adds", |seen| seen.worker.metric("m") == Some(12)),
        row(ON_REQUEST, RECORD, [Var(0), L(7)]).after([histogram()]).then("one observation", |seen| seen.worker.metric("m") == Some(1)),
        row(ON_REQUEST, RECORD, [I(77_777), L(7)]).is(NOT_FOUND),

        row(ON_REQUEST, GET, [Var(0), Out]).after([counter(), plus(5)]).cell(5),
        row(ON_REQUEST, GET, [Var(0), Out]).after([gauge(), plus(-1)]).cell(u64::MAX),
        row(ON_REQUEST, GET, [Var(0), Out]).after([histogram()]).is(BAD_ARGUMENT),
        row(ON_REQUEST, GET, [I(77_777), Out]).is(NOT_FOUND),
        row(ON_TICK, GET, [Var(0), Out]).after([counter()]).cell(0),
    ]
}
