//! Which route a request gets: a table of cases, and a comparison with a matcher so simple that it cannot be wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_sdk::Refusal;

use crate::config::Router;
use crate::{Request, Table};

/// A request in memory.
#[derive(Debug, Clone, Default)]
struct Asked {
    authority: String,
    path: String,
    headers: BTreeMap<String, String>,
    port: i64,
}

impl Request for Asked {
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            ":authority" => Some(self.authority.as_bytes()),
            _ => self.headers.get(name).map(String::as_bytes),
        }
    }

    fn attribute(&self, path: &str) -> Option<&[u8]> {
        self.headers.get(path).map(String::as_bytes)
    }

    fn port(&self) -> Option<i64> {
        Some(self.port)
    }
}

/// `GET a.example/path name=value …`
fn asked(text: &str) -> Asked {
    let mut words = text.split(' ');
    let mut headers =
        BTreeMap::from([(":method".to_owned(), words.next().unwrap().to_owned()), (":scheme".to_owned(), "https".to_owned())]);
    let target = words.next().unwrap();
    let (authority, path) = target.split_at(target.find('/').unwrap_or(target.len()));
    headers.extend(words.map(|word| word.split_once('=').unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned())));
    Asked { authority: authority.into(), path: path.into(), headers, port: 8080 }
}

fn table(config: &Value) -> Result<(Table, Vec<String>), Refusal> {
    let config: Router = weir_sdk::parse(config.to_string().as_bytes())?;
    let (table, written) = config.virtual_hosts.0.finish(config.precedence, config.fall_through, &config.proxy)?;
    Ok((table, written.into_iter().map(|written| serde_json::from_str(&written.json).unwrap()).collect()))
}

/// What each request gets; `-` is nothing.
fn check(config: &Value, expected: &[(&str, &str)]) {
    let (table, actions) = table(config).unwrap();
    for (request, action) in expected {
        let found = table.find(&asked(request)).map_or("-", |number| &actions[number as usize]);
        assert_eq!(found, *action, "{request}");
    }
}

/// One virtual host for all, with routes of a match and the name of an action.
fn routes(more: &Value, list: &[(Value, &str)]) -> Value {
    let routes: Vec<Value> = list.iter().map(|(one, action)| json!({ "match": [one], "action": action })).collect();
    let mut config = json!({ "virtualHosts": [{ "hosts": ["*"], "routes": routes }] });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

#[test]
fn every_kind_of_condition() {
    let list = [
        (json!({ "path": { "exact": "/exact" } }), "exact"),
        (json!({ "path": { "exact": "/fold", "ignoreCase": true } }), "fold"),
        (json!({ "path": { "prefix": "/plain" } }), "plain"),
        (json!({ "path": { "segmentPrefix": "/seg/" } }), "segments"),
        (json!({ "path": { "regex": "/r/[0-9]+" } }), "regex"),
        (json!({ "path": { "template": "/users/{id}/orders" } }), "template"),
        (json!({ "method": { "exact": "DELETE" } }), "method"),
        (json!({ "scheme": { "exact": "http" } }), "scheme"),
        (json!({ "authority": { "suffix": ":444" } }), "authority"),
        (json!({ "port": 9090 }), "port"),
        (
            json!({ "headers": [{ "name": "X-User", "value": { "exact": "jason" } }, { "name": "b", "value": { "present": true } }] }),
            "headers",
        ),
        (json!({ "query": [{ "name": "v", "value": { "exact": "" } }] }), "empty"),
        (json!({ "query": [{ "name": "v", "value": { "regex": "[0-9]" } }] }), "query"),
        (json!({ "attributes": [{ "name": "claims.group", "value": { "exact": "admin" } }] }), "attribute"),
        (json!({ "path": { "exact": "/without" }, "headers": [{ "name": "x-no", "value": { "exact": "x", "invert": true } }] }), "without"),
    ];
    let expected = [
        ("GET a/exact", "exact"),
        ("GET a/exact?q=1", "exact"),
        ("GET a/exact/", "-"),
        ("GET a/Exact", "-"),
        ("GET a/FOLD", "fold"),
        ("GET a/plainly", "plain"),
        ("GET a/seg", "segments"),
        ("GET a/seg/x", "segments"),
        ("GET a/segments", "-"),
        ("GET a/r/12", "regex"),
        ("GET a/r/12x", "-"),
        ("GET a/users/7/orders", "template"),
        ("GET a/users/7/orders/1", "-"),
        ("DELETE a/", "method"),
        ("delete a/", "-"),
        ("GET a/ :scheme=http", "scheme"),
        ("GET a:444/", "authority"),
        ("GET a/ x-user=jason b=", "headers"),
        ("GET a/ x-user=jason", "-"),
        ("GET a/?v=", "empty"),
        ("GET a/?v", "empty"),
        ("GET a/?v=1&v=x", "query"),
        ("GET a/?v=x&v=1", "-"),
        ("GET a/ claims.group=admin", "attribute"),
        ("GET a/without", "without"),
        ("GET a/without x-no=y", "without"),
        ("GET a/without x-no=x", "-"),
        ("GET a", "-"),
    ];
    check(&routes(&json!({}), &list[..15]), &expected);
    // The same with an index.
    let padded: Vec<_> =
        list.iter().cloned().chain((0..20).map(|at| (json!({ "path": { "exact": format!("/pad/{at}") } }), "pad"))).collect();
    check(&routes(&json!({}), &padded), &expected);
    let (table, _) = table(&routes(&json!({}), &list)).unwrap();
    assert_eq!(table.find(&Asked { port: 9090, ..asked("GET a/") }), Some(9));
}

#[test]
fn order_is_as_written_or_by_what_is_most_specific() {
    let list = [
        (json!({ "path": { "segmentPrefix": "/" } }), "all"),
        (json!({ "path": { "segmentPrefix": "/foo" } }), "foo"),
        (json!({ "path": { "segmentPrefix": "/foo/bar" } }), "bar"),
        (json!({ "path": { "segmentPrefix": "/foo/bar" }, "headers": [{ "name": "h", "value": { "exact": "1" } }] }), "header"),
        (json!({ "path": { "segmentPrefix": "/foo/bar" }, "query": [{ "name": "q", "value": { "exact": "1" } }] }), "query"),
        (json!({ "path": { "segmentPrefix": "/foo/bar" }, "method": { "exact": "PUT" } }), "method"),
        (json!({ "path": { "regex": "/f.*" } }), "regex"),
        (json!({ "path": { "template": "/foo/{x}/{y}" } }), "template"),
        (json!({ "path": { "exact": "/foo/bar/baz" } }), "exact"),
        (json!({ "path": { "exact": "/foo/bar/baz" } }), "second"),
        (json!({}), "any"),
    ];
    check(&routes(&json!({}), &list), &[("GET a/foo/bar/baz", "all")]);
    let expected = [("GET a/foo/bar/baz", "exact"), ("GET a/foo/bar/x h=1", "template"), ("GET a/foo", "regex"), ("GET a/x", "all")];
    check(&routes(&json!({ "precedence": "mostSpecific" }), &list), &expected);
    let prefixes: Vec<_> = list.iter().filter(|(_, name)| !["regex", "template", "exact", "second"].contains(name)).cloned().collect();
    let expected = [
        ("PUT a/foo/bar/x?q=1 h=1", "method"),
        ("GET a/foo/bar/x?q=1 h=1", "header"),
        ("GET a/foo/bar/x?q=1", "query"),
        ("GET a/foo/bar", "bar"),
        ("GET a/foo/barn", "foo"),
        ("GET a/food", "all"),
    ];
    check(&routes(&json!({ "precedence": "mostSpecific" }), &prefixes), &expected);
}

#[test]
fn hosts_are_chosen_before_routes() {
    let host = |hosts: &[&str], path: &str, action: &str| json!({ "hosts": hosts, "routes": [{ "match": [{ "path": { "prefix": path } }], "action": action }] });
    let hosts = [
        host(&["a.example", "b.example:81"], "/a", "exact"),
        host(&["*.example"], "/", "suffix"),
        host(&["a.*"], "/", "prefix"),
        host(&["*"], "/", "all"),
    ];
    let config = json!({ "virtualHosts": hosts });
    let expected = [
        ("GET a.example/a", "exact"),
        ("GET a.example/", "-"),
        ("GET A.EXAMPLE:80/a", "exact"),
        ("GET b.example:81/a", "exact"),
        ("GET b.example/a", "suffix"),
        ("GET a.test/", "prefix"),
        ("GET test/", "all"),
    ];
    check(&config, &expected);
    let mut config = config;
    config["fallThrough"] = json!(true);
    check(&config, &[("GET a.example/a", "exact"), ("GET a.example/", "suffix"), ("GET b.example:81/", "suffix")]);
}

#[test]
fn routes_that_are_not_for_this_proxy_are_left_out() {
    let list = [
        (json!({ "source": { "namespace": "shop" } }), "shop"),
        (json!({ "source": { "labels": { "app": "web", "tier": "1" } } }), "web"),
        (json!({ "gateways": ["edge"], "source": { "namespace": "nobody" } }), "edge"),
        (json!({ "gateways": ["mesh"] }), "mesh"),
    ];
    for (proxy, action) in [
        (json!({ "namespace": "shop" }), "shop"),
        (json!({ "labels": { "app": "web", "tier": "1", "x": "y" } }), "web"),
        (json!({ "labels": { "app": "web" } }), "mesh"),
        (json!({}), "mesh"),
        (json!({ "gateways": ["edge"] }), "shop"),
        (json!({ "gateways": ["other"], "namespace": "x" }), "shop"),
    ] {
        check(&routes(&json!({ "proxy": proxy }), &list), &[("GET a/", action)]);
    }
    let edge = routes(&json!({ "proxy": { "gateways": ["edge"] } }), &list[2..]);
    check(&edge, &[("GET a/", "edge")]);
    let mut whole = routes(&json!({}), &[(json!({}), "own"), (json!({ "gateways": ["mesh"] }), "mesh")]);
    whole["virtualHosts"][0]["gateways"] = json!(["edge"]);
    check(&whole, &[("GET a/", "mesh")]);
}

#[test]
fn equal_actions_are_one() {
    let action = json!({ "forward": { "clusters": [{ "name": "a" }] } });
    let route = json!({ "action": action });
    let config = json!({ "virtualHosts": [{ "hosts": ["a"], "routes": [route, route] }, { "hosts": ["b"], "routes": [route] }] });
    let config: Router = weir_sdk::parse(config.to_string().as_bytes()).unwrap();
    let (_, written) = config.virtual_hosts.0.finish(config.precedence, false, &config.proxy).unwrap();
    assert_eq!(
        written.iter().map(|written| (&*written.json, &*written.field)).collect::<Vec<_>>(),
        [(&*action.to_string(), "virtualHosts[0].routes[0].action")]
    );
}

#[test]
fn a_refusal_names_the_field() {
    let path = |path: Value| routes(&json!({}), &[(json!({ "path": { "exact": "/" } }), "a"), (json!({ "path": path }), "b")]);
    let host = |hosts: Value| json!({ "virtualHosts": [{ "hosts": ["a"], "routes": [] }, { "hosts": hosts, "routes": [] }] });
    let field = |name: &str, value: Value| {
        let mut one = json!({});
        one[name] = value;
        routes(&json!({}), &[(one, "a")])
    };
    for (config, said) in [
        (path(json!({})), "virtualHosts[0].routes[1].match[0].path: one of exact, prefix"),
        (path(json!({ "exact": "/", "regex": "/" })), "virtualHosts[0].routes[1].match[0].path: only one of"),
        (path(json!({ "exact": "foo" })), "virtualHosts[0].routes[1].match[0].path.exact: \"foo\" does not begin with `/`"),
        (path(json!({ "prefix": "/a?b" })), "virtualHosts[0].routes[1].match[0].path.prefix: \"/a?b\" is no path"),
        (path(json!({ "exact": "" })), "virtualHosts[0].routes[1].match[0].path.exact: no path is empty"),
        (path(json!({ "regex": "(" })), "virtualHosts[0].routes[1].match[0].path.regex: \"(\" is no regular expression"),
        (path(json!({ "template": "/{a" })), "virtualHosts[0].routes[1].match[0].path.template: \"{a\""),
        (path(json!({ "template": "/{a}", "ignoreCase": true })), "virtualHosts[0].routes[1].match[0].path.ignoreCase"),
        (host(json!([])), "virtualHosts[1].hosts: it has no hosts"),
        (host(json!(["b", "A"])), "virtualHosts[1].hosts[1]: \"A\" is a host of virtualHosts[0] already"),
        (host(json!(["a*b"])), "virtualHosts[1].hosts[0]: "),
        (field("headers", json!([{ "name": "", "value": { "exact": "" } }])), "virtualHosts[0].routes[0].match[0].headers[0].name: "),
        (field("query", json!([{ "name": "q", "value": {} }])), "virtualHosts[0].routes[0].match[0].query[0].value: one of"),
        (field("methd", json!({})), "virtualHosts[0].routes[0].match[0].methd: unknown field"),
        (field("port", json!(70000)), "virtualHosts[0].routes[0].match[0].port: invalid value"),
        (json!({ "virtualHosts": [{ "hosts": ["a"], "routes": [{}] }] }), "virtualHosts[0].routes[0]: missing field `action`"),
        (json!({ "precedence": "first" }), "unknown variant `first`"),
    ] {
        let refusal = table(&config).unwrap_err().to_string();
        assert!(refusal.contains(said), "{config}: {refusal}");
    }
}

/// A route of the comparison, in the simplest terms.
#[derive(Debug, Clone)]
struct Plain {
    kind: &'static str,
    text: String,
    fold: bool,
    method: Option<&'static str>,
    header: Option<&'static str>,
}

impl Plain {
    fn json(&self, name: &str) -> Value {
        let mut one = json!({ "headers": self.header.map(|value| json!({ "name": "h", "value": { "exact": value } })).into_iter().collect::<Vec<_>>() });
        if self.kind != "any" {
            one["path"] = json!({ "ignoreCase": self.fold });
            one["path"][self.kind] = json!(self.text);
        }
        if let Some(method) = self.method {
            one["method"] = json!({ "exact": method });
        }
        json!({ "match": [one], "action": name })
    }

    fn means(&self, request: &Asked) -> bool {
        let case = |text: &str| if self.fold { text.to_lowercase() } else { text.to_owned() };
        let (path, text) = (case(&request.path), case(&self.text));
        let path_is = match self.kind {
            "exact" => path == text,
            "prefix" => path.starts_with(&text),
            "segmentPrefix" => format!("{path}/").starts_with(&format!("{}/", text.trim_end_matches('/'))),
            "regex" => path.starts_with(&text[..text.len() - 2]),
            _ => true,
        };
        let is =
            |name: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| request.headers.get(name).is_some_and(|value| value == wanted));
        path_is && is(":method", self.method) && is("h", self.header)
    }

    fn rank(&self) -> (u8, usize, bool, bool) {
        let text = if self.kind == "segmentPrefix" { self.text.trim_end_matches('/') } else { &self.text };
        let kind = match self.kind {
            "exact" => 4,
            "regex" => 2,
            _ if self.kind == "any" || text.is_empty() => 0,
            _ => 1,
        };
        (kind, if kind == 0 { 0 } else { text.len() }, self.method.is_some(), self.header.is_some())
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let text = proptest::collection::vec(prop_oneof!["a", "b", "A", "ab"], 1..4).prop_map(|parts| format!("/{}", parts.join("/")));
    let kinds = prop_oneof![Just("exact"), Just("prefix"), Just("segmentPrefix"), Just("regex"), Just("any")];
    let method = proptest::option::weighted(0.2, prop_oneof![Just("GET"), Just("PUT")]);
    let header = proptest::option::weighted(0.2, prop_oneof![Just("1"), Just("2")]);
    (kinds, text, any::<bool>(), any::<bool>(), method, header).prop_map(|(kind, text, fold, slash, method, header)| {
        let text = match kind {
            "regex" => format!("{text}.*"),
            "segmentPrefix" if slash => format!("{text}/"),
            "any" => String::new(),
            _ => text,
        };
        Plain { kind, text, fold, method, header }
    })
}

proptest! {
    #[test]
    fn the_compiled_table_agrees_with_a_list(
        list in proptest::collection::vec(plain(), 1..40),
        requests in proptest::collection::vec(("(/(a|b|A|ab|B)){1,4}/?", prop_oneof!["GET", "PUT"], prop_oneof!["1", "2", ""]), 1..20),
    ) {
        let routes: Vec<Value> = list.iter().enumerate().map(|(at, one)| one.json(&at.to_string())).collect();
        for precedence in ["ordered", "mostSpecific"] {
            let config = json!({ "precedence": precedence, "virtualHosts": [{ "hosts": ["*"], "routes": routes }] });
            let (table, actions) = table(&config).unwrap();
            for (path, method, header) in &requests {
                let request = asked(&format!("{method} a{path} h={header}"));
                let mut means = list.iter().enumerate().filter(|(_, one)| one.means(&request));
                let expected = match precedence {
                    "ordered" => means.next(),
                    _ => means.min_by_key(|(at, one)| (Reverse(one.rank()), *at)),
                };
                let found = table.find(&request).map(|number| actions[number as usize].parse::<usize>().unwrap());
                prop_assert_eq!(found, expected.map(|(at, _)| at), "{} {:?}", precedence, request);
            }
        }
    }
}
