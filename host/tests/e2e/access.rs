//! The filters jwt, authz, cors and compress together in the real proxy: a token's claims decide, keys come from a server, scripts are told what they may read, and
//! bodies arrive compressed.

use std::io::Read as _;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::support::*;

fn binding(name: &str, phase: &str, configuration: Value) -> Value {
    let mut binding = json!({ "name": name, "phase": phase, "module": { "builtin": name } });
    binding["config"] = configuration;
    binding
}

fn chained(origin: std::net::SocketAddr, filters: Value) -> Value {
    let mut config = to_origin(origin);
    http(&mut config)["filterChain"] = json!("main");
    config["filterChains"] = json!([{ "name": "main" }]);
    config["filterChains"][0]["filters"] = filters;
    config
}

async fn ask(proxy: &Proxy, method: &str, path: &str, headers: &str) -> Message {
    let mut client = proxy.client().await;
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await;
    client.message().await
}

fn token(key: &Ed25519KeyPair, claims: &Value) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"1"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()));
    format!("{message}.{signature}")
}

#[tokio::test]
async fn what_a_token_claims_decides_what_its_bearer_may_do() {
    let key = Ed25519KeyPair::generate().unwrap();
    let set =
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": URL_SAFE_NO_PAD.encode(key.public_key()) }] }).to_string();
    let keys = Answering::new(move |_| ok(&set)).await;
    let origin = Answering::new(|request| ok(request.header("x-user").unwrap_or("nobody"))).await;
    let rule = json!({ "issuer": "https://i", "jwksUri": "http://login.test/keys", "jwksCluster": "keys", "outputClaimToHeaders": [{ "header": "x-user", "claim": "sub" }] });
    let mut jwt = binding("jwt", "authn", json!({ "jwtRules": [rule] }));
    jwt["upstreams"] = json!(["keys"]);
    let policies = json!({ "policies": [
        { "name": "anybody", "rules": [{ "to": [{ "operation": { "paths": ["/public"] } }] }] },
        { "name": "editors", "rules": [{
            "from": [{ "source": { "requestPrincipals": ["https://i/*"] } }],
            "when": [{ "key": "request.auth.claims[groups]", "values": ["editors"] }],
        }] },
    ] });
    let mut config = chained(origin.address, json!([jwt, binding("authz", "authz", policies)]));
    config["clusters"].as_array_mut().unwrap().push(cluster("keys", &[keys.address]));
    let proxy = Proxy::start(&config).await;
    let claims = |groups: Value| json!({ "iss": "https://i", "sub": "ann", "groups": groups });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut expired = claims(json!(["editors"]));
    expired["exp"] = json!(now - 1000);
    let good = token(&key, &claims(json!(["x", "editors"])));
    for (path, token, status, text) in [
        ("/public", String::new(), 200, "nobody"),
        ("/", String::new(), 403, "RBAC: access denied"),
        ("/", good.clone(), 200, "ann"),
        ("/", good.clone(), 200, "ann"),
        ("/", token(&key, &claims(json!(["x"]))), 403, "RBAC: access denied"),
        ("/", token(&key, &expired), 401, "Jwt is expired"),
        ("/public", format!("{good}x"), 401, "Jwt signature is an invalid Base64url encoded"),
        ("/public", token(&Ed25519KeyPair::generate().unwrap(), &claims(json!(["editors"]))), 401, "Jwt verification fails"),
    ] {
        let header = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        let response = ask(&proxy, "GET", path, &format!("x-user: root\r\n{header}")).await;
        assert_eq!((response.status(), response.text()), (status, text), "{path}");
    }
    assert!(origin.seen().iter().all(|(_, request)| request.header("authorization").is_none()));
    assert_eq!(keys.last().path(), "/keys");
    assert_eq!(keys.last().header("host"), Some("login.test"));
}

#[tokio::test]
async fn scripts_of_allowed_origins_may_read_by_each_routes_policy() {
    let origin = Answering::new(|_| ok("served")).await;
    let policy = |origin: &str| json!({ "allowOrigins": [{ "exact": origin }], "allowMethods": ["PUT"], "maxAge": "10s" });
    let mut cors = binding("cors", "traffic", policy("https://own.test"));
    cors["variants"] = json!({ "other": policy("https://other.test") });
    let mut config = chained(origin.address, json!([cors]));
    let proxy = Proxy::start(&config).await;
    let headers = |from: &str| format!("origin: {from}\r\naccess-control-request-method: PUT\r\n");
    let told = ask(&proxy, "OPTIONS", "/", &headers("https://own.test")).await;
    assert_eq!(told.header("access-control-allow-origin"), Some("https://own.test"));
    assert_eq!((told.header("access-control-allow-methods"), told.header("access-control-max-age")), (Some("PUT"), Some("10")));
    assert!(origin.seen().is_empty());
    let read = ask(&proxy, "GET", "/", "origin: https://own.test\r\n").await;
    assert_eq!(
        (read.text(), read.header("access-control-allow-origin"), read.header("vary")),
        ("served", Some("https://own.test"), Some("origin"))
    );

    http(&mut config)["defaultAction"]["filters"] = json!({ "cors": { "variant": "other" } });
    proxy.rewrite(&config);
    until("the route's policy", async || {
        let told = ask(&proxy, "OPTIONS", "/", &headers("https://other.test")).await;
        (told.header("access-control-allow-origin") == Some("https://other.test")).then_some(())
    })
    .await;
    let other = ask(&proxy, "GET", "/", "origin: https://own.test\r\n").await;
    assert_eq!(other.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn bodies_arrive_compressed_and_whole() {
    let page = "all work and no play makes a dull page\n".repeat(5_000);
    let (body, chunked) = (page.clone(), format!("{:x}\r\n{page}\r\n0\r\nx-sum: 1\r\n\r\n", page.len()));
    let origin = Answering::new(move |request| match request.path() {
        "/chunked" => format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
        _ => format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\netag: \"1\"\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
    })
    .await;
    let proxy = Proxy::start(&chained(origin.address, json!([binding("compress", "traffic", json!({}))]))).await;
    for path in ["/", "/chunked"] {
        let response = ask(&proxy, "GET", path, "accept-encoding: gzip;q=0.5\r\nte: trailers\r\n").await;
        assert_eq!((response.header("content-encoding"), response.header("content-length")), (Some("gzip"), None), "{path}");
        assert!(response.body.len() < page.len() / 10, "{path}");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&response.body[..]).read_to_string(&mut text).unwrap();
        assert!(text == page, "{path}: {} bytes", text.len());
        let plain = ask(&proxy, "GET", path, "").await;
        assert!(plain.text() == page && plain.header("vary") == Some("accept-encoding"), "{path}");
    }
    let client = h2_client(proxy.address("web").await).await;
    let request = http::Request::get("http://a/chunked").header("accept-encoding", "br").body(()).unwrap();
    let (response, _) = client.clone().send_request(request, true).unwrap();
    let response = within("a response", response).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "br");
    assert!(h2_body(&mut response.into_body()).await.len() < page.len() / 10);
}
