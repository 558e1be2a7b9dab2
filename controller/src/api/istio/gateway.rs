//! Gateway: what the proxies at the edge listen on.

use serde::Deserialize;

use super::common::{Port, Texts};

/// What the proxies at the edge listen on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// What is listened on.
    pub servers: Vec<Server>,
    /// The labels of the proxies' pods, in any namespace; none is every gateway.
    pub selector: Texts,
}

/// A port with the hosts that are served there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// The port of the gateway's Service.
    pub port: Option<Port>,
    /// The address that is listened on.
    pub bind: String,
    /// `[namespace/]name`: which hosts of which VirtualServices are bound.
    pub hosts: Vec<String>,
    /// How TLS is terminated, or passed on.
    pub tls: Option<ServerTls>,
    /// Has no effect, in Istio neither.
    pub default_endpoint: String,
    /// A name that is unique among all servers.
    pub name: String,
}

/// How TLS is terminated, or passed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTls {
    /// Whether plain HTTP is sent to HTTPS.
    pub https_redirect: bool,
    /// What is done.
    pub mode: ServerTlsMode,
    /// A file with the certificate.
    pub server_certificate: String,
    /// A file with its key.
    pub private_key: String,
    /// A file with the roots that clients are checked against.
    pub ca_certificates: String,
    /// A file with certificates that no longer count.
    pub ca_crl: String,
    /// A Secret with certificate, key and roots.
    pub credential_name: String,
    /// Secrets with certificates of several kinds of key.
    pub credential_names: Vec<String>,
    /// A Secret with the roots alone.
    pub ca_cert_credential_name: String,
    /// Files with certificates of several kinds of key.
    pub tls_certificates: Vec<TlsCertificate>,
    /// Names that clients' certificates may have.
    pub subject_alt_names: Vec<String>,
    /// Hashes of the keys that clients may have, in base64.
    pub verify_certificate_spki: Vec<String>,
    /// Hashes of the certificates that clients may have, in hexadecimal.
    pub verify_certificate_hash: Vec<String>,
    /// The oldest version; 1.2 if it is not written.
    pub min_protocol_version: TlsVersion,
    /// The newest version.
    pub max_protocol_version: TlsVersion,
    /// The ciphers of versions up to 1.2.
    pub cipher_suites: Vec<String>,
    /// Whether certificates of clients are not checked.
    pub insecure_skip_verify: Option<bool>,
}

/// Files of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsCertificate {
    /// The certificate.
    pub server_certificate: String,
    /// Its key.
    pub private_key: String,
    /// Roots, which are read nowhere.
    pub ca_certificates: String,
}

/// What is done with TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// It is passed on by the name that the client asks for.
    #[default]
    Passthrough,
    /// It is terminated.
    Simple,
    /// It is terminated, and the client must show a certificate.
    Mutual,
    /// It is passed on to what the name that the client asks for says.
    AutoPassthrough,
    /// It is terminated with the mesh's certificates.
    IstioMutual,
    /// It is terminated, and a certificate that the client shows must be good.
    OptionalMutual,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum TlsVersion {
    /// The proxy's choice.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// 1.0
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// 1.1
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// 1.2
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// 1.3
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
