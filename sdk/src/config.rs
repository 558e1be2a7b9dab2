//! From the configuration's bytes to the author's type, or to an error that an operator can act on.
//!
//! What always holds: an error names the field by its path; an unknown field comes with the name that was probably meant; no bytes, or only white space,
//! read as `{}`, because a host hands over nothing where the operator wrote nothing.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::Status;
use crate::schema::{Node, Schema};

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The path of the field, such as `rules[2].path`; empty when the whole is at fault.
    pub field: String,
    /// What is wrong with it.
    pub cause: String,
}

impl Refusal {
    /// Refuses the whole configuration.
    #[must_use]
    pub fn new(cause: impl fmt::Display) -> Self {
        Self::at("", cause)
    }

    /// Refuses one field.
    #[must_use]
    pub fn at(field: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { field: field.into(), cause: cause.to_string() }
    }

    /// The same, of a field that lies in this one.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        let dot = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field = format!("{field}{dot}{}", self.field);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.cause),
            field => write!(f, "{field}: {}", self.cause),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::new(status)
    }
}

/// Reads a configuration.
///
/// # Errors
/// For anything but JSON of exactly this type's shape.
pub fn parse<C: DeserializeOwned + Schema>(bytes: &[u8]) -> Result<C, Refusal> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let config = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path: Vec<&Segment> = error.path().iter().collect();
        let mut cause = error.inner().to_string();
        if let Some(meant) = meant(&C::NODE, &path, &cause) {
            cause = format!("{cause}; did you mean `{meant}`?");
        }
        match error.path().to_string().as_str() {
            "." => Refusal::new(cause),
            field => Refusal::at(field, cause),
        }
    })?;
    json.end().map_err(Refusal::new)?;
    Ok(config)
}

/// The known field that an unknown one is nearest to.
fn meant(root: &Node, path: &[&Segment], cause: &str) -> Option<&'static str> {
    let unknown = cause.strip_prefix("unknown field `")?.split('`').next()?;
    let mut node = *root;
    // The last step is the unknown field itself.
    for segment in &path[..path.len().saturating_sub(1)] {
        node = *match segment {
            Segment::Map { key } => node.step(key)?,
            Segment::Enum { variant } => node.step(variant)?,
            Segment::Seq { .. } => node.step("")?,
            Segment::Unknown => return None,
        };
    }
    let distances = node.fields().iter().map(|field| (distance(unknown, field.name), field.name));
    distances.min().filter(|(distance, name)| *distance <= name.len().max(3) / 3).map(|(_, name)| name)
}

/// How many letters to change, add or leave out.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.to_lowercase().chars().collect(), other.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, against) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != against);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
