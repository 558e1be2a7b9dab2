//! What is spoken on a port, as a Service says it.

use crate::api::core::ServicePort;

/// A port's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in plain text.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// HTTP in TLS of the application's own.
    Https,
    /// TLS of the application's own.
    Tls,
    /// Bytes.
    Tcp,
    /// Not said: the proxy looks at what arrives.
    Unknown,
    /// Not for proxies.
    Udp,
}

impl Protocol {
    /// By its name in Istio's resources and in port names, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "http1" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" | "mongo" | "mysql" | "redis" => Self::Tcp,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// Of a Service's port: what it says, else what its name says, else what its number is known for.
    #[must_use]
    pub fn of(port: &ServicePort) -> Self {
        if port.protocol.eq_ignore_ascii_case("udp") {
            return Self::Udp;
        }
        if let Some(said) = &port.app_protocol {
            match said.as_str() {
                "kubernetes.io/h2c" => return Self::Http2,
                "kubernetes.io/ws" => return Self::Http,
                "kubernetes.io/wss" => return Self::Https,
                other => {
                    if let Some(protocol) = Self::named(other) {
                        return protocol;
                    }
                }
            }
        }
        // `grpc-web` is a name of its own, `http-web` is HTTP.
        let name = port.name.to_ascii_lowercase();
        if name == "grpc-web" || name.starts_with("grpc-web-") {
            return Self::GrpcWeb;
        }
        let first = name.split('-').next().unwrap_or_default();
        match (Self::named(first), port.port) {
            (Some(protocol), _) => protocol,
            (None, 25 | 53 | 3306 | 27017) => Self::Tcp,
            (None, _) => Self::Unknown,
        }
    }

    /// Whether requests can be told apart.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether upstreams are spoken to in HTTP/2.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// Whether connections can be told apart by the name that TLS asks for.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_says_what_it_speaks() {
        let of = |name: &str, app: Option<&str>, port| {
            Protocol::of(&ServicePort { name: name.into(), app_protocol: app.map(Into::into), port, ..ServicePort::default() })
        };
        assert_eq!(of("http-web", None, 80), Protocol::Http);
        assert_eq!(of("HTTP2", None, 80), Protocol::Http2);
        assert_eq!(of("grpc-web", None, 80), Protocol::GrpcWeb);
        assert_eq!(of("grpc-x", None, 80), Protocol::Grpc);
        assert_eq!(of("http", Some("tcp"), 80), Protocol::Tcp);
        assert_eq!(of("web", Some("kubernetes.io/h2c"), 80), Protocol::Http2);
        assert_eq!(of("web", Some("example.com/own"), 80), Protocol::Unknown);
        assert_eq!(of("", None, 3306), Protocol::Tcp);
        assert_eq!(of("httpx", None, 80), Protocol::Unknown);
    }
}
