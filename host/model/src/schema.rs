//! The schema at run time: what the YAML reader and printer walk, and what the reference pages are made from.
//!
//! Always: it is the schema that the Rust types were made from, for both come out of one compilation.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, EnumValueDescriptor, MessageDescriptor};

/// The descriptors, without comments. Made by the build script, so decoding them cannot fail; a test says so.
static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..]).unwrap_or_default());

/// `weir.config.v1.NAME`.
pub(crate) fn message(name: &str) -> Option<MessageDescriptor> {
    POOL.get_message_by_name(&format!("weir.config.v1.{name}"))
}

/// How the value is written in YAML: `REQUEST_HEADERS` is `requestHeaders`.
pub(crate) fn enum_text(value: &EnumValueDescriptor) -> String {
    let mut text = String::new();
    let mut upper = false;
    for c in value.name().chars() {
        if c == '_' {
            upper = true;
        } else {
            text.push(if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
            upper = false;
        }
    }
    text
}

/// Whether the text is one of the ways to write the value: its name with or without underscores and dashes, in any case.
pub(crate) fn is_enum_text(value: &EnumValueDescriptor, text: &str) -> bool {
    let plain = |text: &str| -> Vec<u8> {
        text.bytes().filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| byte.to_ascii_lowercase()).collect()
    };
    plain(value.name()) == plain(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_there_and_its_names_are_distinct() {
        assert!(message("Bootstrap").is_some());
        for ty in POOL.all_enums().filter(|ty| ty.package_name() == "weir.config.v1") {
            let mut texts: Vec<String> = ty.values().map(|value| enum_text(&value).to_lowercase()).collect();
            texts.sort();
            texts.dedup();
            assert_eq!(texts.len(), ty.values().len(), "{}", ty.full_name());
        }
    }

    #[test]
    fn values_have_three_spellings() {
        let value = POOL.get_enum_by_name("weir.config.v1.Phase").and_then(|ty| ty.get_value_by_name("PRE_ROUTE")).unwrap();
        assert_eq!(enum_text(&value), "preRoute");
        for text in ["preRoute", "pre_route", "PRE_ROUTE", "pre-route"] {
            assert!(is_enum_text(&value, text), "{text}");
        }
        assert!(!is_enum_text(&value, "route"));
    }
}
