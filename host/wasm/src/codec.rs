//! Header maps and property paths as the ABI writes them.
//!
//! A map is a little-endian u32 count, then per pair two u32 lengths, then per pair the key, a NUL, the value, a NUL. An existing but empty
//! map is four zero bytes: the one-byte form that the specification also allows makes the Rust and Go SDKs panic. Parsing accepts all three
//! empty forms and refuses, without panicking, whatever is larger or looser than the limits below. Nothing here knows a header's meaning.

use bytes::Bytes;

use crate::host::Headers;

/// Largest serialized map taken from a guest.
pub const MAX_MAP_BYTES: usize = 1 << 20;
/// Most pairs in a map taken from a guest.
pub const MAX_MAP_PAIRS: usize = 1024;

/// Why bytes are not a header map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Larger than [`MAX_MAP_BYTES`] or more than [`MAX_MAP_PAIRS`] pairs.
    #[error("the header map is larger than 1 MiB or 1024 pairs")]
    TooLarge,
    /// Lengths and bytes disagree.
    #[error("the header map's lengths do not agree with its bytes")]
    Malformed,
}

/// Parses a serialized map. Keys and values share `bytes`.
///
/// # Errors
/// When it is too large or its lengths do not add up to exactly its bytes.
pub fn parse_map(bytes: &Bytes) -> Result<Vec<(Bytes, Bytes)>, MapError> {
    if bytes.len() > MAX_MAP_BYTES {
        return Err(MapError::TooLarge);
    }
    if matches!(bytes.as_ref(), [] | [0]) {
        return Ok(Vec::new());
    }
    let count = read_u32(bytes, 0).ok_or(MapError::Malformed)? as usize;
    if count > MAX_MAP_PAIRS {
        return Err(MapError::TooLarge);
    }
    let mut pairs = Vec::with_capacity(count);
    let mut at = 4 + count * 8;
    for index in 0..count {
        let key = read_u32(bytes, 4 + index * 8).ok_or(MapError::Malformed)? as usize;
        let value = read_u32(bytes, 8 + index * 8).ok_or(MapError::Malformed)? as usize;
        pairs.push((terminated(bytes, &mut at, key)?, terminated(bytes, &mut at, value)?));
    }
    if at == bytes.len() { Ok(pairs) } else { Err(MapError::Malformed) }
}

fn terminated(bytes: &Bytes, at: &mut usize, length: usize) -> Result<Bytes, MapError> {
    let end = at.checked_add(length).ok_or(MapError::Malformed)?;
    if bytes.get(end) != Some(&0) {
        return Err(MapError::Malformed);
    }
    let piece = bytes.slice(*at..end);
    *at = end + 1;
    Ok(piece)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Size of `headers` once serialized.
#[must_use]
pub fn map_size(headers: &dyn Headers) -> usize {
    let mut size = 4;
    headers.visit(&mut |key, value| size += 8 + key.len() + 1 + value.len() + 1);
    size
}

/// Serializes `headers` into `out`, which has exactly [`map_size`] bytes. `false` if it does not fit, which only a map that lies about
/// itself can cause.
pub fn write_map(headers: &dyn Headers, out: &mut [u8]) -> bool {
    let mut count = 0usize;
    headers.visit(&mut |_, _| count += 1);
    let mut fits = put(out, 0, &(count as u32).to_le_bytes());
    let (mut index, mut at) = (4, 4 + count * 8);
    headers.visit(&mut |key, value| {
        fits &= put(out, index, &(key.len() as u32).to_le_bytes()) && put(out, index + 4, &(value.len() as u32).to_le_bytes());
        index += 8;
        for piece in [key, value] {
            fits &= put(out, at, piece) && put(out, at + piece.len(), &[0]);
            at += piece.len() + 1;
        }
    });
    fits && at == out.len()
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) -> bool {
    match out.get_mut(at..at + bytes.len()) {
        Some(target) => {
            target.copy_from_slice(bytes);
            true
        }
        None => false,
    }
}

/// Pairs as a read-only map, for callout replies and attribute lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(pub Vec<(Bytes, Bytes)>);

impl Headers for Pairs {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_ref())
    }

    fn visit(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in &self.0 {
            each(key, value);
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.0.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.0.iter().position(|(key, _)| key == name) {
            Some(first) => {
                let mut index = 0;
                self.0.retain(|(key, _)| {
                    index += 1;
                    index - 1 <= first || key != name
                });
                self.0[first].1 = Bytes::copy_from_slice(value);
            }
            None => self.add(name, value),
        }
    }

    fn remove(&mut self, name: &[u8]) {
        self.0.retain(|(key, _)| key != name);
    }
}

/// A property path: segments joined by NUL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Path<'a>(&'a [u8]);

impl<'a> Path<'a> {
    /// Takes the bytes as a guest sent them; one trailing NUL is dropped.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.strip_suffix(&[0]).unwrap_or(bytes))
    }

    /// The bytes, segments joined by NUL.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The first segment and the rest.
    #[must_use]
    pub fn split(self) -> (&'a [u8], Path<'a>) {
        match self.0.iter().position(|byte| *byte == 0) {
            Some(at) => (&self.0[..at], Path(&self.0[at + 1..])),
            None => (self.0, Path(&[])),
        }
    }

    /// The segments in order.
    pub fn segments(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split(|byte| *byte == 0)
    }

    /// Whether the path is exactly these segments.
    #[must_use]
    pub fn is(self, segments: &[&str]) -> bool {
        self.segments().eq(segments.iter().map(|segment| segment.as_bytes()))
    }
}

impl std::fmt::Debug for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for segment in self.segments() {
            write!(f, "{separator}{}", String::from_utf8_lossy(segment))?;
            separator = ".";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serialized(pairs: &Pairs) -> Bytes {
        let mut out = vec![0; map_size(pairs)];
        assert!(write_map(pairs, &mut out));
        out.into()
    }

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        Pairs(list.iter().map(|(k, v)| (Bytes::copy_from_slice(k.as_bytes()), Bytes::copy_from_slice(v.as_bytes()))).collect())
    }

    #[test]
    fn the_layout_is_the_abis() {
        let bytes = serialized(&pairs(&[("a", "1"), ("bc", "")]));
        assert_eq!(bytes.as_ref(), b"\x02\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0a\x001\0bc\0\0");
        assert_eq!(parse_map(&bytes), Ok(pairs(&[("a", "1"), ("bc", "")]).0));
    }

    #[test]
    fn every_empty_form_is_an_empty_map() {
        for bytes in [&b""[..], b"\0", b"\0\0\0\0"] {
            assert_eq!(parse_map(&Bytes::from_static(bytes)), Ok(Vec::new()), "{bytes:?}");
        }
        assert_eq!(serialized(&Pairs::default()).as_ref(), [0; 4]);
    }

    #[test]
    fn loose_maps_are_refused() {
        let good = serialized(&pairs(&[("key", "value")]));
        for cut in 1..good.len() {
            assert_eq!(parse_map(&good.slice(..cut)), Err(MapError::Malformed), "cut at {cut}");
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert_eq!(parse_map(&longer.into()), Err(MapError::Malformed));
        let mut no_nul = good.to_vec();
        *no_nul.last_mut().expect("not empty") = b'x';
        assert_eq!(parse_map(&no_nul.into()), Err(MapError::Malformed));
        assert_eq!(parse_map(&Bytes::from_static(b"\xff\xff\xff\xff")), Err(MapError::TooLarge));
        assert_eq!(parse_map(&vec![0; MAX_MAP_BYTES + 1].into()), Err(MapError::TooLarge));
    }

    #[test]
    fn setting_keeps_the_first_place() {
        let mut map = pairs(&[("a", "1"), ("b", "2"), ("a", "3")]);
        map.set(b"a", b"9");
        assert_eq!(map, pairs(&[("a", "9"), ("b", "2")]));
        map.set(b"c", b"4");
        map.remove(b"b");
        assert_eq!(map, pairs(&[("a", "9"), ("c", "4")]));
    }

    #[test]
    fn paths_split_at_nul() {
        let path = Path::new(b"request\0headers\0x-a\0");
        assert_eq!(path.split().0, b"request");
        assert_eq!(path.split().1.split().0, b"headers");
        assert!(path.is(&["request", "headers", "x-a"]));
        assert!(!path.is(&["request", "headers"]));
        assert_eq!(format!("{path:?}"), "request.headers.x-a");
        assert!(Path::new(b"").is(&[""]));
    }
}
