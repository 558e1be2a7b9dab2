//! Counts requests, responses and 2xx responses, and records how long each stream took. No configuration.

use std::time::SystemTime;

use proxy_wasm::hostcalls::{define_metric, increment_metric, record_metric};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, MetricType, Status};

#[derive(Clone, Copy, Default)]
struct Metrics {
    requests: u32,
    responses: u32,
    responses_2xx: u32,
    latency: u32,
}

impl Metrics {
    fn define() -> Result<Self, Status> {
        Ok(Self {
            requests: define_metric(MetricType::Counter, "requests_total")?,
            responses: define_metric(MetricType::Counter, "responses_total")?,
            responses_2xx: define_metric(MetricType::Counter, "response_2xx_total")?,
            latency: define_metric(MetricType::Histogram, "latency_us")?,
        })
    }
}

#[derive(Default)]
pub(crate) struct Root {
    metrics: Metrics,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let Ok(metrics) = Metrics::define() else {
            return false;
        };
        self.metrics = metrics;
        true
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            metrics: self.metrics,
            start: SystemTime::UNIX_EPOCH,
            status: 0,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    metrics: Metrics,
    start: SystemTime,
    status: u16,
}

impl Stream {
    fn record(&self) -> Result<(), Status> {
        let took = self
            .get_current_time()
            .duration_since(self.start)
            .unwrap_or_default();
        increment_metric(self.metrics.responses, 1)?;
        if self.status / 100 == 2 {
            increment_metric(self.metrics.responses_2xx, 1)?;
        }
        record_metric(self.metrics.latency, took.as_micros() as u64)
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        self.start = self.get_current_time();
        increment_metric(self.metrics.requests, 1).expect("the request is counted");
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end: bool) -> Action {
        let status = self.get_http_response_header(":status");
        self.status = status.and_then(|s| s.parse().ok()).unwrap_or(0);
        Action::Continue
    }

    fn on_log(&mut self) {
        self.record().expect("the response is counted");
    }
}
