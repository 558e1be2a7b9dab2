//! A worker in memory: a clock that moves when told, repeatable randomness, a log that is kept, callouts that wait for the test to answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use weir_wasm::{
    Attribute, CallId, CalloutError, Foreign, GrpcCall, Host, HttpCall, HttpReply, Level, LogLine, Nanos, Path, Reply, SharedHost,
};

use crate::Value;
use crate::native::RELAY;

/// A line that the filter, or the host about the filter, logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedLine {
    /// The binding it is about.
    pub binding: String,
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub message: String,
    /// The stream's log id, empty outside streams.
    pub stream: String,
    /// Whether the filter said it, rather than the host.
    pub from_guest: bool,
}

/// A callout that the filter started and the test has not answered.
#[derive(Debug)]
pub struct Callout {
    /// Its id.
    pub id: CallId,
    /// Whom it goes to.
    pub upstream: String,
    /// For gRPC: `service/method`.
    pub method: Option<String>,
    /// Headers, or initial metadata.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The body, or the message of a unary call. Empty for a gRPC stream.
    pub body: Bytes,
    /// Trailers of an HTTP callout.
    pub trailers: Vec<(Bytes, Bytes)>,
    /// When it times out.
    pub timeout: Option<Duration>,
    /// Where the answer goes. Dropping it is an answer too: a failure.
    pub reply: Reply,
}

impl Callout {
    /// A header's value as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Answers an HTTP callout.
    pub fn respond(self, status: u16, headers: &[(&str, &str)], body: &str) {
        let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let mut list = vec![(Bytes::from_static(b":status"), Bytes::from(status.to_string()))];
        list.extend(headers.iter().map(|(name, value)| (copy(name), copy(value))));
        self.reply.http(HttpReply { headers: list, body: copy(body), trailers: Vec::new() });
    }

    /// Fails it: no connection, a reset, a timeout.
    pub fn fail(self) {
        drop(self);
    }

    /// Answers a unary gRPC callout with a message.
    pub fn respond_grpc(self, message: &[u8]) {
        self.reply.grpc_message(Bytes::copy_from_slice(message));
        self.reply.grpc_close(0, "");
    }

    /// Ends a gRPC callout, or stream, with this status.
    pub fn close_grpc(self, status: u32, message: &str) {
        self.reply.grpc_close(status, message);
    }
}

type Script = Box<dyn FnMut(Callout)>;
type ForeignFunction = Box<dyn Fn(&[u8]) -> Foreign>;

/// A [`Host`] in memory.
pub struct MemoryHost {
    wall: Cell<u64>,
    monotonic: Cell<Nanos>,
    random: RefCell<fastrand::Rng>,
    log_level: Cell<Level>,
    log: RefCell<Vec<LoggedLine>>,
    callouts: RefCell<Vec<Callout>>,
    scripts: RefCell<BTreeMap<String, Script>>,
    relayed: Cell<u64>,
    /// Messages sent on gRPC streams, and whether each ended its side.
    pub grpc_sent: RefCell<Vec<(CallId, Bytes, bool)>>,
    /// Callouts that were cancelled, and whether politely.
    pub cancelled: RefCell<Vec<(CallId, bool)>>,
    /// How often a timer changed.
    pub timer_changes: Cell<u32>,
    /// How often another thread, or this one, announced a queue item.
    pub queue_wakes: Arc<AtomicUsize>,
    access_logs: RefCell<Vec<(String, Vec<String>)>>,
    attributes: RefCell<BTreeMap<Vec<u8>, Value>>,
    foreign: RefCell<BTreeMap<String, ForeignFunction>>,
    refuse: Cell<Option<CalloutError>>,
    quiet: AtomicBool,
}

impl std::fmt::Debug for MemoryHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryHost(at {} ns)", self.monotonic.get())
    }
}

impl Default for MemoryHost {
    fn default() -> Self {
        Self {
            wall: Cell::new(1_700_000_000_000_000_000),
            monotonic: Cell::new(1_000_000_000),
            random: RefCell::new(fastrand::Rng::with_seed(1)),
            log_level: Cell::new(Level::Trace),
            log: RefCell::default(),
            callouts: RefCell::default(),
            scripts: RefCell::default(),
            relayed: Cell::new(0),
            grpc_sent: RefCell::default(),
            cancelled: RefCell::default(),
            timer_changes: Cell::new(0),
            queue_wakes: Arc::default(),
            access_logs: RefCell::default(),
            attributes: RefCell::default(),
            foreign: RefCell::default(),
            refuse: Cell::new(None),
            quiet: AtomicBool::new(false),
        }
    }
}

impl MemoryHost {
    /// A host as the engine wants it.
    #[must_use]
    pub fn shared() -> (Rc<Self>, SharedHost) {
        let host = Rc::new(Self::default());
        (host.clone(), host)
    }

    /// Moves both clocks.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.wall.set(self.wall.get().saturating_add(nanos));
        self.monotonic.set(self.monotonic.get().saturating_add(nanos));
    }

    /// Starts randomness anew.
    pub fn seed(&self, seed: u64) {
        *self.random.borrow_mut() = fastrand::Rng::with_seed(seed);
    }

    /// Lines below `level` are not logged.
    pub fn set_log_level(&self, level: Level) {
        self.log_level.set(level);
    }

    /// Keeps no log at all, for measurements.
    pub fn be_quiet(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// What was logged so far.
    #[must_use]
    pub fn log_lines(&self) -> Vec<LoggedLine> {
        self.log.borrow().clone()
    }

    /// Whether any line so far contains `text`.
    #[must_use]
    pub fn logged(&self, text: &str) -> bool {
        self.log.borrow().iter().any(|line| line.message.contains(text))
    }

    /// The lines that filters wrote to an access log.
    #[must_use]
    pub fn access_log(&self, path: &str) -> Vec<String> {
        self.access_logs.borrow().iter().find(|(known, _)| known == path).map(|(_, lines)| lines.clone()).unwrap_or_default()
    }

    /// The callouts that wait for an answer, oldest first.
    #[must_use]
    pub fn take_callouts(&self) -> Vec<Callout> {
        std::mem::take(&mut *self.callouts.borrow_mut())
    }

    /// The oldest callout that waits for an answer.
    #[must_use]
    pub fn take_callout(&self) -> Option<Callout> {
        let mut callouts = self.callouts.borrow_mut();
        if callouts.is_empty() { None } else { Some(callouts.remove(0)) }
    }

    /// Answers all callouts to `upstream` from now on, at once, each by this: `worker.host.script("auth", |call| call.respond(200, &[], "anna"))`.
    /// A closure that counts answers the first differently from the second. One that keeps the callout answers later.
    pub fn script(&self, upstream: &str, answer: impl FnMut(Callout) + 'static) {
        self.scripts.borrow_mut().insert(upstream.to_owned(), Box::new(answer));
    }

    /// Host calls that were a native filter's relay's own.
    pub(crate) fn relayed(&self) -> u64 {
        self.relayed.get()
    }

    /// From now on callouts fail to start; `None`: they start again.
    pub fn refuse_callouts(&self, error: Option<CalloutError>) {
        self.refuse.set(error);
    }

    /// An attribute of the node, by its path with dots: `node.id`.
    pub fn set_attribute(&self, path: &str, value: Value) {
        self.attributes.borrow_mut().insert(path.replace('.', "\0").into_bytes(), value);
    }

    /// Provides a foreign function.
    pub fn provide(&self, name: &str, function: impl Fn(&[u8]) -> Foreign + 'static) {
        self.foreign.borrow_mut().insert(name.to_owned(), Box::new(function));
    }

    fn start(&self, callout: Callout) -> Result<(), CalloutError> {
        match self.refuse.get() {
            Some(error) => Err(error),
            None => {
                // Taken out while it runs: it may script another.
                let script = self.scripts.borrow_mut().remove_entry(&callout.upstream);
                if let Some((upstream, mut script)) = script {
                    script(callout);
                    self.scripts.borrow_mut().entry(upstream).or_insert(script);
                } else {
                    self.callouts.borrow_mut().push(callout);
                }
                Ok(())
            }
        }
    }
}

impl Host for MemoryHost {
    fn wall_nanos(&self) -> u64 {
        self.wall.get()
    }

    fn monotonic_nanos(&self) -> Nanos {
        self.monotonic.get()
    }

    fn random(&self, out: &mut [u8]) {
        self.random.borrow_mut().fill(out);
    }

    fn log_level(&self, _binding: &str) -> Level {
        self.log_level.get()
    }

    fn log(&self, line: &LogLine<'_>) {
        if self.quiet.load(Ordering::Relaxed) {
            return;
        }
        self.log.borrow_mut().push(LoggedLine {
            binding: line.binding.to_owned(),
            level: line.level,
            message: line.message.to_owned(),
            stream: line.stream.to_owned(),
            from_guest: line.from_guest,
        });
    }

    fn http_call(&self, id: CallId, call: HttpCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        self.start(Callout {
            id,
            upstream: call.upstream.to_owned(),
            method: None,
            headers: call.headers,
            body: call.body,
            trailers: call.trailers,
            timeout: Some(call.timeout),
            reply,
        })
    }

    fn grpc_call(&self, id: CallId, call: GrpcCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        self.start(Callout {
            id,
            upstream: call.upstream.to_owned(),
            method: Some(format!("{}/{}", call.service, call.method)),
            headers: call.metadata,
            body: call.message.unwrap_or_default(),
            trailers: Vec::new(),
            timeout: call.timeout,
            reply,
        })
    }

    fn grpc_send(&self, id: CallId, message: Bytes, end_of_stream: bool) {
        self.grpc_sent.borrow_mut().push((id, message, end_of_stream));
    }

    fn cancel(&self, id: CallId, graceful: bool) {
        self.cancelled.borrow_mut().push((id, graceful));
    }

    fn timer_changed(&self) {
        self.timer_changes.set(self.timer_changes.get() + 1);
    }

    fn queue_notifier(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wakes = self.queue_wakes.clone();
        Arc::new(move || {
            wakes.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        self.attributes.borrow().get(path.as_bytes()).cloned()
    }

    fn open_access_log(&self, _binding: &str, path: &str) -> Option<u32> {
        let mut logs = self.access_logs.borrow_mut();
        let at = logs.iter().position(|(known, _)| known == path).unwrap_or_else(|| {
            logs.push((path.to_owned(), Vec::new()));
            logs.len() - 1
        });
        u32::try_from(at).ok()
    }

    fn access_log(&self, log: u32, line: &[u8]) {
        if let Some((_, lines)) = self.access_logs.borrow_mut().get_mut(log as usize) {
            lines.push(String::from_utf8_lossy(line).into_owned());
        }
    }

    fn foreign(&self, _binding: &str, name: &str, arguments: &[u8]) -> Foreign {
        if name.starts_with(RELAY) {
            self.relayed.set(self.relayed.get() + 1);
        }
        self.foreign.borrow().get(name).map_or(Foreign::Unknown, |function| function(arguments))
    }
}
