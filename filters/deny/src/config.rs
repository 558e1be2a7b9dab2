//! What the operator writes.

use std::collections::BTreeMap;

use weir_filter_matching::{RequestMatch, TextMatch};
use weir_sdk::{Refusal, config};

/// The configuration of the filter.
#[config]
#[derive(Debug, Default)]
pub struct Deny {
    /// Tried in this order.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A rule: it means a request that all of its conditions hold for.
#[config]
#[derive(Debug)]
pub struct Rule {
    /// What is counted and logged.
    pub name: String,
    /// Which requests; every one unless written.
    #[serde(default)]
    pub when: RequestMatch,
    /// Except for these.
    pub unless: Option<RequestMatch>,
    /// Conditions on attributes: `connection.mtls`, `source.address`, whatever an earlier filter set.
    #[serde(default)]
    pub attributes: Vec<AttributeMatch>,
    /// Whether a value stands in a list.
    pub list: Option<ListMatch>,
    /// A condition in CEL over attributes and headers: `request.headers["x-role"] != "root" && request.size > 1024`. Where it has no value, because a header is not
    /// there for instance, the rule does not mean the request.
    pub expression: Option<String>,
    /// What the client is told.
    #[serde(default)]
    pub answer: Answer,
    /// Only count and log.
    #[serde(default)]
    pub dry_run: bool,
}

/// A condition on an attribute.
#[config]
#[derive(Debug)]
pub struct AttributeMatch {
    /// Its path, with dots.
    pub name: String,
    /// Its value; numbers and truth values are eight bytes and one, as the ABI has them.
    pub value: TextMatch,
}

/// A condition on whether a value stands in a list.
#[config]
#[derive(Debug)]
pub struct ListMatch {
    /// Which value.
    pub of: Subject,
    /// The list.
    pub entries: Vec<String>,
    /// How a value is compared with an entry.
    #[serde(default)]
    pub compare: Compare,
    /// Refuse what is listed, or what is not.
    #[serde(default)]
    pub refuse: Refuse,
}

/// A value of a request.
#[config]
#[derive(Debug)]
pub enum Subject {
    /// A request header.
    Header(String),
    /// An attribute, by its path.
    Attribute(String),
    /// The client's IP address.
    SourceAddress,
}

/// How a value is compared with a list's entries.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// They are the same.
    #[default]
    Exact,
    /// They are the same but for case.
    IgnoreCase,
    /// The entry is a regular expression for the whole value.
    Regex,
    /// The entry is an address or a CIDR range, and the value lies in it.
    Cidr,
}

/// Which values are refused.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Refuse {
    /// Those in the list.
    #[default]
    Listed,
    /// Those that are not, the absent one included.
    Unlisted,
}

/// What a refused client is told.
#[config]
#[derive(Debug)]
#[serde(default)]
pub struct Answer {
    /// The status; 403.
    pub status: u16,
    /// The body; none.
    pub body: String,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
    /// What a gRPC client is told; from the status unless written.
    pub grpc_status: Option<u32>,
}

impl Default for Answer {
    fn default() -> Self {
        Self { status: 403, body: String::new(), headers: BTreeMap::new(), grpc_status: None }
    }
}

impl Answer {
    /// Whether it can be sent.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        if !(200..=599).contains(&self.status) {
            return Err(Refusal::at("status", format!("{} is no status of 200 to 599", self.status)));
        }
        if self.grpc_status.is_some_and(|status| status > 16) {
            return Err(Refusal::at("grpcStatus", "a gRPC status is 0 to 16"));
        }
        for (name, value) in &self.headers {
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
            if !is_name || value.contains(|letter: char| letter.is_control() && letter != '\t') {
                return Err(Refusal::at(format!("headers.{name}"), "this is no header"));
            }
        }
        Ok(())
    }
}
