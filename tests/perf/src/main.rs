//! `make bench`: what Weir costs on this machine.
//!
//! Each suite prints a table for people and one line `figure NAME VALUE` a figure for programs. Figures that are compared are measured in turn within
//! one run, and medians are quoted: absolute times of shared machines are noise. It asserts nothing: limits belong to whoever reads the figures.

mod filters;
mod proxy;
mod report;
mod sdk;
mod wasm;

use std::process::ExitCode;

use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Suite = fn(&mut Report) -> anyhow::Result<()>;

const SUITES: &[(&str, Suite, &str)] = &[
    ("wasm", wasm::run, "the Proxy-Wasm host: calls, a chain of four filters, instances, loading"),
    ("filters", filters::run, "the standard filters: choosing among 100,000 routes"),
    ("proxy", proxy::run, "the proxy beside nginx, haproxy and Envoy: CPU per request and per handshake, memory"),
    ("sdk", sdk::run, "how long an author of a filter waits: from nothing to an answer, and from a save"),
];

fn main() -> ExitCode {
    // The load that the suite `proxy` starts beside itself.
    if let Some(result) = proxy::handshakes(&std::env::args().skip(1).collect::<Vec<_>>()) {
        return if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let wanted = std::env::args().nth(1).unwrap_or_else(|| "all".into());
    let chosen: Vec<_> = SUITES.iter().filter(|(name, ..)| wanted == *name || wanted == "all" && *name != "sdk").collect();
    if chosen.is_empty() || wanted == "--help" {
        let mut list: String = SUITES.iter().map(|(name, _, about)| format!("  {name:<8} {about}\n")).collect();
        list.push_str("  all      every suite but sdk, which compiles a filter and the host of its tests from nothing");
        report::say(&format!("usage: make bench SUITE=NAME\n\nsuites:\n{list}"));
        return if wanted == "--help" { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    for (name, run, about) in chosen {
        report::say(&format!("suite {name}: {about}"));
        let mut report = Report::new(name);
        if let Err(error) = run(&mut report) {
            report::say(&format!("suite {name} failed: {error:#}"));
            return ExitCode::FAILURE;
        }
        report.print();
    }
    ExitCode::SUCCESS
}
