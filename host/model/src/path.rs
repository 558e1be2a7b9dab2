//! Where in a configuration something stands: as fields and indices, and as a place in a file.
//!
//! Always: making a path costs nothing until somebody looks at it; it is a list on the stack of whoever walks the configuration.
//! Looking a place up ends at the nearest thing around it that was written.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use prost_reflect::FieldDescriptor;

use crate::diagnostic::Place;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment<'a> {
    /// A field, by its name in JSON.
    Field(&'a str),
    /// An item of a list.
    Index(usize),
    /// An entry of a map.
    Key(&'a str),
}

/// A path: the step, and what it starts from.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    up: Option<&'a At<'a>>,
    segment: Option<Segment<'a>>,
}

impl<'a> At<'a> {
    /// Where everything begins.
    pub(crate) const ROOT: Self = Self { up: None, segment: None };

    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Self { up: Some(self), segment: Some(Segment::Field(name)) }
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self { up: Some(self), segment: Some(Segment::Index(index)) }
    }

    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self { up: Some(self), segment: Some(Segment::Key(key)) }
    }

    /// The steps from the beginning.
    pub(crate) fn segments(&self) -> Vec<Segment<'a>> {
        let mut segments: Vec<Segment<'a>> = std::iter::successors(Some(self), |at| at.up).filter_map(|at| at.segment).collect();
        segments.reverse();
        segments
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments().into_iter().enumerate() {
            let plain = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if !plain(key) => write!(f, "[{key:?}]")?,
                Segment::Field(name) | Segment::Key(name) => {
                    if index > 0 {
                        f.write_char('.')?;
                    }
                    f.write_str(name)?;
                }
            }
        }
        Ok(())
    }
}

/// How a place is found from the one around it.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Field(FieldDescriptor),
    /// Counted over all items of the list.
    Item,
    Key(Box<str>),
}

/// Places of a configuration's fields, as a tree. Empty for what came over the wire.
#[derive(Debug, Clone, Default)]
pub struct Places {
    place: Option<Place>,
    children: Vec<(Step, Places)>,
}

impl Places {
    pub(crate) fn at(place: Place) -> Self {
        Self { place: Some(place), children: Vec::new() }
    }

    pub(crate) fn push(&mut self, step: Step, child: Self) {
        self.children.push((step, child));
    }

    /// The place of the path, or of the nearest thing around it that has one.
    pub(crate) fn find(&self, at: &At<'_>) -> Option<Place> {
        let (mut here, mut found) = (self, self.place.as_ref());
        for segment in at.segments() {
            let Some(next) = here.child(segment) else { break };
            here = next;
            found = here.place.as_ref().or(found);
        }
        found.cloned()
    }

    fn child(&self, segment: Segment<'_>) -> Option<&Self> {
        let matches = |step: &Step| match (step, segment) {
            (Step::Field(field), Segment::Field(name)) => field.json_name() == name,
            (Step::Key(key), Segment::Key(name)) => **key == *name,
            _ => false,
        };
        match segment {
            Segment::Index(index) => self.children.get(index),
            _ => self.children.iter().find(|(step, _)| matches(step)),
        }
        .map(|(_, child)| child)
    }

    /// Takes another file's places in: items of its lists follow those that are here.
    pub(crate) fn join(&mut self, other: Self) {
        self.place = self.place.take().or(other.place);
        for (step, child) in other.children {
            let same = |(have, _): &&mut (Step, Self)| match (have, &step) {
                (Step::Field(have), Step::Field(new)) => have.number() == new.number(),
                _ => false,
            };
            match self.children.iter_mut().find(same) {
                Some((_, have)) => have.children.extend(child.children),
                None => self.children.push((step, child)),
            }
        }
    }
}

/// The candidate that was probably meant.
#[must_use]
pub fn suggest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Quadratic in the length: what is that long is no slip of the finger.
    if written.len() > 100 {
        return None;
    }
    let plain =
        |text: &str| -> String { text.chars().filter(|c| !matches!(c, '_' | '-' | ' ' | '.')).flat_map(char::to_lowercase).collect() };
    let written = plain(written);
    let near = |candidate: &str| {
        let candidate = plain(candidate);
        let allowed = written.len().max(candidate.len()).div_ceil(4).min(4);
        let distance = strsim::damerau_levenshtein(&written, &candidate);
        let begins = written.len() >= 4 && (candidate.starts_with(&written) || (candidate.len() >= 4 && written.starts_with(&candidate)));
        if distance <= allowed { Some(distance * 2) } else { begins.then_some(allowed * 2 + 1) }
    };
    candidates
        .into_iter()
        .take(10_000)
        .filter(|candidate| candidate.len() <= 100)
        .filter_map(|candidate| Some((near(candidate)?, candidate)))
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean …?`, or what could be written instead.
pub(crate) fn did_you_mean<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> String {
    if let Some(meant) = suggest(written, candidates.clone()) {
        return format!("did you mean `{meant}`?");
    }
    let mut all: Vec<Cow<'a, str>> = candidates.into_iter().take(31).map(Cow::Borrowed).collect();
    if all.is_empty() {
        return format!("there are no {what}");
    }
    if all.len() > 30 {
        all[30] = Cow::Borrowed("…");
    }
    format!(
        "{what} are {}",
        all.iter().map(|name| if name == "…" { name.to_string() } else { format!("`{name}`") }).collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_people_write_them() {
        let at = At::ROOT;
        assert_eq!(at.to_string(), "");
        let at = at.field("listeners");
        let at = at.index(3);
        let at = at.field("filters");
        assert_eq!(at.key("auth").to_string(), "listeners[3].filters.auth");
        assert_eq!(at.key("a.b\"").to_string(), "listeners[3].filters[\"a.b\\\"\"]");
    }

    #[test]
    fn suggestions() {
        let fields = ["address", "maxConnections", "timeouts", "tcp", "tls"];
        for (written, meant) in [
            ("adress", Some("address")),
            ("MaxConnections", Some("maxConnections")),
            ("max-connections", Some("maxConnections")),
            ("timeout", Some("timeouts")),
            ("tsl", Some("tls")),
            ("bananas", None),
            ("", None),
        ] {
            assert_eq!(suggest(written, fields), meant, "{written}");
        }
        assert_eq!(suggest(&"a".repeat(1 << 20), fields), None);
    }
}
