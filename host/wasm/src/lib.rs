//! A Proxy-Wasm host on wasmtime that knows no HTTP library and no proxy.

pub mod error;
pub mod module;
