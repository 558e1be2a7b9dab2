//! Callouts: HTTP and gRPC requests that filters make, from the token a guest holds to the one answer it gets.
//!
//! What always holds: a token is answered at most once (a gRPC stream: closed at most once), never from inside the host call that started
//! it, and never after its stream is gone, because deleting a context cancels what it started. An answer that nobody gives is given here: a
//! dropped [`Reply`] counts as a failure. Connections, retries and timeouts are the proxy's.

use std::collections::BTreeMap;
use std::rc::Weak;

use bytes::Bytes;

use crate::codec::Pairs;
use crate::host::CallId;
use crate::vm::Vm;

/// The answer to an HTTP callout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpReply {
    /// Headers with `:status`.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The whole body.
    pub body: Bytes,
    /// Trailers, possibly none.
    pub trailers: Vec<(Bytes, Bytes)>,
}

/// What happens on a callout.
#[derive(Debug)]
pub(crate) enum Event {
    Http(HttpReply),
    /// No answer: a code (a gRPC status for gRPC) and a reason that `proxy_get_status` gives.
    Failed(u32, String),
    GrpcInitialMetadata(Vec<(Bytes, Bytes)>),
    GrpcMessage(Bytes),
    GrpcTrailingMetadata(Vec<(Bytes, Bytes)>),
    GrpcClosed(u32, String),
}

/// Where the proxy delivers what a callout brings. Dropping it unanswered is a failure answer.
#[derive(Debug)]
pub struct Reply {
    pub(crate) vm: Weak<Vm>,
    pub(crate) token: u32,
}

impl Reply {
    /// The answer to an HTTP callout.
    pub fn http(self, reply: HttpReply) {
        self.deliver(Event::Http(reply));
    }

    /// There will be no answer: connect failure, timeout, no healthy host. `code` is what the guest reads as its status; for gRPC, a gRPC status.
    pub fn fail(self, code: u32, reason: &str) {
        self.deliver(Event::Failed(code, reason.to_owned()));
    }

    /// Initial metadata of a gRPC call.
    pub fn grpc_initial_metadata(&self, metadata: Vec<(Bytes, Bytes)>) {
        self.deliver(Event::GrpcInitialMetadata(metadata));
    }

    /// One gRPC message. For a unary call this is the answer, and nothing follows.
    pub fn grpc_message(&self, message: Bytes) {
        self.deliver(Event::GrpcMessage(message));
    }

    /// Trailing metadata of a gRPC call.
    pub fn grpc_trailing_metadata(&self, metadata: Vec<(Bytes, Bytes)>) {
        self.deliver(Event::GrpcTrailingMetadata(metadata));
    }

    /// The gRPC call ended with this status.
    pub fn grpc_close(self, status: u32, message: &str) {
        self.deliver(Event::GrpcClosed(status, message.to_owned()));
    }

    /// Whether anybody still waits for this.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.vm.upgrade().is_some_and(|vm| vm.waits_for(self.token))
    }

    fn deliver(&self, event: Event) {
        if let Some(vm) = self.vm.upgrade() {
            vm.deliver(self.token, event);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.deliver(Event::Failed(14, "the callout was dropped without an answer".to_owned()));
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    Http = 0,
    GrpcUnary = 1,
    GrpcStream = 2,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) kind: CallKind,
    /// The root context that gets the callbacks.
    pub(crate) root: u32,
    /// The context that started it; its end cancels the call.
    pub(crate) context: u32,
    pub(crate) id: CallId,
    /// What it carries, as long as it is in flight.
    pub(crate) bytes: usize,
}

/// The callouts of one instance that still wait for something.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pending: BTreeMap<u32, Pending>,
    bytes: usize,
    last: u32,
}

impl Calls {
    /// A fresh token. The kind is in its low bits, as in Envoy, so that HTTP and gRPC tokens never meet.
    pub(crate) fn token(&mut self, kind: CallKind) -> u32 {
        loop {
            self.last = self.last.wrapping_add(4) & !3;
            let token = self.last | kind as u32;
            if self.last != 0 && !self.pending.contains_key(&token) {
                return token;
            }
        }
    }

    pub(crate) fn insert(&mut self, token: u32, pending: Pending) {
        self.bytes += pending.bytes;
        self.pending.insert(token, pending);
    }

    pub(crate) fn get(&self, token: u32) -> Option<Pending> {
        self.pending.get(&token).copied()
    }

    pub(crate) fn remove(&mut self, token: u32) -> Option<Pending> {
        let call = self.pending.remove(&token)?;
        self.bytes -= call.bytes;
        Some(call)
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Bytes that the calls in flight carry.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets and returns every call that `context` started.
    pub(crate) fn take_of(&mut self, context: u32) -> Vec<Pending> {
        let tokens: Vec<u32> = self.pending.iter().filter(|(_, call)| call.context == context).map(|(token, _)| *token).collect();
        tokens.into_iter().filter_map(|token| self.remove(token)).collect()
    }

    /// Forgets and returns every call.
    pub(crate) fn take_all(&mut self) -> Vec<Pending> {
        self.bytes = 0;
        std::mem::take(&mut self.pending).into_values().collect()
    }
}

/// What a guest may read while a callout's callback runs.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// `HttpCallResponseHeaders`, `GrpcReceiveInitialMetadata`, …: by ABI map number 4 to 7.
    pub(crate) maps: [Option<Pairs>; 4],
    /// By ABI buffer number 4 (HTTP body) or 5 (gRPC message).
    pub(crate) body: Option<Bytes>,
    pub(crate) message: Option<Bytes>,
}
