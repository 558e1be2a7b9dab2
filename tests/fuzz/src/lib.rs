//! What the fuzz targets share: a worker with the puppet on it, and the way from fuzz input to what the puppet does.
//!
//! Always: a case ends with every stream gone, and a stream after it is served as if nothing had been: whatever a guest did, it did to itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use weir_conformance::puppet::{self, Arg, Call, Outcome, Program};
use weir_sdk_testing::{MemoryHost, MemoryStream};
use weir_wasm::module::provided;
use weir_wasm::stats::Level;
use weir_wasm::{Binding, BindingConfig, Chain, Engine, EngineOptions, Filter, Foreign, HttpReply, Kind, MessageMap, Side, Stream, Upstreams};

/// One argument of a host call.
#[derive(Arbitrary, Clone, Debug)]
pub enum Piece {
    /// A small number: enumerations, counts, tokens.
    Small(u8),
    /// Any number: pointers and lengths, sound or not.
    Word(u32),
    /// A pointer to these bytes, and their length.
    Bytes(Vec<u8>),
    /// The same for a word that means something to the host.
    Known(u8),
    /// The same for a map.
    Map(Vec<(u8, u8)>),
    /// Where the call may leave a result.
    Out(bool),
}

/// A host call.
#[derive(Arbitrary, Clone, Debug)]
pub struct Raw {
    function: u8,
    pieces: Vec<Piece>,
}

/// What the puppet does in one callback.
#[derive(Arbitrary, Clone, Debug)]
pub struct Turn {
    calls: Vec<Raw>,
    answer: u8,
    trap: bool,
    lie: Option<u32>,
    nested: Option<u8>,
}

const KNOWN: [&str; 24] = [
    ":method", ":path", ":authority", ":status", "content-length", "x-a", "X-A", "up", "request\0path", "request\0headers\0x-a",
    "response\0code", "plugin_name", "wasm.a", "filter_state\0wasm.a", "compress", "uncompress", "weir.metric.define", "weir.shared.set",
    "weir.shared.add", "set_envoy_filter_state", "key", "value", "delta", "12",
];

impl Raw {
    fn to_call(&self, functions: &[u32]) -> Call {
        let word = |at: u8| KNOWN[usize::from(at) % KNOWN.len()];
        let args = self.pieces.iter().take(12).map(|piece| match piece {
            Piece::Small(number) => Arg::Value((*number).into()),
            Piece::Word(number) => Arg::Value((*number).into()),
            Piece::Bytes(bytes) => Arg::Bytes(bytes.clone()),
            Piece::Known(at) => Arg::Bytes(word(*at).as_bytes().to_vec()),
            Piece::Map(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| (word(*name), word(*value))).collect();
                Arg::Bytes(puppet::map(&pairs))
            }
            Piece::Out(second) => Arg::Out((*second).into()),
        });
        Call::new(functions[usize::from(self.function) % functions.len()], args.collect())
    }
}

impl Turn {
    /// The program, with calls to these host functions only.
    fn to_program(&self, functions: &[u32]) -> Program {
        let calls: Vec<Call> = self.calls.iter().take(24).map(|raw| raw.to_call(functions)).collect();
        let nested = self.nested.map_or(0, |at| u32::from(at) % (calls.len() as u32 + 1));
        Program { calls, answer: (self.answer % 6).into(), trap: self.trap, lie: self.lie.unwrap_or(0), nested, instance: 0 }
    }
}

/// The numbers of the host functions that `wanted` picks by module and name.
pub fn functions(wanted: impl Fn(&str, &str) -> bool) -> Vec<u32> {
    let all = provided().enumerate().filter(|(_, (module, name, _))| wanted(module, name));
    all.map(|(index, _)| index as u32).collect()
}

/// A worker with the puppet on it.
pub struct Worker {
    host: Rc<MemoryHost>,
    chain: Chain,
    turns: Rc<RefCell<VecDeque<Program>>>,
    /// What the host answered, call by call.
    pub outcomes: Rc<RefCell<Vec<(u32, Outcome)>>>,
    running: Rc<RefCell<Option<Program>>>,
}

impl Worker {
    /// Loads the puppet. Once a process.
    pub fn new() -> Self {
        let engine = Engine::new(EngineOptions::default()).expect("an engine");
        let mut config = BindingConfig::new("puppet");
        config.upstreams = Upstreams::Any;
        config.configuration = Bytes::from_static(b"configuration");
        config.environment = vec![("HOME".into(), "/".into())];
        config.limits.callback_deadline = Duration::from_secs(1);
        config.limits.body = 4096;
        config.limits.host_output = 1 << 20;
        config.limits.shared_bytes = 1 << 20;
        let binding: Arc<Binding> = Binding::load(&engine, config, "puppet", &puppet::wasm(), None).expect("the puppet loads");
        let (host, shared) = MemoryHost::shared();
        host.be_quiet();
        let filter = Filter::start(&binding, shared).expect("the puppet starts");
        let turns: Rc<RefCell<VecDeque<Program>>> = Rc::default();
        let outcomes: Rc<RefCell<Vec<(u32, Outcome)>>> = Rc::default();
        let running: Rc<RefCell<Option<Program>>> = Rc::default();
        let (next, now) = (turns.clone(), running.clone());
        host.provide("puppet.next", move |_| match next.borrow_mut().pop_front() {
            Some(program) => {
                let bytes = program.encode();
                *now.borrow_mut() = Some(program);
                Foreign::Done(bytes)
            }
            None => Foreign::Unknown,
        });
        let (results, done) = (outcomes.clone(), running.clone());
        host.provide("puppet.done", move |report| {
            // Without a whole report the guest has overwritten its own program.
            if let Some(program) = done.borrow_mut().take() {
                let outcomes = puppet::outcomes(report).into_iter();
                results.borrow_mut().extend(program.calls.iter().map(Call::function).zip(outcomes));
            }
            Foreign::Done(Vec::new())
        });
        Self { host, chain: Chain::new(Kind::Http, vec![filter]), turns, outcomes, running }
    }

    /// Runs a request and its response through the puppet, which does `turns` meanwhile, one a callback.
    pub fn run(&self, turns: &[Turn], functions: &[u32]) {
        // Past every backoff: an instance that died has a successor.
        self.host.advance(Duration::from_secs(60));
        self.outcomes.borrow_mut().clear();
        *self.turns.borrow_mut() = turns.iter().take(24).map(|turn| turn.to_program(functions)).collect();
        let mut stream = self.request();
        let filter = &self.chain.filters()[0];
        filter.run_timers();
        filter.call_foreign(1, Bytes::from_static(b"arguments"));
        for callout in self.host.take_callouts() {
            match callout.method {
                None => callout.reply.http(HttpReply { headers: vec![(":status".into(), "200".into())], ..HttpReply::default() }),
                Some(_) => {
                    callout.reply.grpc_initial_metadata(Vec::new());
                    callout.reply.grpc_message(Bytes::from_static(b"message"));
                    callout.reply.grpc_trailing_metadata(Vec::new());
                    callout.reply.grpc_close(0, "");
                }
            }
        }
        stream.resume();
        drop(stream);
        self.turns.borrow_mut().clear();
        self.running.borrow_mut().take();
        drop(self.host.take_callouts());
        self.host.cancelled.borrow_mut().clear();
        self.host.grpc_sent.borrow_mut().clear();
        let snapshot = filter.binding().stats().snapshot();
        assert_eq!(snapshot.level(Level::LiveContexts), 0, "a context is left behind");
        self.host.advance(Duration::from_secs(60));
        let mut next = self.request();
        assert!(next.local_reply().is_none() && next.take(Side::Response).end, "the next stream is not served");
    }

    fn request(&self) -> Stream<MemoryStream> {
        let mut host = MemoryStream::new();
        host.set_map(MessageMap::RequestHeaders, &[(":method", "POST"), (":path", "/a?b"), (":authority", "a"), ("x-a", "1")]);
        host.set_map(MessageMap::ResponseHeaders, &[(":status", "200"), ("content-length", "8")]);
        host.set_map(MessageMap::RequestTrailers, &[("x-t", "1")]);
        let mut stream = Stream::new(&self.chain, host);
        stream.request_headers(false);
        stream.request_body(Bytes::from_static(b"request"), false);
        stream.request_trailers();
        stream.response_headers(false);
        stream.response_body(Bytes::from_static(b"response"), true);
        stream
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

/// The name of a host function.
pub fn name_of(function: u32) -> &'static str {
    provided().nth(function as usize).map_or("?", |(_, name, _)| name)
}
