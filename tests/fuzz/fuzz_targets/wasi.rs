//! WASI functions with any arguments: structures at any pointer, any descriptor, any count.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::{Function, Worker, functions, name_of};

thread_local! {
    static WORKER: Worker = Worker::new();
    static WASI: Vec<Function> = functions(|module, name| module.starts_with("wasi") && name != "proc_exit");
}

fuzz_target!(|data: &[u8]| {
    WORKER.with(|worker| {
        WASI.with(|wasi| worker.run(data, wasi));
        let outcomes = worker.outcomes.borrow();
        let is_wasi = |function: u32| WASI.with(|wasi| wasi.iter().any(|known| known.number == function));
        for (function, status) in outcomes.iter().filter(|(function, _)| is_wasi(*function)) {
            let known = matches!(status, 0 | 8 | 21 | 28 | 44 | 52 | 58 | 76);
            assert!(known, "{}: {status}", name_of(*function));
        }
    });
});
