//! Running `weir`, with nothing of this user's environment that could change what it does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Succeeded; its data.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }

    /// Succeeded; its data as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Failed with exit code 1; what it said.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert_eq!(self.code, 1, "{}\n{}", self.out, self.err);
        self.err + &self.out
    }
}

/// The command in a folder, ready to be run.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(folder).stdin(Stdio::null());
    for name in ["COSIGN_PASSWORD", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "NO_COLOR"] {
        command.env_remove(name);
    }
    // Everything that is compiled here is compiled once, beside this test itself.
    command.env("CARGO_TARGET_DIR", target());
    command
}

/// The target directory of the workspace.
pub(crate) fn target() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

pub(crate) fn weir(folder: &Path, arguments: &[&str]) -> Done {
    run(command(folder).args(arguments))
}

pub(crate) fn run(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Whether a program is there; says so if not.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "left out: {program} is not installed").unwrap();
    }
    found
}
