//! Types: what each function takes and gives, and whether an expression keeps to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Call, Error, Node, Type, Value};
use crate::mixer::vocabulary::Vocabulary;

/// What a function takes and gives. No type stands for any, the same everywhere in one call.
pub(super) struct Signature {
    method: bool,
    pub(super) arguments: &'static [Option<Type>],
    gives: Option<Type>,
}

const TEXT: Option<Type> = Some(Type::String);
const TRUTH: Option<Type> = Some(Type::Bool);

/// Methods are all called on a text.
pub(super) fn signature(name: &str) -> Option<Signature> {
    let function = |arguments, gives| Some(Signature { method: false, arguments, gives });
    match name {
        "EQ" | "NEQ" | "LT" | "LEQ" | "GT" | "GEQ" => function(&[None, None], TRUTH),
        "LAND" | "LOR" => function(&[TRUTH, TRUTH], TRUTH),
        "OR" | "ADD" => function(&[None, None], None),
        "INDEX" => function(&[Some(Type::StringMap), TEXT], TEXT),
        "conditional" => function(&[TRUTH, None, None], None),
        "conditionalString" => function(&[TRUTH, TEXT, TEXT], TEXT),
        "size" => function(&[TEXT], Some(Type::Int64)),
        "ip" => function(&[TEXT], Some(Type::IpAddress)),
        "timestamp" => function(&[TEXT], Some(Type::Timestamp)),
        "dnsName" => function(&[TEXT], Some(Type::DnsName)),
        "email" => function(&[TEXT], Some(Type::EmailAddress)),
        "uri" => function(&[TEXT], Some(Type::Uri)),
        "match" => function(&[TEXT, TEXT], TRUTH),
        "toLower" => function(&[TEXT], TEXT),
        "emptyStringMap" => function(&[], Some(Type::StringMap)),
        "matches" | "startsWith" | "endsWith" => Some(Signature { method: true, arguments: &[TEXT], gives: TRUTH }),
        _ => None,
    }
}

/// The type of an expression. `types` gathers those of its attributes.
pub(super) fn check(node: &Node, vocabulary: &Vocabulary, types: &mut BTreeMap<Arc<str>, Type>) -> Result<Type, Error> {
    match node {
        Node::Constant(_, value) => Ok(value.kind()),
        Node::Variable(name) => {
            let kind = vocabulary.get(name).ok_or_else(|| Error::new(format!("unknown attribute {name}")))?;
            types.insert(Arc::clone(name), kind);
            Ok(kind)
        }
        Node::Call(call) => check_call(call, vocabulary, types),
    }
}

fn check_call(call: &Call, vocabulary: &Vocabulary, types: &mut BTreeMap<Arc<str>, Type>) -> Result<Type, Error> {
    let name = &call.name;
    let signature = signature(name).ok_or_else(|| Error::new(format!("unknown function: {name}")))?;
    match &call.target {
        Some(_) if !signature.method => return Err(Error::new(format!("invoking regular function on instance method: {name}"))),
        None if signature.method => return Err(Error::new(format!("invoking instance method without an instance: {name}"))),
        Some(target) => {
            let kind = check(target, vocabulary, types)?;
            if kind != Type::String {
                return Err(Error::new(format!("{call} target typeError got {kind}, expected STRING")));
            }
        }
        None => {}
    }
    let (has, takes) = (call.arguments.len(), signature.arguments.len());
    if has != takes {
        return Err(Error::new(format!("{call} arity mismatch. Got {has} arg(s), expected {takes} arg(s)")));
    }
    let mut any = None;
    for (at, (argument, takes)) in call.arguments.iter().zip(signature.arguments).enumerate() {
        let kind = check(argument, vocabulary, types)?;
        let wanted = takes.unwrap_or_else(|| *any.get_or_insert(kind));
        if kind != wanted {
            return Err(Error::new(format!("{call} arg {} ({argument}) typeError got {kind}, expected {wanted}", at + 1)));
        }
    }
    if let (Some(kind), Some(verb)) = (any, refused(name, any)) {
        return Err(Error::new(format!("internal compiler error -- {verb} for type not yet implemented: {}", shape(kind))));
    }
    Ok(signature.gives.or(any).unwrap_or(Type::String))
}

/// Mixer compared, ordered and added some types only: what it called the rest.
fn refused(name: &str, kind: Option<Type>) -> Option<&'static str> {
    let kind = kind?;
    let ordered = matches!(shape(kind), "string" | "integer" | "double") || kind == Type::Timestamp;
    match name {
        "EQ" | "NEQ" => matches!(kind, Type::Duration | Type::StringMap).then_some("equality"),
        "LT" => (!ordered).then_some("less than"),
        "LEQ" => (!ordered).then_some("less or equal"),
        "GT" => (!ordered).then_some("greater than"),
        "GEQ" => (!ordered).then_some("greater or equal"),
        "ADD" => (!matches!(shape(kind), "string" | "integer" | "double")).then_some("Add"),
        _ => None,
    }
}

/// What Mixer ran a type as.
fn shape(kind: Type) -> &'static str {
    match kind {
        Type::String | Type::EmailAddress | Type::DnsName | Type::Uri => "string",
        Type::Int64 => "integer",
        Type::Double => "double",
        Type::Bool => "bool",
        Type::Duration => "duration",
        Type::Timestamp | Type::IpAddress | Type::StringMap => "interface",
    }
}

impl Value {
    /// Its type; texts of every kind are texts.
    #[must_use]
    pub const fn kind(&self) -> Type {
        match self {
            Self::String(_) => Type::String,
            Self::Int64(_) => Type::Int64,
            Self::Double(_) => Type::Double,
            Self::Bool(_) => Type::Bool,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::IpAddress(_) => Type::IpAddress,
            Self::StringMap(_) => Type::StringMap,
        }
    }
}
