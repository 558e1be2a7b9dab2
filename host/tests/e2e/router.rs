//! The filter `router` in the real proxy: the table of routes, what the proxy does with what was chosen, and what it says of configurations that cannot work.

use serde_json::{Value, json};

use super::support::*;

/// A listener without a default action, whose only filter is the router.
fn routed(configuration: Value, clusters: Value) -> Value {
    let mut config = config(json!({}), clusters);
    http(&mut config).as_object_mut().unwrap().remove("defaultAction");
    http(&mut config)["filterChain"] = json!("main");
    config["filterChains"] =
        json!([{ "name": "main", "filters": [{ "name": "router", "phase": "route", "module": { "builtin": "router" } }] }]);
    config["filterChains"][0]["filters"][0]["config"] = configuration;
    config
}

/// An action that answers with its name.
fn says(name: &str) -> Value {
    json!({ "name": name, "respond": { "status": 200, "body": name } })
}

#[allow(clippy::needless_pass_by_value, reason = "every caller makes what it hands over")]
fn route(one: Value, action: Value) -> Value {
    json!({ "match": [one], "action": action })
}

/// What a request in one line gets: `GET host/path name:value …`.
async fn ask(client: &mut Peer, request: &str) -> Message {
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (host, path) = target.split_at(target.find('/').unwrap());
    let headers: String = words.map(|header| format!("{}\r\n", header.replace(':', ": "))).collect();
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")).await;
    client.message().await
}

/// Bookinfo's routes, as Istio's documents write them, and one of every other kind.
fn table() -> Value {
    let all = [
        json!({ "hosts": ["reviews", "reviews.default.svc.cluster.local"], "routes": [
            route(json!({ "headers": [{ "name": "end-user", "value": { "exact": "jason" } }] }), says("v2")),
            route(json!({ "path": { "prefix": "/wpcatalog" } }), says("catalog")),
            route(json!({ "path": { "exact": "/Ratings", "ignoreCase": true } }), says("ratings")),
            route(json!({ "headers": [{ "name": "cookie", "value": { "regex": "^(.*?;)?(user=dev)(;.*)?$" } }] }), says("dev")),
            json!({ "action": says("v1") }),
        ]}),
        json!({ "hosts": ["*.shop.example"], "routes": [
            route(json!({ "path": { "segmentPrefix": "/cart" }, "method": { "exact": "POST" } }), says("cart")),
            route(json!({ "path": { "template": "/users/{id}/orders" } }), says("orders")),
            route(json!({ "query": [{ "name": "v", "value": { "exact": "2" } }] }), says("query")),
        ]}),
        json!({ "hosts": ["img.*"], "routes": [{ "action": says("images") }] }),
        json!({ "hosts": ["ported:9090"], "routes": [{ "action": says("ported") }] }),
    ];
    json!({ "virtualHosts": all })
}

#[tokio::test]
async fn every_request_gets_its_route() {
    let proxy = Proxy::start(&routed(table(), json!([]))).await;
    let mut client = proxy.client().await;
    let expected = [
        ("GET reviews/", "v1"),
        ("GET reviews/ end-user:jason", "v2"),
        ("GET reviews/wpcatalogue", "catalog"),
        ("GET reviews/%77pcatalog", "catalog"),
        ("GET reviews/x/../wpcatalog", "catalog"),
        ("GET reviews/RATINGS?x=1", "ratings"),
        ("GET reviews/ cookie:user=dev;x=1", "dev"),
        ("GET reviews/ cookie:user=developer", "v1"),
        ("GET REVIEWS.default.svc.cluster.local:9080/", "v1"),
        ("POST a.shop.example/cart/7", "cart"),
        ("GET a.b.shop.example/users/7/orders", "orders"),
        ("GET a.shop.example/?v=2", "query"),
        ("GET img.example.org/", "images"),
        ("GET ported:9090/", "ported"),
    ];
    for (request, name) in expected {
        let response = ask(&mut client, request).await;
        assert_eq!((response.status(), response.text()), (200, name), "{request}");
    }
    let unknown = ["GET shop.example/cart", "GET a.shop.example/cart", "GET a.shop.example/cartoon", "GET ported/", "GET elsewhere/"];
    for request in unknown {
        let response = ask(&mut client, request).await;
        assert_eq!((response.status(), response.text()), (404, "no route matches this request\n"), "{request}");
    }
    let log = proxy.access_log(expected.len() + unknown.len()).await;
    assert_eq!(log[0]["route_name"], "v1");
    let last = log.last().unwrap();
    assert_eq!((&last["response_code_details"], &last["response_flags"]), (&json!("route_not_found"), &json!("NR")));
}

#[tokio::test]
async fn precedence_is_as_written_or_by_what_is_most_specific() {
    let routes = [
        route(json!({ "path": { "segmentPrefix": "/" } }), says("all")),
        route(json!({ "path": { "segmentPrefix": "/v2" } }), says("v2")),
        route(
            json!({ "path": { "segmentPrefix": "/v2" }, "headers": [{ "name": "version", "value": { "exact": "two" } }] }),
            says("header"),
        ),
        route(json!({ "path": { "segmentPrefix": "/v2" }, "method": { "exact": "PUT" } }), says("method")),
        route(json!({ "path": { "exact": "/v2/example" } }), says("exact")),
    ];
    let table = |precedence: &str| json!({ "precedence": precedence, "virtualHosts": [{ "hosts": ["*"], "routes": routes }] });
    let mut proxy = Proxy::start(&routed(table("mostSpecific"), json!([]))).await;
    let mut client = proxy.client().await;
    for (request, name) in [
        ("GET a/", "all"),
        ("GET a/v2", "v2"),
        ("GET a/v2/", "v2"),
        ("GET a/v2example", "all"),
        ("GET a/v2/example", "exact"),
        ("GET a/v2/x version:two", "header"),
        ("PUT a/v2/x version:two", "method"),
    ] {
        assert_eq!(ask(&mut client, request).await.text(), name, "{request}");
    }
    proxy.rewrite(&routed(table("ordered"), json!([])));
    until("the other order", async || (ask(&mut client, "GET a/v2/example").await.text() == "all").then_some(())).await;
    assert!(proxy.runs());
}

#[tokio::test]
async fn what_was_chosen_is_carried_out() {
    let (one, two) = (Answering::new(|request| ok(&format!("one {}", request.path()))).await, Answering::new(|_| ok("two")).await);
    let forward = |more: Value| {
        let mut action = json!({ "name": "forward", "forward": { "clusters": [{ "name": "one" }] } });
        with(&mut action["forward"], more);
        action
    };
    let weighted = json!({ "forward": { "clusters": [{ "name": "one", "weight": 1 }, { "name": "two", "weight": 3 }] } });
    let mut marked = forward(json!({ "host": { "literal": "inner" } }));
    marked["requestHeaders"] = json!({ "set": [{ "name": "x-routed", "value": "yes" }] });
    let routes = [
        route(json!({ "path": { "prefix": "/weighted" } }), weighted),
        route(json!({ "path": { "segmentPrefix": "/strip" } }), forward(json!({ "path": { "prefix": { "from": "/strip", "to": "" } } }))),
        route(
            json!({ "path": { "prefix": "/moved" } }),
            json!({ "redirect": { "status": 308, "scheme": "https", "path": { "full": "/new" } } }),
        ),
        route(json!({ "path": { "prefix": "/marked" } }), marked),
        route(json!({ "path": { "prefix": "/lost" } }), json!({ "forward": { "clusters": [{ "name": "nobody" }] } })),
    ];
    let clusters = json!([cluster("one", &[one.address]), cluster("two", &[two.address])]);
    let proxy = Proxy::start(&routed(json!({ "virtualHosts": [{ "hosts": ["*"], "routes": routes }] }), clusters)).await;
    let mut client = proxy.client().await;
    assert_eq!(ask(&mut client, "GET a/strip/x?y=1").await.text(), "one /x?y=1");
    let moved = ask(&mut client, "GET a/moved").await;
    assert_eq!((moved.status(), moved.header("location")), (308, Some("https://a/new")));
    assert_eq!(ask(&mut client, "GET a/marked").await.status(), 200);
    let seen = one.last();
    assert_eq!((seen.header("x-routed"), seen.header("host")), (Some("yes"), Some("inner")));
    assert_eq!(ask(&mut client, "GET a/lost").await.status(), 503);
    let before = two.seen().len();
    for _ in 0..200 {
        assert_eq!(ask(&mut client, "GET a/weighted").await.status(), 200);
    }
    // Six standard deviations.
    let share = two.seen().len() - before;
    assert!((113..=187).contains(&share), "{share} of 200");
}

#[tokio::test]
async fn an_action_that_cannot_work_is_refused_with_its_path_and_the_last_one_stays() {
    let table = |action: Value| json!({ "virtualHosts": [{ "hosts": ["*"], "routes": [{ "action": says("ok") }, { "action": action }] }] });
    let proxy = Proxy::start(&routed(table(says("other")), json!([]))).await;
    for (action, said) in [
        (
            json!({ "forward": { "clusters": [{ "name": "a", "weigt": 1 }] } }),
            "virtualHosts[0].routes[1].action.forward.clusters[0].weigt: ",
        ),
        (json!({ "redirect": { "host": "a", "status": 200 } }), "virtualHosts[0].routes[1].action.redirect.status: 200 is no redirect"),
        (json!("nobody"), "virtualHosts[0].routes[1].action: there is no \\\"nobody\\\" in `actions`"),
    ] {
        proxy.rewrite(&routed(table(action), json!([])));
        proxy.logs(&[said]).await;
        assert_eq!(proxy.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn a_new_configuration_takes_the_place_of_the_old_one() {
    let table = |name: &str| json!({ "virtualHosts": [{ "hosts": ["*"], "routes": [{ "action": says(name) }] }] });
    let proxy = Proxy::start(&routed(table("0"), json!([]))).await;
    let mut client = proxy.client().await;
    for round in 1..=5 {
        let name = round.to_string();
        proxy.rewrite(&routed(table(&name), json!([])));
        until("the next routes", async || (ask(&mut client, "GET a/").await.text() == name).then_some(())).await;
    }
}
