//! Names that must not be in the tree: of hosts that serve packages, and of a machine that someone worked on.
//!
//! Why: a package manager's own configuration decides where packages come from (a mirror, a proxy, nothing at all), and a
//! path of one machine works on no other.
//!
//! Always: lock files are exempt, because their tools write hosts into them.

use crate::{File, Finding, line_of};

/// The names, each put together here so that this file holds none.
const NAMES: [(&str, &str); 10] = [
    (concat!("index.crates", ".io"), "a package host"),
    (concat!("static.crates", ".io"), "a package host"),
    (concat!("proxy.golang", ".org"), "a package host"),
    (concat!("sum.golang", ".org"), "a package host"),
    (concat!("registry.npmjs", ".org"), "a package host"),
    (concat!("pypi", ".org"), "a package host"),
    (concat!("files.pythonhosted", ".org"), "a package host"),
    (concat!("deb.debian", ".org"), "a package host"),
    (concat!("security.debian", ".org"), "a package host"),
    (concat!("/wo", "rk/"), "a folder of one machine"),
];

/// The files that package managers write.
const LOCKS: [&str; 5] = ["Cargo.lock", "package-lock.json", "go.sum", "yarn.lock", "pnpm-lock.yaml"];

/// Every place where one of the names stands.
#[must_use]
pub fn check(files: &[File]) -> Vec<Finding> {
    let locked = |file: &&File| LOCKS.iter().any(|lock| file.path == *lock || file.path.ends_with(&format!("/{lock}")));
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !locked(file)) {
        for (name, what) in NAMES {
            let found = file.text.match_indices(name).map(|(at, _)| line_of(&file.text, at));
            findings.extend(found.map(|line| Finding::at(&file.path, line, format!("names {name}, {what}"))));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_outside_lock_files() {
        let text = format!("fine\nhttps://{}/x\ncd {}tree\n", NAMES[0].0, NAMES[9].0);
        let files = [File::new("doc/a.md", &*text), File::new("x/Cargo.lock", &*text), File::new("b.rs", "//! Fine.\n")];
        let found: Vec<_> = check(&files).iter().map(|f| (f.place.clone(), f.line)).collect();
        assert_eq!(found, [("doc/a.md".to_owned(), 2), ("doc/a.md".to_owned(), 3)]);
    }
}
