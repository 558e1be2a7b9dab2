//! The order of callbacks along a chain, and what one filter's property is to the next.

use bytes::Bytes;
use weir_wasm::stats::Counter;
use weir_wasm::{FailurePolicy, Side};

use crate::guest::{Data, Guest, I, M, S, Step, call};
use crate::story::Scene;

const ALL: &str = "context_create vm_start configure request_headers request_body request_trailers response_headers response_body \
                   response_trailers log done delete";

fn watcher(tag: char) -> Guest {
    Guest::new().tag(tag).watching(ALL)
}

fn replying(tag: char, at: &str) -> Guest {
    watcher(tag).on(at, [call("proxy_send_local_response", [I(403), S(""), S("no"), M(&[]), I(u32::MAX)])])
}

#[test]
fn a_chain_is_entered_in_order_and_left_in_reverse() {
    let (worker, story) = Scene::chain([watcher('a'), watcher('b'), watcher('c')]).start();
    let started: Vec<_> = "abc"
        .chars()
        .flat_map(|tag| ["context_create(1,0)", "vm_start(1,6)", "configure(1,4)"].map(|text| format!("{tag}.{text}")))
        .collect();
    assert_eq!(story.callbacks(), started);
    story.clear();
    drop(
        worker
            .request("POST", "/")
            .body(&["x"])
            .trailers(&[("t", "1")])
            .upstream(200, &[], &["y", ""])
            .upstream_trailers(&[("t", "1")])
            .run(),
    );
    let step = |order: &str, names: &[&str]| {
        order.chars().flat_map(|tag| names.iter().map(move |name| format!("{tag}.{name}"))).collect::<Vec<_>>()
    };
    let mut want = step("abc", &["context_create(2,1)", "request_headers(2,4,0)"]);
    want.extend(step("abc", &["request_body(2,1,0)"]));
    want.extend(step("abc", &["request_trailers(2,1)"]));
    want.extend(step("cba", &["response_headers(2,1,0)"]));
    want.extend(step("cba", &["response_body(2,1,0)"]));
    want.extend(step("cba", &["response_trailers(2,1)"]));
    want.extend(step("abc", &["log(2)"]));
    want.extend(step("abc", &["done(2)", "delete(2)"]));
    assert_eq!(story.callbacks(), want);
}

#[test]
fn contexts_have_fresh_ids() {
    let (worker, story) = Scene::of(watcher('a')).start();
    for _ in 0..3 {
        drop(worker.get("/").run());
    }
    let created: Vec<_> = story.callbacks().into_iter().filter(|text| text.contains("context_create")).collect();
    assert_eq!(created, ["a.context_create(1,0)", "a.context_create(2,1)", "a.context_create(3,1)", "a.context_create(4,1)"]);
}

#[test]
fn a_filter_that_was_never_reached_only_logs() {
    let (worker, story) = Scene::chain([watcher('a'), replying('b', "request_headers"), watcher('c')]).start();
    story.clear();
    let exchange = worker.get("/").run();
    assert_eq!((exchange.status(), exchange.body().as_str()), (403, "no"));
    drop(exchange);
    // The reply passes those who saw the request, the one who made it first.
    let want = "a.context_create a.request_headers b.context_create b.request_headers b.response_headers b.response_body \
                a.response_headers a.response_body a.log b.log c.context_create c.log a.done a.delete b.done b.delete c.done c.delete";
    assert_eq!(story.names(), want);
}

#[test]
fn a_reply_without_body_ends_with_its_head() {
    let guest = watcher('a').on("request_headers", [call("proxy_send_local_response", [I(204), S(""), S(""), M(&[]), I(u32::MAX)])]);
    let (worker, story) = Scene::of(guest).start();
    story.clear();
    assert!(worker.get("/").run().is_complete());
    assert!(story.callbacks().contains(&"a.response_headers(2,2,1)".to_owned()), "{:?}", story.callbacks());
    assert!(!story.names().contains("response_body"));
}

#[test]
fn a_reply_in_the_response_phase_is_not_shown_to_filters_that_have_begun() {
    let (worker, story) = Scene::chain([watcher('a'), replying('b', "response_headers"), watcher('c')]).start();
    story.clear();
    let exchange = worker.get("/").run();
    assert_eq!((exchange.status(), exchange.body().as_str()), (403, "no"));
    drop(exchange);
    assert_eq!(story.names().matches("c.response_headers").count(), 1);
    assert_eq!(story.names().matches("a.log").count(), 1);
}

#[test]
fn a_pause_returned_after_a_reply_means_nothing() {
    let (worker, _) = Scene::of(replying('a', "request_headers").on("request_headers", [Step::Return(1)])).start();
    let exchange = worker.get("/").run();
    assert_eq!((exchange.status(), exchange.is_complete()), (403, true));
}

#[test]
fn a_failure_reply_does_not_enter_the_dead_instance() {
    let trap = Guest::new().tag('b').watching(ALL).on("request_headers", [Step::Raw("unreachable".into())]);
    for (policy, status, want) in [
        (FailurePolicy::Closed, 503, "a.request_headers b.request_headers a.response_headers"),
        (FailurePolicy::Open, 200, "a.request_headers b.request_headers a.response_headers"),
    ] {
        let (worker, story) = Scene::chain([watcher('a'), trap.clone()]).binding(1, move |binding| binding.failure_policy = policy).start();
        let exchange = worker.get("/").run();
        assert_eq!(exchange.status(), status, "{policy:?}");
        drop(exchange);
        let names = story.names();
        let heads: Vec<_> = names.split(' ').filter(|name| name.ends_with("_headers")).collect();
        assert_eq!(heads.join(" "), want);
        assert!(!names.contains("b.log") && names.contains("a.log"), "{names}");
    }
}

#[test]
fn a_reply_asked_for_by_a_callback_that_then_traps_is_forgotten() {
    for (policy, status) in [(FailurePolicy::Closed, 503), (FailurePolicy::Open, 200)] {
        let guest = replying('a', "request_headers").on("request_headers", [Step::Raw("unreachable".into())]);
        let (worker, story) = Scene::of(guest).binding(0, move |binding| binding.failure_policy = policy).start();
        let exchange = worker.get("/").run();
        assert_eq!(story.statuses("proxy_send_local_response"), [0]);
        assert_eq!(exchange.status(), status, "{policy:?}");
        assert_eq!(worker.stats().counter(Counter::LocalReplies), 0);
    }
}

#[test]
fn a_reply_asked_for_on_behalf_of_a_stream_is_forgotten_too() {
    let reply = call("proxy_send_local_response", [I(403), S(""), S("no"), M(&[]), I(u32::MAX)]);
    let tick = [call("proxy_set_effective_context", [I(2)]), reply, Step::Raw("unreachable".into())];
    let guest = Guest::new().on("configure", [call("proxy_set_tick_period_milliseconds", [I(1)])]).on("tick", tick);
    let (worker, story) = Scene::of(guest.on("request_headers", [Step::Return(1)])).start();
    let mut exchange = worker.get("/").run();
    worker.host.advance(std::time::Duration::from_millis(1));
    worker.run_timers();
    assert_eq!(story.statuses("proxy_send_local_response"), [0]);
    exchange.go_on();
    assert_eq!(exchange.status(), 503, "the policy's, not the filter's");
}

#[test]
fn a_reply_that_comes_too_late_is_told_why() {
    let (worker, _) = Scene::of(replying('a', "log")).start();
    drop(worker.get("/").run());
    assert!(worker.host.logged("this stream is over"), "{:?}", worker.host.log_lines());
    let (worker, _) = Scene::of(replying('a', "new_connection")).binding(0, |binding| binding.kind = weir_wasm::Kind::Tcp).start();
    worker.stream().new_connection();
    assert!(worker.host.logged("a TCP connection has no response"), "{:?}", worker.host.log_lines());
}

#[test]
fn a_property_is_readable_by_later_filters_and_on_the_way_back() {
    let first = Guest::new().tag('a').on("request_headers", [call("proxy_set_property", [S("note"), S("from a")])]);
    let get = || call("proxy_get_property", [S("note"), Data]);
    let first = first.on("response_headers", [get()]).on("log", [get()]);
    let second =
        Guest::new().tag('b').on("request_headers", [get()]).on("response_headers", [call("proxy_set_property", [S("note"), S("from b")])]);
    let (worker, story) = Scene::chain([first, second]).start();
    drop(worker.get("/").run());
    assert_eq!(story.data("proxy_get_property"), ["from a", "from b", "from b"]);
}

#[test]
fn dropping_a_stream_at_any_moment_logs_and_deletes_once() {
    for moment in 0..5 {
        let (worker, story) = Scene::chain([watcher('a'), watcher('b')]).start();
        story.clear();
        let mut stream = worker.stream();
        let steps: [&dyn Fn(&mut weir_wasm::Stream<weir_sdk_testing::MemoryStream>); 4] = [
            &|stream| {
                stream.host_mut().set_map(weir_wasm::MessageMap::RequestHeaders, &[(":path", "/")]);
                stream.request_headers(false);
            },
            &|stream| stream.request_body(Bytes::from_static(b"x"), true),
            &|stream| {
                stream.host_mut().set_map(weir_wasm::MessageMap::ResponseHeaders, &[(":status", "200")]);
                stream.response_headers(false);
            },
            &|stream| stream.response_body(Bytes::from_static(b"x"), true),
        ];
        for step in &steps[..moment] {
            step(&mut stream);
            let _ = stream.take(Side::Request);
        }
        stream.finish();
        stream.finish();
        drop(stream);
        let names = story.names();
        for name in ["a.log", "b.log", "a.done", "b.done", "a.delete", "b.delete"] {
            assert_eq!(names.matches(name).count(), 1, "after {moment} steps: {names}");
        }
        // Those that were never entered are created to log.
        let ends = names.replace(" b.context_create", "");
        assert!(ends.ends_with("a.log b.log a.done a.delete b.done b.delete"), "{names}");
    }
}

#[test]
fn metadata_frames_are_told_to_those_who_are_there() {
    let guest = Guest::new().watching("request_headers request_metadata response_metadata");
    let (worker, story) = Scene::of(guest).start();
    let mut stream = worker.stream();
    stream.metadata(Side::Request, 1);
    assert!(story.callbacks().is_empty(), "there is no context yet");
    stream.host_mut().set_map(weir_wasm::MessageMap::RequestHeaders, &[(":path", "/")]);
    stream.request_headers(false);
    stream.metadata(Side::Request, 2);
    stream.metadata(Side::Response, 3);
    assert_eq!(story.callbacks(), ["a.request_headers(2,1,0)", "a.request_metadata(2,2)", "a.response_metadata(2,3)"]);
}
