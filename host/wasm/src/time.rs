//! The one unit of time of the host: monotonic nanoseconds, always passed in, never read here.
//!
//! Code that takes `now` as a [`Nanos`] is pure: tests drive it with numbers, the proxy with its worker's clock.

/// Nanoseconds on a monotonic clock whose origin is the process's own choice; only differences mean anything.
pub type Nanos = u64;
