//! The end of an instance: `on_done`, `proxy_done`, the deadline.

use std::time::Duration;

use weir_sdk_testing::Worker;
use weir_wasm::stats::Counter;

use crate::guest::{At, Guest, I, M, Out, Return, S, Step, call};
use crate::story::{Scene, Story};

const PATIENCE: Duration = Duration::from_secs(5);

/// A root context that is not done at once.
fn lingering() -> (Worker, Story) {
    let done = Step::Raw("(if (i32.eq (local.get 0) (i32.const 1)) (then (return (i32.const 0))))".into());
    let guest =
        Guest::new().on("configure", [call("proxy_set_tick_period_milliseconds", [I(100)])]).on("done", [done]).watching("delete tick");
    let (worker, story) = Scene::of(guest).start();
    story.clear();
    (worker, story)
}

#[test]
fn a_filter_that_is_done_ends_at_once() {
    let (worker, story) = Scene::of(Guest::new().watching("done delete")).start();
    story.clear();
    worker.filter().retire();
    assert!(worker.filter().is_gone());
    assert_eq!(story.callbacks(), ["a.done(1)", "a.delete(1)"]);
}

#[test]
fn a_filter_that_is_not_done_has_until_the_deadline() {
    let (worker, story) = lingering();
    worker.filter().retire();
    assert_eq!(story.names(), "a.done");
    worker.host.advance(PATIENCE - Duration::from_millis(1));
    worker.run_timers();
    assert!(!worker.filter().is_gone());
    assert_eq!(story.names(), "a.done", "no ticks after on_done");
    worker.host.advance(Duration::from_millis(1));
    worker.run_timers();
    assert!(worker.filter().is_gone());
    assert_eq!(story.names(), "a.done a.delete");
    assert_eq!(worker.stats().counter(Counter::DeadlineMisses), 1);
    assert!(worker.host.logged("did not finish in time"));
}

#[test]
fn proxy_done_ends_the_wait() {
    // It has something to tell before it goes, and is done when that has arrived.
    let head = M(&[(":method", "POST"), (":path", "/"), (":authority", "up")]);
    let ask = call("proxy_http_call", [S("up"), head, S("last words"), At(0, 0), I(0), Out]);
    let done = [call("proxy_done", []), call("proxy_done", [])];
    let guest = Guest::new().on("done", [ask, Return(0)]).on("http_call_response", done).watching("delete");
    let (worker, story) = Scene::of(guest).start();
    story.clear();
    worker.filter().retire();
    assert!(!worker.filter().is_gone());
    worker.host.take_callout().unwrap().respond(200, &[], "");
    assert_eq!(story.statuses("proxy_done"), [0, 1], "once is enough");
    worker.run_timers();
    assert!(worker.filter().is_gone());
    assert_eq!(story.names(), "a.done a.http_call_response a.delete");
    assert_eq!(worker.stats().counter(Counter::DeadlineMisses), 0);
}

#[test]
fn proxy_done_from_inside_on_done_counts() {
    let (worker, story) = Scene::of(Guest::new().on("done", [call("proxy_done", []), Return(0)]).watching("delete")).start();
    story.clear();
    worker.filter().retire();
    assert!(worker.filter().is_gone());
    assert_eq!(story.names(), "a.done a.delete");
}

#[test]
fn a_retired_instance_serves_its_streams_to_the_end() {
    let (worker, story) = Scene::of(Guest::new().on("request_headers", [Return(1)]).watching("done delete log")).start();
    story.clear();
    let exchange = worker.get("/").run();
    worker.filter().retire();
    assert!(!worker.filter().is_gone(), "a stream is in it");
    let fresh = worker.get("/").run();
    assert_eq!(story.names().matches("a.request_headers").count(), 2, "the next stream has a fresh instance");
    drop(exchange);
    worker.run_timers();
    assert!(story.callbacks().contains(&"a.delete(1)".to_owned()), "{:?}", story.callbacks());
    drop(fresh);
    worker.filter().retire();
    assert!(worker.filter().is_gone());
}
