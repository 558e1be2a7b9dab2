//! Attributes that are read together.
//!
//! A set is put together at configuration and read once per stream: one host call in Weir (`weir.attributes.get`), one per attribute elsewhere, with the
//! same values. What always holds: what was read lives until the callback ends, and reading it allocates nothing in Weir.

use std::borrow::Cow;
use std::cell::Cell;

use crate::Stream;
use crate::abi::{self, Status};

/// What the size of an absent attribute is.
const ABSENT: u32 = u32::MAX;

/// Attributes that are read together.
#[derive(Debug, Default)]
pub struct AttributeSet {
    /// Each path behind its length in two bytes.
    encoded: Vec<u8>,
    /// The paths, their segments joined by NUL.
    paths: Vec<Box<[u8]>>,
    /// The host has no call for many.
    one_by_one: Cell<bool>,
}

impl AttributeSet {
    /// No attributes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one by its segments, unless it is there: `&["request", "headers", "x-user"]`. Where it stands, for [`Values::get`].
    pub fn add(&mut self, path: &[&str]) -> usize {
        let path = path.join("\0").into_bytes();
        if let Some(known) = self.paths.iter().position(|one| **one == *path) {
            return known;
        }
        self.encoded.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.encoded.extend_from_slice(&path);
        self.paths.push(path.into());
        self.paths.len() - 1
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Their values now.
    #[must_use]
    pub fn read<'c, S>(&self, _of: &Stream<'c, S>) -> Values<'c> {
        if !self.one_by_one.get() {
            match abi::foreign("weir.attributes.get", &self.encoded) {
                Ok(values) => return Values { bytes: Cow::Borrowed(values) },
                Err(Status::NotFound | Status::Unimplemented) => self.one_by_one.set(true),
                Err(status) => crate::error!("attributes cannot be read together: {status}"),
            }
        }
        let mut bytes = vec![0; self.paths.len() * 8];
        for (at, path) in self.paths.iter().enumerate() {
            let start = u32::try_from(bytes.len()).unwrap_or(ABSENT);
            let value = abi::property(path);
            let size = value.map_or(ABSENT, |value| u32::try_from(value.len()).unwrap_or(ABSENT));
            bytes.extend_from_slice(value.unwrap_or_default());
            bytes[at * 8..at * 8 + 4].copy_from_slice(&start.to_le_bytes());
            bytes[at * 8 + 4..at * 8 + 8].copy_from_slice(&size.to_le_bytes());
        }
        Values { bytes: Cow::Owned(bytes) }
    }
}

/// The values of an [`AttributeSet`].
#[derive(Debug)]
pub struct Values<'c> {
    bytes: Cow<'c, [u8]>,
}

impl Values<'_> {
    fn place(&self, at: usize) -> Option<(usize, usize)> {
        let entry = self.bytes.get(at * 8..at * 8 + 8)?;
        let word = |bytes: &[u8]| bytes.try_into().map_or(ABSENT, u32::from_le_bytes);
        Some((word(&entry[..4]) as usize, word(&entry[4..]) as usize))
    }

    /// The value of one, as the ABI encodes it.
    #[inline]
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        let (start, size) = self.place(at)?;
        if size == ABSENT as usize { None } else { self.bytes.get(start..start.checked_add(size)?) }
    }

    /// The same as text; `None` where it is no UTF-8.
    #[must_use]
    pub fn text(&self, at: usize) -> Option<&str> {
        std::str::from_utf8(self.get(at)?).ok()
    }

    /// A whole number, a time or a duration.
    #[inline]
    #[must_use]
    pub fn integer(&self, at: usize) -> Option<i64> {
        Some(i64::from_le_bytes(self.get(at)?.try_into().ok()?))
    }

    /// A truth value.
    #[must_use]
    pub fn boolean(&self, at: usize) -> Option<bool> {
        self.get(at)?.first().map(|byte| *byte != 0)
    }

    /// The first `count` values as bytes that are the same exactly when the values are: what to look something up by that follows from them.
    #[inline]
    #[must_use]
    pub fn fingerprint(&self, count: usize) -> (&[u8], &[u8]) {
        let places = self.bytes.get(..count * 8).unwrap_or_default();
        let first = self.place(0).map_or(0, |(start, _)| start);
        let end = self.place(count).map_or(self.bytes.len(), |(start, _)| start);
        (places, self.bytes.get(first..end).unwrap_or_default())
    }
}
