//! The `weir-controller` binary: arguments, then [`weir_controller::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_controller::cli::run(std::env::args_os())
}
