//! The `headers` filter: adds, sets and removes request and response headers.
//!
//! What it does to a message is decided in [`rules`], which is plain data and knows no host.
//!
//! Always: a configuration with any mistake in it is refused whole, so a filter that runs does everything
//! it was told to. Per message: removals first, then sets, then additions, each in the order written. No header is
//! read, so no value that a client sends can upset the filter.
//!
//! Deliberately not here: conditions, and values computed from the message. A filter that needs them is
//! another filter.

pub mod rules;

use rules::{Changes, Rules};
use weir_sdk::{Headers, Status, prelude::*};

/// The filter: the rules of its configuration.
#[derive(Debug)]
pub struct HeaderRules(Rules);

#[register]
impl Filter for HeaderRules {
    type Config = Rules;

    fn configure(rules: Rules, _: &Plugin) -> Result<Self, Refusal> {
        rules.check()?;
        if rules.is_empty() {
            weir_sdk::warn!("the configuration has no rules, so messages pass unchanged");
        }
        Ok(Self(rules))
    }

    fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
        change(&self.0.request, stream.request())
    }

    fn on_response_headers(&self, stream: &mut Stream<'_>) -> Flow {
        change(&self.0.response, stream.response())
    }
}

fn change(changes: &Changes, headers: Headers<'_>) -> Flow {
    let done = || -> Result<(), Status> {
        changes.remove.iter().try_for_each(|name| headers.remove(name.as_str()))?;
        changes.set.0.iter().try_for_each(|(name, value)| headers.set(name.as_str(), value))?;
        changes.add.0.iter().try_for_each(|(name, value)| headers.add(name.as_str(), value))
    };
    if let Err(status) = done() {
        weir_sdk::error!("the headers were not changed: {status}");
    }
    Flow::Continue
}
