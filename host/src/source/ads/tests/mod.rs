//! The client against a small controller in the same process, which says what a test tells it to.

mod faults;
mod protocol;
mod server;

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use weir_model::config::{
    Branch, Cluster, DataSource, DownstreamTls, Endpoints, Http, KeyPair, Listener, LocalityEndpoints, Secret, branch, cluster,
    data_source, secret,
};
use weir_model::discovery::{DeltaDiscoveryResponse, Node, Resource};
use weir_model::protobuf::Any;
use weir_model::validate::Context;

use super::super::{Apply, Hub, Key, Kind, Outcome, Rejection, Resources, Update};
use super::{Backoff, Grpcs, Limits, Options, Transport, run};

const LONG: Duration = Duration::from_secs(20);

/// Takes everything whose name does not begin with `bad`, and `needy` only beside `a`; shows it to the test.
struct Consumer(mpsc::UnboundedSender<Update>);

impl Apply for Consumer {
    async fn apply(&mut self, update: Update) -> Outcome {
        let bad = update.resources.iter().filter(|(key, _)| key.name.starts_with("bad"));
        let mut rejected: Vec<Rejection> = bad.map(|(key, _)| Rejection::new(key, "it is bad")).collect();
        if update.resources.cluster("needy").is_some() && update.resources.cluster("a").is_none() {
            rejected.push(Rejection::new(key(Kind::Cluster, "needy"), "it needs a"));
        }
        if rejected.is_empty() {
            self.0.send(update).unwrap();
        }
        Outcome { rejected }
    }
}

/// A client that runs, and what it applied.
struct Proxy {
    updates: mpsc::UnboundedReceiver<Update>,
    hub: Arc<Hub<Consumer>>,
    task: JoinHandle<()>,
}

impl Proxy {
    fn start(options: Options, transport: impl Transport) -> Self {
        let (sender, updates) = mpsc::unbounded_channel();
        let hub = Hub::new(Consumer(sender), true);
        let task = tokio::spawn(run(Arc::clone(&hub), options, transport));
        Self { updates, hub, task }
    }

    async fn update(&mut self) -> Update {
        tokio::time::timeout(LONG, self.updates.recv()).await.expect("no update").unwrap()
    }

    fn no_update(&mut self) {
        assert!(self.updates.try_recv().is_err(), "an update that nobody expected");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn options(addresses: &[&str]) -> Options {
    Options {
        node: Node { id: "proxy-1".into(), ..Node::default() },
        addresses: addresses.iter().map(|address| (*address).into()).collect(),
        limits: Limits { grace: LONG, ..Limits::default() },
        context: Context::default(),
        backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(20)),
        state_dir: None,
        state_wait: Duration::from_millis(100),
        state_every: Duration::ZERO,
    }
}

fn plain() -> Grpcs {
    Grpcs { tls: None, secrets: Resources::default(), token_file: None, message_bytes: Limits::default().message_bytes }
}

fn names(update: &Update, kind: Kind) -> Vec<String> {
    update.resources.of(kind).keys().map(ToString::to_string).collect()
}

fn changed(update: &Update) -> Vec<String> {
    update.changed.iter().map(ToString::to_string).collect()
}

fn resource(kind: Kind, name: &str, version: &str, message: &impl Message) -> Resource {
    let any = Any { type_url: kind.type_url().into(), value: message.encode_to_vec() };
    Resource { name: name.into(), version: version.into(), resource: Some(any), ..Resource::default() }
}

fn cluster(name: &str, version: &str) -> Resource {
    let discovery = cluster::Discovery::Endpoints(Endpoints { name: name.into(), ..some_endpoints(1) });
    let message = Cluster { name: name.into(), discovery: Some(discovery), ..Cluster::default() };
    resource(Kind::Cluster, name, version, &Cluster { metadata: [("v".into(), version.into())].into(), ..message })
}

fn cluster_elsewhere(name: &str, version: &str) -> Resource {
    let discovery = Some(cluster::Discovery::EndpointsFrom(name.into()));
    resource(Kind::Cluster, name, version, &Cluster { name: name.into(), discovery, ..Cluster::default() })
}

fn some_endpoints(count: u16) -> Endpoints {
    let endpoint = |port: u16| weir_model::config::Endpoint { address: format!("127.0.0.1:{}", 8000 + port), ..Default::default() };
    let locality = LocalityEndpoints { endpoints: (0..count).map(endpoint).collect(), ..LocalityEndpoints::default() };
    Endpoints { localities: vec![locality], ..Endpoints::default() }
}

fn endpoints(name: &str, version: &str, count: u16) -> Resource {
    resource(Kind::Endpoints, name, version, &Endpoints { name: name.into(), ..some_endpoints(count) })
}

fn listener(name: &str, version: &str, secrets: &[&str]) -> Resource {
    let tls = DownstreamTls { certificates: secrets.iter().map(|name| (*name).into()).collect(), ..DownstreamTls::default() };
    let tls = (!secrets.is_empty()).then_some(tls);
    let branch = Branch { tls, protocol: Some(branch::Protocol::Http(Http::default())), ..Branch::default() };
    let message = Listener { name: name.into(), address: "127.0.0.1:0".into(), default_branch: Some(branch), ..Listener::default() };
    resource(Kind::Listener, name, version, &message)
}

fn secret(name: &str, version: &str, certificate: data_source::Source, key: data_source::Source) -> Resource {
    let source = |source| Some(DataSource { source: Some(source) });
    let pair = KeyPair { certificate_chain: source(certificate), private_key: source(key), ocsp: None };
    resource(Kind::Secret, name, version, &Secret { name: name.into(), kind: Some(secret::Kind::KeyPair(pair)) })
}

fn inline(name: &str, version: &str) -> Resource {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    secret(name, version, data_source::Source::Inline(certificate), data_source::Source::Inline(key))
}

fn response(kind: Kind, nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).into()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, name)
}
