//! The shared stores, alone and from several threads.

mod data;
mod queue;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

const SECOND: Nanos = 1_000_000_000;

fn scope_with(data: DataLimits) -> Arc<Scope> {
    SharedStores::new().scope("vm", SharedLimits { data, ..SharedLimits::default() })
}

fn scope() -> Arc<Scope> {
    scope_with(DataLimits::default())
}

/// Value and cas of `key`.
fn read(scope: &Scope, key: &[u8], now: Nanos) -> Option<(Vec<u8>, u32)> {
    let mut out = b"left over".to_vec();
    let cas = scope.get(key, now, &mut out);
    assert!(cas.is_some() || out.is_empty(), "a miss leaves the buffer empty");
    cas.map(|cas| (out, cas))
}

#[test]
fn a_vm_id_is_one_scope_and_the_newest_limits_hold() {
    let stores = SharedStores::new();
    let first = stores.scope("vm", SharedLimits::default());
    for key in [b"a", b"b", b"c"] {
        first.set(key, b"v", 0, 0).unwrap();
    }
    let data = DataLimits { entries: 1, ..DataLimits::default() };
    let second = stores.clone().scope("vm", SharedLimits { data, ..SharedLimits::default() });
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(second.vm_id(), "vm");
    assert_eq!((first.counters().entries, first.counters().evictions), (1, 2));
    assert!(read(&stores.scope("other", SharedLimits::default()), b"c", 0).is_none());
}

#[test]
fn stores_outlive_their_users_until_told_otherwise() {
    let stores = SharedStores::new();
    let kept = stores.scope("kept", SharedLimits::default());
    let gone = stores.scope("gone", SharedLimits::default());
    gone.set(b"k", b"v", 0, 0).unwrap();
    let id = stores.queues().register("gone", "q", &(Arc::new(|_| {}) as Notifier)).unwrap();
    drop(gone);
    assert!(read(&stores.scope("gone", SharedLimits::default()), b"k", 0).is_some(), "a reload keeps the data");
    assert_eq!(stores.remove_unused(), 1);
    assert_eq!(stores.queues().resolve("gone", "q"), None);
    assert_eq!(stores.queues().enqueue(id, b""), Err(QueueError::NotFound));
    assert!(read(&stores.scope("gone", SharedLimits::default()), b"k", 0).is_none());
    assert!(Arc::ptr_eq(&kept, &stores.scope("kept", SharedLimits::default())));
}
