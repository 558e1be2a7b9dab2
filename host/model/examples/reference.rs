//! Prints the reference of the configuration: `cargo run -p weir-model --example reference > manifests/reference.md`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(weir_model::docs::reference().as_bytes())
}
