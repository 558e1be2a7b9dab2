//! What a scalar of YAML 1.2 means: the core schema, and base64.
//!
//! Always: only an unquoted scalar is anything else than text, unless a tag says so.

/// What a scalar is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar {
    /// Nothing at all.
    Empty,
    /// `null` or `~`.
    Null,
    Bool(bool),
    /// Beyond 128 bits it is a [`Scalar::Float`].
    Int(i128),
    Float(f64),
    Text,
}

impl Scalar {
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Empty | Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text => "a text",
        }
    }
}

/// What this is. `Err` is a tag that is not of the core schema, or that the text does not fit.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Scalar, ()> {
    let read = || core(text);
    match tag {
        None if plain => Ok(read()),
        None | Some("!" | "!!str") => Ok(Scalar::Text),
        Some("!!null") => Some(read()).filter(|scalar| matches!(scalar, Scalar::Null | Scalar::Empty)).ok_or(()),
        Some("!!bool") => Some(read()).filter(|scalar| matches!(scalar, Scalar::Bool(_))).ok_or(()),
        Some("!!int") => Some(read()).filter(|scalar| matches!(scalar, Scalar::Int(_))).ok_or(()),
        Some("!!float") => match read() {
            // What a float cannot hold exactly is rounded, as for `1e400` and every other way to write one.
            #[allow(clippy::cast_precision_loss, reason = "a float was asked for")]
            Scalar::Int(value) => Ok(Scalar::Float(value as f64)),
            Scalar::Float(value) => Ok(Scalar::Float(value)),
            _ => Err(()),
        },
        Some(_) => Err(()),
    }
}

fn core(text: &str) -> Scalar {
    match text {
        "" => return Scalar::Empty,
        "null" | "Null" | "NULL" | "~" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    let (negative, digits) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Scalar::Float(if negative { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            return if all { i128::from_str_radix(digits, radix).map_or(Scalar::Text, Scalar::Int) } else { Scalar::Text };
        }
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_or_else(|_| float(text), Scalar::Int);
    }
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if number { float(text) } else { Scalar::Text }
}

fn float(text: &str) -> Scalar {
    text.parse().map_or(Scalar::Text, Scalar::Float)
}

/// Reads base64: standard or URL-safe, padded or not, white space ignored. `Err` is the first character that does not belong, or
/// nothing if the length is wrong.
pub(super) fn base64(text: &str) -> Result<Vec<u8>, Option<char>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held, mut digits, mut padding) = (0u32, 0u32, 0usize, 0usize);
    for c in text.chars() {
        let digit = match c {
            'A'..='Z' => c as u32 - 'A' as u32,
            'a'..='z' => c as u32 - 'a' as u32 + 26,
            '0'..='9' => c as u32 - '0' as u32 + 52,
            '+' | '-' => 62,
            '/' | '_' => 63,
            '=' => {
                padding += 1;
                continue;
            }
            ' ' | '\n' | '\r' | '\t' => continue,
            _ => return Err(Some(c)),
        };
        if padding > 0 {
            return Err(Some(c));
        }
        (bits, held, digits) = ((bits << 6) | digit, held + 6, digits + 1);
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).unwrap_or(0));
            bits &= (1 << held) - 1;
        }
    }
    let whole = digits % 4 != 1 && bits == 0 && (padding == 0 || (digits + padding).is_multiple_of(4) && padding <= 2);
    if whole { Ok(bytes) } else { Err(None) }
}

/// Writes base64, standard and padded.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_core_schema() {
        let plain = |text| resolve(text, true, None).unwrap();
        for (text, scalar) in [
            ("", Scalar::Empty),
            ("~", Scalar::Null),
            ("True", Scalar::Bool(true)),
            ("yes", Scalar::Text),
            ("12", Scalar::Int(12)),
            ("-12", Scalar::Int(-12)),
            ("+12", Scalar::Int(12)),
            ("0x1F", Scalar::Int(31)),
            ("0o17", Scalar::Int(15)),
            ("0xg", Scalar::Text),
            ("1.5", Scalar::Float(1.5)),
            ("1e3", Scalar::Float(1000.0)),
            (".5", Scalar::Float(0.5)),
            ("-.inf", Scalar::Float(f64::NEG_INFINITY)),
            ("1.2.3", Scalar::Text),
            ("1_000", Scalar::Text),
            ("-", Scalar::Text),
            (".", Scalar::Text),
            ("e3", Scalar::Text),
            ("infinity", Scalar::Text),
            ("250ms", Scalar::Text),
        ] {
            assert_eq!(plain(text), scalar, "{text}");
        }
        assert_eq!(resolve("12", false, None), Ok(Scalar::Text), "quoted");
        assert_eq!(resolve("12", true, Some("!!str")), Ok(Scalar::Text));
        assert_eq!(resolve("12", false, Some("!!int")), Ok(Scalar::Int(12)));
        assert_eq!(resolve("x", true, Some("!!int")), Err(()));
        assert_eq!(resolve("x", true, Some("!mine")), Err(()));
    }

    #[test]
    fn base64_of_all_kinds() {
        assert_eq!(base64("aGk=").unwrap(), b"hi");
        assert_eq!(base64("aGk").unwrap(), b"hi");
        assert_eq!(base64("+/-_\n").unwrap(), [0xfb, 0xff, 0xbf]);
        assert_eq!(base64("").unwrap(), b"");
        assert_eq!(base64("a*b="), Err(Some('*')));
        for text in ["a", "aGk=a", "aGl=", "aGk==", "=", "aGkx="] {
            assert!(base64(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn base64_goes_both_ways(bytes: Vec<u8>) {
            prop_assert_eq!(base64(&to_base64(&bytes)), Ok(bytes));
        }

        #[test]
        fn no_scalar_panics(text: String) {
            let _ = (core(&text), base64(&text));
        }
    }
}
