//! What a policy judged is what the origin received, however a request is spelled.
//!
//! One path, one host, one method and one header are protected. Many spellings of each are sent over HTTP/1, HTTP/2 and as gRPC, through the filters authz and
//! deny. An origin records exactly what it got. The property: nothing that it got is the protected thing in the eyes of any kind of server that is common.
//! A request that is refused before any policy, as none at all, is fine; so is one that means something else to everybody.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::support::*;

/// Requests for `/admin` or something below it, to some server or other.
const PATHS: [&str; 92] = [
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin?x=1",
    "/admin?",
    "/admin?/../public",
    "/admin?%2e%2e/public",
    "/admin#x",
    "/admin#/../public",
    "/admin%23x",
    "/admin%3Fx",
    "/ADMIN",
    "/Admin",
    "/aDmIn/x",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/%61%64%6D%69%6E/x",
    "/%2561dmin",
    "/%252561dmin",
    "/admi%6e",
    "/admin%2f",
    "/admin%2Fx",
    "/admin%5cx",
    "/admin%5C",
    "/%2fadmin",
    "/%2F%2Fadmin",
    "/%5cadmin",
    "/x%2f..%2fadmin",
    "/x%2f%2e%2e%2fadmin",
    "/x%5c..%5cadmin",
    "/admin%00",
    "/admin%00.html",
    "/public%00/../admin",
    "/admin%",
    "/admin%2",
    "/admin%zz",
    "/%u0061dmin",
    "/./admin",
    "/.//admin",
    "/../admin",
    "/x/../admin",
    "/x/./../admin",
    "/x/y/../../admin",
    "/../../../admin",
    "/%2e/admin",
    "/%2E%2E/admin",
    "/x/%2e%2e/admin",
    "/x/.%2e/admin",
    "/x/%2e./admin",
    "/x/%252e%252e/admin",
    "/x/%252e%252e%252fadmin",
    "/admin/.",
    "/admin/./x",
    "/admin/x/..",
    "/admin/%2e",
    "/admin/../admin",
    "/public/..;/admin",
    "/public/..;x=y/admin",
    "/public/.;/../admin",
    "/public/%2e%2e;/admin",
    "/public/..%3b/admin",
    "//admin",
    "///admin//",
    "/x//../admin",
    "/x/..//admin",
    "//a/admin",
    "/;/admin",
    "/;x/admin",
    "/.;/admin",
    "/admin;",
    "/admin;x",
    "/admin;x=1;y=2/z",
    "/admin;/x",
    "/admin%3bx",
    "/admin%3Bx/y",
    "/admin;%2f..%2f..",
    "/\\admin",
    "\\admin",
    "/x\\..\\admin",
    "/admin\\x",
    "/admin\\..\\admin",
    "/%c0%afadmin",
    "/x/%c0%ae%c0%ae/admin",
    "/x/%c0%ae%c0%ae%c0%afadmin",
    "/%e0%80%afadmin",
    "/%f0%80%80%afadmin",
    "/x/%uff0e%uff0e/admin",
    "/x/%ef%bc%8e%ef%bc%8e/admin",
    "/admin%20",
    "/admin%09",
    "/%20admin",
    "/admin%0d%0ax",
];

/// The same as bytes that no text holds, and as targets that are no path alone.
const RAW_TARGETS: [&[u8]; 22] = [
    b"http://a/admin",
    b"http://A/admin",
    b"HTTP://a/admin",
    b"http://a:80/admin",
    b"http://a/x/../admin",
    b"http://a//admin",
    b"http://a\\admin",
    b"http://user@a/admin",
    b"http://user:pass@a/admin",
    b"http://a?/admin",
    b"http:///admin",
    b"http:/admin",
    b"http:admin",
    b"a/admin",
    b"admin",
    b"/adm\xc0\xadin",
    b"/\xc0\xafadmin",
    b"/x/\xc0\xae\xc0\xae/admin",
    b"/admin\xff",
    b"/admin\t",
    b"/adm\0in",
    b"/admin\x0b",
];

/// Ways to say which host is meant.
const HOSTS: [&str; 14] = [
    "secret.test",
    "SECRET.test",
    "Secret.Test",
    "secret.test.",
    "SECRET.TEST.",
    "secret.test:80",
    "secret.test:8080",
    "secret.test.:80",
    "secret.test:",
    "secret.test:080",
    "user@secret.test",
    "secret.test, a",
    "a, secret.test",
    "secret%2etest",
];

const METHODS: [&str; 5] = ["DELETE", "delete", "Delete", "dELETE", "DELETE "];

/// Ways to send one header more than once, as lines.
const ROLES: [&[&str]; 10] = [
    &["x-role: root"],
    &["X-ROLE: root"],
    &["x-role: user", "x-role: root"],
    &["x-role: root", "x-role: user"],
    &["x-role: user, root"],
    &["x-role: root,user"],
    &["x-role: user", "X-Role: root"],
    &["x-role:root"],
    &["x-role:\troot\t"],
    &["x-role : root"],
];

/// What servers do with a path before they look who serves it. Each takes what the one before it left.
type Step = fn(&str) -> String;

/// Kinds of servers.
const SERVERS: [(&str, &[Step]); 9] = [
    ("takes it as it is", &[]),
    ("decodes", &[decoded]),
    ("decodes and resolves dots", &[decoded, resolved]),
    ("resolves dots and decodes", &[resolved, decoded]),
    ("merges slashes", &[decoded, merged, resolved]),
    ("drops parameters first", &[without_parameters, decoded, merged, resolved]),
    ("drops parameters last", &[decoded, without_parameters, merged, resolved]),
    ("takes backslashes for slashes", &[decoded, slashed, merged, resolved]),
    ("decodes twice", &[decoded, decoded, slashed, without_parameters, merged, resolved]),
];

fn decoded(path: &str) -> String {
    let (bytes, mut out, mut at) = (path.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let escaped = path.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn without_parameters(path: &str) -> String {
    path.split('/').map(|segment| segment.split(';').next().unwrap()).collect::<Vec<_>>().join("/")
}

fn merged(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

fn slashed(path: &str) -> String {
    path.replace('\\', "/")
}

fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Whether some server takes the target for the protected path; which.
fn is_protected(target: &str) -> Option<&'static str> {
    let target = target.split_once("://").map_or(target, |(_, rest)| &rest[rest.find('/').unwrap_or(rest.len())..]);
    let path = target.split(['?', '#']).next().unwrap();
    let takes = |(_, steps): &&(&str, &[Step])| {
        let taken = steps.iter().fold(path.to_owned(), |path, step| step(&path));
        let taken = taken.split('\0').next().unwrap();
        taken == "/admin" || taken.starts_with("/admin/")
    };
    SERVERS.iter().find(takes).map(|(name, _)| *name)
}

fn is_protected_host(host: &str) -> bool {
    let host = host.rsplit('@').next().unwrap().to_ascii_lowercase();
    let name = host.split(':').next().unwrap();
    name.trim_end_matches('.') == "secret.test"
}

/// What is wrong with having received this.
fn objection(request: &Message) -> Option<String> {
    let of = |what: String| Some(format!("{what}: {:?} {:?}", request.first, request.headers));
    let mut words = request.first.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    if let Some(server) = is_protected(target) {
        return of(format!("a server that {server} serves it"));
    }
    if method.eq_ignore_ascii_case("DELETE") {
        return of("the method is protected".to_owned());
    }
    let values =
        |name: &'static str| request.headers.iter().filter(move |(known, _)| known.trim() == name).flat_map(|(_, value)| value.split(','));
    if values("host").any(|host| is_protected_host(host.trim())) {
        return of("the host is protected".to_owned());
    }
    if values("x-role").any(|role| role.trim() == "root") {
        return of("the role is protected".to_owned());
    }
    None
}

/// The rules, in each filter's own words.
fn filters() -> Vec<(&'static str, Value)> {
    let rule = |of: &str| {
        json!([
            { "to": [{ "operation": { of.replace('N', "paths"): ["/admin", "/admin/*"] } }] },
            { "to": [{ "operation": { of.replace('N', "hosts"): ["secret.test"] } }] },
            { "to": [{ "operation": { of.replace('N', "methods"): ["DELETE"] } }] },
        ])
    };
    let mut denied = rule("N");
    let role = json!({ "when": [{ "key": "request.headers[x-role]", "values": ["root"] }] });
    denied.as_array_mut().unwrap().push(role);
    // One rule, which all of it has to meet: everything but what is protected.
    let allowed = json!([{
        "to": [{ "operation": { "notPaths": ["/admin", "/admin/*"], "notHosts": ["secret.test"], "notMethods": ["DELETE"] } }],
        "when": [{ "key": "request.headers[x-role]", "notValues": ["root"] }],
    }]);
    let means = |when: Value, name: &str| json!({ "name": name, "when": when });
    vec![
        ("authz", json!({ "policies": [{ "name": "deny", "action": "DENY", "rules": denied }] })),
        ("authz", json!({ "policies": [{ "name": "allow", "rules": allowed }] })),
        (
            "deny",
            json!({ "rules": [
                means(json!({ "path": { "exact": "/admin" } }), "path"),
                means(json!({ "path": { "prefix": "/admin/" } }), "below"),
                means(json!({ "hosts": ["secret.test"] }), "host"),
                means(json!({ "methods": ["DELETE"] }), "method"),
                means(json!({ "headers": [{ "name": "x-role", "value": { "exact": "root" } }] }), "role"),
            ] }),
        ),
    ]
}

/// How the core treats paths: by default, and in the other ways that it can.
fn normalizations() -> [Value; 4] {
    [
        json!({}),
        json!({ "mergeSlashes": true, "escapedSlashes": "unescape" }),
        json!({ "backslashToSlash": false }),
        json!({ "normalize": false, "backslashToSlash": false }),
    ]
}

fn config(origin: SocketAddr, filter: &str, configuration: &Value, path: &Value) -> Value {
    let mut config = to_origin(origin);
    http(&mut config)["filterChain"] = json!("main");
    http(&mut config)["path"] = path.clone();
    config["filterChains"] =
        json!([{ "name": "main", "filters": [{ "name": "policy", "phase": "authz", "module": { "builtin": filter } }] }]);
    config["filterChains"][0]["filters"][0]["config"] = configuration.clone();
    config
}

/// A request as the test means it.
#[derive(Clone)]
struct Spelling {
    method: &'static str,
    target: Vec<u8>,
    host: &'static str,
    lines: &'static [&'static str],
}

fn spellings() -> Vec<Spelling> {
    let of = |target: &[u8]| Spelling { method: "GET", target: target.to_vec(), host: "a", lines: &[] };
    let mut all: Vec<Spelling> = PATHS.iter().map(|path| of(path.as_bytes())).collect();
    all.extend(RAW_TARGETS.iter().map(|target| of(target)));
    all.extend(HOSTS.iter().map(|host| Spelling { host, ..of(b"/public") }));
    all.extend(METHODS.iter().map(|method| Spelling { method, ..of(b"/public") }));
    all.extend(ROLES.iter().map(|lines| Spelling { lines, ..of(b"/public") }));
    all
}

/// A request of HTTP/1, byte for byte. The connection ends with it.
async fn send_http1(address: SocketAddr, spelling: &Spelling) {
    let mut head = [spelling.method.as_bytes(), b" ", &spelling.target, b" HTTP/1.1\r\nhost: ", spelling.host.as_bytes(), b"\r\n"].concat();
    spelling.lines.iter().for_each(|line| head.extend_from_slice(format!("{line}\r\n").as_bytes()));
    head.extend_from_slice(b"connection: close\r\n\r\n");
    let mut peer = Peer::connect(address).await;
    peer.send(head).await;
    peer.rest().await;
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field of HPACK as it is: not in the table, not compressed.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, length(name)], name, &[length(value)], value].concat()
}

/// The same request as frames of HTTP/2 that no library would make. Returns when its stream is over.
async fn send_http2(address: SocketAddr, spelling: &Spelling, is_grpc: bool) {
    let method = if is_grpc && spelling.method == "GET" { "POST" } else { spelling.method };
    let mut block = literal(b":method", method.as_bytes());
    block.extend(literal(b":scheme", b"http"));
    block.extend(literal(b":authority", spelling.host.as_bytes()));
    block.extend(literal(b":path", &spelling.target));
    for line in spelling.lines {
        let (name, value) = line.split_once(':').unwrap();
        block.extend(literal(name.to_ascii_lowercase().as_bytes(), value.trim().as_bytes()));
    }
    if is_grpc {
        block.extend([literal(b"content-type", b"application/grpc"), literal(b"te", b"trailers")].concat());
    }
    let mut peer = Peer::connect(address).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    peer.send(bytes).await;
    loop {
        let Some(head) = peer.some(9).await else { return };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(_) = peer.some(length).await else { return };
        let (kind, flags, stream) = (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        let is_end = matches!(kind, 0 | HEADERS) && flags & END_STREAM != 0;
        if kind == GOAWAY || (stream == 1 && (is_end || kind == RST_STREAM)) {
            return;
        }
    }
}

/// Sends everything, and says what the origin should not have got.
async fn attack(filter: &str, configuration: &Value, path: &Value) -> Vec<String> {
    let origin = Answering::new(|_| ok("served")).await;
    let proxy = Proxy::start(&config(origin.address, filter, configuration, path)).await;
    let address = proxy.address("web").await;
    let harmless = Spelling { method: "GET", target: b"/public".to_vec(), host: "a", lines: &["x-role: user"] };
    let mut bypasses = Vec::new();
    for protocol in ["HTTP/1", "HTTP/2", "gRPC"] {
        let already = origin.seen().len();
        for spelling in spellings().iter().chain([&harmless]) {
            let before = origin.seen().len();
            match protocol {
                "HTTP/1" => send_http1(address, spelling).await,
                _ => send_http2(address, spelling, protocol == "gRPC").await,
            }
            // The answer came after what the origin got.
            for (_, request) in &origin.seen()[before..] {
                let target = String::from_utf8_lossy(&spelling.target);
                bypasses.extend(objection(request).map(|what| format!("{protocol} {filter} {path}: {target:?}: {what}")));
            }
        }
        let seen = origin.seen();
        assert_eq!(seen.last().unwrap().1.path(), "/public", "what is allowed is served");
        assert!(seen.len() > already + 5, "{protocol}: nearly nothing got through: {}", seen.len());
    }
    bypasses
}

async fn no_bypass_of(index: usize) {
    let (filter, configuration) = &filters()[index];
    let mut bypasses = Vec::new();
    for path in normalizations() {
        bypasses.extend(attack(filter, configuration, &path).await);
    }
    assert!(bypasses.is_empty(), "{} bypasses:\n{}", bypasses.len(), bypasses.join("\n"));
}

#[test]
fn there_are_enough_spellings_of_one_path() {
    let mut meant: Vec<&str> = PATHS.iter().copied().filter(|path| is_protected(path).is_some()).collect();
    meant.extend(RAW_TARGETS.iter().filter_map(|target| std::str::from_utf8(target).ok()).filter(|target| is_protected(target).is_some()));
    assert!(meant.len() >= 60, "{}", meant.len());
    assert!(is_protected("/public").is_none() && is_protected("/administrator").is_none());
}

#[tokio::test]
async fn no_spelling_gets_past_a_policy_that_denies() {
    no_bypass_of(0).await;
}

#[tokio::test]
async fn no_spelling_gets_past_a_policy_that_allows() {
    no_bypass_of(1).await;
}

#[tokio::test]
async fn no_spelling_gets_past_a_rule_of_deny() {
    no_bypass_of(2).await;
}
