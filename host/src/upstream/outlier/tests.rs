//! Ejections: when, for how long, and how many at once.

use weir_model::config;

use super::*;

const SECOND: Nanos = 1_000_000_000;

fn cluster(endpoints: usize, outlier: config::OutlierDetection) -> ClusterState {
    let endpoints = (0..endpoints).map(|at| config::Endpoint { address: format!("10.0.0.{}:80", at + 1), ..Default::default() }).collect();
    let localities = vec![config::LocalityEndpoints { endpoints, ..Default::default() }];
    let discovery = config::cluster::Discovery::Endpoints(config::Endpoints { localities, ..Default::default() });
    let config = config::Cluster { discovery: Some(discovery), outlier_detection: Some(outlier), ..Default::default() };
    ClusterState::new(Arc::new(config), Arc::default(), None, 0).unwrap()
}

fn report_many(cluster: &ClusterState, at: usize, outcomes: &[Outcome], now: Nanos) {
    let set = cluster.endpoints();
    for outcome in outcomes {
        report(cluster, &set.endpoints()[at], *outcome, now);
    }
}

fn ejected(cluster: &ClusterState) -> Vec<usize> {
    let set = cluster.endpoints();
    (0..set.endpoints().len()).filter(|at| set.endpoints()[*at].state.ejected()).collect()
}

#[test]
fn five_server_errors_in_a_row_eject_and_time_brings_back() {
    let cluster = cluster(10, config::OutlierDetection::default());
    report_many(&cluster, 0, &[Outcome::Response(500); 4], 0);
    report_many(&cluster, 0, &[Outcome::Response(200)], 0);
    report_many(&cluster, 0, &[Outcome::Response(500); 4], 0);
    assert!(ejected(&cluster).is_empty());
    let version = cluster.version();
    report_many(&cluster, 0, &[Outcome::Reset], 0);
    assert_eq!(ejected(&cluster), [0]);
    assert!(cluster.version() > version);
    release(&cluster, 30 * SECOND - 1);
    assert_eq!(ejected(&cluster), [0]);
    release(&cluster, 33 * SECOND);
    assert!(ejected(&cluster).is_empty());
    assert_eq!(cluster.counters().ejections_5xx.get(), 1);
}

#[test]
fn every_ejection_is_longer_up_to_a_limit_and_good_conduct_counts() {
    let options = config::OutlierDetection { max_ejection_percent: Some(100), ..Default::default() };
    let cluster = cluster(1, options);
    let until = |cluster: &ClusterState| cluster.endpoints().endpoints()[0].state.outlier.ejected_until.load(Relaxed) / (3 * SECOND);
    for times in 1..=12_u64 {
        report_many(&cluster, 0, &[Outcome::Response(503); 5], 0);
        let expected = (times * 10).min(100);
        assert!((expected..=expected + 1).contains(&until(&cluster)), "{times}: {}", until(&cluster));
        release(&cluster, 1000 * SECOND);
    }
    for _ in 0..12 {
        interval(&cluster, 1000 * SECOND);
    }
    report_many(&cluster, 0, &[Outcome::Response(503); 5], 0);
    assert!((10..=11).contains(&until(&cluster)));
}

#[test]
fn the_cap_is_never_passed_but_one_may_always_go() {
    let large = cluster(10, config::OutlierDetection { max_ejection_percent: Some(20), ..Default::default() });
    for at in 0..10 {
        report_many(&large, at, &[Outcome::Response(500); 5], 0);
    }
    assert_eq!(ejected(&large), [0, 1]);
    assert_eq!(large.counters().ejections_refused.get(), 8);
    let small = cluster(3, config::OutlierDetection::default());
    report_many(&small, 1, &[Outcome::Response(500); 5], 0);
    report_many(&small, 2, &[Outcome::Response(500); 5], 0);
    assert_eq!(ejected(&small), [1]);
}

#[test]
fn ejection_stops_when_too_few_are_healthy() {
    let options = config::OutlierDetection { max_ejection_percent: Some(100), min_health_percent: 60, ..Default::default() };
    let cluster = cluster(10, options);
    for at in 0..10 {
        report_many(&cluster, at, &[Outcome::Response(500); 5], 0);
    }
    assert_eq!(ejected(&cluster).len(), 5);
}

#[test]
fn gateway_errors_have_their_own_count() {
    let options = config::OutlierDetection { consecutive_5xx: Some(0), consecutive_gateway_errors: Some(2), ..Default::default() };
    let cluster = cluster(10, options);
    report_many(&cluster, 0, &[Outcome::Response(503), Outcome::Response(500), Outcome::Response(503)], 0);
    assert!(ejected(&cluster).is_empty());
    report_many(&cluster, 0, &[Outcome::Timeout], 0);
    assert_eq!(ejected(&cluster), [0]);
    assert_eq!(cluster.counters().ejections_gateway.get(), 1);
}

#[test]
fn local_failures_are_counted_apart_if_asked_to() {
    let options = config::OutlierDetection { consecutive_5xx: Some(2), consecutive_local_failures: Some(4), ..Default::default() };
    let cluster = cluster(10, options);
    report_many(&cluster, 0, &[Outcome::ConnectFailure; 3], 0);
    assert!(ejected(&cluster).is_empty());
    report_many(&cluster, 0, &[Outcome::Cancelled], 0);
    report_many(&cluster, 0, &[Outcome::ConnectTimeout], 0);
    assert_eq!(ejected(&cluster), [0]);
    assert_eq!(cluster.counters().ejections_local.get(), 1);
}

#[test]
fn a_low_success_rate_ejects_when_there_is_enough_to_compare() {
    let rate = config::outlier_detection::SuccessRate::default();
    let options = config::OutlierDetection { consecutive_5xx: Some(0), success_rate: Some(rate), ..Default::default() };
    let cluster = cluster(10, options);
    let fill = |requests: usize, failing: usize| {
        for at in 0..10 {
            let bad = if at == failing { requests / 2 } else { requests / 100 };
            report_many(&cluster, at, &vec![Outcome::Response(500); bad], 0);
            report_many(&cluster, at, &vec![Outcome::Response(200); requests - bad], 0);
        }
    };
    fill(99, 4);
    interval(&cluster, 0);
    assert!(ejected(&cluster).is_empty(), "too few requests");
    fill(200, 4);
    interval(&cluster, 0);
    assert_eq!(ejected(&cluster), [4]);
    assert_eq!(cluster.endpoints().endpoints()[4].state.success_rate(), Some(0.5));
    assert_eq!(cluster.endpoints().endpoints()[5].state.success_rate(), Some(0.99));
}

#[test]
fn workers_that_decide_at_once_keep_the_cap() {
    let cluster = cluster(20, config::OutlierDetection { max_ejection_percent: Some(25), ..Default::default() });
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let cluster = &cluster;
            scope.spawn(move || {
                for at in 0..20 {
                    report_many(cluster, (at + worker * 5) % 20, &[Outcome::Response(500); 5], 0);
                }
            });
        }
    });
    assert_eq!(ejected(&cluster).len(), 5);
}

#[tokio::test]
async fn the_task_brings_endpoints_back() {
    let cluster = Arc::new(cluster(4, config::OutlierDetection::default()));
    report_many(&cluster, 0, &[Outcome::Response(500); 5], 0);
    let version = cluster.version();
    let task = tokio::spawn(run(Arc::clone(&cluster), Duration::from_millis(1), Arc::new(|| 100 * SECOND)));
    for _ in 0..1000 {
        if cluster.version() > version {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    task.abort();
    assert!(ejected(&cluster).is_empty());
}
