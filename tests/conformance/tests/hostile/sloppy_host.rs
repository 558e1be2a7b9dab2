//! Hosts that break their contract: they answer callouts from inside the call that starts them, from inside `cancel`, from inside `log`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use weir_sdk_testing::{MemoryHost, Tester, Worker};
use weir_wasm::codec::Path;
use weir_wasm::stats::{Callback, Level as Gauge};
use weir_wasm::{
    Attribute, Binding, BindingConfig, CallId, CalloutError, Chain, Engine, EngineOptions, Filter, Foreign, GrpcCall, Host, HttpCall,
    HttpReply, Kind, Level, LogLine, Reply, Upstreams,
};

use crate::world::{guest, request_headers};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Call,
    Cancel,
    Log,
}

/// A [`MemoryHost`] that answers at the wrong time.
struct Sloppy {
    inner: Rc<MemoryHost>,
    when: When,
    held: RefCell<Vec<Reply>>,
}

impl Sloppy {
    fn answer(&self) {
        let held = std::mem::take(&mut *self.held.borrow_mut());
        for reply in held {
            reply.http(HttpReply { headers: vec![(":status".into(), "200".into())], ..HttpReply::default() });
        }
    }
}

impl Host for Sloppy {
    fn wall_nanos(&self) -> u64 {
        self.inner.wall_nanos()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.inner.monotonic_nanos()
    }

    fn random(&self, out: &mut [u8]) {
        self.inner.random(out);
    }

    fn log(&self, line: &LogLine<'_>) {
        self.inner.log(line);
        if self.when == When::Log {
            self.answer();
        }
    }

    fn log_level(&self, _: &str) -> Level {
        Level::Trace
    }

    fn http_call(&self, _: CallId, _: HttpCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        self.held.borrow_mut().push(reply);
        if self.when == When::Call {
            self.answer();
        }
        Ok(())
    }

    fn grpc_call(&self, _: CallId, _: GrpcCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        reply.grpc_message("at once".into());
        reply.grpc_close(0, "");
        Ok(())
    }

    fn grpc_send(&self, _: CallId, _: Bytes, _: bool) {}

    fn cancel(&self, id: CallId, graceful: bool) {
        self.inner.cancel(id, graceful);
        if self.when == When::Cancel {
            self.answer();
        }
    }

    fn timer_changed(&self) {
        self.inner.timer_changed();
    }

    fn queue_notifier(&self) -> Arc<dyn Fn() + Send + Sync> {
        self.inner.queue_notifier()
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        self.inner.attribute(path)
    }

    fn foreign(&self, binding: &str, name: &str, arguments: &[u8]) -> Foreign {
        self.inner.foreign(binding, name, arguments)
    }
}

fn worker(when: When, wat: &str) -> Worker {
    let engine = Engine::new(EngineOptions::default()).expect("an engine");
    let mut config = BindingConfig::new("bad");
    config.upstreams = Upstreams::Any;
    let binding = Binding::load(&engine, config, "bad", &wat::parse_str(wat).expect("valid"), None).expect("loads");
    let inner = Rc::new(MemoryHost::default());
    let host = Rc::new(Sloppy { inner: inner.clone(), when, held: RefCell::default() });
    let filter = Filter::start(&binding, host).expect("starts");
    Worker { host: inner, chain: Chain::new(Kind::Http, vec![filter]), engine }
}

/// Calls out, logs and pauses; continues when answered.
fn waiting() -> String {
    guest(
        r#"(global $stream (mut i32) (i32.const 0))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (global.set $stream (local.get 0))
          (drop (call $call_up))
          (drop (call $log (i32.const 2) (i32.const 1024) (i32.const 4)))
          (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (if (i32.ne (local.get 2) (i32.const 1)) (then (unreachable)))
          (drop (call $effective (global.get $stream)))
          (drop (call $continue (i32.const 0))))"#,
    )
}

#[test]
fn an_answer_from_inside_a_host_call_is_delivered_once_after_the_callback() {
    for when in [When::Call, When::Log] {
        let worker = worker(when, &waiting());
        for round in 1..=3 {
            let mut exchange = worker.get("/").run();
            exchange.go_on();
            assert_eq!((exchange.status(), exchange.is_complete()), (200, true), "{when:?}");
            assert_eq!(worker.stats().callback(Callback::HttpCallResponse).calls, round, "{when:?}");
        }
        assert_eq!(worker.stats().level(Gauge::PendingCallouts), 0);
    }
}

#[test]
fn an_answer_from_inside_cancel_is_nobodys() {
    let worker = worker(When::Cancel, &waiting());
    for _ in 0..3 {
        let exchange = worker.get("/").run();
        assert!(!exchange.is_complete());
        drop(exchange);
    }
    let stats = worker.stats();
    assert_eq!((stats.callback(Callback::HttpCallResponse).calls, stats.level(Gauge::PendingCallouts)), (0, 0));
    assert_eq!(stats.level(Gauge::LiveContexts), 0);
}

#[test]
fn a_filter_and_a_host_that_never_stop_share_the_worker_all_the_same() {
    let again = r#"(func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32) (drop (call $call_up)))"#;
    let worker = worker(When::Call, &guest(&format!("{again} {}", request_headers("(drop (call $call_up))"))));
    let exchange = worker.get("/").run();
    assert_eq!(exchange.status(), 200);
    let calls = || worker.stats().callback(Callback::HttpCallResponse).calls;
    let before = calls();
    assert!(before <= 1000, "{before}");
    assert!(worker.host.timer_changes.get() > 0, "it asks to be called again");
    worker.run_timers();
    assert!(calls() > before && calls() <= before + 1000);
    drop(exchange);
    assert_eq!(worker.stats().level(Gauge::LiveContexts), 0);
}

#[test]
fn an_answer_while_the_instance_starts_waits_for_it() {
    let start = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $call_up)) (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32))"#;
    let worker = worker(When::Call, &guest(start));
    worker.run_timers();
    assert_eq!(worker.get("/").run().status(), 200);
    let stats = worker.stats();
    assert_eq!((stats.callback(Callback::HttpCallResponse).calls, stats.level(Gauge::PendingCallouts)), (1, 0));
}

#[test]
fn answers_after_the_filter_is_gone_are_nobodys() {
    let wasm = wat::parse_str(waiting()).expect("valid");
    let worker = Tester::new(&wasm).binding(|binding| binding.upstreams = Upstreams::Any).start().expect("starts");
    let exchange = worker.get("/").run();
    let callout = worker.host.take_callout().expect("a callout");
    drop(exchange);
    drop(worker);
    assert!(!callout.reply.is_wanted());
    callout.respond(200, &[], "");
}
