//! Listening sockets, and what is asked of an accepted one.
//!
//! One socket per worker shares a TCP address (`SO_REUSEPORT`), so the kernel spreads connections and no worker waits for another. Options that
//! connections need (no delay, keep-alive) are set on the listening socket, which the kernel copies to every connection: accepting one costs no
//! further system call. IPv6 sockets take IPv6 only, so that `0.0.0.0` and `[::]` can be listened on together.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use weir_model::config::TcpOptions;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    /// `127.0.0.1:80`, `[::]:443`.
    Tcp(SocketAddr),
    /// `unix:/run/weir.sock`.
    Unix(PathBuf),
}

/// Why text is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address; write 0.0.0.0:8080, [::]:8080 or unix:/path")]
pub struct InvalidAddress(pub String);

impl FromStr for ListenAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let parsed = match text.strip_prefix("unix:") {
            Some(path) => Some(Self::Unix(path.into())).filter(|_| path.starts_with('/') && !path.contains('\0')),
            None => text.parse().map(Self::Tcp).ok(),
        };
        parsed.ok_or_else(|| InvalidAddress(text.to_owned()))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(60);
const DEFAULT_BACKLOG: u32 = 4096;
/// Probes that go unanswered before a connection is given up, and the time between them.
const PROBES: u32 = 5;
const PROBE_INTERVAL: Duration = Duration::from_secs(15);

/// How a listening socket is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Silence before the first probe; `None` is no probes.
    pub keepalive: Option<Duration>,
    /// Connections that wait to be accepted.
    pub backlog: u32,
    /// Take connections to addresses that are not this machine's (TPROXY). Needs a capability.
    pub transparent: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { keepalive: Some(DEFAULT_KEEPALIVE), backlog: DEFAULT_BACKLOG, transparent: false }
    }
}

impl SocketOptions {
    /// The options of a listener.
    #[must_use]
    pub fn new(tcp: Option<&TcpOptions>, transparent: bool) -> Self {
        let keepalive = tcp.and_then(|tcp| tcp.keepalive.as_ref()).map_or(DEFAULT_KEEPALIVE, crate::tls::duration);
        let backlog = tcp.map_or(0, |tcp| tcp.backlog);
        Self {
            keepalive: Some(keepalive).filter(|time| !time.is_zero()),
            backlog: if backlog == 0 { DEFAULT_BACKLOG } else { backlog },
            transparent,
        }
    }
}

/// A socket that listens, not yet a worker's.
#[derive(Debug)]
pub enum ListenSocket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl ListenSocket {
    /// The address with its real port.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(ListenAddress::Tcp),
            Self::Unix(socket) => {
                let address = socket.local_addr()?;
                address.as_pathname().map(|path| ListenAddress::Unix(path.into())).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
            }
        }
    }

    /// The same socket once more: one queue, two owners.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl TryFrom<OwnedFd> for ListenSocket {
    type Error = io::Error;

    /// A descriptor that another process opened.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        if !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor does not listen"));
        }
        socket.set_nonblocking(true)?;
        match socket.domain()? {
            Domain::UNIX => Ok(Self::Unix(socket.into())),
            Domain::IPV4 | Domain::IPV6 => Ok(Self::Tcp(socket.into())),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is of another family")),
        }
    }
}

/// Opens the sockets of one address, one for each worker. With port 0 all get the port that the first was given. A Unix socket is one queue that
/// all share.
///
/// # Errors
/// When the address is taken, even by a process that would share it, or cannot be had.
pub fn bind(address: &ListenAddress, options: &SocketOptions, workers: usize) -> io::Result<Vec<ListenSocket>> {
    match address {
        ListenAddress::Tcp(address) => {
            if address.port() != 0 {
                // With SO_REUSEPORT the kernel would let two proxies share the port, each getting half of the connections.
                open_tcp(*address, options, false)?;
            }
            let first = open_tcp(*address, options, true)?;
            listen(&first, options)?;
            let first = std::net::TcpListener::from(first);
            let rest = more_tcp(first.local_addr()?, options, workers.saturating_sub(1))?;
            let mut sockets = vec![ListenSocket::Tcp(first)];
            sockets.extend(rest);
            Ok(sockets)
        }
        ListenAddress::Unix(path) => {
            let first = ListenSocket::Unix(bind_unix(path, options)?);
            let rest: io::Result<Vec<_>> = (1..workers).map(|_| first.try_clone()).collect();
            Ok(std::iter::once(first).chain(rest?).collect())
        }
    }
}

/// More sockets for an address that this process already listens on, for more workers.
///
/// # Errors
/// When the address cannot be had.
pub fn more_tcp(address: SocketAddr, options: &SocketOptions, count: usize) -> io::Result<Vec<ListenSocket>> {
    let open = |_| {
        let socket = open_tcp(address, options, true)?;
        listen(&socket, options)?;
        Ok(ListenSocket::Tcp(socket.into()))
    };
    (0..count).map(open).collect()
}

/// Deals sockets out to workers so that every socket has one and every worker has one. Sockets past the number of workers go round again: connections
/// may wait in their queues. Workers past the number of sockets share one.
///
/// # Errors
/// When there are no more descriptors.
pub fn deal(sockets: Vec<ListenSocket>, workers: usize) -> io::Result<Vec<Vec<ListenSocket>>> {
    let workers = workers.max(1);
    let missing = if sockets.is_empty() { 0 } else { workers.saturating_sub(sockets.len()) };
    let extra: io::Result<Vec<_>> = (0..missing).map(|i| sockets[i % sockets.len()].try_clone()).collect();
    let mut hands: Vec<Vec<ListenSocket>> = std::iter::repeat_with(Vec::new).take(workers).collect();
    for (i, socket) in sockets.into_iter().chain(extra?).enumerate() {
        hands[i % workers].push(socket);
    }
    Ok(hands)
}

fn open_tcp(address: SocketAddr, options: &SocketOptions, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if options.transparent {
        // The option is one flag of the socket, whatever its family.
        socket.set_ip_transparent_v4(true)?;
    }
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    match options.keepalive {
        Some(idle) => {
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(PROBE_INTERVAL.min(idle)).with_retries(PROBES);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        None => socket.set_keepalive(false)?,
    }
    socket.listen(backlog(options))
}

fn backlog(options: &SocketOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

/// Sets a socket that listens already up anew: another configuration's, or another process's.
///
/// # Errors
/// When the system refuses.
pub fn adjust(socket: &ListenSocket, options: &SocketOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.domain()? == Domain::UNIX {
        return socket.listen(backlog(options));
    }
    if socket.ip_transparent_v4()? != options.transparent {
        socket.set_ip_transparent_v4(options.transparent)?;
    }
    listen(&socket, options)
}

fn bind_unix(path: &Path, options: &SocketOptions) -> io::Result<std::os::unix::net::UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(backlog(options))?;
    Ok(socket.into())
}

/// Removes the socket file that a process left behind; an error when something still answers there, or it is no socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(about) if !about.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket"));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Where a redirected connection was going before netfilter turned it here. `None` when it was not redirected, or goes to `local` anyway.
#[must_use]
pub fn original_destination(socket: impl AsFd, local: SocketAddr) -> Option<SocketAddr> {
    let fd = socket.as_fd();
    let found = match local.ip().to_canonical() {
        IpAddr::V4(_) => rustix::net::sockopt::ip_original_dst(fd).map(SocketAddr::V4),
        IpAddr::V6(_) => rustix::net::sockopt::ipv6_original_dst(fd).map(SocketAddr::V6),
    };
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    found.ok().map(canonical).filter(|address| *address != canonical(local))
}

/// Whether an address is one of this machine's own.
#[must_use]
pub fn is_of_this_machine(address: IpAddr) -> bool {
    // Nothing is sent. Only an own address can be bound to by a socket that is not transparent.
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn tcp(address: &str) -> ListenAddress {
        address.parse().unwrap()
    }

    #[test]
    fn addresses_parse() {
        assert_eq!(tcp("127.0.0.1:80").to_string(), "127.0.0.1:80");
        assert_eq!(tcp("[::1]:80").to_string(), "[::1]:80");
        assert_eq!(tcp("unix:/run/x.sock"), ListenAddress::Unix("/run/x.sock".into()));
        for bad in ["", "80", ":80", "localhost:80", "unix:", "unix:relative", "127.0.0.1", "127.0.0.1:70000"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn workers_share_one_port_and_all_serve() {
        let sockets = bind(&tcp("127.0.0.1:0"), &SocketOptions::default(), 3).unwrap();
        let ListenAddress::Tcp(address) = sockets[0].address().unwrap() else { panic!("TCP") };
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|socket| socket.address().unwrap() == ListenAddress::Tcp(address)));
        let clients: Vec<_> = (0..30).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = 0;
        for socket in &sockets {
            let ListenSocket::Tcp(listener) = socket else { panic!("TCP") };
            while let Ok((stream, _)) = listener.accept() {
                assert!(stream.nodelay().unwrap(), "inherited from the listening socket");
                assert!(SockRef::from(&stream).keepalive().unwrap());
                accepted += 1;
            }
        }
        assert_eq!(accepted, clients.len());
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_even_when_it_could_be_shared() {
        let options = SocketOptions::default();
        let sockets = bind(&tcp("127.0.0.1:0"), &options, 1).unwrap();
        let taken = sockets[0].address().unwrap();
        assert_eq!(bind(&taken, &options, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let ListenAddress::Tcp(address) = taken else { panic!("TCP") };
        assert_eq!(more_tcp(address, &options, 2).unwrap().len(), 2, "this process may add workers");
    }

    #[test]
    fn a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let address = ListenAddress::Unix(path.clone());
        let first = bind(&address, &SocketOptions::default(), 2).unwrap();
        assert_eq!(bind(&address, &SocketOptions::default(), 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let again = bind(&address, &SocketOptions::default(), 1).unwrap();
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let ListenSocket::Unix(listener) = &again[0] else { panic!("Unix") };
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let file = ListenAddress::Unix(folder.path().join("file"));
        assert_eq!(bind(&file, &SocketOptions::default(), 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn ipv6_sockets_leave_ipv4_alone() {
        let Ok(sockets) = bind(&tcp("[::]:0"), &SocketOptions::default(), 1) else {
            return; // No IPv6 on this machine.
        };
        let ListenAddress::Tcp(address) = sockets[0].address().unwrap() else { panic!("TCP") };
        let v4 = SocketAddr::new("0.0.0.0".parse().unwrap(), address.port());
        assert!(bind(&ListenAddress::Tcp(v4), &SocketOptions::default(), 1).is_ok());
    }

    #[test]
    fn every_socket_is_dealt_and_every_worker_gets_one() {
        let sockets = || bind(&tcp("127.0.0.1:0"), &SocketOptions::default(), 3).unwrap();
        let counts = |workers| deal(sockets(), workers).unwrap().iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(counts(2), [2, 1]);
        assert_eq!(counts(3), [1, 1, 1]);
        assert_eq!(counts(5), [1, 1, 1, 1, 1]);
        assert_eq!(counts(0), [3]);
        assert!(deal(Vec::new(), 2).unwrap().iter().all(Vec::is_empty));
    }

    #[test]
    fn a_connection_that_was_not_redirected_has_no_original_destination() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(original_destination(&server, server.local_addr().unwrap()), None);
        drop(client);
    }

    #[test]
    fn own_addresses_are_known() {
        assert!(is_of_this_machine("127.0.0.1".parse().unwrap()));
        // Set aside for documentation.
        assert!(!is_of_this_machine("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn options_come_from_the_configuration() {
        assert_eq!(SocketOptions::new(None, false), SocketOptions::default());
        let off = TcpOptions { keepalive: Some(weir_model::protobuf::Duration { seconds: 0, nanos: 0 }), backlog: 7 };
        assert_eq!(SocketOptions::new(Some(&off), true), SocketOptions { keepalive: None, backlog: 7, transparent: true });
    }
}
