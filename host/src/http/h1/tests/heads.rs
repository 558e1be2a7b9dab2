//! Heads: what their fields become, and what is written.

use super::super::encode::{self, EncodeError, RequestOut, ResponseOut};
use super::*;
use crate::http::BodyLength;

fn request(text: &str) -> (RequestHead, Fields) {
    let (head, message) = read_request(&[text.as_bytes()]).unwrap();
    (head, message.fields)
}

fn response(asked: Asked, text: &str) -> (ResponseHead, Fields) {
    let (head, message) = read_response(asked, &[text.as_bytes()]).unwrap();
    (head, message.fields)
}

fn lines(fields: &Fields) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{}: {}", name.escape_ascii(), value.escape_ascii())).collect()
}

#[test]
fn a_request_becomes_its_fields() {
    let text = "GET /a?b=c HTTP/1.1\r\nHost: A.example:8080\r\nUser-Agent:  curl \t\r\nX-CUSTOM: One\r\nx-custom:two\r\nContent-Length: 2\r\n\r\nhi";
    let (head, fields) = request(text);
    let expected = [
        ":method: GET",
        ":scheme: http",
        ":authority: A.example:8080",
        ":path: /a?b=c",
        "user-agent: curl",
        "x-custom: One",
        "x-custom: two",
        "content-length: 2",
    ];
    assert_eq!(lines(&fields), expected);
    assert_eq!(
        head,
        RequestHead {
            version: Version::Http11,
            keep_alive: true,
            framing: Framing::Known(2),
            expect_continue: false,
            upgrade: false,
            connect: false,
            consumed: text.len() - 2,
        }
    );
    assert_eq!(fields.get(b"x-custom"), Some(&b"One"[..]));
}

#[test]
fn fields_between_neighbours_end_here() {
    let (_, fields) = request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, X-Hop , te\r\nConnection: x-other\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: close\r\n\
         TE: gzip, trailers;q=1, Trailers\r\nUpgrade: h3\r\nHTTP2-Settings: x\r\nX-Other: 2\r\nX-Kept: 3\r\nx-hop: 4\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(lines(&fields)[4..], ["x-kept: 3", "te: trailers"]);
    let (_, fields) = request("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n");
    assert!(!fields.has(Known::Te));
    let (_, fields) = response(
        Asked::Other,
        "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(lines(&fields), [":status: 200", "content-length: 0"]);
}

#[test]
fn targets_have_four_forms() {
    let target = |line: &str| {
        let (head, fields) = request(&format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n"));
        (lines(&fields).join(" "), head.connect)
    };
    for (line, expected, connect) in [
        ("GET //x/../y", ":method: GET :scheme: http :authority: h :path: //x/../y", false),
        ("OPTIONS *", ":method: OPTIONS :scheme: http :authority: h :path: *", false),
        ("OPTIONS http://b", ":method: OPTIONS :scheme: http :authority: b :path: *", false),
        ("GET https://b:1/x?y", ":method: GET :scheme: http :authority: b:1 :path: /x?y", false),
        ("GET http://b?y", ":method: GET :scheme: http :authority: b :path: /?y", false),
        ("GET http://b", ":method: GET :scheme: http :authority: b :path: /", false),
        ("CONNECT b:443", ":method: CONNECT :authority: b:443", true),
        ("CONNECT [::1]:443", ":method: CONNECT :authority: [::1]:443", true),
        ("connect /x", ":method: connect :scheme: http :authority: h :path: /x", false),
    ] {
        assert_eq!(target(line), (expected.to_owned(), connect), "{line}");
    }
}

#[test]
fn connections_stay_open_as_both_say() {
    for (version, connection, expected) in [
        ("1.1", "", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Proxy-Connection: close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let (head, _) = request(&format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {connection}");
        let (head, _) = response(Asked::Other, &format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{connection}\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {connection}");
    }
}

#[test]
fn an_upgrade_is_asked_for_in_one_way() {
    for (fields, expected) in [
        ("Connection: upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
        ("Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n", Some("WebSocket")),
        ("Connection: upgrade\r\nUpgrade: SPDY/3.1\r\n", Some("SPDY/3.1")),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", Some("websocket")),
        ("Upgrade: websocket\r\n", None),
        ("Connection: upgrade\r\n", None),
        ("Connection: upgrade\r\nUpgrade:\r\n", None),
        ("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", None),
        ("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", None),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n", None),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", None),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", None),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut block = Fields::new();
        let head = request::Parser::new().parse(text.as_bytes(), b"http", &HeadLimits::default(), &mut block).unwrap().unwrap();
        assert_eq!(head.upgrade, expected.is_some(), "{fields}");
        assert_eq!(block.get_known(Known::Upgrade), expected.map(str::as_bytes), "{fields}");
    }
    let (head, block) = request("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(!head.upgrade && !block.has(Known::Upgrade));
}

#[test]
fn who_waits_for_a_100_has_a_body() {
    let waits = |version: &str, length: u8| {
        let text = format!("PUT / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n");
        request::Parser::new().parse(text.as_bytes(), b"http", &HeadLimits::default(), &mut Fields::new()).unwrap().unwrap().expect_continue
    };
    assert!(waits("1.1", 1) && !waits("1.1", 0) && !waits("1.0", 1));
}

#[test]
fn a_response_ends_as_its_head_and_its_request_say() {
    use Asked::{Connect, Head, Other};
    for (asked, text, framing, keep_alive) in [
        (Other, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Framing::None, true),
        (Other, "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", Framing::None, false),
        (Other, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::None, false),
        (Other, "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::None, true),
        (Head, "HTTP/1.1 200 OK\r\n\r\n", Framing::None, true),
        (Connect, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::Tunnel, false),
        (Connect, "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", Framing::None, true),
        (Other, "HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose, false),
        (Other, "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", Framing::UntilClose, false),
    ] {
        let (head, fields) = response(asked, text);
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{text}");
        assert!(!fields.has(Known::ContentLength) || head.status == 200 || head.status == 407, "{text}");
    }
    let (head, fields) = response(Asked::Upgrade, "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n");
    assert_eq!(head.framing, Framing::Tunnel);
    assert_eq!(lines(&fields), [":status: 101", "x: y", "upgrade: websocket"]);
    let (head, fields) = response(Head, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
    assert_eq!((head.framing, fields.get(b"content-length")), (Framing::None, Some(&b"7"[..])));
    let (head, _) = response(Other, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    assert!(head.is_informational());
}

const REQUEST: RequestOut = RequestOut { body: BodyLength::None, upgrade: false, close: false };
const RESPONSE: ResponseOut = ResponseOut { body: BodyLength::None, version: Version::Http11, asked: Asked::Other, keep_alive: true };

fn written_request(pairs: &[(&str, &str)], say: RequestOut) -> Result<(String, Framing), EncodeError> {
    let mut out = b"before".to_vec();
    let framing = encode::request(&pairs.iter().copied().collect(), say, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(framing.is_ok() || text == "before");
    framing.map(|framing| (text["before".len()..].to_owned(), framing))
}

fn written_response(pairs: &[(&str, &str)], say: ResponseOut) -> Result<(String, Framing), EncodeError> {
    let mut out = b"before".to_vec();
    let framing = encode::response(&pairs.iter().copied().collect(), say, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(framing.is_ok() || text == "before");
    framing.map(|framing| (text["before".len()..].to_owned(), framing))
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x?y")];

#[test]
fn a_request_is_written_with_its_framing() {
    let fields = [
        &GET[..],
        &[
            ("content-length", "77"),
            ("transfer-encoding", "gzip"),
            ("connection", "x"),
            ("host", "evil"),
            ("keep-alive", "1"),
            ("x-a", "1"),
        ],
        &[("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2"), ("upgrade", "websocket")],
    ]
    .concat();
    let (text, framing) = written_request(&fields, REQUEST).unwrap();
    assert_eq!(text, "GET /x?y HTTP/1.1\r\nhost: a.example\r\nx-a: 1\r\ncookie: a=1; b=2\r\nte: trailers\r\nconnection: te\r\n\r\n");
    assert_eq!(framing, Framing::None);
    let post = |body| {
        let fields = [(":method", "POST"), (":authority", "a"), (":path", "/")];
        written_request(&fields, RequestOut { body, close: true, ..REQUEST }).unwrap()
    };
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    for (body, line, framing) in [
        (BodyLength::None, "content-length: 0\r\n", Framing::None),
        (BodyLength::Known(0), "content-length: 0\r\n", Framing::None),
        (BodyLength::Known(70_000), "content-length: 70000\r\n", Framing::Known(70_000)),
        (BodyLength::Unknown, "transfer-encoding: chunked\r\n", Framing::Chunked),
        (BodyLength::Tunnel, "", Framing::Tunnel),
    ] {
        assert_eq!(post(body), (format!("{head}{line}\r\n"), framing));
    }
    let upgrade = [&GET[..], &[("upgrade", "websocket")]].concat();
    let (text, _) = written_request(&upgrade, RequestOut { upgrade: true, ..REQUEST }).unwrap();
    assert_eq!(text, "GET /x?y HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(written_request(&GET, RequestOut { upgrade: true, ..REQUEST }), Err(EncodeError::Value));
    let (text, _) = written_request(&[(":method", "CONNECT"), (":authority", "a:443")], REQUEST).unwrap();
    assert_eq!(text, "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n");
}

#[test]
fn what_would_inject_is_not_written() {
    let with = |name: &str, value: &str| {
        let mut fields: Fields = GET.into_iter().collect();
        fields.set(name.as_bytes(), value.as_bytes());
        let mut out = Vec::new();
        let result = encode::request(&fields, REQUEST, &mut out);
        assert!(out.is_empty() == result.is_err());
        result.err()
    };
    for bad in ["a\r\nx: y", "a\nb", "a\rb", "a\0b", "a\u{7f}", "a\u{1b}[0m"] {
        assert_eq!(with("x-a", bad), Some(EncodeError::Value), "{bad:?}");
        assert_eq!(with("user-agent", bad), Some(EncodeError::Value), "{bad:?}");
        assert_eq!(with(":path", &format!("/{bad}")), Some(EncodeError::Path), "{bad:?}");
        assert_eq!(with(":method", bad), Some(EncodeError::Method), "{bad:?}");
        assert_eq!(with(":authority", bad), Some(EncodeError::Authority), "{bad:?}");
        assert_eq!(with(&format!("x{bad}"), "y"), Some(EncodeError::Name), "{bad:?}");
    }
    for (name, value, expected) in [
        (":path", "/a b", EncodeError::Path),
        (":path", "/a HTTP/1.1\r\nhost: x", EncodeError::Path),
        (":path", "", EncodeError::Path),
        (":path", "*", EncodeError::Path),
        (":path", "x", EncodeError::Path),
        (":path", "/#x", EncodeError::Path),
        (":method", "", EncodeError::Method),
        (":method", "GET /", EncodeError::Method),
        (":authority", "", EncodeError::Authority),
        (":authority", "a, b", EncodeError::Authority),
        ("", "x", EncodeError::Name),
        ("x y", "z", EncodeError::Name),
        ("x:", "z", EncodeError::Name),
    ] {
        assert_eq!(with(name, value), Some(expected), "{name:?} {value:?}");
    }
    assert_eq!(with("x-a", "tab\tand é"), None);
    let cookies = [&GET[..], &[("cookie", "a"), ("cookie", "b\r\nx: y")]].concat();
    assert_eq!(written_request(&cookies, REQUEST), Err(EncodeError::Value));
    let upgrade = [&GET[..], &[("upgrade", "w\r\nx: y")]].concat();
    assert_eq!(written_request(&upgrade, RequestOut { upgrade: true, ..REQUEST }), Err(EncodeError::Value));
    let extended = [(":method", "CONNECT"), (":protocol", "websocket"), (":authority", "a"), (":path", "/")];
    assert_eq!(written_request(&extended, REQUEST), Err(EncodeError::Method));
    assert_eq!(written_response(&[(":status", "200"), ("x", "a\nb")], RESPONSE), Err(EncodeError::Value));
    for status in ["", "20", "2000", "2 0", "20\n"] {
        assert_eq!(written_response(&[(":status", status)], RESPONSE), Err(EncodeError::Status), "{status:?}");
    }
}

#[test]
fn a_response_is_written_for_who_asked() {
    let ok = [(":status", "200"), ("content-length", "9"), ("transfer-encoding", "x"), ("connection", "x"), ("x", "y")];
    let head = "HTTP/1.1 200 OK\r\nx: y\r\n";
    let http10 = Version::Http10;
    for (say, expected, framing) in [
        (RESPONSE, "content-length: 0\r\n", Framing::None),
        (ResponseOut { keep_alive: false, ..RESPONSE }, "content-length: 0\r\nconnection: close\r\n", Framing::None),
        (ResponseOut { version: http10, ..RESPONSE }, "content-length: 0\r\nconnection: keep-alive\r\n", Framing::None),
        (ResponseOut { body: BodyLength::Known(3), ..RESPONSE }, "content-length: 3\r\n", Framing::Known(3)),
        (ResponseOut { body: BodyLength::Unknown, ..RESPONSE }, "transfer-encoding: chunked\r\n", Framing::Chunked),
        (ResponseOut { body: BodyLength::Unknown, version: http10, ..RESPONSE }, "connection: close\r\n", Framing::UntilClose),
        (ResponseOut { asked: Asked::Head, ..RESPONSE }, "content-length: 9\r\n", Framing::None),
        (ResponseOut { asked: Asked::Head, body: BodyLength::Known(4), ..RESPONSE }, "content-length: 4\r\n", Framing::None),
        (ResponseOut { asked: Asked::Connect, body: BodyLength::Tunnel, ..RESPONSE }, "", Framing::Tunnel),
    ] {
        assert_eq!(written_response(&ok, say), Ok((format!("{head}{expected}\r\n"), framing)), "{say:?}");
    }
    for (status, expected) in [
        ("100", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("103", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("304", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("799", "HTTP/1.1 799 \r\ncontent-length: 0\r\n\r\n"),
    ] {
        assert_eq!(written_response(&[(":status", status)], RESPONSE), Ok((expected.to_owned(), Framing::None)));
    }
    let switched = [(":status", "101"), ("upgrade", "websocket")];
    let say = ResponseOut { asked: Asked::Upgrade, body: BodyLength::Tunnel, ..RESPONSE };
    let text = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(written_response(&switched, say), Ok((text.to_owned(), Framing::Tunnel)));
}

#[test]
fn nothing_is_switched_that_nobody_asked_to() {
    let switched = [(":status", "101"), ("upgrade", "websocket")];
    let ok = [(":status", "200")];
    for (fields, asked, body) in [
        (&switched[..], Asked::Other, BodyLength::Tunnel),
        (&switched, Asked::Upgrade, BodyLength::None),
        (&switched, Asked::Connect, BodyLength::Tunnel),
        (&ok, Asked::Other, BodyLength::Tunnel),
        (&ok, Asked::Upgrade, BodyLength::Tunnel),
        (&ok, Asked::Connect, BodyLength::None),
        (&ok, Asked::Connect, BodyLength::Known(3)),
    ] {
        assert_eq!(written_response(fields, ResponseOut { asked, body, ..RESPONSE }), Err(EncodeError::Status), "{asked:?} {body:?}");
    }
}

#[test]
fn a_slow_sender_costs_linear_time() {
    // Bytes that arrive one by one are parsed when their number has doubled: here some 16 times, not 60,000.
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(60_000));
    let started = std::time::Instant::now();
    let mut parser = request::Parser::new();
    let mut fields = Fields::new();
    let found = (1..=text.len()).find_map(|length| {
        let head = parser.parse(&text.as_bytes()[..length], b"http", &HeadLimits::default(), &mut fields).unwrap();
        head.map(|_| length)
    });
    assert_eq!(found, Some(text.len()));
    // Quadratic would be two thousand million steps.
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}
