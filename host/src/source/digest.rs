//! What files hold, as digests: whether one that a resource names has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;

use sha2::{Digest as _, Sha256};

/// More than this of a file is not looked at.
const LARGEST: u64 = 1 << 30;

/// The digest of every file; `None` for one that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Digests(BTreeMap<String, Option<[u8; 32]>>);

impl Digests {
    /// Reads all of `files`. Blocks.
    #[must_use]
    pub(super) fn read(files: impl IntoIterator<Item = String>) -> Self {
        Self(files.into_iter().map(|path| (path.clone(), digest(&path))).collect())
    }

    /// The files whose content is not what it was in `before`, or that were not looked at then.
    #[must_use]
    pub(super) fn differing(&self, before: &Self) -> BTreeSet<String> {
        self.0.iter().filter(|(path, digest)| before.0.get(*path) != Some(digest)).map(|(path, _)| path.clone()).collect()
    }

    /// The files that differ among those that both looked at.
    #[must_use]
    pub(super) fn changed(&self, before: &Self) -> BTreeSet<String> {
        self.differing(before).into_iter().filter(|path| before.0.contains_key(path)).collect()
    }
}

fn digest(path: &str) -> Option<[u8; 32]> {
    let mut file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))?.take(LARGEST);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_count_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let files = || [path("a"), path("b"), path("gone")];
        std::fs::write(path("a"), "1").unwrap();
        std::fs::write(path("b"), "1").unwrap();
        let before = Digests::read(files());
        std::fs::write(path("a"), "1").unwrap();
        assert!(Digests::read(files()).changed(&before).is_empty());
        std::fs::write(path("a"), "2").unwrap();
        std::fs::remove_file(path("b")).unwrap();
        std::fs::write(path("new"), "1").unwrap();
        let after = Digests::read(files().into_iter().chain([path("new")]));
        assert_eq!(after.changed(&before), BTreeSet::from([path("a"), path("b")]));
        assert_eq!(after.differing(&before), BTreeSet::from([path("a"), path("b"), path("new")]));
    }
}
