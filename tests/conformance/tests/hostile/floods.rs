//! Guests that never stop: log lines, metrics, shared data, queue items, callouts.

use weir_sdk_testing::Worker;
use weir_wasm::Upstreams;
use weir_wasm::stats::{Counter, Level, TrapKind};

use crate::world::{World, forever, guest, on_request, request_headers, times};

#[test]
fn a_log_flood_is_cut_to_the_rate_and_counted() {
    let floods = [
        "(drop (call $log (i32.const 2) (i32.const 1024) (i32.const 4)))",
        "(i32.store (i32.const 64) (i32.const 4096)) (i32.store (i32.const 68) (i32.const 9000))
         (drop (call $fd_write (i32.const 2) (i32.const 64) (i32.const 1) (i32.const 72)))",
    ];
    for line in floods {
        let world = World::with(&on_request(&times(1000, line)), |binding| {
            binding.limits.log_rate = 10;
            binding.limits.callback_deadline = std::time::Duration::from_secs(5);
        });
        assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
        let guests = world.bad.host.log_lines().iter().filter(|line| line.from_guest).count();
        assert_eq!(guests, 50, "a burst is five seconds' worth");
        let dropped = world.counter(Counter::LogLinesDropped);
        assert!(dropped >= 950, "{dropped}");
        world.bad.host.advance(std::time::Duration::from_secs(1));
        let _ = world.bad.get("/").run();
        world.says(&[&format!("{dropped} log lines of this filter were dropped: over 10/s")]);
        world.others_answer();
    }
}

#[test]
fn a_giant_line_is_cut() {
    let world = World::new(&on_request("(drop (call $log (i32.const 2) (i32.const 1048576) (i32.const 3000000)))"));
    assert_eq!(world.bad.get("/").run().status(), 200);
    world.says(&["(3000000 bytes)"]);
    assert!(world.log().len() < 10_000);
}

#[test]
fn a_log_flood_without_end_ends_at_the_budget() {
    let world = World::with(&on_request(&forever("(drop (call $log (i32.const 2) (i32.const 1048576) (i32.const 3000000)))")), |binding| {
        binding.limits.callback_deadline = std::time::Duration::from_secs(5);
    });
    assert_eq!(world.bad.get("/").run().status(), 503);
    assert_eq!((world.traps(TrapKind::HostCall), world.counter(Counter::OutputRefused)), (1, 1), "{}", world.log());
    world.says(&["proxy_log: one callback handed over more than 16777216 bytes (limits.host_output)"]);
    world.others_answer();
}

#[test]
fn complaints_about_a_guest_are_limited_too() {
    let call = "(drop (call $http (i32.const 1024) (i32.const 4) (i32.const 2048) (i32.load (i32.const 2044)) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8)))";
    let world = World::with(&on_request(&times(1000, call)), |binding| {
        binding.upstreams = Upstreams::None;
        binding.limits.callback_deadline = std::time::Duration::from_secs(5);
    });
    assert_eq!(world.bad.get("/").run().status(), 200);
    assert_eq!(world.counter(Counter::CalloutsRefused), 1000);
    world.says(&["the binding does not allow the upstream \"name\" (upstreams)"]);
    assert!(world.log().lines().count() < 10, "{}", world.log());
}

#[test]
fn metrics_with_client_data_in_their_names_stop_at_the_cap() {
    let define = "(call $next) (drop (call $define (i32.const 0) (i32.const 3072) (i32.const 10) (i32.const 8)))";
    let world = World::with(&on_request(&times(500, define)), |binding| binding.limits.metric_series = 100);
    assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
    let metrics = world.bad.filter().binding().metrics().clone();
    assert_eq!((metrics.series(), metrics.series_dropped()), (100, 400));
    assert_eq!(metrics.snapshot().len(), 101, "and one that stands for the others");
    world.others_answer();
}

#[test]
fn names_of_metrics_are_bounded_too() {
    let define = "(drop (call $define (i32.const 0) (i32.const 1048576) (i32.const 2000000) (i32.const 8)))";
    let world = World::new(&on_request(&format!("(memory.fill (i32.const 1048576) (i32.const 65) (i32.const 2000000)) {define}")));
    assert_eq!(world.bad.get("/").run().status(), 200);
    assert_eq!(world.counter(Counter::MetricsRefused), 1);
    world.says(&["metrics: 2000000 bytes of name or label where at most 1024 are allowed"]);
}

#[test]
fn shared_data_stays_within_its_bounds() {
    let set = "(call $next) (drop (call $set_shared (i32.const 3072) (i32.const 10) (i32.const 1048576) (i32.const 10000) (i32.const 0)))";
    let world = World::with(&on_request(&times(1000, set)), |binding| {
        binding.limits.shared_bytes = 1 << 20;
        binding.limits.callback_deadline = std::time::Duration::from_secs(5);
    });
    assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
    let shared = world.bad.filter().binding().shared_data();
    assert!(shared.bytes <= 1 << 20 && shared.evictions >= 890, "{shared:?}");
    let giant = "(drop (call $set_shared (i32.const 1024) (i32.const 4) (i32.const 1048576) (i32.const 2000000) (i32.const 0)))";
    let world = World::new(&on_request(giant));
    assert_eq!(world.bad.get("/").run().status(), 200);
    assert_eq!(world.counter(Counter::SharedRefused), 1);
    world.says(&["proxy_set_shared_data: shared data: the entry needs 2000000 bytes and at most 1048576 are allowed"]);
    world.others_answer();
}

const REGISTER: &str = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
    (drop (call $register (i32.const 1024) (i32.const 4) (i32.const 12))) (i32.const 1))"#;
const ENQUEUE: &str = "(drop (call $enqueue (i32.load (i32.const 12)) (i32.const 1024) (i32.const 4)))";

#[test]
fn a_queue_drops_its_oldest_items_and_tells_a_few_at_a_time() {
    let flood = request_headers(&times(5000, ENQUEUE));
    let ready = r#"(func (export "proxy_on_queue_ready") (param i32 i32))"#;
    let world = World::with(&guest(&format!("{REGISTER} {flood} {ready}")), |binding| {
        binding.limits.shared_entries = 300;
        binding.limits.callback_deadline = std::time::Duration::from_secs(5);
    });
    assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
    assert_eq!(world.bad.filter().binding().queues()[0].dropped, 4700);
    // No more are announced than can be there.
    assert_eq!(queue_calls(&world.bad), [100, 200, 300, 300]);
    world.others_answer();
}

/// How often the guest has been told of an item after one, two, … runs of the timers.
fn queue_calls(worker: &Worker) -> [u64; 4] {
    [(); 4].map(|()| {
        worker.run_timers();
        worker.stats().callback(weir_wasm::stats::Callback::QueueReady).calls
    })
}

#[test]
fn a_queue_that_feeds_itself_does_not_keep_the_worker() {
    let ready = format!(r#"(func (export "proxy_on_queue_ready") (param i32 i32) {ENQUEUE} {ENQUEUE})"#);
    let world = World::new(&guest(&format!("{REGISTER} {ready} {}", request_headers(ENQUEUE))));
    assert_eq!(world.bad.get("/").run().status(), 200);
    assert_eq!(queue_calls(&world.bad), [100, 200, 300, 400], "at most so many at a time");
    for _ in 0..20 {
        world.bad.run_timers();
        world.others_answer();
    }
}

#[test]
fn queues_and_registrations_are_bounded() {
    let register = "(call $next) (drop (call $register (i32.const 3072) (i32.const 10) (i32.const 12)))";
    let again = "(drop (call $register (i32.const 3072) (i32.const 10) (i32.const 12)))";
    let world = World::with(&on_request(&format!("{} {}", times(200, register), times(1000, again))), |binding| {
        binding.limits.callback_deadline = std::time::Duration::from_secs(5);
    });
    assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
    assert_eq!(world.bad.filter().binding().queues().len(), 64);
    assert!(world.counter(Counter::SharedRefused) >= 136);
    world.says(&["proxy_register_shared_queue: shared queue: this vm_id has its 64 queues already"]);
    assert!(std::sync::Arc::strong_count(&world.bad.host.queue_wakes) < 5, "one notifier for each instance, not for each call");
    world.others_answer();
}

#[test]
fn a_callout_storm_stops_at_the_bound() {
    let world = World::with(&on_request(&times(200, "(drop (call $call_up))")), |binding| {
        binding.limits.callouts = 50;
        binding.limits.callback_deadline = std::time::Duration::from_secs(5);
    });
    let exchange = world.bad.get("/").run();
    assert_eq!(exchange.status(), 200);
    let stats = world.bad.stats();
    assert_eq!((stats.counter(Counter::CalloutsRefused), stats.level(Level::PendingCallouts)), (150, 50));
    world.says(&["too many callouts are in flight (limits.callouts)"]);
    drop(exchange);
    assert_eq!(world.bad.host.cancelled.borrow().len(), 50, "nobody waits for them any more");
    world.nothing_is_left();
    world.others_answer();
}

#[test]
fn callouts_in_flight_carry_no_more_than_the_memory_ceiling() {
    let call = "(drop (call $http (i32.const 1040) (i32.const 2) (i32.const 2048) (i32.load (i32.const 2044)) (i32.const 1048576)
        (i32.const 3000000) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8)))";
    let world = World::with(&on_request(&times(5, call)), |binding| {
        binding.limits.memory = 8 << 20;
        binding.limits.callback_deadline = std::time::Duration::from_secs(5);
    });
    let _held: Vec<_> = (0..10).map(|_| world.bad.get("/").run()).collect();
    let carried: usize = world.bad.host.take_callouts().iter().map(|callout| callout.body.len()).sum();
    assert!(carried <= (8 << 20) + 3_000_000, "{carried}");
    world.says(&["the callouts in flight carry more than the binding may have memory (limits.memory)"]);
    world.others_answer();
}

#[test]
fn a_callout_cannot_smuggle() {
    let headers = crate::world::map(&[
        (":method", "POST"),
        (":path", "/"),
        (":authority", "up"),
        ("X-Fine", "1"),
        ("x-split", "1\r\nx-evil: 1"),
        ("x evil", "1"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        (":status", "200"),
    ]);
    let data = format!(r#"(data (i32.const 8192) "{}")"#, crate::world::escaped(&headers));
    let call = format!(
        "(drop (call $http (i32.const 1040) (i32.const 2) (i32.const 8192) (i32.const {0}) (i32.const 0) (i32.const 0) (i32.const 8192)
           (i32.const {0}) (i32.const 0) (i32.const 8)))",
        headers.len()
    );
    let world = World::new(&guest(&format!("{data} {}", request_headers(&call))));
    let _exchange = world.bad.get("/").run();
    let callout = world.bad.host.take_callout().expect("the rest is sent");
    let names = |pairs: &[(bytes::Bytes, bytes::Bytes)]| pairs.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" ");
    assert_eq!(names(&callout.headers), r#"b":method" b":path" b":authority" b"x-fine""#);
    assert_eq!(names(&callout.trailers), r#"b"x-fine""#);
    assert_eq!(world.counter(Counter::HeaderValuesRefused), 1);
}

#[test]
fn a_callout_that_starts_another_at_each_answer_goes_on_only_as_long_as_somebody_answers() {
    let answered = r#"(func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32) (drop (call $call_up)))"#;
    let world = World::new(&guest(&format!("{} {answered}", request_headers("(drop (call $call_up))"))));
    let exchange = world.bad.get("/").run();
    for _ in 0..50 {
        world.bad.host.take_callout().expect("another").respond(200, &[], "");
    }
    assert_eq!(world.bad.stats().level(Level::PendingCallouts), 1);
    drop(exchange);
    world.others_answer();
}
