//! Istio's scenarios: services, resources, a proxy and a request, and where Istio would send it.
//!
//! A request takes the way that it takes in a proxy: the listener's own matcher chooses the branch, the filter `router`'s own table the action, and the
//! derived clusters and endpoints are what is left. What is compared: clusters with their share of the traffic, their endpoints, and whether there is
//! an answer of the proxy's own or none at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value as Json, json};
use weir_controller::Object;
use weir_controller::api::istio::security::MutualTlsMode;
use weir_controller::translate::mesh::Mesh;
use weir_controller::translate::{Derived, Proxy, Role, World, translate};
use weir_corpus::{Tally, folder};
use weir_filter_router::Request;
use weir_filter_router::config::Router;
use weir_model::config::{Branch, Listener, branch, route_action};
use weir_model::yaml::document::documents;
use weir_proxy::listener::matching::{ConnectionFacts, Matcher};

#[test]
fn requests_go_where_istio_sends_them() {
    let Some(folder) = folder() else { return };
    let folder = folder.join("scenarios");
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut tally = Tally::default();
    for path in names.iter().filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with("topology")) {
        let scenario = yaml(path).remove(0);
        let objects = objects(&folder, &scenario);
        let mesh = match scenario["meshConfig"].as_str() {
            Some(text) => serde_json::from_value(documents("mesh", text.as_bytes()).documents.remove(0).value).unwrap(),
            None => Mesh::default(),
        };
        let world = World::new(&objects, mesh);
        for one in scenario["requests"].as_array().into_iter().flatten() {
            let proxy = proxy(&scenario, one["request"]["proxy"].as_str().unwrap());
            let derived = translate(&world, &proxy);
            let outcome = run(&derived, &proxy, &one["request"]);
            let wanted = wanted(&one["expect"]);
            let line =
                || format!("{} / {}: {outcome} instead of {wanted}", scenario["id"].as_str().unwrap(), one["name"].as_str().unwrap());
            tally.count((!agrees(&outcome, &wanted)).then(line));
        }
    }
    tally.report("corpus.scenarios_pct");
    // Other cases than those that were looked at may be given.
    let least = if std::env::var_os("WEIR_CORPUS").is_some() { 97.0 } else { 100.0 };
    assert!(tally.agree > 0 && tally.percent() >= least);
}

fn yaml(path: &std::path::Path) -> Vec<Json> {
    let read = documents(&path.to_string_lossy(), &std::fs::read(path).unwrap());
    assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
    read.documents.into_iter().map(|document| document.value).collect()
}

fn objects(folder: &std::path::Path, scenario: &Json) -> Vec<Object> {
    let topology = yaml(&folder.join(scenario["topology"].as_str().unwrap()));
    let config = documents("config", scenario["config"].as_str().unwrap_or_default().as_bytes()).documents;
    let all = topology.into_iter().chain(config.into_iter().map(|document| document.value));
    let mut created = 0;
    all.map(|mut value| {
        // Written in the order of their age, where they do not say it.
        created += 1;
        if value["metadata"]["creationTimestamp"].is_null() {
            value["metadata"]["creationTimestamp"] = json!(format!("2020-01-01T00:{:02}:{:02}Z", created / 60, created % 60));
        }
        Object::read(&value).unwrap()
    })
    .collect()
}

fn proxy(scenario: &Json, name: &str) -> Proxy {
    let found = scenario["proxies"].as_array().unwrap().iter().find(|proxy| proxy["name"] == name).unwrap();
    let labels = found["labels"].as_object().into_iter().flatten();
    Proxy {
        role: if found["type"] == "router" { Role::Gateway } else { Role::Sidecar },
        namespace: found["namespace"].as_str().unwrap().into(),
        labels: labels.map(|(key, value)| (key.as_str().into(), value.as_str().unwrap().into())).collect(),
        addresses: vec![found["ip"].as_str().unwrap().to_owned()],
    }
}

/// What Istio does, in the form of [`run`].
fn wanted(expect: &Json) -> Json {
    if let Some(clusters) = expect["clusters"].as_array().or(expect["tcpClusters"].as_array()) {
        let shares =
            shares(clusters.iter().map(|one| (one["cluster"].as_str().unwrap().to_owned(), one["weight"].as_f64().unwrap_or(0.0))));
        return json!({ "clusters": shares, "endpoints": expect["endpoints"] });
    }
    if let Some(action) = expect["action"].as_str() {
        return json!({ "action": action });
    }
    match expect["error"].as_str().unwrap_or_default() {
        "tls required, sending 301" => json!({ "action": "redirect" }),
        "no route matched" | "no virtual host matched" => json!({ "action": "none" }),
        _ => json!({ "action": "refused" }),
    }
}

/// Each cluster's share in percent, rounded.
fn shares(clusters: impl Iterator<Item = (String, f64)>) -> BTreeMap<String, i64> {
    let clusters: Vec<_> = clusters.collect();
    let total: f64 = clusters.iter().map(|(_, weight)| weight).sum();
    let mut shares = BTreeMap::new();
    for (name, weight) in clusters {
        let share = if total > 0.0 { weight * 100.0 / total } else { 100.0 };
        *shares.entry(name).or_default() += share.round() as i64;
    }
    shares
}

fn agrees(outcome: &Json, wanted: &Json) -> bool {
    // Endpoints are compared where Istio lists them.
    let listed = wanted["endpoints"].as_object().into_iter().flatten();
    outcome["clusters"] == wanted["clusters"] && outcome["action"] == wanted["action"] && { listed }
        .all(|(name, list)| outcome["endpoints"][name] == *list)
}

/// Where a request goes.
fn run(derived: &Derived, proxy: &Proxy, request: &Json) -> Json {
    let refused = json!({ "action": "refused" });
    let port = u16::try_from(request["port"].as_u64().unwrap()).unwrap();
    let inbound = request["mode"] == "inbound";
    let listener = match (proxy.role, inbound) {
        (Role::Gateway, _) => derived.listeners.iter().find(|listener| listener.address.ends_with(&format!(":{port}"))),
        (Role::Sidecar, true) => derived.listeners.iter().find(|listener| listener.name == "inbound"),
        (Role::Sidecar, false) => derived.listeners.iter().find(|listener| listener.name == "outbound"),
    };
    let Some(listener) = listener else { return refused };
    let address = request["address"].as_str().unwrap_or("10.2.0.1");
    let destination: SocketAddr = format!("{address}:{port}").parse().unwrap();
    let tls = matches!(request["tls"].as_str(), Some("tls" | "mtls"));
    // A client of TLS asks for the host that it wants.
    let name = request["sni"].as_str().or(request["host"].as_str()).filter(|_| tls);
    let Some(branch) = chosen(listener, destination, tls, name) else { return refused };
    if inbound {
        let mode = derived.mutual_tls.get(&branch.name).copied().unwrap_or_default();
        let mutual = request["tls"] == "mtls";
        if (mode == MutualTlsMode::Strict && !mutual) || (mode == MutualTlsMode::Disable && mutual) {
            return refused;
        }
    }
    match branch.protocol.as_ref().unwrap() {
        branch::Protocol::Tcp(tcp) if tcp.clusters.is_empty() => refused,
        branch::Protocol::Tcp(tcp) => {
            sent(derived, &json!(tcp.clusters.iter().map(|one| json!({ "name": one.name, "weight": one.weight })).collect::<Vec<_>>()))
        }
        // A browser's bytes are no TLS for those who end none, and the other way round.
        branch::Protocol::Http(_) if tls && !inbound && branch.tls.is_none() => refused,
        branch::Protocol::Http(http) if http.filter_chain.is_empty() => {
            let Some(route_action::Action::Forward(forward)) = &http.default_action.as_ref().unwrap().action else { return refused };
            sent(derived, &json!(forward.clusters.iter().map(|one| json!({ "name": one.name, "weight": one.weight })).collect::<Vec<_>>()))
        }
        branch::Protocol::Http(http) => routed(derived, &http.filter_chain, request, port),
    }
}

fn chosen<'a>(listener: &'a Listener, destination: SocketAddr, tls: bool, sni: Option<&str>) -> Option<&'a Branch> {
    let matcher = Matcher::compile(&listener.branches).unwrap_or_else(|errors| panic!("{errors:?}"));
    let facts = ConnectionFacts { destination: Some(destination), tls, server_name: sni, ..ConnectionFacts::default() };
    match matcher.select(&facts) {
        Some(at) => listener.branches.get(at),
        None => listener.default_branch.as_ref(),
    }
}

struct Asked<'a> {
    authority: &'a str,
    path: &'a str,
    method: &'a str,
    headers: BTreeMap<String, String>,
    port: u16,
}

impl Request for Asked<'_> {
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            ":method" => Some(self.method.as_bytes()),
            ":authority" => Some(self.authority.as_bytes()),
            ":path" => Some(self.path.as_bytes()),
            ":scheme" => Some(b"http"),
            name => self.headers.get(name).map(String::as_bytes),
        }
    }

    fn attribute(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn port(&self) -> Option<i64> {
        Some(self.port.into())
    }
}

fn routed(derived: &Derived, chain: &str, request: &Json, port: u16) -> Json {
    let chain = derived.chains.iter().find(|one| one.name == chain).unwrap();
    let router = chain.filters.iter().find(|filter| filter.name == "router").unwrap();
    let config = plain(router.config.as_ref().unwrap());
    let config: Router = weir_sdk::parse(config.to_string().as_bytes()).unwrap_or_else(|refusal| panic!("{refusal}: {config}"));
    let (table, written) = config.virtual_hosts.0.finish(config.precedence, config.fall_through, &config.proxy).unwrap();
    let headers = request["headers"].as_object().into_iter().flatten();
    let asked = Asked {
        authority: request["host"].as_str().unwrap_or_default(),
        path: request["path"].as_str().unwrap_or("/"),
        method: request["method"].as_str().unwrap_or("GET"),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str().unwrap().to_owned())).collect(),
        port,
    };
    let Some(found) = table.find(&asked) else { return json!({ "action": "none" }) };
    let action: Json = serde_json::from_str(&written[found as usize].json).unwrap();
    if !action["redirect"].is_null() {
        return json!({ "action": "redirect" });
    }
    if !action["respond"].is_null() {
        return json!({ "action": "directResponse" });
    }
    sent(derived, &action["forward"]["clusters"])
}

fn sent(derived: &Derived, clusters: &Json) -> Json {
    let clusters = clusters.as_array().unwrap();
    let shares = shares(clusters.iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one["weight"].as_f64().unwrap_or(0.0))));
    let mut endpoints = json!({});
    for name in shares.keys() {
        if let Some(found) = derived.endpoints.iter().find(|one| one.name == *name) {
            let mut addresses: Vec<&str> = found.localities.iter().flat_map(|one| &one.endpoints).map(|one| one.address.as_str()).collect();
            addresses.sort_unstable();
            endpoints[name] = json!(addresses);
        }
    }
    json!({ "clusters": shares, "endpoints": endpoints })
}

fn plain(value: &weir_model::protobuf::Value) -> Json {
    use weir_model::protobuf::Kind;
    match value.kind.as_ref() {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 => json!(*value as i64),
        Some(Kind::NumberValue(value)) => json!(value),
        Some(Kind::StringValue(value)) => json!(value),
        Some(Kind::ListValue(list)) => list.values.iter().map(plain).collect(),
        Some(Kind::StructValue(of)) => of.fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
    }
}
