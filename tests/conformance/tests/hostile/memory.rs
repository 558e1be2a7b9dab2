//! Guests that take all the memory they can get.

use weir_wasm::stats::{Counter, Level, TrapKind};

use crate::world::{World, forever, guest, on_request, request_headers, times};

const CEILING: usize = 8 << 20;

#[test]
fn growth_past_the_ceiling_is_refused() {
    // It gives up when it is refused, as an allocator does that is out of memory.
    let bomb = forever("(if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))");
    let world = World::with(&on_request(&bomb), |binding| binding.limits.memory = CEILING);
    assert_eq!(world.bad.get("/").run().status(), 503);
    assert_eq!((world.traps(TrapKind::MemoryLimit), world.counter(Counter::GrowthRefused)), (1, 1));
    world.says(&["growth past 8388608 bytes was refused (limits.memory)", "proxy_on_request_headers"]);
    assert_eq!(world.bad.stats().peak_instance_memory, CEILING as u64, "growth that was granted is accounted");
    world.others_answer();
    world.nothing_is_left();
}

#[test]
fn a_guest_that_lives_with_less_memory_goes_on() {
    let world = World::with(&on_request(&times(1000, "(drop (memory.grow (i32.const 64)))")), |binding| binding.limits.memory = CEILING);
    assert_eq!(world.bad.get("/").run().status(), 200);
    let stats = world.bad.stats();
    assert_eq!((stats.counter(Counter::GrowthRefused), stats.level(Level::Memory)), (999, CEILING as i64), "{}", world.log());
    world.others_answer();
}

#[test]
fn tables_count_against_the_ceiling_together() {
    let tables: String = (0..60).map(|index| format!("(table $t{index} 0 funcref)")).collect();
    let grow = |index| format!("(drop (table.grow $t{index} (ref.null func) (i32.const 500000)))");
    let all: String = (0..60).map(grow).collect();
    let world = World::with(&guest(&format!("{tables} {}", request_headers(&all))), |binding| binding.limits.memory = CEILING);
    assert_eq!(world.bad.get("/").run().status(), 200);
    assert_eq!(world.counter(Counter::GrowthRefused), 58, "two tables of 4 MB fit into 8 MiB");
    world.others_answer();
}

#[test]
fn what_is_too_large_from_the_beginning_is_refused_at_load() {
    let large = [
        ("(module (memory (export \"memory\") 200) (func (export \"proxy_abi_version_0_2_1\")))", "12.5 MiB of memory"),
        ("(module (memory (export \"memory\") 1) (table 2000000 funcref) (func (export \"proxy_abi_version_0_2_1\")))", "limits.memory"),
    ];
    for (wat, why) in large {
        match World::start(wat, |binding| binding.limits.memory = CEILING) {
            Ok(_) => panic!("{wat}: it loaded"),
            Err(error) => assert!(error.to_string().contains(why), "{why:?} in {error}"),
        }
    }
}

#[test]
fn a_start_function_that_takes_too_much_is_refused_at_load() {
    let bomb = forever("(if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))");
    match World::start(&guest(&format!(r#"(func (export "_initialize") {bomb})"#)), |binding| binding.limits.memory = CEILING) {
        Ok(_) => panic!("it loaded"),
        Err(error) => assert!(error.to_string().contains("growth past 8388608 bytes was refused (limits.memory)"), "{error}"),
    }
}
