//! Clients that spend what is not theirs: floods of HTTP/2 frames, heads that blow up, streams that nobody reads, clients that are slow on purpose. Each
//! ends, in time, with its name in the metrics; the one worker that they share with others keeps answering these.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::support::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;
/// More than any budget.
const MANY: u32 = 200_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal field of HPACK, short enough for one byte of length; kept in the table if `first` is 0x40.
fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[first, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

fn block(method: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    fields.iter().flat_map(|(name, value)| literal(0, name, value)).collect()
}

fn get_on(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block("GET"))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn odd(index: u32) -> u32 {
    index * 2 + 1
}

/// A client of frames written by hand.
struct Raw {
    reader: OwnedReadHalf,
    writer: Option<OwnedWriteHalf>,
}

impl Raw {
    async fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let (reader, writer) = TcpStream::connect(address).await.unwrap().into_split();
        let mut raw = Self { reader, writer: Some(writer) };
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.send(settings).await;
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        within("room to send", self.writer.as_mut().unwrap().write_all(bytes)).await.unwrap();
    }

    /// Writes for as long as the proxy takes it, beside reading.
    fn flood(&mut self, frames: impl Iterator<Item = Vec<u8>> + Send + 'static) {
        let mut writer = self.writer.take().unwrap();
        tokio::spawn(async move {
            for bytes in frames {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            // Not the client's end is to end it.
            std::future::pending::<()>().await;
        });
    }

    /// The next frame of this kind: its stream and what is in it. `None` at the end.
    async fn next_of(&mut self, kind: u8) -> Option<(u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            within("a frame", self.reader.read_exact(&mut head)).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            within("a frame", self.reader.read_exact(&mut payload)).await.ok()?;
            if head[3] == kind {
                return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
            }
        }
    }

    /// The code that the connection ends with.
    async fn goaway(&mut self) -> Option<u32> {
        let (_, payload) = self.next_of(GOAWAY).await?;
        payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().unwrap()))
    }
}

/// An origin that answers at the end of a head, whatever follows, with so many bytes.
async fn quick_origin(length: usize) -> SocketAddr {
    let origin = Origin::bind().await;
    let address = origin.address;
    tokio::spawn(async move {
        loop {
            let mut peer = origin.accept_idle().await;
            tokio::spawn(async move {
                while peer.is_spoken_to().await {
                    peer.head().await;
                    if peer.io.write_all(ok(&"x".repeat(length)).as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// What the metrics say of something with this detail; 0 before it first happened.
async fn counted(proxy: &Proxy, detail: &str) -> u64 {
    let metrics = proxy.page("/metrics").await.1;
    let label = format!("detail=\"{detail}\"");
    metrics.lines().filter(|line| line.contains(&label)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

async fn is_counted(proxy: &Proxy, detail: &str, times: u64) {
    let count = until("a counter", async || Some(counted(proxy, detail).await).filter(|count| *count >= times)).await;
    assert_eq!(count, times, "{detail}");
}

/// A flood ends with GOAWAY and its counter, and others are answered meanwhile.
async fn ends(proxy: &Proxy, name: &str, opening: Vec<u8>, frames: impl Iterator<Item = Vec<u8>> + Send + 'static) {
    let address = proxy.address("web").await;
    let (before, resident) = (counted(proxy, name).await, proxy.resident());
    let mut other = Peer::connect(address).await;
    let start = Instant::now();
    let mut raw = Raw::connect(address, &frame(SETTINGS, 0, 0, &[])).await;
    raw.send(&opening).await;
    raw.flood(frames);
    other.send(get("/")).await;
    assert_eq!(other.message().await.status(), 200, "{name}");
    assert_eq!(raw.goaway().await, Some(ENHANCE_YOUR_CALM), "{name}");
    assert!(raw.next_of(GOAWAY).await.is_none(), "{name}: the connection ends");
    is_counted(proxy, name, before + 1).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{name}: {:?}", start.elapsed());
    other.send(get("/")).await;
    assert_eq!(other.message().await.status(), 200, "{name}");
    let grown = proxy.resident().saturating_sub(resident);
    assert!(grown < 16 << 20, "{name}: {grown} bytes more");
}

#[tokio::test]
async fn floods_of_frames_end_with_goaway_and_their_name() {
    let origin = quick_origin(4).await;
    let proxy = Proxy::start(&to_origin(origin)).await;
    let reset = |stream| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    ends(&proxy, "h2_rapid_reset", vec![], (0..MANY).map(move |i| [get_on(odd(i)), reset(odd(i))].concat())).await;
    let open = frame(HEADERS, 0, 1, &block("GET"));
    ends(&proxy, "h2_continuation_flood", open.clone(), (0..MANY).map(|_| frame(CONTINUATION, 0, 1, &[]))).await;
    let large = literal(0, "x-large", &"v".repeat(100)).repeat(100);
    ends(&proxy, "h2_continuation_flood", open, (0..MANY).map(move |_| frame(CONTINUATION, 0, 1, &large))).await;
    ends(&proxy, "h2_ping_flood", vec![], (0..MANY).map(|_| frame(PING, 0, 0, b"12345678"))).await;
    ends(&proxy, "h2_settings_flood", vec![], (0..MANY).map(|_| setting(4, 65_535))).await;
    ends(&proxy, "h2_priority_flood", vec![], (0..MANY).map(|i| frame(PRIORITY, 0, odd(i), &[0, 0, 0, 0, 16]))).await;
    let post = frame(HEADERS, END_HEADERS, 1, &block("POST"));
    ends(&proxy, "h2_empty_data_flood", post, (0..MANY).map(|_| frame(DATA, 0, 1, &[]))).await;
    let update = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    ends(&proxy, "h2_window_update_flood", get_on(1), (0..MANY).map(move |_| update(0, 1))).await;
    // A window that overflows: this side has to reset the stream.
    let overflow = (0..MANY).map(move |i| [get_on(odd(i)), update(odd(i), (1 << 31) - 1)].concat());
    ends(&proxy, "h2_made_you_reset", vec![], overflow).await;
    // One field that the table holds, told again and again with one byte each.
    let mut bomb = block("GET");
    bomb.extend(literal(0x40, "x-bomb", &"b".repeat(120)));
    bomb.extend(vec![0x80 | 62; 12_000]);
    let bomb = frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
    ends(&proxy, "h2_header_bomb", bomb, std::iter::empty()).await;
    until("their end", async || (proxy.view("/listeners").await[0]["connections"] == 0).then_some(())).await;
}

/// Short timeouts for what clients do.
fn impatient(origin: SocketAddr) -> Value {
    let mut config = to_origin(origin);
    http(&mut config)["timeouts"] = json!({ "requestHeaders": "400ms", "request": "1500ms", "streamIdle": "400ms", "idle": "400ms" });
    config
}

#[tokio::test]
async fn streams_at_window_zero_are_reset_and_their_connection_goes_on() {
    let origin = quick_origin(100_000).await;
    let mut config = impatient(origin);
    // Longer than the listener's, which decides about windows: which of them ends the stream is not to be chance.
    http(&mut config)["defaultAction"]["forward"]["idleTimeout"] = "60s".into();
    let proxy = Proxy::start(&config).await;
    let mut raw = Raw::connect(proxy.address("web").await, &setting(4, 0)).await;
    for index in 0..50 {
        raw.send(&get_on(odd(index))).await;
    }
    let mut reset = Vec::new();
    while reset.len() < 50 {
        let (stream, _) = raw.next_of(RST_STREAM).await.expect("a reset");
        reset.push(stream);
    }
    reset.sort_unstable();
    assert_eq!(reset, (0..50).map(odd).collect::<Vec<_>>());
    is_counted(&proxy, "h2_flow_stall", 50).await;
    raw.send(&[setting(4, 65_535), get_on(201)].concat()).await;
    assert_eq!(raw.next_of(DATA).await.expect("data").0, 201);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_left() {
    let origin = quick_origin(32 << 20).await;
    let proxy = Proxy::start(&impatient(origin)).await;
    let address = proxy.address("web").await;
    let resident = proxy.resident();
    let mut http1 = Peer::connect(address).await;
    http1.send(get("/")).await;
    let mut http2 = Raw::connect(address, &setting(4, 1 << 30)).await;
    http2.send(&[frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes()), get_on(1)].concat()).await;
    until("both", async || (proxy.view("/listeners").await[0]["connections"] == 2).then_some(())).await;
    until("their end", async || (proxy.view("/listeners").await[0]["connections"] == 0).then_some(())).await;
    let grown = proxy.resident().saturating_sub(resident);
    assert!(grown < 12 << 20, "{grown} bytes more for clients that read nothing");
    let got = http1.rest().await;
    assert!(got.len() < 32 << 20, "all {} bytes came", got.len());
}

/// Sends byte by byte until the other side has something to say, and returns that.
async fn trickle(address: SocketAddr, first: &str, byte: &str) -> String {
    let mut client = Peer::connect(address).await;
    client.send(first).await;
    let mut reply = [0; 1024];
    within("an answer", async {
        loop {
            tokio::select! {
                read = client.io.read(&mut reply) => return String::from_utf8_lossy(&reply[..read.unwrap_or(0)]).into_owned(),
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    // The proxy may have closed already: what it said is still to be read.
                    let _ = client.io.write_all(byte.as_bytes()).await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn slow_clients_are_timed_out_and_told_so() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&impatient(origin.address)).await;
    let address = proxy.address("web").await;
    // A head byte by byte, a body byte by byte, a body that stops.
    let cases = [
        ("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ", "y", "request_header_timeout"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n", "z", "request_timeout"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc", "", "request_timeout"),
    ];
    for (count, (first, byte, detail)) in [1, 1, 2].into_iter().zip(cases) {
        let start = Instant::now();
        let reply = trickle(address, first, byte).await;
        assert!(reply.starts_with("HTTP/1.1 408 ") && reply.contains("\r\nconnection: close\r\n"), "{detail}: {reply:?}");
        assert!(start.elapsed() >= Duration::from_millis(350), "{detail}: {:?}", start.elapsed());
        is_counted(&proxy, detail, count).await;
    }
    // Who says nothing, or nothing more, is not told anything.
    for first in ["", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = Peer::connect(address).await;
        client.send(first).await;
        let said = client.rest().await;
        assert!(!said.starts_with(b"HTTP/1"), "{:?}", String::from_utf8_lossy(&said));
    }
    // The same over HTTP/2 costs the stream, not the connection.
    let client = h2_client(address).await;
    let request = http::Request::post("http://example.com/").body(()).unwrap();
    let (response, _body) = client.clone().send_request(request, false).unwrap();
    assert_eq!(within("a response", response).await.unwrap().status(), 408);
    is_counted(&proxy, "request_timeout", 3).await;
}
