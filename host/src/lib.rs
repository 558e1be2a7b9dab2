//! weir-proxy: moves bytes natively, decides in Proxy-Wasm filters.

pub mod admin;
pub mod http;
pub mod observe;
pub mod source;
pub mod upstream;
