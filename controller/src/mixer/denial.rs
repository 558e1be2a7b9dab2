//! A rule of Mixer as a rule of the `deny` filter.
//!
//! Always: a rule is made for one proxy out of what is known of its own workload and of its clients'. Mixer looked a client's labels up by its
//! address, and so does this: what a rule asks of its client's workload becomes a list of addresses.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::condition::{All, Compare, Condition, List, Subject, Test};
use super::peer::Peer;
use crate::object::Id;

/// What a refused client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The status of gRPC.
    pub grpc_status: u32,
    /// The body.
    pub body: String,
}

impl Answer {
    /// What Mixer's clients were told: `PERMISSION_DENIED:handler.namespace:Not allowed`.
    pub(super) fn new(code: u32, handler: &str, message: &str) -> Self {
        let (status, name) = match code {
            1 => (499, "CANCELLED"),
            3 => (400, "INVALID_ARGUMENT"),
            4 => (504, "DEADLINE_EXCEEDED"),
            5 => (404, "NOT_FOUND"),
            6 => (409, "ALREADY_EXISTS"),
            7 => (403, "PERMISSION_DENIED"),
            8 => (429, "RESOURCE_EXHAUSTED"),
            9 => (400, "FAILED_PRECONDITION"),
            10 => (409, "ABORTED"),
            11 => (400, "OUT_OF_RANGE"),
            12 => (501, "UNIMPLEMENTED"),
            13 => (500, "INTERNAL"),
            14 => (503, "UNAVAILABLE"),
            15 => (500, "DATA_LOSS"),
            16 => (401, "UNAUTHENTICATED"),
            _ => (500, "UNKNOWN"),
        };
        Self { status, grpc_status: code, body: format!("{name}:{handler}:{message}") }
    }
}

/// One alternative of a rule that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixerDenial {
    /// The rule.
    pub rule: Id,
    /// The namespace whose workloads it protects; none is every one.
    pub namespace: Option<Arc<str>>,
    /// What must all hold.
    pub conditions: All,
    /// What the client is told.
    pub answer: Answer,
}

impl MixerDenial {
    /// Whether it protects a workload.
    #[must_use]
    pub fn applies(&self, destination: &Peer<'_>) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == destination.namespace)
            && self.conditions.iter().all(|condition| match &condition.subject {
                Subject::Destination(fact) => condition.holds(fact, destination),
                _ => true,
            })
    }

    /// A rule of the `deny` filter, for a proxy whose clients may be these; nothing if it can mean none of them.
    #[must_use]
    pub fn rule(&self, clients: &[Peer<'_>]) -> Option<Json> {
        let mut rule = Parts::default();
        for condition in &self.conditions {
            rule.add(condition);
        }
        let (sources, not_sources) = self.addresses(clients, &rule);
        let name = format!("{}.{}", self.rule.name, self.rule.namespace);
        let Answer { status, grpc_status, body } = &self.answer;
        let mut json = json!({"name": name, "answer": {"status": status, "grpcStatus": grpc_status, "body": body}});
        let mut when = Map::new();
        let set = |map: &mut Map<String, Json>, field: &str, values: Vec<Json>| {
            if !values.is_empty() {
                map.insert(field.to_owned(), Json::Array(values));
            }
        };
        set(&mut when, "headers", rule.headers);
        set(&mut when, "query", rule.query);
        match sources {
            Some(sources) if sources.is_empty() => return None,
            Some(sources) => set(&mut when, "sourceAddresses", texts(&sources)),
            None => {}
        }
        let map = json.as_object_mut()?;
        set(map, "attributes", rule.attributes);
        if !when.is_empty() {
            map.insert("when".to_owned(), Json::Object(when));
        }
        if !not_sources.is_empty() {
            map.insert("unless".to_owned(), json!({"sourceAddresses": texts(&not_sources)}));
        }
        map.extend(rule.list.map(|list| ("list".to_owned(), list)));
        Some(json)
    }

    /// The addresses that clients must have, if they must, and those that they must not.
    fn addresses(&self, clients: &[Peer<'_>], rule: &Parts) -> (Option<Vec<IpAddr>>, Vec<IpAddr>) {
        let asked = || {
            self.conditions.iter().filter_map(|condition| match &condition.subject {
                Subject::Source(fact) => Some((condition, fact)),
                _ => None,
            })
        };
        let meant = |client: &&Peer<'_>| asked().all(|(condition, fact)| condition.holds(fact, client));
        let all = |clients: Vec<&Peer<'_>>| -> Vec<IpAddr> { clients.iter().flat_map(|client| client.addresses).copied().collect() };
        let (mut must, mut must_not) = (rule.addresses.first().map(|first| vec![*first]), rule.not_addresses.clone());
        if asked().next().is_some() {
            if asked().all(|(condition, _)| condition.unknown) {
                must_not.extend(all(clients.iter().filter(|client| !meant(client)).collect()));
            } else {
                let meant = all(clients.iter().filter(meant).collect());
                must = Some(must.map_or(meant.clone(), |must| must.into_iter().filter(|address| meant.contains(address)).collect()));
            }
        }
        // No client has two addresses at once.
        if let Some(must) = &mut must {
            must.retain(|address| rule.addresses.iter().all(|other| other == address));
            must.sort_unstable();
            must.dedup();
        }
        must_not.sort_unstable();
        must_not.dedup();
        (must, must_not)
    }
}

fn texts(addresses: &[IpAddr]) -> Vec<Json> {
    addresses.iter().map(|address| Json::String(address.to_string())).collect()
}

/// What a rule is made of.
#[derive(Default)]
struct Parts {
    headers: Vec<Json>,
    query: Vec<Json>,
    attributes: Vec<Json>,
    addresses: Vec<IpAddr>,
    not_addresses: Vec<IpAddr>,
    list: Option<Json>,
}

impl Parts {
    fn add(&mut self, condition: &Condition) {
        if let Test::Listed(list) = &condition.test {
            self.add_list(condition, list);
            return;
        }
        let value = || text_match(&condition.test, condition.invert);
        match &condition.subject {
            Subject::Header(name) => self.headers.push(json!({"name": name, "value": value()})),
            Subject::Query(name) => self.query.push(json!({"name": name, "value": value()})),
            Subject::Attribute(name) => self.attributes.push(json!({"name": name, "value": value()})),
            Subject::SourceAddress => {
                if let Test::Address(address) = condition.test {
                    if condition.invert { &mut self.not_addresses } else { &mut self.addresses }.push(address);
                }
            }
            Subject::Source(_) | Subject::Destination(_) => {}
        }
    }

    fn add_list(&mut self, condition: &Condition, list: &List) {
        let of = match &condition.subject {
            Subject::Header(name) => json!({"header": name}),
            Subject::Attribute(name) => json!({"attribute": name}),
            Subject::SourceAddress => json!("sourceAddress"),
            Subject::Query(_) | Subject::Source(_) | Subject::Destination(_) => return,
        };
        let (compare, entries): (_, Vec<String>) = match list.compare {
            Compare::Exact => ("exact", list.entries.clone()),
            Compare::IgnoreCase => ("ignoreCase", list.entries.clone()),
            Compare::Cidr => ("cidr", list.entries.clone()),
            Compare::Regex => ("regex", list.entries.iter().map(|pattern| anywhere(pattern)).collect()),
        };
        let refuse = if condition.invert { "unlisted" } else { "listed" };
        self.list = Some(json!({"of": of, "entries": entries, "compare": compare, "refuse": refuse}));
    }
}

/// The filter holds a pattern against the whole text.
fn anywhere(pattern: &str) -> String {
    format!("(?s:.*)(?:{pattern})(?s:.*)")
}

fn text_match(test: &Test, invert: bool) -> Json {
    let mut json = match test {
        Test::Exact(text) => json!({"exact": text}),
        Test::IgnoreCase(text) => json!({"exact": text, "ignoreCase": true}),
        Test::Prefix(text) => json!({"prefix": text}),
        Test::Suffix(text) => json!({"suffix": text}),
        Test::Pattern(pattern) => json!({"regex": anywhere(pattern)}),
        Test::Truth => json!({"exact": "\u{1}"}),
        Test::Address(address) => json!({"exact": address.to_string()}),
        Test::Present => return json!({"present": !invert}),
        Test::Listed(_) => json!({}),
    };
    if invert && let Some(map) = json.as_object_mut() {
        map.insert("invert".to_owned(), Json::Bool(true));
    }
    json
}
