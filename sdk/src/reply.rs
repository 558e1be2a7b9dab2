//! An answer in the upstream's place.

use crate::Flow;
use crate::abi::{self, Side, pairs};

/// An answer that is being put together.
#[derive(Debug, Clone)]
#[must_use = "it is sent by `send`"]
pub struct Reply {
    status: u16,
    details: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    grpc: Option<u32>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, details: String::new(), headers: Vec::new(), body: Vec::new(), grpc: None }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Why, in a word: `response.code_details`, and in the access log.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// What a gRPC client is told; from the HTTP status unless set.
    pub fn grpc_status(mut self, status: u32) -> Self {
        self.grpc = Some(status);
        self
    }

    /// Sends it. The first answer of a stream wins; its request goes no further: where the host takes no answer, the stream is ended without one.
    pub fn send(self) -> Flow {
        let headers = pairs::encode(self.headers.iter().map(|(name, value)| (name.as_bytes(), &value[..])));
        match abi::local_reply(self.status.into(), self.details.as_bytes(), &self.body, &headers, self.grpc) {
            Ok(()) => Flow::Pause,
            Err(status) => {
                crate::error!("the reply {} was not sent: {status}", self.status);
                // Whoever answers does not want the stream to go on.
                let _ = abi::close(Side::Downstream);
                Flow::Pause
            }
        }
    }
}
