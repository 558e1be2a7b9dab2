//! Log, clock, timer, contexts, properties, foreign functions.

use std::time::Duration;

use weir_sdk_testing::Value;
use weir_wasm::Level;

use super::{ON_CONFIGURE, ON_DONE, ON_LOG, ON_REQUEST, ON_REQUEST_BODY, ON_RESPONSE, ON_RESPONSE_BODY, ON_RESPONSE_TRAILERS, ON_TICK};
use crate::guest::{Arg, Data, I, M, Out, Param, S, call, map};
use crate::table::{BAD_ARGUMENT, INTERNAL_FAILURE, NOT_FOUND, Row, row};

#[rustfmt::skip] // one row a line, as far as that goes
pub fn rows() -> Vec<Row> {
    const LOG: &str = "proxy_log";
    const TIMER: &str = "proxy_set_tick_period_milliseconds";
    const SWITCH: &str = "proxy_set_effective_context";
    let mut rows = vec![
        row(ON_REQUEST, LOG, [I(2), S("hello")]).then("a line", |seen| seen.worker.host.logged("hello")),
        row(ON_REQUEST, LOG, [I(2), S("")]),
        row(ON_REQUEST, LOG, [I(6), S("hello")]).is(BAD_ARGUMENT).then("no line", |seen| !seen.worker.host.logged("hello")),
        row(ON_REQUEST, LOG, [I(u32::MAX), S("hello")]).is(BAD_ARGUMENT),
        row(ON_REQUEST, LOG, [I(4), Arg::B(b"caf\xe9".to_vec())]).then("text all the same", |seen| seen.worker.host.logged("caf\u{fffd}")),
        row(ON_CONFIGURE, LOG, [I(2), S("hello")]).then("a line", |seen| seen.worker.host.logged("hello")),

        row(ON_REQUEST, "proxy_get_log_level", [Out]).cell(Level::Trace as u64),
        row(ON_REQUEST, "proxy_get_current_time_nanoseconds", [Out]).cell(1_700_000_000_000_000_000),

        row(ON_CONFIGURE, TIMER, [I(100)]).then("a timer", |seen| {
            let due = |millis: u64| seen.worker.filter().run_timers() == Some(1_000_000_000 + millis * 1_000_000);
            seen.worker.host.timer_changes.get() == 1 && due(100)
        }),
        row(ON_CONFIGURE, TIMER, [I(0)]).after([call(TIMER, [I(100)])]).then("no timer", |seen| seen.worker.filter().run_timers().is_none()),
        row(ON_CONFIGURE, TIMER, [I(u32::MAX)]).then("a long timer", |seen| seen.worker.filter().run_timers().is_some()),
        row(ON_REQUEST, TIMER, [I(50)]).then("the root context's", |seen| seen.worker.filter().run_timers().is_some()),
        row(ON_TICK, TIMER, [I(10_000)]).then("the new period holds", |seen| {
            seen.worker.host.advance(Duration::from_secs(9));
            seen.worker.run_timers();
            seen.story.statuses(TIMER) == [0, 0]
        }),

        row(ON_REQUEST, SWITCH, [Param(0)]),
        row(ON_REQUEST, SWITCH, [I(1)]),
        row(ON_REQUEST, SWITCH, [I(0)]).is(BAD_ARGUMENT),
        row(ON_REQUEST, SWITCH, [I(77)]).is(BAD_ARGUMENT),
        row(ON_REQUEST, SWITCH, [I(u32::MAX)]).is(BAD_ARGUMENT),

        // A good call needs an `on_done` that answered false: see `retire`.
        row(ON_REQUEST, "proxy_done", []).is(NOT_FOUND),
        row(ON_CONFIGURE, "proxy_done", []).is(NOT_FOUND),
        row(ON_DONE, "proxy_done", []).is(NOT_FOUND),
    ];
    for (level, want) in [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Critical].into_iter().enumerate() {
        debug_assert_eq!(want as usize, level);
        rows.push(row(ON_REQUEST, LOG, [I(level as u32), S("level")]).then("its level", |seen| {
            let lines = seen.worker.host.log_lines();
            let line = lines.iter().find(|line| line.message == "level").unwrap();
            line.from_guest && seen.worker.host.log_lines().len() == 1
        }));
    }
    rows
}

#[rustfmt::skip] // one row a line, as far as that goes
pub fn properties() -> Vec<Row> {
    const GET: &str = "proxy_get_property";
    const SET: &str = "proxy_set_property";
    let get = |path: &str| row(ON_REQUEST, GET, [S(&path.replace('.', "\0")), Data]);
    let later = |at, path: &str| row(at, GET, [S(&path.replace('.', "\0")), Data]);
    let headers = [(":method", "POST"), (":path", "/path?q=1"), (":authority", "test.example"), (":scheme", "http"), ("x-a", "1"), ("x-a", "2"), ("x-empty", "")];
    let headers_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    vec![
        get("plugin_name").data("test"),
        get("plugin_root_id").data("root"),
        get("plugin_vm_id").data("test"),
        later(ON_CONFIGURE, "plugin_root_id").data("root"),
        later(ON_CONFIGURE, "plugin_vm_id").with(|binding| binding.vm_id = Some("shared".into())).data("shared"),
        get("request.path").data("/path?q=1"),
        get("request.url_path").data("/path"),
        get("request.query").data("q=1"),
        get("request.host").data("test.example"),
        get("request.scheme").data("http"),
        get("request.method").data("POST"),
        get("request.headers.x-a").data("1"),
        get("request.headers.X-A").data("1"),
        get("request.headers.nope").is(NOT_FOUND),
        get("request.headers").data(map(&headers)),
        get("request.headers_bytes").data((headers_bytes as i64).to_le_bytes()),
        get("request.referer").is(NOT_FOUND),
        get("request.useragent").is(NOT_FOUND),
        get("request.id").is(NOT_FOUND),
        get("response.code").is(NOT_FOUND),
        later(ON_REQUEST_BODY, "request.size").data(7i64.to_le_bytes()),
        later(ON_REQUEST_BODY, "request.total_size").data((7 + headers_bytes as i64).to_le_bytes()),
        later(ON_RESPONSE, "response.code").data(200i64.to_le_bytes()),
        later(ON_RESPONSE, "response.headers.server").data("up"),
        later(ON_RESPONSE_TRAILERS, "response.trailers.t").data("1"),
        later(ON_RESPONSE_TRAILERS, "response.grpc_status").is(NOT_FOUND),
        later(ON_RESPONSE_BODY, "response.size").data(5i64.to_le_bytes()),
        later(ON_LOG, "response.code").data(200i64.to_le_bytes()),
        later(ON_LOG, "request.path").data("/path?q=1"),
        get("source.port").data(1234i64.to_le_bytes()),
        later(ON_RESPONSE, "node.id").data("node-1"),
        later(ON_TICK, "node.id").data("node-1"),
        later(ON_CONFIGURE, "request.path").is(NOT_FOUND),
        get("nothing.at.all").is(NOT_FOUND),
        get("").is(NOT_FOUND),

        row(ON_REQUEST, SET, [S("my\0key"), S("value")]).then("for access logs", |seen| seen.exchange.stream.property(b"my\0key").as_deref() == Some(b"value")),
        row(ON_REQUEST, SET, [S("my\0key"), S("")]).then("an empty value is one", |seen| seen.exchange.stream.property(b"my\0key").as_deref() == Some(b"")),
        row(ON_REQUEST, SET, [S("big"), Arg::At(0, 4 << 16)]).then("large is fine", |seen| seen.exchange.stream.property(b"big").is_some_and(|value| value.len() == 4 << 16)),
        row(ON_CONFIGURE, SET, [S("key"), S("value")]),
        row(ON_REQUEST, GET, [S("my\0key"), Data]).after([call(SET, [S("my\0key"), S("one")]), call(SET, [S("my\0key"), S("two")])]).data("two"),
        row(ON_REQUEST, GET, [S("wasm.mine"), Data]).after([call(SET, [S("mine"), S("1")])]).data("1"),
        row(ON_REQUEST, GET, [S("mine"), Data]).after([call(SET, [S("wasm.mine"), S("1")])]).data("1"),
        row(ON_CONFIGURE, GET, [S("mine"), Data]).after([call(SET, [S("mine"), S("1")])]).data("1"),
    ]
}

/// Attributes of every type, in Envoy's encodings.
pub fn encodings() -> Vec<(Value, Vec<u8>)> {
    vec![
        (Value::Bytes(b"\0\xff".to_vec().into()), b"\0\xff".to_vec()),
        (Value::Bytes(Vec::new().into()), Vec::new()),
        (Value::Int(-2), (-2i64).to_le_bytes().to_vec()),
        (Value::Uint(u64::MAX), vec![0xFF; 8]),
        (Value::Double(0.5), 0.5f64.to_le_bytes().to_vec()),
        (Value::Bool(true), vec![1]),
        (Value::Bool(false), vec![0]),
        (Value::Time(1_700_000_000_000_000_000), 1_700_000_000_000_000_000i64.to_le_bytes().to_vec()),
        (Value::Duration(-5), (-5i64).to_le_bytes().to_vec()),
        (Value::Map(vec![(b"a".into(), b"1".into()), (b"b".into(), b"".into())]), map(&[("a", "1"), ("b", "")])),
        (Value::Map(Vec::new()), vec![0; 4]),
    ]
}

#[rustfmt::skip] // one row a line, as far as that goes
pub fn foreign() -> Vec<Row> {
    const CALL: &str = "proxy_call_foreign_function";
    let foreign = |at, name: &str, arguments: Arg| row(at, CALL, [S(name), arguments, Data]);
    vec![
        foreign(ON_LOG, "echo", S("arguments")).data("arguments"),
        foreign(ON_RESPONSE, "plain", S("x")).is(NOT_FOUND),
        foreign(ON_REQUEST, "compress", S("hello")).then("it comes back", |seen| seen.answer.data.as_ref().is_some_and(|data| data.len() > 5)),
        foreign(ON_LOG, "echo", S("")).data(""),
        foreign(ON_LOG, "bad", S("")).is(BAD_ARGUMENT),
        foreign(ON_LOG, "broken", S("")).is(INTERNAL_FAILURE),
        foreign(ON_TICK, "echo", S("x")).data("x"),
        row(ON_LOG, CALL, [S("echo"), S("x"), I(0), I(0)]),
        foreign(ON_REQUEST, "of.stream", S("arguments")).data("arguments"),
        foreign(ON_REQUEST, "clear_route_cache", S("")).data("").then("the host is told", |seen| seen.exchange.stream.host().route_clears == 1),
        foreign(ON_REQUEST, "uncompress", S("nonsense")).is(BAD_ARGUMENT),
        foreign(ON_REQUEST, "declare_property", S("anything")).data(""),
        foreign(ON_REQUEST, "set_envoy_filter_state", S("\x0a\x04path\x12\x05value")).then("a property", |seen| seen.exchange.stream.property(b"path").as_deref() == Some(b"value")),
        foreign(ON_REQUEST, "set_envoy_filter_state", S("nonsense")).is(BAD_ARGUMENT),
        foreign(ON_REQUEST, "weir.metric.define", M(&[("type", "gauge"), ("name", "g"), ("zone", "a")])).then("a series", |seen| seen.worker.metric("g") == Some(0)),
        foreign(ON_REQUEST, "weir.metric.define", M(&[("type", "nonsense"), ("name", "g")])).is(BAD_ARGUMENT),
        foreign(ON_REQUEST, "weir.shared.set", M(&[("key", "k"), ("value", "v")])).data(""),
        foreign(ON_REQUEST, "weir.shared.set", M(&[("value", "v")])).is(BAD_ARGUMENT),
        foreign(ON_REQUEST, "weir.shared.add", M(&[("key", "n"), ("delta", "5")])).data(5i64.to_le_bytes()),
        foreign(ON_REQUEST, "weir.shared.add", M(&[("key", "n"), ("delta", "five")])).is(BAD_ARGUMENT),
        foreign(ON_REQUEST, "weir.shared.delete", S("k")).data([0]),
        foreign(ON_REQUEST, "weir.shared.delete", S("k")).after([call("proxy_set_shared_data", [S("k"), S("v"), I(0)])]).data([1]),
        foreign(ON_REQUEST, "sign", S("")).is(NOT_FOUND),
    ]
}
