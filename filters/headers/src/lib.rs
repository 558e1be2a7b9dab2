//! The `headers` filter: adds, sets and removes request and response headers.
//!
//! What it does to a message is decided in [`rules`], which is plain data and knows no host; `plugin`
//! carries the decision out through the Proxy-Wasm ABI and exists only in a wasm32 build.
//!
//! Always: a configuration with any mistake in it is refused whole, so a filter that runs does everything
//! it was told to. Per message: removals first, then sets, then additions, each in the order written.
//!
//! Deliberately not here: conditions, and values computed from the message. A filter that needs them is
//! another filter.

#[cfg(target_arch = "wasm32")]
mod plugin;
pub mod rules;
