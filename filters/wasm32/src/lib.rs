//! Compiles a Rust crate for `wasm32-unknown-unknown` with whichever toolchain this machine has.
//!
//! The standard filters' build script, the guests of the tests and `weir filter build` all come here, so that a
//! filter is compiled one way only.
//!
//! What always holds:
//! * The same source, `Cargo.lock` and toolchain give the same bytes wherever the clone, the target directory and
//!   `CARGO_HOME` lie: every path that could leak into the module is remapped and code generation is not split.
//! * Modules carry a name section, so that a guest's backtrace has function names.
//! * It may run inside a build script: nothing the outer cargo left in the environment reaches the inner one, and
//!   the inner one has a target directory of its own, so that the two never wait for each other's lock.
//! * Crates that are already fetched need no network.
//!
//! It deliberately installs nothing (`make setup` does) and post-processes nothing (no `wasm-opt`).
//!
//! ```no_run
//! # fn main() -> Result<(), weir_wasm32::Error> {
//! use weir_wasm32::{Build, Toolchain};
//!
//! let toolchain = Toolchain::detect()?;
//! let built = toolchain.build(&Build::new("filters/cors/Cargo.toml", "target/wasm"))?;
//! println!("{} is ready", built.wasm.display());
//! # Ok(())
//! # }
//! ```

mod build;
mod environment;
mod error;
mod toolchain;

pub use build::{Build, Built, Profile};
pub use error::Error;
pub use toolchain::{Std, Toolchain};

/// The target every module is compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";
