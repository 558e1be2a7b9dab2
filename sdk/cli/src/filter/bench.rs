//! `weir filter bench`: what one request through the filter costs, in the production host.
//!
//! The same requests pass a chain with the filter and one without any; the difference is the filter's. Messages are in memory, so that only host and filter
//! are measured. Always: the median of several rounds, which interleave the two, counts. What it does not do: measure a network, or a proxy under load.

use std::time::Instant;

use serde_json::json;
use weir_sdk_testing::{Tester, Worker};
use weir_wasm::module::callbacks::Callback;
use weir_wasm::{Chain, Engine, EngineOptions, Kind};

use crate::args::Bench;
use crate::failure::{Done, Failure};
use crate::filter::inspect::{self, bytes};
use crate::filter::source;
use crate::out::{Out, Paint};

const ROUNDS: u32 = 9;

/// What was measured.
#[derive(Debug)]
struct Cost {
    compile_ms: f64,
    start_us: f64,
    request_us: f64,
    guest_us: f64,
    host_calls: f64,
    memory: u64,
    growth: u64,
    status: u16,
}

pub(crate) fn bench(bench: &Bench, out: &Out) -> Done {
    let source = source::load_or_build(&bench.module, &bench.registry, out)?;
    let config = bench.config.as_deref().map(source::text).transpose()?.unwrap_or_default();
    let headers = headers(&bench.headers)?;
    let cost = measure(&source.bytes, &config, bench, &headers, out)?;
    let value = json!({
        "module": source.name, "requests": bench.requests, "status": cost.status, "requestMicros": cost.request_us, "guestMicros": cost.guest_us,
        "hostCalls": cost.host_calls, "startMicros": cost.start_us, "compileMillis": cost.compile_ms, "instanceMemory": cost.memory,
        "memoryGrowth": cost.growth, "optimised": !cfg!(debug_assertions),
    });
    out.value(&value, |out| cost.text(&source.name, out));
    if cfg!(debug_assertions) {
        out.note("note: this `weir` was built without optimisation: the host's share of these times is not what a release has");
    }
    Ok(())
}

fn headers(list: &[String]) -> Done<Vec<(String, String)>> {
    let split = |header: &String| {
        let (name, value) =
            header.split_once(':').ok_or_else(|| Failure::new(format!("-H {header:?} is not of the form 'NAME: VALUE'")))?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    list.iter().map(split).collect()
}

fn measure(module: &[u8], config: &str, bench: &Bench, headers: &[(String, String)], out: &Out) -> Done<Cost> {
    let engine = Engine::new(EngineOptions::default()).map_err(|error| Failure::new(format!("no Wasm engine: {error}")))?;
    out.progress("compiling");
    let begun = Instant::now();
    // Kept, so that starting it again compiles nothing.
    let loaded = weir_wasm::Module::load_for(&engine, &bench.module, module, &weir_wasm::module::LoadOptions::default())?;
    let compile_ms = begun.elapsed().as_secs_f64() * 1e3;
    if inspect::kind(loaded.facts()) == Kind::Tcp {
        return Err(Failure::new("the filter is for TCP connections; this measures requests")
            .help("measure it in a proxy: `weir filter run`, key c"));
    }
    let worker = Tester::with_engine(&engine, module).configuration(config).start();
    let worker = worker.map_err(|error| Failure::new(error).help("give it a configuration with --config"))?;
    worker.host.be_quiet();
    let run = |worker: &Worker| {
        let mut request = worker.request(if bench.body.is_empty() { "GET" } else { "POST" }, &bench.path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !bench.body.is_empty() {
            request = request.body(&[&bench.body]);
        }
        request.run()
    };
    let exchange = run(&worker);
    if !exchange.is_complete() {
        return Err(Failure::new("the request was left waiting: the filter paused, for a callout perhaps, and nobody answers here"));
    }
    let (status, started) = (exchange.status(), start_time(&worker));
    drop(exchange);
    let bare = Worker { host: worker.host.clone(), chain: Chain::new(Kind::Http, Vec::new()), engine: worker.engine.clone() };
    let each = (bench.requests / ROUNDS).max(1);
    out.progress("measuring");
    // Everything is warm before it counts, and memory has grown to what it needs.
    (0..each).for_each(|_| drop((run(&worker), run(&bare))));
    let (calls, guest, memory) = (worker.host_calls(), guest_nanos(&worker), worker.stats().peak_instance_memory);
    let mut differences: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let [with, without] = [&worker, &bare].map(|worker| {
                let begun = Instant::now();
                (0..each).for_each(|_| drop(run(worker)));
                begun.elapsed().as_secs_f64() * 1e6 / f64::from(each)
            });
            with - without
        })
        .collect();
    differences.sort_by(f64::total_cmp);
    let count = f64::from(each * ROUNDS);
    let peak = worker.stats().peak_instance_memory;
    Ok(Cost {
        compile_ms,
        start_us: started,
        request_us: differences[differences.len() / 2].max(0.0),
        guest_us: (guest_nanos(&worker).saturating_sub(guest)) as f64 / 1e3 / count,
        host_calls: (worker.host_calls() - calls) as f64 / count,
        memory: peak,
        growth: peak - memory,
        status,
    })
}

/// What the callbacks of messages took, by the host's own accounting.
fn guest_nanos(worker: &Worker) -> u64 {
    let stats = worker.stats();
    let own = |callback: &&Callback| !matches!(callback, Callback::Start | Callback::VmStart | Callback::Configure);
    Callback::ALL.iter().filter(own).map(|callback| stats.callback(*callback).estimated_nanos()).sum()
}

fn start_time(worker: &Worker) -> f64 {
    let stats = worker.stats();
    [Callback::Start, Callback::VmStart, Callback::Configure]
        .iter()
        .map(|callback| stats.callback(*callback).estimated_nanos() as f64 / 1e3)
        .sum()
}

impl Cost {
    fn text(&self, name: &str, out: &Out) -> String {
        let rows = [
            ("a request costs", format!("{:.2} µs", self.request_us), "host and filter, answered with its status below"),
            ("in the filter", format!("{:.2} µs", self.guest_us), "its callbacks, with the host calls in them; sampled"),
            ("host calls", format!("{:.1}", self.host_calls), "a request"),
            ("memory", bytes(self.memory), "of an instance at its peak"),
            ("growth", bytes(self.growth), "while it was measured: 0 unless it keeps what it allocates"),
            ("start", format!("{:.0} µs", self.start_us), "and configuration of an instance"),
            ("compilation", format!("{:.0} ms", self.compile_ms), "once for each module; a proxy keeps it on disk"),
            ("status", self.status.to_string(), ""),
        ];
        let mut text = format!("{}\n", out.paint(Paint::Bold, name));
        for (what, value, note) in rows {
            text += format!("  {what:<16} {value:>12}  {}", out.paint(Paint::Dim, note)).trim_end();
            text.push('\n');
        }
        text.push('\n');
        let figures = [
            ("filter.request_us", self.request_us),
            ("filter.guest_us", self.guest_us),
            ("filter.host_calls", self.host_calls),
            ("filter.memory_bytes", self.memory as f64),
            ("filter.memory_growth_bytes", self.growth as f64),
            ("filter.start_us", self.start_us),
            ("filter.compile_ms", self.compile_ms),
        ];
        for (name, value) in figures {
            text += &format!("figure {name} {}\n", if value < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") });
        }
        text
    }
}
