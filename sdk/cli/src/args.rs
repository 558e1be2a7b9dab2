//! The command line, and its help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::out::Format;

/// What the exit codes mean; part of every help.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  it is done, or so
  1  it could not be done, or is not so: the error says why
  2  the command line is not understood";

const EXAMPLES: &str = "\
Examples:
  weir filter new my-filter && cd my-filter && weir filter run
  weir run weir.yaml
  weir check weir.yaml --output json
  weir filter inspect oci://registry.example/filters/geo:1.2
  eval \"$(weir completions bash)\"

Exit codes:
  0  it is done, or so
  1  it could not be done, or is not so: the error says why
  2  the command line is not understood

NO_COLOR turns colour off. Data goes to standard output, everything else to standard error.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about = "Weir: a proxy that moves bytes natively and decides in WebAssembly", after_help = EXAMPLES)]
pub struct Arguments {
    /// How data is printed
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    pub output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, test, run, measure and ship filters
    #[command(after_help = FILTER_EXAMPLES)]
    Filter {
        #[command(subcommand)]
        command: FilterCommand,
    },
    /// Run a proxy
    Run(RunProxy),
    /// Say what is wrong with a configuration, and nothing else
    Check {
        /// A configuration file, or a folder of them
        path: PathBuf,
    },
    /// Print completions for a shell
    #[command(
        after_help = "Examples:\n  weir completions bash >~/.local/share/bash-completion/completions/weir\n  weir completions zsh >~/.zfunc/_weir"
    )]
    Completions {
        /// For which
        shell: clap_complete::Shell,
    },
    /// Print the versions of this command, its interface to filters, and the filters in it
    Version,
}

#[derive(Args, Debug)]
pub(crate) struct RunProxy {
    /// A configuration file, or a folder of them; followed while the proxy runs
    path: PathBuf,
    /// Replace the process that runs with the same PATH, and be replaced by the next; see `weir-proxy run --help`
    #[arg(long, value_name = "PATH")]
    handover: Option<PathBuf>,
    /// End when the process ends that started this one
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

impl RunProxy {
    /// The same for the proxy's own command line.
    pub(crate) fn of_the_proxy(self) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec!["weir".into(), "run".into(), "--config".into(), self.path.into()];
        if let Some(handover) = self.handover {
            line.extend(["--handover".into(), handover.into()]);
        }
        line
    }
}

const FILTER_EXAMPLES: &str = "\
From nothing to a registry:
  weir filter new my-filter            a project with a passing test
  weir filter test                     its tests, in the host that the proxy is built on
  weir filter run                      a proxy with it; saving a file rebuilds and swaps it
  weir filter bench                    what a request costs
  weir filter push oci://registry.example/filters/my-filter:1.0 --sign weir.key

A MODULE is a .wasm file (plain, gzipped or in a tar), builtin://NAME, or oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST].";

#[derive(Debug, Subcommand)]
pub(crate) enum FilterCommand {
    /// Lay down a new filter's project
    New(New),
    /// Compile the project's filter to build/NAME.wasm
    Build(Project),
    /// Run the project's tests, and tests/cases.json through the module
    Test(Project),
    /// Run a proxy with the project's filter, rebuilt and swapped on every save
    #[command(
        after_help = "Keys on a terminal: r sends the last request again, c shows what the filter costs, x clears the screen, q quits."
    )]
    Run(Run),
    /// Measure what a request through the filter costs
    Bench(Bench),
    /// Say what a module is, what it needs, and whether this host runs it
    Inspect(Inspect),
    /// Write the module as an OCI image layout, to be copied by other tools
    Package(Package),
    /// Send the module to a registry, in the CNCF's layout for Wasm
    Push(Push),
    /// Fetch a module from a registry, in any of the layouts cncf, oci, compat and docker
    Pull(Pull),
    /// Make a pair of keys to sign with, as cosign has them
    #[command(
        after_help = "The password is read from COSIGN_PASSWORD; without it the private key is encrypted with an empty one, as by cosign."
    )]
    Keygen(Keygen),
}

/// What a project is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// Rust, for HTTP
    Rust,
    /// Rust, for TCP connections
    RustTcp,
    /// Go 1.24 or newer, for HTTP
    Go,
    /// AssemblyScript, for HTTP
    Assemblyscript,
}

#[derive(Args, Debug)]
pub(crate) struct New {
    /// Its name: lower-case letters, digits and `-`
    pub(crate) name: String,
    /// What it is written in
    #[arg(short, long, default_value = "rust")]
    pub(crate) template: Template,
    /// Where to lay it down [default: a folder of its name]
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Option<PathBuf>,
    /// Where weir-sdk lies, for Rust [default: the checkout that this command was built from]
    #[arg(long, value_name = "DIR")]
    pub(crate) sdk: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Project {
    /// The project's folder
    #[arg(default_value = ".")]
    pub(crate) project: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The project's folder
    #[arg(default_value = ".")]
    pub(crate) project: PathBuf,
    /// Where requests go on to [default: a small server that says what it got]
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// Where the proxy listens; another port if this one is taken
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: std::net::SocketAddr,
    /// A proxy's configuration that has the filter in it; followed as well
    #[arg(long, value_name = "FILE", default_value = "sample.yaml")]
    pub(crate) sample: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// The project's folder, or a MODULE
    #[arg(default_value = ".")]
    pub(crate) module: String,
    /// The filter's configuration; @FILE reads it from a file
    #[arg(long, value_name = "TEXT")]
    pub(crate) config: Option<String>,
    /// The request's path
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// A request header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// The request's body
    #[arg(long, default_value = "")]
    pub(crate) body: String,
    /// How many requests
    #[arg(long, default_value = "20000")]
    pub(crate) requests: u32,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The MODULE
    pub(crate) module: String,
    /// Start it with this configuration too; @FILE reads it from a file
    #[arg(long, value_name = "TEXT")]
    pub(crate) config: Option<String>,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Args, Debug)]
pub(crate) struct Package {
    /// The project's folder, or a .wasm file
    #[arg(default_value = ".")]
    pub(crate) module: String,
    /// The folder to write [default: build/NAME.oci]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// What the layout calls it
    #[arg(long, default_value = "latest")]
    pub(crate) tag: String,
}

#[derive(Args, Debug)]
pub(crate) struct Push {
    /// Where to: oci://REGISTRY/REPOSITORY:TAG
    pub(crate) reference: String,
    /// The project's folder, or a .wasm file
    #[arg(default_value = ".")]
    pub(crate) module: String,
    /// Sign it with this private key; the password is in COSIGN_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub(crate) sign: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// From where: oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]
    pub(crate) reference: String,
    /// The file to write [default: the repository's last name, with .wasm]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Args, Debug)]
pub(crate) struct Keygen {
    /// Writes NAME.key and NAME.pub
    #[arg(default_value = "weir")]
    pub(crate) name: PathBuf,
}

/// How registries are spoken to.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registry")]
pub(crate) struct Registry {
    /// Use only what was signed with this public key
    #[arg(long, value_name = "FILE")]
    pub(crate) verify: Option<PathBuf>,
    /// Speak plain HTTP, and follow redirects to private addresses; registries on loopback need it not
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Trust these certificate authorities too (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
        assert!(super::EXAMPLES.contains(super::EXIT_CODES));
    }
}
