//! A request and its response through the chain: built in one line, driven to its end, looked at afterwards.
//!
//! The upstream answers 200 with `upstream` as its body unless the test says otherwise. A filter that pauses for a callout leaves the exchange
//! waiting: answer the callout, then [`Exchange::go_on`].

use std::time::Duration;

use bytes::Bytes;
use weir_wasm::{LocalReply, MessageMap, Side, Stream};

use crate::MemoryStream;
use crate::tester::Worker;

/// How a body is cut into pieces. A filter that treats them differently has a mistake: where a body is cut is the network's chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// All in one piece.
    Whole,
    /// Every byte by itself.
    Bytes,
    /// Pieces of seven bytes: few things that a filter looks for begin and end there.
    Odd,
}

impl Chunking {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Whole, Self::Bytes, Self::Odd];

    fn cut(self, body: &[Bytes]) -> Vec<Bytes> {
        let whole = Bytes::from(body.concat());
        let size = match self {
            Self::Whole => whole.len().max(1),
            Self::Bytes => 1,
            Self::Odd => 7,
        };
        (0..whole.len()).step_by(size).map(|at| whole.slice(at..(at + size).min(whole.len()))).collect()
    }
}

/// A request to be run.
#[derive(Clone, Debug)]
pub struct RequestBuilder<'w> {
    worker: &'w Worker,
    headers: Vec<(String, String)>,
    body: Vec<Bytes>,
    trailers: Vec<(String, String)>,
    upstream: Upstream,
    prepare: MemoryStream,
}

#[derive(Clone, Debug)]
struct Upstream {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<Bytes>,
    trailers: Vec<(String, String)>,
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn borrowed(list: &[(String, String)]) -> Vec<(&str, &str)> {
    list.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn chunks(list: &[&str]) -> Vec<Bytes> {
    list.iter().map(|chunk| Bytes::copy_from_slice(chunk.as_bytes())).collect()
}

impl<'w> RequestBuilder<'w> {
    pub(crate) fn new(worker: &'w Worker, method: &str, path: &str) -> Self {
        let headers = pairs(&[(":method", method), (":path", path), (":authority", "test.example"), (":scheme", "http")]);
        let upstream = Upstream { status: 200, headers: Vec::new(), body: chunks(&["upstream"]), trailers: Vec::new() };
        Self { worker, headers, body: Vec::new(), trailers: Vec::new(), upstream, prepare: MemoryStream::new() }
    }

    /// Whom the request is for; `test.example` unless this is called.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.headers.iter_mut().filter(|(name, _)| name == ":authority").for_each(|(_, value)| authority.clone_into(value));
        self
    }

    /// Adds a request header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The request's body, in these chunks.
    #[must_use]
    pub fn body(mut self, list: &[&str]) -> Self {
        self.body = chunks(list);
        self
    }

    /// The request's trailers.
    #[must_use]
    pub fn trailers(mut self, list: &[(&str, &str)]) -> Self {
        self.trailers = pairs(list);
        self
    }

    /// What the upstream answers: status, headers, body in chunks.
    #[must_use]
    pub fn upstream(mut self, status: u16, headers: &[(&str, &str)], body: &[&str]) -> Self {
        self.upstream = Upstream { status, headers: pairs(headers), body: chunks(body), trailers: self.upstream.trailers };
        self
    }

    /// The trailers of what the upstream answers.
    #[must_use]
    pub fn upstream_trailers(mut self, list: &[(&str, &str)]) -> Self {
        self.upstream.trailers = pairs(list);
        self
    }

    /// Prepares the stream: attributes, foreign functions, log id.
    #[must_use]
    pub fn stream(mut self, prepare: impl FnOnce(&mut MemoryStream)) -> Self {
        prepare(&mut self.prepare);
        self
    }

    /// Cuts both bodies anew.
    #[must_use]
    pub fn cut(mut self, chunking: Chunking) -> Self {
        self.body = chunking.cut(&self.body);
        self.upstream.body = chunking.cut(&self.upstream.body);
        self
    }

    /// Runs it once with each [`Chunking`] of both bodies, and checks each.
    ///
    /// # Panics
    /// When what came through depends on how the bodies were cut: status, headers, bodies.
    #[track_caller]
    pub fn each_chunking(self, check: impl Fn(&Exchange)) {
        let mut first = None;
        for chunking in Chunking::ALL {
            let exchange = self.clone().cut(chunking).run();
            check(&exchange);
            let seen =
                (exchange.status(), exchange.request_headers(), exchange.request_body(), exchange.response_headers(), exchange.body());
            let whole = first.get_or_insert_with(|| seen.clone());
            assert_eq!(*whole, seen, "what came through bodies cut {chunking:?} (right) differs from that of whole ones (left)");
        }
    }

    /// Sends it, as far as the filters let it through.
    #[must_use]
    pub fn run(self) -> Exchange {
        let mut host = self.prepare;
        host.set_map(MessageMap::RequestHeaders, &borrowed(&self.headers));
        if !self.trailers.is_empty() {
            host.set_map(MessageMap::RequestTrailers, &borrowed(&self.trailers));
        }
        let mut exchange = Exchange {
            stream: Stream::new(&self.worker.chain, host),
            upstream: Some(self.upstream),
            request: Message::default(),
            response: Message::default(),
        };
        let bare = self.body.is_empty() && self.trailers.is_empty();
        exchange.stream.request_headers(bare);
        let last = self.body.len();
        for (index, chunk) in self.body.into_iter().enumerate() {
            exchange.stream.request_body(chunk, index + 1 == last && self.trailers.is_empty());
            exchange.go_on();
        }
        if !self.trailers.is_empty() {
            exchange.stream.request_trailers();
        }
        exchange.go_on();
        exchange
    }
}

/// What came through of one message.
#[derive(Clone, Debug, Default)]
struct Message {
    head: bool,
    body: Vec<u8>,
    trailers: bool,
    ended: bool,
}

/// A request under way, or done.
#[derive(Debug)]
pub struct Exchange {
    /// The stream itself.
    pub stream: Stream<MemoryStream>,
    upstream: Option<Upstream>,
    request: Message,
    response: Message,
}

impl Exchange {
    /// Moves what can move, answers from the upstream once the request has ended, and says whether the response is complete.
    pub fn go_on(&mut self) -> bool {
        loop {
            if self.stream.host().wakes > 0 {
                self.stream.host_mut().wakes = 0;
                self.stream.resume();
            }
            self.collect();
            if self.request.ended
                && self.stream.local_reply().is_none()
                && !self.stream.is_reset()
                && let Some(upstream) = self.upstream.take()
            {
                self.answer(upstream);
            } else if self.stream.host().wakes == 0 {
                return self.response.ended;
            }
        }
    }

    /// Lets the filters go on that hold the stream for a while, as if it had passed; then goes on. How long the longest was.
    pub fn end_delays(&mut self) -> Duration {
        let delays = std::mem::take(&mut self.stream.host_mut().delays);
        for (binding, _) in &delays {
            self.stream.release(binding);
        }
        self.go_on();
        delays.into_iter().map(|(_, delay)| delay).max().unwrap_or_default()
    }

    fn collect(&mut self) {
        for (side, message) in [(Side::Request, &mut self.request), (Side::Response, &mut self.response)] {
            let out = self.stream.take(side);
            message.head |= out.head;
            message.body.extend_from_slice(&out.data);
            message.trailers |= out.trailers;
            message.ended |= out.end || out.trailers;
        }
    }

    fn answer(&mut self, upstream: Upstream) {
        let status = upstream.status.to_string();
        let mut headers = vec![(":status", status.as_str())];
        headers.extend(borrowed(&upstream.headers));
        self.stream.host_mut().set_map(MessageMap::ResponseHeaders, &headers);
        self.stream.response_headers(upstream.body.is_empty() && upstream.trailers.is_empty());
        // Taken piece by piece, as a proxy would send it: what has gone out cannot be repaired any more.
        self.collect();
        let last = upstream.body.len();
        for (index, chunk) in upstream.body.into_iter().enumerate() {
            self.stream.response_body(chunk, index + 1 == last && upstream.trailers.is_empty());
            self.collect();
        }
        if !upstream.trailers.is_empty() {
            self.stream.host_mut().set_map(MessageMap::ResponseTrailers, &borrowed(&upstream.trailers));
            self.stream.response_trailers();
        }
    }

    /// Whether the request's headers went on to the upstream.
    #[must_use]
    pub fn reached_upstream(&self) -> bool {
        self.request.head
    }

    /// Whether the response came through whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.response.ended
    }

    /// The status of the response; 0 if none came through.
    #[must_use]
    pub fn status(&self) -> u16 {
        if !self.response.head {
            return 0;
        }
        self.response_header(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// A request header as the upstream sees it.
    #[must_use]
    pub fn request_header(&self, name: &str) -> Option<String> {
        self.stream.host().header(MessageMap::RequestHeaders, name).map(str::to_owned)
    }

    /// All request headers as the upstream sees them, in order.
    #[must_use]
    pub fn request_headers(&self) -> Vec<(String, String)> {
        self.all(MessageMap::RequestHeaders)
    }

    /// All response headers as the client sees them, in order.
    #[must_use]
    pub fn response_headers(&self) -> Vec<(String, String)> {
        self.all(MessageMap::ResponseHeaders)
    }

    fn all(&self, map: MessageMap) -> Vec<(String, String)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let host = self.stream.host();
        host.map(map).iter().flat_map(|pairs| pairs.0.iter()).map(|(name, value)| (text(name), text(value))).collect()
    }

    /// A response header as the client sees it.
    #[must_use]
    pub fn response_header(&self, name: &str) -> Option<String> {
        self.stream.host().header(MessageMap::ResponseHeaders, name).map(str::to_owned)
    }

    /// The request body as the upstream sees it, as text.
    #[must_use]
    pub fn request_body(&self) -> String {
        String::from_utf8_lossy(&self.request.body).into_owned()
    }

    /// The response body as the client sees it, as text.
    #[must_use]
    pub fn body(&self) -> String {
        String::from_utf8_lossy(&self.response.body).into_owned()
    }

    /// The response body as the client sees it.
    #[must_use]
    pub fn body_bytes(&self) -> &[u8] {
        &self.response.body
    }

    /// The number of the route action that a filter chose, in the order in which they were defined.
    #[must_use]
    pub fn route(&self) -> Option<u32> {
        self.stream.host().route
    }

    /// Whether trailers came through, by side.
    #[must_use]
    pub fn has_trailers(&self, side: Side) -> bool {
        match side {
            Side::Request => self.request.trailers,
            Side::Response => self.response.trailers,
        }
    }

    /// The local reply, if a filter or a failure made one.
    #[must_use]
    pub fn local_reply(&self) -> Option<LocalReply> {
        self.stream.local_reply()
    }
}
