//! Finding a toolchain that compiles for wasm32.
//!
//! Looked at in this order: the active `rustc` (rustup's or a distribution's), then `/usr/bin/rustc`. Of each, a
//! prebuilt standard library for the target wins; otherwise the standard library's own source is compiled along,
//! which Debian's `rustc-web`, `cargo-web`, `rust-web-src` and `lld` make possible where rustup reaches no server.
//!
//! Compilers are taken by their own path below their sysroot, never through rustup's proxies, so that neither the
//! current directory nor a variable changes which one runs between detecting and building.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::scrub;
use crate::{Error, TARGET};

/// Raised whenever this crate changes what it asks of the compiler, so that what callers keep is built anew.
const RECIPE: u32 = 2;

/// Where the target's standard library comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Std {
    /// It came with the toolchain.
    Prebuilt,
    /// It is compiled from the toolchain's own source, once for each target directory.
    FromSource,
}

/// A Rust toolchain that compiles for wasm32.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) sysroot: PathBuf,
    pub(crate) commit: String,
    std: Std,
    version: String,
}

impl Toolchain {
    /// Finds the toolchain to use on this machine.
    ///
    /// # Errors
    /// [`Error::NoToolchain`], which says what was looked at, what each lacked, and the one command to run.
    pub fn detect() -> Result<Self, Error> {
        let mut tried = Vec::new();
        for rustc in ["rustc", "/usr/bin/rustc"] {
            match Self::at(Path::new(rustc)) {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{rustc}: {why}")),
            }
        }
        Err(Error::NoToolchain { tried })
    }

    /// Makes a toolchain of the given compiler, preferring a prebuilt standard library.
    ///
    /// # Errors
    /// Says in words what this compiler lacks.
    pub fn at(rustc: &Path) -> Result<Self, String> {
        let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?);
        // Prefer the compiler itself to rustup's proxy of the same name; a wrapper script has none below its sysroot.
        let rustc = Some(sysroot.join("bin/rustc")).filter(|p| p.is_file()).unwrap_or_else(|| rustc.to_owned());
        let cargo =
            Some(sysroot.join("bin/cargo")).filter(|p| p.is_file()).ok_or_else(|| format!("{} has no bin/cargo", sysroot.display()))?;
        let (version, commit) = version(&ask(&rustc, &["-vV"])?)?;
        let libraries = ask(&rustc, &["--print", "target-libdir", "--target", TARGET])?;
        let std = if has_core(Path::new(&libraries)) {
            Std::Prebuilt
        } else {
            has_source(&sysroot).map_err(|why| format!("no {TARGET} library in {libraries}, and {why}"))?;
            Std::FromSource
        };
        Ok(Self { cargo, rustc, sysroot, commit, std, version })
    }

    /// Where this toolchain's standard library comes from.
    #[must_use]
    pub fn std(&self) -> Std {
        self.std
    }

    /// A short text that differs whenever this toolchain could compile the same source to other bytes: a cache key.
    #[must_use]
    pub fn id(&self) -> String {
        let std = match self.std {
            Std::Prebuilt => "prebuilt std",
            Std::FromSource => "std from source",
        };
        format!("{} ({}), {std}, recipe {RECIPE}", self.version, self.commit)
    }

    /// The directory the standard library's source would lie in.
    pub(crate) fn source(&self) -> PathBuf {
        source(&self.sysroot)
    }
}

fn source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust")
}

/// Whether a directory of target libraries has the one that every crate needs.
fn has_core(libraries: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(libraries) else {
        return false;
    };
    entries.flatten().any(|e| {
        let name = e.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// Whether the standard library could be compiled from source.
fn has_source(sysroot: &Path) -> Result<(), String> {
    let manifest = source(sysroot).join("library/std/Cargo.toml");
    if !manifest.is_file() {
        return Err(format!("no {} to compile one from", manifest.display()));
    }
    if !on_path("wasm-ld") {
        return Err("no wasm-ld to link one compiled from source".to_owned());
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The first line a compiler answers with; several lines for `-vV`.
fn ask(rustc: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(rustc);
    scrub(&mut command);
    // The one variable that says which toolchain is meant when `rustc` is rustup's proxy.
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    let answer = command.args(arguments).output().map_err(|e| e.to_string())?;
    let text = if answer.status.success() { &answer.stdout } else { &answer.stderr };
    let text = String::from_utf8_lossy(text).trim().to_owned();
    if answer.status.success() { Ok(text) } else { Err(text) }
}

/// Release and commit out of `rustc -vV`.
fn version(text: &str) -> Result<(String, String), String> {
    let first = text.lines().next().unwrap_or_default();
    let release = first.split(" (").next().unwrap_or_default();
    let commit = text
        .lines()
        .find_map(|l| l.strip_prefix("commit-hash: "))
        // Distributions that build without git say "unknown"; the release then has to do.
        .map(|c| {
            if c == "unknown" {
                release.trim_start_matches("rustc ")
            } else {
                c
            }
        });
    match commit {
        Some(commit) if release.starts_with("rustc ") => Ok((release.to_owned(), commit.to_owned())),
        _ => Err(format!("cannot read its version from {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn versions_are_read_with_and_without_a_commit() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616ec\nhost: x";
        assert_eq!(version(text), Ok(("rustc 1.95.0".to_owned(), "59807616ec".to_owned())));
        let text = "rustc 1.85.0 (built from a source tarball)\ncommit-hash: unknown";
        assert_eq!(version(text), Ok(("rustc 1.85.0".to_owned(), "1.85.0".to_owned())));
        assert!(version("hello").is_err());
        assert!(version("").is_err());
    }

    #[test]
    fn a_compiler_that_is_not_there_is_an_answer_in_words() {
        let why = Toolchain::at(Path::new("/nonexistent/rustc")).unwrap_err();
        assert!(why.contains("No such file"), "{why}");
    }

    #[test]
    fn a_machine_without_toolchain_is_told_the_one_command() {
        let error = Error::NoToolchain { tried: vec!["rustc: no target".to_owned()] };
        let text = error.to_string();
        assert!(text.contains("run `make setup`") && text.contains("rustc: no target"), "{text}");
    }

    #[test]
    fn an_empty_sysroot_has_neither_library_nor_source() {
        let empty = std::env::temp_dir().join("weir-wasm32-no-such-sysroot");
        assert!(!has_core(&empty));
        assert!(has_source(&empty).unwrap_err().contains("library/std/Cargo.toml"));
    }
}
