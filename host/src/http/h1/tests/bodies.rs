//! Bodies: what goes through the decoder and the encoder.

use super::super::body::Encoder;
use super::*;

fn chunked(pieces: &[&[u8]]) -> Result<Message, BodyError> {
    let mut message = Message::default();
    read_body(Framing::Chunked, &mut BytesMut::new(), pieces, &mut message).map(|()| message)
}

#[test]
fn a_body_of_known_length_has_it() {
    let mut message = Message::default();
    read_body(Framing::Known(5), &mut BytesMut::from(&b"ab"[..]), &[b"c", b"deGET /"], &mut message).unwrap();
    assert_eq!((&message.body[..], &message.rest[..]), (&b"abcde"[..], &b"GET /"[..]));
    let short = read_body(Framing::Known(5), &mut BytesMut::from(&b"abcd"[..]), &[], &mut message);
    assert_eq!(short, Err(BodyError::Truncated));
    read_body(Framing::None, &mut BytesMut::from(&b"GET /"[..]), &[], &mut message).unwrap();
    assert_eq!(message.rest, b"GET /");
}

#[test]
fn a_chunked_body_ends_at_its_last_chunk() {
    let message = chunked(&[b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0;last\r\n\r\nGET /"]).unwrap();
    assert_eq!((&message.body[..], message.trailers, &message.rest[..]), (&b"abc0123456789"[..], None, &b"GET /"[..]));
    for cut in [&b""[..], b"3", b"3\r", b"3\r\n", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n0\r\n", b"3\r\nabc\r\n0\r\nx: y\r\n"] {
        assert_eq!(chunked(&[cut]), Err(BodyError::Truncated), "{}", cut.escape_ascii());
    }
}

#[test]
fn trailers_are_fields_but_not_any() {
    let message = chunked(&[
        b"0\r\nX-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: x\r\nX-Forwarded-For: 1.1.1.1\r\nx-envoy-a: b\r\n\
          Grpc-Status: 0\r\nCookie: a\r\nVary: x\r\n\r\n",
    ])
    .unwrap();
    let expected: Fields = [("x-sum", "1"), ("grpc-status", "0")].into_iter().collect();
    assert_eq!(message.trailers, Some(expected));
    assert_eq!(chunked(&[b"0\r\nHost: b\r\n\r\n"]).unwrap().trailers, None);
}

#[test]
fn small_chunks_that_arrive_together_become_one_frame() {
    let mut buffer = BytesMut::new();
    for _ in 0..1000 {
        buffer.extend_from_slice(b"1\r\nx\r\n");
    }
    buffer.extend_from_slice(b"400\r\n");
    buffer.extend_from_slice(&[b'y'; 1024]);
    buffer.extend_from_slice(b"\r\n1\r\nz\r\n0\r\n\r\n");
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut lengths = Vec::new();
    while let Decoded::Frame(Frame::Data(data)) = decoder.decode(&mut buffer).unwrap() {
        lengths.push(data.len());
    }
    assert_eq!(lengths, [1000, 1024, 1]);
    assert!(decoder.is_end());
}

#[test]
fn what_was_gathered_is_passed_on_before_an_error() {
    let mut buffer = BytesMut::from(&b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\nx\r\n"[..]);
    let mut decoder = Decoder::new(Framing::Chunked);
    assert!(matches!(decoder.decode(&mut buffer), Ok(Decoded::Frame(Frame::Data(data))) if data == "abc"));
    assert_eq!(decoder.decode(&mut buffer).unwrap_err(), BodyError::ChunkSize);
}

#[test]
fn extensions_may_take_a_share_of_the_data() {
    // Signed uploads have some 90 bytes of extension for each chunk.
    let chunk = format!("400;chunk-signature={}\r\n{}\r\n", "f".repeat(64), "d".repeat(1024));
    let message = chunked(&[chunk.repeat(1000).as_bytes(), b"0\r\n\r\n"]).unwrap();
    assert_eq!(message.body.len(), 1024 * 1000);
    let chunk = format!("1;{}\r\nd\r\n", "f".repeat(64));
    assert_eq!(chunked(&[chunk.repeat(1000).as_bytes(), b"0\r\n\r\n"]), Err(BodyError::ChunkExtensions));
}

#[test]
fn a_tunnel_takes_all_bytes() {
    for framing in [Framing::Tunnel, Framing::UntilClose] {
        let mut message = Message::default();
        read_body(framing, &mut BytesMut::from(&b"GET "[..]), &[b"/ HTTP"], &mut message).unwrap();
        assert_eq!(message.body, b"GET / HTTP");
    }
}

#[test]
fn data_is_not_copied() {
    let mut buffer = BytesMut::from(&b"5\r\nhello\r\n0\r\n\r\n"[..]);
    let place = buffer.as_ptr() as usize + 3;
    let Ok(Decoded::Frame(Frame::Data(data))) = Decoder::new(Framing::Chunked).decode(&mut buffer) else { unreachable!("data") };
    assert_eq!(data.as_ptr() as usize, place);
}

#[test]
fn what_remains_is_known() {
    let mut decoder = Decoder::new(Framing::Chunked);
    assert_eq!(decoder.remaining(), 0);
    let mut buffer = BytesMut::from(&b"a\r\n012"[..]);
    assert!(matches!(decoder.decode(&mut buffer), Ok(Decoded::Frame(Frame::Data(_)))));
    assert_eq!(decoder.remaining(), 7);
    assert_eq!(Decoder::new(Framing::Known(9)).remaining(), 9);
}

#[test]
fn the_encoder_keeps_what_the_head_promised() {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Framing::Known(5));
    encoder.data(b"abc", false, &mut out).unwrap();
    assert_eq!(encoder.finish(&mut out), Err(BodyError::TooShort));
    assert_eq!(encoder.data(b"def", true, &mut out), Err(BodyError::TooLong));
    encoder.data(b"de", true, &mut out).unwrap();
    assert!(encoder.is_end() && out == b"abcde");
    assert_eq!(encoder.data(b"f", false, &mut out), Err(BodyError::TooLong));
    encoder.data(b"", true, &mut out).unwrap();
    let mut none = Encoder::new(Framing::None);
    assert_eq!(none.data(b"x", true, &mut out), Err(BodyError::TooLong));
    none.finish(&mut out).unwrap();
    assert_eq!(out, b"abcde");
}

#[test]
fn the_encoder_frames_chunks_and_trailers() {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Framing::Chunked);
    encoder.data(b"", false, &mut out).unwrap();
    encoder.data(&[b'x'; 26], false, &mut out).unwrap();
    encoder.before(usize::MAX, &mut Vec::new()).unwrap();
    let trailers =
        [("grpc-status", "0"), ("content-length", "9"), ("x-bad", "a\r\nb: c"), ("x y", "z"), ("x-ok", "1"), ("x-forwarded-for", "1")];
    encoder.trailers(&trailers.into_iter().collect(), &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), format!("1a\r\n{}\r\n0\r\ngrpc-status: 0\r\nx-ok: 1\r\n\r\n", "x".repeat(26)));
    assert!(encoder.is_end());
    let mut out = Vec::new();
    let mut known = Encoder::new(Framing::Known(1));
    assert_eq!(known.trailers(&Fields::new(), &mut out), Err(BodyError::TooShort));
    known.data(b"x", false, &mut out).unwrap();
    known.trailers(&trailers.into_iter().collect(), &mut out).unwrap();
    assert_eq!(out, b"x");
}
