//! The server's side of TLS: which certificate, which clients, which sessions may be resumed.
//!
//! A [`ServerTls`] is compiled for a snapshot; replacing a certificate is compiling another, and connections keep what they began with.
//!
//! Sessions are resumed by tickets whose keys all workers share and that outlive a change of configuration. A ticket is bound to what was decided
//! when it was issued: the certificates' secrets, the demands on clients and the roots themselves. Where any of these differs, the ticket is
//! worthless and the handshake is a full one; no client slips past a demand by resuming a session that was begun under another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use weir_model::config::client_auth::Mode;
use weir_model::config::{ClientAuth, DownstreamTls, HttpVersions};

use super::names::{AllowedNames, NameRefusal, Sans};
use super::store::{KeyEntry, RootsEntry, SecretStore};
use super::{TlsError, alpn, duration, names, provider, versions};

const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Sessions kept for TLS 1.2 clients that do not take tickets.
const KEPT_SESSIONS: usize = 4096;
/// Tickets after a handshake. A client that resumes gets another, so one is enough for connections in a row.
const TICKETS: usize = 1;
/// Tickets for a client that asks for more (RFC 9149).
const MOST_TICKETS: usize = 4;
/// Certificates of a client beside its own. Chains are three long in practice; each more costs a signature check.
const MOST_INTERMEDIATES: usize = 8;

/// What makes sessions resumable: made once per process, shared by all workers and snapshots.
#[derive(Debug)]
pub struct Resumption {
    ticketer: Arc<dyn ProducesTickets>,
    sessions: Arc<ServerSessionMemoryCache>,
}

impl Resumption {
    /// New keys, which change themselves every six hours.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self { ticketer: Ticketer::new()?, sessions: ServerSessionMemoryCache::new(KEPT_SESSIONS) }))
    }
}

/// Tickets and kept sessions that belong to one set of demands.
#[derive(Debug)]
struct Scoped {
    shared: Arc<Resumption>,
    scope: [u8; 32],
}

impl ProducesTickets for Scoped {
    fn enabled(&self) -> bool {
        self.shared.ticketer.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.shared.ticketer.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.shared.ticketer.encrypt(&[&self.scope, plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut plain = self.shared.ticketer.decrypt(cipher)?;
        if plain.get(..self.scope.len())? != self.scope {
            return None;
        }
        plain.drain(..self.scope.len());
        Some(plain)
    }
}

impl Scoped {
    fn key(&self, id: &[u8]) -> Vec<u8> {
        [&self.scope, id].concat()
    }
}

impl StoresServerSessions for Scoped {
    fn put(&self, id: Vec<u8>, value: Vec<u8>) -> bool {
        self.shared.sessions.put(self.key(&id), value)
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.shared.sessions.get(&self.key(id))
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.shared.sessions.take(&self.key(id))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// What a branch speaks: decides which protocols ALPN offers when the configuration names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP of these versions.
    Http(HttpVersions),
    /// Bytes.
    Tcp,
}

impl Speaks {
    fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http(HttpVersions::All) => &[b"h2", b"http/1.1"],
            Self::Http(HttpVersions::Http1Only) => &[b"http/1.1"],
            Self::Http(HttpVersions::Http2Only) => &[b"h2"],
            Self::Tcp => &[],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// How a branch secures connections.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    handshake_timeout: Duration,
    permissive: bool,
    client_auth: bool,
}

impl ServerTls {
    /// Compiles a section of the configuration.
    ///
    /// # Errors
    /// The first thing that is wrong: a secret that is missing or of the wrong kind, versions that exclude each other, a pattern without meaning.
    pub fn compile(tls: &DownstreamTls, speaks: Speaks, store: &SecretStore, resumption: &Arc<Resumption>) -> Result<Self, TlsError> {
        let mut entries = Vec::with_capacity(tls.certificates.len());
        for (i, name) in tls.certificates.iter().enumerate() {
            let missing = || TlsError::new(format!("certificates[{i}]"), format!("no secret with a key pair is called `{name}`"));
            entries.push(Arc::clone(store.key(name).ok_or_else(missing)?));
        }
        if entries.is_empty() {
            return Err(TlsError::new("certificates", "names no secret"));
        }
        let certificates = Arc::new(Certificates::new(entries, tls.require_sni));
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions(tls.min_version(), tls.max_version())?);
        let builder = builder.map_err(|error| TlsError::new("minVersion", error.to_string()))?;
        let (verifier, roots) = client_verifier(tls.client_auth.as_ref(), store)?;
        let client_auth = verifier.is_some();
        let builder = builder.with_client_cert_verifier(verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth));
        let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = if tls.alpn.is_empty() { speaks.alpn() } else { alpn(&tls.alpn)? };
        if tls.no_resumption {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            let scoped = Arc::new(Scoped { shared: Arc::clone(resumption), scope: scope(tls, roots) });
            config.ticketer = Arc::clone(&scoped) as Arc<dyn ProducesTickets>;
            config.session_storage = scoped;
            config.send_tls13_tickets = TICKETS;
            config.max_tls13_tickets = MOST_TICKETS;
        }
        let handshake_timeout =
            tls.handshake_timeout.as_ref().map(duration).filter(|time| !time.is_zero()).unwrap_or(DEFAULT_HANDSHAKE_TIMEOUT);
        Ok(Self { config: Arc::new(config), certificates, handshake_timeout, permissive: tls.permissive, client_auth })
    }

    /// What handshakes use.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// How long a handshake may take.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    /// Whether plain text is served as well.
    #[must_use]
    pub fn permissive(&self) -> bool {
        self.permissive
    }

    /// Whether clients are asked for a certificate.
    #[must_use]
    pub fn client_auth(&self) -> bool {
        self.client_auth
    }

    /// The key that answers to this server name, where the client takes any signature.
    #[must_use]
    pub fn local_certificate(&self, server_name: Option<&str>) -> Option<&Arc<KeyEntry>> {
        self.certificates
            .candidates(server_name)
            .map(|list| &self.certificates.entries[list[0]])
            .or_else(|| self.certificates.entries.first())
    }
}

/// What a ticket is bound to.
fn scope(tls: &DownstreamTls, roots: Option<&RootsEntry>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(tls.encode_to_vec());
    hash.update(roots.map_or([0; 32], |roots| roots.digest));
    hash.finalize().into()
}

/// The certificates of a branch, by the names that they are for.
#[derive(Debug)]
struct Certificates {
    entries: Vec<Arc<KeyEntry>>,
    exact: HashMap<Box<str>, Positions>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Positions>,
    require_name: bool,
}

/// Positions in the list; several where there is a key of each kind. Never empty.
type Positions = SmallVec<[usize; 2]>;

impl Certificates {
    fn new(entries: Vec<Arc<KeyEntry>>, require_name: bool) -> Self {
        let mut exact: HashMap<Box<str>, Positions> = HashMap::new();
        let mut wildcard: HashMap<Box<str>, Positions> = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            for name in entry.leaf().map_or(&[][..], |leaf| &leaf.dns) {
                let lower = name.to_ascii_lowercase();
                let positions = match lower.strip_prefix("*.") {
                    Some(rest) => wildcard.entry(rest.into()).or_default(),
                    None => exact.entry(lower.into()).or_default(),
                };
                positions.push(i);
            }
        }
        Self { entries, exact, wildcard, require_name }
    }

    /// Those for a name: exact ones, else those with a wildcard for its first label.
    fn candidates(&self, name: Option<&str>) -> Option<&Positions> {
        let name = name?;
        let name = name.strip_suffix('.').unwrap_or(name);
        self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |entry: &&Arc<KeyEntry>| entry.key.key.choose_scheme(hello.signature_schemes()).is_some();
        if let Some(candidates) = self.candidates(hello.server_name()) {
            let first = &self.entries[candidates[0]];
            let chosen =
                if candidates.len() == 1 { first } else { candidates.iter().map(|i| &self.entries[*i]).find(usable).unwrap_or(first) };
            return Some(Arc::clone(&chosen.key));
        }
        if self.require_name {
            return None;
        }
        let first = self.entries.first()?;
        let chosen = if self.entries.len() == 1 { first } else { self.entries.iter().find(usable).unwrap_or(first) };
        Some(Arc::clone(&chosen.key))
    }
}

/// The verifier for a mode, and the roots that it trusts; none where clients are not asked.
fn client_verifier<'s>(
    auth: Option<&ClientAuth>,
    store: &'s SecretStore,
) -> Result<(Option<Arc<dyn ClientCertVerifier>>, Option<&'s RootsEntry>), TlsError> {
    let Some(auth) = auth.filter(|auth| auth.mode() != Mode::None) else { return Ok((None, None)) };
    let problem = |what: String| TlsError::new("clientAuth.trustRoots", what);
    let roots =
        store.roots(&auth.trust_roots).ok_or_else(|| problem(format!("no secret with trust roots is called `{}`", auth.trust_roots)))?;
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots.roots), provider()).with_crls(roots.revocation_lists.iter().cloned());
    if auth.mode() == Mode::Optional {
        builder = builder.allow_unauthenticated();
    }
    let inner = builder.build().map_err(|error| problem(error.to_string()))?;
    let names = AllowedNames::compile(&auth.names, &auth.trust_domains, "clientAuth")?;
    Ok((Some(Arc::new(ClientVerifier { inner, names })), Some(roots)))
}

/// Verifies the chain, then the names.
#[derive(Debug)]
struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    names: AllowedNames,
}

/// An error of the handshake that tells its reason.
pub(super) fn refuse(reason: NameRefusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() > MOST_INTERMEDIATES {
            return Err(refuse(NameRefusal::ChainTooLong));
        }
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        // Names that nobody restricts are read, and refused if malformed, when the connection's identity is made.
        if !self.names.is_open() {
            let certificate = names::parse(end_entity).map_err(refuse)?;
            Sans::of(&certificate).and_then(|sans| self.names.check(&sans)).map_err(refuse)?;
        }
        Ok(verified)
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

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
