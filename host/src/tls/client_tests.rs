//! Handshakes with servers that should and should not be trusted.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_model::config::san_match::Pattern;
use weir_model::config::{SanMatch, Secret};

use super::super::server::{Resumption, ServerTls, Speaks};
use super::super::testing::{Authority, client, demand, key_secret, roots_secret, server, store};
use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Connects to a server on loopback, echoes a byte; the failure's name if it does not work.
fn connect(tls: &UpstreamTls, secrets: &[Secret], server: &ServerTls, host: Option<&str>) -> Result<Io, &'static str> {
    let client = ClientTls::compile(tls, &[], &store(secrets)).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(server.config()));
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.flush().await
        };
        let ask = async {
            let socket = Socket::Tcp(TcpStream::connect(address).await.unwrap());
            let name = client.server_name(host, None, address.ip());
            let mut io = client.connect(name, socket).await.map_err(|error| failure(&error))?;
            io.write_u8(7).await.map_err(|error| failure(&error))?;
            io.flush().await.map_err(|error| failure(&error))?;
            let byte = io.read_u8().await.map_err(|error| failure(&error))?;
            assert_eq!(byte, 7);
            Ok(io)
        };
        let (_, outcome) = tokio::join!(serve, ask);
        outcome
    })
}

fn world() -> (Authority, Vec<Secret>) {
    let authority = Authority::new("root");
    let secrets = vec![
        key_secret("server", &authority.leaf(&["a.test", "127.0.0.1"], &["spiffe://td/server"])),
        key_secret("client", &authority.leaf(&["c.test"], &[])),
        roots_secret("ca", &authority, None),
        roots_secret("others", &Authority::new("others"), None),
    ];
    (authority, secrets)
}

fn serving(tls: &weir_model::config::DownstreamTls, secrets: &[Secret]) -> ServerTls {
    ServerTls::compile(tls, Speaks::Tcp, &store(secrets), &Resumption::new().unwrap()).unwrap()
}

fn named(pattern: Pattern) -> UpstreamTls {
    UpstreamTls { names: vec![SanMatch { kind: String::new(), pattern: Some(pattern) }], ..client("") }
}

#[test]
fn the_server_must_have_the_name_that_was_asked_for() {
    let (_, secrets) = world();
    let tls = serving(&server(&["server"]), &secrets);
    let io = connect(&client(""), &secrets, &tls, Some("a.test")).unwrap();
    assert!(io.is_tls() && io.tls_version() == Some("TLSv1.3") && io.peer_certificates().len() == 1);
    assert!(connect(&client(""), &secrets, &tls, None).is_ok(), "the address is in the certificate");
    assert_eq!(connect(&client(""), &secrets, &tls, Some("b.test")).unwrap_err(), "upstream_certificate_name_refused");
    assert_eq!(
        connect(&UpstreamTls { sni: "b.test".into(), ..client("") }, &secrets, &tls, Some("a.test")).unwrap_err(),
        "upstream_certificate_name_refused"
    );
}

#[test]
fn configured_names_replace_the_one_that_was_asked_for() {
    let (_, secrets) = world();
    let tls = serving(&server(&["server"]), &secrets);
    assert!(connect(&named(Pattern::Exact("spiffe://td/server".into())), &secrets, &tls, Some("b.test")).is_ok());
    assert_eq!(
        connect(&named(Pattern::Exact("spiffe://td/other".into())), &secrets, &tls, Some("a.test")).unwrap_err(),
        "upstream_certificate_name_refused",
        "the right host is not enough"
    );
    let untrusted = UpstreamTls { trust_roots: "others".into(), ..named(Pattern::Exact("spiffe://td/server".into())) };
    for host in ["a.test", "b.test"] {
        assert_eq!(
            connect(&untrusted, &secrets, &tls, Some(host)).unwrap_err(),
            "upstream_certificate_unknown_issuer",
            "the right name is not enough"
        );
    }
}

#[test]
fn the_chain_is_verified_unless_told_otherwise() {
    let (authority, mut secrets) = world();
    secrets[0] = key_secret("server", &authority.leaf_with(&["a.test"], &[], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)));
    let tls = serving(&server(&["server"]), &secrets);
    assert_eq!(connect(&client(""), &secrets, &tls, Some("a.test")).unwrap_err(), "upstream_certificate_expired");
    assert_eq!(
        connect(&named(Pattern::Exact("a.test".into())), &secrets, &tls, Some("a.test")).unwrap_err(),
        "upstream_certificate_expired"
    );
    let insecure = UpstreamTls { insecure_skip_verify: true, ..Default::default() };
    assert!(connect(&insecure, &secrets, &tls, Some("b.test")).is_ok());
    assert!(ClientTls::compile(&insecure, &[], &store(&secrets)).unwrap().is_insecure());
}

#[test]
fn the_client_proves_itself() {
    use weir_model::config::client_auth::Mode;
    let (_, secrets) = world();
    let demanding = weir_model::config::DownstreamTls { client_auth: Some(demand(Mode::Required)), ..server(&["server"]) };
    let tls = serving(&demanding, &secrets);
    assert!(connect(&client("client"), &secrets, &tls, Some("a.test")).is_ok());
    assert_eq!(connect(&client(""), &secrets, &tls, Some("a.test")).unwrap_err(), "upstream_tls_alert_received");
}

#[test]
fn the_server_name_is_the_most_specific_one_known() {
    let (_, secrets) = world();
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    let open = ClientTls::compile(&client(""), &[], &store(&secrets)).unwrap();
    let text = |name: ServerName<'_>| name.to_str().into_owned();
    assert_eq!(text(open.server_name(Some("e.test"), Some("r.test"), address)), "e.test");
    assert_eq!(text(open.server_name(None, Some("r.test"), address)), "r.test");
    assert_eq!(text(open.server_name(None, Some("not a name"), address)), "10.0.0.1");
    assert!(open.depends_on_request(None) && !open.depends_on_request(Some("e.test")));
    let fixed = ClientTls::compile(&UpstreamTls { sni: "s.test".into(), ..client("") }, &[], &store(&secrets)).unwrap();
    assert_eq!(text(fixed.server_name(Some("e.test"), Some("r.test"), address)), "s.test");
    assert!(!fixed.depends_on_request(None));
}

#[test]
fn what_is_missing_is_named() {
    let (_, secrets) = world();
    let field = |tls: &UpstreamTls| ClientTls::compile(tls, &[], &store(&secrets)).unwrap_err().field;
    assert_eq!(field(&client("gone")), "certificate");
    assert_eq!(field(&UpstreamTls { trust_roots: "gone".into(), ..Default::default() }), "trustRoots");
    assert_eq!(field(&UpstreamTls { sni: "no name".into(), ..client("") }), "sni");
    assert_eq!(field(&UpstreamTls { alpn: vec!["x".repeat(256)], ..client("") }), "alpn[0]");
    assert_eq!(field(&UpstreamTls { names: vec![SanMatch::default()], ..client("") }), "names[0]");
}
