//! What the operator writes: Istio's RequestAuthentication, with what asking for keys needs besides.

use weir_sdk::config;

/// The configuration of the filter.
#[config]
#[derive(Debug)]
#[serde(default)]
pub struct Jwt {
    /// Whose tokens are taken. Any of them may accept a request's token.
    pub jwt_rules: Vec<JwtRule>,
    /// Refuses requests without a token. Otherwise they pass, and have no principal.
    pub required: bool,
    /// How far clocks may be apart, in seconds; 60.
    pub clock_skew_seconds: u32,
    /// A longer token is refused; 16384 bytes.
    pub max_token_bytes: u32,
    /// How many KiB of verified tokens each worker remembers; 1024. 0: each is verified every time.
    pub cache_kib: u32,
}

impl Default for Jwt {
    fn default() -> Self {
        Self { jwt_rules: Vec::new(), required: false, clock_skew_seconds: 60, max_token_bytes: 16 << 10, cache_kib: 1024 }
    }
}

/// Whose tokens are taken, where they are, and what becomes of them.
#[config]
#[derive(Debug)]
pub struct JwtRule {
    /// Who signs them: the claim `iss`.
    pub issuer: String,
    /// Whom they are for: the claim `aud` has to name one of these, if any are written.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The keys themselves: a JSON Web Key Set as text.
    pub jwks: Option<String>,
    /// Where the keys are: `https://login.example/keys`. The connection is the cluster's.
    pub jwks_uri: Option<String>,
    /// The cluster to ask for `jwksUri`; the filter's binding has to allow it.
    pub jwks_cluster: Option<String>,
    /// How often the keys are asked for, in seconds; 1200.
    #[serde(default)]
    pub jwks_refresh_seconds: RefreshSeconds,
    /// How long to wait for the keys: `5s`.
    #[serde(default)]
    pub timeout: Timeout,
    /// Headers that may hold the token. Where none of the three is written: `Authorization: Bearer`, and the parameter `access_token`.
    #[serde(default)]
    pub from_headers: Vec<FromHeader>,
    /// Parameters of the query that may hold it.
    #[serde(default)]
    pub from_params: Vec<String>,
    /// Cookies that may hold it.
    #[serde(default)]
    pub from_cookies: Vec<String>,
    /// Lets the upstream have the token.
    #[serde(default)]
    pub forward_original_token: bool,
    /// A header for the claims of a verified token: base64url of JSON, as in the token.
    pub output_payload_to_header: Option<String>,
    /// Headers for single claims of it.
    #[serde(default)]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Claims whose text is a list of words, beside `scope` and `permission`.
    #[serde(default)]
    pub space_delimited_claims: Vec<String>,
}

/// How often the keys are asked for, in seconds.
#[config]
#[derive(Debug, Clone, Copy)]
pub struct RefreshSeconds(pub u32);

impl Default for RefreshSeconds {
    fn default() -> Self {
        Self(1200)
    }
}

/// How long to wait: `250ms`, `5s`.
#[config]
#[derive(Debug, Clone)]
pub struct Timeout(pub String);

impl Default for Timeout {
    fn default() -> Self {
        Self("5s".to_owned())
    }
}

/// A header that may hold a token.
#[config]
#[derive(Debug, Clone)]
pub struct FromHeader {
    /// Its name.
    pub name: String,
    /// What stands before the token, such as `Bearer `.
    #[serde(default)]
    pub prefix: String,
}

/// A header for one claim.
#[config]
#[derive(Debug, Clone)]
pub struct ClaimToHeader {
    /// Its name.
    pub header: String,
    /// The claim; dots lead into objects.
    pub claim: String,
}
