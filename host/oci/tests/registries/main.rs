//! Registries, true and lying: Debian's own, and servers that say what a test wants. All on loopback, all ports given by the system.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]
#![allow(clippy::explicit_write, reason = "what is left out is said past the capture of passing tests")]

mod lies;
mod server;
mod signatures;
mod true_registry;
