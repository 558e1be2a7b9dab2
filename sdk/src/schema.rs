//! What a configuration looks like, known at compile time.
//!
//! `#[config]` describes a type as a [`Node`]; `#[register]` renders the filter's configuration as JSON Schema (2020-12) and puts it into the module as the
//! custom section `weir.schema`, so that a tool can check YAML and complete it without running the filter. The description never disagrees with what is
//! read: both come from the same type.

use std::collections::{BTreeMap, HashMap};

/// The shape of a value.
#[derive(Debug, Clone, Copy)]
pub enum Node {
    /// Anything.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number within these bounds.
    Integer {
        /// The least.
        least: i128,
        /// The most.
        most: i128,
    },
    /// A number.
    Number,
    /// A text.
    Text,
    /// A text that is one of these.
    OneOf(&'static [Name]),
    /// A list.
    List(&'static Node),
    /// Names and values.
    Map(&'static Node),
    /// Fields. Nothing else may be there.
    Fields(&'static [Field]),
    /// Exactly one of these fields, or one of these texts.
    Variant {
        /// Variants without a value.
        names: &'static [Name],
        /// Variants with one.
        fields: &'static [Field],
    },
    /// Itself or nothing.
    Optional(&'static Node),
    /// A type that the author named, with the first paragraph of its documentation.
    Named {
        /// Its name.
        name: &'static str,
        /// What it is.
        about: &'static str,
        /// Its shape.
        node: &'static Node,
    },
}

/// A text that stands for itself.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// As it is written.
    pub name: &'static str,
    /// The first paragraph of its documentation.
    pub about: &'static str,
    /// Whether it is what the type is by default.
    pub is_default: bool,
}

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As it is written.
    pub name: &'static str,
    /// The first paragraph of its documentation.
    pub about: &'static str,
    /// Whether it may not be left out.
    pub required: bool,
    /// Whether it is what its type is by default when it is left out: `false`, the empty list. Otherwise its documentation says what it is.
    pub is_plain: bool,
    /// What it holds.
    pub node: &'static Node,
}

/// A type that can be part of a configuration. Derived by `#[config]`.
pub trait Schema {
    /// Its shape.
    const NODE: Node;
}

macro_rules! integers {
    ($($type:ty),*) => { $(impl Schema for $type {
        const NODE: Node = Node::Integer { least: <$type>::MIN as i128, most: <$type>::MAX as i128 };
    })* };
}
integers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

macro_rules! shapes {
    ($($type:ty => $node:expr),* $(,)?) => { $(impl Schema for $type { const NODE: Node = $node; })* };
}
shapes! {
    bool => Node::Boolean,
    f32 => Node::Number,
    f64 => Node::Number,
    char => Node::Text,
    String => Node::Text,
    Box<str> => Node::Text,
    serde_json::Value => Node::Any,
    Box<serde_json::value::RawValue> => Node::Any,
    () => Node::Fields(&[]),
}

impl<T: Schema> Schema for Option<T> {
    const NODE: Node = Node::Optional(&T::NODE);
}

impl<T: Schema> Schema for Vec<T> {
    const NODE: Node = Node::List(&T::NODE);
}

impl<T: Schema> Schema for Box<T> {
    const NODE: Node = T::NODE;
}

impl<T: Schema, S> Schema for HashMap<String, T, S> {
    const NODE: Node = Node::Map(&T::NODE);
}

impl<T: Schema> Schema for BTreeMap<String, T> {
    const NODE: Node = Node::Map(&T::NODE);
}

/// Writes JSON at compile time: counts only, when it has no room.
struct Writer<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Writer<N> {
    const fn byte(mut self, byte: u8) -> Self {
        if self.length < N {
            self.bytes[self.length] = byte;
        }
        self.length += 1;
        self
    }

    const fn raw(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            self = self.byte(bytes[at]);
            at += 1;
        }
        self
    }

    const fn text(mut self, text: &str) -> Self {
        self = self.byte(b'"');
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            self = match bytes[at] {
                b'"' | b'\\' => self.byte(b'\\').byte(bytes[at]),
                b'\n' => self.raw("\\n"),
                control if control < 0x20 => self.byte(b' '),
                byte => self.byte(byte),
            };
            at += 1;
        }
        self.byte(b'"')
    }

    const fn integer(mut self, value: i128) -> Self {
        let mut rest = value.unsigned_abs();
        let mut digits = [0; 40];
        let mut count = 0;
        while rest > 0 || count == 0 {
            digits[count] = b'0' + (rest % 10) as u8;
            rest /= 10;
            count += 1;
        }
        if value < 0 {
            self = self.byte(b'-');
        }
        while count > 0 {
            count -= 1;
            self = self.byte(digits[count]);
        }
        self
    }

    /// The alternatives, without what encloses them.
    const fn names(mut self, names: &[Name]) -> Self {
        let mut at = 0;
        while at < names.len() {
            if at > 0 {
                self = self.byte(b',');
            }
            self = self.raw("{\"const\":").text(names[at].name);
            if !names[at].about.is_empty() {
                self = self.raw(",\"description\":").text(names[at].about);
            }
            self = self.byte(b'}');
            at += 1;
        }
        self
    }

    /// What a value of this shape is when nothing is written, if its type alone says so.
    const fn default(self, node: &Node) -> Self {
        match node {
            Node::Boolean => self.raw(",\"default\":false"),
            Node::List(_) => self.raw(",\"default\":[]"),
            Node::Map(_) => self.raw(",\"default\":{}"),
            Node::Named { node, .. } => self.default(node),
            Node::OneOf(names) | Node::Variant { names, .. } => {
                let mut at = 0;
                while at < names.len() {
                    if names[at].is_default {
                        return self.raw(",\"default\":").text(names[at].name);
                    }
                    at += 1;
                }
                self
            }
            _ => self,
        }
    }

    const fn field(self, field: &Field) -> Self {
        if field.about.is_empty() && !field.is_plain {
            return self.text(field.name).byte(b':').node(field.node);
        }
        let mut out = self.text(field.name).raw(":{\"allOf\":[").node(field.node).byte(b']');
        if field.is_plain {
            out = out.default(field.node);
        }
        if !field.about.is_empty() {
            out = out.raw(",\"description\":").text(field.about);
        }
        out.byte(b'}')
    }

    const fn fields(self, fields: &[Field]) -> Self {
        let mut out = self.raw("{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
        let mut at = 0;
        while at < fields.len() {
            if at > 0 {
                out = out.byte(b',');
            }
            out = out.field(&fields[at]);
            at += 1;
        }
        out = out.raw("},\"required\":[");
        let (mut at, mut first) = (0, true);
        while at < fields.len() {
            if fields[at].required {
                if !first {
                    out = out.byte(b',');
                }
                out = out.text(fields[at].name);
                first = false;
            }
            at += 1;
        }
        out.raw("]}")
    }

    const fn variant(self, names: &[Name], fields: &[Field]) -> Self {
        let mut out = self.raw("{\"oneOf\":[");
        let mut first = true;
        if !names.is_empty() {
            out = out.names(names);
            first = false;
        }
        let mut at = 0;
        while at < fields.len() {
            if !first {
                out = out.byte(b',');
            }
            first = false;
            out =
                out.raw("{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{").field(&fields[at]).raw("},\"required\":[");
            out = out.text(fields[at].name).raw("]}");
            at += 1;
        }
        out.raw("]}")
    }

    const fn node(self, node: &Node) -> Self {
        match node {
            Node::Any => self.raw("true"),
            Node::Boolean => self.raw("{\"type\":\"boolean\"}"),
            Node::Integer { least, most } => {
                self.raw("{\"type\":\"integer\",\"minimum\":").integer(*least).raw(",\"maximum\":").integer(*most).byte(b'}')
            }
            Node::Number => self.raw("{\"type\":\"number\"}"),
            Node::Text => self.raw("{\"type\":\"string\"}"),
            Node::OneOf(names) => self.raw("{\"type\":\"string\",\"oneOf\":[").names(names).raw("]}"),
            Node::List(of) => self.raw("{\"type\":\"array\",\"items\":").node(of).byte(b'}'),
            Node::Map(of) => self.raw("{\"type\":\"object\",\"additionalProperties\":").node(of).byte(b'}'),
            Node::Fields(fields) => self.fields(fields),
            Node::Variant { names, fields } => self.variant(names, fields),
            Node::Optional(of) => self.raw("{\"anyOf\":[").node(of).raw(",{\"type\":\"null\"}]}"),
            Node::Named { name, about, node } => {
                let mut out = self.raw("{\"title\":").text(name);
                if !about.is_empty() {
                    out = out.raw(",\"description\":").text(about);
                }
                out.raw(",\"allOf\":[").node(node).raw("]}")
            }
        }
    }
}

/// How many bytes [`render`] needs.
#[must_use]
pub const fn length(node: &Node) -> usize {
    Writer { bytes: [], length: 0 }.node(node).length
}

/// The JSON Schema of a node; `N` is its [`length`].
#[must_use]
pub const fn render<const N: usize>(node: &Node) -> [u8; N] {
    Writer { bytes: [0; N], length: 0 }.node(node).bytes
}

impl Node {
    /// The fields that an object of this shape may have.
    #[must_use]
    pub fn fields(&self) -> &'static [Field] {
        match self {
            Self::Fields(fields) | Self::Variant { fields, .. } => fields,
            Self::Optional(of) | Self::Named { node: of, .. } => of.fields(),
            _ => &[],
        }
    }

    /// What lies at one step of a path: a field's name, or the key or index of a container.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&'static Self> {
        match self {
            Self::Optional(of) | Self::Named { node: of, .. } => of.step(name),
            Self::List(of) | Self::Map(of) => Some(of),
            _ => self.fields().iter().find(|field| field.name == name).map(|field| field.node),
        }
    }
}
