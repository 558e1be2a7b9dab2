//! Notices that files have changed, however they were changed: written in place, replaced by rename, deleted and created again, or behind a
//! symbolic link that was exchanged (a ConfigMap's `..data`).
//!
//! Watches are on folders, because a watch on a file follows the file away when it is replaced. Every symbolic link on the way to a path is watched
//! in its own folder. Signals are gathered until nothing happened for a moment. Where the kernel gives no events, and now and then even where it
//! does (network file systems do not), times and sizes are compared instead.
//!
//! What always holds: after a change there is a signal, at the latest when times and sizes are next compared; a future that was dropped lost none.
//!
//! What it does not do: say what has changed. There may be signals without a change.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Times of a [`Watch`].
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A signal is given when nothing happened for this long…
    pub quiet: Duration,
    /// …or this long after the first event.
    pub longest: Duration,
    /// How often to compare times and sizes where there are no events.
    pub poll: Duration,
    /// The same where there are.
    pub poll_beside_events: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(100),
            longest: Duration::from_secs(1),
            poll: Duration::from_secs(2),
            poll_beside_events: Duration::from_secs(10),
        }
    }
}

/// More links than this on the way to a path are a loop.
const MOST_LINKS: usize = 40;
/// Entries of a folder that are compared.
const MOST_ENTRIES: usize = 10_000;

/// What events are about.
#[derive(Default)]
struct Interest {
    /// Files, folders, and links on the way to them.
    paths: BTreeSet<PathBuf>,
    /// Folders whose every entry counts.
    folders: BTreeSet<PathBuf>,
}

impl Interest {
    fn covers(&self, event: &Event) -> bool {
        if event.need_rescan() {
            return true;
        }
        // Opening and reading are events too, and reading is what a signal leads to.
        let changes = match event.kind {
            EventKind::Access(access) => matches!(access, notify::event::AccessKind::Close(notify::event::AccessMode::Write)),
            _ => true,
        };
        changes
            && event.paths.iter().any(|path| self.paths.contains(path) || path.parent().is_some_and(|parent| self.in_folder(parent, path)))
    }

    fn in_folder(&self, parent: &Path, path: &Path) -> bool {
        self.folders.contains(parent)
            && path.file_name().is_some_and(|name| is_configuration(path) || name.as_encoded_bytes().starts_with(b".."))
    }
}

/// Whether a file in a configuration folder is read: `*.yaml`, `*.yml` or `*.json`, and not hidden.
#[must_use]
pub fn is_configuration(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().and_then(OsStr::to_str).is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
}

/// What is compared where there are no events.
type Signature = Vec<(PathBuf, i64, i64, i64, u64, u64)>;

/// Waits for changes of files and folders.
pub struct Watch {
    times: Times,
    interest: Arc<Mutex<Interest>>,
    signals: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Whether every folder that matters could be watched.
    whole: bool,
    targets: (BTreeSet<PathBuf>, BTreeSet<PathBuf>),
    signature: Signature,
    first_event: Option<Instant>,
    last_event: Instant,
    next_poll: Instant,
}

impl Watch {
    /// Watches nothing yet. Without `events`, or where the kernel has none to give, it compares only.
    #[must_use]
    pub fn new(times: Times, events: bool) -> Self {
        let interest = Arc::new(Mutex::new(Interest::default()));
        let (sender, signals) = mpsc::channel(1);
        let seen = Arc::clone(&interest);
        let handler = move |event: notify::Result<Event>| {
            let covered = event.is_ok_and(|event| seen.lock().unwrap_or_else(PoisonError::into_inner).covers(&event));
            if covered {
                // Full means that a signal waits already.
                let _ = sender.try_send(());
            }
        };
        let watcher = if events { notify::recommended_watcher(handler).inspect_err(no_events).ok() } else { None };
        let now = Instant::now();
        Self {
            times,
            interest,
            signals,
            watcher,
            watched: BTreeSet::new(),
            whole: false,
            targets: Default::default(),
            signature: Signature::new(),
            first_event: None,
            last_event: now,
            next_poll: now + times.poll,
        }
    }

    /// Watches these files and folders from now on; says whether any is new, so that whoever read them before must look again.
    pub fn set(&mut self, files: impl IntoIterator<Item = PathBuf>, folders: impl IntoIterator<Item = PathBuf>) -> bool {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let targets: (BTreeSet<_>, BTreeSet<_>) = (files.into_iter().map(absolute).collect(), folders.into_iter().map(absolute).collect());
        let new = !targets.0.is_subset(&self.targets.0) || !targets.1.is_subset(&self.targets.1);
        if targets != self.targets {
            self.targets = targets;
            self.arm();
        }
        new
    }

    /// The next signal.
    pub async fn changed(&mut self) {
        loop {
            let gathered = self.first_event.map(|first| (first + self.times.longest).min(self.last_event + self.times.quiet));
            let wake = gathered.unwrap_or(self.next_poll);
            tokio::select! {
                Some(()) = self.signals.recv() => {
                    self.last_event = Instant::now();
                    self.first_event.get_or_insert(self.last_event);
                }
                () = tokio::time::sleep_until(wake) => {
                    if gathered.is_some() || self.differs() {
                        self.first_event = None;
                        self.arm();
                        return;
                    }
                    self.next_poll = Instant::now() + self.poll();
                }
            }
        }
    }

    fn poll(&self) -> Duration {
        if self.whole { self.times.poll_beside_events } else { self.times.poll }
    }

    fn differs(&self) -> bool {
        signature(&self.targets) != self.signature
    }

    /// Puts watches on all folders that matter now: links and folders may lead elsewhere than before.
    fn arm(&mut self) {
        let mut interest = Interest::default();
        let mut wanted = BTreeSet::new();
        for path in self.targets.0.iter().chain(&self.targets.1) {
            for place in places(path) {
                wanted.extend(place.parent().map(Path::to_path_buf));
                interest.paths.insert(place);
            }
        }
        wanted.extend(self.targets.1.iter().cloned());
        interest.folders.clone_from(&self.targets.1);
        *self.interest.lock().unwrap_or_else(PoisonError::into_inner) = interest;
        if let Some(watcher) = &mut self.watcher {
            for path in std::mem::take(&mut self.watched) {
                // Its folder may be gone already.
                let _ = watcher.unwatch(&path);
            }
            for path in &wanted {
                if watcher.watch(path, RecursiveMode::NonRecursive).is_ok() {
                    self.watched.insert(path.clone());
                }
            }
        }
        self.whole = self.watcher.is_some() && self.watched == wanted;
        self.signature = signature(&self.targets);
        self.next_poll = Instant::now() + self.poll();
    }
}

fn no_events(error: &notify::Error) {
    tracing::warn!(%error, "the kernel gives no file events; files are compared every two seconds instead");
}

/// `path`, and every symbolic link that stands on the way to what it names.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_path_buf()];
    let mut rest: Vec<PathBuf> = path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect();
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop() {
        if part.components().next() == Some(Component::ParentDir) {
            at.pop();
            continue;
        }
        at.push(&part);
        let Ok(target) = std::fs::read_link(&at) else { continue };
        links += 1;
        if links > MOST_LINKS {
            break;
        }
        found.push(at.clone());
        at.pop();
        rest.extend(target.components().rev().filter(|part| *part != Component::CurDir).map(|part| PathBuf::from(part.as_os_str())));
    }
    if links > 0 && !found.contains(&at) {
        found.push(at);
    }
    found
}

fn signature((files, folders): &(BTreeSet<PathBuf>, BTreeSet<PathBuf>)) -> Signature {
    let mut signature: Signature = files.iter().cloned().filter_map(stamp).collect();
    for folder in folders {
        signature.extend(stamp(folder.clone()));
        let entries = std::fs::read_dir(folder).into_iter().flatten().take(MOST_ENTRIES).flatten();
        signature.extend(entries.map(|entry| entry.path()).filter(|path| is_configuration(path)).filter_map(stamp));
    }
    signature.sort_unstable();
    signature
}

fn stamp(path: PathBuf) -> Option<(PathBuf, i64, i64, i64, u64, u64)> {
    let metadata = std::fs::metadata(&path).ok()?;
    let size = if metadata.is_dir() { 0 } else { metadata.len() };
    Some((path, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec(), size, metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn quick() -> Times {
        Times {
            quiet: Duration::from_millis(20),
            longest: Duration::from_millis(200),
            poll: Duration::from_millis(50),
            poll_beside_events: LONG * 10,
        }
    }

    async fn signalled(watch: &mut Watch) {
        tokio::time::timeout(LONG, watch.changed()).await.expect("no signal");
    }

    async fn silent(watch: &mut Watch) {
        assert!(tokio::time::timeout(Duration::from_millis(300), watch.changed()).await.is_err(), "a signal without a reason");
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn writes_renames_and_deletions_of_a_file_are_seen() {
        let (_guard, folder) = folder();
        let file = folder.join("a.yaml");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::new(quick(), true);
        assert!(watch.set([file.clone()], []));
        fs::write(&file, "2").unwrap();
        signalled(&mut watch).await;
        fs::write(folder.join("b.tmp"), "3").unwrap();
        silent(&mut watch).await;
        fs::rename(folder.join("b.tmp"), &file).unwrap();
        signalled(&mut watch).await;
        fs::remove_file(&file).unwrap();
        signalled(&mut watch).await;
        fs::write(&file, "4").unwrap();
        signalled(&mut watch).await;
        fs::read(&file).unwrap();
        silent(&mut watch).await;
    }

    #[tokio::test]
    async fn a_folder_shows_configuration_and_not_other_files() {
        let (_guard, parent) = folder();
        let folder = parent.join("conf");
        fs::create_dir(&folder).unwrap();
        let mut watch = Watch::new(quick(), true);
        watch.set([], [folder.clone()]);
        fs::write(folder.join("a.log"), "1").unwrap();
        fs::write(folder.join(".a.yaml.swp"), "1").unwrap();
        silent(&mut watch).await;
        fs::write(folder.join("a.yaml"), "1").unwrap();
        signalled(&mut watch).await;
        fs::remove_dir_all(&folder).unwrap();
        signalled(&mut watch).await;
        fs::create_dir(&folder).unwrap();
        signalled(&mut watch).await;
        fs::write(folder.join("b.yaml"), "1").unwrap();
        signalled(&mut watch).await;
    }

    #[tokio::test]
    async fn an_exchanged_link_is_seen_again_and_again() {
        let (_guard, mount) = folder();
        let publish = |version: u32| {
            let data = mount.join(format!("..{version}"));
            fs::create_dir(&data).unwrap();
            fs::write(data.join("a.yaml"), version.to_string()).unwrap();
            symlink(&data, mount.join("..data_tmp")).unwrap();
            fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        };
        publish(1);
        symlink("..data/a.yaml", mount.join("a.yaml")).unwrap();
        let (mut one, mut all) = (Watch::new(quick(), true), Watch::new(quick(), true));
        one.set([mount.join("a.yaml")], []);
        all.set([], [mount.clone()]);
        for version in 2..5 {
            publish(version);
            signalled(&mut one).await;
            signalled(&mut all).await;
            assert_eq!(fs::read_to_string(mount.join("a.yaml")).unwrap(), version.to_string());
        }
    }

    #[tokio::test]
    async fn without_events_times_and_sizes_are_compared() {
        let (_guard, folder) = folder();
        let file = folder.join("a.yaml");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::new(quick(), false);
        watch.set([file.clone()], [folder.clone()]);
        silent(&mut watch).await;
        fs::write(&file, "22").unwrap();
        signalled(&mut watch).await;
        fs::write(folder.join("b.yaml"), "1").unwrap();
        signalled(&mut watch).await;
        silent(&mut watch).await;
    }

    #[test]
    fn links_in_a_circle_end() {
        let (_guard, folder) = folder();
        symlink(folder.join("b"), folder.join("a")).unwrap();
        symlink(folder.join("a"), folder.join("b")).unwrap();
        assert!(places(&folder.join("a")).len() <= MOST_LINKS + 2);
    }
}
