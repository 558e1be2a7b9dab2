//! From text to tokens. Columns are counted in bytes here; whoever shows one counts letters.

use crate::Mistake;

/// A longer expression is no expression that anybody wrote.
pub(crate) const MOST_BYTES: usize = 8192;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    Symbol(&'static str),
    End,
}

/// Longer ones first.
const SYMBOLS: [&str; 27] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]", "{", "}", "=", "&",
    "|",
];

/// The tokens, each with the byte where it begins; the last is [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, Mistake> {
    if text.len() > MOST_BYTES {
        return Err(Mistake { column: 0, cause: format!("an expression has at most {MOST_BYTES} bytes") });
    }
    let mut list = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let taken = match first {
            _ if first.is_whitespace() => first.len_utf8(),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ => {
                let (token, taken) = one(rest, first).map_err(|cause| Mistake { column: at, cause })?;
                list.push((token, at));
                taken
            }
        };
        at += taken;
    }
    list.push((Token::End, text.len()));
    Ok(list)
}

fn one(rest: &str, first: char) -> Result<(Token, usize), String> {
    if let Some((prefix, quoted)) = quoted(rest) {
        return string(prefix, quoted).map(|(token, taken)| (token, prefix.len() + taken));
    }
    if first.is_ascii_digit() || first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()) {
        return number(rest);
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        return Ok((Token::Name(rest[..end].to_owned()), end));
    }
    match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        Some(symbol @ &("=" | "&" | "|")) => Err(format!("`{symbol}` alone means nothing; `{symbol}{symbol}` is meant")),
        Some(symbol) => Ok((Token::Symbol(symbol), symbol.len())),
        None => Err(format!("{first:?} means nothing here")),
    }
}

/// The letters before a quotation mark, and what follows from it on.
fn quoted(rest: &str) -> Option<(&str, &str)> {
    ["", "r", "R", "b", "B", "rb", "br", "bR", "Br", "Rb", "rB", "BR", "RB"].into_iter().find_map(|prefix| {
        let quoted = rest.strip_prefix(prefix)?;
        quoted.starts_with(['"', '\'']).then_some((&rest[..prefix.len()], quoted))
    })
}

fn string(prefix: &str, quoted: &str) -> Result<(Token, usize), String> {
    let (raw, bytes) = (prefix.contains(['r', 'R']), prefix.contains(['b', 'B']));
    let mark = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|mark| quoted.starts_with(mark)).unwrap_or("\"");
    let mut out = Vec::new();
    let mut at = mark.len();
    loop {
        let rest = &quoted[at..];
        let Some(letter) = rest.chars().next() else { return Err("the text does not end".into()) };
        if rest.starts_with(mark) {
            at += mark.len();
            break;
        }
        if letter == '\n' && mark.len() == 1 {
            return Err("the text does not end on its line; `\\n` is a line's end".into());
        }
        if letter == '\\' && !raw {
            at += escape(rest, bytes, &mut out)?;
        } else {
            at += letter.len_utf8();
            out.extend_from_slice(&rest.as_bytes()[..letter.len_utf8()]);
        }
    }
    if bytes {
        return Ok((Token::Bytes(out), at));
    }
    String::from_utf8(out).map(|text| (Token::Text(text), at)).map_err(|_| "this is no UTF-8; `b\"…\"` takes any bytes".into())
}

/// What an escape sequence stands for; how long it is.
fn escape(rest: &str, bytes: bool, out: &mut Vec<u8>) -> Result<usize, String> {
    let unknown = || "no such escape sequence; a backslash is `\\\\`".to_owned();
    let kind = rest.chars().nth(1).ok_or_else(unknown)?;
    let plain = match kind {
        'n' => Some(b'\n'),
        't' => Some(b'\t'),
        'r' => Some(b'\r'),
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'v' => Some(11),
        '\\' | '"' | '\'' | '`' | '?' => Some(kind as u8),
        _ => None,
    };
    if let Some(byte) = plain {
        out.push(byte);
        return Ok(2);
    }
    let (skip, digits, radix) = match kind {
        'x' | 'X' => (2, 2, 16),
        'u' => (2, 4, 16),
        'U' => (2, 8, 16),
        '0'..='3' => (1, 3, 8),
        _ => return Err(unknown()),
    };
    let code = rest.get(skip..skip + digits).and_then(|digits| u32::from_str_radix(digits, radix).ok()).ok_or_else(unknown)?;
    match (bytes, u8::try_from(code)) {
        (true, Ok(byte)) if matches!(kind, 'x' | 'X' | '0'..='3') => out.push(byte),
        (true, _) => return Err("bytes have no such escape sequence".into()),
        (false, _) => {
            let letter = char::from_u32(code).ok_or_else(unknown)?;
            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(skip + digits)
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let too_large = |_| "the number is too large".to_owned();
    let hex = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"));
    let digits = |text: &str, is: fn(&char) -> bool| text.chars().take_while(is).count();
    let (token, mut taken) = match hex {
        Some(hex) => {
            let end = digits(hex, char::is_ascii_hexdigit);
            (Token::Int(u64::from_str_radix(&hex[..end], 16).map_err(|_| "this is no number".to_owned())?), end + 2)
        }
        None => {
            let mut end = digits(rest, char::is_ascii_digit);
            let mut double = false;
            if rest[end..].starts_with('.') && rest[end + 1..].starts_with(|next: char| next.is_ascii_digit()) {
                double = true;
                end += 1 + digits(&rest[end + 1..], char::is_ascii_digit);
            }
            if rest[end..].starts_with(['e', 'E']) {
                let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
                let exponent = digits(&rest[end + 1 + sign..], char::is_ascii_digit);
                if exponent == 0 {
                    return Err("the exponent is missing".into());
                }
                double = true;
                end += 1 + sign + exponent;
            }
            let token = match double {
                true => Token::Double(rest[..end].parse().map_err(|_| "this is no number".to_owned())?),
                false => Token::Int(rest[..end].parse().map_err(too_large)?),
            };
            (token, end)
        }
    };
    let token = match token {
        Token::Int(number) if rest[taken..].starts_with(['u', 'U']) => {
            taken += 1;
            Token::Uint(number)
        }
        other => other,
    };
    match rest[taken..].chars().next() {
        Some(letter) if letter.is_ascii_alphanumeric() || letter == '_' => Err("a number is followed by no letter".into()),
        _ => Ok((token, taken)),
    }
}
