//! The resources of `config.istio.io`, and how they refer to each other.
//!
//! Until Istio 1.1 the kind of a handler or an instance was its adapter's or its template's (`kind: denier`), and references ended in it; then came
//! `kind: handler` with `compiledAdapter`, and plain names. Both are read, mixed as anyone likes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;
use weir_model::yaml::document::Way;

use crate::api::istio::common::{Duration, Texts};
use crate::object::Object;

/// The group of Mixer's resources.
pub const GROUP: &str = "config.istio.io";

/// What Mixer does with a request: each action whose rule matches.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    #[serde(rename = "match")]
    pub(super) matches: String,
    pub(super) actions: Vec<Action>,
    pub(super) request_header_operations: Vec<Json>,
    pub(super) response_header_operations: Vec<Json>,
    pub(super) sampling: Option<Json>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Action {
    pub(super) handler: String,
    pub(super) instances: Vec<String>,
    #[allow(dead_code, reason = "it names what the action gives to header operations, which are refused")]
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Denier {
    pub(super) status: Status,
    #[serde(alias = "valid_duration")]
    pub(super) valid_duration: Option<Duration>,
    #[serde(alias = "valid_use_count")]
    pub(super) valid_use_count: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: Option<u32>,
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListChecker {
    #[serde(alias = "provider_url")]
    pub(super) provider_url: String,
    #[serde(alias = "refresh_interval")]
    pub(super) refresh_interval: Option<Duration>,
    pub(super) ttl: Option<Duration>,
    #[serde(alias = "caching_interval")]
    pub(super) caching_interval: Option<Duration>,
    #[serde(alias = "caching_use_count")]
    pub(super) caching_use_count: Option<i64>,
    pub(super) overrides: Vec<String>,
    #[serde(alias = "entry_type")]
    pub(super) entry_type: EntryType,
    pub(super) blacklist: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum EntryType {
    #[default]
    Strings,
    CaseInsensitiveStrings,
    IpAddresses,
    Regex,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListEntry {
    pub(super) value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Quotas {
    pub(super) quotas: Vec<Limit>,
    #[serde(alias = "min_deduplication_duration")]
    pub(super) min_deduplication_duration: Option<Duration>,
    #[serde(alias = "redis_server_url")]
    pub(super) redis_server_url: String,
    #[serde(alias = "connection_pool_size")]
    pub(super) connection_pool_size: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Limit {
    pub(super) name: String,
    #[serde(alias = "max_amount")]
    pub(super) max_amount: i64,
    #[serde(alias = "valid_duration")]
    pub(super) valid_duration: Option<Duration>,
    #[serde(alias = "bucket_duration")]
    pub(super) bucket_duration: Option<Duration>,
    #[serde(alias = "rate_limit_algorithm")]
    pub(super) rate_limit_algorithm: Option<String>,
    pub(super) overrides: Vec<Override>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Override {
    pub(super) dimensions: Texts,
    #[serde(alias = "max_amount")]
    pub(super) max_amount: i64,
    #[serde(alias = "valid_duration")]
    pub(super) valid_duration: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Quota {
    pub(super) dimensions: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct QuotaSpec {
    pub(super) rules: Vec<QuotaRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct QuotaRule {
    #[serde(rename = "match")]
    pub(super) matches: Vec<Json>,
    pub(super) quotas: Vec<Charge>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Charge {
    pub(super) quota: String,
    pub(super) charge: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct QuotaSpecBinding {
    pub(super) quota_specs: Vec<Named>,
    pub(super) services: Vec<Named>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) domain: String,
    pub(super) service: String,
    pub(super) labels: Texts,
}

/// A handler or an instance, however it was written.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    pub(super) object: &'a Object,
    /// The adapter, or the template.
    pub(super) of: &'a str,
    /// Whether it runs in a server of its own.
    pub(super) is_remote: bool,
    pub(super) params: &'a Json,
    /// Where those stand.
    pub(super) way: Way,
}

impl<'a> Item<'a> {
    pub(super) fn new(object: &'a Object) -> Self {
        let spec = object.spec();
        let (compiled, remote) = match &*object.id.kind {
            "handler" => ("compiledAdapter", "adapter"),
            "instance" => ("compiledTemplate", "template"),
            kind => return Self { object, of: kind, is_remote: false, params: spec, way: Way::ROOT.key("spec") },
        };
        let text = |field: &str| spec.get(field).and_then(Json::as_str);
        let params = spec.get("params").unwrap_or(&Json::Null);
        let of = text(compiled).or_else(|| text(remote)).unwrap_or_default();
        let is_remote = text(compiled).is_none() && object.id.kind.as_ref() == "handler";
        Self { object, of, is_remote, params, way: Way::ROOT.key("spec").key("params") }
    }

    /// What Mixer called it.
    pub(super) fn qualified(&self) -> String {
        let id = &self.object.id;
        match &*id.kind {
            "handler" | "instance" => format!("{}.{}", id.name, id.namespace),
            kind => format!("{}.{kind}.{}", id.name, id.namespace),
        }
    }
}

/// Mixer's objects by kind, namespace and name.
pub(super) struct Store<'a>(BTreeMap<(&'a str, &'a str, &'a str), &'a Object>);

impl<'a> Store<'a> {
    pub(super) fn new(objects: &'a [Object]) -> Self {
        let ours = objects.iter().filter(|object| &*object.id.group == GROUP);
        Self(ours.map(|object| ((&*object.id.kind, &*object.id.namespace, &*object.id.name), object)).collect())
    }

    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &'a Object> {
        self.0.iter().filter(move |((found, ..), _)| *found == kind).map(|(_, object)| *object)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'a Object> {
        self.0.values().copied()
    }

    /// What a rule in `namespace` refers to: `name`, `name.namespace`, `name.kind` or `name.kind.namespace`.
    pub(super) fn find(&self, reference: &str, namespace: &str, generic: &str) -> Option<Item<'a>> {
        let parts: Vec<&str> = reference.split('.').collect();
        let get = |kind, namespace, name| self.0.get(&(kind, namespace, name)).copied();
        let object = match parts[..] {
            [name] => get(generic, namespace, name),
            [name, second] => get(second, namespace, name).or_else(|| get(generic, second, name)),
            [name, kind, namespace] => get(kind, namespace, name),
            _ => None,
        };
        object.map(Item::new)
    }
}
