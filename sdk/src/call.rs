//! Callouts: HTTP and gRPC requests of a filter's own, awaited in sequence.
//!
//! What always holds: an answer's bytes are the filter's own and outlive the callback; a callout that could not be started is an error at once; one that
//! is dropped, because its stream ended or nobody wants it any more, is given up. What it does not do: retry, or follow redirects.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::abi::{self, Status, pairs};
use crate::runtime::task::Tasks;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a callout has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The host did not start it: the cluster is unknown or not allowed, or the request is not one.
    Refused(Status),
    /// It was started and not answered: no connection, a reset, a timeout.
    Unanswered,
    /// A gRPC status other than OK.
    Grpc {
        /// The code.
        status: u32,
        /// The text.
        message: String,
    },
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the callout was not started: {status}"),
            Self::Unanswered => f.write_str("the callout was not answered"),
            Self::Grpc { status, message } => write!(f, "gRPC status {status}: {message}"),
        }
    }
}

impl std::error::Error for CallError {}

/// What a callout was answered with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    pub(crate) headers: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.header(":status").and_then(|status| std::str::from_utf8(status).ok()?.parse().ok()).unwrap_or(0)
    }

    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> pairs::Pairs<'_> {
        pairs::Pairs::new(&self.headers)
    }

    /// The body, or the gRPC message.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// An HTTP callout that is being put together; `.await` it with [`HttpCall::send`].
#[derive(Debug)]
pub struct HttpCall {
    tasks: Rc<Tasks>,
    cluster: String,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Duration,
}

impl HttpCall {
    pub(crate) fn new(tasks: Rc<Tasks>, cluster: &str, method: &str, path: &str) -> Self {
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let headers = vec![pair(":method", method), pair(":path", path), pair(":authority", cluster)];
        Self { tasks, cluster: cluster.to_owned(), headers, body: Vec::new(), timeout: TIMEOUT }
    }

    /// Adds a header; `:authority` is the cluster's name unless it is set here.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if name.starts_with(':') {
            self.headers.retain(|(known, _)| known != name.as_bytes());
            self.headers.insert(0, (name.as_bytes().to_vec(), value.as_ref().to_vec()));
        } else {
            self.headers.push((name.as_bytes().to_vec(), value.as_ref().to_vec()));
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// How long to wait; 5 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it.
    pub fn send(self) -> Call {
        Call { tasks: Rc::clone(&self.tasks), stage: Stage::Http(Box::new(self)) }
    }

    fn start(&self) -> Result<u32, Status> {
        let headers = pairs::encode(self.headers.iter().map(|(name, value)| (&name[..], &value[..])));
        abi::http_call(self.cluster.as_bytes(), &headers, &self.body, &[], millis(self.timeout))
    }
}

/// A unary gRPC callout that is being put together.
#[derive(Debug)]
pub struct GrpcCall {
    tasks: Rc<Tasks>,
    cluster: String,
    service: String,
    method: String,
    metadata: Vec<(Vec<u8>, Vec<u8>)>,
    message: Vec<u8>,
    timeout: Duration,
}

impl GrpcCall {
    pub(crate) fn new(tasks: Rc<Tasks>, cluster: &str, service: &str, method: &str) -> Self {
        let (cluster, service, method) = (cluster.to_owned(), service.to_owned(), method.to_owned());
        Self { tasks, cluster, service, method, metadata: Vec::new(), message: Vec::new(), timeout: TIMEOUT }
    }

    /// Adds metadata.
    #[must_use]
    pub fn metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.metadata.push((name.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Sets the message, encoded.
    #[must_use]
    pub fn message(mut self, message: impl Into<Vec<u8>>) -> Self {
        self.message = message.into();
        self
    }

    /// How long to wait; 5 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it. The answer's body is the message.
    pub fn send(self) -> Call {
        Call { tasks: Rc::clone(&self.tasks), stage: Stage::Grpc(Box::new(self)) }
    }

    fn start(&self) -> Result<u32, Status> {
        let metadata = pairs::encode(self.metadata.iter().map(|(name, value)| (&name[..], &value[..])));
        let (service, method) = (self.service.as_bytes(), self.method.as_bytes());
        abi::grpc_call(self.cluster.as_bytes(), service, method, &metadata, &self.message, millis(self.timeout))
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// A callout under way.
#[derive(Debug)]
#[must_use = "a callout is sent when it is awaited"]
pub struct Call {
    tasks: Rc<Tasks>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Http(Box<HttpCall>),
    Grpc(Box<GrpcCall>),
    Waiting { call: u32, is_grpc: bool, result: Rc<RefCell<Option<Result<Answer, CallError>>>> },
    Over,
}

impl Future for Call {
    type Output = Result<Answer, CallError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let (started, is_grpc) = match &self.stage {
            Stage::Http(call) => (call.start(), false),
            Stage::Grpc(call) => (call.start(), true),
            Stage::Waiting { result, .. } => {
                let Some(result) = result.borrow_mut().take() else { return Poll::Pending };
                self.stage = Stage::Over;
                return Poll::Ready(result);
            }
            Stage::Over => return Poll::Pending,
        };
        match started {
            Ok(call) => {
                let result = self.tasks.expect(call, is_grpc);
                self.stage = Stage::Waiting { call, is_grpc, result };
                Poll::Pending
            }
            Err(status) => {
                self.stage = Stage::Over;
                Poll::Ready(Err(CallError::Refused(status)))
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Stage::Waiting { call, is_grpc, .. } = self.stage {
            self.tasks.forget(call, is_grpc);
        }
    }
}
