//! PeerAuthentication, AuthorizationPolicy and RequestAuthentication: who may ask for what.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::common::{Duration, Selector, TargetRef};

/// Whether connections of workloads must be mutual TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    /// The workloads; none is the whole namespace.
    pub selector: Option<Selector>,
    /// For all ports.
    pub mtls: Option<MutualTls>,
    /// For single ports of the workload.
    pub port_level_mtls: BTreeMap<u32, MutualTls>,
}

/// Whether connections must be mutual TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// Whether.
    pub mode: MutualTlsMode,
}

/// Whether connections must be mutual TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// What the namespace or the mesh says.
    #[default]
    Unset,
    /// They are not.
    Disable,
    /// They may be.
    Permissive,
    /// They must be.
    Strict,
}

/// Who may ask for what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicy {
    /// The workloads; none is the whole namespace.
    pub selector: Option<Selector>,
    /// What it is attached to, as it was written once.
    pub target_ref: Option<TargetRef>,
    /// What it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// One of these must match.
    pub rules: Vec<Rule>,
    /// What is done then.
    pub action: Action,
    /// Who decides, for CUSTOM.
    pub provider: Option<Provider>,
}

/// What is done with a request that matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// It may pass.
    #[default]
    Allow,
    /// It may not.
    Deny,
    /// It is marked.
    Audit,
    /// Somebody else is asked.
    Custom,
}

/// Somebody that the mesh configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Provider {
    /// Its name there.
    pub name: String,
}

/// Conditions: one of `from`, one of `to`, all of `when`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Who asks.
    pub from: Vec<From>,
    /// For what.
    pub to: Vec<To>,
    /// And further.
    pub when: Vec<Condition>,
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct From {
    /// It.
    pub source: Option<Source>,
}

/// Who asks: all that is written must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Identities of certificates: `cluster.local/ns/default/sa/web`.
    pub principals: Vec<String>,
    /// All but these.
    pub not_principals: Vec<String>,
    /// Identities of tokens: `issuer/subject`.
    pub request_principals: Vec<String>,
    /// All but these.
    pub not_request_principals: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// All but these.
    pub not_namespaces: Vec<String>,
    /// Addresses that the connection comes from.
    pub ip_blocks: Vec<String>,
    /// All but these.
    pub not_ip_blocks: Vec<String>,
    /// Addresses that the request comes from, in the end.
    pub remote_ip_blocks: Vec<String>,
    /// All but these.
    pub not_remote_ip_blocks: Vec<String>,
    /// Accounts: `namespace/name`, or a name in the policy's namespace.
    pub service_accounts: Vec<String>,
    /// All but these.
    pub not_service_accounts: Vec<String>,
    /// Trust domains of certificates.
    pub trust_domains: Vec<String>,
    /// All but these.
    pub not_trust_domains: Vec<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct To {
    /// It.
    pub operation: Option<Operation>,
}

/// What is asked for: all that is written must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Hosts.
    pub hosts: Vec<String>,
    /// All but these.
    pub not_hosts: Vec<String>,
    /// Ports.
    pub ports: Vec<String>,
    /// All but these.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// All but these.
    pub not_methods: Vec<String>,
    /// Paths, or templates of them.
    pub paths: Vec<String>,
    /// All but these.
    pub not_paths: Vec<String>,
}

/// A condition on an attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// The attribute: `request.headers[x-token]`.
    pub key: String,
    /// One of these it must be.
    pub values: Vec<String>,
    /// None of these it may be.
    pub not_values: Vec<String>,
}

/// Which tokens requests may carry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthentication {
    /// The workloads; none is the whole namespace.
    pub selector: Option<Selector>,
    /// What it is attached to, as it was written once.
    pub target_ref: Option<TargetRef>,
    /// What it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// Who issues tokens.
    pub jwt_rules: Vec<JwtRule>,
}

/// An issuer of tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtRule {
    /// Its name in tokens.
    pub issuer: String,
    /// Whom tokens must be for.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub jwks_uri: String,
    /// An older name of the same.
    #[serde(rename = "jwks_uri")]
    pub jwks_uri_old: String,
    /// Its keys.
    pub jwks: String,
    /// Headers that carry tokens.
    pub from_headers: Vec<JwtHeader>,
    /// Parameters of the query that carry tokens.
    pub from_params: Vec<String>,
    /// Cookies that carry tokens.
    pub from_cookies: Vec<String>,
    /// The header that the claims are put into, in base64.
    pub output_payload_to_header: String,
    /// Whether the token is passed on.
    pub forward_original_token: bool,
    /// Headers that single claims are put into.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// How long fetching keys may take; 5 s if it is not written.
    pub timeout: Option<Duration>,
    /// Claims that are lists with spaces between.
    pub space_delimited_claims: Vec<String>,
}

/// A header that carries a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtHeader {
    /// Its name.
    pub name: String,
    /// What stands before the token.
    pub prefix: String,
}

/// A header that a claim is put into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimToHeader {
    /// The header.
    pub header: String,
    /// The claim.
    pub claim: String,
}
