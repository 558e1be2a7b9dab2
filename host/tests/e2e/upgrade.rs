//! Upgrades and tunnels: bytes both ways after the origin agreed, and none before.

use serde_json::json;

use super::support::*;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: y\r\n\r\n";

fn with_upgrades(origin: &Origin, names: &[&str]) -> serde_json::Value {
    config(forward(json!({ "upgrades": names })), json!([cluster("origin", &[origin.address])]))
}

#[tokio::test]
async fn after_101_bytes_go_both_ways() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&with_upgrades(&origin, &["websocket"])).await;
    let mut client = proxy.client().await;
    client.send(UPGRADE).await;
    let mut upstream = origin.accept().await;
    let request = upstream.head().await;
    assert_eq!(request.header("upgrade"), Some("websocket"));
    assert_eq!(request.header("sec-websocket-key"), Some("x"));
    assert!(request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{request:?}");
    upstream.send([SWITCHED, "first"].concat()).await;
    let response = client.head().await;
    assert_eq!((response.status(), response.header("sec-websocket-accept")), (101, Some("y")));
    assert_eq!(client.exactly(5).await, b"first");
    for round in 0..3 {
        client.send(format!("ping{round}")).await;
        assert_eq!(upstream.exactly(5).await, format!("ping{round}").as_bytes());
        upstream.send(format!("pong{round}")).await;
        assert_eq!(client.exactly(5).await, format!("pong{round}").as_bytes());
    }
    let large = vec![7; 4 << 20];
    let (received, ()) = tokio::join!(upstream.exactly(large.len()), client.send(&large));
    assert!(received == large);
    drop(upstream);
    client.closes().await;
    drop(client);
    assert_eq!(proxy.access_log(1).await[0]["response_code"], 101);
}

#[tokio::test]
async fn a_client_that_ends_a_tunnel_ends_it_for_the_origin() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&with_upgrades(&origin, &["websocket"])).await;
    let mut client = proxy.client().await;
    client.send(UPGRADE).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send(SWITCHED).await;
    client.head().await;
    client.send("bye").await;
    drop(client);
    assert_eq!(upstream.rest().await, b"bye");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&with_upgrades(&origin, &["websocket"])).await;
    let mut client = proxy.client().await;
    client.send([UPGRADE, "early bytes"].concat()).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send(ok("no")).await;
    let response = client.message().await;
    assert_eq!((response.status(), response.text()), (200, "no"));
    client.closes().await;
    tokio::io::AsyncWriteExt::shutdown(&mut upstream.io).await.unwrap();
    upstream.closes().await;
}

#[tokio::test]
async fn bytes_behind_an_upgrade_wait_for_101() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&with_upgrades(&origin, &["websocket"])).await;
    let mut client = proxy.client().await;
    client.send([UPGRADE, "early"].concat()).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), upstream.exactly(1)).await;
    assert!(early.is_err(), "something went on before the origin agreed");
    upstream.send(SWITCHED).await;
    assert_eq!(upstream.exactly(5).await, b"early");
    assert_eq!(client.head().await.status(), 101);
}

#[tokio::test]
async fn an_upgrade_that_the_route_does_not_allow_is_a_403() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&with_upgrades(&origin, &["h2c"])).await;
    let mut client = proxy.client().await;
    client.send(UPGRADE).await;
    let response = client.message().await;
    assert_eq!((response.status(), response.text()), (403, "this route allows no such upgrade\n"));
    assert!(origin.is_untouched().await);
}

#[tokio::test]
async fn connect_is_a_tunnel_if_the_route_says_so() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&with_upgrades(&origin, &["connect"])).await;
    let mut client = proxy.client().await;
    client.send("CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    assert_eq!(upstream.head().await.first, "CONNECT db.example:5432 HTTP/1.1");
    upstream.send("HTTP/1.1 200 OK\r\n\r\n").await;
    let response = client.head().await;
    assert_eq!((response.status(), response.header("content-length"), response.header("transfer-encoding")), (200, None, None));
    client.send("query").await;
    assert_eq!(upstream.exactly(5).await, b"query");
    upstream.send("rows").await;
    assert_eq!(client.exactly(4).await, b"rows");
    let other = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(other.address)).await;
    let mut client = proxy.client().await;
    client.send("CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n\r\n").await;
    assert_eq!(client.message().await.status(), 403);
    assert!(other.is_untouched().await);
}
