//! The standard filters in Envoy: the same modules, configured alike, decide and count the same there as in the real proxy.
//!
//! Those that use no extension of Weir's, and telemetry's metrics, whose labels Envoy has as parts of a name. Where Envoy is not installed (`tests/setup.sh
//! peers` fetches it) there is nothing to compare with, and the test says so.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::support::*;

/// Filters, in request order, with what they are told.
fn filters() -> [(&'static str, Value); 3] {
    let rules = json!([
        { "name": "writes", "when": { "methods": ["POST"], "path": { "prefix": "/a" } }, "answer": { "status": 451, "body": "no", "headers": { "x-why": "policy" } } },
        { "name": "listed", "list": { "of": { "header": "x-user" }, "entries": ["eve"], "compare": "ignoreCase" } },
        { "name": "watched", "when": { "path": { "prefix": "/watched" } }, "dryRun": true },
    ]);
    [
        ("headers", json!({ "request": { "set": { "x-set": "1" }, "remove": ["x-secret"] }, "response": { "add": { "x-added": "2" } } })),
        ("deny", json!({ "rules": rules })),
        ("telemetry", json!({ "workload": { "name": "web-v1", "service": "web.shop.svc.cluster.local" } })),
    ]
}

fn envoy() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(cache.join("weir/peers")).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join("envoy")).find(|path| path.is_file())
}

/// An Envoy in a process of its own. Ends with this value.
struct Envoy {
    child: Child,
    admin: SocketAddr,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(folder: &Path, origin: SocketAddr) -> Value {
    let wasm = |(name, told): (&str, Value)| {
        let file = folder.join(format!("{name}.wasm"));
        std::fs::write(&file, weir_filters::builtin(name).unwrap().bytes).unwrap();
        json!({ "name": name, "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": {
            "name": name, "root_id": name,
            "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": told.to_string() },
            "vm_config": { "vm_id": name, "runtime": "envoy.wasm.runtime.v8", "code": { "local": { "filename": file } } },
        } } })
    };
    let mut chain: Vec<Value> = filters().into_iter().map(wasm).collect();
    chain.push(json!({ "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }));
    let here = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    let origin = json!({ "socket_address": { "address": origin.ip().to_string(), "port_value": origin.port() } });
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "origin" } });
    json!({
        "admin": { "address": here },
        "static_resources": {
            "listeners": [{ "name": "web", "address": here, "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "web", "generate_request_id": false,
                    "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
                    "http_filters": chain,
                },
            }] }] }],
            "clusters": [{ "name": "origin", "type": "STATIC", "load_assignment": { "cluster_name": "origin",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": origin } }] }] } }],
        },
    })
}

impl Envoy {
    async fn start(program: &Path, folder: &Path, origin: SocketAddr) -> Self {
        std::fs::write(folder.join("envoy.json"), configuration(folder, origin).to_string()).unwrap();
        let log = std::fs::File::create(folder.join("envoy.log")).unwrap();
        let mut child = Command::new(program)
            .args(["-c", "envoy.json", "--admin-address-path", "admin", "--disable-hot-restart", "--concurrency", "1", "-l", "warning"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let admin = until("Envoy", async || {
            let ended = child.try_wait().unwrap().is_some();
            assert!(!ended, "Envoy ended: {}", std::fs::read_to_string(folder.join("envoy.log")).unwrap_or_default());
            std::fs::read_to_string(folder.join("admin")).ok()?.parse().ok()
        })
        .await;
        Self { child, admin }
    }

    async fn address(&self) -> SocketAddr {
        until("Envoy's listener", async || {
            let page = get_from(self.admin, "/listeners?format=text").await;
            page.text().trim().strip_prefix("web::")?.parse().ok()
        })
        .await
    }
}

const REQUESTS: [&str; 6] = [
    "GET /a HTTP/1.1\r\nhost: a\r\nx-secret: s\r\nx-set: theirs\r\n\r\n",
    "POST /a/b HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    "GET /b HTTP/1.1\r\nhost: a\r\nx-user: EVE\r\n\r\n",
    "GET /b HTTP/1.1\r\nhost: a\r\nx-user: anna\r\n\r\n",
    "GET /watched HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /missing HTTP/1.1\r\nhost: a\r\n\r\n",
];

/// What came of the requests: as clients see it, and as the origin says that it saw it.
async fn outcomes(address: SocketAddr) -> Vec<String> {
    let mut outcomes = Vec::new();
    for request in REQUESTS {
        let mut client = Peer::connect(address).await;
        client.send(request).await;
        let response = client.message().await;
        let headers = ["x-added", "x-why", "x-from-origin"].map(|name| response.header(name).unwrap_or("-").to_owned());
        outcomes.push(format!("{} {} {headers:?}", response.status(), response.text()));
    }
    outcomes
}

#[tokio::test]
async fn filters_decide_and_count_the_same_in_envoy() {
    let Some(program) = envoy() else { return println!("Envoy is not here: nothing to compare with") };
    let origin = Answering::new(|request| {
        let seen = ["x-set", "x-secret"].map(|name| request.header(name).unwrap_or("-"));
        let status = if request.path() == "/missing" { "404 Not Found" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nx-from-origin: {seen:?}\r\ncontent-length: 2\r\n\r\nok")
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let envoy = Envoy::start(&program, folder.path(), origin.address).await;
    let mut config = to_origin(origin.address);
    http(&mut config)["filterChain"] = json!("main");
    let binding = |(name, told): (&str, Value)| json!({ "name": name, "module": { "builtin": name }, "config": told });
    config["filterChains"] = json!([{ "name": "main", "filters": filters().map(binding) }]);
    let proxy = Proxy::start(&config).await;

    let (here, there) = (outcomes(proxy.address("web").await).await, outcomes(envoy.address().await).await);
    assert_eq!(here, there);
    let statuses: Vec<&str> = here.iter().map(|one| &one[..3]).collect();
    assert_eq!(statuses, ["200", "451", "403", "200", "200", "404"]);
    assert!(here[0].contains(r#"[\"1\", \"-\"]"#), "{here:?}");

    until("the same numbers in Envoy", async || {
        let (page, stats) = (proxy.page("/metrics").await.1, get_from(envoy.admin, "/stats").await.text().to_owned());
        let counted = compare(&page, &stats);
        // Requests by status, and the three rules.
        (counted == Some(4 + 3)).then_some(())
    })
    .await;
}

/// How many series of the filters' counters have the same value in Envoy. `None`: one has not.
fn compare(page: &str, stats: &str) -> Option<usize> {
    let mut same = 0;
    for line in page.lines().filter(|line| line.starts_with("istio_requests_total{") || line.starts_with("wasm_weir_deny_requests_total{"))
    {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.trim_end_matches('}').split_once('{')?;
        // Only Weir's core has a flag for the answers of filters.
        let labels =
            labels.split(',').filter(|label| !label.starts_with("response_flags=")).map(|label| label.replace('=', ".").replace('"', ""));
        let labels: Vec<String> = labels.map(|label| format!(".{label}")).collect();
        let name = format!("wasmcustom.{}.", name.trim_start_matches("wasm_"));
        let is_it = |stat: &&str| {
            stat.starts_with(&name)
                && labels
                    .iter()
                    .all(|label| stat.split_once(": ").is_some_and(|(stat, _)| format!("{stat}.").contains(&format!("{label}."))))
        };
        let there = stats.lines().find(is_it)?;
        if there.rsplit_once(": ")?.1 != value {
            return None;
        }
        same += 1;
    }
    Some(same)
}
