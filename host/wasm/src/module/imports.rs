//! The one table of functions that this host provides to guests.
//!
//! What always holds: a function is here exactly once, under every module name it is linked as, with
//! its WebAssembly type. The loader refuses imports by this table, and the linker in `abi` is tested
//! against it, so what the loader accepts always links.
//!
//! What it deliberately does not do: it says nothing about what a function does; `abi` does.
//!
//! The types of `env` are those that compiled modules import. The functions only 0.1.0 knows return a
//! status like all others: its specification says otherwise, no binary does. The types of WASI were
//! compared with the published declarations of preview 1 and of `wasi_unstable`: every function both
//! have is lowered to the same type (the two differ in struct layouts and enum values only).

use wasmparser::ValType;

use super::facts::Signature;

/// What a host function belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Group {
    /// Logging, clock, timer.
    System,
    /// Buffers.
    Buffer,
    /// Header maps.
    Map,
    /// Continue, close, local response, route cache.
    Stream,
    /// HTTP and gRPC callouts.
    Callout,
    /// Shared data and queues.
    Shared,
    /// Metrics.
    Metric,
    /// Properties and foreign functions.
    Property,
    /// Effective context, done.
    Context,
    /// WASI preview 1.
    Wasi,
    /// What the runtimes of Emscripten and AssemblyScript expect.
    Runtime,
    /// Functions of one vendor's proxy: linked, answering UNIMPLEMENTED.
    Vendor(&'static str),
}

/// One function the host provides.
#[derive(Debug)]
pub(crate) struct HostFunction {
    /// The import modules it is provided in.
    pub(crate) modules: &'static [&'static str],
    pub(crate) name: &'static str,
    pub(crate) params: &'static [ValType],
    pub(crate) results: &'static [ValType],
    pub(crate) group: Group,
    /// Whether it returns data in guest memory that the host allocates there.
    pub(crate) allocates: bool,
}

impl HostFunction {
    pub(crate) fn signature(&self) -> Signature {
        Signature::new(self.params, self.results)
    }
}

/// The host function behind an import.
pub(crate) fn find(module: &str, name: &str) -> Option<&'static HostFunction> {
    HOST_FUNCTIONS.iter().find(|function| function.name == name && function.modules.contains(&module))
}

/// Every function this host provides, as import module, name and type: for tools that list them and tests that call them all.
pub fn provided() -> impl Iterator<Item = (&'static str, &'static str, Signature)> {
    let each = |function: &'static HostFunction| function.modules.iter().map(|module| (*module, function.name, function.signature()));
    HOST_FUNCTIONS.iter().flat_map(each)
}

const ENV: &[&str] = &["env"];
const WASI: &[&str] = &["wasi_snapshot_preview1", "wasi_unstable"];

const I: ValType = ValType::I32;
const L: ValType = ValType::I64;
const D: ValType = ValType::F64;

/// A function of `env` with `i32` parameters and a status.
const fn env(group: Group, name: &'static str, params: &'static [ValType]) -> HostFunction {
    HostFunction { modules: ENV, name, params, results: &[I], group, allocates: false }
}

/// The same, returning data that the host allocates in the guest.
const fn data(group: Group, name: &'static str, params: &'static [ValType]) -> HostFunction {
    HostFunction { allocates: true, ..env(group, name, params) }
}

const fn wasi(name: &'static str, params: &'static [ValType]) -> HostFunction {
    HostFunction { modules: WASI, ..env(Group::Wasi, name, params) }
}

const fn runtime(name: &'static str, params: &'static [ValType], results: &'static [ValType]) -> HostFunction {
    HostFunction { results, ..env(Group::Runtime, name, params) }
}

const ENVOY: Group = Group::Vendor("Envoy");
const HIGRESS: Group = Group::Vendor("Higress");

/// Every function the host provides.
#[rustfmt::skip] // one row a function
pub(crate) static HOST_FUNCTIONS: &[HostFunction] = &[
    env(Group::System, "proxy_log", &[I, I, I]),
    env(Group::System, "proxy_get_log_level", &[I]),
    env(Group::System, "proxy_get_current_time_nanoseconds", &[I]),
    env(Group::System, "proxy_set_tick_period_milliseconds", &[I]),

    data(Group::Buffer, "proxy_get_buffer_bytes", &[I, I, I, I, I]),
    env(Group::Buffer, "proxy_get_buffer_status", &[I, I, I]),
    env(Group::Buffer, "proxy_set_buffer_bytes", &[I, I, I, I, I]),
    data(Group::Buffer, "proxy_get_configuration", &[I, I]),

    env(Group::Map, "proxy_get_header_map_size", &[I, I]),
    data(Group::Map, "proxy_get_header_map_pairs", &[I, I, I]),
    env(Group::Map, "proxy_set_header_map_pairs", &[I, I, I]),
    data(Group::Map, "proxy_get_header_map_value", &[I, I, I, I, I]),
    env(Group::Map, "proxy_add_header_map_value", &[I, I, I, I, I]),
    env(Group::Map, "proxy_replace_header_map_value", &[I, I, I, I, I]),
    env(Group::Map, "proxy_remove_header_map_value", &[I, I, I]),

    env(Group::Stream, "proxy_continue_stream", &[I]),
    env(Group::Stream, "proxy_close_stream", &[I]),
    env(Group::Stream, "proxy_continue_request", &[]),
    env(Group::Stream, "proxy_continue_response", &[]),
    env(Group::Stream, "proxy_clear_route_cache", &[]),
    env(Group::Stream, "proxy_send_local_response", &[I, I, I, I, I, I, I, I]),

    data(Group::Callout, "proxy_get_status", &[I, I, I]),
    env(Group::Callout, "proxy_http_call", &[I, I, I, I, I, I, I, I, I, I]),
    env(Group::Callout, "proxy_grpc_call", &[I, I, I, I, I, I, I, I, I, I, I, I]),
    env(Group::Callout, "proxy_grpc_stream", &[I, I, I, I, I, I, I, I, I]),
    env(Group::Callout, "proxy_grpc_send", &[I, I, I, I]),
    env(Group::Callout, "proxy_grpc_cancel", &[I]),
    env(Group::Callout, "proxy_grpc_close", &[I]),

    env(Group::Shared, "proxy_set_shared_data", &[I, I, I, I, I]),
    data(Group::Shared, "proxy_get_shared_data", &[I, I, I, I, I]),
    env(Group::Shared, "proxy_register_shared_queue", &[I, I, I]),
    env(Group::Shared, "proxy_resolve_shared_queue", &[I, I, I, I, I]),
    env(Group::Shared, "proxy_enqueue_shared_queue", &[I, I, I]),
    data(Group::Shared, "proxy_dequeue_shared_queue", &[I, I, I]),

    env(Group::Metric, "proxy_define_metric", &[I, I, I, I]),
    env(Group::Metric, "proxy_increment_metric", &[I, L]),
    env(Group::Metric, "proxy_record_metric", &[I, L]),
    env(Group::Metric, "proxy_get_metric", &[I, I]),

    data(Group::Property, "proxy_get_property", &[I, I, I, I]),
    env(Group::Property, "proxy_set_property", &[I, I, I, I]),
    data(Group::Property, "proxy_call_foreign_function", &[I, I, I, I, I, I]),

    env(Group::Context, "proxy_set_effective_context", &[I]),
    env(Group::Context, "proxy_done", &[]),

    wasi("args_get", &[I, I]),
    wasi("args_sizes_get", &[I, I]),
    wasi("clock_res_get", &[I, I]),
    wasi("clock_time_get", &[I, L, I]),
    wasi("environ_get", &[I, I]),
    wasi("environ_sizes_get", &[I, I]),
    wasi("fd_advise", &[I, L, L, I]),
    wasi("fd_allocate", &[I, L, L]),
    wasi("fd_close", &[I]),
    wasi("fd_datasync", &[I]),
    wasi("fd_fdstat_get", &[I, I]),
    wasi("fd_fdstat_set_flags", &[I, I]),
    wasi("fd_fdstat_set_rights", &[I, L, L]),
    wasi("fd_filestat_get", &[I, I]),
    wasi("fd_filestat_set_size", &[I, L]),
    wasi("fd_filestat_set_times", &[I, L, L, I]),
    wasi("fd_pread", &[I, I, I, L, I]),
    wasi("fd_prestat_dir_name", &[I, I, I]),
    wasi("fd_prestat_get", &[I, I]),
    wasi("fd_pwrite", &[I, I, I, L, I]),
    wasi("fd_read", &[I, I, I, I]),
    wasi("fd_readdir", &[I, I, I, L, I]),
    wasi("fd_renumber", &[I, I]),
    wasi("fd_seek", &[I, L, I, I]),
    wasi("fd_sync", &[I]),
    wasi("fd_tell", &[I, I]),
    wasi("fd_write", &[I, I, I, I]),
    wasi("path_create_directory", &[I, I, I]),
    wasi("path_filestat_get", &[I, I, I, I, I]),
    wasi("path_filestat_set_times", &[I, I, I, I, L, L, I]),
    wasi("path_link", &[I, I, I, I, I, I, I]),
    wasi("path_open", &[I, I, I, I, I, L, L, I, I]),
    wasi("path_readlink", &[I, I, I, I, I, I]),
    wasi("path_remove_directory", &[I, I, I]),
    wasi("path_rename", &[I, I, I, I, I, I]),
    wasi("path_symlink", &[I, I, I, I, I]),
    wasi("path_unlink_file", &[I, I, I]),
    wasi("poll_oneoff", &[I, I, I, I]),
    HostFunction { results: &[], ..wasi("proc_exit", &[I]) },
    wasi("proc_raise", &[I]),
    wasi("random_get", &[I, I]),
    wasi("sched_yield", &[]),
    wasi("sock_accept", &[I, I, I]),
    wasi("sock_recv", &[I, I, I, I, I, I]),
    wasi("sock_send", &[I, I, I, I, I]),
    wasi("sock_shutdown", &[I, I]),

    runtime("emscripten_notify_memory_growth", &[I], &[]),
    runtime("pthread_equal", &[I, I], &[I]),
    runtime("abort", &[I, I, I, I], &[]),
    runtime("seed", &[], &[D]),

    env(ENVOY, "envoy_resolve_dns", &[I, I, I]),
    env(HIGRESS, "proxy_redis_init", &[I, I, I, I, I, I, I]),
    env(HIGRESS, "proxy_redis_call", &[I, I, I, I, I]),
    env(HIGRESS, "proxy_inject_encoded_data_to_filter_chain", &[I, I, I]),
    env(HIGRESS, "proxy_get_upstream_hosts", &[I, I]),
    env(HIGRESS, "proxy_set_upstream_override_host", &[I, I]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_function_is_listed_twice() {
        let mut seen = HashSet::new();
        for function in HOST_FUNCTIONS {
            for module in function.modules {
                assert!(seen.insert((module, function.name)), "{module}.{}", function.name);
                assert!(std::ptr::eq(find(module, function.name).unwrap(), function));
            }
        }
    }

    #[test]
    fn the_preview_1_set_is_whole() {
        let wasi = HOST_FUNCTIONS.iter().filter(|function| function.group == Group::Wasi);
        assert_eq!(wasi.count(), 46);
    }

    #[test]
    fn data_comes_back_through_a_pointer_and_a_size() {
        // Every function that returns data takes at least two out-pointers, and calls itself get, dequeue or call.
        for function in HOST_FUNCTIONS.iter().filter(|function| function.allocates) {
            assert!(function.params.len() >= 2, "{}", function.name);
            let verbs = ["proxy_get_", "proxy_dequeue_", "proxy_call_"];
            assert!(verbs.iter().any(|verb| function.name.starts_with(verb)), "{}", function.name);
        }
    }
}
