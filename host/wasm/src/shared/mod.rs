//! What instances share: key-value data and queues, per `vm_id`, across all workers.
//!
//! [`SharedStores`] belongs to the engine and outlives every instance, so a reload or a trap loses nothing. A [`Scope`] is
//! one `vm_id`'s data; queues are found through [`SharedStores::queues`], because a guest may resolve another `vm_id`'s queue.
//!
//! What always holds: every store is bounded, and what a bound costs is counted; a write to a full store takes the place of
//! the least recently used entry (data) or of the oldest item (queue) instead of failing, because guests built on the SDKs
//! panic on a status they do not expect; `now` is passed in.
//!
//! What it does not do: persistence, or sharing between processes. Locks are held for one operation at a time, copying at
//! most one value.

mod data;
mod lru;
mod queue;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use data::{AddError, DataCounters, DataLimits, SetError};
pub use queue::{Notifier, QueueCounters, QueueError, QueueLimits, Queues};

use crate::sync::lock;
use crate::time::Nanos;
use table::{Table, Write};

/// The bounds of one `vm_id`'s stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedLimits {
    /// Of the key-value data.
    pub data: DataLimits,
    /// Of the queues.
    pub queue: QueueLimits,
}

/// All shared stores of an engine; a clone is another handle on the same stores.
#[derive(Clone, Default)]
pub struct SharedStores {
    inner: Arc<Stores>,
}

#[derive(Default)]
struct Stores {
    scopes: Mutex<HashMap<Box<str>, Arc<Scope>>>,
    queues: Queues,
}

impl SharedStores {
    /// Empty stores.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The data of `vm_id`, created when absent. The newest limits hold, for all who share it: a reload may change them.
    #[must_use]
    pub fn scope(&self, vm_id: &str, limits: SharedLimits) -> Arc<Scope> {
        let mut scopes = lock(&self.inner.scopes);
        self.inner.queues.set_limits(vm_id, limits.queue);
        if let Some(scope) = scopes.get(vm_id) {
            lock(&scope.table).set_limits(limits.data);
            return Arc::clone(scope);
        }
        let scope = Arc::new(Scope { vm_id: vm_id.into(), table: Mutex::new(Table::new(limits.data)) });
        scopes.insert(vm_id.into(), Arc::clone(&scope));
        scope
    }

    /// The queues of every `vm_id`.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        &self.inner.queues
    }

    /// Frees data and queues of every `vm_id` whose [`Scope`] nobody holds any more; returns how many. For the owner of the
    /// configuration, once a change has settled: nothing here is freed by itself.
    pub fn remove_unused(&self) -> usize {
        let mut scopes = lock(&self.inner.scopes);
        let before = scopes.len();
        scopes.retain(|vm_id, scope| {
            let used = Arc::strong_count(scope) > 1;
            if !used {
                self.inner.queues.remove_all(vm_id);
            }
            used
        });
        before - scopes.len()
    }
}

/// The key-value data of one `vm_id`. Keys and values are any bytes.
pub struct Scope {
    vm_id: Box<str>,
    table: Mutex<Table>,
}

impl Scope {
    /// Whose data it is.
    #[must_use]
    pub fn vm_id(&self) -> &str {
        &self.vm_id
    }

    /// Copies the value of `key` into `out`, replacing what was there, and returns its `cas`, which is never 0; `None`, with
    /// `out` empty, when absent or expired. Allocates only where `out` is too small.
    pub fn get(&self, key: &[u8], now: Nanos, out: &mut Vec<u8>) -> Option<u32> {
        out.clear();
        let mut table = lock(&self.table);
        let (value, cas) = table.get(key, now)?;
        out.extend_from_slice(value);
        Some(cas)
    }

    /// Sets `key`, for good: an expiry it had is taken away. A `cas` of 0 writes in any case; any other must be the one the
    /// last read gave, or the key be absent. Does not allocate where it replaces a value of about the same size.
    ///
    /// # Errors
    /// [`SetError::CasMismatch`] when somebody wrote in between; [`SetError::TooLarge`] when it can never fit.
    pub fn set(&self, key: &[u8], value: &[u8], cas: u32, now: Nanos) -> Result<(), SetError> {
        lock(&self.table).set(&Write { key, value, cas, ttl: None }, now)
    }

    /// Sets `key` as [`set`](Self::set) does, until `ttl` has passed.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_expiring(&self, key: &[u8], value: &[u8], cas: u32, ttl: Duration, now: Nanos) -> Result<(), SetError> {
        lock(&self.table).set(&Write { key, value, cas, ttl: Some(ttl) }, now)
    }

    /// Adds `delta` to the number under `key` and returns the sum. A number is an `i64` in 8 little-endian bytes: fixed in
    /// size, so that counting never allocates, and what [`get`](Self::get) returns. An absent key counts as 0, and only then
    /// does `ttl` apply: later additions leave the expiry alone, which makes a counter per window out of it.
    ///
    /// # Errors
    /// [`AddError::NotANumber`] when the value has not 8 bytes; [`AddError::Overflow`] when the sum does not fit (the number
    /// stays as it was); [`AddError::TooLarge`] when the key can never fit.
    pub fn add(&self, key: &[u8], delta: i64, ttl: Option<Duration>, now: Nanos) -> Result<i64, AddError> {
        lock(&self.table).add(key, delta, ttl, now)
    }

    /// Deletes `key`; returns whether it was there.
    pub fn delete(&self, key: &[u8], now: Nanos) -> bool {
        lock(&self.table).delete(key, now)
    }

    /// What it holds and what its bounds have cost.
    #[must_use]
    pub fn counters(&self) -> DataCounters {
        lock(&self.table).counters()
    }
}

#[cfg(test)]
mod tests;
