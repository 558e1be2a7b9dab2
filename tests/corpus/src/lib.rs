//! Cases from Istio with its own answers: where they are, how they are read, and how a comparison is told.
//!
//! Always: a case goes the way that a user's file goes, from YAML to objects to what is done with them. The folder is `WEIR_CORPUS`, or
//! `../shared/corpus/istio` beside the repository; where it is not, that is said loudly and the tests end. None of it is part of the project.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use weir_model::yaml::document::documents;

/// Whether the folder is another than the one that the levels were reached with.
#[must_use]
pub fn is_named() -> bool {
    std::env::var_os("WEIR_CORPUS").is_some()
}

/// Says something that is seen whether the test passes or not: what tests print otherwise is shown of failed ones only.
pub fn say(text: &str) {
    // Whoever closed the output does not want to know.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The folder with the cases; none, said loudly, if it is not there.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/istio");
    let folder = std::env::var_os("WEIR_CORPUS").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    say(&format!("\n!!! NOT TESTED against Istio's answers: there is no folder {}; name it in WEIR_CORPUS !!!\n", folder.display()));
    None
}

/// The YAML files of a folder and of those in it, in order.
///
/// # Errors
/// When it cannot be read.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
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

/// The cases of a file, which is a list of mappings.
///
/// # Errors
/// When it is not.
pub fn cases(path: &Path) -> Result<Vec<Json>, String> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    let read = documents(&name, &bytes);
    if let Some(wrong) = read.diagnostics.first() {
        return Err(wrong.to_string());
    }
    match read.documents.into_iter().next().map(|document| document.value) {
        Some(Json::Array(cases)) if !cases.is_empty() => Ok(cases),
        _ => Err(format!("{name}: it is not a list of cases")),
    }
}

/// What a file must be that a test stands on.
///
/// # Panics
/// When it is not.
#[allow(clippy::panic, reason = "for tests, which are to fail")]
pub fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// How many cases agreed, and which did not.
#[derive(Debug, Default)]
pub struct Tally {
    agreed: usize,
    disagreements: Vec<String>,
    notes: Vec<String>,
}

impl Tally {
    /// Counts a case; `why` is told if it disagrees.
    pub fn count(&mut self, agrees: bool, why: impl FnOnce() -> String) {
        if agrees {
            self.agreed += 1;
        } else {
            self.disagreements.push(why());
        }
    }

    /// Adds a line to the report.
    pub fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }

    /// The share of the cases that agreed.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "there are thousands at most")]
    pub fn percent(&self) -> f64 {
        100.0 * self.agreed as f64 / self.total().max(1) as f64
    }

    /// All of the cases.
    #[must_use]
    pub fn total(&self) -> usize {
        self.agreed + self.disagreements.len()
    }

    /// The figure with every disagreement.
    #[must_use]
    pub fn report(&self, figure: &str) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        for why in &self.disagreements {
            let _ = writeln!(text, "disagreement: {why}");
        }
        let _ = writeln!(text, "figure {figure} {:.2} ({} of {})", self.percent(), self.agreed, self.total());
        text
    }

    /// Prints the figure, and holds it to what was reached before.
    ///
    /// # Panics
    /// When fewer cases agree than should, or there are none.
    pub fn hold(&self, figure: &str, least: f64) {
        let report = self.report(figure);
        say(&report);
        assert!(self.total() > 0, "{figure}: there are no cases");
        assert!(self.percent() >= least, "{figure} has fallen below {least}:\n{report}");
    }
}
