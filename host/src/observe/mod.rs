//! What operators see of the data path: counters, access logs, the process's own log.
//!
//! What always holds: a worker counts and logs without a lock and without waiting; whoever reads does not disturb it; everything is bounded, and what
//! did not fit is counted.

pub mod access_log;
pub mod log;
pub mod metrics;
