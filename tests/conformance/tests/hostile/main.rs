//! Guests that mean harm: whatever they do, the process lives, the other bindings of the worker answer, the counter that should move moves, and
//! the log says what happened.
//!
//! [`world`] runs each of them beside a friendly filter on one worker. A guest may turn bad only at a certain hour, so that it passes the proof
//! that loading makes.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod allocator;
mod crash_loop;
mod floods;
mod headers;
mod isolation;
mod lies;
mod memory;
mod policy;
mod sloppy_host;
mod time;
mod traps;
mod world;
