//! Rate limits of Mixer, as plain data for the filter that is to enforce them.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::yaml::document::Way;

use super::condition::All;
use super::expression::Expression;
use super::resources::{Charge, Item, Limit, Named, Quota, QuotaSpec, QuotaSpecBinding, Quotas, Store};
use super::vocabulary::Vocabulary;
use crate::api::decode::decode;
use crate::api::istio::common::Duration;
use crate::finding::{Code, Finding};
use crate::object::{Id, Object};

/// Where calls are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counter {
    /// In the process.
    Local,
    /// In a Redis, whose address this is.
    Redis(String),
}

/// A rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixerQuota {
    /// The rule that it is of.
    pub rule: Id,
    /// The namespace whose workloads it limits; none is every one.
    pub namespace: Option<Arc<str>>,
    /// It counts a call for which one of these holds.
    pub alternatives: Vec<All>,
    /// What it is called.
    pub quota: String,
    /// Calls are counted apart by these: expressions, by name.
    pub dimensions: BTreeMap<String, String>,
    /// Where it counts.
    pub counter: Counter,
    /// How much in a window.
    pub amount: i64,
    /// How long a window is.
    pub window: Duration,
    /// Other amounts for some values of dimensions; the first that fits counts.
    pub overrides: Vec<MixerOverride>,
    /// What one call costs.
    pub charge: i64,
    /// The services that it limits, by namespace and name; none is every one.
    pub services: Vec<(String, String)>,
}

/// Another amount for some values of dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixerOverride {
    /// All of these must be equal.
    pub dimensions: BTreeMap<String, String>,
    /// How much in a window.
    pub amount: i64,
    /// How long a window is.
    pub window: Duration,
}

/// What a rule says about all of its quotas.
pub(super) struct Context<'a> {
    pub(super) store: &'a Store<'a>,
    pub(super) vocabulary: &'a Vocabulary,
    pub(super) rule: &'a Id,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) alternatives: Vec<All>,
}

impl Context<'_> {
    /// The limits of one handler for one instance.
    pub(super) fn quotas(&self, handler: &Item<'_>, instance: &Item<'_>, findings: &mut Vec<Finding>) -> Option<MixerQuota> {
        let id = &instance.object.id;
        let read = decode::<Quota>(id, &instance.way, instance.params);
        findings.extend(read.findings);
        let dimensions = read.value?.dimensions;
        for (name, text) in &dimensions {
            if let Err(error) = Expression::new(text, self.vocabulary) {
                findings.push(Finding::new(Code::Invalid, id, instance.way.key("dimensions").key(name.as_str()), error.0));
            }
        }
        let read = decode::<Quotas>(&handler.object.id, &handler.way, handler.params);
        findings.extend(read.findings);
        let quotas = read.value?;
        let way = handler.way.key("quotas");
        let same = |limit: &Limit| {
            self.store.find(&limit.name, &handler.object.id.namespace, "instance").is_some_and(|item| item.object.id == *id)
        };
        let Some((at, limit)) = quotas.quotas.iter().enumerate().find(|(_, limit)| same(limit) || limit.name == *id.name) else {
            findings.push(Finding::new(Code::NoEffect, &handler.object.id, way, format!("no quota is for the instance `{}`", id.name)));
            return None;
        };
        self.note(handler, &quotas, limit, findings);
        let window = limit.valid_duration.unwrap_or_default();
        let overrides = limit.overrides.iter().map(|one| MixerOverride {
            dimensions: one.dimensions.clone(),
            amount: one.max_amount,
            window: one.valid_duration.unwrap_or(window),
        });
        let overrides: Vec<_> = overrides.collect();
        let limits = [(limit.max_amount, window)].into_iter().chain(overrides.iter().map(|one| (one.amount, one.window)));
        if limits.into_iter().any(|(amount, window)| amount < 0 || window.nanos <= 0) {
            let message = "an amount is less than nothing, or a window has no length";
            findings
                .push(Finding::new(Code::Invalid, &handler.object.id, way.index(at), message).help("Write maxAmount and validDuration."));
            return None;
        }
        let (charge, services) = self.charge(id, findings);
        Some(MixerQuota {
            rule: self.rule.clone(),
            namespace: self.namespace.clone(),
            alternatives: self.alternatives.clone(),
            quota: id.name.to_string(),
            dimensions,
            counter: if handler.of == "redisquota" { Counter::Redis(quotas.redis_server_url.clone()) } else { Counter::Local },
            amount: limit.max_amount,
            window,
            overrides,
            charge,
            services,
        })
    }

    /// What is read and means nothing.
    fn note(&self, handler: &Item<'_>, quotas: &Quotas, limit: &Limit, findings: &mut Vec<Finding>) {
        let id = &handler.object.id;
        let written = [
            ("minDeduplicationDuration", quotas.min_deduplication_duration.is_some()),
            ("connectionPoolSize", quotas.connection_pool_size.is_some()),
            ("bucketDuration", limit.bucket_duration.is_some()),
            ("rateLimitAlgorithm", limit.rate_limit_algorithm.is_some()),
        ];
        for (field, _) in written.into_iter().filter(|(_, written)| *written) {
            findings.push(Finding::new(Code::NoEffect, id, handler.way.clone(), format!("`{field}` means nothing to Weir")));
        }
        let message = "rate limits of Mixer are read, but not enforced yet";
        findings.push(Finding::new(Code::NoEffect, self.rule, Way::ROOT.key("spec"), message));
    }

    /// What a call costs, and to which services: as QuotaSpecs say, if any names the quota.
    fn charge(&self, quota: &Id, findings: &mut Vec<Finding>) -> (i64, Vec<(String, String)>) {
        let mut specs: Vec<(&Object, i64)> = Vec::new();
        for object in self.store.of_kind("QuotaSpec") {
            let read = decode::<QuotaSpec>(&object.id, &Way::ROOT.key("spec"), object.spec());
            for rule in read.value.unwrap_or_default().rules {
                let names = |charge: &&Charge| charge.quota.split('.').next() == Some(&*quota.name);
                let Some(charge) = rule.quotas.iter().find(names) else { continue };
                if !rule.matches.is_empty() {
                    let way = Way::ROOT.key("spec").key("rules");
                    findings
                        .push(Finding::new(Code::Unsupported, &object.id, way, "`match` of a QuotaSpec").help("Write `match` of a rule."));
                }
                specs.push((object, charge.charge.unwrap_or(1)));
            }
        }
        let Some((_, charge)) = specs.first() else { return (1, Vec::new()) };
        let mut services = Vec::new();
        let (mut every, mut bound) = (false, false);
        for object in self.store.of_kind("QuotaSpecBinding") {
            let read = decode::<QuotaSpecBinding>(&object.id, &Way::ROOT.key("spec"), object.spec());
            let binding = read.value.unwrap_or_default();
            let namespace =
                |named: &Named| if named.namespace.is_empty() { object.id.namespace.to_string() } else { named.namespace.clone() };
            let binds =
                |named: &Named| specs.iter().any(|(spec, _)| *spec.id.name == *named.name && *spec.id.namespace == namespace(named));
            if binding.quota_specs.iter().any(binds) {
                bound = true;
                every |= binding.services.iter().any(|service| service.service == "*");
                services.extend(
                    binding
                        .services
                        .iter()
                        .filter(|service| !service.name.is_empty())
                        .map(|service| (namespace(service), service.name.clone())),
                );
            }
        }
        if !bound {
            let message = format!("no QuotaSpecBinding binds what charges the quota `{}`, so nothing is counted", quota.name);
            findings.push(Finding::new(Code::NoEffect, quota, Way::ROOT.key("spec"), message));
        }
        (*charge, if every { Vec::new() } else { services })
    }
}

/// What is written in bindings and means nothing here.
pub(super) fn check_binding(object: &Object, findings: &mut Vec<Finding>) {
    let way = Way::ROOT.key("spec");
    let read = decode::<QuotaSpecBinding>(&object.id, &way, object.spec());
    findings.extend(read.findings);
    for (at, service) in read.value.unwrap_or_default().services.iter().enumerate() {
        let way = way.key("services").index(at);
        if !service.labels.is_empty() {
            findings.push(Finding::new(Code::Unsupported, &object.id, way.key("labels"), "services are bound by name, not by labels"));
        }
        if !service.domain.is_empty() {
            findings.push(Finding::new(Code::NoEffect, &object.id, way.key("domain"), "`domain` means nothing: the mesh has one"));
        }
        if !service.service.is_empty() && service.service != "*" {
            findings.push(
                Finding::new(Code::Unsupported, &object.id, way.key("service"), "`service` is `*` here").help("Write name and namespace."),
            );
        }
    }
}
