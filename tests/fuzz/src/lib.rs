//! What the fuzz targets share: a worker with the puppet on it, and the way from fuzz input to what the puppet does.
//!
//! Always: a case ends with every stream gone, and a stream after it is served as if nothing had been: whatever a guest did, it did to itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weir_conformance::puppet::{self, Arg, Call, Program};
use weir_sdk_testing::{MemoryHost, MemoryStream};
use weir_wasm::module::provided;
use weir_wasm::stats::Level;
use weir_wasm::{
    Binding, BindingConfig, Chain, Engine, EngineOptions, Filter, Foreign, HttpReply, Kind, MessageMap, Side, Stream, Upstreams,
};

/// Words that mean something to the host.
const KNOWN: [&str; 32] = [
    ":method",
    ":path",
    ":authority",
    ":status",
    "content-length",
    "x-a",
    "X-A",
    "up",
    "GET",
    "/",
    "12",
    "bad\nvalue",
    "request\0path",
    "request\0headers\0x-a",
    "response\0code",
    "request\0time",
    "connection\0mtls",
    "plugin_name",
    "wasm.a",
    "filter_state\0wasm.a",
    "compress",
    "uncompress",
    "clear_route_cache",
    "weir.metric.define",
    "weir.shared.set",
    "weir.shared.add",
    "weir.shared.delete",
    "set_envoy_filter_state",
    "type",
    "name",
    "key",
    "counter",
];
/// Numbers on which pointers and lengths turn.
const EDGES: [u32; 8] = [u32::MAX, puppet::MEMORY - 1, puppet::MEMORY, puppet::BASE, puppet::BASE + 32, 0x80, 1 << 31, 1 << 20];

/// Fuzz input as what the puppet does, read byte by byte so that a changed byte is a changed argument and little else.
///
/// A turn is a byte (low half: how many calls; high half: 12 and up traps, lets the allocator lie, calls from within the allocator, or both of
/// these), a byte of answer, what the high half asks for, and the calls. A call is its function and its arguments: below 0x80 the number itself,
/// 0x80 a u32, 0xa0 a known word, 0xc0 bytes, 0xe0 a map, 0xf0 where results go, 0xf8 an edge. Words, bytes and maps are two arguments, pointer
/// and length.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn known(&mut self, at: u8) -> &'static str {
        KNOWN[usize::from(at) % KNOWN.len()]
    }

    fn arg(&mut self) -> Arg {
        match self.byte() {
            small @ 0..0x80 => Arg::Value(small.into()),
            0x80..0xa0 => Arg::Value(self.word().into()),
            known @ 0xa0..0xc0 => Arg::Bytes(self.known(known & 31).as_bytes().to_vec()),
            length @ 0xc0..0xe0 => Arg::Bytes(self.take(usize::from(length & 31)).to_vec()),
            pairs @ 0xe0..0xf0 => {
                let pairs: Vec<u8> = self.take(usize::from(pairs & 15) * 2).to_vec();
                let pairs: Vec<_> = pairs.chunks_exact(2).map(|pair| (self.known(pair[0]), self.known(pair[1]))).collect();
                Arg::Bytes(puppet::map(&pairs))
            }
            which @ 0xf0..0xf8 => Arg::Out(u32::from(which & 1)),
            edge => Arg::Value(EDGES[usize::from(edge & 7)].into()),
        }
    }

    fn call(&mut self, functions: &[Function]) -> Call {
        let function = functions[usize::from(self.byte()) % functions.len()];
        let (mut args, mut count) = (Vec::new(), 0);
        while count < function.params {
            let arg = self.arg();
            count += if matches!(arg, Arg::Bytes(_)) { 2 } else { 1 };
            args.push(arg);
        }
        Call::new(function.number, args)
    }

    fn turn(&mut self, functions: &[Function]) -> Program {
        let (flags, answer) = (self.byte(), self.byte() % 6);
        let (mode, count) = (flags >> 4, usize::from(flags & 15));
        let lie = if matches!(mode, 13 | 15) { self.word() } else { 0 };
        let nested = if mode >= 14 && count > 0 { u32::from(self.byte()) % count as u32 + 1 } else { 0 };
        let calls = (0..count).map(|_| self.call(functions)).collect();
        Program { calls, answer: answer.into(), trap: mode == 12, instance: 0, lie, nested }
    }

    fn turns(&mut self, functions: &[Function]) -> VecDeque<Program> {
        let mut turns = VecDeque::new();
        while !self.0.is_empty() && turns.len() < 32 {
            turns.push_back(self.turn(functions));
        }
        turns
    }
}

/// A host function as the puppet knows it.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// As the puppet numbers it.
    pub number: u32,
    params: usize,
}

/// The host functions that `wanted` picks by module and name, in the order in which inputs number them.
pub fn functions(wanted: impl Fn(&str, &str) -> bool) -> Vec<Function> {
    let all = provided().enumerate().filter(|(_, (module, name, _))| wanted(module, name));
    all.map(|(index, (_, _, signature))| Function { number: index as u32, params: signature.params().len() }).collect()
}

/// A worker with the puppet on it.
pub struct Worker {
    host: Rc<MemoryHost>,
    chain: Chain,
    turns: Rc<RefCell<VecDeque<Program>>>,
    /// What the host answered, call by call; other functions may be among them, since a program can overwrite itself. The function's number and the status.
    pub outcomes: Rc<RefCell<Vec<(u32, u32)>>>,
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
        let outcomes: Rc<RefCell<Vec<(u32, u32)>>> = Rc::default();
        let next = turns.clone();
        host.provide("puppet.next", move |_| {
            next.borrow_mut().pop_front().map_or(Foreign::Unknown, |program| Foreign::Done(program.encode()))
        });
        let did = outcomes.clone();
        host.provide("puppet.did", move |call| {
            did.borrow_mut().push(puppet::did(call));
            Foreign::Done(Vec::new())
        });
        Self { host, chain: Chain::new(Kind::Http, vec![filter]), turns, outcomes }
    }

    /// Runs a request and its response through the puppet, which meanwhile does what `input` says, a turn in each callback.
    pub fn run(&self, input: &[u8], functions: &[Function]) {
        // Past every backoff: an instance that died has a successor.
        self.host.advance(Duration::from_secs(60));
        self.outcomes.borrow_mut().clear();
        *self.turns.borrow_mut() = Input(input).turns(functions);
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
