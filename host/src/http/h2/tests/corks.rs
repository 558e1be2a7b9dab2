//! Writes that are kept together: nothing is lost or reordered, and nothing is kept for long.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    super::cork::{Cork, LARGE, ROOM, Tap},
    frames::*,
    *,
};

/// Takes writes up to these sizes, again and again; a size of 0 refuses one.
#[derive(Default)]
struct Taker {
    taken: Rc<RefCell<Vec<u8>>>,
    writes: Rc<Cell<usize>>,
    closed: Rc<Cell<bool>>,
    sizes: Vec<usize>,
    turn: usize,
}

impl AsyncRead for Taker {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Taker {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let size = if self.sizes.is_empty() { usize::MAX } else { self.sizes[self.turn % self.sizes.len()] };
        self.turn += 1;
        if size == 0 {
            return Poll::Pending;
        }
        let count = bytes.len().min(size);
        self.writes.set(self.writes.get() + 1);
        self.taken.borrow_mut().extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed.set(true);
        Poll::Ready(Ok(()))
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn tapped(taker: Taker) -> (Cork<Taker>, Tap<Taker>) {
    let (cork, tap) = Cork::new(taker);
    tap.take();
    (cork, tap)
}

#[test]
fn many_writes_leave_as_one() {
    let taker = Taker::default();
    let (taken, writes) = (Rc::clone(&taker.taken), Rc::clone(&taker.writes));
    let (mut cork, tap) = tapped(taker);
    for _ in 0..10 {
        assert!(matches!(Pin::new(&mut cork).poll_write(&mut cx(), b"frame"), Poll::Ready(Ok(5))));
        assert!(Pin::new(&mut cork).poll_flush(&mut cx()).is_ready());
    }
    assert_eq!(writes.get(), 0);
    assert!(tap.poll_flush(&mut cx()).is_ready());
    assert_eq!((writes.get(), taken.borrow().as_slice()), (1, b"frame".repeat(10).as_slice()));
    assert!(tap.poll_flush(&mut cx()).is_ready());
    assert_eq!((writes.get(), tap.written()), (1, 50));
}

#[test]
fn a_handshake_is_not_kept_back() {
    let taker = Taker::default();
    let taken = Rc::clone(&taker.taken);
    let (mut cork, _tap) = Cork::new(taker);
    assert!(Pin::new(&mut cork).poll_write(&mut cx(), b"hello").is_ready());
    assert!(Pin::new(&mut cork).poll_flush(&mut cx()).is_ready());
    assert_eq!(*taken.borrow(), b"hello");
}

#[test]
fn no_more_is_kept_than_there_is_room_for() {
    let (mut cork, tap) = tapped(Taker { sizes: vec![0], ..Taker::default() });
    let mut kept = 0;
    while let Poll::Ready(Ok(count)) = Pin::new(&mut cork).poll_write(&mut cx(), &[0; 1000]) {
        kept += count;
        assert!(kept <= ROOM);
    }
    assert!(kept > ROOM - 1000);
    assert!(tap.blocked());
    assert!(Pin::new(&mut cork).poll_write(&mut cx(), &[0; LARGE]).is_pending());
    assert!(tap.poll_flush(&mut cx()).is_pending());
    assert_eq!(tap.written(), 0);
}

#[test]
fn a_shutdown_comes_after_what_is_kept() {
    let taker = Taker { sizes: vec![3, 0], ..Taker::default() };
    let (taken, closed) = (Rc::clone(&taker.taken), Rc::clone(&taker.closed));
    let (mut cork, _tap) = tapped(taker);
    assert!(Pin::new(&mut cork).poll_write(&mut cx(), b"goodbye").is_ready());
    assert!(Pin::new(&mut cork).poll_shutdown(&mut cx()).is_pending());
    assert!(!closed.get());
    assert!(Pin::new(&mut cork).poll_shutdown(&mut cx()).is_pending());
    assert!(Pin::new(&mut cork).poll_shutdown(&mut cx()).is_ready());
    assert_eq!((taken.borrow().as_slice(), closed.get()), (&b"goodbye"[..], true));
}

proptest! {
    #[test]
    fn bytes_keep_their_order(
        steps in prop::collection::vec((0..2 * LARGE, any::<bool>()), 1..40),
        sizes in prop::collection::vec(0..LARGE, 1..8),
    ) {
        let sizes = if sizes.iter().all(|size| *size == 0) { vec![1000] } else { sizes };
        let taker = Taker { sizes, ..Taker::default() };
        let taken = Rc::clone(&taker.taken);
        let (mut cork, tap) = tapped(taker);
        let mut sent = Vec::new();
        for (turn, (size, flush)) in steps.into_iter().enumerate() {
            let piece: Vec<u8> = (0..size).map(|at| (at + turn) as u8).collect();
            let mut rest = &piece[..];
            while !rest.is_empty() {
                if let Poll::Ready(count) = Pin::new(&mut cork).poll_write(&mut cx(), rest) {
                    rest = &rest[count.expect("no error")..];
                }
            }
            sent.extend(piece);
            if flush {
                while tap.poll_flush(&mut cx()).is_pending() {}
                prop_assert_eq!(&*taken.borrow(), &sent);
            }
        }
        while tap.poll_flush(&mut cx()).is_pending() {}
        prop_assert_eq!(&*taken.borrow(), &sent);
        prop_assert_eq!(tap.written(), sent.len() as u64);
    }
}

/// Counts the writes of a server's end.
struct Counted {
    io: DuplexStream,
    writes: Rc<Cell<usize>>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.set(self.writes.get() + 1);
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Answers with a head and a body that is large enough for the library to write it on its own.
async fn answer_some(mut incoming: Incoming, _: Rc<Seen>) {
    incoming.downstream.send_head(&status("200"), BodyLength::Known(600)).expect("sent");
    incoming.downstream.send_data(Bytes::from(vec![b'x'; 600]), true).expect("sent");
}

#[tokio::test]
async fn answers_that_are_ready_together_leave_together() {
    local(async {
        let (mut io, other) = tokio::io::duplex(1 << 20);
        let writes = Rc::<Cell<usize>>::default();
        let counted = Counted { io: other, writes: Rc::clone(&writes) };
        let served = tokio::task::spawn_local(async move {
            let mut app = App { seen: Rc::default(), serve: answer_some };
            serve(counted, Bytes::new(), &ServerOptions::default(), std::future::pending(), &mut app).await
        });
        let requests: Vec<u8> = (0..40).flat_map(|index| get(2 * index + 1)).collect();
        io.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &requests].concat()).await.expect("written");
        let mut raw = Raw::over(io);
        for _ in 0..40 {
            assert_eq!(raw.next_of(DATA).await.expect("data").payload.len(), 600);
        }
        assert!(writes.get() <= 6, "{} writes", writes.get());
        drop(raw);
        served.await.expect("no panic");
    })
    .await;
}

/// What is kept leaves slowly, and nothing new is said meanwhile: that is no stall.
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_slowly_what_is_kept_is_left_alone() {
    local(async {
        let options = ServerOptions { flow_stall: Duration::from_secs(4), ..ServerOptions::default() };
        let (io, server) = server(options, 700, answer_some);
        let mut raw = Raw::new(io).await;
        raw.send(&(0..40).flat_map(|index| get(2 * index + 1)).collect::<Vec<u8>>()).await;
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(800)).await;
            assert_eq!(raw.next_of(DATA).await.expect("data").payload.len(), 600);
        }
        assert_eq!(server.seen.count("h2_flow_stall"), 0);
    })
    .await;
}
