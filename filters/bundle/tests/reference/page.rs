//! From the JSON Schema that a module carries to Markdown.
//!
//! Always: every field, type and value of the schema has its line; types that the author named have a section each, in the order in which one meets them.
//! What it does not read: any schema but those that `#[config]` makes.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A part of the schema, as far as `weir_sdk::schema` writes it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Shape {
    title: String,
    description: String,
    #[serde(rename = "type")]
    kind: String,
    r#const: String,
    properties: Ordered,
    required: Vec<String>,
    additional_properties: Option<Box<Item>>,
    items: Option<Box<Item>>,
    all_of: Vec<Item>,
    any_of: Vec<Item>,
    one_of: Vec<Item>,
    minimum: Option<serde_json::Number>,
    maximum: Option<serde_json::Number>,
    default: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Item {
    Anything(bool),
    Shape(Box<Shape>),
}

/// Fields in the order of the source.
#[derive(Debug, Clone, PartialEq, Default)]
struct Ordered(Vec<(String, Item)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Ordered;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("properties")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    list.push(entry);
                }
                Ok(Ordered(list))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The types met so far, and which of them wait for their section.
#[derive(Default)]
struct Types {
    known: BTreeMap<String, Shape>,
    waiting: Vec<Shape>,
}

/// The reference of this module's configuration.
pub(crate) fn reference(wasm: &[u8]) -> String {
    let schema = section(wasm, "weir.schema").unwrap_or_else(|| panic!("the module has no section weir.schema"));
    let root: Shape = serde_json::from_slice(schema).unwrap_or_else(|error| panic!("the schema: {error}"));
    let mut types = Types::default();
    let mut text = String::new();
    types.meet(&root);
    let mut next = 0;
    while let Some(shape) = types.waiting.get(next).cloned() {
        next += 1;
        // The first is the configuration as a whole, whose name says nothing to an operator.
        if next > 1 {
            text += &format!("\n### {}\n", shape.title);
        }
        text += &format!("\n{}\n", shape.description);
        text += &body(&shape.all_of[0], &mut types);
    }
    text + "\n"
}

/// The table of a type, or what its text looks like.
fn body(item: &Item, types: &mut Types) -> String {
    let Item::Shape(shape) = item else { return String::new() };
    if !shape.one_of.is_empty() {
        return alternatives(shape, types);
    }
    if shape.kind != "object" || shape.properties.0.is_empty() {
        return format!("\nIt is written as {}.\n", kind(item, types));
    }
    let mut text = "\n| field | type | default | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, item) in &shape.properties.0 {
        let (about, default) = match item {
            Item::Shape(shape) if shape.title.is_empty() => (shape.description.as_str(), shape.default.as_ref()),
            _ => ("", None),
        };
        let default = match default {
            _ if shape.required.contains(name) => "required".to_owned(),
            Some(value) => format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            None => "–".to_owned(),
        };
        text += &format!("| `{name}` | {} | {default} | {} |\n", kind(item, types), escaped(about));
    }
    text
}

fn alternatives(shape: &Shape, types: &mut Types) -> String {
    let mut text = "\n| value | meaning |\n|---|---|\n".to_owned();
    for item in &shape.one_of {
        let Item::Shape(shape) = item else { continue };
        match shape.properties.0.first() {
            None => text += &format!("| `{}` | {} |\n", shape.r#const, escaped(&shape.description)),
            Some((name, item)) => {
                let about = if let Item::Shape(shape) = item { &*shape.description } else { "" };
                text += &format!("| `{name}: ` {} | {} |\n", kind(item, types), escaped(about));
            }
        }
    }
    text
}

/// What a value is, with a link where that has a section.
fn kind(item: &Item, types: &mut Types) -> String {
    let Item::Shape(shape) = item else { return "anything".into() };
    if !shape.title.is_empty() {
        types.meet(shape);
        return format!("[{0}](#{1})", shape.title, shape.title.to_lowercase());
    }
    if let Some(inner) = shape.all_of.first().or(shape.any_of.first()) {
        return kind(inner, types);
    }
    match (shape.kind.as_str(), &shape.items, shape.additional_properties.as_deref()) {
        ("array", Some(of), _) => format!("list of {}", kind(of, types)),
        ("object", _, Some(Item::Anything(false))) => {
            let fields: Vec<String> = shape.properties.0.iter().map(|(name, item)| format!("`{name}`: {}", kind(item, types))).collect();
            if fields.is_empty() { "`{}`".into() } else { fields.join(", ") }
        }
        ("object", _, Some(of)) => format!("names with {}", kind(of, types)),
        ("integer", ..) => integer(shape),
        ("string", ..) => "text".into(),
        ("boolean", ..) => "`true` or `false`".into(),
        (other, ..) => other.into(),
    }
}

fn integer(shape: &Shape) -> String {
    let least = shape.minimum.as_ref().and_then(serde_json::Number::as_i64);
    let most = shape.maximum.as_ref().and_then(serde_json::Number::as_u64);
    match (least, most) {
        (Some(0), Some(most)) if most <= 0xffff => format!("0 to {most}"),
        (Some(0), _) => "whole number".into(),
        _ => "whole number, may be negative".into(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

impl Types {
    fn meet(&mut self, shape: &Shape) {
        // A name is a heading: two types of one name would share it.
        match self.known.get(&shape.title) {
            Some(known) => assert!(known.all_of == shape.all_of, "two types of the configuration are called {}", shape.title),
            None => {
                self.known.insert(shape.title.clone(), shape.clone());
                self.waiting.push(shape.clone());
            }
        }
    }
}

/// The custom section of this name.
fn section<'w>(wasm: &'w [u8], wanted: &str) -> Option<&'w [u8]> {
    wasmparser::Parser::new(0).parse_all(wasm).find_map(|payload| match payload {
        Ok(wasmparser::Payload::CustomSection(section)) if section.name() == wanted => Some(section.data()),
        _ => None,
    })
}
