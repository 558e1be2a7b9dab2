//! The contract of `tests/guests/README.md` on the `proxy-wasm` crate, as its users write a filter: it exports `malloc`
//! and no `proxy_on_memory_allocate`, because that is what the crate does on this target.

use std::time::Duration;

use log::info;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType, Status};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { metrics: Metrics::default() }));
}}

#[derive(Clone, Copy, Default)]
struct Metrics {
    requests: u32,
    ticks: u32,
    logs: u32,
    gauge: u32,
    histogram: u32,
}

impl Metrics {
    fn define() -> Result<Self, Status> {
        Ok(Self {
            requests: hostcalls::define_metric(MetricType::Counter, "guest_requests")?,
            ticks: hostcalls::define_metric(MetricType::Counter, "guest_ticks")?,
            logs: hostcalls::define_metric(MetricType::Counter, "guest_logs")?,
            gauge: hostcalls::define_metric(MetricType::Gauge, "guest_gauge")?,
            histogram: hostcalls::define_metric(MetricType::Histogram, "guest_hist")?,
        })
    }
}

struct Root {
    metrics: Metrics,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if text == "refuse" {
            return false;
        }
        if text.contains("tick") {
            self.set_tick_period(Duration::from_millis(100));
        }
        self.metrics = Metrics::define().expect("metrics are defined");
        true
    }

    fn on_tick(&mut self) {
        hostcalls::increment_metric(self.metrics.ticks, 1).expect("the tick is counted");
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            metrics: self.metrics,
            path: String::new(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    metrics: Metrics,
    path: String,
}

impl Stream {
    fn headers(&self) {
        if let Some(value) = self.get_http_request_header("x-in") {
            self.add_http_request_header("x-out", &value);
        }
        self.remove_http_request_header("x-drop");
        self.set_http_request_header("x-set", Some("set"));
    }

    fn callout(&self) -> Action {
        let headers = vec![
            (":method", "GET"),
            (":path", "/check"),
            (":authority", "auth"),
        ];
        let sent =
            self.dispatch_http_call("auth", headers, None, vec![], Duration::from_millis(1000));
        if sent.is_err() {
            self.send_http_response(403, vec![], Some(b"no reply"));
        }
        Action::Pause
    }

    fn shared(&self) {
        let (value, cas) = self.get_shared_data("hits");
        let hits: u64 = value
            .and_then(|v| String::from_utf8(v).ok()?.parse().ok())
            .unwrap_or(0);
        let next = (hits + 1).to_string();
        if self
            .set_shared_data("hits", Some(next.as_bytes()), cas)
            .is_ok()
        {
            self.add_http_request_header("x-hits", &next);
        }
    }

    fn metrics(&self) {
        let count = || {
            hostcalls::increment_metric(self.metrics.requests, 1)?;
            hostcalls::record_metric(self.metrics.gauge, 7)?;
            hostcalls::record_metric(self.metrics.histogram, 42)?;
            hostcalls::get_metric(self.metrics.requests)
        };
        let count: Result<u64, Status> = count();
        self.add_http_request_header("x-count", &count.expect("metrics answer").to_string());
    }

    fn property(&self) {
        if let Some(source) = self.get_property(vec!["source", "address"]) {
            self.add_http_request_header("x-source", &String::from_utf8_lossy(&source));
        }
        self.set_property(vec!["guest", "note"], Some(b"hi"));
    }
}

impl Context for Stream {
    fn on_http_call_response(
        &mut self,
        _token: u32,
        headers: usize,
        body: usize,
        _trailers: usize,
    ) {
        if headers == 0 {
            return self.send_http_response(403, vec![], Some(b"no reply"));
        }
        if self.get_http_call_response_header(":status").as_deref() == Some("200") {
            let user = self
                .get_http_call_response_header("x-user")
                .unwrap_or_default();
            self.set_http_request_header("x-auth", Some(&user));
            return self.resume_http_request();
        }
        let body = self
            .get_http_call_response_body(0, body)
            .unwrap_or_default();
        self.send_http_response(403, vec![], Some(&body));
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        self.path = self.get_http_request_header(":path").unwrap_or_default();
        match self.path.as_str() {
            "/headers" => self.headers(),
            "/local" => {
                self.send_http_response(418, vec![("x-local", "yes")], Some(b"teapot"));
                return Action::Pause;
            }
            "/callout" => return self.callout(),
            "/shared" => self.shared(),
            "/metrics" => self.metrics(),
            "/property" => self.property(),
            "/trap" => panic!("asked to trap"),
            "/log" => info!("hello from guest"),
            _ => {}
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        if self.path != "/body" {
            return Action::Continue;
        }
        if !end {
            return Action::Pause;
        }
        let mut body = self.get_http_request_body(0, size).unwrap_or_default();
        let length = body.len();
        body.extend_from_slice(format!("|{length}").as_bytes());
        self.set_http_request_body(0, size, &body);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end: bool) -> Action {
        if self.path == "/headers" {
            self.add_http_response_header("x-guest", "rust");
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.path != "/body" {
            return Action::Continue;
        }
        if !end {
            return Action::Pause;
        }
        self.set_http_response_body(size, 0, b"|resp");
        Action::Continue
    }

    fn on_log(&mut self) {
        hostcalls::increment_metric(self.metrics.logs, 1).expect("the log is counted");
    }
}
