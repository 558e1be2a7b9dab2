//! weir-proxy: moves bytes natively, decides in Proxy-Wasm filters.

pub mod admin;
pub mod http;
pub mod listener;
pub mod observe;
pub mod source;
pub mod tls;
pub mod upstream;
