//! The pages over real sockets, with a state of their own.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

#[derive(Default)]
struct State {
    metrics: Option<Arc<Metrics>>,
    level: Mutex<String>,
    drained: Mutex<u32>,
}

impl AdminState for State {
    fn ready(&self) -> view::Ready {
        let draining = *self.drained.lock().unwrap() > 0;
        view::Ready { ready: !draining, reasons: if draining { vec!["draining".into()] } else { vec![] } }
    }

    fn config(&self) -> view::Config {
        view::Config { node: "<script>alert(1)</script>".into(), generation: 7, workers: vec![7, 6], ..view::Config::default() }
    }

    fn clusters(&self) -> Vec<view::Cluster> {
        let endpoint = view::Endpoint { address: "10.0.0.1:80".into(), ejected_for: Some(3), ..view::Endpoint::default() };
        vec![view::Cluster { name: "app".into(), endpoints: vec![endpoint], ..view::Cluster::default() }]
    }

    fn filters(&self) -> Vec<view::Filter> {
        vec![view::Filter::default()]
    }

    fn listeners(&self) -> Vec<view::Listener> {
        vec![view::Listener::default()]
    }

    fn certs(&self) -> Vec<view::Certificate> {
        vec![view::Certificate::default()]
    }

    fn metrics(&self) -> &Arc<Metrics> {
        self.metrics.as_ref().unwrap()
    }

    fn log_level(&self) -> String {
        self.level.lock().unwrap().clone()
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        if level == "loud" {
            return Err("\"loud\" is no level".into());
        }
        *self.level.lock().unwrap() = level.into();
        Ok(())
    }

    fn drain(&self) {
        *self.drained.lock().unwrap() += 1;
    }
}

struct Pages {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Pages {
    async fn start() -> Self {
        let config = config::Admin { address: "127.0.0.1:0".into(), allowed_hosts: vec!["Proxy.example".into()] };
        let admin = Admin::bind(&config, None).unwrap().unwrap();
        let address = admin.local_addr().unwrap();
        let state = Arc::new(State { metrics: Some(Metrics::new()), ..State::default() });
        let task = tokio::spawn(admin.serve(Arc::clone(&state)));
        Self { address, state, task }
    }

    /// The status and the body of what comes back.
    async fn send(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        timeout(Duration::from_secs(20), stream.read_to_string(&mut reply)).await.expect("no reply").unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    async fn post(&self, path: &str, headers: &str) -> (u16, String) {
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1:15000\r\n{headers}Content-Length: 0\r\n\r\n")).await
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn every_page_is_there() {
    let pages = Pages::start().await;
    for (path, _) in page::PAGES {
        let expected = if path == "/profile" { 501 } else { 200 };
        let (status, body) = pages.get(path).await;
        assert_eq!(status, expected, "{path}: {body}");
        assert!(!body.is_empty(), "{path}");
        let (status, body) = pages.send(&format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!((status, body.as_str()), (expected, ""), "HEAD {path}");
    }
    let (_, index) = pages.get("/").await;
    assert!(page::PAGES.iter().all(|(path, _)| index.contains(path)));
    assert!(index.contains("&lt;script&gt;") && !index.contains("<script>"), "{index}");
    assert_eq!(pages.get("/nothing").await.0, 404);
    let (_, clusters) = pages.get("/clusters").await;
    let clusters: serde_json::Value = serde_json::from_str(&clusters).unwrap();
    assert_eq!(clusters[0]["endpoints"][0]["ejectedFor"], 3);
    let (_, metrics) = pages.get("/metrics?format=x").await;
    assert!(metrics.contains("# TYPE weir_config_generation gauge"), "{metrics}");
    let (_, stats) = pages.get("/stats").await;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let info = stats.as_array().unwrap().iter().find(|stat| stat["name"] == "weir_info").unwrap();
    assert_eq!((&info["labels"]["version"], &info["value"]), (&env!("CARGO_PKG_VERSION").into(), &1.0.into()));
}

#[tokio::test]
async fn only_post_changes_anything() {
    let pages = Pages::start().await;
    assert_eq!(pages.get("/drain").await.0, 405);
    assert_eq!(pages.get("/logging?level=debug").await, (200, "\n".into()), "read, not set");
    assert_eq!(pages.post("/ready", "").await.0, 405);
    assert_eq!(pages.send("DELETE /drain HTTP/1.1\r\nHost: localhost\r\n\r\n").await.0, 405);
    assert_eq!(*pages.state.drained.lock().unwrap(), 0);
    assert_eq!(pages.post("/logging?level=info,upstream%3Ddebug", "").await, (200, "info,upstream=debug\n".into()));
    assert_eq!(pages.post("/logging?level=loud", "").await, (400, "\"loud\" is no level\n".into()));
    assert_eq!(pages.post("/logging", "").await.0, 400);
    assert_eq!(pages.get("/ready").await.0, 200);
    assert_eq!(pages.post("/drain", "").await.0, 200);
    assert_eq!(*pages.state.drained.lock().unwrap(), 1);
    let (status, body) = pages.get("/ready").await;
    assert!(status == 503 && body.contains("draining"), "{status} {body}");
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let pages = Pages::start().await;
    let with = |host: &str| format!("GET /config HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:15000", "evil.example:127", "a b", "[::1].evil"] {
        assert_eq!(pages.send(&with(host)).await.0, 403, "{host}");
    }
    for host in ["localhost", "LOCALHOST:15000", "127.0.0.1:15000", "[::1]:15000", "10.1.2.3", "proxy.example:80", "Proxy.Example."] {
        assert_eq!(pages.send(&with(host)).await.0, 200, "{host}");
    }
    assert_eq!(pages.post("/drain", "Origin: http://evil.example\r\n").await.0, 403);
    assert_eq!(pages.post("/drain", "Origin: null\r\n").await.0, 403);
    assert_eq!(*pages.state.drained.lock().unwrap(), 0);
    assert_eq!(pages.post("/drain", "Origin: http://127.0.0.1:15000\r\n").await.0, 200);
}

#[tokio::test]
async fn large_and_broken_requests_are_answered() {
    let pages = Pages::start().await;
    let large = format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    assert_eq!(pages.send(&large).await.0, 431);
    assert_eq!(pages.send("nonsense\r\n\r\n").await.0, 400);
    assert_eq!(pages.send("GET / HTTP/1.1\r\n\r\n").await.0, 400);
    let body = "a".repeat(5_000);
    let (status, _) = pages.send(&format!("POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n{body}")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_a_stale_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let config = config::Admin { address: format!("unix:{}", path.display()), ..config::Admin::default() };
    for _ in 0..2 {
        let admin = Admin::bind(&config, None).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(admin.local_addr().is_none());
        assert!(Admin::bind(&config, None).is_err(), "a living one is left alone");
    }
    assert!(Admin::bind(&config::Admin { address: "off".into(), ..config::Admin::default() }, None).unwrap().is_none());
    assert!(Admin::bind(&config::Admin { address: "nonsense".into(), ..config::Admin::default() }, None).is_err());
}
