//! Compiling one crate to one module.
//!
//! Cargo's own settings for the crate (profiles, flags, configuration files) have no say: what a module is compiled
//! with is decided here, so that its bytes depend on its source alone.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::environment::{cargo_home, scrub};
use crate::{Error, Std, TARGET, Toolchain};

/// How a module is compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Fully optimised across crates; function names, no line numbers.
    #[default]
    Release,
    /// The same code, with the DWARF that gives a backtrace its lines. Several times larger.
    Debug,
}

/// One crate to compile.
#[derive(Clone, Debug)]
pub struct Build {
    manifest: PathBuf,
    target_dir: PathBuf,
    out_dir: Option<PathBuf>,
    profile: Profile,
    features: Vec<String>,
    locked: bool,
    show_output: bool,
}

/// What came out of a build.
#[derive(Clone, Debug)]
pub struct Built {
    /// The module.
    pub wasm: PathBuf,
    /// Every file of this machine's own crates that went into it, for `cargo::rerun-if-changed`; crates from a
    /// registry never change and are left out.
    pub inputs: Vec<PathBuf>,
}

impl Build {
    /// Compiles the crate of this `Cargo.toml`, keeping intermediate files in `target_dir`, which must not be the
    /// target directory of a cargo that waits for this build. One target directory may serve several
    /// workspaces: what they depend on is compiled once.
    pub fn new(manifest: impl Into<PathBuf>, target_dir: impl Into<PathBuf>) -> Self {
        Self {
            manifest: manifest.into(),
            target_dir: target_dir.into(),
            out_dir: None,
            profile: Profile::Release,
            features: Vec::new(),
            locked: false,
            show_output: false,
        }
    }

    /// Copies the module into this directory. Without one it lies where cargo left it, and the next build of the
    /// same crate with other features replaces it.
    #[must_use]
    pub fn out_dir(mut self, out_dir: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(out_dir.into());
        self
    }

    /// Chooses the profile.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Turns a feature of the crate on.
    #[must_use]
    pub fn feature(mut self, feature: impl Into<String>) -> Self {
        self.features.push(feature.into());
        self
    }

    /// Refuses to build when `Cargo.lock` is missing or would change.
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.locked = true;
        self
    }

    /// Lets cargo write its progress and warnings to standard error, instead of keeping them for the error.
    #[must_use]
    pub fn show_output(mut self) -> Self {
        self.show_output = true;
        self
    }
}

impl Toolchain {
    /// Compiles a crate to a module.
    ///
    /// Builds that share a target directory wait for each other, in this process and in others.
    ///
    /// # Errors
    /// Whatever cargo said, when the crate does not compile; see [`Error`] for the rest.
    pub fn build(&self, build: &Build) -> Result<Built, Error> {
        let manifest = fs::canonicalize(&build.manifest).map_err(file("read", &build.manifest))?;
        fs::create_dir_all(&build.target_dir).map_err(file("create", &build.target_dir))?;
        let target_dir = fs::canonicalize(&build.target_dir).map_err(file("read", &build.target_dir))?;
        let _lock = lock(&target_dir.join(".weir-wasm32.lock"))?;

        let workspace = self.workspace(build, &manifest)?;
        self.fetch(build, &manifest)?;
        // A path of the workspace's shows in its own crate; its other crates are named from its root. So what several workspaces depend on, compiled for one,
        // is good for all, unless lines are wanted: those name the root.
        let everywhere = (build.profile == Profile::Debug).then_some(workspace.as_path());
        let flags = self.flags(everywhere, &target_dir);
        let mut command = self.cargo(build, "rustc", &manifest);
        // Asking for this crate type alone is what lets cargo optimise across crates when the manifest names more.
        command
            .args(["--lib", "--crate-type", "cdylib", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
            .arg("--target-dir")
            .arg(&target_dir)
            .args(build.features.iter().flat_map(|f| ["--features", f]))
            .env("CARGO_ENCODED_RUSTFLAGS", flags);
        profile(&mut command, build.profile);
        if everywhere.is_none() {
            command.arg("--").arg(remap(&workspace, "/weir"));
        }
        let output = run(&mut command, build.show_output)?;

        let module = module_of(&output, &manifest)
            .ok_or_else(|| Error::Unreadable { command: describe(&command), expected: "the module it made".to_owned() })?;
        let mut inputs = dep_info(&module.with_extension("d"));
        inputs.extend([manifest, workspace.join("Cargo.lock")]);
        let wasm = match &build.out_dir {
            Some(dir) => copy_into(&module, dir)?,
            None => module,
        };
        Ok(Built { wasm, inputs })
    }

    /// The root of the crate's workspace, which is the crate's own directory when it has none.
    fn workspace(&self, build: &Build, manifest: &Path) -> Result<PathBuf, Error> {
        let mut command = self.bare_cargo("locate-project", manifest);
        command.args(["--workspace", "--message-format", "plain"]);
        let root = run(&mut command, build.show_output)?;
        Path::new(root.trim())
            .parent()
            .map(Path::to_owned)
            .ok_or_else(|| Error::Unreadable { command: describe(&command), expected: "the workspace's manifest".to_owned() })
    }

    /// Fetches first, so that the directories crates lie in are known when their names are remapped.
    fn fetch(&self, build: &Build, manifest: &Path) -> Result<(), Error> {
        let mut command = self.cargo(build, "fetch", manifest);
        command.args(["--target", TARGET]);
        run(&mut command, build.show_output).map(drop)
    }

    /// A cargo command on the crate, with everything that both fetching and building need.
    fn cargo(&self, build: &Build, verb: &str, manifest: &Path) -> Command {
        let mut command = self.bare_cargo(verb, manifest);
        if build.locked {
            command.arg("--locked");
        }
        if self.std() == Std::FromSource {
            // The unstable option is what compiles the standard library along; stable compilers take it only so.
            command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
        }
        command
    }

    fn bare_cargo(&self, verb: &str, manifest: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        scrub(&mut command);
        command.env("RUSTC", &self.rustc).arg(verb).arg("--manifest-path").arg(manifest);
        if let Some(dir) = manifest.parent() {
            command.current_dir(dir);
        }
        command
    }

    /// The compiler flags, joined the way cargo reads flags that may hold spaces.
    fn flags(&self, workspace: Option<&Path>, target_dir: &Path) -> OsString {
        // Where prefixes nest, rustc takes the last that matches, so the wider ones come first.
        let mut remaps: Vec<_> = workspace.map(|workspace| (workspace.to_owned(), "/weir".to_owned())).into_iter().collect();
        remaps.push((target_dir.to_owned(), "/target".to_owned()));
        if let Some(home) = cargo_home().map(PathBuf::from) {
            let sources = home.join("registry/src");
            // A registry's directory is named after the server it was reached by, and mirrors differ.
            let registries = fs::read_dir(&sources).into_iter().flatten().flatten().map(|e| e.path());
            remaps.push((home, "/cargo".to_owned()));
            remaps.extend(registries.map(|r| (r, "/cargo/registry".to_owned())));
        }
        // What a toolchain without its source at hand would write by itself.
        remaps.push((self.source(), format!("/rustc/{}", self.commit)));
        let mut flags = OsString::new();
        for (from, to) in remaps {
            flags.push(remap(&from, &to));
            flags.push("\x1f");
        }
        flags.push("-Ccodegen-units=1");
        flags
    }
}

/// Has the compiler write another path.
fn remap(from: &Path, to: &str) -> OsString {
    let mut flag = OsString::from("--remap-path-prefix=");
    flag.push(from);
    flag.push("=");
    flag.push(to);
    flag
}

/// Overrules the profile of the crate's workspace, whatever it says.
fn profile(command: &mut Command, profile: Profile) {
    let (debug, strip) = match profile {
        // Only the debug sections go: the linker keeps the names.
        Profile::Release => ("none", "debuginfo"),
        Profile::Debug => ("full", "none"),
    };
    let settings = [
        ("OPT_LEVEL", "3"),
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("PANIC", "abort"),
        ("INCREMENTAL", "false"),
        ("DEBUG_ASSERTIONS", "false"),
        ("OVERFLOW_CHECKS", "false"),
        ("DEBUG", debug),
        ("STRIP", strip),
    ];
    for (name, value) in settings {
        command.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
}

/// Runs a command and gives what it wrote to its standard output.
fn run(command: &mut Command, show: bool) -> Result<String, Error> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(if show { Stdio::inherit() } else { Stdio::piped() });
    let output = command
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|cause| Error::Start { program: command.get_program().into(), cause })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Failed { command: describe(command), stderr })
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The module cargo says it made of this manifest.
fn module_of(messages: &str, manifest: &Path) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let mut files = messages.filter(|m| m["reason"] == "compiler-artifact").filter_map(|m| {
        let ours = m["manifest_path"].as_str().is_some_and(|p| Path::new(p) == manifest);
        let files = m["filenames"].as_array().filter(|_| ours)?;
        files.iter().filter_map(Value::as_str).find(|f| f.ends_with(".wasm")).map(PathBuf::from)
    });
    files.next()
}

/// The files a `.d` file names, which make reads as `output: input input`, a space in a name escaped.
fn dep_info(path: &Path) -> Vec<PathBuf> {
    // Without the file a build script rebuilds more seldom than it should, which is no reason to fail here.
    let text = fs::read_to_string(path).unwrap_or_default();
    let Some((_, inputs)) = text.lines().next().and_then(|l| l.split_once(": ")) else {
        return Vec::new();
    };
    inputs.replace("\\ ", "\0").split_whitespace().map(|f| PathBuf::from(f.replace('\0', " "))).collect()
}

/// Copies a module so that a reader sees the old or the new one, never half of it.
fn copy_into(module: &Path, dir: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(dir).map_err(file("create", dir))?;
    let to = dir.join(module.file_name().unwrap_or_default());
    let partial = to.with_extension(format!("wasm.{}", std::process::id()));
    fs::copy(module, &partial).map_err(file("write", &partial))?;
    fs::rename(&partial, &to).map_err(file("write", &to))?;
    Ok(to)
}

/// Waits until no other build uses the target directory. The lock goes with the file.
fn lock(path: &Path) -> Result<File, Error> {
    let file_of_lock = File::create(path).map_err(file("create", path))?;
    file_of_lock.lock().map_err(file("lock", path))?;
    Ok(file_of_lock)
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::File { doing, path, cause }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn the_module_is_found_among_cargos_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"manifest_path\":\"/b/Cargo.toml\",\"filenames\":[\"/t/b.wasm\"]}\n",
            "not json\n",
            "{\"reason\":\"compiler-artifact\",\"manifest_path\":\"/a/Cargo.toml\",\"filenames\":[\"/t/a.rlib\",\"/t/a.wasm\"]}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(module_of(messages, Path::new("/a/Cargo.toml")), Some(PathBuf::from("/t/a.wasm")));
        assert_eq!(module_of(messages, Path::new("/c/Cargo.toml")), None);
    }

    #[test]
    fn dep_info_names_every_input_once_unescaped() {
        let path = std::env::temp_dir().join(format!("weir-wasm32-{}.d", std::process::id()));
        fs::write(&path, "/t/a.wasm: /s/a\\ b/lib.rs /s/c.rs\n").unwrap();
        assert_eq!(dep_info(&path), [PathBuf::from("/s/a b/lib.rs"), PathBuf::from("/s/c.rs")]);
        fs::remove_file(&path).unwrap();
        assert!(dep_info(&path).is_empty());
    }

    #[test]
    fn a_manifest_that_is_not_there_is_named() {
        let toolchain = Toolchain::detect().unwrap();
        let error = toolchain.build(&Build::new("/nonexistent/Cargo.toml", "/nonexistent/target")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/Cargo.toml"), "{error}");
    }
}
