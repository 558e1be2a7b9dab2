//! Which heads pass, as what, and which are refused by what name.

use super::{frames::*, *};

#[derive(Debug, PartialEq)]
enum Verdict {
    Passed(Vec<(String, String)>, BodyLength),
    Refused(u16, &'static str),
    Reset(u32),
    Goaway(u32),
}

/// Sends one head by hand and says what became of it.
async fn judge(block: Vec<u8>, flags: u8) -> Verdict {
    local(async move {
        let judged = Rc::new(RefCell::new(None));
        let place = Rc::clone(&judged);
        let (io, _server) = server(ServerOptions::default(), 1 << 20, move |incoming: Incoming, seen| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            *place.borrow_mut() = Some(match incoming.body {
                Ok(length) => Verdict::Passed(incoming.head.iter().map(|(name, value)| (text(name), text(value))).collect(), length),
                Err(refusal) => Verdict::Refused(refusal.status(), refusal.detail()),
            });
            answer_empty(incoming, seen)
        });
        let mut raw = Raw::new(io).await;
        raw.send(&frame(HEADERS, flags | END_HEADERS, 1, &block)).await;
        while let Some(got) = raw.next().await {
            match got.kind {
                HEADERS => break,
                RST_STREAM => return judged.take().unwrap_or(Verdict::Reset(got.code())),
                GOAWAY => return Verdict::Goaway(got.code()),
                _ => {}
            }
        }
        judged.take().expect("a verdict")
    })
    .await
}

async fn judge_fields(fields: &[(&str, &str)]) -> Verdict {
    judge(block(fields), END_STREAM).await
}

fn passed(fields: &[(&str, &str)], length: BodyLength) -> Verdict {
    Verdict::Passed(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), length)
}

fn get_with<'a>(extra: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [GET, extra].concat()
}

const PASSED: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "a"), (":scheme", "http")];

#[tokio::test]
async fn good_heads_pass() {
    let with = |extra: &[(&'static str, &'static str)]| [PASSED, extra].concat();
    assert_eq!(judge_fields(GET).await, passed(PASSED, BodyLength::None));
    assert_eq!(judge_fields(&get_with(&[("host", "A")])).await, passed(PASSED, BodyLength::None));
    assert_eq!(judge_fields(&get_with(&[("te", "trailers")])).await, passed(&with(&[("te", "trailers")]), BodyLength::None));
    let crumbs = get_with(&[("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("cookie", "c=3")]);
    assert_eq!(judge_fields(&crumbs).await, passed(&with(&[("cookie", "a=1; b=2; c=3"), ("x-a", "1")]), BodyLength::None));
    let posted = [POST, &[("content-length", "5")]].concat();
    let mut expected = with(&[("content-length", "5")]);
    expected[0].1 = "POST";
    assert_eq!(judge(block(&posted), 0).await, passed(&expected, BodyLength::Known(5)));
    let host_only = [(":method", "GET"), (":scheme", "https"), (":path", "/x?y"), ("host", "b:1")];
    let expected = [(":method", "GET"), (":path", "/x?y"), (":authority", "b:1"), (":scheme", "http")];
    assert_eq!(judge_fields(&host_only).await, passed(&expected, BodyLength::None));
    let options = [(":method", "OPTIONS"), (":scheme", "http"), (":authority", "a"), (":path", "*")];
    assert!(matches!(judge_fields(&options).await, Verdict::Passed(..)));
    let fragment = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a#b")];
    let Verdict::Passed(head, _) = judge_fields(&fragment).await else { panic!("refused") };
    assert_eq!(head[1].1, "/a");
}

#[tokio::test]
async fn tunnels_are_told_apart() {
    let connect = [(":method", "CONNECT"), (":authority", "a:443")];
    assert_eq!(judge(block(&connect), 0).await, passed(&connect, BodyLength::Tunnel));
    let socket = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/chat"), (":authority", "a")];
    let expected = [(":method", "CONNECT"), (":path", "/chat"), (":authority", "a"), (":scheme", "https"), (":protocol", "websocket")];
    assert_eq!(judge(block(&socket), 0).await, passed(&expected, BodyLength::Tunnel));
    let no_port = [(":method", "CONNECT"), (":authority", "a")];
    assert_eq!(judge(block(&no_port), 0).await, Verdict::Refused(400, "host_invalid"));
    let body = [(":method", "CONNECT"), (":authority", "a:1"), ("content-length", "3")];
    assert_eq!(judge(block(&body), 0).await, Verdict::Refused(400, "connect_body"));
    let scheme = [(":method", "CONNECT"), (":authority", "a:1"), (":scheme", "http")];
    assert_eq!(judge(block(&scheme), 0).await, Verdict::Reset(1));
    let protocol = get_with(&[(":protocol", "websocket")]);
    assert_eq!(judge_fields(&protocol).await, Verdict::Reset(1));
}

#[tokio::test]
async fn ambiguous_heads_are_refused_by_name() {
    let target = |path: &'static str| [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    let from = |authority: &'static str| [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", authority)];
    let cases: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (get_with(&[("host", "b")]), "host_mismatch"),
        (get_with(&[("host", "a"), ("host", "a")]), "host_duplicate"),
        (vec![(":method", "GET"), (":scheme", "http"), (":path", "/")], "host_missing"),
        (vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "")], "host_invalid"),
        (vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a/b")], "host_invalid"),
        (vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a b")], "host_invalid"),
        (from("user@a").to_vec(), "host_invalid"),
        (vec![(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")], "scheme"),
        (target("*").to_vec(), "target_form"),
        (target("?a=b").to_vec(), "target_form"),
        (target("/caf\u{e9}").to_vec(), "target"),
        (get_with(&[("content-length", "0"), ("content-length", "0")]), "content_length_duplicate"),
        (get_with(&[("x-a", " b")]), "field_value"),
        (get_with(&[("x-a", "b\t")]), "field_value"),
    ];
    for (fields, detail) in cases {
        assert_eq!(judge_fields(&fields).await, Verdict::Refused(400, detail), "{fields:?}");
    }
    let long = format!("/{}", "x".repeat(16 << 10));
    let long = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", long.as_str())];
    // The block is larger than a frame may be: in two pieces it comes through.
    assert_eq!(judge_long(block(&long)).await, Verdict::Refused(414, "path_too_long"));
    let crumbs = [GET, &[("cookie", "a=b"); 101]].concat();
    assert_eq!(judge_fields(&crumbs).await, Verdict::Refused(431, "too_many_headers"));
    let fits = [GET, &[("cookie", "a=b"); 100]].concat();
    assert!(matches!(judge_fields(&fits).await, Verdict::Passed(..)));
}

/// A path of 16 KiB and one byte, told by CONTINUATION.
async fn judge_long(block: Vec<u8>) -> Verdict {
    let judged = Rc::new(Cell::new(None));
    let place = Rc::clone(&judged);
    local(async move {
        let (io, _server) = server(ServerOptions::default(), 1 << 20, move |incoming: Incoming, seen| {
            place.set(incoming.body.err());
            answer_empty(incoming, seen)
        });
        let mut raw = Raw::new(io).await;
        let (first, second) = block.split_at(8_000);
        raw.send(&frame(HEADERS, END_STREAM, 1, first)).await;
        raw.send(&frame(CONTINUATION, END_HEADERS, 1, second)).await;
        raw.next_of(HEADERS).await.expect("an answer");
    })
    .await;
    let refusal = judged.get().expect("a refusal");
    Verdict::Refused(refusal.status(), refusal.detail())
}

#[tokio::test]
async fn malformed_heads_are_reset() {
    let cases: Vec<Vec<(&str, &str)>> = vec![
        get_with(&[("connection", "close")]),
        get_with(&[("transfer-encoding", "chunked")]),
        get_with(&[("upgrade", "h2c")]),
        get_with(&[("keep-alive", "1")]),
        get_with(&[("proxy-connection", "close")]),
        get_with(&[("te", "gzip")]),
        get_with(&[("content-length", "x")]),
        get_with(&[("content-length", "1"), ("content-length", "2")]),
        get_with(&[("content-length", "5")]),
        get_with(&[(":path", "/late")]),
        get_with(&[("x", "1"), (":authority", "late")]),
        get_with(&[(":status", "200")]),
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a b")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/\u{1}")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a b"), (":path", "/")],
        vec![(":method", "GET"), (":authority", "a"), (":path", "/")],
        vec![(":scheme", "http"), (":authority", "a"), (":path", "/")],
    ];
    for fields in cases {
        let verdict = judge_fields(&fields).await;
        let stopped = matches!(verdict, Verdict::Reset(1) | Verdict::Refused(400, "target"));
        assert!(stopped, "{fields:?}: {verdict:?}");
    }
}

#[tokio::test]
async fn bytes_that_http1_would_trip_over_never_arrive() {
    for (name, value) in [
        (&b"x-a"[..], &b"a\r\nx: y"[..]),
        (b"x-a", b"a\0b"),
        (b"x-a", b"a\nb"),
        (b"x a", b"v"),
        (b"x:a", b"v"),
        (b"x\r\n", b"v"),
        (b"X-Upper", b"v"),
        (b"", b"v"),
        (b":unknown", b"v"),
        (b":method", b"GET / HTTP/1.1\r\nx: y"),
    ] {
        let mut bytes = if name == b":method" { block(&GET[1..]) } else { block(GET) };
        bytes.extend(literal(0, name, value));
        let verdict = judge(bytes, END_STREAM).await;
        assert!(matches!(verdict, Verdict::Reset(_) | Verdict::Goaway(_)), "{name:?} {value:?}: {verdict:?}");
    }
}

#[test]
fn what_goes_out_is_clean() {
    let values = convert::Values::default();
    let head = fields(&[
        (":status", "200"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "5"),
        ("upgrade", "x"),
        ("content-length", "7"),
        ("content-type", "text/plain"),
        ("x-own", "1"),
        ("x-own", "2"),
    ]);
    let response = convert::response(&head, BodyLength::Known(3), &values).expect("a response");
    let names: Vec<_> = response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
    assert_eq!(names, [("content-type", "text/plain"), ("x-own", "1"), ("x-own", "2"), ("content-length", "3")]);
    let none = convert::response(&head, BodyLength::None, &values).expect("a response");
    assert_eq!(none.headers()["content-length"], "7");
    let unknown = convert::response(&head, BodyLength::Unknown, &values).expect("a response");
    assert!(!unknown.headers().contains_key("content-length"));
    for (name, value) in [("x-a", "a\r\nb"), ("x a", "b"), ("X-A", "b"), ("x-a", "\0")] {
        let head = fields(&[(":status", "200"), (name, value)]);
        assert!(matches!(convert::response(&head, BodyLength::None, &values), Err(StreamError::Protocol(_))), "{name:?}");
    }
    for code in ["99", "101", "abc", ""] {
        assert_eq!(convert::response(&status(code), BodyLength::None, &values).err(), Some(StreamError::Protocol("status")));
    }
    assert_eq!(convert::response(&status("101"), BodyLength::Tunnel, &values).expect("accepted").status(), 200);
    let trailers = convert::trailers_out(&fields(&[("grpc-status", "0"), ("content-length", "9"), ("host", "x")])).expect("trailers");
    assert_eq!(trailers.len(), 1);
}
