//! The host allocates nothing per callback in steady state, whatever ordinary host calls the guest makes.
//!
//! A counting allocator looks at this thread around each measured part only, after it has run a few times. What a proxy's own header map would
//! allocate is not the host's: the one here keeps its room. The allocator of the guest hands out one place again and again.

#![allow(unsafe_code, reason = "a global allocator cannot be written without")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use weir_sdk_testing::{MemoryHost, Tester, Worker};
use weir_wasm::{Attribute, Headers, Level, LocalReply, MessageMap, Path, Side, Stream, StreamHost, Upstreams};

struct Counting;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn count_one() {
    let _ = COUNT.try_with(|count| count.set(count.get().map(|so_far| so_far + 1)));
}

// SAFETY: every method hands on to the system's allocator unchanged; counting touches a thread-local number and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: as `System`, with the same arguments.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as `System`, with the same arguments.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: as `System`, with the same arguments.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: `pointer` came from `System` with this `layout`; `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocates in `work`.
fn allocations<R>(work: impl FnOnce() -> R) -> (u64, R) {
    COUNT.set(Some(0));
    let result = work();
    (COUNT.take().unwrap_or(0), result)
}

/// A header map that keeps its room.
#[derive(Default)]
struct Room(Vec<(Vec<u8>, Vec<u8>)>);

impl Headers for Room {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    fn visit(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in &self.0 {
            each(key, value);
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.set(name, value);
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, known)) => {
                known.clear();
                known.extend_from_slice(value);
            }
            None => self.0.push((name.to_vec(), value.to_vec())),
        }
    }

    fn remove(&mut self, name: &[u8]) {
        self.0.retain(|(key, _)| key != name);
    }
}

#[derive(Default)]
struct Plain {
    request: Room,
    response: Room,
}

impl StreamHost for Plain {
    fn headers(&mut self, map: MessageMap) -> Option<&mut dyn Headers> {
        match map {
            MessageMap::RequestHeaders => Some(&mut self.request),
            MessageMap::ResponseHeaders => Some(&mut self.response),
            MessageMap::RequestTrailers | MessageMap::ResponseTrailers => None,
        }
    }

    fn make_trailers(&mut self, _: Side) -> Option<&mut dyn Headers> {
        None
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        match path.as_bytes() {
            b"source\0address" => Some("10.0.0.1:1".into()),
            b"source\0port" => Some(Attribute::Int(1)),
            _ => None,
        }
    }

    fn start_local_reply(&mut self, _: &LocalReply) {}

    fn wake(&mut self) {}
}

const OUT: u32 = 64;
const ID: u32 = 96;

/// Builds calls: strings go to the data segment, `&name` is `ID`'s content.
#[derive(Default)]
struct Calls {
    imports: String,
    strings: String,
    length: u32,
}

impl Calls {
    /// `proxy_NAME ARGUMENT…` as WebAssembly text; arguments are `'text'` (pointer and length, `|` is NUL), `>` (an out-pointer), `@` (the kept id) or numbers.
    fn call(&mut self, line: &str) -> String {
        let mut parts = line.split(' ');
        let name = parts.next().unwrap();
        let (mut types, mut values, mut out) = (String::new(), String::new(), OUT);
        for argument in parts {
            if let Some(text) = argument.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
                types += "i32 i32 ";
                let text = text.replace('|', "\\00");
                let size = text.replace("\\00", "|").len() as u32;
                let _ = write!(values, "(i32.const {}) (i32.const {size})", 1024 + self.length);
                self.strings += &text;
                self.length += size;
            } else if argument == ">" {
                types += "i32 ";
                let _ = write!(values, "(i32.const {out})");
                out += 8;
            } else if argument == "@" {
                types += "i32 ";
                let _ = write!(values, "(i32.load (i32.const {ID}))");
            } else if let Some(number) = argument.strip_suffix('L') {
                types += "i64 ";
                let _ = write!(values, "(i64.const {number})");
            } else {
                types += "i32 ";
                let _ = write!(values, "(i32.const {argument})");
            }
        }
        let id = self.imports.lines().count();
        let (module, name) = name.split_once('/').map_or(("env", name.to_owned()), |(module, name)| (module, name.to_owned()));
        let name = if module == "env" { format!("proxy_{name}") } else { name };
        let _ = writeln!(self.imports, "(import \"{module}\" \"{name}\" (func $f{id} (param {types}) (result i32)))");
        // Anything but OK would measure nothing.
        format!("(if (call $f{id} {values}) (then (unreachable)))\n")
    }
}

/// A guest that does `setup` when it is configured and `work` in every tick, acting on stream 2, which it holds paused at its request headers.
fn guest(setup: &str, work: &str) -> String {
    let mut calls = Calls::default();
    let mut all =
        |lines: &str| lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| calls.call(line)).collect::<String>();
    let (timer, setup) = (all("set_tick_period_milliseconds 1"), all(setup));
    let keep = format!("(i32.store (i32.const {ID}) (i32.load (i32.const {OUT})))");
    let (switch, work) = (all("set_effective_context 2"), all(work));
    format!(
        r#"(module {imports} (memory (export "memory") 1) (data (i32.const 1024) "{strings}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 32768))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) {timer} {setup} {keep} (i32.const 1))
        (func (export "proxy_on_tick") (param i32) {switch} {work})
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_log") (param i32))
        (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
        (func (export "proxy_on_delete") (param i32)))"#,
        imports = calls.imports,
        strings = calls.strings,
    )
}

fn start(wat: &str) -> Worker {
    let host = MemoryHost::default();
    host.set_log_level(Level::Error);
    let worker = Tester::from_wat(wat).binding(|binding| {
        binding.root_id = "root".into();
        binding.upstreams = Upstreams::Any;
    });
    worker.start_on(host).unwrap_or_else(|error| panic!("{error}\n{wat}"))
}

fn stream(worker: &Worker) -> Stream<Plain> {
    let mut host = Plain::default();
    for (name, value) in [(":method", "GET"), (":path", "/a?b"), (":authority", "c"), ("x-a", "1")] {
        host.request.set(name.as_bytes(), value.as_bytes());
    }
    host.response.set(b":status", b"200");
    Stream::new(&worker.chain, host)
}

/// What is done in a tick, by name: what the guest does first, and then every time.
const WORK: &[(&str, &str, &str)] = &[
    ("nothing", "", ""),
    ("time", "", "get_current_time_nanoseconds >"),
    ("WASI clock and random", "", "wasi_snapshot_preview1/clock_time_get 1 1L >\nwasi_snapshot_preview1/random_get 512 32"),
    ("log below the level", "", "get_log_level >\nlog 2 'nobody_reads_this'"),
    ("header read", "", "get_header_map_value 0 'x-a' > >\nget_header_map_value 0 'host' > >"),
    ("header map read", "", "get_header_map_size 0 >\nget_header_map_pairs 0 > >"),
    ("header replaced", "", "replace_header_map_value 0 'x-a' '2'"),
    ("header added that exists", "", "add_header_map_value 0 'x-a' '2'"),
    ("header removed that is absent", "", "remove_header_map_value 0 'x-b'"),
    (
        "property of headers",
        "",
        "get_property 'request|path' > >\nget_property 'request|query' > >\nget_property 'request|headers|x-a' > >",
    ),
    ("property of the stream", "", "get_property 'source|address' > >\nget_property 'source|port' > >\nget_property 'request|size' > >"),
    ("property of the binding", "", "get_property 'plugin_root_id' > >\nget_property 'plugin_name' > >\nget_property 'plugin_vm_id' > >"),
    ("property set and read", "", "set_property 'my|note' 'value'\nget_property 'my|note' > >"),
    ("property of a root", "set_property 'note' 'x'", "set_effective_context 1\nset_property 'note' 'y'\nget_property 'note' > >"),
    ("counter", "define_metric 0 'c' >", "increment_metric @ 1L\nget_metric @ >"),
    ("gauge", "define_metric 1 'g' >", "record_metric @ 7L\nincrement_metric @ -1L"),
    ("histogram", "define_metric 2 'h' >", "record_metric @ 7L"),
    ("metric defined again", "define_metric 0 'c' >", "define_metric 0 'c' >"),
    ("shared data", "set_shared_data 'k' 'v' 0", "get_shared_data 'k' > > >\nset_shared_data 'k' 'w' 0"),
    ("queue", "register_shared_queue 'q' >", "enqueue_shared_queue @ 'item'\ndequeue_shared_queue @ > >"),
    ("queue resolved", "register_shared_queue 'q' >", "resolve_shared_queue '' 'q' >"),
    ("configuration", "", "get_buffer_bytes 7 0 100 > >\nget_buffer_status 6 > >"),
    ("timer", "", "set_tick_period_milliseconds 1"),
    ("continue of what is not paused", "", "continue_stream 1"),
    ("foreign function", "", "call_foreign_function 'weir.shared.delete' 'nothing' > >"),
];

/// Those that allocate, how often at most, and why that is so.
const KNOWN: &[(&str, u64, &str)] = &[
    ("metric defined again", 4, "the name becomes a key of the registry; filters define once"),
    ("foreign function", 4, "arguments and results of foreign functions are owned"),
];

#[test]
fn host_calls_allocate_nothing_in_steady_state() {
    let mut wrong = Vec::new();
    for (name, setup, work) in WORK {
        let worker = start(&guest(setup, work));
        let mut stream = stream(&worker);
        stream.request_headers(true);
        let tick = || {
            worker.host.advance(Duration::from_millis(1));
            worker.filter().run_timers();
        };
        (0..300).for_each(|_| tick());
        let (count, ()) = allocations(|| (0..100).for_each(|_| tick()));
        assert!(!worker.host.logged("ended in"), "{name}: {:?}", worker.host.log_lines());
        let calls = worker.stats().callback(weir_wasm::stats::Callback::Tick).calls;
        assert!(calls >= 400, "{name}: only {calls} ticks ran");
        let most = KNOWN.iter().find(|(known, ..)| known == name).map_or(0, |(_, most, _)| *most);
        if count > most * 100 || (most > 0 && count == 0) {
            wrong.push(format!("{name}: {count} in 100 ticks, {} expected", most * 100));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn bodies_pass_without_an_allocation() {
    let chunk = Bytes::from_static(b"some bytes");
    let wat = guest("", "").replace("(param i32 i32 i32) (result i32) (i32.const 1)", "(param i32 i32 i32) (result i32) (i32.const 0)");
    let worker = start(&wat);
    let mut stream = stream(&worker);
    stream.request_headers(false);
    stream.response_headers(false);
    let mut pass = |side: Side| {
        match side {
            Side::Request => stream.request_body(chunk.clone(), false),
            Side::Response => stream.response_body(chunk.clone(), false),
        }
        assert_eq!(stream.take(side).data, chunk);
    };
    for side in [Side::Request, Side::Response] {
        (0..10).for_each(|_| pass(side));
        let (count, ()) = allocations(|| (0..100).for_each(|_| pass(side)));
        assert_eq!(count, 0, "{side:?}");
    }
}

#[test]
fn a_whole_stream_allocates_nothing_once_there_have_been_a_few() {
    let wat = guest("", "").replace("(param i32 i32 i32) (result i32) (i32.const 1)", "(param i32 i32 i32) (result i32) (i32.const 0)");
    let worker = start(&wat);
    let run = |stream: &mut Stream<Plain>| {
        stream.request_headers(true);
        let _ = stream.take(Side::Request);
        stream.response_headers(true);
        let _ = stream.take(Side::Response);
        stream.finish();
    };
    (0..20).for_each(|_| run(&mut stream(&worker)));
    let mut waiting = stream(&worker);
    let (callbacks, ()) = allocations(|| run(&mut waiting));
    assert_eq!(callbacks, 0, "context, headers both ways, log, done, delete");
    drop(waiting);
    let host = Plain::default();
    let (whole, ()) = allocations(|| {
        let mut stream = Stream::new(&worker.chain, host);
        run(&mut stream);
    });
    assert_eq!(whole, 0, "from creation to drop");
}
