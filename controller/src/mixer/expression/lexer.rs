//! Tokens, as Go has them: comments are skipped, and a new line ends what could end there.

use super::Error;

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Name(String),
    Int(String),
    Float(String),
    /// With its quotes.
    Text(String),
    /// An operator, a bracket or a mark.
    Mark(&'static str),
    /// A new line where an operand had ended.
    End,
}

/// Longer ones first.
const MARKS: [&str; 44] = [
    "<<=", ">>=", "&^=", "...", "&&", "||", "<-", "++", "--", "==", "!=", "<=", ">=", ":=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=",
    "<<", ">>", "&^", "+", "-", "*", "/", "%", "&", "|", "^", "<", ">", "=", "!", "(", ")", "[", "]", ",", ".", ":",
];

const KEYWORDS: [&str; 25] = [
    "break",
    "case",
    "chan",
    "const",
    "continue",
    "default",
    "defer",
    "else",
    "fallthrough",
    "for",
    "func",
    "go",
    "goto",
    "if",
    "import",
    "interface",
    "map",
    "package",
    "range",
    "return",
    "select",
    "struct",
    "switch",
    "type",
    "var",
];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = 0;
    while let Some(first) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = &text[at..];
        let (kind, length) = match first {
            '\n' => (ends_operand(tokens.last()).then_some(Kind::End), 1),
            ' ' | '\t' | '\r' => (None, 1),
            '/' if rest.starts_with("//") => (None, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => match rest.find("*/") {
                Some(end) => ((rest[..end].contains('\n') && ends_operand(tokens.last())).then_some(Kind::End), end + 2),
                None => return Err(wrong(at, "comment not terminated")),
            },
            '"' | '\'' | '`' => {
                let length = quoted(rest, first).ok_or_else(|| wrong(at, "literal not terminated"))?;
                (Some(Kind::Text(rest[..length].to_owned())), length)
            }
            _ if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit())) => {
                let (kind, length) = number(rest).ok_or_else(|| wrong(at, "this is no number"))?;
                (Some(kind), length)
            }
            _ if first == '_' || first.is_alphabetic() => {
                let length = rest.find(|letter: char| letter != '_' && !letter.is_alphanumeric()).unwrap_or(rest.len());
                let name = &rest[..length];
                if KEYWORDS.contains(&name) {
                    return Err(wrong(at, format!("expected operand, found '{name}'")));
                }
                (Some(Kind::Name(name.to_owned())), length)
            }
            _ => match MARKS.iter().find(|mark| rest.starts_with(**mark)) {
                Some(mark) => (Some(Kind::Mark(mark)), mark.len()),
                None => return Err(wrong(at, format!("illegal character U+{:04X} '{first}'", u32::from(first)))),
            },
        };
        tokens.extend(kind.map(|kind| Token { kind, at }));
        at += length;
    }
    Ok(tokens)
}

fn ends_operand(last: Option<&Token>) -> bool {
    match last.map(|token| &token.kind) {
        None | Some(Kind::End) => false,
        Some(Kind::Mark(mark)) => matches!(*mark, ")" | "]" | "++" | "--"),
        Some(_) => true,
    }
}

/// Where the mistake is, and what it is. Expressions are mostly one line, so that a column says enough.
pub(super) fn wrong(at: usize, message: impl AsRef<str>) -> Error {
    Error::new(format!("1:{}: {}", at + 1, message.as_ref()))
}

/// The length of a literal in quotes.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            '\n' if quote != '`' => return None,
            _ if letter == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Decimal numbers only: Mixer read no others.
fn number(text: &str) -> Option<(Kind, usize)> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(0);
    let mut whole = true;
    if bytes.get(end) == Some(&b'.') {
        whole = false;
        end += 1;
        end += digits(end);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits((end + 1 + sign).min(bytes.len()));
        if exponent == 0 {
            return None;
        }
        whole = false;
        end += 1 + sign + exponent;
    }
    // `0x1F`, `1_000`, `1i` and `09` are numbers of Go, or mistakes in it, and none of Mixer's.
    let octal = whole && end > 1 && bytes[0] == b'0';
    let continued = bytes.get(end).is_some_and(|byte| *byte == b'_' || byte.is_ascii_alphanumeric());
    if continued || (octal && bytes[..end].iter().any(|digit| *digit > b'7')) {
        return None;
    }
    let kind = if whole { Kind::Int } else { Kind::Float };
    Some((kind(text[..end].to_owned()), end))
}
