//! Where an endpoint listens: an IP address with a port, or a Unix socket.
//!
//! Names are not addresses: they are resolved elsewhere, before an endpoint exists.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// An address that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix stream socket.
    Unix(Arc<Path>),
}

impl Address {
    /// The same host at another port. A Unix socket has none, and stays.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Ip(address) => Self::Ip(SocketAddr::new(address.ip(), port)),
            Self::Unix(_) => self.clone(),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// The text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address: expected `10.0.0.1:8080`, `[::1]:8080` or `unix:/path`")]
pub struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() || path.contains('\0') { Err(NotAnAddress) } else { Ok(Self::Unix(Path::new(path).into())) };
        }
        text.parse().map(Self::Ip).map_err(|_| NotAnAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows_every_form() {
        for text in ["10.0.0.1:8080", "[::1]:8080", "unix:/run/app.sock"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_cannot_be_connected_to() {
        for text in ["", "10.0.0.1", "localhost:80", "10.0.0.1:70000", "unix:", "unix:/a\0b", "::1:80x"] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text:?}");
        }
    }

    #[test]
    fn another_port_is_for_ip_only() {
        assert_eq!("[::1]:1".parse::<Address>().unwrap().with_port(2).to_string(), "[::1]:2");
        assert_eq!("unix:/a".parse::<Address>().unwrap().with_port(2).to_string(), "unix:/a");
    }
}
