//! A Proxy-Wasm host on wasmtime that knows no HTTP library and no proxy.
//!
//! From bytes to answers: an [`Engine`] is made once; [`Binding::load`] (or a [`Loader`] on its own thread) turns a module and a configuration into
//! a [`Binding`] that has proven to work; [`Filter::start`] runs it on one worker; a [`Chain`] of filters is what a [`Stream`] passes. What the proxy
//! provides is behind two traits, [`Host`] and [`StreamHost`]. ABI 0.1.0, 0.2.0 and 0.2.1, HTTP and TCP.
//!
//! What always holds: no guest, module or configuration makes this crate panic or block; a guest is bounded in time, memory, output and everything
//! it leaves behind; one that fails takes down its own instance and nothing else. What may be read and changed when is one table, in
//! [`Stream`]'s module.
//!
//! What it deliberately does not do: sockets, HTTP, fetching modules, deciding what a filter is for. Component-model binaries and http-wasm modules
//! are recognised and refused.

mod abi;
mod backoff;
mod binding;
mod callout;
pub mod cells;
pub mod codec;
mod engine;
pub mod error;
mod filter;
mod host;
pub mod metrics;
pub mod module;
mod properties;
mod rate;
pub mod shared;
pub mod stats;
mod stream;
mod sync;
mod time;
mod vm;

pub use binding::{
    Binding, BindingConfig, BodyAccess, CanaryHost, FailurePolicy, HeaderPause, Kind, Limits, LoadRequest, Loader, Routing, Upstreams,
    Variant,
};
pub use callout::{HttpReply, Reply};
pub use codec::Path;
pub use engine::{Engine, EngineError, EngineOptions};
pub use error::LoadError;
pub use filter::Filter;
pub use host::{
    Attribute, CallId, CalloutError, Foreign, GrpcCall, Headers, Host, HttpCall, Level, LocalReply, LogLine, MessageMap, PerRoute,
    SharedHost, Side, StreamHost,
};
pub use module::Module;
pub use stream::{Chain, Close, Output, Stream};
pub use time::Nanos;
pub use vm::{StartError, Trap};
