//! A controller that hands every stream to the test.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use weir_model::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::super::super::Kind;
use super::LONG;

/// One stream of a proxy.
pub(super) struct Peer {
    pub(super) token: Option<String>,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ahead: VecDeque<DeltaDiscoveryRequest>,
}

impl Peer {
    /// The next request, of whatever type.
    pub(super) async fn request(&mut self) -> DeltaDiscoveryRequest {
        if let Some(request) = self.ahead.pop_front() {
            return request;
        }
        tokio::time::timeout(LONG, self.requests.next()).await.expect("no request").expect("the stream ended").unwrap()
    }

    /// The next request of this kind; others are kept for later.
    pub(super) async fn request_of(&mut self, kind: Kind) -> DeltaDiscoveryRequest {
        if let Some(at) = self.ahead.iter().position(|request| request.type_url == kind.type_url()) {
            return self.ahead.remove(at).unwrap();
        }
        let mut kept = std::mem::take(&mut self.ahead);
        loop {
            let request = self.request().await;
            if request.type_url == kind.type_url() {
                self.ahead = kept;
                return request;
            }
            kept.push_back(request);
        }
    }

    /// The answer to `nonce`: what was refused, nothing if it was taken.
    pub(super) async fn answer(&mut self, kind: Kind, nonce: &str) -> String {
        let request = self.request_of(kind).await;
        assert_eq!(request.response_nonce, nonce, "{request:?}");
        request.error_detail.map(|detail| detail.message).unwrap_or_default()
    }

    /// The first requests: everything there is.
    pub(super) async fn greeted(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for kind in [Kind::Listener, Kind::FilterChain, Kind::Cluster] {
            requests.push(self.request_of(kind).await);
        }
        requests
    }

    pub(super) async fn send(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.unwrap();
    }
}

/// The controller.
pub(super) struct Server {
    pub(super) address: String,
    peers: mpsc::Receiver<Peer>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_on("http", tonic::transport::Server::builder()).await
    }

    /// Over TLS, for `localhost` with this certificate and key, for clients that these roots know.
    pub(super) async fn start_tls(certificate: &str, key: &str, roots: &str) -> Self {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key)).client_ca_root(Certificate::from_pem(roots));
        Self::start_on("https", tonic::transport::Server::builder().tls_config(tls).unwrap()).await
    }

    async fn start_on(scheme: &str, mut server: tonic::transport::Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let (sender, peers) = mpsc::channel(16);
        let router = server.add_service(Service(sender));
        let task = tokio::spawn(async move { router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
        Self { address, peers, task }
    }

    /// On a Unix socket.
    pub(super) fn start_unix(path: &std::path::Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (sender, peers) = mpsc::channel(16);
        let router = tonic::transport::Server::builder().add_service(Service(sender));
        let task = tokio::spawn(async move { router.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap() });
        Self { address: format!("unix:{}", path.display()), peers, task }
    }

    /// The next stream of a proxy.
    pub(super) async fn peer(&mut self) -> Peer {
        tokio::time::timeout(LONG, self.peers.recv()).await.expect("no stream").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Service(mpsc::Sender<Peer>);

impl NamedService for Service {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tonic::codegen::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), super::super::METHOD);
        let handler = Handler(self.0.clone());
        let codec = ProstCodec::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::default();
        Box::pin(async move { Ok(Grpc::new(codec).streaming(handler, request).await) })
    }
}

struct Handler(mpsc::Sender<Peer>);

impl StreamingService<DeltaDiscoveryRequest> for Handler {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let (responses, receiver) = mpsc::channel(64);
        let peer = Peer { token, requests: request.into_inner(), responses, ahead: VecDeque::new() };
        let taken = self.0.try_send(peer).map_err(|_| Status::unavailable("nobody takes the stream"));
        ready(taken.map(|()| Response::new(ReceiverStream::new(receiver))))
    }
}
