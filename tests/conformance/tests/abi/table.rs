//! The table: runs every row, and from the first row of each function derives what must hold for all of them.
//!
//! A row is one host call in one callback of a request with a body (`a=1&b=2` in two chunks) and a response with one. Derived rows: from a start
//! function and from the allocator only harmless functions work; a pointer outside of memory, in any argument, ends the instance with an error
//! that names the function.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use weir_sdk_testing::{Exchange, Value, Worker};
use weir_wasm::stats::{Counter, TrapKind};
use weir_wasm::{BindingConfig, Foreign, MessageMap};

use crate::guest::{Arg, At, Data, Guest, I, Step, call};
use crate::rows;
use crate::story::{Answer, Scene, Story, UNTOUCHED};

pub const OK: u32 = 0;
pub const NOT_FOUND: u32 = 1;
pub const BAD_ARGUMENT: u32 = 2;
pub const PARSE_FAILURE: u32 = 4;
pub const EMPTY: u32 = 7;
pub const CAS_MISMATCH: u32 = 8;
pub const INTERNAL_FAILURE: u32 = 10;
pub const UNIMPLEMENTED: u32 = 12;

/// What a row saw, for its effect.
pub struct Seen<'s> {
    pub worker: &'s Worker,
    pub exchange: &'s Exchange,
    pub story: &'s Story,
    pub answer: &'s Answer,
}

/// What must come of a row's call.
#[derive(Clone, Copy)]
enum Want {
    Status(u32),
    /// The instance ends: the kind, and what the error says.
    Trap(TrapKind, &'static str),
}

type Effect = fn(&Seen<'_>) -> bool;

/// One host call and what must come of it.
#[derive(Clone)]
pub struct Row {
    at: &'static str,
    module: &'static str,
    function: &'static str,
    args: Vec<Arg>,
    before: Vec<Step>,
    want: Want,
    data: Option<Vec<u8>>,
    cell: Option<u64>,
    counter: Option<Counter>,
    effect: Option<(&'static str, Effect)>,
    pauses: bool,
    abi: &'static str,
    change: fn(&mut BindingConfig),
}

/// A call of a function of `env` in the callback `at` that is answered OK.
pub fn row(at: &'static str, function: &'static str, args: impl Into<Vec<Arg>>) -> Row {
    Row {
        at,
        module: "env",
        function,
        args: args.into(),
        before: Vec::new(),
        want: Want::Status(OK),
        data: None,
        cell: None,
        counter: None,
        effect: None,
        pauses: false,
        abi: "0_2_1",
        change: |_| (),
    }
}

impl Row {
    /// In another import module.
    pub fn in_module(self, module: &'static str) -> Self {
        Self { module, ..self }
    }

    /// It is answered with this status.
    pub fn is(self, status: u32) -> Self {
        Self { want: Want::Status(status), ..self }
    }

    /// It ends the instance.
    pub fn traps(self, kind: TrapKind, message: &'static str) -> Self {
        Self { want: Want::Trap(kind, message), ..self }
    }

    /// It brings these bytes.
    pub fn data(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { data: Some(bytes.as_ref().to_vec()), ..self }
    }

    /// Its first out-value, in as many bytes as it has.
    pub fn cell(self, value: u64) -> Self {
        Self { cell: Some(value), ..self }
    }

    /// It is counted, once.
    pub fn counts(self, counter: Counter) -> Self {
        Self { counter: Some(counter), ..self }
    }

    /// What else must be true after the request.
    pub fn then(self, what: &'static str, effect: Effect) -> Self {
        Self { effect: Some((what, effect)), ..self }
    }

    /// What the callback does before.
    pub fn after(self, steps: impl Into<Vec<Step>>) -> Self {
        Self { before: steps.into(), ..self }
    }

    /// The callback answers Pause.
    pub fn pausing(self) -> Self {
        Self { pauses: true, ..self }
    }

    pub fn abi(self, abi: &'static str) -> Self {
        Self { abi, ..self }
    }

    pub fn with(self, change: fn(&mut BindingConfig)) -> Self {
        Self { change, ..self }
    }

    pub fn at(self, at: &'static str) -> Self {
        Self { at, ..self }
    }

    pub fn is_unimplemented(&self) -> bool {
        matches!(self.want, Want::Status(UNIMPLEMENTED))
    }

    fn call(&self) -> Step {
        Step::Call { module: self.module, name: self.function, args: self.args.clone() }
    }

    fn title(&self) -> String {
        let args: Vec<_> = self.args.iter().map(show).collect();
        format!("{}.{}({}) in {}", self.module, self.function, args.join(", "), self.at)
    }
}

fn show(arg: &Arg) -> String {
    match arg {
        Arg::B(bytes) | Arg::P(bytes) => format!("b\"{}\"", bytes.escape_ascii()),
        other => format!("{other:?}"),
    }
}

/// Runs one request through `guest`, with everything around it that rows rely on.
fn play(row: &Row, guest: Guest, check: impl FnOnce(&Worker, &Exchange, &Story)) {
    let change = row.change;
    let (worker, story) = Scene::of(guest.abi(row.abi)).binding(0, change).start();
    worker.host.provide("echo", |arguments| Foreign::Done(arguments.to_vec()));
    worker.host.provide("bad", |_| Foreign::BadArgument);
    worker.host.provide("broken", |_| Foreign::Failed);
    worker.host.set_attribute("node.id", "node-1".into());
    let trailers: &[(&str, &str)] = &[("t", "1")];
    let mut request = worker.request("POST", "/path?q=1").header("x-a", "1").header("x-a", "2").header("x-empty", "");
    request = request.body(&["a=1", "&b=2"]).upstream(200, &[("server", "up"), ("content-length", "5")], &["world"]);
    request = request.stream(|stream| {
        stream.set_attribute_value("source.port", Value::Int(1234));
        stream.foreign_known = vec!["of.stream".into()];
    });
    if row.at == "request_trailers" {
        request = request.trailers(trailers);
    }
    if row.at == "response_trailers" {
        request = request.upstream_trailers(trailers);
    }
    let mut exchange = request.run();
    if matches!(row.at, "log" | "done" | "delete") {
        exchange.stream.finish();
    }
    if row.at == "tick" {
        worker.host.advance(Duration::from_secs(1));
        worker.run_timers();
    }
    check(&worker, &exchange, &story);
}

/// The answer that `function` got, its guest run with `steps` in the row's callback.
fn run(row: &Row) {
    let mut steps = row.before.clone();
    steps.push(row.call());
    if row.pauses {
        steps.push(Step::Return(1));
    }
    let mut guest = Guest::new().on(row.at, steps);
    if row.at == "tick" {
        guest = guest.on("configure", [call("proxy_set_tick_period_milliseconds", [I(100)])]);
    }
    play(row, guest, |worker, exchange, story| {
        let title = row.title();
        let status = match row.want {
            Want::Trap(kind, message) => return assert_trapped(worker, kind, message, &title),
            Want::Status(status) => status,
        };
        assert!(!worker.host.logged("ended in"), "{title}: {:?}", worker.host.log_lines());
        let answers = story.answers(row.function);
        let answer = answers.last().unwrap_or_else(|| panic!("{title}: it was not called: {:?}", story.callbacks()));
        assert_eq!(answer.status, status, "{title}: {:?}", worker.host.log_lines());
        if let Some(data) = &row.data {
            let got = answer.data.as_deref().unwrap_or_default();
            assert_eq!(got.escape_ascii().to_string(), data.escape_ascii().to_string(), "{title}");
            let pointer = answer.cells.iter().map(|cell| *cell as u32).find(|cell| *cell != UNTOUCHED as u32);
            assert_eq!(data.is_empty(), pointer == Some(0), "{title}: nothing is a null pointer");
        }
        if let Some(value) = row.cell {
            assert!(
                [UNTOUCHED & !0xFFFF_FFFF | value, value].contains(&answer.cells[0]),
                "{title}: {:x} is not {value:x}",
                answer.cells[0]
            );
        }
        if status != OK {
            assert!(row.module != "env" || answer.cells.iter().all(|cell| *cell == UNTOUCHED), "{title}: a failure writes nothing");
        }
        if let Some(counter) = row.counter {
            // Configured twice: by the proof at loading, and here.
            let times = if matches!(row.at, "configure" | "vm_start") { 2 } else { 1 };
            assert_eq!(worker.stats().counter(counter), times, "{title}: {counter:?}, {:?}", worker.host.log_lines());
        } else {
            assert_eq!(worker.stats().counter(Counter::WrongPhase), 0, "{title}: {:?}", worker.host.log_lines());
        }
        if let Some((what, effect)) = row.effect {
            assert!(effect(&Seen { worker, exchange, story, answer }), "{title}: {what}; {:?}", worker.host.log_lines());
        }
    });
}

/// Runs every row, whatever the others do.
fn run_all(rows: &[Row]) {
    let failed = rows.iter().filter(|row| std::panic::catch_unwind(AssertUnwindSafe(|| run(row))).is_err()).count();
    assert_eq!(failed, 0, "of {} rows; each is told above", rows.len());
}

fn assert_trapped(worker: &Worker, kind: TrapKind, message: &str, title: &str) {
    assert_eq!(worker.stats().traps(kind), 1, "{title}: {:?}", worker.host.log_lines());
    assert!(worker.host.logged(message), "{title}: {message:?} in {:?}", worker.host.log_lines());
}

#[test]
fn every_row_holds() {
    run_all(&rows::all());
}

#[test]
fn every_function_has_rows() {
    let tested: HashSet<_> = rows::all().iter().map(|row| (row.module, row.function)).collect();
    let missing: Vec<_> = weir_wasm::module::host_functions().filter(|function| !tested.contains(function)).collect();
    assert!(missing.is_empty(), "no rows for {missing:?}");
    let functions = weir_wasm::module::host_functions().count();
    assert!(functions >= 45 + 2 * 46 + 4, "{functions}");
}

/// The first row of each function: its good call.
fn good_calls() -> Vec<Row> {
    let mut seen = HashSet::new();
    rows::all().into_iter().filter(|row| seen.insert((row.module, row.function))).collect()
}

/// What may be called when there is no callback: nothing of it reaches beyond the guest and the log.
fn is_harmless(row: &Row) -> bool {
    let anytime = ["proxy_log", "proxy_get_log_level", "proxy_get_current_time_nanoseconds"];
    anytime.contains(&row.function) || row.module != "env" || !row.function.starts_with("proxy_") || row.is_unimplemented()
}

#[test]
fn start_functions_and_allocators_reach_nothing() {
    let allocating = call("proxy_get_property", [Arg::B(b"plugin_name".to_vec()), Data]);
    for row in good_calls() {
        let Want::Status(good) = row.want else { continue };
        for place in ["_initialize", "allocate"] {
            let args: Vec<_> = row.args.iter().map(|arg| if matches!(arg, Arg::Param(_)) { I(1) } else { arg.clone() }).collect();
            let steps = [Step::Call { module: row.module, name: row.function, args }];
            let guest = Guest::new().on(place, steps).on("request_headers", [allocating.clone()]).watching("response_headers");
            play(&row, guest, |worker, _, story| {
                let want = if is_harmless(&row) { good } else { INTERNAL_FAILURE };
                let answers = story.answers(row.function);
                let answer = answers.iter().find(|answer| row.function != "proxy_get_property" || answer.status != OK);
                let status = answer.map(|answer| answer.status);
                assert_eq!(status, Some(want), "{} from {place}: {:?}", row.title(), worker.host.log_lines());
                let counted = worker.stats().counter(Counter::WrongPhase);
                assert_eq!(counted > 0, want == INTERNAL_FAILURE, "{} from {place} is counted", row.title());
            });
        }
    }
}

/// Pointers that the function does not follow, by the index of the argument.
const NOT_FOLLOWED: &[(&str, usize)] = &[("args_get", 0), ("args_get", 1), ("poll_oneoff", 0), ("poll_oneoff", 1)];

/// Every way to point outside of memory with this argument.
fn bad_pointers(arg: &Arg) -> Vec<Vec<Arg>> {
    const BEYOND: u32 = 0xFFFF_FFF0;
    match arg {
        Arg::B(bytes) => {
            let length = bytes.len().max(1) as u32;
            let lengths = [0x7FFF_FFFF, u32::MAX, (4 << 16) + 1].map(|length| vec![At(0, length)]);
            [vec![At(BEYOND, length)], vec![At(BEYOND, 16)], vec![At((4 << 16) - 1, 2)]].into_iter().chain(lengths).collect()
        }
        Arg::Out | Arg::Keep(_) => vec![vec![I(BEYOND)], vec![I((4 << 16) - 2)], vec![I(u32::MAX)]],
        Arg::P(_) => vec![vec![I(BEYOND)], vec![I(u32::MAX)]],
        Data => vec![vec![I(BEYOND), I(64)], vec![I(64), I(BEYOND)], vec![I(u32::MAX), I(64)]],
        _ => Vec::new(),
    }
}

#[test]
fn a_pointer_outside_of_memory_ends_the_instance_and_names_the_function() {
    let mut rows = Vec::new();
    for good in good_calls() {
        if matches!(good.want, Want::Trap(..)) || good.is_unimplemented() || rows::is_stub(good.function) {
            continue;
        }
        for (index, arg) in good.args.iter().enumerate() {
            if NOT_FOLLOWED.contains(&(good.function, index)) {
                continue;
            }
            for bad in bad_pointers(arg) {
                let mut row = good.clone().traps(TrapKind::HostCall, good.function);
                row.args.splice(index..=index, bad);
                rows.push(row);
            }
        }
    }
    assert!(rows.len() > 250, "only {} pointers are tried", rows.len());
    run_all(&rows);
}

/// A response header that came through.
pub fn response(seen: &Seen<'_>, name: &str) -> Option<String> {
    seen.exchange.response_header(name)
}

/// All values of a request header as the upstream sees it.
pub fn request_values(seen: &Seen<'_>, name: &str) -> Vec<String> {
    let host = seen.exchange.stream.host();
    let pairs = &host.map(MessageMap::RequestHeaders).expect("a request").0;
    pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}
