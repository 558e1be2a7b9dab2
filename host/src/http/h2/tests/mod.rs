//! Over pairs of streams in memory: with the library as the peer where it behaves, with frames by hand where it does not.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::DuplexStream,
    sync::Notify,
    task::{JoinHandle, LocalSet},
};

use super::{
    super::{fields::Fields, *},
    *,
};

mod abuse;
mod corks;
mod frames;
mod heads;
mod meters;
mod streams;
mod upstreams;

/// Runs a test with tasks that stay on its thread, and not for ever.
async fn local<T>(test: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(3 * 3600);
    tokio::time::timeout(limit, LocalSet::new().run_until(test)).await.expect("the test ends")
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().copied().collect()
}

fn status(code: &str) -> Fields {
    fields(&[(":status", code)])
}

/// What a server saw.
#[derive(Default)]
struct Seen {
    requests: Cell<usize>,
    counted: RefCell<Vec<&'static str>>,
    /// Body bytes that the application could send.
    sent: Cell<usize>,
    errors: RefCell<Vec<StreamError>>,
}

impl Seen {
    fn count(&self, name: &str) -> usize {
        self.counted.borrow().iter().filter(|counted| **counted == name).count()
    }
}

struct App<F> {
    seen: Rc<Seen>,
    serve: F,
}

impl<F, R> Handler for App<F>
where
    F: FnMut(Incoming, Rc<Seen>) -> R,
    R: Future<Output = ()> + 'static,
{
    fn stream(&mut self, incoming: Incoming) {
        self.seen.requests.set(self.seen.requests.get() + 1);
        tokio::task::spawn_local((self.serve)(incoming, Rc::clone(&self.seen)));
    }

    fn count(&mut self, name: &'static str) {
        self.seen.counted.borrow_mut().push(name);
    }
}

struct Server {
    seen: Rc<Seen>,
    drain: Rc<Notify>,
    end: JoinHandle<End>,
}

/// Serves one connection in memory; `pipe` is what fits between the two ends.
fn server<F, R>(options: ServerOptions, pipe: usize, app: F) -> (DuplexStream, Server)
where
    F: FnMut(Incoming, Rc<Seen>) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let (client, io) = tokio::io::duplex(pipe);
    let seen = Rc::<Seen>::default();
    let drain = Rc::<Notify>::default();
    let (handed, signal) = (Rc::clone(&seen), Rc::clone(&drain));
    let end = tokio::task::spawn_local(async move {
        let mut app = App { seen: handed, serve: app };
        serve(io, Bytes::new(), &options, signal.notified(), &mut app).await
    });
    (client, Server { seen, drain, end })
}

async fn ready(outgoing: &mut impl Outgoing) -> Result<(), StreamError> {
    poll_fn(|cx| outgoing.poll_ready(cx)).await
}

/// Sends a body in pieces, as its peer takes it.
async fn send_body(outgoing: &mut impl Outgoing, size: usize, piece: usize, sent: &Cell<usize>) -> Result<(), StreamError> {
    let mut left = size;
    while left > 0 {
        ready(outgoing).await?;
        let count = piece.min(left);
        left -= count;
        outgoing.send_data(Bytes::from(vec![b'x'; count]), left == 0)?;
        sent.set(sent.get() + count);
    }
    Ok(())
}

/// Answers 200 without a body.
async fn answer_empty(mut incoming: Incoming, _: Rc<Seen>) {
    incoming.downstream.send_head(&status("200"), BodyLength::None).ok();
}

/// Never answers; ends when the client gives up.
async fn answer_never(mut incoming: Incoming, _: Rc<Seen>) {
    poll_fn(|cx| incoming.downstream.poll_closed(cx)).await;
}

/// Answers with a megabyte.
async fn answer_much(mut incoming: Incoming, seen: Rc<Seen>) {
    let size = 1 << 20;
    incoming.downstream.send_head(&status("200"), BodyLength::Known(size as u64)).ok();
    if let Err(error) = send_body(&mut incoming.downstream, size, 16 << 10, &seen.sent).await {
        seen.errors.borrow_mut().push(error);
    }
}
