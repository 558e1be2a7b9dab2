//! Attributes of a request in Envoy's names and encodings: `source.address`, `connection.mtls`, `xds.route_name`.
//!
//! Those that follow from header maps (`request.path`, `response.code`) are the host's own business and do not come here. With or without the
//! prefix `xds` the same leaves are found, as in Envoy.

use std::borrow::Cow;

use weir_wasm::{Attribute, Path};

use super::stream::{RequestHost, bytes, wall_nanos};

fn text(value: impl Into<String>) -> Option<Attribute<'static>> {
    Some(Attribute::Bytes(Cow::Owned(value.into().into_bytes())))
}

fn int(value: impl TryInto<i64>) -> Option<Attribute<'static>> {
    value.try_into().ok().map(Attribute::Int)
}

/// An attribute, if it is known.
pub(super) fn of_request<'a>(host: &'a RequestHost, path: Path<'_>) -> Option<Attribute<'a>> {
    let (first, rest) = path.split();
    let (second, third) = rest.split();
    match first {
        b"request" => request(host, second),
        b"response" => response(host, second),
        b"connection" => connection(host, second),
        b"source" => source(host, second),
        b"destination" => address(host.connection.local(), second),
        b"upstream" => upstream(host, second),
        b"xds" => xds(host, second, third.as_bytes()),
        b"weir" => weir(host, second),
        leaf if rest.as_bytes().is_empty() => xds(host, leaf, b""),
        _ => None,
    }
}

fn request<'a>(host: &'a RequestHost, leaf: &[u8]) -> Option<Attribute<'a>> {
    match leaf {
        b"time" => Some(Attribute::Time(wall_nanos(&host.record))),
        b"duration" => Some(Attribute::Duration(i64::try_from(host.record.started.elapsed().as_nanos()).ok()?)),
        b"protocol" => bytes(host.connection.protocol().as_bytes()),
        b"size" => int(host.record.received),
        b"total_size" => int(host.record.received + host.request.wire_size() as u64),
        b"headers_bytes" => int(host.request.wire_size()),
        b"grpc_messages" => int(host.record.grpc_messages.as_ref()?[0].count),
        _ => None,
    }
}

fn response<'a>(host: &'a RequestHost, leaf: &[u8]) -> Option<Attribute<'a>> {
    let record = &host.record;
    match leaf {
        b"code" => int(host.response.status().unwrap_or(record.status)),
        b"code_details" if !record.details.as_str().is_empty() => bytes(record.details.as_str().as_bytes()),
        b"flags" => int(record.flags.bits()),
        b"grpc_status" => int(record.grpc_status?),
        b"size" => int(record.sent),
        b"total_size" => int(record.sent + host.response.wire_size() as u64),
        b"headers_bytes" => int(host.response.wire_size()),
        b"grpc_messages" => int(record.grpc_messages.as_ref()?[1].count),
        b"backend_latency" => Some(Attribute::Duration(i64::try_from(record.upstream_time?.as_nanos()).ok()?)),
        _ => None,
    }
}

fn connection<'a>(host: &'a RequestHost, leaf: &[u8]) -> Option<Attribute<'a>> {
    let info = &host.connection.info;
    let tls = info.tls.as_deref();
    let peer = info.peer_identity().map(|peer| peer.facts());
    let local = tls.and_then(|tls| tls.local.as_deref()).and_then(|entry| entry.leaf());
    let name = |text: Option<&'a str>| text.and_then(|text| bytes(text.as_bytes()));
    match leaf {
        b"id" => int(host.connection.id),
        b"mtls" => Some(Attribute::Bool(tls.is_some_and(|tls| tls.mtls()))),
        b"requested_server_name" => name(info.server_name.as_deref()),
        b"tls_version" => name(tls.map(|tls| tls.version)),
        b"subject_peer_certificate" => name(peer.map(|facts| &*facts.subject)),
        b"subject_local_certificate" => name(local.map(|facts| &*facts.subject)),
        b"uri_san_peer_certificate" => name(peer.and_then(|facts| facts.uri_san())),
        b"uri_san_local_certificate" => name(local.and_then(|facts| facts.uri_san())),
        b"dns_san_peer_certificate" => name(peer.and_then(|facts| facts.dns_san())),
        b"dns_san_local_certificate" => name(local.and_then(|facts| facts.dns_san())),
        b"sha256_peer_certificate_digest" => name(peer.map(|facts| &*facts.sha256)),
        _ => None,
    }
}

/// The peer, and Weir's own two: the other end of the socket, and the client that trusted proxies tell of.
fn source(host: &RequestHost, leaf: &[u8]) -> Option<Attribute<'static>> {
    let info = &host.connection.info;
    match leaf {
        b"direct_address" => text(info.direct_peer?.to_string()),
        b"client_address" => text(host.client.or(info.peer.map(|peer| peer.ip()))?.to_string()),
        _ => address(info.peer, leaf),
    }
}

fn address(of: Option<std::net::SocketAddr>, leaf: &[u8]) -> Option<Attribute<'static>> {
    match leaf {
        b"address" => text(of?.to_string()),
        b"port" => int(of?.port()),
        _ => None,
    }
}

fn upstream<'a>(host: &'a RequestHost, leaf: &[u8]) -> Option<Attribute<'a>> {
    let endpoint = host.record.endpoint.as_ref()?;
    match (leaf, endpoint.connect_address()) {
        (b"address", address) => text(address.to_string()),
        (b"port", crate::upstream::Address::Ip(address)) => int(address.port()),
        (b"locality", _) => text(format!("{}/{}/{}", endpoint.locality.region, endpoint.locality.zone, endpoint.locality.sub_zone)),
        (b"request_attempt_count", _) => int(host.record.attempts),
        _ => None,
    }
}

/// What Envoy has no name for.
fn weir<'a>(host: &'a RequestHost, leaf: &[u8]) -> Option<Attribute<'a>> {
    match leaf {
        b"revision" => int(host.service.snapshot.upgrade()?.shared.generation),
        _ => None,
    }
}

/// `key`: one value of a map.
fn xds<'a>(host: &'a RequestHost, leaf: &[u8], key: &[u8]) -> Option<Attribute<'a>> {
    let map = |labels: &'a std::collections::BTreeMap<String, String>| {
        if !key.is_empty() {
            return bytes(labels.get(std::str::from_utf8(key).ok()?)?.as_bytes());
        }
        let pair = |(key, value): (&'a String, &'a String)| (Cow::Borrowed(key.as_bytes()), Cow::Borrowed(value.as_bytes()));
        Some(Attribute::Map(labels.iter().map(pair).collect()))
    };
    match leaf {
        b"cluster_name" => bytes(host.record.cluster.as_deref()?.as_bytes()),
        b"route_name" => bytes(host.record.route.as_deref().unwrap_or(&host.action().name).as_bytes()),
        b"route_metadata" => map(&host.action().metadata),
        b"upstream_host_metadata" => map(&host.record.endpoint.as_ref()?.metadata),
        b"filter_chain_name" => bytes(host.connection.branch.as_bytes()),
        b"listener_name" => bytes(host.connection.listener.as_bytes()),
        _ => None,
    }
}
