//! Property paths: the laws of [`Path`], and the two host functions with any path and value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::{Turn, Worker, functions, name_of};
use weir_wasm::Path;

thread_local! {
    static WORKER: Worker = Worker::new();
    static TWO: Vec<u32> = functions(|_, name| matches!(name, "proxy_get_property" | "proxy_set_property"));
}

fuzz_target!(|input: (Vec<u8>, Vec<Turn>)| {
    let (bytes, turns) = input;
    let path = Path::new(&bytes);
    let segments: Vec<&[u8]> = path.segments().collect();
    assert_eq!(segments.join(&0), path.as_bytes());
    let (first, rest) = path.split();
    assert_eq!(first, segments[0]);
    assert_eq!(rest.as_bytes(), segments[1..].join(&0));
    assert!(path.as_bytes().ends_with(path.without_prefix()));
    let _ = format!("{path:?}");
    WORKER.with(|worker| {
        TWO.with(|two| worker.run(&turns, two));
        for (function, outcome) in worker.outcomes.borrow().iter() {
            let name = name_of(*function);
            let fine = outcome.status == 0 || (name == "proxy_get_property" && matches!(outcome.status, 1 | 3 | 10)) || outcome.status == 10;
            assert!(fine, "{name}: {outcome:?}");
        }
    });
});
