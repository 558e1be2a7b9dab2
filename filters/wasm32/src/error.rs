//! What can go wrong while compiling a module, each with its cause and the next step.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why no module came out.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No toolchain on this machine compiles for wasm32.
    NoToolchain {
        /// What was looked at, and what each lacked.
        tried: Vec<String>,
    },
    /// A program could not be started.
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Cargo or rustc ran and refused.
    Failed {
        /// The command that failed.
        command: String,
        /// What it wrote to its standard error; empty when that was shown as it came.
        stderr: String,
    },
    /// Cargo said something this crate cannot read.
    Unreadable {
        /// The command whose answer it was.
        command: String,
        /// What was expected of it.
        expected: String,
    },
    /// A file or directory could not be read or written.
    File {
        /// What was being done, such as `create`.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToolchain { tried } => {
                write!(
                    f,
                    "no Rust toolchain here compiles for {}; run `make setup`",
                    crate::TARGET
                )?;
                tried.iter().try_for_each(|t| write!(f, "\n  {t}"))
            }
            Self::Start { program, cause } => write!(
                f,
                "cannot start {}: {cause}; run `make setup`",
                program.display()
            ),
            Self::Failed { command, stderr } => {
                write!(f, "{command} failed\n{}", stderr.trim_end())
            }
            Self::Unreadable { command, expected } => {
                write!(
                    f,
                    "{command} answered without {expected}; is this cargo much older than 1.85?"
                )
            }
            Self::File { doing, path, cause } => {
                write!(f, "cannot {doing} {}: {cause}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { cause, .. } | Self::File { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
