//! Aborts requests: `abort PERCENT STATUS`. A request header `x-fault-abort: 1` aborts for certain.

use std::cell::Cell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

struct Fault {
    percent: f64,
    status: u32,
    random: Cell<u64>,
}

impl Fault {
    /// Xorshift: the next number in [0, 100).
    fn roll(&self) -> f64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 11) as f64 * (100.0 / (1u64 << 53) as f64)
    }
}

#[derive(Default)]
pub(crate) struct Root {
    fault: Option<Rc<Fault>>,
}

fn parse(text: &str) -> Option<Fault> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["abort", percent, status] => Some(Fault {
            percent: percent.parse().ok()?,
            status: status.parse().ok()?,
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
        }),
        _ => None,
    }
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        self.fault = std::str::from_utf8(&text).ok().and_then(parse).map(Rc::new);
        self.fault.is_some()
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        let fault = Rc::clone(self.fault.as_ref()?);
        Some(Box::new(Stream { fault }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    fault: Rc<Fault>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        let asked = self.get_http_request_header("x-fault-abort").as_deref() == Some("1");
        if asked || self.fault.roll() < self.fault.percent {
            self.send_http_response(
                self.fault.status,
                vec![("x-fault", "abort")],
                Some(b"fault"),
            );
            return Action::Pause;
        }
        Action::Continue
    }
}
