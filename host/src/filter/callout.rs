//! Callouts: HTTP and gRPC requests that filters make, sent to clusters like any other request.
//!
//! What always holds: an answer that will not come is reported as a failure, once; cancelling ends the task and its stream; what an answer may hold
//! is bounded.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use weir_wasm::{CallId, CalloutError, GrpcCall, HttpCall, HttpReply, Reply};

use crate::http::fields::{Fields, Known};
use crate::http::{Frame, StreamError};
use crate::upstream::client::{self, Answer, CallError, Event, Sending};
use crate::upstream::pool::WorkerCluster;
use crate::worker::Worker;

/// Most bytes of an answer's body, and of a gRPC message.
const MOST: usize = 16 << 20;
/// gRPC's own codes.
const UNAVAILABLE: u32 = 14;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;
const INTERNAL: u32 = 13;

/// The callouts of a worker that are in progress.
pub(super) struct Callouts {
    worker: Weak<Worker>,
    running: Rc<RefCell<HashMap<CallId, Running>>>,
}

struct Running {
    task: AbortHandle,
    /// For gRPC streams: messages to send, and whether each is the last.
    messages: Option<mpsc::UnboundedSender<(Bytes, bool)>>,
}

impl Callouts {
    pub(super) fn new(worker: Weak<Worker>) -> Self {
        Self { worker, running: Rc::default() }
    }

    fn cluster(&self, name: &str) -> Result<Rc<WorkerCluster>, CalloutError> {
        let worker = self.worker.upgrade().ok_or(CalloutError::Failed)?;
        let snapshot = worker.snapshot().ok_or(CalloutError::Failed)?;
        snapshot.cluster(name).ok_or(CalloutError::UnknownUpstream)
    }

    fn spawn(&self, id: CallId, messages: Option<mpsc::UnboundedSender<(Bytes, bool)>>, call: impl Future<Output = ()> + 'static) {
        let running = Rc::clone(&self.running);
        let task = tokio::task::spawn_local(async move {
            call.await;
            running.borrow_mut().remove(&id);
        });
        self.running.borrow_mut().insert(id, Running { task: task.abort_handle(), messages });
    }

    pub(super) fn http(&self, id: CallId, call: HttpCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        let cluster = self.cluster(call.upstream)?;
        let head = fields(&call.headers);
        let trailers = (!call.trailers.is_empty()).then(|| Box::new(fields(&call.trailers)));
        let (body, timeout) = (call.body, call.timeout);
        self.spawn(id, None, async move {
            match tokio::time::timeout(timeout, client::send(&cluster, head, body, trailers, MOST)).await {
                Ok(Ok(answer)) => reply.http(http_reply(answer)),
                Ok(Err(error)) => reply.fail(code(error), error.detail()),
                Err(_) => reply.fail(DEADLINE_EXCEEDED, "timeout"),
            }
        });
        Ok(())
    }

    pub(super) fn grpc(&self, id: CallId, call: GrpcCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        let cluster = self.cluster(call.upstream)?;
        let head = grpc_head(&call);
        let (send, receive) = mpsc::unbounded_channel();
        let is_unary = call.message.is_some();
        if let Some(message) = call.message {
            let _ = send.send((message, true));
        }
        let timeout = call.timeout;
        self.spawn(id, (!is_unary).then_some(send), async move {
            let wait = timeout.unwrap_or(Duration::MAX);
            let exchange = grpc(&cluster, head, receive, &reply, is_unary);
            match tokio::time::timeout(wait.min(Duration::from_secs(365 * 86_400)), exchange).await {
                Ok(Ok((status, message))) => {
                    // A unary call that has its message is over by that.
                    if reply.is_wanted() {
                        reply.grpc_close(status, &message);
                    }
                }
                Ok(Err(error)) => reply.fail(code(error), error.detail()),
                Err(_) => reply.fail(DEADLINE_EXCEEDED, "timeout"),
            }
        });
        Ok(())
    }

    pub(super) fn grpc_send(&self, id: CallId, message: Bytes, end: bool) {
        if let Some(messages) = self.running.borrow().get(&id).and_then(|running| running.messages.as_ref()) {
            // A call that is over takes no more, and says so by its end.
            let _ = messages.send((message, end));
        }
    }

    pub(super) fn cancel(&self, id: CallId, graceful: bool) {
        if graceful {
            if let Some(running) = self.running.borrow_mut().get_mut(&id) {
                running.messages = None;
            }
            return;
        }
        let running = self.running.borrow_mut().remove(&id);
        if let Some(running) = running {
            running.task.abort();
        }
    }
}

fn fields(pairs: &[(Bytes, Bytes)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in pairs {
        let lower = name.to_ascii_lowercase();
        let known = Known::of(&lower);
        match known {
            // Framing is this proxy's, and so is the connection.
            Some(Known::TransferEncoding | Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::Upgrade) => {}
            Some(Known::Host) if !fields.has(Known::Authority) => fields.set_known(Known::Authority, value),
            Some(Known::Host) => {}
            _ => fields.push(&lower, value),
        }
    }
    if !fields.has(Known::Scheme) {
        fields.set_known(Known::Scheme, b"http");
    }
    fields
}

fn pairs(fields: &Fields) -> Vec<(Bytes, Bytes)> {
    fields.iter().map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value))).collect()
}

fn http_reply(answer: Answer) -> HttpReply {
    HttpReply { headers: pairs(&answer.head), body: answer.body, trailers: answer.trailers.as_deref().map(pairs).unwrap_or_default() }
}

fn grpc_head(call: &GrpcCall<'_>) -> Fields {
    let mut head = Fields::new();
    head.push_known(Known::Method, b"POST");
    head.push_known(Known::Scheme, b"http");
    head.push_known(Known::Authority, call.upstream.as_bytes());
    head.push_known(Known::Path, format!("/{}/{}", call.service, call.method).as_bytes());
    head.push_known(Known::ContentType, b"application/grpc");
    head.push_known(Known::Te, b"trailers");
    if let Some(timeout) = call.timeout {
        head.push_known(Known::GrpcTimeout, format!("{}m", timeout.as_millis().min(99_999_999)).as_bytes());
    }
    for (name, value) in &call.metadata {
        head.push(&name.to_ascii_lowercase(), value);
    }
    head
}

fn code(error: CallError) -> u32 {
    match error {
        CallError::TooLarge => RESOURCE_EXHAUSTED,
        CallError::Broken(StreamError::Protocol(_)) => INTERNAL,
        _ => UNAVAILABLE,
    }
}

/// One gRPC call from its head to its status.
async fn grpc(
    cluster: &Rc<WorkerCluster>,
    head: Fields,
    mut messages: mpsc::UnboundedReceiver<(Bytes, bool)>,
    reply: &Reply,
    is_unary: bool,
) -> Result<(u32, String), CallError> {
    let mut sending = Sending::open(cluster, &head).await?;
    let mut response = Fields::new();
    let mut buffer = BytesMut::new();
    let mut ended = false;
    let mut seen_head = false;
    loop {
        tokio::select! {
            message = messages.recv(), if !ended => {
                let (data, last) = match message {
                    Some((message, last)) => (framed(&message), last),
                    None => (Bytes::new(), true),
                };
                ended = last;
                sending.data(data, last).await?;
            }
            event = sending.event(&mut response, seen_head) => match event? {
                Event::Head => {
                    seen_head = true;
                    let metadata = pairs(&response);
                    if let Some(status) = status_of(&response) {
                        reply.grpc_trailing_metadata(metadata);
                        return Ok(status);
                    }
                    reply.grpc_initial_metadata(metadata);
                }
                Event::Frame(Frame::Data(data)) => {
                    buffer.extend_from_slice(&data);
                    while let Some(message) = next_message(&mut buffer)? {
                        reply.grpc_message(message);
                        if is_unary {
                            return Ok((0, String::new()));
                        }
                    }
                }
                Event::Frame(Frame::Trailers(trailers)) => {
                    reply.grpc_trailing_metadata(pairs(&trailers));
                    return Ok(status_of(&trailers).unwrap_or((2, "no grpc-status".into())));
                }
                Event::End => return Ok((2, "ended without a grpc-status".into())),
            },
        }
    }
}

fn status_of(fields: &Fields) -> Option<(u32, String)> {
    let status = std::str::from_utf8(fields.get_known(Known::GrpcStatus)?).ok()?.parse().ok()?;
    let message = String::from_utf8_lossy(fields.get_known(Known::GrpcMessage).unwrap_or_default()).into_owned();
    Some((status, message))
}

fn framed(message: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(message);
    framed.freeze()
}

/// The first whole message of what has arrived.
fn next_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, CallError> {
    let Some(&[flag, a, b, c, d]) = buffer.first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MOST {
        return Err(CallError::TooLarge);
    }
    if flag != 0 {
        return Err(CallError::Broken(StreamError::Protocol("grpc_compressed_message")));
    }
    if buffer.len() < length + 5 {
        return Ok(None);
    }
    buffer.advance(5);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let mut buffer = BytesMut::new();
        let stream = [framed(&Bytes::from_static(b"one")), framed(&Bytes::new()), framed(&Bytes::from_static(b"three"))].concat();
        let mut found = Vec::new();
        for byte in stream {
            buffer.put_u8(byte);
            while let Some(message) = next_message(&mut buffer).expect("messages") {
                found.push(message);
            }
        }
        assert_eq!(found, [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")]);
    }

    #[test]
    fn what_is_too_large_or_compressed_is_refused() {
        assert_eq!(next_message(&mut BytesMut::from(&[0, 0xff, 0, 0, 0][..])), Err(CallError::TooLarge));
        assert!(next_message(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err());
    }

    #[test]
    fn what_belongs_to_the_connection_does_not_pass() {
        let pair = |name: &'static str, value: &'static str| (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()));
        let head = fields(&[pair(":path", "/"), pair("Transfer-Encoding", "chunked"), pair("Host", "a.test"), pair("X-A", "1")]);
        assert_eq!(head.authority(), b"a.test");
        assert_eq!(head.get(b"transfer-encoding"), None);
        assert_eq!(head.get(b"x-a"), Some(b"1".as_slice()));
    }
}
