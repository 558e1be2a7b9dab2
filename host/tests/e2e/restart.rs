//! One process follows another, or none does: nobody who was let in is lost.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::load::*;
use super::support::*;

/// A listener with the same action as `web`.
fn add_listener(config: &mut Value, name: &str, address: &str) {
    let mut listener = config["listeners"][0].clone();
    listener["name"] = name.into();
    listener["address"] = address.into();
    config["listeners"].as_array_mut().unwrap().push(listener);
}

fn remove_listener(config: &mut Value, name: &str) {
    config["listeners"].as_array_mut().unwrap().retain(|listener| listener["name"] != name);
}

fn handover(path: &Path) -> [&str; 2] {
    ["--handover", path.to_str().unwrap()]
}

#[tokio::test]
async fn a_successor_takes_everything_over_and_nothing_is_lost() {
    let (origin, grpc) = (echoing().await, echoing_grpc().await);
    let shared = tempfile::tempdir().unwrap();
    let (path, unix) = (shared.path().join("handover.sock"), shared.path().join("web.sock"));
    let args = handover(&path);
    let mut config = marked_with_grpc(origin, grpc, "first");
    config["workers"] = 3.into();
    add_listener(&mut config, "unix", &format!("unix:{}", unix.display()));
    add_listener(&mut config, "leaves", "127.0.0.1:0");
    let mut first = Proxy::start_with(tempfile::tempdir().unwrap(), &config, &args).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "for this user only");
    let (web, leaves) = (first.address("web").await, first.address("leaves").await);

    let mut clients = Clients::of_replaced_proxy();
    let ways = [Way::KeepAlive, Way::Fresh, Way::Http2, Way::Tunnel, Way::Grpc];
    clients.start(4, Way::KeepAlive, &Target::Tcp(web));
    clients.start(8, Way::Fresh, &Target::Tcp(web));
    clients.start(2, Way::Fresh, &Target::Unix(unix.clone()));
    clients.start(2, Way::Http2, &Target::Tcp(web));
    clients.start(1, Way::Tunnel, &Target::Tcp(web));
    clients.start(1, Way::Grpc, &Target::Tcp(first.address("grpc").await));
    let mut leaving = Clients::of_ending_proxy();
    leaving.start(4, Way::Fresh, &Target::Tcp(leaves));
    leaving.start(2, Way::KeepAlive, &Target::Tcp(leaves));
    clients.go_on(&ways, 20).await;
    leaving.go_on(&[Way::Fresh, Way::KeepAlive], 20).await;

    // Fewer workers than sockets, a listener less, another one more.
    let mut config = marked_with_grpc(origin, grpc, "second");
    config["workers"] = 1.into();
    add_listener(&mut config, "unix", &format!("unix:{}", unix.display()));
    add_listener(&mut config, "comes", "127.0.0.1:0");
    let mut second = Proxy::start_with(tempfile::tempdir().unwrap(), &config, &args).await;
    assert_eq!(second.address("web").await, web);
    assert_eq!(second.admin, first.admin, "the operator's pages are where they were");
    clients.go_on(&ways, 20).await;
    // Nobody took this one over: who was let in is served, and then nobody listens.
    leaving.ended().await;
    assert_eq!(get_from(second.address("comes").await, "/").await.header("x-mark"), Some("second"));

    // More workers than sockets.
    remove_listener(&mut config, "comes");
    config["workers"] = 5.into();
    let mut third = Proxy::start_with(tempfile::tempdir().unwrap(), &config, &args).await;
    assert_eq!(third.address("web").await, web);
    clients.go_on(&ways, 20).await;
    // The tunnel and the stream are the first one's still.
    assert!(first.runs() && third.runs());
    clients.finish().await;
    assert_eq!((first.ended().await, second.ended().await), (Some(0), Some(0)));
    assert!(unix.exists() && path.exists());
    third.signal(Signal::TERM);
    assert_eq!(third.ended().await, Some(0));
    assert!(!unix.exists() && !path.exists(), "the last one tidies up");
}

#[tokio::test]
async fn a_successor_that_cannot_serve_leaves_everything_as_it_was() {
    let origin = echoing().await;
    let shared = tempfile::tempdir().unwrap();
    let path = shared.path().join("handover.sock");
    let args = handover(&path);
    let mut config = marked(origin, "first");
    let proxy = Proxy::start_with(tempfile::tempdir().unwrap(), &config, &args).await;
    let web = proxy.address("web").await;
    let mut clients = Clients::of_steady_proxy();
    clients.start(2, Way::KeepAlive, &Target::Tcp(web));
    clients.start(2, Way::Fresh, &Target::Tcp(web));
    clients.go_on(&[Way::KeepAlive, Way::Fresh], 10).await;
    // It has the sockets, and then finds that its filter does not start.
    config["filterChains"][0]["filters"][0]["config"] = json!({ "request": { "set": { "bad name": "x" } } });
    let mut second = Proxy::spawn(tempfile::tempdir().unwrap(), &config, &args);
    until("the refusal", async || second.log().contains("mark").then_some(())).await;
    second.signal(Signal::TERM);
    assert_eq!(second.ended().await, Some(1), "{}", second.log());
    clients.go_on(&[Way::KeepAlive, Way::Fresh], 10).await;
    // The first one is still there to be asked.
    config = marked(origin, "third");
    let third = Proxy::start_with(tempfile::tempdir().unwrap(), &config, &args).await;
    assert_eq!(third.get("/").await.header("x-mark"), Some("third"));
}

#[tokio::test]
async fn a_predecessor_that_ends_too_early_leaves_its_sockets() {
    let origin = echoing().await;
    let shared = tempfile::tempdir().unwrap();
    let (path, unix) = (shared.path().join("handover.sock"), shared.path().join("web.sock"));
    let args = handover(&path);
    let with = |mark: &str| {
        let mut config = marked(origin, mark);
        add_listener(&mut config, "unix", &format!("unix:{}", unix.display()));
        config
    };
    let mut first = Proxy::start_with(tempfile::tempdir().unwrap(), &with("first"), &args).await;
    let web = first.address("web").await;
    let mut not_yet = with("second");
    not_yet["filterChains"][0]["filters"][0]["config"] = json!({ "request": { "set": { "bad name": "x" } } });
    let second = Proxy::spawn(tempfile::tempdir().unwrap(), &not_yet, &args);
    until("the refusal", async || second.log().contains("mark").then_some(())).await;
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await, Some(0));
    // Nobody accepts now, and still nobody is turned away.
    let mut waiting = vec![Peer::connect(web).await, Peer::new(tokio::net::UnixStream::connect(&unix).await.unwrap())];
    for client in &mut waiting {
        client.send(get("/")).await;
    }
    second.rewrite(&with("second"));
    for mut client in waiting {
        let response = client.message().await;
        assert_eq!((response.status(), response.header("x-mark")), (200, Some("second")));
    }
    until("the log", async || second.log().contains("the process before this one has ended").then_some(())).await;
    let late = get_from(web, "/").await;
    assert_eq!((late.status(), late.header("connection")), (200, None));
}

/// Clients that wait to be accepted, with their requests sent.
async fn waiting(proxy: &Proxy, address: std::net::SocketAddr, count: usize) -> Vec<Peer> {
    // While the process stands still the kernel completes handshakes for it.
    proxy.signal(Signal::STOP);
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Peer::connect(address).await;
        client.send(get("/")).await;
        clients.push(client);
    }
    clients
}

/// More than a worker accepts at a time.
const CROWD: usize = 400;

#[tokio::test]
async fn a_drain_serves_who_waits_to_be_accepted() {
    let origin = echoing().await;
    let mut proxy = Proxy::start(&marked(origin, "one")).await;
    let address = proxy.address("web").await;
    let crowd = waiting(&proxy, address, CROWD).await;
    proxy.signal(Signal::TERM);
    proxy.signal(Signal::CONT);
    for mut client in crowd {
        let response = client.message().await;
        assert_eq!((response.status(), response.header("connection")), (200, Some("close")));
    }
    assert_eq!(proxy.ended().await, Some(0));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_listener_that_is_removed_serves_who_waits_to_be_accepted() {
    let origin = echoing().await;
    let mut config = marked(origin, "one");
    add_listener(&mut config, "second", "127.0.0.1:0");
    let proxy = Proxy::start(&config).await;
    let address = proxy.address("second").await;
    assert_ne!(address, proxy.address("web").await, "each has a port of its own");
    let crowd = waiting(&proxy, address, CROWD).await;
    remove_listener(&mut config, "second");
    proxy.rewrite(&config);
    proxy.signal(Signal::CONT);
    for mut client in crowd {
        assert_eq!(client.message().await.status(), 200);
    }
    until("nobody listening", async || tokio::net::TcpStream::connect(address).await.is_err().then_some(())).await;
}

#[tokio::test]
async fn a_listener_that_was_just_removed_may_come_back() {
    let origin = echoing().await;
    let mut config = marked(origin, "one");
    add_listener(&mut config, "second", "127.0.0.1:0");
    let proxy = Proxy::start(&config).await;
    let address = proxy.address("second").await;
    for generation in 1..4 {
        remove_listener(&mut config, "second");
        proxy.rewrite(&config);
        until("its end", async || (proxy.view("/config").await["generation"] == 2 * generation).then_some(())).await;
        // Its queue may still be emptied now.
        add_listener(&mut config, "second", &address.to_string());
        proxy.rewrite(&config);
        until("its return", async || (proxy.view("/config").await["generation"] == 2 * generation + 1).then_some(())).await;
        assert_eq!(get_from(address, "/").await.status(), 200);
    }
    assert_eq!(proxy.view("/config").await["sources"][0]["rejected"], 0);
}

#[tokio::test]
async fn a_drain_under_load_loses_nothing() {
    let (origin, grpc) = (echoing().await, echoing_grpc().await);
    let shared = tempfile::tempdir().unwrap();
    let unix = shared.path().join("web.sock");
    let mut config = marked_with_grpc(origin, grpc, "one");
    config["workers"] = 2.into();
    add_listener(&mut config, "unix", &format!("unix:{}", unix.display()));
    let mut proxy = Proxy::start(&config).await;
    let web = Target::Tcp(proxy.address("web").await);
    let mut clients = Clients::of_ending_proxy();
    clients.start(4, Way::KeepAlive, &web);
    clients.start(8, Way::Fresh, &web);
    clients.start(4, Way::Fresh, &Target::Unix(unix.clone()));
    clients.start(2, Way::Http2, &web);
    // Streams that go on hold the end up, no longer than they last.
    let mut streams = Clients::of_steady_proxy();
    streams.start(1, Way::Tunnel, &web);
    streams.start(1, Way::Grpc, &Target::Tcp(proxy.address("grpc").await));
    clients.go_on(&[Way::KeepAlive, Way::Fresh, Way::Http2], 20).await;
    streams.go_on(&[Way::Tunnel, Way::Grpc], 5).await;
    proxy.signal(Signal::TERM);
    clients.ended().await;
    assert!(!unix.exists());
    streams.go_on(&[Way::Tunnel, Way::Grpc], 5).await;
    assert!(proxy.runs());
    streams.finish().await;
    assert_eq!(proxy.ended().await, Some(0));
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_or_when_told_twice() {
    let origin = echoing().await;
    let mut config = marked(origin, "one");
    config["drainTimeout"] = "300ms".into();
    let mut proxy = Proxy::start(&config).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 101);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().await, Some(0));
    assert!(proxy.log().contains("1 connections are cut"), "{}", proxy.log());
    config["drainTimeout"] = "1h".into();
    let mut proxy = Proxy::start(&config).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 101);
    proxy.signal(Signal::TERM);
    until("the drain", async || proxy.log().contains("draining").then_some(())).await;
    proxy.signal(Signal::INT);
    assert_eq!(proxy.ended().await, Some(0));
}
