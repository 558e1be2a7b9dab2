//! A Proxy-Wasm host on wasmtime that knows no HTTP library and no proxy.

pub mod backoff;
mod cells;
pub mod error;
pub mod metrics;
pub mod module;
pub mod rate;
pub mod shared;
pub mod stats;
mod sync;
pub mod time;
