//! Regular expressions as RE2 has them, made into what the regex engine here takes.
//!
//! Always: what RE2 takes has the same meaning here, and what it refuses is refused. The two differ in little: inside of brackets this engine has sets
//! of sets, a `{` that begins no repetition is a `{` to RE2, and it knows `\Q…\E`; it refuses repetitions of repetitions and more than 1000 of a thing.
//! What neither this engine as it is built nor the proxy's has is refused: classes of Unicode by name, `\p{Greek}`.

use std::fmt::Write as _;

use regex::Regex;

/// The engine's program for all of a text or a part of it, as the pattern says.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    regex::RegexBuilder::new(&translated).size_limit(1 << 21).build().map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it cannot be read").trim().to_owned();
        format!("`{pattern}` is not a regular expression that RE2 knows: {}", reason.trim_start_matches("error: "))
    })
}

fn refuse(pattern: &str, why: &str) -> String {
    format!("`{pattern}` is not a regular expression that RE2 knows: {why}")
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    // What the last thing was: whether it can be repeated, or is a repetition.
    let mut last = Last::Nothing;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        (rest, last) = match c {
            '\\' => (escape(pattern, after, &mut out)?, Last::Atom),
            '[' => (class(pattern, after, &mut out)?, Last::Atom),
            '*' | '+' | '?' => (repetition(pattern, &rest[..1], after, last, &mut out)?, Last::Repetition),
            '{' => match counted(after) {
                None => {
                    out.push_str("\\{");
                    (after, Last::Atom)
                }
                Some((_, most)) if most > 1000 => return Err(refuse(pattern, "more than 1000 repetitions")),
                Some((length, _)) => (repetition(pattern, &rest[..=length], &after[length..], last, &mut out)?, Last::Repetition),
            },
            '}' => {
                out.push_str("\\}");
                (after, Last::Atom)
            }
            '(' => (group(pattern, after, &mut out)?, Last::Nothing),
            '|' => {
                out.push('|');
                (after, Last::Nothing)
            }
            other => {
                out.push(other);
                (after, Last::Atom)
            }
        };
    }
    Ok(out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Atom,
    Repetition,
}

fn repetition<'a>(pattern: &str, sign: &str, mut after: &'a str, last: Last, out: &mut String) -> Result<&'a str, String> {
    match last {
        Last::Nothing => return Err(refuse(pattern, "there is nothing before a repetition")),
        Last::Repetition => return Err(refuse(pattern, "a repetition of a repetition")),
        Last::Atom => {}
    }
    out.push_str(sign);
    if let Some(lazy) = after.strip_prefix('?') {
        out.push('?');
        after = lazy;
    }
    Ok(after)
}

/// The length of `2}`, `2,}` or `2,5}` after a `{`, and the larger number.
fn counted(text: &str) -> Option<(usize, u32)> {
    let end = text.find('}')?;
    let (least, most) = text[..end].split_once(',').map_or((&text[..end], None), |(least, most)| (least, Some(most)));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().unwrap_or(u32::MAX));
    if least.is_empty() {
        return None;
    }
    let least = number(least)?;
    let most = match most {
        None | Some("") => least,
        Some(most) => number(most)?,
    };
    Some((end + 1, least.max(most)))
}

fn group<'a>(pattern: &str, after: &'a str, out: &mut String) -> Result<&'a str, String> {
    out.push('(');
    let Some(special) = after.strip_prefix('?') else { return Ok(after) };
    if special.starts_with("P<") || (special.starts_with('<') && !special.starts_with("<=") && !special.starts_with("<!")) {
        let end = special.find('>').ok_or_else(|| refuse(pattern, "the name of a group does not end"))?;
        let _ = write!(out, "?{}", &special[..=end]);
        return Ok(&special[end + 1..]);
    }
    let end = special.find([':', ')']).ok_or_else(|| refuse(pattern, "a group does not end"))?;
    let flags = &special[..end];
    let known = flags.chars().all(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-')) && flags.matches('-').count() <= 1 && !flags.ends_with('-');
    if !known || (flags.is_empty() && special.as_bytes()[end] == b')') {
        return Err(refuse(pattern, "a group begins with `(?` and no flags"));
    }
    let _ = write!(out, "?{flags}{}", &special[end..=end]);
    Ok(&special[end + 1..])
}

fn escape<'a>(pattern: &str, after: &'a str, out: &mut String) -> Result<&'a str, String> {
    let Some(c) = after.chars().next() else { return Err(refuse(pattern, "it ends in a backslash")) };
    let rest = &after[c.len_utf8()..];
    match c {
        'Q' => {
            let (text, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            let _ = write!(out, "(?:{})", regex::escape(text));
            return Ok(rest);
        }
        'C' => return Err(refuse(pattern, "`\\C` is a single byte, which is not known here")),
        // A number in octal.
        '0'..='7' => {
            let length = after.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            if c != '0' && length == 1 {
                return Err(refuse(pattern, "groups cannot be referred back to"));
            }
            let code = u32::from_str_radix(&after[..length], 8).unwrap_or_default();
            let _ = write!(out, "\\x{{{code:X}}}");
            return Ok(&after[length..]);
        }
        c if c.is_ascii_alphanumeric() && !"abBfnrtvxAzdDwWsSpP".contains(c) => {
            return Err(refuse(pattern, &format!("`\\{c}` means nothing")));
        }
        c if c.is_ascii_punctuation() => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        // The engine's words about word boundaries have no meaning to RE2.
        'b' if rest.starts_with('{') => out.push_str("\\b(?:)"),
        c if c.is_ascii() => {
            out.push('\\');
            out.push(c);
        }
        c => out.push(c),
    }
    Ok(rest)
}

/// What may stand in `[:…:]`.
const CLASSES: [&str; 14] =
    ["alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit"];

fn class<'a>(pattern: &str, after: &'a str, out: &mut String) -> Result<&'a str, String> {
    out.push('[');
    let mut rest = after;
    if let Some(negated) = rest.strip_prefix('^') {
        out.push('^');
        rest = negated;
    }
    let mut first = true;
    loop {
        let Some(c) = rest.chars().next() else { return Err(refuse(pattern, "a `[` without a `]`")) };
        let next = &rest[c.len_utf8()..];
        rest = match c {
            ']' if !first => {
                out.push(']');
                return Ok(next);
            }
            '\\' => escape(pattern, next, out)?,
            '[' if next.starts_with(':') && next.contains(":]") => {
                let end = next.find(":]").map_or(0, |end| end + 2);
                let name = next[1..end - 2].trim_start_matches('^');
                if !CLASSES.contains(&name) {
                    return Err(refuse(pattern, &format!("there is no class `{name}`")));
                }
                out.push('[');
                out.push_str(&next[..end]);
                &next[end..]
            }
            '[' | ']' | '&' | '~' => {
                out.push('\\');
                out.push(c);
                next
            }
            '-' if next.starts_with('-') => {
                out.push_str("\\-");
                next
            }
            other => {
                out.push(other);
                next
            }
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_takes_is_taken_with_its_meaning() {
        for (pattern, matches, not) in [
            ("^(.*?;)?(user=jason)(;.*)?$", "user=jason;x", "user=jasonx"),
            ("^[[]$", "[", "]"),
            ("^[]a]$", "]", "b"),
            ("^[a&&b]$", "&", "c"),
            ("^[~~]$", "~", "a"),
            ("^a{,2}$", "a{,2}", "aa"),
            ("^a{2}$", "aa", "a{2}"),
            ("^{x}$", "{x}", "x"),
            (r"^\Qa.b*\E$", "a.b*", "axb"),
            (r"^\d+\.\w$", "12.a", "12xa"),
            (r"^[\d.-]+$", "1.2-3", "a"),
            ("^[[:alpha:]]+$", "abc", "1"),
            ("(?i)^abc$", "ABC", "abd"),
            ("^(?P<x>a)(?:b)$", "ab", "a"),
            (r"^\/a\-b\_$", "/a-b_", "/ab"),
            (r"^\x41\101$", "AA", "A"),
            ("^a??b$", "ab", "aab"),
        ] {
            let regex = compile(pattern).unwrap_or_else(|error| panic!("{error}"));
            assert!(regex.is_match(matches) && !regex.is_match(not), "{pattern}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in [
            "[A-Z",
            "*",
            "a**",
            "a+*",
            "(",
            ")",
            "(?",
            "a{1001}",
            "(?x)a",
            "(?=a)",
            "(?<=a)",
            r"(a)\1",
            "\\",
            r"\y",
            "[z-a]",
            "?",
            "(*)",
            "|*",
            "[[:nope:]]",
        ] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }
}
