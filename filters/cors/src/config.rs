//! What the operator writes: Istio's `corsPolicy`.

use weir_sdk::config;

/// The configuration of the filter: Istio's `corsPolicy`.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Cors {
    /// Which origins may read responses. None: the filter does nothing.
    pub allow_origins: Vec<OriginMatch>,
    /// The same by their whole text, as Istio once wrote it.
    pub allow_origin: Vec<String>,
    /// Methods that a preflight is told; `*` is all of them, without credentials.
    pub allow_methods: Vec<String>,
    /// Request headers that a preflight is told.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a browser may remember a preflight's answer: `24h`, `10m`, `30s`.
    pub max_age: Option<String>,
    /// Whether requests may carry cookies and certificates.
    pub allow_credentials: Option<bool>,
    /// What becomes of preflights from other origins.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What becomes of preflights from origins that are not allowed.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum UnmatchedPreflights {
    /// As `FORWARD`.
    #[default]
    Unspecified,
    /// The upstream answers.
    Forward,
    /// The filter answers 200 without a word about what is allowed.
    Ignore,
}

/// Which origins. Exactly one is written.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct OriginMatch {
    /// The whole origin: `https://shop.example`; `*` is all of them.
    pub exact: Option<String>,
    /// What it begins with.
    pub prefix: Option<String>,
    /// An RE2-style regular expression for the whole of it.
    pub regex: Option<String>,
}
