//! Why an instance ended, in words for its author.
//!
//! The cause is classified once, from what wasmtime reports and from what the host saw in the same callback. The backtrace has function names
//! where the module kept its name section, and lines where it has DWARF. Nothing here decides what happens next.

use std::fmt;
use std::sync::Arc;

use wasmtime::{Trap as WasmTrap, WasmBacktrace};

use crate::binding::Binding;
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
    if state.limiter.refused > 0 {
        let cause = format!("memory: growth past {} bytes was refused (limits.memory), then: {}", limits.memory, last_words(error));
        return (TrapKind::MemoryLimit, cause);
    }
    match error.downcast_ref::<WasmTrap>() {
        Some(WasmTrap::Interrupt) => {
            let deadline = if state.roots.is_empty() { limits.start_deadline } else { limits.callback_deadline };
            (TrapKind::DeadlineExceeded, format!("it ran for longer than {deadline:?}"))
        }
        Some(WasmTrap::StackOverflow) => (TrapKind::StackOverflow, "its call stack is exhausted: endless recursion?".into()),
        Some(WasmTrap::MemoryOutOfBounds) => (TrapKind::OutOfBounds, "it accessed memory out of bounds".into()),
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
            let name = symbol.name().or(frame.func_name()).unwrap_or("?");
            lines.push(match (symbol.file(), symbol.line()) {
                (Some(file), Some(line)) => format!("{name} ({file}:{line})"),
                _ => name.to_owned(),
            });
        }
        if !found {
            let index = frame.func_index();
            lines.push(frame.func_name().map_or_else(|| format!("function {index}"), str::to_owned));
        }
    }
    lines
}

impl std::error::Error for Trap {}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter {} ({}) ended in {}: {}", self.binding, self.module, self.callback.name(), self.cause)?;
        for line in &self.backtrace {
            write!(f, "\n    at {line}")?;
        }
        Ok(())
    }
}
