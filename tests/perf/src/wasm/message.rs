//! A request and a response on `http`'s types, as a proxy has them.
//!
//! A benchmark's streams share one message: building it is the HTTP library's cost, not the host's.

use std::cell::Cell;
use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue};
use weir_wasm::{Attribute, Headers, LocalReply, MessageMap, Path, Side, StreamHost};

/// Pseudo headers and headers of one message.
pub(crate) struct Head {
    pseudo: Vec<(&'static str, String)>,
    headers: HeaderMap,
}

impl Headers for Head {
    fn count(&self) -> usize {
        self.pseudo.len() + self.headers.len()
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        if name.first() == Some(&b':') {
            return self.pseudo.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, value)| value.as_bytes());
        }
        self.headers.get(std::str::from_utf8(name).ok()?).map(HeaderValue::as_bytes)
    }

    fn visit(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in &self.pseudo {
            each(name.as_bytes(), value.as_bytes());
        }
        for (name, value) in &self.headers {
            each(name.as_str().as_bytes(), value.as_bytes());
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.headers.append(name, value);
        }
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        if let Some((_, known)) = self.pseudo.iter_mut().find(|(known, _)| known.as_bytes() == name) {
            *known = String::from_utf8_lossy(value).into_owned();
        } else if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.headers.insert(name, value);
        }
    }

    fn remove(&mut self, name: &[u8]) {
        if let Ok(name) = std::str::from_utf8(name) {
            self.headers.remove(name);
        }
    }
}

/// A request and its response.
pub(crate) struct Message(Rc<Cell<Option<Box<[Head; 2]>>>>);

impl Message {
    /// A browser-like request with ten headers, and nginx's answer.
    pub(crate) fn sample() -> Self {
        let request = [
            ("host", "svc.example.com"),
            ("user-agent", "curl/8.5.0"),
            ("accept", "*/*"),
            ("accept-encoding", "gzip, deflate, br"),
            ("x-request-id", "7b1e6c1c-6f10-4a8e-9a6e-0d6d3d6a7f11"),
            ("x-version", "v1"),
            ("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.abc.def"),
            ("cookie", "session=abcdef0123456789; theme=dark"),
            ("x-forwarded-for", "10.0.0.7"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ];
        let response = [
            ("server", "nginx"),
            ("date", "Sat, 21 Nov 2026 00:00:00 GMT"),
            ("content-type", "text/plain"),
            ("content-length", "1024"),
            ("connection", "keep-alive"),
        ];
        let head = |pseudo: &[(&'static str, &str)], list: &[(&'static str, &'static str)]| Head {
            pseudo: pseudo.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            headers: list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect(),
        };
        let request = head(&[(":method", "GET"), (":path", "/api/v1/users/42"), (":authority", "svc.example.com")], &request);
        Self(Rc::new(Cell::new(Some(Box::new([request, head(&[(":status", "200")], &response)])))))
    }

    /// A stream over this message.
    pub(crate) fn stream(&self) -> MessageStream {
        MessageStream { heads: self.0.clone(), held: self.0.take(), cluster: None }
    }
}

/// The shared message while a stream has it: it is taken at the stream's start and put back at its end.
pub(crate) struct MessageStream {
    heads: Rc<Cell<Option<Box<[Head; 2]>>>>,
    held: Option<Box<[Head; 2]>>,
    cluster: Option<Box<[u8]>>,
}

impl MessageStream {
    /// The route that a filter chose.
    pub(crate) fn cluster(&self) -> Option<&str> {
        std::str::from_utf8(self.cluster.as_deref()?).ok()
    }
}

impl Drop for MessageStream {
    fn drop(&mut self) {
        self.heads.set(self.held.take());
    }
}

impl StreamHost for MessageStream {
    fn headers(&mut self, map: MessageMap) -> Option<&mut dyn Headers> {
        let index = match map {
            MessageMap::RequestHeaders => 0,
            MessageMap::ResponseHeaders => 1,
            MessageMap::RequestTrailers | MessageMap::ResponseTrailers => return None,
        };
        self.held.as_mut().map(|heads| &mut heads[index] as &mut dyn Headers)
    }

    fn make_trailers(&mut self, _: Side) -> Option<&mut dyn Headers> {
        None
    }

    fn attribute(&self, _: Path<'_>) -> Option<Attribute<'_>> {
        None
    }

    fn set_attribute(&mut self, path: Path<'_>, value: &[u8]) -> bool {
        let known = path.is(&["cluster"]);
        if known {
            self.cluster = Some(value.into());
        }
        known
    }

    fn start_local_reply(&mut self, _: &LocalReply) {}

    fn wake(&mut self) {}
}
