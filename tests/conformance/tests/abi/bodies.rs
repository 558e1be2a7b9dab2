//! Bodies under pause, limits and lengths; trailers.

use weir_wasm::stats::Counter;
use weir_wasm::{BodyAccess, HeaderPause, Side};

use crate::guest::{Guest, I, S, Step, call};
use crate::story::Scene;

/// A guest that answers each callback with what its second parameter says: Pause while there is no end of stream.
fn until_end(callbacks: &str) -> Guest {
    let wait = Step::Raw("(if (i32.eqz (local.get 2)) (then (return (i32.const 1))))".into());
    callbacks.split(' ').fold(Guest::new(), |guest, callback| guest.on(callback, [wait.clone()]))
}

#[test]
fn a_paused_body_is_shown_whole_each_time() {
    let (worker, story) = Scene::of(until_end("request_body")).start();
    let exchange = worker.request("POST", "/").body(&["abc", "de", ""]).run();
    assert_eq!(story.callbacks(), ["a.request_body(2,3,0)", "a.request_body(2,5,0)", "a.request_body(2,5,1)"]);
    assert_eq!(exchange.request_body(), "abcde");
}

#[test]
fn stop_all_shows_nothing_while_headers_wait_and_stream_shows_bodies() {
    let guest = || Guest::new().on("request_headers", [Step::Return(1)]).on("request_body", [Step::Return(1)]).watching("request_trailers");
    for (mode, want) in [
        (HeaderPause::StopAll, "a.request_headers"),
        (HeaderPause::Stream, "a.request_headers a.request_body a.request_body a.request_trailers"),
    ] {
        let (worker, story) = Scene::of(guest()).binding(0, move |binding| binding.header_pause = mode).start();
        let exchange = worker.request("POST", "/").body(&["abc", "de"]).trailers(&[("t", "1")]).run();
        assert_eq!(story.names(), want, "{mode:?}");
        // The trailers callback continued: it releases everything.
        assert_eq!(exchange.reached_upstream(), mode == HeaderPause::Stream);
        assert_eq!(exchange.stream.wants(Side::Request), mode == HeaderPause::Stream, "{mode:?}");
    }
}

#[test]
fn headers_can_be_changed_from_a_body_callback_while_they_wait() {
    let guest =
        until_end("request_headers request_body").on("request_body", [call("proxy_add_header_map_value", [I(0), S("x-len"), S("5")])]);
    let (worker, _) = Scene::of(guest).binding(0, |binding| binding.header_pause = HeaderPause::Stream).start();
    let exchange = worker.request("POST", "/").body(&["abc", "de"]).run();
    assert_eq!((exchange.request_header("x-len").as_deref(), exchange.request_body().as_str()), (Some("5"), "abcde"));
}

#[test]
fn a_final_empty_body_callback_before_trailers_is_an_option() {
    for (option, want) in [
        (false, "a.request_body(2,3,0) a.request_trailers(2,1)"),
        (true, "a.request_body(2,3,0) a.request_body(2,0,1) a.request_trailers(2,1)"),
    ] {
        let (worker, story) = Scene::of(Guest::new().watching("request_body request_trailers"))
            .binding(0, move |b| b.final_body_before_trailers = option)
            .start();
        let exchange = worker.request("POST", "/").body(&["abc"]).trailers(&[("t", "1")]).run();
        assert_eq!(story.callbacks().join(" "), want);
        assert!(exchange.has_trailers(Side::Request) && exchange.request_body() == "abc");
    }
}

#[test]
fn a_body_past_its_limit_is_answered_413_or_500() {
    let requests = until_end("request_body");
    let (worker, _) = Scene::of(requests).binding(0, |binding| binding.limits.body = 4).start();
    let exchange = worker.request("POST", "/").body(&["abc", "de", "f"]).run();
    assert_eq!((exchange.status(), exchange.local_reply().unwrap().details.as_str()), (413, "wasm_body_limit{test}"));
    assert_eq!(worker.stats().counter(Counter::BodyLimitHits), 1);
    assert_eq!(worker.request("POST", "/").body(&["ab", "cd", ""]).run().status(), 200, "exactly at the limit");

    let responses = until_end("response_headers response_body");
    let limits = |binding: &mut weir_wasm::BindingConfig| {
        binding.limits.body = 4;
        binding.header_pause = HeaderPause::Stream;
    };
    let (worker, _) = Scene::of(responses).binding(0, limits).start();
    assert_eq!(worker.get("/").upstream(200, &[], &["abc", "de", "f"]).run().status(), 500);

    // Once the response's head is out there is nothing left but a reset.
    let (worker, _) = Scene::of(until_end("response_body")).binding(0, |binding| binding.limits.body = 4).start();
    let exchange = worker.get("/").upstream(200, &[], &["abc", "de", "f"]).run();
    assert!(exchange.stream.is_reset() && !exchange.is_complete());
}

#[test]
fn a_length_survives_only_filters_that_do_not_write() {
    let writes =
        || until_end("response_body").on("response_body", [call("proxy_set_buffer_bytes", [I(1), I(0), I(99), S("longer than before")])]);
    let reads = || Guest::new().watching("response_body");
    let cases = [
        (reads(), BodyAccess::Auto, Some("5"), "world"),
        (reads(), BodyAccess::ReadWrite, None, "world"),
        (writes(), BodyAccess::ReadOnly, Some("5"), "world"),
        (writes(), BodyAccess::Auto, Some("18"), "longer than before"),
        (writes(), BodyAccess::ReadWrite, None, "longer than before"),
    ];
    for (guest, access, length, body) in cases {
        let (worker, _) = Scene::of(guest).binding(0, move |binding| binding.body_access = access).start();
        let exchange = worker.get("/").upstream(200, &[("content-length", "5")], &["wo", "rld"]).run();
        assert_eq!(exchange.body(), body, "{access:?}");
        assert_eq!(exchange.response_header("content-length").as_deref(), length, "{access:?}");
    }
}

/// Changes what it sees of a body while the rest is still on its way.
fn in_passing(callback: &str, size: u32, text: &'static str) -> Guest {
    let buffer = if callback == "request_body" { 0 } else { 1 };
    Guest::new().on(callback, [call("proxy_set_buffer_bytes", [I(buffer), I(0), I(size), S(text)])])
}

#[test]
fn a_length_stands_when_only_bytes_are_changed() {
    let (worker, _) = Scene::of(in_passing("response_body", 2, "WO")).start();
    let exchange = worker.get("/").upstream(200, &[("content-length", "6")], &["wo", "ld", "s!"]).run();
    assert_eq!((exchange.body().as_str(), exchange.response_header("content-length").as_deref()), ("WOWOWO", Some("6")));
    assert!(exchange.is_complete());
}

#[test]
fn a_length_goes_when_the_first_piece_changes_it() {
    let (worker, _) = Scene::of(in_passing("response_body", 0, ">")).start();
    let exchange = worker.get("/").upstream(200, &[("content-length", "6")], &["wo", "ld", "s!"]).run();
    assert_eq!((exchange.body().as_str(), exchange.response_header("content-length").as_deref()), (">wo>ld>s!", None));
    assert_eq!(worker.stats().counter(Counter::LengthsBroken), 0);
}

#[test]
fn a_length_that_is_broken_later_is_broken_once() {
    let at_end = Step::Raw("(if (i32.eqz (local.get 2)) (then (return (i32.const 0))))".into());
    let appends = || Guest::new().on("response_body", [at_end.clone(), call("proxy_set_buffer_bytes", [I(1), I(99), I(0), S("!")])]);
    let shortens = || Guest::new().on("response_body", [at_end.clone(), call("proxy_set_buffer_bytes", [I(1), I(0), I(1), S("")])]);
    for (guest, body) in [(appends(), "world!"), (shortens(), "world")] {
        let (worker, _) = Scene::chain([Guest::new().watching("response_body"), guest.tag('b')]).start();
        let answer = || worker.get("/").upstream(200, &[("content-length", "5")], &["wo", "rld"]).run();
        let exchange = answer();
        assert!(exchange.stream.is_reset() && !exchange.is_complete(), "{body}: nobody gets a message that is not what its head says");
        let exchange = answer();
        let length = exchange.response_header("content-length");
        assert_eq!((exchange.body().len(), exchange.is_complete(), length), (if body == "world!" { 6 } else { 4 }, true, None));
    }
}

#[test]
fn a_request_whose_length_is_broken_is_answered() {
    let at_end = Step::Raw("(if (i32.eqz (local.get 2)) (then (return (i32.const 0))))".into());
    let guest = Guest::new().on("request_body", [at_end, call("proxy_set_buffer_bytes", [I(0), I(99), I(0), S("!")])]);
    let (worker, _) = Scene::of(guest).start();
    let post = || worker.request("POST", "/").header("content-length", "5").body(&["ab", "cde"]).run();
    let exchange = post();
    assert_eq!((exchange.status(), exchange.local_reply().unwrap().details.as_str()), (500, "wasm_body_length{test}"));
    assert_eq!(worker.stats().counter(Counter::LengthsBroken), 1);
    let exchange = post();
    assert_eq!((exchange.status(), exchange.request_body().as_str(), exchange.request_header("content-length")), (200, "abcde!", None));
}

#[test]
fn a_length_that_is_known_in_time_is_set_right() {
    let write = call("proxy_set_buffer_bytes", [I(1), I(0), I(99), S("whole")]);
    let guest = until_end("response_headers response_body").on("response_body", [write]);
    let (worker, _) = Scene::of(guest).binding(0, |binding| binding.header_pause = HeaderPause::Stream).start();
    let exchange = worker.get("/").upstream(200, &[("content-length", "11")], &["hello ", "world"]).run();
    assert_eq!((exchange.body().as_str(), exchange.response_header("content-length").as_deref()), ("whole", Some("5")));
}

#[test]
fn trailers_are_added_in_the_last_body_callback() {
    let add = || Step::Raw("(if (i32.eqz (local.get 2)) (then (return (i32.const 0))))".into());
    let guest = |map: u32, at: &str| Guest::new().on(at, [add(), call("proxy_add_header_map_value", [I(map), S("sum"), S("1")])]);
    let (worker, story) = Scene::of(guest(1, "request_body").watching("request_trailers")).start();
    let exchange = worker.request("POST", "/").body(&["ab", "c"]).run();
    assert!(exchange.has_trailers(Side::Request));
    assert_eq!(exchange.stream.host().header(weir_wasm::MessageMap::RequestTrailers, "sum"), Some("1"));
    assert!(!story.names().contains("trailers"), "it does not meet its own trailers: {}", story.names());

    let (worker, story) = Scene::chain([Guest::new().watching("response_trailers"), guest(3, "response_body").tag('b')]).start();
    let exchange = worker.get("/").upstream(200, &[], &["ab", "c"]).run();
    assert!(exchange.has_trailers(Side::Response) && exchange.body() == "abc");
    assert_eq!(story.names(), "b.response_body b.response_body a.response_trailers", "the next filter does");
}

#[test]
fn an_empty_last_frame_is_told() {
    let (worker, story) = Scene::of(Guest::new().watching("request_headers request_body")).start();
    let _ = worker.request("POST", "/").body(&[""]).run();
    assert_eq!(story.callbacks(), ["a.request_headers(2,4,0)", "a.request_body(2,0,1)"]);
}
