//! What the fields of a head say about its message: read once, for requests and responses alike.
//!
//! What always holds: `connection` and what it names, and all other fields that are between two neighbours only, do not reach [`Fields`]; framing fields
//! that contradict each other or themselves are refused.

use super::line::{self, Line, Span, Stop};
use super::{HeadLimits, Refusal, Version};
use crate::http::fields::{Fields, Known};

/// How many fields named `connection` may name others, and how many names there may be.
const MOST_CONNECTION_FIELDS: usize = 4;
const MOST_NOMINATIONS: usize = 16;
const LONGEST_NOMINATION: usize = 64;

/// The names that [`Head::note`] looks at.
const NOTED: u64 = Known::Host.bit()
    | Known::ContentLength.bit()
    | Known::TransferEncoding.bit()
    | Known::Connection.bit()
    | Known::Upgrade.bit()
    | Known::Te.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::Http2Settings.bit()
    | Known::Expect.bit();

/// What was found in the fields of a head.
#[derive(Default)]
pub(super) struct Head {
    pub(super) host: Option<Span>,
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    /// `connection: upgrade`.
    pub(super) connection_upgrade: bool,
    /// The one protocol that `upgrade` asks for or announces.
    pub(super) upgrade: Option<Span>,
    pub(super) expect_continue: bool,
    te_trailers: bool,
    several_upgrades: bool,
    nominating: [Span; MOST_CONNECTION_FIELDS],
    nominations: usize,
    upper: bool,
}

impl Head {
    /// Reads fields from `at` to the end of the head. Returns where that is.
    #[inline]
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        limits: &HeadLimits,
        is_request: bool,
        fields: &mut Fields,
    ) -> Result<usize, Stop> {
        let mut left = limits.count;
        while let Some(line) = line::field(bytes, at)? {
            if left == 0 {
                return Err(Refusal::TooManyHeaders.into());
            }
            left -= 1;
            at = line.next;
            self.upper |= line.upper;
            if line.known.is_some_and(|known| known.bit() & NOTED != 0) && self.note(bytes, &line, is_request)? {
                continue;
            }
            if !fields.place(line.known, line.name, line.value) {
                return Err(Refusal::FieldName.into());
            }
        }
        Ok(at + 2)
    }

    /// Notes a field. Returns whether it ends here.
    fn note(&mut self, bytes: &[u8], line: &Line, is_request: bool) -> Result<bool, Refusal> {
        let value = line.value.of(bytes);
        match line.known {
            Some(Known::Host) if is_request => {
                if self.host.replace(line.value).is_some() {
                    return Err(Refusal::HostDuplicate);
                }
                if !line::is_host(value) {
                    return Err(Refusal::HostInvalid);
                }
            }
            Some(Known::ContentLength) => {
                let length = line::decimal(value).ok_or(Refusal::ContentLength)?;
                if self.content_length.replace(length).is_some() {
                    return Err(Refusal::ContentLengthDuplicate);
                }
                return Ok(false);
            }
            Some(Known::TransferEncoding) => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::TransferEncoding);
                }
                self.chunked = true;
            }
            Some(Known::Connection) => self.connection(bytes, line.value)?,
            Some(Known::Upgrade) => {
                self.several_upgrades |= self.upgrade.is_some() || !is_protocol(value);
                self.upgrade = Some(line.value);
            }
            Some(Known::Te) if is_request => {
                self.te_trailers |= line::list(value).any(|part| part.eq_ignore_ascii_case(b"trailers"));
            }
            Some(Known::Expect) if is_request => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::Expectation);
                }
                self.expect_continue = true;
            }
            // The rest is between two neighbours, and nothing that this proxy speaks of.
            Some(Known::KeepAlive | Known::ProxyConnection | Known::Http2Settings | Known::Te) => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn connection(&mut self, bytes: &[u8], value: Span) -> Result<(), Refusal> {
        let mut nominates = false;
        for option in line::list(value.of(bytes)) {
            match option.len() {
                5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
                10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                7 if option.eq_ignore_ascii_case(b"upgrade") => self.connection_upgrade = true,
                2 if option.eq_ignore_ascii_case(b"te") => {}
                _ => nominates = true,
            }
        }
        if nominates {
            *self.nominating.get_mut(self.nominations).ok_or(Refusal::ConnectionNomination)? = value;
            self.nominations += 1;
        }
        Ok(())
    }

    /// Whether `connection: upgrade` and one protocol were found.
    pub(super) fn asks_upgrade(&self) -> bool {
        self.connection_upgrade && self.upgrade.is_some() && !self.several_upgrades
    }

    /// Gives the block its bytes, and what was held back until the whole head was known. `suffix` goes after the head's bytes.
    #[inline]
    pub(super) fn finish(&self, head: &[u8], suffix: &[u8], upgrade: bool, fields: &mut Fields) -> Result<(), Refusal> {
        fields.adopt(head, suffix, self.upper);
        if let Some(protocol) = self.upgrade.filter(|_| upgrade) {
            fields.push_known(Known::Upgrade, protocol.of(head));
        }
        if self.te_trailers {
            fields.push_known(Known::Te, b"trailers");
        }
        if self.nominations == 0 { Ok(()) } else { self.remove_nominated(head, fields) }
    }

    #[cold]
    fn remove_nominated(&self, head: &[u8], fields: &mut Fields) -> Result<(), Refusal> {
        let mut left = MOST_NOMINATIONS;
        for value in self.nominating.iter().take(self.nominations) {
            for option in line::list(value.of(head)) {
                let mut lower = [0; LONGEST_NOMINATION];
                let name = lower.get_mut(..option.len()).filter(|_| left > 0 && line::is_token(option));
                let name = name.ok_or(Refusal::ConnectionNomination)?;
                left -= 1;
                name.copy_from_slice(option);
                name.make_ascii_lowercase();
                match &*name {
                    // Options, not names; `te` and `upgrade` were dealt with.
                    b"close" | b"keep-alive" | b"upgrade" | b"te" => {}
                    name if is_protected(name) => return Err(Refusal::ConnectionNomination),
                    name => fields.remove(name),
                }
            }
        }
        Ok(())
    }

    /// Whether the connection may carry another message.
    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// Whether a field decides who asks for what, from where or how long it is: a client may not have such a field taken away by naming it in `connection`.
fn is_protected(name: &[u8]) -> bool {
    let known = matches!(
        Known::of(name),
        Some(
            Known::Host
                | Known::ContentLength
                | Known::ContentType
                | Known::ContentEncoding
                | Known::Authorization
                | Known::ProxyAuthorization
                | Known::Cookie
                | Known::SetCookie
                | Known::Forwarded
                | Known::XRealIp
                | Known::XRequestId
                | Known::Origin
                | Known::Traceparent
                | Known::Tracestate
        )
    );
    known || name.starts_with(b"x-forwarded-") || name.starts_with(b"x-envoy-") || name.starts_with(b"x-weir-")
}

/// Whether a value is one protocol: a token, or two around a slash.
fn is_protocol(value: &[u8]) -> bool {
    let mut parts = value.splitn(2, |byte| *byte == b'/');
    parts.next().is_some_and(line::is_token) && parts.next().is_none_or(line::is_token)
}
