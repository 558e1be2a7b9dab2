//! Whether a key made a signature: in the module by RustCrypto, natively by the library that the host has for TLS.
//!
//! What always holds: what is no key of its curve is refused when it is read; both implementations are held to the same tests, so each is the other's check.

#[cfg(not(target_arch = "wasm32"))]
#[path = "verify/native.rs"]
mod library;
#[cfg(target_arch = "wasm32")]
#[path = "verify/module.rs"]
mod library;

pub(crate) use library::Public;
