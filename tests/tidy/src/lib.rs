//! The rules of this tree that no compiler checks.
//!
//! Each module is one group of rules: pure functions from file contents, or from what `cargo metadata` says, to a list of
//! [`Finding`]s, with unit tests that show each rule failing. `tests/tree.rs` applies them to the tree itself.
//!
//! Always: a rule sees text and values only, never the disk; what it cannot understand it reports, it does not skip.
//!
//! Deliberately not here: what rustc, clippy or rustfmt already check.

use std::fmt;

pub mod arrows;
pub mod commands;
pub mod gaps;
pub mod graph;
pub mod lex;
pub mod licences;
pub mod names;
pub mod samples;
pub mod source;
pub mod unsafety;

/// A file of the tree: its path from the root, with `/`, and its text.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the root of the tree.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl File {
    /// A file made of its path and text.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Whether the name ends with `.` and this extension.
    #[must_use]
    pub fn is(&self, extension: &str) -> bool {
        self.path.strip_suffix(extension).is_some_and(|stem| stem.ends_with('.'))
    }
}

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, or the package, at fault.
    pub place: String,
    /// The line in it, from 1; 0 when the whole is meant.
    pub line: usize,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Finding {
    /// A finding about a whole file or package.
    pub fn whole(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), line: 0, message: message.into() }
    }

    /// A finding about one line, counted from 1.
    pub fn at(place: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { place: place.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.place, self.message),
            line => write!(out, "{}:{line}: {}", self.place, self.message),
        }
    }
}

/// The line, from 1, that holds the byte at `offset`.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The offsets of `word` in `text` where neither neighbour is part of a longer word.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inside = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let bytes = text.as_bytes();
        !inside(at.checked_sub(1).and_then(|before| bytes.get(before))) && !inside(bytes.get(at + word.len()))
    })
}
