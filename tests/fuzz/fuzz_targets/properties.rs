//! Property paths: the laws of [`Path`], and the two host functions with any path and value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::{Function, Worker, functions, name_of};
use weir_wasm::Path;

thread_local! {
    static WORKER: Worker = Worker::new();
    static TWO: Vec<Function> = functions(|_, name| matches!(name, "proxy_get_property" | "proxy_set_property"));
}

fuzz_target!(|data: &[u8]| {
    let path = Path::new(data);
    let segments: Vec<&[u8]> = path.segments().collect();
    assert_eq!(segments.join(&0), path.as_bytes());
    let (first, rest) = path.split();
    assert_eq!(first, segments[0]);
    assert_eq!(rest.as_bytes(), segments[1..].join(&0));
    assert!(path.as_bytes().ends_with(path.without_prefix()));
    let _ = format!("{path:?}");
    WORKER.with(|worker| {
        TWO.with(|two| worker.run(data, two));
        for (function, status) in worker.outcomes.borrow().iter() {
            let name = name_of(*function);
            // 10: called from within the allocator.
            let fine = match name {
                "proxy_get_property" => matches!(status, 0 | 1 | 3 | 10),
                "proxy_set_property" => matches!(status, 0 | 10),
                _ => true,
            };
            assert!(fine, "{name}: {status}");
        }
    });
});
