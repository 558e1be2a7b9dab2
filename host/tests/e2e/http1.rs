//! HTTP/1 on both sides: framing, connections and their ends.

use serde_json::json;

use super::support::*;

#[tokio::test]
async fn sequential_requests_share_both_connections() {
    let origin = Answering::new(|request| ok(request.path())).await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    for path in ["/1", "/2", "/3"] {
        client.send(get(path)).await;
        let response = client.message().await;
        assert_eq!((response.status(), response.text()), (200, path));
    }
    let connections: Vec<usize> = origin.seen().iter().map(|(connection, _)| *connection).collect();
    assert_eq!(connections, [0, 0, 0]);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Answering::new(|request| ok(request.path())).await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    client.send([get("/1"), get("/2"), get("/3")].concat()).await;
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.message().await.text(), path);
    }
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let origin = Answering::new(|_| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nabcd\r\n3\r\nefg\r\n0\r\nx-sum: 7\r\n\r\n".into()
    })
    .await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3;ext=1\r\ntwo\r\n0\r\nx-check: ok\r\n\r\n")
        .await;
    let response = client.message().await;
    assert_eq!(response.text(), "abcdefg");
    assert_eq!(response.trailers, [("x-sum".into(), "7".into())]);
    let request = origin.last();
    assert_eq!(request.text(), "onetwo");
    assert_eq!(request.trailers, [("x-check".into(), "ok".into())]);
    client.send(get("/next")).await;
    assert_eq!(client.message().await.status(), 200, "the connection goes on");
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_before_it_sends() {
    let origin = Answering::new(|request| ok(request.text())).await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.message().await.text(), "hello");
}

#[tokio::test]
async fn responses_without_body_keep_the_connection() {
    let origin = Answering::new(|request| match request.path() {
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
        "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\netag: \"a\"\r\n\r\n".into(),
        "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n".into(),
        _ => ok("body"),
    })
    .await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    for (request, status) in [(get("/204"), 204), (get("/304"), 304), (get("/head").replace("GET", "HEAD"), 200)] {
        client.send(request).await;
        let response = client.head().await;
        assert_eq!(response.status(), status);
        assert_eq!(response.header("transfer-encoding"), None, "{response:?}");
        client.send(get("/body")).await;
        assert_eq!(client.message().await.text(), "body", "after {status}");
    }
    assert!(origin.seen().iter().all(|(connection, _)| *connection == 0), "the origin's connection is kept, too");
}

#[tokio::test]
async fn http10_is_answered_and_closed() {
    let origin = Answering::new(|_| "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into()).await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let response = client.message().await;
    assert_eq!(response.header("transfer-encoding"), None, "no chunks for HTTP/1.0");
    assert_eq!(response.text(), "abc");
    client.closes().await;
    assert_eq!(origin.last().first, "GET / HTTP/1.1");
}

#[tokio::test]
async fn http10_keeps_alive_when_asked() {
    let origin = Answering::new(|_| ok("abc")).await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
        let response = client.message().await;
        assert_eq!((response.text(), response.header("connection")), ("abc", Some("keep-alive")));
    }
}

#[tokio::test]
async fn a_slow_origin_slows_the_client_down() {
    const SIZE: usize = 64 << 20;
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let before = proxy.resident();
    let mut client = proxy.client().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n")).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    // Sends until nothing moves any more: all buffers on the way are full.
    let chunk = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while sent < SIZE {
        let room =
            tokio::time::timeout(std::time::Duration::from_millis(500), tokio::io::AsyncWriteExt::write(&mut client.io, &chunk)).await;
        let Ok(written) = room else { break };
        sent += written.unwrap();
    }
    assert!(sent < SIZE, "the client was never stopped");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more while the origin reads nothing");
    let mut left = SIZE - sent;
    let send = async {
        while left > 0 {
            let count = left.min(chunk.len());
            client.send(&chunk[..count]).await;
            left -= count;
        }
        client
    };
    let receive = async {
        let body = upstream.exactly(SIZE).await;
        upstream.send(ok("thanks")).await;
        body
    };
    let (mut client, body) = tokio::join!(send, receive);
    assert!(body.iter().all(|byte| *byte == b'x'));
    assert_eq!(client.message().await.text(), "thanks");
}

#[tokio::test]
async fn a_slow_client_slows_the_origin_down() {
    const SIZE: usize = 32 << 20;
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let before = proxy.resident();
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n")).await;
    let body: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let mut sent = 0;
    while sent < SIZE {
        let write = tokio::io::AsyncWriteExt::write(&mut upstream.io, &body[sent..]);
        let Ok(written) = tokio::time::timeout(std::time::Duration::from_millis(500), write).await else { break };
        sent += written.unwrap();
    }
    assert!(sent < SIZE, "the origin was never stopped");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more while the client reads nothing");
    let (response, ()) = tokio::join!(client.message(), upstream.send(&body[sent..]));
    assert!(response.body == body);
}

#[tokio::test]
async fn an_early_response_ends_the_connection() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nonly a part").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.exactly(11).await;
    upstream.send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await;
    let response = client.message().await;
    assert_eq!((response.status(), response.text()), (413, "no"));
    assert_eq!(response.header("connection"), Some("close"));
    // What follows is the body's, not a request.
    client.send(get("/smuggled")).await;
    client.closes().await;
    upstream.closes().await;
    let next = tokio::spawn(async move {
        let mut upstream = origin.accept().await;
        let request = upstream.message().await;
        upstream.send(ok("clean")).await;
        request
    });
    assert_eq!(proxy.get("/next").await.text(), "clean");
    assert_eq!(next.await.unwrap().path(), "/next");
}

#[tokio::test]
async fn failures_of_the_origin_are_named() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let cases = [
        ("", 503, "upstream_closed_before_response", "UC"),
        ("HTTP/1.1 200", 503, "upstream_closed_before_response", "UC"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", 502, "", "UPE"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", 502, "", "UPE"),
    ];
    for (at, (answer, status, detail, flags)) in cases.into_iter().enumerate() {
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        let mut upstream = origin.accept().await;
        upstream.message().await;
        upstream.send(answer).await;
        drop(upstream);
        let response = client.message().await;
        assert_eq!(response.status(), status, "{answer:?}");
        assert!(response.text().starts_with("the upstream"), "{response:?}");
        let record = proxy.access_log(2 * at + 1).await.pop().unwrap();
        assert_eq!(record["response_flags"], flags);
        let details = record["response_code_details"].as_str().unwrap();
        assert!(!details.is_empty() && (detail.is_empty() || details == detail), "{record}");
        client.send(get("/")).await;
        let mut upstream = origin.accept().await;
        upstream.message().await;
        upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
        drop(upstream);
        assert_eq!(client.message().await.status(), 200, "the client's connection goes on");
    }
}

#[tokio::test]
async fn a_reset_of_the_origin_is_a_503() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let stream = origin.accept_tcp().await;
    // Closing with unread data, and with no time to linger, is a reset.
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(client.message().await.status(), 503);
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_is_a_503() {
    let origin = Origin::bind().await;
    let address = origin.address;
    drop(origin);
    let proxy = Proxy::start(&to_origin(address)).await;
    let response = proxy.get("/").await;
    assert_eq!((response.status(), response.text()), (503, "the upstream refused the connection or cannot be reached\n"));
    let record = &proxy.access_log(1).await[0];
    assert_eq!((&record["response_code_details"], &record["response_flags"]), (&json!("upstream_connect_failure"), &json!("UF")));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_made_whole() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    for head in ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        let mut upstream = origin.accept().await;
        upstream.message().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{head}")).await;
        let response = client.head().await;
        drop(upstream);
        let rest = String::from_utf8(client.rest().await).unwrap();
        assert_eq!(response.status(), 200);
        assert!(rest.contains("abc") && !rest.contains("0\r\n\r\n"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_connection_that_the_origin_closed_is_not_used_again() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    for round in 0..5 {
        client.send(get("/")).await;
        let mut upstream = origin.accept().await;
        upstream.message().await;
        upstream.send(ok("x")).await;
        assert_eq!(client.message().await.status(), 200, "round {round}");
        tokio::io::AsyncWriteExt::shutdown(&mut upstream.io).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_origin() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    drop(client);
    upstream.closes().await;
    assert_eq!(proxy.access_log(1).await[0]["response_flags"], "DC");
}
