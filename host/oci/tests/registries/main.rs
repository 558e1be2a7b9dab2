//! Registries, true and lying: Debian's own, and servers that say what a test wants. All on loopback, all ports given by the system.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod lies;
mod server;
mod signatures;
mod true_registry;
