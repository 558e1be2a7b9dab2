//! Why a module was not loaded, and what the person who wants it loaded can do next.
//!
//! What always holds: a [`LoadError`] prints as one line that names the module (and its digest once
//! it is known), what went wrong and where; [`LoadError::help`] gives the next step. Names that come
//! out of the module are escaped and cut before they are shown, so that a hostile module cannot
//! write control characters or megabytes into a log.
//!
//! What it deliberately does not do: it decides nothing. Whether a failed load closes or opens a
//! binding is the failure policy's business.

mod help;
mod show;

use std::fmt;

use crate::module::cache::{Refusal, StoreError};
use crate::module::facts::Digest;
use crate::module::sniff::Format;
use show::{Archive, DigestNote, List, OneLine, Said, Size};
pub(crate) use show::{Bare, Shown};

/// A module that was not loaded: which one, and why.
#[derive(Debug, thiserror::Error)]
#[error("module {}{}: {fault}", Shown(module), DigestNote(*digest))]
pub struct LoadError {
    module: Box<str>,
    digest: Option<Digest>,
    // Boxed so that the `Err` of every load path stays a few words wide.
    #[source]
    fault: Box<LoadFault>,
}

impl LoadError {
    /// The error of `module`, whose bytes have `digest` when they were readable at all.
    #[must_use]
    pub fn new(module: &str, digest: Option<Digest>, fault: LoadFault) -> Self {
        Self { module: module.into(), digest, fault: Box::new(fault) }
    }

    /// The name the module was loaded under.
    #[must_use]
    pub fn module(&self) -> &str {
        &self.module
    }

    /// The digest of the WebAssembly binary, when it was found.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What went wrong.
    #[must_use]
    pub fn fault(&self) -> &LoadFault {
        &self.fault
    }

    /// The next step for the person who reads the error.
    #[must_use]
    pub fn help(&self) -> String {
        self.fault.help()
    }
}

/// What went wrong while a module was loaded, without the module's name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadFault {
    /// The bytes are something else than a WebAssembly module.
    #[error("not a WebAssembly module but {found}")]
    NotAModule {
        /// What the bytes are instead.
        found: Format,
    },
    /// The bytes, or what they unpack to, are above the size limit.
    #[error("{what} is larger than the limit of {}", Size(*limit))]
    TooLarge {
        /// Which bytes: the module as given, what it decompresses to, or a file of an archive.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// A gzip stream or a tar archive is damaged.
    #[error("the {container} around the module is damaged: {}", OneLine(cause))]
    Container {
        /// Which container.
        container: Format,
        /// What its reader said.
        cause: String,
    },
    /// A tar archive holds no module, or several and none called `plugin.wasm`.
    #[error("the tar archive holds {}", Archive { modules: *modules, names })]
    NoModuleInArchive {
        /// How many files end in `.wasm`.
        modules: usize,
        /// The files found (the first few).
        names: Vec<String>,
    },
    /// Containers inside containers, deeper than anyone packs on purpose.
    #[error("more than {limit} containers inside one another around the module")]
    NestedTooDeep {
        /// How many are unpacked.
        limit: usize,
    },
    /// The binary does not parse.
    #[error("malformed WebAssembly at byte {offset}: {}", OneLine(cause))]
    Malformed {
        /// Where the parser stopped.
        offset: u64,
        /// Why.
        cause: String,
    },
    /// A valid module that is not a Proxy-Wasm one.
    #[error("exports no proxy_abi_version_* marker: {guess} (its exports: {})", List(exports))]
    NotProxyWasm {
        /// What it most likely is.
        guess: Guess,
        /// The names it exports (the first few).
        exports: Vec<String>,
    },
    /// Imports that this host does not provide.
    #[error("imports what this host does not provide: {}", List(imports))]
    UnknownImports {
        /// Every such import (the first few).
        imports: Vec<UnknownImport>,
    },
    /// An import whose type differs from the host function's.
    #[error("imports {}.{} as {found}, but the host function is {expected}", Bare(module), Bare(name))]
    ImportType {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
        /// The type the module gives it.
        found: String,
        /// The type the host function has.
        expected: String,
    },
    /// The module calls functions that return data, but gives the host no way to allocate it.
    #[error(
        "exports neither proxy_on_memory_allocate nor malloc as (i32) -> i32, but imports {function}, which returns data in memory the host allocates there"
    )]
    NoAllocator {
        /// The imported function that needs the allocator.
        function: String,
    },
    /// The module's memory cannot be used.
    #[error(transparent)]
    Memory(#[from] MemoryFault),
    /// Validation or compilation failed.
    #[error("does not compile: {}", OneLine(cause))]
    Compile {
        /// What the compiler said.
        cause: String,
    },
    /// The module trapped, or ran out of a limit, after it was compiled.
    #[error("{phase}: {} trapped: {trap}{}", Bare(function), Said(log))]
    Trapped {
        /// Which step of the load.
        phase: Phase,
        /// The export that was running.
        function: String,
        /// Why it stopped.
        trap: Trap,
        /// What the guest logged meanwhile.
        log: Vec<String>,
    },
    /// The module answered `false` to its configuration.
    #[error("{phase}: {} refused the configuration (it returned false){}", Bare(function), Said(log))]
    Refused {
        /// Which step of the load.
        phase: Phase,
        /// The export that answered.
        function: String,
        /// What the guest logged meanwhile.
        log: Vec<String>,
    },
    /// The binding's own configuration is wrong, whatever the module.
    #[error("binding {}: {}", Shown(binding), problems.join("; "))]
    Configuration {
        /// The binding.
        binding: String,
        /// Everything wrong with it, each naming its field.
        problems: Vec<String>,
    },
    /// A module for TCP in an HTTP chain, or the other way round.
    #[error("binding {} is for {wanted}, and the module has callbacks for {only} only", Shown(binding))]
    WrongKind {
        /// The binding.
        binding: String,
        /// What it should serve.
        wanted: &'static str,
        /// What the module serves.
        only: &'static str,
    },
    /// The checks passed and linking failed all the same: a bug of this host.
    #[error("it does not link: {}", OneLine(cause))]
    Link {
        /// Why.
        cause: String,
    },
}

/// The steps that run code of the module, in the order of a load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Making an instance: memories, tables, the module's start section.
    Instantiate,
    /// The entry function and `proxy_on_vm_start`.
    Start,
    /// `proxy_on_configure`.
    Configure,
    /// One stream context in a scratch instance.
    Probe,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instantiate => "instantiate",
            Self::Start => "start",
            Self::Configure => "configure",
            Self::Probe => "probe",
        })
    }
}

/// Why guest code stopped, with where it was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trap {
    /// The cause, in a few words.
    pub message: String,
    /// The guest's frames, innermost first, with function names and lines when the module has them.
    pub frames: Vec<String>,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(&self.message).fmt(f)?;
        match self.frames.first() {
            Some(frame) => write!(f, " (in {})", OneLine(frame)),
            None => Ok(()),
        }
    }
}

/// What is wrong with a module's memory.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryFault {
    /// There is none.
    #[error("has no memory, so nothing can be passed to it")]
    Missing,
    /// There is one, but not under the name `memory`.
    #[error("does not export its memory as \"memory\"")]
    NotExported,
    /// It expects the host to bring the memory.
    #[error("imports its memory ({}.{}) instead of defining it", Bare(module), Bare(name))]
    Imported {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// Shared between threads.
    #[error("has a shared memory (the threads proposal), which Proxy-Wasm does not know")]
    Shared,
    /// 64-bit addresses.
    #[error("has a 64-bit memory (the memory64 proposal), which Proxy-Wasm does not know")]
    Wide,
    /// Starts above the ceiling.
    #[error("needs {} of memory to start, above the ceiling of {}", Size(*minimum), Size(*ceiling))]
    AboveCeiling {
        /// What the module's memories start with, in bytes.
        minimum: u64,
        /// The ceiling, in bytes.
        ceiling: u64,
    },
}

/// What a module without an ABI marker most likely is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Guess {
    /// A handler for the http-wasm ABI.
    HttpWasm,
    /// MOSN's codec ABI.
    MosnCodec,
    /// A Proxy-Wasm version this host does not know.
    OtherAbiVersion(String),
    /// Has Proxy-Wasm callbacks, but its marker was lost (usually stripped by the linker).
    MarkerMissing,
    /// Made by wasm-bindgen for a JavaScript host.
    Bindgen,
    /// Made by Go's `js` target for a JavaScript host.
    GoJs,
    /// A program for the WASI command line.
    WasiCommand,
    /// An Open Policy Agent policy.
    OpaPolicy,
    /// Nothing recognisable.
    Unknown,
}

impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpWasm => "it looks like an http-wasm handler, another ABI",
            Self::MosnCodec => "it looks like a MOSN protocol codec, another ABI",
            Self::OtherAbiVersion(marker) => {
                return write!(f, "its ABI is announced by {}, which this host does not know", Bare(marker));
            }
            Self::MarkerMissing => "it has Proxy-Wasm callbacks but not the marker",
            Self::Bindgen => "it looks like wasm-bindgen output for a JavaScript host",
            Self::GoJs => "it looks like a Go program built for JavaScript (GOOS=js)",
            Self::WasiCommand => "it looks like a WASI command-line program",
            Self::OpaPolicy => "it looks like an Open Policy Agent policy",
            Self::Unknown => "it is not a Proxy-Wasm module",
        })
    }
}

/// An import the host has no function for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownImport {
    /// The import's module.
    pub module: String,
    /// The import's name.
    pub name: String,
    /// Its type as text.
    pub ty: String,
    /// Who usually provides such an import.
    pub usually: Option<&'static str>,
    /// A host function with nearly this name.
    pub near: Option<String>,
}

impl fmt::Display for UnknownImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} {}", Bare(&self.module), Bare(&self.name), self.ty)?;
        if let Some(near) = &self.near {
            write!(f, " (did you mean {near}?)")?;
        } else if let Some(usually) = self.usually {
            write!(f, " ({usually})")?;
        }
        Ok(())
    }
}

/// Something about a loaded module that its author or operator should know.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// An export with a name of the ABI and another signature: treated as absent.
    #[error("export {name} is {found}, not {expected}, and is never called")]
    IgnoredExport {
        /// The export's name.
        name: String,
        /// What it is.
        found: String,
        /// What it would have to be.
        expected: String,
    },
    /// A function of one vendor's proxy: linked, and answering UNIMPLEMENTED.
    #[error("import env.{name} belongs to {vendor}; here every call of it is answered UNIMPLEMENTED")]
    VendorImport {
        /// The function.
        name: &'static str,
        /// Whose it is.
        vendor: &'static str,
    },
    /// A cached native-code entry was refused, and the module compiled again.
    #[error("the cached native code was refused and rebuilt: {0}")]
    CacheRefused(Refusal),
    /// The native code could not be written to the cache.
    #[error("the native code was not cached: {0}")]
    NotCached(StoreError),
}
