//! The reference of the configuration, from the schema's own comments: `manifests/reference.md`.
//!
//! Always: every message, field and value of the schema has its line. A test holds the committed page to it;
//! `cargo run -p weir-model --example reference > manifests/reference.md` writes it anew.

use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};

use crate::schema::enum_text;

const PACKAGE: &str = "weir.config.v1";
/// The files of the schema, in the order in which one reads them.
const FILES: [&str; 6] = ["bootstrap", "listener", "route", "filter", "cluster", "secret"];

const HEAD: &str = "\
# Configuration reference

Made from the schema (`host/model/proto`) by `cargo run -p weir-model --example reference > manifests/reference.md`; a test says when it is
out of date. What a file holds is a [Bootstrap](#bootstrap). Samples are beside this page, in `samples/`.

Names are written `lowerCamelCase` or `snake_case`. A duration is `250ms`, `1.5s`, `1m30s` or `2h`. Values of enumerations are written as below, or in
capitals with underscores; the first is the default. A field that is not written is 0, empty or absent, and means what its line says. Unknown fields
are errors. JSON is YAML. A file may hold several documents, and a folder several files: lists are joined, single fields may stand once.

# The process

`weir-proxy run -c PATH` serves and follows the file or folder; `weir-proxy check -c PATH` says what is wrong with it; `--help` has the rest.

SIGTERM and SIGINT drain: who waits to be accepted is served, keep-alive connections end with their next response (or after 2 s without a request), HTTP/2
connections are told with GOAWAY, and the process ends when all is done or `drainTimeout` is over. A second signal ends it at once. SIGUSR1 opens access
logs again.

To upgrade without losing a connection, run with `--handover PATH`, the path of a Unix socket that only this user may use, and start the new process beside
the old one with the same path. It takes over all listening sockets, the operator's pages included, whatever the number of workers on either side. As soon
as its whole configuration serves, the old process drains and ends. Listeners that the new configuration does not have are drained too. A new process that
does not come to serve within 110 s ends with an error, and the old one goes on.
";

/// The page, in Markdown.
#[must_use]
pub fn reference() -> String {
    let pool = DescriptorPool::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/documented.bin"))[..]).unwrap_or_default();
    let mut text = HEAD.to_owned();
    for name in FILES {
        let Some(file) = pool.get_file_by_name(&format!("weir/config/v1/{name}.proto")) else { continue };
        let _ = write!(text, "\n# {}\n", title(&file));
        for message in file.messages() {
            self::message(&mut text, &message);
        }
        for ty in file.enums() {
            enumeration(&mut text, &ty);
        }
    }
    text
}

/// The first sentence of the comment above a file's first statement.
fn title(file: &FileDescriptor) -> String {
    let all = comment(file, &[12]);
    all.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

fn message(text: &mut String, message: &MessageDescriptor) {
    if message.is_map_entry() {
        return;
    }
    let _ = write!(text, "\n## {}\n", short(message.full_name()));
    paragraph(text, &comment(&message.parent_file(), message.path()));
    if message.fields().len() == 0 {
        text.push_str("\nIt has no fields: write `{}`.\n");
    } else {
        text.push_str("\n| field | type | meaning |\n|---|---|---|\n");
    }
    let mut fields: Vec<FieldDescriptor> = message.fields().collect();
    fields.sort_by_key(|field| field.path().last().copied());
    for field in fields {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let choice = oneof.map_or_else(String::new, |oneof| format!("; one of *{}*", oneof.name()));
        let meaning = comment(&field.parent_file(), field.path());
        let _ = writeln!(text, "| `{}` | {}{choice} | {} |", field.json_name(), kind(&field), meaning.replace('|', "\\|"));
    }
    for inner in message.child_messages() {
        self::message(text, &inner);
    }
    for ty in message.child_enums() {
        enumeration(text, &ty);
    }
}

fn enumeration(text: &mut String, ty: &EnumDescriptor) {
    let _ = write!(text, "\n## {}\n", short(ty.full_name()));
    paragraph(text, &comment(&ty.parent_file(), ty.path()));
    text.push_str("\n| value | meaning |\n|---|---|\n");
    for value in ty.values() {
        let meaning = comment(&ty.parent_file(), value.path());
        let _ = writeln!(text, "| `{}` | {} |", enum_text(&value), meaning.replace('|', "\\|"));
    }
}

fn paragraph(text: &mut String, comment: &str) {
    if !comment.is_empty() {
        let _ = write!(text, "\n{comment}\n");
    }
}

/// What the field holds, with a link where that has a section.
fn kind(field: &FieldDescriptor) -> String {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        return format!("map of {}", kind(&entry.map_entry_value_field()));
    }
    let one = match field.kind() {
        Kind::String => "text".to_owned(),
        Kind::Bool => "true or false".into(),
        Kind::Bytes => "base64".into(),
        Kind::Double | Kind::Float => "number".into(),
        Kind::Message(ty) => link(ty.full_name()),
        Kind::Enum(ty) => link(ty.full_name()),
        Kind::Uint32 | Kind::Uint64 => "whole number".into(),
        _ => "whole number, may be negative".into(),
    };
    if field.is_list() { format!("list of {one}") } else { one }
}

fn link(name: &str) -> String {
    match name {
        "google.protobuf.Duration" => "duration".into(),
        "google.protobuf.Value" => "anything".into(),
        _ => format!("[{0}](#{1})", short(name), short(name).to_lowercase().replace('.', "")),
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix(PACKAGE).map_or(name, |name| name.trim_start_matches('.'))
}

/// What the schema says at this path.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let leading = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    leading.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_page_is_current() {
        let page = include_str!("../../../manifests/reference.md");
        assert!(super::reference() == page, "run: cargo run -p weir-model --example reference > manifests/reference.md");
        for line in [
            "| `maxConnections` | whole number | Open connections of this listener",
            "| `http` | [Http](#http); one of *protocol* |",
            "| `preRoute` | Before",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }
}
