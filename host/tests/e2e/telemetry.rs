//! The telemetry filter in the real proxy: what it counts reaches a real Prometheus, what it logs reaches files, and its spans fit together across two
//! proxies at a receiver of OTLP.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};

use super::support::*;

/// Everything to `origin`, through these filters and then telemetry.
fn observed(origin: std::net::SocketAddr, before: Value, telemetry: &Value) -> Value {
    let mut config = to_origin(origin);
    http(&mut config)["filterChain"] = json!("main");
    let mut filters = before;
    filters.as_array_mut().unwrap().push(json!({
        "name": "telemetry", "phase": "stats", "module": { "builtin": "telemetry" }, "config": telemetry,
        "accessLogs": ["*"], "upstreams": ["*"],
    }));
    config["filterChains"] = json!([{ "name": "main", "filters": filters }]);
    config
}

/// A configuration with a collector beside its origin.
fn with_collector(mut config: Value, collector: std::net::SocketAddr) -> Value {
    let more = cluster("collector", &[collector]);
    config["clusters"].as_array_mut().unwrap().push(more);
    config
}

/// A program of the machine's, if it is there.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        println!("{name} is not here: its part of the test is left out");
    }
    found
}

/// The value of a series on a page of metrics: the line that has all of these texts.
fn sample(page: &str, texts: &[&str]) -> Option<f64> {
    let line = page.lines().find(|line| !line.starts_with('#') && texts.iter().all(|text| line.contains(text)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

const WORKLOAD: &str = "web-v1";

fn counting() -> Value {
    json!({ "workload": { "name": WORKLOAD, "namespace": "shop", "app": "web", "version": "v1", "service": "web.shop.svc.cluster.local" } })
}

#[tokio::test]
async fn requests_of_every_kind_are_counted_under_istios_names() {
    let origin = Answering::new(|request| if request.path() == "/broken" { String::new() } else { ok("served") }).await;
    let deny = json!([{ "name": "deny", "module": { "builtin": "deny" },
        "config": { "rules": [{ "name": "no", "when": { "path": { "prefix": "/denied" } } }] } }]);
    let proxy = Proxy::start(&observed(origin.address, deny, &counting())).await;
    for (path, status) in [("/", 200), ("/", 200), ("/denied", 403), ("/broken", 503)] {
        assert_eq!(proxy.get(path).await.status(), status, "{path}");
    }
    let page = proxy.page("/metrics").await.1;
    let count = |texts: &[&str]| sample(&page, &[&["istio_requests_total{"], texts].concat());
    assert_eq!(count(&["response_code=\"200\"", "response_flags=\"-\"", "destination_workload=\"web-v1\""]), Some(2.0), "{page}");
    assert_eq!(count(&["response_code=\"403\"", "response_flags=\"FR\""]), Some(1.0), "{page}");
    assert_eq!(count(&["response_code=\"503\"", "response_flags=\"UC", "destination_service_name=\"web\""]), Some(1.0), "{page}");
    let durations = sample(&page, &["istio_request_duration_milliseconds_count{", "response_code=\"200\""]);
    assert_eq!(durations, Some(2.0));
    assert_eq!(sample(&page, &["istio_response_bytes_sum{", "response_code=\"200\""]), Some(12.0));
}

#[tokio::test]
async fn grpc_messages_are_counted_on_their_way() {
    let origin = Origin::bind().await;
    let mut config = observed(origin.address, json!([]), &json!({}));
    config["clusters"][0]["protocol"] = json!("http2");
    let mut calls = h2_origin(origin);
    let proxy = Proxy::start(&config).await;
    let stream = tokio::net::TcpStream::connect(proxy.address("web").await).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::post("http://a/shop.Reviews/Watch").header("content-type", "application/grpc+proto").header("te", "trailers");
    let (response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    // Two messages, cut where it is inconvenient.
    body.send_data("\0\0\0".into(), false).unwrap();
    body.send_data("\0\x02hi\0\0\0\0\0".into(), true).unwrap();
    let (_, mut respond) = within("a call", calls.recv()).await.unwrap();
    let answer = http::Response::builder().header("content-type", "application/grpc+proto").body(()).unwrap();
    let mut answer = respond.send_response(answer, false).unwrap();
    answer.send_data("\0\0\0\0\x01x\0\0\0\0\x01y\0\0\0\0\x01z".into(), false).unwrap();
    answer.send_trailers(http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "5".parse().unwrap())])).unwrap();
    let mut response = within("an answer", response).await.unwrap().into_body();
    h2_body(&mut response).await;
    within("trailers", response.trailers()).await.unwrap();
    until("the metrics", async || {
        let page = proxy.page("/metrics").await.1;
        let count = |name: &str| sample(&page, &[name, "request_protocol=\"grpc\"", "grpc_response_status=\"5\""]);
        (count("istio_requests_total")? == 1.0).then_some(())?;
        assert_eq!((count("istio_request_messages_total"), count("istio_response_messages_total")), (Some(2.0), Some(3.0)), "{page}");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn connections_are_counted_with_their_bytes() {
    let origin = Origin::bind().await;
    let mut config = observed(
        origin.address,
        json!([]),
        &json!({ "reporter": "source", "accessLogs": [{ "path": "tcp.log",
        "text": "%BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%" }] }),
    );
    config["listeners"][0]["branches"] = json!([{ "tcp": { "filterChain": "main", "clusters": [{ "name": "origin" }],
        "accessLog": { "path": "access.log", "format": "json", "fallback": true } } }]);
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.client().await;
    client.send("hello").await;
    let mut upstream = origin.accept().await;
    assert_eq!(upstream.exactly(5).await, b"hello");
    upstream.send("goodbye").await;
    assert_eq!(client.exactly(7).await, b"goodbye");
    let page = proxy.page("/metrics").await.1;
    let opened = ["istio_tcp_connections_opened_total{", "destination_service=\"origin\"", "reporter=\"source\""];
    assert_eq!(sample(&page, &opened), Some(1.0), "{page}");
    drop((client, upstream));
    until("the end of the connection", async || {
        let page = proxy.page("/metrics").await.1;
        (sample(&page, &["istio_tcp_connections_closed_total{", "request_protocol=\"tcp\""])? == 1.0).then_some(())?;
        let bytes = |name: &str| sample(&page, &[name]);
        assert_eq!((bytes("istio_tcp_received_bytes_total{"), bytes("istio_tcp_sent_bytes_total{")), (Some(5.0), Some(7.0)), "{page}");
        Some(())
    })
    .await;
    let log = proxy.folder.path().join("tcp.log");
    let lines = until("a line", async || std::fs::read_to_string(&log).ok().filter(|text| text.ends_with('\n'))).await;
    assert!(lines.starts_with("5 7 origin "), "{lines}");
    assert!(!proxy.folder.path().join("access.log").exists(), "the filter has logged it");
}

#[tokio::test]
async fn a_filter_logs_in_the_proxys_place_with_what_was_decided() {
    let origin = Answering::new(|_| ok("served")).await;
    let before = json!([{ "name": "deny", "module": { "builtin": "deny" }, "config": { "rules": [
        { "name": "watch \"all\"", "dryRun": true }, { "name": "admin", "when": { "path": { "prefix": "/admin" } } },
    ] } }]);
    let telemetry = json!({ "accessLogs": [{ "path": "requests.log", "json": {
        "path": "%REQ(:PATH)%", "code": "%RESPONSE_CODE%", "why": "%RESPONSE_CODE_DETAILS%", "decided": "%FILTER_STATE(weir.decision)%",
    }, "when": { "status": [{ "from": 200, "to": 499 }] } }] });
    let mut config = observed(origin.address, before, &telemetry);
    http(&mut config)["accessLog"] = json!({ "path": "access.log", "format": "json", "fallback": true });
    let proxy = Proxy::start(&config).await;
    assert_eq!(proxy.get("/fine").await.status(), 200);
    assert_eq!(proxy.get("/admin").await.status(), 403);
    let log = proxy.folder.path().join("requests.log");
    let lines = |count: usize| {
        let log = log.clone();
        async move {
            until("lines of the filter's", async || {
                let text = std::fs::read_to_string(&log).ok()?;
                let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                (lines.len() >= count).then_some(lines)
            })
            .await
        }
    };
    let two = lines(2).await;
    assert_eq!((&two[0]["path"], &two[0]["code"], &two[0]["why"]), (&json!("/fine"), &json!(200), &json!("via_upstream")));
    let revision = two[1]["decided"][1]["revision"].clone();
    assert!(revision.as_u64() > Some(0), "{two:?}");
    let watched = json!({ "filter": "main/deny", "rule": "watch \"all\"", "verdict": "would_refuse", "revision": revision });
    let refused = json!({ "filter": "main/deny", "rule": "admin", "verdict": "refuse", "revision": revision });
    assert_eq!(two[0]["decided"], json!([watched]));
    assert_eq!((&two[1]["why"], &two[1]["decided"]), (&json!("denied_by{admin}"), &json!([watched, refused])));
    assert!(!proxy.folder.path().join("access.log").exists(), "the proxy's own log steps back");

    // Rotation: a file that was renamed is opened again.
    std::fs::rename(&log, proxy.folder.path().join("requests.log.1")).unwrap();
    until("a line in the new file", async || {
        assert_eq!(proxy.get("/fine").await.status(), 200);
        std::fs::read_to_string(&log).ok().filter(|text| text.contains("/fine"))
    })
    .await;

    // Without the filter's log the proxy's is written, and says what was decided too.
    let mut config = observed(origin.address, config["filterChains"][0]["filters"].as_array().unwrap()[..1].into(), &json!({}));
    http(&mut config)["accessLog"] = json!({ "path": "access.log", "format": "json", "fallback": true });
    proxy.rewrite(&config);
    let own = until("a line of the proxy's", async || {
        assert_eq!(proxy.get("/admin").await.status(), 403);
        let text = std::fs::read_to_string(proxy.folder.path().join("access.log")).ok()?;
        text.lines().next().map(|line| serde_json::from_str::<Value>(line).unwrap())
    })
    .await;
    assert_eq!((&own["decision"][1]["rule"], &own["decision"][1]["verdict"]), (&json!("admin"), &json!("refuse")), "{own}");
}

/// What a collector has received.
#[derive(Clone, Default)]
struct Received {
    /// The service that reports, and its span.
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    /// The lines of logs, each with its trace.
    logs: Arc<Mutex<Vec<(String, Vec<u8>)>>>,
}

impl Received {
    /// A collector, which refuses its first request for now.
    async fn collector(&self) -> Answering {
        let (received, refused) = (self.clone(), Mutex::new(false));
        Answering::new(move |request| {
            if !std::mem::replace(&mut *refused.lock().unwrap(), true) {
                return "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".into();
            }
            assert_eq!((request.header("content-type"), request.header("x-key")), (Some("application/x-protobuf"), Some("secret")));
            match request.path() {
                "/v1/traces" => received.traces(&ExportTraceServiceRequest::decode(&*request.body).unwrap()),
                "/v1/logs" => received.lines(&ExportLogsServiceRequest::decode(&*request.body).unwrap()),
                other => panic!("{other}"),
            }
            ok("")
        })
        .await
    }

    fn traces(&self, export: &ExportTraceServiceRequest) {
        for resource in &export.resource_spans {
            let service = tags(&resource.resource.as_ref().unwrap().attributes)["service.name"].clone();
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            self.spans.lock().unwrap().extend(spans.map(|span| (service.clone(), span.clone())));
        }
    }

    fn lines(&self, export: &ExportLogsServiceRequest) {
        let records = export.resource_logs.iter().flat_map(|resource| &resource.scope_logs).flat_map(|scope| &scope.log_records);
        let line = |body: &Option<Any>| match body {
            Some(Any::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        self.logs.lock().unwrap().extend(records.map(|record| (line(&record.body.as_ref().unwrap().value), record.trace_id.clone())));
    }
}

fn tags(list: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<Any>| match value {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    list.iter().map(|pair| (pair.key.clone(), text(&pair.value.as_ref().unwrap().value))).collect()
}

/// A gateway, and behind it a proxy of the origin; both report to the collector.
async fn two_proxies(origin: std::net::SocketAddr, collector: std::net::SocketAddr) -> (Proxy, Proxy) {
    let otlp = json!({ "cluster": "collector", "headers": { "X-Key": "secret" } });
    let telemetry = |service: &str, reporter: &str, spans: &str| {
        json!({
            "reporter": reporter, "workload": { "canonicalService": service }, "report": { "intervalMs": 50 },
            "tracing": { "percent": 100, "spans": spans, "otlp": otlp, "tags": { "tenant": { "header": "x-tenant" }, "zone": { "literal": "z1" } } },
            "accessLogs": [{ "otlp": otlp, "text": "%REQ(:PATH)% %TRACE_ID%" }],
        })
    };
    let inner = observed(origin, json!([]), &telemetry("inner", "destination", "auto"));
    let inner = Proxy::start(&with_collector(inner, collector)).await;
    let outer = observed(inner.address("web").await, json!([]), &telemetry("gateway", "source", "both"));
    let outer = Proxy::start(&with_collector(outer, collector)).await;
    (outer, inner)
}

#[tokio::test]
async fn spans_fit_together_across_two_proxies() {
    let received = Received::default();
    let collector = received.collector().await;
    let origin = Answering::new(|_| ok("served")).await;
    let (outer, _inner) = two_proxies(origin.address, collector.address).await;
    let mut client = outer.client().await;
    let (trace, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    client
        .send(format!("GET /traced HTTP/1.1\r\nhost: a\r\ntraceparent: 00-{trace}-{caller}-01\r\ntracestate: x=1\r\nx-tenant: t9\r\n\r\n"))
        .await;
    assert_eq!(client.message().await.text(), "served");
    client.send(format!("GET /quiet HTTP/1.1\r\nhost: a\r\ntraceparent: 00-{trace}-{caller}-00\r\n\r\n")).await;
    assert_eq!(client.message().await.text(), "served");
    client.send(get("/begins")).await;
    assert_eq!(client.message().await.text(), "served");

    let spans = until("the spans", async || {
        let spans = received.spans.lock().unwrap().clone();
        (spans.len() >= 6).then_some(spans)
    })
    .await;
    assert_eq!(spans.len(), 6, "three for each request that is recorded: {spans:?}");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let of = |trace: &str, service: &str, kind: i32| {
        let found = spans.iter().find(|(name, span)| name == service && span.kind == kind && hex(&span.trace_id) == trace);
        found.unwrap_or_else(|| panic!("{trace} {service} {kind}: {spans:?}")).1.clone()
    };
    let (server, client) = (2, 3);
    let begun = spans.iter().map(|(_, span)| hex(&span.trace_id)).find(|id| id != trace).unwrap();
    for (trace, caller) in [(trace, caller), (&*begun, "")] {
        let (first, second, third) = (of(trace, "gateway", server), of(trace, "gateway", client), of(trace, "inner", server));
        assert_eq!(hex(&first.parent_span_id), caller, "the caller's span is above");
        assert_eq!(second.parent_span_id, first.span_id, "the gateway's client is below its server");
        assert_eq!(third.parent_span_id, second.span_id, "the next proxy is below that");
        assert!(
            first.start_time_unix_nano <= third.start_time_unix_nano && third.end_time_unix_nano <= first.end_time_unix_nano + 50_000_000
        );
        assert!(third.start_time_unix_nano < third.end_time_unix_nano);
    }
    // What reached the origin names the last span, and keeps the vendors' state.
    let seen = origin.seen();
    let traced = seen.iter().find(|(_, request)| request.path() == "/traced").unwrap();
    let last = hex(&of(trace, "inner", server).span_id);
    assert_eq!(traced.1.header("traceparent"), Some(&*format!("00-{trace}-{last}-01")));
    assert_eq!(traced.1.header("tracestate"), Some("x=1"));
    let quiet = seen.iter().find(|(_, request)| request.path() == "/quiet").unwrap();
    let quiet = quiet.1.header("traceparent").unwrap();
    assert!(quiet.starts_with(&format!("00-{trace}-")) && quiet.ends_with("-00"), "{quiet}");
    has_tags(&of(trace, "inner", server));
    until("the log records", async || {
        let logs = received.logs.lock().unwrap().clone();
        let traced = logs.iter().filter(|(line, id)| *line == format!("/traced {trace}") && hex(id) == trace).count();
        let quiet = logs.iter().filter(|(line, id)| line == "/quiet -" && id.is_empty()).count();
        ((traced, quiet) == (2, 2)).then_some(())
    })
    .await;
}

fn has_tags(span: &Span) {
    let tags = tags(&span.attributes);
    for (name, value) in [
        ("http.method", "GET"),
        ("http.url", "http://a/traced"),
        ("http.status_code", "200"),
        ("upstream_cluster", "origin"),
        ("istio.canonical_service", "inner"),
        ("tenant", "t9"),
        ("zone", "z1"),
    ] {
        assert_eq!(tags.get(name).map(String::as_str), Some(value), "{name}: {tags:?}");
    }
}

/// A Prometheus in a process of its own. Ends with this value.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Prometheus {
    /// One that scrapes `target` every second, and where it answers.
    async fn start(program: &Path, folder: &Path, target: std::net::SocketAddr) -> (Self, std::net::SocketAddr) {
        let config = format!("scrape_configs: [{{job_name: weir, scrape_interval: 1s, static_configs: [{{targets: ['{target}']}}]}}]");
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let mut child = Command::new(program)
            .args(["--config.file=prometheus.yml", "--web.listen-address=127.0.0.1:0", "--storage.tsdb.path=data"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
        let address = Arc::<Mutex<Option<std::net::SocketAddr>>>::default();
        let found = Arc::clone(&address);
        // Reads on to the end, so that nobody waits for room in the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.contains("Listening on")) {
                *found.lock().unwrap() = line.rsplit_once("address=").and_then(|(_, address)| address.trim().parse().ok());
            }
        });
        let prometheus = Self(child);
        let address = until("Prometheus", async || *address.lock().unwrap()).await;
        (prometheus, address)
    }
}

/// What `promtool` says of names that are Istio's, and not to be changed.
fn is_istios(finding: &str) -> bool {
    finding.starts_with("istio_")
}

#[tokio::test]
async fn a_real_prometheus_scrapes_and_finds_nothing_to_complain_of() {
    let origin = Answering::new(|_| ok("served")).await;
    let proxy = Proxy::start(&observed(origin.address, json!([]), &counting())).await;
    for _ in 0..5 {
        assert_eq!(proxy.get("/").await.status(), 200);
    }
    if let Some(promtool) = program("promtool") {
        let page = proxy.page("/metrics").await.1;
        let mut lint = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut lint.stdin.take().unwrap(), page.as_bytes()).unwrap();
        let output = lint.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let findings: Vec<&str> = said.lines().filter(|line| !is_istios(line)).collect();
        assert!(findings.is_empty(), "{findings:#?}");
        // 3: there are findings, and those are Istio's. Anything else would be a page that cannot be read.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    }
    let Some(prometheus) = program("prometheus") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (_prometheus, address) = Prometheus::start(&prometheus, folder.path(), proxy.admin).await;
    let query = "/api/v1/query?query=sum(istio_requests_total%7Bdestination_workload%3D%22web-v1%22,response_code%3D%22200%22%7D)";
    until("the series in Prometheus", async || {
        let answer: Value = serde_json::from_slice(&get_from(address, query).await.body).ok()?;
        (answer["data"]["result"][0]["value"][1] == "5").then_some(())
    })
    .await;
}
