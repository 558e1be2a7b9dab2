//! AuthorizationPolicy in the real proxy: by path and method, by who the peer's certificate says it is, by addresses, on raw TCP, and by asking somebody else.

use serde_json::{Value, json};

use super::certificates::*;
use super::support::*;

/// Everything to one origin, through the policies.
fn governed(origin: std::net::SocketAddr, configuration: &Value) -> Value {
    let mut config = to_origin(origin);
    http(&mut config)["filterChain"] = json!("main");
    config["filterChains"] = chain(configuration);
    config
}

fn chain(configuration: &Value) -> Value {
    let filter = json!({ "name": "authz", "phase": "authz", "module": { "builtin": "authz" } });
    let mut chains = json!([{ "name": "main", "filters": [filter] }]);
    chains[0]["filters"][0]["config"] = configuration.clone();
    chains
}

async fn ask(proxy: &Proxy, method: &str, path: &str, headers: &str) -> Message {
    let mut client = proxy.client().await;
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await;
    client.message().await
}

#[tokio::test]
async fn what_policies_refuse_does_not_reach_the_origin() {
    let origin = Answering::new(|_| ok("served")).await;
    let policies = json!({ "policies": [
        { "name": "shut", "namespace": "ns", "action": "DENY", "rules": [{ "to": [{ "operation": { "paths": ["/admin", "/admin/*"] } }] }] },
        { "name": "open", "namespace": "ns", "rules": [
            { "to": [{ "operation": { "methods": ["GET"] } }], "from": [{ "source": { "ipBlocks": ["127.0.0.0/8"] } }] },
            { "when": [{ "key": "request.headers[x-role]", "values": ["writer"] }, { "key": "destination.ip", "values": ["127.0.0.1"] }] },
        ] },
    ] });
    let proxy = Proxy::start(&governed(origin.address, &policies)).await;
    let cases = [
        ("GET", "/", "", 200, "via_upstream"),
        ("GET", "/admin/x", "", 403, "rbac_access_denied_matched_policy[ns[ns]-policy[shut]-rule[0]]"),
        ("POST", "/", "", 403, "rbac_access_denied_matched_policy[none]"),
        ("POST", "/", "x-role: writer\r\ncontent-length: 0\r\n", 200, "via_upstream"),
    ];
    for (before, (method, path, headers, status, details)) in cases.into_iter().enumerate() {
        let response = ask(&proxy, method, path, headers).await;
        assert_eq!(response.status(), status, "{method} {path}");
        if status == 403 {
            assert_eq!(response.text(), "RBAC: access denied");
        }
        let log = proxy.access_log(before + 1).await;
        assert_eq!(log.last().unwrap()["response_code_details"], details, "{method} {path}");
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn remote_addresses_are_those_that_trusted_proxies_tell_of() {
    let origin = Answering::new(|_| ok("served")).await;
    let by = |field: &str| json!({ "policies": [{ "name": "p", "rules": [{ "from": [{ "source": { field: ["192.0.2.1"] } }] }] }] });
    let forwarded = "x-forwarded-for: 192.0.2.1\r\n";
    for (field, hops, status) in [("remoteIpBlocks", 1, 200), ("remoteIpBlocks", 0, 403), ("ipBlocks", 1, 403)] {
        let mut config = governed(origin.address, &by(field));
        http(&mut config)["forwarded"] = json!({ "trustedHops": hops });
        let proxy = Proxy::start(&config).await;
        assert_eq!(ask(&proxy, "GET", "/", forwarded).await.status(), status, "{field} {hops}");
    }
}

#[tokio::test]
async fn principals_are_those_of_verified_certificates() {
    let origin = Answering::new(|_| ok("served")).await;
    let mesh = Authority::new("mesh");
    let policies = json!({ "trustDomain": "mesh.test", "policies": [{ "name": "p", "rules": [
        { "from": [{ "source": { "principals": ["mesh.test/ns/shop/sa/cart"] } }] },
        { "from": [{ "source": { "namespaces": ["bank"] } }] },
    ] }] });
    let mut config = governed(origin.address, &policies);
    let tls = json!({ "certificates": ["own"], "clientAuth": { "trustRoots": "mesh", "mode": "optional" } });
    config["listeners"][0]["branches"][0]["tls"] = tls;
    config["secrets"] = json!([mesh.leaf(&["a.test"]).secret("own"), mesh.secret("mesh")]);
    let proxy = Proxy::start(&config).await;
    let address = proxy.address("web").await;
    for (name, status) in [
        (Some("spiffe://mesh.test/ns/shop/sa/cart"), 200),
        (Some("spiffe://mesh.test/ns/shop/sa/cart2"), 403),
        (Some("spiffe://other.test/ns/bank/sa/x"), 200),
        (None, 403),
    ] {
        let leaf = name.map(|name| mesh.leaf(&[name]));
        let client = TlsClient::new(&mesh, leaf.as_ref(), &["http/1.1"]);
        let mut peer = Peer::new(client.connect(address, "a.test").await.unwrap());
        peer.send(get("/")).await;
        assert_eq!(peer.message().await.status(), status, "{name:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_refused_reaches_no_origin() {
    let origin = Origin::bind().await;
    let mut config = to_origin(origin.address);
    config["listeners"][0]["branches"] = json!([{ "tcp": { "clusters": [{ "name": "origin" }], "filterChain": "main" } }]);
    let policy = |address: &str| json!({ "policies": [{ "name": "p", "rules": [{ "from": [{ "source": { "ipBlocks": [address] } }], "when": [{ "key": "destination.ip", "values": ["127.0.0.1"] }] }] }] });
    config["filterChains"] = chain(&policy("127.0.0.1"));
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client().await;
    client.send("hello").await;
    assert_eq!(origin.accept().await.exactly(5).await, b"hello");

    config["filterChains"] = chain(&policy("192.0.2.1"));
    let proxy = Proxy::start(&config).await;
    proxy.client().await.closes().await;
    assert!(origin.is_untouched().await);
}

#[tokio::test]
async fn another_service_decides() {
    let origin = Answering::new(|request| ok(request.header("x-user").unwrap_or("nobody"))).await;
    let authorizer = Answering::new(|request| match request.header("authorization") {
        Some("good") => "HTTP/1.1 200 OK\r\nx-user: ann\r\ncontent-length: 0\r\n\r\n".to_owned(),
        _ => format!("HTTP/1.1 401 No\r\nwww-authenticate: Basic\r\ncontent-length: {}\r\n\r\n{}", request.path().len(), request.path()),
    })
    .await;
    let policies = json!({
        "policies": [{ "name": "ask", "action": "CUSTOM", "provider": { "name": "ext" }, "rules": [{ "to": [{ "operation": { "notPaths": ["/open"] } }] }] }],
        "providers": [{ "name": "ext", "cluster": "authorizer", "pathPrefix": "/check", "headersToUpstreamOnAllow": ["x-user"] }],
    });
    let mut config = governed(origin.address, &policies);
    config["clusters"].as_array_mut().unwrap().push(cluster("authorizer", &[authorizer.address]));
    config["filterChains"][0]["filters"][0]["upstreams"] = json!(["authorizer"]);
    let proxy = Proxy::start(&config).await;
    assert_eq!(ask(&proxy, "GET", "/a", "authorization: good\r\n").await.text(), "ann");
    let refused = ask(&proxy, "GET", "/a?b", "").await;
    assert_eq!((refused.status(), refused.text(), refused.header("www-authenticate")), (401, "/check/a?b", Some("Basic")));
    assert_eq!(ask(&proxy, "GET", "/open", "").await.text(), "nobody");
    assert_eq!(origin.seen().len(), 2);
}
