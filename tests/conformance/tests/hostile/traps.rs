//! A trap in every callback there is, and what is said about it.

use weir_sdk_testing::{MemoryStream, Tester, Worker};
use weir_wasm::stats::{Counter, TrapKind};
use weir_wasm::{Close, HttpReply, Kind, Side, Stream};

use crate::world::{World, guest, on_request};

/// Every callback of a running HTTP filter: name, parameters, whether it has a result, and what it does when it does not trap.
const HTTP: [(&str, usize, bool, &str); 22] = [
    ("proxy_on_context_create", 2, false, ""),
    (
        "proxy_on_configure",
        2,
        true,
        "(drop (call $tick (i32.const 1000))) (drop (call $register (i32.const 1024) (i32.const 4) (i32.const 12)))",
    ),
    ("proxy_on_tick", 1, false, ""),
    ("proxy_on_request_headers", 3, true, CALL_OUT),
    ("proxy_on_request_body", 3, true, ""),
    ("proxy_on_request_trailers", 2, true, ""),
    ("proxy_on_request_metadata", 2, true, ""),
    ("proxy_on_response_headers", 3, true, ""),
    ("proxy_on_response_body", 3, true, ""),
    ("proxy_on_response_trailers", 2, true, ""),
    ("proxy_on_response_metadata", 2, true, ""),
    ("proxy_on_http_call_response", 5, false, ""),
    ("proxy_on_grpc_receive_initial_metadata", 3, false, ""),
    ("proxy_on_grpc_receive", 3, false, ""),
    ("proxy_on_grpc_receive_trailing_metadata", 3, false, ""),
    ("proxy_on_grpc_close", 3, false, ""),
    ("proxy_on_queue_ready", 2, false, ""),
    ("proxy_on_foreign_function", 3, false, ""),
    ("proxy_on_done", 1, true, ""),
    ("proxy_on_log", 1, false, ""),
    ("proxy_on_delete", 1, false, ""),
    ("proxy_on_vm_start", 2, true, ""),
];

const TCP: [(&str, usize, bool, &str); 5] = [
    ("proxy_on_new_connection", 1, true, ""),
    ("proxy_on_downstream_data", 3, true, ""),
    ("proxy_on_upstream_data", 3, true, ""),
    ("proxy_on_downstream_connection_close", 2, false, ""),
    ("proxy_on_upstream_connection_close", 2, false, ""),
];

/// An HTTP call, a gRPC stream, a queue item, and a header read.
const CALL_OUT: &str = "
    (drop (call $call_up))
    (drop (call $grpc_stream (i32.const 1040) (i32.const 2) (i32.const 1024) (i32.const 4) (i32.const 1024) (i32.const 4)
      (i32.const 0) (i32.const 0) (i32.const 16)))
    (drop (call $enqueue (i32.load (i32.const 12)) (i32.const 1024) (i32.const 4)))
    (drop (call $pairs (i32.const 0) (i32.const 64) (i32.const 68)))";

/// All these callbacks, of which `trapping` traps in the bad hour.
fn all(callbacks: &[(&str, usize, bool, &str)], trapping: &str) -> String {
    let one = |(name, parameters, answers, code): &(&str, usize, bool, &str)| {
        let parameters = "i32 ".repeat(*parameters);
        let trap = if *name == trapping { "(if (call $bad) (then (unreachable)))" } else { "" };
        let value = match *name {
            "proxy_on_memory_allocate" => "(i32.const 131072)",
            "proxy_on_configure" | "proxy_on_vm_start" | "proxy_on_done" => "(i32.const 1)",
            _ => "(i32.const 0)",
        };
        let (result, value) = if *answers { ("(result i32)", value) } else { ("", "") };
        format!(r#"(func ${name} (export "{name}") (param {parameters}) {result} {trap} {code} {value})"#)
    };
    let callbacks = callbacks.iter().chain(&[("proxy_on_memory_allocate", 1, true, "")]);
    crate::world::guest_without_malloc(&callbacks.map(one).collect::<String>())
}

/// Does everything that calls back, wherever the filter stops.
fn drive_http(worker: &Worker) {
    let request = worker.request("POST", "/").body(&["a", "b"]).trailers(&[("t", "1")]);
    let mut exchange = request.upstream(200, &[], &["c", "d"]).upstream_trailers(&[("t", "2")]).run();
    exchange.stream.metadata(Side::Request, 1);
    exchange.stream.metadata(Side::Response, 1);
    for callout in worker.host.take_callouts() {
        if callout.method.is_none() {
            callout.reply.http(HttpReply::default());
        } else {
            callout.reply.grpc_initial_metadata(Vec::new());
            callout.reply.grpc_message("message".into());
            callout.reply.grpc_trailing_metadata(Vec::new());
            callout.reply.grpc_close(0, "");
        }
    }
    worker.run_timers();
    worker.filter().call_foreign(7, "arguments".into());
    exchange.go_on();
}

fn drive_tcp(worker: &Worker) {
    let mut stream: Stream<MemoryStream> = worker.stream();
    stream.new_connection();
    stream.request_body("ping".into(), false);
    stream.response_body("pong".into(), false);
    stream.connection_closed(Side::Request, Close::Remote);
    stream.connection_closed(Side::Response, Close::Local);
}

#[test]
fn a_trap_in_any_callback_costs_one_instance() {
    for name in HTTP.iter().map(|(name, ..)| *name).chain(["proxy_on_memory_allocate"]) {
        let world = World::new(&all(&HTTP, name));
        drive_http(&world.bad);
        assert_eq!(world.traps(TrapKind::Unreachable), 0, "{name}: {}", world.log());
        world.misbehave();
        if ["proxy_on_configure", "proxy_on_vm_start"].contains(&name) {
            // They run at a start only: `time` and `crash_loop` have those.
            continue;
        }
        drive_http(&world.bad);
        assert!(world.traps(TrapKind::Unreachable) >= 1, "{name}: {}", world.log());
        let callback = if name == "proxy_on_memory_allocate" { "proxy_on_request_headers" } else { name };
        world.says(&[&format!("ended in {callback}: it aborted (unreachable)"), &format!("at {name}")]);
        world.others_answer();
        world.recover();
        drive_http(&world.bad);
        let exchange = world.bad.get("/").run();
        assert_eq!(exchange.status(), 200, "{name}: {}", world.log());
        drop(exchange);
        assert!(world.counter(Counter::InstanceRestarts) >= 1, "{name}");
        world.nothing_is_left();
    }
}

#[test]
fn a_trap_in_any_tcp_callback_closes_the_connection() {
    for (name, ..) in TCP {
        let world = World::with(&all(&TCP, name), |binding| binding.kind = Kind::Tcp);
        drive_tcp(&world.bad);
        world.misbehave();
        drive_tcp(&world.bad);
        assert_eq!((world.traps(TrapKind::Unreachable), world.counter(Counter::FailedClosed)), (1, 1), "{name}: {}", world.log());
        world.says(&[&format!("ended in {name}: it aborted (unreachable)"), &format!("at {name}")]);
        world.others_answer();
        world.recover();
        drive_tcp(&world.bad);
        assert_eq!(world.traps(TrapKind::Unreachable), 1, "{name}");
        world.nothing_is_left();
    }
}

#[test]
fn a_trap_while_starting_is_refused_at_load() {
    let starts = [
        ("(func $boom unreachable) (start $boom)", "start function", "boom"),
        (r#"(func $boom (export "_initialize") unreachable)"#, "start function", "boom"),
        (r#"(func $boom (export "_start") unreachable)"#, "start function", "boom"),
        (r#"(func $boom (export "proxy_on_context_create") (param i32 i32) unreachable)"#, "proxy_on_context_create", "boom"),
        (
            r#"(func $boom (export "proxy_on_context_create") (param i32 i32) (if (local.get 1) (then unreachable)))"#,
            "proxy_on_context_create",
            "probe: proxy_on_context_create trapped: it aborted (unreachable)",
        ),
        (r#"(func $boom (export "proxy_on_vm_start") (param i32 i32) (result i32) unreachable)"#, "proxy_on_vm_start", "boom"),
        (r#"(func $boom (export "proxy_on_configure") (param i32 i32) (result i32) unreachable)"#, "proxy_on_configure", "boom"),
    ];
    for (code, function, frame) in starts {
        match World::start(&guest(code), |_| {}) {
            Ok(_) => panic!("{code}: it loaded"),
            Err(error) => {
                let error = error.to_string();
                assert!([function, frame, "trapped"].iter().all(|word| error.contains(word)), "{code}: {error}");
            }
        }
    }
}

#[test]
fn exit_from_a_callback_ends_the_instance_and_says_the_code() {
    for code in [0, 7] {
        let world = World::new(&on_request(&format!("(call $exit (i32.const {code}))")));
        assert_eq!(world.bad.get("/").run().status(), 503);
        assert_eq!(world.traps(TrapKind::Exit), 1, "{}", world.log());
        world.says(&[&format!("the guest called proc_exit({code})")]);
        world.others_answer();
    }
}

#[test]
fn other_traps_are_named() {
    let kinds = [
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", TrapKind::Other, "divide by zero"),
        ("(drop (i32.load (i32.const -4)))", TrapKind::OutOfBounds, "memory out of bounds"),
        ("(call_indirect (param) (i32.const 3))", TrapKind::OutOfBounds, "table"),
        ("(memory.fill (i32.const -9) (i32.const 0) (i32.const 99))", TrapKind::OutOfBounds, "memory out of bounds"),
    ];
    for (code, kind, words) in kinds {
        let world = World::new(&guest(&format!("(table 1 funcref) {}", crate::world::request_headers(code))));
        assert_eq!(world.bad.get("/").run().status(), 503);
        assert_eq!(world.traps(kind), 1, "{code}: {}", world.log());
        world.says(&[words]);
    }
}

#[test]
fn a_panic_in_rust_has_its_message_and_function_names_in_the_log() {
    let wasm = std::fs::read(weir_test_guests::rust_sdk()).expect("built");
    let worker = Tester::new(&wasm).binding(|binding| binding.name = "rust-panics".into()).start().expect("starts");
    assert_eq!(worker.get("/trap").run().status(), 503);
    let log: String = worker.host.log_lines().iter().map(|line| format!("{}\n", line.message)).collect();
    for words in ["asked to trap", "ended in proxy_on_request_headers", "at std::panicking", "on_http_request_headers"] {
        assert!(log.contains(words), "{words:?} in:\n{log}");
    }
    assert!(!log.contains("_ZN") && !log.contains("_RNv"), "names are readable:\n{log}");
    assert_eq!(worker.get("/").run().status(), 200);
}

#[test]
fn a_backtrace_has_files_and_lines_where_the_module_has_them() {
    let wasm = std::fs::read(weir_test_guests::rust_sdk_with_lines()).expect("built");
    let worker = Tester::new(&wasm).binding(|binding| binding.name = "rust-lines".into()).start().expect("starts");
    assert_eq!(worker.get("/trap").run().status(), 503);
    let log: String = worker.host.log_lines().iter().map(|line| format!("{}\n", line.message)).collect();
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/rust-sdk/src/lib.rs")).expect("its source");
    let line = source.lines().position(|line| line.contains("asked to trap")).expect("it panics") + 1;
    assert!(log.contains(&format!("src/lib.rs:{line})")), "line {line} in:\n{log}");
}

#[test]
fn function_names_cannot_forge_the_log() {
    // A name section may hold anything: `$name` with an escape keeps it in the text format.
    let long = "x".repeat(100_000);
    let code = format!(
        r#"(func $"evil\n2026 ERROR forged\1b[2J{long}" (result i32) unreachable) {}"#,
        crate::world::request_headers(&format!(r#"(drop (call $"evil\n2026 ERROR forged\1b[2J{long}"))"#))
    );
    let world = World::new(&guest(&code));
    let _ = world.bad.get("/").run();
    let log = world.log();
    assert!(log.contains("evil") && !log.contains("\n2026") && !log.contains('\u{1b}') && log.len() < 3000, "{} bytes", log.len());
}
