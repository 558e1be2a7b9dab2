//! What a module says about itself in custom sections: who wrote it, with what, and how it is configured.
//!
//! Always: read with bounds, believed for display only; a section that is damaged is as if it were not there.

use serde_json::Value;
use wasmparser::{KnownCustom, Parser, Payload};

/// Of a section that is shown.
const MOST: usize = 1 << 20;

/// The sections that are known here.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    /// `weir.filter`: name, version, ABI.
    pub(crate) about: Option<Value>,
    /// `weir.schema`: JSON Schema of the configuration.
    pub(crate) schema: Option<Value>,
    /// `producers`: language, compiler, SDK, as `name version`.
    pub(crate) producers: Vec<(String, String)>,
}

impl Sections {
    /// Reads them out of a core module.
    pub(crate) fn of(module: &[u8]) -> Self {
        let mut found = Self::default();
        for payload in Parser::new(0).parse_all(module).map_while(Result::ok) {
            let Payload::CustomSection(section) = payload else { continue };
            let json = |data: &[u8]| (data.len() <= MOST).then(|| serde_json::from_slice(data).ok()).flatten();
            match (section.name(), section.as_known()) {
                ("weir.filter", _) => found.about = json(section.data()),
                ("weir.schema", _) => found.schema = json(section.data()),
                (_, KnownCustom::Producers(fields)) => {
                    for field in fields.into_iter().map_while(Result::ok).take(16) {
                        let values = field.values.into_iter().map_while(Result::ok).take(16);
                        let list: Vec<String> = values.map(|value| plain(&format!("{} {}", value.name, value.version))).collect();
                        found.producers.push((plain(field.name), list.join(", ")));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// A text of `weir.filter`.
    pub(crate) fn about(&self, key: &str) -> Option<String> {
        self.about.as_ref()?.get(key)?.as_str().map(plain)
    }

    /// In what it was written and compiled, as far as it says.
    pub(crate) fn made_with(&self) -> Option<String> {
        let made: Vec<&str> = self.producers.iter().map(|(_, list)| list.trim()).filter(|list| !list.is_empty()).collect();
        (!made.is_empty()).then(|| made.join("; "))
    }
}

/// Without what would do something to a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.trim().chars().filter(|character| !character.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_read_and_damage_is_nothing() {
        let wat = r#"(module (@custom "weir.filter" "{\"name\":\"a\\u001b[31m\",\"version\":\"1\"}") (@custom "weir.schema" "{oops"))"#;
        let module = wat::parse_str(wat).unwrap_or_default();
        let sections = Sections::of(&module);
        assert_eq!(sections.about("name").as_deref(), Some("a[31m"));
        assert!(sections.schema.is_none() && sections.made_with().is_none());
        assert!(Sections::of(b"\0asm\x01\0\0\0\x00\xff").about.is_none());
        assert!(Sections::of(b"").about.is_none());
    }
}
