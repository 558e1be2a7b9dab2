//! Builds every guest and asks its bytes what a host will find: the ABI's marker, the allocator, how it starts, the
//! callbacks, and that it imports what its SDK is known to import and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wasmparser::{KnownCustom, Parser, Payload, Validator};
use weir_test_guests::{Filter, Kind, assemblyscript, bench, go_sdk, rust_sdk};

struct Module {
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
    start: bool,
    names: bool,
    size: usize,
}

fn read(path: &Path) -> Module {
    let bytes = fs::read(path).unwrap();
    Validator::new().validate_all(&bytes).unwrap();
    let mut module = Module {
        imports: BTreeSet::new(),
        exports: BTreeSet::new(),
        start: false,
        names: false,
        size: bytes.len(),
    };
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.unwrap() {
            Payload::ImportSection(section) => {
                let names = section
                    .into_imports()
                    .map(|i| i.unwrap())
                    .map(|i| format!("{}.{}", i.module, i.name));
                module.imports.extend(names);
            }
            Payload::ExportSection(section) => {
                module
                    .exports
                    .extend(section.into_iter().map(|e| e.unwrap().name.to_owned()));
            }
            Payload::StartSection { .. } => module.start = true,
            Payload::CustomSection(section) => {
                module.names |= matches!(section.as_known(), KnownCustom::Name(_));
            }
            _ => {}
        }
    }
    module
}

impl Module {
    fn exports_all(&self, names: &[&str]) {
        for name in names {
            assert!(
                self.exports.contains(*name),
                "{name} is missing of {:?}",
                self.exports
            );
        }
    }

    fn exports_none(&self, names: &[&str]) {
        for name in names {
            assert!(!self.exports.contains(*name), "{name} is exported");
        }
    }

    /// What it imports besides the ABI's own functions.
    fn foreign_imports(&self) -> Vec<&str> {
        self.imports
            .iter()
            .filter(|i| !i.starts_with("env.proxy_"))
            .map(String::as_str)
            .collect()
    }

    fn imports_all(&self, names: &[&str]) {
        for name in names {
            assert!(
                self.imports.contains(&format!("env.proxy_{name}")),
                "{name} is missing of {:?}",
                self.imports
            );
        }
    }
}

const CALLBACKS: [&str; 9] = [
    "proxy_on_context_create",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_http_call_response",
    "proxy_on_log",
];

/// What the contract needs of the host, whatever the SDK.
const CONTRACT: [&str; 18] = [
    "log",
    "set_tick_period_milliseconds",
    "get_buffer_bytes",
    "set_buffer_bytes",
    "get_header_map_value",
    "add_header_map_value",
    "replace_header_map_value",
    "remove_header_map_value",
    "send_local_response",
    "continue_stream",
    "http_call",
    "get_shared_data",
    "set_shared_data",
    "define_metric",
    "increment_metric",
    "record_metric",
    "get_metric",
    "get_property",
];

#[test]
fn the_rust_sdk_allocates_by_malloc_alone_and_starts_by_initialize() {
    let module = read(rust_sdk());
    module.exports_all(&CALLBACKS);
    module.exports_all(&["proxy_abi_version_0_2_1", "_initialize", "malloc"]);
    module.exports_none(&["proxy_on_memory_allocate", "_start"]);
    module.imports_all(&CONTRACT);
    assert_eq!(module.foreign_imports(), [""; 0]);
    assert!(module.names);
}

#[test]
fn the_go_sdk_is_a_wasi_reactor() {
    let module = read(go_sdk());
    module.exports_all(&CALLBACKS);
    module.exports_all(&[
        "proxy_abi_version_0_2_0",
        "_initialize",
        "proxy_on_memory_allocate",
    ]);
    module.exports_none(&["malloc", "_start"]);
    module.imports_all(&CONTRACT);
    for import in module.foreign_imports() {
        assert!(import.starts_with("wasi_snapshot_preview1."), "{import}");
    }
    assert!(
        module
            .imports
            .contains("wasi_snapshot_preview1.poll_oneoff"),
        "{:?}",
        module.imports
    );
    assert!(module.names);
}

#[test]
fn the_assemblyscript_sdk_starts_while_it_is_instantiated() {
    let module = read(assemblyscript());
    module.exports_all(&CALLBACKS);
    module.exports_all(&["proxy_abi_version_0_2_0", "malloc"]);
    module.exports_none(&["proxy_on_memory_allocate", "_start", "_initialize"]);
    module.imports_all(&CONTRACT);
    assert_eq!(module.foreign_imports(), ["wasi_unstable.proc_exit"]);
    assert!(module.start && module.names);
}

#[test]
fn a_stock_benchmark_guest_has_the_whole_sdk() {
    for filter in Filter::ALL {
        let module = read(bench(Kind::Stock, filter));
        module.exports_all(&CALLBACKS);
        module.exports_all(&["proxy_abi_version_0_2_1", "_initialize", "malloc"]);
        assert_eq!(module.foreign_imports(), [""; 0]);
        assert!(module.names);
    }
}

#[test]
fn a_lean_benchmark_guest_has_only_what_it_needs() {
    let least = [
        "proxy_abi_version_0_2_1",
        "proxy_on_configure",
        "proxy_on_memory_allocate",
        "proxy_on_request_headers",
    ];
    for filter in Filter::ALL {
        let module = read(bench(Kind::Lean, filter));
        let (more, imports): (&[&str], &[&str]) = match filter {
            Filter::Policy => (
                &[],
                &[
                    "get_buffer_bytes",
                    "get_header_map_value",
                    "send_local_response",
                ],
            ),
            Filter::Fault => (
                &[],
                &[
                    "get_buffer_bytes",
                    "get_header_map_value",
                    "send_local_response",
                ],
            ),
            Filter::Router => (
                &[],
                &["get_buffer_bytes", "get_header_map_value", "set_property"],
            ),
            Filter::Telemetry => (
                &["proxy_on_response_headers", "proxy_on_log"],
                &[
                    "get_current_time_nanoseconds",
                    "define_metric",
                    "increment_metric",
                    "record_metric",
                ],
            ),
        };
        let callbacks: BTreeSet<_> = module
            .exports
            .iter()
            .map(String::as_str)
            .filter(|e| e.starts_with("proxy_"))
            .collect();
        assert_eq!(
            callbacks,
            least.iter().chain(more).copied().collect(),
            "{filter:?}"
        );
        module.imports_all(imports);
        assert_eq!(module.foreign_imports(), [""; 0]);
        assert!(
            module.size < 200_000 && module.names,
            "{filter:?} has {} bytes",
            module.size
        );
    }
}

/// The lean guests' table is compiled along here, since a crate outside the workspace has no tests of its own run.
#[path = "../bench/lean/src/table.rs"]
mod table;
