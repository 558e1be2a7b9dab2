//! Proxy-Wasm filters in the proxy: what a worker and a request offer them.
//!
//! The ABI, instances and chains are `weir_wasm`'s. Here is what only a proxy knows: how callouts reach clusters (`host`, `callout`), what a
//! request is (`stream`), which actions a filter defined ([`routes`]), what its attributes are (`attributes`), and how a chain of the configuration becomes one that runs ([`chain`]).

mod attributes;
mod callout;
pub mod chain;
mod host;
pub mod routes;
mod stream;

pub use host::WorkerHost;
pub use stream::RequestHost;
pub(crate) use stream::wall_nanos;
