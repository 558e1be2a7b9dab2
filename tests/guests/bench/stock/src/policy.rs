//! Deny rules, one a line: `deny METHOD PATH-PREFIX HEADER VALUE`. `*` is any method; header `-` asks for none; value
//! `-` asks that the header be absent.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use crate::lookup::Lookup;

struct Rule {
    method: String,
    prefix: String,
    header: String,
    value: String,
}

#[derive(Default)]
pub(crate) struct Root {
    rules: Rc<Vec<Rule>>,
}

fn parse(text: &str) -> Option<Vec<Rule>> {
    let rule = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["deny", method, prefix, header, value] => Some(Rule {
            method: method.to_owned(),
            prefix: prefix.to_owned(),
            header: header.to_owned(),
            value: value.to_owned(),
        }),
        _ => None,
    };
    text.lines().map(rule).collect()
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        let Some(rules) = std::str::from_utf8(&text).ok().and_then(parse) else {
            return false;
        };
        self.rules = Rc::new(rules);
        true
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            rules: Rc::clone(&self.rules),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    rules: Rc<Vec<Rule>>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let method = self.get_http_request_header(":method").unwrap_or_default();
        let mut headers = Lookup::default();
        let denied = self.rules.iter().any(|rule| {
            (rule.method == "*" || rule.method == method)
                && path.starts_with(&rule.prefix)
                && (rule.header == "-"
                    || match headers.get(self, &rule.header) {
                        None => rule.value == "-",
                        Some(value) => value == rule.value,
                    })
        });
        if denied {
            self.send_http_response(403, vec![("x-denied", "policy")], Some(b"denied"));
            return Action::Pause;
        }
        Action::Continue
    }
}
