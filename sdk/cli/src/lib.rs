//! The `weir` command: runs and checks proxies; makes, tests, runs, measures and ships filters.
//!
//! What always holds: data goes to standard output, everything else to standard error; colour and progress are for terminals, and never against
//! `NO_COLOR`; `--output json` prints one JSON value wherever there is data; a failure says its cause and the next step; exit codes are those of
//! [`args::EXIT_CODES`]. What it deliberately does not do: know how anything works. Proxies are weir-proxy's, modules weir-wasm's, registries weir-oci's.

pub mod args;
mod check;
mod failure;
mod filter;
mod out;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Arguments, Command};
use out::Out;

/// Runs a command line, and returns the process's exit code.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // There is nobody left to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let out = Out::new(arguments.output);
    let done = match arguments.command {
        Command::Run(run) => return run_proxy(run),
        Command::Check { path } => match check::check(&path, &out) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Filter { command } => filter::run(command, &out),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "weir", &mut text);
            out.data(&String::from_utf8_lossy(&text));
            Ok(())
        }
        Command::Version => {
            version(&out);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(&out),
    }
}

fn run_proxy(run: args::RunProxy) -> ExitCode {
    if run.with_parent {
        // Without it a run that is killed would leave its proxy behind, which is no reason not to start.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    }
    weir_proxy::cli::run(run.of_the_proxy())
}

fn version(out: &Out) {
    let version = env!("CARGO_PKG_VERSION");
    let abi: Vec<String> = weir_wasm::module::facts::AbiVersion::ALL.iter().map(ToString::to_string).collect();
    let filters: Vec<&str> = weir_filters::all().iter().map(|filter| filter.name).collect();
    out.value(&serde_json::json!({"version": version, "proxyWasm": abi, "filters": filters}), |_| {
        format!("weir {version}\nProxy-Wasm {}\nbuilt in: {}\n", abi.join(", "), filters.join(", "))
    });
}
