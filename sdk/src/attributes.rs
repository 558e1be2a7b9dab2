//! What the proxy knows of a stream beyond its messages, under the names that Envoy gave them.
//!
//! The accessors decode the ABI's encodings; [`Attributes::get`] reads any path. `None` where the host does not know it, or it is not known yet.

use std::marker::PhantomData;

use crate::abi::{self, Status};

/// A path is looked up without an allocation up to this length.
const SHORT: usize = 128;

/// The attributes of the stream whose callback runs.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'c> {
    lent: PhantomData<&'c ()>,
}

macro_rules! attributes {
    ($($(#[$about:meta])* $name:ident: $kind:ident = $path:literal),* $(,)?) => {
        impl<'c> Attributes<'c> {
            $($(#[$about])* #[must_use] pub fn $name(&self) -> Option<attributes!(@type $kind 'c)> { self.$kind($path) })*
        }
    };
    (@type text $c:lifetime) => { &$c str };
    (@type bytes $c:lifetime) => { &$c [u8] };
    (@type integer $c:lifetime) => { i64 };
    (@type boolean $c:lifetime) => { bool };
}

attributes! {
    /// `request.id`: of the request, for the log.
    request_id: text = "request.id",
    /// `request.protocol`: `HTTP/1.1`, `HTTP/2`.
    protocol: text = "request.protocol",
    /// `request.scheme`.
    scheme: text = "request.scheme",
    /// `request.url_path`: the path without its query.
    url_path: bytes = "request.url_path",
    /// `request.query`: without the question mark.
    query: bytes = "request.query",
    /// `request.time`: nanoseconds since 1970.
    request_time: integer = "request.time",
    /// `request.duration`: nanoseconds, when the request is over.
    duration: integer = "request.duration",
    /// `request.size`: bytes of the body.
    request_size: integer = "request.size",
    /// `request.total_size`: with the headers.
    request_total_size: integer = "request.total_size",
    /// `response.code`.
    response_code: integer = "response.code",
    /// `response.code_details`: why this code.
    response_code_details: text = "response.code_details",
    /// `response.flags`: a bit for each thing that went wrong.
    response_flags: integer = "response.flags",
    /// `response.grpc_status`.
    grpc_status: integer = "response.grpc_status",
    /// `response.size`: bytes of the body.
    response_size: integer = "response.size",
    /// `response.total_size`: with the headers.
    response_total_size: integer = "response.total_size",
    /// `source.address`: the client's, with its port.
    source_address: text = "source.address",
    /// `source.port`.
    source_port: integer = "source.port",
    /// `destination.address`: where the client connected to.
    destination_address: text = "destination.address",
    /// `destination.port`.
    destination_port: integer = "destination.port",
    /// `connection.id`.
    connection_id: integer = "connection.id",
    /// `connection.mtls`: whether the client showed a certificate that was verified.
    mtls: boolean = "connection.mtls",
    /// `connection.requested_server_name`: SNI.
    server_name: text = "connection.requested_server_name",
    /// `connection.tls_version`.
    tls_version: text = "connection.tls_version",
    /// `connection.uri_san_peer_certificate`: who the client is, in a mesh.
    peer_identity: text = "connection.uri_san_peer_certificate",
    /// `connection.dns_san_peer_certificate`.
    peer_dns_name: text = "connection.dns_san_peer_certificate",
    /// `upstream.address`: the endpoint that served the request.
    upstream_address: text = "upstream.address",
    /// `upstream.transport_failure_reason`.
    upstream_failure: text = "upstream.transport_failure_reason",
    /// `xds.cluster_name`: where the request goes.
    cluster_name: text = "xds.cluster_name",
    /// `xds.route_name`.
    route_name: text = "xds.route_name",
    /// `plugin_name`: of this binding.
    plugin_name: text = "plugin_name",
}

impl<'c> Attributes<'c> {
    pub(crate) fn new() -> Self {
        Self { lent: PhantomData }
    }

    /// Any attribute, as the ABI encodes it. Segments are joined by dots; see [`Attributes::at`] for segments that contain one.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&'c [u8]> {
        let mut short = [0; SHORT];
        match short.get_mut(..path.len()) {
            Some(short) => {
                short.copy_from_slice(path.as_bytes());
                short.iter_mut().filter(|byte| **byte == b'.').for_each(|byte| *byte = 0);
                abi::property(short)
            }
            None => abi::property(path.replace('.', "\0").as_bytes()),
        }
    }

    /// Any attribute by its segments: `["request", "headers", "x.y"]`.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&'c [u8]> {
        abi::property(path.join("\0").as_bytes())
    }

    /// Sets an attribute for the filters behind this one and for the log.
    ///
    /// # Errors
    /// When the host refuses it.
    pub fn set(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Status> {
        abi::set_property(name.as_bytes(), value.as_ref())
    }

    /// A text.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&'c str> {
        std::str::from_utf8(self.get(path)?).ok()
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<&'c [u8]> {
        self.get(path)
    }

    /// A whole number, a time or a duration.
    #[must_use]
    pub fn integer(&self, path: &str) -> Option<i64> {
        Some(i64::from_le_bytes(self.get(path)?.try_into().ok()?))
    }

    /// A truth value.
    #[must_use]
    pub fn boolean(&self, path: &str) -> Option<bool> {
        self.get(path)?.first().map(|byte| *byte != 0)
    }
}
