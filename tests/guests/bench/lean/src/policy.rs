//! Deny rules, one a line: `deny METHOD PATH-PREFIX HEADER VALUE`. `*` is any method; header `-` asks for none; value
//! `-` asks that the header be absent.

use crate::Action;
use crate::abi::{Lookup, request_header, send_local_response};

struct Rule {
    method: Box<str>,
    prefix: Box<str>,
    header: Box<str>,
    value: Box<str>,
}

pub(crate) struct Filter {
    rules: Vec<Rule>,
}

/// The map `x-denied: policy`: one pair, its two lengths, its two strings, each ended by a zero.
const HEADERS: &[u8] = b"\x01\0\0\0\x08\0\0\0\x06\0\0\0x-denied\0policy\0";

impl Filter {
    pub(crate) fn configure(text: &str) -> Option<Self> {
        let rules = text.lines().map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|w| *w == "deny")?;
            let rule = Rule {
                method: words.next()?.into(),
                prefix: words.next()?.into(),
                header: words.next()?.into(),
                value: words.next()?.into(),
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
        let method = request_header(":method").unwrap_or_default();
        let mut headers = Lookup::default();
        let denied = self.rules.iter().any(|rule| {
            (&*rule.method == "*" || rule.method.as_bytes() == method)
                && path.starts_with(rule.prefix.as_bytes())
                && (&*rule.header == "-"
                    || match headers.get(&rule.header) {
                        None => &*rule.value == "-",
                        Some(value) => value == rule.value.as_bytes(),
                    })
        });
        if denied {
            send_local_response(403, HEADERS, "denied");
            return Action::Pause;
        }
        Action::Continue
    }
}
