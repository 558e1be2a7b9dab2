//! The command line: `run`, `check`, `version`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use weir_model::validate::Context;

use crate::admin::Admin;
use crate::app::App;
use crate::operator::Operator;
use crate::source::file::Loaded;
use crate::source::{Hub, ads, file};

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
    },
    /// Say what is wrong with a configuration, and nothing else
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
        Command::Run { config } => serve(&config),
    }
}

fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) -> ExitCode {
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

/// What a configuration may name: the filters of this binary.
fn context() -> Context {
    Context { builtins: Some(weir_filters::all().iter().map(|builtin| builtin.name.to_owned()).collect()), ..Context::default() }
}

fn load(path: &Path) -> Result<Loaded, ExitCode> {
    file::load(path, &context()).map_err(|wrong| complain(&wrong.render(std::io::stderr().is_terminal())))
}

fn check(path: &Path) -> ExitCode {
    let Ok(loaded) = load(path) else { return ExitCode::FAILURE };
    let color = std::io::stdout().is_terminal();
    say(&weir_model::diagnostic::render(&loaded.warnings, color));
    say(&format!("{}: {} resources, no errors\n", path.display(), loaded.resources.len()));
    ExitCode::SUCCESS
}

fn serve(path: &Path) -> ExitCode {
    let Ok(loaded) = load(path) else { return ExitCode::FAILURE };
    let level = match crate::observe::log::start(&loaded.bootstrap.log.clone().unwrap_or_default()) {
        Ok(level) => level,
        Err(error) => return complain(&format!("error: log.level: {error}\n")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build();
    let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let served = runtime.block_on(control(path, loaded, level));
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

/// The control thread: applies configurations, serves the operator's pages, waits for signals.
async fn control(path: &Path, loaded: Loaded, level: crate::observe::log::LogLevel) -> anyhow::Result<()> {
    let bootstrap = loaded.bootstrap.clone();
    let resources = loaded.resources.clone();
    let (app, applier) = App::start(&bootstrap)?;
    let app = Arc::new(app);
    let hub = Hub::new(applier, bootstrap.discovery.is_some());
    let operator = Operator::new(Arc::clone(&app), hub.status(), level);
    if let Some(admin) = Admin::bind(&bootstrap.admin.clone().unwrap_or_default()).await? {
        if let Some(address) = admin.local_addr() {
            tracing::info!(target: "admin", "pages on http://{address}/");
        }
        tokio::spawn(admin.serve(Arc::clone(&operator)));
    }
    tokio::spawn(file::run(Arc::clone(&hub), path.to_owned(), context(), Some(loaded)));
    if let Some(discovery) = &bootstrap.discovery {
        let options = ads::Options::new(discovery, &bootstrap.node.clone().unwrap_or_default(), context());
        tokio::spawn(ads::run(Arc::clone(&hub), options, ads::Grpcs::new(discovery, resources)));
    }
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::user_defined1())?);
    loop {
        tokio::select! {
            _ = signals.0.recv() => break,
            _ = signals.1.recv() => break,
            _ = signals.2.recv() => app.workers.process.access_logs.reopen(),
            () = operator.asked_to_drain() => break,
        }
    }
    tracing::info!(target: "app", "draining for up to {:?}", app.drain_timeout);
    operator.draining();
    app.workers.drain(app.drain_timeout).await;
    app.workers.stop();
    Ok(())
}
