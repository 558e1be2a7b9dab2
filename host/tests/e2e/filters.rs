//! Filters under way: what becomes of requests when one fails, and the calls that they make to clusters.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::guests::*;
use super::support::*;

/// Everything to `origin` through these filters.
pub(crate) fn filtered(origin: std::net::SocketAddr, filters: Value) -> Value {
    let mut config = to_origin(origin);
    http(&mut config)["filterChain"] = json!("main");
    config["filterChains"] = json!([{ "name": "main" }]);
    config["filterChains"][0]["filters"] = filters;
    config
}

/// A request with a body and a header that says where the filter fails.
fn failing(at: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\nx-fail: {at}\r\ncontent-length: 4\r\n\r\nbody")
}

/// A filter that traps where `x-fail` says: in the request's `head`, its `body`, the response's `answer`; or does not return (`loop`).
fn fragile(more: Value) -> Value {
    let mut guest = Guest::default();
    let key = guest.text("x-fail");
    // By the first letter.
    let on = |letter: char, what: &str| {
        let is = format!("(i32.eq (i32.load8_u (i32.load (i32.const 0))) (i32.const {}))", u32::from(letter));
        format!("(if (call $has (i32.const 0) {key}) (then (if {is} (then {what}))))")
    };
    let head = on('h', "unreachable") + &on('l', "(loop $for_ever (br $for_ever))");
    guest
        .on_request(&format!("{head} (i32.const 0)"))
        .on("proxy_on_request_body", 3, "i32", &format!("{} (i32.const 0)", on('b', "unreachable")))
        .on("proxy_on_response_headers", 3, "i32", &format!("{} (i32.const 0)", on('a', "unreachable")))
        .binding("fragile", more)
}

#[tokio::test]
async fn a_filter_that_fails_closed_costs_its_request_and_no_other() {
    let origin = Answering::new(|_| ok("served")).await;
    for at in ["head", "body", "answer", "loop"] {
        let proxy = Proxy::start(&filtered(origin.address, json!([fragile(json!({}))]))).await;
        let mut client = proxy.client().await;
        client.send(failing(at)).await;
        assert_eq!(client.message().await.status(), 503, "{at}");
        // The same connection, another instance.
        client.send(failing("nowhere")).await;
        let response = client.message().await;
        assert_eq!((response.status(), response.text()), (200, "served"), "after {at}");
        assert_eq!(proxy.access_log(2).await[0]["response_code_details"], "wasm_trap{main/fragile}", "{at}");
        let filter = proxy.view("/filters").await[0].clone();
        let traps: u64 = filter["accounting"]["traps"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(traps, 1, "{filter}");
        proxy.logs(&["main/fragile"]).await;
    }
}

#[tokio::test]
async fn a_filter_that_keeps_failing_waits_before_it_starts_again() {
    let origin = Answering::new(|_| ok("served")).await;
    let proxy = Proxy::start(&filtered(origin.address, json!([fragile(json!({}))]))).await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        client.send(failing("head")).await;
        assert_eq!(client.message().await.status(), 503);
    }
    let counters = proxy.view("/filters").await[0]["accounting"]["counters"].clone();
    assert!(counters["restarts_delayed"].as_u64() > Some(0), "{counters}");
    until("an instance that serves", async || {
        client.send(failing("nowhere")).await;
        (client.message().await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_filter_that_fails_open_is_left_out() {
    let origin = Answering::new(|request| ok(request.text())).await;
    let proxy = Proxy::start(&filtered(origin.address, json!([fragile(json!({ "failurePolicy": "open" }))]))).await;
    let mut client = proxy.client().await;
    for at in ["head", "body", "answer", "loop", "nowhere"] {
        client.send(failing(at)).await;
        let response = client.message().await;
        assert_eq!((response.status(), response.text()), (200, "body"), "{at}");
    }
    assert_eq!(origin.seen().len(), 5);
}

#[tokio::test]
async fn streams_of_one_instance_fail_together_and_others_go_on() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&filtered(origin.address, json!([fragile(json!({}))]))).await;
    let mut waiting = proxy.client().await;
    waiting.send(get("/")).await;
    let mut held = origin.accept().await;
    held.message().await;
    let mut trapping = proxy.client().await;
    trapping.send(failing("head")).await;
    assert_eq!(trapping.message().await.status(), 503);
    held.send(ok("too late")).await;
    let response = waiting.message().await;
    assert_eq!(response.status(), 503, "the filter that had to see the answer is gone");
    let mut next = proxy.client().await;
    next.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    upstream.send(ok("fine")).await;
    assert_eq!(next.message().await.text(), "fine");
}

#[tokio::test]
async fn an_upload_waits_with_its_client_while_there_is_no_connection() {
    // Somebody accepts and says nothing: the handshake does not end.
    let origin = Origin::bind().await;
    let patience = std::time::Duration::from_millis(300);
    let mut config = filtered(origin.address, json!([fragile(json!({}))]));
    config["clusters"][0]["tls"] = json!({ "sni": "a.test", "insecureSkipVerify": true });
    config["clusters"][0]["connectTimeout"] = json!("30s");
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n").await;
    // The rest comes when the request is on its way.
    let _silent = origin.accept_tcp().await;
    let (piece, mut sent) = (vec![b'x'; 64 << 10], 0);
    while let Ok(result) = tokio::time::timeout(patience, client.io.write_all(&piece)).await {
        result.unwrap();
        sent += piece.len();
        // The kernel's buffers, and the filter's share.
        assert!(sent < 48 << 20, "the proxy takes more and more");
    }
}

/// A filter that asks the cluster `upstream` about each request: it goes on if that answers 2xx, with `x-answer` if there is one; 403 if not.
fn asking(upstream: &str, timeout: u32, more: Value) -> Value {
    let mut guest = Guest::default();
    let (name, none, status) = (guest.text(upstream), guest.text(""), guest.text(":status"));
    let headers = guest.map(&[(":method", "POST"), (":path", "/check"), (":authority", "auth.test"), ("x-asks", "filter")]);
    let (body, answer) = (guest.text("who is this?"), guest.text("x-answer"));
    let (no, refused) = (guest.text("no"), guest.text("not asked"));
    let reply = |status: u32, text: &str| {
        format!("(drop (call $proxy_send_local_response (i32.const {status}) {text} {text} {none} (i32.const -1)))")
    };
    let ask = format!(
        "{REMEMBER}
        (if (i32.ne (call $proxy_http_call {name} {headers} {body} {none} (i32.const {timeout}) (i32.const 16)) (i32.const 0))
          (then {}))
        (i32.const 1)",
        reply(500, &refused)
    );
    let answered = format!(
        "{RETURN}
        (if (i32.eqz (call $has (i32.const 6) {status})) (then {} (return)))
        (if (i32.ne (i32.load8_u (i32.load (i32.const 0))) (i32.const 50)) (then {} (return)))
        (if (call $has (i32.const 6) {answer}) (then (drop (call $proxy_add_header_map_value (i32.const 0) {answer} {FOUND}))))
        (drop (call $proxy_continue_stream (i32.const 0)))",
        reply(504, &no),
        reply(403, &no)
    );
    guest.on_request(&ask).on("proxy_on_http_call_response", 5, "", &answered).binding("asks", more)
}

#[tokio::test]
async fn a_filter_asks_a_cluster_and_waits_for_its_answer() {
    let auth = Answering::new(|request| match request.header("x-asks") {
        Some("filter") => "HTTP/1.1 200 OK\r\nx-answer: alice\r\ncontent-length: 3\r\n\r\nyes".into(),
        _ => ok("who asks?"),
    })
    .await;
    let deny = Answering::new(|_| "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".into()).await;
    let origin = Answering::new(|request| ok(request.header("x-answer").unwrap_or("nobody"))).await;
    for (upstream, status, text) in [("auth", 200, "alice"), ("deny", 403, "no")] {
        let mut config = filtered(origin.address, json!([asking(upstream, 5000, json!({ "upstreams": [upstream] }))]));
        config["clusters"] =
            json!([cluster("origin", &[origin.address]), cluster("auth", &[auth.address]), cluster("deny", &[deny.address])]);
        let proxy = Proxy::start(&config).await;
        let mut client = proxy.client().await;
        for _ in 0..3 {
            client.send(get("/")).await;
            let response = client.message().await;
            assert_eq!((response.status(), response.text()), (status, text));
        }
    }
    let asked = auth.last();
    assert_eq!((asked.path(), asked.header("host"), asked.text()), ("/check", Some("auth.test"), "who is this?"));
    assert_eq!((auth.seen().len(), deny.seen().len(), origin.seen().len()), (3, 3, 3));
}

#[tokio::test]
async fn a_filter_may_call_the_clusters_of_its_list_and_no_other() {
    let (auth, origin) = (Origin::bind().await, Answering::new(|_| ok("served")).await);
    let clusters = json!([cluster("origin", &[origin.address]), cluster("auth", &[auth.address])]);
    for upstreams in [json!([]), json!(["origin"])] {
        let mut config = filtered(origin.address, json!([asking("auth", 5000, json!({ "upstreams": upstreams }))]));
        config["clusters"] = clusters.clone();
        let proxy = Proxy::start(&config).await;
        let response = proxy.get("/").await;
        assert_eq!((response.status(), response.text()), (500, "not asked"));
        // Who may not call whom.
        proxy.logs(&["main/asks", "auth"]).await;
        let refused = proxy.view("/filters").await[0]["accounting"]["counters"]["callouts_refused"].clone();
        assert_eq!(refused, 1);
    }
    assert!(auth.is_untouched().await && origin.seen().is_empty());
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends() {
    let (silent, origin) = (Origin::bind().await, Answering::new(|_| ok("served")).await);
    let mut config = filtered(origin.address, json!([asking("silent", 200, json!({ "upstreams": ["*"] }))]));
    config["clusters"] = json!([cluster("origin", &[origin.address]), cluster("silent", &[silent.address])]);
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut asked = silent.accept().await;
    asked.message().await;
    assert_eq!(client.message().await.status(), 504);
    asked.closes().await;
    // Nobody listens there.
    drop((asked, silent));
    client.send(get("/")).await;
    assert_eq!(client.message().await.status(), 504);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_filter_makes_a_grpc_call() {
    let mut guest = Guest::default();
    let (name, service, method) = (guest.text("grpc"), guest.text("test.Names"), guest.text("Get"));
    let (metadata, message, header) = (guest.map(&[("x-asks", "filter")]), guest.text("who?"), guest.text("x-answer"));
    let (none, no) = (guest.text(""), guest.text("no"));
    let ask = format!(
        "{REMEMBER}
        (if (call $proxy_grpc_call {name} {service} {method} {metadata} {message} (i32.const 5000) (i32.const 16)) (then unreachable))
        (i32.const 1)"
    );
    // Buffer 5 is the message.
    let received = format!(
        "(drop (call $proxy_get_buffer_bytes (i32.const 5) (i32.const 0) (local.get $2) (i32.const 0) (i32.const 4)))
        {RETURN}
        (drop (call $proxy_add_header_map_value (i32.const 0) {header} {FOUND}))
        (drop (call $proxy_continue_stream (i32.const 0)))"
    );
    let closed = format!(
        "{RETURN}
        (drop (call $proxy_send_local_response (i32.add (i32.const 500) (local.get $2)) {no} {no} {none} (i32.const -1)))"
    );
    let guest = guest.on_request(&ask).on("proxy_on_grpc_receive", 3, "", &received).on("proxy_on_grpc_close", 3, "", &closed);
    let (names, origin) = (Origin::bind().await, Answering::new(|request| ok(request.header("x-answer").unwrap_or("nobody"))).await);
    let mut config = filtered(origin.address, json!([guest.binding("asks", json!({ "upstreams": ["grpc"] }))]));
    let mut grpc = cluster("grpc", &[names.address]);
    grpc["protocol"] = json!("http2");
    config["clusters"] = json!([cluster("origin", &[origin.address]), grpc]);
    let mut calls = h2_origin(names);
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client().await;

    client.send(get("/")).await;
    let (request, mut respond) = within("a call", calls.recv()).await.unwrap();
    let (head, mut body) = request.into_parts();
    assert_eq!((head.uri.path(), head.headers["content-type"].as_bytes()), ("/test.Names/Get", &b"application/grpc"[..]));
    assert_eq!((head.headers["x-asks"].as_bytes(), head.headers["te"].as_bytes()), (&b"filter"[..], &b"trailers"[..]));
    assert_eq!(h2_body(&mut body).await, b"\0\0\0\0\x04who?");
    let answer = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(answer, false).unwrap();
    stream.send_data("\0\0\0\0\x03bob".into(), false).unwrap();
    let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    // Once it has its message, a unary call may be over.
    let _ = stream.send_trailers(trailers);
    assert_eq!(client.message().await.text(), "bob");

    client.send(get("/")).await;
    let (_, mut respond) = within("a call", calls.recv()).await.unwrap();
    let answer = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "7").body(()).unwrap();
    respond.send_response(answer, true).unwrap();
    assert_eq!(client.message().await.status(), 507, "it is told the status");
}
