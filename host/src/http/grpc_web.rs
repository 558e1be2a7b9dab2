//! gRPC-Web: what browsers can speak, as gRPC for filters and upstreams, and back.
//!
//! The request's head becomes gRPC's before any filter sees it. Messages are the same in both; what differs is that responses end with their trailers as
//! one more piece of the body, and that the text form is Base64 both ways. What always holds: no more than three bytes are held back of a request,
//! nothing of a response. A response that is no gRPC passes as it is.

use bytes::{Bytes, BytesMut};

use super::fields::{Fields, Known};

const WEB: &[u8] = b"application/grpc-web";
const WEB_TEXT: &[u8] = b"application/grpc-web-text";
const GRPC: &[u8] = b"application/grpc";
/// Marks the piece that holds trailers.
const TRAILERS: u8 = 0x80;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// One request that is translated.
#[derive(Debug)]
pub struct GrpcWeb {
    text: bool,
    /// Digits of the request that wait for the rest of their group of four.
    digits: [u8; 4],
    count: usize,
    /// The response is gRPC's.
    responds: bool,
}

/// The text form of a body is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadText;

impl GrpcWeb {
    /// Makes a request gRPC's if it is gRPC-Web's.
    pub fn begin(head: &mut Fields) -> Option<Box<Self>> {
        let kind = head.get_known(Known::ContentType)?;
        let (text, rest) = match (kind.strip_prefix(WEB_TEXT), kind.strip_prefix(WEB)) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return None,
        };
        let is_type = matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
        if !is_type || head.method() != b"POST" {
            return None;
        }
        let kind = [GRPC, rest].concat();
        head.set_known(Known::ContentType, &kind);
        head.set_known(Known::Te, b"trailers");
        if text {
            head.remove_known(Known::ContentLength);
        }
        Some(Box::new(Self { text, digits: [0; 4], count: 0, responds: false }))
    }

    /// A piece of the request's body. `end`: the last one.
    ///
    /// # Errors
    /// When the text form is broken.
    pub fn request(&mut self, data: Bytes, end: bool) -> Result<Bytes, BadText> {
        if !self.text {
            return Ok(data);
        }
        let mut bytes = BytesMut::with_capacity(data.len() / 4 * 3 + 3);
        for digit in data {
            self.digits[self.count] = digit;
            self.count += 1;
            if self.count == 4 {
                self.count = 0;
                decode(self.digits, &mut bytes)?;
            }
        }
        if end && self.count > 0 { Err(BadText) } else { Ok(bytes.freeze()) }
    }

    /// The response's head, right before it is sent.
    pub fn response(&mut self, head: &mut Fields) {
        let Some(rest) = head.get_known(Known::ContentType).and_then(|kind| kind.strip_prefix(GRPC)) else { return };
        if !matches!(rest.first(), None | Some(b'+' | b';' | b' ')) {
            return;
        }
        let kind = [if self.text { WEB_TEXT } else { WEB }, rest].concat();
        head.set_known(Known::ContentType, &kind);
        head.remove_known(Known::ContentLength);
        self.responds = true;
    }

    /// A piece of the response's body.
    #[must_use]
    pub fn data(&self, data: Bytes) -> Bytes {
        if self.text && self.responds { encode(&data) } else { data }
    }

    /// The response's trailers as the last piece of its body; `None` if they are none of gRPC's.
    #[must_use]
    pub fn trailers(&self, trailers: &Fields) -> Option<Bytes> {
        if !self.responds {
            return None;
        }
        let mut lines = Vec::new();
        for (name, value) in trailers.iter() {
            lines.extend([name, b": ", value, b"\r\n"].concat());
        }
        let mut piece = vec![TRAILERS];
        piece.extend(u32::try_from(lines.len()).unwrap_or(u32::MAX).to_be_bytes());
        piece.extend(lines);
        Some(self.data(piece.into()))
    }
}

/// Four digits, of which the last two may be padding: a text may consist of several that were encoded on their own.
fn decode(digits: [u8; 4], bytes: &mut BytesMut) -> Result<(), BadText> {
    let padding = digits.iter().rev().take_while(|digit| **digit == b'=').count();
    if padding > 2 {
        return Err(BadText);
    }
    let mut number = 0;
    for digit in &digits[..4 - padding] {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(BadText),
        };
        number = number << 6 | u32::from(value);
    }
    number <<= 6 * padding;
    bytes.extend_from_slice(&number.to_be_bytes()[1..4 - padding]);
    Ok(())
}

fn encode(data: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(data.len().div_ceil(3) * 4);
    for three in data.chunks(3) {
        let mut number = [0; 4];
        number[1..=three.len()].copy_from_slice(three);
        let number = u32::from_be_bytes(number);
        for place in 0..4 {
            let value = (number >> (18 - 6 * place)) & 63;
            text.push(if place <= three.len() { DIGITS[value as usize] } else { b'=' });
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &[u8], kind: &[u8]) -> Fields {
        let mut head = Fields::new();
        head.push_known(Known::Method, method);
        head.push_known(Known::ContentType, kind);
        head.push_known(Known::ContentLength, b"8");
        head
    }

    #[test]
    fn requests_become_grpc() {
        for (kind, becomes, length) in [
            (&b"application/grpc-web"[..], &b"application/grpc"[..], true),
            (b"application/grpc-web+proto", b"application/grpc+proto", true),
            (b"application/grpc-web-text", b"application/grpc", false),
            (b"application/grpc-web-text+proto; charset=utf-8", b"application/grpc+proto; charset=utf-8", false),
        ] {
            let mut head = head(b"POST", kind);
            assert!(GrpcWeb::begin(&mut head).is_some());
            assert_eq!((head.get_known(Known::ContentType), head.get_known(Known::Te)), (Some(becomes), Some(&b"trailers"[..])));
            assert_eq!(head.has(Known::ContentLength), length);
        }
        for (method, kind) in
            [(&b"POST"[..], &b"application/grpc"[..]), (b"POST", b"application/grpc-website"), (b"GET", WEB), (b"POST", b"text/html")]
        {
            let mut head = head(method, kind);
            assert!(GrpcWeb::begin(&mut head).is_none());
            assert_eq!(head.get_known(Known::ContentType), Some(kind));
        }
    }

    #[test]
    fn text_comes_in_any_pieces_and_padded_anywhere() {
        let message = b"\0\0\0\0\x04who?\xff".to_vec();
        for split in 0..message.len() {
            let text = [encode(&message[..split]), encode(&message[split..])].concat();
            for size in 1..=text.len() {
                let mut web = GrpcWeb::begin(&mut head(b"POST", WEB_TEXT)).unwrap();
                let mut decoded = Vec::new();
                for piece in text.chunks(size) {
                    decoded.extend(web.request(Bytes::copy_from_slice(piece), false).unwrap());
                }
                decoded.extend(web.request(Bytes::new(), true).unwrap());
                assert_eq!(decoded, message);
            }
        }
        for wrong in ["A", "AAA", "A===", "====", "AA=A", "A\nAA", "AAA\u{e9}"] {
            let mut web = GrpcWeb::begin(&mut head(b"POST", WEB_TEXT)).unwrap();
            assert_eq!(web.request(Bytes::from(wrong), true), Err(BadText), "{wrong}");
        }
    }

    #[test]
    fn responses_end_with_their_trailers() {
        let mut trailers = Fields::new();
        trailers.push(b"grpc-status", b"0");
        trailers.push(b"x-a", b"b");
        let piece = b"\x80\0\0\0\x18grpc-status: 0\r\nx-a: b\r\n";
        for (kind, expected) in [(WEB, Bytes::from_static(piece)), (WEB_TEXT, encode(piece))] {
            let mut web = GrpcWeb::begin(&mut head(b"POST", kind)).unwrap();
            let mut response = head(b"", b"application/grpc+proto");
            web.response(&mut response);
            assert_eq!(response.get_known(Known::ContentType).unwrap(), [kind, b"+proto"].concat());
            assert!(!response.has(Known::ContentLength));
            assert_eq!(web.trailers(&trailers), Some(expected));
        }
        let mut web = GrpcWeb::begin(&mut head(b"POST", WEB_TEXT)).unwrap();
        let mut response = head(b"", b"text/html");
        web.response(&mut response);
        assert!(response.has(Known::ContentLength));
        assert_eq!((web.trailers(&trailers), web.data(Bytes::from_static(b"no gRPC"))), (None, Bytes::from_static(b"no gRPC")));
    }
}
