//! What the delta protocol remembers of one proxy, and what there is to tell it. No I/O.
//!
//! What always holds: at most one response of a kind waits for its answer, so that a slow proxy is told the newest and never a backlog; a resource is
//! sent once for each of its versions; a refusal is kept by resource until it is replaced by one that is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_model::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weir_model::resource::Kind;

use super::view::{Encoded, View};

/// Why a stream is ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It asks for what nobody here has.
    #[error("there are no resources of the type {0:?} here: a Weir proxy asks for types of weir.config.v1")]
    UnknownType(String),
    /// It asks for more than a proxy can need.
    #[error("more than {MOST_NAMES} names, or one longer than {LONGEST_NAME} bytes")]
    TooMuch,
}

/// Names that one proxy may ask for, of one kind.
const MOST_NAMES: usize = 200_000;
const LONGEST_NAME: usize = 4096;

/// What a proxy refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of which kind.
    pub kind: Kind,
    /// What was in the response.
    pub resources: Vec<Arc<str>>,
    /// The proxy's words.
    pub message: String,
}

/// One proxy's stream.
#[derive(Debug, Default)]
pub struct Session {
    kinds: BTreeMap<Kind, Subscription>,
    responses: u64,
}

#[derive(Debug, Default)]
struct Subscription {
    /// All there is.
    whole: bool,
    names: BTreeSet<Arc<str>>,
    /// The versions that the proxy has; `None` where it has been told that there is no such resource.
    known: BTreeMap<Arc<str>, Option<Arc<str>>>,
    /// The response that has no answer yet: its nonce, and what was in it.
    waiting: Option<(String, Vec<Arc<str>>)>,
    /// It has asked, and gets an answer even if there is nothing.
    greeting: bool,
    refused: Option<Refusal>,
    applied: u64,
}

impl Session {
    /// Takes a request in. What follows from it is in [`Session::respond`].
    ///
    /// # Errors
    /// When the stream must end.
    pub fn request(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Broken> {
        let kind = Kind::of_type_url(&request.type_url).ok_or_else(|| Broken::UnknownType(request.type_url.clone()))?;
        let names = || request.resource_names_subscribe.iter().chain(request.initial_resource_versions.keys());
        if names().any(|name| name.len() > LONGEST_NAME) {
            return Err(Broken::TooMuch);
        }
        let first = !self.kinds.contains_key(&kind);
        let subscription = self.kinds.entry(kind).or_default();
        if first {
            subscription.greeting = true;
            subscription.whole = request.resource_names_subscribe.is_empty();
            let versions = request.initial_resource_versions.iter();
            subscription.known = versions.map(|(name, version)| (name.as_str().into(), Some(version.as_str().into()))).collect();
        }
        for name in &request.resource_names_subscribe {
            if name == "*" {
                subscription.whole = true;
                continue;
            }
            // Asked for anew, it is sent anew: the proxy has forgotten it.
            if !first {
                subscription.known.remove(name.as_str());
            }
            subscription.names.insert(name.as_str().into());
        }
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                subscription.whole = false;
            }
            subscription.names.remove(name.as_str());
            if !subscription.whole {
                subscription.known.remove(name.as_str());
            }
        }
        if subscription.names.len() > MOST_NAMES || subscription.known.len() > 2 * MOST_NAMES {
            return Err(Broken::TooMuch);
        }
        subscription.answered(kind, request);
        Ok(())
    }

    /// What there is to tell the proxy that is to have `view`: what others refer to comes first.
    pub fn respond(&mut self, view: &View) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        for (kind, subscription) in &mut self.kinds {
            if subscription.waiting.is_none()
                && let Some(mut response) = subscription.difference(*kind, view)
            {
                self.responses += 1;
                response.nonce = self.responses.to_string();
                let names = response.resources.iter().map(|resource| resource.name.as_str().into()).collect();
                subscription.waiting = Some((response.nonce.clone(), names));
                responses.push(response);
            }
        }
        responses
    }

    /// What the proxy refuses now.
    pub fn refused(&self) -> impl Iterator<Item = &Refusal> {
        self.kinds.values().filter_map(|subscription| subscription.refused.as_ref())
    }

    /// Whether the proxy has taken everything of `view` that it asks for.
    #[must_use]
    pub fn is_in_sync(&self, view: &View) -> bool {
        self.kinds.iter().all(|(kind, subscription)| {
            subscription.waiting.is_none() && subscription.refused.is_none() && subscription.changes(view.of(*kind)).next().is_none()
        })
    }

    /// How many responses the proxy has applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.kinds.values().map(|subscription| subscription.applied).sum()
    }
}

impl Subscription {
    /// An answer to the response that waits for one; answers to anything else mean nothing.
    fn answered(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) {
        let Some((_, names)) = self.waiting.take_if(|(nonce, _)| *nonce == request.response_nonce) else { return };
        match &request.error_detail {
            Some(error) => self.refused = Some(Refusal { kind, resources: names, message: error.message.clone() }),
            None => {
                self.refused = None;
                self.applied += 1;
            }
        }
    }

    /// What the proxy does not know yet: names with what they stand for now, which may be nothing.
    fn changes<'a>(&'a self, resources: &'a BTreeMap<Arc<str>, Encoded>) -> impl Iterator<Item = (&'a Arc<str>, Option<&'a Encoded>)> {
        let there = resources.iter().filter(|(name, _)| self.whole || self.names.contains(*name));
        let new = there.filter(|(name, encoded)| self.known.get(*name) != Some(&Some(Arc::clone(&encoded.version))));
        let had = self.known.iter().filter(|(_, version)| version.is_some()).map(|(name, _)| name);
        let asked = self.names.iter().filter(|name| !self.known.contains_key(*name));
        let gone: BTreeSet<_> = had.chain(asked).filter(|name| !resources.contains_key(*name)).collect();
        new.map(|(name, encoded)| (name, Some(encoded))).chain(gone.into_iter().map(|name| (name, None)))
    }

    /// The response that tells it, if there is anything to tell.
    fn difference(&mut self, kind: Kind, view: &View) -> Option<DeltaDiscoveryResponse> {
        let mut response = DeltaDiscoveryResponse { type_url: kind.type_url().to_owned(), ..DeltaDiscoveryResponse::default() };
        let mut told = Vec::new();
        for (name, now) in self.changes(view.of(kind)) {
            told.push((Arc::clone(name), now.map(|encoded| Arc::clone(&encoded.version))));
            match now {
                Some(encoded) => response.resources.push(encoded.message(name)),
                None => response.removed_resources.push(name.to_string()),
            }
        }
        let greets = std::mem::take(&mut self.greeting);
        for (name, version) in told {
            // What nobody asks for by name is forgotten when it is gone.
            match version.is_some() || self.names.contains(&name) {
                true => self.known.insert(name, version),
                false => self.known.remove(&name),
            };
        }
        (greets || !response.resources.is_empty() || !response.removed_resources.is_empty()).then_some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::config::{Bootstrap, Cluster, Endpoints};
    use weir_model::discovery::Status;

    fn view(clusters: &[(&str, u32)], endpoints: &[&str]) -> View {
        let cluster = |(name, warm): &(&str, u32)| Cluster { name: (*name).into(), warm_connections: *warm, ..Cluster::default() };
        let endpoints = endpoints.iter().map(|name| Endpoints { name: (*name).into(), ..Endpoints::default() });
        let configuration =
            Bootstrap { clusters: clusters.iter().map(cluster).collect(), endpoints: endpoints.collect(), ..Bootstrap::default() };
        View::new(&configuration, None)
    }

    fn ask(kind: Kind, names: &[&str]) -> DeltaDiscoveryRequest {
        let resource_names_subscribe = names.iter().map(|name| (*name).to_owned()).collect();
        DeltaDiscoveryRequest { type_url: kind.type_url().into(), resource_names_subscribe, ..DeltaDiscoveryRequest::default() }
    }

    fn answer(response: &DeltaDiscoveryResponse, refused: &str) -> DeltaDiscoveryRequest {
        let error_detail = (!refused.is_empty()).then(|| Status { code: 3, message: refused.into(), ..Status::default() });
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..DeltaDiscoveryRequest::default() }
    }

    /// `+` for what is sent, `-` for what is removed.
    fn told(response: &DeltaDiscoveryResponse) -> String {
        let sent = response.resources.iter().map(|resource| format!("+{}", resource.name));
        sent.chain(response.removed_resources.iter().map(|name| format!("-{name}"))).collect::<Vec<_>>().join(" ")
    }

    /// The one response there is; empty where there is none.
    fn next(session: &mut Session, view: &View) -> String {
        let responses = session.respond(view);
        assert!(responses.len() <= 1);
        let Some(response) = responses.first() else { return String::new() };
        session.request(&answer(response, "")).unwrap();
        told(response)
    }

    #[test]
    fn a_proxy_is_told_what_differs_and_nothing_else() {
        let mut session = Session::default();
        session.request(&ask(Kind::Cluster, &[])).unwrap();
        assert_eq!(next(&mut session, &view(&[("a", 0), ("b", 0)], &[])), "+a +b");
        assert_eq!(next(&mut session, &view(&[("a", 0), ("b", 0)], &[])), "");
        assert_eq!(next(&mut session, &view(&[("a", 1), ("c", 0)], &[])), "+a +c -b");
        assert_eq!(next(&mut session, &view(&[("a", 1), ("b", 0), ("c", 0)], &[])), "+b");
        assert!(session.is_in_sync(&view(&[("a", 1), ("b", 0), ("c", 0)], &[])));
        assert!(!session.is_in_sync(&view(&[("a", 2), ("b", 0), ("c", 0)], &[])));
    }

    #[test]
    fn names_that_are_asked_for_are_answered_once_even_if_there_is_nothing() {
        let mut session = Session::default();
        session.request(&ask(Kind::Endpoints, &["a", "z"])).unwrap();
        assert_eq!(next(&mut session, &view(&[], &["a", "b"])), "+a -z");
        assert_eq!(next(&mut session, &view(&[], &["a", "b"])), "");
        assert_eq!(next(&mut session, &view(&[], &["b", "z"])), "+z -a");
        assert_eq!(next(&mut session, &view(&[], &["a", "b", "z"])), "+a");
        session.request(&DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["a".into()], ..ask(Kind::Endpoints, &["b"]) }).unwrap();
        assert_eq!(next(&mut session, &view(&[], &["b"])), "+b -z");
    }

    #[test]
    fn who_comes_back_with_versions_is_told_only_what_has_changed() {
        let before = view(&[("a", 0), ("b", 0), ("c", 0)], &[]);
        let versions = before.of(Kind::Cluster).iter().map(|(name, encoded)| (name.to_string(), encoded.version.to_string())).collect();
        let mut session = Session::default();
        session.request(&DeltaDiscoveryRequest { initial_resource_versions: versions, ..ask(Kind::Cluster, &["*"]) }).unwrap();
        assert_eq!(next(&mut session, &view(&[("a", 0), ("b", 7)], &[])), "+b -c");
        let mut session = Session::default();
        session.request(&ask(Kind::Cluster, &[])).unwrap();
        assert_eq!(session.respond(&View::default()).len(), 1, "who asks is answered");
    }

    #[test]
    fn one_response_waits_at_a_time_and_refusals_are_kept() {
        let mut session = Session::default();
        session.request(&ask(Kind::Cluster, &[])).unwrap();
        let first = session.respond(&view(&[("a", 0)], &[]));
        assert!(session.respond(&view(&[("a", 1)], &[])).is_empty(), "the first has no answer yet");
        session.request(&answer(&first[0], "a is bad")).unwrap();
        let refused: Vec<_> = session.refused().cloned().collect();
        assert_eq!((refused[0].message.as_str(), &*refused[0].resources[0]), ("a is bad", "a"));
        assert!(session.respond(&view(&[("a", 0)], &[])).is_empty(), "the same is not sent again");
        assert_eq!(next(&mut session, &view(&[("a", 1)], &[])), "+a");
        assert_eq!((session.refused().count(), session.applied()), (0, 1));
    }

    #[test]
    fn what_makes_no_sense_ends_the_stream() {
        let mut session = Session::default();
        let foreign =
            DeltaDiscoveryRequest { type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(), ..Default::default() };
        assert!(matches!(session.request(&foreign), Err(Broken::UnknownType(_))));
        assert_eq!(session.request(&ask(Kind::Cluster, &[&"x".repeat(5000)])), Err(Broken::TooMuch));
    }
}
