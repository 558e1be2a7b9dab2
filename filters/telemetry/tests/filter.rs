//! The filter at work: the same expectations of its native code and of the module that ships.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::time::Duration;

use weir_filter_telemetry::Observer;
use weir_sdk_testing::host_api::metrics::{Series, Value as Measured};
use weir_sdk_testing::{MemoryStream, Tester, Value, Worker};

fn both(configuration: &str, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<Observer>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        let tester = tester.configuration(configuration).may_log(&["stdout", "/log"]).may_call(&["collector"]);
        check(&tester.start().unwrap_or_else(|error| panic!("{error}")));
    }
}

fn text(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec().into())
}

/// What a proxy knows of a request.
fn known(stream: &mut MemoryStream) {
    for (path, value) in [
        ("xds.cluster_name", "outbound|9080||reviews.shop.svc.cluster.local"),
        ("xds.route_name", "reviews"),
        ("request.protocol", "HTTP/1.1"),
        ("connection.uri_san_peer_certificate", "spiffe://mesh/ns/front/sa/web"),
        ("response.code_details", "via_upstream"),
        ("source.address", "10.0.0.9:41000"),
        ("destination.address", "10.0.0.1:80"),
        ("upstream.address", "10.0.0.2:9080"),
    ] {
        stream.set_attribute_value(path, text(value));
    }
    stream.set_attribute_value("connection.mtls", Value::Bool(true));
    stream.set_attribute_value("response.flags", Value::Int(0));
    stream.set_attribute_value("request.time", Value::Time(1_795_254_060_123_456_789));
    stream.set_attribute_value("request.duration", Value::Duration(12_345_678));
    stream.set_attribute_value("response.backend_latency", Value::Duration(11_000_000));
}

/// The series of a metric: labels, and the value or the count.
fn series(worker: &Worker, name: &str) -> Vec<(BTreeMap<String, String>, i64)> {
    let all = worker.filter().binding().metrics().snapshot();
    let one = |series: &Series| {
        let labels = series.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let value = match &series.value {
            Measured::Counter(count) => count.cast_signed(),
            Measured::Gauge(value) => *value,
            Measured::Histogram(histogram) => histogram.count().cast_signed(),
        };
        (labels, value)
    };
    all.iter().filter(|series| &*series.name == name).map(one).collect()
}

const WORKLOAD: &str = r#""workload": {"name": "reviews-v1", "namespace": "shop", "cluster": "east", "app": "reviews", "version": "v1",
    "canonicalService": "reviews", "canonicalRevision": "v1", "service": "reviews.shop.svc.cluster.local"}"#;

#[test]
fn a_request_has_istios_labels() {
    both(&format!("{{{WORKLOAD}}}"), |worker| {
        for _ in 0..3 {
            assert_eq!(worker.get("/").stream(known).run().status(), 200);
        }
        let requests = series(worker, "istio_requests_total");
        assert_eq!(requests.len(), 1, "one combination of labels: {requests:?}");
        let (labels, count) = &requests[0];
        assert_eq!(*count, 3);
        let expected = [
            ("connection_security_policy", "mutual_tls"),
            ("destination_app", "reviews"),
            ("destination_canonical_revision", "v1"),
            ("destination_canonical_service", "reviews"),
            ("destination_cluster", "east"),
            ("destination_principal", "unknown"),
            ("destination_service", "reviews.shop.svc.cluster.local"),
            ("destination_service_name", "reviews"),
            ("destination_service_namespace", "shop"),
            ("destination_version", "v1"),
            ("destination_workload", "reviews-v1"),
            ("destination_workload_namespace", "shop"),
            ("reporter", "destination"),
            ("request_protocol", "http"),
            ("response_code", "200"),
            ("response_flags", "-"),
            ("source_app", "unknown"),
            ("source_canonical_revision", "unknown"),
            ("source_canonical_service", "unknown"),
            ("source_cluster", "unknown"),
            ("source_principal", "spiffe://mesh/ns/front/sa/web"),
            ("source_version", "unknown"),
            ("source_workload", "unknown"),
            ("source_workload_namespace", "front"),
        ];
        assert_eq!(labels.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);
        for name in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
            assert_eq!(series(worker, name), [(labels.clone(), 3)], "{name}");
        }
    });
}

#[test]
fn the_calling_side_knows_the_endpoint_and_grpc_has_labels_of_its_own() {
    both(r#"{"reporter": "source", "workload": {"name": "web", "principal": "spiffe://mesh/ns/front/sa/web"}}"#, |worker| {
        let grpc = worker.request("POST", "/shop.Reviews/Get").header("content-type", "application/grpc").stream(|stream| {
            known(stream);
            let labels = [("workload", "reviews-v2;shop;reviews;v2;west"), ("app", "reviews"), ("version", "v2")];
            let labels = labels.map(|(name, value)| (name.as_bytes().to_vec().into(), value.as_bytes().to_vec().into()));
            stream.set_attribute_value("xds.upstream_host_metadata", Value::Map(labels.into()));
            stream.set_attribute_value("request.grpc_messages", Value::Int(2));
            stream.set_attribute_value("response.grpc_messages", Value::Int(5));
        });
        let done = grpc.upstream(200, &[("content-type", "application/grpc")], &["x"]).upstream_trailers(&[("grpc-status", "5")]).run();
        drop(done);
        let requests = series(worker, "istio_requests_total");
        let (labels, _) = &requests[0];
        for (name, value) in [
            ("reporter", "source"),
            ("request_protocol", "grpc"),
            ("grpc_response_status", "5"),
            ("source_workload", "web"),
            ("destination_workload", "reviews-v2"),
            ("destination_workload_namespace", "shop"),
            ("destination_canonical_service", "reviews"),
            ("destination_version", "v2"),
            ("destination_cluster", "west"),
            ("destination_service_name", "reviews"),
            ("connection_security_policy", "unknown"),
        ] {
            assert_eq!(labels.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(series(worker, "istio_request_messages_total")[0].1, 2);
        assert_eq!(series(worker, "istio_response_messages_total")[0].1, 5);
    });
}

#[test]
fn overrides_change_remove_and_leave_out() {
    let configuration = r#"{"metrics": {"overrides": [
        {"tags": {"source_app": "remove", "request_host": {"attribute": "request.host"}, "team": {"literal": "a"}}},
        {"metric": "requestCount", "tags": {"user": {"header": "X-User"}, "port": {"attribute": "destination.port"}}},
        {"metric": "requestDuration", "disabled": true},
        {"metric": "responseSize", "disabled": true, "mode": "client"},
        {"metric": "requestSize", "disabled": true, "mode": "server"}
    ]}}"#;
    both(configuration, |worker| {
        for user in ["anna", "bert", "anna"] {
            let port = |stream: &mut MemoryStream| stream.set_attribute_value("destination.port", Value::Int(8080));
            assert_eq!(worker.get("/").header("x-user", user).stream(port).run().status(), 200);
        }
        let requests = series(worker, "istio_requests_total");
        let users: Vec<(&str, i64)> = requests.iter().map(|(labels, count)| (&*labels["user"], *count)).collect();
        assert_eq!(users, [("anna", 2), ("bert", 1)]);
        let labels = &requests[0].0;
        assert_eq!((&*labels["request_host"], &*labels["team"], &*labels["port"]), ("test.example", "a", "8080"));
        assert!(!labels.contains_key("source_app") && labels.contains_key("source_version"));
        assert!(series(worker, "istio_request_duration_milliseconds").is_empty() && series(worker, "istio_request_bytes").is_empty());
        assert_eq!(series(worker, "istio_response_bytes")[0].1, 3, "one series: the user is a label of the other metric only");
    });
}

#[test]
fn one_host_call_reads_and_one_counts_each_metric() {
    let worker = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration("{}").start().unwrap();
    // Read, one counter, three histograms.
    worker.budget(|worker| worker.get("/").stream(known).run()).host_calls(5).micros(2_000.0);
    let one = r#"{"metrics": {"overrides": [{"metric": "requestSize", "disabled": true}, {"metric": "responseSize", "disabled": true}]}}"#;
    let worker = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(one).start().unwrap();
    worker.budget(|worker| worker.get("/").stream(known).run()).host_calls(3);
    let log = r#"{"metrics": {"disabled": true}, "accessLogs": [{"path": "stdout"}]}"#;
    let worker = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(log).may_log(&["stdout"]).start().unwrap();
    worker.budget(|worker| worker.get("/").stream(known).run()).host_calls(2);
    let trace = r#"{"metrics": {"disabled": true}, "tracing": {"percent": 0}}"#;
    let worker = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(trace).start().unwrap();
    worker.budget(|worker| worker.get("/").stream(known).run()).host_calls(2);
}

#[test]
fn however_many_labels_clients_bring_the_limit_holds() {
    let configuration = r#"{"metrics": {"overrides": [{"metric": "requestCount", "tags": {"user": {"header": "x-user"}}}]}}"#;
    let worker =
        Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(configuration).binding(|binding| binding.limits.metric_series = 20);
    let worker = worker.start().unwrap();
    for user in 0..5000 {
        assert_eq!(worker.get("/").header("x-user", &user.to_string()).run().status(), 200);
    }
    let metrics = worker.filter().binding().metrics();
    assert!(metrics.series() <= 20 && metrics.series_dropped() > 4000, "{} {}", metrics.series(), metrics.series_dropped());
    assert!(worker.stats().peak_instance_memory < 16 << 20, "{}", worker.stats().peak_instance_memory);
    assert_eq!(worker.metric("overflow_counter").map(|count| count > 4900), Some(true));
}

#[test]
fn connections_are_counted_when_they_open_and_when_they_close() {
    for tester in [Tester::native::<Observer>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        let tester = tester.configuration("{}").tcp();
        let worker = tester.start().unwrap_or_else(|error| panic!("{error}"));
        let mut connection = worker.connect();
        assert_eq!(series(&worker, "istio_tcp_connections_opened_total")[0].1, 1);
        assert!(series(&worker, "istio_tcp_connections_closed_total").iter().all(|(_, count)| *count == 0));
        connection.stream.host_mut().set_attribute_value("connection.received_bytes", Value::Int(5));
        connection.stream.host_mut().set_attribute_value("connection.sent_bytes", Value::Int(6_000_000_000));
        connection.stream.finish();
        let (labels, count) = &series(&worker, "istio_tcp_connections_closed_total")[0];
        assert_eq!((*count, &*labels["request_protocol"], labels.contains_key("response_code")), (1, "tcp", false));
        assert_eq!(series(&worker, "istio_tcp_received_bytes_total")[0].1, 5);
        assert_eq!(series(&worker, "istio_tcp_sent_bytes_total")[0].1, 6_000_000_000);
    }
}

#[test]
fn the_default_line_is_istios() {
    both(r#"{"accessLogs": [{"path": "stdout"}]}"#, |worker| {
        let mut done = worker.request("GET", "/status?x=1").header("user-agent", "curl/8 (a \"b\")").stream(known).run();
        done.stream.finish();
        assert!(done.stream.host().logged);
        drop(done);
        let line = "[2026-11-21T09:41:00.123Z] \"GET /status?x=1 HTTP/1.1\" 200 - via_upstream - \"-\" 0 8 12 11 \"-\" \"curl/8 (a \\\"b\\\")\" \"-\" \
                    \"test.example\" \"10.0.0.2:9080\" outbound|9080||reviews.shop.svc.cluster.local - 10.0.0.1:80 10.0.0.9:41000 - reviews";
        assert_eq!(worker.host.access_log("stdout"), [line]);
    });
}

/// A format, and the line that it makes.
const LINES: &[(&str, &str)] = &[
    ("%REQ(X-MISSING?:PATH):5% %REQ(x-missing)%", "/a/b/ -"),
    ("%RESPONSE_CODE%%% %PROTOCOL% %%REQ", "200% HTTP/1.1 %REQ"),
    ("%START_TIME(%s.%3f %%)% %DURATION%ms", "1795254060.123 % 12ms"),
    ("%RESP(x-answer)% %RESP(x-no?X-ANSWER):3%", "a\\x20long\\x20answer a\\x20l"),
    ("\"%RESP(x-answer)%\"", "\"a long answer\""),
    ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.9 10.0.0.2"),
    ("%GRPC_STATUS% %GRPC_STATUS_NUMBER% %TRACE_ID% %VIRTUAL_CLUSTER_NAME%", "- - - -"),
    ("%FILTER_STATE(weir.decision)%", "-"),
    ("%ATTRIBUTE(connection.mtls)% %ATTRIBUTE(request.headers.x.y)%", "true dots"),
    ("%BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %ROUTE_NAME%\n", "0 8 - reviews"),
];

#[test]
fn operators_show_what_they_name() {
    for (format, expected) in LINES {
        let configuration = serde_json::json!({"accessLogs": [{"path": "/log", "text": format}]}).to_string();
        both(&configuration, |worker| {
            let request = worker.get("/a/b/c").header("x.y", "dots").stream(known);
            drop(request.upstream(200, &[("x-answer", "a long answer")], &["upstream"]).run());
            assert_eq!(worker.host.access_log("/log"), [*expected], "{format}");
        });
    }
}

#[test]
fn no_value_breaks_out_of_its_field_or_its_line() {
    let evil = "a\" 200\r\n[2026] \"GET \u{1b}[2J \u{202e}\\";
    let configuration = serde_json::json!({"accessLogs": [
        {"path": "stdout", "text": "\"%REQ(x-evil)%\" %REQ(x-evil)%"},
        {"path": "/log", "json": {"evil": "%REQ(x-evil)%", "more": "<%REQ(x-evil)%>", "in": {"deep": ["%RESPONSE_CODE%", 1, null]}}},
    ]});
    both(&configuration.to_string(), |worker| {
        drop(worker.get("/").header("x-evil", evil).run());
        let line = &worker.host.access_log("stdout")[0];
        let quoted = "a\\\" 200\\r\\n[2026] \\\"GET \\x1b[2J \\xe2\\x80\\xae\\\\";
        assert_eq!(*line, format!("\"{quoted}\" {}", quoted.replace(' ', "\\x20")));
        let line = &worker.host.access_log("/log")[0];
        assert!(!line.chars().any(|letter| letter.is_control() || letter == '\u{202e}'), "{line}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value, serde_json::json!({"evil": evil, "more": format!("<{evil}>"), "in": {"deep": [200, 1, null]}}));
    });
}

#[test]
fn a_log_has_the_requests_that_it_should() {
    for (when, expected) in [
        (r"{}", &["200", "404", "503"][..]),
        (r#"{"errorsOnly": true}"#, &["404", "503"]),
        (r#"{"status": [{"from": 200, "to": 299}, {"from": 500, "to": 599}]}"#, &["200", "503"]),
        (r#"{"minDurationMs": 13}"#, &[]),
        (r#"{"minDurationMs": 12, "errorsOnly": true}"#, &["404", "503"]),
        (r#"{"percent": 0}"#, &[]),
        (r#"{"percent": 100}"#, &["200", "404", "503"]),
    ] {
        let configuration = format!(r#"{{"accessLogs": [{{"path": "/log", "text": "%RESPONSE_CODE%", "when": {when}}}]}}"#);
        both(&configuration, |worker| {
            for status in [200, 404, 503] {
                let mut done = worker.get("/").stream(known).upstream(status, &[], &[]).run();
                done.stream.finish();
                assert!(done.stream.host().logged, "left out on purpose is not left to the proxy");
            }
            assert_eq!(worker.host.access_log("/log"), expected, "{when}");
        });
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_field() {
    for (configuration, field) in [
        (r#"{"accessLogs": [{"path": "stdout", "text": "%NOPE%"}]}"#, "accessLogs[0].text: there is no operator `%NOPE%` here; there are"),
        (r#"{"accessLogs": [{"path": "stdout", "text": "%REQ(a"}]}"#, "accessLogs[0].text"),
        (r#"{"accessLogs": [{"path": "stdout", "json": {"a": ["%START_TIME(%Q)%"]}}]}"#, "accessLogs[0].json.a[0]: `%Q`"),
        (r#"{"accessLogs": [{"path": "/etc/passwd"}]}"#, "accessLogs[0].path: the binding does not allow \"/etc/passwd\""),
        (r#"{"accessLogs": [{}]}"#, "accessLogs[0]: write where it goes"),
        (r#"{"accessLogs": [{"path": "stdout", "when": {"percent": 101}}]}"#, "accessLogs[0].when.percent"),
        (r#"{"metrics": {"overrides": [{"tags": {"a-b": "remove"}}]}}"#, "metrics.overrides[0].tags.a-b"),
        (r#"{"metrics": {"overrides": [{"tags": {"type": {"literal": "a"}}}]}}"#, "metrics.overrides[0].tags.type"),
        (r#"{"metrics": {"overrides": [{"metric": "requestcount"}]}}"#, "metrics.overrides[0].metric"),
        (r#"{"tracing": {"percent": -1}}"#, "tracing.percent"),
        (r#"{"tracing": {"propagation": []}}"#, "tracing.propagation"),
        (r#"{"tracing": {"otlp": {"cluster": ""}}}"#, "tracing.otlp.cluster"),
        (r#"{"tracing": {"otlp": {"cluster": "c", "path": "v1"}}}"#, "tracing.otlp.path"),
        (r#"{"trasing": {}}"#, "did you mean `tracing`?"),
    ] {
        for tester in [Tester::native::<Observer>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
            let error = tester.configuration(configuration).may_log(&["stdout"]).start().map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(field), "{configuration}: {error}");
        }
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

#[test]
fn a_trace_goes_on_or_begins() {
    both(r#"{"tracing": {"percent": 0}}"#, |worker| {
        let sent = |headers: &[(&str, &str)], name: &str| {
            let request = headers.iter().fold(worker.get("/"), |request, (name, value)| request.header(name, value));
            request.run().request_header(name)
        };
        let own = sent(&[], "traceparent").unwrap();
        assert!(own.starts_with("00-") && own.ends_with("-00") && own.len() == 55, "{own}");
        assert_ne!(own, sent(&[], "traceparent").unwrap());
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let on = sent(&[("traceparent", &parent), ("tracestate", "a=b")], "traceparent").unwrap();
        assert!(on.starts_with(&format!("00-{TRACE}-")) && on.ends_with("-01") && !on.contains(SPAN), "{on}");
        assert_eq!(sent(&[("traceparent", &parent), ("tracestate", "a=b")], "tracestate").as_deref(), Some("a=b"));
        assert_eq!(sent(&[("traceparent", "rubbish"), ("tracestate", "a=b")], "tracestate"), None);
        assert!(!sent(&[("traceparent", "rubbish")], "traceparent").unwrap().contains("rubbish"));
    });
    both(r#"{"tracing": {"percent": 0, "propagation": ["b3", "b3Single", "w3c"]}}"#, |worker| {
        let headers = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")];
        let done = headers.iter().fold(worker.get("/"), |request, (name, value)| request.header(name, value)).run();
        let header = |name: &str| done.request_header(name).unwrap();
        assert_eq!((header("x-b3-traceid"), header("x-b3-parentspanid"), header("x-b3-sampled")), (TRACE.into(), SPAN.into(), "1".into()));
        let span = header("x-b3-spanid");
        assert_eq!(header("b3"), format!("{TRACE}-{span}-1"));
        assert_eq!(header("traceparent"), format!("00-{TRACE}-{span}-01"));
        let done = worker.get("/").header("b3", "0").run();
        assert_eq!(done.request_header("x-b3-sampled").as_deref(), Some("0"));
    });
    both(r#"{"tracing": {"percent": 100, "followCaller": false}}"#, |worker| {
        let done = worker.get("/").header("traceparent", &format!("00-{TRACE}-{SPAN}-00")).run();
        assert!(done.request_header("traceparent").unwrap().ends_with("-01"), "decided here");
    });
}

#[test]
fn spans_wait_in_a_bounded_buffer_and_are_tried_again() {
    let configuration = r#"{"metrics": {"disabled": true}, "tracing": {"percent": 100, "zipkin": {"cluster": "collector", "headers": {"X-Key": "k"}}},
        "report": {"maxItems": 3, "attempts": 2, "batchItems": 2}, "workload": {"app": "web", "namespace": "shop"}}"#;
    both(configuration, |worker| {
        for path in ["/1", "/2", "/3", "/4", "/5"] {
            drop(worker.get(path).header("traceparent", &format!("00-{TRACE}-{SPAN}-01")).stream(known).run());
        }
        let dropped = |reason: &str| {
            let all = series(worker, "weir_telemetry_dropped_total");
            all.into_iter().find(|(labels, _)| labels["reason"] == reason).map(|(_, count)| count)
        };
        assert_eq!(dropped("full"), Some(2));
        worker.host.advance(Duration::from_secs(1));
        worker.run_timers();
        let mut calls = worker.host.take_callouts();
        assert_eq!(calls.len(), 2, "two batches");
        let (first, second) = (calls.remove(0), calls.remove(0));
        assert_eq!(
            (first.header(":path"), first.header("x-key"), first.header("content-type")),
            (Some("/api/v2/spans"), Some("k"), Some("application/json"))
        );
        let spans: serde_json::Value = serde_json::from_slice(&first.body).unwrap();
        assert_eq!(spans.as_array().map(Vec::len), Some(2));
        let span = &spans[0];
        assert_eq!((span["traceId"].as_str(), span["parentId"].as_str(), span["kind"].as_str()), (Some(TRACE), Some(SPAN), Some("SERVER")));
        assert_eq!((span["timestamp"].as_u64(), span["duration"].as_u64()), (Some(1_795_254_060_123_456), Some(12_345)));
        assert_eq!(span["localEndpoint"]["serviceName"], "web.shop");
        assert_eq!(
            (span["tags"]["http.url"].as_str(), span["tags"]["http.status_code"].as_str()),
            (Some("http://test.example/1"), Some("200"))
        );
        first.respond(202, &[], "");
        second.respond(503, &[], "");
        assert_eq!(series(worker, "weir_telemetry_sent_total")[0].1, 2);
        worker.host.advance(Duration::from_millis(300));
        worker.run_timers();
        let again = worker.host.take_callouts();
        assert_eq!(again.len(), 1, "tried again");
        again.into_iter().for_each(|call| call.respond(503, &[], ""));
        assert_eq!(dropped("refused"), Some(1), "twice is enough");
        drop(worker.get("/6").stream(known).run());
        assert_eq!(dropped("full"), Some(2), "there is room again");
    });
}
