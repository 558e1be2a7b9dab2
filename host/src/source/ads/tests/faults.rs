//! Controllers that are away, files that change, limits.

use std::sync::Mutex;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use tonic::Status;
use weir_model::config::{SanMatch, TrustRoots, UpstreamTls, san_match};
use weir_model::discovery::DeltaDiscoveryRequest;

use super::super::{Responses, disk};
use super::server::Server;
use super::*;
use crate::source::{Entry, Provenance, Value};

/// No controller answers; the moments of the attempts are written down.
#[derive(Clone, Default)]
struct Nobody(Arc<Mutex<Vec<(Instant, String)>>>);

impl Transport for Nobody {
    fn open(&self, address: &str, _: mpsc::Receiver<DeltaDiscoveryRequest>) -> Responses {
        self.0.lock().unwrap().push((Instant::now(), address.to_owned()));
        futures_util::stream::iter([Err(Status::unavailable("nobody"))]).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_become_rare_and_every_address_has_its_turn() {
    let nobody = Nobody::default();
    let mut options = options(&["http://a", "http://b"]);
    let (min, max) = (Duration::from_millis(100), Duration::from_secs(15));
    options.backoff = Backoff::new(min, max);
    let mut proxy = Proxy::start(options, nobody.clone());
    tokio::time::sleep(Duration::from_secs(300)).await;
    proxy.no_update();
    let attempts = nobody.0.lock().unwrap().clone();
    let turns: Vec<&str> = attempts.iter().map(|(_, address)| address.as_str()).collect();
    assert!(turns.chunks_exact(2).all(|pair| pair == ["http://a", "http://b"]), "{turns:?}");
    let rounds: Vec<Instant> = attempts.iter().step_by(2).map(|(at, _)| *at).collect();
    let waits: Vec<Duration> = rounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (round, wait) in waits.iter().enumerate() {
        let whole = min.saturating_mul(1 << round.min(20)).min(max);
        assert!(*wait >= whole / 2 && *wait <= whole + Duration::from_millis(2), "round {round}: {wait:?} of {whole:?}");
    }
    assert!((25..=60).contains(&rounds.len()), "{} rounds in five minutes", rounds.len());
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_away() {
    let mut server = Server::start().await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut proxy = Proxy::start(options(&[&format!("http://{gone}"), &server.address]), plain());
    let mut peer = server.peer().await;
    peer.greeted().await;
    for (kind, nonce) in [(Kind::Listener, "l"), (Kind::FilterChain, "f"), (Kind::Cluster, "c")] {
        peer.send(response(kind, nonce, vec![], &[])).await;
    }
    let update = proxy.update().await;
    assert!(update.resources.is_empty(), "an empty configuration is one");
    assert_eq!(update.provenance, Provenance::Controller(server.address.as_str().into()));
}

async fn state_written(folder: &std::path::Path, clusters: &[&str]) {
    let end = Instant::now() + LONG;
    loop {
        let state = disk::load(folder, "proxy-1").unwrap();
        if state.is_some_and(|(resources, _)| resources.of(Kind::Cluster).keys().map(|name| &**name).eq(clusters.iter().copied())) {
            return;
        }
        assert!(Instant::now() < end, "the state was not written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_state_on_disk_serves_until_the_controller_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start().await;
    let with_state = |address: &str| Options { state_dir: Some(folder.path().into()), ..options(&[address]) };
    let proxy = Proxy::start(with_state(&server.address), plain());
    let mut peer = server.peer().await;
    peer.greeted().await;
    for (kind, resources) in
        [(Kind::Listener, vec![]), (Kind::FilterChain, vec![]), (Kind::Cluster, vec![cluster("a", "1"), cluster("b", "1")])]
    {
        peer.send(response(kind, "1", resources, &[])).await;
    }
    state_written(folder.path(), &["a", "b"]).await;
    drop((proxy, peer));

    // The server accepts and says nothing: the state is used, and a new stream says so.
    let mut proxy = Proxy::start(with_state(&server.address), plain());
    let mut silent = server.peer().await;
    assert!(silent.greeted().await[2].initial_resource_versions.is_empty());
    let update = proxy.update().await;
    assert_eq!(names(&update, Kind::Cluster), ["a", "b"]);
    assert!(matches!(update.provenance, Provenance::Disk { .. }));
    let mut peer = server.peer().await;
    assert_eq!(peer.greeted().await[2].initial_resource_versions.len(), 2);
    peer.send(response(Kind::Cluster, "2", vec![cluster("c", "1")], &["a"])).await;
    let update = proxy.update().await;
    assert_eq!(names(&update, Kind::Cluster), ["b", "c"]);
    assert!(matches!(update.provenance, Provenance::Controller(_)));
    state_written(folder.path(), &["b", "c"]).await;
    drop((proxy, peer, silent));

    // Nobody listens: the state is used without waiting.
    let away = server.address.clone();
    drop(server);
    let mut proxy = Proxy::start(Options { state_wait: LONG, ..with_state(&away) }, Nobody::default());
    assert_eq!(names(&proxy.update().await, Kind::Cluster), ["b", "c"]);
    drop(proxy);

    // A state that is damaged is as good as none.
    std::fs::write(disk::path(folder.path()), "nonsense").unwrap();
    let nobody = Nobody::default();
    let mut proxy = Proxy::start(with_state(&away), nobody.clone());
    let end = Instant::now() + LONG;
    while nobody.0.lock().unwrap().len() < 5 {
        assert!(Instant::now() < end, "no attempts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.no_update();
}

#[tokio::test]
async fn the_token_is_read_for_every_connection() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let mut server = Server::start().await;
    let transport = Grpcs { token_file: Some(token.clone()), ..plain() };
    let _proxy = Proxy::start(options(&[&server.address]), transport);
    let peer = server.peer().await;
    assert_eq!(peer.token.as_deref(), Some("Bearer first"));
    std::fs::write(&token, "second").unwrap();
    drop(peer);
    assert_eq!(server.peer().await.token.as_deref(), Some("Bearer second"));
}

#[tokio::test]
async fn a_changed_file_renews_what_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cert.pem");
    std::fs::write(&file, "1").unwrap();
    let mut server = Server::start().await;
    let mut proxy = Proxy::start(options(&[&server.address]), plain());
    let mut peer = server.peer().await;
    peer.greeted().await;
    let source = data_source::Source::File(file.to_string_lossy().into_owned());
    peer.send(response(Kind::Listener, "l", vec![listener("l", "1", &["s"])], &[])).await;
    peer.send(response(Kind::FilterChain, "f", vec![], &[])).await;
    peer.send(response(Kind::Cluster, "c", vec![], &[])).await;
    peer.send(response(Kind::Secret, "s", vec![secret("s", "1", source.clone(), source)], &[])).await;
    let before = proxy.update().await;
    // The answer says that the watch stands.
    assert_eq!(peer.answer(Kind::Listener, "l").await, "");
    assert_eq!(peer.request_of(Kind::Secret).await.resource_names_subscribe, ["s"]);
    assert_eq!(peer.answer(Kind::Secret, "s").await, "");
    std::fs::write(&file, "2").unwrap();
    let after = proxy.update().await;
    assert_eq!(changed(&after), ["Secret/s"]);
    let version = |update: &Update| update.resources.get(&key(Kind::Secret, "s")).unwrap().version.clone();
    assert_eq!(version(&before), version(&after), "the controller's version is still that");
    let relative = data_source::Source::File("cert.pem".into());
    peer.send(response(Kind::Secret, "s2", vec![secret("s", "2", relative.clone(), relative)], &[])).await;
    assert_eq!(peer.answer(Kind::Secret, "s2").await, "Secret/s: file \"cert.pem\": a path that a controller sends must be absolute");
}

#[tokio::test]
async fn what_is_too_much_is_refused_by_name() {
    let mut server = Server::start().await;
    let mut options = options(&[&server.address]);
    options.limits.resources = 2;
    options.limits.name_bytes = 16;
    let mut proxy = Proxy::start(options, plain());
    let mut peer = server.peer().await;
    peer.greeted().await;
    peer.send(response(Kind::Listener, "l", vec![], &[])).await;
    peer.send(response(Kind::FilterChain, "f", vec![], &[])).await;
    let long = "x".repeat(100);
    let resources = vec![cluster("a", "1"), cluster(&long, "1"), cluster("b", "1"), cluster("c", "1"), cluster("a", "2")];
    peer.send(response(Kind::Cluster, "c", resources, &[])).await;
    let update = proxy.update().await;
    assert_eq!(names(&update, Kind::Cluster), ["a", "b"]);
    assert_eq!(update.resources.cluster("a").unwrap().metadata["v"], "2");
    let detail = peer.answer(Kind::Cluster, "c").await;
    assert!(detail.contains("the name is longer than 16 bytes") && detail.contains("Cluster/c: more than 2 resources"), "{detail}");
}

#[tokio::test]
async fn a_unix_socket_is_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start_unix(&folder.path().join("controller.sock"));
    let _proxy = Proxy::start(options(&[&server.address]), plain());
    server.peer().await.greeted().await;
}

/// The secrets `roots` and `me`, and a transport that uses them.
fn secured(roots: &str, certificate: &str, key: &str, names: Vec<SanMatch>) -> Grpcs {
    let source = |text: &str| Some(DataSource { source: Some(data_source::Source::Inline(text.into())) });
    let trust = TrustRoots { certificates: source(roots), revocation_lists: None };
    let pair = KeyPair { certificate_chain: source(certificate), private_key: source(key), ocsp: None };
    let secrets = [("roots", secret::Kind::TrustRoots(trust)), ("me", secret::Kind::KeyPair(pair))];
    let entry = |(name, kind): (&str, secret::Kind)| Entry {
        value: Value::Secret(Arc::new(Secret { name: name.into(), kind: Some(kind) })),
        version: "1".into(),
        origin: "test".into(),
    };
    let tls = UpstreamTls { trust_roots: "roots".into(), certificate: "me".into(), names, ..UpstreamTls::default() };
    Grpcs { tls: Some(tls), secrets: secrets.into_iter().map(entry).collect(), ..plain() }
}

#[tokio::test]
async fn a_controller_is_verified_over_tls_and_verifies() {
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (controller, proxy, stranger) = (made("localhost"), made("proxy"), made("localhost"));
    let (certificate, key) = (controller.cert.pem(), controller.signing_key.serialize_pem());
    let mut server = Server::start_tls(&certificate, &key, &proxy.cert.pem()).await;
    let address = server.address.clone();
    let client = |roots: &str, names| secured(roots, &proxy.cert.pem(), &proxy.signing_key.serialize_pem(), names);
    let name = |exact: &str| SanMatch { pattern: Some(san_match::Pattern::Exact(exact.into())), ..SanMatch::default() };

    for (transport, reason) in [
        (client(&stranger.cert.pem(), vec![]), "certificate"),
        (client(&certificate, vec![name("other")]), "certificate"),
        (Grpcs { secrets: Resources::default(), ..client(&certificate, vec![]) }, "no secret"),
    ] {
        let refused = Proxy::start(options(&[&address]), transport);
        let mut status = refused.hub.status();
        let failed = |status: &[crate::source::SourceStatus; 2]| status[1].message.contains(": ");
        let seen = tokio::time::timeout(LONG, status.wait_for(failed)).await.expect("no failure").unwrap()[1].message.clone();
        assert!(seen.contains(reason), "{seen}");
    }
    let _proxy = Proxy::start(options(&[&address]), client(&certificate, vec![name("localhost")]));
    server.peer().await.greeted().await;
}
