//! The ABI, call by call and callback by callback, from guests written for each test.
//!
//! `table` runs the rows of `rows`: every host function with good and bad arguments, in and out of its phase. The other modules tell what no row
//! can: orders, pauses, ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(unreachable_pub, reason = "modules of one test")]

mod bodies;
mod callouts;
mod contexts;
mod grpc;
mod guest;
mod loading;
mod order;
mod queues;
mod retire;
mod rows;
mod story;
mod table;
mod tcp;
