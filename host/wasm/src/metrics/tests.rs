//! The guests' metrics: kinds, series, limits, and shards counted from several threads.

use std::sync::Barrier;
use std::thread;

use super::*;

fn set_of(series: usize) -> Arc<MetricSet> {
    MetricSet::new(MetricLimits { series, text: 10, labels: 2 })
}

fn set() -> Arc<MetricSet> {
    MetricSet::new(MetricLimits::default())
}

fn define(set: &MetricSet, kind: MetricKind, name: &str) -> SeriesId {
    set.define(kind, name, &[]).unwrap()
}

#[test]
fn a_series_is_its_name_and_its_labels_in_any_order() {
    let set = set();
    let kind = MetricKind::Counter;
    let plain = define(&set, kind, "requests");
    let labelled = set.define(kind, "requests", &[("code", "200"), ("app", "x")]).unwrap();
    assert_eq!(define(&set, kind, "requests"), plain);
    assert_eq!(set.define(kind, "requests", &[("app", "x"), ("code", "200")]).unwrap(), labelled);
    let others = [
        set.define(kind, "requests", &[("code", "20"), ("app", "0x")]).unwrap(),
        set.define(kind, "requests", &[("code", "200")]).unwrap(),
        define(&set, kind, "requests2"),
    ];
    for other in others {
        assert!(other != plain && other != labelled);
    }
    assert_eq!(set.series(), 5);
    let snapshot = set.snapshot();
    let labels: Vec<_> = snapshot[1].labels.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!((&*snapshot[1].name, labels), ("requests", vec![("app", "x"), ("code", "200")]));
}

#[test]
fn bad_definitions_are_refused_by_name() {
    let set = set_of(10);
    let kind = MetricKind::Gauge;
    let bad = |name, labels: &[(&str, &str)]| set.define(kind, name, labels).unwrap_err();
    assert_eq!(bad("", &[]), DefineError::Empty);
    assert_eq!(bad("n", &[("", "v")]), DefineError::Empty);
    assert_eq!(bad("elevenbytes", &[]), DefineError::TooLong { size: 11, max: 10 });
    assert_eq!(bad("n", &[("k", "elevenbytes")]), DefineError::TooLong { size: 11, max: 10 });
    assert_eq!(bad("n", &[("a", ""), ("b", ""), ("c", "")]), DefineError::TooManyLabels { count: 3, max: 2 });
    assert_eq!(bad("n", &[("a", "1"), ("a", "2")]), DefineError::DuplicateLabel { key: "a".into() });
    define(&set, MetricKind::Counter, "taken");
    let error = bad("taken", &[("a", "1")]);
    assert_eq!(error.to_string(), "metrics: \"taken\" is a counter and cannot be a gauge too; choose another name");
    assert_eq!(set.series(), 1);

    // Beyond what the stack holds, the limits cannot go.
    set.set_limits(MetricLimits { series: usize::MAX, text: usize::MAX, labels: usize::MAX });
    let many: Vec<_> = (0..33).map(|i| i.to_string()).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "")).collect();
    assert_eq!(bad("n", &many), DefineError::TooManyLabels { count: 33, max: 32 });
    set.define(kind, "n", &many[..32]).unwrap();
}

#[test]
fn each_kind_does_what_envoys_does() {
    let set = set();
    let shard = set.shard();
    let counter = define(&set, MetricKind::Counter, "c");
    let gauge = define(&set, MetricKind::Gauge, "g");
    let histogram = define(&set, MetricKind::Histogram, "h");

    shard.increment(counter, 2).unwrap();
    shard.record(counter, 3).expect("recording to a counter adds");
    for delta in [0, -1, i64::MIN] {
        assert_eq!(shard.increment(counter, delta), Err(MetricError::BadArgument));
    }
    assert_eq!(shard.get(counter), Ok(5));

    shard.record(gauge, 10).unwrap();
    shard.increment(gauge, -4).unwrap();
    assert_eq!(shard.get(gauge), Ok(6));
    shard.increment(gauge, -7).unwrap();
    assert_eq!(shard.get(gauge), Ok((-1_i64).cast_unsigned()));

    for value in [0, 7, 7, u64::MAX] {
        shard.record(histogram, value).unwrap();
    }
    assert_eq!(shard.increment(histogram, 1), Err(MetricError::BadArgument));
    assert_eq!(shard.get(histogram), Err(MetricError::BadArgument));

    let values: Vec<_> = set.snapshot().into_iter().map(|series| series.value).collect();
    let Value::Histogram(recorded) = &values[2] else { panic!("a histogram: {values:?}") };
    assert_eq!(values[..2], [Value::Counter(5), Value::Gauge(-1)]);
    assert_eq!((recorded.buckets[0], recorded.buckets[3], recorded.buckets[19]), (1, 2, 1));
    assert_eq!((recorded.count(), recorded.sum), (4, u64::MAX));
}

#[test]
fn a_number_that_is_no_series_is_not_found() {
    let set = set();
    let shard = set.shard();
    let counter = define(&set, MetricKind::Counter, "c");
    assert_ne!(counter.raw(), 0);
    assert_eq!(SeriesId::from_raw(counter.raw()), counter);
    let next_of_each_kind = MetricKind::ALL.map(|kind| SeriesId::new(kind, 5).raw());
    for raw in [0, 1, 2, 3, 7, u32::MAX, counter.raw() + 4].into_iter().chain(next_of_each_kind) {
        let id = SeriesId::from_raw(raw);
        assert_eq!(shard.increment(id, 1), Err(MetricError::NotFound), "number {raw}");
        assert_eq!(shard.record(id, 1), Err(MetricError::NotFound), "number {raw}");
        assert_eq!(shard.get(id), Err(MetricError::NotFound), "number {raw}");
    }
}

#[test]
fn beyond_the_limit_definitions_share_an_overflow_series() {
    let set = set_of(2);
    let shard = set.shard();
    define(&set, MetricKind::Counter, "a");
    define(&set, MetricKind::Gauge, "b");
    assert_eq!(set.snapshot().len(), 2, "overflow series stay hidden until they are used");
    let (c, d) = (define(&set, MetricKind::Counter, "c"), define(&set, MetricKind::Counter, "d"));
    assert_eq!(c, d);
    shard.increment(c, 1).unwrap();
    shard.increment(d, 1).unwrap();
    let histogram = define(&set, MetricKind::Histogram, "h");
    shard.record(histogram, 1).unwrap();
    assert_eq!((set.series(), set.series_dropped()), (2, 3));
    define(&set, MetricKind::Counter, "a");
    assert_eq!(set.series_dropped(), 3, "a series that exists is not dropped");
    let names: Vec<_> = set.snapshot().iter().map(|series| (series.name.to_string(), series.kind())).collect();
    let expected = [
        ("overflow_counter", MetricKind::Counter),
        ("a", MetricKind::Counter),
        ("b", MetricKind::Gauge),
        ("overflow_histogram", MetricKind::Histogram),
    ];
    assert_eq!(names, expected.map(|(name, kind)| (name.to_owned(), kind)));
    assert_eq!(set.snapshot()[0].value, Value::Counter(2));

    set.set_limits(MetricLimits { series: 3, text: 10, labels: 2 });
    assert_ne!(define(&set, MetricKind::Counter, "c"), c, "a raised limit makes room");
}

#[test]
fn a_shard_that_goes_leaves_its_counts() {
    let set = set();
    let counter = define(&set, MetricKind::Counter, "c");
    let histogram = define(&set, MetricKind::Histogram, "h");
    for _ in 0..3 {
        let shard = set.shard();
        shard.increment(counter, 5).unwrap();
        shard.record(histogram, 100).unwrap();
    }
    assert_eq!(set.shard().get(counter), Ok(15));
    let Value::Histogram(recorded) = set.snapshot().remove(1).value else { panic!("a histogram") };
    assert_eq!((recorded.count(), recorded.sum), (3, 300));
}

#[test]
fn a_counter_stops_at_the_top() {
    let set = set();
    let counter = define(&set, MetricKind::Counter, "c");
    let (a, b) = (set.shard(), set.shard());
    for shard in [&a, &b] {
        for _ in 0..3 {
            shard.increment(counter, i64::MAX).unwrap();
        }
    }
    assert_eq!(a.get(counter), Ok(u64::MAX));
    drop(a);
    assert_eq!(b.get(counter), Ok(u64::MAX));
}

#[test]
fn workers_that_define_and_update_at_once_lose_nothing() {
    let set = set();
    let start = Barrier::new(4);
    thread::scope(|threads| {
        for worker in 0..4_u64 {
            let (set, start) = (&set, &start);
            threads.spawn(move || {
                let shard = set.shard();
                start.wait();
                for round in 0..200 {
                    let name = format!("c{}", round % 50);
                    shard.increment(define(set, MetricKind::Counter, &name), 1).unwrap();
                    let gauge = define(set, MetricKind::Gauge, "g");
                    shard.increment(gauge, if worker % 2 == 0 { 2 } else { -1 }).unwrap();
                    shard.record(define(set, MetricKind::Histogram, "h"), worker).unwrap();
                }
            });
        }
    });
    let snapshot = set.snapshot();
    let counters: u64 = snapshot.iter().filter_map(|s| if let Value::Counter(n) = s.value { Some(n) } else { None }).sum();
    assert_eq!((set.series(), counters), (52, 800));
    assert_eq!(snapshot[50].value, Value::Gauge(400));
    let Value::Histogram(recorded) = &snapshot[51].value else { panic!("a histogram") };
    assert_eq!((recorded.count(), recorded.sum), (800, 200 * (1 + 2 + 3)));
}
