//! The PROXY protocol, versions 1 and 2: who a connection is really from, said by a proxy in front of this one before the first byte.
//!
//! Reading is incremental over bytes that the caller keeps: [`parse`] looks at the same prefix again when more has arrived, and needs at most
//! [`LONGEST_V1`] or [`LONGEST_V2`] bytes to make up its mind. It is strict: what the specification does not allow is an error, never a guess.
//! Additional fields of version 2 (TLVs) are checked for their bounds and skipped; a checksum is verified where one is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, its line end included.
pub const LONGEST_V1: usize = 107;
/// Longest header of version 2 that is taken, far above what senders use; the specification asks for 536 at least.
pub const LONGEST_V2: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_START: &[u8] = b"PROXY ";
const V2_HEAD: usize = 16;
const TLV_CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is the sender's own (health checks), or of a family without addresses: its own addresses count.
    Local,
    /// The connection is passed on for another.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Could become a header: read more.
    Incomplete,
    /// No header.
    Absent,
    /// A header, which ends after this many bytes.
    Header(ProxyHeader, usize),
}

/// Why bytes that begin like a header are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProtocolError {
    /// Version 1: no line end within [`LONGEST_V1`] bytes, or a lone one.
    #[error("the line does not end where it must")]
    Line,
    /// Version 1: a family other than TCP4, TCP6 and UNKNOWN.
    #[error("unknown protocol")]
    Protocol,
    /// Version 1: an address or port that is not written as the specification says.
    #[error("malformed address")]
    Address,
    /// Version 2: another version or command than it defines.
    #[error("unknown version or command")]
    Command,
    /// Version 2: a family or transport that it does not define.
    #[error("unknown address family")]
    Family,
    /// Version 2: longer than [`LONGEST_V2`], or too short for its addresses.
    #[error("impossible length")]
    Length,
    /// Version 2: an additional field that leaves the header.
    #[error("a field leaves the header")]
    Field,
    /// Version 2: the checksum is another.
    #[error("wrong checksum")]
    Checksum,
}

/// Looks at the first bytes of a connection.
///
/// # Errors
/// When they begin like a header and are none.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    if starts_alike(bytes, SIGNATURE) {
        return if bytes.len() < V2_HEAD { early_v2(bytes) } else { parse_v2(bytes) };
    }
    if starts_alike(bytes, V1_START) {
        return if bytes.len() <= V1_START.len() { Ok(Parsed::Incomplete) } else { parse_v1(bytes) };
    }
    Ok(Parsed::Absent)
}

fn starts_alike(bytes: &[u8], expected: &[u8]) -> bool {
    let common = bytes.len().min(expected.len());
    bytes[..common] == expected[..common]
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let window = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = window.iter().position(|&b| b == b'\r' || b == b'\n') else {
        return if bytes.len() >= LONGEST_V1 { Err(ProxyProtocolError::Line) } else { Ok(Parsed::Incomplete) };
    };
    match (window[end], window.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if bytes.len() < LONGEST_V1 => return Ok(Parsed::Incomplete),
        _ => return Err(ProxyProtocolError::Line),
    }
    let line = std::str::from_utf8(&window[V1_START.len()..end]).map_err(|_| ProxyProtocolError::Address)?;
    let header = parse_line(line)?;
    Ok(Parsed::Header(header, end + 2))
}

/// `TCP4 source destination port port`, single spaces.
fn parse_line(line: &str) -> Result<ProxyHeader, ProxyProtocolError> {
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(ProxyHeader::Local);
    }
    let v4 = match family {
        "TCP4" => true,
        "TCP6" => false,
        _ => return Err(ProxyProtocolError::Protocol),
    };
    let (Some(source), Some(destination), Some(from), Some(to), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(ProxyProtocolError::Address);
    };
    let address = |text: &str| -> Result<IpAddr, ProxyProtocolError> {
        let parsed: Option<IpAddr> = if v4 { text.parse().map(IpAddr::V4).ok() } else { text.parse().map(IpAddr::V6).ok() };
        parsed.ok_or(ProxyProtocolError::Address)
    };
    Ok(ProxyHeader::Proxied {
        source: SocketAddr::new(address(source)?, port(from)?),
        destination: SocketAddr::new(address(destination)?, port(to)?),
    })
}

/// Digits without a sign or leading zeros.
fn port(text: &str) -> Result<u16, ProxyProtocolError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(ProxyProtocolError::Address)
}

/// What can already be refused before all 16 bytes are there.
fn early_v2(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    match bytes.get(12) {
        Some(0x20 | 0x21) | None => Ok(Parsed::Incomplete),
        Some(_) => Err(ProxyProtocolError::Command),
    }
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let total = V2_HEAD + length;
    let local = match bytes[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyProtocolError::Command),
    };
    // The size of the address block; UNSPEC has none that is understood.
    let addresses = match bytes[13] {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ if local => 0,
        _ => return Err(ProxyProtocolError::Family),
    };
    if total > LONGEST_V2 || (!local && length < addresses) {
        return Err(ProxyProtocolError::Length);
    }
    let Some(header) = bytes.get(..total) else { return Ok(Parsed::Incomplete) };
    // What a LOCAL header carries is to be ignored, and so is what follows an unknown family.
    if local || addresses == 0 {
        return Ok(Parsed::Header(ProxyHeader::Local, total));
    }
    check_fields(header, V2_HEAD + addresses)?;
    Ok(Parsed::Header(addresses_v2(header), total))
}

/// The addresses of a header whose length was checked.
fn addresses_v2(header: &[u8]) -> ProxyHeader {
    let block = &header[V2_HEAD..];
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let (source, destination) = match header[13] >> 4 {
        1 => {
            let at = |i: usize| IpAddr::V4(Ipv4Addr::new(block[i], block[i + 1], block[i + 2], block[i + 3]));
            (SocketAddr::new(at(0), port(8)), SocketAddr::new(at(4), port(10)))
        }
        2 => {
            let at = |i: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&block[i..i + 16]);
                IpAddr::V6(Ipv6Addr::from(octets))
            };
            (SocketAddr::new(at(0), port(32)), SocketAddr::new(at(16), port(34)))
        }
        // Unix sockets have names here, no addresses.
        _ => return ProxyHeader::Local,
    };
    ProxyHeader::Proxied { source, destination }
}

fn check_fields(header: &[u8], start: usize) -> Result<(), ProxyProtocolError> {
    let mut at = start;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(ProxyProtocolError::Field) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let Some(content) = header.get(value.clone()) else { return Err(ProxyProtocolError::Field) };
        if kind == TLV_CRC32C {
            let Ok(expected) = <[u8; 4]>::try_from(content) else { return Err(ProxyProtocolError::Field) };
            if crc32c(header, value.clone()) != u32::from_be_bytes(expected) {
                return Err(ProxyProtocolError::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// CRC-32C of the header with the bytes in `hole` taken as zero. At most 4 KiB once per connection: a bit at a time is fast enough.
fn crc32c(header: &[u8], hole: std::ops::Range<usize>) -> u32 {
    let mut crc = u32::MAX;
    for (i, &byte) in header.iter().enumerate() {
        crc ^= u32::from(if hole.contains(&i) { 0 } else { byte });
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

/// Which version to send to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Appends the header for a connection from `source` to `destination`; both absent (Unix sockets, health checks) or of different families
/// that no mapping makes equal says that the connection is this proxy's own.
pub fn write(version: ProxyVersion, source: Option<SocketAddr>, destination: Option<SocketAddr>, out: &mut Vec<u8>) {
    let pair = source.zip(destination).map(|(from, to)| same_family(from, to));
    match version {
        ProxyVersion::V1 => write_v1(pair, out),
        ProxyVersion::V2 => write_v2(pair, out),
    }
}

/// Both as IPv4 if they are, both as IPv6 else.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let wide = |a: SocketAddr| match a.ip() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), a.port()),
        IpAddr::V6(_) => a,
    };
    (wide(source), wide(destination))
}

fn write_v1(pair: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    let line = match pair {
        Some((source, destination)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port())
        }
        None => "PROXY UNKNOWN\r\n".to_owned(),
    };
    out.extend_from_slice(line.as_bytes());
}

fn write_v2(pair: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    match pair {
        None => out.extend_from_slice(&[0x20, 0, 0, 0]),
        Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&source.ip().octets());
            out.extend_from_slice(&destination.ip().octets());
            write_ports(source.port(), destination.port(), out);
        }
        Some((source, destination)) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            for address in [source.ip(), destination.ip()] {
                let wide = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                out.extend_from_slice(&wide.octets());
            }
            write_ports(source.port(), destination.port(), out);
        }
    }
}

fn write_ports(source: u16, destination: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&source.to_be_bytes());
    out.extend_from_slice(&destination.to_be_bytes());
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
