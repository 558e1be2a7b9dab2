//! Why an instance ended, in words for its author.
//!
//! The cause is classified once, from what wasmtime reports and from what the host saw in the same callback. The backtrace has function names
//! where the module kept its name section, and lines where it has DWARF. Nothing here decides what happens next.

use std::fmt;
use std::sync::Arc;

use wasmtime::{Trap as WasmTrap, WasmBacktrace};

use crate::binding::Binding;
use crate::error::Bare;
use crate::stats::{Callback, TrapKind};
use crate::vm::state::State;

/// The end of an instance.
#[derive(Clone, Debug)]
pub struct Trap {
    /// The binding whose instance it was.
    pub binding: Arc<str>,
    /// The module's name and digest.
    pub module: String,
    /// The callback that was running.
    pub callback: Callback,
    /// What kind of end.
    pub kind: TrapKind,
    /// What happened, in one sentence.
    pub cause: String,
    /// Guest frames, innermost first: `function (file:line)`.
    pub backtrace: Vec<String>,
}

/// A guest handed the host something that no status it would survive can answer: a bad pointer, or too much output.
#[derive(Debug, thiserror::Error)]
#[error("{function}: {problem}")]
pub(crate) struct Fault {
    pub(crate) function: &'static str,
    pub(crate) problem: String,
}

/// `proxy_exit`: the guest asked to end.
#[derive(Debug, thiserror::Error)]
#[error("the guest called proc_exit({0})")]
pub(crate) struct Exit(pub(crate) i32);

impl Trap {
    #[cold]
    pub(crate) fn classify(binding: &Binding, error: &wasmtime::Error, state: &State) -> Self {
        let (kind, cause) = cause(error, state);
        Self {
            binding: binding.config().name.clone(),
            module: binding.module().describe(),
            callback: state.callback,
            kind,
            cause,
            backtrace: backtrace(error),
        }
    }
}

fn cause(error: &wasmtime::Error, state: &State) -> (TrapKind, String) {
    let limits = &state.config().limits;
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return (TrapKind::HostCall, fault.to_string());
    }
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return (TrapKind::Exit, exit.to_string());
    }
    // These are what they are, whether or not memory was refused before.
    match error.downcast_ref::<WasmTrap>() {
        Some(WasmTrap::Interrupt) => {
            let cause = if state.started {
                format!("it ran for longer than {:?} (limits.callback_deadline)", limits.callback_deadline)
            } else {
                match state.binding.start_patience() {
                    all if all == limits.start_deadline => format!("it ran for longer than {all:?} (limits.start_deadline)"),
                    less => format!("it ran for longer than {less:?}, which is several times what starting took when it was loaded"),
                }
            };
            return (TrapKind::DeadlineExceeded, cause);
        }
        Some(WasmTrap::StackOverflow) => return (TrapKind::StackOverflow, "its call stack is exhausted: endless recursion?".into()),
        _ => {}
    }
    if state.limiter.refused > 0 {
        let cause = format!("memory: growth past {} bytes was refused (limits.memory), then: {}", limits.memory, last_words(error));
        return (TrapKind::MemoryLimit, cause);
    }
    match error.downcast_ref::<WasmTrap>() {
        Some(WasmTrap::MemoryOutOfBounds) => (TrapKind::OutOfBounds, "it accessed memory out of bounds".into()),
        Some(WasmTrap::TableOutOfBounds) => (TrapKind::OutOfBounds, "it accessed a table out of bounds".into()),
        Some(WasmTrap::UnreachableCodeReached) => {
            (TrapKind::Unreachable, "it aborted (unreachable): usually a panic, whose message is in the log before this".into())
        }
        Some(other) => (TrapKind::Other, other.to_string()),
        None => (TrapKind::Other, last_words(error)),
    }
}

fn last_words(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    const MOST: usize = 32;
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let mut lines = Vec::new();
    for frame in backtrace.frames().iter().take(MOST) {
        let mut found = false;
        for symbol in frame.symbols() {
            found = true;
            let name = readable(symbol.name().or(frame.func_name()).unwrap_or("?"));
            lines.push(match (symbol.file(), symbol.line()) {
                (Some(file), Some(line)) => format!("{name} ({}:{line})", Bare(file)),
                _ => name,
            });
        }
        if !found {
            let index = frame.func_index();
            lines.push(frame.func_name().map_or_else(|| format!("function {index}"), readable));
        }
    }
    lines.truncate(MOST);
    lines
}

/// A function's name as its author wrote it, in Rust; cut and escaped, since a module may call its functions anything.
fn readable(name: &str) -> String {
    // No compiler's names are longer, and demangling takes its time.
    const LONGEST: usize = 4 << 10;
    match name.len() > LONGEST {
        true => Bare(name).to_string(),
        false => Bare(&format!("{:#}", rustc_demangle::demangle(name))).to_string(),
    }
}

impl std::error::Error for Trap {}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callback = match self.callback {
            Callback::Start => "its start function",
            other => other.name(),
        };
        write!(f, "filter {} ({}) ended in {callback}: {}", self.binding, self.module, self.cause)?;
        for line in &self.backtrace {
            write!(f, "\n    at {line}")?;
        }
        Ok(())
    }
}
