//! Where keys come from: the configuration, or a server that is asked for them again and again.
//!
//! What always holds: keys that were there stay in use while the server is away or answers nonsense; a token whose key is not known makes the server be
//! asked at most once in [`UNKNOWN_KEY_PAUSE`], however many such tokens come; one question at a time is under way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use weir_sdk::{Handle, HttpCall, Plugin, Refusal, now_nanos};

use crate::config::JwtRule;
use crate::key::Keys;

/// How long a key that nobody knows is not asked for again.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);
/// How long after the first failure the server is asked again; then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// How often one who waits for another's question looks whether it is answered.
const LOOK: Duration = Duration::from_millis(20);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A longer answer is no key set.
const LONGEST_ANSWER: usize = 1 << 20;

/// The keys of one rule.
#[derive(Debug)]
pub(crate) struct Source {
    keys: RefCell<Option<Rc<Keys>>>,
    /// Counts new sets: what was verified by the keys of another one is verified again.
    generation: Cell<u32>,
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    cluster: String,
    authority: String,
    path: String,
    timeout: Duration,
    refresh: Duration,
    is_asked: Cell<bool>,
    last_asked: Cell<u64>,
}

/// Ends a question, also when who asked is gone.
struct Asking<'s>(&'s Server);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.is_asked.set(false);
    }
}

impl Source {
    pub(crate) fn new(rule: &JwtRule) -> Result<Self, Refusal> {
        let (keys, server) = match (&rule.jwks, &rule.jwks_uri) {
            (Some(_), Some(_)) => return Err(Refusal::new("only one of jwks and jwksUri may be written")),
            (None, None) => return Err(Refusal::new("one of jwks and jwksUri must be written: keys are not looked for at the issuer")),
            (Some(jwks), None) => (Some(Rc::new(Keys::parse(jwks.as_bytes()).map_err(|cause| Refusal::at("jwks", cause))?)), None),
            (None, Some(uri)) => (None, Some(Server::new(uri, rule)?)),
        };
        Ok(Self { keys: RefCell::new(keys), generation: Cell::new(0), server })
    }

    pub(crate) fn keys(&self) -> Option<Rc<Keys>> {
        self.keys.borrow().clone()
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// Whether asking the server may help: for the first keys, or for one that is not known.
    pub(crate) fn may_ask(&self) -> bool {
        self.server.as_ref().is_some_and(|server| {
            let waited = now_nanos().saturating_sub(server.last_asked.get());
            server.is_asked.get() || self.keys.borrow().is_none() || Duration::from_nanos(waited) >= UNKNOWN_KEY_PAUSE
        })
    }

    /// Asks the server, or waits for who does.
    pub(crate) async fn ask(&self, handle: &Handle) {
        let Some(server) = &self.server else { return };
        if !server.is_asked.get() {
            self.fetch(server, handle.call(&server.cluster, "GET", &server.path)).await;
            return;
        }
        let mut left = server.timeout;
        while server.is_asked.get() && !left.is_zero() {
            handle.sleep(LOOK).await;
            left = left.saturating_sub(LOOK);
        }
    }

    /// Keeps the keys fresh, as long as the filter is there.
    pub(crate) fn keep_fresh(self: &Rc<Self>, plugin: &Plugin) {
        let (source, plugin_of_task) = (Rc::clone(self), plugin.clone());
        plugin.spawn(async move {
            let Some(server) = &source.server else { return };
            let mut retry = FIRST_RETRY;
            loop {
                let is_fresh =
                    server.is_asked.get() || source.fetch(server, plugin_of_task.call(&server.cluster, "GET", &server.path)).await;
                let pause = if is_fresh { server.refresh } else { retry.min(server.refresh) };
                retry = if is_fresh { FIRST_RETRY } else { (retry * 2).min(LAST_RETRY) };
                plugin_of_task.sleep(pause).await;
            }
        });
    }

    pub(crate) fn is_remote(&self) -> bool {
        self.server.is_some()
    }

    /// Whether there are new keys.
    async fn fetch(&self, server: &Server, call: HttpCall) -> bool {
        server.is_asked.set(true);
        server.last_asked.set(now_nanos());
        let _asking = Asking(server);
        let answer = call.header(":authority", &server.authority).header("accept", "application/json").timeout(server.timeout).send().await;
        let keys = match answer {
            Ok(answer) if answer.status() != 200 => Err(format!("status {}", answer.status())),
            Ok(answer) if answer.body().len() > LONGEST_ANSWER => Err("the answer is too long".to_owned()),
            Ok(answer) => Keys::parse(answer.body()),
            Err(error) => Err(error.to_string()),
        };
        match keys {
            Ok(keys) => {
                *self.keys.borrow_mut() = Some(Rc::new(keys));
                self.generation.set(self.generation.get().wrapping_add(1));
                true
            }
            Err(why) => {
                let kept = if self.keys.borrow().is_some() { "the last keys are kept" } else { "there are no keys" };
                weir_sdk::warn!("keys from {}{} of cluster {:?}: {why}; {kept}", server.authority, server.path, server.cluster);
                false
            }
        }
    }
}

impl Server {
    fn new(uri: &str, rule: &JwtRule) -> Result<Self, Refusal> {
        let bad = || Refusal::at("jwksUri", format!("{uri:?} is no http:// or https:// address"));
        let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://")).ok_or_else(bad)?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let port = authority.rsplit_once(':').map_or("1", |(_, port)| port);
        let is_port = authority.ends_with(']') || port.parse::<u16>().is_ok();
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !is_port || !is_plain(rest) {
            return Err(bad());
        }
        let cluster = rule.jwks_cluster.clone().filter(|cluster| !cluster.is_empty());
        let cluster = cluster.ok_or_else(|| Refusal::at("jwksCluster", "jwksUri needs the cluster that is to be asked"))?;
        let timeout =
            duration(&rule.timeout.0).ok_or_else(|| Refusal::at("timeout", "it is no time of 1ms to 60s, such as 250ms or 5s"))?;
        if rule.jwks_refresh_seconds.0 == 0 {
            return Err(Refusal::at("jwksRefreshSeconds", "it must be at least 1"));
        }
        Ok(Self {
            cluster,
            authority: authority.to_owned(),
            path: path.to_owned(),
            timeout,
            refresh: Duration::from_secs(rule.jwks_refresh_seconds.0.into()),
            is_asked: Cell::new(false),
            last_asked: Cell::new(0),
        })
    }
}

fn duration(text: &str) -> Option<Duration> {
    let time = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => Duration::from_millis(millis.parse().ok()?),
        (_, Some(seconds)) => Duration::from_secs(seconds.parse().ok()?),
        _ => return None,
    };
    (!time.is_zero() && time <= LONGEST_TIMEOUT).then_some(time)
}
