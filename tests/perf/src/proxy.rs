//! The proxy beside its peers: CPU per request, per handshake and per body, and memory.
//!
//! Everything runs on one core: the proxy, the load and the origin. Wake-ups are then local and cheap, and runs differ by a per cent or two where two
//! cores differ by twenty. What counts is the time that the proxy's threads were on the CPU, from the kernel's own books, divided by the requests that
//! the load tool saw answered. Peers take turns within a round, each with a fresh process, and medians over the rounds are compared.
//!
//! What always holds: a run with a socket error or an answer that nobody expected does not count, and a peer that is not here is named and has no
//! figure. Peers are configured alike (`peers/`): one worker, upstream keep-alive, no access log.

mod certificates;
mod client;
mod handshakes;
mod load;
mod machine;
mod memory;
mod process;
mod programs;
mod race;
mod scenarios;

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;

use crate::report::{Report, say};

pub(crate) use handshakes::run as handshakes;

/// Options of `make bench SUITE=proxy ARGS=...`.
#[derive(Parser)]
#[command(name = "weir-perf proxy", no_binary_name = true)]
struct Options {
    /// The proxy to measure; the one that was built with this program if absent.
    #[arg(long)]
    weir_binary: Option<PathBuf>,
    /// How often each target is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each measurement, after a warm-up of one.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Scenarios to run, by the beginning of their names; all if absent.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Targets to leave out, by their names in the tables.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// The core that everything runs on.
    #[arg(long, default_value_t = 0)]
    core: usize,
}

pub(crate) fn run(report: &mut Report) -> Result<()> {
    // `make bench` with every suite hands over no options.
    let options = match Options::try_parse_from(std::env::args_os().skip(2)) {
        Ok(options) => options,
        Err(usage) => {
            say(&usage.to_string());
            anyhow::ensure!(!usage.use_stderr(), "the options cannot be read");
            return Ok(());
        }
    };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| name.starts_with(only.as_str()));
    let _priority = machine::prepare(options.core)?;
    let programs = programs::find(options.weir_binary.as_deref());
    programs.introduce(options.core);
    let ground = race::Ground::new(&programs)?;
    for scenario in scenarios::ALL.iter().filter(|scenario| wanted(scenario.name)) {
        race::run(&ground, scenario, &options, report).with_context(|| format!("scenario {}", scenario.name))?;
    }
    if wanted("idle") && programs.has(programs::Program::Weir) {
        memory::idle_connections(&ground, report)?;
    }
    Ok(())
}
