//! The next step for every fault. Display says what happened; this says what to do about it.

use super::{Guess, LoadFault, MemoryFault, Phase, UnknownImport};
use crate::module::facts::AbiVersion;

impl LoadFault {
    /// The next step for the person who reads the error.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotAModule { found } => found.help().into(),
            Self::TooLarge { .. } => {
                "strip debug information (`wasm-strip` or `wasm-opt --strip-debug`) or raise the module size limit".into()
            }
            Self::Container { .. } => "fetch or pack the file again; it was probably cut short".into(),
            Self::NoModuleInArchive { .. } => "put one module into the archive, as plugin.wasm".into(),
            Self::NestedTooDeep { .. } => "pack the module once: plain, gzip, or a tar archive".into(),
            Self::Malformed { .. } | Self::Compile { .. } => {
                "run `wasm-tools validate` on the file; rebuild it without proposals beyond WebAssembly 2.0 if it passes".into()
            }
            Self::NotProxyWasm { guess, .. } => guess.help(),
            Self::UnknownImports { imports } => imports_help(imports),
            Self::ImportType { .. } => "rebuild the filter with a current Proxy-Wasm SDK; its declaration of this function is wrong".into(),
            Self::NoAllocator { .. } => "export `malloc` or `proxy_on_memory_allocate` (C: -Wl,--export=malloc)".into(),
            Self::Memory(fault) => fault.help().into(),
            Self::Configuration { .. } => "correct the named fields of the binding".into(),
            Self::WrongKind { wanted, only, .. } => format!("attach it to {only} listeners, or use a module for {wanted}"),
            Self::Link { .. } => "please report this with the module's digest".into(),
            Self::Trapped { phase, .. } => phase.help().into(),
            Self::Refused { log, .. } => match log.is_empty() {
                true => "the filter did not say why: see its documentation for what the configuration must be".into(),
                false => "correct the configuration as the filter's log says".into(),
            },
        }
    }
}

impl Phase {
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Instantiate => {
                "the module fails before any of its callbacks: look at its start function, or raise limits.memory or limits.start_deadline"
            }
            Self::Start => "read the filter's log lines above this one; a wrong root id is a common cause",
            Self::Configure => "check the filter's configuration; it may not survive a value it did not expect",
            Self::Probe => "check that the filter serves this kind of stream (HTTP or TCP) and its root id",
        }
    }
}

impl Guess {
    pub(super) fn help(&self) -> String {
        match self {
            Self::MarkerMissing => {
                "keep the marker when linking: export proxy_abi_version_0_2_1 (C: -Wl,--export=proxy_abi_version_0_2_1)".into()
            }
            Self::OtherAbiVersion(_) => format!("build for one of {}", AbiVersion::known()),
            Self::GoJs => "build with GOOS=wasip1 GOARCH=wasm and -buildmode=c-shared".into(),
            Self::Bindgen => "build without wasm-bindgen, for wasm32-wasip1 or wasm32-unknown-unknown, with a Proxy-Wasm SDK".into(),
            _ => format!("build it with a Proxy-Wasm SDK (ABI {})", AbiVersion::known()),
        }
    }
}

impl MemoryFault {
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Missing | Self::NotExported => "export the module's memory under the name \"memory\"",
            Self::Imported { .. } => "link with the memory defined in the module (wasm-ld: without --import-memory)",
            Self::Shared => "build without threads (-pthread, +atomics)",
            Self::Wide => "build for wasm32, not wasm64",
            Self::AboveCeiling { .. } => {
                "raise the binding's memory ceiling, or link with a smaller initial memory (Emscripten: -sINITIAL_MEMORY)"
            }
        }
    }
}

fn imports_help(imports: &[UnknownImport]) -> String {
    match imports.iter().find_map(|import| import.near.as_deref()) {
        Some(near) => format!("check the spelling against {near} and rebuild the filter"),
        None => "build the filter for Proxy-Wasm only, without the library that brings these imports".into(),
    }
}
