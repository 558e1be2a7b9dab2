//! What else a path or a header may mean to who serves it.
//!
//! The core hands every filter one spelling of a path, and the origin the same. Some servers still read it as another one: they drop what follows a
//! semicolon, take `%2F` or a backslash for a slash, `//` for one slash, or decode twice. A rule that protects a path has to hold for each reading.
//!
//! What always holds: a path in which nothing can be read in two ways has one reading, and costs one look at its bytes; there are at most
//! [`MOST`] readings. What it does not do: fold upper and lower case, or take a slash from the end: those are other paths.

use weir_sdk::Headers;

/// How many readings a path has at most.
const MOST: usize = 5;

/// Whether a test holds for any reading of a path without its query. It sees the path as it is first, and no further one once it holds.
pub fn any_reading(path: &[u8], mut test: impl FnMut(&[u8]) -> bool) -> bool {
    test(path) || (is_ambiguous(path) && others(path).iter().any(|reading| test(reading)))
}

/// Whether a test holds for any reading of a header: all of its values joined, each value by itself, and each entry of a list in them. Servers differ in which
/// of several they take. What is absent is read once, as that.
pub fn any_header_reading(headers: Headers<'_>, name: &str, mut test: impl FnMut(Option<&[u8]>) -> bool) -> bool {
    let joined = headers.get(name);
    // Some hosts hand over the first value only, so all of them are looked at.
    test(joined)
        || (joined.is_some() && values(headers, name).any(|value| test(Some(value)) || entries(value).any(|entry| test(Some(entry)))))
}

fn entries(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let list = if value.contains(&b',') { value } else { &[] };
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
}

/// Whether a test holds for every value of a header that came more than once, and for all of them joined.
pub fn every_header_reading(headers: Headers<'_>, name: &str, mut test: impl FnMut(Option<&[u8]>) -> bool) -> bool {
    let joined = headers.get(name);
    test(joined) && (joined.is_none() || values(headers, name).all(|value| test(Some(value))))
}

fn values<'c>(headers: Headers<'c>, name: &str) -> impl Iterator<Item = &'c [u8]> {
    headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

fn is_ambiguous(path: &[u8]) -> bool {
    let mut before = 0;
    for byte in path {
        // Dot segments are the core's to resolve, unless it was told not to.
        if matches!(byte, b';' | b'%' | b'\\') || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return true;
        }
        before = *byte;
    }
    false
}

/// Every reading but the path itself, each once.
fn others(path: &[u8]) -> Vec<Vec<u8>> {
    let mut readings: Vec<Vec<u8>> = Vec::with_capacity(MOST - 1);
    let mut add = |reading: Vec<u8>| {
        if reading != path && !readings.contains(&reading) {
            readings.push(reading);
        }
    };
    let bare = without_parameters(path);
    add(merged(&bare));
    add(bare);
    let mut decoded = without_parameters(path);
    // Who decodes twice is a misconfigured server; three times is nobody.
    for _ in 0..2 {
        decoded = resolved(&without_parameters(&decode(&decoded)));
        add(decoded.clone());
    }
    readings
}

/// Without what follows a semicolon, up to the next slash.
fn without_parameters(path: &[u8]) -> Vec<u8> {
    let mut is_parameter = false;
    let kept = path.iter().filter(|byte| {
        is_parameter = (is_parameter || **byte == b';') && **byte != b'/';
        !is_parameter
    });
    kept.copied().collect()
}

/// Decodes what changes which path it is: slashes, backslashes, semicolons, percent signs, and what needs no escape.
fn decode(path: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if let (b'%', [high, low, tail @ ..]) = (first, after)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
            && let byte = high << 4 | low
            && (byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'\\' | b';' | b'%' | b'-' | b'.' | b'_' | b'~'))
        {
            out.push(byte);
            rest = tail;
        } else {
            out.push(first);
        }
    }
    out
}

fn merged(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    merged
}

/// With backslashes as slashes, one slash where there are several, and without dot segments.
fn resolved(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    let mut segments = path.split(is_slash).skip(usize::from(path.first().is_some_and(is_slash))).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => out.truncate(out.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            out.push(b'/');
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_as(path: &str, meant: &str) -> bool {
        any_reading(path.as_bytes(), |reading| reading == meant.as_bytes())
    }

    #[test]
    fn what_some_server_takes_for_the_path_is_one_of_its_readings() {
        for path in [
            "/admin",
            "/admin;x",
            "/admin;x=1;y=2",
            "/;a/admin",
            "//admin",
            "/admin%3Bx",
            "/%2Fadmin",
            "/%5Cadmin",
            "/x%2F..%2Fadmin",
            "/x/%252e%252e/admin",
            "/%2561dmin",
            "/\\admin",
            "/.%3Bx/admin",
            "/x//..;a//admin",
            "/%2f%2F//admin;b%2fc",
        ] {
            assert!(
                reads_as(path, "/admin"),
                "{path}: {:?}",
                others(path.as_bytes()).iter().map(|one| String::from_utf8_lossy(one).into_owned()).collect::<Vec<_>>()
            );
        }
        assert!(reads_as("/a//b", "/a//b") && reads_as("/a;b", "/a;b") && reads_as("/a%2Fb", "/a/b"));
    }

    #[test]
    fn what_nobody_takes_for_another_path_has_one_reading() {
        for path in ["/", "/a", "/a/", "/A", "/a%20b", "/caf%C3%A9", "*", "", "/a%", "/a%zz", "/100%2"] {
            let mut seen = Vec::new();
            any_reading(path.as_bytes(), |reading| {
                seen.push(reading.to_vec());
                false
            });
            assert_eq!(seen, [path.as_bytes()], "{path}");
        }
    }

    #[test]
    fn there_are_few_readings_of_anything() {
        let mut state = 1_u64;
        let letters = b"/;%.\\25fFcCeEa";
        for _ in 0..20_000 {
            let mut path = vec![b'/'];
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                path.push(letters[(state >> 33) as usize % letters.len()]);
            }
            let mut count = 0;
            any_reading(&path, |reading| {
                count += 1;
                assert!(reading.first() == Some(&b'/'), "{}", String::from_utf8_lossy(&path));
                false
            });
            assert!(count <= MOST);
        }
    }
}
