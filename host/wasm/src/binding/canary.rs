//! The proof that a binding works, before anyone uses it: an instance of its own, on a host that touches nothing.
//!
//! It starts, is configured, and creates and deletes one stream context: a module whose root context serves no streams traps there, and is refused
//! with a readable error instead of failing every request. Its log lines become part of that error. It makes no callouts: they are accepted and
//! never answered.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Binding, BindingConfig, CanaryHost, Kind};
use crate::callout::Reply;
use crate::codec::{Pairs, Path};
use crate::error::{LoadError, LoadFault, Phase, Trap as Why};
use crate::filter::Filter;
use crate::host::{
    Attribute, CallId, CalloutError, Foreign, GrpcCall, Headers, Host, HttpCall, Level, LocalReply, LogLine, MessageMap, SharedHost, Side,
    StreamHost,
};
use crate::module::Module;
use crate::stats::Callback;
use crate::stream::{Chain, Stream};
use crate::time::Nanos;
use crate::vm::{StartError, Trap};

/// A module that exports callbacks only for the other kind of stream cannot be meant.
pub(super) fn check_kind(config: &BindingConfig, module: &Module) -> Result<(), LoadError> {
    let streams = module.facts().callbacks.streams();
    let (serves_http, serves_tcp) = (streams.http, streams.tcp);
    let (wanted, only) = match config.kind {
        Kind::Http if serves_tcp && !serves_http => ("HTTP", "TCP"),
        Kind::Tcp if serves_http && !serves_tcp => ("TCP", "HTTP"),
        _ => return Ok(()),
    };
    Err(module.fault(LoadFault::WrongKind { binding: config.name.to_string(), wanted, only }))
}

/// Runs the proof.
pub(super) fn prove(binding: &Arc<Binding>, host: Option<&CanaryHost>) -> Result<(), LoadError> {
    let recorder = Rc::new(Recorder::new(host.map(|make| make())));
    let lines = || recorder.lines.borrow().clone();
    let module = binding.module();
    let begun = Instant::now();
    let filter = Filter::start(binding, recorder.clone()).map_err(|error| module.fault(fault_of(&error, lines())))?;
    let _ = binding.proven.set(begun.elapsed());
    let Some(vm) = filter.instance() else { return Ok(()) };
    let chain = Chain::new(binding.config().kind, vec![filter.clone()]);
    let mut stream = Stream::new(&chain, Nobody::default());
    stream.probe();
    drop(stream);
    if let Some(trap) = vm.ended_by() {
        return Err(module.fault(trapped(Phase::Probe, &trap, lines())));
    }
    filter.retire();
    Ok(())
}

fn fault_of(error: &StartError, log: Vec<String>) -> LoadFault {
    match error {
        StartError::Trapped(trap) => {
            let phase = match trap.callback {
                Callback::Configure => Phase::Configure,
                Callback::Start => Phase::Instantiate,
                _ => Phase::Start,
            };
            trapped(phase, trap, log)
        }
        StartError::Refused { callback, variant, .. } => {
            let phase = if *callback == "proxy_on_configure" { Phase::Configure } else { Phase::Start };
            let function = match variant {
                Some(variant) => format!("{callback} (variant {variant})"),
                None => (*callback).to_owned(),
            };
            LoadFault::Refused { phase, function, log }
        }
    }
}

fn trapped(phase: Phase, trap: &Trap, log: Vec<String>) -> LoadFault {
    let function = match trap.callback {
        Callback::Start => "the start function",
        other => other.name(),
    };
    LoadFault::Trapped { phase, function: function.into(), trap: Why { message: trap.cause.clone(), frames: trap.backtrace.clone() }, log }
}

/// Keeps what the guest logs, and answers for the host that there may be.
struct Recorder {
    inner: Option<SharedHost>,
    started: Instant,
    lines: RefCell<Vec<String>>,
    /// Never answered: dropped after the instance is gone, when nobody listens.
    replies: RefCell<Vec<Reply>>,
    random: RefCell<fastrand::Rng>,
}

impl Recorder {
    fn new(inner: Option<SharedHost>) -> Self {
        Self {
            inner,
            started: Instant::now(),
            lines: RefCell::default(),
            replies: RefCell::default(),
            random: RefCell::new(fastrand::Rng::with_seed(1)),
        }
    }
}

impl Host for Recorder {
    fn wall_nanos(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    fn monotonic_nanos(&self) -> Nanos {
        self.started.elapsed().as_nanos() as u64
    }

    fn random(&self, out: &mut [u8]) {
        if let Some(inner) = &self.inner {
            return inner.random(out);
        }
        self.random.borrow_mut().fill(out);
    }

    fn log(&self, line: &LogLine<'_>) {
        const MOST: usize = 100;
        let mut lines = self.lines.borrow_mut();
        // That the instance has ended is the error itself.
        let wanted = line.level >= Level::Info && (line.from_guest || line.level < Level::Error);
        if wanted && lines.len() < MOST {
            lines.push(format!("{}: {}", line.level.name(), line.message));
        }
    }

    fn http_call(&self, _: CallId, _: HttpCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        self.replies.borrow_mut().push(reply);
        Ok(())
    }

    fn grpc_call(&self, _: CallId, _: GrpcCall<'_>, reply: Reply) -> Result<(), CalloutError> {
        self.replies.borrow_mut().push(reply);
        Ok(())
    }

    fn grpc_send(&self, _: CallId, _: Bytes, _: bool) {}

    fn cancel(&self, _: CallId, _: bool) {}

    fn queue_notifier(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::new(|| {})
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        self.inner.as_ref().and_then(|inner| inner.attribute(path))
    }

    /// Lines go nowhere.
    fn open_access_log(&self, binding: &str, path: &str) -> Option<u32> {
        self.inner.as_ref().map_or(Some(0), |inner| inner.open_access_log(binding, path))
    }

    fn foreign(&self, binding: &str, name: &str, arguments: &[u8]) -> Foreign {
        self.inner.as_ref().map_or(Foreign::Unknown, |inner| inner.foreign(binding, name, arguments))
    }
}

/// A stream that nobody sent.
#[derive(Default)]
struct Nobody {
    empty: Pairs,
}

impl StreamHost for Nobody {
    fn headers(&mut self, _: MessageMap) -> Option<&mut dyn Headers> {
        Some(&mut self.empty)
    }

    fn make_trailers(&mut self, _: Side) -> Option<&mut dyn Headers> {
        None
    }

    fn attribute(&self, _: Path<'_>) -> Option<Attribute<'_>> {
        None
    }

    fn start_local_reply(&mut self, _: &LocalReply) {}

    fn wake(&mut self) {}
}
