//! Bytes of unknown origin as HTTP/1 messages and as paths: what is accepted does not depend on how it arrives, and is the same after one more hop.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weir_model::config::PathNormalization;
use weir_proxy::http::fields::{Fields, Known};
use weir_proxy::http::h1::body::{Decoded, Decoder};
use weir_proxy::http::h1::encode::{self, RequestOut, ResponseOut};
use weir_proxy::http::h1::response::Asked;
use weir_proxy::http::h1::{Framing, HeadLimits, Version, request, response};
use weir_proxy::http::path::{Normalized, PathRules};
use weir_proxy::http::{BodyLength, Frame};

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, count: 20, target: 256 };

/// A body as it was read: the data, the trailers and what is left; or nothing, when it is none.
type Body = Option<(Vec<u8>, Option<Fields>, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let Some(([mode, step], message)) = data.split_first_chunk() else { return };
    let step = usize::from(*step % 32) + 1;
    match mode % 6 {
        0 => requests(message, step),
        1 => responses(message, step, Asked::Other),
        2 => responses(message, step, Asked::Head),
        3 => responses(message, step, Asked::Upgrade),
        4 => assert_eq!(body(message, message.len().max(1)), body(message, step)),
        _ => path(message, *mode),
    }
});

fn requests(bytes: &[u8], step: usize) {
    let mut whole = Fields::new();
    let head = request::Parser::new().parse(bytes, b"http", &LIMITS, &mut whole);
    let mut pieces = Fields::new();
    let mut parser = request::Parser::new();
    let by_step = ends(bytes, step).find_map(|end| parser.parse(&bytes[..end], b"http", &LIMITS, &mut pieces).transpose());
    let Ok(Some(head)) = head else {
        assert!(!matches!(by_step, Some(Ok(_))), "accepted in pieces only");
        return;
    };
    assert_eq!(by_step, Some(Ok(head)));
    assert_eq!(whole, pieces);
    assert!(head.consumed <= LIMITS.bytes && whole.len() <= LIMITS.count + 5);
    let mut out = Vec::new();
    let say = RequestOut { body: head.framing.into(), upgrade: head.upgrade, close: !head.keep_alive };
    assert_eq!(encode::request(&whole, say, &mut out), Ok(head.framing));
    let mut again = Fields::new();
    let limits = HeadLimits::default();
    let next = request::Parser::new().parse(&out, b"http", &limits, &mut again).expect("what was written").expect("all of it");
    assert_eq!((next.framing, next.upgrade, next.connect, next.consumed), (head.framing, head.upgrade, head.connect, out.len()));
    same(whole, again);
}

fn responses(bytes: &[u8], step: usize, asked: Asked) {
    let mut whole = Fields::new();
    let head = response::Parser::new().parse(bytes, asked, &LIMITS, &mut whole);
    let mut pieces = Fields::new();
    let mut parser = response::Parser::new();
    let by_step = ends(bytes, step).find_map(|end| parser.parse(&bytes[..end], asked, &LIMITS, &mut pieces).transpose());
    let Ok(Some(head)) = head else {
        assert!(!matches!(by_step, Some(Ok(_))), "accepted in pieces only");
        return;
    };
    assert_eq!(by_step, Some(Ok(head)));
    assert_eq!(whole, pieces);
    let mut out = Vec::new();
    let say = ResponseOut { body: BodyLength::from(head.framing), version: Version::Http11, asked, keep_alive: true };
    let framing = encode::response(&whole, say, &mut out).expect("what was read");
    assert_eq!(framing, if head.framing == Framing::UntilClose { Framing::Chunked } else { head.framing });
    let mut again = Fields::new();
    let limits = HeadLimits::default();
    let next = response::Parser::new().parse(&out, asked, &limits, &mut again).expect("what was written").expect("all of it");
    assert_eq!((next.framing, next.status, next.consumed), (framing, head.status, out.len()));
    same(whole, again);
}

/// Compares blocks but for what a hop may change: where the length is, cookies in one field, `host` in a response.
fn same(mut before: Fields, mut after: Fields) {
    for name in [Known::ContentLength, Known::Cookie, Known::Host] {
        before.remove_known(name);
        after.remove_known(name);
    }
    assert_eq!(before, after);
}

fn ends(bytes: &[u8], step: usize) -> impl Iterator<Item = usize> {
    (1..=bytes.len()).filter(move |end| end % step == 0 || *end == bytes.len())
}

fn body(bytes: &[u8], step: usize) -> Body {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut buffer = BytesMut::new();
    let (mut data, mut trailers) = (Vec::new(), None);
    let mut pieces = bytes.chunks(step);
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Decoded::Frame(Frame::Data(piece))) => {
                assert!(!piece.is_empty());
                data.extend_from_slice(&piece);
            }
            Ok(Decoded::Frame(Frame::Trailers(fields))) => trailers = Some(*fields),
            Ok(Decoded::More) => buffer.extend_from_slice(pieces.next()?),
            Ok(Decoded::End) => break,
            Err(_) => return None,
        }
    }
    let rest = [buffer.to_vec(), pieces.collect::<Vec<_>>().concat()].concat();
    Some((data, trailers, rest))
}

fn path(path: &[u8], mode: u8) {
    let rules = PathRules::new(&PathNormalization {
        normalize: Some(mode & 8 != 0),
        merge_slashes: mode & 16 != 0,
        escaped_slashes: i32::from(mode >> 5 & 3),
        backslash_to_slash: Some(mode & 128 != 0),
    });
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    if matches!(rules.apply(path, &mut once), Ok(Normalized::Changed | Normalized::Redirect)) {
        assert_eq!(rules.apply(&once, &mut twice), Ok(Normalized::AsIs));
        assert!(once.len() <= path.len() && once.starts_with(b"/"));
    }
}
