//! The `weir-proxy` binary: arguments, then [`weir_proxy::app`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir_proxy::cli::run(std::env::args_os())
}
