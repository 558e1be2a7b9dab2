//! A restart that loses nothing: a process takes the listening sockets of the one that ran before it, and gives its own to the one that follows.
//!
//! What always holds: until the new process serves its whole configuration the old one goes on as if nothing were; when it confirms, the old one drains.
//! Sockets for which the new configuration has no use are closed by the old process, which first accepts what waits in their queues. A new process
//! that does not get so far ends, and leaves everything to the old one. An old process that ends too early leaves everything to the new one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{oneshot, watch};

use crate::app::App;
use crate::listener::handover::{CONFIRM, HandoverError, HandoverServer, Inherited, Offer, take_over};
use crate::listener::socket::ListenSocket;
use crate::listener::sockets::SocketFile;
use crate::source::SourceStatus;

/// How long the server's thread waits before it looks again whether somebody came; nothing depends on it.
const WAIT: Duration = Duration::from_secs(3600);
/// How long it pauses after a successor failed.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a new process may take until it serves. The old one waits a little longer.
const READY: Duration = CONFIRM.saturating_sub(Duration::from_secs(10));

/// A process that runs, whose sockets this one has too.
#[derive(Debug)]
pub struct Predecessor(Inherited);

impl Predecessor {
    /// Asks the process that waits at `path`, and gets its sockets by their keys. `None` where there is none.
    ///
    /// # Errors
    /// When there is one and it does not hand over.
    pub async fn ask(path: &Path) -> anyhow::Result<Option<(Self, HashMap<String, Vec<ListenSocket>>)>> {
        let asked = path.to_owned();
        let found = tokio::task::spawn_blocking(move || take_over(&asked)).await?;
        let found = found.with_context(|| format!("the process at {} does not hand over", path.display()))?;
        Ok(found.map(|mut inherited| {
            let sockets = inherited.take();
            (Self(inherited), sockets)
        }))
    }

    /// Waits until this process serves, and relieves the other. `also` is what is taken besides listeners.
    ///
    /// # Errors
    /// When this process does not come to serve, or the other cannot be told: the other goes on, and this one has to [`give_back`].
    pub async fn relieve(self, app: &App, mut status: watch::Receiver<[SourceStatus; 2]>, also: Option<String>) -> anyhow::Result<()> {
        let serves = async {
            while app.complete().is_none() && status.changed().await.is_ok() {}
            app.complete().context("the sources of configurations have ended")
        };
        let snapshot = tokio::time::timeout(READY, serves).await;
        let snapshot =
            snapshot.with_context(|| format!("no configuration serves after {READY:?}: the process before this one goes on"))??;
        let keys: Vec<_> = snapshot.listeners.iter().map(|listener| listener.sockets.name().to_owned()).chain(also).collect();
        match tokio::task::spawn_blocking(move || self.0.confirm(keys)).await? {
            Ok(()) => tracing::info!(target: "app", "took over from the process before this one, which drains"),
            // It ended by itself. Its sockets are this one's now.
            Err(HandoverError::Io(error)) if is_gone(&error) => {
                tracing::warn!(target: "app", "the process before this one has ended: {error}");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Leaves all sockets to the process that had them before.
pub fn give_back(app: &App) {
    if let Some(snapshot) = app.current.get() {
        snapshot.listeners.iter().for_each(|listener| listener.sockets.hand_over());
    }
}

/// Waits for a successor.
#[derive(Debug)]
pub struct Offering {
    file: Option<SocketFile>,
    handed: oneshot::Receiver<Vec<String>>,
}

impl Offering {
    /// Offers the sockets of `app`, and `also` besides, at `path`.
    ///
    /// # Errors
    /// When the path cannot be had.
    pub fn start(path: &Path, app: Arc<App>, also: Option<(String, ListenSocket)>) -> anyhow::Result<Self> {
        let server = HandoverServer::bind(path).with_context(|| format!("cannot wait for a successor at {}", path.display()))?;
        let (send, handed) = oneshot::channel();
        let thread = move || {
            // The process may have come to its end by another way.
            let _ = send.send(serve(&server, &app, also.as_ref()));
        };
        std::thread::Builder::new().name("handover".into()).spawn(thread)?;
        Ok(Self { file: SocketFile::at(PathBuf::from(path)), handed })
    }

    /// Completes when a successor has taken over: the keys that it took.
    pub async fn handed(&mut self) -> Vec<String> {
        match (&mut self.handed).await {
            Ok(keys) => {
                // The path is the successor's now.
                self.file = None;
                keys
            }
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Offering {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            file.remove();
        }
    }
}

fn serve(server: &HandoverServer, app: &App, also: Option<&(String, ListenSocket)>) -> Vec<String> {
    let mut taken = Vec::new();
    loop {
        let handed = server.serve(WAIT, &|| offers(app, also), &mut |keys| {
            keys.clone_into(&mut taken);
            stop_accepting(app, keys);
        });
        match handed {
            Ok(true) => return taken,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(target: "app", "a successor did not take over: {error}");
                app.current.get().iter().flat_map(|snapshot| &snapshot.listeners).for_each(|listener| listener.sockets.keep());
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn offers(app: &App, also: Option<&(String, ListenSocket)>) -> Vec<Offer> {
    let snapshot = app.current.get();
    let listeners = snapshot.iter().flat_map(|snapshot| &snapshot.listeners).map(|listener| listener.sockets.offers());
    let also = also.map(|(key, socket)| Ok(vec![Offer { key: key.clone(), worker: 0, socket: socket.try_clone()? }]));
    let mut offers = Vec::new();
    for offer in listeners.chain(also) {
        match offer {
            Ok(offer) => offers.extend(offer),
            Err(error) => tracing::error!(target: "app", "a socket cannot be handed over: {error}"),
        }
    }
    offers
}

/// Returns when no worker accepts on what was taken. What was not is emptied and closed.
fn stop_accepting(app: &App, taken: &[String]) {
    for sockets in app.current.get().iter().flat_map(|snapshot| &snapshot.listeners).map(|listener| &listener.sockets) {
        match taken.iter().any(|key| key == sockets.name()) {
            true => sockets.hand_over(),
            false => sockets.keep(),
        }
    }
    for answer in app.workers.begin_drain() {
        // A worker that has ended accepts nothing.
        let _ = answer.blocking_recv();
    }
}
