//! Compiles the crate under test for wasm32, so that `cargo test` alone tests the module that will be shipped.
//!
//! What always holds: a crate is compiled once a process, in a target directory of its own beside the tests' (two cargos that shared one would wait for each
//! other); nothing is compiled again when nothing changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use weir_wasm32::{Build, Toolchain};

/// The module of the crate in this folder.
#[expect(clippy::panic, reason = "a test cannot go on without the filter, and every test would say the same")]
pub(crate) fn module(folder: &str) -> Arc<[u8]> {
    static MODULES: Mutex<BTreeMap<String, Arc<[u8]>>> = Mutex::new(BTreeMap::new());
    // Held while it compiles: the other tests of the process want the same.
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = modules.get(folder) {
        return Arc::clone(module);
    }
    let manifest = Path::new(folder).join("Cargo.toml");
    let target = target().unwrap_or_else(|| Path::new(folder).join("target"));
    let built = Toolchain::detect().and_then(|toolchain| toolchain.build(&Build::new(manifest, target.join("wasm32-filters"))));
    let module = built.map_err(|error| error.to_string()).and_then(|built| std::fs::read(built.wasm).map_err(|error| error.to_string()));
    match module {
        Ok(module) => {
            let module: Arc<[u8]> = module.into();
            modules.insert(folder.to_owned(), Arc::clone(&module));
            module
        }
        Err(error) => panic!("the filter in {folder} does not compile for wasm32:\n{error}"),
    }
}

/// The target directory that the test itself was compiled into, which all crates of a workspace share.
pub(crate) fn target() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    // TARGET/PROFILE/deps/TEST
    test.ancestors().nth(3).filter(|target| target.join("CACHEDIR.TAG").is_file()).map(Path::to_owned)
}
