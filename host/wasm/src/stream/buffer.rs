//! The bytes of a body while filters look at them.
//!
//! A chunk that nobody changes stays the [`Bytes`] it arrived as: it is copied only when a second chunk joins it or a filter writes to it.
//! Bounds are the caller's business: a buffer never refuses anything.

use bytes::{Bytes, BytesMut};

/// A contiguous, cheaply passed-on byte string.
#[derive(Debug, Default)]
pub(crate) enum Buffer {
    #[default]
    Empty,
    Shared(Bytes),
    Owned(BytesMut),
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Shared(bytes) => bytes.is_empty(),
            Self::Owned(bytes) => bytes.is_empty(),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    /// At most `max` bytes from `start`; nothing when `start` lies beyond the end.
    pub(crate) fn slice(&self, start: usize, max: usize) -> &[u8] {
        let rest = self.as_slice().get(start..).unwrap_or_default();
        rest.get(..max).unwrap_or(rest)
    }

    pub(crate) fn append(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = Self::Shared(chunk);
        } else {
            self.make_owned(chunk.len()).extend_from_slice(&chunk);
        }
    }

    /// Replaces `size` bytes at `start` by `data`. Ranges beyond the end are cut to it, so that any start past the end appends.
    pub(crate) fn splice(&mut self, start: usize, size: usize, data: &[u8]) {
        let length = self.len();
        let start = start.min(length);
        let end = start.saturating_add(size).min(length);
        if start == 0 && end == length {
            *self = if data.is_empty() { Self::Empty } else { Self::Owned(BytesMut::from(data)) };
            return;
        }
        let bytes = self.make_owned(data.len());
        let tail = bytes.split_off(end);
        bytes.truncate(start);
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(&tail);
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        if !matches!(self, Self::Empty) {
            *self = Self::Empty;
        }
    }

    /// Everything, leaving the buffer empty.
    pub(crate) fn take(&mut self) -> Bytes {
        match std::mem::take(self) {
            Self::Empty => Bytes::new(),
            Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes.freeze(),
        }
    }

    fn make_owned(&mut self, room: usize) -> &mut BytesMut {
        let mut owned = match std::mem::take(self) {
            Self::Empty => BytesMut::new(),
            Self::Shared(bytes) => bytes.try_into_mut().unwrap_or_else(|shared| {
                let mut owned = BytesMut::with_capacity(shared.len() + room);
                owned.extend_from_slice(&shared);
                owned
            }),
            Self::Owned(bytes) => bytes,
        };
        owned.reserve(room);
        *self = Self::Owned(owned);
        match self {
            Self::Owned(bytes) => bytes,
            Self::Empty | Self::Shared(_) => unreachable!("assigned above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(chunks: &[&str]) -> Buffer {
        let mut buffer = Buffer::default();
        for chunk in chunks {
            buffer.append(Bytes::copy_from_slice(chunk.as_bytes()));
        }
        buffer
    }

    #[test]
    fn splice_replaces_any_range() {
        for (start, size, data, want) in [
            (0, 0, "ab", "ab0123456789"),
            (0, 10, "ab", "ab"),
            (0, usize::MAX, "", ""),
            (10, 0, "ab", "0123456789ab"),
            (99, 5, "ab", "0123456789ab"),
            (3, 2, "ab", "012ab56789"),
            (3, 0, "ab", "012ab3456789"),
            (8, 9, "", "01234567"),
            (2, usize::MAX, "z", "01z"),
        ] {
            let mut buffer = buffer(&["01234", "56789"]);
            buffer.splice(start, size, data.as_bytes());
            assert_eq!(buffer.take(), want.as_bytes(), "splice({start}, {size}, {data:?})");
        }
    }

    #[test]
    fn one_chunk_passes_without_a_copy() {
        let chunk = Bytes::from_static(b"as it came");
        let mut buffer = Buffer::default();
        buffer.append(chunk.clone());
        assert_eq!(buffer.slice(3, 2), b"it");
        assert_eq!(buffer.slice(3, 99), b"it came");
        assert_eq!(buffer.slice(99, 1), b"");
        assert_eq!(buffer.take().as_ptr(), chunk.as_ptr());
        assert!(buffer.is_empty());
    }
}
