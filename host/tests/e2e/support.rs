//! A proxy in a process of its own, origins that are told what to say, and clients that say what they are told.
//!
//! Every wait is bounded. All addresses are loopback, all ports are given by the system.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `what`, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// A proxy in a process of its own. Ends with this value.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) folder: TempDir,
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one and waits until it serves.
    pub(crate) async fn start(config: &Value) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config).await
    }

    /// The same with files that lie beside the configuration.
    pub(crate) async fn start_in(folder: TempDir, config: &Value) -> Self {
        Self::start_with(folder, config, &[]).await
    }

    /// The same with further arguments.
    pub(crate) async fn start_with(folder: TempDir, config: &Value, args: &[&str]) -> Self {
        let mut proxy = Self::spawn(folder, config, args);
        proxy.admin = until("the address of the pages", async || {
            let log = proxy.log.lock().unwrap();
            let line = log.iter().find_map(|line| line.split_once("pages on http://"))?;
            Some(line.1.split('/').next()?.parse().unwrap())
        })
        .await;
        until("readiness", async || (proxy.page("/ready").await.0 == 200).then_some(())).await;
        proxy
    }

    /// Starts one, and does not wait.
    pub(crate) fn spawn(folder: TempDir, config: &Value, args: &[&str]) -> Self {
        let path = folder.path().join("weir.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
            .args(["run", "-c"])
            .arg(&path)
            .args(args)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(stderr)).map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { child, folder, admin: SocketAddr::from(([127, 0, 0, 1], 0)), log }
    }

    /// Whether the process has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A page for operators.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        let mut client = Peer::connect(self.admin).await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let reply = client.message().await;
        (reply.status(), String::from_utf8(reply.body).unwrap())
    }

    /// The same as JSON.
    pub(crate) async fn view(&self, path: &str) -> Value {
        serde_json::from_str(&self.page(path).await.1).unwrap()
    }

    /// Where a listener is.
    pub(crate) async fn address(&self, listener: &str) -> SocketAddr {
        let listeners = self.view("/listeners").await;
        let found = listeners.as_array().unwrap().iter().find(|one| one["name"] == listener);
        found.unwrap_or_else(|| panic!("no {listener}: {listeners}"))["address"].as_str().unwrap().parse().unwrap()
    }

    /// A client of the listener `web`.
    pub(crate) async fn client(&self) -> Peer {
        Peer::connect(self.address("web").await).await
    }

    /// Gets a path over a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Message {
        get_from(self.address("web").await, path).await
    }

    /// Changes the configuration, in one step.
    pub(crate) fn rewrite(&self, config: &Value) {
        let (new, path) = (self.folder.path().join(".new"), self.folder.path().join("weir.yaml"));
        std::fs::write(&new, config.to_string()).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the log has a line with all of these.
    pub(crate) async fn logs(&self, texts: &[&str]) {
        let has = |line: &str| texts.iter().all(|text| line.contains(text));
        until("a line in the log", async || self.log().lines().any(has).then_some(())).await;
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended by itself. Its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        until("the end of the process", async || child.try_wait().unwrap()).await.code()
    }

    /// Lines of the access log, once there are so many.
    pub(crate) async fn access_log(&self, lines: usize) -> Vec<Value> {
        let path = self.folder.path().join("access.log");
        until("lines in the access log", async || {
            let text = std::fs::read_to_string(&path).ok()?;
            let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (records.len() >= lines).then_some(records)
        })
        .await
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{}/status", self.child.id()))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
    }
}

/// A configuration with one listener, `web`, and one action.
pub(crate) fn config(action: Value, clusters: Value) -> Value {
    let mut config = json!({
        "admin": { "address": "127.0.0.1:0" },
        "workers": 1,
        "listeners": [{ "name": "web", "address": "127.0.0.1:0", "branches": [{ "http": {
            "accessLog": { "path": "access.log", "format": "json" },
        } }] }],
    });
    http(&mut config)["defaultAction"] = action;
    config["clusters"] = clusters;
    config
}

/// The `http` part of the listener `web`.
pub(crate) fn http(config: &mut Value) -> &mut Value {
    &mut config["listeners"][0]["branches"][0]["http"]
}

/// Adds fields to an object, in place of those that have these names.
pub(crate) fn with(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// A cluster with these endpoints.
pub(crate) fn cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = endpoints.iter().map(|address| json!({ "address": address.to_string() })).collect();
    json!({ "name": name, "endpoints": { "localities": [{ "endpoints": endpoints }] } })
}

/// Everything to one origin.
pub(crate) fn to_origin(origin: SocketAddr) -> Value {
    config(forward(json!({})), json!([cluster("origin", &[origin])]))
}

/// An action that forwards to the cluster `origin`, with `more` about it.
pub(crate) fn forward(more: Value) -> Value {
    let mut forward = more;
    forward["clusters"] = json!([{ "name": "origin" }]);
    json!({ "name": "all", "forward": forward })
}

/// A GET request.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: example.com\r\n\r\n")
}

/// Gets a path over a connection of its own.
pub(crate) async fn get_from(address: SocketAddr, path: &str) -> Message {
    let mut client = Peer::connect(address).await;
    client.send(get(path)).await;
    client.message().await
}

/// A complete response with a body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One end of a connection that speaks HTTP/1 as the test wants it.
pub(crate) struct Peer {
    pub(crate) io: Box<dyn Io>,
    buffer: Vec<u8>,
}

/// A message of HTTP/1 that was received.
#[derive(Debug, Default, Clone)]
pub(crate) struct Message {
    pub(crate) first: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no response: {self:?}"))
    }

    pub(crate) fn path(&self) -> &str {
        self.first.split(' ').nth(1).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Peer {
    pub(crate) fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), buffer: Vec::new() }
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("room to send", self.io.write_all(bytes.as_ref())).await.unwrap();
        within("room to send", self.io.flush()).await.unwrap();
    }

    /// Reads more. False at the end, or when the other side reset the connection.
    async fn fill(&mut self) -> bool {
        let mut bytes = vec![0; 64 << 10];
        let read = within("bytes", self.io.read(&mut bytes)).await.unwrap_or(0);
        self.buffer.extend_from_slice(&bytes[..read]);
        read > 0
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return line;
            }
            assert!(self.fill().await, "the connection ended in a line: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    async fn fields(&mut self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return fields;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Exactly so many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await, "the connection ended after {} bytes of {count}", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Exactly so many bytes, unless the connection ends first.
    pub(crate) async fn some(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// A message up to its body.
    pub(crate) async fn head(&mut self) -> Message {
        let first = self.line().await;
        let headers = self.fields().await;
        Message { first, headers, ..Message::default() }
    }

    /// A message with its body, by its framing.
    pub(crate) async fn message(&mut self) -> Message {
        let mut message = self.head().await;
        let is_response = message.first.starts_with("HTTP/");
        if message.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line().await;
                let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
                if size == 0 {
                    break;
                }
                let chunk = self.exactly(size).await;
                message.body.extend(chunk);
                assert_eq!(self.line().await, "");
            }
            message.trailers = self.fields().await;
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().unwrap();
            message.body = self.exactly(length).await;
        } else if is_response && !matches!(message.status(), 100..200 | 204 | 304) {
            message.body = self.rest().await;
        }
        message
    }

    /// Asserts that the other side closes without another word.
    pub(crate) async fn closes(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }
}

/// An origin whose connections the test accepts one by one.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

impl Origin {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    pub(crate) async fn accept(&self) -> Peer {
        Peer::new(self.accept_tcp().await)
    }

    pub(crate) async fn accept_tcp(&self) -> TcpStream {
        let (stream, _) = within("a connection at the origin", self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Who is waiting to be accepted, if anybody.
    pub(crate) async fn accept_now(&self) -> Option<Peer> {
        tokio::select! {
            biased;
            accepted = self.listener.accept() => Some(Peer::new(accepted.unwrap().0)),
            () = tokio::task::yield_now() => None,
        }
    }

    /// Whether nobody is waiting to be accepted.
    pub(crate) async fn is_untouched(&self) -> bool {
        self.accept_now().await.is_none()
    }
}

/// An origin that answers every request by itself.
pub(crate) struct Answering {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<(usize, Message)>>>,
    task: JoinHandle<()>,
}

impl Answering {
    /// Answers with what `answer` makes of a request; an empty answer closes the connection.
    pub(crate) async fn new(answer: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        let origin = Origin::bind().await;
        let (address, seen, answer) = (origin.address, Arc::<Mutex<Vec<_>>>::default(), Arc::new(answer));
        let requests = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = origin.listener.accept().await else { return };
                let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut peer = Peer::new(stream);
                    // Idle connections may wait for longer than one message may take.
                    while peer.is_spoken_to().await {
                        let request = peer.message().await;
                        let reply = answer(&request);
                        requests.lock().unwrap().push((connection, request));
                        if reply.is_empty() || peer.io.write_all(reply.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    /// Requests so far, with the number of the connection that each came on.
    pub(crate) fn seen(&self) -> Vec<(usize, Message)> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Message {
        self.seen().pop().expect("a request").1
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Waits, unbounded, for the first byte of a message. False at the end.
    pub(crate) async fn is_spoken_to(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let mut bytes = vec![0; 16 << 10];
        let read = self.io.read(&mut bytes).await.unwrap_or(0);
        self.buffer.extend_from_slice(&bytes[..read]);
        read > 0
    }
}

impl Origin {
    /// The next connection, however long that takes.
    pub(crate) async fn accept_idle(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer::new(stream)
    }
}

/// A client of HTTP/2 with prior knowledge.
pub(crate) async fn h2_client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    h2_client_over(TcpStream::connect(address).await.unwrap()).await
}

/// The same over a connection that there is.
pub(crate) async fn h2_client_over(io: impl Io + 'static) -> h2::client::SendRequest<Bytes> {
    let (send, connection) = within("a handshake", h2::client::handshake(io)).await.unwrap();
    tokio::spawn(connection);
    within("room for a stream", send.ready()).await.unwrap()
}

/// Gets a path. The response's head and body.
pub(crate) async fn h2_get(client: &h2::client::SendRequest<Bytes>, path: &str) -> (http::response::Parts, Vec<u8>) {
    let request = http::Request::builder().uri(format!("http://example.com{path}")).body(()).unwrap();
    let mut client = within("room for a stream", client.clone().ready()).await.unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let (head, mut body) = within("a response", response).await.unwrap().into_parts();
    let body = h2_body(&mut body).await;
    (head, body)
}

/// A body up to its end or its trailers.
pub(crate) async fn h2_body(stream: &mut h2::RecvStream) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(data) = within("a piece of a body", stream.data()).await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    body
}

/// A stream as an origin of HTTP/2 gets it.
pub(crate) type Served = (http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

/// An origin of HTTP/2: every stream of every connection.
pub(crate) fn h2_origin(origin: Origin) -> tokio::sync::mpsc::UnboundedReceiver<Served> {
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = origin.listener.accept().await else { return };
            let send = send.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok(stream)) = connection.accept().await {
                    let _ = send.send(stream);
                }
            });
        }
    });
    receive
}
