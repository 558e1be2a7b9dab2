//! Finds the corpus of Istio's answers, and says how many of Weir's agree.
//!
//! The corpus is no part of the repository. It is looked for in the folder that `WEIR_CORPUS` names, or else beside the repository, in
//! `../shared/corpus/istio`. Always: where it is not there a test says so, loudly, instead of passing in silence; every disagreement is listed, and
//! one `figure NAME VALUE` line is written for programs.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The corpus, or nothing and a loud line.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus/istio"));
    let folder = std::env::var_os("WEIR_CORPUS").map_or_else(beside, PathBuf::from);
    if folder.join("README.md").is_file() {
        return Some(folder);
    }
    say(&format!("!!! NOT TESTED: the corpus of Istio's answers is not at {}; WEIR_CORPUS names its folder", folder.display()));
    None
}

/// The YAML files of a folder and of those in it, in order.
///
/// # Errors
/// When it cannot be read.
pub fn yaml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// How many cases agree.
#[derive(Debug, Default)]
pub struct Tally {
    /// Cases that agree.
    pub agree: usize,
    /// What to say of those that do not.
    pub disagree: Vec<String>,
}

impl Tally {
    /// Counts a case: nothing to say of it is agreement.
    pub fn count(&mut self, disagreement: Option<String>) {
        match disagreement {
            None => self.agree += 1,
            Some(text) => self.disagree.push(text),
        }
    }

    /// The part of the cases that agree, in percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        let total = self.agree + self.disagree.len();
        #[allow(clippy::cast_precision_loss, reason = "cases are counted in hundreds")]
        let percent = self.agree as f64 * 100.0 / total.max(1) as f64;
        percent
    }

    /// Lists the disagreements and writes the figure.
    pub fn report(&self, figure: &str) {
        for line in &self.disagree {
            say(&format!("{figure}: {line}"));
        }
        say(&format!("{figure}: {} of {} agree", self.agree, self.agree + self.disagree.len()));
        say(&format!("figure {figure} {:.2}", self.percent()));
    }
}

/// Writes past the test harness, which would keep it to itself.
pub fn say(line: &str) {
    // There is nobody to tell when the output is gone.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
