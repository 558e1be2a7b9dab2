//! Responses made here: what a filter's local reply, or a failure, becomes on the wire.
//!
//! For a gRPC request the reply is trailers-only: HTTP 200, `grpc-status`, the body as `grpc-message`. Details lose their white space, since they
//! end in log lines. Who sees the reply on its way out is the flow's business.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;

use crate::host::{Headers, LocalReply};

/// A reply as a filter asked for it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) status: u16,
    pub(crate) details: String,
    pub(crate) headers: Vec<(Bytes, Bytes)>,
    pub(crate) body: Bytes,
    /// Only 0 to 16 mean something.
    pub(crate) grpc_status: Option<u32>,
    pub(crate) binding: Arc<str>,
    /// The callback that asked; `None`: the host did, for a failure.
    pub(crate) asker: Option<Asker>,
}

/// One callback of one filter in the stream's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) stage: usize,
    pub(crate) turn: u64,
}

/// Why a reply cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is one already, or the response's head has gone out.
    Answered,
    /// The stream is over, or was reset.
    Over,
    /// TCP connections have no responses.
    Tcp,
    /// The stream is at work in a way that lets nobody in.
    Busy,
}

impl Refused {
    /// For the filter's author.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Answered => "this stream has been answered already; the reply is ignored",
            Self::Over => "this stream is over; the reply is ignored",
            Self::Tcp => "a TCP connection has no response; the reply is ignored: close the stream instead",
            Self::Busy => "the stream is busy; the reply is ignored",
        }
    }
}

impl Asked {
    /// Why this filter cannot serve the stream.
    pub(crate) fn failure(binding: &Arc<str>, why: &str) -> Self {
        let details = format!("wasm_{why}{{{binding}}}");
        Self::by_host(binding, 503, details)
    }

    /// A body outgrew the binding's limit.
    pub(crate) fn too_large(binding: &Arc<str>, status: u16) -> Self {
        let details = format!("wasm_body_limit{{{binding}}}");
        Self::by_host(binding, status, details)
    }

    /// A filter has made the body longer or shorter than its head says.
    pub(crate) fn length_broken(binding: &Arc<str>) -> Self {
        let details = format!("wasm_body_length{{{binding}}}");
        Self::by_host(binding, 500, details)
    }

    fn by_host(binding: &Arc<str>, status: u16, details: String) -> Self {
        Self { status, details, headers: Vec::new(), body: Bytes::new(), grpc_status: None, binding: binding.clone(), asker: None }
    }

    /// The reply in its final form for a client that sent `request`.
    pub(crate) fn complete(self, request: Option<&mut dyn Headers>) -> LocalReply {
        let details = plain(&self.details);
        let is_grpc =
            request.is_some_and(|request| request.get(b"content-type").is_some_and(|value| value.starts_with(b"application/grpc")));
        let framing = |name: &Bytes| matches!(name.as_ref(), b"content-length" | b"transfer-encoding" | b"connection" | b":status");
        let mut headers: Vec<_> = self.headers.into_iter().filter(|(name, _)| !framing(name)).collect();
        let (status, body) = if is_grpc {
            let code = self.grpc_status.filter(|code| *code <= 16).unwrap_or_else(|| grpc_status_of(self.status));
            headers.retain(|(name, _)| !matches!(name.as_ref(), b"content-type" | b"grpc-status" | b"grpc-message"));
            headers.push((Bytes::from_static(b"content-type"), Bytes::from_static(b"application/grpc")));
            headers.push((Bytes::from_static(b"grpc-status"), code.to_string().into()));
            if !self.body.is_empty() {
                headers.push((Bytes::from_static(b"grpc-message"), percent_encoded(&self.body).into()));
            }
            (200, Bytes::new())
        } else {
            headers.push((Bytes::from_static(b"content-length"), self.body.len().to_string().into()));
            (self.status, self.body)
        };
        LocalReply { status, headers, body, details, binding: self.binding }
    }
}

/// Details as they may stand in a log line: no white space, no control characters, and not too many.
fn plain(details: &str) -> String {
    const LONGEST: usize = 256;
    let words = details.split_whitespace().collect::<Vec<_>>().join("_");
    words.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// gRPC's own mapping from HTTP.
fn grpc_status_of(http: u16) -> u32 {
    match http {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn percent_encoded(message: &[u8]) -> String {
    let mut text = String::with_capacity(message.len());
    for &byte in message {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Pairs;

    fn asked(status: u16, grpc_status: Option<u32>) -> Asked {
        let headers = [("x-why", "rule"), ("content-length", "999"), ("transfer-encoding", "chunked")];
        Asked {
            status,
            details: "denied by\trule 1".into(),
            headers: headers.map(|(k, v)| (Bytes::from(k), Bytes::from(v))).to_vec(),
            body: Bytes::from_static(b"no\nway 100%"),
            grpc_status,
            binding: "deny".into(),
            asker: None,
        }
    }

    fn header<'a>(reply: &'a LocalReply, name: &str) -> Option<&'a str> {
        reply.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    #[test]
    fn http_replies_carry_their_body_and_its_length_once() {
        let reply = asked(403, Some(7)).complete(Some(&mut Pairs::default()));
        assert_eq!((reply.status, reply.details.as_str()), (403, "denied_by_rule_1"));
        assert_eq!(reply.headers.len(), 2, "{:?}", reply.headers);
        assert_eq!((header(&reply, "content-length"), header(&reply, "x-why")), (Some("11"), Some("rule")));
    }

    #[test]
    fn grpc_replies_are_trailers_only() {
        for (status, grpc_status, want) in
            [(403, None, "7"), (403, Some(16), "16"), (403, Some(99), "7"), (418, None, "2"), (200, None, "0")]
        {
            let mut request = Pairs(vec![(Bytes::from("content-type"), Bytes::from("application/grpc+proto"))]);
            let reply = asked(status, grpc_status).complete(Some(&mut request));
            assert_eq!((reply.status, reply.body.len()), (200, 0));
            assert_eq!(header(&reply, "grpc-status"), Some(want));
            assert_eq!(header(&reply, "grpc-message"), Some("no%0Away 100%25"));
            assert_eq!(header(&reply, "content-type"), Some("application/grpc"));
        }
    }
}
