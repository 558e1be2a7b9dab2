//! Handshakes with clients, certificates and resumption.

use std::io::{Read, Write};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection};
use weir_model::config::{SanMatch, Secret, TlsVersion, UpstreamTls, san_match};

use super::super::client::ClientTls;
use super::super::refusal::Refusal;
use super::super::testing::{Authority, Leaf, client, demand, key_secret, roots_secret, server, store};
use super::*;

const HTTP: Speaks = Speaks::Http(HttpVersions::All);

fn compile(tls: &DownstreamTls, secrets: &[Secret]) -> Result<ServerTls, TlsError> {
    ServerTls::compile(tls, HTTP, &store(secrets), &Resumption::new().unwrap())
}

fn client_tls(tls: &UpstreamTls, secrets: &[Secret]) -> ClientTls {
    ClientTls::compile(tls, &[b"h2", b"http/1.1"], &store(secrets)).unwrap()
}

fn both(server: &ServerTls, client: &ClientTls, name: &str) -> (ServerConnection, ClientConnection) {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    (ServerConnection::new(Arc::clone(server.config())).unwrap(), ClientConnection::new(Arc::clone(client.config()), name).unwrap())
}

/// Carries bytes between the two until nobody has more to say; the server's error.
fn pump(server: &mut ServerConnection, client: &mut ClientConnection) -> Result<(), Error> {
    for _ in 0..20 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        let mut rest = &answer[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(|error| Error::General(format!("client: {error}")))?;
        }
        if bytes.is_empty() && answer.is_empty() {
            return Ok(());
        }
    }
    panic!("the handshake does not end");
}

/// A handshake; the two ends of it, or the reason that the server had.
fn shake(server: &ServerTls, client: &ClientTls, name: &str) -> Result<(ServerConnection, ClientConnection), Refusal> {
    let (mut one, mut two) = both(server, client, name);
    match pump(&mut one, &mut two) {
        Ok(()) => Ok((one, two)),
        Err(Error::General(text)) if text.starts_with("client: ") => panic!("{text}"),
        Err(error) => Err(Refusal::of_handshake(&std::io::Error::new(std::io::ErrorKind::InvalidData, error))),
    }
}

fn served(client: &ClientConnection) -> CertificateDer<'static> {
    client.peer_certificates().unwrap()[0].clone()
}

#[test]
fn certificates_are_chosen_by_server_name() {
    let authority = Authority::new("root");
    let leaves =
        [authority.leaf(&["first.test"], &[]), authority.leaf(&["a.example.com", "b.test"], &[]), authority.leaf(&["*.Example.com"], &[])];
    let names = ["one", "two", "three"];
    let mut secrets: Vec<_> = names.iter().zip(&leaves).map(|(name, leaf)| key_secret(name, leaf)).collect();
    secrets.push(roots_secret("ca", &authority, None));
    let lenient = compile(&server(&names), &secrets).unwrap();
    let strict = compile(&DownstreamTls { require_sni: true, ..server(&names) }, &secrets).unwrap();
    let anybody = client_tls(&UpstreamTls { insecure_skip_verify: true, ..Default::default() }, &secrets);
    let built = store(&secrets);
    let der = |i: usize| built.key(names[i]).unwrap().key.cert[0].clone();
    let cases = [
        ("first.test", 0, true),
        ("a.example.com", 1, true),
        ("B.TEST", 1, true),
        ("x.example.com", 2, true),
        ("x.y.example.com", 0, false),
        ("example.com", 0, false),
        ("other.test", 0, false),
        ("127.0.0.1", 0, false),
    ];
    for (name, index, known) in cases {
        assert_eq!(served(&shake(&lenient, &anybody, name).unwrap().1), der(index), "{name}");
        assert_eq!(&*lenient.local_certificate(Some(&name.to_ascii_lowercase())).unwrap().name, names[index], "{name}");
        match shake(&strict, &anybody, name) {
            Ok((_, client)) => assert!(known && served(&client) == der(index), "{name}"),
            Err(reason) => assert!(!known && reason == Refusal::TlsUnknownServerName, "{name}: {reason}"),
        }
    }
}

#[test]
fn the_key_that_the_client_can_verify_is_taken() {
    let authority = Authority::new("root");
    let curve = authority.leaf(&["a.test"], &[]);
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    let edwards = Leaf { chain_pem: params.self_signed(&ed).unwrap().pem(), key_pem: ed.serialize_pem(), serial: 1 };
    let secrets = [key_secret("edwards", &edwards), key_secret("curve", &curve)];
    let tls = compile(&server(&["edwards", "curve"]), &secrets).unwrap();
    assert_eq!(tls.certificates.candidates(Some("a.test")).unwrap().as_slice(), [0, 1]);
    let mut config = (**client_tls(&UpstreamTls { insecure_skip_verify: true, ..Default::default() }, &[]).config()).clone();
    #[derive(Debug)]
    struct OnlyCurve;
    impl rustls::client::danger::ServerCertVerifier for OnlyCurve {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::DecryptError)
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
    config.dangerous().set_certificate_verifier(Arc::new(OnlyCurve));
    let mut two = ClientConnection::new(Arc::new(config), ServerName::try_from("a.test").unwrap()).unwrap();
    let mut one = ServerConnection::new(Arc::clone(tls.config())).unwrap();
    pump(&mut one, &mut two).unwrap();
    assert_eq!(served(&two), tls.certificates.entries[1].key.cert[0]);
}

/// An authority, a server certificate for a.test and a client's for spiffe://td/ns/a/sa/b, as secrets `server`, `client` and `ca`.
fn world() -> (Authority, Vec<Secret>) {
    let authority = Authority::new("root");
    let secrets = vec![
        key_secret("server", &authority.leaf(&["a.test"], &[])),
        key_secret("client", &authority.leaf(&["client.test"], &["spiffe://td/ns/a/sa/b"])),
        roots_secret("ca", &authority, None),
    ];
    (authority, secrets)
}

#[test]
fn post_quantum_key_exchange_and_http_versions_are_negotiated() {
    let (_, secrets) = world();
    let tls = compile(&server(&["server"]), &secrets).unwrap();
    let (one, two) = shake(&tls, &client_tls(&client(""), &secrets), "a.test").unwrap();
    assert_eq!(one.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(one.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(two.alpn_protocol(), Some(&b"h2"[..]));
    let only_one = Speaks::Http(HttpVersions::Http1Only);
    let tls = ServerTls::compile(&server(&["server"]), only_one, &store(&secrets), &Resumption::new().unwrap()).unwrap();
    assert_eq!(shake(&tls, &client_tls(&client(""), &secrets), "a.test").unwrap().0.alpn_protocol(), Some(&b"http/1.1"[..]));
    let tls = compile(&DownstreamTls { alpn: vec!["istio".into()], ..server(&["server"]) }, &secrets).unwrap();
    assert_eq!(shake(&tls, &client_tls(&client(""), &secrets), "a.test").unwrap_err(), Refusal::TlsNoApplicationProtocol);
}

#[test]
fn versions_are_bounded() {
    let (_, secrets) = world();
    let only = |version: TlsVersion| DownstreamTls { min_version: version.into(), max_version: version.into(), ..server(&["server"]) };
    let old = UpstreamTls { max_version: TlsVersion::Tls12.into(), ..client("") };
    let old = client_tls(&old, &secrets);
    let (one, _) = shake(&compile(&server(&["server"]), &secrets).unwrap(), &old, "a.test").unwrap();
    assert_eq!(one.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(shake(&compile(&only(TlsVersion::Tls13), &secrets).unwrap(), &old, "a.test").unwrap_err(), Refusal::TlsVersionUnsupported);
    let crossed = DownstreamTls { min_version: TlsVersion::Tls13.into(), max_version: TlsVersion::Tls12.into(), ..server(&["server"]) };
    assert_eq!(compile(&crossed, &secrets).unwrap_err().field, "minVersion");
}

fn with_auth(auth: ClientAuth) -> DownstreamTls {
    DownstreamTls { client_auth: Some(auth), ..server(&["server"]) }
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let (_, secrets) = world();
    let (with, without) = (client_tls(&client("client"), &secrets), client_tls(&client(""), &secrets));
    let identified = |mode, who: &ClientTls| {
        shake(&compile(&with_auth(demand(mode)), &secrets).unwrap(), who, "a.test").map(|(s, _)| s.peer_certificates().is_some())
    };
    assert_eq!(identified(Mode::None, &with), Ok(false));
    assert_eq!(identified(Mode::Optional, &with), Ok(true));
    assert_eq!(identified(Mode::Optional, &without), Ok(false));
    assert_eq!(identified(Mode::Required, &with), Ok(true));
    assert_eq!(identified(Mode::Required, &without), Err(Refusal::ClientCertificateRequired));
}

#[test]
fn client_certificates_that_do_not_hold_are_refused_by_name() {
    let (authority, mut secrets) = world();
    let stranger = Authority::new("stranger").leaf(&["client.test"], &["spiffe://td/ns/a/sa/b"]);
    let expired = authority.leaf_with(&["client.test"], &[], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = authority.leaf_with(&["client.test"], &[], |params| params.not_before = rcgen::date_time_ymd(2900, 1, 1));
    let for_servers =
        authority.leaf_with(&["client.test"], &[], |params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    let mut long = authority.leaf(&["client.test"], &[]);
    long.chain_pem = [long.chain_pem.clone(), authority.pem().repeat(MOST_INTERMEDIATES + 1)].concat();
    for (name, leaf) in [("stranger", &stranger), ("expired", &expired), ("early", &early), ("for-servers", &for_servers), ("long", &long)]
    {
        secrets.push(key_secret(name, leaf));
    }
    for mode in [Mode::Required, Mode::Optional] {
        let tls = compile(&with_auth(demand(mode)), &secrets).unwrap();
        let refused = |name: &str| shake(&tls, &client_tls(&client(name), &secrets), "a.test").unwrap_err();
        assert_eq!(refused("stranger"), Refusal::ClientCertificateUnknownIssuer);
        assert_eq!(refused("expired"), Refusal::ClientCertificateExpired);
        assert_eq!(refused("early"), Refusal::ClientCertificateNotYetValid);
        assert_eq!(refused("for-servers"), Refusal::ClientCertificateWrongPurpose);
        assert_eq!(refused("long"), Refusal::ClientCertificateChainTooLong);
    }
}

#[test]
fn revoked_certificates_are_refused() {
    let authority = Authority::new("root");
    let (good, bad) = (authority.leaf(&["c.test"], &[]), authority.leaf(&["c.test"], &[]));
    let lists = authority.revoke(&[bad.serial]);
    let secrets =
        [key_secret("server", &good), key_secret("good", &good), key_secret("bad", &bad), roots_secret("ca", &authority, Some(&lists))];
    let tls = compile(&with_auth(demand(Mode::Required)), &secrets).unwrap();
    let client = |name: &str| client_tls(&UpstreamTls { insecure_skip_verify: true, ..client(name) }, &secrets);
    assert!(shake(&tls, &client("good"), "c.test").is_ok());
    assert_eq!(shake(&tls, &client("bad"), "c.test").unwrap_err(), Refusal::ClientCertificateRevoked);
}

#[test]
fn names_and_trust_domains_are_demanded() {
    let (authority, mut secrets) = world();
    secrets.push(key_secret("two", &authority.leaf(&[], &["spiffe://td/a", "spiffe://td/b"])));
    secrets.push(key_secret("evil", &authority.leaf(&[], &["spiffe://td.evil/ns/a/sa/b"])));
    let verdict = |auth: ClientAuth, who: &str| {
        let tls = compile(&with_auth(auth), &secrets).unwrap();
        shake(&tls, &client_tls(&client(who), &secrets), "a.test").map(|_| ())
    };
    let domains = || ClientAuth { trust_domains: vec!["td".into()], ..demand(Mode::Required) };
    assert_eq!(verdict(domains(), "client"), Ok(()));
    assert_eq!(verdict(domains(), "evil"), Err(Refusal::ClientCertificateTrustDomainRefused));
    assert_eq!(verdict(domains(), "two"), Err(Refusal::ClientCertificateSpiffeInvalid));
    assert_eq!(verdict(domains(), "server"), Err(Refusal::ClientCertificateSpiffeInvalid));
    let named = |pattern| ClientAuth { names: vec![SanMatch { kind: "uri".into(), pattern: Some(pattern) }], ..demand(Mode::Required) };
    assert_eq!(verdict(named(san_match::Pattern::Exact("spiffe://td/ns/a/sa/b".into())), "client"), Ok(()));
    assert_eq!(verdict(named(san_match::Pattern::Prefix("spiffe://td/ns/a/".into())), "client"), Ok(()));
    assert_eq!(verdict(named(san_match::Pattern::Exact("spiffe://td/ns/a".into())), "client"), Err(Refusal::ClientCertificateNameRefused));
    assert_eq!(verdict(named(san_match::Pattern::Suffix("td/ns/a/sa/b".into())), "evil"), Err(Refusal::ClientCertificateNameRefused));
}

/// Shakes hands twice with one client, over one server and then another; how the second went.
fn resumes(first: &ServerTls, second: &ServerTls, client: &ClientTls) -> HandshakeKind {
    let (mut one, mut two) = shake(first, client, "a.test").unwrap();
    // Tickets come with the first bytes from the server.
    one.writer().write_all(b"x").unwrap();
    pump(&mut one, &mut two).unwrap();
    two.reader().read_exact(&mut [0]).unwrap();
    assert_eq!(one.handshake_kind().map(|kind| kind == HandshakeKind::Resumed), Some(false));
    shake(second, client, "a.test").unwrap().0.handshake_kind().unwrap()
}

#[test]
fn sessions_are_resumed_across_configurations_that_demand_the_same() {
    let (authority, secrets) = world();
    let shared = Resumption::new().unwrap();
    let make = |tls: &DownstreamTls, secrets: &[Secret]| ServerTls::compile(tls, HTTP, &store(secrets), &shared).unwrap();
    let open = make(&server(&["server"]), &secrets);
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let fresh = || client_tls(&UpstreamTls { max_version: version.into(), ..client("client") }, &secrets);
        assert_eq!(resumes(&open, &open, &fresh()), HandshakeKind::Resumed, "{version:?}");
        // A new certificate in the same secret.
        let mut renewed = secrets.clone();
        renewed[0] = key_secret("server", &authority.leaf(&["a.test"], &[]));
        assert_eq!(resumes(&open, &make(&server(&["server"]), &renewed), &fresh()), HandshakeKind::Resumed, "{version:?}");
        // Other demands: no session begun without a certificate is good for one that needs it, nor under other names or roots.
        let required = make(&with_auth(demand(Mode::Required)), &secrets);
        let domains = make(&with_auth(ClientAuth { trust_domains: vec!["td".into()], ..demand(Mode::Required) }), &secrets);
        let mut revoked = secrets.clone();
        revoked[2] = roots_secret("ca", &authority, Some(&authority.revoke(&[1])));
        let stricter = make(&with_auth(demand(Mode::Required)), &revoked);
        assert_eq!(resumes(&required, &required, &fresh()), HandshakeKind::Resumed, "{version:?}");
        for (first, second) in [(&open, &required), (&required, &domains), (&required, &stricter), (&required, &open)] {
            assert_ne!(resumes(first, second, &fresh()), HandshakeKind::Resumed, "{version:?}");
        }
        let never = make(&DownstreamTls { no_resumption: true, ..server(&["server"]) }, &secrets);
        assert_ne!(resumes(&never, &never, &fresh()), HandshakeKind::Resumed, "{version:?}");
        assert_ne!(
            resumes(&open, &compile(&server(&["server"]), &secrets).unwrap(), &fresh()),
            HandshakeKind::Resumed,
            "keys of another process"
        );
    }
}

#[test]
fn a_resumed_session_remembers_the_client() {
    let (_, secrets) = world();
    let tls = compile(&with_auth(demand(Mode::Required)), &secrets).unwrap();
    let client = client_tls(&client("client"), &secrets);
    assert_eq!(resumes(&tls, &tls, &client), HandshakeKind::Resumed);
    let (again, _) = shake(&tls, &client, "a.test").unwrap();
    assert_eq!(again.peer_certificates().unwrap()[0], store(&secrets).key("client").unwrap().key.cert[0]);
}

#[test]
fn what_is_missing_fails_closed_and_is_named() {
    let (_, secrets) = world();
    let field = |tls: &DownstreamTls| compile(tls, &secrets).unwrap_err().field;
    assert_eq!(field(&server(&[])), "certificates");
    assert_eq!(field(&server(&["server", "gone"])), "certificates[1]");
    assert_eq!(field(&server(&["ca"])), "certificates[0]");
    assert_eq!(field(&with_auth(ClientAuth { trust_roots: "gone".into(), ..demand(Mode::Optional) })), "clientAuth.trustRoots");
    assert_eq!(field(&with_auth(ClientAuth { trust_roots: String::new(), ..demand(Mode::Required) })), "clientAuth.trustRoots");
    assert_eq!(field(&with_auth(ClientAuth { names: vec![SanMatch::default()], ..demand(Mode::Required) })), "clientAuth.names[0]");
    assert_eq!(field(&DownstreamTls { alpn: vec![String::new()], ..server(&["server"]) }), "alpn[0]");
}

#[test]
fn plain_text_and_garbage_end_the_handshake() {
    let (_, secrets) = world();
    let tls = compile(&server(&["server"]), &secrets).unwrap();
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], Refusal::PlaintextOnTls),
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", Refusal::TlsProtocolError),
    ] {
        let mut one = ServerConnection::new(Arc::clone(tls.config())).unwrap();
        one.read_tls(&mut &bytes[..]).unwrap();
        let error = one.process_new_packets().unwrap_err();
        assert_eq!(Refusal::of_handshake(&std::io::Error::new(std::io::ErrorKind::InvalidData, error)), expected);
    }
}
