//! TLS with clients: certificates and names, versions, sessions, who the client is, and what of that origins are told.

use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use serde_json::{Value, json};

use super::certificates::*;
use super::support::*;

/// Everything to one origin, over TLS as `tls` says.
fn secured(origin: std::net::SocketAddr, tls: Value, secrets: Value) -> Value {
    let mut config = to_origin(origin);
    config["listeners"][0]["branches"][0]["tls"] = tls;
    config["secrets"] = secrets;
    config
}

async fn get_over(io: impl Io + 'static) -> (Peer, Message) {
    let mut client = Peer::new(io);
    client.send(get("/")).await;
    let response = client.message().await;
    (client, response)
}

/// Whether a client gets no answer, be it that its handshake fails or that the server hangs up on it.
async fn is_refused(client: &TlsClient, address: std::net::SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut stream) = client.connect(address, "a.test").await else { return true };
    let _ = stream.write_all(get("/").as_bytes()).await;
    let mut bytes = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut bytes)).await;
    bytes.is_empty()
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let authority = Authority::new("root");
    let (first, second) = (authority.leaf(&["a.test", "127.0.0.1"]), authority.leaf(&["b.test", "*.c.test"]));
    let origin = Answering::new(|_| ok("served")).await;
    let secrets = json!([first.secret("first"), second.secret("second")]);
    let proxy = Proxy::start(&secured(origin.address, json!({ "certificates": ["first", "second"] }), secrets)).await;
    let address = proxy.address("web").await;
    let client = TlsClient::new(&authority, None, &["http/1.1"]);
    for (name, leaf) in [("a.test", &first), ("b.test", &second), ("x.c.test", &second), ("127.0.0.1", &first)] {
        let stream = client.connect(address, name).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], leaf.certificate(), "{name}");
        let (_, response) = get_over(stream).await;
        assert_eq!((response.status(), response.text()), (200, "served"));
        assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
    }
    let error = client.connect(address, "other.test").await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "the first certificate is not for this name: {error}");
}

/// A client that reads to the end learns that it is one, and not that somebody cut the line.
#[tokio::test]
async fn the_end_of_a_connection_is_said() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let authority = Authority::new("root");
    let client = TlsClient::new(&authority, None, &["http/1.1"]);
    for size in [0, 2, 20_000, 300_000] {
        let origin = Answering::new(move |_| ok(&"x".repeat(size))).await;
        let secrets = json!([authority.leaf(&["a.test"]).secret("own")]);
        let proxy = Proxy::start(&secured(origin.address, json!({ "certificates": ["own"] }), secrets)).await;
        let mut stream = client.connect(proxy.address("web").await, "a.test").await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut bytes = Vec::new();
        within("the end", stream.read_to_end(&mut bytes)).await.unwrap();
        assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", bytes.escape_ascii());
        assert!(bytes.ends_with(&vec![b'x'; size]), "{} of {size}", bytes.len());
    }
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn() {
    let authority = Authority::new("root");
    let origin = Answering::new(|_| ok("served")).await;
    let secrets = json!([authority.leaf(&["a.test"]).secret("own")]);
    let proxy = Proxy::start(&secured(origin.address, json!({ "certificates": ["own"] }), secrets)).await;
    let stream = TlsClient::new(&authority, None, &["h2", "http/1.1"]).connect(proxy.address("web").await, "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let client = h2_client_over(stream).await;
    let (head, body) = h2_get(&client, "/").await;
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b"served"[..]));
}

#[tokio::test]
async fn versions_sessions_and_groups() {
    let authority = Authority::new("root");
    let origin = Answering::new(|_| ok("served")).await;
    let secrets = json!([authority.leaf(&["a.test"]).secret("own")]);
    let proxy = Proxy::start(&secured(origin.address, json!({ "certificates": ["own"] }), secrets.clone())).await;
    let address = proxy.address("web").await;
    for (version, is) in [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)] {
        let client = TlsClient::of_versions(&authority, None, &[], &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let stream = client.connect(address, "a.test").await.unwrap();
            let session = &stream.get_ref().1;
            assert_eq!((session.protocol_version(), session.handshake_kind()), (Some(is), Some(kind)));
            if is == ProtocolVersion::TLSv1_3 {
                let group = session.negotiated_key_exchange_group().map(|group| group.name());
                assert_eq!(group, Some(NamedGroup::X25519MLKEM768), "key exchange that survives quantum computers");
            }
            // Tickets of TLS 1.3 come with the answer.
            assert_eq!(get_over(stream).await.1.text(), "served");
        }
    }
    let modern = json!({ "certificates": ["own"], "minVersion": "tls13", "noResumption": true });
    let proxy = Proxy::start(&secured(origin.address, modern, secrets)).await;
    let address = proxy.address("web").await;
    assert!(is_refused(&TlsClient::of_versions(&authority, None, &[], &[&rustls::version::TLS12]), address).await);
    let client = TlsClient::new(&authority, None, &[]);
    for _ in 0..2 {
        let stream = client.connect(address, "a.test").await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        get_over(stream).await;
    }
}

#[tokio::test]
async fn a_certificate_is_replaced_and_connections_stay() {
    let authority = Authority::new("root");
    let (old, new) = (authority.leaf(&["a.test"]), authority.leaf(&["a.test"]));
    let origin = Answering::new(|_| ok("served")).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |folder: &std::path::Path, leaf: &Leaf| {
        // As a renewal would: both files in one step.
        let version = folder.join(format!("v{}", leaf.chain.len() + leaf.key.len() + usize::from(leaf.chain.as_bytes()[100])));
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("own.pem"), &leaf.chain).unwrap();
        std::fs::write(version.join("own.key"), &leaf.key).unwrap();
        let link = folder.join(".new");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&version, &link).unwrap();
        std::fs::rename(&link, folder.join("certs")).unwrap();
    };
    write(folder.path(), &old);
    let files = json!({ "certificateChain": { "file": "certs/own.pem" }, "privateKey": { "file": "certs/own.key" } });
    let secrets = json!([{ "name": "own", "keyPair": files }]);
    let proxy = Proxy::start_in(folder, &secured(origin.address, json!({ "certificates": ["own"] }), secrets)).await;
    let address = proxy.address("web").await;
    let client = TlsClient::new(&authority, None, &["http/1.1"]);
    let stream = client.connect(address, "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], old.certificate());
    let (mut kept, _) = get_over(stream).await;
    write(proxy.folder.path(), &new);
    until("the new certificate", async || {
        // A client of its own each time: a session that is resumed shows no certificate.
        let stream = TlsClient::new(&authority, None, &["http/1.1"]).connect(address, "a.test").await.unwrap();
        (stream.get_ref().1.peer_certificates().unwrap()[0] == new.certificate()).then_some(())
    })
    .await;
    kept.send(get("/")).await;
    assert_eq!(kept.message().await.text(), "served", "the connection with the old certificate goes on");
}

/// A mesh of clients: what the listener demands, and who comes.
struct Mesh {
    own: Authority,
    server: Leaf,
    foreign: Authority,
    origin: Answering,
}

impl Mesh {
    async fn new() -> Self {
        let own = Authority::new("mesh");
        let server = own.leaf(&["a.test", "spiffe://mesh.test/ns/web/sa/server"]);
        let origin = Answering::new(|request| ok(request.header("x-forwarded-client-cert").unwrap_or("none"))).await;
        Self { own, server, foreign: Authority::new("foreign"), origin }
    }

    fn config(&self, client_auth: Value, permissive: bool, client_cert: &str) -> Value {
        let mut auth = json!({ "trustRoots": "mesh" });
        with(&mut auth, client_auth);
        let tls = json!({ "certificates": ["own"], "clientAuth": auth, "permissive": permissive });
        let mut config = secured(self.origin.address, tls, json!([self.server.secret("own"), self.own.secret("mesh")]));
        http(&mut config)["forwarded"] = json!({ "clientCert": client_cert });
        config
    }

    fn client(&self, names: &[&str]) -> TlsClient {
        TlsClient::new(&self.own, Some(&self.own.leaf(names)), &["http/1.1"])
    }

    fn stranger(&self) -> TlsClient {
        TlsClient::new(&self.own, Some(&self.foreign.leaf(&["spiffe://mesh.test/ns/shop/sa/cart"])), &["http/1.1"])
    }

    fn nobody(&self) -> TlsClient {
        TlsClient::new(&self.own, None, &["http/1.1"])
    }
}

const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";

#[tokio::test]
async fn clients_must_prove_who_they_are() {
    let mesh = Mesh::new().await;
    let demands = json!({
        "mode": "required", "trustDomains": ["mesh.test"],
        "names": [{ "kind": "uri", "prefix": "spiffe://mesh.test/ns/shop/" }, { "kind": "dns", "exact": "old.test" }],
    });
    let proxy = Proxy::start(&mesh.config(demands, false, "sanitizeSet")).await;
    let address = proxy.address("web").await;
    let (_, response) = get_over(mesh.client(&[CART]).connect(address, "a.test").await.unwrap()).await;
    let element = response.text().to_owned();
    let parts: Vec<&str> = element.split(';').collect();
    assert_eq!(parts[0], "By=spiffe://mesh.test/ns/web/sa/server", "{element}");
    assert!(parts[1].starts_with("Hash=") && parts[1].len() == 69, "{element}");
    assert!(parts.contains(&&*format!("URI={CART}")), "{element}");
    let before = mesh.origin.seen().len();
    for (who, client) in [
        ("nobody", mesh.nobody()),
        ("of another authority", mesh.stranger()),
        ("of another namespace", mesh.client(&["spiffe://mesh.test/ns/other/sa/cart"])),
        ("of another trust domain", mesh.client(&["spiffe://other.test/ns/shop/sa/cart"])),
        ("without a name", mesh.client(&["x.test"])),
    ] {
        assert!(is_refused(&client, address).await, "{who}");
    }
    assert_eq!(mesh.origin.seen().len(), before, "nothing of theirs went on");
    let (_, response) = get_over(mesh.client(&[CART]).connect(address, "a.test").await.unwrap()).await;
    assert!(response.text().contains(CART), "{}", response.text());
}

#[tokio::test]
async fn a_certificate_may_be_optional() {
    let mesh = Mesh::new().await;
    let proxy = Proxy::start(&mesh.config(json!({ "mode": "optional" }), false, "sanitizeSet")).await;
    let address = proxy.address("web").await;
    let (_, response) = get_over(mesh.nobody().connect(address, "a.test").await.unwrap()).await;
    assert_eq!(response.text(), "none");
    let (_, response) = get_over(mesh.client(&[CART]).connect(address, "a.test").await.unwrap()).await;
    assert!(response.text().ends_with(&format!("URI={CART}")), "{}", response.text());
    assert!(is_refused(&mesh.stranger(), address).await, "a certificate that is given must be good");
}

#[tokio::test]
async fn what_origins_are_told_of_client_certificates() {
    let mesh = Mesh::new().await;
    // What the mode makes of a client's own header over mTLS, and without a certificate; `ME` is the client's real element.
    for (mode, mutual, without) in [
        ("sanitize", "none", "none"),
        ("sanitizeSet", "ME", "none"),
        ("appendForward", "By=forged,ME", "none"),
        ("forwardOnly", "By=forged", "none"),
        ("alwaysForwardOnly", "By=forged", "By=forged"),
    ] {
        let proxy = Proxy::start(&mesh.config(json!({ "mode": "optional" }), false, mode)).await;
        let address = proxy.address("web").await;
        for (client, expected) in [(mesh.client(&[CART]), mutual), (mesh.nobody(), without)] {
            let mut client = Peer::new(client.connect(address, "a.test").await.unwrap());
            client.send("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: By=forged\r\n\r\n").await;
            let told = client.message().await.text().to_owned();
            let told = match told.find("By=spiffe://mesh.test/ns/web/sa/server;") {
                Some(at) if told.ends_with(CART) => format!("{}ME", &told[..at]),
                _ => told,
            };
            assert_eq!(told, expected, "{mode}");
        }
    }
}

#[tokio::test]
async fn one_port_for_plain_text_and_mutual_tls() {
    let mesh = Mesh::new().await;
    let proxy = Proxy::start(&mesh.config(json!({ "mode": "required" }), true, "sanitizeSet")).await;
    let address = proxy.address("web").await;
    let (_, plain) = get_over(tokio::net::TcpStream::connect(address).await.unwrap()).await;
    assert_eq!(plain.text(), "none");
    assert_eq!(mesh.origin.last().header("x-forwarded-proto"), Some("http"));
    let (_, mutual) = get_over(mesh.client(&[CART]).connect(address, "a.test").await.unwrap()).await;
    assert!(mutual.text().ends_with(CART), "{}", mutual.text());
    assert_eq!(mesh.origin.last().header("x-forwarded-proto"), Some("https"));
    assert!(is_refused(&mesh.nobody(), address).await, "TLS without a certificate is no plain text");
    // HTTP/2 in plain text begins with other bytes.
    let (head, _) = h2_get(&h2_client(address).await, "/").await;
    assert_eq!(head.status.as_u16(), 200);
}

/// An origin behind TLS, and what the cluster says of it.
async fn upstream(tls: Value, protocol: &str, secrets: Value) -> (Proxy, Origin) {
    let origin = Origin::bind().await;
    let mut config = to_origin(origin.address);
    config["clusters"][0]["tls"] = tls;
    config["clusters"][0]["protocol"] = json!(protocol);
    config["secrets"] = secrets;
    (Proxy::start(&config).await, origin)
}

#[tokio::test]
async fn upstreams_are_verified_and_shown_a_certificate() {
    let (authority, foreign) = (Authority::new("mesh"), Authority::new("foreign"));
    let own = authority.leaf(&["spiffe://mesh.test/ns/web/sa/proxy"]);
    let secrets = json!([own.secret("own"), authority.secret("mesh")]);
    let pay = "spiffe://mesh.test/ns/shop/sa/pay";
    let tls = json!({ "trustRoots": "mesh", "certificate": "own", "sni": "pay.test", "names": [{ "kind": "uri", "exact": pay }] });
    let (proxy, origin) = upstream(tls, "http1", secrets).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let server = TlsServer::new(&authority.leaf(&[pay]), &[], Some(&authority));
    let stream = server.accept(origin.accept_tcp().await).await.unwrap();
    let session = &stream.get_ref().1;
    assert_eq!((session.server_name(), session.peer_certificates().unwrap()[0].clone()), (Some("pay.test"), own.certificate()));
    let mut served = Peer::new(stream);
    assert_eq!(served.message().await.path(), "/");
    served.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(client.message().await.text(), "ok");
    for (wrong, leaf) in
        [("name", authority.leaf(&["spiffe://mesh.test/ns/shop/sa/other", "pay.test"])), ("authority", foreign.leaf(&[pay]))]
    {
        client.send(get("/")).await;
        let refused = TlsServer::new(&leaf, &[], None).accept(origin.accept_tcp().await).await;
        let response = client.message().await;
        assert_eq!((response.status(), response.text()), (503, "no secure connection to the upstream\n"), "{wrong}");
        drop(refused);
    }
    assert_eq!(proxy.access_log(3).await[2]["response_code_details"], "upstream_tls_failure");
}

#[tokio::test]
async fn upstreams_choose_http2_by_alpn() {
    let authority = Authority::new("mesh");
    let tls = json!({ "trustRoots": "mesh", "sni": "pay.test" });
    let (proxy, origin) = upstream(tls.clone(), "negotiate", json!([authority.secret("mesh")])).await;
    let leaf = authority.leaf(&["pay.test"]);
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let stream = TlsServer::new(&leaf, &["h2", "http/1.1"], None).accept(origin.accept_tcp().await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut connection = within("a handshake", h2::server::handshake(stream)).await.unwrap();
    let (request, mut respond) = within("a stream", connection.accept()).await.unwrap().unwrap();
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    assert_eq!(request.uri().path(), "/");
    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
    body.send_data("two".into(), true).unwrap();
    assert_eq!(client.message().await.text(), "two");
    // Another proxy: this origin speaks only the old version.
    let (proxy, origin) = upstream(tls, "negotiate", json!([authority.secret("mesh")])).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let stream = TlsServer::new(&leaf, &["http/1.1"], None).accept(origin.accept_tcp().await).await.unwrap();
    let mut served = Peer::new(stream);
    assert_eq!(served.message().await.path(), "/");
    served.send(ok("one")).await;
    assert_eq!(client.message().await.text(), "one");
}
