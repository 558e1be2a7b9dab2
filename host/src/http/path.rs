//! Paths and hosts in one spelling, before anything is decided about them.
//!
//! What always holds: what comes out goes through again unchanged; it has no `.` or `..` segment, no escaped character that needs no escape, and no byte that
//! a target cannot have (with `normalize` on). A spelling that some origins read as another path, and for which there is no one form, is refused: `..;x`, `..%2F`
//! where escaped slashes stay, NUL, escapes that are none.
//!
//! Not done here: parameters of a segment (`/admin;x`) stay, as a path may mean something by them. The query is not looked into.

use weir_model::config::PathNormalization;
use weir_model::config::path_normalization::Escaped;

/// How paths are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRules {
    normalize: bool,
    merge_slashes: bool,
    escaped_slashes: Escaped,
    backslash_to_slash: bool,
}

impl Default for PathRules {
    fn default() -> Self {
        Self::new(&PathNormalization::default())
    }
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalized {
    /// It was fine.
    AsIs,
    /// The new one is in `out`.
    Changed,
    /// The client is to be sent (307) to the one in `out`.
    Redirect,
}

/// Why a path is refused, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No slash at the start, or a byte that a target cannot have.
    #[error("path_invalid")]
    Invalid,
    /// A percent sign without two hexadecimal digits, an escaped NUL, or bytes that are no UTF-8 in any spelling.
    #[error("path_escape")]
    Escape,
    /// An escaped slash where the configuration wants none.
    #[error("path_escaped_slash")]
    EscapedSlash,
    /// Dots that some take for a parent and some do not.
    #[error("path_ambiguous")]
    Ambiguous,
}

impl PathError {
    /// The error's stable name.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Invalid => "path_invalid",
            Self::Escape => "path_escape",
            Self::EscapedSlash => "path_escaped_slash",
            Self::Ambiguous => "path_ambiguous",
        }
    }
}

impl PathRules {
    /// The rules that a configuration asks for.
    #[must_use]
    pub fn new(config: &PathNormalization) -> Self {
        Self {
            normalize: config.normalize.unwrap_or(true),
            merge_slashes: config.merge_slashes,
            escaped_slashes: config.escaped_slashes(),
            backslash_to_slash: config.backslash_to_slash.unwrap_or(true),
        }
    }

    /// Judges a request's `:path`. What has to change is in `out`, which is cleared first.
    ///
    /// # Errors
    /// When there is no one path that all would read it as.
    #[inline]
    pub fn apply(&self, path: &[u8], out: &mut Vec<u8>) -> Result<Normalized, PathError> {
        if is_plain(path) { Ok(Normalized::AsIs) } else { self.rewrite(path, out) }
    }

    #[cold]
    fn rewrite(&self, path: &[u8], out: &mut Vec<u8>) -> Result<Normalized, PathError> {
        out.clear();
        if path == b"*" {
            return Ok(Normalized::AsIs);
        }
        if !path.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#') {
            return Err(PathError::Invalid);
        }
        let query = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
        let (path_only, query) = path.split_at(query);
        let redirect = self.decode(path_only, out)?;
        if out.first() != Some(&b'/') {
            return Err(PathError::Invalid);
        }
        if self.normalize {
            resolve_dots(out)?;
        }
        if self.merge_slashes {
            merge_slashes(out);
        }
        if redirect {
            // `//host` in a `location` would be another host; a browser takes `/\` for the same.
            let slashes = out.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
            out.drain(1..slashes.max(1));
        }
        out.extend_from_slice(query);
        Ok(match redirect {
            true => Normalized::Redirect,
            false if out == path => Normalized::AsIs,
            false => Normalized::Changed,
        })
    }

    /// Copies the path with its escapes and backslashes dealt with. Returns whether the client has to be sent to the result.
    fn decode(&self, path: &[u8], out: &mut Vec<u8>) -> Result<bool, PathError> {
        let mut redirect = false;
        let mut at = 0;
        while let Some(byte) = path.get(at) {
            at += 1;
            if *byte == b'\\' && self.backslash_to_slash {
                out.push(b'/');
                continue;
            }
            if *byte != b'%' {
                out.push(*byte);
                continue;
            }
            let escaped = path.get(at..at + 2).and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?));
            match escaped {
                Some(0) => return Err(PathError::Escape),
                None if self.normalize => return Err(PathError::Escape),
                // Never part of UTF-8, but of long spellings of `.` and `/` that some decoders take.
                Some(0xc0 | 0xc1 | 0xf5..) if self.normalize => return Err(PathError::Escape),
                None => {
                    out.push(b'%');
                    continue;
                }
                Some(slash @ (b'/' | b'\\')) => match self.escaped_slashes {
                    Escaped::Reject => return Err(PathError::EscapedSlash),
                    Escaped::Keep => push_escaped(path, at, self.normalize, out),
                    Escaped::Redirect | Escaped::Unescape => {
                        redirect |= self.escaped_slashes == Escaped::Redirect;
                        out.push(if self.backslash_to_slash { b'/' } else { slash });
                    }
                },
                Some(byte) if self.normalize && is_unreserved(byte) => out.push(byte),
                Some(_) => push_escaped(path, at, self.normalize, out),
            }
            at += 2;
        }
        Ok(redirect)
    }
}

/// Copies an escape whose digits are at `at`, in upper case if the path is normalised.
fn push_escaped(path: &[u8], at: usize, upper: bool, out: &mut Vec<u8>) {
    out.push(b'%');
    for digit in path.get(at..at + 2).unwrap_or_default() {
        out.push(if upper { digit.to_ascii_uppercase() } else { *digit });
    }
}

/// Resolves `.` and `..` (RFC 3986 section 5.2.4), and refuses what only looks like them.
fn resolve_dots(path: &mut Vec<u8>) -> Result<(), PathError> {
    let mut written = 0;
    let mut at = 0;
    while at < path.len() {
        let start = at + 1;
        let end = path.iter().skip(start).position(|byte| *byte == b'/').map_or(path.len(), |length| start + length);
        let segment = path.get(start..end).unwrap_or_default();
        let is_last = end == path.len();
        match segment {
            b"." => {}
            b".." => written = path.iter().take(written).rposition(|byte| *byte == b'/').unwrap_or(0),
            _ if is_ambiguous(segment) => return Err(PathError::Ambiguous),
            _ => {
                path.copy_within(at..end, written);
                written += end - at;
                at = end;
                continue;
            }
        }
        // A path that ends in dots ends in a slash.
        if is_last {
            path[written] = b'/';
            written += 1;
        }
        at = end;
    }
    path.truncate(written);
    Ok(())
}

/// Whether a part of a segment is `.` or `..` for who ends parts at `;`, `\` or an escaped slash.
fn is_ambiguous(segment: &[u8]) -> bool {
    if !segment.contains(&b'.') || !segment.iter().any(|byte| matches!(byte, b';' | b'\\' | b'%')) {
        return false;
    }
    let mut part_start = 0;
    let mut at = 0;
    while at <= segment.len() {
        let (is_end, length) = match segment.get(at..).unwrap_or_default() {
            [] | [b'\\', ..] => (true, 1),
            [b'%', b'2', b'F', ..] | [b'%', b'5', b'C', ..] => (true, 3),
            _ => (false, 1),
        };
        if is_end {
            let part = segment.get(part_start..at).unwrap_or_default();
            let name_end = part.windows(3).position(|three| three == b"%3B").unwrap_or(part.len());
            let name_end = part.iter().position(|byte| *byte == b';').unwrap_or(part.len()).min(name_end);
            if matches!(part.get(..name_end), Some(b"." | b"..")) {
                return true;
            }
            part_start = at + length;
        }
        at += length;
    }
    false
}

fn merge_slashes(path: &mut Vec<u8>) {
    path.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' | b'A'..=b'F' => Some((digit | 0x20) - b'a' + 10),
        _ => None,
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// High bits where a byte is below `bound` (at most 128). There may be too many after the first one, never too few.
#[inline]
fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHS
}

#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

/// Whether nothing can have to be done: a slash at the start, and no percent sign, backslash, dot or slash after a slash before the query; only
/// target bytes. May say no to a path that is fine.
#[inline]
fn is_plain(path: &[u8]) -> bool {
    if path.len() < 8 {
        return is_plain_short(path);
    }
    let mut at = 0;
    let mut after_slash = 0;
    loop {
        let Some(word) = path.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) else { return false };
        let word = u64::from_le_bytes(word);
        let slashes = equal(word, b'/');
        let query = equal(word, b'?');
        let after_slashes = (slashes << 8 | after_slash) & (slashes | equal(word, b'.'));
        let odd = after_slashes
            | below(word, b'!')
            | equal(word, 0x7f)
            | equal(word, b'#')
            | equal(word, b'%')
            | equal(word, b'\\')
            | (word & HIGHS);
        if odd | query != 0 {
            // What is odd after the question mark is the query's.
            let before_query = query.wrapping_sub(1) & !query;
            let start = at + (query.trailing_zeros() / 8) as usize;
            return query != 0 && odd & before_query == 0 && path[0] == b'/' && is_plain_query(&path[start..]);
        }
        if at + 8 == path.len() {
            return path[0] == b'/';
        }
        // The last bytes are looked at together with some before them, which are fine.
        let next = (at + 8).min(path.len() - 8);
        after_slash = u64::from(path[next - 1] == b'/') << 7;
        at = next;
    }
}

fn is_plain_short(path: &[u8]) -> bool {
    let mut before = 0;
    for (at, byte) in path.iter().enumerate() {
        match byte {
            b'?' => return at > 0 && is_plain_query(&path[at..]),
            b'/' | b'.' if before == b'/' => return false,
            b'%' | b'\\' | b'#' => return false,
            b'!'..=b'~' if at > 0 || *byte == b'/' => before = *byte,
            _ => return false,
        }
    }
    !path.is_empty()
}

fn is_plain_query(query: &[u8]) -> bool {
    query.iter().fold(true, |fine, byte| fine & matches!(byte, b'!'..=b'~') & (*byte != b'#'))
}

/// An authority as hosts are compared: lower case, without the scheme's default port and without a dot after the name. `scratch` is used when it has to
/// change.
#[must_use]
pub fn matching_host<'a>(authority: &'a [u8], is_https: bool, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let default: &[u8] = if is_https { b":443" } else { b":80" };
    let host = authority.strip_suffix(default).unwrap_or(authority);
    let has_upper = host.iter().fold(false, |upper, byte| upper | byte.is_ascii_uppercase());
    let (name, port) = split_port(host);
    let stripped = name.strip_suffix(b".").unwrap_or(name);
    if !has_upper && (stripped.len() == name.len() || port.is_empty()) {
        return stripped_of(host, name.len() - stripped.len());
    }
    scratch.clear();
    scratch.extend_from_slice(stripped);
    scratch.extend_from_slice(port);
    scratch.make_ascii_lowercase();
    scratch
}

fn stripped_of(host: &[u8], less: usize) -> &[u8] {
    host.get(..host.len() - less).unwrap_or_default()
}

/// Splits an authority into its host and its port with the colon, which may be missing.
#[must_use]
pub fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let colon = authority.len() - digits;
    match authority.get(..colon) {
        // More than one colon without brackets is an address without a port.
        Some([host @ .., b':']) if !host.contains(&b':') || host.last() == Some(&b']') => authority.split_at(host.len()),
        _ => (authority, b""),
    }
}

#[cfg(test)]
mod tests;
