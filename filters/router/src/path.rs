//! Conditions on a path, in few bytes: there may be a hundred thousand of them.

use weir_filter_matching::{Template, Text, TextMatch};
use weir_sdk::Refusal;

use crate::config::PathMatch;

/// A condition on a path. Its text, pattern or template lies in [`Paths`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Any,
    Text { how: How, fold: bool, start: u32, length: u32 },
    Regex(u32),
    Template(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Exact,
    Prefix,
    Segments,
}

/// What the conditions are made of.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    text: Vec<u8>,
    patterns: Vec<(Text, usize)>,
    templates: Vec<Template>,
}

impl Paths {
    pub(crate) fn compile(&mut self, written: PathMatch) -> Result<Path, Refusal> {
        let PathMatch { exact, prefix, segment_prefix, regex, template, ignore_case } = written;
        match (exact, prefix, segment_prefix, regex, template) {
            (Some(text), None, None, None, None) => self.text(How::Exact, ignore_case, &text).map_err(|refusal| refusal.within("exact")),
            (None, Some(text), None, None, None) => self.text(How::Prefix, ignore_case, &text).map_err(|refusal| refusal.within("prefix")),
            (None, None, Some(text), None, None) => {
                let text = text.trim_end_matches('/');
                self.text(How::Segments, ignore_case, text).map_err(|refusal| refusal.within("segmentPrefix"))
            }
            (None, None, None, Some(pattern), None) => {
                let length = pattern.len();
                let text = TextMatch { regex: Some(pattern), ignore_case, ..TextMatch::default() }.compile()?;
                self.patterns.push((text, length));
                index(self.patterns.len()).map(Path::Regex)
            }
            (None, None, None, None, Some(text)) => {
                if ignore_case {
                    return Err(Refusal::at("ignoreCase", "a template regards case"));
                }
                self.templates.push(Template::parse(&text).map_err(|cause| Refusal::at("template", cause))?);
                index(self.templates.len()).map(Path::Template)
            }
            (None, None, None, None, None) => Err(Refusal::new("one of exact, prefix, segmentPrefix, regex or template must be written")),
            _ => Err(Refusal::new("only one of exact, prefix, segmentPrefix, regex and template may be written")),
        }
    }

    fn text(&mut self, how: How, fold: bool, text: &str) -> Result<Path, Refusal> {
        if !text.is_empty() && !text.starts_with('/') && text != "*" {
            return Err(Refusal::new(format!("{text:?} does not begin with `/`, as every path does")));
        }
        if text.contains(['?', '#']) {
            return Err(Refusal::new(format!("{text:?} is no path: a query is matched by `query`")));
        }
        if text.is_empty() {
            return match how {
                How::Exact => Err(Refusal::new("no path is empty")),
                How::Prefix | How::Segments => Ok(Path::Any),
            };
        }
        let (start, length) = (index(self.text.len() + 1)?, index(text.len() + 1)?);
        self.text.extend_from_slice(text.as_bytes());
        Ok(Path::Text { how, fold, start, length })
    }

    /// The text of a condition that has one.
    pub(crate) fn written(&self, path: Path) -> Option<&[u8]> {
        match path {
            Path::Text { start, length, .. } => self.text.get(start as usize..)?.get(..length as usize),
            _ => None,
        }
    }

    /// Whether a path, without its query, is meant.
    pub(crate) fn means(&self, path: Path, asked: &[u8]) -> bool {
        match path {
            Path::Any => true,
            Path::Regex(at) => self.patterns.get(at as usize).is_some_and(|(text, _)| text.matches(Some(asked))),
            Path::Template(at) => self.templates.get(at as usize).is_some_and(|template| template.matches(asked)),
            Path::Text { how, fold, .. } => {
                let (Some(text), length) = (self.written(path), asked.len()) else { return false };
                let same = |part: &[u8]| if fold { part.eq_ignore_ascii_case(text) } else { part == text };
                match how {
                    How::Exact => length == text.len() && same(asked),
                    How::Prefix => length >= text.len() && same(&asked[..text.len()]),
                    How::Segments => {
                        length >= text.len() && asked.get(text.len()).is_none_or(|next| *next == b'/') && same(&asked[..text.len()])
                    }
                }
            }
        }
    }

    /// How specific it is: its kind, then its length.
    pub(crate) fn weight(&self, path: Path) -> (u8, usize) {
        match path {
            Path::Any => (0, 0),
            Path::Text { how: How::Prefix | How::Segments, length, .. } => (1, length as usize),
            Path::Regex(at) => (2, self.patterns.get(at as usize).map_or(0, |(_, length)| *length)),
            Path::Template(at) => (3, self.templates.get(at as usize).map_or(0, Template::weight)),
            Path::Text { how: How::Exact, length, .. } => (4, length as usize),
        }
    }
}

/// The index of the last of `count`.
fn index(count: usize) -> Result<u32, Refusal> {
    u32::try_from(count.saturating_sub(1)).map_err(|_| Refusal::new("the configuration is too large"))
}
