//! How names, sizes and lists are shown in an error: escaped, cut, on one line.

use std::fmt;

use crate::module::facts::Digest;

/// The longest piece of module-controlled text that is shown.
const SHOWN: usize = 160;

/// A name in quotes: escaped and cut.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Bare(self.0))
    }
}

/// A name without quotes: escaped and cut.
pub(crate) struct Bare<'a>(pub(crate) &'a str);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(SHOWN) {
            write!(f, "{}", c.escape_debug())?;
        }
        f.write_str(if chars.next().is_some() { "…" } else { "" })
    }
}

/// Free text on one line: runs of white space become one blank, control characters vanish.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.0.split_whitespace().take(SHOWN).enumerate() {
            f.write_str(if i > 0 { " " } else { "" })?;
            write!(f, "{}", Plain(word))?;
        }
        Ok(())
    }
}

/// The last of what a guest logged before it failed: most often the reason.
pub(super) struct Said<'a>(pub(super) &'a [String]);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LAST: usize = 3;
        for (index, line) in self.0.iter().skip(self.0.len().saturating_sub(LAST)).enumerate() {
            write!(f, "{}{}", if index == 0 { "; it logged: " } else { " | " }, OneLine(line))?;
        }
        Ok(())
    }
}

struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        (self.0.chars().filter(|c| !c.is_control()).take(SHOWN)).try_for_each(|c| f.write_char(c))
    }
}

/// Items joined by commas, or "none".
pub(super) struct List<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// A number of bytes in the largest unit that fits, exact when it can be.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) if self.0.is_multiple_of(*unit) => {
                write!(f, "{} {name}", self.0 / unit)
            }
            // A ratio of two numbers far below 2^53 is exact enough to be read.
            Some((unit, name)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

pub(super) struct DigestNote(pub(super) Option<Digest>);

impl fmt::Display for DigestNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(digest) => write!(f, " (sha256:{})", digest.short()),
            None => Ok(()),
        }
    }
}

pub(super) struct Archive<'a> {
    pub(super) modules: usize,
    pub(super) names: &'a [String],
}

impl fmt::Display for Archive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.modules {
            0 => f.write_str("no .wasm file")?,
            n => write!(f, "{n} .wasm files and none is plugin.wasm")?,
        }
        write!(f, " (its files: {})", List(self.names))
    }
}
