//! Chooses the property `cluster`, one rule a line: `PATH-PREFIX HEADER VALUE CLUSTER`; header `-` asks for none. The
//! first rule that matches wins.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use crate::lookup::Lookup;

struct Rule {
    prefix: String,
    header: String,
    value: String,
    cluster: String,
}

#[derive(Default)]
pub(crate) struct Root {
    rules: Rc<Vec<Rule>>,
}

fn parse(text: &str) -> Option<Vec<Rule>> {
    let rule = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [prefix, header, value, cluster] => Some(Rule {
            prefix: prefix.to_owned(),
            header: header.to_owned(),
            value: value.to_owned(),
            cluster: cluster.to_owned(),
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
        let mut headers = Lookup::default();
        let rule = self.rules.iter().find(|rule| {
            path.starts_with(&rule.prefix)
                && (rule.header == "-" || headers.get(self, &rule.header) == Some(&rule.value))
        });
        if let Some(rule) = rule {
            self.set_property(vec!["cluster"], Some(rule.cluster.as_bytes()));
        }
        Action::Continue
    }
}
