//! The table behind a scope: entries with `cas`, expiry and exact least-recently-used eviction, under no lock of its own.
//!
//! What always holds: entries and bytes stay within the limits after every call; what counts as bytes is what is allocated
//! (capacity, not length), so a guest cannot hold more by writing large and then small; a `cas` is never 0 and no two writes
//! to the table get the same one until 2³² later, so delete and insert cannot pass for no change; expired entries are never
//! seen, and are the first to go.
//!
//! Keys are hashed with the standard library's randomly keyed `SipHash`: guests, and through them clients, choose them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::data::{AddError, DataCounters, DataLimits, SetError};
use super::lru::Lru;
use crate::time::Nanos;

/// What an entry costs beside its key and value: slot, hash entry, list links, expiry, allocation headers.
const ENTRY_OVERHEAD: usize = 160;
/// A value's buffer may be this small without being worth replacing by a smaller one.
const SMALL_BUFFER: usize = 32;
/// The expiry of what does not expire.
const NEVER: Nanos = Nanos::MAX;
/// Expired entries that one write clears away: more than the one it may add, so that they cannot pile up.
const PURGE_PER_WRITE: usize = 4;

/// One write: the arguments of `Scope::set`.
pub(super) struct Write<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) cas: u32,
    pub(super) ttl: Option<Duration>,
}

struct Entry {
    /// The same allocation as the index's key.
    key: Arc<[u8]>,
    value: Vec<u8>,
    cas: u32,
    expires: Nanos,
}

impl Entry {
    fn charge(&self) -> usize {
        charge(self.key.len(), self.value.capacity())
    }
}

fn charge(key: usize, value: usize) -> usize {
    key.saturating_add(value).saturating_add(ENTRY_OVERHEAD)
}

/// The capacity a buffer shall have for a value of `len` bytes: the one it has, unless that is too small or mostly idle.
fn fitting_capacity(current: usize, len: usize) -> usize {
    if current >= len && current <= len.saturating_mul(2).max(SMALL_BUFFER) { current } else { len }
}

fn expiry(ttl: Option<Duration>, now: Nanos) -> Nanos {
    ttl.map_or(NEVER, |ttl| now.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(NEVER)))
}

pub(super) struct Table {
    limits: DataLimits,
    index: HashMap<Arc<[u8]>, u32>,
    /// `None` are free, and listed in `free`.
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    used: Lru,
    /// Entries that will expire, the next first.
    expiring: BTreeSet<(Nanos, u32)>,
    bytes: usize,
    last_cas: u32,
    evictions: u64,
    expirations: u64,
}

impl Table {
    pub(super) fn new(limits: DataLimits) -> Self {
        Self {
            limits: sane(limits),
            index: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            used: Lru::new(),
            expiring: BTreeSet::new(),
            bytes: 0,
            last_cas: 0,
            evictions: 0,
            expirations: 0,
        }
    }

    /// Evicts at once what no longer fits; without a clock, the least recently used even before the expired.
    pub(super) fn set_limits(&mut self, limits: DataLimits) {
        self.limits = sane(limits);
        while self.index.len() > self.limits.entries || self.bytes > self.limits.bytes {
            self.evict();
        }
    }

    pub(super) fn get(&mut self, key: &[u8], now: Nanos) -> Option<(&[u8], u32)> {
        let slot = self.find(key, now)?;
        self.used.touch(slot);
        let entry = self.entry(slot)?;
        Some((&entry.value, entry.cas))
    }

    pub(super) fn set(&mut self, write: &Write<'_>, now: Nanos) -> Result<(), SetError> {
        let existing = self.find(write.key, now);
        let current = existing.and_then(|slot| self.entry(slot)).map(|entry| entry.cas);
        if write.cas != 0 && current.is_some_and(|current| current != write.cas) {
            return Err(SetError::CasMismatch);
        }
        self.check_size(write.key, write.value.len()).map_err(|(size, max)| SetError::TooLarge { size, max })?;
        self.purge(now);
        let expires = expiry(write.ttl, now);
        // The purge leaves `existing` alone: it was found alive at the same `now`.
        match existing {
            Some(slot) => self.replace(slot, write.value, expires, now),
            None => self.insert(write.key, write.value, expires, now),
        }
        Ok(())
    }

    pub(super) fn add(&mut self, key: &[u8], delta: i64, ttl: Option<Duration>, now: Nanos) -> Result<i64, AddError> {
        let Some(slot) = self.find(key, now) else {
            self.check_size(key, size_of::<i64>()).map_err(|(size, max)| AddError::TooLarge { size, max })?;
            self.purge(now);
            self.insert(key, &delta.to_le_bytes(), expiry(ttl, now), now);
            return Ok(delta);
        };
        let cas = self.next_cas();
        self.used.touch(slot);
        // `find` has just returned it.
        let Some(entry) = self.entry_mut(slot) else {
            return Ok(delta);
        };
        let Ok(bytes) = <[u8; 8]>::try_from(entry.value.as_slice()) else {
            return Err(AddError::NotANumber { size: entry.value.len() });
        };
        let sum = i64::from_le_bytes(bytes).checked_add(delta).ok_or(AddError::Overflow)?;
        entry.value.copy_from_slice(&sum.to_le_bytes());
        entry.cas = cas;
        Ok(sum)
    }

    pub(super) fn delete(&mut self, key: &[u8], now: Nanos) -> bool {
        let found = self.find(key, now);
        if let Some(slot) = found {
            self.remove(slot);
        }
        found.is_some()
    }

    pub(super) fn counters(&self) -> DataCounters {
        DataCounters { entries: self.index.len(), bytes: self.bytes, evictions: self.evictions, expirations: self.expirations }
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize)?.as_ref()
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    /// The slot of `key` if it is alive at `now`; clears it away if it is not.
    fn find(&mut self, key: &[u8], now: Nanos) -> Option<u32> {
        let slot = *self.index.get(key)?;
        let expires = self.entry(slot)?.expires;
        if expires == NEVER || expires > now {
            return Some(slot);
        }
        self.remove(slot);
        self.expirations += 1;
        None
    }

    /// Whether such an entry can fit at all: otherwise what it needs and what is allowed.
    fn check_size(&self, key: &[u8], value: usize) -> Result<(), (usize, usize)> {
        let needed = charge(key.len(), value);
        if value > self.limits.value {
            Err((value, self.limits.value))
        } else if needed > self.limits.bytes {
            Err((needed, self.limits.bytes))
        } else {
            Ok(())
        }
    }

    fn insert(&mut self, key: &[u8], value: &[u8], expires: Nanos, now: Nanos) {
        let needed = charge(key.len(), value.len());
        self.make_room(1, needed, now);
        let key: Arc<[u8]> = key.into();
        let entry = Entry { key: Arc::clone(&key), value: value.to_vec(), cas: self.next_cas(), expires };
        self.bytes += entry.charge();
        let slot = if let Some(slot) = self.free.pop() {
            self.entries[slot as usize] = Some(entry);
            slot
        } else {
            self.entries.push(Some(entry));
            // `sane` keeps the number of entries below `u32::MAX`.
            (self.entries.len() - 1) as u32
        };
        self.index.insert(key, slot);
        self.used.push(slot);
        if expires != NEVER {
            self.expiring.insert((expires, slot));
        }
    }

    fn replace(&mut self, slot: u32, value: &[u8], expires: Nanos, now: Nanos) {
        let cas = self.next_cas();
        self.used.touch(slot);
        let Some(entry) = self.entry_mut(slot) else {
            return;
        };
        let before = entry.charge();
        let capacity = fitting_capacity(entry.value.capacity(), value.len());
        if capacity == entry.value.capacity() {
            entry.value.clear();
        } else {
            entry.value = Vec::with_capacity(capacity);
        }
        entry.value.extend_from_slice(value);
        entry.cas = cas;
        let (after, expired) = (entry.charge(), std::mem::replace(&mut entry.expires, expires));
        self.bytes = self.bytes - before + after;
        if expired != expires {
            self.expiring.remove(&(expired, slot));
            if expires != NEVER {
                self.expiring.insert((expires, slot));
            }
        }
        // It is the newest, so it is the last to go, and alone it fits.
        self.make_room(0, 0, now);
    }

    fn next_cas(&mut self) -> u32 {
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        self.last_cas
    }

    /// Clears away entries until `entries` more with `bytes` together fit: expired ones first, then the least recently used.
    fn make_room(&mut self, entries: usize, bytes: usize, now: Nanos) {
        while self.index.len() + entries > self.limits.entries || self.bytes.saturating_add(bytes) > self.limits.bytes {
            if !self.expire_one(now) && !self.evict() {
                return;
            }
        }
    }

    fn purge(&mut self, now: Nanos) {
        for _ in 0..PURGE_PER_WRITE {
            if !self.expire_one(now) {
                return;
            }
        }
    }

    fn expire_one(&mut self, now: Nanos) -> bool {
        let Some(&(expires, slot)) = self.expiring.first() else {
            return false;
        };
        if expires > now {
            return false;
        }
        self.remove(slot);
        self.expirations += 1;
        true
    }

    fn evict(&mut self) -> bool {
        let Some(slot) = self.used.oldest() else {
            return false;
        };
        self.remove(slot);
        self.evictions += 1;
        true
    }

    fn remove(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        self.bytes -= entry.charge();
        self.index.remove(&entry.key);
        self.used.remove(slot);
        self.free.push(slot);
        if entry.expires != NEVER {
            self.expiring.remove(&(entry.expires, slot));
        }
    }

    /// Checks everything the module's head promises about the state.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let live: Vec<_> = self.entries.iter().flatten().collect();
        assert_eq!(live.len(), self.index.len());
        assert_eq!(live.len() + self.free.len(), self.entries.len());
        assert_eq!(self.bytes, live.iter().map(|entry| entry.charge()).sum::<usize>());
        assert_eq!(self.expiring.len(), live.iter().filter(|entry| entry.expires != NEVER).count());
        assert!(live.len() <= self.limits.entries && self.bytes <= self.limits.bytes);
        for entry in live {
            assert_ne!(entry.cas, 0);
            let idle = entry.value.capacity() - entry.value.len();
            assert!(idle <= entry.value.len().max(SMALL_BUFFER), "{idle} idle bytes");
        }
    }

    #[cfg(test)]
    pub(super) fn set_last_cas(&mut self, cas: u32) {
        self.last_cas = cas;
    }
}

/// Room for at least one entry, and for no more than slots can number.
fn sane(limits: DataLimits) -> DataLimits {
    DataLimits { entries: limits.entries.clamp(1, u32::MAX as usize / 2), ..limits }
}
