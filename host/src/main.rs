//! The `weir-proxy` binary: arguments, then [`weir_proxy::app`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator's arenas would be backed by huge pages of which a fraction is used: 15 MiB and more for nothing. A kernel that
    // cannot turn that off costs memory only.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    weir_proxy::cli::run(std::env::args_os())
}
