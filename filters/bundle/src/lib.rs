//! The standard filters, compiled for wasm32 and embedded: what `builtin://NAME` means.
//!
//! What always holds:
//! * The bytes are made by this crate's build script from the filter crates beside it, never committed.
//! * The same source and toolchain give the same bytes, so the digest says which filter a proxy runs.
//!
//! It deliberately runs nothing: a host loads these bytes as it loads any other module.
//!
//! ```
//! let headers = weir_filters::builtin("headers").expect("the bundle has it");
//! assert!(headers.digest.starts_with("sha256:"));
//! assert!(weir_filters::builtin("no-such-filter").is_none());
//! ```

/// One standard filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// Its name in `builtin://NAME`.
    pub name: &'static str,
    /// The module.
    pub bytes: &'static [u8],
    /// `sha256:` and the digest of the bytes in lower-case hexadecimal.
    pub digest: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/builtins.rs"));

/// The filter of this name.
#[must_use]
pub fn builtin(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}

/// Every standard filter.
#[must_use]
pub fn all() -> &'static [Builtin] {
    &BUILTINS
}
