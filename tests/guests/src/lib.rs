//! Builds and hands out the guests that tests and benchmarks run: filters on SDKs that other people wrote, all doing
//! what this directory's README lists, and the four benchmark filters.
//!
//! What always holds:
//! * A guest is built once for each state of its sources and its toolchain, and kept below cargo's target directory;
//!   processes that want the same one wait for each other.
//! * Nothing is written into the source tree.
//! * The path stays good while the process lives.
//!
//! It deliberately does not run guests, and does not install toolchains: `make setup` does.
//!
//! # Panics
//! Every function that hands out a guest panics when it cannot be built, with the whole reason: a test has no use for
//! half a guest.

mod cache;
mod recipes;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Which code a benchmark filter is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On the unmodified `proxy-wasm` crate.
    Stock,
    /// Against the bare ABI: no SDK, no allocation for a request, only the callbacks it needs.
    Lean,
}

/// A benchmark filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Five deny rules over method, path prefix and header.
    Policy,
    /// A fault check: a header that forces it, and a percentage.
    Fault,
    /// A route choice among five rules, written to the property `cluster`.
    Router,
    /// Three counters, a histogram and two readings of the clock.
    Telemetry,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Stock, Self::Lean];
}

impl Filter {
    /// The four filters, in the order of the benchmark's chain.
    pub const ALL: [Self; 4] = [Self::Policy, Self::Fault, Self::Router, Self::Telemetry];

    /// The configuration text the benchmark gives this filter.
    #[must_use]
    pub const fn config(self) -> &'static str {
        match self {
            Self::Policy => POLICY_CONFIG,
            Self::Fault => FAULT_CONFIG,
            Self::Router => ROUTER_CONFIG,
            Self::Telemetry => TELEMETRY_CONFIG,
        }
    }

    pub(crate) const fn feature(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Fault => "fault",
            Self::Router => "router",
            Self::Telemetry => "telemetry",
        }
    }
}

/// Five deny rules: `deny METHOD PATH-PREFIX HEADER VALUE`.
pub const POLICY_CONFIG: &str = "\
deny * /admin - -
deny * /internal - -
deny DELETE / x-role -
deny PUT /api/ x-role guest
deny POST /api/ x-role guest
";

/// One request in a hundred thousand is aborted: `abort PERCENT STATUS`.
pub const FAULT_CONFIG: &str = "abort 0.001 503\n";

/// Five rules, the first that matches wins: `PATH-PREFIX HEADER VALUE CLUSTER`.
pub const ROUTER_CONFIG: &str = "\
/api/ x-version v2 up2
/api/ x-version canary up2
/static/ - - up
/api/ - - up
/ - - up
";

/// Telemetry takes no configuration.
pub const TELEMETRY_CONFIG: &str = "";

/// The contract on the `proxy-wasm` crate, from crates.io.
#[must_use]
pub fn rust_sdk() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    hand_out(&GUEST, "rust-sdk", recipes::rust_sdk)
}

/// The same with the DWARF that gives backtraces their lines.
#[must_use]
pub fn rust_sdk_with_lines() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    hand_out(&GUEST, "rust-sdk-with-lines", recipes::rust_sdk_with_lines)
}

/// The contract on the Go SDK, compiled by Go itself.
#[must_use]
pub fn go_sdk() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    hand_out(&GUEST, "go-sdk", recipes::go_sdk)
}

/// The contract on the AssemblyScript SDK, from npm.
#[must_use]
pub fn assemblyscript() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    hand_out(&GUEST, "assemblyscript", recipes::assemblyscript)
}

/// A benchmark filter; [`Filter::config`] has the text to configure it with.
#[must_use]
pub fn bench(kind: Kind, filter: Filter) -> &'static Path {
    static GUESTS: [[OnceLock<PathBuf>; 4]; 2] = [const { [const { OnceLock::new() }; 4] }; 2];
    let name = format!("bench-{}-{}", if kind == Kind::Stock { "stock" } else { "lean" }, filter.feature());
    hand_out(&GUESTS[kind as usize][filter as usize], &name, || recipes::bench(kind, filter))
}

#[allow(clippy::panic, reason = "a test that cannot have its guest should stop and say why")]
fn hand_out(guest: &'static OnceLock<PathBuf>, name: &str, build: impl FnOnce() -> Result<PathBuf, String>) -> &'static Path {
    guest.get_or_init(|| build().unwrap_or_else(|why| panic!("the guest {name} cannot be built: {why}")))
}
