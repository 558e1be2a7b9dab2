//! Who takes part in a call, as far as labels say: workloads and services.
//!
//! This proxy's own side is configured. The other side shows itself by its certificate, which names a namespace, and, where it is called, by the labels of
//! the endpoint (`xds.upstream_host_metadata`). What always holds: what nobody says is `unknown`, as in Istio.

use crate::config::Workload;

/// What stands where nothing is known.
pub(crate) const UNKNOWN: &str = "unknown";

/// A side of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) workload: String,
    pub(crate) namespace: String,
    pub(crate) cluster: String,
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) service: String,
    pub(crate) revision: String,
    pub(crate) principal: String,
}

impl Peer {
    /// This proxy's own side.
    pub(crate) fn own(workload: &Workload) -> Self {
        Self {
            workload: workload.name.clone(),
            namespace: workload.namespace.clone(),
            cluster: workload.cluster.clone(),
            app: workload.app.clone(),
            version: workload.version.clone(),
            service: workload.canonical_service.clone(),
            revision: workload.canonical_revision.clone(),
            principal: workload.principal.clone(),
        }
    }

    /// Takes over what an identity says: `spiffe://TRUST/ns/NAMESPACE/sa/ACCOUNT`.
    pub(crate) fn identify(&mut self, principal: &str) {
        principal.clone_into(&mut self.principal);
        let mut steps = principal.strip_prefix("spiffe://").unwrap_or_default().split('/').skip(1);
        if self.namespace.is_empty() && steps.next() == Some("ns") {
            self.namespace = steps.next().unwrap_or_default().to_owned();
        }
    }

    /// Takes over what an endpoint's labels say.
    pub(crate) fn describe<'p>(&mut self, labels: impl Iterator<Item = (&'p [u8], &'p [u8])>) {
        let (mut name, mut generic) = (false, String::new());
        for (key, value) in labels {
            let (Ok(key), Ok(value)) = (std::str::from_utf8(key), std::str::from_utf8(value)) else { continue };
            let place = match key {
                // Istio's own form: workload, namespace, canonical service, its revision, cluster.
                "workload" if value.contains(';') => {
                    let mut parts = value.split(';').map(str::to_owned);
                    for place in [&mut self.workload, &mut self.namespace, &mut self.service, &mut self.revision, &mut self.cluster] {
                        *place = parts.next().unwrap_or_default();
                    }
                    continue;
                }
                "workload" | "workload_name" => &mut self.workload,
                "namespace" => &mut self.namespace,
                "cluster" | "topology.istio.io/cluster" => &mut self.cluster,
                "app" => &mut self.app,
                "version" => &mut self.version,
                "service.istio.io/canonical-name" => {
                    name = true;
                    &mut self.service
                }
                "app.kubernetes.io/name" => &mut generic,
                "service.istio.io/canonical-revision" => &mut self.revision,
                "principal" => &mut self.principal,
                _ => continue,
            };
            value.clone_into(place);
        }
        // The canonical service is a label of its own, or the application's name.
        if !name && self.service.is_empty() {
            self.service = if generic.is_empty() { self.app.clone() } else { generic };
        }
        if self.revision.is_empty() {
            self.revision.clone_from(&self.version);
        }
    }
}

/// A service: its host, its name, its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) host: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

impl Service {
    /// From its host; `namespace` is meant where the host does not say one.
    pub(crate) fn of_host(host: &str, namespace: &str) -> Self {
        if host.is_empty() {
            return Self { host: UNKNOWN.into(), name: UNKNOWN.into(), namespace: or_unknown(namespace).into() };
        }
        let in_cluster = host.split_once('.').and_then(|(name, rest)| Some((name, rest.split_once(".svc")?.0)));
        let (name, namespace) = in_cluster.unwrap_or((host, namespace));
        Self { host: host.into(), name: name.into(), namespace: or_unknown(namespace).into() }
    }

    /// From a cluster's name: `outbound|9080|v1|reviews.default.svc.cluster.local`, or any other.
    pub(crate) fn of_cluster(cluster: &str) -> Self {
        match cluster.rsplit_once('|') {
            Some((front, host)) if front.starts_with("outbound") || front.starts_with("inbound") => Self::of_host(host, ""),
            _ => Self::of_host(cluster, ""),
        }
    }
}

pub(crate) fn or_unknown(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_from_names() {
        let service = |cluster: &str| {
            let Service { host, name, namespace } = Service::of_cluster(cluster);
            format!("{host} {name} {namespace}")
        };
        assert_eq!(service("outbound|9080|v1|reviews.default.svc.cluster.local"), "reviews.default.svc.cluster.local reviews default");
        assert_eq!(service("inbound|9080||"), "unknown unknown unknown");
        assert_eq!(service("outbound|443||api.example.com"), "api.example.com api.example.com unknown");
        assert_eq!(service("backend"), "backend backend unknown");
    }

    #[test]
    fn peers_are_read_from_certificates_and_labels() {
        let mut peer = Peer::default();
        peer.identify("spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!((&*peer.namespace, &*peer.principal), ("shop", "spiffe://cluster.local/ns/shop/sa/cart"));
        let mut peer = Peer::default();
        peer.identify("not a name");
        assert_eq!(peer.namespace, "");
        peer.describe([(&b"app"[..], &b"cart"[..]), (b"version", b"v2"), (b"workload", b"cart-v2"), (b"x", b"\xff")].into_iter());
        assert_eq!((&*peer.workload, &*peer.service, &*peer.revision), ("cart-v2", "cart", "v2"));
        let mut peer = Peer::default();
        peer.describe([(&b"workload"[..], &b"cart-v2;shop;cart;v2;east"[..])].into_iter());
        assert_eq!((&*peer.workload, &*peer.namespace, &*peer.cluster), ("cart-v2", "shop", "east"));
    }
}
