//! What a stream meets when its filter dies: on each side, early and late, with a body held back, and while it waits.

use weir_sdk_testing::Exchange;
use weir_wasm::stats::{Counter, TrapKind};
use weir_wasm::{FailurePolicy, MessageMap, Side};

use crate::world::{World, guest};

/// A callback that does `code` and answers `action`.
fn callback(name: &str, parameters: usize, code: &str, action: &str) -> String {
    let parameters = "i32 ".repeat(parameters);
    format!(r#"(func (export "proxy_on_{name}") (param {parameters}) (result i32) {code} (i32.const {action}))"#)
}

const CRASH: &str = "(unreachable)";
/// At the last piece of the body.
const CRASH_AT_END: &str = "(if (local.get 2) (then (unreachable)))";

/// Where it crashes, and whether the response's head has gone out by then.
fn crashes() -> Vec<(&'static str, String, bool)> {
    let head = |side: &str| callback(&format!("{side}_headers"), 3, CRASH, "0");
    let late = |side: &str| callback(&format!("{side}_body"), 3, CRASH_AT_END, "0");
    let held = |side: &str| {
        let pause = callback(&format!("{side}_headers"), 3, "", "0");
        format!("{pause} {}", callback(&format!("{side}_body"), 3, CRASH_AT_END, "1"))
    };
    vec![
        ("request headers", head("request"), false),
        ("request body, passed on", late("request"), false),
        ("request body, held", held("request"), false),
        ("response headers", head("response"), false),
        ("response body, passed on", late("response"), true),
        ("response body, held", held("response"), true),
    ]
}

fn run(world: &World) -> Exchange {
    let request = world.bad.request("POST", "/").header("x-kept", "1").body(&["one ", "two ", "three"]);
    request.upstream(200, &[("x-up", "1")], &["four ", "five ", "six"]).run()
}

#[test]
fn open_lets_everything_through_unchanged() {
    for (what, code, _) in crashes() {
        let world = World::with(&guest(&code), |binding| binding.failure_policy = FailurePolicy::Open);
        let exchange = run(&world);
        assert_eq!((exchange.status(), exchange.is_complete()), (200, true), "{what}");
        assert_eq!((exchange.request_body().as_str(), exchange.body().as_str()), ("one two three", "four five six"), "{what}");
        let kept = (exchange.request_header("x-kept"), exchange.response_header("x-up"));
        assert_eq!(kept, (Some("1".into()), Some("1".into())), "{what}");
        assert_eq!((world.counter(Counter::FailedOpen), world.traps(TrapKind::Unreachable)), (1, 1), "{what}: {}", world.log());
        drop(exchange);
        world.others_answer();
        world.nothing_is_left();
    }
}

#[test]
fn closed_answers_503_or_resets_what_has_begun() {
    for (what, code, head_is_out) in crashes() {
        let world = World::new(&guest(&code));
        let exchange = run(&world);
        if head_is_out {
            assert!(exchange.stream.is_reset() && !exchange.is_complete(), "{what}");
        } else {
            assert_eq!((exchange.status(), exchange.is_complete(), exchange.body().as_str()), (503, true, ""), "{what}");
            assert_eq!(exchange.local_reply().expect("a reply").details, "wasm_trap{bad}");
            assert_eq!(exchange.response_header("x-up"), None, "{what}: nothing of the upstream's response");
        }
        assert_eq!(world.counter(Counter::FailedClosed), 1, "{what}");
        drop(exchange);
        world.others_answer();
        world.nothing_is_left();
    }
}

/// The first stream waits for a callout; a request with one more header crashes.
const WAITING: &str = "(if (i32.eq (local.get 1) (i32.const 5)) (then (unreachable))) (drop (call $call_up))";

#[test]
fn streams_that_wait_on_a_dead_instance_are_woken_to_meet_the_policy() {
    for (policy, status) in [(FailurePolicy::Closed, 503), (FailurePolicy::Open, 200)] {
        let world = World::with(&guest(&callback("request_headers", 3, WAITING, "1")), |binding| binding.failure_policy = policy);
        let mut waiting: Vec<Exchange> = (0..3).map(|_| world.bad.request("POST", "/").body(&["held"]).run()).collect();
        assert!(waiting.iter().all(|exchange| exchange.stream.is_paused(Side::Request)));
        let _ = world.bad.get("/").header("crash", "1").run();
        for exchange in &mut waiting {
            assert!(exchange.stream.host().wakes > 0, "{policy:?}: it is woken");
            assert!(exchange.go_on(), "{policy:?}");
            assert_eq!(exchange.status(), status);
            assert_eq!(exchange.request_body(), if status == 200 { "held" } else { "" });
        }
        assert_eq!(world.bad.host.cancelled.borrow().len(), 3, "nobody waits for their callouts");
        for callout in world.bad.host.take_callouts() {
            assert!(!callout.reply.is_wanted());
            callout.respond(200, &[], "too late");
        }
        drop(waiting);
        assert_eq!(world.bad.stats().callback(weir_wasm::stats::Callback::HttpCallResponse).calls, 0);
        world.others_answer();
        world.nothing_is_left();
    }
}

#[test]
fn a_dead_filter_in_a_chain_leaves_the_others_at_work() {
    let crash = callback("request_headers", 3, CRASH, "0");
    let world = World::with(&guest(&crash), |binding| binding.failure_policy = FailurePolicy::Open);
    let filters = vec![world.friendly.filter().clone(), world.bad.filter().clone()];
    let chain = weir_wasm::Chain::new(weir_wasm::Kind::Http, filters);
    let both = weir_sdk_testing::Worker { host: world.bad.host.clone(), chain, engine: world.bad.engine.clone() };
    let exchange = both.request("POST", "/").body(&["body"]).run();
    assert_eq!((exchange.status(), exchange.request_body().as_str()), (200, "body"));
    assert_eq!(exchange.request_header("friendly").as_deref(), Some("value"));
    drop(exchange);
    world.others_answer();
}

/// A stream whose response is through and not taken, and whose filter then dies.
fn finished(world: &World, request_ends: bool) -> weir_wasm::Stream<weir_sdk_testing::MemoryStream> {
    let mut stream = world.bad.stream();
    stream.host_mut().set_map(MessageMap::RequestHeaders, &[(":path", "/")]);
    stream.request_headers(request_ends);
    stream.host_mut().set_map(MessageMap::ResponseHeaders, &[(":status", "200")]);
    stream.response_headers(false);
    stream.response_body("whole".into(), true);
    let _ = world.bad.get("/").header("crash", "1").run();
    assert_eq!(world.traps(TrapKind::Unreachable), 1);
    stream
}

const CRASH_AT_FIVE: &str = "(if (i32.eq (local.get 1) (i32.const 5)) (then (unreachable)))";

#[test]
fn what_has_come_through_outlives_the_filter() {
    let code = callback("request_headers", 3, CRASH_AT_FIVE, "0") + &callback("request_body", 3, "", "0");
    for request_ends in [true, false] {
        let world = World::new(&guest(&code));
        let mut stream = finished(&world, request_ends);
        stream.resume();
        assert!(!stream.is_reset() && stream.local_reply().is_none());
        stream.request_body("unseen".into(), true);
        let (request, response) = (stream.take(Side::Request), stream.take(Side::Response));
        assert_eq!((request.head, request.end, request.data.len()), (true, request_ends, 0), "nothing passes that it has not seen");
        assert_eq!((response.head, response.end, response.data.as_ref()), (true, true, &b"whole"[..]));
        // The stream that crashed is one; an unfinished request is another.
        assert_eq!(world.counter(Counter::FailedClosed), if request_ends { 1 } else { 2 });
        drop(stream);
        world.nothing_is_left();
    }
}
