//! Connections whose bytes are not HTTP's: relayed as they are, by the name in their ClientHello, through filters, with PROXY protocol.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::certificates::*;
use super::guests::*;
use super::support::*;

/// A listener `web` whose branch relays to the cluster `origin`, with `more` about the branch's TCP part.
fn relay(origin: std::net::SocketAddr, more: Value) -> Value {
    let mut tcp = more;
    tcp["clusters"] = json!([{ "name": "origin" }]);
    tcp["accessLog"] = json!({ "path": "access.log", "format": "json" });
    let mut config = to_origin(origin);
    config["listeners"][0]["branches"] = json!([{ "tcp": tcp }]);
    config
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_way_ends_by_itself() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&relay(origin.address, json!({}))).await;
    // The client ends first.
    let mut client = proxy.client().await;
    let mut upstream = origin.accept().await;
    client.send("question").await;
    client.io.shutdown().await.unwrap();
    assert_eq!(upstream.rest().await, b"question");
    upstream.send("late answer").await;
    assert_eq!(client.exactly(11).await, b"late answer");
    upstream.io.shutdown().await.unwrap();
    client.closes().await;
    // The origin ends first.
    let mut client = proxy.client().await;
    let mut upstream = origin.accept().await;
    upstream.send("welcome").await;
    upstream.io.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"welcome");
    client.send("still here").await;
    assert_eq!(upstream.exactly(10).await, b"still here");
    client.io.shutdown().await.unwrap();
    upstream.closes().await;
    let records = proxy.access_log(2).await;
    assert_eq!((&records[0]["bytes_received"], &records[0]["bytes_sent"]), (&json!(8), &json!(11)));
    assert_eq!((&records[1]["bytes_received"], &records[1]["bytes_sent"]), (&json!(10), &json!(7)));
    assert_eq!(records[0]["response_code_details"], "via_upstream");
}

#[tokio::test]
async fn much_passes_in_both_directions_at_once() {
    const SIZE: usize = 8 << 20;
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&relay(origin.address, json!({}))).await;
    let client = proxy.client().await;
    let mut echo = origin.accept_tcp().await;
    tokio::spawn(async move {
        let (mut read, mut write) = echo.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let sent: Vec<u8> = (0..SIZE).map(|at| (at * 7 + at / 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(client.io);
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        }
    });
    let mut received = Vec::new();
    within("everything back", tokio::io::AsyncReadExt::read_to_end(&mut read, &mut received)).await.unwrap();
    writing.await.unwrap();
    assert!(received == sent, "{} bytes came back", received.len());
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&relay(origin.address, json!({ "idleTimeout": "200ms" }))).await;
    let mut client = proxy.client().await;
    let mut upstream = origin.accept().await;
    client.send("x").await;
    assert_eq!(upstream.exactly(1).await, b"x");
    client.closes().await;
    upstream.closes().await;
    assert_eq!(proxy.access_log(1).await[0]["response_code_details"], "idle_timeout");
}

#[tokio::test]
async fn a_cluster_that_cannot_be_reached_closes_the_connection() {
    let origin = Origin::bind().await;
    let address = origin.address;
    drop(origin);
    let proxy = Proxy::start(&relay(address, json!({}))).await;
    proxy.client().await.closes().await;
    let record = &proxy.access_log(1).await[0];
    assert_eq!((&record["response_code_details"], &record["response_flags"]), (&json!("upstream_connect_failure"), &json!("UF")));
}

#[tokio::test]
async fn tls_is_passed_through_by_name() {
    let authority = Authority::new("root");
    let (a, b, other) = (Origin::bind().await, Origin::bind().await, Origin::bind().await);
    let branch = |name: &str| json!({ "name": name, "tcp": { "clusters": [{ "name": name }] } });
    let mut branches = json!([branch("a"), branch("b")]);
    branches[0]["match"] = json!({ "serverNames": ["a.test"] });
    branches[1]["match"] = json!({ "serverNames": ["*.b.test"] });
    let clusters = json!([cluster("a", &[a.address]), cluster("b", &[b.address]), cluster("other", &[other.address])]);
    let config = json!({
        "admin": { "address": "127.0.0.1:0" }, "workers": 1, "clusters": clusters,
        "listeners": [{ "name": "web", "address": "127.0.0.1:0", "branches": branches, "defaultBranch": branch("other") }],
    });
    let proxy = Proxy::start(&config).await;
    let address = proxy.address("web").await;
    let client = TlsClient::new(&authority, None, &["anything"]);
    for (name, origin) in [("a.test", &a), ("x.b.test", &b), ("c.test", &other)] {
        let leaf = authority.leaf(&[name]);
        let server = TlsServer::new(&leaf, &["anything"], None);
        let (connected, accepted) = tokio::join!(client.connect(address, name), async { server.accept(origin.accept_tcp().await).await });
        let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
        let session = &connected.get_ref().1;
        assert_eq!(session.peer_certificates().unwrap()[0], leaf.certificate(), "{name}: the origin's own handshake");
        assert_eq!(session.alpn_protocol(), Some(&b"anything"[..]));
        let (mut connected, mut accepted) = (Peer::new(connected), Peer::new(accepted));
        connected.send("to the origin").await;
        assert_eq!(accepted.exactly(13).await, b"to the origin");
        accepted.send("and back").await;
        assert_eq!(connected.exactly(8).await, b"and back");
    }
    // What is no TLS at all goes to the default branch, first bytes included.
    let mut plain = Peer::connect(address).await;
    plain.send("SSH-2.0-x\r\n").await;
    assert_eq!(other.accept().await.exactly(11).await, b"SSH-2.0-x\r\n");
}

fn filtered(origin: std::net::SocketAddr, filters: Value) -> Value {
    let mut config = relay(origin, json!({ "filterChain": "main" }));
    config["filterChains"] = json!([{ "name": "main" }]);
    config["filterChains"][0]["filters"] = filters;
    config
}

#[tokio::test]
async fn filters_see_and_change_what_passes() {
    let mut guest = Guest::default();
    let (up, down) = (guest.text("<"), guest.text(">"));
    // In front of every piece: buffer 2 is what the client sends, 3 what the origin does.
    let mark = |buffer: u32, text: &str| {
        let replace = format!("(call $proxy_set_buffer_bytes (i32.const {buffer}) (i32.const 0) (i32.const 0) {text})");
        format!("(if (local.get $1) (then (drop {replace}))) (i32.const 0)")
    };
    let opened = guest.text("opened");
    let guest = guest
        .on("proxy_on_new_connection", 1, "i32", &format!("(drop (call $proxy_log (i32.const 2) {opened})) (i32.const 0)"))
        .on("proxy_on_downstream_data", 3, "i32", &mark(2, &up))
        .on("proxy_on_upstream_data", 3, "i32", &mark(3, &down));
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&filtered(origin.address, json!([guest.binding("marks", json!({}))]))).await;
    let mut client = proxy.client().await;
    let mut upstream = origin.accept().await;
    client.send("one").await;
    assert_eq!(upstream.exactly(4).await, b"<one");
    upstream.send("two").await;
    assert_eq!(client.exactly(4).await, b">two");
    client.io.shutdown().await.unwrap();
    upstream.closes().await;
    upstream.io.shutdown().await.unwrap();
    client.closes().await;
    proxy.logs(&["main/marks", "opened"]).await;
}

#[tokio::test]
async fn a_filter_that_fails_meets_its_policy() {
    let trap = |name: &str, policy: &str| {
        // The first byte decides: `t` traps.
        let look = "(drop (call $proxy_get_buffer_bytes (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4)))
            (if (i32.eq (i32.load8_u (i32.load (i32.const 0))) (i32.const 116)) (then unreachable)) (i32.const 0)";
        Guest::default().on("proxy_on_downstream_data", 3, "i32", look).binding(name, json!({ "failurePolicy": policy }))
    };
    for (policy, passes) in [("closed", false), ("open", true)] {
        let origin = Origin::bind().await;
        let proxy = Proxy::start(&filtered(origin.address, json!([trap("traps", policy)]))).await;
        let (mut other, mut client) = (proxy.client().await, proxy.client().await);
        let (mut first, mut second) = (origin.accept().await, origin.accept().await);
        client.send("trap").await;
        if passes {
            // Which of the two it is, is the origin's business.
            let got = tokio::select! { bytes = first.exactly(4) => bytes, bytes = second.exactly(4) => bytes };
            assert_eq!(got, b"trap");
        } else {
            client.closes().await;
            assert_eq!(proxy.access_log(1).await[0]["response_code_details"], "filter_closed");
        }
        drop((other.io.shutdown().await, first, second));
        let mut next = proxy.client().await;
        let mut upstream = origin.accept().await;
        next.send("fine").await;
        assert_eq!(upstream.exactly(4).await, b"fine", "{policy}: the next connection is fine");
    }
}

#[tokio::test]
async fn a_connection_that_a_filter_closes_at_once_reaches_nobody() {
    let guest = Guest::default().on("proxy_on_new_connection", 1, "i32", "(drop (call $proxy_close_stream (i32.const 2))) (i32.const 0)");
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&filtered(origin.address, json!([guest.binding("denies", json!({}))]))).await;
    proxy.client().await.closes().await;
    let record = &proxy.access_log(1).await[0];
    assert_eq!((&record["response_code_details"], &record["response_flags"]), (&json!("filter_closed"), &json!("FR")));
    assert!(origin.is_untouched().await);
}

/// A PROXY header of version 2 for TCP over IPv4.
fn version2(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(source);
    header.extend([127, 0, 0, 1]);
    header.extend(port.to_be_bytes());
    header.extend(80u16.to_be_bytes());
    header
}

#[tokio::test]
async fn a_proxy_header_says_who_the_client_is() {
    let origin = Answering::new(|request| ok(request.header("x-forwarded-for").unwrap_or_default())).await;
    let mut config = to_origin(origin.address);
    config["listeners"][0]["proxyProtocol"] = json!({ "mode": "required" });
    let proxy = Proxy::start(&config).await;
    let v1 = b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n".to_vec();
    for (header, client) in [
        (v1.clone(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n".to_vec(), "2001:db8::1"),
        (version2([203, 0, 113, 8], 4711), "203.0.113.8"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut peer = proxy.client().await;
        peer.send([header, get("/").into_bytes()].concat()).await;
        assert_eq!(peer.message().await.text(), client);
    }
    let before = origin.seen().len();
    for wrong in [get("/").into_bytes(), b"PROXY TCP4 nonsense\r\n".to_vec(), b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c".to_vec()] {
        let mut peer = proxy.client().await;
        peer.send(wrong).await;
        peer.closes().await;
    }
    assert_eq!(origin.seen().len(), before);
    // With a list of those who may, nobody else is believed.
    config["listeners"][0]["proxyProtocol"] = json!({ "mode": "optional", "trusted": ["192.0.2.0/24"] });
    let proxy = Proxy::start(&config).await;
    assert_eq!(proxy.get("/").await.text(), "127.0.0.1");
    let mut peer = proxy.client().await;
    peer.send([v1, get("/").into_bytes()].concat()).await;
    assert_eq!(peer.message().await.status(), 400, "it is no HTTP either");
}

#[tokio::test]
async fn upstreams_are_told_who_the_client_is() {
    let origin = Origin::bind().await;
    for (version, listener) in [(1, json!({ "mode": "required" })), (2, json!({ "mode": "required" })), (1, Value::Null)] {
        let mut config = relay(origin.address, json!({}));
        config["clusters"][0]["proxyProtocol"] = json!(version);
        let is_told = !listener.is_null();
        if is_told {
            config["listeners"][0]["proxyProtocol"] = listener;
        }
        let proxy = Proxy::start(&config).await;
        let mut client = proxy.client().await;
        if is_told {
            client.send(version2([203, 0, 113, 9], 4711)).await;
        }
        client.send("data").await;
        let mut upstream = origin.accept().await;
        if version == 2 {
            let header = upstream.exactly(28).await;
            assert_eq!(
                (&header[..14], &header[16..20], &header[24..26]),
                (&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &[203, 0, 113, 9][..], &4711u16.to_be_bytes()[..])
            );
        } else {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(upstream.exactly(1).await);
            }
            let line = String::from_utf8(line).unwrap();
            let source = if is_told { "PROXY TCP4 203.0.113.9 127.0.0.1 4711 " } else { "PROXY TCP4 127.0.0.1 127.0.0.1 " };
            assert!(line.starts_with(source), "{line:?}");
        }
        assert_eq!(upstream.exactly(4).await, b"data");
    }
}
