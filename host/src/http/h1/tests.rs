//! The codec as a whole: messages in, what becomes of them.

mod bodies;
#[path = "../../../tests/http1_corpus/mod.rs"]
mod corpus;
mod heads;
mod laws;

use bytes::BytesMut;

use super::body::{BodyError, Decoded, Decoder};
use super::request::RequestHead;
use super::response::{Asked, ResponseHead};
use super::*;
use crate::http::Frame;
use crate::http::fields::{Fields, Known};

/// A message as it was read: its fields, its body and its trailers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<Fields>,
    /// What came after it.
    pub(super) rest: Vec<u8>,
}

/// Reads a request from pieces, the way a server does.
pub(super) fn read_request(pieces: &[&[u8]]) -> Result<(RequestHead, Message), &'static str> {
    let mut parser = request::Parser::new();
    let mut message = Message::default();
    let mut buffer = BytesMut::new();
    let mut pieces = pieces.iter();
    for piece in pieces.by_ref() {
        buffer.extend_from_slice(piece);
        if let Some(head) = parser.parse(&buffer, b"http", &HeadLimits::default(), &mut message.fields).map_err(Refusal::detail)? {
            let _ = buffer.split_to(head.consumed);
            read_body(head.framing, &mut buffer, pieces.as_slice(), &mut message).map_err(BodyError::detail)?;
            return Ok((head, message));
        }
    }
    Err("head_incomplete")
}

/// Reads a response from pieces, the way a client does.
pub(super) fn read_response(asked: Asked, pieces: &[&[u8]]) -> Result<(ResponseHead, Message), &'static str> {
    let mut parser = response::Parser::new();
    let mut message = Message::default();
    let mut buffer = BytesMut::new();
    let mut pieces = pieces.iter();
    for piece in pieces.by_ref() {
        buffer.extend_from_slice(piece);
        if let Some(head) = parser.parse(&buffer, asked, &HeadLimits::default(), &mut message.fields).map_err(Refusal::detail)? {
            let _ = buffer.split_to(head.consumed);
            read_body(head.framing, &mut buffer, pieces.as_slice(), &mut message).map_err(BodyError::detail)?;
            return Ok((head, message));
        }
    }
    Err("head_incomplete")
}

pub(super) fn read_body(framing: Framing, buffer: &mut BytesMut, pieces: &[&[u8]], message: &mut Message) -> Result<(), BodyError> {
    let mut decoder = Decoder::new(framing);
    let mut pieces = pieces.iter();
    loop {
        match decoder.decode(buffer)? {
            Decoded::Frame(Frame::Data(data)) => {
                assert!(!data.is_empty());
                message.body.extend_from_slice(&data);
            }
            Decoded::Frame(Frame::Trailers(trailers)) => message.trailers = Some(*trailers),
            Decoded::End => break,
            Decoded::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => {
                    decoder.finish()?;
                    break;
                }
            },
        }
    }
    assert!(decoder.is_end());
    message.rest = buffer.to_vec();
    pieces.for_each(|piece| message.rest.extend_from_slice(piece));
    Ok(())
}

pub(super) fn single_bytes(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks(1).collect()
}

fn asked(text: &str) -> Asked {
    match text {
        "" => Asked::Other,
        "head" => Asked::Head,
        "connect" => Asked::Connect,
        "upgrade" => Asked::Upgrade,
        other => unreachable!("{other}"),
    }
}

#[test]
fn requests_of_the_corpus_end_as_they_must() {
    let cases = corpus::requests();
    assert!(cases.iter().filter(|case| case.expected != "ok").count() >= 140);
    for case in cases {
        for pieces in [vec![&case.bytes[..]], single_bytes(&case.bytes)] {
            let result = read_request(&pieces).map_or_else(|detail| detail, |_| "ok");
            assert_eq!(result, case.expected, "{} in {} pieces", case.name, pieces.len());
        }
    }
}

#[test]
fn responses_of_the_corpus_end_as_they_must() {
    let cases = corpus::responses();
    assert!(cases.iter().filter(|case| case.expected != "ok").count() >= 30);
    for case in cases {
        for pieces in [vec![&case.bytes[..]], single_bytes(&case.bytes)] {
            let result = read_response(asked(case.asked), &pieces).map_or_else(|detail| detail, |_| "ok");
            assert_eq!(result, case.expected, "{} in {} pieces", case.name, pieces.len());
        }
    }
}

/// Every cause that HTTP/1 can give is in the corpus, so that the tests through sockets meet it, too.
#[test]
fn the_corpus_has_every_cause() {
    let of_http2_only = [Refusal::HostMismatch, Refusal::Scheme];
    let causes = Refusal::ALL.iter().filter(|refusal| !of_http2_only.contains(refusal));
    let mut missing: Vec<_> = causes.map(|refusal| refusal.detail()).collect();
    for case in corpus::requests().iter().chain(&corpus::responses()) {
        missing.retain(|detail| *detail != case.expected);
    }
    assert!(missing.is_empty(), "{missing:?}");
}
