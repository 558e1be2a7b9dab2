//! Lookups against a small server of names.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::*;

/// Answers one question: `two.test` has two IPv4 addresses, `six.test` one IPv6 address, everything else does not exist.
fn answer(question: &[u8]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let name = &question[12..end - 4];
    let kind = question[end - 3];
    let (v4, v6): (&[[u8; 4]], &[[u8; 16]]) = match name {
        b"\x03two\x04test\0" => (&[[10, 0, 0, 1], [10, 0, 0, 2]], &[]),
        b"\x03six\x04test\0" => (&[], &[[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6]]),
        _ => (&[], &[]),
    };
    let records: Vec<Vec<u8>> = match kind {
        1 => v4.iter().map(|ip| ip.to_vec()).collect(),
        28 => v6.iter().map(|ip| ip.to_vec()).collect(),
        _ => Vec::new(),
    };
    let known = !v4.is_empty() || !v6.is_empty();
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    reply.extend(&question[12..end]);
    for record in records {
        reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 30, 0, u8::try_from(record.len()).unwrap()]);
        reply.extend(record);
    }
    reply
}

async fn server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&answer(&buffer[..length]), from).await;
        }
    });
    address
}

#[tokio::test]
async fn asks_the_servers_it_is_given_for_the_family_that_is_wanted() {
    let resolver = System::new(&[server().await]).unwrap();
    let found = async |name: &str, family| resolver.resolve(name, family).await.map(|found| (found.addresses, found.ttl));
    let two: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
    let six: Vec<IpAddr> = vec!["fd00::6".parse().unwrap()];
    for (name, family, expected) in [
        ("two.test.", Family::Auto, &two),
        ("two.test.", Family::V4, &two),
        ("two.test.", Family::All, &two),
        ("six.test.", Family::Auto, &six),
        ("six.test.", Family::V6, &six),
    ] {
        let (mut addresses, ttl) = found(name, family).await.unwrap();
        addresses.sort();
        assert_eq!(&addresses, expected, "{name} {family:?}");
        assert!(ttl > Duration::from_secs(25) && ttl <= Duration::from_secs(30), "{ttl:?}");
    }
    assert!(found("two.test.", Family::V6).await.is_err());
    assert!(found("none.test.", Family::Auto).await.is_err());
}
