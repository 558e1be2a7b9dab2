//! Mixer's expressions over attributes: `source.labels["app"] == "reviews" && (request.size | 0) < 1024`.
//!
//! The syntax is that of Go's expressions, as far as Mixer read it. Every expression has a type, found before it runs; what names an unknown
//! attribute, or compares a text with a number, is refused then. Running it can still fail: an attribute that is absent is an error unless
//! something stands behind it after a `|`.
//!
//! Always: sizes and depth are bounded, so that no text makes reading or running it take long or end the process. What it does not do: arguments
//! beyond those a function takes, which Mixer let pass and then mixed up, are refused; and an operator on the left of `|` counts as a value,
//! where Mixer lost it.

mod check;
mod evaluate;
mod functions;
mod lexer;
mod names;
mod parser;
mod uri;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use evaluate::{Outcome, Reference};
pub(super) use functions::matches_regex;
pub use functions::timestamp;

use super::vocabulary::Vocabulary;

/// The most bytes of an expression.
pub const MAX_LENGTH: usize = 16 << 10;
/// The most operators and calls within each other.
pub const MAX_DEPTH: usize = 400;

/// What kind of value an attribute or an expression has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// A text.
    String,
    /// A whole number.
    Int64,
    /// A number.
    Double,
    /// True or false.
    Bool,
    /// A point in time.
    Timestamp,
    /// A length of time.
    Duration,
    /// An IP address.
    IpAddress,
    /// A mail address; a text that is compared as one.
    EmailAddress,
    /// A DNS name; a text that is compared as one.
    DnsName,
    /// A URI; a text that is compared as one.
    Uri,
    /// Texts by name.
    StringMap,
}

impl Type {
    /// By the name that attribute manifests give it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    const ALL: [(Self, &'static str); 11] = [
        (Self::String, "STRING"),
        (Self::Int64, "INT64"),
        (Self::Double, "DOUBLE"),
        (Self::Bool, "BOOL"),
        (Self::Timestamp, "TIMESTAMP"),
        (Self::Duration, "DURATION"),
        (Self::IpAddress, "IP_ADDRESS"),
        (Self::EmailAddress, "EMAIL_ADDRESS"),
        (Self::DnsName, "DNS_NAME"),
        (Self::Uri, "URI"),
        (Self::StringMap, "STRING_MAP"),
    ];
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name))
    }
}

/// A value of an attribute, or what an expression came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text; mail addresses, DNS names and URIs are texts too.
    String(Arc<str>),
    /// A whole number.
    Int64(i64),
    /// A number.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// Nanoseconds since 1970.
    Timestamp(i128),
    /// Nanoseconds.
    Duration(i64),
    /// An IP address; an IPv4 address that is mapped into IPv6 is the IPv4 address.
    IpAddress(IpAddr),
    /// Texts by name.
    StringMap(Arc<BTreeMap<String, String>>),
}

/// Why an expression was refused, or came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A part of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// What was written, and what it means.
    Constant(String, Value),
    Variable(Arc<str>),
    Call(Box<Call>),
}

/// Operators are calls too: `a == b` is `EQ(a, b)`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    /// What a method is called on.
    pub(super) target: Option<Node>,
    pub(super) arguments: Vec<Node>,
}

/// As Mixer showed it in its messages.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(text, _) => f.write_str(text),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Call(call) => call.fmt(f),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = &self.target {
            write!(f, "{target}:")?;
        }
        write!(f, "{}(", self.name)?;
        for (at, argument) in self.arguments.iter().enumerate() {
            write!(f, "{}{argument}", if at > 0 { ", " } else { "" })?;
        }
        f.write_str(")")
    }
}

/// An expression that can be run.
#[derive(Debug, Clone)]
pub struct Expression {
    root: Node,
    kind: Type,
    /// The types of the attributes that it names.
    types: BTreeMap<Arc<str>, Type>,
}

impl Expression {
    /// Reads an expression and finds its type.
    ///
    /// # Errors
    /// When it is none, names what is not known, or its types do not fit.
    pub fn new(text: &str, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let root = parser::parse(text)?;
        let mut types = BTreeMap::new();
        let kind = check::check(&root, vocabulary, &mut types)?;
        Ok(Self { root, kind, types })
    }

    /// The type of its value.
    #[must_use]
    pub const fn kind(&self) -> Type {
        self.kind
    }

    /// The attributes that it names.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(|name| &**name)
    }

    /// What it comes to with these attributes.
    #[must_use]
    pub fn evaluate(&self, attributes: &BTreeMap<String, Value>) -> Outcome {
        let mut run = evaluate::Run { attributes, types: &self.types, referenced: BTreeSet::new() };
        let value = run.value(&self.root);
        Outcome { value, referenced: run.referenced }
    }

    pub(super) const fn root(&self) -> &Node {
        &self.root
    }
}

#[cfg(test)]
mod tests;
