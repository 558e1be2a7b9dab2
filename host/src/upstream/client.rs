//! Requests of the proxy's own: callouts of filters, mirrored requests.
//!
//! They take the same way to an endpoint as everybody's (balancer, breakers, pool), without retries. Who sends one bounds its time.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;

use super::Outcome;
use super::balancer::{PickContext, Unavailable};
use super::pool::{Attempt, ConnectError, Lease, Leased, WorkerCluster};
use crate::http::fields::Fields;
use crate::http::{BodyLength, Frame, Outgoing, StreamError, Upstream};

/// A whole answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Headers with `:status`.
    pub head: Fields,
    /// The body.
    pub body: Bytes,
    /// Trailers, if there were any.
    pub trailers: Option<Box<Fields>>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// No endpoint, or a circuit breaker is open.
    Unavailable,
    /// No connection.
    Connect,
    /// It broke on the way.
    Broken(StreamError),
    /// The answer is larger than allowed.
    TooLarge,
}

impl CallError {
    /// For logs and guests.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Unavailable => "no healthy upstream",
            Self::Connect => "connection failure",
            Self::Broken(_) => "the upstream ended the exchange",
            Self::TooLarge => "the answer is too large",
        }
    }
}

impl From<StreamError> for CallError {
    fn from(error: StreamError) -> Self {
        Self::Broken(error)
    }
}

impl From<Unavailable> for CallError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl From<ConnectError> for CallError {
    fn from(_: ConnectError) -> Self {
        Self::Connect
    }
}

/// What comes next of an answer.
#[derive(Debug)]
pub enum Event {
    /// Its head.
    Head,
    /// A piece of its body, or its trailers.
    Frame(Frame),
    /// Its end.
    End,
}

/// An exchange in progress.
pub struct Sending {
    lease: Lease,
    attempt: Attempt,
    cluster: Rc<WorkerCluster>,
    answered: bool,
}

impl Sending {
    /// Sends a head whose body follows.
    ///
    /// # Errors
    /// When no connection can be had, or it breaks.
    pub async fn open(cluster: &Rc<WorkerCluster>, head: &Fields) -> Result<Self, CallError> {
        Self::start(cluster, head, BodyLength::Unknown).await
    }

    async fn start(cluster: &Rc<WorkerCluster>, head: &Fields, length: BodyLength) -> Result<Self, CallError> {
        cluster.worker().tick();
        let now = cluster.worker().now();
        let mut attempt = cluster.attempt(&PickContext { now, ..PickContext::default() })?;
        let lease = match cluster.lease(&attempt, head, false) {
            Leased::Ready(lease) => lease,
            Leased::Connecting(connecting) => match connecting.await {
                Ok(lease) => lease,
                Err(error) => {
                    attempt.report(Outcome::ConnectFailure, cluster.worker().now());
                    return Err(error.into());
                }
            },
        };
        let mut sending = Self { lease, attempt, cluster: Rc::clone(cluster), answered: false };
        sending.lease.send_head(head, length)?;
        sending.flush().await?;
        Ok(sending)
    }

    async fn flush(&mut self) -> Result<(), CallError> {
        Ok(poll_fn(|cx| self.lease.poll_flush(cx)).await?)
    }

    /// Sends a piece of the body.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn data(&mut self, data: Bytes, end: bool) -> Result<(), CallError> {
        poll_fn(|cx| self.lease.poll_ready(cx)).await?;
        self.lease.send_data(data, end)?;
        self.flush().await
    }

    /// Waits for the final head of the answer.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn head(&mut self, head: &mut Fields) -> Result<BodyLength, CallError> {
        let result = poll_fn(|cx| {
            loop {
                let length = std::task::ready!(self.lease.poll_head(cx, head))?;
                if head.status().is_none_or(|status| status >= 200) {
                    return Poll::Ready(Ok::<_, StreamError>(length));
                }
            }
        })
        .await;
        let outcome = if result.is_ok() { Outcome::Response(head.status().unwrap_or(502)) } else { Outcome::Reset };
        self.report(outcome);
        Ok(result?)
    }

    /// Waits for the next piece of the answer's body.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn frame(&mut self) -> Result<Option<Frame>, CallError> {
        Ok(poll_fn(|cx| self.lease.poll_frame(cx)).await.transpose()?)
    }

    /// Waits for what comes next: the head into `head`, or after `seen_head` the body. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn event(&mut self, head: &mut Fields, seen_head: bool) -> Result<Event, CallError> {
        if !seen_head {
            self.head(head).await?;
            return Ok(Event::Head);
        }
        Ok(self.frame().await?.map_or(Event::End, Event::Frame))
    }

    fn report(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.answered, true) {
            self.attempt.report(outcome, self.cluster.worker().now());
        }
    }
}

/// Sends a whole request and waits for the whole answer, of which the body may have `most` bytes.
///
/// # Errors
/// When there is no answer, or too much of one.
pub async fn send(
    cluster: &Rc<WorkerCluster>,
    head: Fields,
    body: Bytes,
    trailers: Option<Box<Fields>>,
    most: usize,
) -> Result<Answer, CallError> {
    let ends = body.is_empty() && trailers.is_none();
    let length = match (ends, &trailers) {
        (true, _) => BodyLength::None,
        (false, None) => BodyLength::Known(body.len() as u64),
        (false, Some(_)) => BodyLength::Unknown,
    };
    let mut sending = Sending::start(cluster, &head, length).await?;
    if !ends {
        sending.data(body, trailers.is_none()).await?;
        if let Some(trailers) = trailers {
            sending.lease.send_trailers(&trailers)?;
            sending.flush().await?;
        }
    }
    let mut answer = Answer::default();
    if sending.head(&mut answer.head).await?.is_none() {
        return Ok(answer);
    }
    let mut collected = Vec::new();
    while let Some(frame) = sending.frame().await? {
        match frame {
            Frame::Data(data) => {
                if collected.len() + data.len() > most {
                    return Err(CallError::TooLarge);
                }
                collected.extend_from_slice(&data);
            }
            Frame::Trailers(trailers) => answer.trailers = Some(trailers),
        }
    }
    answer.body = collected.into();
    Ok(answer)
}
