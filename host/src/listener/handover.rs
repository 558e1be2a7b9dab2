//! Handing the listening sockets of a process over to its successor, so that a restart loses no connection.
//!
//! The predecessor waits on a Unix socket. The successor connects, receives every listening socket (`SCM_RIGHTS`), starts to accept on those it
//! wants, and confirms; only then does the predecessor stop accepting and drain. A queue of connections belongs to the socket, not to a process:
//! what waits in it when the predecessor stops is accepted by the successor. If the successor dies before it confirms, nothing has changed.
//!
//! All sockets are handed over, whatever the number of workers on either side: each has a queue of its own. Only a process of the same user is
//! talked to. Both sides are blocking, bounded by time-outs, and meant for a thread of their own. What the successor has no use for stays the
//! predecessor's, who closes it in order.
//!
//! On the wire, both ways: a length (`u32`, big endian) and that many bytes of JSON; with a message that lists sockets, their descriptors.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};

use super::socket::ListenSocket;

/// The version of what is said here. Versions that do not know each other do not hand over.
const VERSION: u32 = 1;
/// Descriptors in one message; the kernel takes 253.
const BATCH: usize = 64;
/// Longest message: the names of all sockets fit.
const LONGEST: usize = 4 << 20;
/// Most sockets that a successor takes.
const MOST_SOCKETS: usize = 16 * 1024;
/// How long one side waits for the next message of the other. Between receiving and confirming the successor compiles its configuration.
const STEP: Duration = Duration::from_secs(10);
pub(crate) const CONFIRM: Duration = Duration::from_secs(120);

/// Why a handover did not happen. The predecessor goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The connection failed or a time-out passed.
    #[error("handover: {0}")]
    Io(#[from] io::Error),
    /// The other process says something else than expected.
    #[error("handover: unexpected message: {0}")]
    Protocol(String),
    /// The other process is of another user.
    #[error("handover: the other process belongs to user {0}")]
    Stranger(u32),
}

/// One listening socket and what it is for.
#[derive(Debug)]
pub struct Offer {
    /// What it is for, in words that both processes use: see [`super::sockets::Sockets::key`].
    pub key: String,
    /// Worker that accepted on it.
    pub worker: u32,
    /// The socket.
    pub socket: ListenSocket,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
enum Message {
    /// Successor: first.
    Hello { version: u32 },
    /// Predecessor: sockets, as many as descriptors come along.
    Sockets { keys: Vec<Key> },
    /// Predecessor: that was all.
    End,
    /// Successor: accepting on the sockets of these keys.
    Taken { keys: Vec<String> },
    /// Predecessor: no longer accepting.
    Draining,
}

#[derive(Debug, Serialize, Deserialize)]
struct Key {
    key: String,
    worker: u32,
}

/// The predecessor's side: waits for a successor.
#[derive(Debug)]
pub struct HandoverServer {
    listener: UnixListener,
}

impl HandoverServer {
    /// Listens at `path`, in the place of whoever did before. The file is readable by this user only.
    ///
    /// # Errors
    /// When the path cannot be had.
    pub fn bind(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        // A process that replaces its predecessor takes the name over in one step: there is no moment without somebody to ask.
        let mut fresh = PathBuf::from(path);
        fresh.as_mut_os_string().push(format!(".{}.{:x}", std::process::id(), fastrand::u32(..)));
        let listener = UnixListener::bind(&fresh)?;
        let ready = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).and_then(|()| std::fs::rename(&fresh, path));
        if let Err(error) = ready {
            let _ = std::fs::remove_file(&fresh);
            return Err(error);
        }
        Ok(Self { listener })
    }

    /// Waits up to `wait` for a successor and hands it what `offers` returns. When it confirms, `stop_accepting` is called with the keys that it took,
    /// and has to return when no worker accepts on those any more; then the successor is told. `false` when nobody came.
    ///
    /// # Errors
    /// When the successor fails before it confirms: this process still accepts, call again. After that nothing is an error.
    pub fn serve(
        &self,
        wait: Duration,
        offers: &dyn Fn() -> Vec<Offer>,
        stop_accepting: &mut dyn FnMut(&[String]),
    ) -> Result<bool, HandoverError> {
        socket2::SockRef::from(&self.listener).set_read_timeout(Some(wait))?;
        let mut stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        prepare(&stream)?;
        match receive(&mut stream)? {
            Message::Hello { version: VERSION } => {}
            other => return Err(HandoverError::Protocol(format!("{other:?}"))),
        }
        let offers = offers();
        for batch in offers.chunks(BATCH) {
            send_sockets(&stream, batch)?;
        }
        send(&mut stream, &Message::End)?;
        stream.set_read_timeout(Some(CONFIRM))?;
        match receive(&mut stream)? {
            Message::Taken { keys } => stop_accepting(&keys),
            other => return Err(HandoverError::Protocol(format!("{other:?}"))),
        }
        // The successor serves already; that it no longer listens to us changes nothing.
        let _ = send(&mut stream, &Message::Draining);
        Ok(true)
    }
}

/// What a successor received and has not confirmed yet.
#[derive(Debug)]
pub struct Inherited {
    stream: UnixStream,
    offers: Vec<Offer>,
}

/// Asks the process that waits at `path` for its sockets. `None` when there is no such process.
///
/// # Errors
/// When there is one and it does not answer as it should.
pub fn take_over(path: &Path) -> Result<Option<Inherited>, HandoverError> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    prepare(&stream)?;
    send(&mut stream, &Message::Hello { version: VERSION })?;
    let mut offers = Vec::new();
    loop {
        let (message, fds) = receive_with(&mut stream)?;
        match message {
            Message::Sockets { keys } if keys.len() == fds.len() && offers.len() + keys.len() <= MOST_SOCKETS => {
                for (key, fd) in keys.into_iter().zip(fds) {
                    offers.push(Offer { key: key.key, worker: key.worker, socket: ListenSocket::try_from(fd)? });
                }
            }
            Message::End if fds.is_empty() => break,
            other => return Err(HandoverError::Protocol(format!("{other:?} with {} descriptors", fds.len()))),
        }
    }
    Ok(Some(Inherited { stream, offers }))
}

impl Inherited {
    /// All sockets by key, each key's in the order of their workers. They are accepted on by both processes until [`Self::confirm`].
    pub fn take(&mut self) -> HashMap<String, Vec<ListenSocket>> {
        let mut offers = std::mem::take(&mut self.offers);
        offers.sort_by_key(|offer| offer.worker);
        let mut taken = HashMap::<_, Vec<_>>::new();
        for offer in offers {
            taken.entry(offer.key).or_default().push(offer.socket);
        }
        taken
    }

    /// Tells the predecessor which keys this process accepts on, and waits until it does not any more.
    ///
    /// # Errors
    /// When the predecessor cannot be told. It then goes on accepting.
    pub fn confirm(mut self, keys: Vec<String>) -> Result<(), HandoverError> {
        send(&mut self.stream, &Message::Taken { keys })?;
        self.stream.set_read_timeout(Some(CONFIRM))?;
        match receive(&mut self.stream)? {
            Message::Draining => Ok(()),
            other => Err(HandoverError::Protocol(format!("{other:?}"))),
        }
    }
}

fn prepare(stream: &UnixStream) -> Result<(), HandoverError> {
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    let other = rustix::net::sockopt::socket_peercred(stream).map_err(io::Error::from)?.uid;
    if other == rustix::process::geteuid() || other.is_root() {
        return Ok(());
    }
    Err(HandoverError::Stranger(other.as_raw()))
}

fn encode(message: &Message) -> Result<Vec<u8>, HandoverError> {
    let body = serde_json::to_vec(message).map_err(io::Error::from)?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= LONGEST);
    let length = length.ok_or_else(|| HandoverError::Protocol("message too long".into()))?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

fn send(stream: &mut UnixStream, message: &Message) -> Result<(), HandoverError> {
    Ok(stream.write_all(&encode(message)?)?)
}

/// Sends a message with its sockets. The descriptors go with the first byte; the rest may follow on its own.
fn send_sockets(mut stream: &UnixStream, batch: &[Offer]) -> Result<(), HandoverError> {
    let keys = batch.iter().map(|offer| Key { key: offer.key.clone(), worker: offer.worker }).collect();
    let bytes = encode(&Message::Sockets { keys })?;
    let fds: Vec<_> = batch.iter().map(|offer| offer.socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(HandoverError::Protocol("too many descriptors".into()));
    }
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
    Ok(stream.write_all(&bytes[sent..])?)
}

fn receive(stream: &mut UnixStream) -> Result<Message, HandoverError> {
    let (message, fds) = receive_with(stream)?;
    if fds.is_empty() { Ok(message) } else { Err(HandoverError::Protocol("descriptors nobody asked for".into())) }
}

fn receive_with(stream: &mut UnixStream) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(&mut *stream, &mut [IoSliceMut::new(&mut head)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(io::Error::from)?;
    if got.bytes == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let fds = control
        .drain()
        .filter_map(|message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None })
        .flatten()
        .collect();
    stream.read_exact(&mut head[got.bytes..])?;
    let length = u32::from_be_bytes(head) as usize;
    if length > LONGEST {
        return Err(HandoverError::Protocol(format!("a message of {length} bytes")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let message = serde_json::from_slice(&body).map_err(|e| HandoverError::Protocol(e.to_string()))?;
    Ok((message, fds))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::time::Instant;

    use super::*;
    use crate::listener::socket::{ListenAddress, SocketOptions, bind};

    const WAIT: Duration = Duration::from_secs(20);

    fn sockets(workers: usize) -> (SocketAddr, Vec<ListenSocket>) {
        let sockets = bind(&"127.0.0.1:0".parse().unwrap(), &SocketOptions::default(), workers).unwrap();
        let ListenAddress::Tcp(address) = sockets[0].address().unwrap() else { panic!("TCP") };
        (address, sockets)
    }

    fn offers(address: SocketAddr, sockets: &[ListenSocket]) -> Vec<Offer> {
        let offer = |(i, socket): (usize, &ListenSocket)| Offer {
            key: address.to_string(),
            worker: u32::try_from(i).unwrap(),
            socket: socket.try_clone().unwrap(),
        };
        sockets.iter().enumerate().map(offer).collect()
    }

    /// Accepts until told to stop, and once more then; answers every connection with its own letter.
    fn accept_loop(sockets: &[ListenSocket], letter: u8, stop: &AtomicBool, served: &AtomicUsize) {
        let deadline = Instant::now() + WAIT;
        loop {
            let last = stop.load(SeqCst);
            for socket in sockets {
                let ListenSocket::Tcp(listener) = socket else { panic!("TCP") };
                // The predecessor stops as soon as it is told: what waits then is the successor's.
                while !stop.load(SeqCst) || letter == b'S' {
                    let Ok((mut stream, _)) = listener.accept() else { break };
                    stream.write_all(&[letter]).unwrap();
                    served.fetch_add(1, SeqCst);
                }
            }
            if last || Instant::now() > deadline {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn ask(address: SocketAddr) -> io::Result<u8> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(WAIT))?;
        let mut letter = [0];
        stream.read_exact(&mut letter)?;
        Ok(letter[0])
    }

    #[test]
    fn no_connection_is_lost_while_sockets_change_hands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (address, old_sockets) = sockets(3);
        let server = HandoverServer::bind(&path).unwrap();
        let (stop_old, stop_new, stop_clients) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        let (by_old, by_new, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let asked = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        while !stop_clients.load(SeqCst) {
                            asked.fetch_add(1, SeqCst);
                            if ask(address).is_err() {
                                failed.fetch_add(1, SeqCst);
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                let old_worker = scope.spawn(|| accept_loop(&old_sockets, b'P', &stop_old, &by_old));
                let mut worker = Some(old_worker);
                let handed = server.serve(WAIT, &|| offers(address, &old_sockets), &mut |keys| {
                    assert_eq!(keys, [address.to_string()]);
                    stop_old.store(true, SeqCst);
                    worker.take().unwrap().join().unwrap();
                });
                assert!(handed.unwrap());
            });
            while by_old.load(SeqCst) < 20 {
                std::thread::yield_now();
            }
            let mut inherited = take_over(&path).unwrap().unwrap();
            let mine = inherited.take().remove(&address.to_string()).unwrap();
            assert_eq!(mine.len(), 3, "all queues, however many workers the successor has");
            let (stop, served) = (&stop_new, &by_new);
            let new_worker = scope.spawn(move || accept_loop(&mine, b'S', stop, served));
            inherited.confirm(vec![address.to_string()]).unwrap();
            let before = by_new.load(SeqCst);
            while by_new.load(SeqCst) < before + 20 {
                std::thread::yield_now();
            }
            stop_clients.store(true, SeqCst);
            for client in clients {
                client.join().unwrap();
            }
            stop_new.store(true, SeqCst);
            new_worker.join().unwrap();
        });
        assert_eq!(failed.load(SeqCst), 0, "of {} connections", asked.load(SeqCst));
        assert_eq!(by_old.load(SeqCst) + by_new.load(SeqCst), asked.load(SeqCst));
    }

    #[test]
    fn connections_that_wait_in_a_queue_are_the_successors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (address, old_sockets) = sockets(2);
        let server = HandoverServer::bind(&path).unwrap();
        let waiting: Vec<_> = (0..16).map(|_| TcpStream::connect(address).unwrap()).collect();
        std::thread::scope(|scope| {
            let predecessor = scope.spawn(move || {
                let mut kept = Some(old_sockets);
                let lent = offers(address, kept.as_ref().unwrap());
                let lent = std::cell::RefCell::new(Some(lent));
                server.serve(WAIT, &|| lent.borrow_mut().take().unwrap(), &mut |_| drop(kept.take())).unwrap()
            });
            let mut inherited = take_over(&path).unwrap().unwrap();
            let mine = inherited.take().remove(&address.to_string()).unwrap();
            inherited.confirm(vec![address.to_string()]).unwrap();
            assert!(predecessor.join().unwrap());
            let served = AtomicUsize::new(0);
            accept_loop(&mine, b'S', &AtomicBool::new(true), &served);
            assert_eq!(served.load(SeqCst), waiting.len());
        });
        for mut client in waiting {
            client.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn a_successor_that_dies_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (address, old_sockets) = sockets(1);
        let server = HandoverServer::bind(&path).unwrap();
        std::thread::scope(|scope| {
            let predecessor = scope.spawn(|| server.serve(WAIT, &|| offers(address, &old_sockets), &mut |_| panic!("must not stop")));
            drop(take_over(&path).unwrap().unwrap());
            assert!(predecessor.join().unwrap().is_err());
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(&[0xFF; 8]).unwrap();
            let refused = server.serve(WAIT, &|| offers(address, &old_sockets), &mut |_| panic!("must not stop"));
            assert!(matches!(refused, Err(HandoverError::Protocol(_))), "{refused:?}");
        });
        assert!(TcpStream::connect(address).is_ok());
        assert!(!server.serve(Duration::from_millis(1), &Vec::new, &mut |_| ()).unwrap(), "nobody came");
    }

    #[test]
    fn more_sockets_than_one_message_carries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let (address, old_sockets) = sockets(BATCH + 5);
        let server = HandoverServer::bind(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| server.serve(WAIT, &|| offers(address, &old_sockets), &mut |_| ()).unwrap());
            let mut inherited = take_over(&path).unwrap().unwrap();
            assert_eq!(inherited.take()[&address.to_string()].len(), BATCH + 5);
            inherited.confirm(Vec::new()).unwrap();
        });
    }

    #[test]
    fn nobody_to_take_over_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        assert!(take_over(&path).unwrap().is_none());
        drop(HandoverServer::bind(&path).unwrap());
        assert!(take_over(&path).unwrap().is_none(), "a process that died left its file behind");
        assert!(HandoverServer::bind(&path).is_ok(), "and the next one replaces it");
    }
}
