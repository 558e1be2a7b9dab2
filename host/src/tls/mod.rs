//! TLS on both sides: secrets, server and client configurations, who the peer is, and what a connection is before it is one of HTTP.
//!
//! One implementation (rustls) with one provider of cryptography (aws-lc-rs), never a system library. Certificates are replaced by building new
//! configurations for the next snapshot; connections keep the one that they began with.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use weir_model::config::TlsVersion;

pub mod accept;
pub mod client;
pub mod io;
pub mod names;
pub mod peer;
pub mod refusal;
pub mod server;
pub mod sniff;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;

/// The provider of cryptography: post-quantum key exchange (X25519MLKEM768) is preferred.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// A duration of the configuration; negative ones are none.
pub(crate) fn duration(of: &weir_model::protobuf::Duration) -> Duration {
    let seconds = u64::try_from(of.seconds).unwrap_or(0);
    Duration::new(seconds, u32::try_from(of.nanos).unwrap_or(0).min(999_999_999))
}

/// Why a TLS section cannot be used. `field` is a path below it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct TlsError {
    /// For example `clientAuth.trustRoots`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl TlsError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// The versions between two bounds, 1.2 to 1.3 if open.
fn versions(least: TlsVersion, most: TlsVersion) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
    use rustls::version::{TLS12, TLS13};
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static NEW: [&SupportedProtocolVersion; 1] = [&TLS13];
    static OLD: [&SupportedProtocolVersion; 1] = [&TLS12];
    match (least, most) {
        (TlsVersion::Default | TlsVersion::Tls12, TlsVersion::Default | TlsVersion::Tls13) => Ok(&BOTH),
        (TlsVersion::Tls13, TlsVersion::Default | TlsVersion::Tls13) => Ok(&NEW),
        (TlsVersion::Default | TlsVersion::Tls12, TlsVersion::Tls12) => Ok(&OLD),
        (TlsVersion::Tls13, TlsVersion::Tls12) => Err(TlsError::new("minVersion", "is above maxVersion")),
    }
}

/// A list of protocols for ALPN, in order.
fn alpn(list: &[String]) -> Result<Vec<Vec<u8>>, TlsError> {
    let bad = |(i, _): (usize, &String)| TlsError::new(format!("alpn[{i}]"), "must have 1 to 255 bytes");
    match list.iter().enumerate().find(|(_, name)| name.is_empty() || name.len() > 255) {
        Some(entry) => Err(bad(entry)),
        None => Ok(list.iter().map(|name| name.as_bytes().to_vec()).collect()),
    }
}
