//! The filter as a Proxy-Wasm guest: configuration in, header changes out.
//!
//! Always: one [`Rules`] per plugin, shared by its streams; no header is read, so no value that a client sends
//! can upset the filter.
//!
//! Deliberately not here: what a rule means, see [`rules`](crate::rules).

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

use crate::rules::Rules;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Plugin::default()));
}}

/// The root context: holds the rules of this configuration.
#[derive(Default)]
struct Plugin {
    rules: Rc<Rules>,
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_configure(&mut self, _size: usize) -> bool {
        match Rules::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(rules) => {
                if rules.is_empty() {
                    log::warn!("headers: the configuration has no rules, so messages pass unchanged");
                }
                self.rules = Rc::new(rules);
                true
            }
            Err(refused) => {
                log::error!("headers: configuration refused: {refused}");
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { rules: Rc::clone(&self.rules) }))
    }
}

/// One HTTP stream.
struct Stream {
    rules: Rc<Rules>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        let changes = &self.rules.request;
        for name in &changes.remove {
            self.remove_http_request_header(name.as_str());
        }
        for (name, value) in &changes.set.0 {
            self.set_http_request_header(name.as_str(), Some(value));
        }
        for (name, value) in &changes.add.0 {
            self.add_http_request_header(name.as_str(), value);
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end: bool) -> Action {
        let changes = &self.rules.response;
        for name in &changes.remove {
            self.remove_http_response_header(name.as_str());
        }
        for (name, value) in &changes.set.0 {
            self.set_http_response_header(name.as_str(), Some(value));
        }
        for (name, value) in &changes.add.0 {
            self.add_http_response_header(name.as_str(), value);
        }
        Action::Continue
    }
}
