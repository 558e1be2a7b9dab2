//! What a connection is, from its first bytes: TLS, with the server name and the protocols that its ClientHello offers, or anything else.
//!
//! No TLS stack is involved and nothing is consumed: the caller keeps the bytes and shows all of them again when more have arrived. A
//! [`Sniffer`] remembers how far it came, so a ClientHello that arrives one byte at a time costs no more than one that arrives whole. Both the
//! bytes and the records that they are cut into are bounded.

use std::net::IpAddr;

use rustls::pki_types::DnsName;

/// Most bytes that are looked at, record headers included.
pub const LONGEST_HELLO: usize = 16 * 1024;

const RECORD_HEAD: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What a connection began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    /// A ClientHello.
    Tls {
        /// The host that is asked for, in lower case, without a dot at its end. None too if it is an address, which no certificate is chosen by.
        server_name: Option<Box<str>>,
        /// The protocols that are offered, each after a length byte; see [`crate::listener::matching::alpn_entries`].
        alpn: Box<[u8]>,
    },
    /// Something else.
    Plain,
}

/// Why bytes that begin like a ClientHello are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SniffError {
    /// Its structure is broken.
    #[error("broken ClientHello")]
    Invalid,
    /// It does not fit [`LONGEST_HELLO`].
    #[error("ClientHello too large")]
    TooLarge,
}

/// Reads the first bytes of one connection.
#[derive(Debug, Default)]
pub struct Sniffer {
    /// Where the next record begins.
    at: usize,
    /// Handshake bytes of the records before, where the message is cut.
    message: Vec<u8>,
}

impl Sniffer {
    /// Looks at all bytes so far; `None` is to read more.
    ///
    /// # Errors
    /// When they begin like a ClientHello and cannot become one.
    pub fn look(&mut self, bytes: &[u8]) -> Result<Option<Detected>, SniffError> {
        if self.at == 0 && looks_plain(bytes) {
            return Ok(Some(Detected::Plain));
        }
        while let Some(head) = bytes.get(self.at..self.at + RECORD_HEAD) {
            if head[0] != HANDSHAKE || head[1] != 3 {
                return Err(SniffError::Invalid);
            }
            let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
            if length == 0 {
                return Err(SniffError::Invalid);
            }
            let end = self.at + RECORD_HEAD + length;
            if end > LONGEST_HELLO {
                return Err(SniffError::TooLarge);
            }
            let Some(record) = bytes.get(self.at + RECORD_HEAD..end) else {
                // Refused before it is there, where that can be seen.
                check_start(if self.message.is_empty() { &bytes[self.at + RECORD_HEAD..] } else { &self.message })?;
                return Ok(None);
            };
            if self.message.is_empty()
                && let Some(hello) = whole_message(record)?
            {
                return parse_hello(hello).map(Some).ok_or(SniffError::Invalid);
            }
            self.message.extend_from_slice(record);
            self.at = end;
            if let Some(hello) = whole_message(&self.message)? {
                return parse_hello(hello).map(Some).ok_or(SniffError::Invalid);
            }
        }
        if bytes.len() >= LONGEST_HELLO { Err(SniffError::TooLarge) } else { Ok(None) }
    }
}

/// Whether these first bytes are not those of a handshake record of any version of TLS.
fn looks_plain(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|b| *b != HANDSHAKE) || bytes.get(1).is_some_and(|b| *b != 3) || bytes.get(2).is_some_and(|b| *b > 4)
}

/// Checks the head of a handshake message, as far as it is there.
fn check_start(message: &[u8]) -> Result<(), SniffError> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(SniffError::Invalid);
    }
    if let Some(&[_, high, middle, low]) = message.first_chunk::<4>()
        && u32::from_be_bytes([0, high, middle, low]) as usize > LONGEST_HELLO
    {
        return Err(SniffError::TooLarge);
    }
    Ok(())
}

/// The body of the ClientHello, when all of it is there.
fn whole_message(bytes: &[u8]) -> Result<Option<&[u8]>, SniffError> {
    check_start(bytes)?;
    let Some((head, body)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
    Ok(body.get(..length))
}

/// A reader of bounded pieces.
struct Pieces<'a>(&'a [u8]);

impl<'a> Pieces<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (piece, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(piece)
    }

    fn byte(&mut self) -> Option<usize> {
        self.take(1).map(|b| usize::from(b[0]))
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn after_byte(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(length)
    }

    fn after_short(&mut self) -> Option<&'a [u8]> {
        let length = self.short()?;
        self.take(usize::from(length))
    }
}

fn parse_hello(body: &[u8]) -> Option<Detected> {
    let mut hello = Pieces(body);
    hello.take(2 + 32)?; // Version and random.
    hello.after_byte()?; // Session.
    hello.after_short()?; // Cipher suites.
    hello.after_byte()?; // Compressions.
    let mut server_name = None;
    let mut alpn: Box<[u8]> = Box::default();
    let (mut seen_name, mut seen_alpn) = (false, false);
    if !hello.0.is_empty() {
        let mut extensions = Pieces(hello.after_short()?);
        while !extensions.0.is_empty() {
            let kind = extensions.short()?;
            let content = extensions.after_short()?;
            match kind {
                // Twice is ambiguous: who reads the first and who reads the last disagree.
                SERVER_NAME if std::mem::replace(&mut seen_name, true) => return None,
                ALPN if std::mem::replace(&mut seen_alpn, true) => return None,
                SERVER_NAME => server_name = parse_server_name(content)?,
                ALPN => alpn = parse_alpn(content)?.into(),
                _ => {}
            }
        }
    }
    hello.0.is_empty().then_some(Detected::Tls { server_name, alpn })
}

/// The one host name; `Some(None)` for an address.
fn parse_server_name(content: &[u8]) -> Option<Option<Box<str>>> {
    let mut outer = Pieces(content);
    let mut list = Pieces(outer.after_short()?);
    if !outer.0.is_empty() || list.byte()? != 0 {
        return None;
    }
    let name = list.after_short()?;
    // The standard allows one name of a kind, and defines one kind.
    if !list.0.is_empty() {
        return None;
    }
    let text = std::str::from_utf8(name).ok()?;
    if text.parse::<IpAddr>().is_ok() {
        return Some(None);
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    DnsName::try_from(text).ok()?;
    Some(Some(text.to_ascii_lowercase().into()))
}

fn parse_alpn(content: &[u8]) -> Option<&[u8]> {
    let mut outer = Pieces(content);
    let list = outer.after_short()?;
    let mut entries = Pieces(list);
    while !entries.0.is_empty() {
        entries.after_byte().filter(|entry| !entry.is_empty())?;
    }
    (outer.0.is_empty() && !list.is_empty()).then_some(list)
}

#[cfg(test)]
#[path = "sniff_tests.rs"]
mod tests;
