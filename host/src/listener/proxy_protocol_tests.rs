//! PROXY headers, whole, in pieces and broken.

use proptest::prelude::*;

use super::*;

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.extend_from_slice(&[command, family]);
    out.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn proxied(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

const V4_BODY: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x1F, 0x90, 1, 0xBB];

#[test]
fn good_headers() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\nGET /";
    assert_eq!(parse(line), Ok(Parsed::Header(proxied("192.0.2.1:8080", "198.51.100.2:443"), line.len() - 5)));
    let line = b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
    assert_eq!(parse(line), Ok(Parsed::Header(proxied("[2001:db8::1]:1", "[::1]:65535"), line.len())));
    let line = b"PROXY UNKNOWN ffff:f...f:ffff whatever\r\n";
    assert_eq!(parse(line), Ok(Parsed::Header(ProxyHeader::Local, line.len())));
    let bytes = v2(0x21, 0x11, &V4_BODY);
    assert_eq!(parse(&bytes), Ok(Parsed::Header(proxied("192.0.2.1:8080", "198.51.100.2:443"), 28)));
    for local in [v2(0x20, 0, &[]), v2(0x20, 0x11, &V4_BODY), v2(0x20, 0x77, b"xx"), v2(0x21, 0x00, b"anything"), v2(0x21, 0x31, &[0; 216])]
    {
        assert_eq!(parse(&local), Ok(Parsed::Header(ProxyHeader::Local, local.len())), "{local:?}");
    }
}

#[test]
fn fields_are_skipped_within_bounds() {
    let with = |fields: &[u8]| v2(0x21, 0x11, &[&V4_BODY, fields].concat());
    let good = with(&[0x05, 0, 2, 1, 2, 0x04, 0, 0]);
    assert_eq!(parse(&good), Ok(Parsed::Header(proxied("192.0.2.1:8080", "198.51.100.2:443"), good.len())));
    assert_eq!(parse(&with(&[0x05, 0, 3, 1, 2])), Err(ProxyProtocolError::Field));
    assert_eq!(parse(&with(&[0x05, 0])), Err(ProxyProtocolError::Field));
    assert_eq!(parse(&with(&[0x05, 0xFF, 0xFF])), Err(ProxyProtocolError::Field));
    assert_eq!(parse(&with(&[0x03, 0, 2, 0, 0])), Err(ProxyProtocolError::Field), "a checksum has four bytes");
}

#[test]
fn checksums_are_verified() {
    let mut bytes = v2(0x21, 0x11, &[&V4_BODY[..], &[0x03, 0, 4, 0, 0, 0, 0]].concat());
    assert_eq!(parse(&bytes), Err(ProxyProtocolError::Checksum));
    let hole = bytes.len() - 4..bytes.len();
    let sum = crc32c(&bytes, hole.clone());
    bytes[hole].copy_from_slice(&sum.to_be_bytes());
    assert!(matches!(parse(&bytes), Ok(Parsed::Header(_, 35))));
    assert_eq!(crc32c(b"123456789", 0..0), 0xE306_9283, "the published check value of CRC-32C");
}

#[test]
fn what_is_no_header_is_absent_at_once() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"P\0", b"PROXX", b"\x16\x03\x01", b"\r\n\r\nx", b"PUT /"] {
        assert_eq!(parse(bytes), Ok(Parsed::Absent), "{bytes:?}");
    }
    for bytes in [&b""[..], b"P", b"PROXY ", b"\r", &SIGNATURE[..]] {
        assert_eq!(parse(bytes), Ok(Parsed::Incomplete), "{bytes:?}");
    }
}

#[test]
fn bad_headers_are_refused() {
    use ProxyProtocolError::{Address, Command, Family, Length, Line, Protocol};
    let long = format!("PROXY UNKNOWN {}", "a".repeat(100));
    let text: &[(&str, ProxyProtocolError)] = &[
        ("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\n", Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\rX", Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 8080\r\n", Address),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443 \r\n", Address),
        ("PROXY TCP4  192.0.2.1 198.51.100.2 8080 443\r\n", Address),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 08080 443\r\n", Address),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 +80 443\r\n", Address),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", Address),
        ("PROXY TCP4 192.0.2.01 198.51.100.2 1 443\r\n", Address),
        ("PROXY TCP4 ::1 ::1 1 443\r\n", Address),
        ("PROXY TCP6 192.0.2.1 192.0.2.1 1 443\r\n", Address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 443\r\n", Address),
        ("PROXY UDP4 192.0.2.1 192.0.2.1 1 443\r\n", Protocol),
        ("PROXY tcp4 192.0.2.1 192.0.2.1 1 443\r\n", Protocol),
        ("PROXY \r\n", Protocol),
        (&long, Line),
    ];
    for (line, error) in text {
        assert_eq!(parse(line.as_bytes()), Err(*error), "{line:?}");
    }
    let mut huge = v2(0x21, 0x11, &V4_BODY);
    huge[14..16].copy_from_slice(&[0xFF, 0xFF]);
    let binary = [
        (v2(0x11, 0x11, &V4_BODY), Command),
        (v2(0x22, 0x11, &V4_BODY), Command),
        (v2(0x21, 0x41, &V4_BODY), Family),
        (v2(0x21, 0x13, &V4_BODY), Family),
    ];
    for (bytes, error) in binary.into_iter().chain([(v2(0x21, 0x21, &V4_BODY), Length), (huge, Length)]) {
        assert_eq!(parse(&bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn what_is_written_for_mixed_families_is_ipv6() {
    let mut out = Vec::new();
    write(ProxyVersion::V1, Some("192.0.2.1:5".parse().unwrap()), Some("[2001:db8::1]:6".parse().unwrap()), &mut out);
    assert_eq!(out, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 5 6\r\n");
    out.clear();
    write(ProxyVersion::V1, None, Some("192.0.2.1:5".parse().unwrap()), &mut out);
    assert_eq!(out, b"PROXY UNKNOWN\r\n");
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<(u32, u16)>().prop_map(|(ip, port)| SocketAddr::new(IpAddr::V4(ip.into()), port));
    let v6 = any::<(u128, u16)>().prop_map(|(ip, port)| SocketAddr::new(IpAddr::V6(ip.into()), port));
    prop_oneof![v4, v6]
}

proptest! {
    /// What is written is read back, whatever follows it, and every proper prefix only asks for more.
    #[test]
    fn round_trip(source in address(), destination in address(), binary: bool, rest in proptest::collection::vec(any::<u8>(), 0..20)) {
        let mut bytes = Vec::new();
        write(if binary { ProxyVersion::V2 } else { ProxyVersion::V1 }, Some(source), Some(destination), &mut bytes);
        let length = bytes.len();
        for cut in 0..length {
            prop_assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Incomplete), "cut at {}", cut);
        }
        bytes.extend_from_slice(&rest);
        let (source, destination) = same_family(source, destination);
        prop_assert_eq!(parse(&bytes), Ok(Parsed::Header(ProxyHeader::Proxied { source, destination }, length)));
    }

    /// Whatever arrives, a verdict falls within the bound, it says the same when more arrives, and nothing panics.
    #[test]
    fn any_bytes(version in 0..3_u8, tail in proptest::collection::vec(any::<u8>(), 0..300), fill in any::<u8>()) {
        let mut bytes = match version {
            0 => V1_START.to_vec(),
            1 => [&SIGNATURE[..], &[0x21, 0x11]].concat(),
            _ => Vec::new(),
        };
        bytes.extend_from_slice(&tail);
        bytes.resize(LONGEST_V2, fill);
        let verdict = parse(&bytes);
        prop_assert_ne!(verdict, Ok(Parsed::Incomplete));
        for cut in (0..bytes.len()).step_by(97) {
            let early = parse(&bytes[..cut]);
            prop_assert!(early == verdict || early == Ok(Parsed::Incomplete), "{:?} at {} of {:?}", early, cut, verdict);
        }
        if let Ok(Parsed::Header(_, length)) = verdict {
            prop_assert!(length <= bytes.len());
        }
    }
}
