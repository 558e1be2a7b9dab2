//! gRPC calls and streams.

use bytes::Bytes;
use weir_sdk_testing::{Callout, Worker};
use weir_wasm::stats::Level;

use crate::guest::{At, Data, Guest, I, Keep, Out, S, Step, Var, call};
use crate::story::{Scene, Story};

const CALLBACKS: [&str; 4] = ["grpc_receive_initial_metadata", "grpc_receive", "grpc_receive_trailing_metadata", "grpc_close"];

fn unary() -> Step {
    call("proxy_grpc_call", [S("up"), S("pkg.S"), S("M"), At(0, 0), S("question"), I(0), Keep(0)])
}

fn stream() -> Step {
    call("proxy_grpc_stream", [S("up"), S("pkg.S"), S("M"), At(0, 0), Keep(0)])
}

/// Opens something in the request and reads whatever comes.
fn open(step: Step) -> (Worker, Story, Callout) {
    let read = [
        call("proxy_get_header_map_value", [I(4), S("i"), Data]),
        call("proxy_get_header_map_value", [I(5), S("t"), Data]),
        call("proxy_get_buffer_bytes", [I(5), I(0), I(100), Data]),
        call("proxy_get_status", [Out, Data]),
    ];
    let guest = CALLBACKS.iter().fold(Guest::new(), |guest, callback| guest.on(callback, read.clone()));
    let timer = call("proxy_set_tick_period_milliseconds", [I(1)]);
    let (worker, story) = Scene::of(guest.on("configure", [timer]).on("tick", [step])).start();
    worker.host.advance(std::time::Duration::from_secs(1));
    worker.run_timers();
    let callout = worker.host.take_callout().unwrap();
    story.clear();
    (worker, story, callout)
}

fn pairs(name: &'static str, value: &'static str) -> Vec<(Bytes, Bytes)> {
    vec![(name.into(), value.into())]
}

fn heard(story: &Story) -> String {
    story.names().replace("a.grpc_", "")
}

#[test]
fn a_unary_call_is_answered_by_one_message_and_nothing_more() {
    let (worker, story, callout) = open(unary());
    assert_eq!(
        (callout.method.as_deref(), callout.body.as_ref(), callout.timeout.unwrap().as_secs()),
        (Some("pkg.S/M"), &b"question"[..], 60)
    );
    callout.reply.grpc_initial_metadata(pairs("i", "1"));
    callout.reply.grpc_message("answer".into());
    callout.reply.grpc_message("again".into());
    callout.reply.grpc_close(0, "");
    assert_eq!(heard(&story), "receive");
    assert_eq!(story.data("proxy_get_buffer_bytes"), ["answer"]);
    assert_eq!(worker.stats().level(Level::PendingCallouts), 0);
}

#[test]
fn a_unary_call_that_fails_is_closed_once() {
    for (status, told) in [(5, 5), (0, 13)] {
        let (_worker, story, callout) = open(unary());
        callout.reply.grpc_close(status, "not there");
        assert_eq!(heard(&story), "close");
        assert!(story.callbacks()[0].ends_with(&format!(",{told})")), "{:?}", story.callbacks());
        let answer = &story.answers("proxy_get_status")[0];
        assert_eq!((answer.cells[0] as u32, answer.data.as_deref()), (told, Some(&b"not there"[..])));
    }
    let (_worker, story, callout) = open(unary());
    callout.reply.fail(14, "no healthy host");
    assert_eq!(heard(&story), "close");
}

#[test]
fn a_stream_brings_everything_in_order_and_close_last() {
    let (worker, story, callout) = open(stream());
    callout.reply.grpc_initial_metadata(pairs("i", "1"));
    callout.reply.grpc_message("one".into());
    callout.reply.grpc_message("".into());
    callout.reply.grpc_trailing_metadata(pairs("t", "2"));
    callout.reply.grpc_close(0, "");
    assert_eq!(heard(&story), "receive_initial_metadata receive receive receive_trailing_metadata close");
    let token = story.callbacks()[0].split(',').nth(1).unwrap().to_owned();
    assert_eq!(story.callbacks()[1], format!("a.grpc_receive(1,{token},3)"));
    assert_eq!(story.callbacks()[4], format!("a.grpc_close(1,{token},0)"));
    let values = story.data("proxy_get_header_map_value");
    assert_eq!(values, ["1", "-", "-", "-", "-", "-", "-", "2", "-", "-"], "metadata is readable in its own callback");
    assert_eq!(story.data("proxy_get_buffer_bytes"), ["-", "one", "", "-", "-"]);
    assert_eq!(worker.stats().level(Level::PendingCallouts), 0);
}

#[test]
fn a_stream_that_is_dropped_is_closed() {
    let (_worker, story, callout) = open(stream());
    drop(callout);
    assert_eq!(heard(&story), "close");
    assert!(story.callbacks()[0].ends_with(",14)"));
}

/// Opens a stream in one tick, and does `step` in the next.
fn then(step: Step) -> (Worker, Story, Callout) {
    let once = Step::Raw("(if (i32.load (i32.const 260)) (then ".into());
    let mark = Step::Raw("(i32.store (i32.const 260) (i32.const 1))".into());
    let timer = call("proxy_set_tick_period_milliseconds", [I(1)]);
    let done = Step::Raw("(return)))".into());
    let guest = CALLBACKS.iter().fold(Guest::new(), |guest, callback| guest.on(callback, []));
    let (worker, story) = Scene::of(guest.on("configure", [timer]).on("tick", [once, step, done, mark, stream()])).start();
    let tick = || {
        worker.host.advance(std::time::Duration::from_secs(1));
        worker.run_timers();
    };
    tick();
    let callout = worker.host.take_callout().unwrap();
    tick();
    story.clear();
    (worker, story, callout)
}

#[test]
fn a_cancelled_stream_is_silent() {
    let (worker, story, callout) = then(call("proxy_grpc_cancel", [Var(0)]));
    assert!(!callout.reply.is_wanted());
    assert_eq!(worker.host.cancelled.borrow()[..], [(callout.id, false)]);
    callout.reply.grpc_message("late".into());
    callout.reply.grpc_close(0, "");
    assert_eq!(heard(&story), "");
    assert_eq!(worker.stats().level(Level::PendingCallouts), 0);
}

#[test]
fn a_closed_stream_still_hears_the_peer() {
    let (worker, story, callout) = then(call("proxy_grpc_close", [Var(0)]));
    assert_eq!(worker.host.cancelled.borrow()[..], [(callout.id, true)]);
    callout.reply.grpc_message("last words".into());
    callout.reply.grpc_close(0, "");
    assert_eq!(heard(&story), "receive close");
}

#[test]
fn messages_are_sent_in_order() {
    let (worker, _, callout) = then(call("proxy_grpc_send", [Var(0), S("message"), I(0)]));
    assert_eq!(worker.host.grpc_sent.borrow()[..], [(callout.id, Bytes::from_static(b"message"), false)]);
}
