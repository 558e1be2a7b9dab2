//! Lines for the proxy's log: `info!("denied {}", name)`.
//!
//! What always holds: a line below the host's level is not even formatted.

use std::cell::RefCell;
use std::fmt::{Arguments, Write};

use crate::abi;

/// How severe a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Every step.
    Trace,
    /// For who writes the filter.
    Debug,
    /// For who runs it.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something did not work.
    Error,
    /// The filter cannot go on.
    Critical,
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Writes a line.
pub fn write(level: Level, message: Arguments<'_>) {
    if (level as u32) < abi::log_level() {
        return;
    }
    LINE.with_borrow_mut(|line| {
        line.clear();
        let _ = line.write_fmt(message);
        abi::log(level as u32, line.as_bytes());
    });
}

/// Logs a line of level `trace`, formatted as by `format!`.
#[macro_export]
macro_rules! trace {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Trace, format_args!($($argument)*)) };
}

/// Logs a line of level `debug`, formatted as by `format!`.
#[macro_export]
macro_rules! debug {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Debug, format_args!($($argument)*)) };
}

/// Logs a line of level `info`, formatted as by `format!`.
#[macro_export]
macro_rules! info {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($argument)*)) };
}

/// Logs a line of level `warn`, formatted as by `format!`.
#[macro_export]
macro_rules! warn {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Warn, format_args!($($argument)*)) };
}

/// Logs a line of level `error`, formatted as by `format!`.
#[macro_export]
macro_rules! error {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($argument)*)) };
}

/// Logs a line of level `critical`, formatted as by `format!`.
#[macro_export]
macro_rules! critical {
    ($($argument:tt)*) => { $crate::log::write($crate::log::Level::Critical, format_args!($($argument)*)) };
}
