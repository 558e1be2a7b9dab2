//! Endpoints that follow what names resolve to.

use std::collections::HashMap;
use std::sync::Mutex;

use weir_model::config;

use super::*;

const SECOND: Nanos = 1_000_000_000;

fn options(names: &[(&str, u32)], logical: bool) -> DnsOptions {
    let names = names.iter().map(|(name, port)| config::DnsName { name: (*name).to_owned(), port: *port, ..Default::default() }).collect();
    DnsOptions { names, logical, min_refresh: Duration::from_secs(5), refresh: None, family: Family::Auto, servers: Vec::new() }
}

fn resolved(addresses: &[&str], ttl: u64) -> Option<Resolved> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Some(Resolved { addresses, ttl: Duration::from_secs(ttl) })
}

fn keys(names: &Names, previous: &EndpointSet) -> (Vec<String>, EndpointSet) {
    let set = names.endpoints(previous, 0);
    (set.endpoints().iter().map(|endpoint| endpoint.key.to_string()).collect(), set)
}

#[test]
fn a_strict_cluster_has_an_endpoint_per_address() {
    let mut names = Names::new(options(&[("a", 80), ("b", 81), ("10.9.9.9", 82), ("[::1]", 83)], false), &EndpointSet::empty());
    assert_eq!(names.due(0), [0, 1], "addresses are not looked up");
    assert!(names.answer(0, resolved(&["10.0.0.2", "10.0.0.1"], 60), 0, 0));
    assert!(names.answer(1, resolved(&["10.0.0.1"], 60), 0, 0));
    let (first, set) = keys(&names, &EndpointSet::empty());
    assert_eq!(first, ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:81", "10.9.9.9:82", "[::1]:83"]);
    assert!(!names.answer(0, resolved(&["10.0.0.1", "10.0.0.2"], 60), 0, 0), "another order is no change");
    assert!(names.answer(0, resolved(&["10.0.0.2", "10.0.0.3"], 60), 0, 0));
    let (_, next) = keys(&names, &set);
    assert_eq!(next.endpoints()[0].id(), set.endpoints()[1].id());
}

#[test]
fn a_logical_cluster_has_an_endpoint_per_name_that_rotates() {
    let mut names = Names::new(options(&[("a", 80)], true), &EndpointSet::empty());
    names.answer(0, resolved(&["10.0.0.1", "10.0.0.2"], 60), 0, 0);
    let (first, set) = keys(&names, &EndpointSet::empty());
    assert_eq!(first, ["a:80"]);
    let endpoint = &set.endpoints()[0];
    let addresses: Vec<_> = (0..4).map(|_| endpoint.connect_address().to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"]);
    names.answer(0, resolved(&["10.0.0.3"], 60), 0, 0);
    let (_, next) = keys(&names, &set);
    assert_eq!(next.endpoints()[0].id(), endpoint.id(), "old connections stay");
    assert_eq!(next.endpoints()[0].connect_address().to_string(), "10.0.0.3:80");
}

#[test]
fn lookups_follow_the_ttl_within_bounds() {
    let mut names = Names::new(options(&[("a", 80)], false), &EndpointSet::empty());
    for (ttl, refresh, due) in [(60, None, 60), (1, None, 5), (0, None, 5), (60, Some(7), 7), (60, Some(1), 5)] {
        names.options.refresh = refresh.map(Duration::from_secs);
        names.answer(0, resolved(&["10.0.0.1"], ttl), 100 * SECOND, 0);
        assert_eq!(names.next_due(), (100 + due) * SECOND, "{ttl} {refresh:?}");
        assert!(names.due((99 + due) * SECOND).is_empty());
    }
}

#[test]
fn failures_keep_addresses_and_wait_longer_and_longer() {
    let mut names = Names::new(options(&[("a", 80)], false), &EndpointSet::empty());
    names.answer(0, resolved(&["10.0.0.1"], 60), 0, 0);
    for wait in [5, 10, 20, 40, 60, 60] {
        let empty = Some(Resolved { addresses: Vec::new(), ttl: Duration::ZERO });
        assert!(!names.answer(0, if wait == 20 { empty } else { None }, 0, 0));
        assert_eq!(names.next_due(), wait * SECOND);
    }
    assert_eq!(keys(&names, &EndpointSet::empty()).0, ["10.0.0.1:80"]);
    names.answer(0, None, 0, u64::MAX);
    assert!((60 * SECOND..75 * SECOND).contains(&names.next_due()), "spread by at most a quarter");
}

#[derive(Default)]
struct Scripted(Mutex<HashMap<String, Vec<Result<Resolved, String>>>>);

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, name: &'a str, _: Family) -> BoxFuture<'a, Result<Resolved, String>> {
        let mut script = self.0.lock().unwrap();
        let next = script.get_mut(name).and_then(|answers| (!answers.is_empty()).then(|| answers.remove(0)));
        match next {
            Some(answer) => Box::pin(async move { answer }),
            None => Box::pin(std::future::pending()),
        }
    }
}

#[tokio::test]
async fn the_task_publishes_what_it_finds() {
    let script = Scripted::default();
    let answers = vec![Ok(resolved(&["10.0.0.1"], 0).unwrap()), Err("SERVFAIL".to_owned()), Ok(resolved(&["10.0.0.2"], 0).unwrap())];
    script.0.lock().unwrap().insert("a".to_owned(), answers);
    let cluster = Arc::new(ClusterState::new(Arc::default(), Arc::default(), None, 0).unwrap());
    let mut options = options(&[("a", 80)], false);
    options.min_refresh = Duration::from_millis(2);
    let begin = std::time::Instant::now();
    let now = Arc::new(move || nanos(begin.elapsed()));
    let task = tokio::spawn(run(Arc::clone(&cluster), options, Arc::new(script), now));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        tokio::time::timeout(Duration::from_secs(10), cluster.endpoints_changed()).await.unwrap();
        seen.push(cluster.endpoints().endpoints()[0].key.to_string());
    }
    task.abort();
    assert_eq!(seen, ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!((cluster.counters().lookups.get(), cluster.counters().lookup_failures.get()), (2, 1));
}
