//! Walls between bindings: what one `vm_id` keeps is not another's.

use weir_wasm::stats::TrapKind;

use crate::world::{World, beside, guest, request_headers};

const STORE: &str = r#"
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
      (drop (call $set_shared (i32.const 1024) (i32.const 4) (i32.const 1032) (i32.const 5) (i32.const 0)))
      (drop (call $register (i32.const 1024) (i32.const 4) (i32.const 12)))
      (drop (call $enqueue (i32.load (i32.const 12)) (i32.const 1032) (i32.const 5)))
      (i32.const 1))"#;

/// Reads the data under the same key, and dequeues and enqueues by every number there could be; answers 418 if anything is there.
fn snoop() -> String {
    let look = "
        (if (i32.ne (call $get_shared (i32.const 1024) (i32.const 4) (i32.const 64) (i32.const 68) (i32.const 72)) (i32.const 1))
          (then (drop (call $answer))))
        (local.set $i (i32.const 1000))
        (loop $again
          (if (i32.ne (call $dequeue (local.get $i) (i32.const 64) (i32.const 68)) (i32.const 1)) (then (drop (call $answer))))
          (if (i32.ne (call $enqueue (local.get $i) (i32.const 1024) (i32.const 4)) (i32.const 1)) (then (drop (call $answer))))
          (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";
    guest(&request_headers(look))
}

#[test]
fn data_and_queues_of_another_vm_id_are_out_of_reach() {
    let world = World::with(&snoop(), |_| {});
    let keeper = beside(&world.bad, &guest(STORE), |binding| binding.name = "keeper".into());
    assert_eq!(keeper.filter().binding().queues()[0].depth, 2, "one from the proof at load");
    assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
    assert_eq!(keeper.filter().binding().queues()[0].depth, 2);
    world.others_answer();
}

#[test]
fn bindings_of_one_vm_id_share_data() {
    let world = World::with(&guest(&request_headers("(drop (call $answer))")), |_| {});
    let keeper = beside(&world.bad, &guest(STORE), |binding| {
        binding.name = "keeper".into();
        binding.vm_id = Some("one".into());
    });
    let reader = beside(&world.bad, &snoop(), |binding| {
        binding.name = "reader".into();
        binding.vm_id = Some("one".into());
    });
    assert_eq!(reader.get("/").run().status(), 418, "it finds the data, so that the other test proves something");
    drop(keeper);
}

#[test]
fn the_proof_of_a_new_version_takes_no_queue_away() {
    let ready = r#"(func (export "proxy_on_queue_ready") (param i32 i32))"#;
    let enqueue = request_headers("(drop (call $enqueue (i32.load (i32.const 12)) (i32.const 1024) (i32.const 4)))");
    let register = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $register (i32.const 1024) (i32.const 4) (i32.const 12))) RESULT)"#;
    let code = |result: &str| guest(&format!("{} {ready} {enqueue}", register.replace("RESULT", result)));
    let world = World::new(&code("(i32.const 1)"));
    let load = |result: &str| {
        let wasm = wat::parse_str(code(result)).expect("valid");
        weir_wasm::Binding::load(&world.bad.engine, weir_wasm::BindingConfig::new("bad"), "bad", &wasm, None)
    };
    assert!(load("(i32.const 0)").is_err() && load("(unreachable)").is_err() && load("(i32.const 1)").is_ok());
    let _ = world.bad.get("/").run();
    world.bad.run_timers();
    assert_eq!(world.bad.stats().callback(weir_wasm::stats::Callback::QueueReady).calls, 1);
}

#[test]
fn a_crash_costs_only_the_binding_that_crashed() {
    let world = World::new(&guest(&request_headers("(unreachable)")));
    let mut held: Vec<_> = (0..5).map(|_| world.friendly.request("POST", "/").body(&["x"]).run()).collect();
    for _ in 0..20 {
        assert_eq!(world.bad.get("/").run().status(), 503);
        world.friendly.run_timers();
    }
    assert!(held.iter_mut().all(|exchange| exchange.go_on()));
    drop(held);
    assert!(world.traps(TrapKind::Unreachable) >= 2);
    world.others_answer();
}
