//! Who a client is taken for, and what of its claims goes on.

use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

fn rules(change: impl FnOnce(&mut Forwarded)) -> ForwardedRules {
    let mut config = Forwarded { request_id: Some(false), ..Forwarded::default() };
    change(&mut config);
    ForwardedRules::new(&config)
}

fn plain() -> Peer<'static> {
    Peer { address: PEER, text: b"10.0.0.9", tls: false, client_cert: None }
}

/// The fields after the rules, and the client's address.
fn applied(rules: &ForwardedRules, peer: &Peer<'_>, pairs: &[(&str, &str)]) -> (Vec<String>, String) {
    let mut fields: Fields = [&[(":method", "GET")], pairs].concat().into_iter().collect();
    let client = rules.apply(&mut fields, peer);
    let lines = fields.regular().map(|field| format!("{}: {}", field.name.escape_ascii(), field.value.escape_ascii())).collect();
    (lines, client.to_string())
}

#[test]
fn addresses_are_believed_as_far_as_proxies_are_trusted() {
    for (hops, values, expected) in [
        (0, &["1.1.1.1"][..], "10.0.0.9"),
        (1, &[], "10.0.0.9"),
        (1, &["1.1.1.1"], "1.1.1.1"),
        (1, &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        (1, &["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
        (2, &["6.6.6.6", "1.1.1.1 ,2.2.2.2"], "1.1.1.1"),
        (2, &["2.2.2.2"], "10.0.0.9"),
        (1, &["1.1.1.1, x"], "10.0.0.9"),
        (1, &["1.1.1.1,"], "1.1.1.1"),
        (1, &["[2001:db8::1]:80"], "2001:db8::1"),
        (1, &["[2001:db8::1]"], "2001:db8::1"),
        (1, &["2001:db8::1"], "2001:db8::1"),
        (1, &["1.1.1.1:80"], "1.1.1.1"),
        (1, &["::ffff:1.1.1.1"], "1.1.1.1"),
        (u32::MAX, &["1.1.1.1"], "10.0.0.9"),
    ] {
        let pairs: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
        for edge in [false, true] {
            let (_, client) = applied(&rules(|config| (config.trusted_hops, config.edge) = (hops, edge)), &plain(), &pairs);
            assert_eq!(client, expected, "{hops} {values:?}");
        }
    }
}

#[test]
fn inside_what_others_said_is_continued() {
    let sent = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("x-envoy-a", "b"),
        ("x-forwarded-host", "h"),
    ];
    let (lines, _) = applied(&rules(|_| {}), &plain(), &sent);
    assert_eq!(lines, ["x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.9", "x-forwarded-proto: https", "x-envoy-a: b", "x-forwarded-host: h"]);
    let (lines, _) = applied(&rules(|_| {}), &Peer { tls: true, ..plain() }, &[]);
    assert_eq!(lines, ["x-forwarded-for: 10.0.0.9", "x-forwarded-proto: https"]);
    for wrong in [
        &[("x-forwarded-proto", "gopher")][..],
        &[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")],
        &[("x-forwarded-proto", "")],
    ] {
        let (lines, _) = applied(&rules(|_| {}), &plain(), wrong);
        assert_eq!(lines, ["x-forwarded-proto: http", "x-forwarded-for: 10.0.0.9"]);
    }
}

#[test]
fn at_the_edge_clients_are_not_believed() {
    let sent = [
        ("x-forwarded-for", "1.1.1.1, 2.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "h"),
        ("x-forwarded-new", "h"),
        ("forwarded", "for=1"),
        ("x-real-ip", "1.1.1.1"),
        ("x-envoy-internal", "true"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-weir-a", "b"),
        ("x-kept", "1"),
    ];
    let (lines, _) = applied(&rules(|config| config.edge = true), &plain(), &sent);
    assert_eq!(lines, ["x-kept: 1", "x-forwarded-for: 10.0.0.9", "x-forwarded-proto: http", "x-envoy-external-address: 10.0.0.9"]);
    let (lines, client) = applied(&rules(|config| (config.edge, config.trusted_hops) = (true, 1)), &plain(), &sent);
    let expected = [
        "x-forwarded-for: 2.2.2.2, 10.0.0.9",
        "x-forwarded-proto: https",
        "x-forwarded-host: h",
        "x-forwarded-new: h",
        "forwarded: for=1",
        "x-real-ip: 1.1.1.1",
        "x-kept: 1",
        "x-envoy-external-address: 2.2.2.2",
    ];
    assert_eq!((lines, client.as_str()), (expected.map(str::to_owned).to_vec(), "2.2.2.2"));
}

#[test]
fn a_request_has_one_identifier() {
    let with = |pairs: &[(&str, &str)]| applied(&rules(|config| config.request_id = None), &plain(), pairs).0.pop().unwrap();
    let made = |line: String| uuid_like(line.strip_prefix("x-request-id: ").unwrap());
    assert!(made(with(&[])));
    assert!(made(with(&[("x-forwarded-proto", "http")])));
    let keeps = |id: &str| {
        applied(&rules(|config| config.request_id = Some(true)), &plain(), &[("x-request-id", id)]).0[0] == format!("x-request-id: {id}")
    };
    assert!(keeps("mine") && !keeps("") && keeps(&"i".repeat(256)) && !keeps(&"i".repeat(257)));
    let (lines, _) = applied(&rules(|config| config.request_id = Some(true)), &plain(), &[("x-request-id", "a"), ("x-request-id", "b")]);
    assert_eq!(lines.iter().filter(|line| line.starts_with("x-request-id")).count(), 1);
    assert!(made(lines[0].clone()));
    assert_ne!(request_id(), request_id());
}

fn uuid_like(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-')
        && bytes.iter().filter(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count() == 32
        && bytes[14] == b'4'
        && matches!(bytes[19], b'8'..=b'9' | b'a'..=b'b')
}

#[test]
fn a_client_certificate_is_said_in_five_ways() {
    use ClientCertHeader::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
    for (mode, mtls, sent, expected) in [
        (Sanitize, false, &["a"][..], ""),
        (Sanitize, true, &["a"], ""),
        (SanitizeSet, false, &["a"], ""),
        (SanitizeSet, true, &["a", "b"], "ME"),
        (SanitizeSet, true, &[], "ME"),
        (AppendForward, false, &["a"], ""),
        (AppendForward, true, &["a"], "a,ME"),
        (AppendForward, true, &["a", "b,c"], "a,b,c,ME"),
        (AppendForward, true, &[], "ME"),
        (AppendForward, true, &[""], "ME"),
        (ForwardOnly, false, &["a"], ""),
        (ForwardOnly, true, &["a"], "a"),
        (ForwardOnly, true, &[], ""),
        (AlwaysForwardOnly, false, &["a"], "a"),
        (AlwaysForwardOnly, true, &["a"], "a"),
    ] {
        for edge in [false, true] {
            let peer = Peer { tls: mtls, client_cert: mtls.then_some(&b"ME"[..]), ..plain() };
            let pairs: Vec<_> = sent.iter().map(|value| ("x-forwarded-client-cert", *value)).collect();
            let (lines, _) = applied(&rules(|config| (config.client_cert, config.edge) = (mode as i32, edge)), &peer, &pairs);
            let found: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("x-forwarded-client-cert: ")).collect();
            assert_eq!(found.join("|"), expected, "{mode:?} {mtls} {sent:?} {edge}");
        }
    }
}

#[test]
fn a_certificate_cannot_write_more_than_its_names() {
    let cert = ClientCert {
        by: &["spiffe://td/ns/a/sa/server"],
        hash: [0xab; 32],
        subject: "CN=\"a\\\",O=x\r\nx: y",
        uris: &["spiffe://td/ns/b/sa/client", "spiffe://td/;By=evil"],
        dns: &["a.example", "b,c\0"],
    };
    let hash = "ab".repeat(32);
    let expected = format!(
        "By=spiffe://td/ns/a/sa/server;Hash={hash};Subject=\"CN=\\\"a\\\\\\\",O=x??x: y\";URI=spiffe://td/ns/b/sa/client;\
         URI=\"spiffe://td/;By=evil\";DNS=a.example;DNS=\"b,c?\""
    );
    assert_eq!(String::from_utf8(client_cert_element(&cert)).unwrap(), expected);
    let empty = String::from_utf8(client_cert_element(&ClientCert::default())).unwrap();
    assert_eq!(empty, format!("Hash={};Subject=\"\"", "00".repeat(32)));
}
