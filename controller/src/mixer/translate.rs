//! From Mixer's resources to rules of filters: pure, and one mistake takes no other rule down.

use std::sync::Arc;

use serde_json::Value as Json;
use weir_model::yaml::document::Way;

use super::condition::{self, All, Compare, List, alternatives, flatten};
use super::denial::{Answer, MixerDenial};
use super::expression::{Expression, Type, matches_regex};
use super::legacy;
use super::quota::{Context, MixerQuota, check_binding};
use super::resources::{Action, Denier, EntryType, Item, ListChecker, ListEntry, QuotaSpec, Rule, Store};
use super::vocabulary::Vocabulary;
use crate::api::decode::decode;
use crate::finding::{Code, Finding};
use crate::object::{Id, Object};

/// What Mixer's resources come to.
#[derive(Debug, Default)]
pub struct Mixer {
    /// Rules that refuse, older ones first.
    pub denials: Vec<MixerDenial>,
    /// Rules that limit.
    pub quotas: Vec<MixerQuota>,
    /// What stands for resources that are older than Mixer's last.
    pub replacements: Vec<Object>,
    /// What was wrong, or odd.
    pub findings: Vec<Finding>,
}

/// Adapters and templates that only told of requests, and kinds of their instances.
const TELEMETRY: [&str; 14] = [
    "prometheus",
    "stdio",
    "fluentd",
    "statsd",
    "dogstatsd",
    "circonus",
    "cloudwatch",
    "solarwinds",
    "stackdriver",
    "zipkin",
    "metric",
    "logentry",
    "tracespan",
    "reportnothing",
];

/// Adapters that decided, and templates for them, that Weir has no filter for.
const OTHERS: [(&str, &str); 12] = [
    ("opa", "Write an AuthorizationPolicy."),
    ("rbac", "Write an AuthorizationPolicy."),
    ("authorization", "Write an AuthorizationPolicy."),
    ("apikey", "Write a WasmFilter with the jwt or the deny filter."),
    ("edge", "Metrics and traces say who calls whom."),
    ("kubernetesenv", "Labels of workloads are known without it; remove it."),
    ("kubernetes", "Labels of workloads are known without it; remove it."),
    ("bypass", "Write a WasmFilter."),
    ("noop", "Remove it: it does nothing."),
    ("servicecontrol", "Write a WasmFilter."),
    ("adapter", "An adapter in a server of its own is not called; write a WasmFilter."),
    ("template", "A template for an adapter in a server of its own is not used; write a WasmFilter."),
];

/// What all of Mixer's resources come to. Rules in the namespace `root` are for every workload, others for those of their namespace.
#[must_use]
pub fn translate(objects: &[Object], root: &str) -> Mixer {
    let store = Store::new(objects);
    let mut mixer = Mixer::default();
    let vocabulary = vocabulary(&store, &mut mixer.findings);
    for object in store.all() {
        mixer.check(object);
    }
    let mut rules: Vec<_> = store.of_kind("rule").collect();
    rules.sort_by_key(|rule| rule.seniority());
    for object in rules {
        let namespace = (&*object.id.namespace != root).then(|| Arc::clone(&object.id.namespace));
        Translation { store: &store, vocabulary: &vocabulary, object, namespace, mixer: &mut mixer }.rule();
    }
    mixer.findings.dedup();
    mixer
}

/// What can be said of an object of Mixer's alone.
#[must_use]
pub fn check(object: &Object) -> Vec<Finding> {
    let mut mixer = Mixer::default();
    mixer.check(object);
    mixer.findings
}

/// Istio's attributes, and those that manifests add.
fn vocabulary(store: &Store<'_>, findings: &mut Vec<Finding>) -> Vocabulary {
    let mut vocabulary = Vocabulary::istio();
    for object in store.of_kind("attributemanifest") {
        for (name, info) in object.spec().get("attributes").and_then(Json::as_object).into_iter().flatten() {
            let kind = info.get("valueType").or_else(|| info.get("value_type")).and_then(Json::as_str).unwrap_or_default();
            match Type::named(kind) {
                Some(kind) => vocabulary.add(name, kind),
                None => {
                    let way = Way::ROOT.key("spec").key("attributes").key(name.as_str());
                    findings.push(Finding::new(Code::Invalid, &object.id, way, format!("{kind:?} is no type of an attribute")));
                }
            }
        }
    }
    vocabulary
}

impl Mixer {
    /// What can be said of an object alone.
    fn check(&mut self, object: &Object) {
        let item = Item::new(object);
        let way = Way::ROOT.key("spec");
        match &*object.id.kind {
            "RouteRule" | "EgressRule" | "DestinationPolicy" => legacy::read(object, &mut self.replacements, &mut self.findings),
            "HTTPAPISpec" | "HTTPAPISpecBinding" => {
                let found = Finding::new(Code::Unsupported, &object.id, way, "attributes of an API are not derived from its description");
                self.findings.push(found.help("Match request.method and request.path."));
            }
            "QuotaSpecBinding" => check_binding(object, &mut self.findings),
            "QuotaSpec" => self.findings.extend(decode::<QuotaSpec>(&object.id, &way, object.spec()).findings),
            "attributemanifest" | "rule" => {}
            _ if item.is_remote => {
                let found = Finding::new(Code::Unsupported, &object.id, way, "an adapter in a server of its own is not called");
                self.findings.push(found.help("Write a WasmFilter, or an ext-authz filter that asks the server."));
            }
            _ => {
                let known = ["denier", "listchecker", "memquota", "redisquota", "checknothing", "listentry", "quota"];
                if !known.contains(&item.of) {
                    self.findings.push(refused(&object.id, way, item.of));
                }
            }
        }
    }
}

/// An adapter or a template that Weir has nothing for.
fn refused(id: &Id, way: Way, of: &str) -> Finding {
    if TELEMETRY.contains(&of) {
        let found = Finding::new(Code::Unsupported, id, way, format!("`{of}`: telemetry of Mixer is not sent"));
        return found.help("Weir's own metrics, access logs and traces, and Istio's Telemetry, say the same.");
    }
    match OTHERS.iter().find(|(known, _)| *known == of) {
        Some((_, help)) => Finding::new(Code::Unsupported, id, way, format!("`{of}` has no filter")).help(*help),
        None => Finding::new(Code::Unsupported, id, way, format!("{of:?} is neither an adapter nor a template that is known")),
    }
}

/// The translation of one rule.
struct Translation<'a, 'm> {
    store: &'a Store<'a>,
    vocabulary: &'a Vocabulary,
    object: &'a Object,
    namespace: Option<Arc<str>>,
    mixer: &'m mut Mixer,
}

impl<'a> Translation<'a, '_> {
    fn say(&mut self, code: Code, way: Way, message: impl Into<String>) {
        self.mixer.findings.push(Finding::new(code, &self.object.id, way, message));
    }

    fn rule(&mut self) {
        let way = Way::ROOT.key("spec");
        let read = decode::<Rule>(&self.object.id, &way, self.object.spec());
        self.mixer.findings.extend(read.findings);
        let Some(rule) = read.value else { return };
        let operations = [
            ("requestHeaderOperations", !rule.request_header_operations.is_empty()),
            ("responseHeaderOperations", !rule.response_header_operations.is_empty()),
            ("sampling", rule.sampling.is_some()),
        ];
        for (field, _) in operations.into_iter().filter(|(_, written)| *written) {
            self.mixer.findings.push(
                Finding::new(Code::Unsupported, &self.object.id, way.key(field), format!("`{field}` of a rule"))
                    .help("Write `headers` in a VirtualService, or a WasmFilter with the headers filter."),
            );
        }
        let matches = match rule.matches.trim() {
            "" => None,
            text => match Expression::new(text, self.vocabulary) {
                Ok(expression) if expression.kind() == Type::Bool => Some(expression),
                Ok(expression) => return self.say(Code::Invalid, way.key("match"), format!("this is a {}, not a BOOL", expression.kind())),
                Err(error) => return self.say(Code::Invalid, way.key("match"), error.0),
            },
        };
        if rule.actions.is_empty() {
            self.say(Code::NoEffect, way.key("actions"), "a rule without actions does nothing");
        }
        for (at, action) in rule.actions.iter().enumerate() {
            self.action(action, &way.key("actions").index(at), matches.as_ref());
        }
    }

    fn action(&mut self, action: &Action, way: &Way, matches: Option<&Expression>) {
        let namespace = &*self.object.id.namespace;
        let Some(handler) = self.store.find(&action.handler, namespace, "handler") else {
            return self.say(Code::Invalid, way.key("handler"), format!("there is no handler `{}`", action.handler));
        };
        if handler.is_remote {
            return self.say(
                Code::Unsupported,
                way.key("handler"),
                format!("`{}`: an adapter in a server of its own is not called", action.handler),
            );
        }
        if !["denier", "listchecker", "memquota", "redisquota"].contains(&handler.of) {
            self.mixer.findings.push(refused(&self.object.id, way.key("handler"), handler.of));
            return;
        }
        if action.instances.is_empty() {
            return self.say(Code::NoEffect, way.key("instances"), "an action without instances does nothing");
        }
        let alternatives = match matches.map_or(Ok(vec![Vec::new()]), |expression| alternatives(expression.root())) {
            Ok(alternatives) => alternatives,
            Err(what) => return self.say(Code::Unsupported, Way::ROOT.key("spec").key("match"), format!("no filter can check {what}")),
        };
        if alternatives.is_empty() {
            return self.say(Code::NoEffect, Way::ROOT.key("spec").key("match"), "this is never true");
        }
        for (at, reference) in action.instances.iter().enumerate() {
            let way = way.key("instances").index(at);
            match self.store.find(reference, namespace, "instance") {
                None => self.say(Code::Invalid, way, format!("there is no instance `{reference}`")),
                Some(instance) => self.dispatch(&handler, &instance, way, &alternatives),
            }
        }
    }

    fn dispatch(&mut self, handler: &Item<'a>, instance: &Item<'a>, way: Way, alternatives: &[All]) {
        match (handler.of, instance.of) {
            ("denier", "checknothing" | "listentry" | "quota") => self.denier(handler, alternatives),
            ("listchecker", "listentry") => self.list(handler, instance, alternatives),
            ("memquota" | "redisquota", "quota") => {
                let context = Context {
                    store: self.store,
                    vocabulary: self.vocabulary,
                    rule: &self.object.id,
                    namespace: self.namespace.clone(),
                    alternatives: alternatives.to_vec(),
                };
                let quota = context.quotas(handler, instance, &mut self.mixer.findings);
                self.mixer.quotas.extend(quota);
            }
            (adapter, template) => self.say(Code::Invalid, way, format!("`{adapter}` takes no `{template}`")),
        }
    }

    fn denier(&mut self, handler: &Item<'_>, alternatives: &[All]) {
        let read = decode::<Denier>(&handler.object.id, &handler.way, handler.params);
        self.mixer.findings.extend(read.findings);
        let Some(denier) = read.value else { return };
        let status = handler.way.key("status");
        let code = denier.status.code.unwrap_or(9);
        if code == 0 || code > 16 {
            let (kind, message) =
                if code == 0 { (Code::NoEffect, "0 is OK: nothing is refused") } else { (Code::Invalid, "a status is 0 to 16") };
            self.mixer.findings.push(Finding::new(kind, &handler.object.id, status.key("code"), message));
            return;
        }
        self.note_caching(
            handler,
            &[("validDuration", denier.valid_duration.is_some()), ("validUseCount", denier.valid_use_count.is_some())],
        );
        self.deny(alternatives.to_vec(), &Answer::new(code, &handler.qualified(), &denier.status.message));
    }

    fn list(&mut self, handler: &Item<'_>, instance: &Item<'_>, alternatives: &[All]) {
        let id = &handler.object.id;
        let (read, entry) = (
            decode::<ListChecker>(id, &handler.way, handler.params),
            decode::<ListEntry>(&instance.object.id, &instance.way, instance.params),
        );
        self.mixer.findings.extend(read.findings.into_iter().chain(entry.findings));
        let (Some(checker), Some(entry)) = (read.value, entry.value) else { return };
        if !checker.provider_url.is_empty() {
            let found = Finding::new(Code::Unsupported, id, handler.way.key("providerUrl"), "a list is not fetched");
            self.mixer.findings.push(found.help("Write its entries in `overrides`."));
            return;
        }
        self.note_caching(
            handler,
            &[
                ("refreshInterval", checker.refresh_interval.is_some()),
                ("ttl", checker.ttl.is_some()),
                ("cachingInterval", checker.caching_interval.is_some()),
                ("cachingUseCount", checker.caching_use_count.is_some()),
            ],
        );
        let value = instance.way.key("value");
        let refused = |code: Code, message: String| Finding::new(code, &instance.object.id, value.clone(), message);
        let expression = match Expression::new(&entry.value, self.vocabulary) {
            Ok(expression)
                if matches!(expression.kind(), Type::String | Type::IpAddress | Type::DnsName | Type::EmailAddress | Type::Uri) =>
            {
                expression
            }
            Ok(expression) => {
                return self.mixer.findings.push(refused(Code::Invalid, format!("this is a {}, not a STRING", expression.kind())));
            }
            Err(error) => return self.mixer.findings.push(refused(Code::Invalid, error.0)),
        };
        let compare = match checker.entry_type {
            EntryType::Strings if expression.kind() == Type::IpAddress => Compare::Cidr,
            EntryType::Strings => Compare::Exact,
            EntryType::CaseInsensitiveStrings => Compare::IgnoreCase,
            EntryType::IpAddresses => Compare::Cidr,
            EntryType::Regex => Compare::Regex,
        };
        if let Some((at, entry)) = checker.overrides.iter().enumerate().find(|(_, entry)| !is_entry(entry, compare)) {
            let way = handler.way.key("overrides").index(at);
            self.mixer.findings.push(Finding::new(Code::Invalid, id, way, format!("{entry:?} is no entry of such a list")));
            return;
        }
        let list = List { entries: checker.overrides, compare };
        let formula = condition::listed(expression.root(), list, checker.blacklist).and_then(|formula| flatten(&formula));
        match formula {
            Err(what) => self.mixer.findings.push(refused(Code::Unsupported, format!("no filter can look up {what}"))),
            Ok(listed) if listed.len() * alternatives.len() > condition::MAX_ALTERNATIVES => {
                self.mixer.findings.push(refused(Code::Unsupported, "the match and the list have too many alternatives".to_owned()));
            }
            Ok(listed) => {
                let both = alternatives.iter().flat_map(|one| listed.iter().map(move |other| one.iter().chain(other).cloned().collect()));
                let message = if checker.blacklist { "blacklisted" } else { "not whitelisted" };
                self.deny(both.collect(), &Answer::new(7, &handler.qualified(), message));
            }
        }
    }

    fn deny(&mut self, alternatives: Vec<All>, answer: &Answer) {
        let denial = |conditions| MixerDenial {
            rule: self.object.id.clone(),
            namespace: self.namespace.clone(),
            conditions,
            answer: answer.clone(),
        };
        self.mixer.denials.extend(alternatives.into_iter().map(denial));
    }

    /// How long an answer of Mixer could be kept.
    fn note_caching(&mut self, handler: &Item<'_>, written: &[(&str, bool)]) {
        for (field, _) in written.iter().filter(|(_, written)| *written) {
            let message = format!("`{field}` means nothing: every request is judged, in the proxy");
            self.mixer.findings.push(Finding::new(Code::NoEffect, &handler.object.id, handler.way.key(*field), message));
        }
    }
}

fn is_entry(entry: &str, compare: Compare) -> bool {
    match compare {
        Compare::Exact | Compare::IgnoreCase => true,
        Compare::Regex => matches_regex(entry, "").is_ok(),
        Compare::Cidr => {
            let (base, length) = entry.split_once('/').unwrap_or((entry, ""));
            let most = if base.contains(':') { 128 } else { 32 };
            base.parse::<std::net::IpAddr>().is_ok() && (!entry.contains('/') || length.parse::<u8>().is_ok_and(|length| length <= most))
        }
    }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
