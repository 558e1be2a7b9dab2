//! What the operator writes.

use weir_sdk::config;

/// The configuration of the filter.
#[config]
#[derive(Debug)]
#[serde(default)]
pub struct Compress {
    /// What is offered, what is liked best first; `[br, gzip]`.
    pub encodings: Vec<Encoding>,
    /// Which content types; `text/*` is all texts. Texts, JSON, JavaScript, XML, SVG and Wasm, unless written.
    pub content_types: Vec<String>,
    /// A response that says it is shorter stays as it is; 1024 bytes.
    pub minimum_bytes: u32,
    /// How hard gzip tries, 1 to 9; 4.
    pub gzip_level: u32,
    /// How hard brotli tries, 0 to 5; 3. More would take longer than a callback may.
    pub brotli_level: u32,
    /// How many responses each worker compresses at once; 32. Each takes up to 1.5 MiB of the filter's memory; further ones stay as they are.
    pub at_once: u32,
}

impl Default for Compress {
    fn default() -> Self {
        let types = [
            "text/*",
            "application/json",
            "application/javascript",
            "application/xml",
            "application/wasm",
            "application/*+json",
            "application/*+xml",
            "image/svg+xml",
        ];
        Self {
            encodings: vec![Encoding::Br, Encoding::Gzip],
            content_types: types.map(str::to_owned).to_vec(),
            minimum_bytes: 1024,
            gzip_level: 4,
            brotli_level: 3,
            at_once: 32,
        }
    }
}

/// How a response is compressed.
#[config]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Brotli (RFC 7932).
    Br,
    /// Gzip (RFC 1952).
    Gzip,
}

impl Encoding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}
