//! Runs a filter's native code in the production host: behind a module that only relays.
//!
//! The relay exports the filter's callbacks. Each asks the foreign function `weir.native.N` what to do; the answer is a host call, which the relay makes and
//! reports, or the callback's result. Between those turns the filter waits on a thread of its own, one a instance, as each Wasm instance has memory of
//! its own. So the host is the real one: order, pauses, limits, failure policy; and the filter can be stepped through, covered and sanitised.
//!
//! What always holds: where nobody answers, as while the host tries the module out at load, the relay lets everything pass; the filter runs only while the host waits for it; a panic is a trap; a filter that takes longer than [`PATIENCE`] is a trap too. What it
//! does not do: measure; a relayed host call costs microseconds.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use weir_sdk::native::{self, Argument, Callback, Caller, Instance, Outcome, Registered};
use weir_wasm::module::{ValType, provided};
use weir_wasm::{Foreign, SharedHost};

use crate::MemoryHost;

/// What the names of its foreign functions begin with.
pub(crate) const RELAY: &str = "weir.native.";
const PATIENCE: Duration = Duration::from_secs(20);
const PROOF: Duration = Duration::from_millis(100);
/// Where the relay's answers lie, and within one: its arguments, and what those point to.
const ANSWER: u64 = 0x1000;
const ARGUMENTS: usize = 16;
const DATA: usize = ARGUMENTS + 12 * 8;
/// Where a host call leaves a pointer, a size and a number.
const OUT: [u64; 3] = [0x300, 0x304, 0x308];

/// A native filter, ready to be started any number of times.
#[derive(Clone)]
pub(crate) struct Relay {
    name: String,
    start: fn() -> Box<dyn Instance>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Relay {
    pub(crate) fn new<F: Registered>() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self { name: format!("{RELAY}{}", NEXT.fetch_add(1, Ordering::Relaxed)), start: F::instance }
    }

    /// The module.
    #[expect(clippy::expect_used, reason = "the text is ours: that it parses is what every native test stands on")]
    pub(crate) fn wasm(&self) -> Vec<u8> {
        wat::parse_str(self.wat((self.start)().callbacks())).expect("the relay is valid")
    }

    /// The host that the module is proven on, before it runs. Later starts are bounded by what the proof took, and each turn here depends on the
    /// machine's scheduler: so the proof takes its time.
    pub(crate) fn canary(&self, host: MemoryHost) -> SharedHost {
        self.answer(&host, PROOF);
        Rc::new(host)
    }

    /// Answers the module's turns.
    pub(crate) fn serve(&self, host: &MemoryHost) {
        self.answer(host, Duration::ZERO);
    }

    fn answer(&self, host: &MemoryHost, first_takes: Duration) {
        let turns = Turns { start: self.start, filters: RefCell::default(), looking: Cell::new(0), first_takes: Cell::new(first_takes) };
        let turns = Rc::new(turns);
        let bytes = Rc::clone(&turns);
        host.provide(&self.name, move |message| Foreign::Done(turns.turn(message)));
        host.provide(&format!("{}.bytes", self.name), move |message| Foreign::Done(bytes.bytes(message)));
    }

    fn wat(&self, callbacks: &[Callback]) -> String {
        let (mut imports, mut stubs, mut names, mut exports) = (String::new(), String::new(), String::new(), String::new());
        for (index, (module, name, signature)) in provided().enumerate().filter(|(_, (module, ..))| *module == "env") {
            let params: Vec<&ValType> = signature.params().iter().collect();
            let list: String = params.iter().map(|ty| format!(" {ty}")).collect();
            if signature.results() != [ValType::I32] {
                continue;
            }
            let _ = writeln!(imports, "(import \"{module}\" \"{name}\" (func $f{index} (param{list}) (result i32)))");
            let loads: String =
                params.iter().enumerate().map(|(at, ty)| format!(" ({ty}.load offset={} (local.get $r))", ARGUMENTS + at * 8)).collect();
            let _ = writeln!(stubs, "(func $w{index} (param $r i32) (result i32) (call $f{index}{loads}))");
            let _ = write!(names, "(elem (i32.const {index}) $w{index})");
        }
        for callback in callbacks {
            let number = Callback::ALL.iter().position(|known| known == callback).unwrap_or_default();
            let count = callback.arguments();
            let arguments: String =
                (0..5).map(|at| if at < count { format!(" (local.get {at})") } else { " (i32.const 0)".into() }).collect();
            let neutral = u32::from(*callback == Callback::Configure);
            let call = format!("(call $enter (i32.const {number}){arguments} (i32.const {neutral}))");
            let (result, body) = if callback.answers() { (" (result i32)", call) } else { ("", format!("(drop {call})")) };
            let _ = writeln!(exports, "(func (export \"{}\") (param{}){result} {body})", callback.export(), " i32".repeat(count));
        }
        let foreign = format!("$f{}", function("proxy_call_foreign_function").unwrap_or_default());
        MODULE
            .replace("{{imports}}", &imports)
            .replace("{{stubs}}", &stubs)
            .replace("{{names}}", &names)
            .replace("{{table}}", &provided().count().to_string())
            .replace("{{exports}}", &exports)
            .replace("{{name}}", &self.name)
            .replace("{{name_size}}", &self.name.len().to_string())
            .replace("{{bytes_size}}", &(self.name.len() + ".bytes".len()).to_string())
            .replace("$foreign", &foreign)
    }
}

/// The number of a host function.
fn function(name: &str) -> Option<usize> {
    provided().position(|(module, function, _)| module == "env" && function == name)
}

const MODULE: &str = r#"(module
{{imports}}
(type $stub (func (param i32) (result i32)))
(memory (export "memory") 4)
(data (i32.const 0x40) "{{name}}")
(data (i32.const 0x80) "{{name}}.bytes")
(table {{table}} funcref)
{{names}}
(global $instance (mut i32) (i32.const 0))
(global $free (mut i32) (i32.const 0x1000))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (local $at i32) (local $end i32) (local $pages i32)
  (local.set $at (global.get $free))
  (local.set $end (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
  (local.set $pages (i32.add (i32.shr_u (local.get $end) (i32.const 16)) (i32.const 1)))
  (if (i32.gt_u (local.get $pages) (memory.size)) (then
    (if (i32.eq (memory.grow (i32.sub (local.get $pages) (memory.size))) (i32.const -1)) (then (return (i32.const 0))))))
  (global.set $free (local.get $end))
  (local.get $at))
{{stubs}}
(func $turn (param $name i32) (param $name_size i32) (param $at i32) (param $size i32) (result i32)
  (global.set $free (i32.const 0x1000))
  (i32.store (i32.const 0x200) (i32.const 0))
  (drop (call $foreign (local.get $name) (local.get $name_size) (local.get $at) (local.get $size) (i32.const 0x200) (i32.const 0x204)))
  (if (i32.load (i32.const 0x200)) (then (global.set $instance (i32.load offset=4 (i32.load (i32.const 0x200))))))
  (i32.load (i32.const 0x200)))
(func $enter (param $callback i32) (param $a i32) (param $b i32) (param $c i32) (param $d i32) (param $e i32) (param $neutral i32)
  (result i32)
  (local $answer i32) (local $status i32) (local $op i32)
  (i32.store (i32.const 0x100) (i32.const 0))
  (i32.store (i32.const 0x104) (global.get $instance))
  (i32.store (i32.const 0x108) (local.get $callback))
  (i32.store (i32.const 0x10c) (local.get $a))
  (i32.store (i32.const 0x110) (local.get $b))
  (i32.store (i32.const 0x114) (local.get $c))
  (i32.store (i32.const 0x118) (local.get $d))
  (i32.store (i32.const 0x11c) (local.get $e))
  (local.set $answer (call $turn (i32.const 0x40) (i32.const {{name_size}}) (i32.const 0x100) (i32.const 32)))
  (loop $next
    (if (i32.eqz (local.get $answer)) (then (return (local.get $neutral))))
    (local.set $op (i32.load (local.get $answer)))
    (if (i32.eqz (local.get $op)) (then (return (i32.load offset=8 (local.get $answer)))))
    (if (i32.eq (local.get $op) (i32.const 1)) (then (unreachable)))
    (if (i32.eq (local.get $op) (i32.const 3)) (then
      (local.set $answer (call $turn (i32.const 0x80) (i32.const {{bytes_size}}) (i32.load (i32.const 0x300)) (i32.load (i32.const 0x304))))
      (br $next)))
    (i64.store (i32.const 0x300) (i64.const 0))
    (i64.store (i32.const 0x308) (i64.const 0))
    (local.set $status (call_indirect (type $stub) (local.get $answer) (i32.load offset=8 (local.get $answer))))
    (i32.store (i32.const 0x100) (i32.const 1))
    (i32.store (i32.const 0x104) (global.get $instance))
    (i32.store (i32.const 0x108) (local.get $status))
    (i32.store (i32.const 0x10c) (i32.load (i32.const 0x304)))
    (i64.store (i32.const 0x110) (i64.load (i32.const 0x308)))
    (local.set $answer (call $turn (i32.const 0x40) (i32.const {{name_size}}) (i32.const 0x100) (i32.const 32)))
    (br $next))
  (unreachable))
{{exports}})"#;

/// What the filter's thread is told.
enum ToFilter {
    Run(Callback, [u32; 5]),
    Outcome(Outcome),
}

/// What it wants.
enum FromFilter {
    Call { function: usize, arguments: Vec<Owned> },
    Return(u32),
}

enum Owned {
    Number(u64),
    Bytes(Vec<u8>),
    OutBytes,
    OutNumber,
}

/// A filter on its thread. The thread ends when this is dropped.
struct Thread {
    to: Sender<ToFilter>,
    from: Receiver<FromFilter>,
    /// A host call's outcome whose bytes are still to come.
    outcome: Outcome,
}

impl Thread {
    fn start(start: fn() -> Box<dyn Instance>) -> Self {
        let (to, inbox) = channel();
        let (outbox, from) = channel();
        std::thread::spawn(move || live(start, inbox, &outbox));
        Self { to, from, outcome: Outcome::default() }
    }

    /// The next thing it wants. `None`: it panicked, or takes too long.
    fn tell(&self, message: ToFilter) -> Option<FromFilter> {
        self.to.send(message).ok()?;
        self.from.recv_timeout(PATIENCE).ok()
    }
}

fn live(start: fn() -> Box<dyn Instance>, inbox: Receiver<ToFilter>, outbox: &Sender<FromFilter>) {
    let instance = start();
    let inbox = Rc::new(inbox);
    native::install(Some(Box::new(Line { inbox: Rc::clone(&inbox), outbox: outbox.clone() })));
    while let Ok(ToFilter::Run(callback, arguments)) = inbox.recv() {
        if outbox.send(FromFilter::Return(instance.run(callback, arguments))).is_err() {
            return;
        }
    }
}

/// The filter's end of its host calls.
struct Line {
    inbox: Rc<Receiver<ToFilter>>,
    outbox: Sender<FromFilter>,
}

impl Caller for Line {
    fn call(&mut self, name: &str, arguments: &[Argument<'_>]) -> Outcome {
        const UNIMPLEMENTED: Outcome = Outcome { status: 12, bytes: Vec::new(), number: 0 };
        let Some(function) = function(name) else { return UNIMPLEMENTED };
        let own = |argument: &Argument<'_>| match argument {
            Argument::Number(number) => Owned::Number(*number),
            Argument::Bytes(bytes) => Owned::Bytes(bytes.to_vec()),
            Argument::OutBytes => Owned::OutBytes,
            Argument::OutNumber => Owned::OutNumber,
        };
        let call = FromFilter::Call { function, arguments: arguments.iter().map(own).collect() };
        match self.outbox.send(call).ok().and_then(|()| self.inbox.recv().ok()) {
            Some(ToFilter::Outcome(outcome)) => outcome,
            _ => UNIMPLEMENTED,
        }
    }
}

/// All instances of one native filter.
struct Turns {
    start: fn() -> Box<dyn Instance>,
    filters: RefCell<BTreeMap<u32, Thread>>,
    /// Whose bytes come next.
    looking: Cell<u32>,
    /// How long the next turn takes, at least.
    first_takes: Cell<Duration>,
}

impl Turns {
    /// A callback began, or a host call is done.
    fn turn(&self, message: &[u8]) -> Vec<u8> {
        std::thread::sleep(self.first_takes.take());
        let word = |at: usize| message.get(at * 4..at * 4 + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes);
        let mut filters = self.filters.borrow_mut();
        let instance = match word(1) {
            0 => filters.len() as u32 + 1,
            known => known,
        };
        let filter = filters.entry(instance).or_insert_with(|| Thread::start(self.start));
        if word(0) == 0 {
            let Some(callback) = Callback::ALL.get(word(2) as usize) else { return trap(instance) };
            return want(instance, filter.tell(ToFilter::Run(*callback, [3, 4, 5, 6, 7].map(word))));
        }
        let number = u64::from(word(4)) | u64::from(word(5)) << 32;
        let outcome = Outcome { status: word(2), bytes: Vec::new(), number };
        if word(3) > 0 && outcome.status == 0 {
            filter.outcome = outcome;
            self.looking.set(instance);
            return answer(3, instance, 0);
        }
        want(instance, filter.tell(ToFilter::Outcome(outcome)))
    }

    /// The bytes that a host call answered with.
    fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let instance = self.looking.get();
        let mut filters = self.filters.borrow_mut();
        let Some(filter) = filters.get_mut(&instance) else { return trap(instance) };
        let outcome = Outcome { bytes: bytes.to_vec(), ..std::mem::take(&mut filter.outcome) };
        want(instance, filter.tell(ToFilter::Outcome(outcome)))
    }
}

fn answer(op: u32, instance: u32, value: u32) -> Vec<u8> {
    [op, instance, value, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn trap(instance: u32) -> Vec<u8> {
    answer(1, instance, 0)
}

/// What the relay does next.
fn want(instance: u32, wanted: Option<FromFilter>) -> Vec<u8> {
    let (function, arguments) = match wanted {
        None => return trap(instance),
        Some(FromFilter::Return(value)) => return answer(0, instance, value),
        Some(FromFilter::Call { function, arguments }) => (function, arguments),
    };
    let (mut words, mut data) = (Vec::new(), Vec::new());
    for argument in arguments {
        match argument {
            Owned::Number(number) => words.push(number),
            Owned::OutBytes => words.extend([OUT[0], OUT[1]]),
            Owned::OutNumber => words.push(OUT[2]),
            Owned::Bytes(bytes) => {
                words.extend([ANSWER + (DATA + data.len()) as u64, bytes.len() as u64]);
                data.extend(bytes);
            }
        }
    }
    words.resize(12, 0);
    let mut out = answer(2, instance, function as u32);
    words.iter().for_each(|word| out.extend(word.to_le_bytes()));
    out.extend(data);
    out
}
