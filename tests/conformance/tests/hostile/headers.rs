//! Oversized header maps and properties.

use std::time::Instant;

use weir_sdk_testing::Value;
use weir_wasm::codec::{MAX_MAP_BYTES, MAX_MAP_PAIRS, map_size};
use weir_wasm::stats::{Counter, TrapKind};
use weir_wasm::{Headers, MessageMap};

use crate::world::{World, on_request, times};

#[test]
fn headers_without_number_stop_at_the_bound() {
    let adds = [
        "(drop (call $add (i32.const 0) (i32.const 3072) (i32.const 10) (i32.const 1032) (i32.const 5)))",
        "(drop (call $replace (i32.const 0) (i32.const 3072) (i32.const 10) (i32.const 1032) (i32.const 5)))",
    ];
    for add in adds {
        let world = World::with(&on_request(&times(3000, &format!("(call $next) {add}"))), |binding| {
            binding.limits.callback_deadline = std::time::Duration::from_secs(5);
        });
        let exchange = world.bad.get("/").run();
        assert_eq!(exchange.status(), 200, "{}", world.log());
        assert_eq!(exchange.stream.host().map(MessageMap::RequestHeaders).expect("headers").count(), MAX_MAP_PAIRS);
        assert_eq!(world.counter(Counter::HeaderValuesRefused), 3000 - (MAX_MAP_PAIRS as u64 - 4));
        world.says(&["the map has 1024 headers already"]);
        world.others_answer();
    }
}

#[test]
fn large_headers_stop_at_the_bound() {
    let add = "(call $next) (drop (call $add (i32.const 0) (i32.const 3072) (i32.const 10) (i32.const 1048576) (i32.const 300000)))";
    let guest = on_request(&format!("(memory.fill (i32.const 1048576) (i32.const 65) (i32.const 300000)) {}", times(20, add)));
    let world = World::with(&guest, |binding| binding.limits.callback_deadline = std::time::Duration::from_secs(5));
    let exchange = world.bad.get("/").run();
    let size = map_size(exchange.stream.host().map(MessageMap::RequestHeaders).expect("headers"));
    assert!(size <= MAX_MAP_BYTES, "{size}");
    assert_eq!(world.counter(Counter::HeaderValuesRefused), 17, "{}", world.log());
    world.says(&["the map would be larger than 1 MiB"]);
    world.others_answer();
}

#[test]
fn headers_for_ever_end_at_the_budget_or_the_deadline() {
    let add = "(drop (call $add (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 1048576) (i32.const 1000000)))";
    let world = World::new(&on_request(&crate::world::forever(add)));
    assert_eq!(world.bad.get("/").run().status(), 503);
    assert_eq!(world.traps(TrapKind::HostCall) + world.traps(TrapKind::DeadlineExceeded), 1, "{}", world.log());
    world.others_answer();
}

#[test]
fn whole_maps_that_are_too_large_or_broken_change_nothing() {
    let bad: [(&str, i32, i32); 5] = [
        ("more than 1 MiB", 1 << 20, (1 << 20) + 1),
        ("count of all ones", 1 << 20, 16),
        ("2000 pairs", 2 << 20, 4 + 2000 * 10),
        ("lengths of all ones", 3 << 20, 100),
        ("too short for a count", 1 << 20, 3),
    ];
    for (what, pointer, length) in bad {
        let code = format!(
            "(memory.fill (i32.const 1048576) (i32.const 255) (i32.const 64))
             (i32.store (i32.const 2097152) (i32.const 2000))
             (i32.store (i32.const 3145728) (i32.const 2)) (memory.fill (i32.const 3145732) (i32.const 255) (i32.const 16))
             (drop (call $set_pairs (i32.const 0) (i32.const {pointer}) (i32.const {length})))"
        );
        let world = World::new(&on_request(&code));
        let exchange = world.bad.get("/").header("kept", "1").run();
        assert_eq!((exchange.status(), exchange.request_header("kept").as_deref()), (200, Some("1")), "{what}: {}", world.log());
        assert_eq!(world.counter(Counter::HeaderValuesRefused), 1, "{what}");
        world.says(&["proxy_set_header_map_pairs: the header map"]);
    }
}

#[test]
fn a_map_larger_than_the_budget_ends_the_reader_not_the_process() {
    let world = World::with(&on_request("(drop (call $pairs (i32.const 0) (i32.const 64) (i32.const 68)))"), |binding| {
        binding.limits.host_output = 1 << 20;
    });
    let large = "x".repeat(600_000);
    assert_eq!(world.bad.get("/").header("a", &large).header("b", &large).run().status(), 503);
    assert_eq!(world.traps(TrapKind::HostCall), 1);
    world.says(&["proxy_get_header_map_pairs: the answer has 12", "more than 1048576 (limits.host_output)"]);
    world.others_answer();
}

#[test]
fn properties_stop_at_the_bound() {
    // Tiny ones without number, and giant ones.
    let tiny = format!("(call $next) {}", "(drop (call $set_property (i32.const 3072) (i32.const 10) (i32.const 0) (i32.const 0)))");
    let giant = "(call $next) (drop (call $set_property (i32.const 3072) (i32.const 10) (i32.const 1048576) (i32.const 400000)))";
    for (code, count, kept) in [(tiny.as_str(), 16_000, 14_169), (giant, 30, 2)] {
        let world = World::with(&on_request(&times(count, code)), |binding| {
            binding.limits.callback_deadline = std::time::Duration::from_secs(10);
        });
        let exchange = world.bad.get("/").run();
        assert_eq!(exchange.status(), 200, "{}", world.log());
        assert_eq!(exchange.stream.host().set.len(), kept);
        assert_eq!(world.counter(Counter::OutputRefused), u64::from(count) - kept as u64);
        world.says(&["holds 1 MiB of properties already"]);
        world.others_answer();
    }
}

#[test]
fn a_giant_attribute_is_refused() {
    let read = "(drop (call $property (i32.const 1024) (i32.const 4) (i32.const 64) (i32.const 68)))";
    let world = World::new(&on_request(read));
    world.bad.host.set_attribute("name", Value::Bytes(vec![b'x'; 20 << 20].into()));
    let started = Instant::now();
    assert_eq!(world.bad.get("/").run().status(), 503);
    assert!(started.elapsed().as_secs() < 2);
    world.says(&["proxy_get_property: the answer has 20971520 bytes", "limits.host_output"]);
    world.others_answer();
}
