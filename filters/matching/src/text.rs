//! A condition on a text.
//!
//! Regular expressions are `regex-lite`'s: RE2's syntax without Unicode classes, in a tenth of the code, which every worker compiles and holds. A byte that is
//! no UTF-8 is one character to them.

use regex_lite::{Regex, RegexBuilder};
use weir_sdk::{Refusal, config};

/// The most memory that one compiled pattern takes.
const PATTERN_SIZE: usize = 1 << 20;

/// A condition on a text. Exactly one of the kinds is written; `present: false` asks that there be none.
#[config]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[serde(default)]
pub struct TextMatch {
    /// The whole text.
    pub exact: Option<String>,
    /// What it begins with.
    pub prefix: Option<String>,
    /// What it ends with.
    pub suffix: Option<String>,
    /// What is somewhere in it.
    pub contains: Option<String>,
    /// An RE2-style regular expression for the whole of it.
    pub regex: Option<String>,
    /// Whether there is any.
    pub present: Option<bool>,
    /// Upper and lower case are the same.
    pub ignore_case: bool,
    /// The opposite counts.
    pub invert: bool,
}

/// A condition, compiled.
#[derive(Debug, Clone)]
pub struct Text {
    kind: Kind,
    ignore_case: bool,
    invert: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    Regex(Box<Regex>),
    Present(bool),
}

impl TextMatch {
    /// Compiles it.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn compile(&self) -> Result<Text, Refusal> {
        let bytes = |text: &String| text.as_bytes().to_vec().into_boxed_slice();
        let mut kinds = Vec::new();
        kinds.extend(self.exact.as_ref().map(|text| Kind::Exact(bytes(text))));
        kinds.extend(self.prefix.as_ref().map(|text| Kind::Prefix(bytes(text))));
        kinds.extend(self.suffix.as_ref().map(|text| Kind::Suffix(bytes(text))));
        kinds.extend(self.contains.as_ref().map(|text| Kind::Contains(bytes(text))));
        if let Some(pattern) = &self.regex {
            let whole = format!("^(?:{pattern})$");
            let built = RegexBuilder::new(&whole).case_insensitive(self.ignore_case).size_limit(PATTERN_SIZE).build();
            kinds.push(Kind::Regex(Box::new(built.map_err(|error| Refusal::at("regex", cause(&error, pattern)))?)));
        }
        kinds.extend(self.present.map(Kind::Present));
        let mut kinds = kinds.into_iter();
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(Text { kind, ignore_case: self.ignore_case, invert: self.invert }),
            (None, _) => Err(Refusal::new("one of exact, prefix, suffix, contains, regex or present must be written")),
            _ => Err(Refusal::new("only one of exact, prefix, suffix, contains, regex and present may be written")),
        }
    }
}

/// The last line of the library's drawing says what is wrong.
fn cause(error: &regex_lite::Error, pattern: &str) -> String {
    let text = error.to_string();
    let last = text.lines().next_back().unwrap_or_default().trim_start_matches("error: ");
    format!("{pattern:?} is no regular expression: {last}")
}

impl Text {
    /// An exact text.
    #[must_use]
    pub fn exact(text: &str) -> Self {
        Self { kind: Kind::Exact(text.as_bytes().into()), ignore_case: false, invert: false }
    }

    /// Whether a text, or the lack of one, is meant. What is absent has no text to compare, so only `present` and `invert` can mean it.
    #[must_use]
    pub fn matches(&self, text: Option<&[u8]>) -> bool {
        let meant = match (&self.kind, text) {
            (Kind::Present(wanted), text) => text.is_some() == *wanted,
            (_, None) => false,
            (Kind::Regex(pattern), Some(text)) => pattern.is_match(&String::from_utf8_lossy(text)),
            (Kind::Exact(exact), Some(text)) => self.same(text, exact),
            (Kind::Prefix(prefix), Some(text)) => text.get(..prefix.len()).is_some_and(|start| self.same(start, prefix)),
            (Kind::Suffix(suffix), Some(text)) => {
                text.len().checked_sub(suffix.len()).and_then(|at| text.get(at..)).is_some_and(|end| self.same(end, suffix))
            }
            (Kind::Contains(part), Some(text)) => part.is_empty() || text.windows(part.len()).any(|window| self.same(window, part)),
        };
        meant != self.invert
    }

    fn same(&self, one: &[u8], other: &[u8]) -> bool {
        if self.ignore_case { one.eq_ignore_ascii_case(other) } else { one == other }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    fn text(json: &str) -> Result<Text, Refusal> {
        weir_sdk::parse::<TextMatch>(json.as_bytes()).and_then(|text| text.compile())
    }

    #[test]
    fn each_kind_means_what_it_says() {
        let cases: [(&str, &[&str], &[&str]); 11] = [
            (r#"{"exact": "ab"}"#, &["ab"], &["a", "abc", "AB", ""]),
            (r#"{"exact": "ab", "ignoreCase": true}"#, &["ab", "AB"], &["abc"]),
            (r#"{"prefix": "ab"}"#, &["ab", "abc"], &["a", "xab", "AB"]),
            (r#"{"prefix": ""}"#, &["", "x"], &[]),
            (r#"{"suffix": "ab"}"#, &["ab", "xab"], &["abc", "b"]),
            (r#"{"contains": "ab"}"#, &["ab", "xabx"], &["axb", ""]),
            (r#"{"regex": "a+|b"}"#, &["a", "aaa", "b"], &["ab", "xa", ""]),
            (r#"{"regex": "a.c", "ignoreCase": true}"#, &["abc", "AXC"], &["ac"]),
            (r#"{"present": true}"#, &["", "x"], &[]),
            (r#"{"exact": "ab", "invert": true}"#, &["a", ""], &["ab"]),
            (r#"{"present": false}"#, &[], &["", "x"]),
        ];
        for (json, yes, no) in cases {
            let text = text(json).unwrap();
            yes.iter().for_each(|one| assert!(text.matches(Some(one.as_bytes())), "{json} {one:?}"));
            no.iter().for_each(|one| assert!(!text.matches(Some(one.as_bytes())), "{json} {one:?}"));
        }
    }

    #[test]
    fn what_is_absent_is_only_meant_by_those_that_say_so() {
        for (json, meant) in [
            (r#"{"prefix": ""}"#, false),
            (r#"{"present": false}"#, true),
            (r#"{"present": true}"#, false),
            (r#"{"exact": "a", "invert": true}"#, true),
        ] {
            assert_eq!(text(json).unwrap().matches(None), meant, "{json}");
        }
        assert!(text(r#"{"regex": "a."}"#).unwrap().matches(Some(b"a\xff")), "bytes need not be UTF-8");
    }

    #[test]
    fn what_is_not_one_condition_is_refused() {
        for (json, said) in [
            ("{}", "one of exact, prefix"),
            (r#"{"exact": "a", "prefix": "b"}"#, "only one of"),
            (r#"{"regex": "("}"#, "regex: \"(\" is no regular expression: found open group without closing"),
            (r#"{"regex": "(?=a)"}"#, "look-around"),
            (r#"{"regex": "(a{1000}){1000}"}"#, "size"),
            (r#"{"exakt": "a"}"#, "did you mean `exact`?"),
        ] {
            let refusal = text(json).unwrap_err().to_string();
            assert!(refusal.contains(said), "{json}: {refusal}");
        }
    }
}
