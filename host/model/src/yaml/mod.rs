//! The YAML form of the configuration, read and printed.
//!
//! What always holds:
//! * No input makes the reader panic, hang or grow without bound: a file has at most 16 MiB, 64 levels, and a bounded number of
//!   nodes with its aliases counted as what they stand for.
//! * Every problem is reported, not only the first, with its place and the path of the field. What is right is returned beside it.
//! * What is printed reads as the same configuration.
//!
//! JSON is YAML, and files may hold several documents: each is a piece, as each file of a folder is. Deliberately not here: whether
//! a configuration makes sense, see [`crate::validate`].

pub mod document;
mod print;
mod read;
mod scalar;
mod tree;
mod unknown;

use std::sync::Arc;

pub use print::{print, print_message};

use crate::config::Bootstrap;
use crate::diagnostic::{Code, Diagnostic, Source};
use crate::merge::{self, Fragment};
use crate::path::At;
use crate::schema;
use tree::{Fault, Mark, Value};

/// The size of a file.
pub const MAX_BYTES: usize = 16 << 20;

/// What a file says, as far as it could be read.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The piece of a configuration; empty for an empty file.
    pub fragment: Fragment,
    /// What was wrong. With an error among them, `fragment` lacks what was wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a file. `name` is what diagnostics call it.
#[must_use]
pub fn parse(name: &str, bytes: impl AsRef<[u8]>) -> Parsed {
    match text_of(bytes.as_ref()) {
        Ok(text) => document_set(name, text),
        Err(refused) => Parsed { fragment: Fragment::default(), diagnostics: refuse_bytes(name, refused) },
    }
}

/// Why bytes are not read at all.
enum RefusedBytes {
    TooLarge,
    /// Not UTF-8 behind this.
    NotUtf8(String),
}

fn text_of(bytes: &[u8]) -> Result<&str, RefusedBytes> {
    if bytes.len() > MAX_BYTES {
        return Err(RefusedBytes::TooLarge);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => Err(RefusedBytes::NotUtf8(String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned())),
    }
}

fn refuse_bytes(name: &str, refused: RefusedBytes) -> Vec<Diagnostic> {
    let (code, text, mark, message, help) = match refused {
        RefusedBytes::TooLarge => {
            let start = Mark { line: 1, column: 1, length: 1 };
            (Code::TooLarge, String::new(), start, "the file is larger than 16 MiB", "split it into a folder of files")
        }
        RefusedBytes::NotUtf8(good) => {
            let line = good.split('\n').count();
            let column = good.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            let mark = Mark { line: u32::try_from(line).unwrap_or(0), column: u32::try_from(column).unwrap_or(0), length: 1 };
            (Code::NotUtf8, good, mark, "the file is not UTF-8", "save it as UTF-8; bytes are written in base64")
        }
    };
    let mut reader = read::Reader { source: Arc::new(Source { name: name.to_owned(), text }), found: Vec::new() };
    reader.report(mark, code, &At::ROOT, message, help);
    reader.found
}

fn document_set(name: &str, text: &str) -> Parsed {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let mut reader = read::Reader { source, found: Vec::new() };
    let (documents, fault) = tree::documents(text);
    let mut fragments = Vec::new();
    for node in &documents {
        if matches!(&node.value, Value::Scalar(text, true) if matches!(&**text, "" | "null" | "~")) {
            continue;
        }
        let Some(ty) = schema::message("Bootstrap") else { continue };
        let Some((message, places)) = reader.message(&ty, node.mark, node, &At::ROOT) else { continue };
        match message.transcode_to::<Bootstrap>() {
            Ok(bootstrap) => fragments.push(Fragment { bootstrap, places }),
            Err(error) => reader.report(node.mark, Code::TooLarge, &At::ROOT, format!("it cannot be encoded: {error}"), ""),
        }
    }
    if let Some((fault, mark)) = fault {
        syntax(&mut reader, &fault, mark);
    }
    let (fragment, mut problems) = merge::merge(fragments);
    let mut diagnostics = reader.found;
    diagnostics.append(&mut problems);
    Parsed { fragment, diagnostics }
}

/// Reads one message of the schema alone, by its name within the package: what a filter hands to the core.
#[must_use]
pub fn parse_message<M: prost::Message + Default>(ty: &str, name: &str, text: &str) -> (M, Vec<Diagnostic>) {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let mut reader = read::Reader { source, found: Vec::new() };
    let (documents, fault) = tree::documents(text);
    let mut message = M::default();
    if let Some((fault, mark)) = fault {
        syntax(&mut reader, &fault, mark);
    } else if let (Some(ty), [node]) = (schema::message(ty), &*documents) {
        let read = reader.message(&ty, node.mark, node, &At::ROOT);
        message = read.and_then(|(read, _)| read.transcode_to().ok()).unwrap_or_default();
    } else {
        let start = Mark { line: 1, column: 1, length: 1 };
        reader.report(start, Code::Syntax, &At::ROOT, format!("this is not one {ty}"), "");
    }
    (message, reader.found)
}

fn syntax(reader: &mut read::Reader, fault: &Fault, mark: Mark) {
    let line = reader.source.line(mark.line);
    let tabbed = line.trim_start_matches(' ').starts_with('\t');
    let (code, message, help) = match fault {
        Fault::Depth => (Code::TooLarge, format!("it is nested more than {} deep", tree::MAX_DEPTH), ""),
        Fault::Cost => (Code::TooLarge, "it has too many values, with those that aliases repeat".into(), "split the file, or repeat less"),
        Fault::Alias => (Code::Syntax, "an alias refers to what contains it, or to nothing".into(), "write the value out"),
        Fault::Syntax(info) if info.contains("recursion limit") => (Code::TooLarge, "it is nested too deep".into(), ""),
        Fault::Syntax(info) if tabbed => (Code::Syntax, format!("this is no YAML: {info}"), "YAML is indented with spaces, not with tabs"),
        Fault::Syntax(info) if info.contains("mapping values are not allowed") || info.contains("expected") => {
            (Code::Syntax, format!("this is no YAML: {info}"), "look at the indentation here and in the lines above")
        }
        Fault::Syntax(info) => (Code::Syntax, format!("this is no YAML: {info}"), ""),
    };
    reader.report(mark, code, &At::ROOT, message, help);
}

#[cfg(test)]
mod tests;
