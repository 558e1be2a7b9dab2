//! Guests that crash again and again: attempts get rarer, streams meet the policy meanwhile, and a guest that is well again serves again.

use std::time::Duration;

use weir_wasm::FailurePolicy;
use weir_wasm::stats::{Counter, TrapKind};

use crate::world::{World, guest, request_headers};

const STEP: Duration = Duration::from_millis(10);
const STEPS: u32 = 6000;

fn crashing(at_start: bool) -> String {
    let crash = "(if (call $bad) (then (unreachable)))";
    let start = if at_start { crash } else { "" };
    let configure = format!(r#"(func $configure (export "proxy_on_configure") (param i32 i32) (result i32) {start} (i32.const 1))"#);
    guest(&format!("{configure} {}", request_headers(crash)))
}

/// A minute of the bad hour, with a request every ten milliseconds: when the instance was lost or could not be started.
fn a_bad_minute(world: &World, status: u16) -> Vec<Duration> {
    let lost = || world.traps(TrapKind::Unreachable);
    world.misbehave();
    let (mut failures, mut last) = (Vec::new(), lost());
    for step in 0..STEPS {
        assert_eq!(world.bad.get("/").run().status(), status);
        if lost() > last {
            failures.push(STEP * step);
            last = lost();
        }
        world.bad.host.advance(STEP);
    }
    failures
}

#[test]
fn attempts_get_rarer_whether_it_starts_or_not() {
    for at_start in [true, false] {
        let world = World::new(&crashing(at_start));
        let failures = a_bad_minute(&world, 503);
        // Half a minute at most, half of that at least: the waits double from 50…100 ms.
        assert!((8..=14).contains(&failures.len()), "{failures:?}");
        let waits: Vec<Duration> = failures.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (number, wait) in waits.iter().enumerate().skip(2) {
            let step = Duration::from_millis(100 << (number - 1)).min(Duration::from_secs(30));
            assert!(*wait + STEP >= step / 2 && *wait <= step + 2 * STEP, "wait {number} of {waits:?}");
        }
        let delayed = world.counter(Counter::RestartsDelayed);
        assert!(delayed >= u64::from(STEPS) - 20, "{delayed}");
        assert_eq!(world.counter(Counter::FailedClosed), u64::from(STEPS));
        if at_start {
            world.says(&["could not be started (", "failures in a row, next attempt in", "proxy_on_configure", "at configure"]);
        }
        world.others_answer();
        world.recover();
        assert_eq!(world.bad.get("/").run().status(), 200, "{}", world.log());
        assert!(world.log().lines().count() < 100, "the log is no flood either");
        world.nothing_is_left();
    }
}

#[test]
fn the_waits_have_jitter() {
    let minute = |seed| {
        let world = World::new(&crashing(true));
        world.bad.host.seed(seed);
        a_bad_minute(&world, 503)
    };
    assert_ne!(minute(1), minute(0x5bd1_e995));
}

#[test]
fn an_open_binding_lets_everything_through_meanwhile() {
    let world = World::with(&crashing(true), |binding| binding.failure_policy = FailurePolicy::Open);
    a_bad_minute(&world, 200);
    assert_eq!(world.counter(Counter::FailedOpen), u64::from(STEPS));
    world.others_answer();
}

#[test]
fn one_crash_costs_nothing_but_its_own_stream() {
    let world = World::new(&guest(&request_headers("(if (i32.eq (local.get 1) (i32.const 5)) (then (unreachable)))")));
    assert_eq!(world.bad.get("/").header("crash", "1").run().status(), 503);
    assert_eq!(world.bad.get("/").run().status(), 200, "the next stream has a fresh instance at once");
    assert_eq!((world.counter(Counter::InstanceRestarts), world.counter(Counter::RestartsDelayed)), (1, 0));
}
