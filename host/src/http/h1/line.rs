//! The bytes of a head: what a token, a value and a line may hold, eight bytes at a time.
//!
//! What always holds: a line ends with CR LF and nothing else; reading past what has arrived is [`Stop::Incomplete`], never a guess.

use super::Refusal;
use crate::http::fields::Known;

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Refused(Refusal),
    /// All that is there is fine, and it is not all.
    Incomplete,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A part of a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Span {
    #[inline]
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        self.end - self.start
    }
}

/// Bytes of a token in lower case, 0 for the others.
pub(super) const TOKEN: [u8; 256] = token_table();

const fn token_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let others = b"!#$%&'*+-.^_`|~";
        let mut is_token = byte.is_ascii_alphanumeric();
        let mut other = 0;
        while other < others.len() {
            is_token |= others[other] == byte;
            other += 1;
        }
        if is_token {
            table[at] = byte.to_ascii_lowercase();
        }
        at += 1;
    }
    table
}

/// Whether all bytes are token bytes, and there is one.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)] != 0)
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// High bits where a byte is below `bound` (at most 128). Exact up to the first one, which is all that is used.
#[inline]
fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHS
}

#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

/// Index of the first byte from `at` on that `stops` marks, or the end. `stops` must judge bytes 8 at a time and `stops_byte` alike.
#[inline]
fn find(bytes: &[u8], mut at: usize, stops: impl Fn(u64) -> u64, stops_byte: impl Fn(u8) -> bool) -> usize {
    while let Some(chunk) = bytes.get(at..at + 8)
        && let Ok(chunk) = <[u8; 8]>::try_from(chunk)
    {
        let stop = stops(u64::from_le_bytes(chunk));
        if stop != 0 {
            return at + (stop.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !stops_byte(*byte)) {
        at += 1;
    }
    at
}

/// Index of the first control character from `at` on, HTAB included, or the end.
#[inline]
fn find_control(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, |word| below(word, b' ') | equal(word, 0x7f), |byte| byte < b' ' || byte == 0x7f)
}

/// Index of the first byte from `at` on that a request target cannot have, or the end.
#[inline]
pub(super) fn find_target_end(bytes: &[u8], at: usize) -> usize {
    find(
        bytes,
        at,
        |word| below(word, b'!') | equal(word, 0x7f) | equal(word, b'#') | (word & HIGHS),
        |byte| !matches!(byte, b'!'..=b'~') || byte == b'#',
    )
}

/// Whether a field value has no control character but HTAB.
#[inline]
pub(super) fn is_value(bytes: &[u8]) -> bool {
    let mut at = find_control(bytes, 0);
    while bytes.get(at) == Some(&b'\t') {
        at = find_control(bytes, at + 1);
    }
    at == bytes.len()
}

/// Checks for CR LF at `at`, where something that ends a line is. Returns what comes after it.
#[inline]
pub(super) fn line_end(bytes: &[u8], at: usize, otherwise: Refusal) -> Result<usize, Stop> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(at + 2),
        (Some(b'\r'), Some(_)) => Err(Refusal::BareCr.into()),
        (Some(b'\n'), _) => Err(Refusal::BareLf.into()),
        (Some(b'\r') | None, _) => Err(Stop::Incomplete),
        (Some(_), _) => Err(otherwise.into()),
    }
}

/// Index of the value's end from `at` on, where its line ends.
#[inline]
pub(super) fn value_end(bytes: &[u8], at: usize) -> usize {
    let mut at = find_control(bytes, at);
    while bytes.get(at) == Some(&b'\t') {
        at = find_control(bytes, at + 1);
    }
    at
}

/// One field of a head or of trailers.
pub(super) struct Line {
    pub(super) known: Option<Known>,
    pub(super) name: Span,
    /// Without the white space around it.
    pub(super) value: Span,
    /// Where the next line starts.
    pub(super) next: usize,
    /// Whether the name has letters in upper case.
    pub(super) upper: bool,
}

/// A name at the start of `bytes`, and what comes after it.
struct Name {
    known: Option<Known>,
    length: usize,
    /// Not 0 if there are letters in upper case.
    upper: u64,
}

/// All known names are shorter.
const LONGEST_KNOWN: usize = 32;

/// High bits of the bytes of `seven`, none of which has one, that are at least `bound`. Exact.
#[inline]
const fn at_least(seven: u64, bound: u8) -> u64 {
    (seven + ONES * (0x80 - bound as u64)) & HIGHS
}

/// Reads a name of letters, digits and dashes, eight bytes at a time; nothing when it is not one, or not followed by a colon.
#[inline]
fn usual_name(bytes: &[u8]) -> Option<Name> {
    let mut lower = [0; LONGEST_KNOWN];
    let (mut length, mut upper) = (0, 0);
    for (place, chunk) in lower.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks::<8>().0) {
        let word = u64::from_le_bytes(*chunk);
        let seven = word & !HIGHS;
        let capitals = at_least(seven, b'A') & !at_least(seven, b'[');
        let low = seven | capitals >> 2;
        let letters = at_least(low, b'a') & !at_least(low, b'{');
        let others = at_least(low, b'-') & !at_least(low, b'.') | at_least(low, b'0') & !at_least(low, b':');
        let stop = (!(letters | others) | word) & HIGHS;
        *place = low.to_le_bytes();
        if stop == 0 {
            upper |= capitals;
            length += 8;
            continue;
        }
        upper |= capitals & (stop ^ stop.wrapping_sub(1));
        length += (stop.trailing_zeros() / 8) as usize;
        let name = lower.get(..length).filter(|_| bytes.get(length) == Some(&b':'))?;
        return (length > 0).then(|| Name { known: Known::of(name), length, upper });
    }
    None
}

/// Reads any name, byte by byte.
#[cold]
fn name(bytes: &[u8]) -> Name {
    let length = bytes.iter().position(|byte| TOKEN[usize::from(*byte)] == 0).unwrap_or(bytes.len());
    let name = bytes.get(..length).unwrap_or_default();
    let upper = name.iter().fold(0, |changed, byte| changed | u64::from(TOKEN[usize::from(*byte)] ^ byte));
    let mut lower = [0; LONGEST_KNOWN];
    let known = lower.get_mut(..length).and_then(|lower| {
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Known::of(lower)
    });
    Name { known, length, upper }
}

/// Reads the field that starts at `at`; nothing when that is the empty line.
#[inline]
pub(super) fn field(bytes: &[u8], at: usize) -> Result<Option<Line>, Stop> {
    if bytes.get(at) == Some(&b'\r') {
        line_end(bytes, at, Refusal::BareCr)?;
        return Ok(None);
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let Name { known, length, upper } = usual_name(rest).unwrap_or_else(|| name(rest));
    let end = at + length;
    match bytes.get(end) {
        Some(b':') if length > 0 => {}
        Some(after) => return Err(name_refusal(*after, length == 0).into()),
        None => return Err(Stop::Incomplete),
    }
    let mut start = end + 1;
    while let Some(b' ' | b'\t') = bytes.get(start) {
        start += 1;
    }
    let stop = value_end(bytes, start);
    let next = line_end(bytes, stop, Refusal::FieldValue)?;
    let mut value = Span { start, end: stop };
    while let Some(b' ' | b'\t') = value.of(bytes).last() {
        value.end -= 1;
    }
    Ok(Some(Line { known, name: Span { start: at, end }, value, next, upper: upper != 0 }))
}

#[cold]
fn name_refusal(after: u8, is_empty: bool) -> Refusal {
    match after {
        b' ' | b'\t' if is_empty => Refusal::ObsFold,
        b' ' | b'\t' => Refusal::SpaceBeforeColon,
        b'\n' => Refusal::BareLf,
        _ => Refusal::FieldName,
    }
}

/// Whether `bytes` are a host as `host` and `:authority` have it: a name or an address in brackets, and an optional port.
///
/// Narrower than RFC 3986: no user info, and no comma, which would look like two hosts.
#[must_use]
pub(in crate::http) fn is_host(bytes: &[u8]) -> bool {
    let (host, rest) = if bytes.first() == Some(&b'[') {
        let Some(end) = memchr::memchr(b']', bytes) else { return false };
        let inner = bytes.get(1..end).unwrap_or_default();
        if inner.is_empty() || !inner.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
            return false;
        }
        bytes.split_at(end + 1)
    } else {
        let end = bytes.iter().position(|byte| HOST[usize::from(*byte)] == 0).unwrap_or(bytes.len());
        bytes.split_at(end)
    };
    !host.is_empty() && is_port(rest)
}

/// Nothing, or a colon and a number that a port can be.
fn is_port(rest: &[u8]) -> bool {
    let Some((colon, digits)) = rest.split_first() else { return true };
    let number = digits.iter().try_fold(0_u32, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')));
    *colon == b':' && matches!(digits.len(), 1..=5) && number.is_some_and(|number| number <= 65535)
}

/// 1 for what a host name may hold: unreserved characters, percent and those delimiters that separate nothing in a header.
const HOST: [u8; 256] = host_table();

const fn host_table() -> [u8; 256] {
    let mut table = [0; 256];
    let others = b"-._~%!$&'()*+;=";
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        table[at] = byte.is_ascii_alphanumeric() as u8;
        at += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = 1;
        at += 1;
    }
    table
}

/// The parts of a list, without the white space around them and without empty ones.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}

/// A number in decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_alike_in_both_ways() {
        for length in 1..40 {
            for place in 0..length {
                for byte in 0..=255_u8 {
                    let mut bytes = b"content-length-x9Y".repeat(3);
                    bytes.truncate(length);
                    bytes[place] = byte;
                    bytes.extend(b": a value\r\n");
                    let other = name(&bytes);
                    let Some(usual) = usual_name(&bytes) else {
                        let common = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
                        let is_common = bytes[..other.length].iter().all(common) && other.length > 0 && bytes[other.length] == b':';
                        assert!(!is_common || other.length >= LONGEST_KNOWN, "{}", bytes.escape_ascii());
                        continue;
                    };
                    assert_eq!(
                        (usual.known, usual.length, usual.upper != 0),
                        (other.known, other.length, other.upper != 0),
                        "{}",
                        bytes.escape_ascii()
                    );
                }
            }
        }
        assert_eq!(usual_name(b"Content-Length: 5\r\n").and_then(|name| name.known), Some(Known::ContentLength));
    }

    #[test]
    fn eight_bytes_at_a_time_are_judged_like_one() {
        for length in 0..20 {
            for place in 0..length {
                for byte in 0..=255_u8 {
                    let mut bytes = vec![b'a'; length];
                    bytes[place] = byte;
                    let stops = byte < b' ' || byte == 0x7f;
                    assert_eq!(find_control(&bytes, 0), if stops { place } else { length }, "{byte} at {place}");
                    let stops = byte <= b' ' || byte >= 0x7f || byte == b'#';
                    assert_eq!(find_target_end(&bytes, 0), if stops { place } else { length }, "{byte} at {place}");
                    assert_eq!(is_value(&bytes), byte == b'\t' || !(byte < b' ' || byte == 0x7f), "{byte} at {place}");
                }
            }
        }
    }

    #[test]
    fn hosts() {
        for good in ["a", "a.example", "A.EXAMPLE.:80", "10.0.0.1:65535", "[::1]", "[::1]:8080", "_svc.x", "a%20b", "x:1"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:", "a:x", "a:65536", "a:000080", "u@a", "a/b", "a b", "a,b", "[::1", "[]", "[::1]x", "[g]", "a\\b", "a?b", "a#b",
            "é", "a:1:2", "\0",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", "1 ", "0x1", "18446744073709551616", "1,1", "1_0"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }
}
