//! Spans: what is said about a request to who collects traces.
//!
//! Tags have the names that Envoy and Istio give them, so that what was built on those goes on working. What always holds: a span is put together only for
//! a request whose trace is recorded; its attributes are read then, and not before.

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::{Map, Value, json};
use weir_sdk::{AttributeSet, Plugin, Refusal, Stream, Values};

use crate::config::{Reporter, Spans, Telemetry, Tracing};
use crate::export::{Exporter, Wire};
use crate::peer::or_unknown;
use crate::proto::{self, Any};
use crate::trace::{Context, Dice, Headers};
use crate::value::{Source, flags};

/// What is kept of a request whose trace is recorded.
#[derive(Debug)]
pub(crate) struct Active {
    trace: u128,
    /// The caller's.
    parent: Option<u64>,
    /// The server's span and the client's below it; one of them, or both.
    server: Option<u64>,
    client: Option<u64>,
}

impl Active {
    /// Its trace, as hex.
    pub(crate) fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The trace and the span that a log belongs to.
    pub(crate) fn ids(&self) -> (u128, u64) {
        (self.trace, self.server.or(self.client).unwrap_or_default())
    }
}

/// Traces requests.
#[derive(Debug)]
pub(crate) struct Tracer {
    headers: Headers,
    dice: Dice,
    percent: f64,
    follow_caller: bool,
    spans: (bool, bool),
    set: AttributeSet,
    places: Places,
    tags: Vec<(String, Source)>,
    fixed: Vec<(String, String)>,
    service: String,
    max_path_length: usize,
    otlp: Option<Rc<Exporter>>,
    zipkin: Option<Rc<Exporter>>,
}

#[derive(Debug)]
struct Places {
    time: usize,
    duration: usize,
    method: usize,
    scheme: usize,
    host: usize,
    path: usize,
    original_path: usize,
    protocol: usize,
    code: usize,
    flags: usize,
    cluster: usize,
    route: usize,
    upstream: usize,
    source: usize,
    user_agent: usize,
    request_id: usize,
    request_size: usize,
    response_size: usize,
    grpc_status: usize,
    decision: usize,
}

impl Places {
    fn new(set: &mut AttributeSet) -> Self {
        Self {
            time: set.add(&["request", "time"]),
            duration: set.add(&["request", "duration"]),
            method: set.add(&["request", "method"]),
            scheme: set.add(&["request", "scheme"]),
            host: set.add(&["request", "host"]),
            path: set.add(&["request", "path"]),
            original_path: set.add(&["request", "headers", "x-envoy-original-path"]),
            protocol: set.add(&["request", "protocol"]),
            code: set.add(&["response", "code"]),
            flags: set.add(&["response", "flags"]),
            cluster: set.add(&["xds", "cluster_name"]),
            route: set.add(&["xds", "route_name"]),
            upstream: set.add(&["upstream", "address"]),
            source: set.add(&["source", "address"]),
            user_agent: set.add(&["request", "useragent"]),
            request_id: set.add(&["request", "id"]),
            request_size: set.add(&["request", "size"]),
            response_size: set.add(&["response", "size"]),
            grpc_status: set.add(&["response", "grpc_status"]),
            decision: set.add(&[weir_sdk::DECISIONS]),
        }
    }
}

/// What collectors are told about who speaks.
pub(crate) fn resource(config: &Telemetry, service: &str) -> Vec<u8> {
    let workload = &config.workload;
    let mut out = Vec::new();
    for (key, value) in [
        ("service.name", service),
        ("service.version", &workload.version),
        ("service.namespace", &workload.namespace),
        ("k8s.namespace.name", &workload.namespace),
        ("k8s.deployment.name", &workload.name),
        ("k8s.cluster.name", &workload.cluster),
    ] {
        if !value.is_empty() {
            proto::tag(&mut out, 1, key, Any::Text(value));
        }
    }
    out
}

/// `service.name`, unless the operator wrote one.
pub(crate) fn service_name(config: &Telemetry) -> String {
    let workload = &config.workload;
    let name = [&workload.canonical_service, &workload.app, &workload.name].into_iter().find(|name| !name.is_empty());
    match (name, &*workload.namespace) {
        (None, _) => "weir".into(),
        (Some(name), "") => name.clone(),
        (Some(name), namespace) => format!("{name}.{namespace}"),
    }
}

impl Tracer {
    pub(crate) fn compile(config: &Telemetry, tracing: &Tracing) -> Result<Self, Refusal> {
        if !(0.0..=100.0).contains(&tracing.percent) {
            return Err(Refusal::at("percent", "write a number from 0 to 100"));
        }
        if tracing.propagation.is_empty() {
            return Err(Refusal::at("propagation", "without headers no trace goes on; write `w3c`, `b3` or `b3Single`"));
        }
        let mut set = AttributeSet::new();
        let places = Places::new(&mut set);
        let mut tags = Vec::new();
        for (name, tag) in &tracing.tags {
            tags.push((name.clone(), Source::compile(tag, &mut set).map_err(|refusal| refusal.within(&format!("tags.{name}")))?));
        }
        let workload = &config.workload;
        let istio = [
            ("istio.canonical_service", &workload.canonical_service),
            ("istio.canonical_revision", &workload.canonical_revision),
            ("istio.namespace", &workload.namespace),
            ("istio.cluster_id", &workload.cluster),
        ];
        let fixed = istio.iter().filter(|_| tracing.istio_tags).map(|(name, value)| ((*name).to_owned(), or_unknown(value).to_owned()));
        let service = tracing.service.clone().unwrap_or_else(|| service_name(config));
        let exporter = |wire, collector: &Option<_>, field| {
            let make = |collector| Exporter::new(wire, collector, resource(config, &service), config.report);
            collector.as_ref().map(make).transpose().map_err(|refusal: Refusal| refusal.within(field))
        };
        Ok(Self {
            headers: Headers::new(&tracing.propagation),
            dice: Dice::new(weir_sdk::random()),
            percent: tracing.percent,
            follow_caller: tracing.follow_caller,
            spans: match (tracing.spans, config.reporter) {
                (Spans::Both, _) => (true, true),
                (Spans::Server, _) | (Spans::Auto, Reporter::Destination) => (true, false),
                (Spans::Client, _) | (Spans::Auto, Reporter::Source) => (false, true),
            },
            otlp: exporter(Wire::OtlpTraces, &tracing.otlp, "otlp")?,
            zipkin: exporter(Wire::Zipkin, &tracing.zipkin, "zipkin")?,
            set,
            places,
            tags,
            fixed: fixed.collect(),
            service,
            max_path_length: tracing.max_path_length,
        })
    }

    /// Decides about a request, and hands its trace on. What is kept, if the trace is recorded.
    pub(crate) fn begin<S: 'static>(&self, stream: &Stream<'_, S>) -> Option<Box<Active>> {
        let (caller, decision) = self.headers.read(stream);
        let sampled = decision.filter(|_| self.follow_caller).unwrap_or_else(|| self.dice.holds(self.percent));
        let trace = caller.map_or_else(|| u128::from(self.dice.id()) << 64 | u128::from(self.dice.id()), |caller| caller.trace);
        let parent = caller.map(|caller| caller.span);
        let (is_server, is_client) = self.spans;
        let (server, client) = (is_server.then(|| self.dice.id()), is_client.then(|| self.dice.id()));
        let span = client.or(server).unwrap_or_else(|| self.dice.id());
        let above = if client.is_some() { server.or(parent) } else { parent };
        self.headers.write(stream, &Context { trace, span, sampled: Some(sampled) }, above);
        let reports = self.otlp.is_some() || self.zipkin.is_some();
        (sampled && reports).then(|| Box::new(Active { trace, parent, server, client }))
    }

    /// Reports a request that is over.
    pub(crate) fn end<S: 'static>(&self, stream: &Stream<'_, S>, active: &Active) {
        let values = self.set.read(stream);
        let below = active.server.or(active.parent);
        let server = active.server.map(|id| (id, active.parent, true));
        let client = active.client.map(|id| (id, below, false));
        for (id, parent, is_server) in [server, client].into_iter().flatten() {
            let span = self.span(&values, active.trace, id, parent, is_server);
            if let Some(otlp) = &self.otlp {
                otlp.push(span.otlp());
            }
            if let Some(zipkin) = &self.zipkin {
                zipkin.push(span.zipkin(&self.service));
            }
        }
    }

    pub(crate) fn flush(&self, plugin: &Plugin) {
        [&self.otlp, &self.zipkin].into_iter().flatten().for_each(|exporter| exporter.flush(plugin));
    }

    fn span<'v>(&'v self, values: &'v Values<'_>, trace: u128, id: u64, parent: Option<u64>, is_server: bool) -> Span<'v> {
        let places = &self.places;
        let text = |at: usize| values.get(at).map(String::from_utf8_lossy).filter(|text| !text.is_empty());
        let time = |at: usize| values.integer(at).and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0);
        let status = values.integer(places.code).unwrap_or(0);
        let start = time(places.time);
        let method = text(places.method).unwrap_or_default();
        let route = text(places.route);
        let name = route.as_ref().map_or_else(|| method.clone().into_owned(), |route| format!("{method} {route}"));
        let mut tags: Vec<(&str, Tagged<'_>)> = vec![("component", Tagged::Text("proxy".into()))];
        let host = text(places.host).unwrap_or_default();
        let mut path = text(places.original_path).or_else(|| text(places.path)).unwrap_or_default().into_owned();
        path.truncate(path.floor_char_boundary(self.max_path_length));
        let url = format!("{}://{host}{path}", text(places.scheme).unwrap_or(Cow::Borrowed("http")));
        tags.push(("http.method", Tagged::Text(method)));
        tags.push(("http.url", Tagged::Text(url.into())));
        for (name, at) in [
            ("http.protocol", places.protocol),
            ("user_agent", places.user_agent),
            ("guid:x-request-id", places.request_id),
            ("upstream_cluster", places.cluster),
            ("upstream_address", places.upstream),
            ("peer.address", places.source),
            ("weir.decision", places.decision),
        ] {
            if let Some(value) = text(at) {
                tags.push((name, Tagged::Text(value)));
            }
        }
        tags.push(("http.status_code", Tagged::Number(status)));
        for (name, at) in
            [("request_size", places.request_size), ("response_size", places.response_size), ("grpc.status_code", places.grpc_status)]
        {
            if let Some(value) = values.integer(at) {
                tags.push((name, Tagged::Number(value)));
            }
        }
        tags.push(("response_flags", Tagged::Text(flags(values.integer(places.flags).unwrap_or(0)))));
        tags.extend(self.fixed.iter().map(|(name, value)| (name.as_str(), Tagged::Text(Cow::Borrowed(value)))));
        for (name, source) in &self.tags {
            if let Some(value) = source.text(values) {
                tags.retain(|(known, _)| known != name);
                tags.push((name, Tagged::Text(value)));
            }
        }
        let failed = status >= 500 || status == 0;
        if failed {
            tags.push(("error", Tagged::Text("true".into())));
        }
        Span { trace, id, parent, is_server, name, start, end: start.saturating_add(time(places.duration)), failed, tags }
    }
}

#[derive(Debug)]
enum Tagged<'v> {
    Text(Cow<'v, str>),
    Number(i64),
}

/// A span, before it is written in one format or the other.
#[derive(Debug)]
struct Span<'v> {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    is_server: bool,
    name: String,
    /// Both in nanoseconds since 1970.
    start: u64,
    end: u64,
    failed: bool,
    tags: Vec<(&'v str, Tagged<'v>)>,
}

impl Span<'_> {
    /// `opentelemetry.proto.trace.v1.Span`.
    fn otlp(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        proto::bytes(&mut out, 1, &self.trace.to_be_bytes());
        proto::bytes(&mut out, 2, &self.id.to_be_bytes());
        if let Some(parent) = self.parent {
            proto::bytes(&mut out, 4, &parent.to_be_bytes());
        }
        proto::bytes(&mut out, 5, self.name.as_bytes());
        proto::number(&mut out, 6, if self.is_server { 2 } else { 3 });
        proto::fixed64(&mut out, 7, self.start);
        proto::fixed64(&mut out, 8, self.end);
        for (name, value) in &self.tags {
            let value = match value {
                Tagged::Text(text) => Any::Text(text),
                Tagged::Number(number) => Any::Number(*number),
            };
            proto::tag(&mut out, 9, name, value);
        }
        if self.failed {
            proto::message(&mut out, 15, |status| proto::number(status, 3, 2));
        }
        // Recorded.
        proto::fixed32(&mut out, 16, 1);
        out
    }

    /// Zipkin's v2 JSON.
    fn zipkin(&self, service: &str) -> Vec<u8> {
        let mut tags = Map::new();
        for (name, value) in &self.tags {
            let text = match value {
                Tagged::Text(text) => text.clone().into_owned(),
                Tagged::Number(number) => number.to_string(),
            };
            tags.insert((*name).to_owned(), Value::from(text));
        }
        let mut span = json!({
            "traceId": format!("{:032x}", self.trace),
            "id": format!("{:016x}", self.id),
            "kind": if self.is_server { "SERVER" } else { "CLIENT" },
            "name": self.name,
            "timestamp": self.start / 1000,
            "duration": (self.end.saturating_sub(self.start) / 1000).max(1),
            "localEndpoint": { "serviceName": service },
            "tags": tags,
        });
        if let Some(parent) = self.parent {
            span["parentId"] = Value::from(format!("{parent:016x}"));
        }
        span.to_string().into_bytes()
    }
}
