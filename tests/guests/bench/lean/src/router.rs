//! Chooses the property `cluster`, one rule a line: `PATH-PREFIX HEADER VALUE CLUSTER`; header `-` asks for none. The
//! first rule that matches wins.

use crate::Action;
use crate::abi::{Lookup, request_header, set_property};

struct Rule {
    prefix: Box<str>,
    header: Box<str>,
    value: Box<str>,
    cluster: Box<str>,
}

pub(crate) struct Filter {
    rules: Vec<Rule>,
}

impl Filter {
    pub(crate) fn configure(text: &str) -> Option<Self> {
        let rules = text.lines().map(|line| {
            let mut words = line.split_whitespace();
            let rule = Rule {
                prefix: words.next()?.into(),
                header: words.next()?.into(),
                value: words.next()?.into(),
                cluster: words.next()?.into(),
            };
            words.next().is_none().then_some(rule)
        });
        Some(Self {
            rules: rules.collect::<Option<_>>()?,
        })
    }

    #[inline]
    pub(crate) fn request(&mut self) -> Action {
        let path = request_header(":path").unwrap_or_default();
        let mut headers = Lookup::default();
        let rule = self.rules.iter().find(|rule| {
            path.starts_with(rule.prefix.as_bytes())
                && (&*rule.header == "-"
                    || headers.get(&rule.header) == Some(rule.value.as_bytes()))
        });
        if let Some(rule) = rule {
            set_property("cluster", &rule.cluster);
        }
        Action::Continue
    }
}
