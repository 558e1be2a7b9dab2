//! Where `unsafe` may stand: in files on a short list, each use under a comment that says why it is sound.
//!
//! The list is `tests/tidy/unsafe.txt`: a path (a folder with a final `/`), a colon and the reason.
//!
//! Always: an entry that no longer allows anything is a finding too, so the list stays short.

use crate::{File, Finding, lex, line_of, words};

/// How many lines above a use its comment may end.
const REACH: usize = 3;

/// Uses of `unsafe` outside the list or without a comment, and entries of the list that are not needed or not explained.
#[must_use]
pub fn check(files: &[File], list: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut allowed: Vec<(&str, bool)> = Vec::new();
    for (number, line) in list.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty()) {
        match line.split_once(": ") {
            Some((path, reason)) if !reason.trim().is_empty() => allowed.push((path, false)),
            _ => findings.push(Finding::at("tests/tidy/unsafe.txt", number + 1, "write `path: reason`")),
        }
    }
    for file in files.iter().filter(|file| file.is("rs")) {
        let code = lex::code_only(&file.text);
        // `#[unsafe(no_mangle)]` names an export and touches no memory; the lint asks for its reason.
        let uses: Vec<usize> = words(&code, "unsafe").filter(|at| !code[at + "unsafe".len()..].starts_with('(')).collect();
        let Some(first) = uses.first() else { continue };
        match allowed.iter_mut().find(|(path, _)| file.path == *path || path.ends_with('/') && file.path.starts_with(*path)) {
            None => findings.push(Finding::at(&file.path, line_of(&code, *first), "`unsafe` is only for files in tests/tidy/unsafe.txt")),
            Some((_, needed)) => {
                *needed = true;
                let lines: Vec<&str> = file.text.lines().collect();
                // A declaration of what others provide is used in an `unsafe` block, which has its own comment.
                let declares = |at: &usize| code[at + "unsafe".len()..].starts_with(" extern");
                let bare = uses.iter().filter(|at| !declares(at)).map(|at| line_of(&code, *at));
                let bare = bare.filter(|line| !commented(&lines, *line));
                findings.extend(bare.map(|line| Finding::at(&file.path, line, "`unsafe` without a `SAFETY:` comment above it")));
            }
        }
    }
    for (path, needed) in allowed {
        if !needed {
            findings.push(Finding::whole("tests/tidy/unsafe.txt", format!("{path} has no `unsafe`: remove the entry")));
        }
    }
    findings
}

/// Whether a comment with `SAFETY` ends at most [`REACH`] lines above the line, or stands in it.
fn commented(lines: &[&str], line: usize) -> bool {
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let mut above = line - 1;
    if lines[above].contains("SAFETY") {
        return true;
    }
    let reach = above.saturating_sub(REACH);
    while above > reach && !is_comment(lines[above - 1]) {
        above -= 1;
    }
    while above > 0 && is_comment(lines[above - 1]) {
        above -= 1;
        if lines[above].contains("SAFETY") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "//! Doc.\nfn f() {\n    let x = 1;\n    unsafe { g() }\n}\n";
    const SOUND: &str = "//! Doc.\nfn f() {\n    // SAFETY: g only reads,\n    // and nobody writes.\n    unsafe { g() }\n}\n";

    #[test]
    fn only_listed_and_only_explained() {
        let check_one = |text, list| check(&[File::new("a.rs", text)], list).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(check_one(SOUND, "# note\n\na.rs: why\n"), [""; 0]);
        assert_eq!(check_one("//! Says unsafe.\n#![deny(unsafe_code)]\n", ""), [""; 0]);
        let declared = "//! Doc.\n#[unsafe(no_mangle)]\nunsafe extern \"C\" { fn g(); }\n";
        assert_eq!(check_one(declared, "a.rs: why"), [""; 0]);
        assert!(check_one(SOUND, "")[0].starts_with("a.rs:5: `unsafe` is only for files"));
        assert!(check_one(BARE, "a.rs: why")[0].starts_with("a.rs:4: `unsafe` without"));
        assert!(check_one("//! None.\n", "a.rs: why")[0].contains("a.rs has no `unsafe`"));
        assert!(check_one(SOUND, "a.rs:\n")[0].contains("write `path: reason`"));
    }
}
