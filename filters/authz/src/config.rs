//! What the operator writes: Istio's AuthorizationPolicy, with what the mesh knows besides.

use std::collections::BTreeMap;

use weir_sdk::config;

/// The configuration of the filter.
#[config]
#[derive(Debug)]
#[serde(default)]
pub struct Authz {
    /// The policies of this workload, in any order. None: everything is allowed.
    pub policies: Vec<Policy>,
    /// The mesh's own trust domain; `cluster.local`.
    pub trust_domain: String,
    /// Further names of it: a principal of one is a principal of all.
    pub trust_domain_aliases: Vec<String>,
    /// Who decides for policies with the action `CUSTOM`.
    pub providers: Vec<Provider>,
    /// Which readings of a request the policies are held against.
    pub readings: Readings,
}

impl Default for Authz {
    fn default() -> Self {
        Self {
            policies: Vec::new(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            providers: Vec::new(),
            readings: Readings::default(),
        }
    }
}

/// Which readings of a request policies are held against.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Readings {
    /// All that servers are known to have, and each must be allowed: a path without `;parameters`, with `%2F` and `\` as slashes, `//` as one, decoded twice;
    /// a method in any case; any value of a header that came more than once.
    #[default]
    All,
    /// Only the request as the proxy normalised it, as in Istio.
    AsIs,
}

/// One AuthorizationPolicy: `metadata.name` and `.namespace`, and its `spec`.
#[config]
#[derive(Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Its namespace, which service accounts without one are of.
    #[serde(default)]
    pub namespace: String,
    /// What a match means.
    #[serde(default)]
    pub action: Action,
    /// Any of them may match. None: an `ALLOW` policy allows nothing.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Who decides, with the action `CUSTOM`.
    pub provider: Option<ProviderName>,
    /// Only count and log what it would do: Istio's annotation `istio.io/dry-run`. For `ALLOW` and `DENY`.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a match of a policy means.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// The request is allowed, and what no such policy matches is not.
    #[default]
    Allow,
    /// The request is refused.
    Deny,
    /// The request is counted.
    Audit,
    /// Somebody else decides.
    Custom,
}

/// Names a provider.
#[config]
#[derive(Debug)]
pub struct ProviderName {
    /// Its name in `providers`.
    pub name: String,
}

/// A rule: it matches when any of `from`, any of `to` and all of `when` do. What is not written matches.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Rule {
    /// Who asks.
    pub from: Vec<From>,
    /// What for.
    pub to: Vec<To>,
    /// Further conditions.
    pub when: Vec<Condition>,
}

/// Who asks.
#[config]
#[derive(Debug)]
pub struct From {
    /// All that is written in it must hold.
    pub source: Source,
}

/// What is asked for.
#[config]
#[derive(Debug)]
pub struct To {
    /// All that is written in it must hold.
    pub operation: Operation,
}

/// Properties of who asks. In each list any may hold, and in its `not` twin none may.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Source {
    /// Identities of the peer's certificate: `cluster.local/ns/default/sa/web`.
    pub principals: Vec<String>,
    /// None of these.
    pub not_principals: Vec<String>,
    /// Identities of the request's token: issuer, slash, subject.
    pub request_principals: Vec<String>,
    /// None of these.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer's certificate.
    pub namespaces: Vec<String>,
    /// None of these.
    pub not_namespaces: Vec<String>,
    /// Service accounts of the peer's certificate: `namespace/name`, or a name in the policy's namespace.
    pub service_accounts: Vec<String>,
    /// None of these.
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the peer's certificate.
    pub trust_domains: Vec<String>,
    /// None of these.
    pub not_trust_domains: Vec<String>,
    /// Addresses or ranges of the other end of the connection.
    pub ip_blocks: Vec<String>,
    /// None of these.
    pub not_ip_blocks: Vec<String>,
    /// Addresses or ranges of the client that trusted proxies tell of.
    pub remote_ip_blocks: Vec<String>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<String>,
}

/// Properties of what is asked for. In each list any may hold, and in its `not` twin none may.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Operation {
    /// Hosts, in any case.
    pub hosts: Vec<String>,
    /// None of these.
    pub not_hosts: Vec<String>,
    /// Ports that the client connected to.
    pub ports: Vec<String>,
    /// None of these.
    pub not_ports: Vec<String>,
    /// Methods; for gRPC always `POST`.
    pub methods: Vec<String>,
    /// None of these.
    pub not_methods: Vec<String>,
    /// Paths without their query; `{*}` is one segment, `{**}` any number of them.
    pub paths: Vec<String>,
    /// None of these.
    pub not_paths: Vec<String>,
}

/// A further condition.
#[config]
#[derive(Debug)]
pub struct Condition {
    /// What it is about: `request.headers[x-user]`, `request.auth.claims[groups]`, `source.ip`.
    pub key: String,
    /// Any of these.
    #[serde(default)]
    pub values: Vec<String>,
    /// None of these.
    #[serde(default)]
    pub not_values: Vec<String>,
}

/// An external authorization service, asked over HTTP as Envoy does it.
#[config]
#[derive(Debug)]
pub struct Provider {
    /// What policies call it.
    pub name: String,
    /// The cluster to ask; the filter's binding has to allow it.
    pub cluster: String,
    /// What stands before the request's path.
    #[serde(default)]
    pub path_prefix: String,
    /// How long to wait; `1s`.
    #[serde(default)]
    pub timeout: Timeout,
    /// Lets requests pass when the service cannot be asked.
    #[serde(default)]
    pub fail_open: bool,
    /// What the client is told when the service cannot be asked; 403.
    pub status_on_error: Option<u16>,
    /// Request headers that the service sees, beside `authorization`.
    #[serde(default)]
    pub include_request_headers_in_check: Vec<String>,
    /// Headers that the service is told besides.
    #[serde(default)]
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// Headers of its answer that replace the request's own.
    #[serde(default)]
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of its answer that a refused client gets; all of them unless written.
    #[serde(default)]
    pub headers_to_downstream_on_deny: Vec<String>,
}

/// How long to wait: `250ms`, `2s`.
#[config]
#[derive(Debug, Clone)]
pub struct Timeout(pub String);

impl Default for Timeout {
    fn default() -> Self {
        Self("1s".to_owned())
    }
}
