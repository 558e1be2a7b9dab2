//! Applies the rules of `weir-tidy` to the tree it stands in.
//!
//! Always: every file that git tracks or would track is looked at, and each test prints all findings of its rule.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use weir_tidy::graph::Graph;
use weir_tidy::licences::Policy;
use weir_tidy::{File, Finding, arrows, commands, gaps, names, samples, source, unsafety};

/// The platforms that Weir is built for; without them `cargo metadata` would fetch what no build of ours needs.
const PLATFORMS: [&str; 3] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "wasm32-unknown-unknown"];

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    // A clone may belong to another user than the one who tests it.
    let arguments = "-c safe.directory=* ls-files -z --cached --others --exclude-standard".split(' ');
    let listed = output(Command::new("git").args(arguments));
    // A file that is deleted but not yet committed is still listed; one that is not text has no lines to check.
    let read = |path: &str| std::fs::read_to_string(root().join(path)).ok().map(|text| File::new(path, text));
    listed.split('\0').filter(|path| !path.is_empty()).filter_map(read).collect()
});

static GRAPH: LazyLock<Graph> = LazyLock::new(|| {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked"]);
    cargo.args(PLATFORMS.iter().flat_map(|platform| ["--filter-platform", *platform]));
    Graph::parse(&output(&mut cargo)).unwrap()
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn output(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn file(path: &str) -> &'static File {
    FILES.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is missing"))
}

#[track_caller]
fn none(findings: &[Finding]) {
    let listed: Vec<String> = findings.iter().map(|finding| format!("  {finding}\n")).collect();
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), listed.concat());
}

#[test]
fn the_tree_is_looked_at() {
    assert!(FILES.len() > 20 && FILES.iter().any(|file| file.path == "tests/tidy/tests/tree.rs"));
    assert!(GRAPH.members().any(|(_, package, folder)| package.name == "weir-wasm" && folder == "host/wasm"));
}

#[test]
fn files_stay_under_the_wall() {
    for finding in source::long(&FILES) {
        // Past the capture of passing tests: a signal nobody sees is none.
        writeln!(std::io::stderr(), "long: {finding}").unwrap();
    }
    none(&source::too_long(&FILES));
}

#[test]
fn modules_open_with_their_documentation() {
    none(&source::undocumented(&FILES));
}

#[test]
fn lints_are_switched_off_with_a_reason() {
    none(&source::unreasoned(&FILES));
}

#[test]
fn unsafe_stays_in_its_files() {
    none(&unsafety::check(&FILES, &file("tests/tidy/unsafe.txt").text));
}

#[test]
fn what_is_missing_is_in_the_changelog() {
    none(&gaps::check(&FILES, file("CHANGELOG.md")));
}

#[test]
fn no_host_and_no_machine_is_named() {
    none(&names::check(&FILES));
}

#[test]
fn samples_are_loaded_by_tests() {
    none(&samples::unloaded(&FILES));
}

#[test]
fn documents_name_commands_that_exist() {
    let documents: Vec<File> = FILES.iter().filter(|file| file.is("md")).cloned().collect();
    none(&commands::check(&documents, &file("Makefile").text, &GRAPH));
    none(&commands::silent(file("Makefile")));
}

#[test]
fn dependencies_follow_the_arrows() {
    none(&arrows::check(&GRAPH));
}

#[test]
fn dependencies_are_allowed() {
    none(&Policy::parse(&file("deny.toml").text).unwrap().check(&GRAPH));
}

#[test]
fn the_architecture_fits_a_sitting() {
    let lines = file("ARCHITECTURE.md").text.lines().count();
    assert!(lines < 150, "ARCHITECTURE.md has {lines} lines");
}
