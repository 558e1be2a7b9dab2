//! What goes over the wire, and when it is applied.

use super::server::Server;
use super::*;

#[tokio::test]
async fn a_configuration_is_applied_when_it_is_complete() {
    let mut server = Server::start().await;
    let mut proxy = Proxy::start(options(&[&server.address]), plain());
    let mut peer = server.peer().await;
    let first = peer.greeted().await;
    let nodes: Vec<_> = first.iter().filter_map(|request| request.node.as_ref()).collect();
    assert_eq!((nodes.len(), nodes[0].id.as_str()), (1, "proxy-1"));
    assert!(first.iter().all(|request| request.resource_names_subscribe == ["*"] && request.initial_resource_versions.is_empty()));

    peer.send(response(Kind::Cluster, "c1", vec![cluster_elsewhere("c", "1")], &[])).await;
    let asked = peer.request_of(Kind::Endpoints).await;
    assert_eq!((asked.resource_names_subscribe, asked.response_nonce), (vec!["c".to_owned()], String::new()));
    peer.send(response(Kind::Listener, "l1", vec![listener("l", "1", &["s"])], &[])).await;
    assert_eq!(peer.request_of(Kind::Secret).await.resource_names_subscribe, ["s"]);
    peer.send(response(Kind::Secret, "s1", vec![inline("s", "1")], &[])).await;
    assert_eq!(peer.answer(Kind::Secret, "s1").await, "", "answered although the rest is not complete");
    proxy.no_update();
    peer.send(response(Kind::FilterChain, "f1", vec![], &[])).await;
    assert_eq!(peer.answer(Kind::FilterChain, "f1").await, "");
    proxy.no_update();
    peer.send(response(Kind::Endpoints, "e1", vec![endpoints("c", "1", 2)], &[])).await;

    let update = proxy.update().await;
    assert_eq!(changed(&update), ["Secret/s", "Endpoints/c", "Cluster/c", "Listener/l"]);
    assert!(update.notes.is_empty() && !update.is_endpoints_only());
    for (kind, nonce) in [(Kind::Cluster, "c1"), (Kind::Listener, "l1"), (Kind::Endpoints, "e1")] {
        assert_eq!(peer.answer(kind, nonce).await, "");
    }
    proxy.no_update();
}

/// A proxy that has applied the clusters `a` and `elsewhere` with its endpoints.
async fn settled(server: &mut Server, options: Options) -> (Proxy, server::Peer) {
    let mut proxy = Proxy::start(options, plain());
    let mut peer = server.peer().await;
    peer.greeted().await;
    peer.send(response(Kind::Listener, "l0", vec![], &[])).await;
    peer.send(response(Kind::FilterChain, "f0", vec![], &[])).await;
    peer.send(response(Kind::Cluster, "c0", vec![cluster("a", "1"), cluster_elsewhere("elsewhere", "1")], &[])).await;
    assert_eq!(peer.request_of(Kind::Endpoints).await.resource_names_subscribe, ["elsewhere"]);
    peer.send(response(Kind::Endpoints, "e0", vec![endpoints("elsewhere", "1", 1)], &[])).await;
    assert_eq!(changed(&proxy.update().await), ["Endpoints/elsewhere", "Cluster/a", "Cluster/elsewhere"]);
    for (kind, nonce) in [(Kind::Listener, "l0"), (Kind::FilterChain, "f0"), (Kind::Cluster, "c0"), (Kind::Endpoints, "e0")] {
        assert_eq!(peer.answer(kind, nonce).await, "");
    }
    (proxy, peer)
}

#[tokio::test]
async fn endpoints_alone_are_said_to_be_alone() {
    let mut server = Server::start().await;
    let options = options(&[&server.address]);
    let (mut proxy, mut peer) = settled(&mut server, options).await;
    peer.send(response(Kind::Endpoints, "e1", vec![endpoints("elsewhere", "2", 3)], &[])).await;
    let update = proxy.update().await;
    assert!(update.is_endpoints_only());
    assert_eq!(update.resources.endpoints("elsewhere").unwrap().localities[0].endpoints.len(), 3);
    assert_eq!(peer.answer(Kind::Endpoints, "e1").await, "");
    // They do not wait for a cluster that waits for its own.
    peer.send(response(Kind::Cluster, "c1", vec![cluster_elsewhere("late", "1")], &[])).await;
    assert_eq!(peer.request_of(Kind::Endpoints).await.resource_names_subscribe, ["late"]);
    proxy.no_update();
}

#[tokio::test]
async fn a_bad_resource_is_refused_by_name_and_the_others_are_applied() {
    let mut server = Server::start().await;
    let options = options(&[&server.address]);
    let (mut proxy, mut peer) = settled(&mut server, options).await;
    let mut garbage = cluster("garbage", "1");
    garbage.resource.as_mut().unwrap().value = b"\xff\xff\xff".to_vec();
    let other = Resource { name: "renamed".into(), ..cluster("other", "1") };
    let typed = Resource { name: "typed".into(), ..endpoints("typed", "1", 1) };
    let resources = vec![cluster("b", "1"), cluster("bad", "1"), cluster("bad-2", "1"), garbage, other, typed, Resource::default()];
    peer.send(response(Kind::Cluster, "c1", resources, &[])).await;
    let update = proxy.update().await;
    assert_eq!(changed(&update), ["Cluster/b"]);
    let detail = peer.answer(Kind::Cluster, "c1").await;
    let lines: Vec<&str> = detail.lines().collect();
    assert_eq!(lines.len(), 6, "{detail}");
    for expected in ["Cluster/bad: it is bad", "Cluster/bad-2: it is bad"] {
        assert!(lines.contains(&expected), "{detail}");
    }
    for start in ["Cluster/garbage: not a cluster", "Cluster/renamed: it calls itself", "Cluster/typed: a resource of type", "Cluster/: "] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {detail}");
    }
    let status = proxy.hub.status().borrow()[1].clone();
    assert_eq!((status.accepted, status.rejected, status.last_error.len()), (2, 1, 6));

    // The last good version stays when a worse one comes.
    let worse = Resource { version: "2".into(), ..cluster("a", "2") };
    let broken = Resource { resource: None, ..worse };
    peer.send(response(Kind::Cluster, "c2", vec![broken, cluster("b", "2")], &[])).await;
    let update = proxy.update().await;
    assert_eq!(changed(&update), ["Cluster/b"]);
    assert_eq!(update.resources.cluster("a").unwrap().metadata["v"], "1");
    assert_eq!(peer.answer(Kind::Cluster, "c2").await, "Cluster/a: nothing in it");
}

#[tokio::test]
async fn a_new_stream_says_what_serves() {
    let mut server = Server::start().await;
    let options = options(&[&server.address]);
    let (mut proxy, mut peer) = settled(&mut server, options).await;
    peer.send(response(Kind::Cluster, "c1", vec![cluster("bad", "1"), cluster("b", "7")], &[])).await;
    proxy.update().await;
    assert_eq!(peer.answer(Kind::Cluster, "c1").await, "Cluster/bad: it is bad");
    drop(peer);
    let mut peer = server.peer().await;
    let first = peer.greeted().await;
    let versions: Vec<(String, String)> = first[2].initial_resource_versions.clone().into_iter().collect();
    let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    assert_eq!(versions, [pair("a", "1"), pair("b", "7"), pair("elsewhere", "1")], "what was refused is not claimed");
    let named = peer.request_of(Kind::Endpoints).await;
    assert_eq!(named.resource_names_subscribe, ["elsewhere"]);
    assert_eq!(named.initial_resource_versions.into_iter().collect::<Vec<_>>(), [pair("elsewhere", "1")]);
    // Nothing is new: nothing is applied, and it is answered.
    peer.send(response(Kind::Cluster, "c2", vec![], &[])).await;
    assert_eq!(peer.answer(Kind::Cluster, "c2").await, "");
    proxy.no_update();
}

#[tokio::test]
async fn what_is_removed_goes_and_what_it_named_is_no_longer_asked_for() {
    let mut server = Server::start().await;
    let options = options(&[&server.address]);
    let (mut proxy, mut peer) = settled(&mut server, options).await;
    // Endpoints that a cluster names stay as long as it names them.
    peer.send(response(Kind::Endpoints, "e1", vec![], &["elsewhere"])).await;
    assert_eq!(peer.answer(Kind::Endpoints, "e1").await, "");
    proxy.no_update();
    peer.send(response(Kind::Cluster, "c1", vec![], &["elsewhere", "never-was"])).await;
    let update = proxy.update().await;
    assert_eq!(changed(&update), ["Endpoints/elsewhere", "Cluster/elsewhere"]);
    assert_eq!((names(&update, Kind::Cluster), names(&update, Kind::Endpoints)), (vec!["a".to_owned()], vec![]));
    let unsubscribed = peer.request_of(Kind::Endpoints).await;
    assert_eq!(unsubscribed.resource_names_unsubscribe, ["elsewhere"]);
    assert_eq!(peer.answer(Kind::Cluster, "c1").await, "");
}

#[tokio::test]
async fn after_a_while_the_rest_is_applied_without_what_is_missing() {
    let mut server = Server::start().await;
    let mut options = options(&[&server.address]);
    options.limits.grace = Duration::from_millis(200);
    let (mut proxy, mut peer) = settled(&mut server, options).await;
    peer.send(response(Kind::Cluster, "c1", vec![cluster_elsewhere("lonely", "1"), cluster("b", "1")], &[])).await;
    peer.send(response(Kind::Listener, "l1", vec![listener("open", "1", &[]), listener("shut", "1", &["s"])], &[])).await;
    let update = proxy.update().await;
    assert_eq!(changed(&update), ["Cluster/b", "Cluster/lonely", "Listener/open"], "a listener without its certificate is not there");
    assert_eq!(update.notes.len(), 2, "{:?}", update.notes);
    assert_eq!(peer.answer(Kind::Cluster, "c1").await, "");
    assert_eq!(peer.answer(Kind::Listener, "l1").await, "Listener/shut: incomplete: Secret/s did not arrive");
    assert_eq!(peer.request_of(Kind::Secret).await.resource_names_subscribe, ["s"]);
    peer.send(response(Kind::Secret, "s1", vec![inline("s", "1")], &[])).await;
    assert_eq!(changed(&proxy.update().await), ["Secret/s", "Listener/shut"]);
    assert_eq!(peer.answer(Kind::Secret, "s1").await, "");
    // What a listener names is not taken away from it.
    peer.send(response(Kind::Secret, "s2", vec![], &["s"])).await;
    assert_eq!(peer.answer(Kind::Secret, "s2").await, "");
    peer.send(response(Kind::Cluster, "c2", vec![cluster("c", "1")], &[])).await;
    let update = proxy.update().await;
    assert_eq!(changed(&update), ["Cluster/c"]);
    assert_eq!(names(&update, Kind::Secret), ["s"]);
}

#[tokio::test]
async fn a_type_that_nobody_asked_for_is_refused() {
    let mut server = Server::start().await;
    let options = options(&[&server.address]);
    let (_proxy, mut peer) = settled(&mut server, options).await;
    let unknown = DeltaDiscoveryResponse { type_url: "type.example/Unknown".into(), nonce: "u1".into(), ..Default::default() };
    peer.send(unknown).await;
    let refused = peer.request().await;
    assert_eq!((refused.type_url.as_str(), refused.response_nonce.as_str()), ("type.example/Unknown", "u1"));
    assert_eq!(refused.error_detail.unwrap().message, "unknown type");
}

#[tokio::test]
async fn what_is_refused_for_the_sake_of_another_is_taken_later() {
    let mut server = Server::start().await;
    let options = options(&[&server.address]);
    let (mut proxy, mut peer) = settled(&mut server, options).await;
    peer.send(response(Kind::Cluster, "c1", vec![cluster("needy", "1")], &[])).await;
    proxy.update().await;
    assert_eq!(peer.answer(Kind::Cluster, "c1").await, "");
    // What serves and is refused now cannot be taken back: the change as a whole is.
    peer.send(response(Kind::Cluster, "c2", vec![cluster("b", "1")], &["a"])).await;
    let because = "refused with the other changes of its time, because of Cluster/needy: it needs a";
    assert_eq!(peer.answer(Kind::Cluster, "c2").await, format!("Cluster/a: {because}\nCluster/b: {because}"));
    proxy.no_update();
    peer.send(response(Kind::Cluster, "c3", vec![cluster("b", "1")], &["a", "needy"])).await;
    assert_eq!(names(&proxy.update().await, Kind::Cluster), ["b", "elsewhere"]);
    assert_eq!(peer.answer(Kind::Cluster, "c3").await, "");
}
