//! What variables in header values (`%DOWNSTREAM_REMOTE_ADDRESS%`) stand for in a request.

use std::fmt::Display;
use std::io::Write;

use crate::filter::RequestHost;
use crate::http::fields::{Fields, Known};
use crate::route::{HeaderOps, Variables};

/// A request without its two header maps, one of which is being changed.
struct Of<'a> {
    host: &'a RequestHost,
}

impl Variables for Of<'_> {
    fn value(&self, name: &str, _argument: &str, out: &mut Vec<u8>) {
        let (record, connection) = (&self.host.record, &self.host.connection);
        let info = &connection.info;
        let (tls, local) = (info.tls.as_deref(), connection.local());
        let peer = info.peer_identity().map(|peer| peer.facts());
        let own = tls.and_then(|tls| tls.local.as_deref()).and_then(|own| own.leaf());
        let mut write = |value: &dyn Display| {
            // Writing to memory cannot fail.
            let _ = write!(out, "{value}");
        };
        match name {
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => write_some(&mut write, self.host.client),
            "DOWNSTREAM_REMOTE_ADDRESS" => write_some(&mut write, info.peer),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => write_some(&mut write, info.direct_peer),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => write_some(&mut write, info.direct_peer.map(|peer| peer.ip())),
            "DOWNSTREAM_LOCAL_ADDRESS" => write_some(&mut write, local),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => write_some(&mut write, local.map(|local| local.ip())),
            "DOWNSTREAM_LOCAL_PORT" => write_some(&mut write, local.map(|local| local.port())),
            "DOWNSTREAM_LOCAL_URI_SAN" => write_some(&mut write, own.and_then(|own| own.uri_san())),
            "DOWNSTREAM_PEER_FINGERPRINT_256" => write_some(&mut write, peer.map(|peer| &peer.sha256)),
            "DOWNSTREAM_PEER_SERIAL" => write_some(&mut write, peer.map(|peer| &peer.serial)),
            "DOWNSTREAM_PEER_SUBJECT" => write_some(&mut write, peer.map(|peer| &peer.subject)),
            "DOWNSTREAM_PEER_URI_SAN" => write_some(&mut write, peer.map(|peer| peer.uris.join(","))),
            "DOWNSTREAM_TLS_VERSION" => write_some(&mut write, tls.map(|tls| tls.version)),
            "REQUESTED_SERVER_NAME" => write_some(&mut write, info.server_name.as_ref()),
            "PROTOCOL" => write(&connection.protocol()),
            "RESPONSE_CODE_DETAILS" => write(&record.details.as_str()),
            "RESPONSE_FLAGS" => write(&record.flags.letters()),
            "ROUTE_NAME" => write(&record.route.as_deref().unwrap_or_default()),
            "START_TIME" => write(&(crate::filter::wall_nanos(record) / 1_000_000_000)),
            "UPSTREAM_CLUSTER" => write(&record.cluster.as_deref().unwrap_or_default()),
            "UPSTREAM_HOST" => {
                if let Some(endpoint) = &record.endpoint {
                    write(endpoint.connect_address());
                }
            }
            _ => {}
        }
    }
}

fn write_some<T: Display>(write: &mut impl FnMut(&dyn Display), value: Option<T>) {
    if let Some(value) = value {
        write(&value);
    }
}

/// Applies operations to the request's headers.
pub(super) fn on_request(operations: &HeaderOps, host: &mut RequestHost) {
    if !operations.is_empty() {
        let mut request = std::mem::take(&mut host.request);
        operations.apply(&mut request, &Of { host });
        host.request = request;
    }
}

/// Applies operations to the response's headers.
pub(super) fn on_response(operations: &HeaderOps, host: &mut RequestHost) {
    if !operations.is_empty() {
        let mut response = std::mem::take(&mut host.response);
        operations.apply(&mut response, &Of { host });
        host.response = response;
    }
}

/// Replaces a known field and keeps the old value under another name, unless that one is there.
pub(super) fn keep_original(fields: &mut Fields, known: Known, original: Known) {
    if !fields.has(original)
        && let Some(value) = fields.get_known(known).map(<[u8]>::to_vec)
    {
        fields.set_known(original, &value);
    }
}
