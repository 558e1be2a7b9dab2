//! Maps as the ABI writes them: a count, the lengths, then the bytes, each ended by a NUL.
//!
//! What always holds: reading never goes beyond the bytes; a map that lies about its lengths ends where they stop making sense.

/// Writes pairs.
pub(crate) fn encode<'p>(pairs: impl Iterator<Item = (&'p [u8], &'p [u8])> + Clone) -> Vec<u8> {
    let word = |size: usize| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
    let size = 4 + pairs.clone().map(|(name, value)| 10 + name.len() + value.len()).sum::<usize>();
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&word(pairs.clone().count()));
    for (name, value) in pairs.clone() {
        out.extend_from_slice(&word(name.len()));
        out.extend_from_slice(&word(value.len()));
    }
    for part in pairs.flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(part);
        out.push(0);
    }
    out
}

/// Reads pairs.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    lengths: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// Reads what an attribute holds that is a map: `xds.upstream_host_metadata`.
    #[must_use]
    pub fn read(encoded: &'a [u8]) -> Self {
        Self::new(encoded)
    }

    pub(crate) fn new(encoded: &'a [u8]) -> Self {
        let (lengths, bytes) = encoded
            .split_first_chunk()
            .and_then(|(count, rest)| {
                let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
                rest.split_at_checked(count.checked_mul(8)?)
            })
            .unwrap_or_default();
        Self { lengths, bytes }
    }

    fn part(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.lengths.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let part = self.bytes.get(..length)?;
        self.bytes = self.bytes.get(length.checked_add(1)?..)?;
        self.lengths = rest;
        Some(part)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.part()?, self.part()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let pairs: [(&[u8], &[u8]); 3] = [(b":path", b"/"), (b"", b""), (b"x", b"a\0b")];
        let encoded = encode(pairs.into_iter());
        assert!(Pairs::new(&encoded).eq(pairs));
        assert_eq!(encode([].into_iter()), [0; 4]);
    }

    #[test]
    fn no_cut_or_lie_is_read_beyond_its_end() {
        let encoded = encode([(&b"name"[..], &b"value"[..]), (b"a", b"b")].into_iter());
        for cut in 0..encoded.len() {
            assert!(Pairs::new(&encoded[..cut]).count() < 2, "{cut}");
        }
        for at in 0..encoded.len() {
            let mut lying = encoded.clone();
            lying[at] = 0xff;
            let _ = Pairs::new(&lying).count();
        }
    }
}
