//! Istio's standard metrics.
//!
//! A request's labels follow from a few attributes. Those stand first in the attributes that are read, so that the bytes of their values tell whether a
//! request has the labels of one before: then its series are found by these bytes, and no label is put together. What always holds: at most
//! [`MOST_KNOWN`] such combinations are remembered, the host bounds the series themselves; labels have Istio's names, and `unknown` where nothing is known.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use weir_sdk::{AttributeSet, Counter, Histogram, Refusal, Values};

use crate::config::{MetricName, Reporter, Telemetry};
use crate::peer::{Peer, Service, UNKNOWN, or_unknown};
use crate::value::{Source, flags};

/// Combinations of labels that are remembered; with one more, all are forgotten.
const MOST_KNOWN: usize = 4096;
const METRICS: [(MetricName, &str); 10] = [
    (MetricName::RequestCount, "istio_requests_total"),
    (MetricName::RequestDuration, "istio_request_duration_milliseconds"),
    (MetricName::RequestSize, "istio_request_bytes"),
    (MetricName::ResponseSize, "istio_response_bytes"),
    (MetricName::GrpcRequestMessages, "istio_request_messages_total"),
    (MetricName::GrpcResponseMessages, "istio_response_messages_total"),
    (MetricName::TcpOpenedConnections, "istio_tcp_connections_opened_total"),
    (MetricName::TcpClosedConnections, "istio_tcp_connections_closed_total"),
    (MetricName::TcpSentBytes, "istio_tcp_sent_bytes_total"),
    (MetricName::TcpReceivedBytes, "istio_tcp_received_bytes_total"),
];

/// Labels of one metric that are not the standard ones.
#[derive(Debug, Clone, Default)]
struct Plan {
    name: &'static str,
    enabled: bool,
    tags: Vec<(String, Source)>,
}

/// Where the attributes stand. The first `count` of them decide about labels.
#[derive(Debug, Default)]
struct Places {
    code: usize,
    flags: usize,
    cluster: usize,
    mtls: usize,
    peer: usize,
    local: usize,
    endpoint: usize,
    count: usize,
    content_type: usize,
    grpc_status: usize,
    duration: usize,
    request_size: usize,
    response_size: usize,
    request_messages: usize,
    response_messages: usize,
    received: usize,
    sent: usize,
}

/// The series of one combination of labels.
#[derive(Debug, Default)]
struct Series {
    requests: Option<Counter>,
    duration: Option<Histogram>,
    request_bytes: Option<Histogram>,
    response_bytes: Option<Histogram>,
    request_messages: Option<Counter>,
    response_messages: Option<Counter>,
    opened: Option<Counter>,
    closed: Option<Counter>,
    sent: Option<Counter>,
    received: Option<Counter>,
}

/// What kind of stream it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Grpc(Option<i64>),
    Tcp,
}

/// The metrics of a configuration.
#[derive(Debug)]
pub(crate) struct Standard {
    reporter: Reporter,
    own: Peer,
    service: String,
    plans: [Plan; METRICS.len()],
    places: Places,
    known: RefCell<HashMap<Box<[u8]>, Rc<Series>, BuildHasherDefault<Mixer>>>,
    /// The combination that was looked up last, and its series: mostly the next one's too.
    last: RefCell<(Vec<u8>, Rc<Series>)>,
    key: RefCell<Vec<u8>>,
    failed: Cell<bool>,
}

impl Standard {
    /// Puts the attributes that it needs into `set`, which is empty. `None`: there is nothing to count.
    pub(crate) fn compile(config: &Telemetry, set: &mut AttributeSet) -> Result<Option<Self>, Refusal> {
        if config.metrics.disabled {
            return Ok(None);
        }
        let mut places = Places {
            code: set.add(&["response", "code"]),
            flags: set.add(&["response", "flags"]),
            cluster: set.add(&["xds", "cluster_name"]),
            ..Places::default()
        };
        match config.reporter {
            Reporter::Destination => {
                places.mtls = set.add(&["connection", "mtls"]);
                places.peer = set.add(&["connection", "uri_san_peer_certificate"]);
                places.local = set.add(&["connection", "uri_san_local_certificate"]);
            }
            Reporter::Source => {
                places.peer = set.add(&["upstream", "uri_san_peer_certificate"]);
                places.endpoint = set.add(&["xds", "upstream_host_metadata"]);
            }
        }
        let plans = plans(config, set)?;
        places.count = set.len();
        let any = |names: &[MetricName]| {
            let mut plans = METRICS.iter().zip(&plans);
            plans.any(|((name, _), plan)| plan.enabled && names.contains(name))
        };
        places.content_type = set.add(&["request", "headers", "content-type"]);
        places.grpc_status = set.add(&["response", "grpc_status"]);
        places.duration = set.add(&["request", "duration"]);
        if any(&[MetricName::RequestSize]) {
            places.request_size = set.add(&["request", "size"]);
        }
        if any(&[MetricName::ResponseSize]) {
            places.response_size = set.add(&["response", "size"]);
        }
        if any(&[MetricName::GrpcRequestMessages, MetricName::GrpcResponseMessages]) {
            places.request_messages = set.add(&["request", "grpc_messages"]);
            places.response_messages = set.add(&["response", "grpc_messages"]);
        }
        places.received = set.add(&["connection", "received_bytes"]);
        places.sent = set.add(&["connection", "sent_bytes"]);
        Ok(Some(Self {
            reporter: config.reporter,
            own: Peer::own(&config.workload),
            service: config.workload.service.clone(),
            plans,
            places,
            known: RefCell::default(),
            last: RefCell::default(),
            key: RefCell::default(),
            failed: Cell::new(false),
        }))
    }

    /// Counts a request that is over.
    pub(crate) fn request(&self, values: &Values<'_>) {
        let places = &self.places;
        let is_grpc = values.get(places.content_type).is_some_and(is_grpc);
        let protocol = if is_grpc { Protocol::Grpc(values.integer(places.grpc_status)) } else { Protocol::Http };
        let series = self.series(values, protocol);
        let number = |at: usize| values.integer(at).and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        if let Some(requests) = series.requests {
            requests.increment();
        }
        if let Some(duration) = series.duration {
            duration.record(number(places.duration) / 1_000_000);
        }
        if let Some(size) = series.request_bytes {
            size.record(number(places.request_size));
        }
        if let Some(size) = series.response_bytes {
            size.record(number(places.response_size));
        }
        if is_grpc {
            count(series.request_messages, number(places.request_messages));
            count(series.response_messages, number(places.response_messages));
        }
    }

    /// Counts a connection that begins.
    pub(crate) fn opened(&self, values: &Values<'_>) {
        count(self.series(values, Protocol::Tcp).opened, 1);
    }

    /// Counts a connection that is over.
    pub(crate) fn closed(&self, values: &Values<'_>) {
        let series = self.series(values, Protocol::Tcp);
        let number = |at: usize| values.integer(at).and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        count(series.closed, 1);
        // As Istio has it, from where the client stands: what it was sent, and what was received from it.
        count(series.sent, number(self.places.sent));
        count(series.received, number(self.places.received));
    }

    /// The series for these labels.
    fn series(&self, values: &Values<'_>, protocol: Protocol) -> Rc<Series> {
        let mut key = self.key.borrow_mut();
        key.clear();
        let (places, bytes) = values.fingerprint(self.places.count);
        key.extend_from_slice(places);
        key.extend_from_slice(bytes);
        key.extend_from_slice(&match protocol {
            Protocol::Http => [0, 0],
            Protocol::Tcp => [1, 0],
            Protocol::Grpc(None) => [2, 0],
            Protocol::Grpc(Some(status)) => [3, u8::try_from(status).unwrap_or(u8::MAX)],
        });
        let mut last = self.last.borrow_mut();
        if last.0 == *key {
            return Rc::clone(&last.1);
        }
        let mut known = self.known.borrow_mut();
        let series = match known.get(&key[..]) {
            Some(series) => Rc::clone(series),
            None => {
                if known.len() >= MOST_KNOWN {
                    known.clear();
                }
                let series = Rc::new(self.define(values, protocol));
                known.insert(key.as_slice().into(), Rc::clone(&series));
                series
            }
        };
        last.0.clone_from(&key);
        last.1 = Rc::clone(&series);
        series
    }

    fn define(&self, values: &Values<'_>, protocol: Protocol) -> Series {
        let labels = self.labels(values, protocol);
        let mut series = Series::default();
        let is_tcp = protocol == Protocol::Tcp;
        for ((name, _), plan) in METRICS.iter().zip(&self.plans).filter(|(_, plan)| plan.enabled) {
            use MetricName as Name;
            let is_of_tcp =
                matches!(name, Name::TcpOpenedConnections | Name::TcpClosedConnections | Name::TcpSentBytes | Name::TcpReceivedBytes);
            let is_of_grpc = matches!(name, Name::GrpcRequestMessages | Name::GrpcResponseMessages);
            if is_of_tcp != is_tcp || is_of_grpc && !matches!(protocol, Protocol::Grpc(_)) {
                continue;
            }
            let labels = plan.labels(&labels, values);
            let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let counter = || self.checked(plan.name, Counter::define(plan.name, &labels));
            let histogram = || self.checked(plan.name, Histogram::define(plan.name, &labels));
            match name {
                Name::All => {}
                Name::RequestCount => series.requests = counter(),
                Name::RequestDuration => series.duration = histogram(),
                Name::RequestSize => series.request_bytes = histogram(),
                Name::ResponseSize => series.response_bytes = histogram(),
                Name::GrpcRequestMessages => series.request_messages = counter(),
                Name::GrpcResponseMessages => series.response_messages = counter(),
                Name::TcpOpenedConnections => series.opened = counter(),
                Name::TcpClosedConnections => series.closed = counter(),
                Name::TcpSentBytes => series.sent = counter(),
                Name::TcpReceivedBytes => series.received = counter(),
            }
        }
        series
    }

    /// A metric that the host does not take is left out, and said once.
    fn checked<T>(&self, name: &str, defined: Result<T, weir_sdk::Status>) -> Option<T> {
        if let Err(status) = &defined
            && !self.failed.replace(true)
        {
            weir_sdk::error!("{name} is not counted for all labels: {status}");
        }
        defined.ok()
    }

    /// The standard labels, in Istio's order.
    fn labels(&self, values: &Values<'_>, protocol: Protocol) -> Vec<(&'static str, String)> {
        let places = &self.places;
        let is_destination = self.reporter == Reporter::Destination;
        let cluster = values.text(places.cluster).unwrap_or_default();
        let (mut own, mut other) = (self.own.clone(), Peer::default());
        if let Some(principal) = values.text(places.peer) {
            other.identify(principal);
        }
        let (service, security) = if is_destination {
            if let Some(principal) = values.text(places.local) {
                own.identify(principal);
            }
            let service =
                if self.service.is_empty() { Service::of_cluster(cluster) } else { Service::of_host(&self.service, &own.namespace) };
            (service, if values.boolean(places.mtls) == Some(true) { "mutual_tls" } else { "none" })
        } else {
            if let Some(labels) = values.get(places.endpoint) {
                other.describe(weir_sdk::Pairs::read(labels));
            }
            (Service::of_cluster(cluster), UNKNOWN)
        };
        let (source, destination) = if is_destination { (other, own) } else { (own, other) };
        let known = |text: &str| or_unknown(text).to_owned();
        let mut labels = vec![
            ("reporter", if is_destination { "destination" } else { "source" }.to_owned()),
            ("source_workload", known(&source.workload)),
            ("source_canonical_service", known(&source.service)),
            ("source_canonical_revision", known(&source.revision)),
            ("source_workload_namespace", known(&source.namespace)),
            ("source_principal", known(&source.principal)),
            ("source_app", known(&source.app)),
            ("source_version", known(&source.version)),
            ("source_cluster", known(&source.cluster)),
            ("destination_workload", known(&destination.workload)),
            ("destination_workload_namespace", known(&destination.namespace)),
            ("destination_principal", known(&destination.principal)),
            ("destination_app", known(&destination.app)),
            ("destination_version", known(&destination.version)),
            ("destination_service", service.host),
            ("destination_canonical_service", known(&destination.service)),
            ("destination_canonical_revision", known(&destination.revision)),
            ("destination_service_name", service.name),
            ("destination_service_namespace", service.namespace),
            ("destination_cluster", known(&destination.cluster)),
            ("response_flags", flags(values.integer(places.flags).unwrap_or(0)).into_owned()),
            ("connection_security_policy", security.to_owned()),
        ];
        let name = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Http => "http",
            Protocol::Grpc(_) => "grpc",
        };
        labels.push(("request_protocol", name.to_owned()));
        if protocol != Protocol::Tcp {
            labels.push(("response_code", values.integer(places.code).unwrap_or(0).to_string()));
        }
        if let Protocol::Grpc(Some(status)) = protocol {
            labels.push(("grpc_response_status", status.to_string()));
        }
        labels
    }
}

impl Plan {
    /// The standard labels with what is different about this metric.
    fn labels(&self, standard: &[(&'static str, String)], values: &Values<'_>) -> Vec<(String, String)> {
        let kept = standard.iter().filter(|(name, _)| self.tags.iter().all(|(changed, _)| changed != name));
        let mut labels: Vec<(String, String)> = kept.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        for (name, source) in self.tags.iter().filter(|(_, source)| !matches!(source, Source::Nothing)) {
            let value = source.text(values);
            labels.push((name.clone(), or_unknown(value.as_deref().unwrap_or_default()).to_owned()));
        }
        labels
    }
}

/// What each metric has for labels. Attributes that labels come from are put into `set`.
fn plans(config: &Telemetry, set: &mut AttributeSet) -> Result<[Plan; METRICS.len()], Refusal> {
    let mut plans = METRICS.map(|(_, name)| Plan { name, enabled: true, tags: Vec::new() });
    for (at, change) in config.metrics.overrides.iter().enumerate() {
        if !change.mode.means(config.reporter) {
            continue;
        }
        let mut tags = Vec::new();
        for (name, tag) in &change.tags {
            let refuse = |refusal: Refusal| refusal.within(&format!("metrics.overrides[{at}].tags.{name}"));
            if !is_label(name) {
                return Err(refuse(Refusal::new(
                    "a label's name has letters, digits and `_`, begins with no digit, and is none of `name`, `type` and `le`",
                )));
            }
            tags.push((name.clone(), Source::compile(tag, set).map_err(refuse)?));
        }
        let meant = METRICS.iter().zip(&mut plans).filter(|((name, _), _)| change.metric == MetricName::All || change.metric == *name);
        for (_, plan) in meant {
            plan.enabled = change.disabled.map_or(plan.enabled, |disabled| !disabled);
            for (name, source) in &tags {
                plan.tags.retain(|(known, _)| known != name);
                plan.tags.push((name.clone(), source.clone()));
            }
        }
    }
    Ok(plans)
}

fn count(counter: Option<Counter>, by: u64) {
    let Some(counter) = counter else { return };
    let mut left = by;
    while left > 0 {
        let step = u32::try_from(left).unwrap_or(u32::MAX);
        counter.add(step);
        left -= u64::from(step);
    }
}

fn is_grpc(content_type: &[u8]) -> bool {
    content_type.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn is_label(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
        && !name.starts_with("__")
        // What a metric's definition says under these names is not a label; `le` is a bucket's bound.
        && !["name", "type", "le"].contains(&name)
}

/// Spreads keys of a few hundred bytes, a word at a time. What a client can bring into a key is bounded by [`MOST_KNOWN`].
#[derive(Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            self.write_u64(word.try_into().map_or(0, u64::from_le_bytes));
        }
        let rest = words.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.write_u64(rest);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
