//! Shared data: compare-and-swap, expiry, eviction.

use super::*;

#[test]
fn what_was_set_is_read_until_deleted() {
    let scope = scope();
    assert_eq!(read(&scope, b"k", 0), None);
    scope.set(b"k", b"", 0, 0).unwrap();
    assert_eq!(read(&scope, b"k", 0).unwrap().0, b"");
    scope.set(b"k", b"value", 0, 0).unwrap();
    assert_eq!(read(&scope, b"k", 0).unwrap().0, b"value");
    assert!(scope.delete(b"k", 0));
    assert!(!scope.delete(b"k", 0));
    assert_eq!(read(&scope, b"k", 0), None);
    assert_eq!(scope.counters(), DataCounters::default());
}

#[test]
fn cas_guards_a_write_and_inserts_when_absent() {
    let scope = scope();
    scope.set(b"k", b"1", 99, 0).expect("a cas for an absent key inserts");
    let (_, first) = read(&scope, b"k", 0).unwrap();
    scope.set(b"k", b"2", first, 0).unwrap();
    assert_eq!(scope.set(b"k", b"3", first, 0), Err(SetError::CasMismatch));
    let (value, second) = read(&scope, b"k", 0).unwrap();
    assert_eq!(value, b"2");
    assert_ne!(second, first);
    scope.set(b"k", b"4", 0, 0).expect("0 writes in any case");

    let (_, before) = read(&scope, b"k", 0).unwrap();
    scope.delete(b"k", 0);
    scope.set(b"k", b"4", 0, 0).unwrap();
    assert_eq!(scope.set(b"k", b"5", before, 0), Err(SetError::CasMismatch), "deleted and written anew is a change");
}

#[test]
fn cas_is_never_zero() {
    let scope = scope();
    lock(&scope.table).set_last_cas(u32::MAX - 1);
    for expected in [u32::MAX, 1, 2] {
        scope.set(b"k", b"v", 0, 0).unwrap();
        assert_eq!(read(&scope, b"k", 0).unwrap().1, expected);
    }
}

#[test]
fn the_least_recently_used_goes_first() {
    let scope = scope_with(DataLimits { entries: 3, ..DataLimits::default() });
    for key in [b"a", b"b", b"c"] {
        scope.set(key, b"v", 0, 0).unwrap();
    }
    read(&scope, b"a", 0).unwrap();
    scope.set(b"b", b"w", 0, 0).unwrap();
    scope.set(b"d", b"v", 0, 0).unwrap();
    let left: Vec<_> = [b"a", b"b", b"c", b"d"].iter().map(|key| read(&scope, *key, 0).is_some()).collect();
    assert_eq!(left, [true, true, false, true]);
    assert_eq!(scope.counters().evictions, 1);
}

#[test]
fn the_expired_go_before_the_least_recently_used() {
    let scope = scope_with(DataLimits { entries: 2, ..DataLimits::default() });
    scope.set(b"old", b"v", 0, 0).unwrap();
    scope.set_expiring(b"brief", b"v", 0, Duration::from_secs(1), 0).unwrap();
    scope.set(b"new", b"v", 0, SECOND).unwrap();
    assert!(read(&scope, b"old", SECOND).is_some());
    let counters = scope.counters();
    assert_eq!((counters.entries, counters.evictions, counters.expirations), (2, 0, 1));
}

#[test]
fn expiry_is_to_the_nanosecond_and_a_plain_set_lifts_it() {
    let scope = scope();
    scope.set_expiring(b"k", b"v", 0, Duration::from_secs(1), 5).unwrap();
    assert!(read(&scope, b"k", SECOND + 4).is_some());
    assert_eq!(read(&scope, b"k", SECOND + 5), None);
    assert_eq!(scope.counters().expirations, 1);

    scope.set_expiring(b"k", b"v", 0, Duration::from_secs(1), 0).unwrap();
    scope.set(b"k", b"w", 0, 1).unwrap();
    assert!(read(&scope, b"k", 100 * SECOND).is_some());

    scope.set_expiring(b"k", b"v", 0, Duration::from_secs(1), 0).unwrap();
    assert!(!scope.delete(b"k", SECOND), "an expired key is not there");
    scope.set_expiring(b"k", b"v", 0, Duration::MAX, 0).unwrap();
    assert!(read(&scope, b"k", u64::MAX).is_some(), "for ever");
}

#[test]
fn writes_clear_away_the_expired() {
    let scope = scope();
    for i in 0..1000_u32 {
        scope.set_expiring(&i.to_le_bytes(), b"v", 0, Duration::from_secs(1), 0).unwrap();
    }
    for _ in 0..250 {
        scope.set(b"k", b"v", 0, SECOND).unwrap();
    }
    assert_eq!(scope.counters().entries, 1);
}

#[test]
fn what_can_never_fit_is_refused_and_evicts_nothing() {
    let scope = scope_with(DataLimits { entries: 10, bytes: 1000, value: 100 });
    scope.set(b"k", &[1; 100], 0, 0).unwrap();
    assert_eq!(scope.set(b"k", &[1; 101], 0, 0), Err(SetError::TooLarge { size: 101, max: 100 }));
    assert!(matches!(scope.set(&[1; 990], b"v", 0, 0), Err(SetError::TooLarge { max: 1000, .. })));
    assert!(matches!(scope.add(&[1; 990], 1, None, 0), Err(AddError::TooLarge { .. })));
    assert_eq!(read(&scope, b"k", 0).unwrap().0, [1; 100]);
    assert_eq!(scope.counters().evictions, 0);
}

#[test]
fn writing_large_and_then_small_does_not_hide_memory() {
    let scope = scope_with(DataLimits { entries: 1000, bytes: 10_000, value: 5000 });
    for i in 0..100_u32 {
        scope.set(&i.to_le_bytes(), &[1; 5000], 0, 0).unwrap();
        scope.set(&i.to_le_bytes(), b"small", 0, 0).unwrap();
        lock(&scope.table).check();
    }
    assert!(scope.counters().entries > 20);
}

#[test]
fn numbers_are_added_up() {
    let scope = scope();
    assert_eq!(scope.add(b"n", 5, None, 0), Ok(5));
    let (bytes, cas) = read(&scope, b"n", 0).unwrap();
    assert_eq!(bytes, 5_i64.to_le_bytes());
    assert_eq!(scope.add(b"n", -7, None, 0), Ok(-2));
    assert_eq!(scope.set(b"n", b"", cas, 0), Err(SetError::CasMismatch), "an addition is a write");
    scope.set(b"n", &i64::MAX.to_le_bytes(), 0, 0).unwrap();
    assert_eq!(scope.add(b"n", 1, None, 0), Err(AddError::Overflow));
    assert_eq!(scope.add(b"n", 0, None, 0), Ok(i64::MAX));
    scope.set(b"n", b"text", 0, 0).unwrap();
    assert_eq!(scope.add(b"n", 1, None, 0), Err(AddError::NotANumber { size: 4 }));
}

#[test]
fn a_windows_counter_starts_anew_after_its_ttl() {
    let scope = scope();
    let ttl = Some(Duration::from_secs(1));
    assert_eq!(scope.add(b"n", 1, ttl, 0), Ok(1));
    assert_eq!(scope.add(b"n", 1, ttl, SECOND - 1), Ok(2));
    assert_eq!(scope.add(b"n", 1, ttl, SECOND), Ok(1), "the second addition did not put the expiry off");
}

#[test]
fn replacing_keeps_the_buffer() {
    let scope = scope();
    scope.set(b"k", &[1; 1000], 0, 0).unwrap();
    let address = || lock(&scope.table).get(b"k", 0).map(|(value, _)| value.as_ptr().addr());
    let before = address();
    for len in [1000, 999, 600, 1000] {
        scope.set(b"k", &vec![2; len], 0, 0).unwrap();
        assert_eq!(address(), before);
    }
}

#[test]
fn a_dead_holder_of_the_lock_harms_nobody() {
    let scope = scope();
    scope.set(b"k", b"v", 0, 0).unwrap();
    let held = Arc::clone(&scope);
    let died = thread::spawn(move || {
        let _table = held.table.lock().unwrap();
        panic!("the holder dies");
    });
    assert!(died.join().is_err());
    assert!(read(&scope, b"k", 0).is_some());
}

#[test]
fn additions_from_many_threads_all_count() {
    let scope = scope();
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| (0..1000).for_each(|_| _ = scope.add(b"n", 1, None, 0).unwrap()));
        }
    });
    assert_eq!(scope.add(b"n", 0, None, 0), Ok(4000));
}

#[test]
fn compare_and_swap_from_many_threads_loses_no_update() {
    let scope = scope();
    scope.set(b"n", b"0", 0, 0).unwrap();
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut value = Vec::new();
                for _ in 0..200 {
                    loop {
                        let cas = scope.get(b"n", 0, &mut value).unwrap();
                        let next: u32 = std::str::from_utf8(&value).unwrap().parse().unwrap();
                        if scope.set(b"n", (next + 1).to_string().as_bytes(), cas, 0).is_ok() {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(read(&scope, b"n", 0).unwrap().0, b"800");
}

#[derive(Debug, Clone)]
enum Op {
    Get(u8),
    Set(u8, usize),
    SetExpiring(u8, usize, u64),
    SetStale(u8),
    Add(u8, i64),
    Delete(u8),
    Limits(usize, usize),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0_u8..12;
    prop_oneof![
        key.clone().prop_map(Op::Get),
        (key.clone(), 0_usize..300).prop_map(|(key, len)| Op::Set(key, len)),
        (key.clone(), 0_usize..300, 0_u64..20).prop_map(|(key, len, ttl)| Op::SetExpiring(key, len, ttl)),
        key.clone().prop_map(Op::SetStale),
        (key.clone(), any::<i64>()).prop_map(|(key, delta)| Op::Add(key, delta)),
        key.prop_map(Op::Delete),
        (0_usize..8, 0_usize..3000).prop_map(|(entries, bytes)| Op::Limits(entries, bytes)),
        (0_u64..10).prop_map(Op::Wait),
    ]
}

proptest! {
    /// Against a plain map: what is read is what was written last; an entry may go missing only where the counters say so.
    #[test]
    fn it_agrees_with_a_map_and_keeps_its_bounds(ops in prop::collection::vec(op(), 1..200)) {
        let mut limits = DataLimits { entries: 6, bytes: 2000, value: 250 };
        let scope = scope_with(limits);
        let mut model: HashMap<u8, (Vec<u8>, Nanos)> = Default::default();
        let mut now = 0;
        for op in ops {
            let evicted_before = scope.counters().evictions;
            match op.clone() {
                Op::Get(key) => {
                    let got = read(&scope, &[key], now).map(|(value, _)| value);
                    if let Some(got) = got {
                        let (value, expires) = model.get(&key).expect("nothing comes from nowhere");
                        prop_assert_eq!(&got, value);
                        prop_assert!(*expires > now);
                    }
                }
                Op::Set(key, len) => {
                    let fits = len <= limits.value && 161 + len <= limits.bytes;
                    let value = vec![len as u8; len];
                    prop_assert_eq!(scope.set(&[key], &value, 0, now).is_ok(), fits);
                    if fits {
                        model.insert(key, (value, Nanos::MAX));
                        prop_assert!(read(&scope, &[key], now).is_some(), "a write does not evict itself");
                    }
                }
                Op::SetExpiring(key, len, ttl) => {
                    let value = vec![len as u8; len];
                    if scope.set_expiring(&[key], &value, 0, Duration::from_nanos(ttl), now).is_ok() {
                        model.insert(key, (value, now + ttl));
                    }
                }
                Op::SetStale(key) => {
                    if let Some((_, cas)) = read(&scope, &[key], now) {
                        prop_assert_eq!(scope.set(&[key], b"", cas + 1, now), Err(SetError::CasMismatch));
                    }
                }
                Op::Add(key, delta) => {
                    if let Ok(sum) = scope.add(&[key], delta, None, now) {
                        let old = model.get(&key).filter(|(value, expires)| *expires > now && value.len() == 8);
                        let expires = old.map_or(Nanos::MAX, |(_, expires)| *expires);
                        model.insert(key, (sum.to_le_bytes().to_vec(), expires));
                        prop_assert_eq!(read(&scope, &[key], now).unwrap().0, sum.to_le_bytes());
                    }
                }
                Op::Delete(key) => {
                    scope.delete(&[key], now);
                    model.remove(&key);
                    prop_assert_eq!(read(&scope, &[key], now), None);
                }
                Op::Limits(entries, bytes) => {
                    limits = DataLimits { entries: entries.max(1), bytes, value: 250 };
                    lock(&scope.table).set_limits(limits);
                }
                Op::Wait(time) => now += time,
            }
            lock(&scope.table).check();
            let evicted = scope.counters().evictions - evicted_before;
            let alive = |key: &u8| read(&scope, &[*key], now).is_some();
            let missing: Vec<_> =
                model.iter().filter(|(key, (_, expires))| *expires > now && !alive(key)).map(|(key, _)| *key).collect();
            let lost = missing.len() as u64;
            // New limits know no time: what they evict may have expired already.
            let accounted = if matches!(op, Op::Limits(..)) { lost <= evicted } else { lost == evicted };
            prop_assert!(accounted, "{op:?} lost {lost} live entries and counted {evicted} evictions");
            model.retain(|key, (_, expires)| *expires > now && !missing.contains(key));
        }
    }
}
