//! Peers that spend what is not theirs: each ends, in time, by name, and no one else notices.

use std::time::Instant;

use super::{frames::*, *};

fn odd(index: u32) -> u32 {
    index * 2 + 1
}

/// A flood ends with GOAWAY and a counter, in less than a second, with less than all of it read.
async fn flood_ends<R>(
    opening: Vec<u8>,
    frames: impl Iterator<Item = Vec<u8>> + 'static,
    app: impl FnMut(Incoming, Rc<Seen>) -> R + 'static,
    name: &'static str,
) -> usize
where
    R: Future<Output = ()> + 'static,
{
    let (io, server) = server(ServerOptions::default(), 64 << 10, app);
    // Another client, before and while.
    let (other, _other_server) = super::server(ServerOptions::default(), 64 << 10, answer_empty);
    let mut other = Raw::new(other).await;
    other.send(&get(1)).await;
    assert_eq!(other.next_of(HEADERS).await.expect("an answer").stream, 1);

    let start = Instant::now();
    let mut raw = Raw::new(io).await;
    raw.send(&opening).await;
    raw.flood(frames);
    let code = raw.goaway().await;
    other.send(&get(3)).await;
    assert_eq!(other.next_of(HEADERS).await.expect("an answer").stream, 3);
    assert_eq!(server.end.await.expect("no panic"), End::Abuse(name));
    assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
    assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{name}");
    assert_eq!(*server.seen.counted.borrow(), [name]);
    server.seen.requests.get()
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    local(async {
        let pairs = (0..30_000).map(|index| [get(odd(index)), reset(odd(index))].concat());
        let requests = flood_ends(Vec::new(), pairs, answer_never, "h2_rapid_reset").await;
        assert!(requests <= 201, "{requests} requests were started");
    })
    .await;
}

#[tokio::test]
async fn some_resets_do_not() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 64 << 10, answer_never);
        let mut raw = Raw::new(io).await;
        for index in 0..150 {
            raw.send(&[get(odd(index)), reset(odd(index))].concat()).await;
        }
        raw.send(&frame(PING, 0, 0, b"12345678")).await;
        raw.next_of(PING).await.expect("an answer");
        assert!(server.seen.counted.borrow().is_empty());
        assert!(!server.end.is_finished());
    })
    .await;
}

#[tokio::test]
async fn continuations_without_end_are_cut() {
    local(async {
        let open = frame(HEADERS, 0, 1, &block(GET));
        let empty = (0..10_000).map(|_| frame(CONTINUATION, 0, 1, &[]));
        assert_eq!(flood_ends(open.clone(), empty, answer_never, "h2_continuation_flood").await, 0);
        let full = (0..10_000).map(|index: u32| {
            let field = literal(0, format!("x-{index}").as_bytes(), &[b'v'; 100]);
            frame(CONTINUATION, 0, 1, &field.repeat(100))
        });
        assert_eq!(flood_ends(open, full, answer_never, "h2_continuation_flood").await, 0);
    })
    .await;
}

#[tokio::test]
async fn frames_that_carry_nothing_are_limited() {
    local(async {
        let ping = (0..100_000).map(|_| frame(PING, 0, 0, b"12345678"));
        flood_ends(Vec::new(), ping, answer_never, "h2_ping_flood").await;
        let settings = (0..100_000).map(|_| setting(4, 65_535));
        flood_ends(Vec::new(), settings, answer_never, "h2_settings_flood").await;
        let priority = (0..100_000).map(|index| frame(PRIORITY, 0, odd(index), &[0, 0, 0, 0, 16]));
        flood_ends(Vec::new(), priority, answer_never, "h2_priority_flood").await;
        let unknown = (0..100_000).map(|_| frame(0x42, 0, 0, b"what"));
        flood_ends(Vec::new(), unknown, answer_never, "h2_priority_flood").await;
        let data = (0..100_000).map(|_| frame(DATA, 0, 1, &[]));
        flood_ends(post(1), data, answer_never, "h2_empty_data_flood").await;
        let padded = (0..100_000).map(|_| frame(DATA, 8, 1, &[3, 0, 0, 0]));
        flood_ends(post(1), padded, answer_never, "h2_empty_data_flood").await;
        let updates = (0..100_000).map(|_| window_update(1, 1));
        flood_ends(get(1), updates, answer_never, "h2_window_update_flood").await;
    })
    .await;
}

#[tokio::test]
async fn streams_that_this_side_must_reset_are_limited() {
    local(async {
        // A window that overflows: the stream's error.
        let overflow = (0..30_000).map(|index| [get(odd(index)), window_update(odd(index), (1 << 31) - 1)].concat());
        let requests = flood_ends(Vec::new(), overflow, answer_never, "h2_made_you_reset").await;
        assert!(requests <= 500, "{requests} requests were started");
        // A head that depends on itself, one that is malformed, a body that is too long.
        let selfish = (0..30_000).map(|index| {
            let payload = [&odd(index).to_be_bytes()[..], &[16], &block(GET)].concat();
            frame(HEADERS, END_STREAM | END_HEADERS | 0x20, odd(index), &payload)
        });
        flood_ends(Vec::new(), selfish, answer_never, "h2_made_you_reset").await;
        let malformed = (0..30_000).map(|index| {
            let fields = [GET, &[("transfer-encoding", "chunked")]].concat();
            frame(HEADERS, END_STREAM | END_HEADERS, odd(index), &block(&fields))
        });
        assert_eq!(flood_ends(Vec::new(), malformed, answer_never, "h2_made_you_reset").await, 0);
        let long = (0..30_000).map(|index| {
            let head = frame(HEADERS, END_HEADERS, odd(index), &block(&[POST, &[("content-length", "1")]].concat()));
            [head, frame(DATA, END_STREAM, odd(index), b"two")].concat()
        });
        flood_ends(Vec::new(), long, answer_never, "h2_made_you_reset").await;
        // More streams than there may be.
        let crowd = (0..30_000).map(|index| get(odd(index)));
        let requests = flood_ends(Vec::new(), crowd, answer_never, "h2_made_you_reset").await;
        assert_eq!(requests, 100);
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_breaks_the_connection_gets_its_error() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("body after the end", [get(1), frame(DATA, 0, 1, b"more")].concat()),
        ("zero-length PRIORITY", frame(PRIORITY, 0, 1, &[])),
        ("no increment", window_update(0, 0)),
        ("upper case", frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&[GET, &[("X-Upper", "1")]].concat()))),
        ("data on an idle stream", frame(DATA, 0, 5, b"x")),
        ("a frame too long", frame(DATA, 0, 1, &[0; 17_000])),
    ];
    for (name, bytes) in cases {
        local(async {
            let (io, server) = server(ServerOptions::default(), 64 << 10, answer_never);
            let mut raw = Raw::new(io).await;
            raw.send(&bytes).await;
            assert!(raw.goaway().await.is_some_and(|code| code != 0), "{name}");
            assert!(matches!(server.end.await.expect("no panic"), End::Protocol(_)), "{name}");
        })
        .await;
    }
}

/// One field that the table holds, told 4,000 times with one byte each.
#[tokio::test]
async fn header_bombs_are_refused() {
    local(async {
        let mut bomb = block(GET);
        bomb.extend(literal(0x40, b"x-bomb", &[b'b'; 3_900]));
        bomb.extend([0x80 | 62; 4_000]);
        let (io, server) = server(ServerOptions::default(), 64 << 10, answer_never);
        let mut raw = Raw::new(io).await;
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await;
        assert_eq!(raw.goaway().await, Some(ENHANCE_YOUR_CALM));
        assert_eq!(server.end.await.expect("no panic"), End::Abuse("h2_header_bomb"));
        assert_eq!(*server.seen.counted.borrow(), ["h2_header_bomb"]);
        assert_eq!(server.seen.requests.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_list_above_the_limit_is_answered_431() {
    local(async {
        let mut large = block(GET);
        large.extend(literal(0x40, b"x-large", &[b'l'; 3_900]));
        large.extend([0x80 | 62; 20]);
        let (io, server) = server(ServerOptions::default(), 64 << 10, answer_empty);
        let mut raw = Raw::new(io).await;
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &large)).await;
        let answer = raw.next_of(HEADERS).await.expect("an answer");
        assert_eq!((answer.stream, answer.flags & END_STREAM), (1, END_STREAM));
        raw.send(&get(3)).await;
        assert_eq!(raw.next_of(HEADERS).await.expect("an answer").stream, 3);
        assert_eq!(server.seen.requests.get(), 1);
    })
    .await;
}

/// A hundred streams at window 0, one of them fed byte by byte: nothing is buffered for them, and they go.
#[tokio::test(start_paused = true)]
async fn stalled_streams_are_reaped() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 1 << 20, answer_much);
        let mut raw = Raw::with_settings(io, &setting(4, 0)).await;
        for index in 0..100 {
            raw.send(&get(odd(index))).await;
        }
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            raw.send(&window_update(1, 1)).await;
        }
        // One piece went to the library for the stream that had a byte of window; none for the others.
        assert!(server.seen.sent.get() <= 16 << 10, "{} bytes", server.seen.sent.get());
        assert_eq!(server.seen.count("h2_flow_stall"), 0);
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            raw.send(&window_update(1, 1)).await;
        }
        assert_eq!(server.seen.count("h2_flow_stall"), 100);
        assert_eq!(*server.seen.errors.borrow(), [StreamError::Limit("h2_flow_stall"); 100]);
        let mut resets = 0;
        while resets < 100 {
            raw.next_of(RST_STREAM).await.expect("a reset");
            resets += 1;
        }
        // The connection itself is as good as before.
        raw.send(&[setting(4, 65_535), get(201)].concat()).await;
        assert_eq!(raw.next_of(HEADERS).await.expect("an answer").stream, 201);
        assert!(!server.end.is_finished());
    })
    .await;
}

/// The response is complete and the request's task is gone; its end still does not wait for ever.
#[tokio::test(start_paused = true)]
async fn a_stalled_end_is_reaped() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 1 << 20, |mut incoming, _| async move {
            incoming.downstream.send_head(&status("200"), BodyLength::Unknown).ok();
            ready(&mut incoming.downstream).await.ok();
            incoming.downstream.send_data(Bytes::from(vec![b'x'; 1000]), true).ok();
        });
        let mut raw = Raw::with_settings(io, &setting(4, 10)).await;
        raw.send(&[get(1), get(3)].concat()).await;
        let mut seen = 0;
        while seen < 20 {
            seen += raw.next_of(DATA).await.expect("data").payload.len();
        }
        raw.send(&window_update(3, 990)).await;
        let rest = raw.next_of(DATA).await.expect("data");
        assert_eq!((rest.stream, rest.payload.len(), rest.flags), (3, 990, END_STREAM));
        let reset = raw.next_of(RST_STREAM).await.expect("a reset");
        assert_eq!(reset.stream, 1);
        assert_eq!(server.seen.count("h2_flow_stall"), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_that_reads_is_left_alone() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 1 << 20, answer_much);
        let mut raw = Raw::with_settings(io, &setting(4, 0)).await;
        raw.send(&get(1)).await;
        let mut received = 0;
        raw.send(&window_update(0, 1 << 20)).await;
        while received < 200_000 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            raw.send(&window_update(1, 8_000)).await;
            let mut round = 0;
            while round < 8_000 {
                round += raw.next_of(DATA).await.expect("data").payload.len();
            }
            received += round;
        }
        assert_eq!(server.seen.count("h2_flow_stall"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_left() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 4096, answer_much);
        let mut raw = Raw::with_settings(io, &setting(4, 1 << 30)).await;
        raw.send(&[window_update(0, 1 << 30), get(1)].concat()).await;
        let end = server.end.await.expect("no panic");
        assert_eq!(end, End::Abuse("h2_flow_stall"));
        assert!(server.seen.sent.get() <= 256 << 10, "{} bytes were buffered", server.seen.sent.get());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_left() {
    local(async {
        let (io, server) = server(ServerOptions::default(), 4096, answer_empty);
        assert_eq!(server.end.await.expect("no panic"), End::HandshakeTimeout);
        drop(io);
    })
    .await;
}
