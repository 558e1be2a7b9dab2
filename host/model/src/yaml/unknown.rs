//! What to say about a field that is not there.

use prost_reflect::{Kind, MessageDescriptor};

use crate::path::{At, did_you_mean, suggest};

/// How deep a field is looked for that was written too far out.
const DEPTH: usize = 3;

/// What to write instead of this name.
pub(super) fn help(ty: &MessageDescriptor, name: &str, at: &At<'_>) -> String {
    if name == "<<" {
        return "merge keys are not part of YAML 1.2; write the fields out, or use an alias for a whole value".into();
    }
    if matches!(name, "apiVersion" | "kind" | "spec") && at.segments().is_empty() {
        return "this looks like a Kubernetes object; those are for the controller, a proxy reads its own configuration".into();
    }
    let fields: Vec<_> = ty.fields().collect();
    let names = || fields.iter().map(prost_reflect::FieldDescriptor::json_name);
    if let Some(meant) = suggest(name, names()) {
        return format!("did you mean `{meant}`?");
    }
    if let Some(path) = below(ty, name, DEPTH) {
        return format!("it is a field further in: `{path}`");
    }
    did_you_mean(name, names(), "the fields here")
}

/// The path to a field of this name in the messages within, the shortest first.
fn below(ty: &MessageDescriptor, name: &str, depth: usize) -> Option<String> {
    let mut level = vec![(ty.clone(), String::new())];
    for _ in 0..depth {
        let mut next = Vec::new();
        for (ty, path) in &level {
            for field in ty.fields().filter(|field| !field.is_map()) {
                let Kind::Message(inner) = field.kind() else { continue };
                if inner.package_name() != ty.package_name() {
                    continue;
                }
                let path = format!("{path}{}{}.", field.json_name(), if field.is_list() { "[]" } else { "" });
                if let Some(found) = inner.get_field_by_json_name(name).or_else(|| inner.get_field_by_name(name)) {
                    return Some(path + found.json_name());
                }
                next.push((inner, path));
            }
        }
        level = next;
    }
    None
}
