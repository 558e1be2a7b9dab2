//! Lines for access logs, which the proxy writes to files for a filter.
//!
//! An extension of Weir's: the binding names the logs that it allows (`accessLogs`). What always holds: a line is handed over without waiting; one that the
//! disk does not keep up with is dropped, and counted by the proxy; whatever bytes are in it, it stays one line.

use std::cell::RefCell;

use crate::abi::{self, Status};
use crate::{Refusal, Stream};

thread_local! {
    static LINE: RefCell<(String, Vec<u8>)> = const { RefCell::new((String::new(), Vec::new())) };
}

/// An access log: a file, standard output or standard error of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessLog(u32);

impl AccessLog {
    /// Opens one, at configuration: a path, `stdout` or `stderr`.
    ///
    /// # Errors
    /// When the binding does not allow it, or this host writes no access logs for filters.
    pub fn open(path: &str) -> Result<Self, Refusal> {
        match abi::foreign("weir.access_log.open", path.as_bytes()) {
            Ok(number) => number.try_into().map(|number| Self(u32::from_le_bytes(number))).map_err(|_| Refusal::from(Status::Other(0))),
            Err(Status::NotFound | Status::Unimplemented) => {
                Err(Refusal::new("this host writes no access logs for filters (`weir.access_log.open`)"))
            }
            Err(Status::BadArgument) => Err(Refusal::new(format!("the binding does not allow {path:?}; name it in `accessLogs`"))),
            Err(other) => Err(other.into()),
        }
    }

    /// Writes a line about a stream: what `render` appends, without the line's end.
    ///
    /// # Errors
    /// When the host does not take it.
    pub fn write<S>(self, _about: &Stream<'_, S>, render: impl FnOnce(&mut String)) -> Result<(), Status> {
        LINE.with_borrow_mut(|(text, line)| {
            text.clear();
            render(text);
            line.clear();
            line.extend_from_slice(&self.0.to_le_bytes());
            line.extend_from_slice(text.as_bytes());
            abi::foreign("weir.access_log.write", line).map(|_| ())
        })
    }

    /// Leaves a stream out on purpose, so that the proxy's own access log does not step in.
    ///
    /// # Errors
    /// When the host does not know this log.
    pub fn leave_out<S>(self, about: &Stream<'_, S>) -> Result<(), Status> {
        self.write(about, |_| {})
    }
}
