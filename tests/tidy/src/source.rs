//! Rules about one source file: its length, its opening words, and the reasons it gives for switching lints off.
//!
//! Always: tests at the end of a file do not count against its length; strings and comments are not code.

use crate::{File, Finding, lex, line_of, words};

/// Lines from which a file asks for a split.
pub const SIGNAL: usize = 400;
/// Lines that no file may exceed.
pub const WALL: usize = 800;

/// The languages whose files have a length limit.
const SOURCES: [&str; 7] = ["rs", "go", "ts", "js", "sh", "py", "proto"];

/// Lines before the tests.
#[must_use]
pub fn length(file: &File) -> usize {
    let before_tests = file.text.lines().take_while(|line| line.trim_end() != "#[cfg(test)]");
    before_tests.count()
}

/// Files longer than [`WALL`] lines before their tests.
#[must_use]
pub fn too_long(files: &[File]) -> Vec<Finding> {
    over(files, WALL)
        .map(|(file, lines)| Finding::whole(&file.path, format!("{lines} lines before tests, the wall is {WALL}: split it")))
        .collect()
}

/// Files longer than [`SIGNAL`] lines before their tests: worth a look, not a failure.
#[must_use]
pub fn long(files: &[File]) -> Vec<Finding> {
    over(files, SIGNAL)
        .map(|(file, lines)| Finding::whole(&file.path, format!("{lines} lines before tests (signal {SIGNAL}, wall {WALL})")))
        .collect()
}

fn over(files: &[File], limit: usize) -> impl Iterator<Item = (&File, usize)> {
    files
        .iter()
        .filter(|file| SOURCES.iter().any(|extension| file.is(extension)))
        .map(|file| (file, length(file)))
        .filter(move |(_, lines)| *lines > limit)
}

/// Rust files that do not open with `//!`.
#[must_use]
pub fn undocumented(files: &[File]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.is("rs") && !file.text.starts_with("//! "))
        .map(|file| Finding::at(&file.path, 1, "open the module with `//!`: what it does, what always holds, what it leaves out"))
        .collect()
}

/// `#[allow(…)]` and `#[expect(…)]` without `reason = "…"`.
#[must_use]
pub fn unreasoned(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is("rs")) {
        let code = lex::code_only(&file.text);
        for level in ["allow", "expect"] {
            for at in words(&code, level).filter(|&at| in_attribute(&code[..at])) {
                let arguments = parenthesised(&code[at + level.len()..]);
                if words(arguments, "reason").next().is_none() {
                    let message = format!("`{level}` without a reason: add `reason = \"why this is right here\"`");
                    findings.push(Finding::at(&file.path, line_of(&code, at), message));
                }
            }
        }
    }
    findings
}

/// Whether the end of `before` is inside an attribute that is still open.
fn in_attribute(before: &str) -> bool {
    let open = before.rfind("#[").max(before.rfind("#!["));
    open.is_some_and(|open| !before[open..].contains(']'))
}

/// The first parenthesised group of `text`, or all of it when it never closes.
fn parenthesised(text: &str) -> &str {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => return &text[..at],
            b')' => depth -= 1,
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> String {
        "x\n".repeat(count)
    }

    #[test]
    fn the_wall_counts_what_is_before_the_tests() {
        let just_right = File::new("a.rs", format!("{}#[cfg(test)]\n{}", lines(WALL), lines(500)));
        let too_much = File::new("b.rs", lines(WALL + 1));
        let script = File::new("c.sh", lines(WALL + 1));
        let data = File::new("d.json", lines(9000));
        let found = too_long(&[just_right.clone(), too_much, script, data]);
        assert_eq!(found.iter().map(|f| f.place.as_str()).collect::<Vec<_>>(), ["b.rs", "c.sh"]);
        assert_eq!(long(&[just_right]).len(), 1);
    }

    #[test]
    fn a_module_opens_with_its_words() {
        let files = [
            File::new("good.rs", "//! What it does.\n"),
            File::new("empty.rs", "//!\n"),
            File::new("late.rs", "use std::fmt;\n//! Late.\n"),
            File::new("notes.md", "Not Rust.\n"),
        ];
        assert_eq!(undocumented(&files).iter().map(|f| f.place.as_str()).collect::<Vec<_>>(), ["empty.rs", "late.rs"]);
    }

    #[test]
    fn switching_a_lint_off_needs_a_reason() {
        let text = "#[allow(dead_code)]\n#[allow(dead_code, reason = \"why\")]\n#![expect(\n  clippy::unwrap_used,\n)]\n\
                    #[cfg_attr(test, allow(unused))]\n// #[allow(x)]\nfn allow(a: u8) { x.expect(\"y\"); }\n";
        let found = unreasoned(&[File::new("a.rs", text)]);
        let mut at: Vec<_> = found.iter().map(|f| f.line).collect();
        at.sort_unstable();
        assert_eq!(at, [1, 3, 6]);
    }
}
