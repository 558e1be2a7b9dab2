//! A filter's project: what it is written in, and how it is built.
//!
//! Always: the module is `build/NAME.wasm`, replaced at once by the next, so that a proxy that follows it never reads half of one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use weir_wasm32::{Build, Toolchain};

use crate::failure::{Done, Failure, io};
use crate::filter::inspect::bytes;
use crate::out::{Out, Paint};

/// What it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Go,
    AssemblyScript,
}

/// A project.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
    pub(crate) language: Language,
}

impl Project {
    /// The project in this folder.
    pub(crate) fn at(folder: &Path) -> Done<Self> {
        let folder = folder.canonicalize().map_err(io(folder))?;
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let named = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
            Some(line.trim_start_matches([' ', '=', ':']).trim_matches(['"', ',', ' ']).to_owned())
        };
        let found = if let Some(manifest) = read("Cargo.toml") {
            named(&manifest, "name").map(|name| (name, Language::Rust))
        } else if let Some(module) = read("go.mod") {
            named(&module, "module ").map(|name| (name, Language::Go))
        } else if let Some(package) = read("package.json") {
            named(&package, "\"name\"").map(|name| (name, Language::AssemblyScript))
        } else {
            let problem = format!("{} is no filter's project: it has no Cargo.toml, go.mod or package.json", folder.display());
            return Err(Failure::new(problem).help("make one with `weir filter new NAME`, or go to its folder"));
        };
        let (name, language) = found.ok_or_else(|| Failure::new(format!("the project in {} has no name", folder.display())))?;
        // A Go module is a path.
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { folder, name, language })
    }

    /// Where the module is.
    pub(crate) fn module(&self) -> PathBuf {
        self.folder.join("build").join(format!("{}.wasm", self.name))
    }

    /// Compiles it. Says what the compiler says, as it says it.
    pub(crate) fn build(&self, out: &Out) -> Done<PathBuf> {
        out.progress(&format!("building {}", self.name));
        let folder = self.folder.join("build");
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let made = match self.language {
            Language::Rust => self.build_rust()?,
            Language::Go => self.build_go()?,
            Language::AssemblyScript => self.build_assemblyscript(out)?,
        };
        let module = self.module();
        let partial = folder.join(format!(".{}.{}", self.name, std::process::id()));
        std::fs::copy(&made, &partial).map_err(io(&made))?;
        std::fs::rename(&partial, &module).map_err(io(&module))?;
        Ok(module)
    }

    pub(crate) fn build_and_tell(&self, out: &Out) -> Done {
        let module = self.build(out)?;
        let size = std::fs::metadata(&module).map_err(io(&module))?.len();
        let value = json!({"module": module.display().to_string(), "size": size});
        out.value(&value, |out| format!("{} ({})\n", out.paint(Paint::Bold, &module.display().to_string()), bytes(size)));
        Ok(())
    }

    fn build_rust(&self) -> Done<PathBuf> {
        let toolchain = Toolchain::detect().map_err(|error| Failure::new(error).help("rustup target add wasm32-unknown-unknown"))?;
        let build = Build::new(self.folder.join("Cargo.toml"), self.target()?.join("wasm32-filters"));
        let built = toolchain.build(&build).map_err(|error| Failure::new(error.to_string()))?;
        Ok(built.wasm)
    }

    /// Where cargo keeps what it compiles of this project.
    fn target(&self) -> Done<PathBuf> {
        let mut cargo = self.command("cargo");
        cargo.args(["metadata", "--no-deps", "--format-version", "1"]).stderr(Stdio::inherit());
        let metadata: Value = serde_json::from_slice(&output(&mut cargo)?).unwrap_or_default();
        let target = metadata["target_directory"].as_str().ok_or_else(|| Failure::new("cargo does not say where it compiles"))?;
        Ok(PathBuf::from(target))
    }

    fn build_go(&self) -> Done<PathBuf> {
        let made = self.folder.join("build").join(format!(".{}.go.wasm", self.name));
        let mut go = self.command("go");
        // Names stay for backtraces; the rest of the debug information would double the module.
        go.args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-w", "-o"]).arg(&made).arg(".");
        go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("CGO_ENABLED", "0"), ("GOWORK", "off")]);
        output(&mut go)?;
        Ok(made)
    }

    fn build_assemblyscript(&self, out: &Out) -> Done<PathBuf> {
        let compiler = self.folder.join("node_modules/assemblyscript/bin/asc");
        if !compiler.is_file() {
            out.progress("fetching packages");
            let how = if self.folder.join("package-lock.json").is_file() { "ci" } else { "install" };
            output(self.command("npm").args([how, "--no-audit", "--no-fund", "--ignore-scripts"]))?;
        }
        let made = self.folder.join("build").join(format!(".{}.as.wasm", self.name));
        let mut asc = self.command("node");
        // Without `abort` replaced the module would import `env.abort`, which is no host function of the ABI. `--debug` keeps the names.
        asc.arg(&compiler).args(["assembly/index.ts", "--use", "abort=abort_proc_exit", "--optimize", "--debug", "--binaryFile"]);
        output(asc.arg(&made))?;
        Ok(made)
    }

    /// A program in the project's folder.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Runs its own tests, with their words on standard error: standard output is for data. `None`: it has none of its own.
    pub(crate) fn test(&self) -> Done<Option<bool>> {
        let mut command = match self.language {
            Language::Rust => {
                let mut cargo = self.command("cargo");
                cargo.arg("test");
                cargo
            }
            Language::Go => {
                let mut go = self.command("go");
                go.args(["test", "./..."]);
                go
            }
            Language::AssemblyScript => return Ok(None),
        };
        command.stdout(std::io::stderr()).stderr(Stdio::inherit());
        let status = command.status().map_err(|error| missing(&command, &error))?;
        Ok(Some(status.success()))
    }
}

fn missing(command: &Command, error: &std::io::Error) -> Failure {
    let program = command.get_program().to_string_lossy().into_owned();
    let help = match program.as_str() {
        "go" => "install Go 1.24 or newer",
        "node" | "npm" => "install Node 18 or newer with npm",
        _ => "install Rust",
    };
    Failure::new(format!("{program} cannot be started: {error}")).help(help)
}

/// What a program wrote; all it said, if it failed.
fn output(command: &mut Command) -> Done<Vec<u8>> {
    let output = command.output().map_err(|error| missing(command, &error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Err(Failure::new(format!("{} failed\n{}", command.get_program().to_string_lossy(), said.trim_end())))
}
