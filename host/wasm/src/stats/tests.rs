//! Accounting: exact counts, sampled times, levels that go with their worker.

use std::collections::HashSet;
use std::thread;

use super::*;

#[test]
fn lists_are_in_order_and_names_unique() {
    fn check<T: Copy + PartialEq + std::fmt::Debug>(all: &[T], number: fn(T) -> usize, name: fn(T) -> &'static str) {
        for (index, item) in all.iter().enumerate() {
            assert_eq!(number(*item), index, "{item:?}");
        }
        let names: HashSet<_> = all.iter().map(|item| name(*item)).collect();
        assert_eq!(names.len(), all.len());
    }
    check(Callback::ALL, |item| item as usize, Callback::label);
    check(&TrapKind::ALL, |item| item as usize, TrapKind::name);
    check(&Counter::ALL, |item| item as usize, Counter::name);
    check(&Level::ALL, |item| item as usize, Level::name);
}

#[test]
fn calls_are_exact_and_one_in_n_of_each_kind_is_timed() {
    let stats = BindingStats::new();
    let shard = stats.shard();
    let mut timed = [0; 2];
    for call in 0..100 {
        // A fixed pattern of two kinds: each has its own turn.
        for (at, callback) in [Callback::RequestHeaders, Callback::Log].into_iter().enumerate() {
            if shard.begin(callback).is_some() {
                assert_eq!(call % 32, 0, "the first of each 32");
                timed[at] += 1;
                shard.end(callback, Duration::from_nanos(100));
            }
        }
    }
    assert_eq!(timed, [4, 4]);
    let snapshot = stats.snapshot();
    let headers = snapshot.callback(Callback::RequestHeaders);
    assert_eq!((headers.calls, headers.samples(), headers.sampled_nanos), (100, 4, 400));
    assert_eq!(headers.estimated_nanos(), 10_000);
    assert_eq!(*snapshot.callback(Callback::Done), CallbackStats::default());
    assert_eq!(snapshot.callback(Callback::Done).estimated_nanos(), 0);
}

#[test]
fn the_rate_of_sampling_is_a_power_of_two() {
    for (every, expected) in [(0, 64), (1, 64), (2, 32), (3, 16), (64, 1), (u32::MAX, 1)] {
        let shard = BindingStats::sampling(every).shard();
        let timed = (0..64).filter(|_| shard.begin(Callback::Tick).is_some()).count();
        assert_eq!(timed, expected, "one in {every}");
    }
}

#[test]
fn times_go_into_the_bucket_whose_bound_is_above_them() {
    for nanos in (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit]).chain([0, u64::MAX]) {
        let bucket = time_bucket(nanos) as usize;
        assert!(time_bound(bucket).is_none_or(|bound| nanos < bound), "{nanos} in {bucket}");
        let below = bucket.checked_sub(1).and_then(time_bound);
        assert!(below.is_none_or(|bound| nanos >= bound), "{nanos} in {bucket}");
    }
    assert_eq!((time_bound(0), time_bound(TIME_BUCKETS - 1)), (Some(64), None));
    assert_eq!(time_bound(TIME_BUCKETS - 2), Some(1 << 28));

    let stats = BindingStats::new();
    let shard = stats.shard();
    shard.end(Callback::Delete, Duration::MAX);
    shard.end(Callback::Delete, Duration::MAX);
    let snapshot = stats.snapshot();
    let delete = snapshot.callback(Callback::Delete);
    assert_eq!((delete.buckets[TIME_BUCKETS - 1], delete.sampled_nanos), (2, u64::MAX));
}

/// Every number is written through its own cell: no two enums overlap in the row.
#[test]
fn every_number_has_its_own_cell() {
    let stats = BindingStats::sampling(1);
    let shard = stats.shard();
    let mut next = 0_u64;
    let mut distinct = || {
        next += 1;
        next
    };
    for callback in Callback::ALL.iter().copied() {
        for _ in 0..distinct() {
            let _ = shard.begin(callback);
        }
        shard.end(callback, Duration::from_nanos(callback as u64));
        shard.end(callback, Duration::from_secs(1 + callback as u64));
    }
    for counter in Counter::ALL {
        shard.count_by(counter, distinct());
    }
    for kind in TrapKind::ALL {
        for _ in 0..distinct() {
            shard.trap(kind);
        }
    }
    for level in Level::ALL {
        shard.shift(level, -distinct().cast_signed());
    }

    let snapshot = stats.snapshot();
    let mut next = 0_u64;
    let mut expected = || {
        next += 1;
        next
    };
    for callback in Callback::ALL.iter().copied() {
        let got = snapshot.callback(callback);
        assert_eq!(got.calls, expected(), "{callback:?}");
        assert_eq!(got.sampled_nanos, (1 + callback as u64) * 1_000_000_000 + callback as u64);
        assert_eq!((got.buckets[0], got.buckets[TIME_BUCKETS - 1], got.samples()), (1, 1, 2));
    }
    for counter in Counter::ALL {
        assert_eq!(snapshot.counter(counter), expected(), "{counter:?}");
    }
    for kind in TrapKind::ALL {
        assert_eq!(snapshot.traps(kind), expected(), "{kind:?}");
    }
    for level in Level::ALL {
        assert_eq!(snapshot.level(level), -expected().cast_signed(), "{level:?}");
    }
}

#[test]
fn memory_has_a_sum_now_and_a_peak_per_instance() {
    let stats = BindingStats::new();
    let (a, b) = (stats.shard(), stats.shard());
    a.memory(0, 100);
    b.memory(0, 100);
    b.memory(100, 300);
    assert_eq!(stats.snapshot().level(Level::Memory), 400);
    b.memory(300, 0);
    assert_eq!(stats.snapshot().level(Level::Memory), 100);
    assert_eq!(stats.snapshot().peak_instance_memory, 300);
}

#[test]
fn counts_stay_and_levels_go_with_a_worker() {
    let stats = BindingStats::new();
    let (kept, gone) = (stats.shard(), stats.shard());
    for shard in [&kept, &gone] {
        shard.count(Counter::LocalReplies);
        shard.trap(TrapKind::Exit);
        shard.shift(Level::LiveContexts, 3);
        let _ = shard.begin(Callback::Start);
    }
    drop(gone);
    let snapshot = stats.snapshot();
    assert_eq!((snapshot.counter(Counter::LocalReplies), snapshot.traps(TrapKind::Exit)), (2, 2));
    assert_eq!(snapshot.callback(Callback::Start).calls, 2);
    assert_eq!(snapshot.level(Level::LiveContexts), 3);
}

#[test]
fn workers_lose_nothing_while_they_are_read() {
    let stats = BindingStats::new();
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let shard = stats.shard();
                for _ in 0..5000 {
                    shard.shift(Level::LiveContexts, 1);
                    if let Some(started) = shard.begin(Callback::RequestHeaders) {
                        shard.end(Callback::RequestHeaders, started.elapsed());
                    }
                    shard.count(Counter::WrongPhase);
                    shard.shift(Level::LiveContexts, -1);
                }
            });
        }
        let mut last = 0;
        while last < 20_000 {
            let calls = stats.snapshot().callback(Callback::RequestHeaders).calls;
            assert!(calls >= last);
            last = calls;
        }
    });
    let snapshot = stats.snapshot();
    assert_eq!(snapshot.counter(Counter::WrongPhase), 20_000);
    assert_eq!(snapshot.callback(Callback::RequestHeaders).samples(), 4 * 5000_u64.div_ceil(32));
    assert_eq!(snapshot.level(Level::LiveContexts), 0);
}
