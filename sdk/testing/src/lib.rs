//! Runs a Proxy-Wasm filter in the production host, against a message, a clock and peers that a test controls.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let wasm = std::fs::read("target/wasm32-unknown-unknown/release/my_filter.wasm")?;
//! let worker = weir_sdk_testing::Tester::new(&wasm).configuration(r#"{"deny": "/admin"}"#).start()?;
//! let exchange = worker.get("/admin").run();
//! assert_eq!(exchange.status(), 403);
//! # Ok(())
//! # }
//! ```
//!
//! What always holds: the filter runs in the same engine, under the same limits, as in the proxy; nothing depends on the machine's clock, network
//! or randomness. [`MemoryHost`] and [`MemoryStream`] are a complete implementation of the traits a proxy implements; [`Tester`], [`Worker`] and
//! [`Exchange`] are the short way to use them. What it does not do: it speaks no protocol, and the upstream is what the test says it is.

mod budget;
mod build;
mod exchange;
mod host;
mod native;
mod stream;
mod tcp;
mod tester;

pub use budget::Budget;
pub use exchange::{Chunking, Exchange, RequestBuilder};
pub use host::{Callout, LoggedLine, MemoryHost};
pub use stream::{MemoryStream, Value};
pub use tcp::Connection;
pub use tester::{TestError, Tester, Worker};
pub use weir_wasm as host_api;
