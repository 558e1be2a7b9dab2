//! Runs an expression, and notes which attributes it looked at.
//!
//! Always: `&&`, `||`, `|` and `conditional` look at no more than they need. What is absent is nothing only where something stands behind it after
//! a `|`; an entry that a map does not have is an empty text everywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{Call, Error, Node, Type, Value, functions, names, uri};

/// An attribute, or an entry of one, that an expression looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Whether it was there.
    pub present: bool,
    /// The attribute.
    pub name: Arc<str>,
    /// The entry.
    pub key: Option<String>,
}

/// `-request.headers[host]` for one that was not there.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.present { "" } else { "-" }, self.name)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, "[{key}]"))
    }
}

/// What an expression came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its value, or why it has none.
    pub value: Result<Value, Error>,
    /// What it looked at.
    pub referenced: BTreeSet<Reference>,
}

pub(super) struct Run<'a> {
    pub(super) attributes: &'a BTreeMap<String, Value>,
    pub(super) types: &'a BTreeMap<Arc<str>, Type>,
    pub(super) referenced: BTreeSet<Reference>,
}

/// A map and the attribute that it is of.
type Map = (Arc<BTreeMap<String, String>>, Option<Arc<str>>);

fn mismatch(name: &str) -> Error {
    Error::new(format!("{name} was given a value of another type than its attribute should have"))
}

impl Run<'_> {
    /// The value of a node that must have one.
    pub(super) fn value(&mut self, node: &Node) -> Result<Value, Error> {
        match node {
            Node::Constant(_, value) => Ok(value.clone()),
            Node::Variable(name) => self.attribute(name)?.ok_or_else(|| Error::new(format!("lookup failed: '{name}'"))),
            Node::Call(call) => self.call(call),
        }
    }

    /// The value of what stands before a `|`.
    fn optional(&mut self, node: &Node) -> Result<Option<Value>, Error> {
        match node {
            Node::Variable(name) => self.attribute(name),
            Node::Call(call) => match (&*call.name, &call.arguments[..]) {
                ("OR", [left, right]) => match self.optional(left)? {
                    None => self.optional(right),
                    value => Ok(value),
                },
                ("INDEX", [map, key]) => {
                    let Some(map) = self.map(map, true)? else { return Ok(None) };
                    let Some(key) = self.optional(key)? else { return Ok(None) };
                    Ok(self.entry(map, &text(&call.name, key)?).map(Value::String))
                }
                _ => self.call(call).map(Some),
            },
            Node::Constant(..) => self.value(node).map(Some),
        }
    }

    fn attribute(&mut self, name: &Arc<str>) -> Result<Option<Value>, Error> {
        let value = self.attributes.get(&**name).cloned();
        self.referenced.insert(Reference { present: value.is_some(), name: Arc::clone(name), key: None });
        let Some(value) = value else { return Ok(None) };
        let converted = match (self.types.get(name), value) {
            (Some(Type::Int64), Value::Int64(value) | Value::Duration(value)) => Ok(Value::Int64(value)),
            (Some(Type::Duration), Value::Int64(value) | Value::Duration(value)) => Ok(Value::Duration(value)),
            (Some(Type::Int64 | Type::Duration), _) => Err("integer or duration"),
            (Some(Type::Bool), value @ Value::Bool(_)) | (Some(Type::Double), value @ Value::Double(_)) => Ok(value),
            (Some(Type::Bool), _) => Err("bool"),
            (Some(Type::Double), _) => Err("double"),
            // What is given as it is must be what the expression was said to give.
            (Some(kind @ (Type::Timestamp | Type::IpAddress | Type::StringMap)), value) => {
                if value.kind() == *kind {
                    Ok(value)
                } else {
                    Err("its type")
                }
            }
            (_, value @ Value::String(_)) => Ok(value),
            _ => Err("string"),
        };
        converted.map(Some).map_err(|wanted| Error::new(format!("error converting value to {wanted}: '{name}'")))
    }

    /// A map, with the attribute that it is of. Nothing only where that is allowed.
    fn map(&mut self, node: &Node, optional: bool) -> Result<Option<Map>, Error> {
        // Where a map comes out of a choice, the choice says of which attribute it is.
        let (value, name) = match node {
            Node::Variable(name) => (if optional { self.optional(node)? } else { Some(self.value(node)?) }, Some(Arc::clone(name))),
            Node::Call(call) => match (&*call.name, &call.arguments[..]) {
                ("OR", [left, right]) => {
                    return match self.map(left, true)? {
                        None => self.map(right, optional),
                        map => Ok(map),
                    };
                }
                ("conditional", [condition, yes, no]) => {
                    let chosen = if truth(&call.name, &self.value(condition)?)? { yes } else { no };
                    return self.map(chosen, false);
                }
                _ => (Some(self.call(call)?), None),
            },
            Node::Constant(..) => return Err(mismatch("INDEX")),
        };
        match value {
            None => Ok(None),
            Some(Value::StringMap(map)) => Ok(Some((map, name))),
            Some(_) => Err(mismatch("INDEX")),
        }
    }

    fn entry(&mut self, (map, name): Map, key: &str) -> Option<Arc<str>> {
        let value = map.get(key);
        if let Some(name) = name {
            self.referenced.insert(Reference { present: value.is_some(), name, key: Some(key.to_owned()) });
        }
        value.map(|value| Arc::from(value.as_str()))
    }

    fn call(&mut self, call: &Call) -> Result<Value, Error> {
        let name = &*call.name;
        match (name, &call.arguments[..]) {
            ("OR", [left, right]) => match self.optional(left)? {
                Some(value) => Ok(value),
                None => self.value(right),
            },
            ("INDEX", [map, key]) => {
                let Some(map) = self.map(map, false)? else { return Err(mismatch(name)) };
                let key = text(name, self.value(key)?)?;
                Ok(Value::String(self.entry(map, &key).unwrap_or_default()))
            }
            ("LAND", [left, right]) => {
                if truth(name, &self.value(left)?)? {
                    self.value(right)
                } else {
                    Ok(Value::Bool(false))
                }
            }
            ("LOR", [left, right]) => {
                if truth(name, &self.value(left)?)? {
                    Ok(Value::Bool(true))
                } else {
                    self.value(right)
                }
            }
            ("conditional" | "conditionalString", [condition, yes, no]) => {
                let chosen = if truth(name, &self.value(condition)?)? { yes } else { no };
                self.value(chosen)
            }
            ("EQ" | "NEQ" | "LT" | "LEQ" | "GT" | "GEQ", [left, right]) => {
                let kind = self.kind(left);
                let (left, right) = (self.value(left)?, self.value(right)?);
                compare(name, kind, &left, &right).map(Value::Bool)
            }
            _ => {
                let target = call.target.as_ref().map(|target| self.value(target)).transpose()?;
                let arguments = call.arguments.iter().map(|argument| self.value(argument)).collect::<Result<Vec<_>, _>>()?;
                functions::call(name, &target.into_iter().chain(arguments).collect::<Vec<_>>())
            }
        }
    }

    /// The type of a node, of which texts need to be told apart only.
    fn kind(&self, node: &Node) -> Option<Type> {
        match node {
            Node::Constant(..) => None,
            Node::Variable(name) => self.types.get(name).copied(),
            Node::Call(call) => match (&*call.name, &call.arguments[..]) {
                ("dnsName", _) => Some(Type::DnsName),
                ("email", _) => Some(Type::EmailAddress),
                ("uri", _) => Some(Type::Uri),
                ("OR" | "ADD", [one, _]) | ("conditional", [_, one, _]) => self.kind(one),
                _ => None,
            },
        }
    }
}

pub(super) fn truth(name: &str, value: &Value) -> Result<bool, Error> {
    if let Value::Bool(value) = value { Ok(*value) } else { Err(mismatch(name)) }
}

pub(super) fn text(name: &str, value: Value) -> Result<Arc<str>, Error> {
    if let Value::String(value) = value { Ok(value) } else { Err(mismatch(name)) }
}

fn compare(name: &str, kind: Option<Type>, left: &Value, right: &Value) -> Result<bool, Error> {
    if let ("EQ" | "NEQ", Value::String(left), Value::String(right)) = (name, left, right) {
        let same = match kind {
            Some(Type::DnsName) => names::same_dns(left, right)?,
            Some(Type::EmailAddress) => names::same_email(left, right)?,
            Some(Type::Uri) => uri::same(left, right)?,
            _ => left == right,
        };
        return Ok(same == (name == "EQ"));
    }
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => left.partial_cmp(right),
        (Value::Int64(left), Value::Int64(right)) => left.partial_cmp(right),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.partial_cmp(right),
        (Value::Timestamp(left), Value::Timestamp(right)) => left.partial_cmp(right),
        (Value::IpAddress(left), Value::IpAddress(right)) => left.partial_cmp(right),
        _ => return Err(mismatch(name)),
    };
    Ok(match name {
        "EQ" => order.is_some_and(std::cmp::Ordering::is_eq),
        "NEQ" => order.is_none_or(std::cmp::Ordering::is_ne),
        "LT" => order.is_some_and(std::cmp::Ordering::is_lt),
        "LEQ" => order.is_some_and(std::cmp::Ordering::is_le),
        "GT" => order.is_some_and(std::cmp::Ordering::is_gt),
        _ => order.is_some_and(std::cmp::Ordering::is_ge),
    })
}
