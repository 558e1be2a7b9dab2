//! Counters from several threads, and their text.

use weir_wasm::metrics::{MetricKind, MetricLimits, MetricSet};
use weir_wasm::stats::{BindingStats, Callback};

use super::*;

fn page(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render()).unwrap()
}

#[track_caller]
fn has(page: &str, line: &str) {
    assert!(page.lines().any(|other| other == line), "{line} is not on the page:\n{page}");
}

#[test]
fn workers_are_added_up() {
    let metrics = Metrics::new();
    let (listener, cluster) = (metrics.listener("edge"), metrics.cluster("app"));
    let workers = [metrics.worker(), metrics.worker()];
    for worker in &workers {
        worker.listener(&listener, ListenerCounter::Connections);
        worker.listener_level(&listener, ListenerLevel::Connections, 1);
        worker.request(&listener, &Ended { status: 200, duration_ms: 5, request_bytes: 0, response_bytes: 700 });
        worker.request(&listener, &Ended { status: 0, duration_ms: 4_000_000, request_bytes: 1, response_bytes: 0 });
        worker.detail(&listener, Detailed::LocalReply, "overload");
        worker.detail(&listener, Detailed::ProtocolRefusal, "chunk_size");
        worker.cluster(&cluster, ClusterCounter::Requests);
        worker.response(&cluster, 503, 26);
    }
    workers[0].listener_level(&listener, ListenerLevel::Connections, -1);
    let page = page(&metrics);
    for line in [
        "weir_listener_connections_total{listener=\"edge\"} 2",
        "weir_listener_connections{listener=\"edge\"} 1",
        "weir_http_responses_total{listener=\"edge\",code=\"200\"} 2",
        "weir_http_responses_total{listener=\"edge\",code=\"0\"} 2",
        "weir_local_replies_total{listener=\"edge\",detail=\"overload\"} 2",
        "weir_protocol_refusals_total{listener=\"edge\",detail=\"chunk_size\"} 2",
        "weir_http_request_duration_seconds_bucket{listener=\"edge\",le=\"0.001\"} 0",
        "weir_http_request_duration_seconds_bucket{listener=\"edge\",le=\"0.005\"} 2",
        "weir_http_request_duration_seconds_bucket{listener=\"edge\",le=\"3600\"} 2",
        "weir_http_request_duration_seconds_bucket{listener=\"edge\",le=\"+Inf\"} 4",
        "weir_http_request_duration_seconds_sum{listener=\"edge\"} 8000.01",
        "weir_http_response_bytes_bucket{listener=\"edge\",le=\"1000\"} 4",
        "weir_cluster_requests_total{cluster=\"app\"} 2",
        "weir_cluster_responses_total{cluster=\"app\",class=\"5xx\"} 2",
        "weir_cluster_request_duration_seconds_bucket{cluster=\"app\",le=\"0.025\"} 0",
        "weir_cluster_request_duration_seconds_bucket{cluster=\"app\",le=\"0.05\"} 2",
        "weir_config_updates_total{result=\"rejected\"} 0",
    ] {
        has(&page, line);
    }
    drop(workers);
    let after = self::page(&metrics);
    has(&after, "weir_listener_connections_total{listener=\"edge\"} 2");
    has(&after, "weir_listener_connections{listener=\"edge\"} 0");
}

#[test]
fn every_status_and_value_has_its_cell() {
    for status in 0..=u16::MAX {
        let cell = listener::status(status) - listener::STATUS;
        let expected = if (100..600).contains(&status) { u32::from(status) - 100 } else { listener::STATUSES - 1 };
        assert_eq!(cell, expected, "{status}");
        let class = cluster::class(status) - cluster::CLASS;
        let expected = if (100..600).contains(&status) { u32::from(status) / 100 - 1 } else { cluster::CLASSES - 1 };
        assert_eq!(class, expected, "{status}");
    }
    let bounds = weir_wasm::metrics::BOUNDS;
    for value in (0..5000).chain([u64::MAX, 3_600_000, 3_600_001]) {
        let expected = bounds.iter().position(|bound| value as f64 <= *bound).unwrap_or(bounds.len());
        assert_eq!(histogram::bucket(value) as usize, expected, "{value}");
    }
}

#[test]
fn a_name_keeps_its_numbers_and_a_block_is_lent_again_from_zero() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    let first = metrics.cluster("a");
    worker.cluster(&first, ClusterCounter::Requests);
    worker.cluster_level(&first, ClusterLevel::Connections, 3);
    let again = metrics.cluster("a");
    assert_eq!(first.base, again.base);
    drop(first);
    has(&page(&metrics), "weir_cluster_requests_total{cluster=\"a\"} 1");
    let base = again.base;
    drop(again);
    assert!(!page(&metrics).contains("cluster=\"a\""));
    let other = metrics.cluster("b");
    assert_eq!(other.base, base, "the block is used again");
    worker.cluster(&other, ClusterCounter::Requests);
    let page = page(&metrics);
    has(&page, "weir_cluster_requests_total{cluster=\"b\"} 1");
    has(&page, "weir_cluster_connections{cluster=\"b\"} 0");
}

#[test]
fn names_are_bounded() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    let held: Vec<_> = (0..1_003).map(|number| metrics.listener(&format!("l{number}"))).collect();
    for listener in &held {
        worker.listener(listener, ListenerCounter::Connections);
    }
    has(&page(&metrics), "weir_listener_connections_total{listener=\"_other\"} 3");
    drop(held);
    let kept = metrics.listener("new");
    assert_eq!(kept.name(), "new");
    for number in 0..200 {
        worker.detail(&kept, Detailed::LocalReply, format!("detail_{number}").leak());
    }
    has(&page(&metrics), "weir_local_replies_total{listener=\"new\",detail=\"other\"} 73");
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    let metrics = Metrics::new();
    let listener = metrics.listener("a\"} 1\nweir_evil 1\\");
    let worker = metrics.worker();
    worker.listener(&listener, ListenerCounter::Connections);
    let page = page(&metrics);
    assert!(page.lines().all(|line| !line.starts_with("weir_evil")), "{page}");
    has(&page, "weir_listener_connections_total{listener=\"a\\\"} 1\\nweir_evil 1\\\\\"} 1");
}

#[test]
fn filters_are_accounted_for_and_their_own_metrics_shown() {
    let metrics = Metrics::new();
    let (stats, own) = (BindingStats::sampling(1), MetricSet::new(MetricLimits::default()));
    let shard = stats.shard();
    if let Some(begun) = shard.begin(Callback::RequestHeaders) {
        shard.end(Callback::RequestHeaders, begun.elapsed());
    }
    let values = own.shard();
    let requests = own.define(MetricKind::Counter, "istio_requests_total", &[("response.code", "200")]).unwrap();
    let spoof = own.define(MetricKind::Counter, "weir_config_generation", &[]).unwrap();
    values.increment(requests, 4).unwrap();
    values.increment(spoof, 1).unwrap();
    let filter =
        |name: &str| FilterMetrics { chain: "edge".into(), filter: name.into(), stats: Arc::clone(&stats), metrics: Arc::clone(&own) };
    metrics.set_filters(vec![filter("router"), filter("router-again")]);
    let page = page(&metrics);
    has(&page, "istio_requests_total{response_code=\"200\"} 4");
    has(&page, "wasm_weir_config_generation 1");
    has(&page, "weir_config_generation 0");
    let callback = Callback::RequestHeaders.name();
    has(&page, &format!("weir_filter_calls_total{{chain=\"edge\",filter=\"router\",callback=\"{callback}\"}} 1"));
    has(&page, "weir_filter_call_duration_seconds_count{chain=\"edge\",filter=\"router\"} 1");
    has(&page, "weir_filter_deadline_misses_total{chain=\"edge\",filter=\"router\"} 0");
}
