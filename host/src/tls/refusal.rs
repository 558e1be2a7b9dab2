//! Why a connection did not become one: a closed list of stable names, each with a counter.
//!
//! The names are what logs, metrics and `connection.termination_details` show; renaming one breaks dashboards.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::names::NameRefusal;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a connection was closed before anything was served on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Refusal {
            $($(#[$doc])* $variant,)*
        }

        impl Refusal {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            #[must_use]
            pub fn detail(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

refusals! {
    /// No branch matches and there is no default.
    NoMatchingBranch = "no_matching_branch",
    /// What branches need to see did not come in time.
    DetectTimeout = "detect_timeout",
    /// The client closed before it had said enough.
    DetectClosed = "detect_closed",
    /// Bytes that begin like a PROXY header and are none.
    ProxyProtocolInvalid = "proxy_protocol_invalid",
    /// A PROXY header was required.
    ProxyProtocolMissing = "proxy_protocol_missing",
    /// Bytes that begin like a ClientHello and are none.
    ClientHelloInvalid = "client_hello_invalid",
    /// A ClientHello longer than what is read of one.
    ClientHelloTooLarge = "client_hello_too_large",
    /// Plain text where TLS is spoken.
    PlaintextOnTls = "plaintext_on_tls",
    /// Too many handshakes are in progress on this worker.
    TooManyHandshakes = "too_many_handshakes",
    /// The handshake did not end in time.
    TlsHandshakeTimeout = "tls_handshake_timeout",
    /// The client closed during the handshake.
    TlsHandshakeClosed = "tls_handshake_closed",
    /// The client's alert ended the handshake; it did not like this side's certificate, for example.
    TlsAlertReceived = "tls_alert_received",
    /// No certificate for the server name that the client asked for.
    TlsUnknownServerName = "tls_unknown_server_name",
    /// No version of TLS in common.
    TlsVersionUnsupported = "tls_version_unsupported",
    /// No cipher suite, group or signature scheme in common.
    TlsNoCommonParameters = "tls_no_common_parameters",
    /// No application protocol in common.
    TlsNoApplicationProtocol = "tls_no_application_protocol",
    /// The client broke the protocol.
    TlsProtocolError = "tls_protocol_error",
    /// A client certificate was required and none came.
    ClientCertificateRequired = "client_certificate_required",
    /// The client certificate is past its end.
    ClientCertificateExpired = "client_certificate_expired",
    /// The client certificate is before its start.
    ClientCertificateNotYetValid = "client_certificate_not_yet_valid",
    /// The client certificate comes from nobody who is trusted.
    ClientCertificateUnknownIssuer = "client_certificate_unknown_issuer",
    /// The client certificate was revoked.
    ClientCertificateRevoked = "client_certificate_revoked",
    /// No revocation list says whether the client certificate was revoked.
    ClientCertificateRevocationUnknown = "client_certificate_revocation_unknown",
    /// The client certificate is not for clients.
    ClientCertificateWrongPurpose = "client_certificate_wrong_purpose",
    /// More certificates than a chain needs.
    ClientCertificateChainTooLong = "client_certificate_chain_too_long",
    /// None of the client's names is allowed.
    ClientCertificateNameRefused = "client_certificate_name_refused",
    /// The client is of another trust domain.
    ClientCertificateTrustDomainRefused = "client_certificate_trust_domain_refused",
    /// A SPIFFE identity is needed, and the certificate has none or more than one.
    ClientCertificateSpiffeInvalid = "client_certificate_spiffe_invalid",
    /// A name with a NUL or another byte that names do not have.
    ClientCertificateMalformedName = "client_certificate_malformed_name",
    /// Another fault of the client certificate.
    ClientCertificateInvalid = "client_certificate_invalid",
    /// The connection broke.
    ConnectionError = "connection_error",
}

impl Refusal {
    /// Whether a handshake had begun, and failed.
    #[must_use]
    pub fn is_tls(self) -> bool {
        use Refusal as R;
        !matches!(
            self,
            R::NoMatchingBranch
                | R::DetectTimeout
                | R::DetectClosed
                | R::ProxyProtocolInvalid
                | R::ProxyProtocolMissing
                | R::PlaintextOnTls
                | R::TooManyHandshakes
                | R::ConnectionError
        )
    }

    /// The reason behind an error of a handshake on the server's side.
    #[must_use]
    pub fn of_handshake(error: &io::Error) -> Self {
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return Self::of_tls(error);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::TlsHandshakeClosed,
            _ => Self::ConnectionError,
        }
    }

    fn of_tls(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::ClientCertificateRequired,
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::AlertReceived(_) => Self::TlsAlertReceived,
            Error::NoApplicationProtocol => Self::TlsNoApplicationProtocol,
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::PlaintextOnTls,
            Error::PeerIncompatible(reason) => Self::of_incompatible(reason),
            // The only general error of a server's handshake: its resolver knew no certificate.
            Error::General(_) => Self::TlsUnknownServerName,
            _ => Self::TlsProtocolError,
        }
    }

    fn of_incompatible(reason: &PeerIncompatible) -> Self {
        use PeerIncompatible as P;
        match reason {
            P::Tls12NotOffered | P::Tls12NotOfferedOrEnabled | P::Tls13RequiredForQuic | P::SupportedVersionsExtensionRequired => {
                Self::TlsVersionUnsupported
            }
            P::ServerDoesNotSupportTls12Or13 | P::ServerTlsVersionIsDisabledByOurConfig => Self::TlsVersionUnsupported,
            _ => Self::TlsNoCommonParameters,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        use CertificateError as C;
        match error {
            C::Expired | C::ExpiredContext { .. } => Self::ClientCertificateExpired,
            C::NotValidYet | C::NotValidYetContext { .. } => Self::ClientCertificateNotYetValid,
            C::UnknownIssuer => Self::ClientCertificateUnknownIssuer,
            C::Revoked => Self::ClientCertificateRevoked,
            C::UnknownRevocationStatus | C::ExpiredRevocationList | C::ExpiredRevocationListContext { .. } => {
                Self::ClientCertificateRevocationUnknown
            }
            C::InvalidPurpose | C::InvalidPurposeContext { .. } => Self::ClientCertificateWrongPurpose,
            C::Other(other) => other.0.downcast_ref::<NameRefusal>().map_or(Self::ClientCertificateInvalid, |refusal| (*refusal).into()),
            _ => Self::ClientCertificateInvalid,
        }
    }
}

impl From<NameRefusal> for Refusal {
    fn from(refusal: NameRefusal) -> Self {
        match refusal {
            NameRefusal::Malformed => Self::ClientCertificateMalformedName,
            NameRefusal::NoneAllowed => Self::ClientCertificateNameRefused,
            NameRefusal::Spiffe => Self::ClientCertificateSpiffeInvalid,
            NameRefusal::TrustDomain => Self::ClientCertificateTrustDomainRefused,
            NameRefusal::ChainTooLong => Self::ClientCertificateChainTooLong,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Refusal {}

/// How often each reason occurred.
#[derive(Debug)]
pub struct RefusalCounts([AtomicU64; Refusal::ALL.len()]);

impl Default for RefusalCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl RefusalCounts {
    /// Counts one.
    pub fn count(&self, reason: Refusal) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// How often this reason occurred.
    #[must_use]
    pub fn get(&self, reason: Refusal) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }

    /// Every reason with its count, for metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::ALL.iter().map(|reason| (reason.detail(), self.get(*reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_counted_apart() {
        let names: std::collections::BTreeSet<_> = Refusal::ALL.iter().map(|r| r.detail()).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
        let counts = RefusalCounts::default();
        for (i, reason) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            counts.count(*reason);
        }
        assert!(counts.iter().all(|(_, count)| count == 1));
    }
}
