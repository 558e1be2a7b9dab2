//! First bytes of connections: whole, in pieces, hostile.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::*;
use crate::tls::client::ClientTls;
use crate::tls::store::SecretStore;

/// A ClientHello of a real client.
fn real_hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
    let tls = weir_model::config::UpstreamTls { insecure_skip_verify: true, ..Default::default() };
    let config = ClientTls::compile(&tls, alpn, &SecretStore::default()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(config.config()), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut out = Vec::new();
    client.write_tls(&mut out).unwrap();
    out
}

fn look(bytes: &[u8]) -> Result<Option<Detected>, SniffError> {
    Sniffer::default().look(bytes)
}

fn tls(server_name: Option<&str>, alpn: &[u8]) -> Detected {
    Detected::Tls { server_name: server_name.map(Into::into), alpn: alpn.into() }
}

/// Cuts the message of one record into records of `size` bytes.
fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in hello[RECORD_HEAD..].chunks(size) {
        out.extend_from_slice(&hello[..3]);
        out.extend_from_slice(&u16::try_from(piece.len()).unwrap().to_be_bytes());
        out.extend_from_slice(piece);
    }
    out
}

/// A ClientHello with these extensions.
fn hello_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, content) in extensions {
        list.extend_from_slice(&kind.to_be_bytes());
        list.extend_from_slice(&u16::try_from(content.len()).unwrap().to_be_bytes());
        list.extend_from_slice(content);
    }
    let mut body = [&[3_u8, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
    body.extend_from_slice(&u16::try_from(list.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&list);
    let mut message = vec![CLIENT_HELLO, 0];
    message.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&body);
    let mut record = vec![HANDSHAKE, 3, 1];
    record.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend_from_slice(&message);
    record
}

fn named(name: &[u8]) -> (u16, Vec<u8>) {
    let length = u16::try_from(name.len()).unwrap();
    (SERVER_NAME, [&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name].concat())
}

#[test]
fn a_real_hello_is_read_whole_and_in_pieces() {
    let hello = real_hello("A.Example.com", &[b"h2", b"http/1.1"]);
    let expected = tls(Some("a.example.com"), b"\x02h2\x08http/1.1");
    assert_eq!(look(&hello), Ok(Some(expected.clone())));
    for size in [1, 2, 3, 100] {
        let bytes = fragmented(&hello, size);
        let mut sniffer = Sniffer::default();
        for end in 0..bytes.len() {
            assert_eq!(sniffer.look(&bytes[..end]), Ok(None), "records of {size}, {end} bytes");
        }
        assert_eq!(sniffer.look(&bytes), Ok(Some(expected.clone())));
    }
    assert_eq!(look(&[&hello[..], b"more"].concat()), Ok(Some(expected)), "what follows is not looked at");
    assert_eq!(look(&real_hello("127.0.0.1", &[])), Ok(Some(tls(None, b""))));
}

#[test]
fn anything_else_is_plain_at_the_first_byte_that_says_so() {
    for bytes in [&b"G"[..], b"PRI * HTTP/2.0", b"\0", b"\x15\x03\x01", b"\x80\x2e\x01\x03\x01", b"\x16\x02", b"\x16\x03\x05", b"SSH-2.0"] {
        assert_eq!(look(bytes), Ok(Some(Detected::Plain)), "{bytes:?}");
    }
    for bytes in [&b""[..], b"\x16", b"\x16\x03", b"\x16\x03\x01\x00"] {
        assert_eq!(look(bytes), Ok(None), "{bytes:?}");
    }
}

#[test]
fn names_are_read_strictly() {
    assert_eq!(look(&hello_with(&[named(b"WWW.Example.com.")])), Ok(Some(tls(Some("www.example.com"), b""))));
    assert_eq!(look(&hello_with(&[named(b"10.0.0.1")])), Ok(Some(tls(None, b""))), "an address is no name");
    assert_eq!(look(&hello_with(&[])), Ok(Some(tls(None, b""))));
    let long = vec![b'a'; 300];
    for name in [&b""[..], b"a\0b", b"a b", b"a..b", b"a\r\nb", b"caf\xC3\xA9", b"\xFF", b"-a/", &long] {
        assert_eq!(look(&hello_with(&[named(name)])), Err(SniffError::Invalid), "{name:?}");
    }
    assert_eq!(look(&hello_with(&[named(b"a.test"), named(b"b.test")])), Err(SniffError::Invalid), "the extension twice");
    let two = [&[0_u8, 18][..], &[0, 0, 6], b"a.test", &[0, 0, 6], b"b.test"].concat();
    assert_eq!(look(&hello_with(&[(SERVER_NAME, two)])), Err(SniffError::Invalid), "two names");
}

#[test]
fn protocols_are_read_strictly() {
    let alpn = |list: &[u8]| (ALPN, [&u16::try_from(list.len()).unwrap().to_be_bytes()[..], list].concat());
    assert_eq!(look(&hello_with(&[alpn(b"\x02h2")])), Ok(Some(tls(None, b"\x02h2"))));
    for list in [&b""[..], b"\0", b"\x03h2", b"\x02h2\0"] {
        assert_eq!(look(&hello_with(&[alpn(list)])), Err(SniffError::Invalid), "{list:?}");
    }
    assert_eq!(look(&hello_with(&[(ALPN, b"\0\x03\x02h2x".to_vec())])), Err(SniffError::Invalid), "bytes after the list");
}

#[test]
fn what_is_too_large_or_broken_is_refused_early() {
    let other_message = [HANDSHAKE, 3, 1, 0, 9, 2];
    assert_eq!(look(&other_message), Err(SniffError::Invalid), "a handshake that begins with something else");
    assert_eq!(look(&[HANDSHAKE, 3, 1, 0, 0]), Err(SniffError::Invalid), "an empty record");
    assert_eq!(look(&[HANDSHAKE, 3, 1, 0xFF, 0xFF]), Err(SniffError::TooLarge));
    assert_eq!(look(&[HANDSHAKE, 3, 1, 1, 0, CLIENT_HELLO, 1, 0, 0]), Err(SniffError::TooLarge), "16 MiB announced");
    let hello = hello_with(&[(99, vec![0; 12_000])]);
    assert_eq!(look(&hello), Ok(Some(tls(None, b""))));
    assert_eq!(look(&fragmented(&hello, 2)), Err(SniffError::TooLarge), "records count too");
    let mut mixed = fragmented(&real_hello("a.test", &[]), 20);
    mixed[25] = 23;
    assert_eq!(look(&mixed), Err(SniffError::Invalid), "another record in between");
}

#[test]
fn drops_of_one_byte_cost_no_more_than_the_whole() {
    let hello = hello_with(&[(99, vec![0; 2_000])]);
    let bytes = fragmented(&hello, 1);
    let mut sniffer = Sniffer::default();
    for end in 0..bytes.len() {
        assert_eq!(sniffer.look(&bytes[..end]), Ok(None));
        assert!(end - sniffer.at <= RECORD_HEAD + 1, "records that were read are not read again");
    }
    assert!(matches!(sniffer.look(&bytes), Ok(Some(Detected::Tls { .. }))));
}

proptest! {
    /// Whatever arrives and however it is cut, nothing panics, and the verdict is that of the whole.
    #[test]
    fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), like_tls in 0..3_u8, step in 1..50_usize) {
        if like_tls > 0 && bytes.len() > 9 {
            bytes[..3].copy_from_slice(&[HANDSHAKE, 3, 1]);
            bytes[3] = 0;
            bytes[5] = CLIENT_HELLO;
            bytes[6..8].copy_from_slice(&[0, 0]);
        }
        let mut sniffer = Sniffer::default();
        let mut verdict = Ok(None);
        for end in (0..=bytes.len()).step_by(step) {
            verdict = sniffer.look(&bytes[..end]);
            if verdict != Ok(None) {
                break;
            }
        }
        let whole = look(&bytes);
        prop_assert!(verdict == whole || verdict == Ok(None), "{:?} and {:?}", verdict, whole);
    }

    /// A real ClientHello with bytes changed never panics.
    #[test]
    fn mutated_hello(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut bytes = hello_with(&[named(b"a.example.com"), (ALPN, b"\0\x03\x02h2".to_vec())]);
        for (at, value) in changes {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        let _ = look(&bytes);
    }
}
