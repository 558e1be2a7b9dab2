//! The conversation with a registry: challenges, redirects, retries, blobs and manifests.
//!
//! Always: a blob is exactly the bytes that its digest names and its descriptor counts; a manifest is the one that was asked for. What it does not do:
//! know what is in an artifact.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::address::is_loopback;
use crate::auth::{Challenge, Credentials, escaped};
use crate::error::Error;
use crate::http::{Question, Reply, Sender, Transport, Url};
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST};
use crate::reference::{Digest, Reference};

/// Redirects that are followed one after the other.
const MOST_REDIRECTS: usize = 5;
/// How often something is tried that may pass.
const TRIES: u32 = 3;
/// Most that is waited before trying again, whatever the registry asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Of a token's answer, or an error's.
const SMALL: u64 = 64 << 10;

/// How much, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a manifest or a configuration.
    pub manifest: u64,
    /// Of a module, packed and unpacked.
    pub module: u64,
    /// For a connection, with its names and its TLS.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// Between two pieces of an answer.
    pub pause: Duration,
    /// For one request and its answer.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { manifest: 4 << 20, module: 64 << 20, connect: seconds(10), answer: seconds(30), pause: seconds(15), whole: seconds(300) }
    }
}

/// How registries are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Plain HTTP, and any address to go on at, for every registry. Without it, for registries on loopback only.
    pub insecure: bool,
    /// Further certificate authorities, as PEM.
    pub authorities: Option<Vec<u8>>,
    /// Where logins are.
    pub credentials: Credentials,
    /// Bounds.
    pub limits: Limits,
}

/// Speaks to registries. Remembers the tokens it was given for as long as it lives.
pub struct Client {
    transport: Transport,
    options: Options,
    /// By registry and scope.
    tokens: Mutex<Vec<(String, HeaderValue)>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.options.limits)
    }
}

/// What is wanted of a registry.
struct Wanted<'a> {
    method: Method,
    url: Url,
    accept: &'static [&'static str],
    content_type: &'static str,
    body: Bytes,
    what: &'a str,
    limit: u64,
}

impl<'a> Wanted<'a> {
    fn new(method: Method, url: Url, what: &'a str, limit: u64) -> Self {
        Self { method, url, accept: &[], content_type: "", body: Bytes::new(), what, limit }
    }
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        let transport = Transport::new(options.authorities.as_deref(), options.limits)?;
        Ok(Self { transport, options, tokens: Mutex::default() })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    fn url(&self, reference: &Reference, below: &str) -> Url {
        let tls = !self.options.insecure && !is_loopback(reference.host());
        Url::of(&reference.registry, tls, format!("/v2/{}/{below}", reference.repository))
    }

    /// The digest that a reference means now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest, Error> {
        Ok(self.manifest(reference).await?.0)
    }

    /// A manifest and its digest: the one that was pinned, or what the tag means.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<(Digest, Manifest), Error> {
        let what = format!("the manifest of {reference}");
        let url = self.url(reference, &format!("manifests/{}", reference.selector()));
        let mut wanted = Wanted::new(Method::GET, url, &what, self.options.limits.manifest);
        wanted.accept = &[OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_INDEX];
        let reply = self.ask(reference, &wanted, "pull").await?;
        let found = Digest::of(&reply.body);
        let stated = reply.header("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
        if let Some(expected) = reference.digest.or(stated)
            && expected != found
        {
            return Err(Error::Digest { host: reference.registry.clone(), what, expected, found });
        }
        let malformed = |cause: String| Error::Malformed { host: reference.registry.clone(), what: what.clone(), cause };
        let manifest: Manifest = serde_json::from_slice(&reply.body).map_err(|error| malformed(error.to_string()))?;
        if manifest.schema_version != 2 {
            return Err(malformed(format!("its schemaVersion is {}, not 2", manifest.schema_version)));
        }
        Ok((found, manifest))
    }

    /// The bytes that a descriptor names.
    pub(crate) async fn blob(&self, reference: &Reference, part: &Descriptor, what: &str, limit: u64) -> Result<Bytes, Error> {
        let host = || reference.registry.clone();
        let what = format!("{what} of {reference}");
        let expected: Digest = part.digest.parse().map_err(|error: crate::BadReference| Error::Malformed {
            host: host(),
            what: what.clone(),
            cause: error.to_string(),
        })?;
        // Before a byte of it is asked for.
        if part.size > limit {
            return Err(Error::TooLarge { host: host(), what, limit });
        }
        let wanted = Wanted::new(Method::GET, self.url(reference, &format!("blobs/{expected}")), &what, part.size);
        let reply = self.ask(reference, &wanted, "pull").await;
        let body = match reply {
            Err(Error::TooLarge { .. }) => return Err(Error::Size { host: host(), what, expected: part.size, found: part.size + 1 }),
            other => other?.body,
        };
        let found = Digest::of(&body);
        match (body.len() as u64 == part.size, found == expected) {
            (false, _) => Err(Error::Size { host: host(), what, expected: part.size, found: body.len() as u64 }),
            (true, false) => Err(Error::Digest { host: host(), what, expected, found }),
            (true, true) => Ok(body),
        }
    }

    /// Puts bytes there, unless they are.
    pub(crate) async fn put_blob(&self, reference: &Reference, bytes: &Bytes, what: &str) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        let there = Wanted::new(Method::HEAD, self.url(reference, &format!("blobs/{digest}")), what, SMALL);
        match self.ask(reference, &there, "pull,push").await {
            Ok(_) => return Ok(digest),
            Err(Error::NotFound { .. }) => {}
            Err(other) => return Err(other),
        }
        let begin = Wanted::new(Method::POST, self.url(reference, "blobs/uploads/"), what, SMALL);
        let begun = self.ask(reference, &begin, "pull,push").await?;
        let location = begun.header(LOCATION.as_str()).unwrap_or_default();
        let redirect = |why| Error::Redirect { host: reference.registry.clone(), target: location.to_owned(), why };
        let mut url = begin.url.follow(location).map_err(redirect)?;
        let separator = if url.target.contains('?') { '&' } else { '?' };
        url.target = format!("{}{separator}digest={digest}", url.target);
        let mut upload = Wanted::new(Method::PUT, url, what, SMALL);
        (upload.content_type, upload.body) = ("application/octet-stream", bytes.clone());
        self.ask(reference, &upload, "pull,push").await?;
        Ok(digest)
    }

    /// Puts a manifest under a tag, or under its digest.
    pub(crate) async fn put_manifest(&self, reference: &Reference, manifest: Vec<u8>) -> Result<Digest, Error> {
        let digest = Digest::of(&manifest);
        let selector = reference.tag.clone().unwrap_or_else(|| digest.to_string());
        let what = format!("the manifest of {reference}");
        let url = self.url(reference, &format!("manifests/{selector}"));
        let mut wanted = Wanted::new(Method::PUT, url, &what, SMALL);
        (wanted.content_type, wanted.body) = (OCI_MANIFEST, manifest.into());
        let reply = self.ask(reference, &wanted, "pull,push").await?;
        match reply.header("docker-content-digest").and_then(|stated| stated.parse::<Digest>().ok()) {
            Some(found) if found != digest => Err(Error::Digest { host: reference.registry.clone(), what, expected: digest, found }),
            _ => Ok(digest),
        }
    }

    /// Asks until there is an answer: through challenges and redirects, and again where that may help.
    async fn ask(&self, reference: &Reference, wanted: &Wanted<'_>, access: &str) -> Result<Reply, Error> {
        let mut attempt = 1;
        loop {
            let (wait, error) = match self.ask_once(reference, wanted, access).await {
                Ok(reply) if reply.status.is_success() => return Ok(reply),
                Ok(reply) => (retry_after(&reply), judge(reference, wanted, &reply)),
                Err(error) => (None, error),
            };
            if attempt == TRIES || !error.is_passing() {
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or(Duration::from_millis(200) * attempt).min(LONGEST_WAIT)).await;
            attempt += 1;
        }
    }

    async fn ask_once(&self, reference: &Reference, wanted: &Wanted<'_>, access: &str) -> Result<Reply, Error> {
        let key = format!("{} {} {access}", reference.registry, reference.repository);
        let known =
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|(of, _)| *of == key).map(|(_, token)| token.clone());
        let reply = self.through_redirects(reference, wanted, known.as_ref()).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        // A token that was good may have become old.
        let authorization = self.authorize(reference, wanted, &reply, access).await?;
        {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.retain(|(of, _)| *of != key);
            tokens.push((key, authorization.clone()));
        }
        self.through_redirects(reference, wanted, Some(&authorization)).await
    }

    async fn through_redirects(
        &self,
        reference: &Reference,
        wanted: &Wanted<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, Error> {
        let home = self.url(reference, "");
        let mut url = wanted.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = HeaderMap::new();
            for accepted in wanted.accept {
                headers.append(ACCEPT, HeaderValue::from_static(accepted));
            }
            if !wanted.content_type.is_empty() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(wanted.content_type));
            }
            let is_home = url.is_at(&home);
            if let Some(authorization) = authorization.filter(|_| is_home) {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            let (what, limit, body) = (wanted.what, wanted.limit, wanted.body.clone());
            let question = Question { method: wanted.method.clone(), headers, body, what, limit };
            let reply = self.transport.ask(&url, self.sender(reference, is_home), &question).await?;
            if !matches!(reply.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(reply);
            }
            let location = reply.header(LOCATION.as_str()).unwrap_or_default();
            let bad = |why| Error::Redirect { host: reference.registry.clone(), target: location.to_owned(), why };
            url = url.follow(location).map_err(bad)?;
        }
        Err(Error::Redirect { host: reference.registry.clone(), target: url.to_string(), why: "there are too many redirects" })
    }

    /// Whom the address is from: the registry itself is the user's choice.
    fn sender<'r>(&self, reference: &'r Reference, is_home: bool) -> Sender<'r> {
        if is_home || self.options.insecure { Sender::User } else { Sender::Host(&reference.registry) }
    }

    /// What a challenge is answered with.
    async fn authorize(&self, reference: &Reference, wanted: &Wanted<'_>, reply: &Reply, access: &str) -> Result<HeaderValue, Error> {
        let refused = |why: String| Error::Unauthorized {
            host: reference.registry.clone(),
            what: wanted.what.to_owned(),
            status: reply.status.as_u16(),
            why,
        };
        let (login, hint) = self.options.credentials.login(&reference.registry)?;
        let challenges = reply.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| Challenge::parse(value.to_str().ok()?));
        let challenge = challenges.max_by_key(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let secret = |text: String| {
            let mut value = HeaderValue::from_str(&text).map_err(|_| refused("the credentials cannot be sent".into()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        match (challenge, login) {
            (None, _) => Err(refused("it asks for credentials in a way that is not known here".into())),
            (Some(Challenge::Basic), None) => Err(refused(hint.unwrap_or_else(|| "there is no login for it".into()))),
            (Some(Challenge::Basic), Some(login)) => secret(login.basic()),
            (Some(Challenge::Bearer { realm, service, scope }), login) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:{access}", reference.repository));
                let home = self.url(reference, "");
                let mut url =
                    home.follow(&realm).map_err(|why| Error::Redirect { host: reference.registry.clone(), target: realm.clone(), why })?;
                let separator = if url.target.contains('?') { '&' } else { '?' };
                let service = service.map(|service| format!("service={}&", escaped(&service))).unwrap_or_default();
                url.target = format!("{}{separator}{service}scope={}", url.target, escaped(&scope));
                let mut headers = HeaderMap::new();
                if let Some(login) = &login {
                    headers.insert(AUTHORIZATION, secret(login.basic())?);
                }
                let question = Question { method: Method::GET, headers, body: Bytes::new(), what: "a token", limit: SMALL };
                let is_home = url.is_at(&home);
                let reply = self.transport.ask(&url, self.sender(reference, is_home), &question).await?;
                if !reply.status.is_success() {
                    let who = if login.is_some() { "the login" } else { "anonymous access" };
                    return Err(refused(hint.unwrap_or_else(|| format!("{} refuses {who}", url.host))));
                }
                secret(format!("Bearer {}", token(&reply.body).ok_or_else(|| refused("what it sends to gives no token".into()))?))
            }
        }
    }
}

/// Of the two names that a token goes by.
fn token(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |key: &str| answer.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    text("token").or_else(|| text("access_token"))
}

fn retry_after(reply: &Reply) -> Option<Duration> {
    reply.header("retry-after")?.parse().ok().map(Duration::from_secs)
}

/// The error that a status is.
fn judge(reference: &Reference, wanted: &Wanted<'_>, reply: &Reply) -> Error {
    let (host, what) = (reference.registry.clone(), wanted.what.to_owned());
    let status = reply.status.as_u16();
    match status {
        401 | 403 => Error::Unauthorized { host, what, status, why: said(reply).unwrap_or_else(|| "the login does not suffice".into()) },
        404 => Error::NotFound { host, what: what.trim_start_matches("the ").to_owned() },
        429 => Error::TooMany { host },
        _ => {
            let said = said(reply).map(|said| format!(": {said}")).unwrap_or_default();
            Error::Status { host, status, what, said }
        }
    }
}

/// What an error's body says, on one line and cut.
fn said(reply: &Reply) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
    let error = answer.get("errors")?.get(0)?;
    let text = |key: &str| error.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let line = format!("{} {}", text("code"), text("message"));
    let line: String = line.trim().chars().filter(|character| !character.is_control()).take(200).collect();
    (!line.is_empty()).then_some(line)
}
