//! Every host function: the first row of each is its good call.

mod beyond;
mod message;
mod runtime;
mod system;

pub use runtime::is_stub;
pub use system::encodings;

use crate::table::Row;

pub fn all() -> Vec<Row> {
    [system::rows(), message::maps(), message::buffers(), message::streams(), beyond::callouts(), beyond::shared(), beyond::metrics()]
        .into_iter()
        .chain([system::properties(), system::foreign(), runtime::wasi(), runtime::helpers()])
        .flatten()
        .collect()
}

/// Callbacks by the names that rows use.
pub const ON_REQUEST: &str = "request_headers";
pub const ON_REQUEST_BODY: &str = "request_body";
pub const ON_REQUEST_TRAILERS: &str = "request_trailers";
pub const ON_RESPONSE: &str = "response_headers";
pub const ON_RESPONSE_BODY: &str = "response_body";
pub const ON_RESPONSE_TRAILERS: &str = "response_trailers";
pub const ON_CONFIGURE: &str = "configure";
pub const ON_TICK: &str = "tick";
pub const ON_LOG: &str = "log";
pub const ON_DONE: &str = "done";
