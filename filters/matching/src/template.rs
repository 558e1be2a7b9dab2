//! Templates of paths: `/users/{id}/orders`, `/files/{**}`.
//!
//! `{NAME}`, `{*}` and `*` are one segment that is not empty; `{**}`, `{NAME=**}` and `**` are all that is there, at least one segment, which may be empty:
//! `/files/{**}` means `/files/` and `/files/a/b`, not `/files`. There is at most one of those, and only text after it.

/// A template, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Up to the part for all that is there, or all.
    head: Vec<Part>,
    /// What follows that part, if there is one.
    tail: Option<Vec<Part>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    One,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Says what is wrong, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or_else(|| format!("{text:?} does not begin with `/`"))?;
        let (mut head, mut tail) = (Vec::new(), None::<Vec<Part>>);
        for segment in rest.split('/') {
            match (
                kind(segment).ok_or_else(|| format!("{segment:?} in {text:?} is neither text nor `{{NAME}}`, `{{*}}`, `{{**}}`"))?,
                &mut tail,
            ) {
                (Kind::Rest, None) => tail = Some(Vec::new()),
                (Kind::Part(part), None) => head.push(part),
                (Kind::Part(part @ Part::Text(_)), Some(tail)) => tail.push(part),
                _ => return Err(format!("{text:?} has more than text behind `{{**}}`")),
            }
        }
        Ok(Self { head, tail })
    }

    /// Whether a path, without its query, is meant.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(path) = path.strip_prefix(b"/") else { return false };
        let mut segments = path.split(|byte| *byte == b'/');
        if !self.head.iter().all(|part| segments.next().is_some_and(|segment| part.means(segment))) {
            return false;
        }
        let Some(tail) = &self.tail else { return segments.next().is_none() };
        // From behind: what is left between is what `**` stands for.
        tail.iter().rev().all(|part| segments.next_back().is_some_and(|segment| part.means(segment))) && segments.next().is_some()
    }

    /// How many bytes of text it asks for, as a measure of how specific it is.
    #[must_use]
    pub fn weight(&self) -> usize {
        let size = |part: &Part| if let Part::Text(text) = part { text.len() + 1 } else { 1 };
        self.head.iter().chain(self.tail.iter().flatten()).map(size).sum()
    }
}

impl Part {
    fn means(&self, segment: &[u8]) -> bool {
        match self {
            Self::Text(text) => **text == *segment,
            Self::One => !segment.is_empty(),
        }
    }
}

enum Kind {
    Part(Part),
    Rest,
}

fn kind(segment: &str) -> Option<Kind> {
    let inner = segment.strip_prefix('{').map(|inner| inner.strip_suffix('}'));
    let is_name = |name: &str| name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    match (segment, inner) {
        ("*", _) => Some(Kind::Part(Part::One)),
        ("**", _) => Some(Kind::Rest),
        (_, Some(inner)) => match inner?.split_once('=').unwrap_or((inner?, "")) {
            ("*", "") => Some(Kind::Part(Part::One)),
            ("**", "") => Some(Kind::Rest),
            (name, "" | "*") if !name.is_empty() && is_name(name) => Some(Kind::Part(Part::One)),
            (name, "**") if !name.is_empty() && is_name(name) => Some(Kind::Rest),
            _ => None,
        },
        (text, None) if !text.contains(['*', '{', '}', '?', '#']) => Some(Kind::Part(Part::Text(text.as_bytes().into()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn segments_are_matched_whole() {
        for (template, yes, no) in [
            ("/a/{x}/b", &["/a/1/b", "/a/x.y/b"][..], &["/a//b", "/a/b", "/a/1/2/b", "/a/1/b/", "/a/1/B", "a/1/b"][..]),
            ("/{*}", &["/a"], &["/", "/a/", "/a/b"]),
            ("/{**}", &["/", "/a", "/a/b", "/a/"], &["", "a"]),
            ("/files/{path=**}", &["/files/", "/files/a/b"], &["/files", "/filesx/a"]),
            ("/a/**/z", &["/a/b/z", "/a/b/c/z", "/a//z"], &["/a/z", "/a/b/zz", "/a/b/z/"]),
            ("/a/*/c", &["/a/b/c"], &["/a/c"]),
            ("/", &["/"], &["", "/a"]),
        ] {
            let compiled = Template::parse(template).unwrap();
            yes.iter().for_each(|path| assert!(compiled.matches(path.as_bytes()), "{template} {path}"));
            no.iter().for_each(|path| assert!(!compiled.matches(path.as_bytes()), "{template} {path}"));
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for wrong in ["", "a", "/a*", "/{a", "/a}", "/{}", "/{a b}", "/{**}/{x}", "/{**}/{**}", "/{a=b}", "/a?b", "/{=**}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}
