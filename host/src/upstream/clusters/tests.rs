//! Clusters that come, change and go.

use std::net::IpAddr;
use std::sync::Mutex;

use futures_util::future::BoxFuture;

use super::super::balancer::{Balancers, PickContext};
use super::super::options::Family;
use super::super::{subset::SubsetId, view};
use super::*;

/// Knows one name, whose address tests change; counts questions.
#[derive(Default)]
struct OneName {
    address: Mutex<Option<IpAddr>>,
    asked: Mutex<u32>,
}

impl dns::Resolve for OneName {
    fn resolve<'a>(&'a self, name: &'a str, _: Family) -> BoxFuture<'a, Result<dns::Resolved, String>> {
        *self.asked.lock().unwrap() += 1;
        let address = self.address.lock().unwrap().filter(|_| name == "web.test");
        let ttl = Duration::from_millis(1);
        Box::pin(
            async move { address.map(|address| dns::Resolved { addresses: vec![address], ttl }).ok_or_else(|| "no such name".to_owned()) },
        )
    }
}

fn clusters(resolver: &Arc<OneName>) -> Clusters {
    let resolver: Arc<dyn dns::Resolve> = Arc::clone(resolver) as _;
    let services = Services {
        handle: Handle::current(),
        now: Arc::new(|| 0),
        connector: Arc::new(health::PlainConnector),
        node: Arc::default(),
        resolver: Some(resolver),
    };
    Clusters::new(services)
}

fn endpoints(name: &str, addresses: &[&str]) -> Arc<config::Endpoints> {
    let endpoints = addresses.iter().map(|address| config::Endpoint { address: (*address).to_owned(), ..Default::default() }).collect();
    let localities = vec![config::LocalityEndpoints { endpoints, ..Default::default() }];
    Arc::new(config::Endpoints { name: name.to_owned(), localities, ..Default::default() })
}

fn fixed(name: &str, addresses: &[&str]) -> config::Cluster {
    let discovery = config::cluster::Discovery::Endpoints(endpoints("", addresses).as_ref().clone());
    config::Cluster { name: name.to_owned(), discovery: Some(discovery), ..Default::default() }
}

fn named(name: &str) -> config::Cluster {
    let discovery = config::cluster::Discovery::EndpointsFrom(String::new());
    config::Cluster { name: name.to_owned(), discovery: Some(discovery), ..Default::default() }
}

fn apply(clusters: &mut Clusters, configs: &[config::Cluster], resources: &[Arc<config::Endpoints>]) -> Arc<ClusterTable> {
    let configs: Vec<_> = configs.iter().cloned().map(Arc::new).collect();
    let resources = resources.iter().map(|resource| (resource.name.clone(), Arc::clone(resource))).collect();
    let prepared = clusters.prepare(&configs, &resources).unwrap();
    clusters.commit(prepared)
}

fn keys(state: &ClusterState) -> Vec<String> {
    state.endpoints().endpoints().iter().map(|endpoint| endpoint.key.to_string()).collect()
}

#[tokio::test]
async fn what_stays_the_same_is_the_same() {
    let mut clusters = clusters(&Arc::default());
    let before = apply(&mut clusters, &[fixed("a", &["10.0.0.1:1"]), fixed("b", &["10.0.0.2:1"])], &[]);
    let after = apply(&mut clusters, &[fixed("b", &["10.0.0.2:1", "10.0.0.3:1"]), fixed("a", &["10.0.0.1:1"])], &[]);
    let of = |table: &ClusterTable, name: &str| Arc::clone(table.get(table.find(name).unwrap()).unwrap());
    assert!(Arc::ptr_eq(&of(&before, "a"), &of(&after, "a")));
    let (old, new) = (of(&before, "b"), of(&after, "b"));
    assert!(!Arc::ptr_eq(&old, &new) && Arc::ptr_eq(old.usage(), new.usage()));
    assert_eq!(old.endpoints().endpoints()[0].id(), new.endpoints().endpoints()[0].id());
    assert_eq!((after.find("b").unwrap().get(), after.find("c")), (0, None));
}

#[tokio::test]
async fn a_change_that_is_not_committed_shows_nothing() {
    let mut clusters = clusters(&Arc::default());
    let table = apply(&mut clusters, &[named("a")], &[endpoints("a", &["10.0.0.1:1"])]);
    let state = Arc::clone(table.iter().next().unwrap());
    let version = state.version();
    let resources = BTreeMap::from([("a".to_owned(), endpoints("a", &["10.0.0.9:1"]))]);
    drop(clusters.prepare(&[Arc::new(named("a"))], &resources).unwrap());
    assert_eq!((keys(&state), state.version()), (vec!["10.0.0.1:1".to_owned()], version));
}

#[tokio::test]
async fn endpoint_resources_come_change_and_go() {
    let mut clusters = clusters(&Arc::default());
    let table = apply(&mut clusters, &[named("a")], &[]);
    let state = Arc::clone(table.iter().next().unwrap());
    assert!(keys(&state).is_empty());
    clusters.update_endpoints(&[endpoints("a", &["10.0.0.1:1"]), endpoints("other", &["10.0.0.5:1"])]).unwrap();
    assert_eq!(keys(&state), ["10.0.0.1:1"]);
    let errors = clusters.update_endpoints(&[endpoints("a", &["nonsense"]), endpoints("a", &["10.0.0.2:1"])]).unwrap_err();
    assert_eq!(errors[0].path, "endpoints.a.localities[0].endpoints[0].address");
    assert_eq!(keys(&state), ["10.0.0.2:1"]);
    let version = state.version();
    apply(&mut clusters, &[named("a")], &[endpoints("a", &["10.0.0.2:1"])]);
    assert_eq!(state.version(), version, "the same endpoints are no change");
    apply(&mut clusters, &[named("a")], &[]);
    assert!(keys(&state).is_empty());
}

#[tokio::test]
async fn every_mistake_is_named() {
    let clusters = clusters(&Arc::default());
    let bad = config::Cluster { proxy_protocol: 9, ..fixed("b", &[]) };
    let configs = [fixed("a", &["web:80"]), bad, fixed("c", &[]), fixed("c", &[])].map(Arc::new);
    let errors = clusters.prepare(&configs, &BTreeMap::new()).unwrap_err();
    let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["clusters.a.endpoints.localities[0].endpoints[0].address", "clusters.b.proxyProtocol", "clusters.c"]);
}

#[tokio::test]
async fn names_are_looked_up_until_the_cluster_is_gone() {
    let resolver = Arc::new(OneName::default());
    *resolver.address.lock().unwrap() = Some("10.0.0.1".parse().unwrap());
    let mut clusters = clusters(&resolver);
    let names = vec![config::DnsName { name: "web.test".to_owned(), port: 80, ..Default::default() }];
    let min_refresh = Some(weir_model::protobuf::Duration { seconds: 0, nanos: 1_000_000 });
    let dns = config::Dns { names, min_refresh, ..Default::default() };
    let config = config::Cluster { name: "a".to_owned(), discovery: Some(config::cluster::Discovery::Dns(dns)), ..Default::default() };
    let table = apply(&mut clusters, std::slice::from_ref(&config), &[]);
    let state = Arc::clone(table.iter().next().unwrap());
    assert!(!state.is_warm());
    assert!(table.warm(Duration::from_secs(10)).await);
    assert_eq!(keys(&state), ["10.0.0.1:80"]);
    *resolver.address.lock().unwrap() = None;
    let changed = config::Cluster { warm_connections: 1, ..config };
    let table = apply(&mut clusters, &[changed], &[]);
    let state = table.iter().next().unwrap();
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(keys(state), ["10.0.0.1:80"], "a changed cluster keeps addresses that it cannot look up");
    apply(&mut clusters, &[], &[]);
    let asked = *resolver.asked.lock().unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(asked >= 2);
    assert_eq!(*resolver.asked.lock().unwrap(), asked, "nobody asks for a cluster that is gone");
}

#[tokio::test]
async fn a_worker_keeps_its_balancers_across_changes() {
    let mut clusters = clusters(&Arc::default());
    let mut balancers: Balancers<std::cell::Cell<u8>> = Balancers::new(1);
    let table = apply(&mut clusters, &[fixed("a", &["10.0.0.1:1"]), fixed("b", &["10.0.0.2:1"])], &[]);
    for balancer in &balancers.apply(&table, 0) {
        balancer.borrow_mut().targets(0)[0].local().set(7);
    }
    let tls = config::Cluster { tls: Some(config::UpstreamTls::default()), ..fixed("b", &["10.0.0.2:1"]) };
    let table = apply(&mut clusters, &[tls, fixed("a", &["10.0.0.1:1", "10.0.0.3:1"])], &[]);
    let after = balancers.apply(&table, 0);
    let kept: Vec<Vec<u8>> =
        after.iter().map(|balancer| balancer.borrow_mut().targets(0).iter().map(|target| target.local().get()).collect()).collect();
    assert_eq!(kept, [vec![0], vec![7, 0]], "connections without TLS are of no use any more");
    assert_eq!(after[table.find("a").unwrap().get()].borrow().cluster().name(), "a");
}

#[tokio::test]
async fn subsets_mean_the_same_after_a_change() {
    let mut clusters = clusters(&Arc::default());
    let mut config = fixed("a", &["10.0.0.1:1", "10.0.0.2:1"]);
    if let Some(config::cluster::Discovery::Endpoints(endpoints)) = &mut config.discovery {
        endpoints.localities[0].endpoints[1].labels.insert("v".to_owned(), "2".to_owned());
    }
    let subsets = vec![config::SubsetKeys { keys: vec!["v".to_owned()] }];
    config.balancer = Some(config::Balancer { subsets, ..Default::default() });
    let table = apply(&mut clusters, std::slice::from_ref(&config), &[]);
    let subset: SubsetId = table.iter().next().unwrap().subset(&BTreeMap::from([("v".to_owned(), "2".to_owned())]));
    config.warm_connections = 3;
    let table = apply(&mut clusters, &[config], &[]);
    let mut balancers: Balancers = Balancers::new(1);
    let picked = balancers.apply(&table, 0)[0].borrow_mut().pick(&PickContext { subset, ..Default::default() }).unwrap();
    assert_eq!(&*picked.endpoint().key, "10.0.0.2:1");
}

#[tokio::test]
async fn a_cluster_is_warm_after_the_first_answers() {
    let mut clusters = clusters(&Arc::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let checked = config::Cluster { health_checks: vec![config::HealthCheck::default()], ..fixed("a", &[&address]) };
    let names = vec![config::DnsName { name: "none.test".to_owned(), port: 80, ..Default::default() }];
    let dns = config::Dns { names, ..Default::default() };
    let unknown = config::Cluster { name: "b".to_owned(), discovery: Some(config::cluster::Discovery::Dns(dns)), ..Default::default() };
    let table = apply(&mut clusters, &[checked, unknown, fixed("c", &[])], &[]);
    let warm: Vec<_> = table.iter().map(|state| state.is_warm()).collect();
    assert_eq!(warm, [false, false, true]);
    assert!(table.warm(Duration::from_secs(10)).await, "a name that does not exist holds nothing up");
    assert_eq!(table.iter().next().unwrap().counters().checks_passed.get(), 1);
}

#[tokio::test]
async fn the_admin_page_sees_everything() {
    let mut clusters = clusters(&Arc::default());
    let breakers = Some(config::CircuitBreakers { max_requests: 9, ..Default::default() });
    let table = apply(&mut clusters, &[config::Cluster { circuit_breakers: breakers, ..fixed("a", &["10.0.0.1:1"]) }], &[]);
    let mut balancers: Balancers = Balancers::new(1);
    let mut attempt = balancers.apply(&table, 0)[0].borrow_mut().attempt(&PickContext::default()).unwrap();
    attempt.report(super::super::Outcome::Response(500), 5);
    let shown = view::cluster(table.iter().next().unwrap());
    assert_eq!((shown.name.as_str(), shown.limits["requests"].used, shown.limits["requests"].limit), ("a", 1, Some(9)));
    let endpoint = &shown.endpoints[0];
    assert_eq!((endpoint.availability, endpoint.active_requests, endpoint.failures), ("healthy", 1, 1));
    assert!(serde_json::to_string(&shown).unwrap().contains("\"checked_health\":\"unknown\""));
}
