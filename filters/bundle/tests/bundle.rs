//! What is embedded is what the filters' source says, and every filter is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use weir_wasm32::{Build, Toolchain};

/// Folders of `filters/` that hold no filter.
const NOT_FILTERS: [&str; 4] = ["bundle", "cel", "matching", "wasm32"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[test]
fn every_filter_is_embedded_under_its_name() {
    let folders = fs::read_dir(root().join("filters")).unwrap().map(|entry| entry.unwrap());
    let crates = folders.filter(|entry| entry.path().join("Cargo.toml").is_file());
    let mut filters: BTreeSet<String> = crates.map(|entry| entry.file_name().into_string().unwrap()).collect();
    filters.retain(|name| !NOT_FILTERS.contains(&name.as_str()));
    let embedded: BTreeSet<String> = weir_filters::all().iter().map(|builtin| builtin.name.to_owned()).collect();
    assert_eq!(embedded, filters, "list the filter in filters/bundle/build.rs");
    for name in &filters {
        assert_eq!(weir_filters::builtin(name).unwrap().name, name);
    }
    assert_eq!(weir_filters::builtin("no-such-filter"), None);
}

#[test]
fn what_is_embedded_is_a_module_and_its_digest() {
    for builtin in weir_filters::all() {
        assert_eq!(builtin.bytes[..8], *b"\0asm\x01\0\0\0", "{}", builtin.name);
        assert_eq!(builtin.digest, digest(builtin.bytes), "{}", builtin.name);
    }
}

/// The embedded bytes were made from this folder; the same files elsewhere must give the same.
#[test]
fn another_folder_gives_the_same_digest() {
    let copy = std::env::temp_dir().join(format!("weir-bundle-{}", std::process::id()));
    copy_tree(&copy);
    let toolchain = Toolchain::detect().unwrap();
    for builtin in weir_filters::all() {
        let manifest = copy.join("filters").join(builtin.name).join("Cargo.toml");
        let built = toolchain.build(&Build::new(manifest, copy.join("target")).locked()).unwrap();
        assert_eq!(digest(&fs::read(built.wasm).unwrap()), builtin.digest, "{}", builtin.name);
    }
    fs::remove_dir_all(copy).unwrap();
}

/// Copies what git tracks or would track, which is what a clone has.
fn copy_tree(to: &Path) {
    // A clone may belong to another user than the one who tests it.
    let arguments = "-c safe.directory=* ls-files -z --cached --others --exclude-standard".split(' ');
    let output = Command::new("git").args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    for path in String::from_utf8(output.stdout).unwrap().split('\0').filter(|path| !path.is_empty()) {
        let (from, to) = (root().join(path), to.join(path));
        // Deleted but not yet committed.
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
    }
}
