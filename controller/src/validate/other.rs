//! ProxyConfig, and the kinds that are known and not done.

use super::{At, policy};
use crate::Code;
use crate::api::istio::{EnvoyFilter, ProxyConfig};

pub(super) fn check_proxy_config(at: &At<'_>, spec: &ProxyConfig) {
    policy::check_selector(at, spec.selector.as_ref());
    if spec.concurrency.is_some_and(|concurrency| concurrency < 0) {
        at.key("concurrency").invalid("it is less than 0");
    }
}

const ENVOY_FILTER: &str = "Rate limits: RateLimit. Headers, Lua and other logic: a WasmPlugin or WasmFilter. Body and header sizes, timeouts, compression, \
                            the PROXY header and access logs: the filters and settings of Weir. See the migration notes.";

pub(super) fn check_envoy_filter(at: &At<'_>, spec: &EnvoyFilter) {
    policy::check_workload_selector(at, spec.workload_selector.as_ref());
    let root = At { report: at.report, up: None, step: super::Link::Root };
    root.key("kind").tell(Code::Unsupported, "an EnvoyFilter changes the inside of another proxy, which Weir does not have", ENVOY_FILTER);
}

/// Kinds that Istio once had, or has for its own parts, and what is used today.
const GONE: [(&str, &str, &str); 11] = [
    ("rbac.istio.io", "ServiceRole", "Write an AuthorizationPolicy."),
    ("rbac.istio.io", "ServiceRoleBinding", "Write an AuthorizationPolicy."),
    ("rbac.istio.io", "RbacConfig", "Write an AuthorizationPolicy."),
    ("rbac.istio.io", "ClusterRbacConfig", "Write an AuthorizationPolicy."),
    ("rbac.istio.io", "AuthorizationPolicy", "Write an AuthorizationPolicy of security.istio.io."),
    ("authentication.istio.io", "Policy", "Write a PeerAuthentication, and a RequestAuthentication for tokens."),
    ("authentication.istio.io", "MeshPolicy", "Write a PeerAuthentication in the root namespace."),
    ("install.istio.io", "IstioOperator", "Weir is installed with its own manifests."),
    ("operator.istio.io", "IstioControlPlane", "Weir is installed with its own manifests."),
    ("extensions.istio.io", "ExtensionFilter", "Write a TrafficExtension."),
    ("networking.istio.io", "ServiceDependency", "Write a Sidecar."),
];

/// A kind that has no checks of its own.
pub(super) fn check_kind(root: &At<'_>) {
    let id = &root.object().id;
    if let Some((.., help)) = GONE.iter().find(|(group, kind, _)| *group == &*id.group && *kind == &*id.kind) {
        root.key("kind").tell(Code::Unsupported, format!("{} is an older kind of Istio's", id.kind), help);
    } else if id.group.ends_with("istio.io") {
        root.key("kind").tell(Code::UnknownKind, format!("{} is not a kind of {}", id.kind, id.group), "");
    }
}
