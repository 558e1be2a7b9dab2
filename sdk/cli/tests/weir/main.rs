//! The `weir` command as a user has it: its binary, its files, its exit codes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]
#![allow(clippy::explicit_write, reason = "what is left out is said past the capture of passing tests")]

mod command;
mod guide;
mod help;
mod inspect;
mod projects;
mod registry;
mod run;
