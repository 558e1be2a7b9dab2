//! Guests that lie about lengths, answer twice, continue what is not paused, and act on streams that are not theirs.

use weir_wasm::stats::{Counter, TrapKind};

use crate::world::{IMPORTS, World, guest, on_request, times};

#[test]
fn no_pointer_or_length_is_believed() {
    for (name, function, parameters) in IMPORTS {
        for value in ["-1", "0", "-2147483648", "2147483647", "4194303", "1048576"] {
            let arguments = format!("(i32.const {value}) ").repeat(*parameters);
            // Nothing but ends that have a name, and no harm to others.
            let world = World::new(&on_request(&format!("(drop (call ${name} {arguments}))")));
            let exchange = world.bad.get("/").run();
            let ended = world.traps(TrapKind::HostCall);
            assert!(
                ended <= 1 && TrapKind::ALL.map(|kind| world.traps(kind)).iter().sum::<u64>() == ended,
                "{function}({value}): {}",
                world.log()
            );
            if ended == 1 {
                assert_eq!(exchange.status(), 503);
                world.says(&[function, "ended in proxy_on_request_headers"]);
            }
        }
        let world = World::new(&on_request(&format!("(drop (call ${name} {}))", "(i32.const -1) ".repeat(*parameters))));
        let _ = world.bad.get("/").run();
        world.others_answer();
    }
}

const CALLBACKS: [(&str, usize, bool); 12] = [
    ("proxy_on_context_create", 2, false),
    ("proxy_on_request_headers", 3, true),
    ("proxy_on_request_body", 3, true),
    ("proxy_on_request_trailers", 2, true),
    ("proxy_on_response_headers", 3, true),
    ("proxy_on_response_body", 3, true),
    ("proxy_on_response_trailers", 2, true),
    ("proxy_on_tick", 1, false),
    ("proxy_on_http_call_response", 5, false),
    ("proxy_on_log", 1, false),
    ("proxy_on_done", 1, true),
    ("proxy_on_delete", 1, false),
];

/// Every callback does `code` if it is `in_one`, or if that is empty.
fn everywhere(in_one: &str, code: &str) -> String {
    let one = |(name, parameters, answers): &(&str, usize, bool)| {
        let parameters = "i32 ".repeat(*parameters);
        let (result, value) = if *answers { ("(result i32)", "(i32.const 0)") } else { ("", "") };
        let code = if in_one.is_empty() || in_one == *name { code } else { "" };
        format!(r#"(func (export "{name}") (param {parameters}) {result} {code} {value})"#)
    };
    let configure = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $tick (i32.const 1))) (i32.const 1))"#;
    guest(&format!("{configure} {}", CALLBACKS.iter().map(one).collect::<String>()))
}

fn run(world: &World) -> weir_sdk_testing::Exchange {
    world.bad.host.advance(std::time::Duration::from_millis(5));
    world.bad.run_timers();
    let request = world.bad.request("POST", "/").body(&["a", "b"]).trailers(&[("t", "1")]);
    request.upstream(200, &[], &["c", "d"]).upstream_trailers(&[("t", "2")]).run()
}

#[test]
fn only_the_first_of_many_replies_counts() {
    let world = World::new(&everywhere("", "(drop (call $answer)) (drop (call $answer))"));
    // The proof at load has had one.
    let before = world.counter(Counter::LocalReplies);
    let exchange = run(&world);
    assert_eq!((exchange.status(), exchange.is_complete(), exchange.reached_upstream()), (418, true, false));
    drop(exchange);
    assert_eq!(world.counter(Counter::LocalReplies), before + 1);
    assert!(world.counter(Counter::DuplicatesIgnored) >= 3);
    world.says(&["this stream has been answered already; the reply is ignored"]);
    world.others_answer();
    for (name, ..) in CALLBACKS {
        let world = World::new(&everywhere(name, "(drop (call $answer)) (drop (call $answer))"));
        let exchange = run(&world);
        assert!(exchange.is_complete(), "{name}");
        let on_time = ["context_create", "request_", "response_headers"].iter().any(|part| name.contains(part));
        assert_eq!(exchange.status(), if on_time { 418 } else { 200 }, "{name}");
        drop(exchange);
        world.others_answer();
        world.nothing_is_left();
    }
}

#[test]
fn continuing_what_is_not_paused_changes_nothing() {
    let all = "(drop (call $continue (i32.const 0))) (drop (call $continue (i32.const 1))) (drop (call $continue (i32.const 2)))
        (drop (call $continue (i32.const 3))) (drop (call $continue (i32.const 9)))";
    let world = World::new(&everywhere("", &all.repeat(3)));
    let exchange = run(&world);
    assert_eq!((exchange.status(), exchange.request_body().as_str(), exchange.body().as_str()), (200, "ab", "cd"));
    drop(exchange);
    world.others_answer();
    world.nothing_is_left();
}

#[test]
fn a_stream_may_be_closed_from_any_callback() {
    for (name, ..) in CALLBACKS {
        let world = World::new(&everywhere(name, &"(drop (call $close (i32.const 0))) (drop (call $close (i32.const 1)))".repeat(2)));
        let exchange = run(&world);
        let in_time = ["context_create", "request_", "response_"].iter().any(|part| name.contains(part)) && !name.contains("call");
        assert_eq!(exchange.stream.is_reset(), in_time, "{name}");
        drop(exchange);
        world.others_answer();
        world.nothing_is_left();
    }
}

/// The first stream pauses; later ones switch to it and do `code`.
fn meddling(code: &str) -> World {
    let code = format!(
        "(if (i32.eq (local.get 0) (i32.const 2)) (then (return (i32.const 1))))
         (if (i32.eqz (call $effective (i32.const 2))) (then {code}))
         (drop (call $effective (local.get 0)))"
    );
    World::new(&guest(&format!(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {code} (i32.const 0))"#)))
}

#[test]
fn what_is_done_to_another_stream_of_the_filter_is_done_to_it_alone() {
    let each = [
        ("(drop (call $answer)) (drop (call $answer))", 418, false),
        ("(drop (call $continue (i32.const 0))) (drop (call $continue (i32.const 0)))", 200, false),
        ("(drop (call $close (i32.const 0)))", 0, true),
        ("(drop (call $answer)) (drop (call $close (i32.const 0)))", 0, true),
        ("(drop (call $close (i32.const 0))) (drop (call $answer)) (drop (call $continue (i32.const 0)))", 0, true),
    ];
    for (code, status, reset) in each {
        let world = meddling(code);
        let mut victim = world.bad.get("/").run();
        assert!(!victim.is_complete());
        assert_eq!(world.bad.get("/").run().status(), 200, "{code}");
        assert!(victim.stream.host().wakes > 0);
        victim.go_on();
        assert_eq!((victim.status(), victim.stream.is_reset()), (status, reset), "{code}");
        drop(victim);
        // It is gone: its number means nothing any more.
        assert_eq!(world.bad.get("/").run().status(), 200, "{code}");
        world.others_answer();
        world.nothing_is_left();
    }
}

#[test]
fn a_trap_while_acting_for_another_stream_takes_the_instance_once() {
    let world = meddling("(unreachable)");
    let mut victim = world.bad.get("/").run();
    assert_eq!(world.bad.get("/").run().status(), 503);
    victim.go_on();
    assert_eq!((victim.status(), world.traps(TrapKind::Unreachable)), (503, 1));
    world.others_answer();
}

#[test]
fn unknown_contexts_are_refused() {
    for id in ["0", "-1", "1000", "2147483647"] {
        let world =
            World::new(&on_request(&format!("(if (i32.ne (call $effective (i32.const {id})) (i32.const 2)) (then (unreachable)))")));
        assert_eq!(world.bad.get("/").run().status(), 200, "{id}");
    }
}

#[test]
fn a_body_that_grows_in_every_callback_is_too_large_some_day() {
    // Paused with the body held; every tick switches to the stream and appends.
    let append = "(drop (call $set_buffer (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 1048576) (i32.const 3000000)))";
    let code = format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $tick (i32.const 1))) (i32.const 1))
           (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_tick") (param i32) (local $i i32)
             (if (i32.eqz (call $effective (i32.const 2))) (then {})))"#,
        times(2, append)
    );
    let world = World::new(&guest(&code));
    let mut exchange = world.bad.request("POST", "/").body(&["held"]).run();
    for _ in 0..10 {
        world.bad.host.advance(std::time::Duration::from_millis(5));
        world.bad.run_timers();
        exchange.go_on();
    }
    assert_eq!((exchange.status(), world.counter(Counter::BodyLimitHits) >= 1), (413, true), "{}", world.log());
    world.says(&["the body would be larger than"]);
    world.others_answer();
}
