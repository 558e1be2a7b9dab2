//! Serves configurations to proxies: the delta variant of aggregated discovery, with the resource types of `weir.config.v1`.
//!
//! A [`Directory`] says what each proxy is to have, now and from now on; one task per stream tells it. What always holds: a proxy that reads slowly is
//! told the newest state when it comes back for more, and holds up nobody; what a proxy refuses is kept where `/debug` shows it.

mod session;
mod view;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use weir_model::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};

pub use session::{Broken, Refusal, Session};
pub use view::{Encoded, View};

/// Where delta discovery is served.
const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Responses that may wait for a stream; a session has one of each kind under way.
const RESPONSES: usize = 8;
/// A proxy that says nothing at all in this time is gone.
const GREETING: Duration = Duration::from_secs(30);
/// The largest request: what a proxy with all names it may know comes back with.
const REQUEST_BYTES: usize = 64 << 20;

/// Who knows what each proxy is to have.
pub trait Directory: Send + Sync + 'static {
    /// What this proxy is to have, now and whenever it changes.
    ///
    /// # Errors
    /// Why it gets nothing.
    fn view(&self, node: &Node) -> Result<watch::Receiver<Arc<View>>, String>;
}

/// What is known of a proxy that is connected.
#[derive(Debug, Clone, Default)]
pub struct Connected {
    /// Who it says it is.
    pub node: String,
    /// Whether it has applied everything.
    pub in_sync: bool,
    /// What it refuses.
    pub refused: Vec<Refusal>,
    /// Responses that it has applied.
    pub applied: u64,
}

/// The proxies that are connected, by stream.
#[derive(Debug, Default)]
pub struct Proxies {
    next: AtomicU64,
    connected: Mutex<BTreeMap<u64, Connected>>,
}

impl Proxies {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn set(&self, stream: u64, connected: Connected) {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).insert(stream, connected);
    }

    fn remove(&self, stream: u64) {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
    }
}

/// Serves discovery on a socket until the future is dropped.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: TcpListener, directory: Arc<dyn Directory>, proxies: Arc<Proxies>) -> Result<(), tonic::transport::Error> {
    let keep_alive = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .tcp_nodelay(true);
    let mut server = keep_alive;
    server.add_service(Discovery { directory, proxies }).serve_with_incoming(TcpListenerStream::new(listener)).await
}

#[derive(Clone)]
struct Discovery {
    directory: Arc<dyn Directory>,
    proxies: Arc<Proxies>,
}

impl NamedService for Discovery {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tonic::codegen::Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != METHOD {
            let status = Status::unimplemented("only DeltaAggregatedResources is served here: the state-of-the-world variant is not");
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let handler = Handler(self.clone());
        let codec = ProstCodec::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::default();
        Box::pin(async move { Ok(Grpc::new(codec).max_decoding_message_size(REQUEST_BYTES).streaming(handler, request).await) })
    }
}

struct Handler(Discovery);

impl StreamingService<DeltaDiscoveryRequest> for Handler {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let (responses, receiver) = mpsc::channel(RESPONSES);
        let discovery = self.0.clone();
        tokio::spawn(async move {
            let stream = discovery.proxies.next.fetch_add(1, Ordering::Relaxed);
            if let Err(status) = converse(&discovery, stream, request.into_inner(), &responses).await {
                // It may be gone.
                let _ = responses.send(Err(status)).await;
            }
            discovery.proxies.remove(stream);
        });
        ready(Ok(Response::new(ReceiverStream::new(receiver))))
    }
}

type Responses = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// One stream from its first request to its end.
async fn converse(
    discovery: &Discovery,
    stream: u64,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: &Responses,
) -> Result<(), Status> {
    let first = tokio::time::timeout(GREETING, requests.next()).await.map_err(|_| Status::deadline_exceeded("no request came"))?;
    let Some(first) = first.transpose()? else { return Ok(()) };
    let node = first.node.clone().ok_or_else(|| Status::invalid_argument("the first request must say which node it is from"))?;
    let mut view = discovery.directory.view(&node).map_err(Status::permission_denied)?;
    let mut session = Session::default();
    let mut request = Some(first);
    loop {
        if let Some(request) = request.take() {
            session.request(&request).map_err(|broken| Status::invalid_argument(broken.to_string()))?;
        }
        let newest = Arc::clone(&view.borrow_and_update());
        for response in session.respond(&newest) {
            if responses.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        let connected = Connected {
            node: node.id.clone(),
            in_sync: session.is_in_sync(&newest),
            refused: session.refused().cloned().collect(),
            applied: session.applied(),
        };
        discovery.proxies.set(stream, connected);
        tokio::select! {
            next = requests.next() => match next.transpose()? {
                Some(next) => request = Some(next),
                None => return Ok(()),
            },
            changed = view.changed() => if changed.is_err() {
                return Err(Status::unavailable("this controller is ending"));
            },
        }
    }
}
