//! What filters set by `proxy_set_property`: filter state of a stream, or of an instance outside streams.
//!
//! Bounded to [`MOST`] bytes in all. Paths and values lie one after the other in one piece of memory that the next stream uses again, so that a
//! filter which sets a property for every request costs no allocation. A list, because a stream has a handful.

/// Bytes of paths and values, and of what keeping them takes, that one stream or instance may hold.
const MOST: usize = 1 << 20;
/// What a property takes beside its path and value.
const OVERHEAD: usize = 64;
/// More memory than this is not kept for the next stream.
const KEPT: usize = 4 << 10;

/// Where a property lies: its value right behind its path.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// What most paths differ in, so that few are looked at whole.
    tail: u64,
    start: usize,
    path: usize,
    value: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Properties {
    text: Vec<u8>,
    places: Vec<Place>,
}

impl Properties {
    pub(crate) fn get(&self, path: &[u8]) -> Option<&[u8]> {
        let place = &self.places[self.find(path)?];
        Some(&self.text[place.start + place.path..][..place.value])
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        let tail = tail(path);
        self.places.iter().position(|place| place.tail == tail && &self.text[place.start..place.start + place.path] == path)
    }

    /// Bytes that count against the bound.
    fn bytes(&self) -> usize {
        self.text.len() + self.places.len() * OVERHEAD
    }

    /// `false`: there is too much already, and nothing changed.
    #[must_use]
    pub(crate) fn set(&mut self, path: &[u8], value: &[u8]) -> bool {
        let Some(index) = self.find(path) else {
            if self.bytes() + path.len() + value.len() + OVERHEAD > MOST {
                return false;
            }
            self.places.push(Place { tail: tail(path), start: self.text.len(), path: path.len(), value: value.len() });
            self.text.extend_from_slice(path);
            self.text.extend_from_slice(value);
            return true;
        };
        let Place { start, path, value: old, .. } = self.places[index];
        if self.bytes() - old + value.len() > MOST {
            return false;
        }
        let from = start + path;
        if old == value.len() {
            self.text[from..from + old].copy_from_slice(value);
            return true;
        }
        self.text.splice(from..from + old, value.iter().copied());
        self.places[index].value = value.len();
        for later in &mut self.places[index + 1..] {
            later.start = later.start - old + value.len();
        }
        true
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.places.clear();
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        }
        self.places.shrink_to(KEPT / OVERHEAD);
    }
}

/// The last eight bytes.
fn tail(path: &[u8]) -> u64 {
    path.iter().rev().take(8).fold(0, |tail, byte| tail << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_and_bounded() {
        let mut properties = Properties::default();
        assert!(properties.set(b"a", b"1") && properties.set(b"b", b"2") && properties.set(b"a", b"333"));
        assert_eq!((properties.get(b"a"), properties.get(b"b"), properties.get(b"c")), (Some(&b"333"[..]), Some(&b"2"[..]), None));
        assert_eq!(properties.bytes(), 6 + 2 * OVERHEAD);
        assert_eq!(properties.get(b"b"), Some(&b"2"[..]), "what lies behind a value that grew");
        assert!(!properties.set(b"c", &vec![0; MOST]), "too much");
        assert_eq!(properties.get(b"c"), None);
        assert!(properties.set(b"a", b"") && properties.set(b"c", &vec![0; MOST - 4 - 3 * OVERHEAD]), "room was given back");
        assert!(!properties.set(b"d", b""));
    }
}
