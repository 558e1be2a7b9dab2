//! Guests written as lists of host calls: what a callback calls, with which arguments, and what it returns.
//!
//! A [`Guest`] becomes WebAssembly text. It tells the test everything through foreign functions, which keep bytes as they are: each callback that
//! was entered with its parameters, each call with its status, its out-values and the bytes it got. Calls from a start function or the allocator,
//! where no foreign function may be called, are told by the next callback.

use std::fmt::Write;

/// One argument, or the pointer-and-length pair of bytes.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A number.
    I(u32),
    /// A 64-bit number.
    L(i64),
    /// Pointer and length of bytes in the guest's memory.
    B(Vec<u8>),
    /// Pointer to bytes in the guest's memory, without a length.
    P(Vec<u8>),
    /// Any pointer and length.
    At(u32, u32),
    /// Pointer to an out-value of eight bytes.
    Out,
    /// The same, and its first four bytes are kept as variable n.
    Keep(u32),
    /// Pointers to where a pointer and a size go: the bytes there are told to the test.
    Data,
    /// The variable n.
    Var(u32),
    /// Parameter n of the callback.
    Param(u32),
}

pub use Arg::{At, Data, I, Keep, L, Out, P, Param, Var};
pub use Step::Return;

/// A string as pointer and length.
#[allow(non_snake_case, reason = "reads as the argument kinds beside it")]
pub fn S(text: &str) -> Arg {
    Arg::B(text.as_bytes().to_vec())
}

/// A header map as pointer and length.
#[allow(non_snake_case, reason = "reads as the argument kinds beside it")]
pub fn M(pairs: &[(&str, &str)]) -> Arg {
    Arg::B(map(pairs))
}

/// A header map as the ABI writes it: this test's own encoder.
pub fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (key, value) in pairs {
        bytes.extend((key.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (key, value) in pairs {
        bytes.extend([key.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    bytes
}

/// Something a callback does.
#[derive(Clone, Debug)]
pub enum Step {
    /// A host call.
    Call { module: &'static str, name: &'static str, args: Vec<Arg> },
    /// WebAssembly text.
    Raw(String),
    /// The callback ends with this value.
    Return(u32),
}

/// A call of a function in `env`.
pub fn call(name: &'static str, args: impl Into<Vec<Arg>>) -> Step {
    call_in("env", name, args)
}

/// A call of a function in another module.
pub fn call_in(module: &'static str, name: &'static str, args: impl Into<Vec<Arg>>) -> Step {
    Step::Call { module, name, args: args.into() }
}

/// What the guest's allocator does.
#[derive(Clone, Copy, Debug, Default)]
pub enum Allocator {
    /// It gives fresh memory.
    #[default]
    Good,
    /// It always returns this.
    Returns(u32),
    /// The module has none.
    None,
}

/// A guest in the making.
#[derive(Clone, Debug)]
pub struct Guest {
    /// How the test names it in its story.
    pub tag: char,
    abi: &'static str,
    allocator: Allocator,
    allocator_name: &'static str,
    callbacks: Vec<(String, u32, Vec<Step>)>,
    items: String,
}

/// The names that a guest's reports refer to by number.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub callbacks: Vec<String>,
    pub calls: Vec<String>,
}

const RECORD: u32 = 48;
const RECORDS: u32 = 4096;
const VARS: u32 = 256;
const ENTERED: u32 = 384;
const STRINGS: u32 = 32768;
const HEAP: u32 = 131_072;

/// The number of parameters of a callback, and its result: `None`, or what it returns unless a step says otherwise.
fn signature(callback: &str) -> (u32, Option<u32>) {
    match callback {
        "_initialize" | "_start" => (0, None),
        "main" => (2, Some(0)),
        "__main_void" => (0, Some(0)),
        "allocate" => (1, None),
        "tick" | "log" | "delete" => (1, None),
        "done" => (1, Some(1)),
        "new_connection" => (1, Some(0)),
        "vm_start" | "configure" => (2, Some(1)),
        "context_create" | "downstream_connection_close" | "upstream_connection_close" | "queue_ready" => (2, None),
        "request_trailers" | "response_trailers" | "request_metadata" | "response_metadata" => (2, Some(0)),
        "http_call_response" => (5, None),
        "foreign_function" => (3, None),
        name if name.starts_with("grpc_") => (3, None),
        _ => (3, Some(0)),
    }
}

fn result_of(function: &str) -> &'static str {
    match function {
        "proc_exit" | "abort" | "emscripten_notify_memory_growth" => "",
        "seed" => "f64",
        _ => "i32",
    }
}

fn is_export_name(callback: &str) -> bool {
    matches!(callback, "_initialize" | "_start" | "main" | "__main_void")
}

impl Guest {
    pub fn new() -> Self {
        Self {
            tag: 'a',
            abi: "0_2_1",
            allocator: Allocator::Good,
            allocator_name: "proxy_on_memory_allocate",
            callbacks: Vec::new(),
            items: String::new(),
        }
    }

    /// The name it has in a story.
    pub fn tag(mut self, tag: char) -> Self {
        self.tag = tag;
        self
    }

    pub fn abi(mut self, version: &'static str) -> Self {
        self.abi = version;
        self
    }

    pub fn allocator(mut self, allocator: Allocator) -> Self {
        self.allocator = allocator;
        self
    }

    pub fn allocator_name(mut self, name: &'static str) -> Self {
        self.allocator_name = name;
        self
    }

    /// Further items of the module, as text.
    pub fn item(mut self, text: &str) -> Self {
        self.items.push_str(text);
        self
    }

    /// What `proxy_on_CALLBACK` does (or `_initialize`, `_start`, `main`, or `allocate`, the allocator). Calling it again adds steps.
    pub fn on(self, callback: &str, steps: impl Into<Vec<Step>>) -> Self {
        let params = signature(callback).0;
        self.on_with(callback, params, steps)
    }

    /// The same with a number of parameters of one's own.
    pub fn on_with(mut self, callback: &str, params: u32, steps: impl Into<Vec<Step>>) -> Self {
        match self.callbacks.iter_mut().find(|(name, ..)| name == callback) {
            Some((.., known)) => known.extend(steps.into()),
            None => self.callbacks.push((callback.to_owned(), params, steps.into())),
        }
        self
    }

    /// These callbacks are told and do nothing more.
    pub fn watching(self, callbacks: &str) -> Self {
        callbacks.split_whitespace().fold(self, |guest, callback| guest.on(callback, []))
    }

    /// The module as text, and what its reports refer to.
    pub fn build(&self) -> (String, Names) {
        Builder::new(self).build()
    }
}

struct Builder<'g> {
    guest: &'g Guest,
    imports: Vec<String>,
    strings: Vec<u8>,
    names: Names,
    flush: String,
    functions: String,
}

/// The arguments of a call as text.
#[derive(Default)]
struct Passed {
    types: String,
    values: String,
    /// What keeps out-values in variables, after the call.
    kept: String,
    /// The cell of a pointer that comes back; its size is in the next.
    data: Option<u32>,
}

fn constant(value: u32) -> String {
    format!("(i32.const {})", value.cast_signed())
}

impl<'g> Builder<'g> {
    fn new(guest: &'g Guest) -> Self {
        let names = Names::default();
        let strings = b"report\0\0bytes\0\0\0entered\0".to_vec();
        Self { guest, imports: Vec::new(), strings, names, flush: String::new(), functions: String::new() }
    }

    fn build(mut self) -> (String, Names) {
        for (callback, params, steps) in &self.guest.callbacks {
            self.callback(callback, *params, steps);
        }
        self.allocator();
        let mut wat =
            "(module\n(import \"env\" \"proxy_call_foreign_function\" (func $tell (param i32 i32 i32 i32 i32 i32) (result i32)))\n"
                .to_owned();
        for text in &self.imports {
            wat += text;
        }
        let tag = u32::from(self.guest.tag);
        let data: String = self.strings.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let _ = write!(
            wat,
            "(memory (export \"memory\") 4)\n(data (i32.const {STRINGS}) \"{data}\")\n(global $heap (mut i32) (i32.const {HEAP}))\n\
             (global $tag i32 (i32.const {tag}))\n(func (export \"proxy_abi_version_{}\"))\n(func $flush {})\n{}{})",
            self.guest.abi, self.flush, self.functions, self.guest.items
        );
        (wat, self.names)
    }

    fn tell(kind: u32, pointer: &str, size: &str) -> String {
        let length = [6, 5, 7][kind as usize];
        format!(
            "(drop (call $tell (i32.const {}) (i32.const {length}) {pointer} {size} (i32.const 0) (i32.const 0)))\n",
            STRINGS + kind * 8
        )
    }

    fn callback(&mut self, callback: &str, params: u32, steps: &[Step]) {
        let quiet = is_export_name(callback) || callback == "allocate";
        let number = self.names.callbacks.len() as u32;
        self.names.callbacks.push(callback.to_owned());
        let mut body = String::new();
        if !quiet {
            let cells = ["(global.get $tag)".to_owned(), format!("(i32.const {number})"), format!("(i32.const {params})")];
            let params = (0..params).map(|param| format!("(local.get {param})"));
            for (index, value) in cells.into_iter().chain(params).enumerate() {
                let _ = writeln!(body, "(i32.store (i32.const {}) {value})", ENTERED + index as u32 * 4);
            }
            body += &Self::tell(2, &format!("(i32.const {ENTERED})"), "(i32.const 32)");
            body += "(call $flush)\n";
        }
        let mut result = signature(callback).1;
        for step in steps {
            match step {
                Step::Raw(text) => body += text,
                Return(value) => result = Some(*value),
                Step::Call { module, name, args } => self.host_call(&mut body, module, name, args, quiet),
            }
        }
        if callback == "allocate" {
            let _ = writeln!(self.functions, "(func $allocating (param i32)\n{body})");
            return;
        }
        let prefix = if is_export_name(callback) { "" } else { "proxy_on_" };
        let params = "i32 ".repeat(params as usize);
        let (declared, value) =
            result.map_or((String::new(), String::new()), |value| ("(result i32)".into(), format!("(i32.const {value})")));
        let _ = writeln!(self.functions, "(func (export \"{prefix}{callback}\") (param {params}) {declared}\n{body}{value})");
    }

    fn string(&mut self, bytes: &[u8]) -> u32 {
        while !self.strings.len().is_multiple_of(8) {
            self.strings.push(0);
        }
        let at = STRINGS + self.strings.len() as u32;
        self.strings.extend_from_slice(bytes);
        at
    }

    fn host_call(&mut self, body: &mut String, module: &str, name: &str, args: &[Arg], quiet: bool) {
        let number = self.names.calls.len() as u32;
        self.names.calls.push(name.to_owned());
        let record = RECORDS + number * RECORD;
        let Passed { types, values, kept, data } = self.pass(args, record + 16);
        let result = result_of(name);
        let declared = if result.is_empty() { String::new() } else { format!("(result {result})") };
        self.imports.push(format!("(import \"{module}\" \"{name}\" (func $f{number} (param {types}) {declared}))\n"));
        let (status, first) = (record + 8, record + 16);
        let _ = writeln!(body, "(memory.fill (i32.const {status}) (i32.const 0xEE) (i32.const 40))");
        let call = format!("(call $f{number} {values})");
        let _ = match result {
            "" => writeln!(body, "{call} (i32.store (i32.const {status}) (i32.const 0))"),
            "f64" => writeln!(body, "(f64.store (i32.const {first}) {call}) (i32.store (i32.const {status}) (i32.const 0))"),
            _ => writeln!(body, "(i32.store (i32.const {status}) {call})"),
        };
        *body += &kept;
        let _ = writeln!(
            body,
            "(i32.store (i32.const {record}) (global.get $tag)) (i32.store (i32.const {}) (i32.const {number}))",
            record + 4
        );
        let mut told = Self::tell(0, &format!("(i32.const {record})"), &format!("(i32.const {RECORD})"));
        if let Some(cell) = data {
            let bytes = Self::tell(1, &format!("(i32.load (i32.const {cell}))"), &format!("(i32.load (i32.const {}))", cell + 8));
            let _ = writeln!(told, "(if (i32.eqz (i32.load (i32.const {status}))) (then {bytes}))");
        }
        if quiet {
            // Told once, by the next callback: a record without a tag is none.
            let _ =
                writeln!(self.flush, "(if (i32.load (i32.const {record})) (then {told} (i32.store (i32.const {record}) (i32.const 0))))");
        } else {
            *body += &told;
        }
    }

    /// Arguments as text; out-values go to the cells from `cell` on.
    fn pass(&mut self, args: &[Arg], mut cell: u32) -> Passed {
        let mut passed = Passed::default();
        for arg in args {
            let kind = if matches!(arg, L(_)) { "i64 " } else { "i32 " };
            let values = match arg {
                I(value) => vec![constant(*value)],
                L(value) => vec![format!("(i64.const {value})")],
                Arg::B(bytes) => vec![constant(self.string(bytes)), constant(bytes.len() as u32)],
                P(bytes) => vec![constant(self.string(bytes))],
                At(pointer, length) => vec![constant(*pointer), constant(*length)],
                Out => vec![constant(cell)],
                Keep(variable) => {
                    let _ = writeln!(passed.kept, "(i32.store (i32.const {}) (i32.load (i32.const {cell})))", VARS + variable * 4);
                    vec![constant(cell)]
                }
                Data => {
                    passed.data = Some(cell);
                    vec![constant(cell), constant(cell + 8)]
                }
                Var(variable) => vec![format!("(i32.load (i32.const {}))", VARS + variable * 4)],
                Param(index) => vec![format!("(local.get {index})")],
            };
            cell += match arg {
                Out | Keep(_) => 8,
                Data => 16,
                _ => 0,
            };
            passed.types += &kind.repeat(values.len());
            passed.values += &values.concat();
        }
        passed
    }

    fn allocator(&mut self) {
        let name = self.guest.allocator_name;
        let answer = match self.guest.allocator {
            Allocator::None => return,
            Allocator::Returns(value) => format!("(i32.const {})", value.cast_signed()),
            Allocator::Good => "(global.get $heap) (global.set $heap (i32.add (global.get $heap) (i32.and (i32.add (local.get 0) (i32.const 7)) (i32.const -8))))".into(),
        };
        let calls = if self.functions.contains("$allocating") { "(call $allocating (local.get 0))" } else { "" };
        let _ = writeln!(self.functions, "(func (export \"{name}\") (param i32) (result i32) {calls} {answer})");
    }
}
