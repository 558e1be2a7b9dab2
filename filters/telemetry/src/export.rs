//! What waits for a collector, and how it gets there.
//!
//! A buffer holds spans or log records as they are encoded; a timer sends them in batches, by callouts of the filter's own. What always holds: the buffer
//! and what is under way are bounded together, in items and in bytes; what does not fit, and what a collector did not take in the attempts that it has, is
//! dropped and counted, with the reason. What it does not do: outlive the filter: what waits when a configuration is replaced or the proxy ends is lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use weir_sdk::{Counter, Plugin, Refusal};

use crate::config::{Collector, Report};
use crate::proto;

/// Requests to one collector at a time.
const MOST_UNDER_WAY: usize = 4;
/// Before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How items become a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    OtlpTraces,
    OtlpLogs,
    Zipkin,
}

impl Wire {
    fn path(self) -> &'static str {
        match self {
            Self::OtlpTraces => "/v1/traces",
            Self::OtlpLogs => "/v1/logs",
            Self::Zipkin => "/api/v2/spans",
        }
    }

    fn content_type(self) -> &'static str {
        if self == Self::Zipkin { "application/json" } else { "application/x-protobuf" }
    }

    fn signal(self) -> &'static str {
        if self == Self::OtlpLogs { "logs" } else { "traces" }
    }

    /// A request's body.
    fn body(self, resource: &[u8], items: &[Vec<u8>]) -> Vec<u8> {
        if self == Self::Zipkin {
            let mut body = vec![b'['];
            body.extend(items.join(&b','));
            body.push(b']');
            return body;
        }
        let mut scope = Vec::new();
        proto::message(&mut scope, 1, |scope| {
            proto::bytes(scope, 1, b"weir");
            proto::bytes(scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
        });
        items.iter().for_each(|item| proto::bytes(&mut scope, 2, item));
        let mut body = Vec::new();
        proto::message(&mut body, 1, |one| {
            proto::bytes(one, 1, resource);
            proto::bytes(one, 2, &scope);
        });
        body
    }
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Vec<u8>>,
    /// Of what waits and of what is under way.
    count: usize,
    bytes: usize,
}

/// A way to one collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    wire: Wire,
    collector: Collector,
    path: String,
    resource: Vec<u8>,
    report: Report,
    waiting: RefCell<Waiting>,
    under_way: Cell<usize>,
    sent: Counter,
    full: Counter,
    refused: Counter,
}

impl Exporter {
    /// To `collector`, as what `resource` says: an encoded `Resource`.
    pub(crate) fn new(wire: Wire, collector: &Collector, resource: Vec<u8>, report: Report) -> Result<Rc<Self>, Refusal> {
        if collector.cluster.is_empty() {
            return Err(Refusal::at("cluster", "a collector is a cluster of the proxy"));
        }
        let path = collector.path.clone().unwrap_or_else(|| wire.path().to_owned());
        if !path.starts_with('/') {
            return Err(Refusal::at("path", "a path begins with `/`"));
        }
        let dropped = |reason| Counter::define("weir_telemetry_dropped_total", &[("signal", wire.signal()), ("reason", reason)]);
        Ok(Rc::new(Self {
            wire,
            collector: collector.clone(),
            path,
            resource,
            report,
            waiting: RefCell::default(),
            under_way: Cell::new(0),
            sent: Counter::define("weir_telemetry_sent_total", &[("signal", wire.signal())])?,
            full: dropped("full")?,
            refused: dropped("refused")?,
        }))
    }

    /// Takes an item, if there is room.
    pub(crate) fn push(&self, item: Vec<u8>) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.count >= self.report.max_items || waiting.bytes + item.len() > self.report.max_bytes {
            self.full.increment();
            return;
        }
        waiting.count += 1;
        waiting.bytes += item.len();
        waiting.items.push_back(item);
    }

    /// Sends what waits.
    pub(crate) fn flush(self: &Rc<Self>, plugin: &Plugin) {
        while self.under_way.get() < MOST_UNDER_WAY {
            let mut waiting = self.waiting.borrow_mut();
            let count = waiting.items.len().min(self.report.batch_items.max(1));
            if count == 0 {
                return;
            }
            let items: Vec<Vec<u8>> = waiting.items.drain(..count).collect();
            drop(waiting);
            let body = self.wire.body(&self.resource, &items);
            let bytes: usize = items.iter().map(Vec::len).sum();
            drop(items);
            self.under_way.set(self.under_way.get() + 1);
            let (this, tasks) = (Rc::clone(self), plugin.clone());
            plugin.spawn(async move {
                let outcome = if this.send(&tasks, body).await { this.sent } else { this.refused };
                outcome.add(u32::try_from(count).unwrap_or(u32::MAX));
                let mut waiting = this.waiting.borrow_mut();
                waiting.count -= count;
                waiting.bytes -= bytes;
                this.under_way.set(this.under_way.get() - 1);
            });
        }
    }

    /// Whether the collector took it.
    async fn send(&self, plugin: &Plugin, body: Vec<u8>) -> bool {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=self.report.attempts.max(1) {
            let mut call = plugin.call(&self.collector.cluster, "POST", &self.path).header("content-type", self.wire.content_type());
            if let Some(authority) = &self.collector.authority {
                call = call.header(":authority", authority);
            }
            for (name, value) in &self.collector.headers {
                call = call.header(&name.to_ascii_lowercase(), value);
            }
            let timeout = Duration::from_millis(self.report.timeout_ms.max(1).into());
            let why = match call.body(body.clone()).timeout(timeout).send().await {
                Ok(answer) if (200..300).contains(&answer.status()) => return true,
                // What it does not want now it may want later; anything else it will never want.
                Ok(answer) if !matches!(answer.status(), 429 | 502 | 503 | 504) => {
                    weir_sdk::warn!("{} refuses {}: {}", self.collector.cluster, self.wire.signal(), answer.status());
                    return false;
                }
                Ok(answer) => answer.status().to_string(),
                Err(error) => error.to_string(),
            };
            weir_sdk::info!("{} did not take {} (attempt {attempt}): {why}", self.collector.cluster, self.wire.signal());
            if attempt < self.report.attempts {
                plugin.sleep(pause).await;
                pause *= 2;
            }
        }
        false
    }
}
