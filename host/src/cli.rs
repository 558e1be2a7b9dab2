//! The command line: `run`, `check`, `version`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::control::context;
use crate::source::file::{self, Loaded};

/// Weir's data plane.
#[derive(Debug, Parser)]
#[command(name = "weir-proxy", version, about = "Weir's data plane: moves bytes natively, decides in Proxy-Wasm filters")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve
    Run {
        /// A configuration file, or a folder of them; followed while the proxy runs
        #[arg(short, long, value_name = "PATH")]
        config: PathBuf,
        /// Replace the process that runs with the same PATH, and be replaced by the next: a Unix socket, made here, for this user only
        ///
        /// To upgrade without losing a connection, start the new process with the same command line beside the old one. It takes the listening
        /// sockets over; as soon as its whole configuration serves, the old process drains (`drainTimeout`) and ends. If the new one does not get
        /// so far it ends with an error, and the old one goes on. Where nobody waits at PATH it simply starts.
        #[arg(long, value_name = "PATH")]
        handover: Option<PathBuf>,
    },
    /// Say what is wrong with a configuration: all that running it would do, but it listens nowhere
    Check {
        /// A configuration file, or a folder of them
        #[arg(short, long, value_name = "PATH")]
        config: PathBuf,
    },
    /// Print the version
    Version,
}

/// Runs a command line. Returns the process's exit code: 2 for arguments, 1 for everything else that went wrong.
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
    match arguments.command {
        Command::Version => {
            say(&format!("weir-proxy {}\n", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        Command::Check { config } => check(&config),
        Command::Run { config, handover } => serve(&config, handover.as_deref()),
    }
}

fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) -> ExitCode {
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

fn load(path: &Path) -> Result<Loaded, ExitCode> {
    file::load(path, &context()).map_err(|wrong| complain(&wrong.render(std::io::stderr().is_terminal())))
}

fn check(path: &Path) -> ExitCode {
    let Ok(loaded) = load(path) else { return ExitCode::FAILURE };
    let color = std::io::stdout().is_terminal();
    say(&weir_model::diagnostic::render(&loaded.warnings, color));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let could_serve = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let could_serve = runtime.block_on(crate::app::check(&loaded.bootstrap, loaded.resources.clone()));
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        could_serve
    });
    match could_serve {
        Ok(Ok(())) => {
            say(&format!("{}: {} resources, no errors\n", path.display(), loaded.resources.len()));
            ExitCode::SUCCESS
        }
        Ok(Err(rejected)) => {
            complain(&rejected.iter().map(|rejection| format!("error: {}: {rejection}\n", path.display())).collect::<String>())
        }
        Err(error) => complain(&format!("error: {error:#}\n")),
    }
}

fn serve(path: &Path, handover: Option<&Path>) -> ExitCode {
    let Ok(loaded) = load(path) else { return ExitCode::FAILURE };
    let level = match crate::observe::log::start(&loaded.bootstrap.log.clone().unwrap_or_default()) {
        Ok(level) => level,
        Err(error) => return complain(&format!("error: log.level: {error}\n")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build();
    let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let served = runtime.block_on(crate::control::control(path, loaded, level, handover));
        // A look at a slow file system must not hold up the end.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(target: "app", "{error:#}");
            ExitCode::FAILURE
        }
    }
}
