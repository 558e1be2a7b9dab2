//! New configurations and the end of the process, under way.

use rustix::process::Signal;
use serde_json::json;

use super::load::marked;
use super::support::*;

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
