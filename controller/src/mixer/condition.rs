//! What an expression asks of a request, as alternatives of conditions that a filter can check.
//!
//! Always: the alternatives hold exactly where the expression is true. One that fails is not true, and neither is what contains it, unless `&&`, `||`
//! or `|` would not have looked at it. What no filter can check is refused, with the words for it. What it does not do: compare two attributes with
//! each other, or numbers.

use std::net::IpAddr;

use super::expression::{Call, Node, Value, matches_regex};
use super::peer::{Fact, Peer};

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A request header.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// An attribute of the proxy.
    Attribute(&'static str),
    /// The address of the client.
    SourceAddress,
    /// Something about the client's workload.
    Source(Fact),
    /// Something about the workload that the proxy stands before.
    Destination(Fact),
}

/// What it is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The whole text.
    Exact(String),
    /// The same but for case.
    IgnoreCase(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// A regular expression for a part of it.
    Pattern(String),
    /// Whether it is true.
    Truth,
    /// The address.
    Address(IpAddr),
    /// One of these.
    Listed(List),
    /// Whether it is there.
    Present,
}

/// A list of a list checker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// What stands in it.
    pub entries: Vec<String>,
    /// How a value is compared with that.
    pub compare: Compare,
}

/// How a value is compared with the entries of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// They are the same.
    Exact,
    /// They are the same but for case.
    IgnoreCase,
    /// The entry is a regular expression for a part of the value.
    Regex,
    /// The entry is an address or a range of them.
    Cidr,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it looks at.
    pub subject: Subject,
    /// What that is held against.
    pub test: Test,
    /// The opposite counts.
    pub invert: bool,
    /// Whether it holds where there is nothing to look at.
    pub absent: bool,
    /// Whether it holds for a client of whose workload nothing is known.
    pub unknown: bool,
}

/// The most alternatives that one expression may come to.
pub const MAX_ALTERNATIVES: usize = 64;

/// Conditions that must all hold.
pub type All = Vec<Condition>;

#[derive(Debug, Clone)]
pub(super) enum Formula {
    Const(bool),
    Leaf(Condition),
    All(Vec<Formula>),
    Any(Vec<Formula>),
}

use Formula::{Any, Const, Leaf};

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text,
            Self::IgnoreCase(text) => value.eq_ignore_ascii_case(text),
            Self::Prefix(text) => value.starts_with(&**text),
            Self::Suffix(text) => value.ends_with(&**text),
            Self::Pattern(pattern) => is_match(pattern, value),
            Self::Truth => value == "true",
            Self::Address(address) => value.parse() == Ok(*address),
            Self::Present => true,
            Self::Listed(list) => list.entries.iter().any(|entry| match list.compare {
                Compare::Exact => entry == value,
                Compare::IgnoreCase => entry.eq_ignore_ascii_case(value),
                Compare::Regex => is_match(entry, value),
                Compare::Cidr => value.parse().is_ok_and(|address| in_range(entry, address)),
            }),
        }
    }
}

fn is_match(pattern: &str, value: &str) -> bool {
    matches_regex(pattern, value) == Ok(true)
}

/// Whether an address is this one, or in this range.
pub(super) fn in_range(range: &str, address: IpAddr) -> bool {
    let (base, length) = range.split_once('/').map_or((range, None), |(base, length)| (base, length.parse::<u32>().ok()));
    let bits = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let Ok(base) = base.parse::<IpAddr>() else { return false };
    let ((base, width), (address, other)) = (bits(base), bits(address));
    let length = length.unwrap_or(width).min(width);
    width == other && (length == 0 || (base ^ address) >> (128 - length) == 0)
}

impl Condition {
    /// Whether it holds for what is known of a workload.
    #[must_use]
    pub fn holds(&self, fact: &Fact, peer: &Peer<'_>) -> bool {
        let values = peer.fact(fact);
        if values.is_empty() { self.absent } else { values.into_iter().any(|value| self.test.holds(value) != self.invert) }
    }
}

/// The alternatives in which an expression is true.
pub(super) fn alternatives(node: &Node) -> Result<Vec<All>, String> {
    flatten(&truth(node, true)?)
}

/// The alternatives in which a value is in a list, or is not.
pub(super) fn listed(node: &Node, list: List, wanted: bool) -> Result<Formula, String> {
    text(node, &Test::Listed(list), wanted, None)
}

/// The alternatives of a formula, without those that cannot be.
pub(super) fn flatten(formula: &Formula) -> Result<Vec<All>, String> {
    let found = match formula {
        Const(true) => vec![Vec::new()],
        Const(false) => Vec::new(),
        Leaf(condition) => vec![vec![condition.clone()]],
        Any(parts) => {
            let mut found: Vec<All> = Vec::new();
            for part in parts {
                found.append(&mut flatten(part)?);
            }
            found
        }
        Formula::All(parts) => {
            let mut found: Vec<All> = vec![Vec::new()];
            for part in parts {
                let more = flatten(part)?;
                if found.len() * more.len() > MAX_ALTERNATIVES {
                    return Err(too_many());
                }
                let both = |one: &All, other: &All| {
                    let mut both = one.clone();
                    both.extend(other.iter().filter(|condition| !one.contains(condition)).cloned());
                    both
                };
                found = found.iter().flat_map(|one| more.iter().map(move |other| both(one, other))).collect();
            }
            found
        }
    };
    if found.len() > MAX_ALTERNATIVES { Err(too_many()) } else { Ok(found) }
}

fn too_many() -> String {
    format!("an expression of more than {MAX_ALTERNATIVES} alternatives")
}

/// Where an expression is true, or where it is false.
fn truth(node: &Node, wanted: bool) -> Result<Formula, String> {
    let call = match node {
        Node::Constant(_, Value::Bool(value)) => return Ok(Const(*value == wanted)),
        Node::Variable(name) if &**name == "connection.mtls" => {
            return Ok(leaf(&Subject::Attribute("connection.mtls"), Test::Truth, wanted, Const(false), false));
        }
        Node::Call(call) => call,
        _ => return Err(format!("`{node}`")),
    };
    match (&*call.name, &call.arguments[..]) {
        ("LAND" | "LOR", [left, right]) => {
            // What decides alone is true of `||` and false of `&&`.
            let alone = call.name == "LOR";
            if wanted == alone {
                let second = truth(right, wanted)?;
                let second = if total(left) { second } else { Formula::All(vec![truth(left, !wanted)?, second]) };
                Ok(Any(vec![truth(left, wanted)?, second]))
            } else {
                Ok(Formula::All(vec![truth(left, wanted)?, truth(right, wanted)?]))
            }
        }
        ("EQ", [left, right]) => equal(left, right, wanted),
        ("NEQ", [left, right]) => equal(left, right, !wanted),
        ("match", [value, Node::Constant(_, Value::String(pattern))]) => text(value, &glob(pattern), wanted, None),
        ("conditional", [condition, yes, no]) => choose(condition, truth(yes, wanted)?, truth(no, wanted)?),
        // The only truth value that is carried is always there.
        ("OR", [left @ Node::Variable(_), _]) => truth(left, wanted),
        ("startsWith" | "endsWith" | "matches", [argument]) => method(call, argument, wanted),
        _ => Err(format!("`{call}`")),
    }
}

fn choose(condition: &Node, yes: Formula, no: Formula) -> Result<Formula, String> {
    Ok(Any(vec![Formula::All(vec![truth(condition, true)?, yes]), Formula::All(vec![truth(condition, false)?, no])]))
}

fn method(call: &Call, argument: &Node, wanted: bool) -> Result<Formula, String> {
    let constant = |node: &Node| if let Node::Constant(_, Value::String(text)) = node { Some(text.to_string()) } else { None };
    let Some(target) = &call.target else { return Err(format!("`{call}`")) };
    let found = match (&*call.name, constant(target), constant(argument)) {
        ("startsWith", _, Some(start)) => Some((target, Test::Prefix(start))),
        ("endsWith", _, Some(end)) => Some((target, Test::Suffix(end))),
        ("matches", Some(pattern), _) => Some((argument, Test::Pattern(pattern))),
        _ => None,
    };
    let (value, test) = found.ok_or_else(|| format!("`{call}`: a comparison of two attributes"))?;
    if let Test::Pattern(pattern) = &test {
        matches_regex(pattern, "").map_err(|_| format!("{pattern:?}, which is no regular expression"))?;
    }
    text(value, &test, wanted, None)
}

fn glob(pattern: &str) -> Test {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(start), _) => Test::Prefix(start.to_owned()),
        (None, Some(end)) => Test::Suffix(end.to_owned()),
        (None, None) => Test::Exact(pattern.to_owned()),
    }
}

fn equal(left: &Node, right: &Node, wanted: bool) -> Result<Formula, String> {
    for (value, other) in [(left, right), (right, left)] {
        match other {
            Node::Constant(_, Value::Bool(constant)) => return truth(value, *constant == wanted),
            Node::Constant(_, Value::String(constant)) => return text(value, &Test::Exact(constant.to_string()), wanted, None),
            Node::Constant(..) => {
                return Err(format!("`{value}` compared with {other}: only texts, addresses and truth values are compared"));
            }
            Node::Call(call) => {
                if let ("ip", [Node::Constant(_, Value::String(address))]) = (&*call.name, &call.arguments[..]) {
                    let address = address.parse::<IpAddr>().map_err(|_| format!("{address:?}, which is no IP address"))?;
                    return text(value, &Test::Address(address.to_canonical()), wanted, None);
                }
            }
            Node::Variable(_) => {}
        }
    }
    Err(format!("a comparison of `{left}` with `{right}`: one of them must be a constant"))
}

/// Where a test holds of a text, or does not. `absent` says what holds where there is no text and something stands behind it.
fn text(node: &Node, test: &Test, wanted: bool, absent: Option<Formula>) -> Result<Formula, String> {
    let call = match node {
        Node::Constant(_, Value::String(constant)) => return Ok(Const(test.holds(constant) == wanted)),
        Node::Constant(..) => return Err(format!("{node} where a text is wanted")),
        Node::Variable(name) => {
            let (subject, test) = subject(name, test)?;
            let guarded = absent.is_some();
            return Ok(leaf(&subject, test, wanted, absent.unwrap_or(Const(false)), guarded));
        }
        Node::Call(call) => call,
    };
    match (&*call.name, &call.arguments[..]) {
        ("INDEX", [Node::Variable(map), Node::Constant(_, Value::String(key))]) => {
            let subject = entry(map, key)?;
            // An entry that is not there is an empty text, unless something stands behind it.
            let guarded = absent.is_some();
            Ok(leaf(&subject, test.clone(), wanted, absent.unwrap_or(Const(test.holds("") == wanted)), guarded))
        }
        ("OR", [left, right]) => {
            let otherwise = text(right, test, wanted, absent)?;
            text(left, test, wanted, Some(otherwise))
        }
        ("conditional" | "conditionalString", [condition, yes, no]) => {
            choose(condition, text(yes, test, wanted, None)?, text(no, test, wanted, None)?)
        }
        ("toLower", [value]) => match test {
            Test::Exact(constant) if *constant == constant.to_ascii_lowercase() => {
                text(value, &Test::IgnoreCase(constant.clone()), wanted, absent)
            }
            _ => Err(format!("`{call}`, except where it is compared with a text in lower case")),
        },
        ("ip", [Node::Constant(_, Value::String(address))]) => Ok(Const(test.holds(address) == wanted)),
        _ => Err(format!("`{call}`")),
    }
}

/// A condition. What filters check holds of nothing exactly if it is inverted; any other wish takes a second condition.
fn leaf(subject: &Subject, test: Test, wanted: bool, absent: Formula, guarded: bool) -> Formula {
    let invert = !wanted;
    let condition = |test: Test, invert: bool, absent: bool| {
        let unknown = guarded && absent;
        Leaf(Condition { subject: subject.clone(), test, invert, absent, unknown })
    };
    let fact = matches!(subject, Subject::Source(_) | Subject::Destination(_));
    match absent {
        _ if always(subject) => condition(test, invert, invert),
        Const(absent) if fact || absent == invert => condition(test, invert, absent),
        Const(true) => Any(vec![condition(test, false, false), condition(Test::Present, true, true)]),
        Const(false) => Formula::All(vec![condition(test, true, true), condition(Test::Present, false, false)]),
        other => {
            let there = leaf(subject, test, wanted, Const(false), guarded);
            Any(vec![there, Formula::All(vec![condition(Test::Present, true, true), other])])
        }
    }
}

/// What every request has.
fn always(subject: &Subject) -> bool {
    match subject {
        Subject::SourceAddress => true,
        Subject::Attribute(name) => name.starts_with("request.") || *name == "connection.mtls",
        _ => false,
    }
}

/// Whether an expression never fails.
fn total(node: &Node) -> bool {
    match node {
        Node::Constant(..) => true,
        Node::Variable(name) => {
            matches!(&**name, "request.path" | "request.url_path" | "request.method" | "request.host" | "source.ip" | "connection.mtls")
        }
        Node::Call(call) => match (&*call.name, &call.arguments[..]) {
            ("OR", [left, right]) => total(left) || total(right),
            ("INDEX", [Node::Variable(map), Node::Constant(..)]) => map.starts_with("request."),
            ("ip", [Node::Constant(..)]) => true,
            ("EQ" | "NEQ" | "LAND" | "LOR" | "match" | "toLower" | "startsWith" | "endsWith" | "matches", arguments) => {
                arguments.iter().chain(&call.target).all(total)
            }
            _ => false,
        },
    }
}

/// An entry of a map; names of headers are the same in any case.
fn entry(map: &str, key: &str) -> Result<Subject, String> {
    Ok(match map {
        "request.headers" => Subject::Header(key.to_lowercase()),
        "request.query_params" => Subject::Query(key.to_owned()),
        "source.labels" => Subject::Source(Fact::Label(key.to_owned())),
        "destination.labels" => Subject::Destination(Fact::Label(key.to_owned())),
        _ => return Err(format!("`{map}[{key:?}]`")),
    })
}

/// An attribute of Mixer, and the test as it is put to what stands for that.
fn subject(name: &str, test: &Test) -> Result<(Subject, Test), String> {
    let subject = match name {
        "request.path" => Subject::Attribute("request.path"),
        "request.url_path" => Subject::Attribute("request.url_path"),
        "request.method" => Subject::Attribute("request.method"),
        "request.host" => Subject::Attribute("request.host"),
        "request.scheme" => Subject::Attribute("request.scheme"),
        "request.useragent" => Subject::Header("user-agent".into()),
        "request.referer" => Subject::Header("referer".into()),
        "connection.requested_server_name" => Subject::Attribute("connection.requested_server_name"),
        "source.ip" => Subject::SourceAddress,
        "source.principal" | "source.user" => {
            let test = spiffe(test).ok_or_else(|| format!("a regular expression for `{name}`"))?;
            return Ok((Subject::Attribute("connection.uri_san_peer_certificate"), test));
        }
        _ => match (name.strip_prefix("source.").and_then(Fact::named), name.strip_prefix("destination.").and_then(Fact::named)) {
            (Some(fact), _) => Subject::Source(fact),
            (_, Some(fact)) => Subject::Destination(fact),
            _ => return Err(format!("the attribute `{name}`")),
        },
    };
    Ok((subject, test.clone()))
}

/// Mixer left out the scheme of identities.
fn spiffe(test: &Test) -> Option<Test> {
    let whole = |text: &String| format!("spiffe://{text}");
    Some(match test {
        Test::Exact(text) => Test::Exact(whole(text)),
        Test::IgnoreCase(text) => Test::IgnoreCase(whole(text)),
        Test::Prefix(text) => Test::Prefix(whole(text)),
        Test::Listed(list) if matches!(list.compare, Compare::Exact | Compare::IgnoreCase) => {
            Test::Listed(List { entries: list.entries.iter().map(whole).collect(), compare: list.compare })
        }
        Test::Suffix(text) => Test::Suffix(text.clone()),
        _ => return None,
    })
}
