//! The end of an instance: `on_done`, `proxy_done`, the deadline.

use std::time::Duration;

use weir_sdk_testing::Worker;
use weir_wasm::stats::Counter;

use crate::guest::{Guest, I, Return, S, call};
use crate::story::{Scene, Story};

const PATIENCE: Duration = Duration::from_secs(5);

/// A root context that is not done at once, and what it does about it.
fn lingering(callback: &str, steps: impl Into<Vec<crate::guest::Step>>) -> (Worker, Story) {
    let done = crate::guest::Step::Raw("(if (i32.eq (local.get 0) (i32.const 1)) (then (return (i32.const 0))))".into());
    let guest = Guest::new().on("done", [done]).watching("delete tick queue_ready log").on(callback, steps);
    let guest = guest.on("configure", [call("proxy_set_tick_period_milliseconds", [I(100)])]);
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
    let (worker, story) = lingering("log", []);
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
    let ask = call(
        "proxy_http_call",
        [S("up"), crate::guest::M(&[(":method", "GET"), (":path", "/"), (":authority", "up")]), S(""), S(""), I(0), crate::guest::Out],
    );
    let (worker, story) = lingering("request_headers", [call("proxy_set_effective_context", [I(1)]), ask]);
    let _ = worker.get("/").run();
    drop(story);
    let _ = worker;

    let (worker, story) = lingering("foreign_function", [call("proxy_done", []), call("proxy_done", [])]);
    worker.filter().call_foreign(1, "".into());
    assert_eq!(story.statuses("proxy_done"), [1, 1], "nothing waits for it yet");
    worker.filter().retire();
    assert!(!worker.filter().is_gone());
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
