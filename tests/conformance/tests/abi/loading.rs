//! Entry points, ABI versions, allocators, and loading on the loader's thread.

use std::sync::mpsc::channel;

use weir_sdk_testing::{MemoryHost, MemoryStream, Tester, Worker};
use weir_wasm::stats::{Counter, TrapKind};
use weir_wasm::{Binding, BindingConfig, Chain, FailurePolicy, Filter, Kind, LoadRequest, Loader, MessageMap, Side, Stream};

use crate::guest::{Allocator, Data, Guest, I, Param, Return, S, Step, call, call_in};
use crate::story::{Scene, Story, engine};

/// What ran of the entry points, told by the log: they may call nothing else.
fn entries(names: &[&str]) -> Vec<String> {
    let name = |name: &&str| match *name {
        "_initialize" => "i",
        "_start" => "s",
        "main" => "m",
        _ => "v",
    };
    let guest = names.iter().fold(Guest::new(), |guest, entry| guest.on(entry, [call("proxy_log", [I(2), S(name(entry))])]));
    let (worker, _) = Scene::of(guest.watching("request_headers")).start();
    assert_eq!(worker.get("/").run().status(), 200);
    worker.host.log_lines().into_iter().map(|line| line.message).collect()
}

#[test]
fn the_entry_is_initialize_and_main_or_start_or_nothing() {
    for (names, ran) in [
        (&[][..], &[][..]),
        (&["_initialize"], &["i"]),
        (&["_start"], &["s"]),
        (&["_initialize", "main"], &["i", "m"]),
        (&["_initialize", "__main_void"], &["i", "v"]),
        (&["_initialize", "main", "__main_void"], &["i", "m"]),
        (&["_initialize", "_start"], &["i"]),
        (&["main"], &[]),
    ] {
        assert_eq!(entries(names), ran, "{names:?}");
    }
}

#[test]
fn an_exit_from_the_entry_is_an_end_only_with_an_error() {
    let exit = |code| Guest::new().on("_start", [call_in("wasi_snapshot_preview1", "proc_exit", [I(code)])]).watching("request_headers");
    let (worker, story) = Scene::of(exit(0)).start();
    assert_eq!(worker.get("/").run().status(), 200);
    assert_eq!(story.names(), "a.request_headers");
    let error = Scene::of(exit(3)).try_start().expect_err("it failed").to_string();
    assert!(error.contains("proc_exit(3)"), "{error}");
}

#[test]
fn two_and_three_argument_header_callbacks_are_bound_whatever_the_version_says() {
    for (abi, params, want) in [
        ("0_1_0", 2, "a.request_headers(2,4)"),
        ("0_1_0", 3, "a.request_headers(2,4,1)"),
        ("0_2_1", 2, "a.request_headers(2,4)"),
        ("0_2_0", 3, "a.request_headers(2,4,1)"),
    ] {
        let guest = Guest::new().abi(abi).on_with("request_headers", params, [Return(1)]);
        let (worker, story) = Scene::of(guest).start();
        let exchange = worker.get("/").run();
        assert_eq!(story.callbacks(), [want]);
        assert!(!exchange.reached_upstream(), "its answer counts");
    }
}

#[test]
fn a_callback_of_another_signature_is_absent() {
    let guest = Guest::new().on_with("configure", 4, [Return(0)]).on_with("request_body", 1, [Return(1)]).watching("request_headers");
    let (worker, story) = Scene::of(guest).start();
    assert_eq!(worker.request("POST", "/").body(&["x"]).run().status(), 200);
    assert_eq!(story.names(), "a.request_headers");
}

#[test]
fn several_version_markers_mean_the_highest() {
    let absent = call("proxy_get_header_map_value", [I(0), S("nope"), Data]);
    let guest = Guest::new().abi("0_1_0").item("(func (export \"proxy_abi_version_0_2_0\"))").on("request_headers", [absent]);
    let (worker, story) = Scene::of(guest).start();
    let _ = worker.get("/").run();
    assert_eq!(story.statuses("proxy_get_header_map_value"), [1], "NOT_FOUND, not empty");
}

/// Asks for something that the host must allocate.
fn taking(guest: Guest) -> (Worker, Story) {
    Scene::of(guest.on("request_headers", [call("proxy_get_property", [S("plugin_name"), Data])])).start()
}

#[test]
fn either_allocator_serves_and_the_specifications_is_preferred() {
    let (worker, story) = taking(Guest::new().allocator_name("malloc"));
    let _ = worker.get("/").run();
    assert_eq!(story.data("proxy_get_property"), ["test"]);

    let both = Guest::new().item("(func (export \"malloc\") (param i32) (result i32) unreachable)");
    let (worker, story) = taking(both);
    let _ = worker.get("/").run();
    assert_eq!(story.data("proxy_get_property"), ["test"]);
}

#[test]
fn an_allocator_that_has_nothing_fails_the_call() {
    let (worker, story) = taking(Guest::new().allocator(Allocator::Returns(0)));
    assert_eq!(worker.get("/").run().status(), 200);
    assert_eq!(story.statuses("proxy_get_property"), [10]);
    assert_eq!(worker.stats().counter(Counter::WrongPhase), 1);
}

#[test]
fn an_allocator_that_lies_ends_the_instance() {
    for pointer in [4 << 16, (4 << 16) - 1, u32::MAX, 0x8000_0000] {
        let (worker, _) = taking(Guest::new().allocator(Allocator::Returns(pointer)));
        assert_eq!(worker.get("/").run().status(), 503);
        assert_eq!(worker.stats().traps(TrapKind::HostCall), 1);
        assert!(worker.host.logged("proxy_get_property: the guest's allocator returned 0x"), "{:?}", worker.host.log_lines());
    }
}

#[test]
fn memory_that_the_allocator_grew_is_seen() {
    let grow =
        "(func (export \"proxy_on_memory_allocate\") (param i32) (result i32) (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))";
    let (worker, story) = taking(Guest::new().allocator(Allocator::None).item(grow));
    let _ = worker.get("/").run();
    assert_eq!(story.data("proxy_get_property"), ["test"]);
}

#[test]
fn a_trap_meets_the_policy_and_the_next_stream_a_fresh_instance() {
    for (policy, status) in [(FailurePolicy::Closed, 503), (FailurePolicy::Open, 200)] {
        // The first request of an instance is fine, the second is not.
        let fine = "(if (i32.gt_u (i32.load (i32.const 64)) (i32.const 0)) (then unreachable)) (i32.store (i32.const 64) (i32.const 1))";
        let guest = Guest::new().on("request_headers", [Step::Raw(fine.into())]);
        let (worker, _) = Scene::of(guest).binding(0, move |binding| binding.failure_policy = policy).start();
        assert_eq!(worker.get("/").run().status(), 200);
        assert_eq!(worker.get("/").run().status(), status, "{policy:?}: it trapped");
        assert_eq!(worker.get("/").run().status(), 200, "{policy:?}: a fresh instance");
        assert_eq!(worker.stats().counter(Counter::InstanceRestarts), 1);
    }
}

#[test]
fn the_loader_answers_on_its_own_thread_and_a_failure_leaves_the_earlier_binding() {
    let engine = engine();
    let loader = Loader::start(&engine).unwrap();
    let (send, receive) = channel();
    let load = |wat: &str| {
        let bytes = wat::parse_str(wat).unwrap().into();
        let request = LoadRequest { config: BindingConfig::new("test"), module: "test.wasm".into(), bytes, canary: None };
        let send = send.clone();
        loader.load(request, move |result| {
            let thread = std::thread::current().name().map(str::to_owned);
            send.send((result, thread)).unwrap();
        });
        receive.recv().unwrap()
    };
    let (first, thread) = load(&Guest::new().watching("request_headers").build().0);
    assert_eq!(thread.as_deref(), Some("weir-wasm-load"));
    let first: std::sync::Arc<Binding> = first.unwrap();
    let (_, host) = MemoryHost::shared();
    let chain = Chain::new(Kind::Http, vec![Filter::start(&first, host).unwrap()]);

    let refusing = Guest::new().on("configure", [call("proxy_log", [I(4), S("key 'limit' is missing")]), Return(0)]);
    let trapping = Guest::new().on("vm_start", [Step::Raw("unreachable".into())]);
    let rootless = Guest::new().on("context_create", [Step::Raw("(if (local.get 1) (then unreachable))".into())]);
    let unknown = Guest::new().on("request_headers", [call("proxy_frobnicate", [Param(0)])]);
    let endless = Guest::new().item("(start $forever) (func $forever (loop (br 0)))");
    for (name, guest, texts) in [
        ("refuses", &refusing, &["proxy_on_configure", "key 'limit' is missing"][..]),
        ("traps", &trapping, &["proxy_on_vm_start"]),
        ("serves no streams", &rootless, &["proxy_on_context_create"]),
        ("asks for too much", &unknown, &["env.proxy_frobnicate"]),
    ] {
        let (result, _) = load(&guest.build().0);
        let error = result.expect_err(name);
        let text = format!("{error}\n  help: {}", error.help());
        println!("{name}: {text}\n");
        for part in texts.iter().chain(&["test.wasm", "sha256:"]) {
            assert!(text.contains(part), "{name}: {part:?} is not in {text}");
        }
        let mut stream = Stream::new(&chain, MemoryStream::new());
        stream.host_mut().set_map(MessageMap::RequestHeaders, &[(":path", "/")]);
        stream.request_headers(true);
        assert!(stream.take(Side::Request).end, "{name}: the earlier binding serves on");
    }
    let wasm = wat::parse_str(endless.build().0).unwrap();
    let error = Tester::with_engine(&engine, &wasm)
        .binding(|binding| binding.limits.start_deadline = std::time::Duration::from_millis(50))
        .start()
        .expect_err("it never ends")
        .to_string();
    println!("never starts: {error}");
    assert!(error.contains("50ms"), "{error}");

    let (again, _) = load(&Guest::new().watching("request_headers").build().0);
    assert!(again.is_ok());
}

#[test]
fn a_probe_that_fails_says_once_why() {
    let probe = Guest::new().item("(func (export \"proxy_on_context_create\") (param i32 i32) (if (local.get 1) (then (unreachable))))");
    let error = Scene::of(probe).try_start().expect_err("it traps for every stream").to_string();
    for once in ["proxy_on_context_create", "it aborted (unreachable)"] {
        assert_eq!(error.matches(once).count(), 1, "{once} in {error}");
    }
    assert!(error.contains("probe"), "{error}");
}
