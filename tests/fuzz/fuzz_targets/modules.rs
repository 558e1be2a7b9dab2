//! Bytes of unknown origin as a filter: unwrapped, read, checked, and if they are a small module, loaded and proven.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weir_wasm::module::{check, facts::ModuleFacts, sniff};
use weir_wasm::{Binding, BindingConfig, Engine, EngineOptions};

const MOST: u64 = 1 << 20;
/// The compiler's time grows with the code; what is larger is checked and not compiled.
const MOST_COMPILED: usize = 4096;

fuzz_target!(|data: &[u8]| {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let Ok(wasm) = sniff::unpack(data, MOST) else { return };
    assert!(wasm.len() as u64 <= MOST);
    let Ok(facts) = ModuleFacts::parse(&wasm) else { return };
    let Ok(_) = check::check(&facts, 4 << 20) else { return };
    if wasm.len() > MOST_COMPILED {
        return;
    }
    let engine = ENGINE.get_or_init(|| Engine::new(EngineOptions::default()).expect("an engine"));
    let mut config = BindingConfig::new("fuzz");
    config.limits.memory = 4 << 20;
    config.limits.start_deadline = Duration::from_millis(20);
    config.limits.done_deadline = Duration::from_millis(20);
    if let Err(error) = Binding::load(engine, config, "fuzz", data, None) {
        assert!(!error.to_string().is_empty() && !error.help().is_empty());
    }
});
