//! Opens a stream to a controller: addresses, TLS, the bearer token, keep-alive.
//!
//! What always holds: credentials, roots and the token are read anew for every connection, so that exchanged files are used without a restart; a
//! connection whose peer no longer answers ends within forty seconds.
//!
//! What it does not do: try again.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use rustls::client::danger::ServerCertVerifier;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use weir_model::config::{DataSource, Secret, UpstreamTls, data_source, secret};
use weir_model::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::super::Resources;
use crate::tls::client;
use crate::tls::store::{SecretError, SecretStore};

/// Where discovery is served.
pub const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// No token, certificate or key is larger.
const LARGEST_FILE: u64 = 1 << 20;

/// What a controller sends, until the stream breaks.
pub type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

/// How streams are opened.
pub trait Transport: Send + 'static {
    /// Opens a stream to `address`, on which `requests` are sent. Failing to is the stream's first item.
    fn open(&self, address: &str, requests: mpsc::Receiver<DeltaDiscoveryRequest>) -> Responses;
}

/// gRPC over TCP, TLS or a Unix socket.
#[derive(Clone, Debug)]
pub struct Grpcs {
    /// Credentials and roots for `https`.
    pub tls: Option<UpstreamTls>,
    /// Where the secrets are that `tls` names.
    pub secrets: Resources,
    /// Sent as a bearer token.
    pub token_file: Option<PathBuf>,
    /// No response is larger.
    pub message_bytes: usize,
}

impl Transport for Grpcs {
    fn open(&self, address: &str, requests: mpsc::Receiver<DeltaDiscoveryRequest>) -> Responses {
        let opened = self.clone().start(address.to_owned(), requests);
        stream::once(opened).try_flatten().boxed()
    }
}

impl Grpcs {
    async fn start(
        self,
        address: String,
        requests: mpsc::Receiver<DeltaDiscoveryRequest>,
    ) -> Result<tonic::Streaming<DeltaDiscoveryResponse>, Status> {
        let message_bytes = self.message_bytes;
        // Files are read, which may take its time.
        let prepared = tokio::task::spawn_blocking(move || self.prepare(&address)).await;
        let (endpoint, token) = prepared.map_err(|error| Status::internal(error.to_string()))?.map_err(Status::failed_precondition)?;
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(causes(&error)))?;
        let mut grpc: Grpc<Channel> = Grpc::new(channel).max_decoding_message_size(message_bytes);
        grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
        let mut request = Request::new(ReceiverStream::new(requests));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let path = http::uri::PathAndQuery::from_static(METHOD);
        Ok(grpc.streaming(request, path, codec).await?.into_inner())
    }

    fn prepare(&self, address: &str) -> Result<(Endpoint, Option<MetadataValue<Ascii>>), String> {
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| format!("{address}: {}", causes(&error)))?;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Some(PING_EVERY))
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        if address.starts_with("https:") {
            let tls = self.tls.clone().unwrap_or_default();
            let mut config = ClientTlsConfig::new().timeout(CONNECT_TIMEOUT);
            if !tls.sni.is_empty() {
                config = config.domain_name(&tls.sni);
            }
            if let Some(identity) = self.identity(&tls)? {
                config = config.identity(identity);
            }
            if tls.insecure_skip_verify {
                tracing::warn!(controller = address, "the controller is not verified: discovery.tls.insecureSkipVerify");
            }
            endpoint = endpoint.tls_config_with_verifier(config, self.verifier(&tls)?).map_err(|error| causes(&error))?;
        }
        Ok((endpoint, self.token()?))
    }

    fn token(&self) -> Result<Option<MetadataValue<Ascii>>, String> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = read(&path.to_string_lossy())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| format!("{}: not text", path.display())))?;
        let value = format!("Bearer {}", text.trim());
        let mut value: MetadataValue<Ascii> = value.parse().map_err(|_| format!("{}: no header may hold this token", path.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// The verifier that upstreams with these settings would have.
    fn verifier(&self, tls: &UpstreamTls) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let roots = self.secrets.secret(&tls.trust_roots).map(|secret| Secret::clone(secret));
        let file = |path: &str| read(path).map_err(std::io::Error::other);
        let store = SecretStore::build(roots.as_slice(), &file);
        let text = |errors: Vec<SecretError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        client::verifier(tls, &store.map_err(text)?).map_err(|error| format!("discovery.tls.{error}"))
    }

    fn identity(&self, tls: &UpstreamTls) -> Result<Option<Identity>, String> {
        if tls.certificate.is_empty() {
            return Ok(None);
        }
        let secret = self.secrets.secret(&tls.certificate).ok_or_else(|| format!("no secret is called {:?}", tls.certificate))?;
        let Some(secret::Kind::KeyPair(pair)) = &secret.kind else { return Err(format!("secret {:?} is no key pair", tls.certificate)) };
        let part = |source: &Option<DataSource>| {
            source.as_ref().ok_or_else(|| format!("secret {:?} is not whole", tls.certificate)).and_then(bytes)
        };
        Ok(Some(Identity::from_pem(part(&pair.certificate_chain)?, part(&pair.private_key)?)))
    }
}

fn bytes(source: &DataSource) -> Result<Vec<u8>, String> {
    match &source.source {
        Some(data_source::Source::File(path)) => read(path),
        Some(data_source::Source::Inline(text)) => Ok(text.clone().into_bytes()),
        Some(data_source::Source::InlineBytes(bytes)) => Ok(bytes.to_vec()),
        None => Err("an empty data source".into()),
    }
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    file.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(|error| format!("{path}: {error}"))?;
    Ok(bytes)
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
