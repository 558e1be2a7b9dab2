//! Native code on disk, so that a module is compiled once and not once a start.
//!
//! An entry is one file, named after the module's digest and the engine's fingerprint; `entry` has its
//! layout.
//!
//! What always holds:
//! - Code reaches the engine only after every field was compared and its digest computed, from a
//!   regular file that this user owns and nobody else may write, in a directory of the same kind.
//!   Anything else is refused with its reason, and the module is compiled again.
//! - An entry becomes visible whole or not at all (temporary file, fsync, rename), so processes that
//!   share a directory never see half an entry, and the last writer of equal entries wins.
//! - The directory stays below its size: the entries used longest ago go first.
//! - No failure here fails a load.
//!
//! What it deliberately does not do: it is no defence against who may write as this user; such a
//! person needs no cache to run code.

mod entry;

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use wasmtime::Engine;

use super::facts::Digest;
use entry::{FORMAT, HEADER, Key, SUFFIX, deserialize, verify};

const TEMPORARY: &str = ".writing-";
/// A temporary file this old has lost its writer.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A directory of compiled modules.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    max_bytes: u64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    refused: AtomicU64,
    stored: AtomicU64,
    evicted: AtomicU64,
}

/// What a cache has done since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheStats {
    /// Modules that did not have to be compiled.
    pub hits: u64,
    /// Modules without an entry.
    pub misses: u64,
    /// Entries that were refused.
    pub refused: u64,
    /// Entries written.
    pub stored: u64,
    /// Entries removed to stay below the size.
    pub evicted: u64,
}

/// The answer to a lookup.
#[derive(Debug)]
pub enum Lookup {
    /// The module, ready to be instantiated.
    Hit(wasmtime::Module),
    /// There is no entry.
    Miss,
    /// There is one, and it was not used.
    Refused(Refusal),
}

/// Why an entry was not used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It could not be read.
    #[error("the entry cannot be read: {0}")]
    Unreadable(String),
    /// It is a directory, a pipe or a device.
    #[error("the entry is no regular file")]
    NotAFile,
    /// Another user owns it.
    #[error("the entry belongs to user {0}")]
    ForeignOwner(u32),
    /// Others than its owner may write it.
    #[error("the entry may be written by others (mode {0:o})")]
    WritableByOthers(u32),
    /// It has not the length it states, or is larger than the whole cache.
    #[error("the entry is cut short or has bytes to spare")]
    Length,
    /// It is some other file.
    #[error("the file is no entry of this cache")]
    Foreign,
    /// It is an entry of another format.
    #[error("the entry has format {0}, not {FORMAT}")]
    Format(u32),
    /// It belongs to another module or engine.
    #[error("the entry belongs to another module or engine")]
    Key,
    /// Its code has not the digest it states.
    #[error("the code was changed after it was written")]
    Corrupt,
    /// The engine does not take it.
    #[error("the engine refused the code: {0}")]
    Engine(String),
}

/// Why an entry was not written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The code alone is larger than the cache may be.
    #[error("the native code has {bytes} bytes, the whole cache may have {limit}")]
    TooLarge {
        /// The entry's size.
        bytes: u64,
        /// The cache's size.
        limit: u64,
    },
    /// The engine could not serialize the module.
    #[error("the engine cannot write the code out: {0}")]
    Engine(String),
    /// A file operation failed.
    #[error("cannot {step} {path}: {cause}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// Where.
        path: String,
        /// What the system said.
        cause: String,
    },
}

/// Why a directory cannot be a cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It could not be made or examined.
    #[error("the code cache {} cannot be used: {cause}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Others could put code there.
    #[error(
        "the code cache {} is not private ({why}): name a directory that does not exist yet, or run chmod 700 on it",
        dir.display()
    )]
    NotPrivate {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Cache {
    /// The cache in `dir`, of at most `max_bytes`. The directory is made, for this user only, when
    /// it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made, or others than this user could write to it.
    pub fn open(dir: impl Into<PathBuf>, max_bytes: u64) -> Result<Self, OpenError> {
        let dir = dir.into();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        match made.and_then(|()| fs::metadata(&dir)) {
            Err(cause) => Err(OpenError::Io { dir, cause }),
            Ok(meta) => match private(&meta) {
                Err(why) => Err(OpenError::NotPrivate {
                    dir,
                    why: why.to_string(),
                }),
                Ok(()) => Ok(Self {
                    dir,
                    max_bytes,
                    counters: Counters::default(),
                }),
            },
        }
    }

    /// What the cache has done so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            hits: read(&self.counters.hits),
            misses: read(&self.counters.misses),
            refused: read(&self.counters.refused),
            stored: read(&self.counters.stored),
            evicted: read(&self.counters.evicted),
        }
    }

    /// The compiled form of the module with `digest`, when there is a sound one for `engine`.
    #[must_use]
    pub fn lookup(&self, engine: &Engine, digest: Digest) -> Lookup {
        let key = Key::new(engine, digest);
        let (counter, answer) = match self.read(&key) {
            Ok(None) => (&self.counters.misses, Lookup::Miss),
            Ok(Some(entry)) => {
                match verify(&entry, &key).and_then(|code| deserialize(engine, &code)) {
                    Ok(module) => (&self.counters.hits, Lookup::Hit(module)),
                    Err(refusal) => (&self.counters.refused, Lookup::Refused(refusal)),
                }
            }
            Err(refusal) => (&self.counters.refused, Lookup::Refused(refusal)),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Writes the compiled form of the module with `digest`, and removes old entries as needed.
    ///
    /// # Errors
    /// When the entry could not be written; nothing is left behind then.
    pub fn store(
        &self,
        engine: &Engine,
        digest: Digest,
        module: &wasmtime::Module,
    ) -> Result<(), StoreError> {
        let code = module
            .serialize()
            .map_err(|error| StoreError::Engine(format!("{error:#}")))?;
        let bytes = (HEADER + code.len()) as u64;
        if bytes > self.max_bytes {
            return Err(StoreError::TooLarge {
                bytes,
                limit: self.max_bytes,
            });
        }
        let key = Key::new(engine, digest);
        let path = self.dir.join(key.file_name());
        self.write(&path, &key.header(&code), &code)?;
        self.counters.stored.fetch_add(1, Ordering::Relaxed);
        self.trim(&path);
        Ok(())
    }

    /// The bytes of an entry, from a file that only this user can have written.
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, Refusal> {
        let unreadable = |error: io::Error| Refusal::Unreadable(error.to_string());
        // A link would lead out of the private directory, and opening a pipe would block.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut open = OpenOptions::new();
        open.read(true).custom_flags(flags.bits().cast_signed());
        let file = match open.open(self.dir.join(key.file_name())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(unreadable)?,
        };
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(Refusal::NotAFile);
        }
        private(&meta)?;
        let length = meta.len();
        if length > self.max_bytes {
            return Err(Refusal::Length);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(|_| Refusal::Length)?);
        (&file)
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        // The time of use orders eviction; when it cannot be set, the entry is only evicted earlier.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(bytes))
    }

    fn write(&self, path: &Path, header: &[u8], code: &[u8]) -> Result<(), StoreError> {
        let failed = |step: &'static str| {
            move |cause: io::Error| StoreError::Io {
                step,
                path: path.display().to_string(),
                cause: cause.to_string(),
            }
        };
        // Made with mode 0600; removed again on every early return.
        let mut file = (tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.dir))
        .map_err(failed("create"))?;
        let written = file.write_all(header).and_then(|()| file.write_all(code));
        written
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed("write"))?;
        file.persist(path)
            .map_err(|error| failed("rename")(error.error))?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("sync the directory of"))
    }

    /// Removes the entries used longest ago until the cache fits, and what crashed writers left.
    fn trim(&self, keep: &Path) {
        let Ok(dir) = fs::read_dir(&self.dir) else {
            return;
        };
        let (mut entries, mut total) = (Vec::new(), 0u64);
        for file in dir.flatten() {
            let Ok(meta) = file.metadata() else { continue };
            let (path, used) = (
                file.path(),
                meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            );
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(SUFFIX) {
                total = total.saturating_add(meta.len());
                entries.push((used, meta.len(), path));
            } else if name.starts_with(TEMPORARY) && used.elapsed().is_ok_and(|age| age > ABANDONED)
            {
                let _ = fs::remove_file(path);
            }
        }
        entries.sort_unstable();
        for (_, length, path) in entries.into_iter().filter(|(.., path)| path != keep) {
            if total <= self.max_bytes {
                return;
            }
            // Gone already means that another process trims too.
            if fs::remove_file(path).is_ok() {
                self.counters.evicted.fetch_add(1, Ordering::Relaxed);
            }
            total = total.saturating_sub(length);
        }
    }
}

/// Owned by this user and writable by nobody else.
fn private(meta: &Metadata) -> Result<(), Refusal> {
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(Refusal::ForeignOwner(meta.uid()));
    }
    match meta.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(Refusal::WritableByOthers(meta.mode() & 0o7777)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
        engine: Engine,
        wasm: Vec<u8>,
        module: wasmtime::Module,
    }

    impl Fixture {
        fn new() -> Self {
            let engine = Engine::default();
            let wasm =
                wat::parse_str(r#"(module (func (export "f") (result i32) i32.const 7))"#).unwrap();
            let module = wasmtime::Module::new(&engine, &wasm).unwrap();
            Self {
                dir: tempfile::tempdir().unwrap(),
                engine,
                wasm,
                module,
            }
        }

        fn cache(&self) -> Cache {
            Cache::open(self.dir.path().join("native"), 64 << 20).unwrap()
        }

        fn digest(&self) -> Digest {
            Digest::of(&self.wasm)
        }

        fn path(&self, cache: &Cache) -> PathBuf {
            cache
                .dir
                .join(Key::new(&self.engine, self.digest()).file_name())
        }

        fn stored(&self) -> (Cache, PathBuf) {
            let cache = self.cache();
            cache
                .store(&self.engine, self.digest(), &self.module)
                .unwrap();
            let path = self.path(&cache);
            (cache, path)
        }

        fn refusal(&self, cache: &Cache) -> Refusal {
            match cache.lookup(&self.engine, self.digest()) {
                Lookup::Refused(refusal) => refusal,
                other => panic!("{other:?}"),
            }
        }
    }

    fn works(engine: &Engine, module: &wasmtime::Module) -> bool {
        let mut store = wasmtime::Store::new(engine, ());
        let instance = wasmtime::Instance::new(&mut store, module, &[]).unwrap();
        let f = instance.get_typed_func::<(), i32>(&mut store, "f").unwrap();
        f.call(&mut store, ()).unwrap() == 7
    }

    #[test]
    fn what_was_stored_comes_back_and_runs() {
        let fixture = Fixture::new();
        let cache = fixture.cache();
        assert!(matches!(
            cache.lookup(&fixture.engine, fixture.digest()),
            Lookup::Miss
        ));
        cache
            .store(&fixture.engine, fixture.digest(), &fixture.module)
            .unwrap();
        // Another engine of the same settings, as another process would have.
        let engine = Engine::default();
        match fixture.cache().lookup(&engine, fixture.digest()) {
            Lookup::Hit(module) => assert!(works(&engine, &module)),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            cache.stats(),
            CacheStats {
                misses: 1,
                stored: 1,
                ..CacheStats::default()
            }
        );
        let left: Vec<_> = fs::read_dir(&cache.dir)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert_eq!(left, [fixture.path(&cache)], "no temporary file is left");
    }

    #[test]
    fn other_settings_are_another_entry() {
        let fixture = Fixture::new();
        let (cache, _) = fixture.stored();
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        assert!(matches!(
            cache.lookup(&other, fixture.digest()),
            Lookup::Miss
        ));
    }

    #[test]
    fn every_region_is_guarded() {
        let fixture = Fixture::new();
        let (cache, path) = fixture.stored();
        let good = fs::read(&path).unwrap();
        let regions = [
            (0, Refusal::Foreign),
            (8, Refusal::Format(FORMAT ^ 1)),
            (12, Refusal::Key),
            (44, Refusal::Key),
            (76, Refusal::Length),
            (84, Refusal::Corrupt),
            (HEADER, Refusal::Corrupt),
            (good.len() - 1, Refusal::Corrupt),
        ];
        for (at, expected) in regions {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(fixture.refusal(&cache), expected, "byte {at}");
        }
        for length in [0, 7, 11, 43, 83, HEADER - 1, HEADER, good.len() - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(fixture.refusal(&cache), Refusal::Length, "cut to {length}");
        }
        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert_eq!(fixture.refusal(&cache), Refusal::Length);
        // A refused entry is replaced by the next store.
        cache
            .store(&fixture.engine, fixture.digest(), &fixture.module)
            .unwrap();
        assert!(matches!(
            cache.lookup(&fixture.engine, fixture.digest()),
            Lookup::Hit(_)
        ));
        assert_eq!(cache.stats().refused, 17);
    }

    #[test]
    fn an_entry_of_another_module_is_refused_under_this_name() {
        let fixture = Fixture::new();
        let (cache, path) = fixture.stored();
        let other = Digest::of(b"another module");
        cache
            .store(&fixture.engine, other, &fixture.module)
            .unwrap();
        fs::rename(
            cache.dir.join(Key::new(&fixture.engine, other).file_name()),
            &path,
        )
        .unwrap();
        assert_eq!(fixture.refusal(&cache), Refusal::Key);
    }

    #[test]
    fn code_the_engine_does_not_know_is_refused() {
        let fixture = Fixture::new();
        let (cache, path) = fixture.stored();
        let key = Key::new(&fixture.engine, fixture.digest());
        fs::write(&path, [&key.header(b"not code")[..], b"not code"].concat()).unwrap();
        assert!(matches!(fixture.refusal(&cache), Refusal::Engine(_)));
    }

    #[test]
    fn only_private_regular_files_are_read() {
        let fixture = Fixture::new();
        let (cache, path) = fixture.stored();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(fixture.refusal(&cache), Refusal::WritableByOthers(0o620));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let elsewhere = fixture.dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(
            matches!(fixture.refusal(&cache), Refusal::Unreadable(_)),
            "links are not followed"
        );
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(fixture.refusal(&cache), Refusal::NotAFile);
        let error = cache
            .store(&fixture.engine, fixture.digest(), &fixture.module)
            .unwrap_err();
        assert!(matches!(error, StoreError::Io { step: "rename", .. }));
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let fixture = Fixture::new();
        let (cache, path) = fixture.stored();
        // Only root can give files away; elsewhere the rule is tested on a file that is root's.
        match std::os::unix::fs::chown(&path, Some(12345), None) {
            Ok(()) => assert_eq!(fixture.refusal(&cache), Refusal::ForeignOwner(12345)),
            Err(_) => assert_eq!(
                private(&fs::metadata("/").unwrap()),
                Err(Refusal::ForeignOwner(0))
            ),
        }
    }

    #[test]
    fn a_directory_others_can_write_is_no_cache() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a/b");
        Cache::open(&made, 1).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&made, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Cache::open(&made, 1).unwrap_err();
        assert!(
            matches!(&error, OpenError::NotPrivate { .. })
                && error.to_string().contains("chmod 700"),
            "{error}"
        );
        assert!(matches!(
            Cache::open("/dev/null/cache", 1),
            Err(OpenError::Io { .. })
        ));
    }

    #[test]
    fn the_entries_used_longest_ago_go_first() {
        let fixture = Fixture::new();
        let (cache, first) = fixture.stored();
        let size = fs::metadata(&first).unwrap().len();
        let cache = Cache {
            max_bytes: 2 * size + size / 2,
            ..cache
        };
        let age = |path: &Path, seconds| {
            let past = SystemTime::now() - Duration::from_secs(seconds);
            File::open(path).unwrap().set_modified(past).unwrap();
        };
        let second = Digest::of(b"second");
        cache
            .store(&fixture.engine, second, &fixture.module)
            .unwrap();
        let second = cache
            .dir
            .join(Key::new(&fixture.engine, second).file_name());
        age(&first, 200);
        age(&second, 100);
        // A use makes the older one the younger.
        assert!(matches!(
            cache.lookup(&fixture.engine, fixture.digest()),
            Lookup::Hit(_)
        ));
        let abandoned = cache.dir.join(format!("{TEMPORARY}x"));
        fs::write(&abandoned, b"half").unwrap();
        age(&abandoned, 2 * ABANDONED.as_secs());
        cache
            .store(&fixture.engine, Digest::of(b"third"), &fixture.module)
            .unwrap();
        assert!(first.exists() && !second.exists() && !abandoned.exists());
        assert_eq!(cache.stats().evicted, 1);
        let tiny = Cache {
            max_bytes: size - 1,
            ..fixture.cache()
        };
        let error = tiny
            .store(&fixture.engine, fixture.digest(), &fixture.module)
            .unwrap_err();
        assert_eq!(
            error,
            StoreError::TooLarge {
                bytes: size,
                limit: size - 1
            }
        );
    }

    #[test]
    fn writers_and_readers_share_a_directory() {
        let fixture = Fixture::new();
        let cache = fixture.cache();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        cache
                            .store(&fixture.engine, fixture.digest(), &fixture.module)
                            .unwrap();
                        assert!(matches!(
                            cache.lookup(&fixture.engine, fixture.digest()),
                            Lookup::Hit(_)
                        ));
                    }
                });
            }
        });
    }
}
