//! From the tree to a message: every field by its descriptor, and every problem at once.
//!
//! Always: what is wrong is left out and reported, and reading goes on beside it.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Reflected};

use super::scalar::{Scalar, base64, resolve};
use super::tree::{Mark, Node, Value};
use super::unknown;
use crate::diagnostic::{Code, Diagnostic, Place, Severity, Source};
use crate::duration::{self, DurationError};
use crate::path::{At, Places, Step, did_you_mean};
use crate::protobuf;
use crate::schema::{enum_text, is_enum_text};

/// Problems of one file that are reported.
const MAX_PROBLEMS: usize = 1000;
/// Nesting within a filter's configuration: three messages each on the wire, whose decoders stop at 100.
const VALUE_DEPTH: usize = 24;
/// Integers up to this are exact in JSON.
const MAX_EXACT: u128 = 1 << 53;

/// What was read, and where it stands.
type Read = Option<(Reflected, Places)>;

/// A field that was set, for those that must not be set beside it.
struct Seen {
    name: String,
    line: u32,
}

pub(super) struct Reader {
    pub(super) source: Arc<Source>,
    pub(super) found: Vec<Diagnostic>,
}

impl Reader {
    pub(super) fn report(&mut self, mark: Mark, code: Code, at: &At<'_>, message: impl Into<String>, help: impl Into<String>) {
        let place = Some(self.place(mark));
        let mut diagnostic =
            Diagnostic { severity: Severity::Error, code, place, path: at.to_string(), message: message.into(), help: help.into() };
        if self.is_full() {
            return;
        }
        if self.found.len() == MAX_PROBLEMS {
            diagnostic.code = Code::TooMany;
            diagnostic.message = format!("there are more problems than these {MAX_PROBLEMS}");
            diagnostic.help = "mend these first".into();
        }
        self.found.push(diagnostic);
    }

    /// Whether more would not be reported.
    fn is_full(&self) -> bool {
        self.found.len() > MAX_PROBLEMS
    }

    fn place(&self, mark: Mark) -> Place {
        Place { source: Arc::clone(&self.source), line: mark.line, column: mark.column, length: mark.length }
    }

    /// A message from a mapping of its fields. `key` is where the message's name stands.
    pub(super) fn message(&mut self, ty: &MessageDescriptor, key: Mark, node: &Node<'_>, at: &At<'_>) -> Option<(DynamicMessage, Places)> {
        if self.is_full() {
            return None;
        }
        let Value::Map(pairs) = &node.value else {
            self.wrong(node, at, "a mapping of fields", "write `field: value` lines, indented below");
            return None;
        };
        self.plain_tag(node, at)?;
        let mut message = DynamicMessage::new(ty.clone());
        let mut places = Places::at(self.place(key));
        let (mut fields, mut oneofs): (HashMap<u32, Seen>, HashMap<String, Seen>) = (HashMap::new(), HashMap::new());
        for (key, value) in pairs {
            let Some(field) = self.field_of(ty, key, at) else { continue };
            let here = at.field(field.json_name());
            let seen = || Seen { name: field.json_name().to_owned(), line: key.mark.line };
            if let Some(first) = fields.insert(field.number(), seen()) {
                let message = format!("`{}` stands here twice", first.name);
                self.report(
                    key.mark,
                    Code::DuplicateKey,
                    &here,
                    message,
                    format!("the first is on line {}; remove one of them", first.line),
                );
                continue;
            }
            if self.is_nothing(&field, key, value, &here) {
                continue;
            }
            let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            if let Some(first) = oneof.and_then(|oneof| oneofs.insert(oneof.name().to_owned(), seen())) {
                let message = format!("`{}` and `{}` exclude each other", first.name, field.json_name());
                self.report(
                    key.mark,
                    Code::Conflict,
                    &here,
                    message,
                    format!("`{}` is on line {}; keep one of them", first.name, first.line),
                );
                continue;
            }
            if let Some((value, place)) = self.field(&field, key.mark, value, &here) {
                message.set_field(&field, value);
                places.push(Step::Field(field), place);
            }
        }
        Some((message, places))
    }

    fn field_of(&mut self, ty: &MessageDescriptor, key: &Node<'_>, at: &At<'_>) -> Option<FieldDescriptor> {
        let Value::Scalar(name, _) = &key.value else {
            self.report(key.mark, Code::WrongType, at, "the name of a field is a text, not a list or mapping", "");
            return None;
        };
        let field = ty.get_field_by_json_name(name).or_else(|| ty.get_field_by_name(name));
        if field.is_none() && !self.is_full() {
            let shown: String = name.chars().take(80).collect();
            let here = at.field(&shown);
            self.report(key.mark, Code::UnknownField, &here, format!("there is no field `{shown}` here"), unknown::help(ty, name, at));
        }
        field
    }

    /// Whether there is nothing after the name. Fine where nothing is a value or a default; a message needs at least `{}`, for it could be meant either
    /// way.
    fn is_nothing(&mut self, field: &FieldDescriptor, key: &Node<'_>, value: &Node<'_>, at: &At<'_>) -> bool {
        let Value::Scalar(text, plain) = &value.value else { return false };
        let scalar = resolve(text, *plain, value.tag.as_deref());
        if !matches!(scalar, Ok(Scalar::Empty | Scalar::Null)) {
            return false;
        }
        let Kind::Message(ty) = field.kind() else { return true };
        match ty.full_name() {
            "google.protobuf.Value" if !field.is_map() => scalar == Ok(Scalar::Empty),
            "google.protobuf.Duration" => true,
            _ if field.is_list() || field.is_map() => true,
            _ => {
                let name = field.json_name();
                let help = format!("write `{name}: {{}}` for its defaults, or remove the line");
                self.report(key.mark, Code::EmptyValue, at, format!("nothing follows `{name}:`"), help);
                true
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptor, key: Mark, node: &Node<'_>, at: &At<'_>) -> Read {
        if field.is_map() {
            return self.map(field, key, node, at);
        }
        if !field.is_list() {
            return self.single(&field.kind(), key, node, at);
        }
        let Value::List(items) = &node.value else {
            self.wrong(node, at, "a list", "write its items as `- item` lines, or as `[item, item]`");
            return None;
        };
        self.plain_tag(node, at)?;
        let (mut list, mut places) = (Vec::with_capacity(items.len()), Places::at(self.place(key)));
        for (index, item) in items.iter().enumerate() {
            let here = at.index(index);
            // An item that was refused leaves its place behind, so that the others keep their numbers.
            let read = if self.is_empty(item, &here) { None } else { self.single(&field.kind(), item.mark, item, &here) };
            let (value, place) = read.unwrap_or_else(|| (Reflected::default_value(&field.kind()), Places::at(self.place(item.mark))));
            list.push(value);
            places.push(Step::Item, place);
        }
        Some((Reflected::List(list), places))
    }

    fn map(&mut self, field: &FieldDescriptor, key: Mark, node: &Node<'_>, at: &At<'_>) -> Read {
        let Kind::Message(entry) = field.kind() else { return None };
        let Value::Map(pairs) = &node.value else {
            self.wrong(node, at, "a mapping", "write `key: value` lines, indented below");
            return None;
        };
        self.plain_tag(node, at)?;
        let kind = entry.map_entry_value_field().kind();
        let (mut map, mut places) = (HashMap::with_capacity(pairs.len()), Places::at(self.place(key)));
        let mut seen: HashMap<&str, u32> = HashMap::with_capacity(pairs.len());
        for (key, value) in pairs {
            let Value::Scalar(name, _) = &key.value else {
                self.report(key.mark, Code::WrongType, at, "a key is a text, not a list or mapping", "");
                continue;
            };
            let here = at.key(name);
            if let Some(line) = seen.insert(name, key.mark.line) {
                let message = format!("`{name}` stands here twice");
                self.report(key.mark, Code::DuplicateKey, &here, message, format!("the first is on line {line}; remove one of them"));
                continue;
            }
            if self.is_empty(value, &here) {
                continue;
            }
            if let Some((value, place)) = self.single(&kind, key.mark, value, &here) {
                map.insert(MapKey::String(name.to_string()), value);
                places.push(Step::Key((&**name).into()), place);
            }
        }
        Some((Reflected::Map(map), places))
    }

    /// Reports an item of a list or map that is nothing.
    fn is_empty(&mut self, node: &Node<'_>, at: &At<'_>) -> bool {
        let empty = matches!(&node.value, Value::Scalar(text, true) if text.is_empty() && node.tag.is_none());
        if empty {
            self.report(
                node.mark,
                Code::EmptyValue,
                at,
                "there is nothing here",
                "write a value (`\"\"` is an empty text, `{}` a mapping without fields), or remove it",
            );
        }
        empty
    }

    fn single(&mut self, kind: &Kind, key: Mark, node: &Node<'_>, at: &At<'_>) -> Read {
        if let Kind::Message(ty) = kind {
            return match ty.full_name() {
                "google.protobuf.Duration" => self.duration(ty, node, at),
                "google.protobuf.Value" => {
                    let value = self.json(node, at, VALUE_DEPTH)?;
                    self.wrapped(ty, &value, key)
                }
                _ => self.message(ty, key, node, at).map(|(message, places)| (Reflected::Message(message), places)),
            };
        }
        let Value::Scalar(text, _) = &node.value else {
            self.wrong(node, at, what_kind(kind), "");
            return None;
        };
        if matches!(kind, Kind::Bytes) && node.tag.as_deref() == Some("!!binary") {
            return self.bytes(text, node, at);
        }
        let scalar = self.scalar(node, at)?;
        if matches!(scalar, Scalar::Empty | Scalar::Null) {
            self.wrong(node, at, what_kind(kind), "");
            return None;
        }
        let value = match kind {
            // What is written is what is meant, be it `1.10` or `true`.
            Kind::String => Reflected::String(text.to_string()),
            Kind::Bytes => return self.bytes(text, node, at),
            Kind::Bool => self.bool(scalar, text, node, at)?,
            Kind::Enum(ty) => {
                let Some(value) = ty.values().find(|value| is_enum_text(value, text)) else {
                    let names: Vec<String> = ty.values().map(|value| enum_text(&value)).collect();
                    let shown: String = text.chars().take(80).collect();
                    let help = did_you_mean(text, names.iter().map(String::as_str), "the values");
                    let all = if help.starts_with("did") { format!(" The values are `{}`.", names.join("`, `")) } else { String::new() };
                    self.report(node.mark, Code::UnknownValue, at, format!("`{shown}` is none of the values"), help + &all);
                    return None;
                };
                Reflected::EnumNumber(value.number())
            }
            Kind::Double | Kind::Float => self.float(kind, scalar, text, node, at)?,
            _ => self.integer(kind, scalar, text, node, at)?,
        };
        Some((value, Places::at(self.place(node.mark))))
    }

    /// What the scalar is, by its tag, its quotes and its text.
    fn scalar(&mut self, node: &Node<'_>, at: &At<'_>) -> Option<Scalar> {
        let Value::Scalar(text, plain) = &node.value else { return None };
        let scalar = resolve(text, *plain, node.tag.as_deref());
        if scalar.is_err() {
            let tag = node.tag.as_deref().unwrap_or_default();
            self.report(node.mark, Code::UnknownTag, at, format!("the tag `{tag}` does not fit here"), "remove the tag");
        }
        scalar.ok()
    }

    /// Refuses a list or mapping with a tag of its own.
    fn plain_tag(&mut self, node: &Node<'_>, at: &At<'_>) -> Option<()> {
        match (node.tag.as_deref(), &node.value) {
            (None | Some("!"), _) | (Some("!!map"), Value::Map(_)) | (Some("!!seq"), Value::List(_)) => Some(()),
            (Some(tag), _) => {
                self.report(node.mark, Code::UnknownTag, at, format!("the tag `{tag}` does not fit here"), "remove the tag");
                None
            }
        }
    }

    fn wrong(&mut self, node: &Node<'_>, at: &At<'_>, expected: &str, help: &str) {
        let found = match &node.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(text, plain) => resolve(text, *plain, node.tag.as_deref()).map_or("a text", Scalar::what),
        };
        self.report(node.mark, Code::WrongType, at, format!("{expected} belongs here, not {found}"), help);
    }

    fn bool(&mut self, scalar: Scalar, text: &str, node: &Node<'_>, at: &At<'_>) -> Option<Reflected> {
        if let Scalar::Bool(value) = scalar {
            return Some(Reflected::Bool(value));
        }
        let help = match text.to_ascii_lowercase().as_str() {
            "yes" | "y" | "on" | "1" | "true" | "enabled" => "write `true`, without quotes",
            "no" | "n" | "off" | "0" | "false" | "disabled" => "write `false`, without quotes",
            _ => "",
        };
        self.wrong(node, at, what_kind(&Kind::Bool), help);
        None
    }

    fn integer(&mut self, kind: &Kind, scalar: Scalar, text: &str, node: &Node<'_>, at: &At<'_>) -> Option<Reflected> {
        let value = match reread(scalar, text) {
            Scalar::Int(value) => value,
            // JSON's numbers have no integers: `1.0` and `1e3` are.
            #[allow(clippy::cast_possible_truncation, reason = "a whole number of this size fits")]
            Scalar::Float(value) if value.fract() == 0.0 && value.abs() < 1e30 => value as i128,
            Scalar::Float(_) => {
                self.report(node.mark, Code::WrongType, at, "a whole number belongs here", "");
                return None;
            }
            _ => {
                self.wrong(node, at, "a number", &number_help(text));
                return None;
            }
        };
        let (read, most): (Option<Reflected>, &str) = match kind {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => (value.try_into().ok().map(Reflected::I32), "-2147483648 to 2147483647"),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (value.try_into().ok().map(Reflected::I64), "those of 64 bits"),
            Kind::Uint64 | Kind::Fixed64 => (value.try_into().ok().map(Reflected::U64), "0 to 18446744073709551615"),
            _ => (value.try_into().ok().map(Reflected::U32), "0 to 4294967295"),
        };
        if read.is_none() {
            self.report(node.mark, Code::OutOfRange, at, format!("{value} is out of range"), format!("numbers here are {most}"));
        }
        read
    }

    fn float(&mut self, kind: &Kind, scalar: Scalar, text: &str, node: &Node<'_>, at: &At<'_>) -> Option<Reflected> {
        let value = match reread(scalar, text) {
            #[allow(clippy::cast_precision_loss, reason = "the field is a float")]
            Scalar::Int(value) => value as f64,
            Scalar::Float(value) => value,
            _ => {
                self.wrong(node, at, "a number", &number_help(text));
                return None;
            }
        };
        #[allow(clippy::cast_possible_truncation, reason = "the field is that short")]
        Some(if matches!(kind, Kind::Float) { Reflected::F32(value as f32) } else { Reflected::F64(value) })
    }

    fn bytes(&mut self, text: &str, node: &Node<'_>, at: &At<'_>) -> Read {
        match base64(text) {
            Ok(bytes) => Some((Reflected::Bytes(bytes.into()), Places::at(self.place(node.mark)))),
            Err(odd) => {
                let message =
                    odd.map_or_else(|| "the base64 is cut or padded wrongly".to_owned(), |c| format!("{c:?} is no character of base64"));
                self.report(node.mark, Code::InvalidBase64, at, message, "bytes are written in base64, as `base64 -w0 FILE` prints them");
                None
            }
        }
    }

    fn duration(&mut self, ty: &MessageDescriptor, node: &Node<'_>, at: &At<'_>) -> Read {
        let Value::Scalar(text, _) = &node.value else {
            self.wrong(node, at, "a duration", "write `250ms`, `1.5s`, `1m30s`");
            return None;
        };
        self.scalar(node, at)?;
        match duration::parse(text) {
            Ok(value) => self.wrapped(ty, &value, node.mark),
            Err(error) => {
                let help = match error {
                    DurationError::NoUnit => format!("write `{text}s` for seconds or `{text}ms` for milliseconds"),
                    DurationError::TooLong => "write a shorter one".into(),
                    _ => "write `250ms`, `1.5s`, `1m30s` or `2h`".into(),
                };
                self.report(node.mark, Code::InvalidDuration, at, error.to_string(), help);
                None
            }
        }
    }

    /// One of protobuf's own messages.
    fn wrapped<M: prost::Message>(&self, ty: &MessageDescriptor, value: &M, mark: Mark) -> Read {
        let mut message = DynamicMessage::new(ty.clone());
        message.transcode_from(value).ok()?;
        Some((Reflected::Message(message), Places::at(self.place(mark))))
    }

    /// A filter's configuration: any JSON.
    fn json(&mut self, node: &Node<'_>, at: &At<'_>, depth: usize) -> Option<protobuf::Value> {
        use protobuf::Kind as Json;
        if depth == 0 {
            self.report(node.mark, Code::TooLarge, at, format!("a filter's configuration is nested at most {VALUE_DEPTH} deep"), "");
            return None;
        }
        let kind = match &node.value {
            Value::List(items) => {
                self.plain_tag(node, at)?;
                let values = items.iter().enumerate().filter_map(|(index, item)| self.json(item, &at.index(index), depth - 1)).collect();
                Json::ListValue(protobuf::ListValue { values })
            }
            Value::Map(pairs) => {
                self.plain_tag(node, at)?;
                let mut fields = std::collections::BTreeMap::new();
                for (key, value) in pairs {
                    let Value::Scalar(name, _) = &key.value else {
                        self.report(key.mark, Code::WrongType, at, "a key is a text, not a list or mapping", "");
                        continue;
                    };
                    let here = at.key(name);
                    let Some(value) = self.json(value, &here, depth - 1) else { continue };
                    if fields.insert(name.to_string(), value).is_some() {
                        self.report(key.mark, Code::DuplicateKey, &here, format!("`{name}` stands here twice"), "remove one of them");
                    }
                }
                Json::StructValue(protobuf::Struct { fields })
            }
            Value::Scalar(text, _) => self.json_scalar(text, node, at)?,
        };
        Some(protobuf::Value { kind: Some(kind) })
    }

    fn json_scalar(&mut self, text: &str, node: &Node<'_>, at: &At<'_>) -> Option<protobuf::Kind> {
        use protobuf::Kind as Json;
        Some(match self.scalar(node, at)? {
            Scalar::Empty | Scalar::Null => Json::NullValue(0),
            Scalar::Bool(value) => Json::BoolValue(value),
            #[allow(clippy::cast_precision_loss, reason = "it is exact up to here")]
            Scalar::Int(value) if value.unsigned_abs() <= MAX_EXACT => Json::NumberValue(value as f64),
            Scalar::Float(value) if value.is_finite() => Json::NumberValue(value),
            Scalar::Int(_) | Scalar::Float(_) => {
                self.report(
                    node.mark,
                    Code::OutOfRange,
                    at,
                    format!("JSON cannot hold the number {text} exactly"),
                    "write it in quotes, as a text",
                );
                return None;
            }
            Scalar::Text => Json::StringValue(text.to_owned()),
        })
    }
}

/// Numbers may stand in quotes, as in JSON's mapping of protobuf.
fn reread(scalar: Scalar, text: &str) -> Scalar {
    if scalar == Scalar::Text { resolve(text, true, None).unwrap_or(scalar) } else { scalar }
}

fn number_help(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !matches!(c, '_' | ',' | '\'' | ' ')).collect();
    let digits: String = bare.chars().take_while(char::is_ascii_digit).collect();
    if digits.is_empty() || digits.len() > 20 {
        String::new()
    } else if digits.len() == bare.len() {
        format!("write `{digits}`")
    } else {
        "write the number alone; the field's name says the unit".into()
    }
}

fn what_kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "a text",
        Kind::Bool => "true or false",
        Kind::Bytes => "base64",
        Kind::Enum(_) => "one of its values",
        Kind::Message(_) => "a mapping of fields",
        _ => "a number",
    }
}
