//! From bytes of unknown origin to a compiled module.
//!
//! [`Module::load`] takes wrappers off ([`sniff`]), reads what the binary says about itself
//! ([`facts`]), refuses what this host cannot run ([`check`]), and gets native code, from the
//! [`cache`] or the compiler.
//!
//! What always holds: no input makes it panic; what it returns was checked against the table of host
//! functions (`imports`) and therefore links. Every step is bounded in memory; compiling takes as
//! long as the code is large, so loads belong off the threads that serve requests.
//!
//! What it deliberately does not do: it runs no code of the module. Instantiating, starting,
//! configuring and probing follow, and only then is a module usable.

pub mod cache;
pub mod callbacks;
pub mod check;
pub mod facts;
pub(crate) mod imports;
pub mod sniff;

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Engine;

use crate::error::{LoadError, LoadFault, Warning};
use cache::{Cache, Lookup};
use facts::{Digest, ModuleFacts};
pub use imports::provided;
pub use wasmparser::ValType;

/// Every function the host provides to guests, as import module and name. A function under two module names comes twice.
pub fn host_functions() -> impl Iterator<Item = (&'static str, &'static str)> {
    imports::HOST_FUNCTIONS.iter().flat_map(|function| function.modules.iter().map(|module| (*module, function.name)))
}

/// What a module may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoadLimits {
    module_bytes: u64,
    memory_bytes: u64,
}

impl LoadLimits {
    /// The module size, and the most any stage of unpacking holds, when nothing else is said.
    pub const DEFAULT_MODULE_BYTES: u64 = 64 << 20;
    /// The largest module size that can be allowed.
    pub const MAX_MODULE_BYTES: u64 = 512 << 20;
    /// The memory ceiling when nothing else is said.
    pub const DEFAULT_MEMORY_BYTES: u64 = 64 << 20;
    /// The largest memory ceiling: all that 32 bits can address.
    pub const MAX_MEMORY_BYTES: u64 = 4 << 30;

    /// With another module size, at most [`Self::MAX_MODULE_BYTES`].
    #[must_use]
    pub fn module_bytes(self, bytes: u64) -> Self {
        Self { module_bytes: bytes.min(Self::MAX_MODULE_BYTES), ..self }
    }

    /// With another memory ceiling, at most [`Self::MAX_MEMORY_BYTES`].
    #[must_use]
    pub fn memory_bytes(self, bytes: u64) -> Self {
        Self { memory_bytes: bytes.min(Self::MAX_MEMORY_BYTES), ..self }
    }
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self { module_bytes: Self::DEFAULT_MODULE_BYTES, memory_bytes: Self::DEFAULT_MEMORY_BYTES }
    }
}

/// How a module is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// Where native code is kept; `None` compiles every time.
    pub cache: Option<&'a Cache>,
    /// What the module may take.
    pub limits: LoadLimits,
}

/// How the native code was got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoadReport {
    /// Whether it came from the cache.
    pub cached: bool,
    /// How long getting it took: the lookup, and when that did not help, the compilation.
    pub code_time: Duration,
}

/// A compiled module. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Module(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    name: Box<str>,
    facts: ModuleFacts,
    warnings: Vec<Warning>,
    code: wasmtime::Module,
    report: LoadReport,
}

impl Module {
    /// Loads the module in `bytes`: a WebAssembly binary, plain, gzipped, or in a tar archive.
    ///
    /// # Errors
    /// When the bytes are no module that this host can run; the error says why and what to do.
    pub fn load(engine: &Engine, name: &str, bytes: &[u8], options: &LoadOptions<'_>) -> Result<Self, LoadError> {
        let unnamed = |fault| LoadError::new(name, None, fault);
        let wasm = sniff::unpack(bytes, options.limits.module_bytes).map_err(unnamed)?;
        let known = |fault| LoadError::new(name, Some(Digest::of(&wasm)), fault);
        let facts = ModuleFacts::parse(&wasm).map_err(known)?;
        let mut warnings = check::check(&facts, options.limits.memory_bytes).map_err(known)?;
        let (code, report) = code(engine, &wasm, facts.digest, options.cache, &mut warnings).map_err(known)?;
        let name = name.into();
        Ok(Self(Arc::new(Loaded { name, facts, warnings, code, report })))
    }

    /// The same for the engine that bindings run in.
    ///
    /// # Errors
    /// As [`Module::load`].
    pub fn load_for(engine: &crate::Engine, name: &str, bytes: &[u8], options: &LoadOptions<'_>) -> Result<Self, LoadError> {
        Self::load(engine.wasmtime(), name, bytes, options)
    }

    /// The name it was loaded under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The digest of the WebAssembly binary.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.facts.digest
    }

    /// What the binary says about itself.
    #[must_use]
    pub fn facts(&self) -> &ModuleFacts {
        &self.0.facts
    }

    /// What its author or operator should know.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.0.warnings
    }

    /// How its native code was got.
    #[must_use]
    pub fn report(&self) -> LoadReport {
        self.0.report
    }

    /// Name and digest, for messages.
    pub(crate) fn describe(&self) -> String {
        format!("{} sha256:{}", self.name(), self.digest().short())
    }

    /// A failure of this module.
    pub(crate) fn fault(&self, fault: LoadFault) -> LoadError {
        LoadError::new(self.name(), Some(self.digest()), fault)
    }

    /// Whether it has this callback.
    pub(crate) fn exports(&self, callback: callbacks::Callback) -> bool {
        self.0.facts.callbacks.arity(callback).is_some()
    }

    /// Whether it imports this function of `env`.
    pub(crate) fn imports(&self, name: &str) -> bool {
        self.0.facts.imports.iter().any(|import| &*import.name == name)
    }

    /// Whether its ABI is the one without absent headers.
    pub(crate) fn is_abi_0_1_0(&self) -> bool {
        self.0.facts.abi == Some(facts::AbiVersion::V0_1_0)
    }

    /// The native code.
    #[must_use]
    pub fn code(&self) -> &wasmtime::Module {
        &self.0.code
    }
}

/// Native code for `wasm`: the cached one when it is sound, else compiled and cached.
fn code(
    engine: &Engine,
    wasm: &[u8],
    digest: Digest,
    cache: Option<&Cache>,
    warnings: &mut Vec<Warning>,
) -> Result<(wasmtime::Module, LoadReport), LoadFault> {
    let start = Instant::now();
    let report = |cached| LoadReport { cached, code_time: start.elapsed() };
    match cache.map(|cache| cache.lookup(engine, digest)) {
        Some(Lookup::Hit(module)) => return Ok((module, report(true))),
        Some(Lookup::Refused(refusal)) => warnings.push(Warning::CacheRefused(refusal)),
        Some(Lookup::Miss) | None => {}
    }
    let compiled = wasmtime::Module::new(engine, wasm);
    let module = compiled.map_err(|error| LoadFault::Compile { cause: format!("{error:#}") })?;
    let report = report(false);
    if let Some(Err(error)) = cache.map(|cache| cache.store(engine, digest, &module)) {
        warnings.push(Warning::NotCached(error));
    }
    Ok((module, report))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::default);

    static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
        wat::parse_str(
            r#"(module
                (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
                (import "env" "proxy_get_property" (func (param i32 i32 i32 i32) (result i32)))
                (import "wasi_unstable" "clock_time_get" (func (param i32 i64 i32) (result i32)))
                (memory (export "memory") 1) (data (i32.const 8) "hello")
                (func (export "proxy_abi_version_0_2_1"))
                (func (export "_initialize"))
                (func (export "malloc") (param i32) (result i32) i32.const 1024)
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (drop (call $log (i32.const 2) (i32.const 8) (i32.const 5))) i32.const 0)
                (@custom "producers" "x"))"#,
        )
        .unwrap()
    });

    fn load(bytes: &[u8]) -> Result<Module, LoadError> {
        Module::load(&ENGINE, "geo", bytes, &LoadOptions::default())
    }

    #[test]
    fn a_sound_module_loads_and_is_shared() {
        fn shared<T: Clone + Send + Sync>(_: &T) {}
        let module = load(&SOUND).unwrap();
        shared(&module);
        assert_eq!(module.name(), "geo");
        assert_eq!(module.digest(), Digest::of(&SOUND));
        assert_eq!(module.facts().abi, Some(facts::AbiVersion::V0_2_1));
        assert!(module.warnings().is_empty() && !module.report().cached);
        assert_eq!(module.code().imports().len(), 3);
    }

    #[test]
    fn the_digest_is_that_of_the_unpacked_module() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&SOUND).unwrap();
        assert_eq!(load(&gzip.finish().unwrap()).unwrap().digest(), Digest::of(&SOUND));
    }

    #[test]
    fn errors_are_one_line_and_name_module_and_digest() {
        let digest = |bytes: &[u8]| Digest::of(bytes).short();
        let html = load(b"<!doctype html>\n<p>not found").unwrap_err();
        assert_eq!(html.to_string(), "module \"geo\": not a WebAssembly module but an HTML page");
        assert!(html.help().contains("open the URL"));
        let empty = b"\0asm\x01\0\0\0";
        let error = load(empty).unwrap_err();
        let expected = format!(
            "module \"geo\" (sha256:{}): exports no proxy_abi_version_* marker: it is not a Proxy-Wasm module (its exports: none)",
            digest(empty)
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!((error.module(), error.digest()), ("geo", Some(Digest::of(empty))));
        let invalid =
            wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_0")) (func (result i32)))"#)
                .unwrap();
        let error = load(&invalid).unwrap_err();
        assert!(matches!(error.fault(), LoadFault::Compile { .. }));
        assert!(!error.to_string().contains('\n'), "{error}");
        let odd = Module::load(&ENGINE, "a\nb", b"", &LoadOptions::default()).unwrap_err();
        assert_eq!(odd.to_string(), "module \"a\\nb\": not a WebAssembly module but empty");
    }

    #[test]
    fn limits_are_clamped_and_kept() {
        let limits = LoadLimits::default().module_bytes(16).memory_bytes(u64::MAX);
        assert_eq!(limits.memory_bytes, LoadLimits::MAX_MEMORY_BYTES);
        let options = LoadOptions { limits, ..LoadOptions::default() };
        let error = Module::load(&ENGINE, "geo", &SOUND, &options).unwrap_err();
        assert_eq!(error.to_string(), "module \"geo\": the file is larger than the limit of 16 bytes");
    }

    #[test]
    fn the_cache_saves_the_second_compilation_and_never_fails_a_load() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("native"), 64 << 20).unwrap();
        let options = LoadOptions { cache: Some(&cache), ..LoadOptions::default() };
        let load = || Module::load(&ENGINE, "geo", &SOUND, &options).unwrap();
        assert!(!load().report().cached);
        assert!(load().report().cached);
        let entry = std::fs::read_dir(dir.path().join("native")).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&entry, b"damage").unwrap();
        let rebuilt = load();
        assert!(!rebuilt.report().cached);
        assert_eq!(rebuilt.warnings(), [Warning::CacheRefused(cache::Refusal::Length)]);
        assert!(load().report().cached, "the rebuilt entry is used again");
        std::fs::remove_dir_all(dir.path().join("native")).unwrap();
        let uncached = load();
        assert!(matches!(uncached.warnings(), [Warning::NotCached(_)]), "{:?}", uncached.warnings());
    }

    /// The prefixes that lead random bytes past the first comparison.
    fn prefixed() -> impl Strategy<Value = Vec<u8>> {
        const PREFIXES: [&[u8]; 4] = [b"", b"\0asm\x01\0\0\0", b"\x1f\x8b\x08\0\0\0\0\0\0\0", b"\0asm\x0d\0\x01\0"];
        let bytes = proptest::collection::vec(any::<u8>(), 0..600);
        (proptest::sample::select(&PREFIXES), bytes).prop_map(|(prefix, bytes)| [prefix, &bytes].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn random_bytes_never_panic(bytes in prefixed()) {
            if let Err(error) = load(&bytes) {
                prop_assert!(!error.to_string().contains('\n') && !error.help().is_empty());
            }
        }

        #[test]
        fn random_archives_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 512..2048)) {
            bytes[257..262].copy_from_slice(b"ustar");
            let sum: u32 = bytes[..512].iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            prop_assert!(load(&bytes).is_err());
        }

        #[test]
        fn mutated_modules_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
            let mut bytes = SOUND.clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            // A mutation may well leave a sound module; only a panic fails here.
            if let Err(error) = load(&bytes) {
                prop_assert!(!error.to_string().contains('\n'));
            }
            bytes.truncate(cut.index(bytes.len()));
            if let Err(error) = load(&bytes) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
