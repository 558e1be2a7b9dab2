//! Authorities, certificates, and the clients and servers of TLS that use them.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::support::within;

/// An authority that signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A key with its chain.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate with these names: DNS names, addresses, and URIs (with `://`).
    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(hosts.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.distinguished_name.push(DnType::CommonName, names[0]);
        let key = KeyPair::generate().unwrap();
        Leaf { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// The authority as a secret.
    pub(crate) fn secret(&self, name: &str) -> Value {
        json!({ "name": name, "trustRoots": { "certificates": { "inline": self.pem } } })
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }
}

impl Leaf {
    /// The certificate as a secret.
    pub(crate) fn secret(&self, name: &str) -> Value {
        json!({ "name": name, "keyPair": { "certificateChain": { "inline": self.chain }, "privateKey": { "inline": self.key } } })
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A client of TLS. Its sessions are remembered: the next connection resumes if it may.
#[derive(Clone)]
pub(crate) struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// Trusts `authority`, shows `certificate`, offers `alpn`.
    pub(crate) fn new(authority: &Authority, certificate: Option<&Leaf>, alpn: &[&str]) -> Self {
        Self::of_versions(authority, certificate, alpn, rustls::ALL_VERSIONS)
    }

    pub(crate) fn of_versions(
        authority: &Authority,
        certificate: Option<&Leaf>,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let builder = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(authority.roots());
        let mut config = match certificate {
            Some(leaf) => builder.with_client_auth_cert(vec![leaf.certificate()], leaf.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Connects and shakes hands, asking for `name`; an address is not asked for.
    pub(crate) async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<client::TlsStream<TcpStream>> {
        let stream = within("a connection", TcpStream::connect(address)).await?;
        self.over(stream, name).await
    }

    /// The same over a connection that there is.
    pub(crate) async fn over(&self, stream: TcpStream, name: &str) -> std::io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        within("a handshake", TlsConnector::from(Arc::clone(&self.0)).connect(name, stream)).await
    }
}

/// A server of TLS.
#[derive(Clone)]
pub(crate) struct TlsServer(Arc<ServerConfig>);

impl TlsServer {
    /// Shows `leaf`, offers `alpn`; with `clients`, demands a certificate of that authority.
    pub(crate) fn new(leaf: &Leaf, alpn: &[&str], clients: Option<&Authority>) -> Self {
        let builder = ServerConfig::builder();
        let builder = match clients {
            Some(authority) => builder.with_client_cert_verifier(WebPkiClientVerifier::builder(authority.roots()).build().unwrap()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(vec![leaf.certificate()], leaf.key()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<server::TlsStream<TcpStream>> {
        within("a handshake", TlsAcceptor::from(Arc::clone(&self.0)).accept(stream)).await
    }
}
