//! weir-proxy: moves bytes natively, decides in Proxy-Wasm filters.

pub mod admin;
pub mod app;
pub mod cli;
pub mod control;
pub mod filter;
pub mod http;
pub mod listener;
pub mod observe;
pub mod operator;
pub mod overload;
pub mod route;
pub mod snapshot;
pub mod source;
pub mod succession;
pub mod tcp;
pub mod timer;
pub mod tls;
pub mod upstream;
mod wire;
pub mod worker;
