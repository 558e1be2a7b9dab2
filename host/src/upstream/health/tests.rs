//! Health checks against servers that are well, ill and slow.

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use weir_model::config;
use weir_model::config::health_check::Check as Given;

use super::probe::{GrpcRequest, GrpcResponse, framed};
use super::*;
use crate::upstream::options::{Check, ClusterOptions};
use crate::upstream::set::EndpointSet;

fn cluster(check: Given, addresses: &[String]) -> Arc<ClusterState> {
    let millis = |millis| Some(weir_model::protobuf::Duration { seconds: 0, nanos: millis * 1_000_000 });
    let config = config::Cluster {
        name: "checked".to_owned(),
        discovery: Some(config::cluster::Discovery::Endpoints(endpoints(addresses))),
        health_checks: vec![config::HealthCheck { interval: millis(5), timeout: millis(900), check: Some(check), ..Default::default() }],
        ..Default::default()
    };
    Arc::new(ClusterState::new(Arc::new(config), Arc::default(), None, 0).unwrap())
}

fn endpoints(addresses: &[String]) -> config::Endpoints {
    let endpoints = addresses.iter().map(|address| config::Endpoint { address: address.clone(), ..Default::default() }).collect();
    config::Endpoints { localities: vec![config::LocalityEndpoints { endpoints, ..Default::default() }], ..Default::default() }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Accepts forever; every connection is read once, and answered with what `answer` makes of it.
fn serve(listener: TcpListener, answer: impl Fn(&str) -> String + Send + Sync + 'static) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).await.unwrap_or(0);
            let _ = stream.write_all(answer(std::str::from_utf8(&buffer[..length]).unwrap()).as_bytes()).await;
        }
    });
}

async fn ask(check: Check, address: &str, http2: bool) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.unwrap();
    probe::ask(Box::new(stream), &check, http2).await.map_err(|error| error.to_string())
}

fn http(given: config::health_check::HttpCheck) -> Check {
    let check = config::HealthCheck { check: Some(Given::Http(given)), ..Default::default() };
    let cluster = config::Cluster { name: "checked".to_owned(), health_checks: vec![check], ..Default::default() };
    ClusterOptions::compile(&cluster).unwrap().health_checks.remove(0).check
}

#[test]
fn the_first_answer_decides_then_thresholds_do() {
    let options = ClusterOptions::compile(&config::Cluster { health_checks: vec![config::HealthCheck::default()], ..Default::default() });
    let options = options.unwrap().health_checks.remove(0);
    let mut tracker = Tracker::new(&options);
    let said = [true, false, false, true, false, false, false, true, false, true, true].map(|passed| tracker.record(passed));
    let (up, down) = (ActiveHealth::Healthy, ActiveHealth::Unhealthy);
    assert_eq!(said, [up, up, up, up, up, up, down, down, down, down, up]);
    assert_eq!(Tracker::new(&options).record(false), down);
}

#[test]
fn all_checks_must_pass() {
    use ActiveHealth::{Healthy, Unhealthy, Unknown};
    assert_eq!(
        [together(&[Healthy, Healthy]), together(&[Healthy, Unknown]), together(&[Unknown, Unhealthy])],
        [Healthy, Unknown, Unhealthy]
    );
}

#[test]
fn intervals_differ_by_a_tenth_at_most() {
    let second = Duration::from_secs(1);
    assert_eq!([jittered(second, 0.0), jittered(second, 1.0)], [Duration::from_millis(900), Duration::from_millis(1100)]);
}

#[tokio::test]
async fn http1_asks_what_it_is_told_and_skips_interim_answers() {
    let (listener, address) = listen().await;
    serve(listener, |request| {
        let expected = "HEAD /up?x=1 HTTP/1.1\r\nhost: web\r\nuser-agent: weir-health\r\nconnection: close\r\nx-a: b\r\n\r\n";
        let status = if request == expected { 204 } else { 500 };
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n")
    });
    let given = config::health_check::HttpCheck {
        path: "/up?x=1".to_owned(),
        host: "web".to_owned(),
        method: "HEAD".to_owned(),
        expected: vec![config::health_check::StatusRange { from: 200, to: 299 }],
        headers: vec![config::health_check::HeaderValue { name: "X-A".to_owned(), value: "b".to_owned() }],
    };
    assert_eq!(ask(http(given.clone()), &address, false).await, Ok(()));
    let refused = config::health_check::HttpCheck { method: String::new(), ..given };
    assert_eq!(ask(http(refused), &address, false).await, Err("status 500".to_owned()));
}

#[tokio::test]
async fn http1_reads_no_endless_answer() {
    let (listener, address) = listen().await;
    serve(listener, |_| format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(20_000)));
    assert_eq!(ask(http(Default::default()), &address, false).await, Err("the answer's head is too long".to_owned()));
    let (listener, address) = listen().await;
    serve(listener, |_| "SSH-2.0-x\r\n".to_owned());
    assert!(ask(http(Default::default()), &address, false).await.is_err());
}

#[tokio::test]
async fn tcp_says_and_expects() {
    let (listener, address) = listen().await;
    serve(listener, |said| format!("+{said} and more"));
    let check = |send: &'static str, expect: &'static str| Check::Tcp { send: Bytes::from(send), expect: Bytes::from(expect) };
    assert_eq!(ask(check("PING", "+PING"), &address, false).await, Ok(()));
    assert!(ask(check("PING", "-PING"), &address, false).await.is_err());
    assert_eq!(ask(check("", ""), &address, false).await, Ok(()));
}

/// An HTTP/2 server: `/up` is 200; gRPC serves `good`, does not serve `bad`, and knows no other.
fn serve_http2(listener: TcpListener) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let plain = |status: u16| http::Response::builder().status(status).body(()).unwrap();
                        if request.uri().path() != "/grpc.health.v1.Health/Check" {
                            let status = if request.uri().path() == "/up" { 200 } else { 404 };
                            respond.send_response(plain(status), true).unwrap();
                            return;
                        }
                        let body = request.body_mut().data().await.unwrap().unwrap();
                        let asked: GrpcRequest = prost::Message::decode(&body[5..]).unwrap();
                        let (status, grpc) = match asked.service.as_str() {
                            "good" => (1, "0"),
                            "bad" => (2, "0"),
                            _ => (0, "5"),
                        };
                        let mut stream = respond.send_response(plain(200), false).unwrap();
                        if grpc == "0" {
                            stream.send_data(framed(&GrpcResponse { status }), false).unwrap();
                        }
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", grpc.parse().unwrap());
                        stream.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
}

#[tokio::test]
async fn http2_and_grpc_are_spoken() {
    let (listener, address) = listen().await;
    serve_http2(listener);
    let grpc = |service: &str| Check::Grpc { service: service.to_owned(), authority: "web".to_owned() };
    assert_eq!(ask(grpc("good"), &address, true).await, Ok(()));
    assert_eq!(ask(grpc("bad"), &address, true).await, Err("serving status 2".to_owned()));
    assert_eq!(ask(grpc("other"), &address, true).await, Err("grpc-status 5".to_owned()));
    let path = |path: &str| http(config::health_check::HttpCheck { path: path.to_owned(), ..Default::default() });
    assert_eq!(ask(path("/up"), &address, true).await, Ok(()));
    assert_eq!(ask(path("/down"), &address, true).await, Err("status 404".to_owned()));
}

async fn until(cluster: &ClusterState, expected: &[ActiveHealth]) {
    for _ in 0..1000 {
        let health: Vec<_> = cluster.endpoints().endpoints().iter().map(|endpoint| endpoint.state.active_health()).collect();
        if health == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("health never became {expected:?}");
}

#[tokio::test]
async fn the_task_follows_endpoints_and_their_health() {
    let (good, good_address) = listen().await;
    serve(good, |_| "HTTP/1.1 200 OK\r\n\r\n".to_owned());
    let (gone, gone_address) = listen().await;
    drop(gone);
    let given = Given::Http(config::health_check::HttpCheck::default());
    let cluster = cluster(given, &[good_address.clone(), gone_address.clone()]);
    let ejected = cluster.endpoints().endpoints()[0].clone();
    ejected.state.set_ejected(true);
    let task = tokio::spawn(run(Arc::clone(&cluster), Arc::new(PlainConnector), Arc::new(|| 0)));
    until(&cluster, &[ActiveHealth::Healthy, ActiveHealth::Unhealthy]).await;
    assert!(!ejected.state.ejected(), "an endpoint that passes again comes back at once");
    assert!(cluster.version() >= 2);
    let (third, third_address) = listen().await;
    serve(third, |_| "HTTP/1.1 200 OK\r\n\r\n".to_owned());
    let changed = endpoints(&[third_address, good_address]);
    cluster.set_endpoints(EndpointSet::compile(&changed, &cluster.endpoints(), 0).unwrap());
    until(&cluster, &[ActiveHealth::Healthy, ActiveHealth::Healthy]).await;
    let revived = TcpListener::bind(&gone_address).await;
    if let Ok(revived) = revived {
        let asked = tokio::time::timeout(Duration::from_millis(50), revived.accept()).await;
        assert!(asked.is_err(), "an endpoint that left is not asked");
    }
    task.abort();
}
