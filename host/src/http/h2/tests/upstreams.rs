//! The side of a client, against the library's server and against this crate's own.

use super::*;

type Peer = ::h2::server::Connection<DuplexStream, Bytes>;

/// A connection to a peer that the test plays.
async fn pair(options: &ClientOptions, builder: &::h2::server::Builder) -> (ClientHandle, Peer) {
    let (io, other) = tokio::io::duplex(64 << 10);
    let (handle, driver) = connect(io, options).await.expect("a handshake");
    // Nothing leaves without it.
    tokio::task::spawn_local(driver);
    (handle, builder.handshake(other).await.expect("a handshake"))
}

/// Runs a peer that answers every request in its own task.
fn run<F, R>(mut peer: Peer, mut answer: F)
where
    F: FnMut(http::Request<::h2::RecvStream>, ::h2::server::SendResponse<Bytes>) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(async move {
        while let Some(Ok((request, respond))) = peer.accept().await {
            tokio::task::spawn_local(answer(request, respond));
        }
    });
}

fn request(method: &str) -> Fields {
    fields(&[(":method", method), (":path", "/p?q"), (":authority", "up:80"), (":scheme", "https"), ("x-a", "1"), ("te", "trailers")])
}

async fn head(upstream: &mut H2Upstream, head: &mut Fields) -> Result<BodyLength, StreamError> {
    poll_fn(|cx| upstream.poll_head(cx, head)).await
}

async fn frame(upstream: &mut H2Upstream) -> Option<Result<Frame, StreamError>> {
    poll_fn(|cx| upstream.poll_frame(cx)).await
}

fn ok() -> http::Response<()> {
    http::Response::new(())
}

#[tokio::test]
async fn a_request_arrives_as_it_was_meant() {
    local(async {
        let (handle, peer) = pair(&ClientOptions::default(), &::h2::server::Builder::new()).await;
        run(peer, |mut request, mut respond| async move {
            assert_eq!(request.body_mut().data().await.expect("data").expect("no error"), "12345");
            assert_eq!(request.uri().to_string(), "https://up:80/p?q");
            assert_eq!(request.headers()["x-a"], "1");
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.headers()["content-length"], "5");
            assert!(!request.headers().contains_key("connection"));
            let early = http::Response::builder().status(103).header("link", "</a>").body(()).expect("a response");
            respond.send_informational(early).expect("sent");
            let mut body = respond.send_response(http::Response::builder().status(201).body(()).expect("a response"), false).expect("sent");
            body.send_data(Bytes::from_static(b"hello"), false).expect("sent");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            body.send_trailers(trailers).expect("sent");
        });
        let mut up = handle.open().expect("room");
        let mut sent = request("POST");
        sent.push(b"connection", b"close");
        up.send_head(&sent, BodyLength::Known(5)).expect("sent");
        ready(&mut up).await.expect("room");
        up.send_data(Bytes::from_static(b"12345"), true).expect("sent");
        assert_eq!((handle.active(), handle.requests()), (1, 1));
        let mut got = Fields::new();
        assert_eq!(head(&mut up, &mut got).await, Ok(BodyLength::None));
        assert_eq!((got.status(), got.get(b"link")), (Some(103), Some(&b"</a>"[..])));
        assert_eq!(head(&mut up, &mut got).await, Ok(BodyLength::Unknown));
        assert_eq!(got.status(), Some(201));
        let Some(Ok(Frame::Data(data))) = frame(&mut up).await else { panic!("no data") };
        assert_eq!(data, "hello");
        let Some(Ok(Frame::Trailers(trailers))) = frame(&mut up).await else { panic!("no trailers") };
        assert_eq!(trailers.get(b"grpc-status"), Some(&b"0"[..]));
        assert!(frame(&mut up).await.is_none());
        drop(up);
        assert_eq!(handle.active(), 0);
    })
    .await;
}

#[tokio::test]
async fn responses_without_bodies_say_so() {
    local(async {
        let (handle, peer) = pair(&ClientOptions::default(), &::h2::server::Builder::new()).await;
        run(peer, |request, mut respond| async move {
            let response = http::Response::builder().header("content-length", "10").body(()).expect("a response");
            let head = request.method() == "HEAD";
            let mut body = respond.send_response(response, head).expect("sent");
            if !head {
                body.send_data(Bytes::from_static(b"0123456789"), true).expect("sent");
            }
        });
        for (method, expected) in [("HEAD", BodyLength::None), ("GET", BodyLength::Known(10))] {
            let mut up = handle.open().expect("room");
            up.send_head(&request(method), BodyLength::None).expect("sent");
            let mut got = Fields::new();
            assert_eq!(head(&mut up, &mut got).await, Ok(expected));
            assert_eq!(got.get(b"content-length"), Some(&b"10"[..]));
        }
    })
    .await;
}

/// The server answers and wants no more of the request: its answer counts.
#[tokio::test]
async fn an_early_answer_is_an_answer() {
    local(async {
        let (handle, peer) = pair(&ClientOptions::default(), &::h2::server::Builder::new()).await;
        run(peer, |_, mut respond| async move {
            respond.send_response(http::Response::builder().status(413).body(()).expect("a response"), true).expect("sent");
        });
        let mut up = handle.open().expect("room");
        up.send_head(&request("POST"), BodyLength::Known(1 << 20)).expect("sent");
        assert_eq!(send_body(&mut up, 1 << 20, 16 << 10, &Cell::new(0)).await, Ok(()));
        let mut got = Fields::new();
        assert_eq!(head(&mut up, &mut got).await, Ok(BodyLength::None));
        assert_eq!(got.status(), Some(413));
    })
    .await;
}

#[tokio::test]
async fn what_was_not_looked_at_is_refused_and_the_rest_is_not() {
    local(async {
        let (handle, peer) = pair(&ClientOptions::default(), &::h2::server::Builder::new()).await;
        run(peer, |request, mut respond| async move {
            match request.uri().query() {
                Some("refused") => respond.send_reset(::h2::Reason::REFUSED_STREAM),
                Some("broken") => respond.send_reset(::h2::Reason::INTERNAL_ERROR),
                _ => {
                    let mut body = respond.send_response(ok(), false).expect("sent");
                    body.send_reset(::h2::Reason::CANCEL);
                }
            }
        });
        for (query, expected) in [("refused", StreamError::Refused), ("broken", StreamError::Reset)] {
            let mut up = handle.open().expect("room");
            let mut sent = request("GET");
            sent.set(b":path", format!("/?{query}").as_bytes());
            up.send_head(&sent, BodyLength::None).expect("sent");
            assert_eq!(head(&mut up, &mut Fields::new()).await, Err(expected));
        }
    })
    .await;
}

#[tokio::test]
async fn a_goodbye_is_heard() {
    local(async {
        let (handle, mut peer) = pair(&ClientOptions::default(), &::h2::server::Builder::new()).await;
        let mut first = handle.open().expect("room");
        first.send_head(&request("GET"), BodyLength::None).expect("sent");
        let (_, mut respond) = peer.accept().await.expect("a request").expect("no error");
        let mut unsent = handle.open().expect("room");
        peer.graceful_shutdown();
        let peer = tokio::task::spawn_local(async move { while peer.accept().await.is_some() {} });
        while !handle.is_leaving() {
            tokio::task::yield_now().await;
        }
        assert!(handle.open().is_none());
        assert_eq!(unsent.send_head(&request("GET"), BodyLength::None), Err(StreamError::Refused));
        // What was accepted is answered.
        respond.send_response(ok(), true).expect("sent");
        assert_eq!(head(&mut first, &mut Fields::new()).await, Ok(BodyLength::None));
        drop((first, unsent, respond));
        peer.await.expect("no panic");
        while !handle.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_breaks_closes_its_streams() {
    local(async {
        let (handle, mut peer) = pair(&ClientOptions::default(), &::h2::server::Builder::new()).await;
        let mut up = handle.open().expect("room");
        up.send_head(&request("GET"), BodyLength::None).expect("sent");
        let accepted = peer.accept().await.expect("a request").expect("no error");
        drop((peer, accepted));
        assert_eq!(head(&mut up, &mut Fields::new()).await, Err(StreamError::Closed));
        while !handle.is_closed() {
            tokio::task::yield_now().await;
        }
        assert!(handle.open().is_none());
    })
    .await;
}

#[tokio::test]
async fn limits_of_both_sides_hold() {
    local(async {
        let options = ClientOptions { concurrent_streams: 5, header_count: 3, ..ClientOptions::default() };
        let mut builder = ::h2::server::Builder::new();
        builder.max_concurrent_streams(3);
        let (handle, peer) = pair(&options, &builder).await;
        run(peer, |_, mut respond| async move {
            let mut response = http::Response::builder();
            for index in 0..4 {
                response = response.header(format!("x-{index}"), "v");
            }
            respond.send_response(response.body(()).expect("a response"), true).expect("sent");
        });
        // The peer's settings have come once it has answered.
        let mut up = handle.open().expect("room");
        up.send_head(&request("GET"), BodyLength::None).expect("sent");
        assert_eq!(head(&mut up, &mut Fields::new()).await, Err(StreamError::Limit("header_count")));
        drop(up);
        let held: Vec<_> = std::iter::from_fn(|| handle.open()).collect();
        assert_eq!(held.len(), 3);
        drop(held);
        assert!(handle.can_open());
    })
    .await;
}

/// All streams are used at once, and none of them waits for another.
#[tokio::test]
async fn many_streams_share_a_connection() {
    local(async {
        let mut builder = ::h2::server::Builder::new();
        builder.max_concurrent_streams(10);
        let (handle, peer) = pair(&ClientOptions::default(), &builder).await;
        run(peer, |_, mut respond| async move {
            respond.send_response(ok(), true).expect("sent");
        });
        let mut first = handle.open().expect("room");
        first.send_head(&request("GET"), BodyLength::None).expect("sent");
        head(&mut first, &mut Fields::new()).await.expect("a response");
        drop(first);
        for _ in 0..20 {
            let mut held: Vec<_> = std::iter::from_fn(|| handle.open()).collect();
            assert_eq!(held.len(), 10);
            for up in &mut held {
                up.send_head(&request("GET"), BodyLength::None).expect("sent");
            }
            for up in &mut held {
                assert_eq!(head(up, &mut Fields::new()).await, Ok(BodyLength::None));
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_is_noticed() {
    local(async {
        let second = Duration::from_secs(1);
        let options = ClientOptions { keepalive: Some((10 * second, second)), ..ClientOptions::default() };
        let (handle, peer) = pair(&options, &::h2::server::Builder::new()).await;
        let start = tokio::time::Instant::now();
        // It is never polled again.
        while !handle.is_closed() {
            tokio::time::sleep(second).await;
        }
        assert!(start.elapsed() <= 13 * second, "{:?}", start.elapsed());
        drop(peer);
    })
    .await;
}

/// This crate's client at this crate's server: a tunnel, and a body larger than any window.
#[tokio::test]
async fn both_sides_understand_each_other() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 64 << 10, |mut incoming, seen| async move {
            if incoming.body != Ok(BodyLength::Tunnel) {
                return answer_much(incoming, seen).await;
            }
            assert_eq!(incoming.head.get(b":protocol"), Some(&b"websocket"[..]));
            let down = &mut incoming.downstream;
            down.send_head(&status("101"), BodyLength::Tunnel).expect("sent");
            while let Some(Ok(Frame::Data(data))) = poll_fn(|cx| down.poll_frame(cx)).await {
                ready(down).await.expect("room");
                down.send_data(data, false).expect("sent");
            }
            down.send_data(Bytes::new(), true).expect("sent");
        });
        let (handle, driver) = connect(io, &ClientOptions::default()).await.expect("a handshake");
        tokio::task::spawn_local(driver);
        let mut got = Fields::new();
        let mut up = handle.open().expect("room");
        up.send_head(&request("GET"), BodyLength::None).expect("sent");
        assert_eq!(head(&mut up, &mut got).await, Ok(BodyLength::Known(1 << 20)));
        let mut total = 0;
        while let Some(Ok(Frame::Data(data))) = frame(&mut up).await {
            total += data.len();
        }
        assert_eq!(total, 1 << 20);
        assert!(handle.accepts_protocols());
        let mut tunnel = handle.open().expect("room");
        let mut asked = request("CONNECT");
        asked.set(b":protocol", b"websocket");
        tunnel.send_head(&asked, BodyLength::Tunnel).expect("sent");
        assert_eq!(head(&mut tunnel, &mut got).await, Ok(BodyLength::Tunnel));
        assert_eq!(got.status(), Some(200));
        tunnel.send_data(Bytes::from_static(b"ping"), false).expect("sent");
        let Some(Ok(Frame::Data(data))) = frame(&mut tunnel).await else { panic!("no data") };
        assert_eq!(data, "ping");
        tunnel.send_data(Bytes::new(), true).expect("sent");
        assert!(frame(&mut tunnel).await.is_none());
        drop((up, tunnel, handle));
        assert_eq!(server.end.await.expect("no panic"), End::Closed);
    })
    .await;
}
