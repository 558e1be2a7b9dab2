//! A folder that is read again whenever something in it changes, however it changes: a file written in place, replaced by rename, deleted, a folder
//! added, or a symbolic link exchanged, which is how ConfigMap volumes change.
//!
//! Watches are on folders, because a watch on a file follows the file away when it is replaced; every symbolic link on the way to a file is watched in
//! its own folder. Events are gathered until nothing happened for a moment. Where the kernel gives no events, and now and then even where it does
//! (network file systems give none), times and sizes are compared instead.
//!
//! Always: whoever asks gets a whole folder, read after the last change that it does not show; one that was read already is not given again. What
//! cannot be read is an error now, and is looked at again after the next change. A future that was dropped lost nothing.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::folder::{self, Folder, is_configuration};

/// Times of a [`Watch`].
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The folder is read when nothing happened for this long…
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
            quiet: Duration::from_millis(20),
            longest: Duration::from_millis(500),
            poll: Duration::from_secs(2),
            poll_beside_events: Duration::from_secs(10),
        }
    }
}

/// More links than this on the way to a path are a loop.
const MOST_LINKS: usize = 40;

/// Reads a folder, or one file, again and again.
pub struct Watch {
    path: PathBuf,
    times: Times,
    signals: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Whether every folder that matters could be watched.
    whole: bool,
    stamp: u64,
    /// Whether there may be something that nobody was given yet.
    due: bool,
    given: Option<u64>,
    first_event: Option<Instant>,
    last_event: Instant,
    next_poll: Instant,
}

impl Watch {
    /// Without `events`, or where the kernel has none to give, it compares only.
    #[must_use]
    pub fn new(path: &Path, times: Times, events: bool) -> Self {
        let (sender, signals) = mpsc::channel(1);
        let handler = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| matters(&event)) {
                // Full means that a signal waits already.
                let _ = sender.try_send(());
            }
        };
        let now = Instant::now();
        Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            times,
            signals,
            watcher: if events { notify::recommended_watcher(handler).ok() } else { None },
            watched: BTreeSet::new(),
            whole: false,
            stamp: 0,
            due: true,
            given: None,
            first_event: None,
            last_event: now,
            next_poll: now,
        }
    }

    /// Whether the kernel tells of changes, everywhere; otherwise they are found later, by comparing.
    #[must_use]
    pub const fn has_events(&self) -> bool {
        self.whole
    }

    /// The folder: at once the first time, and then after it has changed.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub async fn next(&mut self) -> io::Result<Folder> {
        loop {
            if !self.due {
                self.changed().await;
            }
            self.due = true;
            // Watching comes first: a change while the folder is read leads to reading it again.
            self.arm();
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let (folder, digest) = read.map_err(io::Error::other)?;
            self.due = false;
            let is_new = self.given.replace(digest) != Some(digest);
            if is_new {
                return folder;
            }
        }
    }

    async fn changed(&mut self) {
        loop {
            let gathered = self.first_event.map(|first| (first + self.times.longest).min(self.last_event + self.times.quiet));
            let wake = gathered.unwrap_or(self.next_poll);
            tokio::select! {
                Some(()) = self.signals.recv() => {
                    self.last_event = Instant::now();
                    self.first_event.get_or_insert(self.last_event);
                }
                () = tokio::time::sleep_until(wake) => {
                    if gathered.is_some() || stamp(&self.path) != self.stamp {
                        self.first_event = None;
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

    /// Puts watches on all folders that matter now: there may be new ones, and links may lead elsewhere than before.
    fn arm(&mut self) {
        let wanted = wanted(&self.path);
        if let Some(watcher) = &mut self.watcher {
            // A watch on a folder that was replaced stays with the old one, so all are renewed.
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
        self.stamp = stamp(&self.path);
        self.next_poll = Instant::now() + self.poll();
    }
}

/// Reading is an event too, and it is what a signal leads to; and what is written to a log file beside is nothing here.
fn matters(event: &Event) -> bool {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match event.kind {
        _ if event.need_rescan() => true,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
            event.paths.iter().any(|path| is_configuration(&name(path)))
        }
        EventKind::Access(_) => false,
        // A folder may have any name; that of a hidden link with two dots says what a ConfigMap holds.
        _ => event.paths.iter().map(name).any(|name| !name.starts_with('.') || name.starts_with("..")),
    }
}

/// The folders in which something can change what is read.
fn wanted(path: &Path) -> BTreeSet<PathBuf> {
    let found = folder::find(path).unwrap_or_default();
    let parent = |path: PathBuf| path.parent().map(Path::to_path_buf);
    let mut wanted: BTreeSet<PathBuf> = found.folders.into_iter().collect();
    wanted.extend(places(path).into_iter().filter_map(parent));
    wanted.extend(found.links.iter().flat_map(|link| places(link)).filter_map(parent));
    // Where the folder itself is not there, whatever of the way to it is.
    if !path.exists() {
        wanted.extend(path.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_path_buf));
        wanted.retain(|folder| folder.is_dir());
    }
    wanted
}

/// `path`, and every symbolic link that stands on the way to what it names, and that.
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

/// What is compared where there are no events: names, times and sizes.
fn stamp(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in folder::find(path).unwrap_or_default().files {
        let metadata = std::fs::metadata(&file);
        let of =
            |metadata: std::fs::Metadata| (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec(), metadata.len(), metadata.ino());
        (file, metadata.ok().map(of)).hash(&mut hasher);
    }
    hasher.finish()
}

/// The folder, and what tells whether it was given already: names and contents, or why there are none.
fn read(path: &Path) -> (io::Result<Folder>, u64) {
    let mut hasher = DefaultHasher::new();
    let folder = folder::read_and_hash(path, &mut hasher);
    if let Err(error) = &folder {
        error.kind().to_string().hash(&mut hasher);
    }
    (folder, hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn quick() -> Times {
        Times {
            quiet: Duration::from_millis(10),
            longest: Duration::from_millis(200),
            poll: Duration::from_millis(50),
            poll_beside_events: LONG * 10,
        }
    }

    fn object(name: &str) -> String {
        format!("kind: Service\napiVersion: v1\nmetadata: {{name: {name}}}\n")
    }

    async fn names(watch: &mut Watch) -> Vec<String> {
        let folder = tokio::time::timeout(LONG, watch.next()).await.expect("nothing was read").expect("the folder could not be read");
        folder.objects.iter().map(|object| object.id.name.to_string()).collect()
    }

    /// What is not yet visible at the first reading is at a later one.
    async fn until(watch: &mut Watch, wanted: &[&str]) {
        for _ in 0..20 {
            if names(watch).await == wanted {
                return;
            }
        }
        panic!("{wanted:?} never came");
    }

    async fn silent(watch: &mut Watch) {
        assert!(tokio::time::timeout(Duration::from_millis(200), watch.next()).await.is_err(), "the same folder was given again");
    }

    #[tokio::test]
    async fn a_folder_is_given_at_once_and_after_each_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.yaml"), object("a")).unwrap();
        let mut watch = Watch::new(folder.path(), quick(), true);
        assert_eq!(names(&mut watch).await, ["a"]);
        assert!(watch.has_events());
        silent(&mut watch).await;
        fs::write(at("a.yaml"), object("b")).unwrap();
        until(&mut watch, &["b"]).await;
        fs::write(at("a.tmp"), object("c")).unwrap();
        silent(&mut watch).await;
        fs::rename(at("a.tmp"), at("a.yaml")).unwrap();
        until(&mut watch, &["c"]).await;
        fs::create_dir_all(at("sub/deep")).unwrap();
        fs::write(at("sub/deep/d.yaml"), object("d")).unwrap();
        until(&mut watch, &["c", "d"]).await;
        fs::write(at("sub/deep/d.yaml"), object("e")).unwrap();
        until(&mut watch, &["c", "e"]).await;
        fs::remove_dir_all(at("sub")).unwrap();
        until(&mut watch, &["c"]).await;
        fs::write(at("a.yaml"), object("c")).unwrap();
        silent(&mut watch).await;
    }

    #[tokio::test]
    async fn an_exchanged_link_is_seen_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path().join("mount");
        let publish = |version: u32| {
            let data = mount.join(format!("..{version}"));
            fs::create_dir_all(&data).unwrap();
            fs::write(data.join("a.yaml"), object(&format!("v{version}"))).unwrap();
            symlink(format!("..{version}"), mount.join("..data_tmp")).unwrap();
            fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        };
        publish(1);
        symlink("..data/a.yaml", mount.join("a.yaml")).unwrap();
        let mut watch = Watch::new(&mount, quick(), true);
        assert_eq!(names(&mut watch).await, ["v1"]);
        for version in 2..5 {
            publish(version);
            until(&mut watch, &[&format!("v{version}")]).await;
        }
    }

    #[tokio::test]
    async fn a_folder_may_come_and_go() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("conf");
        let mut watch = Watch::new(&folder, quick(), true);
        let gone = async |watch: &mut Watch| tokio::time::timeout(LONG, watch.next()).await.expect("nothing was said").is_err();
        assert!(gone(&mut watch).await);
        silent(&mut watch).await;
        for name in ["one", "two"] {
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("a.yaml"), object(name)).unwrap();
            until(&mut watch, &[name]).await;
            fs::remove_dir_all(&folder).unwrap();
            while !gone(&mut watch).await {}
        }
    }

    #[tokio::test]
    async fn without_events_times_and_sizes_are_compared() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, object("a")).unwrap();
        let mut watch = Watch::new(&file, quick(), false);
        assert_eq!(names(&mut watch).await, ["a"]);
        assert!(!watch.has_events());
        silent(&mut watch).await;
        fs::write(&file, object("longer")).unwrap();
        until(&mut watch, &["longer"]).await;
    }

    #[tokio::test]
    async fn folders_in_a_circle_are_read_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), object("a")).unwrap();
        for name in ["x", "y", "z"] {
            symlink(folder.path(), folder.path().join(name)).unwrap();
        }
        let mut watch = Watch::new(folder.path(), quick(), true);
        assert_eq!(names(&mut watch).await, ["a"]);
        symlink(folder.path().join("q"), folder.path().join("r")).unwrap();
        symlink(folder.path().join("r"), folder.path().join("q")).unwrap();
        assert!(places(&folder.path().join("q")).len() <= MOST_LINKS + 2);
    }
}
