//! YAML that follows no schema of ours: documents as JSON values that still know where everything stands.
//!
//! For what Kubernetes defines: who reads a document turns its value into something typed, and asks for the [place](Document::place) of whatever
//! turns out to be wrong. Sizes are bounded as for [`super::parse`], and the same problems are reported; a key that stands twice is one of them.
//! What it does not do: YAML 1.1. `yes` and `on` are texts here.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};

use super::scalar::{Scalar, resolve};
use super::tree::{self, Mark, Node, Value};
use super::{read, refuse_bytes, syntax};
use crate::diagnostic::{Code, Diagnostic, Place, Source};
use crate::path::At;

/// One step of the way to a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A key of a mapping.
    Key(Arc<str>),
    /// An item of a list.
    Index(usize),
}

/// The way to a value of a document: `spec.http[0].route`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way(Vec<Step>);

impl Way {
    /// The document itself.
    pub const ROOT: Self = Self(Vec::new());

    /// One key further.
    #[must_use]
    pub fn key(&self, key: impl Into<Arc<str>>) -> Self {
        self.then(Step::Key(key.into()))
    }

    /// One item further.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Its steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl FromIterator<Step> for Way {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

/// `spec.selector.labels["app.kubernetes.io/name"]`
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            let plain = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if plain(key) => write!(f, "{}{key}", if at > 0 { "." } else { "" })?,
                Step::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

/// One document of a file.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it says.
    pub value: Json,
    source: Arc<Source>,
    root: Arc<Node<'static>>,
}

impl Document {
    /// Where a value stands, or the nearest thing around it that was written. For an entry of a mapping, that is its key.
    #[must_use]
    pub fn place(&self, way: &Way) -> Place {
        let (mut node, mut mark) = (&*self.root, self.root.mark);
        for step in way.steps() {
            let next = match (&node.value, step) {
                (Value::Map(pairs), Step::Key(wanted)) => {
                    pairs.iter().find(|(key, _)| is_key(key, wanted)).map(|(key, value)| (value, key.mark))
                }
                (Value::List(items), Step::Index(index)) => items.get(*index).map(|item| (item, item.mark)),
                _ => None,
            };
            match next {
                Some(found) => (node, mark) = found,
                None => break,
            }
        }
        // A value on the line of its key is what is meant, if it is a plain one.
        if matches!(&node.value, Value::Scalar(text, _) if !text.is_empty()) {
            mark = node.mark;
        }
        Place { source: Arc::clone(&self.source), line: mark.line, column: mark.column, length: mark.length }
    }

    /// The file's name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.name
    }
}

fn is_key(key: &Node<'_>, wanted: &str) -> bool {
    matches!(&key.value, Value::Scalar(text, _) if **text == *wanted)
}

/// What a file says, as far as it could be read.
#[derive(Debug, Default)]
pub struct Documents {
    /// Its documents, without those that are empty.
    pub documents: Vec<Document>,
    /// What was wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a file. `name` is what diagnostics call it.
#[must_use]
pub fn documents(name: &str, bytes: &[u8]) -> Documents {
    let text = match super::text_of(bytes) {
        Ok(text) => text,
        Err(refused) => return Documents { documents: Vec::new(), diagnostics: refuse_bytes(name, refused) },
    };
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let mut reader = read::Reader { source: Arc::clone(&source), found: Vec::new() };
    let (nodes, fault) = tree::documents(text);
    let mut documents = Vec::with_capacity(nodes.len());
    for node in nodes {
        let value = json(&mut reader, &node, &Way::ROOT);
        if !value.is_null() {
            documents.push(Document { value, source: Arc::clone(&source), root: Arc::new(node.into_owned()) });
        }
    }
    if let Some((fault, mark)) = fault {
        syntax(&mut reader, &fault, mark);
    }
    Documents { documents, diagnostics: reader.found }
}

fn json(reader: &mut read::Reader, node: &Node<'_>, way: &Way) -> Json {
    match &node.value {
        Value::Scalar(text, plain) => match resolve(text, *plain, node.tag.as_deref()) {
            Ok(Scalar::Empty | Scalar::Null) => Json::Null,
            Ok(Scalar::Bool(value)) => Json::Bool(value),
            Ok(Scalar::Int(value)) => whole(value),
            Ok(Scalar::Float(value)) => Number::from_f64(value).map_or_else(|| Json::String(text.to_string()), Json::Number),
            Ok(Scalar::Text) => Json::String(text.to_string()),
            Err(()) => {
                report(reader, node.mark, Code::UnknownTag, way, "this tag means nothing here");
                Json::String(text.to_string())
            }
        },
        Value::List(items) => Json::Array(items.iter().enumerate().map(|(at, item)| json(reader, item, &way.index(at))).collect()),
        Value::Map(pairs) => Json::Object(object(reader, pairs, way)),
    }
}

fn whole(value: i128) -> Json {
    let small = i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from));
    #[allow(clippy::cast_precision_loss, reason = "JSON has no larger whole numbers")]
    small.ok().or_else(|| Number::from_f64(value as f64)).map_or(Json::Null, Json::Number)
}

fn object(reader: &mut read::Reader, pairs: &[(Node<'_>, Node<'_>)], way: &Way) -> Map<String, Json> {
    let mut object = Map::with_capacity(pairs.len());
    let mut merged = Vec::new();
    for (key, value) in pairs {
        let Value::Scalar(text, plain) = &key.value else {
            report(reader, key.mark, Code::WrongType, way, "a key must be a text");
            continue;
        };
        if *plain && **text == *"<<" {
            merged.push(json(reader, value, way));
            continue;
        }
        let inner = way.key(&**text);
        if object.contains_key(&**text) {
            report(reader, key.mark, Code::DuplicateKey, &inner, "this key stands twice here");
            continue;
        }
        let value = json(reader, value, &inner);
        object.insert(text.to_string(), value);
    }
    for value in merged {
        let maps = match value {
            Json::Array(items) => items,
            one => vec![one],
        };
        for (key, value) in maps.into_iter().filter_map(|map| if let Json::Object(map) = map { Some(map) } else { None }).flatten() {
            object.entry(key).or_insert(value);
        }
    }
    object
}

fn report(reader: &mut read::Reader, mark: Mark, code: Code, way: &Way, message: &str) {
    reader.report(mark, code, &At::ROOT, message, "");
    if let Some(last) = reader.found.last_mut() {
        last.path = way.to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_and_their_places() {
        let text = "kind: A\nspec:\n  hosts: [a, \"1\", 2]\n  labels: {app.kubernetes.io/name: x}\n---\n# nothing\n---\nkind: B\n";
        let read = documents("f.yaml", text.as_bytes());
        assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
        let [a, b] = &read.documents[..] else { panic!("two documents") };
        assert_eq!(a.value, json!({"kind": "A", "spec": {"hosts": ["a", "1", 2], "labels": {"app.kubernetes.io/name": "x"}}}));
        let spec = Way::ROOT.key("spec");
        assert_eq!(a.place(&spec.key("hosts").index(1)).to_string(), "f.yaml:3:14");
        assert_eq!(a.place(&spec.key("nothing")).to_string(), "f.yaml:2:1");
        let label = spec.key("labels").key("app.kubernetes.io/name");
        assert_eq!((a.place(&label).line, label.to_string().as_str()), (4, "spec.labels[\"app.kubernetes.io/name\"]"));
        assert_eq!(b.place(&Way::ROOT.key("kind")).line, 8);
    }

    #[test]
    fn what_is_wrong_is_said_and_the_rest_is_read() {
        let read = documents("f.yaml", b"a: 1\na: 2\nb: \"no end");
        let codes: Vec<_> = read.diagnostics.iter().map(|found| found.code).collect();
        assert_eq!(codes, [Code::Syntax], "{:?}", read.diagnostics);
        let read = documents("f.yaml", b"a: 1\na: 2\n---\n\xef\xbb\xbfb: 3\r\n");
        assert_eq!(read.diagnostics[0].code, Code::DuplicateKey);
        assert_eq!(read.documents[0].value, json!({"a": 1}));
    }

    #[test]
    fn what_others_write_is_understood() {
        let read = documents(
            "f.yaml",
            b"\xef\xbb\xbfbase: &b {x: 1, y: 2}\r\nuse:\r\n  <<: *b\r\n  y: 3\r\nn: no\r\nbig: 18446744073709551615\r\n",
        );
        assert_eq!(read.documents[0].value["use"], json!({"x": 1, "y": 3}));
        assert_eq!(read.documents[0].value["n"], json!("no"));
        assert_eq!(read.documents[0].value["big"], json!(u64::MAX));
    }
}
