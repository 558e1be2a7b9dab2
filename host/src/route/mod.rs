//! Route actions: what the core does with a request once it was decided, compiled from [`weir_model::config::RouteAction`].
//!
//! An action is immutable and shared by all workers. It names clusters; which endpoints those are is looked up when a request is dispatched, so
//! that an action never holds an old cluster. What always holds: every pattern and template was compiled when the action was; running one cannot
//! fail, only find nothing to do.

mod headers;
mod rewrite;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weir_model::config;

pub use headers::HeaderOps;
pub use rewrite::{HostRewrite, HostSource, PathRewrite};
pub use template::{Template, Variables};

use crate::upstream::hash::HashPolicies;
use crate::upstream::retry::RetryPolicy;

/// An action could not be compiled: which field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {cause}")]
pub struct ActionError {
    /// Path inside the action.
    pub field: String,
    /// What is wrong with it.
    pub cause: String,
}

impl ActionError {
    fn new(field: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self { field: field.into(), cause: cause.to_string() }
    }
}

/// What happens to a request.
#[derive(Debug)]
pub struct Action {
    /// In logs, metrics and `weir.route.select`.
    pub name: Arc<str>,
    /// What is done.
    pub kind: Kind,
    /// On the request before it is sent upstream.
    pub request_headers: HeaderOps,
    /// On the response before it is sent downstream.
    pub response_headers: HeaderOps,
    /// By binding name: what it does for this route.
    pub filters: BTreeMap<String, config::RouteFilter>,
    /// `xds.route_metadata`.
    pub metadata: BTreeMap<String, String>,
}

/// The three things an action can do.
#[derive(Debug)]
pub enum Kind {
    /// Send it on.
    Forward(Box<Forward>),
    /// Send the client elsewhere.
    Redirect(Redirect),
    /// Answer here.
    Respond(config::DirectResponse),
}

/// Sends a request to a cluster.
#[derive(Debug)]
pub struct Forward {
    /// Where to, by weight.
    pub targets: Vec<Target>,
    total_weight: u64,
    /// Or: the request header that names the cluster.
    pub cluster_header: Option<Vec<u8>>,
    /// Labels that endpoints must have.
    pub subset: BTreeMap<String, String>,
    /// The path that the upstream sees.
    pub path: Option<PathRewrite>,
    /// The authority that the upstream sees.
    pub host: Option<HostRewrite>,
    /// From the whole request to the whole response.
    pub timeout: Option<Duration>,
    /// Nothing moves; the listener's if `None`.
    pub idle_timeout: Option<Duration>,
    /// Bounds what `grpc-timeout` may ask for.
    pub max_grpc_timeout: Option<Duration>,
    /// When and how to try again.
    pub retry: Option<RetryPolicy>,
    /// Copies, fire and forget.
    pub mirrors: Vec<Mirror>,
    /// What hash balancers hash.
    pub hash: HashPolicies,
    upgrades: Vec<String>,
    /// Status for a cluster that does not exist.
    pub cluster_not_found: u16,
}

/// A cluster with its share of requests.
#[derive(Debug)]
pub struct Target {
    /// The cluster's name.
    pub cluster: Arc<str>,
    weight: u64,
    /// Besides the action's.
    pub request_headers: HeaderOps,
    /// Besides the action's.
    pub response_headers: HeaderOps,
    /// Besides the action's.
    pub subset: BTreeMap<String, String>,
}

/// A share of requests that is copied to another cluster.
#[derive(Debug)]
pub struct Mirror {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// From 0 to 100.
    pub percent: f64,
}

/// Sends the client elsewhere.
#[derive(Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    scheme: String,
    host: String,
    port: u32,
    path: Option<PathRewrite>,
    strip_query: bool,
}

impl Action {
    /// Compiles an action.
    ///
    /// # Errors
    /// At the first field that cannot work.
    pub fn compile(action: &config::RouteAction) -> Result<Self, ActionError> {
        use config::route_action::Action as Of;
        let kind = match &action.action {
            Some(Of::Forward(forward)) => Kind::Forward(Box::new(Forward::compile(forward)?)),
            Some(Of::Redirect(redirect)) => Kind::Redirect(Redirect::compile(redirect)?),
            Some(Of::Respond(response)) => {
                status_in("respond.status", response.status, 200..=599)?;
                Kind::Respond(response.clone())
            }
            None => return Err(ActionError::new("action", "one of forward, redirect, respond must be set")),
        };
        Ok(Self {
            name: action.name.as_str().into(),
            kind,
            request_headers: HeaderOps::compile("requestHeaders", action.request_headers.as_ref())?,
            response_headers: HeaderOps::compile("responseHeaders", action.response_headers.as_ref())?,
            filters: action.filters.clone(),
            metadata: action.metadata.clone(),
        })
    }

    /// The action of requests for which nobody chose one.
    #[must_use]
    pub fn not_found() -> Self {
        let response = config::DirectResponse { status: 404, body: String::new(), content_type: String::new() };
        Self {
            name: "".into(),
            kind: Kind::Respond(response),
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
            filters: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }
}

impl Forward {
    fn compile(forward: &config::Forward) -> Result<Self, ActionError> {
        if forward.clusters.is_empty() && forward.cluster_header.is_empty() {
            return Err(ActionError::new("forward.clusters", "there is neither a cluster nor a clusterHeader"));
        }
        let targets =
            forward.clusters.iter().enumerate().map(|(at, cluster)| Target::compile(at, cluster)).collect::<Result<Vec<_>, _>>()?;
        let total_weight = targets.iter().map(|target| target.weight).sum();
        let retry = forward.retry.as_ref().map(RetryPolicy::compile).transpose();
        Ok(Self {
            total_weight,
            targets,
            cluster_header: (!forward.cluster_header.is_empty()).then(|| forward.cluster_header.to_ascii_lowercase().into_bytes()),
            subset: forward.subset.clone(),
            path: PathRewrite::compile("forward.path", forward.path.as_ref())?,
            host: HostRewrite::compile("forward.host", forward.host.as_ref())?,
            timeout: timeout("forward.timeout", forward.timeout.as_ref(), Some(Duration::from_secs(15)))?,
            idle_timeout: timeout("forward.idleTimeout", forward.idle_timeout.as_ref(), None)?,
            max_grpc_timeout: timeout("forward.maxGrpcTimeout", forward.max_grpc_timeout.as_ref(), None)?,
            retry: retry.map_err(|error| ActionError::new("forward.retry", error))?,
            mirrors: forward.mirrors.iter().map(Mirror::compile).collect(),
            hash: HashPolicies::compile(&forward.hash).map_err(|error| ActionError::new("forward.hash", error))?,
            upgrades: forward.upgrades.iter().map(|name| name.to_ascii_lowercase()).collect(),
            cluster_not_found: match forward.cluster_not_found_status {
                0 => 503,
                status => status_in("forward.clusterNotFoundStatus", status, 400..=599)?,
            },
        })
    }

    /// The target for a random number.
    #[must_use]
    pub fn target(&self, random: u64) -> Option<&Target> {
        if self.targets.len() < 2 || self.total_weight == 0 {
            return self.targets.first();
        }
        let mut at = random % self.total_weight;
        self.targets.iter().find(|target| {
            let here = at < target.weight;
            at = at.saturating_sub(target.weight);
            here
        })
    }

    /// Whether a request may change to this protocol (`websocket`, `connect`).
    #[must_use]
    pub fn may_upgrade(&self, protocol: &[u8]) -> bool {
        self.upgrades.iter().any(|name| name == "*" || name.as_bytes().eq_ignore_ascii_case(protocol))
    }
}

impl Target {
    fn compile(at: usize, cluster: &config::WeightedCluster) -> Result<Self, ActionError> {
        let field = |name: &str| format!("forward.clusters[{at}].{name}");
        Ok(Self {
            cluster: cluster.name.as_str().into(),
            weight: u64::from(cluster.weight),
            request_headers: HeaderOps::compile(&field("requestHeaders"), cluster.request_headers.as_ref())?,
            response_headers: HeaderOps::compile(&field("responseHeaders"), cluster.response_headers.as_ref())?,
            subset: cluster.subset.clone(),
        })
    }
}

impl Mirror {
    fn compile(mirror: &config::Mirror) -> Self {
        Self { cluster: mirror.cluster.as_str().into(), percent: mirror.percent.unwrap_or(100.0) }
    }

    /// Whether a request is copied, by a random number in 0..1.
    #[must_use]
    pub fn chosen(&self, random: f64) -> bool {
        random * 100.0 < self.percent
    }
}

impl Redirect {
    fn compile(redirect: &config::Redirect) -> Result<Self, ActionError> {
        let status = match redirect.status {
            0 => 301,
            status @ (301 | 302 | 303 | 307 | 308) => status_in("redirect.status", status, 301..=308)?,
            other => return Err(ActionError::new("redirect.status", format!("{other} is not 301, 302, 303, 307 or 308"))),
        };
        if redirect.port > 65_535 {
            return Err(ActionError::new("redirect.port", format!("{} is not a port", redirect.port)));
        }
        Ok(Self {
            status,
            scheme: redirect.scheme.clone(),
            host: redirect.host.clone(),
            port: redirect.port,
            path: PathRewrite::compile("redirect.path", redirect.path.as_ref())?,
            strip_query: redirect.strip_query,
        })
    }

    /// Where a request is sent to.
    #[must_use]
    pub fn location(&self, scheme: &[u8], authority: &[u8], path: &[u8]) -> Vec<u8> {
        let (host, port) = split_port(authority);
        let target = if self.scheme.is_empty() { scheme } else { self.scheme.as_bytes() };
        let mut out = [target, b"://", if self.host.is_empty() { host } else { self.host.as_bytes() }].concat();
        let default_port = match target {
            b"https" => 443,
            _ => 80,
        };
        if self.port != 0 {
            if self.port != default_port {
                out.extend_from_slice(format!(":{}", self.port).as_bytes());
            }
        } else if self.scheme.is_empty() && self.host.is_empty() && !port.is_empty() {
            out.push(b':');
            out.extend_from_slice(port);
        }
        let rewritten = self.path.as_ref().and_then(|rewrite| rewrite.apply(path));
        let path = rewritten.as_deref().unwrap_or(path);
        let end = if self.strip_query { path.iter().position(|byte| *byte == b'?').unwrap_or(path.len()) } else { path.len() };
        out.extend_from_slice(path.get(..end).unwrap_or_default());
        out
    }
}

/// `host:port` apart; the port is empty if there is none. Brackets of IPv6 stay with the host.
pub(crate) fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    let after_bracket = authority.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    match authority.get(after_bracket..).unwrap_or_default().iter().rposition(|byte| *byte == b':') {
        Some(colon) => authority.split_at_checked(after_bracket + colon).map_or((authority, b""), |(host, port)| (host, &port[1..])),
        None => (authority, b""),
    }
}

fn status_in(field: &str, status: u32, range: std::ops::RangeInclusive<u16>) -> Result<u16, ActionError> {
    match u16::try_from(status) {
        Ok(status) if range.contains(&status) => Ok(status),
        _ => Err(ActionError::new(field, format!("{status} is not between {} and {}", range.start(), range.end()))),
    }
}

/// A timeout: `default` if absent, none if zero.
pub(crate) fn timeout(
    field: &str,
    value: Option<&weir_model::protobuf::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, ActionError> {
    let Some(value) = value else { return Ok(default) };
    let duration = Duration::try_from(*value).map_err(|_| ActionError::new(field, "is negative"))?;
    Ok((!duration.is_zero()).then_some(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(change: impl FnOnce(&mut config::Redirect)) -> Redirect {
        let mut redirect = config::Redirect::default();
        change(&mut redirect);
        Redirect::compile(&redirect).expect("a redirect")
    }

    #[test]
    fn redirects_keep_what_they_are_not_told_to_change() {
        let location = |redirect: Redirect| String::from_utf8(redirect.location(b"http", b"a.test:8080", b"/x?q=1")).expect("text");
        assert_eq!(location(redirect(|_| {})), "http://a.test:8080/x?q=1");
        assert_eq!(location(redirect(|r| r.scheme = "https".into())), "https://a.test/x?q=1");
        assert_eq!(location(redirect(|r| r.host = "b.test".into())), "http://b.test/x?q=1");
        assert_eq!(location(redirect(|r| r.port = 81)), "http://a.test:81/x?q=1");
        assert_eq!(location(redirect(|r| r.port = 80)), "http://a.test/x?q=1");
        assert_eq!(location(redirect(|r| r.strip_query = true)), "http://a.test:8080/x");
        let six = redirect(|r| r.scheme = "https".into()).location(b"http", b"[::1]:80", b"/");
        assert_eq!(String::from_utf8(six).expect("text"), "https://[::1]/");
    }

    #[test]
    fn targets_are_chosen_by_weight() {
        let cluster = |name: &str, weight| config::WeightedCluster { name: name.into(), weight, ..Default::default() };
        let forward = config::Forward { clusters: vec![cluster("a", 1), cluster("b", 0), cluster("c", 3)], ..Default::default() };
        let forward = Forward::compile(&forward).expect("a forward");
        let chosen: Vec<&str> = (0..4).map(|random| &*forward.target(random).expect("a target").cluster).collect();
        assert_eq!(chosen, ["a", "c", "c", "c"]);
        let alone = Forward::compile(&config::Forward { clusters: vec![cluster("a", 0)], ..Default::default() }).expect("a forward");
        assert_eq!(&*alone.target(7).expect("a target").cluster, "a");
    }

    #[test]
    fn what_cannot_work_names_its_field() {
        let action = |action| Action::compile(&config::RouteAction { action: Some(action), ..Default::default() });
        use config::route_action::Action as Of;
        let error = action(Of::Forward(config::Forward::default())).expect_err("no cluster");
        assert_eq!(error.field, "forward.clusters");
        let error = action(Of::Redirect(config::Redirect { status: 200, ..Default::default() })).expect_err("not a redirect");
        assert_eq!(error.field, "redirect.status");
        let error = action(Of::Respond(config::DirectResponse { status: 99, ..Default::default() })).expect_err("not a status");
        assert_eq!(error.field, "respond.status");
    }
}
