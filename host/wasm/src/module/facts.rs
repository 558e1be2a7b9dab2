//! What a WebAssembly binary says about itself: ABI, imports, exports, memory, entry, debug data.
//!
//! What always holds: parsing reads sections and never validates or compiles, so it is quick and
//! tolerant; the compiler has the last word on validity. What is kept is bounded by the limits in `read`
//! whatever the binary claims, so a hostile binary costs a multiple of its own size and no more.
//!
//! What it deliberately does not do: it judges nothing. [`super::check`] decides what is refused.

mod read;

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmparser::{Parser, ValType};

use super::callbacks::{Callback, Callbacks};
use crate::error::{LoadFault, Warning};
use read::Reader;

/// The SHA-256 of a WebAssembly binary.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hexadecimal digits: enough for a person to tell modules apart.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hex = self.to_string();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

/// A version of the Proxy-Wasm ABI.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AbiVersion {
    /// 0.1.0
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.2.1
    V0_2_1,
}

impl AbiVersion {
    /// Every version, the oldest first.
    pub const ALL: [Self; 3] = [Self::V0_1_0, Self::V0_2_0, Self::V0_2_1];

    /// The export that announces it.
    #[must_use]
    pub fn marker(self) -> &'static str {
        match self {
            Self::V0_1_0 => "proxy_abi_version_0_1_0",
            Self::V0_2_0 => "proxy_abi_version_0_2_0",
            Self::V0_2_1 => "proxy_abi_version_0_2_1",
        }
    }

    /// The known versions, for messages.
    pub(crate) fn known() -> String {
        Self::ALL.map(|version| version.to_string()).join(", ")
    }
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        })
    }
}

/// The type of a function.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signature {
    params: Box<[ValType]>,
    results: Box<[ValType]>,
}

impl Signature {
    pub(crate) fn new(params: &[ValType], results: &[ValType]) -> Self {
        Self { params: params.into(), results: results.into() }
    }

    /// Types of the parameters, in order.
    #[must_use]
    pub fn params(&self) -> &[ValType] {
        &self.params
    }

    /// Types of the results, in order.
    #[must_use]
    pub fn results(&self) -> &[ValType] {
        &self.results
    }

    pub(crate) fn is(&self, params: &[ValType], results: &[ValType]) -> bool {
        *self.params == *params && *self.results == *results
    }

    /// `params` times i32 in, and one i32 out when `returns`.
    fn is_plain(&self, params: u8, returns: bool) -> bool {
        self.params.len() == usize::from(params)
            && self.results.len() == usize::from(returns)
            && (self.params.iter().chain(&self.results)).all(|ty| *ty == ValType::I32)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |types: &[ValType]| types.iter().take(16).map(ValType::to_string).collect::<Vec<_>>().join(", ");
        match &*self.results {
            [one] => write!(f, "({}) -> {one}", list(&self.params)),
            results => write!(f, "({}) -> ({})", list(&self.params), list(results)),
        }
    }
}

/// What an import or export is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ItemType {
    /// A function.
    Function(Arc<Signature>),
    /// A memory.
    Memory,
    /// A table, global or tag, in that word.
    Other(&'static str),
}

impl fmt::Display for ItemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(signature) => signature.fmt(f),
            Self::Memory => f.write_str("(memory)"),
            Self::Other(kind) => write!(f, "({kind})"),
        }
    }
}

/// One import. The same one may occur several times.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Import {
    /// The module it is expected in.
    pub module: Box<str>,
    /// Its name there.
    pub name: Box<str>,
    /// Its type.
    pub ty: ItemType,
}

/// One export.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Export {
    /// Its name.
    pub name: Box<str>,
    /// Its type.
    pub ty: ItemType,
}

/// One linear memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    /// What it starts with, in bytes.
    pub minimum: u64,
    /// What it may grow to, in bytes, when the module says.
    pub maximum: Option<u64>,
    /// Shared between threads.
    pub shared: bool,
    /// Addressed with 64 bits.
    pub wide: bool,
}

/// What runs before the first callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    /// `_initialize`, and then `main` when the module exports one too.
    Initialize(Option<Main>),
    /// `_start`.
    Start,
    /// Nothing: the module is ready once it is instantiated.
    None,
}

/// The two forms in which a reactor exports its main function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Main {
    /// `main(argc, argv)`, called with zeros.
    WithArguments,
    /// `__main_void()`.
    Void,
}

/// The export that hands out guest memory, as (i32) -> i32.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allocator {
    /// `proxy_on_memory_allocate`, which the specification prefers.
    Proxy,
    /// `malloc`.
    Malloc,
}

impl Allocator {
    /// The export's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy_on_memory_allocate",
            Self::Malloc => "malloc",
        }
    }
}

/// What a binary says about itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModuleFacts {
    /// The SHA-256 of the binary.
    pub digest: Digest,
    /// The binary's size in bytes.
    pub size: usize,
    /// The highest known ABI version it announces.
    pub abi: Option<AbiVersion>,
    /// Its imports in order, repetitions included.
    pub imports: Vec<Import>,
    /// Its exports in order.
    pub exports: Vec<Export>,
    /// The memories it defines.
    pub memories: Vec<Memory>,
    /// What runs before the first callback.
    pub entry: Entry,
    /// How the host allocates in it.
    pub allocator: Option<Allocator>,
    /// The callbacks it can be called with.
    pub callbacks: Callbacks,
    /// Whether it has DWARF, so that traps can name lines.
    pub has_dwarf: bool,
    /// Whether it has a name section, so that traps can name functions.
    pub has_names: bool,
    /// Whether instantiation runs a start function.
    pub has_start: bool,
    /// The names of its custom sections.
    pub custom_sections: Vec<Box<str>>,
    /// Exports with a name of the ABI that had to be treated as absent.
    pub warnings: Vec<Warning>,
}

impl ModuleFacts {
    /// Reads the sections of `bytes`.
    ///
    /// # Errors
    /// [`LoadFault::Malformed`] when they do not parse or go beyond the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadFault> {
        let mut reader = Reader::default();
        for payload in Parser::new(0).parse_all(bytes) {
            reader.payload(payload?)?;
        }
        let mut facts = Self {
            digest: Digest::of(bytes),
            size: bytes.len(),
            abi: None,
            imports: reader.imports,
            exports: reader.exports,
            memories: reader.memories,
            entry: Entry::None,
            allocator: None,
            callbacks: Callbacks::default(),
            has_dwarf: reader.custom.iter().any(|name| &**name == ".debug_info"),
            has_names: reader.custom.iter().any(|name| &**name == "name"),
            has_start: reader.has_start,
            custom_sections: reader.custom,
            warnings: Vec::new(),
        };
        facts.bind();
        Ok(facts)
    }

    /// The export called `name`.
    #[must_use]
    pub fn export(&self, name: &str) -> Option<&Export> {
        self.exports.iter().find(|export| &*export.name == name)
    }

    /// Gives the exports their roles.
    fn bind(&mut self) {
        self.abi = AbiVersion::ALL.into_iter().rev().find(|version| self.export(version.marker()).is_some());
        // The start function is bound as the entry.
        for callback in Callback::ALL.iter().filter(|callback| **callback != Callback::Start) {
            let spec = callback.spec();
            let bound = spec.arities.iter().find(|arity| self.has(spec.name, **arity, spec.returns));
            match bound {
                Some(arity) => self.callbacks.bind(*callback, *arity),
                None => self.ignored(spec.name, spec.to_string()),
            }
        }
        let allocators = [Allocator::Proxy, Allocator::Malloc];
        self.allocator = allocators.into_iter().find(|a| self.role(a.name(), 1, true));
        self.entry = if self.role("_initialize", 0, false) {
            Entry::Initialize(self.main())
        } else if self.role("_start", 0, false) {
            Entry::Start
        } else {
            Entry::None
        };
    }

    fn main(&mut self) -> Option<Main> {
        if self.role("main", 2, true) {
            return Some(Main::WithArguments);
        }
        self.role("__main_void", 0, true).then_some(Main::Void)
    }

    /// Whether the export has the signature of its role; says so when it is there but does not.
    fn role(&mut self, name: &str, params: u8, returns: bool) -> bool {
        let fits = self.has(name, params, returns);
        if !fits {
            let expected = Signature::new(&vec![ValType::I32; params.into()], &vec![ValType::I32; returns.into()]);
            self.ignored(name, expected.to_string());
        }
        fits
    }

    fn has(&self, name: &str, params: u8, returns: bool) -> bool {
        let export = self.export(name).map(|export| &export.ty);
        matches!(export, Some(ItemType::Function(signature)) if signature.is_plain(params, returns))
    }

    fn ignored(&mut self, name: &str, expected: String) {
        if let Some(export) = self.export(name) {
            let found = export.ty.to_string();
            let name = name.to_owned();
            self.warnings.push(Warning::IgnoredExport { name, found, expected });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::callbacks::Streams;
    use super::read::MAX_ITEMS;
    use super::*;

    fn facts(wat: &str) -> ModuleFacts {
        ModuleFacts::parse(&wat::parse_str(wat).unwrap()).unwrap()
    }

    #[test]
    fn the_highest_known_marker_wins() {
        let two = facts(
            r#"(module (func (export "proxy_abi_version_0_2_0") (export "proxy_abi_version_0_1_0") (export "proxy_abi_version_0_9_0")))"#,
        );
        assert_eq!(two.abi, Some(AbiVersion::V0_2_0));
        assert_eq!(facts("(module)").abi, None);
    }

    #[test]
    fn arity_decides_and_not_the_version() {
        let old = facts(
            r#"(module (func (export "proxy_abi_version_0_1_0"))
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
                (func (export "proxy_on_response_headers") (param i32 i32) (result i32) i32.const 0)
                (func (export "proxy_on_configure") (param i32 i32 i32 i32) (result i32) i32.const 1)
                (func (export "proxy_on_tick") (param i64))
                (global (export "proxy_on_log") i32 (i32.const 0)))"#,
        );
        assert_eq!(old.callbacks.arity(Callback::RequestHeaders), Some(3));
        assert_eq!(old.callbacks.arity(Callback::ResponseHeaders), Some(2));
        assert_eq!(old.callbacks.arity(Callback::Configure), None);
        let warnings: Vec<_> = old.warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            warnings,
            [
                "export proxy_on_configure is (i32, i32, i32, i32) -> i32, not (i32, i32) -> i32, and is never called",
                "export proxy_on_tick is (i64) -> (), not (i32) -> (), and is never called",
                "export proxy_on_log is (global), not (i32) -> (), and is never called",
            ]
        );
    }

    #[test]
    fn entry_follows_what_is_exported() {
        let none = "(module)";
        let start = r#"(module (func (export "_start")))"#;
        let init = r#"(module (func (export "_initialize")) (func (export "_start")))"#;
        let main = r#"(module (func (export "_initialize")) (func (export "main") (param i32 i32) (result i32) i32.const 0)
            (func (export "__main_void") (result i32) i32.const 0))"#;
        let void = r#"(module (func (export "_initialize")) (func (export "__main_void") (result i32) i32.const 0))"#;
        let wrong = r#"(module (func (export "_initialize") (param i32)) (func (export "_start")))"#;
        assert_eq!(facts(none).entry, Entry::None);
        assert_eq!(facts(start).entry, Entry::Start);
        assert_eq!(facts(init).entry, Entry::Initialize(None));
        assert_eq!(facts(main).entry, Entry::Initialize(Some(Main::WithArguments)));
        assert_eq!(facts(void).entry, Entry::Initialize(Some(Main::Void)));
        assert_eq!(facts(wrong).entry, Entry::Start);
        assert_eq!(facts(wrong).warnings.len(), 1);
    }

    #[test]
    fn the_specified_allocator_is_preferred_when_its_signature_fits() {
        let both = r#"(module (func (export "malloc") (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 0))"#;
        let misfit = r#"(module (func (export "proxy_on_memory_allocate") (param i64) (result i32) i32.const 0)
            (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
        assert_eq!(facts(both).allocator, Some(Allocator::Proxy));
        assert_eq!(facts(misfit).allocator, Some(Allocator::Malloc));
        assert_eq!(facts("(module)").allocator, None);
    }

    #[test]
    fn imports_keep_their_repetitions_and_types() {
        let twice = facts(
            r#"(module (import "env" "f" (func (param i32 i64) (result f64))) (import "env" "f" (func (param i32 i64) (result f64)))
                (import "env" "g" (global i32)) (func (export "late") (param f32)))"#,
        );
        assert_eq!(twice.imports.len(), 3);
        assert_eq!(twice.imports[0], twice.imports[1]);
        assert_eq!(twice.imports[0].ty.to_string(), "(i32, i64) -> f64");
        assert_eq!(twice.imports[2].ty.to_string(), "(global)");
        assert_eq!(twice.export("late").unwrap().ty.to_string(), "(f32) -> ()", "imported functions come first in the index space");
    }

    #[test]
    fn memory_streams_and_debug_data_are_read() {
        let http = facts(
            r#"(module (memory (export "memory") 2 16) (func $f) (start $f)
                (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) i32.const 0)
                (@custom ".debug_info" "") (@custom "producers" ""))"#,
        );
        assert_eq!(http.memories, [Memory { minimum: 2 << 16, maximum: Some(16 << 16), shared: false, wide: false }]);
        assert_eq!(http.callbacks.streams(), Streams { http: true, tcp: false });
        assert!(http.has_dwarf && http.has_names && http.has_start);
        assert!(http.custom_sections.iter().any(|name| &**name == "producers"));
        let root = facts(r#"(module (func (export "proxy_on_tick") (param i32)))"#);
        assert!(root.callbacks.streams().root_only() && !root.has_dwarf && !root.has_start);
    }

    #[test]
    fn an_export_of_nothing_is_malformed() {
        // An export section (7) with one export "f" of function 5, in a module without functions.
        let bytes = b"\0asm\x01\0\0\0\x07\x05\x01\x01f\x00\x05";
        let error = ModuleFacts::parse(bytes).unwrap_err().to_string();
        assert_eq!(error, "malformed WebAssembly at byte 0: export f is function 5, which does not exist");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let imports = r#"(import "env" "f" (func))"#.repeat(MAX_ITEMS + 1);
        let bytes = wat::parse_str(format!("(module {imports})")).unwrap();
        assert!(matches!(ModuleFacts::parse(&bytes), Err(LoadFault::Malformed { cause, .. }) if cause.contains("imports")));
    }
}
