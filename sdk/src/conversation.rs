//! gRPC streams of a filter's own: messages both ways, for as long as both like.
//!
//! What always holds: messages come in the order in which they were sent, each once; a stream that is dropped before its peer ended it is cancelled, as it is
//! when the context ends that opened it. What it does not do: hold the peer back. What was not taken yet lies in the filter's memory, which is bounded.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use crate::abi::{self, Status, pairs};
use crate::call::CallError;
use crate::runtime::task::{Line, Tasks};

/// A gRPC stream that is being put together; [`GrpcOpening::open`] opens it.
#[derive(Debug)]
#[must_use = "it is not open yet"]
pub struct GrpcOpening {
    tasks: Rc<Tasks>,
    cluster: String,
    service: String,
    method: String,
    metadata: Vec<(Vec<u8>, Vec<u8>)>,
}

impl GrpcOpening {
    pub(crate) fn new(tasks: Rc<Tasks>, cluster: &str, service: &str, method: &str) -> Self {
        let (cluster, service, method) = (cluster.to_owned(), service.to_owned(), method.to_owned());
        Self { tasks, cluster, service, method, metadata: Vec::new() }
    }

    /// Adds metadata.
    pub fn metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.metadata.push((name.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Opens it. Messages may be sent at once; whether there is a peer shows in what it answers.
    ///
    /// # Errors
    /// [`CallError::Refused`]: the cluster is unknown or not allowed.
    pub fn open(self) -> Result<GrpcStream, CallError> {
        let metadata = pairs::encode(self.metadata.iter().map(|(name, value)| (&name[..], &value[..])));
        let (service, method) = (self.service.as_bytes(), self.method.as_bytes());
        let call = abi::grpc_stream(self.cluster.as_bytes(), service, method, &metadata).map_err(CallError::Refused)?;
        let line = self.tasks.open_line(call);
        Ok(GrpcStream { tasks: self.tasks, line })
    }
}

/// A gRPC stream.
///
/// ```
/// # use weir_sdk::prelude::*;
/// # async fn talk(stream: Handle) -> Result<(), weir_sdk::CallError> {
/// let mut talk = stream.grpc_stream("policy", "weir.Policy", "Watch").open()?;
/// talk.send(b"hello").map_err(weir_sdk::CallError::Refused)?;
/// while let Some(message) = talk.message().await? {
///     weir_sdk::info!("{} bytes", message.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GrpcStream {
    tasks: Rc<Tasks>,
    line: Rc<Line>,
}

impl GrpcStream {
    /// Sends a message, encoded.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn send(&self, message: impl AsRef<[u8]>) -> Result<(), Status> {
        abi::grpc_send(self.line.call, message.as_ref(), false)
    }

    /// Says that nothing more is sent. What the peer still says is heard.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn finish(&self) -> Result<(), Status> {
        abi::grpc_close(self.line.call)
    }

    /// The peer's next message; `None` once it has ended the stream well. To be awaited in one place at a time.
    ///
    /// # Errors
    /// [`CallError::Grpc`]: the peer, or the proxy in its place, ended it with another status than OK.
    pub async fn message(&mut self) -> Result<Option<Vec<u8>>, CallError> {
        poll_fn(|_| {
            let mut heard = self.line.heard.borrow_mut();
            if let Some(message) = heard.messages.pop_front() {
                return Poll::Ready(Ok(Some(message)));
            }
            if let Some(end) = &heard.end {
                return Poll::Ready(end.clone().map(|()| None));
            }
            drop(heard);
            self.tasks.listen(&self.line);
            Poll::Pending
        })
        .await
    }

    /// The metadata that the peer began with, as far as it has come.
    #[must_use]
    pub fn initial_metadata(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        owned(&self.line.heard.borrow().initial)
    }

    /// The metadata that the peer ended with.
    #[must_use]
    pub fn trailing_metadata(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        owned(&self.line.heard.borrow().trailing)
    }
}

fn owned(encoded: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs::Pairs::new(encoded).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

impl Drop for GrpcStream {
    fn drop(&mut self) {
        self.tasks.drop_line(self.line.call);
    }
}
