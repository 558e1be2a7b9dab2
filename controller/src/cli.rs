//! The command line: `serve`, `show`, `version`.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::source::folder;
use crate::translate::{Proxy, Role, translate};

/// Weir's control plane.
#[derive(Debug, Parser)]
#[command(name = "weir-controller", version, about = "Weir's control plane: from Kubernetes and Istio resources to what each proxy does")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve configurations to proxies
    Serve {
        /// A folder of YAML, or one file; followed while the controller runs
        #[arg(short, long, value_name = "PATH")]
        folder: PathBuf,
        /// Where proxies ask. Who asks is believed to be who it says: keep to loopback, or to a network that only proxies reach
        #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1:15010")]
        listen: SocketAddr,
    },
    /// Print the configuration that a proxy would get, and serve nothing
    Show {
        /// A folder of YAML, or one file
        #[arg(short, long, value_name = "PATH")]
        folder: PathBuf,
        /// What the proxy is
        #[arg(short, long, value_enum, default_value_t = Which::Gateway)]
        role: Which,
        /// Its namespace
        #[arg(short, long, default_value = crate::object::DEFAULT_NAMESPACE)]
        namespace: String,
        /// A label of its workload; may be repeated
        #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
        label: Vec<(String, String)>,
        /// An address of its workload; may be repeated
        #[arg(short, long, value_name = "ADDRESS")]
        address: Vec<String>,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// At the edge
    Gateway,
    /// Beside a workload
    Sidecar,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is written KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
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
    let done = match arguments.command {
        Command::Version => {
            say(&format!("weir-controller {}\n", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        Command::Serve { folder, listen } => serve(&folder, listen),
        Command::Show { folder, role, namespace, label, address } => {
            let role = match role {
                Which::Gateway => Role::Gateway,
                Which::Sidecar => Role::Sidecar,
            };
            let labels = label.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
            show(&folder, &Proxy { role, namespace: namespace.into(), labels, addresses: address })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn serve(path: &Path, listen: SocketAddr) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{} on {listen}: {error}", path.display()));
    runtime.block_on(crate::app::run(path, listen, |line| complain(&format!("{line}\n")))).map_err(named)
}

fn show(path: &Path, proxy: &Proxy) -> std::io::Result<()> {
    let folder = folder::read(path).map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let world = crate::app::world(&folder, |line| complain(&format!("{line}\n")));
    say(&weir_model::yaml::print(&translate(&world, proxy).bootstrap()));
    Ok(())
}
