//! A worker with a bad filter and a friendly one, and the WebAssembly text that bad filters are made of.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use weir_sdk_testing::{TestError, Tester, Worker};
use weir_wasm::codec::{Pairs, map_size, write_map};
use weir_wasm::stats::{Counter, Level, TrapKind};
use weir_wasm::{BindingConfig, Chain, Engine, EngineOptions, Filter, Upstreams};

/// Every host function the guests call: short name, name, number of `i32` parameters.
pub(crate) const IMPORTS: &[(&str, &str, usize)] = &[
    ("log", "proxy_log", 3),
    ("now", "proxy_get_current_time_nanoseconds", 1),
    ("tick", "proxy_set_tick_period_milliseconds", 1),
    ("buffer", "proxy_get_buffer_bytes", 5),
    ("set_buffer", "proxy_set_buffer_bytes", 5),
    ("map_size", "proxy_get_header_map_size", 2),
    ("pairs", "proxy_get_header_map_pairs", 3),
    ("set_pairs", "proxy_set_header_map_pairs", 3),
    ("get", "proxy_get_header_map_value", 5),
    ("add", "proxy_add_header_map_value", 5),
    ("replace", "proxy_replace_header_map_value", 5),
    ("remove", "proxy_remove_header_map_value", 3),
    ("continue", "proxy_continue_stream", 1),
    ("close", "proxy_close_stream", 1),
    ("status", "proxy_get_status", 3),
    ("reply", "proxy_send_local_response", 8),
    ("http", "proxy_http_call", 10),
    ("grpc", "proxy_grpc_call", 12),
    ("grpc_stream", "proxy_grpc_stream", 9),
    ("grpc_send", "proxy_grpc_send", 4),
    ("get_shared", "proxy_get_shared_data", 5),
    ("set_shared", "proxy_set_shared_data", 5),
    ("register", "proxy_register_shared_queue", 3),
    ("resolve", "proxy_resolve_shared_queue", 5),
    ("enqueue", "proxy_enqueue_shared_queue", 3),
    ("dequeue", "proxy_dequeue_shared_queue", 3),
    ("define", "proxy_define_metric", 4),
    ("property", "proxy_get_property", 4),
    ("set_property", "proxy_set_property", 4),
    ("foreign", "proxy_call_foreign_function", 6),
    ("effective", "proxy_set_effective_context", 1),
    ("done", "proxy_done", 0),
];

/// Memory that the guests agree on: out-parameters at 0, texts at 1024, `http_call` headers at 2048, a growing number as text at 3072,
/// the allocator's one buffer at 128 KiB, free space from 1 MiB to the end at 4 MiB.
const COMMON: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 64)
    (func (export "proxy_abi_version_0_2_1"))
    (data (i32.const 1024) "name")
    (data (i32.const 1032) "value")
    (data (i32.const 1040) "up")
    (data (i32.const 1048) "compress")
    (data (i32.const 1056) "uncompress")
    (data (i32.const 1072) "friendly")
    (data (i32.const 3072) "n-00000000")

    ;; Whether it is the bad hour: an hour after the test began, for an hour. The proof at load has the machine's clock.
    (func $bad (result i32)
      (drop (call $now (i32.const 64)))
      (i64.lt_u (i64.sub (i64.load (i32.const 64)) (i64.const 1700003600000000000)) (i64.const 3600000000000)))

    ;; Counts the number at 3072 on, so that the text is a new one.
    (func $next
      (local $at i32)
      (local.set $at (i32.const 3081))
      (loop $carry
        (i32.store8 (local.get $at) (i32.add (i32.load8_u (local.get $at)) (i32.const 1)))
        (if (i32.gt_u (i32.load8_u (local.get $at)) (i32.const 57))
          (then
            (i32.store8 (local.get $at) (i32.const 48))
            (local.set $at (i32.sub (local.get $at) (i32.const 1)))
            (br $carry)))))

    (func $call_up (result i32)
      (call $http (i32.const 1040) (i32.const 2) (i32.const 2048) (i32.load (i32.const 2044)) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 1000) (i32.const 8)))
    (func $answer (result i32)
      (call $reply (i32.const 418) (i32.const 1032) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
"#;

/// One buffer for everything that the host gives.
const MALLOC: &str = r#"(func (export "malloc") (param i32) (result i32) (i32.const 131072))"#;

/// A module of `code`, with an allocator of the simplest kind.
pub(crate) fn guest(code: &str) -> String {
    guest_without_malloc(&format!("{MALLOC} {code}"))
}

/// A module of `code`, which brings its own allocator.
pub(crate) fn guest_without_malloc(code: &str) -> String {
    let mut text = String::from("(module\n");
    for (name, function, parameters) in IMPORTS {
        let parameters = "i32 ".repeat(*parameters);
        writeln!(text, r#"(import "env" "{function}" (func ${name} (param {parameters}) (result i32)))"#).expect("fits");
    }
    let headers = map(&[(":method", "GET"), (":path", "/"), (":authority", "up")]);
    let length = escaped(&u32::try_from(headers.len()).expect("short").to_le_bytes());
    let data = format!(r#"(data (i32.const 2044) "{length}{}")"#, escaped(&headers));
    format!("{text}{COMMON}{data}{code})")
}

/// A guest whose `proxy_on_request_headers` runs `code` and continues.
pub(crate) fn on_request(code: &str) -> String {
    guest(&request_headers(code))
}

/// `proxy_on_request_headers` that runs `code` and continues.
pub(crate) fn request_headers(code: &str) -> String {
    format!(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $i i32) {code} (i32.const 0))"#)
}

/// `code`, again and again.
pub(crate) fn forever(code: &str) -> String {
    format!("(loop $forever {code} (br $forever))")
}

/// `code`, so many times; it may count in `$i`.
pub(crate) fn times(count: u32, code: &str) -> String {
    format!(
        "(local.set $i (i32.const {count}))
         (loop $again {code} (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
    )
}

/// A serialized header map.
pub(crate) fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let pairs = Pairs(pairs.iter().map(|(name, value)| (copy(name), copy(value))).collect());
    let mut bytes = vec![0; map_size(&pairs)];
    assert!(write_map(&pairs, &mut bytes));
    bytes
}

/// Bytes as WebAssembly text has them in a string.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").expect("fits");
        text
    })
}

/// A worker with a bad filter, and a friendly one beside it.
pub(crate) struct World {
    /// The bad one.
    pub(crate) bad: Worker,
    /// On the same worker, with the same host, in a chain of its own.
    pub(crate) friendly: Worker,
}

impl World {
    pub(crate) fn new(wat: &str) -> Self {
        Self::with(wat, |_| {})
    }

    pub(crate) fn with(wat: &str, change: impl FnOnce(&mut BindingConfig)) -> Self {
        match Self::start(wat, change) {
            Ok(world) => world,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn start(wat: &str, change: impl FnOnce(&mut BindingConfig)) -> Result<Self, TestError> {
        let engine = Engine::new(EngineOptions::default()).expect("an engine");
        let wasm = wat::parse_str(wat).expect("valid text");
        let bad = Tester::with_engine(&engine, &wasm)
            .binding(|binding| {
                binding.name = "bad".into();
                binding.upstreams = Upstreams::Any;
                change(binding);
            })
            .start()?;
        let friendly = beside(&bad, FRIENDLY, |_| {});
        Ok(Self { bad, friendly })
    }

    /// The bad hour begins.
    pub(crate) fn misbehave(&self) {
        self.bad.host.advance(Duration::from_secs(3600));
    }

    /// And ends.
    pub(crate) fn recover(&self) {
        self.bad.host.advance(Duration::from_secs(2 * 3600));
    }

    /// The friendly filter serves as if nothing had happened.
    pub(crate) fn others_answer(&self) {
        let exchange = self.friendly.request("POST", "/").body(&["hello"]).run();
        assert_eq!((exchange.status(), exchange.body().as_str(), exchange.request_body().as_str()), (200, "upstream", "hello"));
        assert_eq!(exchange.request_header("friendly").as_deref(), Some("value"));
        drop(exchange);
        let stats = self.friendly.stats();
        assert_eq!(TrapKind::ALL.map(|kind| stats.traps(kind)), [0; TrapKind::COUNT]);
        assert_eq!((stats.level(Level::LiveInstances), stats.level(Level::LiveContexts)), (1, 0));
    }

    pub(crate) fn traps(&self, kind: TrapKind) -> u64 {
        self.bad.stats().traps(kind)
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.bad.stats().counter(counter)
    }

    /// Everything logged about the bad filter, one line after the other.
    pub(crate) fn log(&self) -> String {
        let lines = self.bad.host.log_lines();
        lines.iter().filter(|line| line.binding == "bad").map(|line| format!("{}\n", line.message)).collect()
    }

    /// The log has all these words.
    pub(crate) fn says(&self, words: &[&str]) {
        let log = self.log();
        for word in words {
            assert!(log.contains(word), "{word:?} in:\n{log}");
        }
    }

    /// No instance but the current one has left anything.
    pub(crate) fn nothing_is_left(&self) {
        let stats = self.bad.stats();
        assert_eq!((stats.level(Level::LiveContexts), stats.level(Level::PendingCallouts)), (0, 0));
        assert!((0..=1).contains(&stats.level(Level::LiveInstances)));
        let memory = stats.level(Level::Memory);
        assert!((0..=64 << 20).contains(&memory), "{memory} bytes of {} instances", stats.level(Level::LiveInstances));
    }
}

/// Another binding on the same worker.
pub(crate) fn beside(worker: &Worker, wat: &str, change: impl FnOnce(&mut BindingConfig)) -> Worker {
    let mut config = BindingConfig::new("friendly");
    change(&mut config);
    let wasm = wat::parse_str(wat).expect("valid text");
    let name = config.name.clone();
    let kind = config.kind;
    let binding = weir_wasm::Binding::load(&worker.engine, config, &name, &wasm, None).expect("loads");
    let filter = Filter::start(&binding, worker.host.clone()).expect("starts");
    Worker { host: worker.host.clone(), chain: Chain::new(kind, vec![filter]), engine: worker.engine.clone() }
}

/// Adds a header and looks at bodies.
const FRIENDLY: &str = r#"(module
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "friendly")
    (data (i32.const 16) "value")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $add (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 16) (i32.const 5)))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0)))"#;
