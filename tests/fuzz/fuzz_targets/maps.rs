#![no_main]
use libfuzzer_sys::fuzz_target;
fuzz_target!(|data: &[u8]| {
    let _ = weir_wasm::codec::parse_map(&bytes::Bytes::copy_from_slice(data));
    let _ = weir_wasm::Engine::new(weir_wasm::EngineOptions::default());
});
