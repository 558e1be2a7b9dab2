//! What one proxy is to have: every resource under its name, encoded once and shared by all who have the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::config::Bootstrap;
use weir_model::discovery;
use weir_model::protobuf::Any;
use weir_model::resource::{Kind, Resource, version};

/// A resource as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// A digest of its bytes.
    pub version: Arc<str>,
    bytes: Arc<[u8]>,
    kind: Kind,
}

impl Encoded {
    fn new<R: Resource>(resource: &R) -> Self {
        let bytes = resource.encode_to_vec();
        Self { version: version(&bytes).into(), bytes: bytes.into(), kind: R::KIND }
    }

    /// In the form of discovery.
    #[must_use]
    pub fn message(&self, name: &str) -> discovery::Resource {
        let any = Any { type_url: self.kind.type_url().to_owned(), value: self.bytes.to_vec() };
        discovery::Resource { name: name.to_owned(), version: self.version.to_string(), resource: Some(any), ..Default::default() }
    }
}

/// What one proxy is to have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View(BTreeMap<Kind, BTreeMap<Arc<str>, Encoded>>);

impl View {
    /// What a configuration holds. What is as it was `before` is shared with it.
    #[must_use]
    pub fn new(configuration: &Bootstrap, before: Option<&Self>) -> Self {
        let mut view = Self::default();
        view.add(&configuration.secrets, before);
        view.add(&configuration.endpoints, before);
        view.add(&configuration.clusters, before);
        view.add(&configuration.filter_chains, before);
        view.add(&configuration.listeners, before);
        view
    }

    fn add<R: Resource>(&mut self, resources: &[R], before: Option<&Self>) {
        let known = before.map(|before| before.of(R::KIND));
        let all = resources.iter().map(|resource| {
            let encoded = Encoded::new(resource);
            match known.and_then(|known| known.get_key_value(resource.name())) {
                Some((name, same)) if same.version == encoded.version => (Arc::clone(name), same.clone()),
                _ => (resource.name().into(), encoded),
            }
        });
        self.0.insert(R::KIND, all.collect());
    }

    /// Its resources of a kind, by name.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &BTreeMap<Arc<str>, Encoded> {
        static NONE: BTreeMap<Arc<str>, Encoded> = BTreeMap::new();
        self.0.get(&kind).unwrap_or(&NONE)
    }
}
