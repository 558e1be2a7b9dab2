//! As much HTTP/1 as the operator's pages need: one request per connection, bodies are read and not looked at.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

const LARGEST_HEAD: usize = 16 * 1024;
const LARGEST_BODY: u64 = 64 * 1024;
const MOST_FIELDS: usize = 64;
/// How long a client may take to send its request, and to take its reply.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Other,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    query: String,
    /// `None` only in HTTP/1.0.
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    body: u64,
}

impl Request {
    /// The value of a query parameter, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex =
            (*first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    content_type: &'static str,
    extra: Option<(&'static str, &'static str)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, extra: None, body }
    }

    pub(super) fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{text}\n").into_bytes())
    }

    pub(super) fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { extra: Some((name, value)), ..self }
    }
}

/// Reads a request; `None` if the client left without one.
///
/// # Errors
/// What to answer to what is none.
pub(super) async fn read(stream: &mut dyn Stream) -> Result<Option<Request>, Reply> {
    timeout(PATIENCE, whole(stream)).await.unwrap_or_else(|_| Err(Reply::text(408, "the request took too long")))
}

async fn whole(stream: &mut dyn Stream) -> Result<Option<Request>, Reply> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 2048]);
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
        if let Some((request, head)) = parse(&bytes)? {
            let mut left = request.body.saturating_sub((bytes.len() - head) as u64);
            while left > 0 {
                match stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => return Ok(None),
                    Ok(read) => left = left.saturating_sub(read as u64),
                }
            }
            return Ok(Some(request));
        }
        if bytes.len() > LARGEST_HEAD {
            return Err(Reply::text(431, "the head of the request is too large"));
        }
    }
}

/// The request in `bytes`, and where its body begins, once the head is whole.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Reply> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= LARGEST_HEAD => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Reply::text(431, "the head of the request is too large"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Reply::text(400, "this is no HTTP/1 request")),
    };
    let all = |name: &str| -> Vec<&[u8]> {
        head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value).collect()
    };
    let one = |name: &str| match all(name)[..] {
        [] => Ok(None),
        [value] => std::str::from_utf8(value).map(|text| Some(text.trim().to_owned())).map_err(|_| Reply::text(400, "a header is no text")),
        _ => Err(Reply::text(400, "a header stands twice")),
    };
    let host = one("host")?;
    if host.is_none() && head.version == Some(1) {
        return Err(Reply::text(400, "the Host header is missing"));
    }
    if !all("transfer-encoding").is_empty() {
        return Err(Reply::text(411, "a body needs a Content-Length here"));
    }
    let body = match one("content-length")? {
        None => 0,
        Some(length) => length.parse().map_err(|_| Reply::text(400, "Content-Length is no number"))?,
    };
    if body > LARGEST_BODY {
        return Err(Reply::text(413, "the body is too large"));
    }
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => Method::Other,
    };
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some((Request { method, path: path.into(), query: query.into(), host, origin: one("origin")?, body }, length)))
}

/// Sends the reply and ends the connection.
pub(super) async fn write(stream: &mut dyn Stream, reply: &Reply, head_only: bool) {
    let reason = ::http::StatusCode::from_u16(reply.status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    let mut head = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nx-frame-options: DENY\r\ncontent-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n",
        reply.status,
        reply.content_type,
        reply.body.len(),
    );
    if let Some((name, value)) = reply.extra {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let send = async {
        stream.write_all(head.as_bytes()).await?;
        if !head_only {
            stream.write_all(&reply.body).await?;
        }
        stream.shutdown().await?;
        // What the client still sends is taken, so that the reply is not lost with a reset.
        let mut rest = [0; 2048];
        for _ in 0..64 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let _ = timeout(PATIENCE, send).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> u16 {
        parse(bytes).err().map_or(0, |reply| reply.status)
    }

    #[test]
    fn requests_are_read() {
        let bytes = b"POST /logging?level=info%2Ch2%3Ddebug&x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
        let (request, body) = parse(bytes).unwrap().unwrap();
        assert_eq!((request.method, request.path.as_str(), request.body), (Method::Post, "/logging", 2));
        assert_eq!(request.query("level").as_deref(), Some("info,h2=debug"));
        assert_eq!((request.query("y"), &bytes[body..]), (None, &b"ab"[..]));
        assert!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap().is_none());
        assert!(parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().0.host.is_none());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (bytes, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00", 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
        ] {
            assert_eq!(refused(bytes), status, "{:?}", String::from_utf8_lossy(bytes));
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(MOST_FIELDS));
        assert_eq!(refused(many.as_bytes()), 431);
    }

    #[test]
    fn odd_escapes_do_no_harm() {
        for (text, expected) in [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("a+b%41", "a bA"), ("%ff", "\u{fffd}")] {
            assert_eq!(decoded(text), expected);
        }
    }
}
