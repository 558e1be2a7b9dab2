//! HTTP/2 from clients with prior knowledge, to origins of either version.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use serde_json::{Value, json};

use super::support::*;

fn to_http2(origin: std::net::SocketAddr) -> Value {
    let mut cluster = cluster("origin", &[origin]);
    cluster["protocol"] = "http2".into();
    config(forward(json!({ "upgrades": ["websocket"] })), json!([cluster]))
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://example.com{path}")).body(()).unwrap()
}

#[tokio::test]
async fn streams_of_one_connection_run_side_by_side() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let client = h2_client(proxy.address("web").await).await;
    let (first, second) = (h2_get(&client, "/first"), h2_get(&client, "/second"));
    let serve = async {
        let (mut one, mut two) = (origin.accept().await, origin.accept().await);
        let (first, second) = (one.message().await, two.message().await);
        // The later one is answered first.
        two.send(ok(second.path())).await;
        one.send(ok(first.path())).await;
    };
    let (first, second, ()) = tokio::join!(first, second, serve);
    assert_eq!((first.1.as_slice(), second.1.as_slice()), (b"/first".as_slice(), b"/second".as_slice()));
    let record = &proxy.access_log(2).await[0];
    assert_eq!(record["protocol"], "HTTP/2");
}

#[tokio::test]
async fn a_body_with_trailers_reaches_an_http1_origin() {
    let origin = Answering::new(|request| {
        let sum = &request.trailers[0].1;
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\nx-sum: {sum}\r\n\r\n",
            request.body.len(),
            request.text()
        )
    })
    .await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = h2_client(proxy.address("web").await).await;
    let (response, mut body) = client.send_request(request(Method::POST, "/"), false).unwrap();
    body.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "5".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    let mut response = within("a response", response).await.unwrap().into_body();
    assert_eq!(h2_body(&mut response).await, b"hello");
    let trailers = within("trailers", response.trailers()).await.unwrap().expect("trailers");
    assert_eq!(trailers["x-sum"], "5");
    let seen = origin.last();
    assert_eq!((seen.first.as_str(), seen.header("host")), ("POST / HTTP/1.1", Some("example.com")));
}

#[tokio::test]
async fn both_directions_of_a_stream_flow_at_once() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_http2(origin.address)).await;
    let mut streams = h2_origin(origin);
    let mut client = h2_client(proxy.address("web").await).await;
    let (response, mut up) = client.send_request(request(Method::POST, "/pkg.Service/Chat"), false).unwrap();
    let (mut seen, mut respond) = within("a stream", streams.recv()).await.unwrap();
    assert_eq!(seen.uri().path(), "/pkg.Service/Chat");
    let mut down = respond.send_response(http::Response::new(()), false).unwrap();
    let mut answer = within("a response", response).await.unwrap().into_body();
    for round in 0..5 {
        let text = format!("message {round}");
        up.send_data(text.clone().into(), false).unwrap();
        let got = within("a message", seen.body_mut().data()).await.unwrap().unwrap();
        seen.body_mut().flow_control().release_capacity(got.len()).unwrap();
        assert_eq!(got, text);
        down.send_data(got, false).unwrap();
        let back = within("an echo", answer.data()).await.unwrap().unwrap();
        answer.flow_control().release_capacity(back.len()).unwrap();
        assert_eq!(back, text);
    }
    up.send_data(Bytes::new(), true).unwrap();
    assert!(h2_body(seen.body_mut()).await.is_empty());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    down.send_trailers(trailers).unwrap();
    assert!(h2_body(&mut answer).await.is_empty());
    assert_eq!(within("trailers", answer.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_response_of_headers_only_ends_with_them() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_http2(origin.address)).await;
    let mut streams = h2_origin(origin);
    let client = h2_client(proxy.address("web").await).await;
    let serve = async {
        let (_, mut respond) = within("a stream", streams.recv()).await.unwrap();
        let head = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "5").body(()).unwrap();
        respond.send_response(head, true).unwrap();
    };
    let ((head, body), ()) = tokio::join!(h2_get(&client, "/"), serve);
    assert_eq!((head.status.as_u16(), &head.headers["grpc-status"]), (200, &"5".parse().unwrap()));
    assert!(body.is_empty());
}

#[tokio::test]
async fn failures_are_grpc_statuses_for_grpc_clients() {
    let gone = Origin::bind().await.address;
    let proxy = Proxy::start(&to_http2(gone)).await;
    let mut client = h2_client(proxy.address("web").await).await;
    let mut call = request(Method::POST, "/pkg.Service/Call");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let (response, _) = client.send_request(call, true).unwrap();
    let response = within("a response", response).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &"14".parse().unwrap()));
    assert_eq!(response.headers()["grpc-message"], "upstream_connect_failure");
}

#[tokio::test]
async fn a_large_body_waits_for_the_windows() {
    const SIZE: usize = 24 << 20;
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_http2(origin.address)).await;
    let before = proxy.resident();
    let mut streams = h2_origin(origin);
    let mut client = h2_client(proxy.address("web").await).await;
    let (response, _) = client.send_request(request(Method::GET, "/"), true).unwrap();
    let (_, mut respond) = within("a stream", streams.recv()).await.unwrap();
    let mut down = respond.send_response(http::Response::new(()), false).unwrap();
    let sender = tokio::spawn(async move {
        let mut left = SIZE;
        while left > 0 {
            down.reserve_capacity(left.min(64 << 10));
            let room = std::future::poll_fn(|cx| down.poll_capacity(cx)).await.unwrap().unwrap();
            let count = room.min(left);
            down.send_data(vec![b'y'; count].into(), count == left).unwrap();
            left -= count;
        }
    });
    let mut answer = within("a response", response).await.unwrap().into_body();
    // Nothing is read here for a while: all windows fill up.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!sender.is_finished(), "the origin was never stopped");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 12 << 20, "{grown} bytes more while the client reads nothing");
    let body = h2_body(&mut answer).await;
    assert!(body.len() == SIZE && body.iter().all(|byte| *byte == b'y'));
    within("the sender", sender).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_reset_at_the_origin() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let mut client = h2_client(proxy.address("web").await).await;
    let (_response, mut body) = client.send_request(request(Method::POST, "/"), false).unwrap();
    let mut upstream = origin.accept().await;
    upstream.head().await;
    body.send_reset(h2::Reason::CANCEL);
    upstream.closes().await;
    assert_eq!(proxy.access_log(1).await[0]["response_flags"], "DC");

    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_http2(origin.address)).await;
    let mut streams = h2_origin(origin);
    let mut client = h2_client(proxy.address("web").await).await;
    let (_response, mut body) = client.send_request(request(Method::POST, "/"), false).unwrap();
    let (_, mut respond) = within("a stream", streams.recv()).await.unwrap();
    body.send_reset(h2::Reason::CANCEL);
    let reason = within("the reset", std::future::poll_fn(|cx| respond.poll_reset(cx))).await.unwrap();
    assert_eq!(reason, h2::Reason::CANCEL);
    let serve = async {
        let (_, mut respond) = within("a stream on the same connection", streams.recv()).await.unwrap();
        respond.send_response(http::Response::new(()), true).unwrap();
    };
    let ((head, _), ()) = tokio::join!(h2_get(&client, "/next"), serve);
    assert_eq!(head.status, 200);
}

#[tokio::test]
async fn an_extended_connect_is_an_upgrade_for_an_http1_origin() {
    let origin = Origin::bind().await;
    let action = forward(json!({ "upgrades": ["websocket"] }));
    let proxy = Proxy::start(&config(action, json!([cluster("origin", &[origin.address])]))).await;
    let mut client = h2_client(proxy.address("web").await).await;
    // The settings that allow this come with the first answer of the server.
    let extended = async {
        loop {
            if client.is_extended_connect_protocol_enabled() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within("the settings", extended).await;
    let mut connect = request(Method::CONNECT, "/chat");
    connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    connect.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    let (response, mut up) = client.send_request(connect, false).unwrap();
    let mut upstream = origin.accept().await;
    let seen = upstream.head().await;
    assert_eq!((seen.first.as_str(), seen.header("upgrade")), ("GET /chat HTTP/1.1", Some("websocket")));
    assert!(seen.header("sec-websocket-key").is_some(), "{seen:?}");
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi").await;
    let response = within("a response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut down = response.into_body();
    assert_eq!(within("bytes", down.data()).await.unwrap().unwrap(), "hi");
    up.send_data(Bytes::from_static(b"hello"), false).unwrap();
    assert_eq!(upstream.exactly(5).await, b"hello");
    up.send_data(Bytes::new(), true).unwrap();
    upstream.closes().await;
    drop(upstream);
    assert!(h2_body(&mut down).await.is_empty());
}
