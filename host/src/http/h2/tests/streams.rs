//! Streams of a well-behaved client: bodies both ways, trailers, back-pressure, and how connections end.

use super::*;

type Client = ::h2::client::SendRequest<Bytes>;

async fn client(io: DuplexStream) -> Client {
    let (send, connection) = ::h2::client::handshake(io).await.expect("a handshake");
    tokio::task::spawn_local(async move {
        connection.await.ok();
    });
    send.ready().await.expect("ready")
}

fn get(path: &str) -> http::Request<()> {
    http::Request::get(format!("http://host{path}")).body(()).expect("a request")
}

async fn read(body: &mut ::h2::RecvStream) -> Result<usize, ::h2::Error> {
    let mut total = 0;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        total += piece.len();
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok(total)
}

async fn frame(downstream: &mut H2Downstream) -> Option<Result<Frame, StreamError>> {
    poll_fn(|cx| downstream.poll_frame(cx)).await
}

/// Sends back what comes, and trailers.
async fn echo(mut incoming: Incoming, seen: Rc<Seen>) {
    let down = &mut incoming.downstream;
    down.send_head(&status("200"), BodyLength::Unknown).expect("the stream is there");
    while let Some(Ok(frame)) = frame(down).await {
        match frame {
            Frame::Data(data) => {
                seen.sent.set(seen.sent.get() + data.len());
                ready(down).await.ok();
                down.send_data(data, false).ok();
            }
            Frame::Trailers(trailers) => {
                down.send_trailers(&trailers).ok();
                return;
            }
        }
    }
    down.send_trailers(&fields(&[("grpc-status", "0")])).ok();
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 64 << 10, echo);
        let mut send = client(io).await;
        let (response, mut body) =
            send.send_request(http::Request::post("http://host/echo").body(()).expect("a request"), false).expect("sent");
        let mut response = response.await.expect("a response").into_body();
        // The second message goes out after the first has come back.
        for message in ["one", "two", "three"] {
            body.send_data(Bytes::from(message), false).expect("sent");
            assert_eq!(response.data().await.expect("data").expect("no error"), message);
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "11".parse().expect("a value"));
        body.send_trailers(trailers).expect("sent");
        assert!(response.data().await.is_none());
        assert_eq!(response.trailers().await.expect("no error").expect("trailers")["x-sum"], "11");
        drop((send, body, response));
        assert_eq!(server.end.await.expect("no panic"), End::Closed);
    })
    .await;
}

#[tokio::test]
async fn a_head_can_be_all() {
    local(async {
        let (io, _server) = server(ServerOptions::default(), 64 << 10, |mut incoming, _| async move {
            let head = fields(&[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")]);
            incoming.downstream.send_informational(&status("103")).expect("sent");
            incoming.downstream.send_head(&head, BodyLength::None).expect("sent");
        });
        let mut send = client(io).await;
        let (mut response, _) = send.send_request(get("/"), true).expect("sent");
        let early = poll_fn(|cx| response.poll_informational(cx)).await.expect("an early head").expect("no error");
        assert_eq!(early.status(), 103);
        let response = response.await.expect("a response");
        assert_eq!(response.headers()["grpc-status"], "12");
        assert!(response.body().is_end_stream());
    })
    .await;
}

/// A megabyte to a client that reads nothing: what is buffered is its window and one piece.
#[tokio::test]
async fn a_client_that_does_not_read_stops_the_sender() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 64 << 10, answer_much);
        let mut send = client(io).await;
        let (response, _) = send.send_request(get("/"), true).expect("sent");
        let mut response = response.await.expect("a response").into_body();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let sent = server.seen.sent.get();
        assert!((1..=65_535 + (16 << 10)).contains(&sent), "{sent} bytes");
        assert_eq!(read(&mut response).await.expect("no error"), 1 << 20);
    })
    .await;
}

/// A megabyte to a server that reads nothing: the window stays shut.
#[tokio::test]
async fn a_server_that_does_not_read_stops_the_client() {
    local(async {
        let options = ServerOptions { stream_window: 100_000, connection_window: 100_000, ..ServerOptions::default() };
        let go = Rc::new(Notify::new());
        let gate = Rc::clone(&go);
        let (io, server) = server(options, 64 << 10, move |mut incoming, seen| {
            let gate = Rc::clone(&gate);
            async move {
                let Some(Ok(Frame::Data(first))) = frame(&mut incoming.downstream).await else { panic!("no data") };
                seen.sent.set(first.len());
                gate.notified().await;
                while let Some(Ok(Frame::Data(data))) = frame(&mut incoming.downstream).await {
                    seen.sent.set(seen.sent.get() + data.len());
                }
                answer_empty(incoming, seen).await;
            }
        });
        let mut send = client(io).await;
        let (response, mut body) =
            send.send_request(http::Request::post("http://host/").body(()).expect("a request"), false).expect("sent");
        let sent = Rc::new(Cell::new(0));
        let progress = Rc::clone(&sent);
        let writer = tokio::task::spawn_local(async move {
            while progress.get() < 1 << 20 {
                body.reserve_capacity(16 << 10);
                let room = poll_fn(|cx| body.poll_capacity(cx)).await.expect("open").expect("no error").min((1 << 20) - progress.get());
                progress.set(progress.get() + room);
                body.send_data(Bytes::from(vec![0; room]), progress.get() == 1 << 20).expect("sent");
            }
        });
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!((1..=100_000).contains(&sent.get()), "{} bytes", sent.get());
        go.notify_one();
        assert_eq!(response.await.expect("a response").status(), 200);
        writer.await.expect("no panic");
        assert_eq!(server.seen.sent.get(), 1 << 20);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 64 << 10, |mut incoming, seen| async move {
            incoming.downstream.send_head(&status("200"), BodyLength::Unknown).expect("sent");
            let error = poll_fn(|cx| incoming.downstream.poll_closed(cx)).await;
            seen.errors.borrow_mut().push(error);
        });
        let mut send = client(io).await;
        let (response, mut body) = send.send_request(get("/"), false).expect("sent");
        response.await.expect("a response");
        body.send_reset(::h2::Reason::CANCEL);
        while server.seen.errors.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*server.seen.errors.borrow(), [StreamError::Reset]);
    })
    .await;
}

#[tokio::test]
async fn dropping_a_stream_resets_it() {
    local(async {
        let (io, _server) = server(ServerOptions::default(), 64 << 10, |mut incoming, _| async move {
            if incoming.head.path() == b"/early" {
                incoming.downstream.send_head(&status("403"), BodyLength::None).expect("sent");
            } else if incoming.head.path() == b"/refuse" {
                incoming.downstream.reset(ResetReason::Refused);
            }
        });
        let mut send = client(io).await;
        let (response, _) = send.send_request(get("/drop"), true).expect("sent");
        assert_eq!(response.await.expect_err("a reset").reason(), Some(::h2::Reason::CANCEL));
        let (response, _) = send.send_request(get("/refuse"), true).expect("sent");
        assert_eq!(response.await.expect_err("a reset").reason(), Some(::h2::Reason::REFUSED_STREAM));
        // An answer before the request's end is an answer, and the rest is not wanted.
        let (response, mut body) = send.send_request(get("/early"), false).expect("sent");
        assert_eq!(response.await.expect("a response").status(), 403);
        let reason = poll_fn(|cx| body.poll_reset(cx)).await.expect("a reset");
        assert_eq!(reason, ::h2::Reason::NO_ERROR);
    })
    .await;
}

#[tokio::test]
async fn draining_finishes_what_runs() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 64 << 10, answer_much);
        let mut send = client(io).await;
        let (response, _) = send.send_request(get("/"), true).expect("sent");
        let mut response = response.await.expect("a response").into_body();
        server.drain.notify_one();
        assert_eq!(read(&mut response).await.expect("no error"), 1 << 20);
        assert_eq!(server.end.await.expect("no panic"), End::Closed);
        assert!(send.ready().await.is_err(), "the client was told");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_cannot_stop_a_drain() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 64 << 10, answer_empty);
        let raw = frames::Raw::new(io).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.drain.notify_one();
        assert_eq!(server.end.await.expect("no panic"), End::Closed);
        drop(raw);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn idle_old_and_used_connections_end() {
    let minute = Duration::from_secs(60);
    let cases = [
        ServerOptions { idle: Some(minute), ..ServerOptions::default() },
        ServerOptions { idle: None, max_age: Some(minute), ..ServerOptions::default() },
        ServerOptions { idle: None, requests: Some(1), ..ServerOptions::default() },
    ];
    for options in cases {
        local(async {
            let (io, server) = server(options, 64 << 10, answer_empty);
            let mut send = client(io).await;
            let (response, _) = send.send_request(get("/"), true).expect("sent");
            response.await.expect("a response");
            let start = tokio::time::Instant::now();
            assert_eq!(server.end.await.expect("no panic"), End::Closed);
            assert!(start.elapsed() <= minute * 3 / 2, "{:?}", start.elapsed());
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_is_not_idle() {
    local(async {
        let options = ServerOptions { idle: Some(Duration::from_secs(60)), ..ServerOptions::default() };
        let (io, server) = server(options, 64 << 10, answer_never);
        let mut send = client(io).await;
        let stream = send.send_request(get("/"), true).expect("sent");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(!server.end.is_finished());
        drop(stream);
        assert_eq!(server.end.await.expect("no panic"), End::Closed);
    })
    .await;
}

#[tokio::test]
async fn bytes_read_before_count() {
    local(async {
        let (mut io, other) = tokio::io::duplex(64 << 10);
        let served = tokio::task::spawn_local(async move {
            let mut app = App { seen: Rc::default(), serve: answer_empty };
            let read = [PREFACE, &frames::frame(frames::SETTINGS, 0, 0, &[]), &frames::get(1)].concat();
            serve(other, Bytes::from(read), &ServerOptions::default(), std::future::pending(), &mut app).await
        });
        let mut bytes = Vec::<u8>::new();
        let answer = [1_u8, 5, 0, 0, 0, 1, 0x88];
        while !bytes.windows(answer.len()).any(|window| window == answer) {
            let mut piece = [0; 1024];
            let count = tokio::io::AsyncReadExt::read(&mut io, &mut piece).await.expect("no error");
            assert!(count > 0, "closed: {bytes:?}");
            bytes.extend(&piece[..count]);
        }
        drop(io);
        served.await.expect("no panic");
    })
    .await;
}
