//! Connections from the socket to their branch, with real clients.

use std::future::Future;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use weir_model::config::client_auth::Mode as Auth;
use weir_model::config::{Branch, ClientAuth, DownstreamTls, Http, Match, ProxyProtocol, Secret, Tcp, Transport, UpstreamTls};
use weir_model::protobuf;

use super::super::client::ClientTls;
use super::super::testing::{Authority, client, demand, key_secret, roots_secret, server, store};
use super::*;

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, work).await.expect("hangs") })
}

fn world() -> (Authority, Vec<Secret>) {
    let authority = Authority::new("root");
    let secrets = vec![
        key_secret("server", &authority.leaf(&["a.test"], &["spiffe://td/server"])),
        key_secret("other", &authority.leaf(&["b.test"], &[])),
        key_secret("client", &authority.leaf(&["c.test"], &["spiffe://td/client"])),
        roots_secret("ca", &authority, None),
    ];
    (authority, secrets)
}

fn http(name: &str, tls: Option<DownstreamTls>) -> Branch {
    Branch { name: name.into(), tls, protocol: Some(branch::Protocol::Http(Http::default())), ..Default::default() }
}

fn tcp(name: &str) -> Branch {
    Branch { name: name.into(), protocol: Some(branch::Protocol::Tcp(Tcp::default())), ..Default::default() }
}

fn matching(mut branch: Branch, criteria: Match) -> Branch {
    branch.r#match = Some(criteria);
    branch
}

fn listener(branches: Vec<Branch>) -> Listener {
    Listener { name: "l".into(), address: "127.0.0.1:8080".into(), branches, ..Default::default() }
}

fn compile(listener: &Listener, secrets: &[Secret]) -> CompiledListener {
    CompiledListener::compile(listener, &store(secrets), &Resumption::new().unwrap()).unwrap()
}

fn millis(millis: u64) -> Option<protobuf::Duration> {
    Some(protobuf::Duration { seconds: 0, nanos: i32::try_from(millis * 1_000_000).unwrap() })
}

/// Accepts one connection while `act` does what a client does; both outcomes, and what was counted.
async fn meet<T>(listener: &CompiledListener, act: impl AsyncFnOnce(TcpStream) -> T) -> (Result<Accepted, Refusal>, T, AcceptContext) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let context = AcceptContext::default();
    let serve = async {
        let (stream, peer) = socket.accept().await.unwrap();
        accept(listener, Socket::Tcp(stream), Some(peer), &context).await
    };
    let (accepted, acted) = tokio::join!(serve, async { act(TcpStream::connect(address).await.unwrap()).await });
    (accepted, acted, context)
}

async fn tls_client<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &ClientTls,
    name: &str,
    stream: S,
) -> std::io::Result<tokio_rustls::client::TlsStream<S>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::clone(tls.config())).connect(name, stream).await
}

fn client_tls(tls: &UpstreamTls, secrets: &[Secret]) -> ClientTls {
    ClientTls::compile(tls, &[b"h2", b"http/1.1"], &store(secrets)).unwrap()
}

/// What arrives at the server when the client wrote `expected`.
async fn expect_bytes(io: &mut Io, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    io.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

#[test]
fn a_plain_listener_does_nothing_at_all() {
    let plain = compile(&listener(vec![http("only", None)]), &[]);
    assert_eq!(plain.plain_branch(), Some(0));
    let by_default = Listener { default_branch: Some(http("rest", None)), ..listener(vec![]) };
    assert_eq!(compile(&by_default, &[]).plain_branch(), Some(0));
    run(async {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = socket.accept().await.unwrap();
        let context = AcceptContext::default();
        let mut future = std::pin::pin!(accept(&plain, Socket::Tcp(stream), Some(peer), &context));
        let std::task::Poll::Ready(accepted) = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await else {
            panic!("must not wait");
        };
        let accepted = accepted.unwrap();
        assert!(matches!(accepted.io, Io::Tcp(_)));
        assert_eq!(accepted.info.local(&accepted.io), Some("127.0.0.1:8080".parse().unwrap()), "known without asking the kernel");
    });
}

#[test]
fn anything_to_find_out_is_not_plain() {
    let (_, secrets) = world();
    for busy in [
        listener(vec![http("tls", Some(server(&["server"])))]),
        listener(vec![matching(http("port", None), Match { destination_ports: vec![8080], ..Default::default() })]),
        Listener { proxy_protocol: Some(ProxyProtocol::default()), ..listener(vec![http("only", None)]) },
        Listener { original_destination: OriginalDestination::Redirect.into(), ..listener(vec![http("only", None)]) },
    ] {
        assert_eq!(compile(&busy, &secrets).plain_branch(), None);
    }
}

#[test]
fn branches_are_chosen_by_server_name_protocol_and_port() {
    let (_, secrets) = world();
    let names = |name: &str| Match { server_names: vec![name.into()], ..Default::default() };
    let branches = vec![
        matching(http("a", Some(server(&["server"]))), names("a.test")),
        matching(tcp("passthrough"), names("*.through.test")),
        matching(
            http("plain", None),
            Match { transport: Transport::Plaintext.into(), destination_ports: vec![8080], ..Default::default() },
        ),
        matching(http("elsewhere", None), Match { destination_ports: vec![1], ..Default::default() }),
    ];
    let compiled = compile(&listener(branches), &secrets);
    let trusting = client_tls(&client(""), &secrets);
    run(async {
        let (accepted, stream, _) = meet(&compiled, async |stream| tls_client(&trusting, "a.test", stream).await.unwrap()).await;
        let accepted = accepted.unwrap();
        let tls = accepted.info.tls.as_ref().unwrap();
        assert_eq!((accepted.branch, accepted.info.server_name.as_deref(), tls.version), (0, Some("a.test"), "TLSv1.3"));
        assert_eq!((&tls.alpn, tls.mtls(), tls.resumed), (&Alpn::Http2, false, false));
        assert_eq!(tls.local.as_ref().unwrap().leaf().unwrap().uri_san(), Some("spiffe://td/server"));
        drop(stream);

        let (accepted, (), _) = meet(&compiled, async |mut stream| stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap()).await;
        let mut accepted = accepted.unwrap();
        assert_eq!(accepted.branch, 2);
        expect_bytes(&mut accepted.io, b"GET / HTTP/1.1\r\n").await;

        let (accepted, hello, _) = meet(&compiled, async |mut stream| {
            let name = ServerName::try_from("X.Through.test").unwrap();
            let mut session = rustls::ClientConnection::new(Arc::clone(trusting.config()), name).unwrap();
            let mut hello = Vec::new();
            session.write_tls(&mut hello).unwrap();
            stream.write_all(&hello).await.unwrap();
            hello
        })
        .await;
        let mut accepted = accepted.unwrap();
        assert_eq!((accepted.branch, accepted.info.server_name.as_deref()), (1, Some("x.through.test")));
        assert!(accepted.info.tls.is_none());
        expect_bytes(&mut accepted.io, &hello).await;

        let (refused, _, context) = meet(&compiled, async |stream| tls_client(&trusting, "c.test", stream).await.is_err()).await;
        assert_eq!(refused.unwrap_err(), Refusal::NoMatchingBranch);
        assert_eq!(context.refusals.get(Refusal::NoMatchingBranch), 1);
    });
}

#[test]
fn a_permissive_branch_serves_both() {
    let (_, secrets) = world();
    let permissive = DownstreamTls { permissive: true, client_auth: Some(demand(Auth::Required)), ..server(&["server"]) };
    let compiled = compile(&listener(vec![http("both", Some(permissive))]), &secrets);
    let identified = client_tls(&client("client"), &secrets);
    run(async {
        let (accepted, mut stream, _) = meet(&compiled, async |mut stream| {
            stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            stream
        })
        .await;
        let mut accepted = accepted.unwrap();
        assert!(accepted.info.tls.is_none());
        expect_bytes(&mut accepted.io, b"GET / HTTP/1.1\r\n").await;
        accepted.io.write_all(b"plain answer").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();

        let (accepted, stream, _) = meet(&compiled, async |stream| tls_client(&identified, "a.test", stream).await.unwrap()).await;
        let accepted = accepted.unwrap();
        let peer = accepted.info.peer_identity().unwrap();
        assert_eq!(peer.facts().spiffe_id(), Some("spiffe://td/client"));
        assert!(accepted.info.tls.as_ref().unwrap().mtls());
        drop(stream);
    });
}

#[test]
fn refused_clients_are_counted_by_reason_and_told() {
    let (_, secrets) = world();
    let strict = ClientAuth { trust_domains: vec!["other".into()], ..demand(Auth::Required) };
    let compiled = compile(&listener(vec![http("m", Some(DownstreamTls { client_auth: Some(strict), ..server(&["server"]) }))]), &secrets);
    run(async {
        for (certificate, reason) in [("", Refusal::ClientCertificateRequired), ("client", Refusal::ClientCertificateTrustDomainRefused)] {
            let tls = client_tls(&client(certificate), &secrets);
            let (refused, told, context) = meet(&compiled, async |stream| {
                let mut stream = tls_client(&tls, "a.test", stream).await?;
                stream.read_u8().await
            })
            .await;
            assert_eq!(refused.unwrap_err(), reason);
            assert_eq!(context.refusals.get(reason), 1);
            assert_eq!(context.handshakes.running(), 0);
            let error = told.unwrap_err();
            let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            assert!(matches!(alert, Some(rustls::Error::AlertReceived(_))), "{error:?}");
        }
    });
}

#[test]
fn slow_clients_are_let_go() {
    let (_, secrets) = world();
    let sniffing = matching(http("a", Some(server(&["server"]))), Match { server_names: vec!["a.test".into()], ..Default::default() });
    let sniffing = compile(&Listener { detect_timeout: millis(50), ..listener(vec![sniffing]) }, &secrets);
    let direct =
        compile(&listener(vec![http("a", Some(DownstreamTls { handshake_timeout: millis(50), ..server(&["server"]) }))]), &secrets);
    let proxied =
        Listener { proxy_protocol: Some(ProxyProtocol::default()), detect_timeout: millis(50), ..listener(vec![http("a", None)]) };
    let proxied = compile(&proxied, &secrets);
    run(async {
        for (listener, bytes, reason) in [
            (&sniffing, &b"\x16\x03\x01\x02\x00\x01\x00"[..], Refusal::DetectTimeout),
            (&sniffing, b"", Refusal::DetectTimeout),
            (&direct, b"\x16\x03\x01\x02\x00\x01\x00", Refusal::TlsHandshakeTimeout),
            (&direct, b"", Refusal::TlsHandshakeTimeout),
            (&proxied, b"PROXY TCP4 ", Refusal::DetectTimeout),
        ] {
            let (refused, stream, _) = meet(listener, async |mut stream| {
                stream.write_all(bytes).await.unwrap();
                // The server closes; a client that waits is told so.
                let _ = stream.read(&mut [0; 64]).await;
                stream
            })
            .await;
            assert_eq!(refused.unwrap_err(), reason, "{bytes:?}");
            drop(stream);
        }
    });
}

#[test]
fn clients_that_leave_or_talk_nonsense_are_told_apart() {
    let (_, secrets) = world();
    let sniffing = matching(http("a", Some(server(&["server"]))), Match { server_names: vec!["a.test".into()], ..Default::default() });
    let sniffing = compile(&listener(vec![sniffing]), &secrets);
    let direct = compile(&listener(vec![http("a", Some(server(&["server"])))]), &secrets);
    run(async {
        for (listener, bytes, reason) in [
            (&sniffing, &b"\x16\x03\x01"[..], Refusal::DetectClosed),
            (&sniffing, b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", Refusal::ClientHelloInvalid),
            (&sniffing, b"\x16\x03\x01\xFF\xFF", Refusal::ClientHelloTooLarge),
            (&sniffing, b"GET / HTTP/1.1\r\n\r\n", Refusal::NoMatchingBranch),
            (&direct, b"\x16\x03\x01", Refusal::TlsHandshakeClosed),
            (&direct, b"GET / HTTP/1.1\r\n\r\n", Refusal::PlaintextOnTls),
        ] {
            let (refused, (), _) = meet(listener, async |mut stream| {
                stream.write_all(bytes).await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = stream.read(&mut [0; 64]).await;
            })
            .await;
            assert_eq!(refused.unwrap_err(), reason, "{bytes:?}");
        }
    });
}

#[test]
fn a_close_after_the_hello_ends_the_handshake() {
    let (_, secrets) = world();
    let direct = compile(&listener(vec![http("a", Some(server(&["server"])))]), &secrets);
    let trusting = client_tls(&client(""), &secrets);
    run(async {
        let (refused, (), _) = meet(&direct, async |mut stream| {
            let mut session =
                rustls::ClientConnection::new(Arc::clone(trusting.config()), ServerName::try_from("a.test").unwrap()).unwrap();
            let mut bytes = Vec::new();
            session.write_tls(&mut bytes).unwrap();
            bytes.extend_from_slice(b"\x15\x03\x03\x00\x02\x01\x00");
            stream.write_all(&bytes).await.unwrap();
            while stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {}
        })
        .await;
        assert!(matches!(refused.unwrap_err(), Refusal::TlsProtocolError | Refusal::TlsHandshakeClosed | Refusal::TlsAlertReceived));
    });
}

#[test]
fn a_server_that_speaks_first_gets_its_silent_clients() {
    let (_, secrets) = world();
    let branches = vec![
        matching(http("a", Some(server(&["server"]))), Match { server_names: vec!["a.test".into()], ..Default::default() }),
        matching(tcp("mysql"), Match::default()),
    ];
    let compiled = compile(&Listener { detect_timeout: millis(30), ..listener(branches) }, &secrets);
    let optional = ProxyProtocol { mode: Mode::Optional.into(), trusted: vec![] };
    let behind = Listener { proxy_protocol: Some(optional), detect_timeout: millis(30), ..listener(vec![tcp("mysql")]) };
    let behind = compile(&behind, &secrets);
    run(async {
        for (listener, branch) in [(&compiled, 1), (&behind, 0)] {
            let (accepted, stream, _) = meet(listener, async |stream| stream).await;
            let accepted = accepted.unwrap();
            assert_eq!(accepted.branch, branch);
            assert!(matches!(accepted.io, Io::Tcp(_)));
            drop(stream);
        }
    });
}

#[test]
fn a_proxy_header_says_who_and_where() {
    let (_, secrets) = world();
    let required = |trusted: &[&str]| ProxyProtocol { mode: 0, trusted: trusted.iter().map(|s| (*s).to_owned()).collect() };
    let branches = vec![
        matching(http("443", Some(server(&["server"]))), Match { destination_ports: vec![443], ..Default::default() }),
        matching(http("source", None), Match { source_ranges: vec!["192.0.2.0/24".into()], ..Default::default() }),
    ];
    let compiled = compile(&Listener { proxy_protocol: Some(required(&["127.0.0.0/8"])), ..listener(branches) }, &secrets);
    let distrusting = Listener { proxy_protocol: Some(required(&["10.0.0.0/8"])), ..listener(vec![http("a", None)]) };
    let distrusting = compile(&distrusting, &secrets);
    let lenient = ProxyProtocol { mode: Mode::Optional.into(), trusted: vec!["10.0.0.0/8".into()] };
    let lenient = compile(&Listener { proxy_protocol: Some(lenient), ..listener(vec![http("a", None)]) }, &secrets);
    let trusting = client_tls(&client(""), &secrets);
    run(async {
        let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
        let (accepted, stream, _) = meet(&compiled, async |mut stream| {
            stream.write_all(header).await.unwrap();
            tls_client(&trusting, "a.test", stream).await.unwrap()
        })
        .await;
        let accepted = accepted.unwrap();
        assert_eq!((accepted.branch, accepted.info.peer), (0, Some("192.0.2.7:5000".parse().unwrap())));
        assert_eq!(accepted.info.local(&accepted.io), Some("198.51.100.1:443".parse().unwrap()));
        assert!(accepted.info.direct_peer.unwrap().ip().is_loopback());
        drop(stream);

        let (accepted, (), _) = meet(&compiled, async |mut stream| {
            stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 80\r\nGET /").await.unwrap();
        })
        .await;
        let mut accepted = accepted.unwrap();
        assert_eq!(accepted.branch, 1);
        expect_bytes(&mut accepted.io, b"GET /").await;

        let send = async |mut stream: TcpStream| stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(meet(&compiled, send).await.0.unwrap_err(), Refusal::ProxyProtocolMissing);
        let send = async |mut stream: TcpStream| stream.write_all(b"PROXY TCP9 x\r\n").await.unwrap();
        assert_eq!(meet(&compiled, send).await.0.unwrap_err(), Refusal::ProxyProtocolInvalid);
        let send = async |mut stream: TcpStream| stream.write_all(header).await.unwrap();
        assert_eq!(meet(&distrusting, send).await.0.unwrap_err(), Refusal::ProxyProtocolMissing);

        let (accepted, (), _) = meet(&lenient, send).await;
        let mut accepted = accepted.unwrap();
        assert!(accepted.info.peer.unwrap().ip().is_loopback(), "strangers are not believed");
        expect_bytes(&mut accepted.io, header).await;
    });
}

#[test]
fn new_certificates_do_not_disturb_open_connections() {
    let (authority, secrets) = world();
    let shared = Resumption::new().unwrap();
    let config = listener(vec![http("a", Some(server(&["server"])))]);
    let make = |secrets: &[Secret]| CompiledListener::compile(&config, &store(secrets), &shared).unwrap();
    let before = make(&secrets);
    let mut renewed = secrets.clone();
    renewed[0] = key_secret("server", &authority.leaf(&["a.test"], &["spiffe://td/renewed"]));
    run(async {
        let fresh = || client_tls(&client(""), &secrets);
        let (old, mut old_stream, _) = meet(&before, async |stream| tls_client(&fresh(), "a.test", stream).await.unwrap()).await;
        let after = make(&renewed);
        drop(before);
        let (new, new_stream, _) = meet(&after, async |stream| tls_client(&fresh(), "a.test", stream).await.unwrap()).await;
        let served = |stream: &tokio_rustls::client::TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        assert_ne!(served(&old_stream), served(&new_stream));
        assert_eq!(new.unwrap().info.tls.unwrap().local.unwrap().leaf().unwrap().uri_san(), Some("spiffe://td/renewed"));
        let mut old = old.unwrap();
        old_stream.write_all(b"still here").await.unwrap();
        expect_bytes(&mut old.io, b"still here").await;
    });
}

#[test]
fn a_resumed_session_does_not_outlive_the_clients_certificate() {
    let (authority, mut secrets) = world();
    let short = authority.leaf_with(&["c.test"], &[], |params| params.not_after = rcgen::date_time_ymd(2900, 1, 1));
    secrets.push(key_secret("short", &short));
    let tls = DownstreamTls { client_auth: Some(demand(Auth::Required)), ..server(&["server"]) };
    let compiled = compile(&listener(vec![http("a", Some(tls))]), &secrets);
    let client = client_tls(&client("short"), &secrets);
    run(async {
        for resumed in [false, true] {
            let (accepted, mut stream, _) = meet(&compiled, async |stream| tls_client(&client, "a.test", stream).await.unwrap()).await;
            let Accepted { mut io, info, .. } = accepted.unwrap();
            // The ticket comes before the first byte.
            io.write_all(b"x").await.unwrap();
            io.flush().await.unwrap();
            stream.read_u8().await.unwrap();
            assert_eq!(info.tls.as_ref().unwrap().resumed, resumed);
            assert_eq!(info.peer_identity().unwrap().facts().dns_san(), Some("c.test"));
            let mut session = info;
            let facts = session.tls.as_mut().unwrap().peer.take().unwrap();
            assert!(!expired(true, &facts, facts.facts().not_after) && expired(true, &facts, facts.facts().not_after + 1));
            assert!(!expired(false, &facts, i64::MAX), "a full handshake was verified just now");
        }
    });
}

#[test]
fn too_many_handshakes_are_refused_not_queued() {
    let (_, secrets) = world();
    let compiled = compile(&listener(vec![http("a", Some(server(&["server"])))]), &secrets);
    run(async {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let context = AcceptContext { handshakes: Handshakes::new(0), ..Default::default() };
        let _client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = socket.accept().await.unwrap();
        let refused = accept(&compiled, Socket::Tcp(stream), Some(peer), &context).await;
        assert_eq!(refused.unwrap_err(), Refusal::TooManyHandshakes);
    });
}

#[test]
fn unix_sockets_have_no_addresses_and_do_everything_else() {
    let (_, secrets) = world();
    let config = Listener { address: "unix:/run/x.sock".into(), ..listener(vec![http("a", Some(server(&["server"])))]) };
    let compiled = compile(&config, &secrets);
    let trusting = client_tls(&client(""), &secrets);
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let socket = UnixListener::bind(folder.path().join("s")).unwrap();
        let context = AcceptContext::default();
        let serve = async { accept(&compiled, Socket::Unix(socket.accept().await.unwrap().0), None, &context).await };
        let ask = async { tls_client(&trusting, "a.test", UnixStream::connect(folder.path().join("s")).await.unwrap()).await.unwrap() };
        let (accepted, mut stream) = tokio::join!(serve, ask);
        let mut accepted = accepted.unwrap();
        assert_eq!((accepted.info.peer, accepted.info.local(&accepted.io)), (None, None));
        stream.write_all(b"x").await.unwrap();
        expect_bytes(&mut accepted.io, b"x").await;
    });
}

#[test]
fn reading_without_waiting_sees_what_is_there_on_every_kind_of_stream() {
    let (_, secrets) = world();
    let secured = compile(&listener(vec![http("a", Some(server(&["server"])))]), &secrets);
    let looked_at = matching(http("a", None), Match { transport: Transport::Plaintext.into(), ..Default::default() });
    let looked_at = compile(&listener(vec![looked_at]), &secrets);
    let trusting = client_tls(&client(""), &secrets);
    run(async {
        let (accepted, mut stream, _) = meet(&secured, async |stream| tls_client(&trusting, "a.test", stream).await.unwrap()).await;
        let mut io = accepted.unwrap().io;
        let mut buffer = [0; 8];
        assert_eq!(io.try_read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        stream.write_all(b"hello, weir").await.unwrap();
        expect_bytes(&mut io, b"h").await;
        assert_eq!(io.try_read(&mut buffer).unwrap(), 8);
        assert_eq!(&buffer, b"ello, we");
        expect_bytes(&mut io, b"ir").await;

        let (accepted, _stream, _) = meet(&looked_at, async |mut stream| {
            stream.write_all(b"hello").await.unwrap();
            stream
        })
        .await;
        let mut io = accepted.unwrap().io;
        assert_eq!(io.try_read(&mut buffer[..2]).unwrap(), 2);
        assert_eq!(io.take_prefix(), &b"llo"[..]);
        assert_eq!(io.try_read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
}

#[test]
fn every_mistake_of_a_listener_is_named() {
    let (_, secrets) = world();
    let bad = Listener {
        address: "nowhere".into(),
        proxy_protocol: Some(ProxyProtocol { mode: 0, trusted: vec!["x".into()] }),
        default_branch: Some(http("d", Some(server(&[])))),
        ..listener(vec![
            matching(http("a", Some(server(&["gone"]))), Match { destination_ports: vec![0], ..Default::default() }),
            http(
                "b",
                Some(DownstreamTls {
                    client_auth: Some(ClientAuth { mode: Auth::Required.into(), ..Default::default() }),
                    ..server(&["server"])
                }),
            ),
        ])
    };
    let errors = CompiledListener::compile(&bad, &store(&secrets), &Resumption::new().unwrap()).unwrap_err();
    let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    let expected = [
        "address",
        "branches[0].tls.certificates[0]",
        "branches[1].tls.clientAuth.trustRoots",
        "defaultBranch.tls.certificates",
        "proxyProtocol.trusted[0]",
        "branches[0].match.destinationPorts[0]",
    ];
    assert_eq!(fields, expected);
}
