//! weir-proxy: moves bytes natively, decides in Proxy-Wasm filters.

pub mod http;
pub mod listener;
pub mod tls;
pub mod upstream;
