//! What filters set by `proxy_set_property`: filter state of a stream, or of an instance outside streams.
//!
//! Bounded to [`MOST`] bytes in all; a value that is set again with its old size costs no allocation. A list, because a stream has a handful.

/// Bytes of paths and values, and of what keeping them takes, that one stream or instance may hold.
const MOST: usize = 1 << 20;
/// What a property takes beside its path and value.
const OVERHEAD: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Properties {
    list: Vec<(Box<[u8]>, Box<[u8]>)>,
    bytes: usize,
}

impl Properties {
    pub(crate) fn get(&self, path: &[u8]) -> Option<&[u8]> {
        self.list.iter().find(|(known, _)| known.as_ref() == path).map(|(_, value)| value.as_ref())
    }

    /// `false`: there is too much already, and nothing changed.
    #[must_use]
    pub(crate) fn set(&mut self, path: &[u8], value: &[u8]) -> bool {
        let known = self.list.iter().position(|(known, _)| known.as_ref() == path);
        let cost = |value: usize| path.len() + value + OVERHEAD;
        let old = known.map_or(0, |index| cost(self.list[index].1.len()));
        let bytes = self.bytes - old + cost(value.len());
        if bytes > MOST {
            return false;
        }
        self.bytes = bytes;
        match known {
            Some(index) if self.list[index].1.len() == value.len() => self.list[index].1.copy_from_slice(value),
            Some(index) => self.list[index].1 = value.into(),
            None => self.list.push((path.into(), value.into())),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_and_bounded() {
        let mut properties = Properties::default();
        assert!(properties.set(b"a", b"1") && properties.set(b"b", b"2") && properties.set(b"a", b"333"));
        assert_eq!((properties.get(b"a"), properties.get(b"b"), properties.get(b"c")), (Some(&b"333"[..]), Some(&b"2"[..]), None));
        assert_eq!(properties.bytes, 6 + 2 * OVERHEAD);
        assert!(!properties.set(b"c", &vec![0; MOST]), "too much");
        assert_eq!(properties.get(b"c"), None);
        assert!(properties.set(b"a", b"") && properties.set(b"c", &vec![0; MOST - 4 - 3 * OVERHEAD]), "room was given back");
        assert!(!properties.set(b"d", b""));
    }
}
