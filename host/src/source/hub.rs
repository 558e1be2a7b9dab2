//! Puts the sources' values together and hands them to the one who applies them.
//!
//! What always holds: one offer is judged at a time, in the order of arrival; a refused offer leaves what was there; names that a file defines are
//! the file's, and a controller that sends one is told so.
//!
//! What it does not do: try again, or take parts of a refused offer. The source that offered knows better.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Mutex, watch};

use super::{Key, Resources};

/// Where an update is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// This file or folder.
    File(Arc<str>),
    /// The controller at this address.
    Controller(Arc<str>),
    /// What a controller had sent before the last restart.
    Disk {
        /// When it was written.
        written: SystemTime,
    },
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {path}"),
            Self::Controller(address) => write!(f, "controller {address}"),
            Self::Disk { written } => {
                let age = written.elapsed().unwrap_or_default().as_secs();
                write!(f, "last good state on disk, {age} s old")
            }
        }
    }
}

/// Which source's share of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The file's: it wins.
    File,
    /// The controller's.
    Controller,
}

/// A whole configuration to apply.
#[derive(Clone, Debug)]
pub struct Update {
    /// Everything, of all sources.
    pub resources: Resources,
    /// What differs from what was applied before: added, replaced, removed.
    pub changed: Vec<Key>,
    /// Which source caused it.
    pub provenance: Provenance,
    /// What people should know although it is valid, in sentences.
    pub notes: Vec<String>,
    /// Whether every source has had its say: before that a proxy is not ready.
    pub complete: bool,
}

impl Update {
    /// Whether nothing but endpoints has changed.
    #[must_use]
    pub fn is_endpoints_only(&self) -> bool {
        !self.changed.is_empty() && self.changed.iter().all(|key| key.kind == super::Kind::Endpoints)
    }
}

/// A resource that cannot be applied, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which.
    pub key: Key,
    /// Why, in a sentence.
    pub reason: String,
}

impl Rejection {
    /// A refusal of `key`.
    #[must_use]
    pub fn new(key: Key, reason: impl Into<String>) -> Self {
        Self { key, reason: reason.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// What became of an update: applied as a whole if nothing was rejected, else not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Every resource that stands in the way.
    pub rejected: Vec<Rejection>,
}

impl Outcome {
    /// All of it serves.
    #[must_use]
    pub fn applied() -> Self {
        Self::default()
    }

    /// Whether all of it serves.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.rejected.is_empty()
    }
}

/// Who compiles updates and makes them serve.
pub trait Apply: Send + 'static {
    /// Makes all of `update` serve, or nothing of it. Not called again before it has answered.
    fn apply(&mut self, update: Update) -> impl Future<Output = Outcome> + Send;
}

/// How one source fares.
#[derive(Clone, Debug, Default)]
pub struct SourceStatus {
    /// Where its applied share is from.
    pub provenance: Option<Provenance>,
    /// When it was applied.
    pub applied_at: Option<SystemTime>,
    /// Changes that were applied.
    pub accepted: u64,
    /// Changes of which something was refused.
    pub rejected: u64,
    /// Why the last change was not applied; empty once one was.
    pub last_error: Vec<String>,
    /// What the source itself has to say: connection, unreadable file.
    pub message: String,
}

struct Inner<A> {
    apply: A,
    layers: [Resources; 2],
    applied: Resources,
    delivered: [bool; 2],
}

/// Where sources bring what they have.
pub struct Hub<A> {
    inner: Mutex<Inner<A>>,
    expects_controller: bool,
    status: watch::Sender<[SourceStatus; 2]>,
}

impl<A: Apply> Hub<A> {
    /// Hands updates to `apply`. They are complete when the file has delivered, and the controller too if it `expects_controller`.
    #[must_use]
    pub fn new(apply: A, expects_controller: bool) -> Arc<Self> {
        let inner = Inner { apply, layers: Default::default(), applied: Resources::default(), delivered: [false; 2] };
        Arc::new(Self { inner: Mutex::new(inner), expects_controller, status: watch::Sender::new(Default::default()) })
    }

    /// How the sources fare: of files, then of the controller.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<[SourceStatus; 2]> {
        self.status.subscribe()
    }

    /// Lets a source say how it fares.
    pub fn say(&self, layer: Layer, message: impl Into<String>) {
        let message = message.into();
        self.status.send_modify(|status| status[layer as usize].message = message);
    }

    /// Counts a change of which something was refused for good.
    pub fn refused(&self, layer: Layer, reasons: Vec<String>) {
        self.status.send_modify(|status| {
            let status = &mut status[layer as usize];
            status.rejected += 1;
            status.last_error = reasons;
        });
    }

    /// What was refused has been taken back.
    pub fn settled(&self, layer: Layer) {
        self.status.send_modify(|status| status[layer as usize].last_error.clear());
    }

    /// Puts `share` in the place of what `layer` had and applies the whole; if that is refused, what was there stays.
    pub async fn offer(&self, layer: Layer, share: Resources, provenance: Provenance, notes: Vec<String>) -> Outcome {
        let mut inner = self.inner.lock().await;
        let outcome = self.judge(&mut inner, layer, share, &provenance, notes).await;
        drop(inner);
        self.status.send_modify(|status| {
            let status = &mut status[layer as usize];
            status.last_error = outcome.rejected.iter().map(ToString::to_string).collect();
            if outcome.is_applied() {
                status.accepted += 1;
                status.provenance = Some(provenance);
                status.applied_at = Some(SystemTime::now());
            }
        });
        outcome
    }

    async fn judge(&self, inner: &mut Inner<A>, layer: Layer, share: Resources, provenance: &Provenance, notes: Vec<String>) -> Outcome {
        let (file, controller) = match layer {
            Layer::File => (&share, &inner.layers[Layer::Controller as usize]),
            Layer::Controller => (&inner.layers[Layer::File as usize], &share),
        };
        let (resources, hidden) = file.over(controller);
        if layer == Layer::Controller && !hidden.is_empty() {
            let new = share.changes_since(&inner.layers[layer as usize]);
            let clashes = hidden.into_iter().filter(|key| new.contains(key));
            let rejected: Vec<_> = clashes.map(|key| Rejection::new(key, "the proxy's own file defines one of this name")).collect();
            if !rejected.is_empty() {
                return Outcome { rejected };
            }
        }
        let mut delivered = inner.delivered;
        delivered[layer as usize] = true;
        let complete = delivered[Layer::File as usize] && (delivered[Layer::Controller as usize] || !self.expects_controller);
        let changed = resources.changes_since(&inner.applied);
        let update = Update { resources: resources.clone(), changed, provenance: provenance.clone(), notes, complete };
        let outcome = inner.apply.apply(update).await;
        if outcome.is_applied() {
            inner.layers[layer as usize] = share;
            inner.applied = resources;
            inner.delivered = delivered;
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use weir_model::config::Cluster;

    use super::super::{Entry, Kind, Value};
    use super::*;

    #[derive(Clone, Default)]
    struct Recorder(Arc<StdMutex<Vec<Update>>>);

    impl Apply for Recorder {
        async fn apply(&mut self, update: Update) -> Outcome {
            let bad = update.resources.clusters().filter(|(cluster, _)| cluster.name.starts_with("bad"));
            let rejected = bad.map(|(cluster, _)| Rejection::new(Key::new(Kind::Cluster, cluster.name.as_str()), "it is bad")).collect();
            self.0.lock().unwrap().push(update);
            Outcome { rejected }
        }
    }

    fn clusters(names: &[&str]) -> Resources {
        let entry = |name: &&str| Entry {
            value: Value::Cluster(Arc::new(Cluster { name: (*name).into(), ..Cluster::default() })),
            version: "1".into(),
            origin: "test".into(),
        };
        names.iter().map(entry).collect()
    }

    #[tokio::test]
    async fn a_refused_offer_leaves_what_was_there() {
        let recorder = Recorder::default();
        let hub = Hub::new(recorder.clone(), true);
        let file = Provenance::File("a.yaml".into());
        assert!(hub.offer(Layer::File, clusters(&["a"]), file.clone(), vec![]).await.is_applied());
        let refused = hub.offer(Layer::Controller, clusters(&["bad", "b"]), Provenance::Controller("c".into()), vec![]).await;
        assert_eq!(refused.rejected, [Rejection::new(Key::new(Kind::Cluster, "bad"), "it is bad")]);
        assert!(hub.offer(Layer::File, clusters(&["c"]), file, vec![]).await.is_applied());
        let updates = recorder.0.lock().unwrap();
        let names: Vec<_> = updates[2].resources.clusters().map(|(cluster, _)| cluster.name.clone()).collect();
        assert_eq!(names, ["c"], "nothing of the refused offer is left");
        assert!(updates.iter().zip([false, true, false]).all(|(update, complete)| update.complete == complete));
        let status = hub.status().borrow().clone();
        assert_eq!(
            (status[0].accepted, status[0].rejected, status[1].accepted, status[1].rejected),
            (2, 0, 0, 0),
            "the source counts what it gives up"
        );
        assert_eq!(status[1].last_error, ["Cluster/bad: it is bad"]);
    }

    #[tokio::test]
    async fn a_name_that_the_file_has_is_refused_to_the_controller() {
        let hub = Hub::new(Recorder::default(), true);
        hub.offer(Layer::File, clusters(&["a"]), Provenance::File("a.yaml".into()), vec![]).await;
        let controller = Provenance::Controller("c".into());
        let outcome = hub.offer(Layer::Controller, clusters(&["a", "b"]), controller.clone(), vec![]).await;
        assert_eq!(outcome.rejected.len(), 1);
        assert_eq!(outcome.rejected[0].key, Key::new(Kind::Cluster, "a"));
        assert!(hub.offer(Layer::Controller, clusters(&["b"]), controller.clone(), vec![]).await.is_applied());
        // The file takes a name over that the controller had: the controller's later offers are not refused for it.
        hub.offer(Layer::File, clusters(&["b"]), Provenance::File("a.yaml".into()), vec![]).await;
        let share = hub.inner.lock().await.layers[1].clone();
        assert!(hub.offer(Layer::Controller, share, controller, vec![]).await.is_applied());
    }
}
