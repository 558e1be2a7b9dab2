//! What a filter decided about a stream, so that a log can say who refused or changed it, by which rule and why.
//!
//! Decisions are kept with the stream under [`DECISIONS`], as a JSON array: access logs show it (`%FILTER_STATE(weir.decision)%`), later filters read it.
//! What always holds: a decision names its filter and the configuration's revision without the author's doing; decisions stand in the order they were made.

use std::fmt::Write;

use crate::abi::{self, Status};
use crate::{Attributes, Stream};

/// The attribute that holds what was decided. It is one segment: [`Attributes::at`] reads it.
pub const DECISIONS: &str = "weir.decision";

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The rule, as the operator named it; empty if there is none.
    pub rule: &'a str,
    /// What it came to, in a word: `refuse`, `would_refuse`, `delay`, `abort`.
    pub verdict: &'a str,
    /// Why; may be empty.
    pub reason: &'a str,
}

impl<S: 'static> Stream<'_, S> {
    /// Notes a decision about this stream.
    ///
    /// # Errors
    /// When the host keeps no more about the stream.
    pub fn decide(&self, decision: Decision<'_>) -> Result<(), Status> {
        let attributes = self.attributes();
        let before = attributes.at(&[DECISIONS]).unwrap_or_default();
        let filter = attributes.plugin_name().unwrap_or_default();
        let revision = attributes.integer("weir.revision");
        abi::set_property(DECISIONS.as_bytes(), &appended(before, filter, revision, decision))
    }
}

impl<'c> Attributes<'c> {
    /// What filters have decided about the stream so far: a JSON array, or nothing.
    #[must_use]
    pub fn decisions(&self) -> Option<&'c str> {
        std::str::from_utf8(self.at(&[DECISIONS])?).ok()
    }
}

fn appended(before: &[u8], filter: &str, revision: Option<i64>, decision: Decision<'_>) -> Vec<u8> {
    let mut text = match std::str::from_utf8(before).ok().and_then(|before| before.strip_suffix(']')) {
        Some(open) => format!("{open},"),
        None => "[".to_owned(),
    };
    let mut open = '{';
    for (name, value) in [("filter", filter), ("rule", decision.rule), ("verdict", decision.verdict), ("reason", decision.reason)] {
        if !value.is_empty() {
            let _ = write!(text, "{open}\"{name}\":{}", serde_json::Value::from(value));
            open = ',';
        }
    }
    if let Some(revision) = revision {
        let _ = write!(text, "{open}\"revision\":{revision}");
        open = ',';
    }
    text.push_str(if open == '{' { "{}]" } else { "}]" });
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_stand_in_order_and_are_json_whatever_a_rule_is_called() {
        let one = Decision { rule: "a \"b\"\n", verdict: "refuse", reason: "" };
        let first = appended(b"", "main/deny", Some(7), one);
        let both = appended(&first, "", None, Decision { rule: "", verdict: "delay", reason: "300ms" });
        let read: serde_json::Value = serde_json::from_slice(&both).unwrap_or_default();
        assert_eq!(
            read,
            serde_json::json!([
                {"filter": "main/deny", "rule": "a \"b\"\n", "verdict": "refuse", "revision": 7},
                {"verdict": "delay", "reason": "300ms"},
            ])
        );
    }
}
