//! The `weir-proxy` binary.
fn main() {}
