//! Prints the page of what is told about objects: `cargo run -p weir-controller --example diagnostics > manifests/diagnostics.md`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(weir_controller::docs::diagnostics().as_bytes())
}
