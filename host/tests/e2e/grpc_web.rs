//! gRPC-Web: what a browser sends over HTTP/1 reaches a gRPC server over HTTP/2, and the answer comes back with its trailers in the body.

use serde_json::json;

use super::support::*;

const MESSAGE: &[u8] = b"\0\0\0\0\x04who?";

async fn proxy(origin: std::net::SocketAddr, translates: bool) -> Proxy {
    let mut config = to_origin(origin);
    http(&mut config)["grpcWeb"] = json!(translates);
    config["clusters"][0]["protocol"] = json!("http2");
    Proxy::start(&config).await
}

fn call(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /test.Names/Get HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\nx-grpc-web: 1\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_call_goes_through_as_grpc_and_comes_back() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.address, true).await;
    let mut calls = h2_origin(origin);
    let mut client = proxy.client().await;
    // Base64 of the same: the message padded on its own, then the trailers.
    let text = (&b"AAAAAAR3aG8/"[..], &b"AAAAAANib2I=gAAAABBncnBjLXN0YXR1czogMA0K"[..]);
    let binary = (MESSAGE, &b"\0\0\0\0\x03bob\x80\0\0\0\x10grpc-status: 0\r\n"[..]);
    for (kind, becomes, (sent, received)) in
        [("application/grpc-web+proto", "application/grpc+proto", binary), ("application/grpc-web-text", "application/grpc", text)]
    {
        client.send(call(kind, sent)).await;
        let (request, mut respond) = within("a call", calls.recv()).await.unwrap();
        let (head, mut body) = request.into_parts();
        assert_eq!((head.headers["content-type"].as_bytes(), head.headers["te"].as_bytes()), (becomes.as_bytes(), &b"trailers"[..]));
        assert_eq!(h2_body(&mut body).await, MESSAGE, "{kind}");
        let answer = http::Response::builder().header("content-type", becomes).body(()).unwrap();
        let mut stream = respond.send_response(answer, false).unwrap();
        stream.send_data("\0\0\0\0\x03bob".into(), false).unwrap();
        stream.send_trailers(http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])).unwrap();
        let response = client.message().await;
        assert_eq!((response.status(), response.header("content-type")), (200, Some(kind)));
        let (is, expected) = (String::from_utf8_lossy(&response.body), String::from_utf8_lossy(received));
        assert_eq!(is, expected, "{kind}");
        assert!(response.trailers.is_empty());
    }
}

#[tokio::test]
async fn what_fails_is_told_in_headers() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.address, true).await;
    let mut client = proxy.client().await;
    client.send(call("application/grpc-web-text", b"no base64!")).await;
    let response = client.message().await;
    assert_eq!((response.status(), response.header("grpc-status")), (200, Some("13")));
    assert_eq!(response.header("grpc-message"), Some("grpc_web_text"));
    drop(origin);
    let mut client = proxy.client().await;
    client.send(call("application/grpc-web", MESSAGE)).await;
    let response = client.message().await;
    assert_eq!((response.status(), response.header("grpc-status")), (200, Some("14")));
    assert_eq!(response.header("content-type"), Some("application/grpc-web"));
}

#[tokio::test]
async fn it_is_translated_only_where_that_is_wanted() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.address, false).await;
    let mut calls = h2_origin(origin);
    let mut client = proxy.client().await;
    client.send(call("application/grpc-web", MESSAGE)).await;
    let (request, mut respond) = within("a call", calls.recv()).await.unwrap();
    assert_eq!(request.headers()["content-type"], "application/grpc-web");
    respond.send_response(http::Response::builder().header("content-type", "application/grpc-web").body(()).unwrap(), true).unwrap();
    assert_eq!(client.message().await.header("content-type"), Some("application/grpc-web"));
}
