//! What the discovery protocol has to remember, without I/O: messages and time go in, messages and whole configurations come out.
//!
//! What the controller says is *staged*; what serves is *applied*. A candidate is built out of both when it is complete: every chain, secret and
//! endpoints that it names has arrived, or was waited for long enough. Every response is answered once it was judged. A response that others wait for
//! (chains, endpoints, secrets) is answered at once while a candidate is incomplete, so that a controller that waits for answers goes on; if it is
//! refused later, it is answered again.
//!
//! What always holds: the versions that a new stream claims are those of what serves; a resource that was refused is not among them; what something
//! that serves names is not taken away from it; the number and the size of what is staged is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_model::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status};
use weir_model::validate::Context;

use super::super::{Entry, Key, Kind, Rejection, Resources, Value, is_wildcard};
use super::Limits;

/// gRPC's code for what makes no sense.
const INVALID_ARGUMENT: i32 = 3;
/// The most that is said about why something was refused.
const LONGEST_DETAIL: usize = 16 * 1024;
/// Candidates that are tried after one another, each without what the one before was refused for.
const MOST_ROUNDS: usize = 8;

/// A response that was not judged yet.
struct Pending {
    kind: Kind,
    nonce: String,
    names: BTreeSet<Arc<str>>,
    refused: Vec<Rejection>,
    answered: bool,
}

/// Something that is named and is not there.
#[derive(Clone, Copy, Debug)]
struct Missing {
    since: Instant,
    /// The controller says that there is none.
    absent: bool,
}

/// A configuration to judge.
pub(super) struct Candidate {
    pub(super) resources: Resources,
    pub(super) notes: Vec<String>,
    incomplete: Vec<Rejection>,
}

/// What the protocol waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The next response.
    Nothing,
    /// Or this moment.
    Until(Instant),
    /// A candidate is complete.
    Ready,
}

/// What came of a candidate.
pub(super) enum Judged {
    /// Another one is to be tried.
    Again,
    /// These answers are to be sent; `rejected` is for the log.
    Done { answers: Vec<DeltaDiscoveryRequest>, rejected: Vec<Rejection>, applied: bool },
}

/// The protocol's memory.
pub(super) struct State {
    node: Node,
    limits: Limits,
    context: Context,
    staged: Resources,
    applied: Resources,
    bytes: usize,
    dirty: BTreeSet<Key>,
    /// Kinds that the controller has spoken about.
    seen: BTreeSet<Kind>,
    /// When the controller first spoke on this stream.
    began: Option<Instant>,
    delivered: bool,
    /// What this stream was asked for by name.
    subscribed: BTreeSet<Key>,
    missing: BTreeMap<Key, Missing>,
    pending: Vec<Pending>,
    rejected: Vec<Rejection>,
    rounds: usize,
    /// Not even the bare candidate was taken: nothing to try before something new comes.
    gave_up: bool,
}

impl State {
    pub(super) fn new(node: Node, limits: Limits, context: Context) -> Self {
        Self {
            node,
            limits,
            context,
            staged: Resources::default(),
            applied: Resources::default(),
            bytes: 0,
            dirty: BTreeSet::new(),
            seen: BTreeSet::new(),
            began: None,
            delivered: false,
            subscribed: BTreeSet::new(),
            missing: BTreeMap::new(),
            pending: Vec::new(),
            rejected: Vec::new(),
            rounds: 0,
            gave_up: false,
        }
    }

    /// What serves.
    pub(super) fn applied(&self) -> &Resources {
        &self.applied
    }

    /// Takes what was kept on disk as if the controller had sent it.
    pub(super) fn restore(&mut self, resources: Resources) {
        self.dirty = resources.iter().map(|(key, _)| key).collect();
        self.bytes = resources.iter().map(|(_, entry)| entry.value.encoded_len()).sum();
        self.staged = resources;
        self.seen = Kind::ALL.into_iter().collect();
    }

    /// A new stream: forgets what the last one did not finish and says what is here.
    pub(super) fn connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.staged = self.applied.clone();
        self.bytes = self.staged.iter().map(|(_, entry)| entry.value.encoded_len()).sum();
        self.dirty.clear();
        self.missing.clear();
        self.pending.clear();
        self.rejected.clear();
        self.rounds = 0;
        self.began = None;
        self.subscribed = self.wanted();
        let mut requests = Vec::new();
        for kind in Kind::ALL {
            let names: Vec<String> = match is_wildcard(kind) {
                true => vec!["*".into()],
                false => self.subscribed.iter().filter(|key| key.kind == kind).map(|key| key.name.to_string()).collect(),
            };
            // A first request without names would ask for everything.
            if names.is_empty() {
                continue;
            }
            let versions = self.applied.of(kind).iter().map(|(name, entry)| (name.to_string(), entry.version.to_string()));
            requests.push(DeltaDiscoveryRequest {
                resource_names_subscribe: names,
                initial_resource_versions: versions.collect(),
                ..request(kind)
            });
        }
        if let Some(first) = requests.first_mut() {
            first.node = Some(self.node.clone());
        }
        requests
    }

    /// Takes a response; returns what is to be sent at once.
    pub(super) fn received(&mut self, response: DeltaDiscoveryResponse, now: Instant) -> Vec<DeltaDiscoveryRequest> {
        self.began.get_or_insert(now);
        let Some(kind) = Kind::of_type_url(&response.type_url) else {
            let detail = Status { code: INVALID_ARGUMENT, message: "unknown type".into(), ..Status::default() };
            let (type_url, response_nonce) = (response.type_url, response.nonce);
            return vec![DeltaDiscoveryRequest {
                type_url,
                response_nonce,
                error_detail: Some(detail),
                ..DeltaDiscoveryRequest::default()
            }];
        };
        self.seen.insert(kind);
        (self.rounds, self.gave_up) = (0, false);
        let mut pending = Pending { kind, nonce: response.nonce, names: BTreeSet::new(), refused: Vec::new(), answered: false };
        for resource in response.resources {
            match self.check(kind, resource) {
                Ok((name, entry)) => {
                    self.stage(&Key::new(kind, Arc::clone(&name)), Some(entry));
                    pending.names.insert(name);
                }
                Err(rejection) => pending.refused.push(rejection),
            }
        }
        for name in response.removed_resources {
            let key = Key::new(kind, name);
            self.stage(&key, None);
            pending.names.insert(Arc::clone(&key.name));
            if self.subscribed.contains(&key) {
                self.missing.insert(key, Missing { since: now, absent: true });
            }
        }
        self.pending.push(pending);
        let mut requests = self.subscribe();
        self.look_for_missing(now);
        if self.step(now) != Step::Ready {
            requests.extend(self.answer_early());
        }
        requests
    }

    /// What `resource` says, if it can be taken.
    fn check(&self, kind: Kind, resource: Resource) -> Result<(Arc<str>, Entry), Rejection> {
        let key = Key::new(kind, resource.name);
        let refuse = |reason: String| Rejection::new(key.clone(), reason);
        if key.name.len() > self.limits.name_bytes {
            let short: String = key.name.chars().take(64).collect();
            return Err(Rejection::new(Key::new(kind, short), format!("the name is longer than {} bytes", self.limits.name_bytes)));
        }
        let any = resource.resource.ok_or_else(|| refuse("nothing in it".into()))?;
        if any.type_url != kind.type_url() {
            return Err(refuse(format!("a resource of type {:?} in a response of type {}", any.type_url, kind.type_url())));
        }
        let value = Value::decode(kind, &any.value).map_err(|error| refuse(format!("not a {}: {error}", kind.label())))?;
        if value.name() != &*key.name {
            return Err(refuse(format!("it calls itself {:?}", value.name())));
        }
        if let Some(path) = value.files().iter().find(|path| !std::path::Path::new(path).is_absolute()) {
            return Err(refuse(format!("file {path:?}: a path that a controller sends must be absolute")));
        }
        let before = self.staged.get(&key).map_or(0, |entry| entry.value.encoded_len());
        if before == 0 && self.staged.of(kind).len() >= self.limits.resources {
            return Err(refuse(format!("more than {} resources of this type", self.limits.resources)));
        }
        if self.bytes - before + any.value.len() > self.limits.total_bytes {
            return Err(refuse(format!("more than {} bytes of configuration", self.limits.total_bytes)));
        }
        value.check(&self.context).map_err(refuse)?;
        // What is the same stays the same, whatever its version.
        let value = match self.staged.get(&key) {
            Some(entry) if entry.value == value => entry.value.clone(),
            _ => value,
        };
        Ok((Arc::clone(&key.name), Entry { value, version: resource.version.into(), origin: "controller".into() }))
    }

    fn stage(&mut self, key: &Key, entry: Option<Entry>) {
        let size = |entry: &Entry| entry.value.encoded_len();
        let before = self.staged.get(key);
        if before.is_some() || entry.is_some() {
            self.dirty.insert(key.clone());
        }
        self.bytes = self.bytes - before.map_or(0, size) + entry.as_ref().map_or(0, size);
        self.staged.set(key, entry);
    }

    /// Files have changed: what names them counts as changed. Says whether anything does.
    pub(super) fn files_changed(&mut self, changed: &BTreeSet<String>) -> bool {
        let touched: Vec<(Key, Entry)> = self
            .staged
            .iter()
            .filter(|(_, entry)| entry.value.files().iter().any(|path| changed.contains(*path)))
            .map(|(key, entry)| (key, Entry { value: entry.value.renewed(), ..entry.clone() }))
            .collect();
        self.rounds = 0;
        for (key, entry) in &touched {
            self.stage(key, Some(entry.clone()));
        }
        !touched.is_empty()
    }

    /// Every file that what is staged names.
    pub(super) fn files(&self) -> BTreeSet<String> {
        self.staged.iter().flat_map(|(_, entry)| entry.value.files().into_iter().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// What is asked for by name: what is staged and what serves name it.
    fn wanted(&self) -> BTreeSet<Key> {
        let named = |resources: &Resources| -> Vec<Key> {
            let parents = [Kind::Listener, Kind::Cluster].into_iter().flat_map(|kind| resources.of(kind).values());
            parents.flat_map(|entry| entry.value.needs()).filter(|key| !is_wildcard(key.kind)).collect()
        };
        named(&self.staged).into_iter().chain(named(&self.applied)).collect()
    }

    /// Tells the controller which names are new, and which are not needed any more.
    fn subscribe(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let wanted = self.wanted();
        let mut requests = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| !is_wildcard(*kind)) {
            let differ = |a: &BTreeSet<Key>, b: &BTreeSet<Key>| -> Vec<String> {
                a.difference(b).filter(|key| key.kind == kind).map(|key| key.name.to_string()).collect()
            };
            let (new, old) = (differ(&wanted, &self.subscribed), differ(&self.subscribed, &wanted));
            if !new.is_empty() || !old.is_empty() {
                requests.push(DeltaDiscoveryRequest { resource_names_subscribe: new, resource_names_unsubscribe: old, ..request(kind) });
            }
        }
        for key in self.subscribed.difference(&wanted).cloned().collect::<Vec<_>>() {
            let gone = self.staged.remove(&key);
            self.bytes -= gone.map_or(0, |entry| entry.value.encoded_len());
        }
        self.subscribed = wanted;
        requests
    }

    fn has(&self, key: &Key) -> bool {
        self.staged.get(key).is_some() || self.applied.get(key).is_some()
    }

    fn look_for_missing(&mut self, now: Instant) {
        let parents = [Kind::Listener, Kind::Cluster].into_iter().flat_map(|kind| self.staged.of(kind).values());
        let missing = parents.flat_map(|entry| entry.value.needs()).filter(|key| !self.has(key));
        let known = |key: Key| {
            let missing = self.missing.get(&key).copied().unwrap_or(Missing { since: now, absent: false });
            (key, missing)
        };
        self.missing = missing.map(known).collect();
    }

    /// What to do next.
    pub(super) fn step(&self, now: Instant) -> Step {
        if self.dirty.is_empty()
            && self.pending.iter().all(|pending| pending.answered)
            && (self.delivered || self.began.is_none() || self.gave_up)
        {
            return Step::Nothing;
        }
        if self.only_endpoints() {
            return Step::Ready;
        }
        match self.waits_until(now) {
            Some(until) => Step::Until(until),
            None => Step::Ready,
        }
    }

    /// When what is missing is not waited for any longer; none if nothing is.
    fn waits_until(&self, now: Instant) -> Option<Instant> {
        let grace = self.limits.grace;
        let missing = self.missing.values().filter(|missing| !missing.absent).map(|missing| missing.since + grace);
        let unseen = Kind::ALL.into_iter().any(|kind| is_wildcard(kind) && !self.seen.contains(&kind));
        let kinds = self.began.filter(|_| unseen && !self.delivered).map(|began| began + grace);
        missing.chain(kinds).filter(|until| *until > now).max()
    }

    fn only_endpoints(&self) -> bool {
        self.delivered
            && !self.dirty.is_empty()
            && self.dirty.iter().all(|key| key.kind == Kind::Endpoints)
            && self.pending.iter().all(|pending| pending.kind == Kind::Endpoints || pending.answered)
    }

    /// Builds a configuration out of what is there.
    pub(super) fn candidate(&self) -> Candidate {
        if self.only_endpoints() {
            let mut resources = self.applied.clone();
            for key in &self.dirty {
                // Endpoints that were taken away stay as long as a cluster names them.
                if let Some(entry) = self.staged.get(key) {
                    resources.set(key, Some(entry.clone()));
                }
            }
            return Candidate { resources, notes: Vec::new(), incomplete: Vec::new() };
        }
        let mut candidate = Candidate { resources: Resources::default(), notes: Vec::new(), incomplete: Vec::new() };
        for (name, entry) in self.staged.of(Kind::FilterChain) {
            candidate.resources.insert(Arc::clone(name), entry.clone());
        }
        for kind in [Kind::Cluster, Kind::Listener] {
            for (name, entry) in self.staged.of(kind) {
                self.choose(&mut candidate, &Key { kind, name: Arc::clone(name) }, entry);
            }
        }
        candidate
    }

    /// Puts a listener or a cluster in, with what it names; or what serves under its name, if something is missing.
    fn choose(&self, candidate: &mut Candidate, key: &Key, staged: &Entry) {
        let missing: Vec<Key> = staged.value.needs().into_iter().filter(|need| !self.has(need)).collect();
        let (soft, hard): (Vec<Key>, Vec<Key>) = missing.into_iter().partition(|key| key.kind == Kind::Endpoints);
        for need in soft {
            candidate.notes.push(format!("{key} has no endpoints: {need} did not arrive"));
        }
        let chosen = match hard.is_empty() {
            true => Some(staged),
            false => {
                let names: Vec<String> = hard.iter().map(ToString::to_string).collect();
                let reason = format!("incomplete: {} did not arrive", names.join(", "));
                candidate.notes.push(format!("{key} is {reason}"));
                candidate.incomplete.push(Rejection::new(key.clone(), reason));
                self.applied.get(key)
            }
        };
        let Some(chosen) = chosen else { return };
        for need in chosen.value.needs() {
            if candidate.resources.get(&need).is_some() {
                continue;
            }
            let entry = self.staged.get(&need).or_else(|| self.applied.get(&need)).cloned();
            if need.kind != Kind::Endpoints && self.staged.get(&need).is_none() {
                candidate.notes.push(format!("{need} was removed but {key} names it: it stays"));
            }
            candidate.resources.set(&need, entry);
        }
        candidate.resources.insert(Arc::clone(&key.name), chosen.clone());
    }

    /// Whether `candidate` differs from what serves, or nothing serves yet.
    pub(super) fn is_news(&self, candidate: &Candidate) -> bool {
        !self.delivered || !candidate.resources.changes_since(&self.applied).is_empty()
    }

    /// Takes the verdict on `candidate`.
    pub(super) fn judged(&mut self, candidate: Candidate, rejections: Vec<Rejection>, now: Instant) -> Judged {
        if rejections.is_empty() {
            self.applied = candidate.resources;
            self.delivered = true;
            self.dirty.clear();
            return self.done(&candidate.incomplete, true);
        }
        self.rounds += 1;
        let mut progress = false;
        for rejection in &rejections {
            let (staged, applied) = (self.staged.get(&rejection.key), self.applied.get(&rejection.key).cloned());
            let same = match (staged, &applied) {
                (Some(staged), Some(applied)) => staged.value.is(&applied.value),
                (staged, applied) => staged.is_none() && applied.is_none(),
            };
            if !same {
                progress = true;
                self.stage(&rejection.key, applied);
            }
        }
        self.rejected.extend(rejections);
        if progress && self.rounds < MOST_ROUNDS {
            self.look_for_missing(now);
            return Judged::Again;
        }
        let cause = self.rejected.first().map(ToString::to_string).unwrap_or_default();
        let whole = format!("refused with the other changes of its time, because of {cause}");
        let dirty = std::mem::take(&mut self.dirty);
        let known: BTreeSet<Key> = self.rejected.iter().map(|rejection| rejection.key.clone()).collect();
        self.rejected.extend(dirty.into_iter().filter(|key| !known.contains(key)).map(|key| Rejection::new(key, whole.clone())));
        self.staged = self.applied.clone();
        self.bytes = self.staged.iter().map(|(_, entry)| entry.value.encoded_len()).sum();
        self.look_for_missing(now);
        self.gave_up = true;
        self.done(&[], false)
    }

    fn done(&mut self, incomplete: &[Rejection], applied: bool) -> Judged {
        self.rounds = 0;
        let mut rejected = std::mem::take(&mut self.rejected);
        let mut answers = self.subscribe();
        let mut refused = Vec::new();
        for pending in self.pending.drain(..) {
            let about = |rejection: &&Rejection| rejection.key.kind == pending.kind && pending.names.contains(&rejection.key.name);
            let late: Vec<Rejection> = rejected.iter().chain(incomplete).filter(about).cloned().collect();
            if pending.answered && late.is_empty() {
                continue;
            }
            let all: Vec<Rejection> = pending.refused.into_iter().chain(late).collect();
            answers.push(answer(pending.kind, pending.nonce, &all));
            refused.extend(all.into_iter().filter(|rejection| !rejected.contains(rejection)));
        }
        rejected.extend(refused);
        Judged::Done { answers, rejected, applied }
    }

    /// Answers what others wait for, as far as it can be judged now.
    fn answer_early(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let waiting = self.pending.iter_mut().filter(|pending| !pending.answered);
        let early = waiting.filter(|pending| matches!(pending.kind, Kind::FilterChain | Kind::Endpoints | Kind::Secret));
        early
            .map(|pending| {
                pending.answered = true;
                answer(pending.kind, pending.nonce.clone(), &pending.refused)
            })
            .collect()
    }
}

fn request(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.type_url().into(), ..DeltaDiscoveryRequest::default() }
}

fn answer(kind: Kind, nonce: String, refused: &[Rejection]) -> DeltaDiscoveryRequest {
    let error_detail = (!refused.is_empty()).then(|| {
        let mut message = String::new();
        for rejection in refused {
            let line = rejection.to_string();
            if message.len() + line.len() > LONGEST_DETAIL {
                message.push_str("\n…");
                break;
            }
            if !message.is_empty() {
                message.push('\n');
            }
            message.push_str(&line);
        }
        Status { code: INVALID_ARGUMENT, message, ..Status::default() }
    });
    DeltaDiscoveryRequest { response_nonce: nonce, error_detail, ..request(kind) }
}

/// How long to wait for what is named unless told otherwise.
pub(super) const GRACE: Duration = Duration::from_secs(5);
