//! From a message to YAML: the form that people write and the reader reads back.
//!
//! Always: what is printed reads as the same message. Defaults that the wire does not carry are not printed.

use std::fmt::Write as _;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, Value as Reflected};

use super::scalar::{Scalar, resolve, to_base64};
use crate::protobuf::{self, Kind as Json};
use crate::schema::{self, enum_text};
use crate::{config, duration};

/// Longer keys need the long form of a mapping's entry.
const MAX_SIMPLE_KEY: usize = 500;

enum Out {
    Scalar(String),
    List(Vec<Out>),
    Map(Vec<(String, Out)>),
}

/// A whole configuration.
#[must_use]
pub fn print(bootstrap: &config::Bootstrap) -> String {
    print_message("Bootstrap", bootstrap)
}

/// Any message of `weir.config.v1`, by its short name. Empty if there is none of this name.
#[must_use]
pub fn print_message<M: prost::Message>(name: &str, message: &M) -> String {
    let Some(ty) = schema::message(name) else { return String::new() };
    let mut dynamic = DynamicMessage::new(ty);
    if dynamic.transcode_from(message).is_err() {
        return String::new();
    }
    let mut text = String::new();
    if let Out::Map(fields) = fields(&dynamic) {
        entries(&mut text, &fields, 0);
    }
    text
}

fn fields(message: &DynamicMessage) -> Out {
    let fields = message.fields().map(|(field, value)| (field.json_name().to_owned(), field_value(&field, value)));
    Out::Map(fields.collect())
}

fn field_value(field: &FieldDescriptor, value: &Reflected) -> Out {
    match value {
        Reflected::List(items) => Out::List(items.iter().map(|item| single(&field.kind(), item)).collect()),
        Reflected::Map(map) => {
            let Kind::Message(entry) = field.kind() else { return Out::Map(Vec::new()) };
            let kind = entry.map_entry_value_field().kind();
            let mut pairs: Vec<(&MapKey, &Reflected)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            Out::Map(pairs.into_iter().map(|(key, value)| (key.as_str().unwrap_or_default().to_owned(), single(&kind, value))).collect())
        }
        value => single(&field.kind(), value),
    }
}

fn single(kind: &Kind, value: &Reflected) -> Out {
    Out::Scalar(match value {
        Reflected::Bool(value) => value.to_string(),
        Reflected::I32(value) => value.to_string(),
        Reflected::I64(value) => value.to_string(),
        Reflected::U32(value) => value.to_string(),
        Reflected::U64(value) => value.to_string(),
        Reflected::F32(value) => number(f64::from(*value)),
        Reflected::F64(value) => number(*value),
        Reflected::String(text) => quoted(text),
        Reflected::Bytes(bytes) => quoted(&to_base64(bytes)),
        Reflected::EnumNumber(value) => {
            let Kind::Enum(ty) = kind else { return Out::Scalar(value.to_string()) };
            ty.get_value(*value).map_or_else(|| value.to_string(), |value| quoted(&enum_text(&value)))
        }
        Reflected::Message(message) => match message.descriptor_name() {
            "google.protobuf.Duration" => message.transcode_to().map(duration::print).unwrap_or_default(),
            "google.protobuf.Value" => return json(&message.transcode_to().unwrap_or_default()),
            _ => return fields(message),
        },
        Reflected::List(_) | Reflected::Map(_) => String::new(),
    })
}

/// The message's full name.
trait Named {
    fn descriptor_name(&self) -> &'static str;
}

impl Named for DynamicMessage {
    fn descriptor_name(&self) -> &'static str {
        match prost_reflect::ReflectMessage::descriptor(self).full_name() {
            "google.protobuf.Duration" => "google.protobuf.Duration",
            "google.protobuf.Value" => "google.protobuf.Value",
            _ => "",
        }
    }
}

fn json(value: &protobuf::Value) -> Out {
    match &value.kind {
        None | Some(Json::NullValue(_)) => Out::Scalar("null".into()),
        Some(Json::BoolValue(value)) => Out::Scalar(value.to_string()),
        Some(Json::NumberValue(value)) => Out::Scalar(number(*value)),
        Some(Json::StringValue(text)) => Out::Scalar(quoted(text)),
        Some(Json::ListValue(list)) => Out::List(list.values.iter().map(json).collect()),
        Some(Json::StructValue(object)) => Out::Map(object.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()),
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        ".nan".into()
    } else if value.is_infinite() {
        if value > 0.0 { ".inf" } else { "-.inf" }.into()
    } else if value.fract() == 0.0 && value.abs() < 1e15 && (value != 0.0 || value.is_sign_positive()) {
        format!("{value:.0}")
    } else {
        format!("{value:?}")
    }
}

/// The text as it is where YAML reads it as that text, and in double quotes elsewhere.
fn quoted(text: &str) -> String {
    let first = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'.');
    let rest = |byte: u8| first(byte) || matches!(byte, b':' | b'-' | b'+' | b'@' | b'=' | b'$' | b'~' | b'(' | b')');
    let plain = text.as_bytes().first().is_some_and(|byte| first(*byte))
        && text.bytes().all(rest)
        && !text.ends_with(':')
        && text != "..."
        && text.len() < 200
        && resolve(text, true, None) == Ok(Scalar::Text);
    if plain {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn entries(text: &mut String, fields: &[(String, Out)], indent: usize) {
    for (index, (key, value)) in fields.iter().enumerate() {
        if index > 0 || indent == 0 {
            pad(text, indent);
        }
        let key = quoted(key);
        if key.len() > MAX_SIMPLE_KEY {
            let _ = writeln!(text, "? {key}");
            pad(text, indent);
        } else {
            text.push_str(&key);
        }
        text.push(':');
        match value {
            Out::Scalar(value) => {
                let _ = writeln!(text, " {value}");
            }
            Out::List(items) if items.is_empty() => text.push_str(" []\n"),
            Out::Map(fields) if fields.is_empty() => text.push_str(" {}\n"),
            Out::List(items) => {
                text.push('\n');
                list(text, items, indent + 2);
            }
            Out::Map(fields) => {
                text.push('\n');
                pad(text, indent + 2);
                entries(text, fields, indent + 2);
            }
        }
    }
}

fn list(text: &mut String, items: &[Out], indent: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !text.ends_with(' ') {
            pad(text, indent);
        }
        text.push_str("- ");
        match item {
            Out::Scalar(value) => {
                let _ = writeln!(text, "{value}");
            }
            Out::List(items) if items.is_empty() => text.push_str("[]\n"),
            Out::Map(fields) if fields.is_empty() => text.push_str("{}\n"),
            Out::List(items) => list(text, items, indent + 2),
            Out::Map(fields) => entries(text, fields, indent + 2),
        }
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}
