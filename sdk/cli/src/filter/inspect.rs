//! `weir filter inspect`: what a module is, what it needs, and whether this host runs it.
//!
//! Always: the verdict is the host's own, by the checks and with the errors of a load; with a configuration it is started and configured as well, as a proxy
//! would before it serves from it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use weir_sdk_testing::Tester;
use weir_wasm::module::callbacks::Callback;
use weir_wasm::module::facts::{Entry, ItemType, ModuleFacts};
use weir_wasm::module::{LoadLimits, LoadOptions, Module, sniff};
use weir_wasm::{Engine, EngineOptions, Kind};

use crate::args::Inspect;
use crate::failure::{Done, Failure};
use crate::filter::sections::{Sections, plain};
use crate::filter::source::{self, Source};
use crate::out::{Out, Paint};

/// What a host function lets a filter do, in the order in which it is listed.
const CAPABILITIES: [(&str, &[&str]); 12] = [
    ("headers", &["proxy_get_header_map_value", "proxy_get_header_map_pairs", "proxy_get_header_map_size"]),
    (
        "change headers",
        &["proxy_add_header_map_value", "proxy_replace_header_map_value", "proxy_remove_header_map_value", "proxy_set_header_map_pairs"],
    ),
    ("bodies", &["proxy_get_buffer_bytes", "proxy_get_buffer_status"]),
    ("change bodies", &["proxy_set_buffer_bytes"]),
    ("answer requests", &["proxy_send_local_response"]),
    ("HTTP callouts", &["proxy_http_call"]),
    ("gRPC callouts", &["proxy_grpc_call", "proxy_grpc_stream"]),
    ("shared data", &["proxy_get_shared_data", "proxy_set_shared_data"]),
    ("queues", &["proxy_register_shared_queue", "proxy_resolve_shared_queue", "proxy_enqueue_shared_queue", "proxy_dequeue_shared_queue"]),
    ("metrics", &["proxy_define_metric"]),
    ("timer", &["proxy_set_tick_period_milliseconds"]),
    ("extensions", &["proxy_call_foreign_function"]),
];

/// What is known about one module.
struct Report {
    name: String,
    sections: Sections,
    facts: Option<ModuleFacts>,
    /// Why this host does not run it, and what to do.
    refused: Option<(String, String)>,
    warnings: Vec<String>,
    configured: bool,
}

pub(crate) fn inspect(inspect: &Inspect, out: &Out) -> Done {
    let source = source::load(&inspect.module, &inspect.registry, out)?;
    let config = inspect.config.as_deref().map(source::text).transpose()?;
    let report = examine(&source, config.as_deref())?;
    out.value(&report.json(), |out| report.text(out));
    if report.refused.is_none() { Ok(()) } else { Err(Failure::told()) }
}

/// What a filter may do, by what it imports: also what its package says.
pub(crate) fn capabilities(facts: &ModuleFacts) -> Vec<&'static str> {
    use Callback::{DownstreamData, RequestBody, ResponseBody, UpstreamData};
    let imports = |names: &[&str]| facts.imports.iter().any(|import| names.contains(&&*import.name));
    // A filter reads its configuration through the same functions.
    let sees_bodies = [RequestBody, ResponseBody, DownstreamData, UpstreamData].iter().any(|one| facts.callbacks.arity(*one).is_some());
    let may = |name: &str, functions: &[&str]| imports(functions) && (sees_bodies || !name.ends_with("bodies"));
    CAPABILITIES.iter().filter(|(name, functions)| may(name, functions)).map(|(name, _)| *name).collect()
}

/// The module without wrappers and what it says of itself, if it can be read.
pub(crate) fn read(source: &Source) -> Option<(Vec<u8>, ModuleFacts)> {
    let module = sniff::unpack(&source.bytes, LoadLimits::DEFAULT_MODULE_BYTES).ok()?;
    let facts = ModuleFacts::parse(&module).ok()?;
    Some((module.into_owned(), facts))
}

fn examine(source: &Source, config: Option<&str>) -> Done<Report> {
    let engine = Engine::new(EngineOptions::default()).map_err(|error| Failure::new(format!("no Wasm engine: {error}")))?;
    let read = read(source);
    let (sections, facts) = match read {
        Some((module, facts)) => (Sections::of(&module), Some(facts)),
        None => (Sections::default(), None),
    };
    let mut report = Report { name: source.name.clone(), sections, facts, refused: None, warnings: Vec::new(), configured: false };
    match Module::load_for(&engine, &source.name, &source.bytes, &LoadOptions::default()) {
        Ok(module) => report.warnings = module.warnings().iter().map(ToString::to_string).collect(),
        Err(error) => report.refused = Some((error.to_string(), error.help().to_string())),
    }
    if let (Some(config), Some(facts), None) = (config, &report.facts, &report.refused) {
        let started =
            Tester::with_engine(&engine, &source.bytes).configuration(config).binding(|binding| binding.kind = kind(facts)).start();
        match started {
            Ok(_) => report.configured = true,
            Err(error) => {
                let text = error.to_string();
                let (cause, help) = text.split_once("\n  help: ").unwrap_or((&text, ""));
                report.refused = Some((cause.to_owned(), help.to_owned()));
            }
        }
    }
    Ok(report)
}

/// What a module is for, by its callbacks.
pub(crate) fn kind(facts: &ModuleFacts) -> Kind {
    let streams = facts.callbacks.streams();
    if streams.tcp && !streams.http { Kind::Tcp } else { Kind::Http }
}

impl Report {
    fn json(&self) -> Value {
        let facts = self.facts.as_ref();
        let functions = |facts: &ModuleFacts| {
            let imports =
                facts.imports.iter().map(|import| json!({"module": &*import.module, "name": &*import.name, "type": import.ty.to_string()}));
            imports.collect::<Vec<_>>()
        };
        let exports = |facts: &ModuleFacts| {
            facts.exports.iter().map(|export| json!({"name": &*export.name, "type": export.ty.to_string()})).collect::<Vec<_>>()
        };
        json!({
            "module": self.name,
            "runs": self.refused.is_none(),
            "error": self.refused.as_ref().map(|(cause, _)| cause),
            "help": self.refused.as_ref().map(|(_, help)| help),
            "configured": self.configured,
            "name": self.sections.about("name"),
            "version": self.sections.about("version"),
            "digest": facts.map(|facts| format!("sha256:{}", facts.digest)),
            "size": facts.map(|facts| facts.size),
            "abi": facts.and_then(|facts| facts.abi).map(|abi| abi.to_string()),
            "kind": facts.map(|facts| if kind(facts) == Kind::Tcp { "tcp" } else { "http" }),
            "entry": facts.map(|facts| entry(facts.entry)),
            "allocator": facts.and_then(|facts| facts.allocator).map(|allocator| allocator.name()),
            "memory": facts.map(memory),
            "capabilities": facts.map(capabilities),
            "callbacks": facts.map(callbacks),
            "imports": facts.map(functions),
            "exports": facts.map(exports),
            "debug": facts.map(|facts| json!({"names": facts.has_names, "lines": facts.has_dwarf})),
            "producers": self.sections.producers.iter().map(|(field, list)| (field.clone(), json!(list))).collect::<serde_json::Map<_, _>>(),
            "schema": self.sections.schema,
            "warnings": self.warnings,
        })
    }

    fn text(&self, out: &Out) -> String {
        let title = match (self.sections.about("name"), self.sections.about("version")) {
            (Some(name), Some(version)) => format!("{} {version}", out.paint(Paint::Bold, &name)),
            _ => out.paint(Paint::Bold, &plain(&self.name)),
        };
        let mut text = format!("{title}\n");
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "  {} {value}", out.paint(Paint::Dim, &format!("{name:<13}")));
            }
        };
        match &self.refused {
            None if self.configured => line("runs here", &out.paint(Paint::Green, "yes, with this configuration")),
            None => line("runs here", &out.paint(Paint::Green, "yes")),
            Some((cause, help)) => {
                line("runs here", &out.paint(Paint::Red, "no"));
                line("because", cause);
                line("help", help);
            }
        }
        for warning in &self.warnings {
            line("warning", &out.paint(Paint::Yellow, warning));
        }
        if let Some(facts) = &self.facts {
            line("digest", &format!("sha256:{}", facts.digest));
            line("size", &bytes(facts.size as u64));
            line("ABI", &facts.abi.map_or_else(|| "none".to_owned(), |abi| abi.to_string()));
            line("entry", entry(facts.entry));
            line("allocator", facts.allocator.map_or("none", |allocator| allocator.name()));
            line("memory", &format!("{} at least", bytes(memory(facts))));
            line("made with", &self.sections.made_with().unwrap_or_default());
            line("callbacks", &callbacks(facts).join(", "));
            line("capabilities", &capabilities(facts).join(", "));
            for module in modules(facts) {
                let names = facts.imports.iter().filter(|import| *import.module == *module).map(|import| plain(&import.name));
                line("imports", &format!("{}: {}", plain(module), names.take(100).collect::<Vec<_>>().join(", ")));
            }
            let is_function = |ty: &ItemType| matches!(ty, ItemType::Function(_));
            let exports = facts.exports.iter().filter(|export| is_function(&export.ty)).map(|export| plain(&export.name));
            line("exports", &exports.take(100).collect::<Vec<_>>().join(", "));
            let traps = match (facts.has_names, facts.has_dwarf) {
                (_, true) => "functions and lines",
                (true, false) => "functions",
                (false, false) => "nothing",
            };
            line("traps name", traps);
        }
        if let Some(schema) = &self.sections.schema {
            let shown = format!("{schema:#}").replace('\n', "\n    ");
            let _ = writeln!(text, "  {}\n    {shown}", out.paint(Paint::Dim, "configuration"));
        }
        text
    }
}

fn callbacks(facts: &ModuleFacts) -> Vec<&'static str> {
    Callback::ALL.iter().filter(|callback| facts.callbacks.arity(**callback).is_some()).map(|callback| callback.label()).collect()
}

fn modules(facts: &ModuleFacts) -> Vec<&str> {
    let mut modules: Vec<&str> = facts.imports.iter().map(|import| &*import.module).collect();
    modules.sort_unstable();
    modules.dedup();
    modules
}

fn memory(facts: &ModuleFacts) -> u64 {
    facts.memories.iter().fold(0, |sum, memory| sum.saturating_add(memory.minimum))
}

fn entry(entry: Entry) -> &'static str {
    match entry {
        Entry::Initialize(None) => "_initialize",
        Entry::Initialize(Some(_)) => "_initialize, main",
        Entry::Start => "_start",
        Entry::None => "none",
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} bytes"),
        10_240..10_485_760 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}
