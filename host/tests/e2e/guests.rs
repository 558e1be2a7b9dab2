//! Filters for these tests, in WebAssembly text: a few host calls each, and nothing of an SDK.
//!
//! A guest is compiled where it is used and handed to the proxy with the configuration itself. What real SDKs do is tested in `tests/conformance`.

use serde_json::{Value, json};

/// Host functions that guests may call, and how many numbers each takes.
const IMPORTS: [(&str, usize); 15] = [
    ("proxy_log", 3),
    ("proxy_get_header_map_value", 5),
    ("proxy_add_header_map_value", 5),
    ("proxy_replace_header_map_value", 5),
    ("proxy_remove_header_map_value", 3),
    ("proxy_get_buffer_bytes", 5),
    ("proxy_set_buffer_bytes", 5),
    ("proxy_clear_route_cache", 0),
    ("proxy_continue_stream", 1),
    ("proxy_close_stream", 1),
    ("proxy_set_effective_context", 1),
    ("proxy_send_local_response", 8),
    ("proxy_call_foreign_function", 6),
    ("proxy_http_call", 10),
    ("proxy_grpc_call", 12),
];
/// Where texts begin; below are out-values.
const TEXTS: usize = 1024;

/// A guest in the making.
#[derive(Default)]
pub(crate) struct Guest {
    texts: Vec<u8>,
    callbacks: String,
}

impl Guest {
    /// Bytes in the guest's memory, as the two numbers that a host call wants.
    pub(crate) fn text(&mut self, bytes: impl AsRef<[u8]>) -> String {
        let (at, bytes) = (TEXTS + self.texts.len(), bytes.as_ref());
        self.texts.extend_from_slice(bytes);
        format!("(i32.const {at}) (i32.const {})", bytes.len())
    }

    /// A header map, likewise.
    pub(crate) fn map(&mut self, pairs: &[(&str, &str)]) -> String {
        let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        let mut bytes = number(pairs.len()).to_vec();
        for (key, value) in pairs {
            bytes.extend([number(key.len()), number(value.len())].concat());
        }
        for (key, value) in pairs {
            bytes.extend([key.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        self.text(bytes)
    }

    /// What a callback does. Its parameters are `$0`, `$1`, …; `results` is what it returns.
    pub(crate) fn on(mut self, callback: &str, parameters: usize, results: &str, body: &str) -> Self {
        let parameters: String = (0..parameters).map(|n| format!(" (param ${n} i32)")).collect();
        let results = if results.is_empty() { String::new() } else { "(result i32)".into() };
        self.callbacks += &format!("(func (export \"{callback}\"){parameters} {results} {body})\n");
        self
    }

    /// What it does with the headers of requests; `body` leaves 0 to continue, 1 to pause.
    pub(crate) fn on_request(self, body: &str) -> Self {
        self.on("proxy_on_request_headers", 3, "i32", body)
    }

    /// The binding that runs it, with `more` about it.
    pub(crate) fn binding(&self, name: &str, more: Value) -> Value {
        use std::fmt::Write as _;
        let mut wat = String::from("(module\n");
        for (name, parameters) in IMPORTS {
            let parameters = " i32".repeat(parameters);
            writeln!(wat, "(import \"env\" \"{name}\" (func ${name} (param{parameters}) (result i32)))").unwrap();
        }
        let texts: String = self.texts.iter().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(
            wat,
            r#"(memory (export "memory") 4)
            (data (i32.const {TEXTS}) "{texts}")
            (global $free (mut i32) (i32.const 131072))
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_context_create") (param i32 i32))
            (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
              (if (i32.gt_u (i32.add (global.get $free) (local.get $size)) (i32.const 262144)) (then (global.set $free (i32.const 131072))))
              global.get $free
              (global.set $free (i32.add (global.get $free) (local.get $size))))
            (func $has (param $map i32) (param $key i32) (param $length i32) (result i32)
              (i32.eqz (call $proxy_get_header_map_value (local.get $map) (local.get $key) (local.get $length) (i32.const 0) (i32.const 4))))
            {}
            )"#,
            self.callbacks
        )
        .unwrap();
        let module = wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}\n{wat}"));
        let mut binding = more;
        binding["name"] = json!(name);
        binding["module"] = json!({ "inline": base64(&module) });
        binding
    }
}

/// What `$has` found, as the two numbers that a host call wants.
pub(crate) const FOUND: &str = "(i32.load (i32.const 0)) (i32.load (i32.const 4))";

/// Remembers whose callback this is, for [`RETURN`].
pub(crate) const REMEMBER: &str = "(i32.store (i32.const 32) (local.get $0))";
/// In the callback of a callout, which is the root context's: acts on the stream that was remembered.
pub(crate) const RETURN: &str = "(drop (call $proxy_set_effective_context (i32.load (i32.const 32))))";

/// A filter that chooses the action which `x-route` names, and adds `x-chosen` with it.
pub(crate) fn chooser() -> Guest {
    let mut guest = Guest::default();
    let (key, chosen, select) = (guest.text("x-route"), guest.text("x-chosen"), guest.text("weir.route.select"));
    let body = format!(
        "(if (call $has (i32.const 0) {key}) (then
            (drop (call $proxy_call_foreign_function {select} {FOUND} (i32.const 8) (i32.const 12)))
            (drop (call $proxy_add_header_map_value (i32.const 0) {chosen} {FOUND}))))
        (i32.const 0)"
    );
    guest.on_request(&body)
}

/// A filter that makes `x-then` the new `x-route` and clears the choice of the route, and adds `x-changed`.
pub(crate) fn changer() -> Guest {
    let mut guest = Guest::default();
    let (then, route, changed) = (guest.text("x-then"), guest.text("x-route"), guest.text("x-changed"));
    let body = format!(
        "(if (call $has (i32.const 0) {then}) (then
            (drop (call $proxy_replace_header_map_value (i32.const 0) {route} {FOUND}))
            (drop (call $proxy_add_header_map_value (i32.const 0) {changed} {FOUND}))
            (drop (call $proxy_clear_route_cache))))
        (i32.const 0)"
    );
    guest.on_request(&body)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let value = (number >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    text
}
