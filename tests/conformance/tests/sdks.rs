//! Filters built with three SDKs that other people wrote, all held to one table: `tests/guests/README.md`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use weir_sdk_testing::{TestError, Tester, Value, Worker};
use weir_test_guests as guests;
use weir_wasm::module::cache::Cache;
use weir_wasm::stats::Callback;
use weir_wasm::{Engine, EngineOptions, Level, Upstreams};

struct Sdk {
    name: &'static str,
    wasm: Vec<u8>,
    engine: Engine,
}

/// Native code, so that a guest is compiled once and not by every test.
static CACHE: LazyLock<(tempfile::TempDir, Arc<Cache>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::open(folder.path().join("native"), 256 << 20).expect("a cache");
    (folder, Arc::new(cache))
});

/// Each test has an engine of its own, so that stores and metrics are too.
fn sdks() -> Vec<Sdk> {
    let modules = [("rust", guests::rust_sdk()), ("go", guests::go_sdk()), ("as", guests::assemblyscript())];
    let engine = || Engine::new(EngineOptions { cache: Some(CACHE.1.clone()), ..EngineOptions::default() }).expect("an engine");
    modules.into_iter().map(|(name, path)| Sdk { name, wasm: std::fs::read(path).expect("built"), engine: engine() }).collect()
}

impl Sdk {
    fn start(&self, configuration: &str) -> Result<Worker, TestError> {
        let tester = Tester::with_engine(&self.engine, &self.wasm).configuration(configuration);
        tester.binding(|binding| binding.upstreams = Upstreams::Only(vec!["auth".into()])).start()
    }

    fn worker(&self) -> Worker {
        self.start("").unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

#[test]
fn headers_are_read_added_replaced_and_removed() {
    for sdk in sdks() {
        let worker = sdk.worker();
        let exchange = worker.get("/headers").header("x-in", "1").header("x-drop", "1").header("x-set", "old").run();
        let seen = ["x-out", "x-drop", "x-set"].map(|name| exchange.request_header(name));
        assert_eq!(seen, [Some("1".into()), None, Some("set".into())], "{}", sdk.name);
        assert_eq!(exchange.response_header("x-guest").as_deref(), Some(sdk.name));
        assert_eq!((exchange.status(), exchange.body().as_str()), (200, "upstream"));
    }
}

#[test]
fn bodies_are_buffered_and_replaced() {
    for sdk in sdks() {
        for chunks in [&["hello"][..], &["h", "e", "l", "l", "o"], &["he", "llo", ""]] {
            let exchange = sdk.worker().request("POST", "/body").body(chunks).upstream(200, &[("content-length", "2")], &["o", "k"]).run();
            assert_eq!(exchange.request_body(), "hello|5", "{} {chunks:?}", sdk.name);
            assert_eq!(exchange.body(), "ok|resp", "{} {chunks:?}", sdk.name);
            let length = exchange.response_header("content-length");
            assert!(length.is_none() || length.as_deref() == Some("7"), "{} {length:?}", sdk.name);
        }
    }
}

#[test]
fn a_local_reply_answers_instead_of_the_upstream() {
    for sdk in sdks() {
        let exchange = sdk.worker().get("/local").run();
        assert_eq!((exchange.status(), exchange.body().as_str()), (418, "teapot"), "{}", sdk.name);
        assert_eq!(exchange.response_header("x-local").as_deref(), Some("yes"));
        assert!(!exchange.reached_upstream() && exchange.is_complete());
    }
}

#[test]
fn a_paused_request_waits_for_its_callout() {
    for sdk in sdks() {
        let worker = sdk.worker();
        let mut exchange = worker.get("/callout").run();
        assert!(!exchange.reached_upstream() && !exchange.is_complete(), "{}", sdk.name);
        let callout = worker.host.take_callout().expect("a callout");
        assert_eq!(
            (callout.upstream.as_str(), callout.header(":path"), callout.timeout),
            ("auth", Some("/check"), Some(Duration::from_secs(1)))
        );
        callout.respond(200, &[("x-user", "ann")], "");
        assert!(exchange.go_on(), "{}", sdk.name);
        assert_eq!(exchange.request_header("x-auth").as_deref(), Some("ann"), "{}", sdk.name);

        let mut exchange = worker.get("/callout").run();
        worker.host.take_callout().expect("a callout").respond(401, &[], "who are you?");
        assert!(exchange.go_on());
        assert_eq!((exchange.status(), exchange.body().as_str()), (403, "who are you?"), "{}", sdk.name);

        let mut exchange = worker.get("/callout").run();
        worker.host.take_callout().expect("a callout").reply.fail(14, "timeout");
        assert!(exchange.go_on());
        assert_eq!((exchange.status(), exchange.body().as_str()), (403, "no reply"), "{}", sdk.name);
    }
}

#[test]
fn a_callout_ends_with_its_stream() {
    for sdk in sdks() {
        let worker = sdk.worker();
        drop(worker.get("/callout").run());
        let callout = worker.host.take_callout().expect("a callout");
        assert_eq!(worker.host.cancelled.borrow().len(), 1, "{}", sdk.name);
        assert!(!callout.reply.is_wanted());
        callout.respond(200, &[], "too late");
        assert_eq!(worker.get("/").run().status(), 200, "{}: it still works", sdk.name);
        assert_eq!(worker.stats().callback(Callback::HttpCallResponse).calls, 0);
    }
}

#[test]
fn timers_tick() {
    for sdk in sdks() {
        let worker = sdk.start("tick").expect("starts");
        worker.run_timers();
        assert_eq!(worker.metric("guest_ticks").unwrap_or(0), 0, "{}", sdk.name);
        for tick in 1..=3 {
            worker.host.advance(Duration::from_millis(100));
            worker.run_timers();
            assert_eq!(worker.metric("guest_ticks"), Some(tick), "{}", sdk.name);
        }
        worker.host.advance(Duration::from_secs(10));
        worker.run_timers();
        assert_eq!(worker.metric("guest_ticks"), Some(4), "{}: ticks do not pile up", sdk.name);
    }
}

#[test]
fn shared_data_is_shared_and_outlives_its_instance() {
    for sdk in sdks() {
        for hits in 1..=3 {
            let worker = sdk.worker();
            assert_eq!(worker.get("/shared").run().request_header("x-hits"), Some(hits.to_string()), "{}", sdk.name);
        }
    }
}

#[test]
fn metrics_count() {
    for sdk in sdks() {
        let worker = sdk.worker();
        for count in 1..=3 {
            assert_eq!(worker.get("/metrics").run().request_header("x-count"), Some(count.to_string()), "{}", sdk.name);
        }
        let values = ["guest_requests", "guest_gauge", "guest_hist", "guest_logs"].map(|name| worker.metric(name));
        assert_eq!(values, [Some(3), Some(7), Some(3), Some(3)], "{}", sdk.name);
    }
}

#[test]
fn properties_are_read_and_set() {
    for sdk in sdks() {
        let worker = sdk.worker();
        let exchange =
            worker.get("/property").stream(|stream| stream.set_attribute_value("source.address", Value::from("10.0.0.7:1234"))).run();
        assert_eq!(exchange.request_header("x-source").as_deref(), Some("10.0.0.7:1234"), "{}", sdk.name);
        assert_eq!(exchange.stream.property(b"guest\0note").as_deref(), Some(&b"hi"[..]), "{}", sdk.name);
    }
}

#[test]
fn log_lines_name_their_stream() {
    for sdk in sdks() {
        let worker = sdk.worker();
        let _ = worker.get("/log").stream(|stream| stream.log_id = "trace-1".into()).run();
        let lines = worker.host.log_lines();
        let line = lines.iter().find(|line| line.message.contains("hello from guest")).unwrap_or_else(|| panic!("{}: {lines:?}", sdk.name));
        assert_eq!((line.level, line.stream.as_str(), line.from_guest), (Level::Info, "trace-1", true), "{}", sdk.name);
    }
}

#[test]
fn a_refused_configuration_is_a_load_error() {
    for sdk in sdks() {
        let error = sdk.start("refuse").expect_err("refused");
        assert!(error.to_string().contains("proxy_on_configure"), "{}: {error}", sdk.name);
    }
}

#[test]
fn a_trap_costs_its_own_stream_and_the_next_has_a_fresh_instance() {
    for sdk in sdks() {
        let worker = sdk.worker();
        let exchange = worker.get("/trap").run();
        assert_eq!(exchange.status(), 503, "{}", sdk.name);
        assert_eq!(exchange.local_reply().expect("a reply").details, "wasm_trap{test}");
        assert_eq!(worker.get("/headers").header("x-in", "1").run().request_header("x-out").as_deref(), Some("1"), "{}", sdk.name);
        let lines = worker.host.log_lines();
        let trap = lines.iter().find(|line| line.message.contains("ended in")).expect("the trap is logged");
        assert!(trap.message.contains("\n    at "), "{}: {}", sdk.name, trap.message);
    }
}
