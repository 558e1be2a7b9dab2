//! Who a proxy is, by what it says of itself.
//!
//! Either its node's `id` is of Istio's form, `router~10.0.0.1~NAME.NAMESPACE~DOMAIN` (or `sidecar~…`), or its metadata says `role`, `namespace` and
//! `addresses`. Labels are the node's. Until proxies prove who they are, a proxy is believed: serve on loopback only.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::discovery::Node;
use weir_model::protobuf::{Kind, Struct};

use crate::object::DEFAULT_NAMESPACE;
use crate::translate::{Proxy, Role};

/// The proxy that a node is.
///
/// # Errors
/// What is missing or makes no sense.
pub(super) fn proxy(node: &Node) -> Result<Proxy, String> {
    let empty = Struct::default();
    let metadata = node.metadata.as_ref().unwrap_or(&empty);
    let said = |name: &str| text(metadata, name).unwrap_or_default();
    let parts: Vec<&str> = node.id.split('~').collect();
    let (role, address, namespace) = match parts.as_slice() {
        [role, address, name, _] => (*role, *address, name.rsplit_once('.').map_or("", |(_, namespace)| namespace)),
        _ => (said("role"), "", said("namespace")),
    };
    let role = match role {
        "router" | "gateway" => Role::Gateway,
        "sidecar" | "" => Role::Sidecar,
        other => return Err(format!("node {:?}: there is no role {other:?}; it is gateway or sidecar", node.id)),
    };
    let addresses = said("addresses").split(',').chain([address]).map(str::trim).filter(|address| !address.is_empty());
    Ok(Proxy {
        role,
        namespace: if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }.into(),
        labels: labels(metadata),
        addresses: addresses.map(str::to_owned).collect(),
    })
}

fn text<'a>(metadata: &'a Struct, name: &str) -> Option<&'a str> {
    match metadata.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn labels(metadata: &Struct) -> BTreeMap<Arc<str>, Arc<str>> {
    let Some(Kind::StructValue(labels)) = metadata.fields.get("LABELS").and_then(|value| value.kind.as_ref()) else {
        return BTreeMap::new();
    };
    labels.fields.keys().filter_map(|name| Some((name.as_str().into(), text(labels, name)?.into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::protobuf::Value;

    #[test]
    fn a_node_says_who_it_is() {
        let id = |id: &str| Node { id: id.into(), ..Node::default() };
        let gateway = proxy(&id("router~10.0.0.7~edge-1.infra~infra.svc.cluster.local")).unwrap();
        assert_eq!(
            (gateway.role, &*gateway.namespace, gateway.addresses.as_slice()),
            (Role::Gateway, "infra", &["10.0.0.7".to_owned()][..])
        );
        let value = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
        let labels = Value { kind: Some(Kind::StructValue(Struct { fields: [("app".to_owned(), value("web"))].into() })) };
        let fields = [("role", value("sidecar")), ("namespace", value("n")), ("addresses", value("10.0.0.1, ::1")), ("LABELS", labels)];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let sidecar = proxy(&Node { metadata: Some(Struct { fields }), ..id("web-1") }).unwrap();
        assert_eq!((sidecar.role, &*sidecar.namespace, sidecar.addresses.len(), &*sidecar.labels["app"]), (Role::Sidecar, "n", 2, "web"));
        assert!(proxy(&id("waypoint~1~a.b~c")).unwrap_err().contains("waypoint"));
    }
}
