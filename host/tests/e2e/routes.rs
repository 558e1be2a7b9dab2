//! Actions and what they do on the way: choice of cluster, rewrites, headers, timeouts, retries, copies.

use serde_json::{Value, json};

use super::support::*;

async fn with(action: Value, origins: &[&Answering]) -> Proxy {
    let endpoints: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    Proxy::start(&config(action, json!([cluster("origin", &endpoints)]))).await
}

#[tokio::test]
async fn answers_of_the_proxy_itself() {
    let proxy =
        Proxy::start(&config(json!({ "name": "hello", "respond": { "status": 418, "body": "hi", "contentType": "text/x" } }), json!([])))
            .await;
    let response = proxy.get("/").await;
    assert_eq!((response.status(), response.text(), response.header("content-type")), (418, "hi", Some("text/x")));
    let redirect =
        json!({ "redirect": { "scheme": "https", "port": 8443, "status": 308, "path": { "prefix": { "from": "/old", "to": "/new" } } } });
    let proxy = Proxy::start(&config(redirect, json!([]))).await;
    let response = proxy.get("/old/x?q=1").await;
    assert_eq!((response.status(), response.header("location")), (308, Some("https://example.com:8443/new/x?q=1")));
    let mut without = config(json!({}), json!([]));
    http(&mut without).as_object_mut().unwrap().remove("defaultAction");
    let proxy = Proxy::start(&without).await;
    let response = proxy.get("/").await;
    assert_eq!((response.status(), response.text()), (404, "no route matches this request\n"));
    let record = &proxy.access_log(1).await[0];
    assert_eq!((&record["response_code_details"], &record["response_flags"]), (&json!("route_not_found"), &json!("NR")));
}

#[tokio::test]
async fn weights_share_requests() {
    let (a, b) = (Answering::new(|_| ok("a")).await, Answering::new(|_| ok("b")).await);
    let action = json!({ "forward": { "clusters": [{ "name": "a", "weight": 75 }, { "name": "b", "weight": 25 }] } });
    let proxy = Proxy::start(&config(action, json!([cluster("a", &[a.address]), cluster("b", &[b.address])]))).await;
    let mut client = proxy.client().await;
    for _ in 0..400 {
        client.send(get("/")).await;
        client.message().await;
    }
    let share = a.seen().len();
    assert_eq!(share + b.seen().len(), 400);
    // Seven standard deviations.
    assert!((240..360).contains(&share), "{share} of 400");
}

#[tokio::test]
async fn spare_connections_are_open_before_the_first_request() {
    let origin = Origin::bind().await;
    let mut cluster = cluster("origin", &[origin.address]);
    cluster["warmConnections"] = json!(2);
    let proxy = Proxy::start(&config(forward(json!({})), json!([cluster]))).await;
    let (mut first, mut second) = (origin.accept().await, origin.accept().await);
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut used = tokio::select! {
        spoken = first.is_spoken_to() => { assert!(spoken); first }
        spoken = second.is_spoken_to() => { assert!(spoken); second }
    };
    assert_eq!(used.message().await.path(), "/");
    used.send(ok("warm")).await;
    assert_eq!(client.message().await.text(), "warm");
    // What the origin closes is replaced. While the request lasted another spare one may have been opened in its place.
    drop(used);
    origin.accept().await;
}

#[tokio::test]
async fn the_first_request_finds_addresses_and_health() {
    let origin = Answering::new(|_| ok("served")).await;
    let dead = Origin::bind().await.address;
    let mut checked = cluster("origin", &[dead, origin.address]);
    checked["healthChecks"] = json!([{ "interval": "60s", "timeout": "2s", "unhealthyThreshold": 1, "tcp": {} }]);
    let names = json!([{ "name": "localhost", "port": origin.address.port() }]);
    let named = json!({ "name": "origin", "dns": { "names": names, "family": "v4Only" } });
    for cluster in [checked, named] {
        let proxy = Proxy::start(&config(forward(json!({})), json!([cluster]))).await;
        let mut client = proxy.client().await;
        for _ in 0..10 {
            client.send(get("/")).await;
            assert_eq!(client.message().await.status(), 200);
        }
    }
}

#[tokio::test]
async fn a_header_names_the_cluster() {
    let a = Answering::new(|_| ok("a")).await;
    let action = json!({ "forward": { "clusterHeader": "x-cluster" } });
    let proxy = Proxy::start(&config(action, json!([cluster("a", &[a.address])]))).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-cluster: a\r\n\r\n").await;
    assert_eq!(client.message().await.text(), "a");
    for request in [get("/"), "GET / HTTP/1.1\r\nhost: a\r\nx-cluster: none\r\n\r\n".into()] {
        client.send(request).await;
        let response = client.message().await;
        assert_eq!((response.status(), response.text()), (503, "the route's cluster does not exist\n"));
    }
    assert_eq!(proxy.access_log(3).await[2]["response_flags"], "NC");
}

#[tokio::test]
async fn paths_and_hosts_are_rewritten() {
    let origin = Answering::new(|request| ok(request.path())).await;
    let action = forward(json!({
        "path": { "prefix": { "from": "/shop/", "to": "/" } },
        "host": { "literal": "inner.example", "appendForwardedHost": true },
    }));
    let proxy = with(action, &[&origin]).await;
    assert_eq!(proxy.get("/shop/cart?x=1").await.text(), "/cart?x=1");
    let request = origin.last();
    assert_eq!(request.header("host"), Some("inner.example"));
    assert_eq!(request.header("x-forwarded-host"), Some("example.com"));
    assert_eq!(request.header("x-envoy-original-path"), Some("/shop/cart?x=1"));
    assert_eq!(proxy.get("/other").await.text(), "/other");
    let action = forward(json!({ "path": { "regex": { "pattern": "^/v(\\d+)/", "substitution": "/api/$1/" } } }));
    let proxy = with(action, &[&origin]).await;
    assert_eq!(proxy.get("/v2/x").await.text(), "/api/2/x");
}

#[tokio::test]
async fn headers_are_changed_with_variables() {
    let origin = Answering::new(|_| "HTTP/1.1 200 OK\r\nserver: old\r\nx-drop: 1\r\ncontent-length: 0\r\n\r\n".into()).await;
    let mut action = forward(json!({}));
    action["requestHeaders"] = json!({
        "set": [{ "name": "x-client", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" }, { "name": "x-route", "value": "%ROUTE_NAME%/%REQ(x-in)%" }],
        "remove": ["x-secret"],
    });
    action["responseHeaders"] = json!({
        "add": [{ "name": "x-upstream", "value": "%UPSTREAM_CLUSTER% 100%%" }],
        "remove": ["x-drop"],
    });
    let proxy = with(action, &[&origin]).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-in: in\r\nx-secret: s\r\nx-client: forged\r\n\r\n").await;
    let response = client.message().await;
    let request = origin.last();
    assert_eq!(request.header("x-client"), Some("127.0.0.1"));
    assert_eq!(request.header("x-route"), Some("all/in"));
    assert_eq!(request.header("x-secret"), None);
    assert_eq!(response.header("x-upstream"), Some("origin 100%"));
    assert_eq!(response.header("x-drop"), None);
    assert_eq!(response.header("server"), Some("old"));
}

#[tokio::test]
async fn every_request_says_where_it_is_from() {
    let origin = Answering::new(|_| ok("")).await;
    let proxy = with(forward(json!({})), &[&origin]).await;
    proxy.get("/a/../b/./c?x=/../y").await;
    let request = origin.last();
    assert_eq!(request.path(), "/b/c?x=/../y", "the path is normal, the query is untouched");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-request-id").map(str::len), Some(36));
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 10.0.0.9\r\nx-request-id: mine\r\n\r\n").await;
    client.message().await;
    let request = origin.last();
    assert_eq!(request.header("x-forwarded-for"), Some("10.0.0.9, 127.0.0.1"));
    assert_eq!(request.header("x-request-id"), Some("mine"));
}

#[tokio::test]
async fn a_slow_origin_is_a_504() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&config(forward(json!({ "timeout": "200ms" })), json!([cluster("origin", &[origin.address])]))).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    let response = client.message().await;
    assert_eq!((response.status(), response.text()), (504, "the upstream did not answer in time\n"));
    upstream.closes().await;
    let record = &proxy.access_log(1).await[0];
    assert_eq!((&record["response_code_details"], &record["response_flags"]), (&json!("response_timeout"), &json!("UT")));
    client.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    upstream.send(ok("in time")).await;
    assert_eq!(client.message().await.text(), "in time", "the client's connection goes on");
}

#[tokio::test]
async fn failed_answers_are_tried_again_as_often_as_allowed() {
    let origin = Answering::new(|_| "HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy".into()).await;
    let retry = json!({ "attempts": 2, "on": ["5xx"], "backoffBase": "1ms" });
    let proxy = with(forward(json!({ "retry": retry })), &[&origin]).await;
    let mut client = proxy.client().await;
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    let response = client.message().await;
    assert_eq!((response.status(), response.text()), (503, "busy"), "the last answer is the answer");
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|(_, request)| request.text() == "hello"), "every try has the whole body");
    assert_eq!(proxy.access_log(1).await[0]["response_flags"], "URX");
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    client.message().await;
    let record = &proxy.access_log(2).await[1];
    assert_eq!(record["response_code"], 503);
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_given_up_for_another() {
    let origin = Origin::bind().await;
    let retry = json!({ "attempts": 1, "on": ["5xx"], "perTryTimeout": "150ms", "backoffBase": "1ms" });
    let proxy = Proxy::start(&config(forward(json!({ "retry": retry })), json!([cluster("origin", &[origin.address])]))).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut first = origin.accept().await;
    first.message().await;
    let mut second = origin.accept().await;
    second.message().await;
    first.closes().await;
    second.send(ok("second")).await;
    assert_eq!(client.message().await.text(), "second");
}

#[tokio::test]
async fn a_connect_failure_moves_on_to_another_endpoint() {
    let origin = Answering::new(|_| ok("here")).await;
    let gone = Origin::bind().await.address;
    let retry = json!({ "attempts": 3, "on": ["connect-failure"], "hostAttempts": 5, "backoffBase": "1ms" });
    let clusters = json!([cluster("origin", &[gone, origin.address])]);
    let proxy = Proxy::start(&config(forward(json!({ "retry": retry })), clusters)).await;
    for _ in 0..10 {
        let mut client = proxy.client().await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
        assert_eq!(client.message().await.text(), "here");
    }
    assert!(origin.seen().iter().all(|(_, request)| request.text() == "hi"));
}

#[tokio::test]
async fn an_open_breaker_refuses_at_once() {
    let origin = Origin::bind().await;
    let mut only = cluster("origin", &[origin.address]);
    only["circuitBreakers"] = json!({ "maxRequests": 1 });
    let proxy = Proxy::start(&config(forward(json!({})), json!([only]))).await;
    let mut first = proxy.client().await;
    first.send(get("/1")).await;
    let mut upstream = origin.accept().await;
    upstream.message().await;
    let refused = proxy.get("/2").await;
    assert_eq!((refused.status(), refused.text()), (503, "upstream overloaded: a circuit breaker is open\n"));
    let record = &proxy.access_log(1).await[0];
    assert_eq!((&record["response_code_details"], &record["response_flags"]), (&json!("upstream_overflow"), &json!("UO")));
    upstream.send(ok("1")).await;
    assert_eq!(first.message().await.text(), "1");
    first.send(get("/3")).await;
    assert_eq!(upstream.message().await.path(), "/3");
    upstream.send(ok("3")).await;
    assert_eq!(first.message().await.text(), "3", "the breaker closes again");
}

#[tokio::test]
async fn copies_go_to_the_mirror() {
    let (origin, shadow) = (Answering::new(|_| ok("real")).await, Answering::new(|_| ok("ignored")).await);
    let action = forward(json!({ "mirrors": [{ "cluster": "shadow" }] }));
    let clusters = json!([cluster("origin", &[origin.address]), cluster("shadow", &[shadow.address])]);
    let proxy = Proxy::start(&config(action, clusters)).await;
    let mut client = proxy.client().await;
    client.send("POST /x HTTP/1.1\r\nhost: example.com\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!(client.message().await.text(), "real");
    let copy = until("the copy", async || shadow.seen().pop()).await.1;
    assert_eq!((copy.first.as_str(), copy.header("host"), copy.text()), ("POST /x HTTP/1.1", Some("example.com-shadow"), "hello"));
    assert_eq!(origin.last().header("host"), Some("example.com"));
}

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_endpoint() {
    let origins = [Answering::new(|_| ok("0")).await, Answering::new(|_| ok("1")).await, Answering::new(|_| ok("2")).await];
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let mut sticky = cluster("origin", &addresses);
    sticky["balancer"] = json!({ "ringHash": {} });
    let action = forward(json!({ "hash": [{ "cookie": { "name": "session", "ttl": "1h", "path": "/" } }] }));
    let proxy = Proxy::start(&config(action, json!([sticky]))).await;
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        let first = client.message().await;
        let cookie = first.header("set-cookie").expect("a cookie").to_owned();
        assert!(cookie.starts_with("session=") && cookie.contains("Path=/") && cookie.contains("Max-Age=3600"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        for _ in 0..3 {
            client.send(format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: other=1; {pair}\r\n\r\n")).await;
            let next = client.message().await;
            assert_eq!(next.text(), first.text());
            assert_eq!(next.header("set-cookie"), None);
        }
        used.insert(first.text().to_owned());
    }
    assert!(used.len() > 1, "new clients are spread");
}
