//! The functions, and the texts that stand for points in time.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Error, Value, names, uri};

/// The most memory that one compiled pattern takes.
const PATTERN_SIZE: usize = 1 << 20;

/// Calls a function; what a method is called on is its first argument.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (name, arguments) {
        ("ADD", [Value::String(left), Value::String(right)]) => Ok(Value::String(Arc::from(format!("{left}{right}")))),
        ("ADD", [Value::Int64(left), Value::Int64(right)]) => Ok(Value::Int64(left.wrapping_add(*right))),
        ("ADD", [Value::Double(left), Value::Double(right)]) => Ok(Value::Double(left + right)),
        ("size", [Value::String(text)]) => Ok(Value::Int64(i64::try_from(text.len()).unwrap_or(i64::MAX))),
        ("ip", [Value::String(text)]) => match text.parse::<IpAddr>() {
            Ok(address) => Ok(Value::IpAddress(address.to_canonical())),
            Err(_) => Err(Error::new(format!("could not convert {text} to IP_ADDRESS"))),
        },
        ("timestamp", [Value::String(text)]) => timestamp(text)
            .map(Value::Timestamp)
            .ok_or_else(|| Error::new(format!("could not convert '{text}' to TIMESTAMP. expected format: '2006-01-02T15:04:05Z07:00'"))),
        ("dnsName", [Value::String(text)]) => names::dns(text).map(|name| Value::String(name.into())),
        ("email", [Value::String(text)]) => names::email(text).map(|()| Value::String(Arc::clone(text))),
        ("uri", [Value::String(text)]) => uri::read(text).map(|_| Value::String(Arc::clone(text))),
        ("match", [Value::String(text), Value::String(pattern)]) => Ok(Value::Bool(matches_glob(text, pattern))),
        ("toLower", [Value::String(text)]) => Ok(Value::String(text.to_lowercase().into())),
        ("emptyStringMap", []) => Ok(Value::StringMap(Arc::default())),
        // The pattern is what the method is called on.
        ("matches", [Value::String(pattern), Value::String(text)]) => matches_regex(pattern, text).map(Value::Bool),
        ("startsWith", [Value::String(text), Value::String(start)]) => Ok(Value::Bool(text.starts_with(&**start))),
        ("endsWith", [Value::String(text), Value::String(end)]) => Ok(Value::Bool(text.ends_with(&**end))),
        _ => Err(Error::new(format!("{name} was given values of other types than it takes"))),
    }
}

/// A star at one end of the pattern stands for anything.
fn matches_glob(text: &str, pattern: &str) -> bool {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(start), _) => text.starts_with(start),
        (None, Some(end)) => text.ends_with(end),
        (None, None) => text == pattern,
    }
}

/// Whether the pattern is anywhere in the text. For a text of ASCII, classes such as `\d` are RE2's, which know no more.
pub(in crate::mixer) fn matches_regex(pattern: &str, text: &str) -> Result<bool, Error> {
    let build = |unicode: bool| regex::bytes::RegexBuilder::new(pattern).unicode(unicode).size_limit(PATTERN_SIZE).build();
    let built = if text.is_ascii() && pattern.is_ascii() { build(false).or_else(|_| build(true)) } else { build(true) };
    match built {
        Ok(regex) => Ok(regex.is_match(text.as_bytes())),
        Err(error) => Err(Error::new(format!("error parsing regexp: {error}"))),
    }
}

/// The nanoseconds since 1970 of a time in RFC 3339.
#[must_use]
pub fn timestamp(text: &str) -> Option<i128> {
    let number = |from: usize, to: usize, most: i64| {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<i64>().ok().filter(|value| *value <= most)
    };
    let mark = |at: usize, mark: &str| (text.get(at..=at) == Some(mark)).then_some(());
    let (year, month, day) = (number(0, 4, 9999)?, number(5, 7, 12)?, number(8, 10, 31)?);
    let (hour, minute, second) = (number(11, 13, 23)?, number(14, 16, 59)?, number(17, 19, 59)?);
    [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")].into_iter().try_for_each(|(at, wanted)| mark(at, wanted))?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if month == 0 || day == 0 || day > days_of_month {
        return None;
    }
    let rest = text.get(19..)?;
    let fraction = rest.strip_prefix('.').map_or("", |rest| &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()]);
    let rest = if rest.starts_with('.') { rest.get(1 + fraction.len()..).filter(|_| !fraction.is_empty())? } else { rest };
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse::<i128>().ok()?;
    let at = text.len() - rest.len();
    let east = match rest.as_bytes() {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let offset = number(at + 1, at + 3, 24)? * 3600 + number(at + 4, at + 6, 59)? * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    // Days since 1970, counted in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 719_469;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - east;
    Some(i128::from(seconds) * 1_000_000_000 + nanoseconds)
}
