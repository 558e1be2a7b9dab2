//! What becomes of bodies and their lengths behind filters that have body callbacks, as every filter on a stock SDK does.
//!
//! The guests could all change bodies; most of them do not.

use serde_json::{Value, json};

use super::filters::filtered;
use super::guests::Guest;
use super::support::*;

/// Has body callbacks, and leaves bodies alone.
fn watcher() -> Guest {
    Guest::default().on("proxy_on_request_body", 3, "i32", "(i32.const 0)").on("proxy_on_response_body", 3, "i32", "(i32.const 0)")
}

/// Appends `!` to every body.
fn appender() -> Guest {
    let mut guest = Guest::default();
    let text = guest.text("!");
    let append = |buffer| {
        format!(
            "(if (local.get $2) (then (drop (call $proxy_set_buffer_bytes (i32.const {buffer}) (local.get $1) (i32.const 0) {text}))))
            (i32.const 0)"
        )
    };
    guest.on("proxy_on_request_body", 3, "i32", &append(0)).on("proxy_on_response_body", 3, "i32", &append(1))
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// How often each callback of the first filter was called.
async fn calls(proxy: &Proxy) -> Value {
    proxy.view("/filters").await[0]["accounting"]["calls"].clone()
}

#[tokio::test]
async fn bodies_that_filters_only_look_at_keep_their_length_and_are_shown_once() {
    let origin = Answering::new(|request| if request.path() == "/204" { "HTTP/1.1 204 No\r\n\r\n".into() } else { ok("answer") }).await;
    let proxy = Proxy::start(&filtered(origin.address, json!([watcher().binding("watch", json!({}))]))).await;
    let mut client = proxy.client().await;
    client.send(get("/204")).await;
    assert_eq!(client.message().await.status(), 204);
    let seen = calls(&proxy).await;
    assert_eq!((&seen["proxy_on_request_body"], &seen["proxy_on_response_body"]), (&Value::Null, &Value::Null), "there was none: {seen}");
    client.send(post("question")).await;
    let response = client.message().await;
    assert_eq!((response.text(), response.header("content-length"), response.header("transfer-encoding")), ("answer", Some("6"), None));
    let request = origin.last();
    assert_eq!((request.text(), request.header("content-length"), request.header("transfer-encoding")), ("question", Some("8"), None));
    let seen = calls(&proxy).await;
    assert_eq!(
        (&seen["proxy_on_request_body"], &seen["proxy_on_response_body"]),
        (&json!(1), &json!(1)),
        "the last piece and the end are one: {seen}"
    );
}

#[tokio::test]
async fn a_long_body_keeps_its_length_on_both_ways() {
    const SIZE: usize = 3 << 20;
    let body = "0123456789abcdef".repeat(SIZE / 16);
    let origin = Answering::new(|request| ok(request.text())).await;
    let chain = json!([watcher().binding("watch", json!({})), watcher().binding("too", json!({}))]);
    let proxy = Proxy::start(&filtered(origin.address, chain)).await;
    let mut client = proxy.client().await;
    client.send(post(&body)).await;
    let response = client.message().await;
    let length = SIZE.to_string();
    assert_eq!((response.header("content-length"), response.text() == body), (Some(&*length), true));
    assert_eq!(origin.last().header("content-length"), Some(&*length));
}

#[tokio::test]
async fn a_length_is_corrected_while_its_head_is_still_here() {
    let origin = Answering::new(|_| ok("answer")).await;
    let proxy = Proxy::start(&filtered(origin.address, json!([appender().binding("append", json!({}))]))).await;
    let mut client = proxy.client().await;
    client.send(post("question")).await;
    let response = client.message().await;
    assert_eq!((response.text(), response.header("content-length")), ("answer!", Some("7")));
    assert_eq!((origin.last().text(), origin.last().header("content-length")), ("question!", Some("9")));
}

#[tokio::test]
async fn a_length_that_is_broken_later_ends_the_message_and_happens_once() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&filtered(origin.address, json!([appender().binding("append", json!({}))]))).await;
    let mut client = proxy.client().await;
    client.send(get("/first")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nans").await;
    assert_eq!(client.head().await.header("content-length"), Some("6"));
    upstream.send("wer").await;
    let rest = client.rest().await;
    assert!(rest.len() < 6, "a message that is not what its head says is not complete: {rest:?}");
    proxy.logs(&["append", "content-length"]).await;

    // The upstream's message was whole: its connection serves the next one.
    let mut client = proxy.client().await;
    client.send(get("/second")).await;
    upstream.message().await;
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nans").await;
    let head = client.head().await;
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, Some("chunked")));
    upstream.send("wer").await;
    assert_eq!(client.exactly(22).await, b"3\r\nans\r\n4\r\nwer!\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_filter_that_says_it_writes_breaks_nothing() {
    let origin = Origin::bind().await;
    let chain = json!([appender().binding("append", json!({ "bodyAccess": "readWrite" }))]);
    let proxy = Proxy::start(&filtered(origin.address, chain)).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, Some("chunked")), "nor does the head wait");
    upstream.send("answer").await;
    assert_eq!(client.exactly(17).await, b"7\r\nanswer!\r\n0\r\n\r\n".as_slice());
}
