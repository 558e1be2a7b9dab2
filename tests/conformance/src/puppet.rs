//! A guest without a will of its own: in every callback it asks the host what to do, does it, and reports how that went.
//!
//! It imports every function of the host and exports every callback of HTTP streams. A callback calls the foreign function `puppet.next` with its
//! number, the puppet's instance number and its own arguments, gets a [`Program`], makes the program's calls, hands them back with their statuses
//! to `puppet.done`, and then returns the program's answer or traps. Without a program it lets everything pass. Whoever cannot trust the puppet's
//! memory, because its programs may write anywhere, listens to `puppet.did`, which hears of every call right after it.
//!
//! What it deliberately does not do: decide, or check, anything.

use std::fmt::Write;

use weir_wasm::module::provided;

/// The callbacks it exports, by number: name, parameters, and what it answers without a program (`None`: it returns nothing).
pub const CALLBACKS: [(&str, usize, Option<u32>); 24] = [
    ("proxy_on_context_create", 2, None),
    ("proxy_on_vm_start", 2, Some(1)),
    ("proxy_on_configure", 2, Some(1)),
    ("proxy_on_tick", 1, None),
    ("proxy_on_request_headers", 3, Some(0)),
    ("proxy_on_request_body", 3, Some(0)),
    ("proxy_on_request_trailers", 2, Some(0)),
    ("proxy_on_response_headers", 3, Some(0)),
    ("proxy_on_response_body", 3, Some(0)),
    ("proxy_on_response_trailers", 2, Some(0)),
    ("proxy_on_http_call_response", 5, None),
    ("proxy_on_foreign_function", 3, None),
    ("proxy_on_log", 1, None),
    ("proxy_on_done", 1, Some(1)),
    ("proxy_on_delete", 1, None),
    ("proxy_on_request_metadata", 2, Some(0)),
    ("proxy_on_response_metadata", 2, Some(0)),
    ("proxy_on_grpc_receive_initial_metadata", 3, None),
    ("proxy_on_grpc_receive", 3, None),
    ("proxy_on_grpc_receive_trailing_metadata", 3, None),
    ("proxy_on_grpc_close", 3, None),
    ("proxy_on_queue_ready", 2, None),
    ("proxy_validate_configuration", 2, Some(1)),
    ("_initialize", 0, None),
];

/// Where a program lies in the puppet's memory: whatever else it is handed lies behind it.
pub const BASE: u32 = 0x1000;
/// The puppet's memory never grows past this.
pub const MEMORY: u32 = 4 << 16;

const HEADER: u32 = 32;
const RECORD: u32 = 112;
const OUT: u32 = 104;
/// The operation that is no host function: hands what the call before it got to `puppet.see`.
const SEE: u32 = 0xffff;

/// The number of a host function.
///
/// # Panics
/// When there is no such function.
#[must_use]
#[expect(clippy::panic, reason = "a test that names an unknown function is wrong itself")]
pub fn function(name: &str) -> u32 {
    let at = provided().position(|(_, function, _)| function == name);
    at.and_then(|at| u32::try_from(at).ok()).unwrap_or_else(|| panic!("the host provides no {name}"))
}

/// An argument of a host call, or two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number.
    Value(u64),
    /// A pointer to these bytes, and their length.
    Bytes(Vec<u8>),
    /// A pointer to where the call leaves its first (0) or second (1) result.
    Out(u32),
}

/// A host call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    function: u32,
    args: Vec<Arg>,
}

impl Call {
    /// A call of a host function; what it lacks in arguments is 0.
    #[must_use]
    pub fn new(function: u32, args: Vec<Arg>) -> Self {
        Self { function, args }
    }

    /// Shows the host, in `puppet.see`, the bytes that the call before this one got.
    #[must_use]
    pub fn see() -> Self {
        Self::new(SEE, Vec::new())
    }
}

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The status it answered.
    pub status: u32,
    /// Its results, if it had any.
    pub out: [u32; 2],
}

/// What the puppet does in one callback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// What the callback returns.
    pub answer: u32,
    /// Trap instead of returning.
    pub trap: bool,
    /// Gives the instance a number that it names itself by from now on; 0: no change.
    pub instance: u32,
    /// If not 0: what the allocator answers for the rest of the callback.
    pub lie: u32,
    /// If not 0: the allocator makes this call (counted from 1) when it is first asked for memory.
    pub nested: u32,
}

impl Program {
    /// The program as the puppet reads it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = self.calls.len() as u32;
        let mut head = Vec::new();
        for word in [count, self.answer, u32::from(self.trap), self.instance, self.lie, self.nested, 0, 0] {
            head.extend(word.to_le_bytes());
        }
        let mut data = Vec::new();
        let data_at = BASE + HEADER + RECORD * count;
        for (index, call) in self.calls.iter().enumerate() {
            let out_at = BASE + HEADER + RECORD * index as u32 + OUT;
            let mut args = Vec::new();
            for arg in &call.args {
                match arg {
                    Arg::Value(value) => args.push(*value),
                    Arg::Out(which) => args.push(u64::from(out_at + 4 * which)),
                    Arg::Bytes(bytes) => {
                        args.extend([u64::from(data_at) + data.len() as u64, bytes.len() as u64]);
                        data.extend_from_slice(bytes);
                    }
                }
            }
            args.resize(12, 0);
            head.extend(u64::from(call.function).to_le_bytes());
            args.iter().for_each(|arg| head.extend(arg.to_le_bytes()));
            head.extend([0; 8]);
        }
        head.extend(data);
        head
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// What `puppet.done` was handed: the program's calls with how they went.
#[must_use]
pub fn outcomes(report: &[u8]) -> Vec<Outcome> {
    let one = |index: u32| {
        let at = (HEADER + RECORD * index) as usize;
        Outcome { status: word(report, at), out: [word(report, at + OUT as usize), word(report, at + OUT as usize + 4)] }
    };
    let whole = report.len().saturating_sub(HEADER as usize) / RECORD as usize;
    (0..word(report, 0).min(whole as u32)).map(one).collect()
}

/// What `puppet.next` was handed: the callback's number, the instance's number, the arguments.
#[must_use]
pub fn asked(arguments: &[u8]) -> (usize, u32, [u32; 5]) {
    let args = [8, 12, 16, 20, 24].map(|at| word(arguments, at));
    (word(arguments, 0) as usize, word(arguments, 4), args)
}

/// What `puppet.did` was handed: the function's number and the status it answered.
#[must_use]
pub fn did(arguments: &[u8]) -> (u32, u32) {
    (word(arguments, 0), word(arguments, 4))
}

/// A header map as the ABI writes it.
#[must_use]
pub fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        out.extend((name.len() as u32).to_le_bytes());
        out.extend((value.len() as u32).to_le_bytes());
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        out.extend(text.bytes());
        out.push(0);
    }
    out
}

/// The puppet, as WebAssembly text.
#[must_use]
pub fn wat() -> String {
    let mut imports = String::new();
    let mut stubs = String::new();
    let mut names = String::new();
    for (index, (module, name, signature)) in provided().enumerate() {
        let list = |types: &[_]| types.iter().map(|ty: &weir_wasm::module::ValType| ty.to_string()).collect::<Vec<_>>();
        let (params, results) = (list(signature.params()), list(signature.results()));
        let _ = writeln!(
            imports,
            "(import \"{module}\" \"{name}\" (func $f{index} (param {}) (result {})))",
            params.join(" "),
            results.join(" ")
        );
        let mut call = format!("(call $f{index}");
        for (at, ty) in params.iter().enumerate() {
            let _ = write!(call, " ({ty}.load offset={} (local.get $r))", 8 + at * 8);
        }
        call.push(')');
        let body = match results.first().map(String::as_str) {
            Some("i32") => call,
            Some(_) => format!("(drop {call}) (i32.const 0)"),
            None => format!("{call} (i32.const 0)"),
        };
        let _ = writeln!(stubs, "(func $w{index} (param $r i32) (result i32) {body})");
        let _ = write!(names, " $w{index}");
    }
    let mut exports = String::new();
    for (number, (name, params, answer)) in CALLBACKS.iter().enumerate() {
        let args: String = (0..5).map(|at| if at < *params { format!(" (local.get {at})") } else { " (i32.const 0)".into() }).collect();
        let call = format!("(call $enter (i32.const {number}){args} (i32.const {}))", answer.unwrap_or(0));
        let body = if answer.is_some() { call } else { format!("(drop {call})") };
        let result = if answer.is_some() { " (result i32)" } else { "" };
        let _ = writeln!(exports, "(func (export \"{name}\") (param{}){result} {body})", " i32".repeat(*params));
    }
    let foreign = function("proxy_call_foreign_function");
    PUPPET
        .replace("{{imports}}", &imports)
        .replace("{{stubs}}", &stubs)
        .replace("{{names}}", &names)
        .replace("{{exports}}", &exports)
        .replace("$foreign", &format!("$f{foreign}"))
}

/// The puppet, compiled.
///
/// # Panics
/// Never, unless the text above is wrong.
#[must_use]
#[expect(clippy::expect_used, reason = "the text is ours: that it parses is what every test here stands on")]
pub fn wasm() -> Vec<u8> {
    wat::parse_str(wat()).expect("the puppet is valid")
}

// Memory: 0x40 names, written anew in every callback, since a program may write anywhere; 0x80 pointer and size of what a foreign function
// answered; 0x100 what `puppet.next` is told; 0x1000 the program.
const PUPPET: &str = r#"(module
{{imports}}
(type $stub (func (param i32) (result i32)))
(memory (export "memory") 4 4)
(data $names "puppet.next\00\00\00\00\00puppet.see\00\00\00\00\00\00puppet.done\00\00\00\00\00puppet.did")
(table funcref (elem{{names}}))
(global $instance (mut i32) (i32.const 0))
(global $free (mut i32) (i32.const 0x1000))
(global $lie (mut i32) (i32.const 0))
(global $nested (mut i32) (i32.const 0))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (local $at i32)
  (if (global.get $nested) (then
    (local.set $at (global.get $nested))
    (global.set $nested (i32.const 0))
    (call $record (local.get $at))))
  (if (global.get $lie) (then (return (global.get $lie))))
  (local.set $at (global.get $free))
  (if (i32.gt_u (local.get $size) (i32.sub (i32.const 0x40000) (local.get $at))) (then (return (i32.const 0))))
  (global.set $free (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
  (local.get $at))
{{stubs}}
(func $record (param $r i32)
  (local $function i32) (local $status i32)
  (if (i32.eq (i32.load (local.get $r)) (i32.const 0xffff))
    (then (drop (call $foreign (i32.const 0x50) (i32.const 10)
      (i32.load (i32.sub (local.get $r) (i32.const 8))) (i32.load (i32.sub (local.get $r) (i32.const 4)))
      (i32.const 0) (i32.const 0))))
    (else
      (local.set $function (i32.load (local.get $r)))
      (local.set $status (call_indirect (type $stub) (local.get $r) (local.get $function)))
      (i32.store (local.get $r) (local.get $status))
      (memory.init $names (i32.const 0x40) (i32.const 0) (i32.const 58))
      (i32.store (i32.const 0x100) (local.get $function))
      (i32.store (i32.const 0x104) (local.get $status))
      (drop (call $foreign (i32.const 0x70) (i32.const 10) (i32.const 0x100) (i32.const 8) (i32.const 0) (i32.const 0))))))
(func $enter (param $callback i32) (param $a i32) (param $b i32) (param $c i32) (param $d i32) (param $e i32) (param $neutral i32) (result i32)
  (local $p i32) (local $r i32) (local $count i32)
  (memory.init $names (i32.const 0x40) (i32.const 0) (i32.const 58))
  (global.set $free (i32.const 0x1000))
  (global.set $lie (i32.const 0))
  (global.set $nested (i32.const 0))
  (i64.store (i32.const 0x80) (i64.const 0))
  (i32.store (i32.const 0x100) (local.get $callback))
  (i32.store (i32.const 0x104) (global.get $instance))
  (i32.store (i32.const 0x108) (local.get $a))
  (i32.store (i32.const 0x10c) (local.get $b))
  (i32.store (i32.const 0x110) (local.get $c))
  (i32.store (i32.const 0x114) (local.get $d))
  (i32.store (i32.const 0x118) (local.get $e))
  (drop (call $foreign (i32.const 0x40) (i32.const 11) (i32.const 0x100) (i32.const 28) (i32.const 0x80) (i32.const 0x84)))
  (local.set $p (i32.load (i32.const 0x80)))
  (if (i32.eqz (local.get $p)) (then (return (local.get $neutral))))
  (if (i32.load offset=12 (local.get $p)) (then (global.set $instance (i32.load offset=12 (local.get $p)))))
  (local.set $count (i32.load (local.get $p)))
  (local.set $r (i32.add (local.get $p) (i32.const 32)))
  (global.set $lie (i32.load offset=16 (local.get $p)))
  (if (i32.load offset=20 (local.get $p))
    (then (global.set $nested
      (i32.add (local.get $r) (i32.mul (i32.sub (i32.load offset=20 (local.get $p)) (i32.const 1)) (i32.const 112))))))
  (block $end (loop $next
    (br_if $end (i32.eqz (local.get $count)))
    (call $record (local.get $r))
    (local.set $count (i32.sub (local.get $count) (i32.const 1)))
    (local.set $r (i32.add (local.get $r) (i32.const 112)))
    (br $next)))
  (drop (call $foreign (i32.const 0x60) (i32.const 11)
    (local.get $p) (i32.sub (local.get $r) (local.get $p)) (i32.const 0) (i32.const 0)))
  (if (i32.load offset=8 (local.get $p)) (then (unreachable)))
  (i32.load offset=4 (local.get $p)))
{{exports}})"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_puppet_knows_every_callback_of_the_host() {
        use weir_wasm::stats::Callback;
        let known: Vec<&str> = CALLBACKS.iter().map(|(name, _, _)| *name).collect();
        let is_tcp = |name: &str| ["stream", "connection", "upstream"].iter().any(|word| name.contains(word));
        for callback in Callback::ALL.iter().filter(|callback| !is_tcp(callback.name())) {
            assert!(known.contains(&callback.name()), "{}", callback.name());
        }
    }
}
