//! Notices that something of the project was saved.
//!
//! Always: what the tools write themselves (the module, their caches, their locks) is no save, or every build would cause the next.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use notify::event::{AccessKind, AccessMode};
use notify::{Event as Seen, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Event, QUIET};
use crate::failure::{Done, Failure};

/// Folders of tools.
const NOT_FOLDERS: [&str; 4] = ["build", "target", "node_modules", "dist"];
/// Files that tools write.
const NOT_FILES: [&str; 4] = ["Cargo.lock", "go.sum", "package-lock.json", "4913"];

/// Watches for as long as the value lives.
pub(crate) fn start(project: &Path, sample: &Path, send: &Sender<Event>) -> Done<RecommendedWatcher> {
    let (saved, saves) = channel();
    let (root, of_sample) = (project.to_owned(), sample.to_owned());
    let watcher = notify::recommended_watcher(move |seen: notify::Result<Seen>| {
        if let Ok(seen) = seen.as_ref()
            && changes(seen.kind)
        {
            for path in seen.paths.iter().filter(|path| counts(&root, path)) {
                let _ = saved.send(*path == of_sample);
            }
        }
    });
    let failed = |error: notify::Error| Failure::new(format!("the project cannot be watched: {error}"));
    let mut watcher = watcher.map_err(failed)?;
    watcher.watch(project, RecursiveMode::NonRecursive).map_err(failed)?;
    for folder in folders(project) {
        watcher.watch(&folder, RecursiveMode::Recursive).map_err(failed)?;
    }
    let send = send.clone();
    std::thread::spawn(move || {
        while let Ok(is_sample) = saves.recv() {
            let mut seen = [is_sample, !is_sample];
            loop {
                match saves.recv_timeout(QUIET) {
                    Ok(is_sample) => seen[usize::from(!is_sample)] = true,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            let events = [Event::SampleSaved, Event::Saved];
            for (event, _) in events.into_iter().zip(seen).filter(|(_, seen)| *seen) {
                if send.send(event).is_err() {
                    return;
                }
            }
        }
    });
    Ok(watcher)
}

fn changes(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        EventKind::Modify(_) | EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Any | EventKind::Other => false,
    }
}

fn folders(project: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && counts(project, path)).collect()
}

/// Whether a path is one of those that a person saves.
fn counts(project: &Path, path: &Path) -> bool {
    let Ok(below) = path.strip_prefix(project) else { return false };
    let hidden = |part: &OsStr| part.as_encoded_bytes().starts_with(b".") || part.as_encoded_bytes().ends_with(b"~");
    let first = below.iter().next();
    let name = path.file_name().unwrap_or_default();
    !below.as_os_str().is_empty()
        && !below.iter().any(hidden)
        && !NOT_FOLDERS.iter().any(|folder| first == Some(OsStr::new(folder)))
        && !NOT_FILES.iter().any(|file| name == *file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_save_counts_and_what_tools_write_does_not() {
        let project = Path::new("/p");
        for path in ["/p/src/lib.rs", "/p/Cargo.toml", "/p/sample.yaml", "/p/assembly/index.ts", "/p/src/build/mod.rs"] {
            assert!(counts(project, Path::new(path)), "{path}");
        }
        for path in [
            "/p",
            "/p/build/x.wasm",
            "/p/target/debug/x",
            "/p/node_modules/a/b.js",
            "/p/Cargo.lock",
            "/p/src/.lib.rs.swp",
            "/p/src/lib.rs~",
            "/p/.git/index",
            "/q/a",
        ] {
            assert!(!counts(project, Path::new(path)), "{path}");
        }
    }
}
