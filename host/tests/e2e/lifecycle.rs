//! New configurations and the end of the process, under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::*;

/// Everything to `origin`, through a filter that marks requests and responses with `mark`.
fn marked(origin: std::net::SocketAddr, mark: &str) -> Value {
    let mut config = config(forward(json!({ "upgrades": ["websocket"] })), json!([cluster("origin", &[origin])]));
    http(&mut config)["filterChain"] = "marks".into();
    config["filterChains"] = json!([{ "name": "marks", "filters": [{
        "name": "mark", "module": { "builtin": "headers" },
        "config": { "request": { "set": { "x-mark": mark } }, "response": { "set": { "x-mark": mark } } },
        // By the clock: a busy machine may let a callback wait for longer than the default.
        "limits": { "callback": "5s" },
    }] }]);
    config
}

#[tokio::test]
async fn a_new_configuration_serves_new_requests_and_old_ones_finish() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&marked(origin.address, "one")).await;
    let mut slow = proxy.client().await;
    slow.send(get("/slow")).await;
    let mut held = origin.accept().await;
    assert_eq!(held.message().await.header("x-mark"), Some("one"));
    let other = Answering::new(|request| ok(request.header("x-mark").unwrap_or_default())).await;
    let mut client = proxy.client().await;
    proxy.rewrite(&marked(other.address, "two"));
    until("the new generation", async || (proxy.view("/config").await["generation"] == 2).then_some(())).await;
    client.send(get("/")).await;
    let response = client.message().await;
    assert_eq!((response.text(), response.header("x-mark")), ("two", Some("two")));
    held.send(ok("late")).await;
    let response = slow.message().await;
    assert_eq!((response.text(), response.header("x-mark")), ("late", Some("one")), "it has the filters that it began with");
    slow.send(get("/")).await;
    assert_eq!(slow.message().await.text(), "two", "the same connection goes on with the new ones");
    assert!(origin.is_untouched().await);
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing() {
    let origin = Answering::new(|_| ok("served")).await;
    let good = marked(origin.address, "good");
    let proxy = Proxy::start(&good).await;
    let mut unknown_field = good.clone();
    unknown_field["listeners"][0]["nonsense"] = 1.into();
    let mut no_cluster = good.clone();
    no_cluster["clusters"] = json!([]);
    let mut bad_filter = good.clone();
    bad_filter["filterChains"][0]["filters"][0]["config"] = json!({ "request": { "set": { "bad name": "x" } } });
    for (at, (wrong, says)) in [(unknown_field, "nonsense"), (no_cluster, "origin"), (bad_filter, "mark")].into_iter().enumerate() {
        proxy.rewrite(&wrong);
        let errors = until("the refusal", async || {
            let source = proxy.view("/config").await["sources"][0].clone();
            (source["rejected"] == at + 1).then(|| source["lastError"].to_string())
        })
        .await;
        assert!(errors.contains(says), "{errors}");
        let response = proxy.get("/").await;
        assert_eq!((response.text(), response.header("x-mark")), ("served", Some("good")));
    }
    proxy.rewrite(&marked(origin.address, "better"));
    until("the cure", async || (proxy.get("/").await.header("x-mark") == Some("better")).then_some(())).await;
    assert_eq!(proxy.view("/config").await["sources"][0]["lastError"], json!([]));
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way() {
    let origin = Origin::bind().await;
    let mut proxy = Proxy::start(&to_origin(origin.address)).await;
    let address = proxy.address("web").await;
    let (mut busy, mut idle) = (Peer::connect(address).await, Peer::connect(address).await);
    idle.send(get("/idle")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    upstream.send(ok("")).await;
    idle.message().await;
    busy.send(get("/busy")).await;
    upstream.message().await;
    proxy.signal(Signal::TERM);
    idle.closes().await;
    until("no more connections", async || tokio::net::TcpStream::connect(address).await.is_err().then_some(())).await;
    upstream.send(ok("finished")).await;
    let response = busy.message().await;
    assert_eq!((response.text(), response.header("connection")), ("finished", Some("close")));
    busy.closes().await;
    assert_eq!(proxy.ended().await, Some(0));
}

#[tokio::test]
async fn a_listener_that_is_gone_listens_no_more() {
    let origin = Origin::bind().await;
    let mut config = to_origin(origin.address);
    let mut second = config["listeners"][0].clone();
    second["name"] = "second".into();
    // Listeners on port 0 would share one socket.
    second["address"] = "[::1]:0".into();
    config["listeners"].as_array_mut().unwrap().push(second);
    let proxy = Proxy::start(&config).await;
    let address = proxy.address("second").await;
    let mut busy = Peer::connect(address).await;
    busy.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    config["listeners"].as_array_mut().unwrap().pop();
    proxy.rewrite(&config);
    until("no more connections", async || tokio::net::TcpStream::connect(address).await.is_err().then_some(())).await;
    upstream.send(ok("finished")).await;
    let response = busy.message().await;
    assert_eq!((response.text(), response.header("connection")), ("finished", Some("close")));
}

#[tokio::test]
async fn a_renamed_access_log_is_opened_again() {
    let origin = Answering::new(|_| ok("")).await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    proxy.get("/before").await;
    assert_eq!(proxy.access_log(1).await[0]["path"], "/before");
    let (path, old) = (proxy.folder.path().join("access.log"), proxy.folder.path().join("access.log.1"));
    std::fs::rename(&path, &old).unwrap();
    proxy.signal(Signal::USR1);
    until("the new file", async || {
        proxy.get("/after").await;
        path.exists().then_some(())
    })
    .await;
    assert_eq!(proxy.access_log(1).await[0]["path"], "/after");
}

/// What a client did until it was told to stop.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    rounds: [AtomicUsize; 3],
}

impl Load {
    fn goes_on(&self, kind: usize) -> bool {
        self.rounds[kind].fetch_add(1, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Answers requests, and echoes what comes after an upgrade.
async fn echoing() -> std::net::SocketAddr {
    let origin = Origin::bind().await;
    let address = origin.address;
    tokio::spawn(async move {
        loop {
            let mut peer = origin.accept_idle().await;
            tokio::spawn(async move {
                while peer.is_spoken_to().await {
                    let request = peer.message().await;
                    if request.header("upgrade").is_none() {
                        peer.send(ok(request.header("x-mark").unwrap_or("unmarked"))).await;
                        continue;
                    }
                    peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
                    let mut bytes = [0; 1024];
                    while let Ok(read @ 1..) = peer.io.read(&mut bytes).await {
                        peer.send(&bytes[..read]).await;
                    }
                    return;
                }
            });
        }
    });
    address
}

async fn keeps_alive(address: std::net::SocketAddr, load: Arc<Load>) {
    let mut client = Peer::connect(address).await;
    while load.goes_on(0) {
        client.send(get("/")).await;
        let response = client.message().await;
        assert_eq!(response.status(), 200, "{response:?}");
        assert_eq!(response.header("connection"), None, "{response:?}");
        assert_eq!(Some(response.text()), response.header("x-mark"), "both ways of a request have the same filters");
    }
}

async fn multiplexes(address: std::net::SocketAddr, load: Arc<Load>) {
    let client = h2_client(address).await;
    while load.goes_on(1) {
        let one = async || {
            let (response, body) = h2_get(&client, "/").await;
            assert_eq!(response.status, 200, "{response:?}");
            assert_eq!(body, response.headers["x-mark"].as_bytes());
        };
        tokio::join!(one(), one(), one());
    }
}

async fn tunnels(address: std::net::SocketAddr, load: Arc<Load>) {
    let mut client = Peer::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 101);
    while load.goes_on(2) {
        client.send("ping").await;
        assert_eq!(client.exactly(4).await, b"ping");
        tokio::task::yield_now().await;
    }
    client.io.shutdown().await.unwrap();
    client.closes().await;
}

#[tokio::test]
async fn fifty_configurations_under_load_harm_nobody() {
    let origin = echoing().await;
    let with = |mark: usize| {
        let mut config = marked(origin, &format!("mark-{mark}"));
        config["workers"] = 2.into();
        config
    };
    let proxy = Proxy::start(&with(1)).await;
    let address = proxy.address("web").await;
    let load = Arc::<Load>::default();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..2 {
        clients.spawn(keeps_alive(address, Arc::clone(&load)));
        clients.spawn(multiplexes(address, Arc::clone(&load)));
        clients.spawn(tunnels(address, Arc::clone(&load)));
    }
    for mark in 2..=50 {
        proxy.rewrite(&with(mark));
        let expected = format!("mark-{mark}");
        until("the new configuration", async || (proxy.get("/").await.header("x-mark") == Some(&expected)).then_some(())).await;
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(client) = within("the clients", clients.join_next()).await {
        client.unwrap();
    }
    for rounds in &load.rounds {
        assert!(rounds.load(Ordering::Relaxed) > 100, "{:?}", load.rounds);
    }
    let config = proxy.view("/config").await;
    assert_eq!((&config["generation"], &config["sources"][0]["rejected"]), (&json!(50), &json!(0)));
    // Streams of older ones have ended, and with them what they held.
    until("the end of old snapshots", async || {
        let live = proxy.view("/config").await["liveSnapshots"].as_u64().unwrap();
        (live <= 2).then_some(())
    })
    .await;
}
