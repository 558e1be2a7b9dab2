//! Where built guests are kept: `<target>/guests/NAME-DIGEST.wasm`, the digest over the sources and whatever else the
//! recipe says its bytes depend on. A guest appears there whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Gives the kept guest, or builds it. `build` gets a directory of its own to work in, which outlives the build so
/// that the next is quicker, and the path to put the module at.
pub(crate) fn kept(
    name: &str,
    sources: &Path,
    depends: &[&str],
    build: impl FnOnce(&Path, &Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let root = target_dir()?.join("guests");
    let guest = root.join(format!("{name}-{}.wasm", digest(sources, depends)?));
    if guest.is_file() {
        return Ok(guest);
    }
    let work = root.join("work").join(name);
    fs::create_dir_all(&work).map_err(|e| format!("cannot create {}: {e}", work.display()))?;
    let lock = root.join(format!("{name}.lock"));
    let _lock = File::create(&lock)
        .and_then(|f| f.lock().map(|()| f))
        .map_err(|e| format!("cannot lock {}: {e}", lock.display()))?;
    // Whoever held the lock before may have built it.
    if !guest.is_file() {
        let fresh = guest.with_extension("fresh");
        build(&work, &fresh)?;
        fs::rename(&fresh, &guest)
            .map_err(|e| format!("no module came out at {}: {e}", fresh.display()))?;
    }
    Ok(guest)
}

/// Cargo's target directory, found the way cargo marks it: above the running test, or where a person said.
fn target_dir() -> Result<PathBuf, String> {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR")
        .filter(|d| !d.is_empty())
        .map(PathBuf::from)
        && dir.is_absolute()
    {
        return Ok(dir);
    }
    let program =
        std::env::current_exe().map_err(|e| format!("cannot find this program's own path: {e}"))?;
    let marked = program
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file());
    marked
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} lies in no cargo target directory", program.display()))
}

fn digest(sources: &Path, depends: &[&str]) -> Result<String, String> {
    let mut files = Vec::new();
    list(sources, &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(bytes);
    };
    for file in files {
        let name = file
            .strip_prefix(sources)
            .unwrap_or(&file)
            .to_string_lossy()
            .into_owned();
        field(name.as_bytes());
        field(&fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?);
    }
    for text in depends {
        field(text.as_bytes());
    }
    Ok(hash
        .finalize()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect())
}

/// Every file below a directory, leaving out what a person's own build there may have left.
pub(crate) fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let unreadable = |e| format!("cannot read {}: {e}", dir.display());
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_file() {
            files.push(path);
        } else if !path.ends_with("target") && !path.ends_with("node_modules") {
            list(&path, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn a_guest_is_built_once_for_each_state_of_its_sources() {
        let sources = std::env::temp_dir().join(format!("weir-guests-{}", std::process::id()));
        fs::create_dir_all(sources.join("node_modules")).unwrap();
        fs::write(sources.join("a"), "1").unwrap();
        let build = |text: &'static str| {
            let name = format!("cache-test-{}", std::process::id());
            let path = kept(&name, &sources, &["tool 1"], |_, out| {
                fs::write(out, text).map_err(|e| e.to_string())
            });
            let path = path.unwrap();
            (fs::read_to_string(&path).unwrap(), path)
        };
        let (first, one) = build("first");
        fs::write(sources.join("node_modules/x"), "ignored").unwrap();
        let (again, _) = build("second");
        fs::write(sources.join("a"), "2").unwrap();
        let (changed, two) = build("third");
        assert_eq!(
            [first.as_str(), &again, &changed],
            ["first", "first", "third"]
        );
        assert_ne!(one, two);
        let root = one.parent().unwrap();
        let name = format!("cache-test-{}", std::process::id());
        fs::remove_dir(root.join("work").join(&name)).unwrap();
        for path in [one.clone(), two, root.join(format!("{name}.lock"))] {
            fs::remove_file(path).unwrap();
        }
        fs::remove_dir_all(sources).unwrap();
    }

    #[test]
    fn what_a_guest_depends_on_besides_its_sources_changes_its_digest() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let one = digest(&sources, &["go 1.26.1"]).unwrap();
        assert_eq!(one, digest(&sources, &["go 1.26.1"]).unwrap());
        assert_ne!(one, digest(&sources, &["go 1.26.2"]).unwrap());
    }

    #[test]
    fn a_build_that_makes_nothing_is_an_error_and_leaves_nothing() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let why = kept("cache-test-nothing", &sources, &[], |_, _| Ok(())).unwrap_err();
        assert!(why.contains("no module came out"), "{why}");
        let why = kept("cache-test-nothing", &sources, &[], |_, _| {
            Err("no compiler".to_owned())
        })
        .unwrap_err();
        assert_eq!(why, "no compiler");
    }
}
