//! Just enough of Rust's lexing to look at code without its comments and strings.
//!
//! Always: the result has the length and the lines of the input, so an offset means the same place in both.
//!
//! Deliberately not here: tokens or a syntax tree. Rules that need one belong to clippy.

/// The source with every comment, string and character literal turned to spaces; line ends stay.
#[must_use]
pub fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole literals and comments were overwritten, so characters outside ASCII are whole or gone.
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` itself when none starts there.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment(rest),
        [b'"', ..] => at + quoted(rest, 1),
        [b'b' | b'c', b'"', ..] if !after_word => at + quoted(rest, 2),
        [b'r', b'"' | b'#', ..] if !after_word => at + raw(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !after_word => at + raw(rest, 2),
        [b'\'', b'\\', ..] => at + 3 + rest.iter().skip(3).position(|b| *b == b'\'').map_or(rest.len().saturating_sub(3), |n| n + 1),
        [b'\'', ..] => at + character(rest),
        _ => at,
    }
    .min(bytes.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8], open: usize) -> usize {
    let mut at = open;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A raw string whose `#`s start at `open`; a raw identifier (`r#type`) is no literal.
fn raw(rest: &[u8], open: usize) -> usize {
    let hashes = rest[open..].iter().take_while(|b| **b == b'#').count();
    if rest.get(open + hashes) != Some(&b'"') {
        return 0;
    }
    let body = open + hashes + 1;
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    rest[body..].windows(end.len()).position(|w| w == end).map_or(rest.len(), |n| body + n + end.len())
}

/// A character literal without an escape; a lifetime is none.
fn character(rest: &[u8]) -> usize {
    let width = rest.iter().skip(1).skip(1).take_while(|b| **b & 0xC0 == 0x80).count();
    if rest.get(2 + width) == Some(&b'\'') { 3 + width } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go_and_places_stay() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("un\"safe", 'x', '\'', '\u{e9}')"#, "f(          ,    ,     ,         )"),
            (r##"let a = r#"x"y"#; r#type"##, "let a =         ; r#type"),
            ("b\"x\" br\"y\" c\"z\" bar\"t\"", "                bar   "),
            ("impl<'a> F<'a> { 'é' }", "impl<'a> F<'a> {      }"),
            ("\"never ends", "           "),
            ("'\\", "  "),
        ];
        for (source, expected) in cases {
            assert_eq!(code_only(source).trim_end(), expected.trim_end(), "{source}");
            assert_eq!(code_only(source).matches('\n').count(), source.matches('\n').count());
        }
    }
}
