//! What is wrong with a configuration: where, what, and what to write instead.
//!
//! Always: a [`Code`] never changes its meaning, so that people can search for it and programs can act on it. The message says
//! the cause; the help, if there is one, says what to do.
//!
//! Deliberately not here: printing. [`render`] makes text of the kind that compilers write; who prints it is the caller's choice.

use std::fmt::{self, Write as _};
use std::sync::Arc;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but perhaps not as meant.
    Warning,
    /// The configuration is refused.
    Error,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What kind of problem it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// The file is not UTF-8.
    NotUtf8 = "not-utf8",
    /// The file, its nesting or what its aliases make of it is too large.
    TooLarge = "too-large",
    /// The file is no YAML.
    Syntax = "yaml-syntax",
    /// A tag that means nothing here.
    UnknownTag = "unknown-tag",
    /// A field that the schema does not have.
    UnknownField = "unknown-field",
    /// A key that stands twice in one mapping.
    DuplicateKey = "duplicate-key",
    /// A list where a text belongs, and the like.
    WrongType = "wrong-type",
    /// Nothing where something belongs.
    EmptyValue = "empty-value",
    /// None of the values that are known here.
    UnknownValue = "unknown-value",
    /// Not a duration.
    InvalidDuration = "invalid-duration",
    /// A number that is too small or too large.
    OutOfRange = "out-of-range",
    /// Fields of which only one may be set, or that contradict each other.
    Conflict = "conflict",
    /// Not base64.
    InvalidBase64 = "invalid-base64",
    /// A single field that two files or documents set.
    SetTwice = "set-twice",
    /// A name that two things have which must be told apart.
    DuplicateName = "duplicate-name",
    /// Something that must be there is not.
    Missing = "missing",
    /// A name that nothing has.
    UnknownReference = "unknown-reference",
    /// A name that has another kind of thing.
    WrongKind = "wrong-kind",
    /// Not an address.
    InvalidAddress = "invalid-address",
    /// Not a range of addresses.
    InvalidRange = "invalid-range",
    /// Not a name of the kind that belongs here.
    InvalidName = "invalid-name",
    /// Two branches that serve the same connections.
    EqualMatch = "equal-match",
    /// Not a regular expression.
    InvalidRegex = "invalid-regex",
    /// Not a header that may be sent.
    InvalidHeader = "invalid-header",
    /// Not PEM.
    InvalidPem = "invalid-pem",
    /// Not a path of a URL.
    InvalidPath = "invalid-path",
    /// Less secure than it looks.
    Insecure = "insecure",
    /// Something that has no effect where it stands.
    NoEffect = "no-effect",
    /// More problems than are worth a list.
    TooMany = "too-many-problems",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text with its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name, as the user knows it.
    pub name: String,
    /// What it holds.
    pub text: String,
}

impl Source {
    /// The line of this number, from 1; empty past the end.
    #[must_use]
    pub fn line(&self, number: u32) -> &str {
        let mut rest = &*self.text;
        for _ in 1..number {
            rest = match rest.find(['\n', '\r']) {
                Some(at) if rest[at..].starts_with("\r\n") => &rest[at + 2..],
                Some(at) => &rest[at + 1..],
                None => return "",
            };
        }
        rest.split(['\n', '\r']).next().unwrap_or("")
    }
}

/// A place in a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// The text.
    pub source: Arc<Source>,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In characters, on this line.
    pub length: u32,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source.name, self.line, self.column)
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of problem.
    pub code: Code,
    /// Where in the file; none for what came over the wire.
    pub place: Option<Place>,
    /// Which field: `listeners[0].branches[1].http.timeouts.idle`.
    pub path: String,
    /// The cause.
    pub message: String,
    /// What to do; empty if nothing can be said.
    pub help: String,
}

impl Diagnostic {
    /// The file's name; empty if there is none.
    #[must_use]
    pub fn file(&self) -> &str {
        self.place.as_ref().map_or("", |place| &place.source.name)
    }

    /// The line, from 1; 0 if there is none.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.place.as_ref().map_or(0, |place| place.line)
    }

    /// The column, from 1; 0 if there is none.
    #[must_use]
    pub fn column(&self) -> u32 {
        self.place.as_ref().map_or(0, |place| place.column)
    }

    /// Whether the configuration is refused for it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// On one line: `conf.yaml:3:5: error[unknown-field] listeners[0].adress: there is no such field here; did you mean `address`?`
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        let severity = if self.is_error() { "error" } else { "warning" };
        write!(f, "{severity}[{}] {}{}{}", self.code, self.path, if self.path.is_empty() { "" } else { ": " }, self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

/// Whether one of them is an error.
#[must_use]
pub fn any_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

/// Lines longer than this are shown in part.
const SHOWN_COLUMNS: usize = 160;

/// All of them as text, each with the line that it is about, and a last line that counts them.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    let paint = Paint(color);
    let mut text = String::new();
    for diagnostic in diagnostics {
        one(&mut text, diagnostic, paint);
    }
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let summary = match (errors, warnings) {
        (0, 0) => return text,
        (errors, 0) => count(errors, "error"),
        (0, warnings) => count(warnings, "warning"),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    let _ = writeln!(text, "{}", paint.bold(&summary));
    text
}

fn one(text: &mut String, diagnostic: &Diagnostic, paint: Paint) {
    let (word, hue) = if diagnostic.is_error() { ("error", 31) } else { ("warning", 33) };
    let head = format!("{word}[{}]", diagnostic.code);
    let _ = writeln!(text, "{}{} {}", paint.hue(&head, hue), paint.bold(":"), paint.bold(&diagnostic.message));
    let margin = diagnostic.place.as_ref().map_or(1, |place| place.line.to_string().len());
    let bar = paint.hue("|", 34);
    if let Some(place) = &diagnostic.place {
        let _ = writeln!(text, "{:margin$}{} {place}", "", paint.hue("-->", 34));
        let (line, start) = excerpt(place);
        if !line.is_empty() {
            let width = line.chars().count().saturating_sub(start).clamp(1, (place.length as usize).max(1));
            let carets = "^".repeat(width);
            let number = paint.hue(&place.line.to_string(), 34);
            let _ = writeln!(
                text,
                "{:margin$} {bar}\n{number} {bar} {line}\n{:margin$} {bar} {:start$}{}",
                "",
                "",
                "",
                paint.hue(&carets, hue)
            );
        }
    }
    for (word, what) in [("at", &diagnostic.path), ("help", &diagnostic.help)] {
        if !what.is_empty() {
            let _ = writeln!(text, "{:margin$} {} {}: {what}", "", paint.hue("=", 34), paint.bold(word));
        }
    }
    text.push('\n');
}

/// The part of the line around the place that is shown, without what a terminal would act upon, and where in it the place begins.
fn excerpt(place: &Place) -> (String, usize) {
    let start = (place.column as usize).saturating_sub(1);
    let skipped = start.saturating_sub(SHOWN_COLUMNS / 2);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = place.source.line(place.line).chars().skip(skipped).take(SHOWN_COLUMNS).map(clean).collect();
    (line.trim_end().to_owned(), start - skipped)
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn hue(self, text: &str, hue: u8) -> String {
        if self.0 { format!("\x1b[1;{hue}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        if self.0 { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diagnostic {
        let source = Arc::new(Source { name: "conf.yaml".into(), text: "a: 1\r\nlisteners:\r\n  - adress: x\r\n".into() });
        Diagnostic {
            severity: Severity::Error,
            code: Code::UnknownField,
            place: Some(Place { source, line: 3, column: 5, length: 6 }),
            path: "listeners[0].adress".into(),
            message: "there is no field `adress` here".into(),
            help: "did you mean `address`?".into(),
        }
    }

    #[test]
    fn it_reads_like_a_compiler() {
        let expected = "\
error[unknown-field]: there is no field `adress` here
 --> conf.yaml:3:5
  |
3 |   - adress: x
  |     ^^^^^^
  = at: listeners[0].adress
  = help: did you mean `address`?

1 error
";
        assert_eq!(render(&[sample()], false), expected);
        let colored = render(&[sample()], true);
        assert!(colored.contains("\x1b[1;31merror[unknown-field]\x1b[0m") && colored.contains("\x1b[1;31m^^^^^^\x1b[0m"), "{colored:?}");
        assert_eq!(
            sample().to_string(),
            "conf.yaml:3:5: error[unknown-field] listeners[0].adress: there is no field `adress` here; did you mean `address`?"
        );
        assert_eq!(render(&[], false), "");
    }

    #[test]
    fn a_place_outside_its_text_is_harmless() {
        let mut odd = sample();
        for (line, column, length) in [(0, 0, 0), (9, 9, 9), (3, 900, u32::MAX), (u32::MAX, u32::MAX, u32::MAX)] {
            odd.place = odd.place.map(|place| Place { line, column, length, ..place });
            assert!(render(std::slice::from_ref(&odd), false).len() < 2000);
        }
        let long = Arc::new(Source { name: "x".into(), text: format!("{}\x1b[2J{}", "a".repeat(5000), "b".repeat(5000)) });
        odd.place = Some(Place { source: long, line: 1, column: 5001, length: 4 });
        let text = render(&[odd], false);
        assert!(text.len() < 1000 && !text.contains('\x1b') && text.contains("aaa [2Jbbb"), "{text}");
    }

    #[test]
    fn codes_are_distinct() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
