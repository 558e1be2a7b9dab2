//! The standard filters in the real proxy: what they decide is what the client and the origin see.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::*;

fn filtered(origin: std::net::SocketAddr, name: &str, configuration: &Value) -> Value {
    let mut config = to_origin(origin);
    http(&mut config)["filterChain"] = json!("main");
    config["filterChains"] = json!([{ "name": "main", "filters": [{ "name": name, "phase": "traffic", "module": { "builtin": name } }] }]);
    config["filterChains"][0]["filters"][0]["config"] = configuration.clone();
    config
}

/// Paths that are one path, once the core has normalised them: none passes a rule on it.
const SPELLINGS: [&str; 14] = [
    "/admin",
    "/admin/",
    "/admin?x=1",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/./admin",
    "/x/../admin",
    "//admin",
    "/admin//",
    "/x/%2e%2e/admin",
    "/admin/.",
    "/admin/x/..",
    "http://a/admin",
    "/../admin",
];

#[tokio::test]
async fn a_rule_on_a_path_holds_for_every_spelling_of_it() {
    let origin = Answering::new(|_| ok("served")).await;
    let rules = json!({"rules": [{"name": "admin", "when": {"path": {"prefix": "/admin"}}, "answer": {"body": "no"}}]});
    let mut config = filtered(origin.address, "deny", &rules);
    http(&mut config)["path"] = json!({"mergeSlashes": true});
    let proxy = Proxy::start(&config).await;
    for path in SPELLINGS {
        let mut client = proxy.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let response = client.message().await;
        // Refused by the rule, or as no path at all; never served.
        assert!(matches!(response.status(), 400 | 403), "{path}: {}", response.status());
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    let mut client = proxy.client().await;
    client.send(get("/public")).await;
    assert_eq!(client.message().await.text(), "served");
    assert_eq!(proxy.access_log(1).await[0]["response_code_details"], "denied_by{admin}");
}

#[tokio::test]
async fn a_fault_makes_requests_late_and_then_fail() {
    let origin = Answering::new(|_| ok("served")).await;
    let fault = json!({"when": {"path": {"prefix": "/slow"}}, "delay": {"fixed": "300ms"}});
    let proxy = Proxy::start(&filtered(origin.address, "fault", &fault)).await;
    let (mut slow, mut fast) = (proxy.client().await, proxy.client().await);
    let begun = Instant::now();
    slow.send(get("/slow")).await;
    fast.send(get("/fast")).await;
    assert_eq!(fast.message().await.status(), 200);
    assert_eq!(slow.message().await.text(), "served");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    proxy.rewrite(&filtered(origin.address, "fault", &json!({"delay": {"fixed": "100ms"}, "abort": {"status": 418}})));
    until("the other configuration", async || {
        slow.send(get("/")).await;
        (slow.message().await.status() == 418).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_configuration_that_a_filter_refuses_says_the_field() {
    let origin = Answering::new(|_| ok("served")).await;
    let proxy = Proxy::start(&filtered(origin.address, "deny", &json!({"rules": [{"name": "none"}]}))).await;
    proxy.rewrite(&filtered(origin.address, "deny", &json!({"rules": [{"name": "a", "wen": {}}]})));
    proxy.logs(&["rules[0].wen: unknown field", "did you mean `when`?"]).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    assert_eq!(client.message().await.status(), 403, "the last good one serves on");
}
