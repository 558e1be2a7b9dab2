//! Header maps as guests write them: parsing takes what writing makes, and nothing looser.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weir_wasm::Headers;
use weir_wasm::codec::{MAX_MAP_BYTES, MAX_MAP_PAIRS, Pairs, map_size, parse_map, write_map};

fuzz_target!(|data: &[u8]| {
    let Ok(pairs) = parse_map(&Bytes::copy_from_slice(data)) else { return };
    assert!(data.len() <= MAX_MAP_BYTES && pairs.len() <= MAX_MAP_PAIRS);
    let mut map = Pairs(pairs);
    let mut out = vec![0; map_size(&map)];
    assert!(write_map(&map, &mut out));
    assert!(out == data || (data.len() < 4 && out == [0; 4]), "what was parsed is not what is written");
    assert!(!write_map(&map, &mut vec![0; out.len() - 1]), "a buffer that is too short");
    let names: Vec<Bytes> = map.0.iter().map(|(name, _)| name.clone()).collect();
    for name in names.iter().take(32) {
        let others = map.0.iter().filter(|(other, _)| other != name).count();
        map.set(name, b"one");
        assert!(map.get(name) == Some(b"one") && map.count() == others + 1);
        map.add(name, b"two");
        assert!(map.get(name) == Some(b"one") && map.count() == others + 2);
        map.remove(name);
        assert!(map.get(name).is_none() && map.count() == others);
    }
});
