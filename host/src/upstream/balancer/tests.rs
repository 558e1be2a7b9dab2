//! Choices of endpoints: shares, consistency, failover, panic.

use std::collections::BTreeMap;

use weir_model::config;
use weir_model::config::balancer::Policy as Given;

use super::*;
use crate::upstream::endpoint::ActiveHealth;

const SECOND: Nanos = 1_000_000_000;

/// One locality of a test cluster: endpoints `10.N.0.1:80` and on.
#[derive(Clone, Default)]
struct Place {
    number: usize,
    zone: &'static str,
    priority: u32,
    weight: u32,
    /// Weights of its endpoints.
    endpoints: Vec<u32>,
}

fn locality(place: &Place) -> config::LocalityEndpoints {
    let endpoint = |(at, weight): (usize, &u32)| config::Endpoint {
        address: format!("10.{}.0.{}:80", place.number, at + 1),
        weight: *weight,
        labels: [("version".to_owned(), format!("v{}", at % 2))].into(),
        ..Default::default()
    };
    config::LocalityEndpoints {
        locality: Some(config::Locality { region: "r".to_owned(), zone: place.zone.to_owned(), sub_zone: String::new() }),
        priority: place.priority,
        weight: place.weight,
        endpoints: place.endpoints.iter().enumerate().map(endpoint).collect(),
    }
}

fn config(policy: Option<Given>, places: &[Place]) -> config::Cluster {
    let endpoints = config::Endpoints { localities: places.iter().map(locality).collect(), ..Default::default() };
    config::Cluster {
        discovery: Some(config::cluster::Discovery::Endpoints(endpoints)),
        balancer: Some(config::Balancer { policy, ..Default::default() }),
        ..Default::default()
    }
}

fn cluster(config: config::Cluster) -> Arc<ClusterState> {
    let node = super::super::endpoint::Locality { region: "r".to_owned(), zone: "a".to_owned(), sub_zone: String::new() };
    Arc::new(ClusterState::new(Arc::new(config), Arc::new(node), None, 0).unwrap())
}

fn one_place(policy: Option<Given>, weights: &[u32]) -> Arc<ClusterState> {
    cluster(config(policy, &[Place { endpoints: weights.to_vec(), ..Default::default() }]))
}

fn balancer(cluster: &Arc<ClusterState>) -> Balancer {
    Balancer::new(Arc::clone(cluster), 42, 0)
}

/// How many of `picks` each endpoint got, by position in the set.
fn counts(balancer: &mut Balancer, picks: usize, context: impl Fn(usize) -> PickContext<'static>) -> Vec<usize> {
    let keys: Vec<_> = balancer.cluster().endpoints().endpoints().iter().map(|endpoint| endpoint.id()).collect();
    let mut counts = vec![0; keys.len()];
    for pick in 0..picks {
        let picked = balancer.pick(&context(pick)).expect("an endpoint");
        counts[keys.iter().position(|id| *id == picked.id()).unwrap()] += 1;
    }
    counts
}

fn any(_: usize) -> PickContext<'static> {
    PickContext::default()
}

fn about(count: usize, wanted: usize) -> bool {
    count.abs_diff(wanted) * 10 <= wanted
}

fn eject(cluster: &ClusterState, at: usize) {
    cluster.endpoints().endpoints()[at].state.set_ejected(true);
    cluster.changed();
}

fn round_robin() -> Option<Given> {
    Some(Given::RoundRobin(config::RoundRobin {}))
}

#[test]
fn round_robin_takes_turns_exactly() {
    let cluster = one_place(round_robin(), &[0; 4]);
    assert_eq!(counts(&mut balancer(&cluster), 400, any), [100; 4]);
}

#[test]
fn policies_follow_weights() {
    let least = Given::LeastRequest(config::LeastRequest { choices: 1 });
    let ring = Given::RingHash(config::RingHash { min_size: 65_536, max_size: 0 });
    for policy in
        [round_robin(), Some(least), Some(Given::Random(config::Random {})), Some(ring), Some(Given::Maglev(config::Maglev::default()))]
    {
        let cluster = one_place(policy, &[1, 2, 5]);
        let counts = counts(&mut balancer(&cluster), 16_000, any);
        for (count, wanted) in counts.iter().zip([2000, 4000, 10_000]) {
            assert!(about(*count, wanted), "{policy:?}: {counts:?}");
        }
    }
}

#[test]
fn the_least_busy_is_chosen() {
    for choices in [2, 10] {
        let cluster = one_place(Some(Given::LeastRequest(config::LeastRequest { choices })), &[0; 3]);
        let mut balancer = balancer(&cluster);
        let attempts: Vec<_> = (0..30).map(|_| balancer.attempt(&PickContext::default()).unwrap()).collect();
        let active: Vec<_> = cluster.endpoints().endpoints().iter().map(|endpoint| endpoint.state.active()).collect();
        assert!(active.iter().all(|active| (8..=12).contains(active)), "{active:?}");
        drop(attempts);
        assert!(cluster.endpoints().endpoints().iter().all(|endpoint| endpoint.state.active() == 0));
        assert_eq!(cluster.usage().requests.used(), 0);
    }
}

#[test]
fn peak_ewma_avoids_the_slow_and_the_failing() {
    for slow in [Outcome::Response(200), Outcome::Response(503)] {
        let cluster = one_place(Some(Given::PeakEwma(config::PeakEwma::default())), &[0; 3]);
        let mut balancer = balancer(&cluster);
        let mut now = SECOND;
        let mut last = 0;
        for pick in 0..600 {
            let mut attempt = balancer.attempt(&PickContext { now, ..Default::default() }).unwrap();
            let first = attempt.target().id() == cluster.endpoints().endpoints()[0].id();
            last += usize::from(first && pick >= 100);
            let took = if first && slow.status() == Some(200) { SECOND } else { SECOND / 500 };
            attempt.report(if first { slow } else { Outcome::Response(200) }, now + took);
            now += SECOND / 1000;
        }
        assert!(last < 25, "{slow:?}: {last} of 500");
    }
}

#[test]
fn hashes_stick_and_move_little() {
    for policy in [Given::RingHash(config::RingHash::default()), Given::Maglev(config::Maglev::default())] {
        let cluster = one_place(Some(policy), &[0; 10]);
        let mut balancer = balancer(&cluster);
        let mut owner = |hash: u64| {
            balancer
                .pick(&PickContext { hash: Some(super::super::hash::xxh64(&hash.to_le_bytes(), 0)), ..Default::default() })
                .unwrap()
                .id()
        };
        let before: Vec<_> = (0..2000).map(&mut owner).collect();
        assert_eq!(before, (0..2000).map(&mut owner).collect::<Vec<_>>());
        eject(&cluster, 3);
        let after: Vec<_> = (0..2000).map(&mut owner).collect();
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!((100..=400).contains(&moved), "{moved} of 2000 moved");
    }
}

#[test]
fn ejected_draining_and_unhealthy_endpoints_get_nothing() {
    let mut config = config(round_robin(), &[Place { endpoints: vec![0; 8], ..Default::default() }]);
    if let Some(config::cluster::Discovery::Endpoints(endpoints)) = &mut config.discovery {
        endpoints.localities[0].endpoints[1].health = config::Health::Draining as i32;
        endpoints.localities[0].endpoints[2].health = config::Health::Unhealthy as i32;
    }
    let cluster = cluster(config);
    let mut balancer = balancer(&cluster);
    assert_eq!(counts(&mut balancer, 600, any), [100, 0, 0, 100, 100, 100, 100, 100]);
    eject(&cluster, 0);
    assert_eq!(counts(&mut balancer, 500, any), [0, 0, 0, 100, 100, 100, 100, 100]);
}

#[test]
fn panic_uses_everyone_but_the_draining_and_is_counted() {
    let cluster = one_place(round_robin(), &[0; 4]);
    let mut balancer = balancer(&cluster);
    for at in 0..3 {
        eject(&cluster, at);
    }
    assert_eq!(counts(&mut balancer, 400, any), [100; 4]);
    assert_eq!(cluster.counters().panics.get(), 400);
}

#[test]
fn without_panic_there_is_no_endpoint() {
    let mut config = config(round_robin(), &[Place { endpoints: vec![0; 2], ..Default::default() }]);
    if let Some(config::cluster::Discovery::Endpoints(endpoints)) = &mut config.discovery {
        endpoints.panic_threshold = Some(0);
    }
    let cluster = cluster(config);
    let mut balancer = balancer(&cluster);
    eject(&cluster, 0);
    eject(&cluster, 1);
    assert!(balancer.pick(&PickContext::default()).is_none());
    assert_eq!(cluster.counters().no_endpoint.get(), 1);
    assert_eq!(balancer.attempt(&PickContext::default()).unwrap_err(), Unavailable::NoEndpoint);
}

#[test]
fn priorities_fail_over_and_retries_avoid_them() {
    let place = |number, priority| Place { number, priority, endpoints: vec![0; 4], ..Default::default() };
    let cluster = cluster(config(round_robin(), &[place(0, 0), place(1, 1)]));
    let mut balancer = balancer(&cluster);
    let first: usize = counts(&mut balancer, 400, any)[..4].iter().sum();
    assert_eq!(first, 400);
    eject(&cluster, 0);
    eject(&cluster, 1);
    let counted = counts(&mut balancer, 4000, any);
    assert!(about(counted[..4].iter().sum(), 2800), "{counted:?}");
    let avoided = counts(&mut balancer, 100, |_| PickContext { tried_priorities: 0b1, ..Default::default() });
    assert_eq!(avoided[..4].iter().sum::<usize>(), 0);
}

#[test]
fn localities_share_by_weight_and_fitness() {
    let place = |number, weight| Place { number, weight, endpoints: vec![0; 2 + number], ..Default::default() };
    let mut places = [place(0, 3), place(1, 1)];
    places[1].zone = "b";
    let cluster = cluster(config(round_robin(), &places));
    let mut balancer = balancer(&cluster);
    let counted = counts(&mut balancer, 4000, any);
    assert!(about(counted[..2].iter().sum(), 3000), "{counted:?}");
    eject(&cluster, 0);
    let counted = counts(&mut balancer, 3100, any);
    assert!(about(counted[1], 2100), "3 × 0.7 of 3.1: {counted:?}");
}

#[test]
fn the_own_zone_is_preferred_while_it_has_enough() {
    let place = |number, zone| Place { number, zone, endpoints: vec![0; 4], ..Default::default() };
    let mut config = config(round_robin(), &[place(0, "a"), place(1, "b"), place(2, "c")]);
    config.balancer.as_mut().unwrap().zone_aware = true;
    let cluster = cluster(config);
    let mut balancer = balancer(&cluster);
    assert_eq!(counts(&mut balancer, 400, any)[..4], [100; 4]);
    eject(&cluster, 0);
    eject(&cluster, 1);
    let counted = counts(&mut balancer, 4000, any);
    assert!(about(counted[..4].iter().sum(), 2800), "{counted:?}");
}

#[test]
fn subsets_choose_by_label_and_fall_back_if_told_to() {
    for (fallback, found) in [(config::SubsetFallback::NoEndpoint, false), (config::SubsetFallback::AnyEndpoint, true)] {
        let mut config = config(round_robin(), &[Place { endpoints: vec![0; 4], ..Default::default() }]);
        let given = config.balancer.as_mut().unwrap();
        given.subsets = vec![config::SubsetKeys { keys: vec!["version".to_owned()] }];
        given.subset_fallback = fallback as i32;
        let cluster = cluster(config);
        let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let mut balancer = balancer(&cluster);
        let odd = cluster.subset(&labels("version", "v1"));
        assert_eq!(counts(&mut balancer, 100, move |_| PickContext { subset: odd, ..Default::default() }), [0, 50, 0, 50]);
        for subset in [cluster.subset(&labels("version", "v7")), cluster.subset(&labels("stage", "v1"))] {
            assert_eq!(balancer.pick(&PickContext { subset, ..Default::default() }).is_some(), found);
        }
    }
}

#[test]
fn tried_endpoints_are_avoided_as_often_as_allowed() {
    for policy in [round_robin(), Some(Given::Maglev(config::Maglev::default()))] {
        let cluster = one_place(policy, &[0; 3]);
        let mut balancer = balancer(&cluster);
        let ids: Vec<_> = cluster.endpoints().endpoints().iter().map(|endpoint| endpoint.id()).collect();
        for _ in 0..100 {
            let context = PickContext { tried: &ids[..2], host_attempts: 50, hash: Some(7), ..Default::default() };
            assert_eq!(balancer.pick(&context).unwrap().id(), ids[2]);
        }
        let context = PickContext { tried: &ids, host_attempts: 5, ..Default::default() };
        assert!(balancer.pick(&context).is_some(), "in the end a tried one is better than none");
    }
}

#[test]
fn a_new_endpoint_starts_slowly() {
    let mut first = config(round_robin(), &[Place { endpoints: vec![0; 2], ..Default::default() }]);
    first.balancer.as_mut().unwrap().slow_start =
        Some(config::SlowStart { window: Some(weir_model::protobuf::Duration { seconds: 100, nanos: 0 }), ..Default::default() });
    let cluster = cluster(first);
    let grown =
        config::Endpoints { localities: vec![locality(&Place { endpoints: vec![0; 3], ..Default::default() })], ..Default::default() };
    cluster.set_endpoints(EndpointSet::compile(&grown, &cluster.endpoints(), 1000 * SECOND).unwrap());
    let mut balancer = balancer(&cluster);
    for (second, wanted) in [(1001, 10), (1050, 50), (1100, 100)] {
        let counted = counts(&mut balancer, 2100, |_| PickContext { now: second * SECOND, ..Default::default() });
        let share = counted[2] * 100 / counted[0];
        assert!(share.abs_diff(wanted) <= 5, "{second}: {counted:?}");
    }
}

#[test]
fn what_a_worker_keeps_stays_with_the_endpoint() {
    let cluster = one_place(round_robin(), &[0; 2]);
    let mut balancer: Balancer<std::cell::Cell<u32>> = Balancer::new(Arc::clone(&cluster), 1, 0);
    for target in balancer.targets(0) {
        target.local().set(7);
    }
    let changed =
        config::Endpoints { localities: vec![locality(&Place { endpoints: vec![9; 3], ..Default::default() })], ..Default::default() };
    cluster.set_endpoints(EndpointSet::compile(&changed, &cluster.endpoints(), 0).unwrap());
    let kept: Vec<_> = balancer.targets(0).iter().map(|target| (target.local().get(), target.endpoint().weight)).collect();
    assert_eq!(kept, [(7, 9), (7, 9), (0, 9)]);
    let other = config(round_robin(), &[Place { endpoints: vec![0; 2], ..Default::default() }]);
    let next = Arc::new(ClusterState::new(Arc::new(other), Arc::default(), Some(&cluster), 0).unwrap());
    balancer.replace(Arc::clone(&next), true, 0);
    assert!(balancer.targets(0).iter().all(|target| target.local().get() == 7));
    balancer.replace(next, false, 0);
    assert!(balancer.targets(0).iter().all(|target| target.local().get() == 0));
}

#[test]
fn active_health_decides_when_there_are_checks() {
    let mut config = config(round_robin(), &[Place { endpoints: vec![0; 4], ..Default::default() }]);
    config.health_checks.push(config::HealthCheck::default());
    let cluster = cluster(config);
    let mut balancer = balancer(&cluster);
    assert_eq!(counts(&mut balancer, 400, any), [100; 4], "nothing known yet: panic");
    for (at, health) in
        [ActiveHealth::Healthy, ActiveHealth::Healthy, ActiveHealth::Healthy, ActiveHealth::Unhealthy].into_iter().enumerate()
    {
        cluster.endpoints().endpoints()[at].state.set_active_health(health, 0);
    }
    cluster.changed();
    assert_eq!(counts(&mut balancer, 300, any), [100, 100, 100, 0]);
}

#[test]
fn original_destinations_are_made_on_demand() {
    let original = config::OriginalDestinationCluster { port: 8080, ..Default::default() };
    let config = config::Cluster { discovery: Some(config::cluster::Discovery::OriginalDestination(original)), ..Default::default() };
    let cluster = cluster(config);
    let mut balancer = balancer(&cluster);
    let address: Address = "10.1.1.1:80".parse().unwrap();
    let context = PickContext { destination: Some(&address), ..Default::default() };
    let first = balancer.pick(&context).unwrap();
    assert_eq!(first.endpoint().connect_address().to_string(), "10.1.1.1:8080");
    assert!(Rc::ptr_eq(&first, &balancer.pick(&context).unwrap()));
    assert!(balancer.pick(&PickContext::default()).is_none(), "without a destination there is nowhere to go");
    let id = first.id();
    drop(first);
    balancer.expire(DYNAMIC_IDLE * 2);
    cluster.expire_dynamic(DYNAMIC_IDLE * 2);
    assert_ne!(balancer.pick(&PickContext { now: DYNAMIC_IDLE * 2, ..context }).unwrap().id(), id);
}

#[test]
fn a_named_destination_is_taken_if_it_is_fit() {
    let cluster = one_place(round_robin(), &[0; 3]);
    let mut balancer = balancer(&cluster);
    let address: Address = "10.0.0.2:80".parse().unwrap();
    let context = PickContext { destination: Some(&address), ..Default::default() };
    assert!((0..5).all(|_| *balancer.pick(&context).unwrap().endpoint().key == *"10.0.0.2:80"));
    eject(&cluster, 1);
    assert!((0..5).all(|_| *balancer.pick(&context).unwrap().endpoint().key != *"10.0.0.2:80"));
}

#[test]
fn an_attempt_above_the_limit_is_refused() {
    let mut config = config(round_robin(), &[Place { endpoints: vec![0; 2], ..Default::default() }]);
    config.circuit_breakers = Some(config::CircuitBreakers { max_requests: 1, ..Default::default() });
    let cluster = cluster(config);
    let mut balancer = balancer(&cluster);
    let mut attempt = balancer.attempt(&PickContext::default()).unwrap();
    assert_eq!(balancer.attempt(&PickContext::default()).unwrap_err(), Unavailable::Overflow(Overflow(Resource::Requests)));
    attempt.report(Outcome::Response(200), 1);
    attempt.report(Outcome::Reset, 2);
    let state = &attempt.target().endpoint().state;
    assert_eq!((state.successes(), state.failures(), state.active()), (1, 0, 1));
    drop(attempt);
    assert!(balancer.attempt(&PickContext::default()).is_ok());
}
