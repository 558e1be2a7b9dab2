//! The filter at work: the same expectations of its native code and of the module that ships.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::time::Duration;

use weir_filter_fault::Injector;
use weir_sdk_testing::{Exchange, Tester, Worker};

fn both(configuration: &str, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<Injector>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        check(&tester.configuration(configuration).start().unwrap_or_else(|error| panic!("{error}")));
    }
}

/// Lets time pass.
fn pass(worker: &Worker, exchange: &mut Exchange, millis: u64) {
    worker.host.advance(Duration::from_millis(millis));
    worker.run_timers();
    exchange.go_on();
}

#[test]
fn a_request_is_held_for_as_long_as_written() {
    both(r#"{"delay": {"fixed": "1.5s"}}"#, |worker| {
        let mut exchange = worker.get("/").run();
        pass(worker, &mut exchange, 1400);
        assert!(!exchange.reached_upstream());
        pass(worker, &mut exchange, 101);
        assert_eq!(exchange.status(), 200);
        assert_eq!(worker.metric("weir_fault_delays_total"), Some(1));
    });
}

#[test]
fn held_requests_do_not_wait_for_each_other() {
    both(r#"{"delay": {"fixed": "100ms"}}"#, |worker| {
        let mut first = worker.get("/1").run();
        pass(worker, &mut first, 60);
        let mut second = worker.get("/2").run();
        pass(worker, &mut first, 41);
        assert!(first.reached_upstream() && !second.reached_upstream());
        pass(worker, &mut second, 60);
        assert!(second.reached_upstream());
    });
}

#[test]
fn a_request_fails_as_written_after_its_delay() {
    both(r#"{"abort": {"status": 418}}"#, |worker| {
        let exchange = worker.get("/").run();
        assert_eq!((exchange.status(), exchange.body().as_str()), (418, "fault filter abort"));
        assert_eq!(exchange.local_reply().unwrap().details, "fault_filter_abort");
    });
    both(r#"{"abort": {"grpcStatus": 14}, "delay": {"fixed": "10ms"}}"#, |worker| {
        let mut exchange = worker.request("POST", "/s/M").header("content-type", "application/grpc").run();
        assert!(!exchange.is_complete());
        pass(worker, &mut exchange, 11);
        assert_eq!(exchange.response_header("grpc-status").as_deref(), Some("14"));
        assert!(!exchange.reached_upstream());
    });
}

#[test]
fn chance_is_as_written_and_repeatable() {
    let verdicts = |worker: &Worker| (0..2000).map(|_| worker.get("/").run().status() == 503).collect::<Vec<_>>();
    let configuration = r#"{"abort": {"status": 503, "percent": 12.5}, "seed": 7}"#;
    let tester = || Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(configuration);
    let (one, other) = (verdicts(&tester().start().unwrap()), verdicts(&tester().start().unwrap()));
    assert_eq!(one, other);
    let failed = one.iter().filter(|failed| **failed).count();
    assert!((200..300).contains(&failed), "{failed} of 2000 at 12.5 %");
    both(r#"{"abort": {"status": 503, "percent": 0}}"#, |worker| assert_eq!(worker.get("/").run().status(), 200));
}

#[test]
fn a_client_may_ask_for_its_own_fault_only_where_that_is_allowed() {
    both(r#"{"abort": {"percent": 100}, "delay": {"percent": 0}, "headers": true}"#, |worker| {
        assert_eq!(worker.get("/").header("x-envoy-fault-abort-request", "429").run().status(), 429);
        assert_eq!(worker.get("/").header("x-envoy-fault-abort-request", "99999").run().status(), 200);
        let none = worker.get("/").header("x-envoy-fault-abort-request", "429").header("x-envoy-fault-abort-request-percentage", "0");
        assert_eq!(none.run().status(), 200);
        let more = worker.get("/").header("x-envoy-fault-delay-request", "50").header("x-envoy-fault-delay-request-percentage", "100");
        assert_eq!(more.run().status(), 200, "no more than the operator allows");
    });
    both(r#"{"abort": {"status": 503, "percent": 0}}"#, |worker| {
        let asking = worker.get("/").header("x-envoy-fault-abort-request", "429").header("x-envoy-fault-abort-request-percentage", "100");
        assert_eq!(asking.run().status(), 200);
    });
}

#[test]
fn only_so_many_are_held_at_a_time() {
    both(r#"{"delay": {"fixed": "1s"}, "maxActive": 2}"#, |worker| {
        let held: Vec<_> = (0..2).map(|_| worker.get("/").run()).collect();
        assert_eq!(worker.get("/").run().status(), 200);
        assert_eq!(worker.metric("weir_fault_overflow_total"), Some(1));
        drop(held);
        assert!(!worker.get("/").run().reached_upstream(), "there is room again");
    });
}

#[test]
fn only_what_is_meant_is_met() {
    both(r#"{"when": {"path": {"prefix": "/slow"}}, "abort": {"status": 500}}"#, |worker| {
        assert_eq!(worker.get("/slow").run().status(), 500);
        assert_eq!(worker.get("/fast").run().status(), 200);
    });
}

#[test]
fn a_refusal_names_the_field() {
    for (fault, said) in [
        (r#"{"delay": {"fixed": "1"}}"#, "delay.fixed: \"1\" is no time"),
        (r#"{"delay": {"fixed": "2h"}}"#, "delay.fixed: the longest delay is one hour"),
        (r#"{"delay": {}}"#, "delay.fixed: how long is missing"),
        (r#"{"delay": {"fixed": "1s", "percent": 101}}"#, "delay.percent: 101 is no percentage"),
        (r#"{"abort": {}}"#, "abort: one of status and grpcStatus"),
        (r#"{"abort": {"status": 200, "grpcStatus": 1}}"#, "abort: only one"),
        (r#"{"abort": {"status": 99}}"#, "abort.status: 99"),
        (r#"{"abort": {"grpcStatus": 17}}"#, "abort.grpcStatus"),
    ] {
        let error = Tester::native::<Injector>().configuration(fault).start().unwrap_err().to_string();
        assert!(error.contains(said), "{fault}: {error}");
    }
}
