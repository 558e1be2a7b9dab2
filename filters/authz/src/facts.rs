//! What a policy asks about a request or a connection, each fact asked of the host at most once.

use std::cell::OnceCell;
use std::net::IpAddr;

use serde_json::Value;
use weir_filter_matching::address_of;
use weir_sdk::{Attributes, Headers, Stream};

/// Where a JWT filter leaves the claims of a verified token, as JSON.
const CLAIMS: &str = "request.auth.claims";

/// What is known of a request, or of a connection that is none.
pub(crate) struct Facts<'c> {
    attributes: Attributes<'c>,
    headers: Headers<'c>,
    identity: OnceCell<Option<&'c [u8]>>,
    direct: OnceCell<Option<IpAddr>>,
    remote: OnceCell<Option<IpAddr>>,
    path: OnceCell<&'c [u8]>,
    host: OnceCell<Option<&'c [u8]>>,
    method: OnceCell<Option<&'c [u8]>>,
    claims: OnceCell<Option<Value>>,
}

impl<'c> Facts<'c> {
    pub(crate) fn of<S: 'static>(stream: &Stream<'c, S>) -> Self {
        Self {
            attributes: stream.attributes(),
            headers: stream.request(),
            identity: OnceCell::new(),
            direct: OnceCell::new(),
            remote: OnceCell::new(),
            path: OnceCell::new(),
            host: OnceCell::new(),
            method: OnceCell::new(),
            claims: OnceCell::new(),
        }
    }

    /// The verified peer's, with its scheme.
    pub(crate) fn identity(&self) -> Option<&'c [u8]> {
        *self.identity.get_or_init(|| self.attributes.get("connection.uri_san_peer_certificate").filter(|name| !name.is_empty()))
    }

    /// Of the other end of the connection.
    pub(crate) fn direct_address(&self) -> Option<IpAddr> {
        *self.direct.get_or_init(|| self.address("source.direct_address"))
    }

    /// Of the client that trusted proxies tell of.
    pub(crate) fn remote_address(&self) -> Option<IpAddr> {
        *self.remote.get_or_init(|| self.address("source.client_address"))
    }

    /// Another host than Weir has one address for both.
    fn address(&self, path: &str) -> Option<IpAddr> {
        self.attributes.text(path).or_else(|| self.attributes.source_address()).and_then(address_of)
    }

    pub(crate) fn destination_address(&self) -> Option<IpAddr> {
        self.attributes.destination_address().and_then(address_of)
    }

    pub(crate) fn destination_port(&self) -> Option<i64> {
        self.attributes.destination_port()
    }

    pub(crate) fn server_name(&self) -> Option<&'c [u8]> {
        self.attributes.get("connection.requested_server_name")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&'c [u8]> {
        self.headers.get(name)
    }

    pub(crate) fn headers(&self) -> Headers<'c> {
        self.headers
    }

    /// Without its query.
    pub(crate) fn path(&self) -> &'c [u8] {
        self.path.get_or_init(|| {
            let path = self.header(":path").unwrap_or_default();
            path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
        })
    }

    pub(crate) fn host(&self) -> Option<&'c [u8]> {
        *self.host.get_or_init(|| self.header(":authority"))
    }

    pub(crate) fn method(&self) -> Option<&'c [u8]> {
        *self.method.get_or_init(|| self.header(":method"))
    }

    /// A claim of the verified token, by the names that lead to it.
    pub(crate) fn claim(&self, path: &[String]) -> Option<&Value> {
        let claims = self.claims.get_or_init(|| serde_json::from_slice(self.attributes.get(CLAIMS)?).ok());
        path.iter().try_fold(claims.as_ref()?, |value, name| value.get(name))
    }

    /// The same as text.
    pub(crate) fn claim_text(&self, name: &str) -> Option<&[u8]> {
        let claims = self.claims.get_or_init(|| serde_json::from_slice(self.attributes.get(CLAIMS)?).ok());
        claims.as_ref()?.get(name)?.as_str().map(str::as_bytes)
    }
}
