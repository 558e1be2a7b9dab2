//! Can this host run the module, and if not, why in words its author understands?
//!
//! What always holds: a module that passes here links, because its imports were compared, name and
//! type, with the table the linker is tested against. The first question is what the module *is*:
//! an unknown import of something that is no Proxy-Wasm module explains nothing.
//!
//! What it deliberately does not do: it runs no code and compiles nothing. A module that passes may
//! still be invalid, trap in its start function or refuse its configuration.

use super::facts::{Import, ItemType, ModuleFacts};
use super::imports::{self, Group, HOST_FUNCTIONS};
use crate::error::{Bare, Guess, LoadFault, MemoryFault, UnknownImport, Warning};

/// How many items an error lists.
const LISTED: usize = 8;

/// Refuses modules this host cannot run.
///
/// # Errors
/// When the module is no Proxy-Wasm module, has no usable memory, imports what the host does not
/// provide, or cannot take the data it asks for.
pub fn check(facts: &ModuleFacts, memory_ceiling: u64) -> Result<Vec<Warning>, LoadFault> {
    if facts.abi.is_none() {
        let exports = facts
            .exports
            .iter()
            .take(LISTED)
            .map(|export| Bare(&export.name).to_string());
        return Err(LoadFault::NotProxyWasm {
            guess: guess(facts),
            exports: exports.collect(),
        });
    }
    check_memory(facts, memory_ceiling)?;
    let vendor = check_imports(facts)?;
    check_allocator(facts)?;
    Ok(facts.warnings.iter().cloned().chain(vendor).collect())
}

/// What a module without a known ABI marker most likely is.
fn guess(facts: &ModuleFacts) -> Guess {
    let imports = |module: &str| facts.imports.iter().any(|import| &*import.module == module);
    let exports = |name: &str| facts.export(name).is_some();
    let marker = |prefix: &str| {
        facts
            .exports
            .iter()
            .find(|export| export.name.starts_with(prefix))
    };
    if imports("http_handler") || exports("handle_request") && exports("handle_response") {
        Guess::HttpWasm
    } else if marker("proxy_abi_mosn_")
        .or(marker("proxy_abi_revision_"))
        .is_some()
    {
        Guess::MosnCodec
    } else if let Some(marker) = marker("proxy_abi_version_") {
        Guess::OtherAbiVersion(marker.name.to_string())
    } else if facts.callbacks.iter().next().is_some() {
        Guess::MarkerMissing
    } else if marker("__wbindgen_").is_some()
        || imports("wbg")
        || imports("__wbindgen_placeholder__")
    {
        Guess::Bindgen
    } else if imports("gojs") || imports("go") {
        Guess::GoJs
    } else if exports("opa_eval") || exports("opa_eval_ctx_new") {
        Guess::OpaPolicy
    } else if exports("_start") {
        Guess::WasiCommand
    } else {
        Guess::Unknown
    }
}

fn check_memory(facts: &ModuleFacts, ceiling: u64) -> Result<(), MemoryFault> {
    if let Some(import) = facts
        .imports
        .iter()
        .find(|import| import.ty == ItemType::Memory)
    {
        return Err(MemoryFault::Imported {
            module: import.module.to_string(),
            name: import.name.to_string(),
        });
    }
    if facts.memories.is_empty() {
        return Err(MemoryFault::Missing);
    }
    if facts
        .export("memory")
        .is_none_or(|export| export.ty != ItemType::Memory)
    {
        return Err(MemoryFault::NotExported);
    }
    if facts.memories.iter().any(|memory| memory.shared) {
        return Err(MemoryFault::Shared);
    }
    if facts.memories.iter().any(|memory| memory.wide) {
        return Err(MemoryFault::Wide);
    }
    // A module may have several memories; the ceiling is on what they take together.
    let minimum = facts
        .memories
        .iter()
        .fold(0u64, |sum, memory| sum.saturating_add(memory.minimum));
    if minimum > ceiling {
        return Err(MemoryFault::AboveCeiling { minimum, ceiling });
    }
    Ok(())
}

/// Compares every import with the table; returns the warnings about vendor functions.
fn check_imports(facts: &ModuleFacts) -> Result<Vec<Warning>, LoadFault> {
    let mut unknown: Vec<UnknownImport> = Vec::new();
    let mut warnings = Vec::new();
    for import in &facts.imports {
        let (ItemType::Function(signature), Some(function)) =
            (&import.ty, imports::find(&import.module, &import.name))
        else {
            // Counted once even when imported twice, and never more than are shown.
            let listed = unknown
                .iter()
                .any(|other| *other.module == *import.module && *other.name == *import.name);
            if !listed && unknown.len() < LISTED {
                unknown.push(explain(import));
            }
            continue;
        };
        if !signature.is(function.params, function.results) {
            return Err(LoadFault::ImportType {
                module: import.module.to_string(),
                name: import.name.to_string(),
                found: signature.to_string(),
                expected: function.signature().to_string(),
            });
        }
        if let Group::Vendor(vendor) = function.group {
            let warning = Warning::VendorImport {
                name: function.name,
                vendor,
            };
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    match unknown.is_empty() {
        true => Ok(warnings),
        false => Err(LoadFault::UnknownImports { imports: unknown }),
    }
}

fn check_allocator(facts: &ModuleFacts) -> Result<(), LoadFault> {
    if facts.allocator.is_some() {
        return Ok(());
    }
    let mut wanted = facts
        .imports
        .iter()
        .filter_map(|import| imports::find(&import.module, &import.name));
    match wanted.find(|function| function.allocates) {
        Some(function) => Err(LoadFault::NoAllocator {
            function: function.name.to_owned(),
        }),
        None => Ok(()),
    }
}

fn explain(import: &Import) -> UnknownImport {
    UnknownImport {
        module: import.module.to_string(),
        name: import.name.to_string(),
        ty: import.ty.to_string(),
        usually: provider(&import.module, &import.name),
        near: near(import),
    }
}

/// Who usually provides an import like this.
fn provider(module: &str, name: &str) -> Option<&'static str> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    Some(match module {
        "http_handler" => "the http-wasm ABI",
        "wbg" | "__wbindgen_placeholder__" | "__wbindgen_externref_xform__" => {
            "JavaScript glue of wasm-bindgen"
        }
        "go" | "gojs" => "the JavaScript glue of Go's js target: build with GOOS=wasip1",
        "wasix_32v1" | "wasix_64v1" => "Wasmer's WASIX",
        "wasi_ephemeral_nn" | "wasi_nn" => "WASI neural networks",
        "GOT.func" | "GOT.mem" => "a dynamic linker: the module is a shared library",
        _ if module.starts_with("wasi:") => "the component model (WASI preview 2)",
        _ if module.starts_with("fastly_") => "Fastly Compute",
        _ if module.starts_with("wasi_") => "another WASI proposal",
        "env"
            if starts(&[
                "__memory_base",
                "__table_base",
                "__stack_pointer",
                "__indirect_function_table",
            ]) =>
        {
            "a dynamic linker: the module is a shared library"
        }
        "env"
            if starts(&[
                "invoke_",
                "_emscripten",
                "emscripten_",
                "__cxa_",
                "__syscall_",
                "_embind",
            ]) =>
        {
            "Emscripten's JavaScript glue: link with -sSTANDALONE_WASM"
        }
        "env" if starts(&["opa_"]) => "an Open Policy Agent host",
        "env" if starts(&["proxy_"]) => "another Proxy-Wasm host or ABI version",
        "env" => "nobody: a function declared but not linked in",
        _ => return None,
    })
}

/// The host function the author probably meant: the same name elsewhere, or a name a few letters off.
fn near(import: &Import) -> Option<String> {
    // A name far longer than any host function's is no slip of a finger, and costs time to compare.
    if !matches!(import.ty, ItemType::Function(_)) || import.name.len() > 64 {
        return None;
    }
    let allowed = (import.name.len() / 6).min(3);
    let distance = |name: &str| strsim::damerau_levenshtein(name, &import.name);
    let (_, best) = (HOST_FUNCTIONS.iter())
        .filter(|function| function.name.len().abs_diff(import.name.len()) <= allowed)
        .map(|function| (distance(function.name), function))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)?;
    Some(format!("{}.{}", best.modules.first()?, best.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: u64 = 64 << 20;

    /// A sound module with `extra` inside, imports first.
    fn module(extra: &str) -> String {
        let marker = r#"(func (export "proxy_abi_version_0_2_1"))"#;
        format!(r#"(module {extra} (memory (export "memory") 1) {marker})"#)
    }

    fn checked(wat: &str) -> Result<Vec<Warning>, LoadFault> {
        check(
            &ModuleFacts::parse(&wat::parse_str(wat).unwrap()).unwrap(),
            CEILING,
        )
    }

    fn refused(wat: &str) -> String {
        let fault = checked(wat).unwrap_err();
        assert!(!fault.help().is_empty());
        fault.to_string()
    }

    #[test]
    fn every_host_function_can_be_imported_even_twice() {
        let mut imports = String::new();
        for function in HOST_FUNCTIONS {
            for module in function.modules {
                let list = |types: &[wasmparser::ValType]| {
                    types.iter().map(|ty| format!("{ty} ")).collect::<String>()
                };
                let (params, results) = (list(function.params), list(function.results));
                let line = format!(
                    "(import \"{module}\" \"{}\" (func (param {params}) (result {results})))",
                    function.name
                );
                imports += &line.repeat(2);
            }
        }
        let alloc = r#"(func (export "malloc") (param i32) (result i32) i32.const 0)"#;
        let warnings = checked(&module(&(imports + alloc))).unwrap();
        assert_eq!(
            warnings.len(),
            6,
            "one for each vendor function: {warnings:?}"
        );
        assert_eq!(
            warnings[0].to_string(),
            "import env.envoy_resolve_dns belongs to Envoy; here every call of it is answered UNIMPLEMENTED"
        );
    }

    #[test]
    fn unknown_imports_are_named_with_their_type_and_provider() {
        let cases = [
            ("env", "proxy_lgo", "(did you mean env.proxy_log?)"),
            (
                "env",
                "fd_write",
                "(did you mean wasi_snapshot_preview1.fd_write?)",
            ),
            (
                "env",
                "proxy_frobnicate",
                "(another Proxy-Wasm host or ABI version)",
            ),
            (
                "env",
                "invoke_vii",
                "(Emscripten's JavaScript glue: link with -sSTANDALONE_WASM)",
            ),
            (
                "env",
                "my_c_function",
                "(nobody: a function declared but not linked in)",
            ),
            (
                "wasi:io/streams",
                "read",
                "(the component model (WASI preview 2))",
            ),
            ("a\nb", "c", ""),
        ];
        for (in_module, name, note) in cases {
            let import = format!(
                r#"(import "{}" "{name}" (func (param i32)))"#,
                in_module.escape_default()
            );
            let error = refused(&module(&import));
            let shown = in_module.escape_default();
            let expected = format!(
                "imports what this host does not provide: {shown}.{name} (i32) -> () {note}"
            );
            assert_eq!(error, expected.trim_end());
        }
    }

    #[test]
    fn unknown_imports_are_listed_together_and_once() {
        let one = |name: usize| format!(r#"(import "x" "f{name}" (func))"#);
        let twenty: String = (0..20).map(one).chain((0..20).map(one)).collect();
        assert_eq!(refused(&module(&twenty)).matches("x.f").count(), LISTED);
        assert!(
            refused(&module(r#"(import "env" "table" (table 1 funcref))"#))
                .contains("env.table (table)")
        );
    }

    #[test]
    fn a_wrong_import_type_names_both() {
        let error = refused(&module(
            r#"(import "env" "proxy_log" (func (param i32 i64)))"#,
        ));
        assert_eq!(
            error,
            "imports env.proxy_log as (i32, i64) -> (), but the host function is (i32, i32, i32) -> i32"
        );
    }

    #[test]
    fn a_module_of_another_kind_is_told_what_it_is() {
        let marker = |name: &str| format!(r#"(module (func (export "{name}")))"#);
        let cases = [
            (
                r#"(module (import "http_handler" "log" (func)))"#.to_owned(),
                Guess::HttpWasm,
            ),
            (marker("proxy_abi_mosn_version_0_2_0"), Guess::MosnCodec),
            (marker("proxy_abi_revision_0_2_0"), Guess::MosnCodec),
            (
                marker("proxy_abi_version_0_3_0"),
                Guess::OtherAbiVersion("proxy_abi_version_0_3_0".into()),
            ),
            (
                r#"(module (func (export "proxy_on_tick") (param i32)))"#.to_owned(),
                Guess::MarkerMissing,
            ),
            (marker("__wbindgen_malloc"), Guess::Bindgen),
            (
                r#"(module (import "gojs" "runtime.wasmExit" (func (param i32))))"#.to_owned(),
                Guess::GoJs,
            ),
            (marker("opa_eval"), Guess::OpaPolicy),
            (marker("_start"), Guess::WasiCommand),
            (marker("add"), Guess::Unknown),
        ];
        for (wat, expected) in cases {
            match checked(&wat).unwrap_err() {
                LoadFault::NotProxyWasm { guess, .. } => assert_eq!(guess, expected),
                other => panic!("{other}"),
            }
        }
        assert_eq!(
            refused(&marker("_start")),
            "exports no proxy_abi_version_* marker: it looks like a WASI command-line program (its exports: _start)"
        );
    }

    #[test]
    fn memories_that_cannot_be_used_are_refused() {
        let with = |memory: &str| {
            format!(r#"(module {memory} (func (export "proxy_abi_version_0_2_0")))"#)
        };
        let cases = [
            ("", "has no memory"),
            ("(memory 1)", "does not export its memory"),
            (
                r#"(memory 1) (global (export "memory") i32 (i32.const 0))"#,
                "does not export its memory",
            ),
            (
                r#"(import "env" "memory" (memory 1))"#,
                "imports its memory (env.memory)",
            ),
            (r#"(memory (export "memory") 1 2 shared)"#, "shared memory"),
            (r#"(memory (export "memory") i64 1)"#, "64-bit memory"),
            (
                r#"(memory (export "memory") 1025)"#,
                "needs 64.1 MiB of memory to start, above the ceiling of 64 MiB",
            ),
            (
                r#"(memory (export "memory") 1024) (memory 1)"#,
                "needs 64.1 MiB",
            ),
        ];
        for (memory, expected) in cases {
            let error = refused(&with(memory));
            assert!(error.contains(expected), "{memory}: {error}");
        }
        assert!(checked(&with(r#"(memory (export "memory") 1024)"#)).is_ok());
    }

    #[test]
    fn an_allocator_is_wanted_only_by_those_who_take_data() {
        let log = r#"(import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))"#;
        let get =
            r#"(import "env" "proxy_get_property" (func (param i32 i32 i32 i32) (result i32)))"#;
        assert_eq!(checked(&module(log)), Ok(vec![]));
        assert!(refused(&module(get)).contains("imports proxy_get_property"));
        let malloc = r#"(func (export "malloc") (param i32) (result i32) i32.const 0)"#;
        assert_eq!(checked(&module(&format!("{get}{malloc}"))), Ok(vec![]));
    }
}
