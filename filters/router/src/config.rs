//! What the operator, or a controller, writes.
//!
//! A configuration may be many megabytes, more than what is made of it: virtual hosts are compiled while they are read, one after another.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;
use weir_filter_matching::{HeaderMatch, QueryMatch, TextMatch};
use weir_sdk::config;
use weir_sdk::schema::{Node, Schema};
use weir_sdk::serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use crate::draft::Draft;

/// The configuration of the filter.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Router {
    /// Which route wins where several match.
    pub precedence: Precedence,
    /// Where a virtual host has no route for a request, the next less specific one is asked, down to `*`.
    pub fall_through: bool,
    /// Who this proxy is; routes that are not for it are left out.
    pub proxy: Proxy,
    /// Actions that routes name.
    pub actions: BTreeMap<String, Action>,
    /// The hosts and their routes.
    pub virtual_hosts: VirtualHosts,
    /// What is done with requests that no route matches; a 404 unless written.
    pub unmatched: Option<Action>,
}

/// Which route of a virtual host wins where several match.
#[config]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// The first one written, as in Istio's VirtualService.
    #[default]
    Ordered,
    /// The most specific one, as in the Gateway API: by path (exact, then template, then regex, then prefix; longer before shorter), then one with a method,
    /// then more headers, then more parameters of the query, then the first one written.
    MostSpecific,
}

/// Who this proxy is.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Proxy {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The gateways that it serves; `mesh` unless written.
    pub gateways: Vec<String>,
}

/// Hosts, and what is done with requests for them.
#[config]
#[derive(Debug)]
pub struct VirtualHost {
    /// `a.example.org`, `*.example.org` (every host below it), `a.*`, `*`; each alone or with a port, `a.example.org:8080`. Without a port it is every port's. The
    /// most specific one that means a request is chosen: exact, then the longest `*.` one, then the longest `.*` one, then `*`, each first with the port.
    pub hosts: Vec<String>,
    /// The gateways that it is for, for matches that do not say it; all unless written.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// The routes.
    pub routes: Vec<Route>,
}

/// What is done with some requests.
#[config]
#[derive(Debug)]
pub struct Route {
    /// Which: those that any of these mean. Every request unless written.
    #[serde(default, rename = "match")]
    pub matches: Vec<Match>,
    /// What is done with them.
    pub action: Action,
}

/// A condition on a request: all that is written must hold.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Match {
    /// The path, without its query, as the proxy normalised it.
    pub path: Option<PathMatch>,
    /// The method.
    pub method: Option<TextMatch>,
    /// All of these headers.
    pub headers: Vec<HeaderMatch>,
    /// All of these parameters of the query.
    pub query: Vec<QueryMatch>,
    /// The scheme.
    pub scheme: Option<TextMatch>,
    /// The authority as the client sent it, with its port if there is one.
    pub authority: Option<TextMatch>,
    /// The port that the client connected to.
    pub port: Option<u16>,
    /// All of these attributes, such as a claim that an earlier filter verified.
    pub attributes: Vec<AttributeMatch>,
    /// Which proxies the route is for; not looked at in a gateway, or where `gateways` is written.
    pub source: Option<Source>,
    /// Which gateways the route is for; `mesh` is every proxy that is none.
    pub gateways: Vec<String>,
}

/// A condition on a path. Exactly one of the kinds is written.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct PathMatch {
    /// The whole path.
    pub exact: Option<String>,
    /// What it begins with, as plain text: `/foo` means `/foobar` too.
    pub prefix: Option<String>,
    /// The segments that it begins with: `/foo` means `/foo` and `/foo/bar`, not `/foobar`. A slash at the end does not count.
    pub segment_prefix: Option<String>,
    /// An RE2-style regular expression for the whole path.
    pub regex: Option<String>,
    /// A template: `{NAME}`, `{*}` or `*` is one segment, `{**}` or `**` all that is there, such as `/users/{id}/{**}`.
    pub template: Option<String>,
    /// Upper and lower case are the same; not for `template`.
    pub ignore_case: bool,
}

/// A condition on an attribute.
#[config]
#[derive(Debug)]
pub struct AttributeMatch {
    /// Its path, with dots.
    pub name: String,
    /// Its value.
    pub value: TextMatch,
}

/// Which proxies a route is for.
#[config]
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[serde(default)]
pub struct Source {
    /// In this namespace.
    pub namespace: Option<String>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
}

/// What is done with a request: an object with what the proxy's configuration calls a RouteAction, or the name of one of `actions`.
#[derive(Debug)]
pub struct Action(Box<RawValue>);

impl Action {
    /// As it was written, in JSON.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::deserialize(deserializer).map(Self)
    }
}

impl Schema for Action {
    const NODE: Node = Node::Named {
        name: "Action",
        about: "What is done with a request: a [RouteAction](../../manifests/reference.md#routeaction) of the proxy's configuration, or, in a route, the name of one of `actions`.",
        node: &Node::Any,
    };
}

/// Virtual hosts, half compiled.
#[derive(Debug, Default)]
pub struct VirtualHosts(pub Draft);

impl<'de> Deserialize<'de> for VirtualHosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = VirtualHosts;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of virtual hosts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<VirtualHosts, A::Error> {
                let mut draft = Draft::default();
                while let Some(host) = list.next_element::<VirtualHost>()? {
                    draft.add(host);
                }
                Ok(VirtualHosts(draft))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl Schema for VirtualHosts {
    const NODE: Node = Node::List(&VirtualHost::NODE);
}
