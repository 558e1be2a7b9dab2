//! The operator's pages: what is loaded, how it fares, a few switches.
//!
//! A small HTTP/1 server on the control runtime, one request per connection, apart from the data path in every way. What the pages show comes from
//! [`AdminState`].
//!
//! What always holds: reads are GET and change nothing, changes are POST; a `Host` that is neither an address nor this machine nor allowed is refused,
//! and so is a change that a page of another origin asks for; heads, bodies, connections and time are bounded; nothing private is shown.
//!
//! What it does not do: authenticate. It listens on loopback unless told otherwise.

mod http;
mod page;
pub mod view;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use weir_model::address::Address;
use weir_model::config;

use self::http::{Method, Reply, Request, Stream};
use crate::listener::socket::{ListenAddress, ListenSocket};
use crate::listener::sockets::SocketFile;
use crate::observe::metrics::Metrics;

/// Where the pages are unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:15000";
/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 64;
/// How long a connection may take, profiles apart.
const LONGEST: Duration = Duration::from_secs(30);
/// A profile is not longer.
const LONGEST_PROFILE: u64 = 60;

/// What the pages show and change. Called on threads that may block.
pub trait AdminState: Send + Sync + 'static {
    /// Whether new traffic is welcome, and if not, why.
    fn ready(&self) -> view::Ready;
    /// What is loaded.
    fn config(&self) -> view::Config;
    /// Clusters with their endpoints.
    fn clusters(&self) -> Vec<view::Cluster>;
    /// Filters with what they cost.
    fn filters(&self) -> Vec<view::Filter>;
    /// Listeners with their branches.
    fn listeners(&self) -> Vec<view::Listener>;
    /// Certificates; nothing private.
    fn certs(&self) -> Vec<view::Certificate>;
    /// The counters.
    fn metrics(&self) -> &Arc<Metrics>;
    /// The log's level.
    fn log_level(&self) -> String;
    /// Sets the log's level.
    ///
    /// # Errors
    /// When it is none, in a sentence.
    fn set_log_level(&self, level: &str) -> Result<(), String>;
    /// Begins to drain; no more than once.
    fn drain(&self);
    /// A CPU profile over so many seconds, with its content type.
    ///
    /// # Errors
    /// When there is none to be had, in a sentence.
    fn profile(&self, seconds: u64) -> Result<(&'static str, Vec<u8>), String> {
        let _ = seconds;
        Err("this binary was built without a profiler".into())
    }
}

/// The pages, listening.
pub struct Admin {
    socket: ListenSocket,
    file: Option<SocketFile>,
    hosts: Vec<String>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The name under which a successor gets the socket of the pages; `None` if they are off.
#[must_use]
pub fn socket_key(admin: &config::Admin) -> Option<String> {
    address(admin).map(|address| format!("admin {address}"))
}

fn address(admin: &config::Admin) -> Option<&str> {
    match admin.address.as_str() {
        "off" => None,
        "" => Some(DEFAULT_ADDRESS),
        address => Some(address),
    }
}

impl Admin {
    /// Listens as `admin` says, on a predecessor's socket if there is one; `None` if the pages are off.
    ///
    /// # Errors
    /// When the address is none, or taken.
    pub fn bind(admin: &config::Admin, inherited: Option<ListenSocket>) -> io::Result<Option<Self>> {
        let Some(address) = address(admin) else { return Ok(None) };
        let invalid =
            |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, format!("admin address {address:?}: {error}"));
        let parsed = address.parse::<Address>().map_err(|error| invalid(&error))?;
        let socket = match (inherited, &parsed) {
            (Some(socket), _) => socket,
            (None, Address::Socket(address)) => bind_tcp(*address)?,
            (None, Address::Unix(path)) => bind_unix(path)?,
            (None, Address::Name { .. }) => return Err(invalid(&"an IP address is needed")),
        };
        let file = if let Address::Unix(path) = parsed { SocketFile::at(path) } else { None };
        Ok(Some(Self { socket, file, hosts: admin.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect() }))
    }

    /// Where it listens; nothing for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.socket.address().ok()? {
            ListenAddress::Tcp(address) => Some(address),
            ListenAddress::Unix(_) => None,
        }
    }

    /// The socket once more, for a successor.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn socket(&self) -> io::Result<ListenSocket> {
        self.socket.try_clone()
    }

    /// The file of a Unix socket, to be removed at the end.
    pub(crate) fn take_file(&mut self) -> Option<SocketFile> {
        self.file.take()
    }

    /// Serves for ever: drop the future to stop.
    pub async fn serve<S: AdminState>(self, state: Arc<S>) {
        let listener = match self.socket {
            ListenSocket::Tcp(socket) => TcpListener::from_std(socket).map(Listener::Tcp),
            ListenSocket::Unix(socket) => UnixListener::from_std(socket).map(Listener::Unix),
        };
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(target: "admin", "cannot accept: {error}");
                return;
            }
        };
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        // One page of counters is rendered at a time.
        let site = Arc::new(Site { state, hosts: self.hosts, rendering: Semaphore::new(1) });
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let accepted: io::Result<Box<dyn Stream>> = match &listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as _),
                Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as _),
            };
            let Ok(mut stream) = accepted else {
                // Out of descriptors: trying at once would only spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let site = Arc::clone(&site);
            tokio::spawn(async move {
                let limit = LONGEST + Duration::from_secs(LONGEST_PROFILE);
                let _ = timeout(limit, site.connection(&mut *stream)).await;
                drop(permit);
            });
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<ListenSocket> {
    // Sets SO_REUSEADDR.
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(ListenSocket::Tcp(socket))
}

fn bind_unix(path: &std::path::Path) -> io::Result<ListenSocket> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    // A socket that a dead process has left.
    let stale = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if stale && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let socket = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    Ok(ListenSocket::Unix(socket))
}

/// What connections share.
struct Site<S> {
    state: Arc<S>,
    hosts: Vec<String>,
    rendering: Semaphore,
}

impl<S: AdminState> Site<S> {
    async fn connection(self: &Arc<Self>, stream: &mut dyn Stream) {
        let (reply, head_only) = match http::read(stream).await {
            Ok(Some(request)) => {
                let head_only = request.method == Method::Head;
                (self.answer(&request).await, head_only)
            }
            Ok(None) => return,
            Err(reply) => (reply, false),
        };
        http::write(stream, &reply, head_only).await;
    }

    async fn answer(self: &Arc<Self>, request: &Request) -> Reply {
        if let Err(reason) = self.permitted(request) {
            return Reply::text(403, reason);
        }
        let read = matches!(request.method, Method::Get | Method::Head);
        match (request.path.as_str(), read, request.method == Method::Post) {
            ("/logging" | "/drain", _, true) => self.change(request).await,
            ("/drain", _, false) => Reply::text(405, "this changes something: use POST").with("allow", "POST"),
            ("/logging", true, _) => self.blocking(|site| Reply::text(200, &site.state.log_level())).await,
            (path, true, _) if page::PAGES.iter().any(|(known, _)| *known == path) || path == "/" => self.show(request).await,
            (path, false, _) if page::PAGES.iter().any(|(known, _)| *known == path) || path == "/" => {
                Reply::text(405, "this page is read: use GET").with("allow", "GET, HEAD")
            }
            _ => Reply::text(404, "there is no such page; / lists them"),
        }
    }

    /// Against pages elsewhere that send a browser here: by a name that they made point here, or by a form.
    fn permitted(&self, request: &Request) -> Result<(), &'static str> {
        let Some(host) = &request.host else { return Ok(()) };
        let name = host_name(host);
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let known = name == "localhost" || name.is_empty() || self.hosts.contains(&name);
        if !address && !known {
            return Err("this Host is not allowed; see admin.allowedHosts");
        }
        let foreign = |origin: &String| origin.split_once("://").is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(host));
        if request.method == Method::Post && request.origin.as_ref().is_some_and(foreign) {
            return Err("another site's page may not change anything here");
        }
        Ok(())
    }

    async fn change(self: &Arc<Self>, request: &Request) -> Reply {
        let level = request.query("level");
        match (request.path.as_str(), level) {
            ("/drain", _) => {
                self.blocking(|site| {
                    site.state.drain();
                    Reply::text(200, "draining")
                })
                .await
            }
            (_, None) => Reply::text(400, "name a level: POST /logging?level=info,upstream=debug"),
            (_, Some(level)) => {
                self.blocking(move |site| match site.state.set_log_level(&level) {
                    Ok(()) => Reply::text(200, &site.state.log_level()),
                    Err(reason) => Reply::text(400, &reason),
                })
                .await
            }
        }
    }

    async fn show(self: &Arc<Self>, request: &Request) -> Reply {
        let path = request.path.clone();
        match path.as_str() {
            "/metrics" | "/stats" => {
                let Ok(_turn) = self.rendering.acquire().await else { return Reply::text(503, "closing") };
                self.blocking(move |site| page::counters(&path, site.state.metrics())).await
            }
            "/profile" => {
                let Ok(_turn) = self.rendering.acquire().await else { return Reply::text(503, "closing") };
                let seconds = request.query("seconds").and_then(|text| text.parse().ok()).unwrap_or(10);
                let seconds = Ord::clamp(seconds, 1, LONGEST_PROFILE);
                self.blocking(move |site| match site.state.profile(seconds) {
                    Ok((content_type, body)) => Reply::new(200, content_type, body),
                    Err(reason) => Reply::text(501, &reason),
                })
                .await
            }
            _ => self.blocking(move |site| page::view(&path, &*site.state)).await,
        }
    }

    /// Runs `make` where it may take its time.
    async fn blocking(self: &Arc<Self>, make: impl FnOnce(&Self) -> Reply + Send + 'static) -> Reply {
        let site = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || make(&site)).await;
        made.unwrap_or_else(|_| Reply::text(500, "the page could not be made"))
    }
}

/// The name in a `Host` header, without its port.
fn host_name(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
