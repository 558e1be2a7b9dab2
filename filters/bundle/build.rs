//! Compiles the standard filters for wasm32 and writes the table that `src/lib.rs` includes.
//!
//! Always: runs again only when a file that went into a filter changed, so a build with nothing changed costs nothing;
//! a filter that does not compile fails the build with what its compiler said.
//!
//! Deliberately not here: how a crate is compiled for wasm32, which is `weir-wasm32`'s.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use weir_wasm32::{Build, Toolchain};

/// The standard filters: each the folder under `filters/` and the name in `builtin://NAME`.
const FILTERS: [&str; 9] = ["authz", "compress", "cors", "deny", "fault", "headers", "jwt", "router", "telemetry"];

fn main() {
    if let Err(error) = run() {
        // One directive a line, so a compiler's message of many lines arrives whole.
        error.to_string().lines().for_each(|line| println!("cargo::error={line}"));
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let filters = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let toolchain = Toolchain::detect()?;
    rerun_if_changed(Path::new("build.rs"));

    let mut table = format!("static BUILTINS: [Builtin; {}] = [\n", FILTERS.len());
    for name in FILTERS {
        let manifest = filters.join(name).join("Cargo.toml");
        let built = toolchain
            .build(&Build::new(manifest, inner_target(&out_dir)).out_dir(&out_dir).locked())
            .map_err(|error| format!("the filter {name:?}: {error}"))?;
        built.inputs.iter().for_each(|input| rerun_if_changed(input));
        let digest = digest(&fs::read(&built.wasm)?);
        let file = &built.wasm;
        writeln!(table, "    Builtin {{ name: {name:?}, bytes: include_bytes!({file:?}), digest: {digest:?} }},")?;
    }
    table.push_str("];\n");
    fs::write(out_dir.join("builtins.rs"), table)?;
    Ok(())
}

/// One inner target directory beside the profiles of the outer one, so that debug and release share its work.
fn inner_target(out_dir: &Path) -> PathBuf {
    // OUT_DIR is TARGET/PROFILE/build/PACKAGE/out.
    out_dir.ancestors().nth(4).unwrap_or(out_dir).join("wasm32-filters")
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}
