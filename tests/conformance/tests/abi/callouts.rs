//! HTTP callouts and what their answers bring.

use weir_wasm::stats::Level;
use weir_wasm::{CalloutError, HttpReply};

use crate::guest::{Arg, At, Data, Guest, I, Keep, M, Out, Param, S, Step, call};
use crate::story::Scene;

const STATUS: &str = "proxy_get_status";
const VALUE: &str = "proxy_get_header_map_value";
const BYTES: &str = "proxy_get_buffer_bytes";

fn ask() -> Step {
    let head = M(&[(":method", "GET"), (":path", "/"), (":authority", "up")]);
    call("proxy_http_call", [S("up"), head, At(0, 0), At(0, 0), I(1000), Keep(0)])
}

/// What can be read of an answer.
fn read() -> Vec<Step> {
    let value = |map: u32, name: &str| call(VALUE, [I(map), S(name), Data]);
    vec![
        call(STATUS, [Out, Data]),
        value(6, ":status"),
        value(6, "X-User"),
        value(7, "t"),
        call("proxy_get_header_map_pairs", [I(7), Data]),
        call(BYTES, [I(4), I(0), I(100), Data]),
        call("proxy_set_buffer_bytes", [I(4), I(0), I(0), S("x")]),
        call("proxy_add_header_map_value", [I(6), S("x"), S("y")]),
        call(VALUE, [I(6), S("x"), Data]),
    ]
}

/// Asks in the request, waits, reads the answer, and goes on.
fn guest() -> Guest {
    let go_on = [call("proxy_set_effective_context", [I(2)]), call("proxy_continue_stream", [I(0)])];
    Guest::new().on("request_headers", [ask(), Step::Return(1)]).on("http_call_response", read()).on("http_call_response", go_on)
}

#[test]
fn an_answer_is_readable_in_its_callback_only() {
    let (worker, story) = Scene::of(guest().on("request_body", read()).on("log", read())).start();
    let mut exchange = worker.request("POST", "/").body(&["x"]).run();
    let callout = worker.host.take_callout().unwrap();
    let pair = |name: &'static str, value: &'static str| (name.into(), value.into());
    let headers = vec![pair(":status", "200"), pair("x-user", "ann")];
    callout.reply.http(HttpReply { headers, body: "hello".into(), trailers: vec![pair("t", "1")] });
    assert!(exchange.go_on());
    exchange.stream.finish();
    let callback = story.callbacks().into_iter().find(|text| text.contains("http_call_response")).unwrap();
    let token = story.answers("proxy_http_call")[0].cells[0] as u32;
    assert_eq!(callback, format!("a.http_call_response(1,{token},2,5,1)"), "the root context, counts and size");
    assert_eq!(story.data(VALUE), ["200", "ann", "1", "-", "-", "-", "-", "-", "-", "-", "-", "-"], "afterwards it is gone");
    assert_eq!(story.data(BYTES), ["hello", "-", "-"]);
    assert_eq!(story.data("proxy_get_header_map_pairs")[1..], ["", ""]);
    assert!(story.answers("proxy_set_buffer_bytes").iter().all(|answer| answer.status == 0));
}

#[test]
fn a_failure_has_no_headers_and_a_reason() {
    let (worker, story) = Scene::of(guest()).start();
    let mut exchange = worker.get("/").run();
    worker.host.take_callout().unwrap().reply.fail(4, "timed out");
    assert!(exchange.go_on());
    assert!(story.callbacks().iter().any(|text| text.starts_with("a.http_call_response(1,") && text.ends_with(",0,0,0)")));
    let status = &story.answers(STATUS)[0];
    assert_eq!((status.cells[0] as u32, status.data.as_deref()), (4, Some(&b"timed out"[..])));
    assert_eq!(story.statuses(VALUE), [1, 1, 1, 1]);
}

#[test]
fn a_reply_that_is_dropped_is_a_failure() {
    let (worker, story) = Scene::of(guest()).start();
    let mut exchange = worker.get("/").run();
    drop(worker.host.take_callout());
    assert!(exchange.go_on());
    assert_eq!(story.answers(STATUS)[0].cells[0] as u32, 14);
    assert_eq!(worker.stats().level(Level::PendingCallouts), 0);
}

#[test]
fn upstreams_that_the_proxy_does_not_have_are_refused_at_once() {
    for (error, status) in [(CalloutError::UnknownUpstream, 2), (CalloutError::Failed, 10)] {
        let (worker, story) = Scene::of(Guest::new().on("request_headers", [ask()]).watching("http_call_response")).start();
        worker.host.refuse_callouts(Some(error));
        assert_eq!(worker.get("/").run().status(), 200);
        assert_eq!(story.statuses("proxy_http_call"), [status]);
        assert_eq!(story.names(), "a.request_headers", "a call that failed to start has no answer");
        assert_eq!(worker.stats().level(Level::PendingCallouts), 0);
    }
}

#[test]
fn a_callout_of_a_timer_is_the_root_contexts_and_ends_with_the_instance() {
    let timer = call("proxy_set_tick_period_milliseconds", [I(1)]);
    let guest = Guest::new().on("configure", [timer]).on("tick", [ask()]).watching("http_call_response");
    let (worker, story) = Scene::of(guest).start();
    for _ in 0..2 {
        worker.host.advance(std::time::Duration::from_secs(1));
        worker.run_timers();
    }
    worker.host.take_callout().unwrap().respond(200, &[], "");
    assert_eq!(story.names().matches("http_call_response").count(), 1);
    let waiting = worker.host.take_callout().unwrap();
    let host = worker.host.clone();
    drop(worker);
    assert_eq!(host.cancelled.borrow().len(), 1);
    assert!(!waiting.reply.is_wanted());
    waiting.respond(200, &[], "");
    assert_eq!(story.names().matches("http_call_response").count(), 1);
}

#[test]
fn tokens_of_different_kinds_never_meet() {
    let target = |function, more: &[Arg]| {
        let mut args = vec![S("up"), S("s"), S("m"), At(0, 0)];
        args.extend_from_slice(more);
        args.push(Keep(0));
        call(function, args)
    };
    let steps = [ask(), target("proxy_grpc_call", &[S(""), I(0)]), target("proxy_grpc_stream", &[]), ask()];
    let (worker, story) = Scene::of(Guest::new().on("request_headers", steps)).start();
    let _exchange = worker.get("/").run();
    let functions = ["proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream"];
    let mut tokens: Vec<_> = functions.iter().flat_map(|name| story.answers(name)).map(|answer| answer.cells[0] as u32).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert!(tokens.len() == 4 && tokens[0] != 0, "{tokens:?}");
}

#[test]
fn a_callout_from_a_callout_is_the_same_streams() {
    let switch = call("proxy_set_effective_context", [I(2)]);
    let guest = Guest::new().on("request_headers", [ask(), Step::Return(1)]).on("http_call_response", [switch, ask()]);
    let (worker, _) = Scene::of(guest).start();
    let exchange = worker.get("/").run();
    worker.host.take_callout().unwrap().respond(200, &[], "");
    let second = worker.host.take_callout().unwrap();
    assert!(second.reply.is_wanted());
    drop(exchange);
    assert!(!second.reply.is_wanted(), "it ended with its stream");
}

#[test]
fn a_foreign_function_of_the_guest_reads_its_arguments() {
    let read = call(BYTES, [I(8), I(0), Param(2), Data]);
    let (worker, story) = Scene::of(Guest::new().on("foreign_function", [read.clone()]).on("request_headers", [read])).start();
    worker.filter().call_foreign(7, "arguments".into());
    assert_eq!(story.callbacks(), ["a.foreign_function(1,7,9)"]);
    drop(worker.get("/").run());
    assert_eq!(story.data(BYTES), ["arguments", ""]);
}
