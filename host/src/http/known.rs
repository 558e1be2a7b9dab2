//! Names that proxy code touches, as numbers: comparing one byte instead of a string.
//!
//! What always holds: a name is lower case; [`Known::of`] takes one multiplication and one comparison, whatever it is asked; there are fewer than 64 names,
//! so that a set of them is a `u64`.
//!
//! This is not a list of all registered names: a name is here when native code looks it up, sets it or must not pass it on.

macro_rules! known {
    ($($variant:ident = $name:literal,)*) => {
        /// A field name with a number. Pseudo headers come first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        const NAMES: &[&str] = &[$($name,)*];
        const ALL: &[Known] = &[$(Known::$variant,)*];
    };
}

known! {
    Method = ":method",
    Path = ":path",
    Authority = ":authority",
    Scheme = ":scheme",
    Status = ":status",
    Protocol = ":protocol",
    Host = "host",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Connection = "connection",
    Upgrade = "upgrade",
    Te = "te",
    Trailer = "trailer",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    Http2Settings = "http2-settings",
    Expect = "expect",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    UserAgent = "user-agent",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    Authorization = "authorization",
    ProxyAuthorization = "proxy-authorization",
    Server = "server",
    Date = "date",
    Via = "via",
    Location = "location",
    CacheControl = "cache-control",
    RetryAfter = "retry-after",
    Origin = "origin",
    Referer = "referer",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedClientCert = "x-forwarded-client-cert",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    GrpcStatus = "grpc-status",
    GrpcMessage = "grpc-message",
    GrpcTimeout = "grpc-timeout",
    GrpcEncoding = "grpc-encoding",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyPeerMetadata = "x-envoy-peer-metadata",
    XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyOriginalHost = "x-envoy-original-host",
}

/// How many names come before [`Known::Host`].
const PSEUDO: u8 = 6;
/// Found by search: no two names fall into one slot. The compiler checks it.
const MULTIPLIER: u32 = 0xbbb5_95c3;
const EMPTY: u8 = 0xff;
const SLOTS: [u8; 256] = slots();

/// The slot of a name that is not empty: four of its bytes and its length, mixed.
const fn slot(name: &[u8]) -> usize {
    let length = name.len();
    let key = (length as u8 as u32)
        | (name[length / 3] as u32) << 8
        | (name[length - 1 - length / 5] as u32) << 16
        | (name[length - 1] as u32) << 24;
    (key.wrapping_mul(MULTIPLIER) >> 24) as usize
}

const fn slots() -> [u8; 256] {
    assert!(NAMES.len() < 64, "a set of names is a u64");
    let mut table = [EMPTY; 256];
    let mut at = 0;
    while at < NAMES.len() {
        let slot = slot(NAMES[at].as_bytes());
        assert!(table[slot] == EMPTY, "two names in one slot: search another multiplier");
        assert!((NAMES[at].as_bytes()[0] == b':') == (at < PSEUDO as usize), "pseudo headers come first");
        table[slot] = at as u8;
        at += 1;
    }
    table
}

impl Known {
    /// Every name, pseudo headers first.
    pub const ALL: &'static [Self] = ALL;

    /// The number of `name`, which must be lower case.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let index = usize::from(SLOTS[slot(name)]);
        let known = *ALL.get(index)?;
        (NAMES.get(index)?.as_bytes() == name).then_some(known)
    }

    /// The name.
    #[must_use]
    #[inline]
    pub fn name(self) -> &'static [u8] {
        NAMES[self as usize].as_bytes()
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Whether the name starts with a colon.
    #[must_use]
    #[inline]
    pub fn is_pseudo(self) -> bool {
        (self as u8) < PSEUDO
    }

    /// This name alone, as a set.
    #[must_use]
    #[inline]
    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_number_and_nothing_else_does() {
        for known in Known::ALL {
            assert_eq!(Known::of(known.name()), Some(*known));
            assert_eq!(known.is_pseudo(), known.as_str().starts_with(':'));
            for other in [known.as_str().to_uppercase(), format!("{}x", known.as_str()), known.as_str()[1..].to_owned()] {
                assert_eq!(Known::of(other.as_bytes()), None, "{other}");
            }
        }
        assert_eq!(Known::of(b""), None);
        for byte in 0..=255 {
            assert_eq!(Known::of(&[byte]), None);
            assert_eq!(Known::of(&[byte; 1000]), None);
        }
    }
}
