//! What a test controls and can ask for: how bodies are cut, callouts that answer themselves, an instance that ends at any host call, what a request costs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use weir_sdk_testing::host_api::FailurePolicy;
use weir_sdk_testing::{Tester, Worker};

/// Three host calls on request headers: two reads and a write.
const THREE_CALLS: &str = r#"(module
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_replace_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) ":path") (data (i32.const 32) "x-seen") (data (i32.const 48) "yes")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 1024)
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4)))
        (drop (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4)))
        (drop (call $set (i32.const 0) (i32.const 32) (i32.const 6) (i32.const 48) (i32.const 3)))
        i32.const 0))"#;

fn three_calls(policy: FailurePolicy) -> Worker {
    Tester::from_wat(THREE_CALLS).failure_policy(policy).start().unwrap()
}

#[test]
fn host_calls_are_counted_exactly_and_a_budget_holds_a_filter_to_them() {
    let worker = three_calls(FailurePolicy::Closed);
    let cost = worker.budget(|worker| worker.get("/").run()).host_calls(3).micros(1e6).memory(64 << 10);
    assert!(cost.micros > 0.0);
    let costlier = catch_unwind(AssertUnwindSafe(|| worker.budget(|worker| worker.get("/").run()).host_calls(2)));
    assert!(costlier.is_err(), "three calls are not two");
    let slower = catch_unwind(AssertUnwindSafe(|| cost.micros(0.0)));
    assert!(slower.is_err());
}

#[test]
fn an_instance_ends_at_any_host_call_and_the_policy_decides() {
    for (nth, seen) in [(1, false), (2, false), (3, false), (4, true)] {
        let closed = three_calls(FailurePolicy::Closed);
        closed.trap_at(nth);
        assert_eq!(closed.get("/").run().status(), if seen { 200 } else { 503 }, "call {nth}");
        let open = three_calls(FailurePolicy::Open);
        open.trap_at(nth);
        let exchange = open.get("/").run();
        assert_eq!((exchange.status(), exchange.request_header("x-seen").is_some()), (200, seen), "call {nth}");
        assert_eq!(
            closed.get("/").run().status(),
            if seen { 503 } else { 200 },
            "the instance that ended is replaced; the other still ends"
        );
    }
    let worker = three_calls(FailurePolicy::Closed);
    worker.trap_at(1);
    worker.trap_at(0);
    assert_eq!(worker.get("/").run().status(), 200, "taken back");
    assert_eq!(worker.host_calls(), 3);
    worker.trap_at(1);
    assert_eq!(worker.get("/").run().status(), 503);
    assert!(worker.logged("fail_at_host_call"), "{:?}", worker.host.log_lines());
}

mod upper {
    use weir_sdk::prelude::*;

    /// Writes bodies in capitals: whole ones, or, with a mistake, only first letters of pieces.
    #[config]
    pub(crate) struct Upper {
        #[serde(default)]
        by_piece: bool,
    }

    #[register]
    impl Filter for Upper {
        fn on_request_body(&self, stream: &mut Stream<'_>) -> Flow {
            let mut body = stream.request_body().bytes().to_vec();
            match self.by_piece {
                true => body.iter_mut().take(1).for_each(u8::make_ascii_uppercase),
                false => body.make_ascii_uppercase(),
            }
            stream.request_body().replace(body).map_or(Flow::Pause, |()| Flow::Continue)
        }
    }
}

#[test]
fn a_body_means_the_same_however_it_is_cut() {
    let sound = Tester::native::<upper::Upper>().configuration("{}").start().unwrap();
    fn request(worker: &Worker) -> weir_sdk_testing::RequestBuilder<'_> {
        worker.request("POST", "/").body(&["hello, ", "world"]).upstream(200, &[], &["a long answer"])
    }
    request(&sound).each_chunking(|exchange| assert_eq!((exchange.request_body().as_str(), exchange.status()), ("HELLO, WORLD", 200)));
    let mistaken = Tester::native::<upper::Upper>().configuration(r#"{"byPiece": true}"#).start().unwrap();
    let message = catch_unwind(AssertUnwindSafe(|| request(&mistaken).each_chunking(|_| ()))).unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(message.contains("cut Bytes") && message.contains("Hello, world") && message.contains("HELLO, WORLD"), "{message}");
}

mod ask {
    use weir_sdk::prelude::*;

    /// Asks until it is told.
    #[config]
    pub(crate) struct Ask {}

    #[register]
    impl Filter for Ask {
        fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
            stream.wait(async |stream: Handle| {
                let mut tries = 0;
                let answer = loop {
                    tries += 1;
                    match stream.get("auth", "/").send().await {
                        Ok(answer) if answer.status() == 200 => break answer,
                        _ if tries < 5 => {}
                        _ => return stream.with(|stream| stream.reply(503).send()).unwrap_or(Flow::Pause),
                    }
                };
                let passes = |stream: &mut Stream<'_>| stream.request().set("x-tries", format!("{tries} {}", answer.body().len()));
                stream.with(passes).map_or(Flow::Pause, |_| Flow::Continue)
            })
        }
    }
}

#[test]
fn callouts_answer_by_a_script() {
    let worker = Tester::native::<ask::Ask>().configuration("{}").may_call(&["auth"]).start().unwrap();
    let mut calls = 0;
    worker.host.script("auth", move |call| {
        calls += 1;
        match calls {
            1 => call.fail(),
            2 => call.respond(500, &[], ""),
            _ => call.respond(200, &[], "anna"),
        }
    });
    let mut exchange = worker.get("/").run();
    exchange.go_on();
    assert_eq!((exchange.status(), exchange.request_header("x-tries").as_deref()), (200, Some("3 4")));
    assert!(worker.host.take_callout().is_none(), "the script has taken them all");
}

mod count {
    use weir_sdk::prelude::*;

    #[config]
    pub(crate) struct Settings {}

    pub(crate) struct Count(Counter, Counter);

    #[register]
    impl Filter for Count {
        type Config = Settings;

        fn configure(_: Settings, plugin: &Plugin) -> Result<Self, Refusal> {
            plugin.tick_every(std::time::Duration::from_secs(1))?;
            Ok(Self(Counter::define("events", &[("of", "stream")])?, Counter::define("events", &[("of", "time")])?))
        }

        fn on_request_headers(&self, _: &mut Stream<'_>) -> Flow {
            self.0.increment();
            Flow::Continue
        }

        fn on_tick(&self, _: &Plugin) {
            self.1.add(10);
        }
    }
}

#[test]
fn metrics_are_found_by_label_and_time_passes() {
    let worker = Tester::native::<count::Count>().configuration("{}").start().unwrap();
    let exchange = worker.get("/").run();
    assert_eq!((exchange.route(), exchange.status()), (None, 200));
    worker.pass(Duration::from_millis(1500));
    assert_eq!(worker.metric_with("events", &[("of", "stream")]), Some(1));
    assert_eq!(worker.metric_with("events", &[("of", "time")]), Some(10));
    assert_eq!(worker.metric_with("events", &[]), None);
}

#[test]
fn a_native_filter_is_charged_its_own_host_calls_only() {
    let worker = Tester::native::<count::Count>().configuration("{}").start().unwrap();
    worker.budget(|worker| worker.get("/").run()).host_calls(1);
}
