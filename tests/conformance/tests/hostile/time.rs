//! Guests that take all the time they can get: endless loops, deep recursion, start functions that never return.

use std::time::{Duration, Instant};

use weir_wasm::Foreign;
use weir_wasm::stats::{Counter, TrapKind};

use crate::world::{DEADLINE, World, forever, guest, on_request, times};

#[test]
fn endless_loops_end_at_the_deadline() {
    let loops = [
        ("nothing", ""),
        ("the clock", "(drop (call $now (i32.const 64)))"),
        ("the size of the headers", "(drop (call $map_size (i32.const 0) (i32.const 64)))"),
        ("all headers", "(drop (call $pairs (i32.const 0) (i32.const 64) (i32.const 68)))"),
        ("one header", "(drop (call $get (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 64) (i32.const 68)))"),
        ("a bad phase", "(drop (call $remove (i32.const 2) (i32.const 1024) (i32.const 4)))"),
        ("a status", "(drop (call $status (i32.const 64) (i32.const 68) (i32.const 72)))"),
        ("growing memory", "(drop (memory.grow (i32.const 1)))"),
    ];
    for (what, code) in loops {
        let world = World::new(&on_request(&forever(code)));
        let started = Instant::now();
        let exchange = world.bad.get("/").run();
        let took = started.elapsed();
        assert!(took >= DEADLINE && took < 20 * DEADLINE, "{what}: {took:?}");
        assert_eq!(exchange.status(), 503, "{what}");
        assert_eq!(exchange.local_reply().expect("a reply").details, "wasm_trap{bad}");
        assert_eq!((world.traps(TrapKind::DeadlineExceeded), world.counter(Counter::DeadlineMisses)), (1, 1), "{what}: {}", world.log());
        world.says(&["filter bad", "proxy_on_request_headers", "it ran for longer than 100ms"]);
        drop(exchange);
        world.others_answer();
        world.nothing_is_left();
    }
}

#[test]
fn a_thread_that_is_not_let_run_costs_no_filter_its_instance() {
    // Far longer than the deadline, without working: as on a machine that does other things meanwhile.
    let wait = "(drop (call $foreign (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 64) (i32.const 68)))";
    let work = times(1000, "(drop (call $map_size (i32.const 0) (i32.const 64)))");
    let world = World::new(&on_request(&format!("{wait} {work}")));
    world.bad.host.provide("name", |_| {
        std::thread::sleep(3 * DEADLINE);
        Foreign::Done(Vec::new())
    });
    let started = Instant::now();
    assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
    assert!(started.elapsed() >= 3 * DEADLINE);
    assert_eq!(world.traps(TrapKind::DeadlineExceeded), 0);
}

/// No loop and no function call of its own that a deadline could be looked at: only host calls, one after the other.
#[test]
fn a_long_row_of_expensive_host_calls_ends_near_the_deadline() {
    let bomb = "(i32.const 1048576) (i32.load (i32.const 64))";
    // Three MiB of zeros, packed once into the allocator's buffer.
    let pack = "(drop (call $foreign (i32.const 1048) (i32.const 8) (i32.const 1048576) (i32.const 3145728) (i32.const 68) (i32.const 64)))
        (memory.copy (i32.const 1048576) (i32.const 131072) (i32.load (i32.const 64)))";
    let unpack = format!("(drop (call $foreign (i32.const 1056) (i32.const 10) {bomb} (i32.const 0) (i32.const 0)))");
    let world = World::new(&on_request(&format!("{pack} {}", unpack.repeat(3000))));
    let started = Instant::now();
    let exchange = world.bad.get("/").run();
    assert!(started.elapsed() < 40 * DEADLINE, "{:?}", started.elapsed());
    assert_eq!((exchange.status(), world.traps(TrapKind::DeadlineExceeded)), (503, 1), "{}", world.log());
    world.others_answer();
}

#[test]
fn lines_without_end_are_cut_in_linear_time() {
    // Three MiB of line ends, then three MiB without one, through fd_write, for as long as the budget lasts.
    for byte in [10, 65] {
        let write = "(drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))";
        let code = format!(
            "(memory.fill (i32.const 1048576) (i32.const {byte}) (i32.const 3145728))
             (i32.store (i32.const 64) (i32.const 1048576)) (i32.store (i32.const 68) (i32.const 3145728)) {write}"
        );
        let world = World::new(&on_request(&code));
        let started = Instant::now();
        let _ = world.bad.get("/").run();
        assert!(started.elapsed() < 50 * DEADLINE, "byte {byte}: {:?}", started.elapsed());
        assert!(world.counter(Counter::LogLinesDropped) > 0 || byte == 65, "byte {byte}");
        assert!(world.bad.host.log_lines().iter().all(|line| line.message.len() < 9000));
        world.others_answer();
    }
}

#[test]
fn deep_recursion_is_a_trap() {
    let code = r#"(func $deeper (param i32) (result i32) (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))"#;
    let recursing = crate::world::request_headers("(drop (call $deeper (i32.const 0)))");
    let world = World::new(&guest(&format!("{code} {recursing}")));
    assert_eq!(world.bad.get("/").run().status(), 503);
    assert_eq!(world.traps(TrapKind::StackOverflow), 1, "{}", world.log());
    world.says(&["its call stack is exhausted", "at deeper"]);
    assert!(world.log().lines().count() < 100, "the backtrace is cut");
    world.others_answer();
    world.nothing_is_left();
}

#[test]
fn recursion_in_the_allocator_is_a_trap_too() {
    let code = r#"(func $deeper (export "malloc") (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))"#;
    let read = crate::world::request_headers("(drop (call $pairs (i32.const 0) (i32.const 64) (i32.const 68)))");
    let world = World::new(&crate::world::guest_without_malloc(&format!("{code} {read}")));
    assert_eq!(world.bad.get("/").run().status(), 503);
    assert_eq!(world.traps(TrapKind::StackOverflow), 1, "{}", world.log());
    world.others_answer();
}

/// Where a module can hang while it starts, and the callback that the log names.
const STARTS: [(&str, &str); 7] = [
    ("(func $hang BODY) (start $hang)", "start function"),
    (r#"(func (export "_initialize") BODY)"#, "start function"),
    (r#"(func (export "_initialize")) (func (export "main") (param i32 i32) (result i32) BODY (i32.const 0))"#, "start function"),
    (r#"(func (export "_start") BODY)"#, "start function"),
    (r#"(func (export "proxy_on_context_create") (param i32 i32) BODY)"#, "proxy_on_context_create"),
    (r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) BODY (i32.const 1))"#, "proxy_on_vm_start"),
    (r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) BODY (i32.const 1))"#, "proxy_on_configure"),
];

const PATIENCE: Duration = Duration::from_millis(60);

#[test]
fn a_start_that_never_returns_is_refused_at_load() {
    for (code, callback) in STARTS {
        let wat = guest(&code.replace("BODY", &forever("")));
        let started = Instant::now();
        let refused = World::start(&wat, |binding| binding.limits.start_deadline = PATIENCE);
        assert!(started.elapsed() < 20 * PATIENCE, "{code}: {:?}", started.elapsed());
        let error = match refused {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{code}: it loaded"),
        };
        for word in ["bad", callback, "it ran for longer than 60ms", "help:"] {
            assert!(error.contains(word), "{code}: {word:?} in {error}");
        }
    }
}

#[test]
fn a_start_that_never_returns_at_restart_meets_the_policy_and_the_backoff() {
    for (code, callback) in STARTS {
        let hang = format!("(if (call $bad) (then {}))", forever(""));
        let crash = crate::world::request_headers("(if (call $bad) (then (unreachable)))");
        let wat = guest(&format!("{} {crash}", code.replace("BODY", &hang)));
        let world = World::with(&wat, |binding| binding.limits.start_deadline = PATIENCE);
        assert_eq!(world.bad.get("/").run().status(), 200, "{code}: {}", world.log());
        world.misbehave();
        assert_eq!(world.bad.get("/").run().status(), 503);
        let started = Instant::now();
        for _ in 0..20 {
            assert_eq!(world.bad.get("/").run().status(), 503, "{code}");
        }
        assert!(started.elapsed() < 20 * PATIENCE, "{code}: {:?}", started.elapsed());
        assert!(world.counter(Counter::InstanceStartFailures) >= 1 && world.counter(Counter::RestartsDelayed) >= 10, "{code}");
        // A context of a stream hangs while it serves, a root's while it starts.
        let limit = if callback == "proxy_on_context_create" { "it ran for longer than" } else { "it ran for longer than 60ms" };
        world.says(&[callback, limit]);
        world.others_answer();
        world.recover();
        assert_eq!(world.bad.get("/").run().status(), 200, "{code}: {}", world.log());
    }
}

#[test]
fn a_restart_holds_its_worker_no_longer_than_a_start_has_been_seen_to_take() {
    let hang = format!(r#"(func (export "_initialize") (if (call $bad) (then {})))"#, forever(""));
    let crash = crate::world::request_headers("(if (call $bad) (then (unreachable)))");
    let world = World::with(&guest(&format!("{hang} {crash}")), |binding| binding.limits.start_deadline = Duration::from_secs(60));
    world.misbehave();
    assert_eq!(world.bad.get("/").run().status(), 503);
    let started = Instant::now();
    assert_eq!(world.bad.get("/").run().status(), 503);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    world.says(&["start function", "several times what starting took when it was loaded"]);
    assert!(world.counter(Counter::InstanceStartFailures) >= 1);
    world.others_answer();
}
