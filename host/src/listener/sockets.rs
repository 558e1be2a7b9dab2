//! The sockets of one address over their life: dealt to workers, then handed to a successor or closed.
//!
//! What always holds: closing loses nobody who was let in. The kernel completes handshakes by itself and resets what waits in a queue that is closed, so
//! a queue first gets no more: a filter in the kernel drops what would begin a connection, a Unix socket's file is removed. Workers then accept what
//! waits, and close. Who comes later tries again, and is refused. While a successor holds the same sockets none of that is done to them: it would be
//! done to the successor.
//!
//! Whoever holds an old snapshot holds this, so nothing here waits for the last of them: a socket that is open but accepted from by nobody lets its
//! clients wait in vain.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{SockFilter, SockRef};

use super::handover::Offer;
use super::socket::{ListenAddress, ListenSocket, SocketOptions, adjust, deal};

/// The sockets of an address.
#[derive(Debug)]
pub struct Sockets {
    key: String,
    file: Option<SocketFile>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dealt: Vec<Vec<ListenSocket>>,
    options: SocketOptions,
    fate: Fate,
    /// A successor has them, too, and has not said yet which it takes.
    lent: bool,
}

/// What becomes of a queue that this process no longer serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is served.
    Open,
    /// Another process serves it: what waits in it is not lost.
    Handed,
    /// It ends, and gets no more connections.
    Closed,
    /// It ends, but this system lets new connections in until it is closed.
    ClosedUnguarded,
}

impl Sockets {
    /// What sockets are for: the address as the configuration names it. Where the system chooses the port, every listener has its own.
    #[must_use]
    pub fn key(address: &ListenAddress, listener: &str) -> String {
        match address {
            ListenAddress::Tcp(tcp) if tcp.port() == 0 => format!("{tcp} {listener}"),
            _ => address.to_string(),
        }
    }

    /// Deals sockets out to workers.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn new(key: String, sockets: Vec<ListenSocket>, options: SocketOptions, workers: usize) -> io::Result<Self> {
        let file = match sockets.first().map(ListenSocket::address) {
            Some(Ok(ListenAddress::Unix(path))) => SocketFile::at(path),
            _ => None,
        };
        let state = State { dealt: deal(sockets, workers)?, options, fate: Fate::Open, lent: false };
        Ok(Self { key, file, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What they are for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.key
    }

    /// Those of one worker.
    ///
    /// # Errors
    /// When there can be no further descriptor.
    pub fn of_worker(&self, worker: usize) -> io::Result<Vec<ListenSocket>> {
        self.state().dealt.get(worker).into_iter().flatten().map(ListenSocket::try_clone).collect()
    }

    /// The address with its real port.
    #[must_use]
    pub fn address(&self) -> Option<ListenAddress> {
        self.state().dealt.iter().flatten().next()?.address().ok()
    }

    /// Sets sockets that are in use up anew, where the options differ.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn adjust(&self, options: &SocketOptions) -> io::Result<()> {
        let mut state = self.state();
        if state.options != *options {
            state.dealt.iter().flatten().try_for_each(|socket| adjust(socket, options))?;
            state.options = *options;
        }
        Ok(())
    }

    /// All of them, for a successor. They count as lent until [`Self::hand_over`] or [`Self::keep`].
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn offers(&self) -> io::Result<Vec<Offer>> {
        let mut state = self.state();
        state.lent = true;
        let mut offers = Vec::new();
        for (worker, sockets) in state.dealt.iter().enumerate() {
            for socket in sockets {
                let worker = u32::try_from(worker).unwrap_or(u32::MAX);
                offers.push(Offer { key: self.key.clone(), worker, socket: socket.try_clone()? });
            }
        }
        Ok(offers)
    }

    /// The successor does not take them.
    pub fn keep(&self) {
        self.state().lent = false;
    }

    /// Another process accepts here: this one stops, and leaves everything as it is.
    pub fn hand_over(&self) {
        self.end(|_| Fate::Handed);
    }

    /// Lets no more connections in. Workers accept what waits, and close.
    pub fn close(&self) {
        self.end(|state| {
            if state.lent {
                return Fate::Handed;
            }
            if let Some(file) = &self.file {
                file.remove();
            }
            let refused = state.dealt.iter().flatten().try_for_each(refuse_new);
            if let Err(error) = &refused {
                tracing::debug!(target: "listener", address = self.key, "new connections cannot be kept out of a queue that ends: {error}");
            }
            if refused.is_ok() { Fate::Closed } else { Fate::ClosedUnguarded }
        });
    }

    fn end(&self, end: impl FnOnce(&State) -> Fate) {
        let mut state = self.state();
        if state.fate == Fate::Open {
            state.fate = end(&state);
            state.dealt.clear();
        }
    }

    /// What becomes of them.
    #[must_use]
    pub fn fate(&self) -> Fate {
        self.state().fate
    }
}

/// The file of a Unix socket: removed by who made it or took it over, and only if it is still the same.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let about = std::fs::symlink_metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}

impl SocketFile {
    /// The file that lies there now.
    pub(crate) fn at(path: PathBuf) -> Option<Self> {
        identity(&path).map(|identity| Self { path, identity })
    }

    /// Removes it, unless somebody has put another in its place.
    pub(crate) fn remove(&self) {
        if identity(&self.path) == Some(self.identity) {
            // Somebody else may have been faster.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Has the kernel drop what would begin a connection. Handshakes in progress are completed; nothing else of the socket changes.
fn refuse_new(socket: &ListenSocket) -> io::Result<()> {
    // Classic BPF over the TCP header: load the byte of flags; if SYN is set, keep 0 bytes of the packet, else all.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    match socket {
        ListenSocket::Tcp(listener) => SockRef::from(listener).attach_filter(&[
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
            SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ]),
        // Without its file nobody finds it.
        ListenSocket::Unix(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::super::socket::bind;
    use super::*;

    fn sockets(address: &str, workers: usize) -> Sockets {
        let address = address.parse().unwrap();
        let options = SocketOptions::default();
        Sockets::new(Sockets::key(&address, "web"), bind(&address, &options, workers).unwrap(), options, workers).unwrap()
    }

    #[test]
    fn who_was_let_in_is_accepted_and_who_comes_later_is_not_let_in() {
        let sockets = sockets("127.0.0.1:0", 2);
        assert!(sockets.name().ends_with(":0 web"), "another listener gets another port");
        let Some(ListenAddress::Tcp(address)) = sockets.address() else { panic!("TCP") };
        let mine: Vec<_> = (0..2).flat_map(|worker| sockets.of_worker(worker).unwrap()).collect();
        let waiting: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
        sockets.close();
        assert_eq!(sockets.fate(), Fate::Closed);
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut, "not let in, and not told either");
        let mut accepted = 0;
        for socket in &mine {
            let ListenSocket::Tcp(listener) = socket else { panic!("TCP") };
            while let Ok((stream, _)) = listener.accept() {
                accepted += 1;
                drop(stream);
            }
        }
        assert_eq!(accepted, waiting.len());
        drop(mine);
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        sockets.hand_over();
        assert_eq!(sockets.fate(), Fate::Closed, "an end is an end");
    }

    #[test]
    fn a_unix_socket_loses_its_file_when_it_is_closed_and_keeps_it_when_it_is_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let address = format!("unix:{}", path.display());
        let handed = sockets(&address, 2);
        let offers = handed.offers().unwrap();
        handed.hand_over();
        assert!(path.exists() && handed.address().is_none());
        let options = SocketOptions::default();
        let inherited = offers.into_iter().map(|offer| offer.socket).collect();
        let successor = Sockets::new(address.clone(), inherited, options, 1).unwrap();
        assert_eq!(successor.of_worker(0).unwrap().len(), 2);
        successor.close();
        assert!(!path.exists());
        let old = sockets(&address, 1);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        old.close();
        assert!(path.exists(), "it is not ours");
    }

    #[test]
    fn what_is_lent_is_not_spoilt_for_the_successor() {
        let sockets = sockets("127.0.0.1:0", 1);
        let Some(ListenAddress::Tcp(address)) = sockets.address() else { panic!("TCP") };
        let offers = sockets.offers().unwrap();
        sockets.close();
        assert_eq!(sockets.fate(), Fate::Handed);
        let _client = TcpStream::connect(address).unwrap();
        let ListenSocket::Tcp(listener) = &offers[0].socket else { panic!("TCP") };
        listener.accept().unwrap();
        let kept = self::sockets("127.0.0.1:0", 1);
        drop(kept.offers().unwrap());
        kept.keep();
        kept.close();
        assert_eq!(kept.fate(), Fate::Closed);
    }

    #[test]
    fn options_change_on_sockets_in_use() {
        let sockets = sockets("127.0.0.1:0", 1);
        let quiet = SocketOptions { keepalive: None, ..SocketOptions::default() };
        sockets.adjust(&quiet).unwrap();
        let mine = sockets.of_worker(0).unwrap();
        let ListenSocket::Tcp(listener) = &mine[0] else { panic!("TCP") };
        assert!(!SockRef::from(listener).keepalive().unwrap());
    }
}
