//! What holds for all messages.

use proptest::prelude::*;

use super::super::body::Encoder;
use super::super::encode::{self, RequestOut, ResponseOut};
use super::*;
use crate::http::BodyLength;

/// Pieces of messages, whole and broken, in any order: close enough to HTTP to get deep into the parser.
fn almost_http() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"GET",
        b"POST",
        b"CONNECT",
        b"OPTIONS",
        b" ",
        b"/",
        b"/a?b",
        b"*",
        b"http://a",
        b"a:443",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 101 \r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"\t",
        b"Host: a\r\n",
        b"host",
        b":",
        b"X-A: b\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: upgrade\r\n",
        b"Connection: x-a\r\n",
        b"Upgrade: websocket\r\n",
        b"TE: trailers\r\n",
        b"Expect: 100-continue\r\n",
        b"\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b"1;x\r\na\r\n",
        b"\0",
        b"\x80",
        b"#",
        b"%",
        b"hello",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// A chunked body with extensions and trailers, now and then with a wrong byte.
fn chunked_body() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (prop::collection::vec(any::<u8>(), 1..700), prop::sample::select(vec!["", ";a", ";a=\"b\""]), any::<bool>());
    let chunks = prop::collection::vec(chunk, 0..8);
    let end =
        prop::sample::select(vec!["0\r\n\r\n", "0\r\nx-a: b\r\nx-c: d\r\n\r\n", "00;x\r\n\r\nrest", "", "0\r\nx", "0\r\nx y\r\n\r\n"]);
    (chunks, end, prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()))).prop_map(|(chunks, end, wrong)| {
        let mut body = Vec::new();
        for (data, extension, upper) in chunks {
            let size = if upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
            body.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            body.extend_from_slice(&data);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(end.as_bytes());
        if let Some((place, byte)) = wrong
            && !body.is_empty()
        {
            let place = place.index(body.len());
            body[place] = byte;
        }
        body
    })
}

fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12)
}

/// Names and values that a head can carry, without those that mean something to it.
fn some_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("x-[a-z0-9!#$%&'*+.^_`|~-]{1,40}", "([!-~é]([ -~é\t]{0,40}[!-~é])?)?"), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_and_splitting_changes_nothing(bytes in almost_http(), cuts in cuts()) {
        let whole = read_request(&[&bytes]);
        let pieces = split(&bytes, &cuts);
        match (&whole, &read_request(&pieces)) {
            // Without its end, a head is judged now or later.
            (Err(_), Err(_)) => {}
            (whole, split) => prop_assert_eq!(whole, split),
        }
        for asked in [Asked::Other, Asked::Head, Asked::Connect, Asked::Upgrade] {
            match (&read_response(asked, &[&bytes]), &read_response(asked, &pieces)) {
                (Err(_), Err(_)) => {}
                (whole, split) => prop_assert_eq!(whole, split),
            }
        }
    }

    #[test]
    fn what_is_accepted_is_what_another_parser_sees(bytes in almost_http()) {
        let mut fields = Fields::new();
        let Ok(Some(head)) = request::Parser::new().parse(&bytes, b"http", &HeadLimits::default(), &mut fields) else { return Ok(()) };
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut headers);
        prop_assert_eq!(other.parse(&bytes), Ok(httparse::Status::Complete(head.consumed)));
        prop_assert_eq!(other.method.map(str::as_bytes), Some(fields.method()));
        let names: Vec<String> = other.headers.iter().map(|header| header.name.to_ascii_lowercase()).collect();
        let mut seen = names.iter().map(String::as_bytes).zip(other.headers.iter().map(|header| header.value));
        for field in fields.regular().filter(|field| !matches!(field.known, Some(Known::Te | Known::Upgrade))) {
            prop_assert!(seen.any(|pair| pair == (field.name, field.value)), "{:?}", field);
        }
    }

    #[test]
    fn a_chunked_body_does_not_depend_on_how_it_arrives(body in chunked_body(), cuts in cuts()) {
        let read = |pieces: &[&[u8]]| {
            let mut message = Message::default();
            let result = read_body(Framing::Chunked, &mut BytesMut::new(), pieces, &mut message);
            (result, message)
        };
        let (result, whole) = read(&[&body]);
        for pieces in [split(&body, &cuts), single_bytes(&body)] {
            let (other, message) = read(&pieces);
            prop_assert_eq!(result.is_ok(), other.is_ok());
            prop_assert_eq!(&whole.body, &message.body);
            prop_assert_eq!(&whole.trailers, &message.trailers);
            prop_assert_eq!(&whole.rest, &message.rest);
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..900), 0..8), trailers in some_fields(), chunked: bool, cuts in cuts()) {
        let total: usize = data.iter().map(Vec::len).sum();
        let framing = if chunked { Framing::Chunked } else { Framing::Known(total as u64) };
        let mut encoder = Encoder::new(framing);
        let mut out = Vec::new();
        for piece in &data {
            encoder.data(piece, false, &mut out).unwrap();
        }
        let trailers: Fields = trailers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        encoder.trailers(&trailers, &mut out).unwrap();
        out.extend_from_slice(b"next");
        let mut message = Message::default();
        read_body(framing, &mut BytesMut::new(), &split(&out, &cuts), &mut message).unwrap();
        prop_assert_eq!(message.body, data.concat());
        prop_assert_eq!(message.rest, b"next");
        prop_assert_eq!(message.trailers.unwrap_or_default(), if chunked { trailers } else { Fields::new() });
    }

    #[test]
    fn a_request_that_is_written_is_read_alike(fields in some_fields(), path in "/[!-\"$-~]{0,60}", length: Option<u32>) {
        let mut block: Fields = [(":method", "PUT"), (":scheme", "http"), (":authority", "a.example:81"), (":path", path.as_str())].into_iter().collect();
        fields.iter().for_each(|(name, value)| block.push(name.as_bytes(), value.as_bytes()));
        let body = length.map_or(BodyLength::Unknown, |length| BodyLength::Known(u64::from(length)));
        let mut out = Vec::new();
        let framing = encode::request(&block, RequestOut { body, upgrade: false, close: false }, &mut out).unwrap();
        let mut read = Fields::new();
        let head = request::Parser::new().parse(&out, b"http", &HeadLimits::default(), &mut read).unwrap().unwrap();
        prop_assert_eq!((head.framing, head.consumed), (framing, out.len()));
        read.remove_known(Known::ContentLength);
        prop_assert_eq!(read, block);
    }

    #[test]
    fn a_response_that_is_written_is_read_alike(fields in some_fields(), status in 200..600_u16, length: Option<u32>, head: bool) {
        let mut block = Fields::new();
        block.set_status(status);
        fields.iter().for_each(|(name, value)| block.push(name.as_bytes(), value.as_bytes()));
        let body = length.map_or(BodyLength::Unknown, |length| BodyLength::Known(u64::from(length)));
        let asked = if head { Asked::Head } else { Asked::Other };
        let mut out = Vec::new();
        let framing = encode::response(&block, ResponseOut { body, asked, version: Version::Http11, keep_alive: true }, &mut out).unwrap();
        let mut read = Fields::new();
        let head = response::Parser::new().parse(&out, asked, &HeadLimits::default(), &mut read).unwrap().unwrap();
        prop_assert_eq!((head.framing, head.consumed, head.keep_alive), (framing, out.len(), true));
        read.remove_known(Known::ContentLength);
        prop_assert_eq!(read, block);
    }

    #[test]
    fn lines_that_pass_are_written_as_if_they_were_put_together(
        fields in some_fields(),
        shape in prop::collection::vec((any::<bool>(), 0..3_usize, 0..3_usize), 12),
        set in prop::option::of((0..12_usize, "[a-z]{0,9}")),
        gone in prop::option::of(0..12_usize),
    ) {
        let spaces = ["", " ", "\t "];
        let mut head = "GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nContent-Length: 0\r\ncookie: c\r\n".to_owned();
        for ((name, value), (upper, before, after)) in fields.iter().zip(&shape) {
            let name = if *upper { name.to_ascii_uppercase() } else { name.clone() };
            head += &format!("{name}:{}{value}{}\r\n", spaces[*before], spaces[*after]);
        }
        head += "\r\n";
        let mut passed = Fields::new();
        request::Parser::new().parse(head.as_bytes(), b"http", &HeadLimits::default(), &mut passed).unwrap().unwrap();
        if let Some(((name, _), value)) = set.and_then(|(at, value)| Some((fields.get(at)?, value))) {
            passed.set(name.as_bytes(), value.as_bytes());
        }
        if let Some((name, _)) = gone.and_then(|at| fields.get(at)) {
            passed.remove(name.as_bytes());
        }
        passed.append_to_list(Known::UserAgent, b"d");
        let mut together = Fields::new();
        passed.iter().for_each(|(name, value)| together.push(name, value));
        let say = RequestOut { body: BodyLength::None, upgrade: false, close: false };
        let (mut one, mut other) = (Vec::new(), Vec::new());
        encode::request(&passed, say, &mut one).unwrap();
        encode::request(&together, say, &mut other).unwrap();
        prop_assert_eq!(one.escape_ascii().to_string(), other.escape_ascii().to_string());
    }

    #[test]
    fn nothing_written_has_more_lines_than_fields(name in prop::collection::vec(any::<u8>(), 0..12), value in prop::collection::vec(any::<u8>(), 0..12), at in 0..4_usize) {
        let mut block: Fields = [(":method", "GET"), (":authority", "a"), (":path", "/"), ("x-a", "b")].into_iter().collect();
        let names: [&[u8]; 4] = [b":method", b":authority", b":path", &name];
        block.set(names[at], &value);
        let mut out = Vec::new();
        if encode::request(&block, RequestOut { body: BodyLength::None, upgrade: false, close: true }, &mut out).is_ok() {
            prop_assert!(out.iter().filter(|byte| **byte == b'\n').count() <= block.len() + 2);
            prop_assert_eq!(memchr::memmem::find(&out, b"\r\n\r\n"), Some(out.len() - 4));
            prop_assert!(!out.contains(&0));
        }
    }
}
