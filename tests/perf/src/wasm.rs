//! The Proxy-Wasm host alone: no sockets, no HTTP parsing.
//!
//! The chains are four modules with real work each (deny rules, fault check, route choice, three counters and a histogram), from context create to
//! delete, on one instance a filter, against `http`'s header maps as in the proxy. Deadlines and accounting are on, as they always are.

mod message;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use weir_sdk_testing::MemoryHost;
use weir_test_guests::{Filter as Guest, Kind as GuestKind, bench};
use weir_wasm::module::cache::Cache;
use weir_wasm::module::{LoadOptions, Module};
use weir_wasm::{Binding, BindingConfig, Chain, Engine, EngineOptions, Filter, Kind, Limits, SharedHost, Side, Stream};

use crate::report::{Report, median, nanos_per_round};
use message::Message;

const RUNS: usize = 9;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let engine = Engine::new(EngineOptions::default())?;
    calls(report, &engine)?;
    chains(report, &engine)?;
    instances(report, &engine)?;
    loading(report)
}

fn host() -> SharedHost {
    let (host, shared) = MemoryHost::shared();
    host.be_quiet();
    shared
}

fn binding(engine: &Engine, name: &str, wasm: &[u8], configuration: &str) -> Result<Arc<Binding>> {
    let mut config = BindingConfig::new(name);
    config.configuration = Bytes::copy_from_slice(configuration.as_bytes());
    // The loops below run in one callback for longer than any filter may.
    config.limits.callback_deadline = Limits::MAX.callback_deadline;
    config.limits.host_output = Limits::MAX.host_output;
    Binding::load(engine, config, name, wasm, None).map_err(|error| anyhow::anyhow!("{error}: {}", error.help()))
}

/// A guest whose foreign function `n` runs a host call `n` times, and whose request callback reads a header many times.
const CALLER: &str = r#"(module
    (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "x-request-id")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
    (func (export "proxy_on_foreign_function") (param i32 i32 i32)
        (loop $again
            (if (local.get 1) (then
                (drop (call $now (i32.const 0)))
                (local.set 1 (i32.sub (local.get 1) (i32.const 1)))
                (br $again)))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local i32)
        (local.set 3 (i32.const 200000))
        (loop $again
            (drop (call $get (i32.const 0) (i32.const 16) (i32.const 12) (i32.const 0) (i32.const 4)))
            (local.set 3 (i32.sub (local.get 3) (i32.const 1)))
            (br_if $again (local.get 3)))
        (i32.const 0)))"#;

fn calls(report: &mut Report, engine: &Engine) -> Result<()> {
    let filter = Filter::start(&binding(engine, "caller", &wat::parse_str(CALLER)?, "")?, host())?;
    let call = nanos_per_round(RUNS, 500_000, |rounds| {
        for _ in 0..rounds {
            filter.call_foreign(0, Bytes::new());
        }
        Ok(())
    })?;
    report.figure("call_ns", call, "host to guest and back: an empty callback with all its bookkeeping");
    let hostcall = nanos_per_round(RUNS, 500_000, |rounds| {
        filter.call_foreign(rounds, Bytes::new());
        Ok(())
    })?;
    report.figure("hostcall_ns", hostcall, "guest to host and back: reading the clock");
    let chain = Chain::new(Kind::Http, vec![filter]);
    let message = Message::sample();
    let get = nanos_per_round(RUNS, 1, |_| {
        let mut stream = Stream::new(&chain, message.stream());
        stream.request_headers(true);
        Ok(())
    })?;
    report.figure("get_header_ns", get / 200_000.0, "a guest reads one of 13 headers, allocation in the guest included");
    Ok(())
}

/// The four filters of a kind, each in a binding of its own.
fn chain_of(engine: &Engine, kind: GuestKind) -> Result<Chain> {
    let host = host();
    let mut filters = Vec::new();
    for guest in Guest::ALL {
        let wasm = std::fs::read(bench(kind, guest))?;
        let binding = binding(engine, &format!("{kind:?}-{guest:?}").to_lowercase(), &wasm, guest.config())?;
        filters.push(Filter::start(&binding, host.clone())?);
    }
    Ok(Chain::new(Kind::Http, filters))
}

/// One request and its response through the chain, from context create to delete.
fn exchange(chain: &Chain, message: &Message) -> Stream<message::MessageStream> {
    let mut stream = Stream::new(chain, message.stream());
    stream.request_headers(true);
    stream.take(Side::Request);
    stream.response_headers(false);
    stream.take(Side::Response);
    stream.finish();
    stream
}

fn chains(report: &mut Report, engine: &Engine) -> Result<()> {
    let message = Message::sample();
    let bare = Engine::new(EngineOptions { without_deadlines: true, ..EngineOptions::default() })?;
    let stock = chain_of(engine, GuestKind::Stock)?;
    let lean = chain_of(engine, GuestKind::Lean)?;
    let unbounded = chain_of(&bare, GuestKind::Stock)?;
    for chain in [&stock, &lean, &unbounded] {
        let stream = exchange(chain, &message);
        ensure!(stream.local_reply().is_none() && stream.host().cluster() == Some("up"), "the chain must let the request through to `up`");
    }
    // In turn, so that a machine whose speed drifts drifts for all three.
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (chain, times) in [&stock, &lean, &unbounded].into_iter().zip(&mut times) {
            times.push(nanos_per_round(1, 50_000, |rounds| {
                for _ in 0..rounds {
                    exchange(chain, &message);
                }
                Ok(())
            })?);
        }
    }
    let overhead = median(times[0].iter().zip(&times[2]).map(|(with, without)| (with / without - 1.0) * 100.0).collect());
    let [stock, lean, _] = times.map(median);
    report.figure("chain4_stock_sdk_ns", stock, "a request through four modules of the stock Rust SDK");
    report.figure("chain4_lean_ns", lean, "the same through four hand-written modules");
    report.figure("epoch_overhead_pct", overhead, "what deadlines add to the stock chain, per cent");
    Ok(())
}

fn instances(report: &mut Report, engine: &Engine) -> Result<()> {
    let wasm = std::fs::read(bench(GuestKind::Stock, Guest::Policy))?;
    let binding = binding(engine, "instance", &wasm, Guest::Policy.config())?;
    let (host, message) = (host(), Message::sample());
    let filter = Filter::start(&binding, host.clone())?;
    let chain = Chain::new(Kind::Http, vec![filter.clone()]);
    let time = nanos_per_round(RUNS, 1000, |rounds| {
        for _ in 0..rounds {
            // The next request finds no instance and starts one; the old one's end is part of the price.
            filter.retire();
            exchange(&chain, &message);
        }
        Ok(())
    })?;
    report.figure("instance_us", time / 1000.0, "a fresh instance, started and configured, to the end of its first request");

    let fresh = || -> Result<Rc<Filter>> {
        let filter = Filter::start(&binding, host.clone())?;
        exchange(&Chain::new(Kind::Http, vec![filter.clone()]), &message);
        Ok(filter)
    };

    const MANY: usize = 500;
    let before = resident_kib()?;
    let kept = (0..MANY).map(|_| fresh()).collect::<Result<Vec<_>>>()?;
    let after = resident_kib()?;
    report.figure("instance_kib", (after - before) / kept.len() as f64, "resident memory of a live instance after one request");
    Ok(())
}

fn resident_kib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn loading(report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = Cache::open(folder.path().join("cache"), 64 << 20)?;
    let engine = Engine::new(EngineOptions::default())?;
    let options = LoadOptions { cache: Some(&cache), ..LoadOptions::default() };
    let wasm = std::fs::read(bench(GuestKind::Stock, Guest::Policy))?;
    let start = Instant::now();
    let first = Module::load_for(&engine, "policy", &wasm, &options)?;
    report.figure("compile_ms", millis(start.elapsed()), "loading a 130 kB module for the first time");
    ensure!(!first.report().cached, "nothing is cached yet");
    let cached = nanos_per_round(RUNS, 50, |rounds| {
        for _ in 0..rounds {
            ensure!(Module::load_for(&engine, "policy", &wasm, &options)?.report().cached, "it was cached");
        }
        Ok(())
    })?;
    report.figure("load_cached_ms", cached / 1e6, "loading it again: checks, digests and native code from the cache");
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
