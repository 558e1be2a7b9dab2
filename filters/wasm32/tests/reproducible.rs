//! Compiles the same crate in two places, each with its own target directory, and expects the same bytes; with every
//! kind of toolchain this machine has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use weir_wasm32::{Build, Profile, Toolchain};

const MANIFEST: &str = r#"
[package]
name = "tiny-guest"
version = "0.1.0"
edition = "2024"
[lib]
crate-type = ["cdylib"]
[features]
loud = []
[dependencies]
inner = { path = "inner" }
[workspace]
"#;

const INNER_MANIFEST: &str = "[package]\nname = \"inner\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";

/// Another crate of the workspace, with code of its own and code that is compiled where it is used: both name their places.
const INNER: &str = r#"
#[track_caller]
pub fn check<T: std::fmt::Debug>(value: T) -> String {
    format!("{value:?} {}", std::panic::Location::caller())
}

pub fn refuse(n: u32) {
    if n > 200 { panic!("far too many in {}: {n}", file!()); }
}
"#;

/// A panic with its location and a standard-library format call: both write paths into the module.
const SOURCE: &str = r#"
#[unsafe(no_mangle)]
pub extern "C" fn answer(n: u32) -> u32 {
    let items: Vec<String> = (0..n).map(|i| format!("{i:?}{}", file!())).collect();
    if n > 100 { panic!("too many: {n}"); }
    inner::refuse(n);
    if n == 7 { return inner::check(&items).len() as u32; }
    if cfg!(feature = "loud") { return 99; }
    items[n as usize - 1].len() as u32
}
"#;

/// A directory below the target directory, removed when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn clone_at(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir.join("src")).unwrap();
    fs::write(dir.join("Cargo.toml"), MANIFEST).unwrap();
    fs::write(dir.join("src/lib.rs"), SOURCE).unwrap();
    fs::create_dir_all(dir.join("inner/src")).unwrap();
    fs::write(dir.join("inner/Cargo.toml"), INNER_MANIFEST).unwrap();
    fs::write(dir.join("inner/src/lib.rs"), INNER).unwrap();
    dir.join("Cargo.toml")
}

fn digest(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|b| format!("{b:02x}")).collect()
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle.as_bytes())
}

/// Every toolchain of this machine, so that both ways are proven where both are there.
fn toolchains() -> Vec<Toolchain> {
    let mut found = vec![Toolchain::detect().unwrap()];
    if let Ok(other) = Toolchain::at(Path::new("/usr/bin/rustc"))
        && other.id() != found[0].id()
    {
        found.push(other);
    }
    found
}

#[test]
fn two_clones_give_the_same_bytes() {
    for toolchain in toolchains() {
        let scratch = Scratch::new("two clones");
        let first = clone_at(&scratch.0.join("a"));
        let second = clone_at(&scratch.0.join("elsewhere/quite deep/b"));
        let one = toolchain.build(&Build::new(first, scratch.0.join("target-a"))).unwrap();
        let two = toolchain.build(&Build::new(second, scratch.0.join("target of b"))).unwrap();
        assert_eq!(digest(&one.wasm), digest(&two.wasm), "{}", toolchain.id());

        let bytes = fs::read(&one.wasm).unwrap();
        assert!(contains(&bytes, "answer"), "the function's name is kept");
        let home = std::env::home_dir().unwrap();
        for private in [scratch.0.to_str().unwrap(), home.to_str().unwrap()] {
            assert!(!contains(&bytes, private), "{private} leaked into the module of {}", toolchain.id());
        }
        assert!(one.inputs.iter().any(|i| i.ends_with("src/lib.rs")), "{:?}", one.inputs);
    }
}

#[test]
fn features_and_profiles_change_the_module_and_keep_their_own_files() {
    let toolchain = Toolchain::detect().unwrap();
    let scratch = Scratch::new("features");
    let plain = Build::new(clone_at(&scratch.0), scratch.0.join("target"));
    let quiet = toolchain.build(&plain.clone().out_dir(scratch.0.join("quiet"))).unwrap().wasm;
    let loud = toolchain.build(&plain.clone().feature("loud").out_dir(scratch.0.join("loud"))).unwrap().wasm;
    let debug = plain.profile(Profile::Debug).out_dir(scratch.0.join("debug"));
    let debug = toolchain.build(&debug).unwrap().wasm;
    assert_ne!(digest(&quiet), digest(&loud));
    assert!(!contains(&fs::read(&quiet).unwrap(), ".debug_line"));
    assert!(contains(&fs::read(&debug).unwrap(), ".debug_line"));
}

#[test]
fn a_crate_that_does_not_compile_says_what_rustc_said() {
    let toolchain = Toolchain::detect().unwrap();
    let scratch = Scratch::new("broken");
    let manifest = clone_at(&scratch.0);
    fs::write(scratch.0.join("src/lib.rs"), "fn f() { missing() }").unwrap();
    let error = toolchain.build(&Build::new(manifest, scratch.0.join("target"))).unwrap_err().to_string();
    assert!(error.contains("cannot find function `missing`"), "{error}");
}

#[test]
fn a_plain_library_becomes_the_same_module() {
    let toolchain = Toolchain::detect().unwrap();
    let scratch = Scratch::new("rlib");
    let manifest = clone_at(&scratch.0);
    let build = Build::new(&manifest, scratch.0.join("target"));
    let cdylib = digest(&toolchain.build(&build).unwrap().wasm);
    fs::write(&manifest, MANIFEST.replace("\"cdylib\"", "\"cdylib\", \"rlib\"")).unwrap();
    let both = digest(&toolchain.build(&build).unwrap().wasm);
    assert_eq!(cdylib, both);
}
