//! Allocators that lie, trap, loop, and try to do something else meanwhile.

use weir_wasm::stats::{Counter, TrapKind};

use crate::world::{World, guest_without_malloc, request_headers};

const READ: &str = "(drop (call $pairs (i32.const 0) (i32.const 64) (i32.const 68)))";

fn with_allocator(code: &str) -> World {
    let allocator = format!(r#"(func (export "malloc") (param i32) (result i32) {code})"#);
    World::new(&guest_without_malloc(&format!("{allocator} {}", request_headers(READ))))
}

#[test]
fn an_allocator_that_returns_nothing_fails_the_call_only() {
    let world = with_allocator("(i32.const 0)");
    assert_eq!(world.bad.get("/").run().status(), 200);
    assert!(world.counter(Counter::WrongPhase) >= 1);
    world.says(&["proxy_get_header_map_pairs: the guest's allocator returned 0"]);
    world.others_answer();
}

#[test]
fn pointers_out_of_range_end_the_instance() {
    for pointer in ["-1", "4194304", "4194303", "-2147483648"] {
        let world = with_allocator(&format!("(i32.const {pointer})"));
        assert_eq!(world.bad.get("/").run().status(), 503, "{pointer}");
        assert_eq!(world.traps(TrapKind::HostCall), 1, "{pointer}");
        world.says(&["proxy_get_header_map_pairs: the guest's allocator returned 0x", "outside of its 4194304 bytes of memory"]);
        world.others_answer();
    }
}

#[test]
fn strange_pointers_harm_nobody_else() {
    // Unaligned; over the out-parameters; over its own code's data; at the very end.
    for pointer in [131_073, 60, 1024, 4_194_304 - 200] {
        let world = with_allocator(&format!("(i32.const {pointer})"));
        let _ = world.bad.get("/").run();
        let _ = world.bad.get("/").run();
        world.others_answer();
    }
}

#[test]
fn traps_and_exits_inside_the_allocator_end_the_instance() {
    for (code, kind) in [
        ("(unreachable)", TrapKind::Unreachable),
        ("(call $exit (i32.const 1)) (i32.const 0)", TrapKind::Exit),
        ("(loop $l (br $l)) (i32.const 0)", TrapKind::DeadlineExceeded),
        ("(drop (call $log (i32.const 2) (i32.const -1) (i32.const 8))) (i32.const 0)", TrapKind::HostCall),
    ] {
        let world = with_allocator(code);
        assert_eq!(world.bad.get("/").run().status(), 503, "{code}");
        assert_eq!(world.traps(kind), 1, "{code}: {}", world.log());
        world.others_answer();
        world.nothing_is_left();
    }
}

#[test]
fn memory_may_grow_inside_the_allocator() {
    let world = with_allocator("(i32.mul (memory.grow (i32.const 1)) (i32.const 65536))");
    for _ in 0..3 {
        assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
    }
    world.others_answer();
}

#[test]
fn nothing_outside_can_be_reached_from_the_allocator() {
    let tricks = [
        ("(call $answer)", "proxy_send_local_response"),
        ("(call $continue (i32.const 0))", "proxy_continue_stream"),
        ("(call $close (i32.const 0))", "proxy_close_stream"),
        ("(call $call_up)", "proxy_http_call"),
        ("(call $get (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 64) (i32.const 68))", "proxy_get_header_map_value"),
        ("(call $pairs (i32.const 0) (i32.const 64) (i32.const 68))", "proxy_get_header_map_pairs"),
        ("(call $add (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 1024) (i32.const 4))", "proxy_add_header_map_value"),
        ("(call $set_pairs (i32.const 0) (i32.const 2048) (i32.load (i32.const 2044)))", "proxy_set_header_map_pairs"),
        ("(call $effective (i32.const 1))", "proxy_set_effective_context"),
        ("(call $done)", "proxy_done"),
        ("(call $tick (i32.const 1))", "proxy_set_tick_period_milliseconds"),
        ("(call $set_buffer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 4))", "proxy_set_buffer_bytes"),
        ("(call $set_shared (i32.const 1024) (i32.const 4) (i32.const 1024) (i32.const 4) (i32.const 0))", "proxy_set_shared_data"),
        ("(call $get_shared (i32.const 1024) (i32.const 4) (i32.const 64) (i32.const 68) (i32.const 72))", "proxy_get_shared_data"),
        ("(call $property (i32.const 1024) (i32.const 4) (i32.const 64) (i32.const 68))", "proxy_get_property"),
        (
            "(call $foreign (i32.const 1048) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 64) (i32.const 68))",
            "proxy_call_foreign_function",
        ),
        ("(call $define (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 64))", "proxy_define_metric"),
        ("(call $register (i32.const 1024) (i32.const 4) (i32.const 64))", "proxy_register_shared_queue"),
    ];
    for (code, function) in tricks {
        let world = with_allocator(&format!("(if (i32.ne {code} (i32.const 10)) (then (unreachable))) (i32.const 131072)"));
        let exchange = world.bad.get("/").run();
        assert_eq!((exchange.status(), exchange.body().as_str()), (200, "upstream"), "{function}: {}", world.log());
        world.says(&[&format!("{function}: called from a start function or from the allocator, where it has no effect")]);
        assert!(world.counter(Counter::WrongPhase) >= 1, "{function}");
        assert!(world.bad.host.take_callouts().is_empty());
        world.others_answer();
    }
}
