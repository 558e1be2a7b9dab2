//! The client's side of TLS: how this proxy speaks to upstreams.
//!
//! The chain is always verified, against the configured roots or the system's. Then the server must have one of the configured names, or where
//! there are none the name that was asked for. The one way around it is `insecure_skip_verify`, which [`ClientTls::is_insecure`] lets the caller warn about.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;
use weir_model::config::UpstreamTls;

use super::io::{Io, Prefixed, Socket};
use super::names::{self, AllowedNames, NameRefusal, Sans};
use super::server::refuse;
use super::store::SecretStore;
use super::{TlsError, alpn, provider, versions};

/// Sessions kept for resumption, per cluster.
const KEPT_SESSIONS: usize = 256;

/// How connections to a cluster are secured.
#[derive(Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    sni: Option<ServerName<'static>>,
    insecure: bool,
}

impl ClientTls {
    /// Compiles a section of the configuration. `default_alpn` is offered where it names no protocols.
    ///
    /// # Errors
    /// The first thing that is wrong: a secret that is missing or of the wrong kind, no system roots, a server name that is none.
    pub fn compile(tls: &UpstreamTls, default_alpn: &[&[u8]], store: &SecretStore) -> Result<Self, TlsError> {
        let sni = match tls.sni.as_str() {
            "" => None,
            name => Some(ServerName::try_from(name.to_owned()).map_err(|_| TlsError::new("sni", format!("`{name}` is no host name")))?),
        };
        let builder =
            ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions(tls.min_version(), tls.max_version())?);
        let builder = builder.map_err(|error| TlsError::new("minVersion", error.to_string()))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier(tls, store)?);
        let mut config = match tls.certificate.as_str() {
            "" => builder.with_no_client_auth(),
            name => {
                let key =
                    store.key(name).ok_or_else(|| TlsError::new("certificate", format!("no secret with a key pair is called `{name}`")))?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(&key.key))))
            }
        };
        config.alpn_protocols =
            if tls.alpn.is_empty() { default_alpn.iter().map(|name| name.to_vec()).collect() } else { alpn(&tls.alpn)? };
        config.resumption = Resumption::in_memory_sessions(KEPT_SESSIONS);
        Ok(Self { config: Arc::new(config), sni, insecure: tls.insecure_skip_verify })
    }

    /// What handshakes use.
    #[must_use]
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Whether servers are not verified.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// The name to ask for: the configured one, else the endpoint's host name, else the request's host, else the endpoint's address.
    /// A host that is no name at all is passed over.
    #[must_use]
    pub fn server_name(&self, endpoint_host: Option<&str>, request_host: Option<&str>, address: IpAddr) -> ServerName<'static> {
        if let Some(name) = &self.sni {
            return name.clone();
        }
        let parse = |host: &str| ServerName::try_from(host.to_owned()).ok();
        endpoint_host.and_then(parse).or_else(|| request_host.and_then(parse)).unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }

    /// Whether [`Self::server_name`] depends on the request: connections for different hosts cannot be shared then.
    #[must_use]
    pub fn depends_on_request(&self, endpoint_host: Option<&str>) -> bool {
        self.sni.is_none() && endpoint_host.is_none()
    }

    /// Shakes hands over a connected socket. Put a time limit around it.
    ///
    /// # Errors
    /// Those of the connection, and of TLS; [`failure`] names them.
    pub async fn connect(&self, name: ServerName<'static>, socket: Socket) -> std::io::Result<Io> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, Prefixed::new(socket)).await?;
        Ok(Io::Tls(Box::new(stream.into())))
    }
}

/// A stable name for why a handshake with an upstream failed.
#[must_use]
pub fn failure(error: &std::io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return "upstream_tls_closed" };
    match error {
        Error::InvalidCertificate(certificate) => certificate_failure(certificate),
        Error::AlertReceived(_) => "upstream_tls_alert_received",
        Error::PeerIncompatible(_) => "upstream_tls_no_common_parameters",
        Error::NoApplicationProtocol => "upstream_tls_no_application_protocol",
        _ => "upstream_tls_protocol_error",
    }
}

fn certificate_failure(error: &CertificateError) -> &'static str {
    use CertificateError as C;
    match error {
        C::Expired | C::ExpiredContext { .. } => "upstream_certificate_expired",
        C::NotValidYet | C::NotValidYetContext { .. } => "upstream_certificate_not_yet_valid",
        C::UnknownIssuer => "upstream_certificate_unknown_issuer",
        C::Revoked => "upstream_certificate_revoked",
        C::NotValidForName | C::NotValidForNameContext { .. } => "upstream_certificate_name_refused",
        C::Other(other) => match other.0.downcast_ref::<NameRefusal>() {
            Some(NameRefusal::Malformed) => "upstream_certificate_malformed_name",
            Some(_) => "upstream_certificate_name_refused",
            None => "upstream_certificate_invalid",
        },
        _ => "upstream_certificate_invalid",
    }
}

/// The roots of trust of this machine, read once.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // Stores of systems have certificates that nobody can read; those are no roots for anybody.
        let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err(TlsError::new("trustRoots", "is empty, and this machine has no roots of its own"));
    }
    Ok(Arc::clone(roots))
}

/// Who `tls` believes a server to be.
pub(crate) fn verifier(tls: &UpstreamTls, store: &SecretStore) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if tls.insecure_skip_verify {
        return Ok(Arc::new(NoVerifier));
    }
    let (roots, lists) = match tls.trust_roots.as_str() {
        "" => (system_roots()?, Vec::new()),
        name => {
            let entry =
                store.roots(name).ok_or_else(|| TlsError::new("trustRoots", format!("no secret with trust roots is called `{name}`")))?;
            (Arc::clone(&entry.roots), entry.revocation_lists.clone())
        }
    };
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider()).with_crls(lists).build();
    let inner = inner.map_err(|error| TlsError::new("trustRoots", error.to_string()))?;
    let names = AllowedNames::compile(&tls.names, &[], "")?;
    Ok(if names.has_patterns() { Arc::new(NamedVerifier { inner, names }) } else { inner })
}

/// Verifies the chain, then that the server has one of the configured names; the name that was asked for does not count.
#[derive(Debug)]
struct NamedVerifier {
    inner: Arc<WebPkiServerVerifier>,
    names: AllowedNames,
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: everything else about the chain was verified.
            Ok(_) | Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
            }
            Err(error) => return Err(error),
        }
        let certificate = names::parse(end_entity).map_err(refuse)?;
        Sans::of(&certificate).and_then(|sans| self.names.check(&sans)).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Takes any certificate, but only from who has its key.
#[derive(Debug)]
struct NoVerifier;

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
