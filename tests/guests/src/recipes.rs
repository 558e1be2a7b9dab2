//! How each guest is built, and with what.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_wasm32::{Build, Profile, Toolchain};

use crate::cache::{kept, list};
use crate::{Filter, Kind};

pub(crate) fn rust_sdk() -> Result<PathBuf, String> {
    rust("rust-sdk", "rust-sdk", "", None, Profile::Release)
}

pub(crate) fn rust_sdk_with_lines() -> Result<PathBuf, String> {
    rust("rust-sdk-with-lines", "rust-sdk", "", None, Profile::Debug)
}

pub(crate) fn bench(kind: Kind, filter: Filter) -> Result<PathBuf, String> {
    let member = match kind {
        Kind::Stock => "stock",
        Kind::Lean => "lean",
    };
    let feature = filter.feature();
    rust(&format!("bench-{member}-{feature}"), "bench", member, Some(feature), Profile::Release)
}

/// Builds a member of a cargo workspace, or the crate that is its own.
fn rust(name: &str, workspace: &str, member: &str, feature: Option<&str>, profile: Profile) -> Result<PathBuf, String> {
    let toolchain = Toolchain::detect().map_err(|e| e.to_string())?;
    let sources = source(workspace);
    kept(name, &sources, &[&toolchain.id(), member, feature.unwrap_or_default()], |work, out| {
        // A target directory for each workspace: its guests share what they depend on, which with a standard library
        // from source is most of the time, and another workspace's flags would make cargo compile that anew.
        let target = work.with_file_name(format!("target-{workspace}"));
        let mut build = Build::new(sources.join(member).join("Cargo.toml"), target).out_dir(work).profile(profile).locked();
        if let Some(feature) = feature {
            build = build.feature(feature);
        }
        let built = toolchain.build(&build).map_err(|e| e.to_string())?;
        copy(&built.wasm, out)
    })
}

pub(crate) fn go_sdk() -> Result<PathBuf, String> {
    let version = run(Command::new("go").arg("version"))?;
    let sources = source("go-sdk");
    // Names stay for backtraces; the rest of the debug information would double the module.
    let arguments = ["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-w"];
    kept("go-sdk", &sources, &[&version, &arguments.join(" ")], |_, out| {
        let mut go = Command::new("go");
        go.current_dir(&sources).args(arguments).arg("-o").arg(out).arg(".");
        go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off")]);
        run(&mut go).map(drop)
    })
}

pub(crate) fn assemblyscript() -> Result<PathBuf, String> {
    let version = run(Command::new("node").arg("--version"))?;
    let sources = source("assemblyscript");
    // Without `abort` replaced the module would import `env.abort`, which is no host function of the ABI; the SDK's
    // own documentation asks for this. `--debug` keeps the names.
    let arguments = ["assembly/index.ts", "--use", "abort=abort_proc_exit", "--optimize", "--debug"];
    kept("assemblyscript", &sources, &[&version, &arguments.join(" ")], |work, out| {
        let mut files = Vec::new();
        list(&sources, &mut files)?;
        for file in files {
            copy(&file, &work.join(file.strip_prefix(&sources).unwrap_or(&file)))?;
        }
        run(Command::new("npm").current_dir(work).args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]))?;
        let mut compiler = Command::new("node");
        compiler.current_dir(work).arg("node_modules/assemblyscript/bin/asc").args(arguments);
        run(compiler.arg("--binaryFile").arg(out)).map(drop)
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(from, to));
    copied.map(drop).map_err(|e| format!("cannot copy {} to {}: {e}", from.display(), to.display()))
}

/// Runs a program and gives its standard output; an error says what failed and, for a program that is not there, how
/// to get it.
fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("cannot start {program}: {e}; run `make setup`"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Ok(stdout.trim().to_owned());
    }
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    Err(format!("{program} {} failed\n{stdout}{stderr}", arguments.join(" ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_told_how_to_get() {
        let why = run(&mut Command::new("weir-no-such-compiler")).unwrap_err();
        assert!(why.contains("weir-no-such-compiler") && why.contains("run `make setup`"), "{why}");
    }

    #[test]
    fn a_program_that_fails_says_what_it_said() {
        let why = run(Command::new("node").args(["-e", "console.error('broken'); process.exit(3)"])).unwrap_err();
        assert!(why.starts_with("node -e") && why.contains("broken"), "{why}");
    }
}
