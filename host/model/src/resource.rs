//! The five kinds of resources: what discovery calls them, and when two of them are the same.
//!
//! Always: equal resources have equal versions, on every machine and in every process, for maps are encoded in the order of
//! their keys.

use std::fmt::Write as _;

use prost::Message;
use sha2::{Digest, Sha256};

use crate::config::{Cluster, Endpoints, FilterChain, Listener, Secret};
use crate::protobuf::Any;

/// What a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Trust roots, or a key pair.
    Secret,
    /// Endpoints of a cluster.
    Endpoints,
    /// Where requests go.
    Cluster,
    /// Filters.
    FilterChain,
    /// Where connections come in.
    Listener,
}

impl Kind {
    /// Every kind; what others refer to comes first.
    pub const ALL: [Self; 5] = [Self::Secret, Self::Endpoints, Self::Cluster, Self::FilterChain, Self::Listener];

    /// Its name in discovery.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Secret => Secret::TYPE_URL,
            Self::Endpoints => Endpoints::TYPE_URL,
            Self::Cluster => Cluster::TYPE_URL,
            Self::FilterChain => FilterChain::TYPE_URL,
            Self::Listener => Listener::TYPE_URL,
        }
    }

    /// The kind that discovery calls this.
    #[must_use]
    pub fn of_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// What people call it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Endpoints => "endpoints",
            Self::Cluster => "cluster",
            Self::FilterChain => "filter chain",
            Self::Listener => "listener",
        }
    }

    /// The list of `Bootstrap` that it stands in.
    #[must_use]
    pub const fn list(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Endpoints => "endpoints",
            Self::Cluster => "clusters",
            Self::FilterChain => "filterChains",
            Self::Listener => "listeners",
        }
    }
}

/// A message with a name, which discovery delivers on its own.
pub trait Resource: Message + Default + Clone + PartialEq + 'static {
    /// What it is.
    const KIND: Kind;
    /// What discovery calls it.
    const TYPE_URL: &'static str;

    /// Its name, unique among its kind.
    fn name(&self) -> &str;

    /// It, wrapped for discovery.
    fn to_any(&self) -> Any {
        Any { type_url: Self::TYPE_URL.to_owned(), value: self.encode_to_vec() }
    }

    /// Its version: a digest of its content.
    fn version(&self) -> String {
        version(&self.encode_to_vec())
    }
}

macro_rules! resources {
    ($($type:ident)*) => {$(
        impl Resource for $type {
            const KIND: Kind = Kind::$type;
            const TYPE_URL: &'static str = concat!("type.googleapis.com/weir.config.v1.", stringify!($type));

            fn name(&self) -> &str {
                &self.name
            }
        }
    )*};
}

resources!(Secret Endpoints Cluster FilterChain Listener);

/// The version of these bytes: the first half of their SHA-256, in hex.
#[must_use]
pub fn version(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_by_their_url() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_type_url(kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::Cluster.type_url(), "type.googleapis.com/weir.config.v1.Cluster");
        assert_eq!(Kind::of_type_url("type.googleapis.com/envoy.config.cluster.v3.Cluster"), None);
    }

    #[test]
    fn a_version_is_the_content() {
        let cluster = |metadata: [&str; 3]| Cluster {
            name: "a".into(),
            metadata: metadata.into_iter().map(|key| (key.into(), "v".into())).collect(),
            ..Cluster::default()
        };
        let one = cluster(["a", "b", "c"]);
        assert_eq!(one.version(), cluster(["c", "b", "a"]).version(), "the order of insertion is not content");
        assert_ne!(one.version(), cluster(["a", "b", "d"]).version());
        assert_eq!(version(b""), "e3b0c44298fc1c149afbf4c8996fb924", "pinned: versions outlive a process");
        assert_eq!(Cluster::decode(&*one.to_any().value).unwrap(), one);
    }
}
