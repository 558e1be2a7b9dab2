//! The programs that take part, and where they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::report::say;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Program {
    Weir,
    Nginx,
    Haproxy,
    Envoy,
    Wrk,
    H2load,
}

const ALL: [Program; 6] = [Program::Weir, Program::Nginx, Program::Haproxy, Program::Envoy, Program::Wrk, Program::H2load];

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir-proxy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Wrk => "wrk",
            Self::H2load => "h2load",
        }
    }

    const fn version_argument(self) -> &'static str {
        match self {
            Self::Weir => "version",
            Self::Envoy | Self::H2load => "--version",
            Self::Nginx | Self::Haproxy | Self::Wrk => "-v",
        }
    }
}

pub(super) struct Programs(Vec<(Program, PathBuf)>);

/// Looks where `tests/setup.sh` leaves what it fetched, where cargo leaves what it built, then along `PATH` and where Debian keeps servers.
pub(super) fn find(weir: Option<&Path>) -> Programs {
    let mut folders = Vec::new();
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    folders.extend(cache.map(|cache| cache.join("weir/peers")));
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let built = std::env::current_exe().ok().and_then(|this| Some(this.parent()?.join(Program::Weir.name())));
    let place = |program: Program| match program {
        Program::Weir => weir.map(Path::to_owned).or(built.clone()).filter(|path| path.is_file()),
        other => folders.iter().map(|folder| folder.join(other.name())).find(|path| path.is_file()),
    };
    Programs(ALL.into_iter().filter_map(|program| Some((program, place(program)?))).collect())
}

impl Programs {
    pub(super) fn path(&self, wanted: Program) -> Option<&Path> {
        self.0.iter().find(|(program, _)| *program == wanted).map(|(_, path)| path.as_path())
    }

    pub(super) fn has(&self, wanted: Program) -> bool {
        self.path(wanted).is_some()
    }

    /// Says which versions are compared, and which are not here to be.
    pub(super) fn introduce(&self, core: usize) {
        say(&format!("everything on core {core}; CPU time from schedstat, per answered request"));
        for program in ALL {
            match self.path(program) {
                Some(path) => say(&format!("  {:<10}  {}", program.name(), version(program, path))),
                None => say(&format!("  {:<10}  NOT HERE: none of its figures is printed", program.name())),
            }
        }
    }
}

fn version(program: Program, path: &Path) -> String {
    let output = match Command::new(path).arg(program.version_argument()).output() {
        Ok(output) => output,
        Err(error) => return format!("does not run: {error}"),
    };
    // Some say it on standard error.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("says nothing").to_owned()
}
