//! Chains of filters.

use super::check::{Check, Zero, short};
use crate::config::{FilterBinding, FilterChain, FilterLimits, Module, Phase, module};
use crate::diagnostic::Code;
use crate::path::{At, did_you_mean};
use crate::protobuf::Duration;
use crate::resource::Kind;

/// Filters of one chain.
const MAX_FILTERS: usize = 256;

pub(super) fn chain(check: &mut Check<'_>, at: &At<'_>, chain: &FilterChain) {
    check.name(at, &chain.name);
    let list = at.field("filters");
    if chain.filters.len() > MAX_FILTERS {
        check.error(&list, Code::TooLarge, format!("a chain has at most {MAX_FILTERS} filters"), "");
    }
    check.distinct(&list, "filter of this chain", chain.filters.iter().map(|binding| &*binding.name));
    for (index, one) in chain.filters.iter().enumerate() {
        binding(check, &list.index(index), one);
    }
}

fn binding(check: &mut Check<'_>, at: &At<'_>, binding: &FilterBinding) {
    check.name(at, &binding.name);
    let here = at.field("module");
    match &binding.module {
        None => check.error(
            &here,
            Code::Missing,
            "it is not said which module this is",
            "write `module: {builtin: NAME}` or `module: {file: PATH}`",
        ),
        Some(module) => self::module(check, &here, module),
    }
    if binding.disabled && !matches!(binding.phase(), Phase::Traffic | Phase::Stats) {
        let message = "this filter never runs: no route can enable it, for it comes before the route is chosen";
        check.warning(&at.field("disabled"), Code::NoEffect, message, "give it `phase: traffic`, or remove it");
    }
    let here = at.field("environment");
    for (name, value) in &binding.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            check.error(
                &here.key(name),
                Code::InvalidName,
                format!("`{}` is no variable", short(name)),
                "names have no `=`, and neither names nor values a NUL",
            );
        }
    }
    let list = at.field("upstreams");
    for (index, name) in binding.upstreams.iter().enumerate().filter(|(_, name)| *name != "*") {
        check.reference(&list.index(index), Kind::Cluster, name);
    }
    let here = at.field("variants");
    if binding.variants.contains_key("") {
        check.error(&here, Code::Missing, "a variant has no name", "routes name it");
    }
    if let Some(settings) = &binding.limits {
        limits(check, &at.field("limits"), settings);
    }
}

fn module(check: &mut Check<'_>, at: &At<'_>, module: &Module) {
    match &module.source {
        None => check.error(at, Code::Missing, "it is not said where the module comes from", "write one of `builtin`, `file` and `inline`"),
        Some(module::Source::Builtin(name)) => builtin(check, &at.field("builtin"), name),
        Some(module::Source::File(path)) => {
            if path.is_empty() || path.contains('\0') {
                check.error(&at.field("file"), Code::Missing, "the path is missing", "");
            }
        }
        Some(module::Source::Inline(bytes)) => {
            if bytes.is_empty() {
                check.error(&at.field("inline"), Code::Missing, "there are no bytes", "");
            }
        }
    }
    let digest = module.sha256.strip_prefix("sha256:").unwrap_or(&module.sha256);
    if !module.sha256.is_empty() && (digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        check.error(&at.field("sha256"), Code::InvalidName, "this is no SHA-256", "write 64 hex digits, as `sha256sum FILE` prints them");
    }
}

fn builtin(check: &mut Check<'_>, at: &At<'_>, name: &str) {
    let Some(known) = &check.context.builtins else { return };
    if !known.iter().any(|known| known == name) {
        let bare = name.strip_prefix("builtin://").unwrap_or(name);
        let help = did_you_mean(bare, known.iter().map(String::as_str), "the filters in this binary");
        check.error(at, Code::UnknownReference, format!("there is no filter `{}` in this binary", short(name)), help);
    }
}

/// The most are those of the Wasm host (`weir_wasm::Limits::MAX`), which refuses more.
fn limits(check: &mut Check<'_>, at: &At<'_>, limits: &FilterLimits) {
    let numbers = [
        ("memoryMib", limits.memory_mib, 1 << 10),
        ("outputKib", limits.output_kib, 256 << 10),
        ("bodyKib", limits.body_kib, 1 << 20),
        ("logRate", limits.log_rate, 100_000),
        ("callouts", limits.callouts, 100_000),
        ("metricSeries", limits.metric_series, 100_000),
        ("sharedKib", limits.shared_kib, 1 << 20),
        ("sharedEntries", limits.shared_entries, 10_000_000),
    ];
    for (field, value, most) in numbers {
        check.within(&at.field(field), value, 0, most);
    }
    let durations = [
        ("callback", limits.callback, 10),
        ("start", limits.start, 60),
        ("calloutTimeout", limits.callout_timeout, 3600),
        ("done", limits.done, 60),
    ];
    for (field, value, most) in durations {
        at_most(check, &at.field(field), value, most);
    }
}

fn at_most(check: &mut Check<'_>, at: &At<'_>, value: Option<Duration>, seconds: u64) {
    if check.duration(at, value, Zero::Fine) && crate::duration::get(value) > Some(std::time::Duration::from_secs(seconds)) {
        check.error(at, Code::OutOfRange, "this is too long", format!("write at most `{seconds}s`"));
    }
}
