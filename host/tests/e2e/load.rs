//! Clients that ask again and again, one for each way to use a connection, and origins that always answer. Every answer is awaited and looked at: one
//! that is lost fails the test. What was never let in is not lost, and neither is a request that a connection took back before it was sent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::support::*;

/// What a client does between two requests: clients that leave no time to the proxy would measure the machine.
const BREATH: Duration = Duration::from_millis(2);

/// A way to use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP/1, one request after another on one connection.
    KeepAlive,
    /// HTTP/1, a connection for every request.
    Fresh,
    /// HTTP/2, three streams at a time.
    Http2,
    /// One gRPC stream, messages both ways.
    Grpc,
    /// One WebSocket.
    Tunnel,
}

const WAYS: [Way; 5] = [Way::KeepAlive, Way::Fresh, Way::Http2, Way::Grpc, Way::Tunnel];

/// Where a listener is.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    async fn connect(&self) -> std::io::Result<Box<dyn Io>> {
        Ok(match self {
            Self::Tcp(address) => {
                let stream = within("a connection", TcpStream::connect(address)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(path) => Box::new(within("a connection", UnixStream::connect(path)).await?),
        })
    }
}

/// What clients are told, and what they did.
#[derive(Default)]
pub(crate) struct Load {
    stop: AtomicBool,
    /// Connections may be ended, in order, for others to be opened.
    may_end: bool,
    /// Nobody may listen any more.
    may_close: bool,
    answered: [AtomicUsize; WAYS.len()],
}

/// Clients at work.
pub(crate) struct Clients {
    load: Arc<Load>,
    tasks: JoinSet<()>,
}

impl Clients {
    /// For a proxy whose connections all stay.
    pub(crate) fn of_steady_proxy() -> Self {
        Self::new(Load::default())
    }

    /// For a proxy that is replaced: somebody listens all the time.
    pub(crate) fn of_replaced_proxy() -> Self {
        Self::new(Load { may_end: true, ..Load::default() })
    }

    /// For a proxy that ends.
    pub(crate) fn of_ending_proxy() -> Self {
        Self::new(Load { may_end: true, may_close: true, ..Load::default() })
    }

    fn new(load: Load) -> Self {
        Self { load: Arc::new(load), tasks: JoinSet::new() }
    }

    /// Starts so many of a kind.
    pub(crate) fn start(&mut self, count: usize, way: Way, target: &Target) {
        for _ in 0..count {
            let (target, load) = (target.clone(), Arc::clone(&self.load));
            match way {
                Way::KeepAlive => self.tasks.spawn(keep_alive(target, load)),
                Way::Fresh => self.tasks.spawn(fresh(target, load)),
                Way::Http2 => self.tasks.spawn(http2(target, load)),
                Way::Grpc => self.tasks.spawn(grpc(target, load)),
                Way::Tunnel => self.tasks.spawn(tunnel(target, load)),
            };
        }
    }

    /// Answers so far.
    pub(crate) fn answered(&self, way: Way) -> usize {
        self.load.answered[way as usize].load(Ordering::Relaxed)
    }

    /// Waits until each of these ways has got so many more answers.
    pub(crate) async fn go_on(&mut self, ways: &[Way], more: usize) {
        let before: Vec<_> = ways.iter().map(|way| self.answered(*way)).collect();
        until("answers of every kind", async || {
            while let Some(ended) = self.tasks.try_join_next() {
                ended.expect("a client lost an answer");
            }
            ways.iter().zip(&before).all(|(way, before)| self.answered(*way) >= before + more).then_some(())
        })
        .await;
    }

    /// Lets all come to their end, and fails if one did not.
    pub(crate) async fn finish(mut self) {
        self.load.stop.store(true, Ordering::Relaxed);
        self.ended().await;
    }

    /// Waits until all have come to their end by themselves.
    pub(crate) async fn ended(&mut self) {
        while let Some(ended) = within("the end of a client", self.tasks.join_next()).await {
            ended.expect("a client lost an answer");
        }
    }
}

impl Load {
    async fn goes_on(&self) -> bool {
        tokio::time::sleep(BREATH).await;
        !self.stop.load(Ordering::Relaxed)
    }

    fn answered(&self, way: Way) {
        self.answered[way as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A new connection; `None` where nobody has to listen any more.
    async fn connect(&self, target: &Target) -> Option<Box<dyn Io>> {
        match target.connect().await {
            Ok(io) => Some(io),
            Err(error) => {
                assert!(self.may_close, "nobody listens at {target:?}: {error}");
                None
            }
        }
    }
}

/// A filter that marks requests marks their responses, too, with the same word.
fn check(response: &Message) {
    assert_eq!(response.status(), 200, "{response:?}");
    assert_eq!(Some(response.text()), response.header("x-mark"), "both ways of a request have the same filters");
}

async fn keep_alive(target: Target, load: Arc<Load>) {
    while !load.stop.load(Ordering::Relaxed) {
        let Some(io) = load.connect(&target).await else { return };
        let mut client = Peer::new(io);
        while load.goes_on().await {
            client.send(get("/")).await;
            let response = client.message().await;
            check(&response);
            load.answered(Way::KeepAlive);
            if response.header("connection") == Some("close") {
                assert!(load.may_end, "{response:?}");
                break;
            }
        }
    }
}

async fn fresh(target: Target, load: Arc<Load>) {
    while load.goes_on().await {
        let Some(io) = load.connect(&target).await else { return };
        let mut client = Peer::new(io);
        client.send(get("/")).await;
        check(&client.message().await);
        load.answered(Way::Fresh);
    }
}

/// A connection of HTTP/2; `Err` when it was told to end before it was asked anything.
async fn http2_over(io: Box<dyn Io>) -> Result<h2::client::SendRequest<Bytes>, h2::Error> {
    let (send, connection) = within("a handshake", h2::client::handshake(io)).await?;
    tokio::spawn(connection);
    within("room for a stream", send.ready()).await
}

async fn http2(target: Target, load: Arc<Load>) {
    while !load.stop.load(Ordering::Relaxed) {
        let Some(io) = load.connect(&target).await else { return };
        let opened = http2_over(io).await;
        assert!(opened.is_ok() || load.may_end, "{opened:?}");
        let Ok(client) = opened else { continue };
        while load.goes_on().await {
            let one = || http2_request(&client, &load);
            let (first, second, third) = tokio::join!(one(), one(), one());
            if !(first && second && third) {
                break;
            }
        }
    }
}

/// Asks once. False when the connection takes no more requests.
async fn http2_request(client: &h2::client::SendRequest<Bytes>, load: &Load) -> bool {
    let request = Request::builder().uri("http://example.com/").body(()).unwrap();
    let sent = match within("room for a stream", client.clone().ready()).await {
        Ok(mut client) => client.send_request(request, true),
        Err(error) => Err(error),
    };
    let response = match sent {
        Ok((response, _)) => response,
        Err(error) => {
            assert!(load.may_end && error.is_go_away(), "{error}");
            return false;
        }
    };
    let (head, mut body) = within("a response", response).await.expect("a response").into_parts();
    let body = h2_body(&mut body).await;
    assert_eq!((head.status.as_u16(), body.as_slice()), (200, head.headers["x-mark"].as_bytes()));
    load.answered(Way::Http2);
    true
}

async fn grpc(target: Target, load: Arc<Load>) {
    let io = target.connect().await.unwrap();
    let client = http2_over(io).await.unwrap();
    let request = Request::post("http://example.com/pkg.Service/Chat").header("content-type", "application/grpc").body(()).unwrap();
    let (response, mut up) = client.clone().send_request(request, false).unwrap();
    let mut down = within("a response", response).await.unwrap().into_body();
    for round in 0u32.. {
        let message = [&[0, 0, 0, 0, 4][..], &round.to_be_bytes()].concat();
        up.send_data(message.clone().into(), false).unwrap();
        let mut echo = Vec::new();
        while echo.len() < message.len() {
            let data = within("a message", down.data()).await.expect("the stream goes on").unwrap();
            down.flow_control().release_capacity(data.len()).unwrap();
            echo.extend_from_slice(&data);
        }
        assert_eq!(echo, message);
        load.answered(Way::Grpc);
        if !load.goes_on().await {
            break;
        }
    }
    up.send_data(Bytes::new(), true).unwrap();
    assert!(h2_body(&mut down).await.is_empty());
    assert_eq!(within("trailers", down.trailers()).await.unwrap().expect("trailers")["grpc-status"], "0");
}

async fn tunnel(target: Target, load: Arc<Load>) {
    let mut client = Peer::new(target.connect().await.unwrap());
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 101);
    while load.goes_on().await {
        client.send("ping").await;
        assert_eq!(client.exactly(4).await, b"ping");
        load.answered(Way::Tunnel);
    }
    client.io.shutdown().await.unwrap();
    client.closes().await;
}

/// Answers requests of HTTP/1 with their mark, and echoes what comes after an upgrade.
pub(crate) async fn echoing() -> SocketAddr {
    let origin = Origin::bind().await;
    let address = origin.address;
    tokio::spawn(async move {
        loop {
            let mut peer = origin.accept_idle().await;
            tokio::spawn(async move {
                while peer.is_spoken_to().await {
                    let request = peer.message().await;
                    if request.header("upgrade").is_none() {
                        peer.send(ok(request.header("x-mark").unwrap_or("unmarked"))).await;
                        continue;
                    }
                    peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
                    let mut bytes = [0; 1024];
                    while let Ok(read @ 1..) = peer.io.read(&mut bytes).await {
                        peer.send(&bytes[..read]).await;
                    }
                    return;
                }
            });
        }
    });
    address
}

/// Echoes streams of gRPC.
pub(crate) async fn echoing_grpc() -> SocketAddr {
    let origin = Origin::bind().await;
    let address = origin.address;
    let mut streams = h2_origin(origin);
    tokio::spawn(async move {
        while let Some((request, mut respond)) = streams.recv().await {
            tokio::spawn(async move {
                let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut down = respond.send_response(head, false).unwrap();
                let mut up = request.into_body();
                while let Some(Ok(data)) = up.data().await {
                    up.flow_control().release_capacity(data.len()).unwrap();
                    down.send_data(data, false).unwrap();
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                down.send_trailers(trailers).unwrap();
            });
        }
    });
    address
}

/// Everything to `origin`, through a filter that marks requests and responses with `mark`.
pub(crate) fn marked(origin: SocketAddr, mark: &str) -> Value {
    let mut config = config(forward(json!({ "upgrades": ["websocket"] })), json!([cluster("origin", &[origin])]));
    http(&mut config)["filterChain"] = "marks".into();
    config["filterChains"] = json!([{ "name": "marks", "filters": [{
        "name": "mark", "module": { "builtin": "headers" },
        "config": { "request": { "set": { "x-mark": mark } }, "response": { "set": { "x-mark": mark } } },
        // By the clock: a busy machine may let a callback wait for longer than the default.
        "limits": { "callback": "5s" },
    }] }]);
    config
}

/// The same with a second listener, `grpc`, to an origin of its own.
pub(crate) fn marked_with_grpc(origin: SocketAddr, grpc: SocketAddr, mark: &str) -> Value {
    let mut config = marked(origin, mark);
    let mut listener = config["listeners"][0].clone();
    listener["name"] = "grpc".into();
    let forward = &mut listener["branches"][0]["http"]["defaultAction"]["forward"];
    forward["clusters"] = json!([{ "name": "grpc" }]);
    // The default is for requests that are answered, not for streams that go on.
    forward["timeout"] = "0s".into();
    config["listeners"].as_array_mut().unwrap().push(listener);
    let mut cluster = cluster("grpc", &[grpc]);
    cluster["protocol"] = "http2".into();
    config["clusters"].as_array_mut().unwrap().push(cluster);
    config
}
