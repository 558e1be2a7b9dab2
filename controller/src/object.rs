//! An object as Kubernetes has it: what it is called, and what it says.
//!
//! Always: an object knows where it came from, so that whatever is found wrong with it can be shown there. What its `spec` means is read elsewhere,
//! kind by kind; one that cannot be read takes no other down.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use weir_model::diagnostic::{Diagnostic, Place};
use weir_model::yaml::document::{Document, Way};

use crate::finding::{Code, Finding};

/// What an object is called: unique at one time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// `networking.istio.io`; empty for the core group.
    pub group: Arc<str>,
    /// `VirtualService`.
    pub kind: Arc<str>,
    /// Empty for what belongs to the cluster.
    pub namespace: Arc<str>,
    /// Its name in the namespace.
    pub name: Arc<str>,
}

/// `VirtualService default/reviews`
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// What is known of every object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// What selectors look at.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// What people and tools noted.
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
    /// When it was created, in RFC 3339: older objects win over newer ones. Objects of a folder have none unless it is written.
    pub created: Arc<str>,
    /// Counts changes of the spec.
    pub generation: i64,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Object {
    /// What it is called.
    pub id: Id,
    /// `v1beta1`.
    pub version: Arc<str>,
    /// What is known of every object.
    pub meta: Meta,
    /// All that it says, `apiVersion` and `metadata` included.
    pub body: Arc<Map<String, Json>>,
    document: Option<Arc<Document>>,
    /// Where in its document it stands: an item of a list, or all of it.
    at: Way,
}

/// Where objects live that do not say it, in a folder.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Kinds that belong to the cluster and not to a namespace.
const CLUSTER_KINDS: [&str; 9] = [
    "Namespace",
    "Node",
    "GatewayClass",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "PersistentVolume",
];

impl Object {
    /// The objects of a document: one, or the items of a list.
    #[must_use]
    pub fn of_document(document: Document) -> (Vec<Self>, Vec<Diagnostic>) {
        let (mut objects, mut diagnostics) = (Vec::new(), Vec::new());
        let document = Arc::new(document);
        let items = match (document.value.get("kind").and_then(Json::as_str), document.value.get("items")) {
            (Some(kind), Some(Json::Array(items))) if kind.ends_with("List") => {
                let way = |index| Way::ROOT.key("items").index(index);
                items.iter().enumerate().map(|(index, item)| (way(index), item)).collect()
            }
            _ => vec![(Way::ROOT, &document.value)],
        };
        for (way, item) in items {
            match Self::read(item) {
                Ok(object) => objects.push(Self { document: Some(Arc::clone(&document)), at: way, ..object }),
                Err((field, message)) => {
                    let way: Way = way.steps().iter().chain(field.steps()).cloned().collect();
                    let nobody = Id { group: "".into(), kind: "".into(), namespace: "".into(), name: "".into() };
                    let place = document.place(&way);
                    diagnostics.push(Finding::new(Code::NotAnObject, &nobody, way, message).diagnostic(Some(place)));
                }
            }
        }
        (objects, diagnostics)
    }

    /// An object of a cluster, or of a test.
    ///
    /// # Errors
    /// The field that keeps it from being one, and why.
    pub fn read(value: &Json) -> Result<Self, (Way, String)> {
        let Json::Object(body) = value else { return Err((Way::ROOT, "this is not a mapping".into())) };
        let text = |field: &str| match body.get(field) {
            Some(Json::String(text)) if !text.is_empty() => Ok(text.as_str()),
            Some(_) => Err((Way::ROOT.key(field), "it must be a text".to_owned())),
            None => Err((Way::ROOT, format!("{field} is missing"))),
        };
        let (kind, version) = (text("kind")?, text("apiVersion")?);
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let metadata = Way::ROOT.key("metadata");
        let Some(Json::Object(meta)) = body.get("metadata") else { return Err((metadata, "metadata is missing".into())) };
        let name = match meta.get("name") {
            Some(Json::String(name)) if !name.is_empty() => name.as_str(),
            _ => return Err((metadata.key("name"), "metadata.name is missing".into())),
        };
        let namespace = match meta.get("namespace").and_then(Json::as_str) {
            _ if CLUSTER_KINDS.contains(&kind) => "",
            None | Some("") => DEFAULT_NAMESPACE,
            Some(namespace) => namespace,
        };
        Ok(Self {
            id: Id { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() },
            version: version.into(),
            meta: Meta {
                labels: texts(meta.get("labels")),
                annotations: texts(meta.get("annotations")),
                created: meta.get("creationTimestamp").and_then(Json::as_str).unwrap_or_default().into(),
                generation: meta.get("generation").and_then(Json::as_i64).unwrap_or_default(),
            },
            body: Arc::new(body.clone()),
            document: None,
            at: Way::ROOT,
        })
    }

    /// The file that it was read from.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.document.as_deref().map(Document::file)
    }

    /// Where a field of it stands, if it was read from a file.
    #[must_use]
    pub fn place(&self, field: &Way) -> Option<Place> {
        let way = self.at.steps().iter().chain(field.steps()).cloned().collect();
        self.document.as_deref().map(|document| document.place(&way))
    }

    /// A finding about it, as people are shown it.
    #[must_use]
    pub fn show(&self, finding: &Finding) -> Diagnostic {
        finding.diagnostic(self.place(&finding.way))
    }

    /// What it is to do; null if it does not say.
    #[must_use]
    pub fn spec(&self) -> &Json {
        self.body.get("spec").unwrap_or(&Json::Null)
    }

    /// The order of objects of which the first wins: age, name, namespace.
    #[must_use]
    pub fn seniority(&self) -> (Arc<str>, Arc<str>, Arc<str>) {
        (self.meta.created.clone(), self.id.name.clone(), self.id.namespace.clone())
    }
}

fn texts(value: Option<&Json>) -> BTreeMap<Arc<str>, Arc<str>> {
    let Some(Json::Object(map)) = value else { return BTreeMap::new() };
    let text = |value: &Json| match value {
        Json::String(text) => Arc::from(text.as_str()),
        Json::Null => Arc::from(""),
        other => Arc::from(other.to_string()),
    };
    map.iter().map(|(key, value)| (Arc::from(key.as_str()), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::yaml::document::documents;

    fn objects(text: &str) -> (Vec<Object>, Vec<Diagnostic>) {
        let read = documents("f.yaml", text.as_bytes());
        assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
        let (mut objects, mut diagnostics) = (Vec::new(), Vec::new());
        for (mut some, mut wrong) in read.documents.into_iter().map(Object::of_document) {
            objects.append(&mut some);
            diagnostics.append(&mut wrong);
        }
        (objects, diagnostics)
    }

    #[test]
    fn documents_and_lists_hold_objects() {
        let text = "kind: List\napiVersion: v1\nitems:\n- {kind: Service, apiVersion: v1, metadata: {name: a, namespace: n, labels: {x: y, n: 1}}}\n\
                    - {kind: Namespace, apiVersion: v1, metadata: {name: n}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                    metadata: {name: b}\nspec: {hosts: [b]}\n";
        let (objects, diagnostics) = objects(text);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let names: Vec<_> = objects.iter().map(|object| object.id.to_string()).collect();
        assert_eq!(names, ["Service n/a", "Namespace n", "VirtualService default/b"]);
        assert_eq!(&*objects[0].meta.labels["n"], "1");
        assert_eq!((&*objects[2].id.group, &*objects[2].version), ("networking.istio.io", "v1"));
        let place = |object: &Object, way: Way| object.place(&way).map(|place| place.to_string());
        assert_eq!(place(&objects[0], Way::ROOT.key("kind")).as_deref(), Some("f.yaml:4:10"));
        assert_eq!(place(&objects[2], Way::ROOT.key("spec").key("hosts").index(0)).as_deref(), Some("f.yaml:10:16"));
    }

    #[test]
    fn what_is_no_object_is_said_and_the_others_are_read() {
        let (objects, diagnostics) = objects("just: this\n---\nkind: A\napiVersion: v1\nmetadata: {name: a}\n---\n- 1\n");
        assert_eq!((objects.len(), diagnostics.len()), (1, 2));
        assert!(diagnostics[0].message.contains("kind is missing"), "{diagnostics:?}");
    }
}
