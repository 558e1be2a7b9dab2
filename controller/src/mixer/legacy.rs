//! What stood in `config.istio.io` before Istio 0.8: RouteRule, EgressRule and DestinationPolicy.
//!
//! Their successors read the same in other words. A DestinationPolicy is translated, because each of its fields has one that means the same; rules of
//! routes are not, because those of one host were spread over objects and put in order by `precedence`. They are refused with what to write.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use weir_model::yaml::document::Way;

use crate::api::decode::decode;
use crate::api::istio::common::{Duration, Texts};
use crate::finding::{Code, Finding};
use crate::object::Object;

/// Reads one of them.
pub(super) fn read(object: &Object, replacements: &mut Vec<Object>, findings: &mut Vec<Finding>) {
    let way = Way::ROOT.key("spec");
    let found = match &*object.id.kind {
        "DestinationPolicy" => {
            let policy = decode::<DestinationPolicy>(&object.id, &way, object.spec());
            findings.extend(policy.findings);
            match policy.value.map(|policy| policy.destination_rule(object)) {
                Some(Ok(rule)) => {
                    let message = "a DestinationPolicy is read as the DestinationRule of the same name";
                    replacements.push(rule);
                    Finding::new(Code::NoEffect, &object.id, way, message).help("Write a DestinationRule of networking.istio.io/v1.")
                }
                Some(Err((field, message))) => Finding::new(Code::Unsupported, &object.id, field, message),
                None => return,
            }
        }
        "RouteRule" => Finding::new(Code::Unsupported, &object.id, way, "RouteRule ended with Istio 0.8").help(successor(object.spec())),
        _ => Finding::new(Code::Unsupported, &object.id, way, "EgressRule ended with Istio 0.8")
            .help("Write a ServiceEntry of networking.istio.io/v1 with location MESH_EXTERNAL, its hosts and ports."),
    };
    findings.push(found);
}

/// What to write instead of a RouteRule.
fn successor(spec: &Json) -> String {
    let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
    let host = text(spec.pointer("/destination/name")).or_else(|| text(spec.pointer("/destination/service"))).unwrap_or_default();
    let mut help = format!("Write a VirtualService of networking.istio.io/v1 for the host `{host}`");
    let routes = spec.get("route").and_then(Json::as_array);
    let labels: Vec<String> = routes
        .into_iter()
        .flatten()
        .filter_map(|route| route.get("labels").and_then(Json::as_object))
        .map(|labels| {
            labels.iter().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(", ")
        })
        .collect();
    if !labels.is_empty() {
        // Writing to a text does not fail.
        let _ = write!(help, ", and a DestinationRule with a subset for each of {{{}}}", labels.join("}, {"));
    }
    let fields =
        [("httpFault", "http.fault"), ("httpReqTimeout", "http.timeout"), ("httpReqRetries", "http.retries"), ("mirror", "http.mirror")];
    for (old, new) in fields.into_iter().filter(|(old, _)| spec.get(*old).is_some()) {
        let _ = write!(help, "; `{old}` is `{new}`");
    }
    if spec.get("precedence").is_some() {
        help.push_str("; instead of `precedence`, the first route that matches counts");
    }
    help + "."
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DestinationPolicy {
    destination: Destination,
    source: Option<Json>,
    load_balancing: Option<LoadBalancing>,
    circuit_breaker: Option<CircuitBreaker>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Destination {
    name: String,
    namespace: String,
    domain: String,
    service: String,
    labels: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancing {
    name: Option<String>,
    custom: Option<Json>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CircuitBreaker {
    simple_cb: Option<SimpleCb>,
    custom: Option<Json>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SimpleCb {
    max_connections: Option<i64>,
    http_max_pending_requests: Option<i64>,
    http_max_requests: Option<i64>,
    sleep_window: Option<Duration>,
    http_consecutive_errors: Option<i64>,
    http_detection_interval: Option<Duration>,
    http_max_requests_per_connection: Option<i64>,
    http_max_ejection_percent: Option<i64>,
    http_max_retries: Option<i64>,
}

impl DestinationPolicy {
    fn destination_rule(&self, object: &Object) -> Result<Object, (Way, String)> {
        let way = Way::ROOT.key("spec");
        if self.source.is_some() {
            return Err((way.key("source"), "a DestinationRule is for every client: `source` has no successor".into()));
        }
        let destination = &self.destination;
        let host = match (&*destination.service, &*destination.name, &*destination.namespace) {
            ("", "", _) => return Err((way.key("destination"), "`name` is missing".into())),
            ("", name, "") => name.to_owned(),
            ("", name, namespace) => {
                let domain = if destination.domain.is_empty() { "svc.cluster.local" } else { &destination.domain };
                format!("{name}.{namespace}.{domain}")
            }
            (service, ..) => service.to_owned(),
        };
        let policy = self.traffic_policy(&way)?;
        let spec = if destination.labels.is_empty() {
            json!({"host": host, "trafficPolicy": policy})
        } else {
            let name = destination.labels.values().cloned().collect::<Vec<_>>().join("-");
            json!({"host": host, "subsets": [{"name": name, "labels": destination.labels, "trafficPolicy": policy}]})
        };
        let body = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": &*object.id.name, "namespace": &*object.id.namespace, "creationTimestamp": &*object.meta.created},
            "spec": spec,
        });
        Object::read(&body)
    }

    fn traffic_policy(&self, way: &Way) -> Result<Json, (Way, String)> {
        let mut policy = Map::new();
        if let Some(balancing) = &self.load_balancing {
            let way = way.key("loadBalancing");
            let simple = match balancing.name.as_deref() {
                _ if balancing.custom.is_some() => return Err((way.key("custom"), "a load balancer of one's own".into())),
                None | Some("ROUND_ROBIN") => "ROUND_ROBIN",
                Some("LEAST_CONN") => "LEAST_REQUEST",
                Some("RANDOM") => "RANDOM",
                Some(other) => return Err((way.key("name"), format!("{other:?} is none of ROUND_ROBIN, LEAST_CONN and RANDOM"))),
            };
            policy.insert("loadBalancer".into(), json!({"simple": simple}));
        }
        if let Some(breaker) = &self.circuit_breaker {
            if breaker.custom.is_some() {
                return Err((way.key("circuitBreaker").key("custom"), "a circuit breaker of one's own".into()));
            }
            if let Some(simple) = &breaker.simple_cb {
                let (pool, outliers) = simple.successors();
                policy.extend((!pool.is_empty()).then(|| ("connectionPool".to_owned(), Json::Object(pool))));
                policy.insert("outlierDetection".into(), outliers);
            }
        }
        Ok(Json::Object(policy))
    }
}

impl SimpleCb {
    /// The connection pool, and what ejects endpoints: that has Istio's old defaults where nothing is written.
    fn successors(&self) -> (Map<String, Json>, Json) {
        let some = |pairs: &[(&str, Option<i64>)]| -> Map<String, Json> {
            pairs.iter().filter_map(|(name, value)| Some(((*name).to_owned(), Json::from((*value)?)))).collect()
        };
        let tcp = some(&[("maxConnections", self.max_connections)]);
        let http = some(&[
            ("http1MaxPendingRequests", self.http_max_pending_requests),
            ("http2MaxRequests", self.http_max_requests),
            ("maxRequestsPerConnection", self.http_max_requests_per_connection),
            ("maxRetries", self.http_max_retries),
        ]);
        let pool = [("tcp", tcp), ("http", http)].into_iter().filter(|(_, fields)| !fields.is_empty());
        let pool = pool.map(|(name, fields)| (name.to_owned(), Json::Object(fields))).collect();
        let time = |duration: Option<Duration>, default: &str| {
            duration.map_or_else(|| default.to_owned(), |duration| format!("{}ns", duration.nanos))
        };
        let outliers = json!({
            "consecutive5xxErrors": self.http_consecutive_errors.unwrap_or(5),
            "interval": time(self.http_detection_interval, "10s"),
            "baseEjectionTime": time(self.sleep_window, "30s"),
            "maxEjectionPercent": self.http_max_ejection_percent.unwrap_or(10),
        });
        (pool, outliers)
    }
}
