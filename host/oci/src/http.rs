//! One request over one connection, to an address that was judged, with everything bounded.
//!
//! Always: HTTP/1.1, a connection for each request (there are few), no redirect followed by itself; connecting, answering and every pause within the answer
//! have a deadline, and so has the whole; an answer is never held beyond its limit. What it does not do: know registries or credentials.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::address;
use crate::client::Limits;
use crate::error::Error;

/// Most that the head of an answer takes.
const HEAD: usize = 64 << 10;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) target: String,
}

impl Url {
    /// A path at a registry.
    pub(crate) fn of(registry: &str, tls: bool, target: String) -> Self {
        let host = crate::reference::host_of(registry);
        let port = registry.rsplit_once(':').filter(|(_, port)| !port.contains(']')).and_then(|(_, port)| port.parse().ok());
        // "[::1]" alone has colons, and no port.
        let port = port.filter(|_| registry.len() > host.len() && !(registry.starts_with('[') && registry.ends_with(']')));
        Self { tls, host: host.to_owned(), port: port.unwrap_or(if tls { 443 } else { 80 }), target }
    }

    /// What a `Location` or a realm says, seen from here.
    pub(crate) fn follow(&self, location: &str) -> Result<Self, &'static str> {
        if location.starts_with('/') && !location.starts_with("//") {
            let target = location.parse::<Uri>().map_err(|_| "it is no address")?;
            return Ok(Self { target: target.to_string(), ..self.clone() });
        }
        let uri: Uri = location.parse().map_err(|_| "it is no address")?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if !self.tls => false,
            Some("http") => return Err("it is plain HTTP, and the registry is not"),
            _ => return Err("it is neither http nor https"),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user in its address");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Self { tls, host, port, target })
    }

    /// Whether both are the same server.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Url {
    /// Without the query: tokens are in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Who says that a request goes there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender<'a> {
    /// The user: any address will do.
    User,
    /// This host: only addresses that everybody reaches.
    Host(&'a str),
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What it is about, for messages.
    pub(crate) what: &'a str,
    /// Most that the answer's body may take.
    pub(crate) limit: u64,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The way to servers.
pub(crate) struct Transport {
    tls: TlsConnector,
    limits: Limits,
}

impl Transport {
    /// With the system's certificates, and these.
    pub(crate) fn new(authorities: Option<&[u8]>, limits: Limits) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        // A machine without any still speaks plain HTTP to itself; where TLS needs one, the handshake says so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = authorities {
            use rustls_pki_types::pem::PemObject as _;
            let bad = |cause: String| Error::File { file: "the file of certificates".into(), cause };
            let certificates: Vec<_> =
                rustls_pki_types::CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| bad(error.to_string()))?;
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(bad("has no certificate".into()));
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| Error::File { file: "TLS".into(), cause: error.to_string() })?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), limits })
    }

    /// Asks one thing.
    pub(crate) async fn ask(&self, url: &Url, sender: Sender<'_>, question: &Question<'_>) -> Result<Reply, Error> {
        let within = self.limits.whole;
        let slow = || Error::Slow { host: url.host.clone(), what: "answer completely", within };
        timeout(within, self.exchange(url, sender, question)).await.unwrap_or_else(|_| Err(slow()))
    }

    async fn exchange(&self, url: &Url, sender: Sender<'_>, question: &Question<'_>) -> Result<Reply, Error> {
        let stream = self.connect(url, sender).await?;
        let malformed = |cause: hyper::Error| Error::Malformed {
            host: url.host.clone(),
            what: question.what.to_owned(),
            cause: format!("no HTTP: {}", chain(&cause)),
        };
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(HEAD);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(malformed)?;
        // Ends with this function.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::builder().method(question.method.clone()).uri(url.target.as_str());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&question.headers);
            let value = |text: &str| http::HeaderValue::from_str(text);
            if let (Ok(host), Ok(length)) = (value(&url.authority()), value(&question.body.len().to_string())) {
                headers.insert(HOST, host);
                if !question.body.is_empty() || question.method == Method::POST || question.method == Method::PUT {
                    headers.insert(CONTENT_LENGTH, length);
                }
            }
            headers.insert(USER_AGENT, http::HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION"))));
        }
        let request = request.body(Full::new(question.body.clone())).map_err(|error| Error::Malformed {
            host: url.host.clone(),
            what: question.what.to_owned(),
            cause: error.to_string(),
        })?;
        let within = self.limits.answer;
        let answered = timeout(within, sender.send_request(request)).await;
        let response = answered.map_err(|_| Error::Slow { host: url.host.clone(), what: "answer", within })?.map_err(malformed)?;
        self.read(url, question, response).await
    }

    /// The whole answer, or as much as shows that it is too much.
    async fn read(&self, url: &Url, question: &Question<'_>, response: Response<Incoming>) -> Result<Reply, Error> {
        let (head, mut incoming) = response.into_parts();
        let too_large = || Error::TooLarge { host: url.host.clone(), what: question.what.to_owned(), limit: question.limit };
        let stated = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if question.method != Method::HEAD && stated.is_some_and(|length| length > question.limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        let within = self.limits.pause;
        loop {
            let slow = |_| Error::Slow { host: url.host.clone(), what: "send anything more", within };
            let Some(frame) = timeout(within, incoming.frame()).await.map_err(slow)? else { break };
            let broken = |cause: hyper::Error| Error::Malformed {
                host: url.host.clone(),
                what: question.what.to_owned(),
                cause: format!("the answer broke off: {}", chain(&cause)),
            };
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                if body.len() as u64 + data.len() as u64 > question.limit {
                    return Err(too_large());
                }
                body.extend_from_slice(&data);
            }
        }
        Ok(Reply { status: head.status, headers: head.headers, body: body.into() })
    }

    async fn connect(&self, url: &Url, sender: Sender<'_>) -> Result<Box<dyn Io>, Error> {
        let within = self.limits.connect;
        let unreachable = |cause: String| Error::Unreachable { host: url.host.clone(), cause };
        let work = async {
            let addresses = address::resolve(&url.host, url.port).await.map_err(|error| unreachable(error.to_string()))?;
            if let Sender::Host(host) = sender
                && let Some(private) = addresses.iter().find(|address| !address::is_public(address.ip()))
            {
                return Err(Error::Private { host: host.to_owned(), target: url.to_string(), address: private.ip().to_string() });
            }
            let stream = dial(&addresses).await.map_err(|error| unreachable(error.to_string()))?;
            if !url.tls {
                return Ok(Box::new(stream) as Box<dyn Io>);
            }
            let name = ServerName::try_from(url.host.clone()).map_err(|error| unreachable(error.to_string()))?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| unreachable(format!("TLS: {error}")))?;
            Ok(Box::new(stream) as Box<dyn Io>)
        };
        timeout(within, work).await.unwrap_or_else(|_| Err(Error::Slow { host: url.host.clone(), what: "accept a connection", within }))
    }
}

async fn dial(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut failed = std::io::Error::other("its name has no address");
    for address in addresses {
        // One address that swallows everything must not use up the time of the others.
        match timeout(Duration::from_secs(5), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failed = error,
            Err(_) => failed = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn registries_become_addresses() {
        for (registry, tls, host, port, authority) in [
            ("r.example", true, "r.example", 443, "r.example"),
            ("r.example:5000", true, "r.example", 5000, "r.example:5000"),
            ("[::1]:5000", false, "::1", 5000, "[::1]:5000"),
            ("[::1]", false, "::1", 80, "[::1]"),
            ("localhost:80", false, "localhost", 80, "localhost"),
        ] {
            let url = Url::of(registry, tls, "/v2/".into());
            assert_eq!((url.host.as_str(), url.port, url.authority().as_str()), (host, port, authority), "{registry}");
        }
    }

    #[test]
    fn places_to_go_on_are_judged_by_form() {
        let here = Url::of("r.example", true, "/v2/a".into());
        assert_eq!(here.follow("/x?y=1").unwrap().to_string(), "https://r.example/x");
        assert_eq!(here.follow("https://s.example:8443/b?t=secret").unwrap().to_string(), "https://s.example:8443/b");
        assert!(here.follow("https://R.example/x").unwrap().is_at(&here));
        for place in ["http://r.example/x", "ftp://r.example/", "file:///etc/passwd", "//s.example/x", "https://user@s.example/", "x", ""] {
            assert!(here.follow(place).is_err(), "{place}");
        }
    }

    /// A server on loopback that speaks TLS with this certificate and answers one request.
    async fn secured(names: &[&str]) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let made = rcgen::generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.ok()?;
            let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.ok().filter(|read| *read > 0)?;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await.ok()?;
            stream.shutdown().await.ok()
        });
        (port, made.cert.pem())
    }

    async fn over_tls(names: &[&str], trusts: bool) -> Result<Bytes, Error> {
        let (port, certificate) = secured(names).await;
        let transport = Transport::new(trusts.then_some(certificate.as_bytes()), Limits::default())?;
        let url = Url { tls: true, host: "localhost".into(), port, target: "/".into() };
        let question = Question { method: Method::GET, headers: HeaderMap::new(), body: Bytes::new(), what: "a test", limit: 100 };
        Ok(transport.ask(&url, Sender::User, &question).await?.body)
    }

    #[tokio::test]
    async fn tls_is_for_names_and_authorities_that_are_trusted() {
        assert_eq!(over_tls(&["localhost"], true).await.unwrap(), "secret");
        for (names, trusts) in [(&["localhost"][..], false), (&["other.example"], true)] {
            let error = over_tls(names, trusts).await.unwrap_err();
            assert!(matches!(&error, Error::Unreachable { cause, .. } if cause.starts_with("TLS: ")), "{error}");
        }
        assert!(Transport::new(Some(b"no certificate"), Limits::default()).is_err());
    }
}
