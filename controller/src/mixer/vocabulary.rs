//! The attributes that Mixer knew, with their types.
//!
//! The proxies filled the first part, and the Kubernetes adapter the second. An attribute that is not here is a mistake in whatever names it.

use std::collections::BTreeMap;

use super::expression::Type;

/// The attributes that an expression may name.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary(BTreeMap<String, Type>);

impl Vocabulary {
    /// Istio's own.
    #[must_use]
    pub fn istio() -> Self {
        PROXY.iter().chain(KUBERNETES).flat_map(|(kind, names)| names.split_whitespace().map(|name| (name, *kind))).collect()
    }

    /// One more.
    pub fn add(&mut self, name: &str, kind: Type) {
        self.0.insert(name.to_owned(), kind);
    }

    /// The type of an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Type> {
        self.0.get(name).copied()
    }
}

impl<N: Into<String>> FromIterator<(N, Type)> for Vocabulary {
    fn from_iter<I: IntoIterator<Item = (N, Type)>>(attributes: I) -> Self {
        Self(attributes.into_iter().map(|(name, kind)| (name.into(), kind)).collect())
    }
}

type Names = (Type, &'static str);

const PROXY: &[Names] = &[
    (
        Type::String,
        "origin.uid origin.user request.id request.host request.method request.path request.url_path request.reason request.referer
         request.scheme request.useragent request.api_key request.auth.principal request.auth.audiences request.auth.presenter
         request.auth.raw_claims response.grpc_status response.grpc_message source.uid source.user source.principal source.service
         source.domain destination.uid destination.user destination.principal destination.domain destination.service.domain
         connection.event connection.id connection.requested_server_name
         context.protocol context.proxy_error_code context.proxy_version context.reporter.kind context.reporter.uid api.service
         api.version api.operation api.protocol rbac.permissive.response_code rbac.permissive.effective_policy_id check.error_message",
    ),
    (
        Type::Int64,
        "request.size request.total_size response.code response.size response.total_size destination.port source.port
         connection.received.bytes connection.received.bytes_total connection.sent.bytes connection.sent.bytes_total check.error_code",
    ),
    (Type::Bool, "connection.mtls context.reporter.local check.cache_hit quota.cache_hit"),
    (Type::Timestamp, "request.time response.time context.time context.timestamp"),
    (Type::Duration, "response.duration connection.duration"),
    (Type::StringMap, "request.headers request.query_params request.auth.claims response.headers"),
    (Type::IpAddress, "origin.ip"),
];

const KUBERNETES: &[Names] = &[
    (
        Type::String,
        "source.name source.namespace source.owner source.serviceAccount source.services source.workload.uid source.workload.name
         source.workload.namespace destination.name destination.namespace destination.owner destination.serviceAccount
         destination.container.name destination.service destination.service.uid destination.service.name
         destination.service.namespace destination.service.host destination.workload.uid destination.workload.name
         destination.workload.namespace",
    ),
    (Type::StringMap, "source.labels source.metadata destination.labels destination.metadata"),
    (Type::IpAddress, "source.ip destination.ip"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_their_types() {
        let istio = Vocabulary::istio();
        assert_eq!(istio.get("source.labels"), Some(Type::StringMap));
        assert_eq!(istio.get("source.ip"), Some(Type::IpAddress));
        assert_eq!(istio.get("target.labels"), None);
        assert!(istio.0.len() > 75, "{}", istio.0.len());
    }
}
