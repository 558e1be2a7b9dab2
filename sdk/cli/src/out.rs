//! Where words go: data to standard output, the rest to standard error, colour to terminals.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value, for programs.
    Json,
}

/// How a piece of text is painted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
        }
    }
}

/// Whether colour is welcome there.
fn colored(is_terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    is_terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

fn painted(color: bool, paint: Paint, text: &str) -> String {
    if color { format!("\x1b[{}m{text}\x1b[0m", paint.code()) } else { text.to_owned() }
}

/// The output of one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    format: Format,
    color: bool,
    color_of_errors: bool,
    /// Somebody looks at standard error while it happens.
    progress: bool,
}

impl Out {
    pub(crate) fn new(format: Format) -> Self {
        let errors = std::io::stderr().is_terminal();
        Self { format, color: colored(std::io::stdout().is_terminal()), color_of_errors: colored(errors), progress: errors }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// For data.
    pub(crate) fn paint(&self, paint: Paint, text: &str) -> String {
        painted(self.color && !self.is_json(), paint, text)
    }

    /// Data as it is.
    pub(crate) fn data(&self, text: &str) {
        // A closed pipe is no reason to complain.
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// A JSON value on standard output.
    pub(crate) fn json(&self, value: &Value) {
        self.data(&format!("{value:#}\n"));
    }

    /// Data, in the form that was asked for.
    pub(crate) fn value(&self, value: &Value, text: impl FnOnce(&Self) -> String) {
        match self.format {
            Format::Json => self.json(value),
            Format::Text => self.data(&text(self)),
        }
    }

    /// What happens, for who waits: only where somebody looks.
    pub(crate) fn progress(&self, text: &str) {
        if self.progress {
            self.note(&painted(self.color_of_errors, Paint::Dim, text));
        }
    }

    /// What is good to know beside the data.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    pub(crate) fn complain(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{}: {text}", painted(self.color_of_errors, Paint::Red, "error"));
    }
}
