//! The reader and the printer: spellings, round trips, and bounds that no input gets past.

use proptest::prelude::*;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Reflected};

use super::*;
use crate::diagnostic::render;
use crate::{duration, protobuf};

const SAMPLES: [&str; 2] =
    [include_str!("../../../../manifests/samples/filters.yaml"), include_str!("../../../../manifests/samples/upstream.yaml")];

fn read(text: impl AsRef<[u8]>) -> Bootstrap {
    let parsed = parse("conf.yaml", text);
    assert!(parsed.diagnostics.is_empty(), "{}", render(&parsed.diagnostics, false));
    parsed.fragment.bootstrap
}

#[test]
fn what_is_nothing_reads_as_nothing() {
    for text in ["", "\n", "# a comment\n", "---\n", "---\n...\n---\n", "null\n", "{}", "\u{feff}", "listeners:\n", "node: {labels: }\n"] {
        let bootstrap = read(text);
        assert!(bootstrap.listeners.is_empty() && bootstrap.node.unwrap_or_default().labels.is_empty(), "{text:?}");
    }
}

#[test]
fn one_configuration_has_many_spellings() {
    let block = "listeners:\n- name: a\n  max_connections: 5\n  detectTimeout: 1500ms\n  originalDestination: redirect\n";
    let expected = read(block);
    assert_eq!(expected.listeners[0].max_connections, 5);
    assert_eq!(duration::get(expected.listeners[0].detect_timeout), Some(std::time::Duration::from_millis(1500)));
    for text in [
        block.replace('\n', "\r\n"),
        format!("\u{feff}{block}"),
        r#"{"listeners": [{"name": "a", "maxConnections": "5", "detectTimeout": "1.500s", "originalDestination": "REDIRECT"}]}"#.into(),
        "listeners: [{name: 'a', maxConnections: 5.0, detectTimeout: 1s500ms, originalDestination: Redirect}]".into(),
        "listeners:\n- {name: &n a, maxConnections: 0x5, detect_timeout: 1.5s, original_destination: redirect}\n".into(),
    ] {
        assert_eq!(read(&text), expected, "{text}");
    }
}

#[test]
fn texts_are_taken_as_they_are_written() {
    let node = read("node: {id: 1.10, cluster: true, labels: {a: 0x1F, 503: 'null', b: \"\"}, metadata: {v: 2026-01-01}}").node.unwrap();
    assert_eq!((&*node.id, &*node.cluster), ("1.10", "true"));
    assert_eq!(node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(), ["503=null", "a=0x1F", "b="]);
    assert_eq!(node.metadata["v"], "2026-01-01");
}

#[test]
fn a_filters_configuration_is_any_json() {
    let text = "filterChains:\n- name: c\n  filters:\n  - name: f\n    config: {a: [1, 1.5, true, ~, 'x', y, {}], b: }\n    vmConfig: plain\n    variants: {v: 5}\n";
    let binding = read(text).filter_chains.remove(0).filters.remove(0);
    let printed = print_message("FilterBinding", &binding);
    assert_eq!(
        printed,
        "name: f\nconfig:\n  a:\n    - 1\n    - 1.5\n    - true\n    - null\n    - x\n    - \"y\"\n    - {}\n  b: null\nvmConfig: plain\nvariants:\n  v: 5\n"
            .replace("\"y\"", "y")
    );
    assert_eq!(read("filterChains: [{name: c, filters: [{name: f, config: }]}]").filter_chains[0].filters[0].config, None);
    let null = read("filterChains: [{name: c, filters: [{name: f, config: null}]}]").filter_chains[0].filters[0].config.clone();
    assert_eq!(null.and_then(|value| value.kind), Some(protobuf::Kind::NullValue(0)));
}

#[test]
fn nested_configuration_survives_the_wire() {
    let deep = |depth: usize| {
        format!("filterChains: [{{name: c, filters: [{{name: f, variants: {{v: {}1{}}}}}]}}]", "{a: ".repeat(depth), "}".repeat(depth))
    };
    let bootstrap = read(deep(23));
    let bytes = prost::Message::encode_to_vec(&bootstrap);
    assert_eq!(<Bootstrap as prost::Message>::decode(&*bytes).unwrap(), bootstrap);
    assert_eq!(parse("c", deep(24)).diagnostics[0].code, Code::TooLarge);
}

#[test]
fn documents_of_one_file_are_pieces() {
    let bootstrap = read("workers: 2\nclusters: [{name: a}]\n---\nclusters: [{name: b}]\n");
    assert_eq!(bootstrap.clusters.iter().map(|cluster| &*cluster.name).collect::<Vec<_>>(), ["a", "b"]);
    let twice = parse("conf.yaml", "workers: 2\n---\nworkers: 3\n").diagnostics;
    assert_eq!((twice.len(), twice[0].code, twice[0].line()), (1, Code::SetTwice, 3));
    assert!(twice[0].help.contains("conf.yaml:1:"), "{}", twice[0].help);
}

#[test]
fn a_large_file_is_read_in_reasonable_time() {
    let endpoints = "        - address: 10.0.0.1:8080\n          labels: {version: v1}\n".repeat(5_000);
    let text = format!("endpoints:\n  - name: e\n    localities:\n      - endpoints:\n{endpoints}");
    let start = std::time::Instant::now();
    assert_eq!(read(&text).endpoints[0].localities[0].endpoints.len(), 5_000);
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn hostile_files_end_soon() {
    let start = std::time::Instant::now();
    for text in [
        "[".repeat(1 << 16),
        "{".repeat(1 << 16),
        "- ".repeat(1 << 16),
        "? ".repeat(1 << 16),
        "a: ".repeat(1 << 16),
        "&a ".repeat(1 << 16),
        "!a ".repeat(1 << 16),
        "'".repeat((1 << 16) + 1),
        "a\n".repeat(1 << 16),
        "x: y\n".repeat(1 << 13),
        "- x: y\n".repeat(1 << 13),
        "[a, ".repeat(60),
        format!("[{}]", "a, ".repeat(1 << 14)),
        "---\n".repeat(1 << 13),
        "%A\n".repeat(1 << 13),
        format!("a: |\n{}", " \n".repeat(1 << 16)),
        format!("{}a", " ".repeat(1 << 16)),
        "\t".repeat(1 << 16),
        "#".repeat(1 << 16),
        "\u{feff}".repeat(1 << 16),
    ] {
        let parsed = parse("hostile.yaml", &text);
        assert!(parsed.diagnostics.len() <= 1001);
        assert!(render(&parsed.diagnostics, false).len() < 4 << 20);
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(parse("large.yaml", vec![b' '; MAX_BYTES + 1]).diagnostics[0].code, Code::TooLarge);
}

/// Bytes as choices; zeros when they are used up, and zero is always the smallest choice.
struct Entropy<'a>(std::slice::Iter<'a, u8>);

impl Entropy<'_> {
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count
    }
}

const TEXTS: [&str; 40] = [
    "a",
    "",
    "true",
    "12",
    "~",
    "null",
    "a: b",
    "a #b",
    "# x",
    "- a",
    "-",
    "multi\nline\n",
    "é",
    "😀",
    "\u{85}x",
    "\u{feff}x",
    " lead",
    "trail ",
    "0x1F",
    "...",
    "---",
    "'",
    "\"",
    "\\",
    "&a",
    "*a",
    "!t",
    "%",
    "@",
    "`",
    "a:",
    "\u{7f}",
    "\u{1}",
    "=",
    "<<",
    "\t",
    "\r\n",
    "[",
    "1e3",
    "/a/b-c_d:e.f",
];

fn text(entropy: &mut Entropy<'_>) -> String {
    let text = TEXTS[entropy.below(TEXTS.len())];
    if entropy.below(16) == 15 { text.repeat(1 + entropy.below(255) * 8) } else { text.into() }
}

fn value(field: &FieldDescriptor, kind: &Kind, entropy: &mut Entropy<'_>, depth: usize) -> Reflected {
    let number = entropy.below(256);
    match kind {
        Kind::Message(ty) => Reflected::Message(message(ty, entropy, depth - 1)),
        Kind::String => Reflected::String(text(entropy)),
        Kind::Bytes => Reflected::Bytes(text(entropy).into_bytes().into()),
        Kind::Bool => Reflected::Bool(number % 2 == 1),
        Kind::Int32 => Reflected::I32([0, -1, i32::MAX, i32::MIN, 7][number % 5]),
        Kind::Uint32 => Reflected::U32([0, 1, u32::MAX, 503][number % 4]),
        Kind::Double => Reflected::F64([0.0, -0.0, 1.5, 1e300, -1e-7, f64::INFINITY, 1e15, 3.0][number % 8]),
        Kind::Enum(ty) => Reflected::EnumNumber(ty.values().nth(number % ty.values().len()).unwrap().number()),
        other => panic!("the schema has {other:?} in {}", field.full_name()),
    }
}

fn message(ty: &MessageDescriptor, entropy: &mut Entropy<'_>, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(ty.clone());
    match ty.full_name() {
        "google.protobuf.Duration" => {
            let value = protobuf::Duration {
                seconds: entropy.below(100).try_into().unwrap(),
                nanos: 1_000_000 * i32::try_from(entropy.below(1000)).unwrap(),
            };
            message.transcode_from(&value).unwrap();
        }
        "google.protobuf.Value" => message.transcode_from(&json(entropy, 4)).unwrap(),
        _ => {
            for field in ty.fields().filter(|_| depth > 0) {
                let count = match entropy.below(4) {
                    count @ 1.. if field.is_list() || field.is_map() => count,
                    count => count.saturating_sub(1).min(1),
                };
                for index in 0..count {
                    if field.is_map() {
                        let Kind::Message(entry) = field.kind() else { panic!("a map has entries") };
                        let item = value(&field, &entry.map_entry_value_field().kind(), entropy, depth);
                        message.get_field_mut(&field).as_map_mut().unwrap().insert(MapKey::String(text(entropy)), item);
                    } else if field.is_list() {
                        let item = value(&field, &field.kind(), entropy, depth);
                        message.get_field_mut(&field).as_list_mut().unwrap().push(item);
                    } else if index == 0 {
                        let item = value(&field, &field.kind(), entropy, depth);
                        message.set_field(&field, item);
                    }
                }
            }
        }
    }
    message
}

fn json(entropy: &mut Entropy<'_>, depth: usize) -> protobuf::Value {
    use protobuf::Kind as Json;
    let count = entropy.below(3);
    let kind = match entropy.below(if depth == 0 { 4 } else { 6 }) {
        0 => Json::NullValue(0),
        1 => Json::BoolValue(count == 1),
        2 => Json::NumberValue([0.0, -2.5, 9_007_199_254_740_992.0][count]),
        3 => Json::StringValue(text(entropy)),
        4 => Json::ListValue(protobuf::ListValue { values: (0..count).map(|_| json(entropy, depth - 1)).collect() }),
        _ => Json::StructValue(protobuf::Struct { fields: (0..count).map(|_| (text(entropy), json(entropy, depth - 1))).collect() }),
    };
    protobuf::Value { kind: Some(kind) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_is_printed_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        let ty = schema::message("Bootstrap").unwrap();
        let bootstrap: Bootstrap = message(&ty, &mut Entropy(bytes.iter()), 7).transcode_to().unwrap();
        let printed = print(&bootstrap);
        let parsed = parse("printed.yaml", &printed);
        prop_assert!(parsed.diagnostics.is_empty(), "{}\n{}", render(&parsed.diagnostics, false), printed);
        prop_assert_eq!(&parsed.fragment.bootstrap, &bootstrap, "{}", printed);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), yaml in "[-a:{}\\[\\]\n \"'&*!|>%#,?0~\t]{0,80}") {
        for text in [&bytes, yaml.as_bytes()] {
            let parsed = parse("any.yaml", text);
            prop_assert!(render(&parsed.diagnostics, true).len() < 1 << 18);
        }
    }

    #[test]
    fn no_damaged_sample_panics(sample in 0..SAMPLES.len(), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..8)) {
        let mut text = SAMPLES[sample].as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => drop(text.remove(at)),
            }
        }
        let (fragment, found) = crate::validate::load([("sample.yaml", &*text)], &crate::validate::Context::default());
        prop_assert!(render(&found, false).len() < 1 << 18);
        if found.is_empty() {
            prop_assert_eq!(parse("printed.yaml", print(&fragment.bootstrap)).fragment.bootstrap, fragment.bootstrap);
        }
    }
}
