//! Why a command failed: the cause, and the next step.

use std::fmt::Display;
use std::process::ExitCode;

use crate::out::Out;

/// A failure, as it is told.
#[derive(Debug)]
pub(crate) struct Failure {
    cause: String,
    help: String,
    /// Everything has been said.
    told: bool,
}

pub(crate) type Done<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(cause: impl Display) -> Self {
        Self { cause: cause.to_string(), help: String::new(), told: false }
    }

    /// With the next step.
    pub(crate) fn help(mut self, help: impl Display) -> Self {
        self.help = help.to_string();
        self
    }

    /// What failed has been printed as data: only the exit code is missing.
    pub(crate) fn told() -> Self {
        Self { cause: String::new(), help: String::new(), told: true }
    }

    /// As text, for those that go on after it.
    pub(crate) fn text(&self) -> String {
        if self.help.is_empty() { self.cause.clone() } else { format!("{}\n  help: {}", self.cause, self.help) }
    }

    pub(crate) fn tell(self, out: &Out) -> ExitCode {
        if !self.told {
            if out.is_json() {
                out.json(&serde_json::json!({"error": self.cause, "help": self.help}));
            }
            out.complain(&self.text());
        }
        ExitCode::FAILURE
    }
}

/// `file: cause`, for what the system says.
pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(format!("{path}: {error}"))
}

impl From<weir_oci::Error> for Failure {
    fn from(error: weir_oci::Error) -> Self {
        Self::new(&error).help(error.help())
    }
}

impl From<weir_wasm::LoadError> for Failure {
    fn from(error: weir_wasm::LoadError) -> Self {
        Self::new(&error).help(error.help())
    }
}
