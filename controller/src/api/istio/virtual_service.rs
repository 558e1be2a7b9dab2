//! VirtualService: where requests and connections for a host go.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::common::{Duration, Percent, PortSelector, StringMatch, Texts};

/// Where requests and connections for a host go.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// The names that the traffic is addressed to; none for a delegate.
    pub hosts: Vec<String>,
    /// `namespace/name`, `name` or `mesh`; none is `mesh`.
    pub gateways: Vec<String>,
    /// Rules for HTTP; the first that matches counts.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that is not terminated here.
    pub tls: Vec<TlsRoute>,
    /// Rules for other connections.
    pub tcp: Vec<TcpRoute>,
    /// The namespaces that see it: `.`, `*` or names.
    pub export_to: Vec<String>,
}

/// A rule for HTTP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// What logs call it.
    pub name: String,
    /// One of these must match; none is everything.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Where the request goes, by weight.
    pub route: Vec<HttpDestination>,
    /// Answers with a redirect.
    pub redirect: Option<Redirect>,
    /// Answers with what is written here.
    pub direct_response: Option<DirectResponse>,
    /// Another VirtualService has the rules.
    pub delegate: Option<Delegate>,
    /// Changes the path and the authority.
    pub rewrite: Option<Rewrite>,
    /// How long the request may take with all its retries.
    pub timeout: Option<Duration>,
    /// When it is tried again.
    pub retries: Option<Retries>,
    /// Delays and failures that are made.
    pub fault: Option<Fault>,
    /// Where a copy of the request goes.
    pub mirror: Option<Destination>,
    /// Where copies of the request go.
    pub mirrors: Vec<Mirror>,
    /// The share of `mirror`, as it was written once.
    pub mirror_percent: Option<u32>,
    /// The share of `mirror`; all of it if it is not written.
    pub mirror_percentage: Option<Percent>,
    /// What browsers may do from other origins.
    pub cors_policy: Option<CorsPolicy>,
    /// Changes to headers.
    pub headers: Option<Headers>,
}

/// Conditions, which must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// What logs call it.
    pub name: String,
    /// The path without the query.
    pub uri: Option<StringMatch>,
    /// The scheme.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The authority, with the port if the client sent one.
    pub authority: Option<StringMatch>,
    /// Headers; an empty match is that it is there.
    pub headers: BTreeMap<String, StringMatch>,
    /// The port of the listener.
    pub port: u32,
    /// Which clients have the rule at all.
    pub source_labels: Texts,
    /// The gateways that have the rule, instead of those above.
    pub gateways: Vec<String>,
    /// Parameters of the query.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Whether the case of the path does not count.
    pub ignore_uri_case: bool,
    /// Headers that must not be so.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// The namespace of the clients that have the rule.
    pub source_namespace: String,
    /// The prefix of metrics for this match.
    pub stat_prefix: String,
}

/// A destination of requests with its weight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// Its part of the sum of weights.
    pub weight: i32,
    /// Changes to headers of what goes there.
    pub headers: Option<Headers>,
}

/// A service, or a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// Its name in the registry.
    pub host: String,
    /// A subset of its DestinationRule.
    pub subset: String,
    /// Its port; the only one, or that of the listener, if it is not written.
    pub port: Option<PortSelector>,
}

/// Changes to headers both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// Of requests.
    pub request: Option<HeaderOperations>,
    /// Of responses.
    pub response: Option<HeaderOperations>,
}

/// Changes to headers one way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Takes the place of what is there.
    pub set: Texts,
    /// Is added to what is there.
    pub add: Texts,
    /// Is taken away.
    pub remove: Vec<String>,
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirect {
    /// The whole path that takes the place of the request's.
    pub uri: String,
    /// The authority that takes the place of the request's.
    pub authority: String,
    /// The port in the location.
    pub port: Option<u32>,
    /// The port in the location, from what is known.
    pub derive_port: Option<DerivePort>,
    /// `http` or `https`.
    pub scheme: String,
    /// The status; 301 if it is not written.
    pub redirect_code: u32,
    /// What takes the place of the prefix that matched.
    pub prefix_rewrite: Option<String>,
}

/// Where a redirect's port comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DerivePort {
    /// 80 for HTTP, 443 for HTTPS.
    #[default]
    FromProtocolDefault,
    /// The request's.
    FromRequestPort,
}

/// An answer that no service gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DirectResponse {
    /// Its status.
    pub status: u32,
    /// Its body.
    pub body: Option<Body>,
}

/// A body; one of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Body {
    /// As text.
    pub string: Option<String>,
    /// In base64.
    pub bytes: Option<String>,
}

/// The VirtualService that has the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; that of the one that delegates if it is not written.
    pub namespace: String,
}

/// Changes of where a request says that it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rewrite {
    /// Takes the place of the prefix that matched, or of the whole path.
    pub uri: String,
    /// Takes the place of the authority.
    pub authority: String,
    /// Changes the path by a regular expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A change by a regular expression.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// What is looked for, in RE2's syntax.
    #[serde(rename = "match")]
    pub matches: String,
    /// What takes its place; `\1` is the first group.
    pub rewrite: String,
}

/// When a request is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retries {
    /// How often at most; 0 is never.
    pub attempts: i32,
    /// How long each may take.
    pub per_try_timeout: Option<Duration>,
    /// Conditions and status codes, with commas between them.
    pub retry_on: String,
    /// Whether other localities are tried.
    pub retry_remote_localities: Option<bool>,
    /// Whether hosts that were tried are avoided.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// The least time between two attempts.
    pub backoff: Option<Duration>,
}

/// Delays and failures that are made.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fault {
    /// Before the request goes on.
    pub delay: Option<Delay>,
    /// Instead of it.
    pub abort: Option<Abort>,
}

/// A delay.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delay {
    /// The share of requests, as it was written once.
    pub percent: i32,
    /// How long.
    pub fixed_delay: Option<Duration>,
    /// Not to be had.
    pub exponential_delay: Option<Duration>,
    /// The share of requests; none if it is not written.
    pub percentage: Option<Percent>,
}

/// A failure.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Abort {
    /// The status of the answer.
    pub http_status: Option<i32>,
    /// The gRPC status of the answer, by name.
    pub grpc_status: Option<String>,
    /// Not to be had.
    pub http2_error: Option<String>,
    /// The share of requests; none if it is not written.
    pub percentage: Option<Percent>,
}

/// Where a copy of requests goes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mirror {
    /// Where to.
    pub destination: Option<Destination>,
    /// The share of requests; all if it is not written.
    pub percentage: Option<Percent>,
}

/// What browsers may do from other origins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// The origins, as they were written once.
    pub allow_origin: Vec<String>,
    /// The origins.
    pub allow_origins: Vec<StringMatch>,
    /// The methods.
    pub allow_methods: Vec<String>,
    /// The request headers.
    pub allow_headers: Vec<String>,
    /// The response headers that scripts see.
    pub expose_headers: Vec<String>,
    /// How long the answer to a preflight may be kept.
    pub max_age: Option<Duration>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// What becomes of preflights of other origins.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What becomes of preflights that no origin matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// They go to the service.
    #[default]
    Unspecified,
    /// They go to the service.
    Forward,
    /// They are answered without allowing anything.
    Ignore,
}

/// A rule for TLS that is not terminated here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// One of these must match.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Where the connection goes, by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions on a TLS connection, which must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsMatch {
    /// The names that the client asks for.
    pub sni_hosts: Vec<String>,
    /// The address that it is connected to.
    pub destination_subnets: Vec<String>,
    /// The port of the listener.
    pub port: u32,
    /// Which clients have the rule at all.
    pub source_labels: Texts,
    /// The gateways that have the rule, instead of those above.
    pub gateways: Vec<String>,
    /// The namespace of the clients that have the rule.
    pub source_namespace: String,
}

/// A rule for connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// One of these must match; none is everything.
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    /// Where the connection goes, by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions on a connection, which must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    /// The address that it is connected to.
    pub destination_subnets: Vec<String>,
    /// The port of the listener.
    pub port: u32,
    /// Has no effect, in Istio neither.
    pub source_subnet: String,
    /// Which clients have the rule at all.
    pub source_labels: Texts,
    /// The gateways that have the rule, instead of those above.
    pub gateways: Vec<String>,
    /// The namespace of the clients that have the rule.
    pub source_namespace: String,
}

/// A destination of connections with its weight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// Its part of the sum of weights.
    pub weight: i32,
}
