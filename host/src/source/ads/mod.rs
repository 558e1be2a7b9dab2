//! A controller as a source: the delta variant of aggregated discovery, with the resource types of `weir.config.v1`.
//!
//! One stream to one of several addresses. Listeners, chains and clusters are subscribed to as a whole, endpoints and secrets by the names that
//! others use. What the protocol remembers is in [`state`]; this file moves messages, waits, and keeps the last good state on disk.
//!
//! What always holds: a controller that is away, wrong or silent changes nothing that serves; a resource that cannot be used is refused by name and
//! the others of its response are applied; a state from disk is used only until the controller speaks.

mod connect;
pub mod disk;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Status;
use weir_model::discovery::{DeltaDiscoveryRequest, Locality, Node};
use weir_model::validate::Context;
use weir_model::{config, duration};

use super::backoff::Backoff;
use super::digest::Digests;
use super::watch::{Times, Watch};
use super::{Apply, Hub, Layer, Provenance, Rejection, Resources};
pub use connect::{Grpcs, METHOD, Responses, Transport};
use state::{Candidate, Judged, State, Step};

/// Requests that may wait to be sent; a controller that reads none of them is gone.
const REQUESTS: usize = 1024;
/// Refusals that are logged one by one.
const LOGGED: usize = 20;

/// What a controller may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one response.
    pub message_bytes: usize,
    /// Resources of one type.
    pub resources: usize,
    /// Bytes of all resources.
    pub total_bytes: usize,
    /// Bytes of a name.
    pub name_bytes: usize,
    /// How long to wait for what a resource names.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes: 64 << 20, resources: 100_000, total_bytes: 1 << 30, name_bytes: 4096, grace: state::GRACE }
    }
}

/// Which controllers, and how to treat them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who this proxy is.
    pub node: Node,
    /// Controllers, tried in turn.
    pub addresses: Vec<String>,
    /// What they may send.
    pub limits: Limits,
    /// What resources are checked against.
    pub context: Context,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Where the last good state is kept; nowhere if none.
    pub state_dir: Option<PathBuf>,
    /// How long a controller may be silent at the start before the state on disk is used.
    pub state_wait: Duration,
    /// Least time between two writes of the state.
    pub state_every: Duration,
}

impl Options {
    /// What `discovery` says about `node`, with the defaults for the rest.
    #[must_use]
    pub fn new(discovery: &config::Discovery, node: &config::Node, context: Context) -> Self {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(15));
        let backoff = Backoff::new(duration::or(discovery.backoff_min, least), duration::or(discovery.backoff_max, most));
        Self {
            node: identity(node),
            addresses: discovery.addresses.clone(),
            limits: Limits::default(),
            context,
            backoff,
            state_dir: Some(&discovery.state_dir).filter(|folder| !folder.is_empty()).map(PathBuf::from),
            state_wait: Duration::from_secs(2),
            state_every: Duration::from_secs(1),
        }
    }
}

impl Grpcs {
    /// What `discovery` says, with `secrets` from the proxy's own file.
    #[must_use]
    pub fn new(discovery: &config::Discovery, secrets: Resources) -> Self {
        let token_file = Some(&discovery.token_file).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { tls: discovery.tls.clone(), secrets, token_file, message_bytes: Limits::default().message_bytes }
    }
}

fn identity(node: &config::Node) -> Node {
    use weir_model::protobuf::{Kind, Struct, Value};
    let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
    let map = |map: &std::collections::BTreeMap<String, String>| map.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let mut fields: std::collections::BTreeMap<String, Value> = map(&node.metadata);
    if !node.labels.is_empty() {
        fields.insert("LABELS".into(), Value { kind: Some(Kind::StructValue(Struct { fields: map(&node.labels) })) });
    }
    let locality = node.locality.clone().unwrap_or_default();
    Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        metadata: Some(Struct { fields }),
        locality: Some(Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone }),
        user_agent_name: "weir".into(),
        user_agent_version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Follows the controllers for ever: drop the future to stop. Runs inside a tokio runtime with time and I/O.
pub async fn run<A: Apply, T: Transport>(hub: Arc<Hub<A>>, options: Options, transport: T) {
    if options.addresses.is_empty() {
        hub.say(Layer::Controller, "no controller has an address");
        return;
    }
    let saver = options.state_dir.clone().map(|folder| saver(folder, options.node.id.clone(), options.state_every));
    let restore_at = options.state_dir.is_some().then(|| Instant::now() + options.state_wait);
    let client = Client {
        state: State::new(options.node.clone(), options.limits, options.context.clone()),
        hub,
        options,
        transport,
        watch: Watch::new(Times::default(), true),
        digests: Digests::default(),
        saver,
        restore_at,
    };
    client.run().await;
}

/// How a stream ended.
enum End {
    /// It broke, after the controller had said something or not.
    Broken { error: Status, progress: bool },
    /// The state on disk serves now: a new stream has to say so.
    Restored,
}

struct Client<A, T> {
    state: State,
    hub: Arc<Hub<A>>,
    options: Options,
    transport: T,
    watch: Watch,
    digests: Digests,
    saver: Option<watch::Sender<Resources>>,
    /// When the state on disk is used, unless a controller has spoken.
    restore_at: Option<Instant>,
}

impl<A: Apply, T: Transport> Client<A, T> {
    async fn run(mut self) {
        let mut attempt = 0;
        loop {
            let address: Arc<str> = self.options.addresses[attempt % self.options.addresses.len()].as_str().into();
            self.hub.say(Layer::Controller, format!("connecting to {address}"));
            let (error, progress) = match self.stream(&address).await {
                End::Broken { error, progress } => (error, progress),
                End::Restored => continue,
            };
            let message = format!("{address}: {}", error.message());
            tracing::warn!(controller = %address, code = ?error.code(), error = error.message(), "the stream to the controller ended");
            self.hub.say(Layer::Controller, message);
            if progress {
                self.options.backoff.reset();
            } else {
                attempt += 1;
            }
            // All of them are tried before any is waited for.
            if progress || attempt % self.options.addresses.len() == 0 {
                if self.restore_at.is_some() {
                    self.restore().await;
                }
                let wait = self.options.backoff.wait();
                self.pause(wait).await;
            }
        }
    }

    /// Waits, while files that resources name may still change.
    async fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.watch.changed() => {
                    if self.look_at_files().await {
                        self.deliver(&"".into()).await;
                    }
                }
            }
        }
    }

    async fn stream(&mut self, address: &Arc<str>) -> End {
        let (sender, receiver) = mpsc::channel(REQUESTS);
        let mut responses = self.transport.open(address, receiver);
        let mut progress = false;
        let first = self.state.connected();
        let mut result = send(&sender, first);
        loop {
            if let Err(error) = result {
                return End::Broken { error, progress };
            }
            let until = match self.state.step(Instant::now()) {
                Step::Ready => {
                    let answers = self.deliver(address).await;
                    result = send(&sender, answers);
                    continue;
                }
                Step::Until(until) => Some(until),
                Step::Nothing => None,
            };
            tokio::select! {
                response = responses.next() => match response {
                    Some(Ok(response)) => {
                        if !progress {
                            tracing::info!(controller = %address, "the controller speaks");
                            self.hub.say(Layer::Controller, format!("connected to {address}"));
                        }
                        progress = true;
                        self.restore_at = None;
                        self.options.backoff.reset();
                        let requests = self.state.received(response, Instant::now());
                        result = send(&sender, requests);
                    }
                    Some(Err(error)) => return End::Broken { error, progress },
                    None => return End::Broken { error: Status::unavailable("the controller ended the stream"), progress },
                },
                () = at(until) => {}
                () = at(self.restore_at) => {
                    if self.restore().await {
                        return End::Restored;
                    }
                }
                () = self.watch.changed() => {
                    self.look_at_files().await;
                }
            }
        }
    }

    /// Judges candidates until one is settled; returns what is to be answered.
    async fn deliver(&mut self, address: &Arc<str>) -> Vec<DeltaDiscoveryRequest> {
        self.deliver_as(Provenance::Controller(Arc::clone(address))).await
    }

    async fn deliver_as(&mut self, provenance: Provenance) -> Vec<DeltaDiscoveryRequest> {
        loop {
            let candidate = self.state.candidate();
            let refused = match self.state.is_news(&candidate) {
                true => self.offer(&candidate, &provenance).await,
                false => Vec::new(),
            };
            match self.state.judged(candidate, refused, Instant::now()) {
                Judged::Again if self.state.step(Instant::now()) == Step::Ready => {}
                Judged::Again => return Vec::new(),
                Judged::Done { answers, rejected, applied } => {
                    // What is from there need not be written there again.
                    let save = applied && !matches!(provenance, Provenance::Disk { .. });
                    self.settled(rejected, save).await;
                    return answers;
                }
            }
        }
    }

    async fn offer(&mut self, candidate: &Candidate, provenance: &Provenance) -> Vec<Rejection> {
        for note in candidate.notes.iter().take(LOGGED) {
            tracing::warn!(%note, "the controller's configuration is not whole");
        }
        let share = candidate.resources.clone();
        self.hub.offer(Layer::Controller, share, provenance.clone(), candidate.notes.clone()).await.rejected
    }

    async fn settled(&mut self, rejected: Vec<Rejection>, save: bool) {
        for rejection in rejected.iter().take(LOGGED) {
            tracing::warn!(resource = %rejection.key, reason = %rejection.reason, "a resource of the controller is refused");
        }
        if !rejected.is_empty() {
            self.hub.refused(Layer::Controller, rejected.iter().map(ToString::to_string).collect());
        }
        let files = self.state.files();
        if self.watch.set(files.iter().map(PathBuf::from), []) {
            self.digests = digests(files).await;
        }
        if save && let Some(saver) = &self.saver {
            saver.send_replace(self.state.applied().clone());
        }
    }

    /// Whether a file that a resource names holds something else now.
    async fn look_at_files(&mut self) -> bool {
        let now = digests(self.state.files()).await;
        let changed = now.changed(&self.digests);
        self.digests = now;
        !changed.is_empty() && self.state.files_changed(&changed)
    }

    /// Uses the state on disk; says whether there was one.
    async fn restore(&mut self) -> bool {
        self.restore_at = None;
        let Some(folder) = self.options.state_dir.clone() else { return false };
        let node = self.options.node.id.clone();
        let (resources, written) = match tokio::task::spawn_blocking(move || disk::load(&folder, &node)).await {
            Ok(Ok(Some(found))) => found,
            Ok(Ok(None)) => {
                tracing::warn!("no controller answers, and there is no last good state on disk");
                return false;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the last good state on disk is not used");
                return false;
            }
            Err(_) => return false,
        };
        let age_seconds = written.elapsed().unwrap_or_default().as_secs();
        tracing::warn!(resources = resources.len(), age_seconds, "no controller answers: the last good state on disk is used");
        self.state.restore(resources);
        self.deliver_as(Provenance::Disk { written }).await;
        true
    }
}

fn send(sender: &mpsc::Sender<DeltaDiscoveryRequest>, requests: Vec<DeltaDiscoveryRequest>) -> Result<(), Status> {
    for request in requests {
        sender.try_send(request).map_err(|_| Status::unavailable("the controller reads no requests"))?;
    }
    Ok(())
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn digests(files: BTreeSet<String>) -> Digests {
    tokio::task::spawn_blocking(move || Digests::read(files)).await.unwrap_or_default()
}

/// Writes what it is given, the newest only, and not more often than every `every`.
fn saver(folder: PathBuf, node: String, every: Duration) -> watch::Sender<Resources> {
    let (sender, mut receiver) = watch::channel(Resources::default());
    tokio::spawn(async move {
        while receiver.changed().await.is_ok() {
            let resources = receiver.borrow_and_update().clone();
            let (folder, node) = (folder.clone(), node.clone());
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || disk::save(&folder, &node, &resources)).await {
                tracing::warn!(%error, "the last good state is not kept on disk");
            }
            tokio::time::sleep(every).await;
        }
    });
    sender
}
