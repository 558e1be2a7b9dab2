//! A whole configuration as a value: resources by kind and name, each shared, each with its version and where it is from.
//!
//! What always holds: cloning is five pointers; a resource's `Arc` is replaced exactly when the resource, or a file that it names, has changed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prost::Message as _;
use weir_model::config::{
    Branch, Cluster, DataSource, Endpoints, FilterChain, Listener, Secret, branch, cluster, data_source, module, secret,
};
pub use weir_model::resource::Kind;
use weir_model::validate::{Context, validate_resource};

/// The name of a kind's message.
fn message(kind: Kind) -> &'static str {
    kind.type_url().rsplit('.').next().unwrap_or_default()
}

/// Whether a proxy asks for all of a kind, instead of for those that others name.
#[must_use]
pub fn is_wildcard(kind: Kind) -> bool {
    matches!(kind, Kind::Listener | Kind::FilterChain | Kind::Cluster)
}

/// What a resource is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name, unique within the kind.
    pub name: Arc<str>,
}

impl Key {
    /// The key of `name` among its kind.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", message(self.kind), self.name)
    }
}

/// A resource.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are the kinds")]
pub enum Value {
    Listener(Arc<Listener>),
    FilterChain(Arc<FilterChain>),
    Cluster(Arc<Cluster>),
    Endpoints(Arc<Endpoints>),
    Secret(Arc<Secret>),
}

/// The same expression for the message of every kind.
macro_rules! each {
    ($value:expr, $message:ident => $result:expr) => {
        match $value {
            Value::Listener($message) => $result,
            Value::FilterChain($message) => $result,
            Value::Cluster($message) => $result,
            Value::Endpoints($message) => $result,
            Value::Secret($message) => $result,
        }
    };
}

impl Value {
    /// Reads one of `kind` from its wire form.
    ///
    /// # Errors
    /// When the bytes are not one.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(match kind {
            Kind::Listener => Self::Listener(Arc::new(Listener::decode(bytes)?)),
            Kind::FilterChain => Self::FilterChain(Arc::new(FilterChain::decode(bytes)?)),
            Kind::Cluster => Self::Cluster(Arc::new(Cluster::decode(bytes)?)),
            Kind::Endpoints => Self::Endpoints(Arc::new(Endpoints::decode(bytes)?)),
            Kind::Secret => Self::Secret(Arc::new(Secret::decode(bytes)?)),
        })
    }

    /// Its wire form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        each!(self, message => message.encode_to_vec())
    }

    /// How long its wire form is.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        each!(self, message => message.encoded_len())
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Listener(_) => Kind::Listener,
            Self::FilterChain(_) => Kind::FilterChain,
            Self::Cluster(_) => Kind::Cluster,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Secret(_) => Kind::Secret,
        }
    }

    /// The name that it gives itself.
    #[must_use]
    pub fn name(&self) -> &str {
        each!(self, message => &message.name)
    }

    /// Whether both are the same allocation: nothing has changed.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Listener(a), Self::Listener(b)) => Arc::ptr_eq(a, b),
            (Self::FilterChain(a), Self::FilterChain(b)) => Arc::ptr_eq(a, b),
            (Self::Cluster(a), Self::Cluster(b)) => Arc::ptr_eq(a, b),
            (Self::Endpoints(a), Self::Endpoints(b)) => Arc::ptr_eq(a, b),
            (Self::Secret(a), Self::Secret(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The same content in an allocation of its own: a file that it names has changed.
    #[must_use]
    pub fn renewed(&self) -> Self {
        match self {
            Self::Listener(message) => Self::Listener(Arc::new((**message).clone())),
            Self::FilterChain(message) => Self::FilterChain(Arc::new((**message).clone())),
            Self::Cluster(message) => Self::Cluster(Arc::new((**message).clone())),
            Self::Endpoints(message) => Self::Endpoints(Arc::new((**message).clone())),
            Self::Secret(message) => Self::Secret(Arc::new((**message).clone())),
        }
    }

    /// The resources that it cannot do without: chains, endpoints and secrets by name.
    #[must_use]
    pub fn needs(&self) -> Vec<Key> {
        match self {
            Self::Listener(listener) => {
                let mut keys = Vec::new();
                for branch in listener.branches.iter().chain(&listener.default_branch) {
                    branch_needs(branch, &mut keys);
                }
                keys
            }
            Self::Cluster(cluster) => cluster_needs(cluster),
            Self::FilterChain(_) | Self::Endpoints(_) | Self::Secret(_) => Vec::new(),
        }
    }

    /// Whether it makes sense on its own.
    ///
    /// # Errors
    /// What is wrong, in sentences.
    pub fn check(&self, context: &Context) -> Result<(), String> {
        let found = each!(self, message => validate_resource(&**message, context));
        let errors: Vec<String> = found.iter().filter(|problem| problem.is_error()).map(ToString::to_string).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }

    /// The files that it names.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        match self {
            Self::FilterChain(chain) => {
                let sources = chain.filters.iter().filter_map(|filter| filter.module.as_ref()?.source.as_ref());
                sources.filter_map(|source| if let module::Source::File(path) = source { Some(path.as_str()) } else { None }).collect()
            }
            Self::Secret(secret) => secret_sources(secret).into_iter().filter_map(data_file).collect(),
            Self::Listener(_) | Self::Cluster(_) | Self::Endpoints(_) => Vec::new(),
        }
    }
}

fn data_file(source: &DataSource) -> Option<&str> {
    match source.source.as_ref()? {
        data_source::Source::File(path) => Some(path),
        data_source::Source::Inline(_) | data_source::Source::InlineBytes(_) => None,
    }
}

fn secret_sources(secret: &Secret) -> Vec<&DataSource> {
    match &secret.kind {
        Some(secret::Kind::KeyPair(pair)) => [&pair.certificate_chain, &pair.private_key, &pair.ocsp].into_iter().flatten().collect(),
        Some(secret::Kind::TrustRoots(roots)) => [&roots.certificates, &roots.revocation_lists].into_iter().flatten().collect(),
        None => Vec::new(),
    }
}

fn branch_needs(branch: &Branch, keys: &mut Vec<Key>) {
    let chain = match &branch.protocol {
        Some(branch::Protocol::Http(http)) => http.filter_chain.as_str(),
        Some(branch::Protocol::Tcp(tcp)) => tcp.filter_chain.as_str(),
        None => "",
    };
    if !chain.is_empty() {
        keys.push(Key::new(Kind::FilterChain, chain));
    }
    let Some(tls) = &branch.tls else { return };
    let roots = tls.client_auth.as_ref().map(|auth| &auth.trust_roots);
    let secrets = tls.certificates.iter().chain(roots).filter(|name| !name.is_empty());
    keys.extend(secrets.map(|name| Key::new(Kind::Secret, name.as_str())));
}

fn cluster_needs(cluster: &Cluster) -> Vec<Key> {
    let mut keys = Vec::new();
    if let Some(cluster::Discovery::EndpointsFrom(name)) = &cluster.discovery {
        keys.push(Key::new(Kind::Endpoints, if name.is_empty() { cluster.name.as_str() } else { name.as_str() }));
    }
    if let Some(tls) = &cluster.tls {
        let secrets = [&tls.trust_roots, &tls.certificate].into_iter().filter(|name| !name.is_empty());
        keys.extend(secrets.map(|name| Key::new(Kind::Secret, name.as_str())));
    }
    keys
}

/// A resource with its version and where it is from.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The resource.
    pub value: Value,
    /// The controller's, or the hash of its text.
    pub version: Arc<str>,
    /// The file or the controller, for people.
    pub origin: Arc<str>,
}

type Map = Arc<BTreeMap<Arc<str>, Entry>>;

/// All resources.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    maps: [Map; Kind::ALL.len()],
}

/// The resources of one kind as their type.
macro_rules! typed {
    ($(#[$all_doc:meta] $all:ident, #[$one_doc:meta] $one:ident: $variant:ident($message:ty);)+) => {
        $(
            #[$all_doc]
            pub fn $all(&self) -> impl Iterator<Item = (&Arc<$message>, &Entry)> {
                self.of(Kind::$variant).values().filter_map(|entry| match &entry.value {
                    Value::$variant(message) => Some((message, entry)),
                    _ => None,
                })
            }

            #[$one_doc]
            #[must_use]
            pub fn $one(&self, name: &str) -> Option<&Arc<$message>> {
                match &self.of(Kind::$variant).get(name)?.value {
                    Value::$variant(message) => Some(message),
                    _ => None,
                }
            }
        )+
    };
}

impl Resources {
    typed! {
        /// All listeners, by name.
        listeners,
        /// The listener of this name.
        listener: Listener(Listener);
        /// All filter chains, by name.
        filter_chains,
        /// The filter chain of this name.
        filter_chain: FilterChain(FilterChain);
        /// All clusters, by name.
        clusters,
        /// The cluster of this name.
        cluster: Cluster(Cluster);
        /// All endpoints that are resources of their own, by name.
        all_endpoints,
        /// The endpoints of this name.
        endpoints: Endpoints(Endpoints);
        /// All secrets, by name.
        secrets,
        /// The secret of this name.
        secret: Secret(Secret);
    }

    /// Everything of one kind, by name.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &BTreeMap<Arc<str>, Entry> {
        &self.maps[kind as usize]
    }

    /// The resource that `key` names.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.of(key.kind).get(&key.name)
    }

    /// Puts a resource in the place of its predecessor, under `name`.
    pub fn insert(&mut self, name: Arc<str>, entry: Entry) -> Option<Entry> {
        Arc::make_mut(&mut self.maps[entry.value.kind() as usize]).insert(name, entry)
    }

    /// Takes a resource out.
    pub fn remove(&mut self, key: &Key) -> Option<Entry> {
        let map = &mut self.maps[key.kind as usize];
        if map.contains_key(&key.name) { Arc::make_mut(map).remove(&key.name) } else { None }
    }

    /// Puts `entry` in, or takes out what is there.
    pub fn set(&mut self, key: &Key, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.insert(Arc::clone(&key.name), entry),
            None => self.remove(key),
        };
    }

    /// Every resource with its key.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Entry)> {
        Kind::ALL.into_iter().flat_map(|kind| self.of(kind).iter().map(move |(name, entry)| (Key { kind, name: Arc::clone(name) }, entry)))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.maps.iter().map(|map| map.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What differs from `before`: added, replaced and removed, in order.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<Key> {
        let mut keys = Vec::new();
        for kind in Kind::ALL {
            let (old, new) = (&before.maps[kind as usize], &self.maps[kind as usize]);
            if Arc::ptr_eq(old, new) {
                continue;
            }
            let replaced = |(name, entry): (&Arc<str>, &Entry)| {
                (!old.get(name).is_some_and(|other| other.value.is(&entry.value))).then(|| Key { kind, name: Arc::clone(name) })
            };
            keys.extend(new.iter().filter_map(replaced));
            keys.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| Key { kind, name: Arc::clone(name) }));
        }
        keys
    }

    /// These, and those of `below` whose names are not taken; and which of those were.
    #[must_use]
    pub fn over(&self, below: &Self) -> (Self, Vec<Key>) {
        let (mut all, mut hidden) = (self.clone(), Vec::new());
        for kind in Kind::ALL {
            let (upper, lower) = (&self.maps[kind as usize], &below.maps[kind as usize]);
            if upper.is_empty() || lower.is_empty() {
                all.maps[kind as usize] = Arc::clone(if upper.is_empty() { lower } else { upper });
                continue;
            }
            let mut map = BTreeMap::clone(lower);
            for (name, entry) in upper.iter() {
                if map.insert(Arc::clone(name), entry.clone()).is_some() {
                    hidden.push(Key { kind, name: Arc::clone(name) });
                }
            }
            all.maps[kind as usize] = Arc::new(map);
        }
        (all, hidden)
    }
}

impl FromIterator<Entry> for Resources {
    /// Under the names that the resources give themselves; the last of a name stays.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut resources = Self::default();
        for entry in entries {
            resources.insert(entry.value.name().into(), entry);
        }
        resources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str) -> Entry {
        let value = Value::Cluster(Arc::new(Cluster { name: name.into(), ..Cluster::default() }));
        Entry { value, version: "1".into(), origin: "test".into() }
    }

    #[test]
    fn changes_are_found_by_identity() {
        let before: Resources = [cluster("a"), cluster("b"), cluster("c")].into_iter().collect();
        let mut after = before.clone();
        assert!(after.changes_since(&before).is_empty());
        let renewed = Entry { value: before.of(Kind::Cluster)["b"].value.renewed(), ..cluster("b") };
        after.insert("b".into(), renewed);
        after.remove(&Key::new(Kind::Cluster, "c"));
        after.insert("d".into(), cluster("d"));
        let names: Vec<String> = after.changes_since(&before).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["Cluster/b", "Cluster/d", "Cluster/c"]);
        assert_eq!(before.len(), 3, "the value before is as it was");
    }

    #[test]
    fn the_upper_layer_wins_and_says_so() {
        let upper: Resources = [cluster("a")].into_iter().collect();
        let lower: Resources = [cluster("a"), cluster("b")].into_iter().collect();
        let (all, hidden) = upper.over(&lower);
        assert_eq!(hidden, [Key::new(Kind::Cluster, "a")]);
        assert_eq!(all.of(Kind::Cluster).keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(all.of(Kind::Cluster)["a"].value.is(&upper.of(Kind::Cluster)["a"].value));
    }

    #[test]
    fn needs_are_what_a_listener_or_a_cluster_names() {
        use weir_model::config::{ClientAuth, DownstreamTls, Http, UpstreamTls};
        let auth = ClientAuth { trust_roots: "roots".into(), ..ClientAuth::default() };
        let tls = DownstreamTls { certificates: vec!["site".into()], client_auth: Some(auth), ..DownstreamTls::default() };
        let http = Http { filter_chain: "edge".into(), ..Http::default() };
        let branch = Branch { tls: Some(tls), protocol: Some(branch::Protocol::Http(http)), ..Branch::default() };
        let listener = Listener { name: "l".into(), branches: vec![branch], ..Listener::default() };
        let needs: Vec<String> = Value::Listener(Arc::new(listener)).needs().iter().map(ToString::to_string).collect();
        assert_eq!(needs, ["FilterChain/edge", "Secret/site", "Secret/roots"]);
        let cluster = Cluster {
            name: "c".into(),
            discovery: Some(cluster::Discovery::EndpointsFrom(String::new())),
            tls: Some(UpstreamTls { certificate: "me".into(), ..UpstreamTls::default() }),
            ..Cluster::default()
        };
        let needs: Vec<String> = Value::Cluster(Arc::new(cluster)).needs().iter().map(ToString::to_string).collect();
        assert_eq!(needs, ["Endpoints/c", "Secret/me"]);
    }
}
