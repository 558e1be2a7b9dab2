//! The layout of a cache entry, and the one place where native code is taken in.
//!
//! An entry is one file, named after the module's digest and the engine's fingerprint (version,
//! settings and CPU features of the compiler, and the format):
//!
//! ```text
//! magic 8 | format u32 | digest 32 | fingerprint 32 | length u64 | sha256 of the code 32 | code
//! ```
//!
//! What always holds: the engine is given no byte that was not compared or digested first.
//! What it deliberately does not do: it knows no files; who may write them is the cache's concern.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use super::Refusal;
use crate::module::facts::Digest;

const MAGIC: [u8; 8] = *b"WEIRCODE";
/// Raised when the layout below changes.
pub(super) const FORMAT: u32 = 1;
pub(super) const HEADER: usize = 8 + 4 + 32 + 32 + 8 + 32;
pub(super) const SUFFIX: &str = ".native";

/// Which code an entry is: of which module, for which engine.
pub(super) struct Key {
    digest: Digest,
    fingerprint: [u8; 32],
}

impl Key {
    pub(super) fn new(engine: &Engine, digest: Digest) -> Self {
        // The engine's hash covers wasmtime's version, the compiler's settings and the CPU's features.
        let mut hasher = Sha256Hasher(Sha256::new());
        (MAGIC, FORMAT).hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self {
            digest,
            fingerprint: hasher.0.finalize().into(),
        }
    }

    pub(super) fn file_name(&self) -> String {
        format!("{}-{}{SUFFIX}", self.digest, Hex(&self.fingerprint[..8]))
    }

    pub(super) fn header(&self, code: &[u8]) -> Vec<u8> {
        let length = code.len() as u64;
        let fields: [&[u8]; 6] = [
            &MAGIC,
            &FORMAT.to_le_bytes(),
            self.digest.as_bytes(),
            &self.fingerprint,
            &length.to_le_bytes(),
            &Sha256::digest(code),
        ];
        fields.concat()
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A hasher whose result is the same in every process of the same build; std's promises no such thing.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest
            .iter()
            .take(8)
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// Code whose header and digest were found right. Only [`verify`] makes one.
pub(super) struct Verified<'a>(&'a [u8]);

/// Compares every field of an entry, and its code with the digest in it.
pub(super) fn verify<'a>(entry: &'a [u8], key: &Key) -> Result<Verified<'a>, Refusal> {
    let (magic, rest) = entry.split_first_chunk::<8>().ok_or(Refusal::Length)?;
    if *magic != MAGIC {
        return Err(Refusal::Foreign);
    }
    let (format, rest) = rest.split_first_chunk::<4>().ok_or(Refusal::Length)?;
    if u32::from_le_bytes(*format) != FORMAT {
        return Err(Refusal::Format(u32::from_le_bytes(*format)));
    }
    let (digest, rest) = rest.split_first_chunk::<32>().ok_or(Refusal::Length)?;
    let (fingerprint, rest) = rest.split_first_chunk::<32>().ok_or(Refusal::Length)?;
    if digest != key.digest.as_bytes() || *fingerprint != key.fingerprint {
        return Err(Refusal::Key);
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(Refusal::Length)?;
    let (sum, code) = rest.split_first_chunk::<32>().ok_or(Refusal::Length)?;
    if u64::from_le_bytes(*length) != code.len() as u64 {
        return Err(Refusal::Length);
    }
    match Sha256::digest(code)[..] == sum[..] {
        true => Ok(Verified(code)),
        false => Err(Refusal::Corrupt),
    }
}

/// Hands verified code to the engine.
#[allow(
    unsafe_code,
    reason = "the one way to load native code that was compiled earlier"
)]
pub(super) fn deserialize(
    engine: &Engine,
    code: &Verified<'_>,
) -> Result<wasmtime::Module, Refusal> {
    // SAFETY: the engine asks for the unmodified output of `Module::serialize`, of any version.
    // `Verified` comes only from `verify`: these bytes have the digest that `store` computed over
    // that output. Who could forge both is kept out by `Cache::read`: a regular file, not a link, owned by
    // this user and writable by nobody else, in a directory of which `Cache::open` found the same. The
    // bytes were read into memory before they were verified, so a later change of the file does not
    // reach them.
    let module = unsafe { wasmtime::Module::deserialize(engine, code.0) };
    module.map_err(|error| Refusal::Engine(format!("{error:#}")))
}
