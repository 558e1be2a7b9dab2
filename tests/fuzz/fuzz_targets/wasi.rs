//! WASI functions with any arguments: structures at any pointer, any descriptor, any count.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::{Turn, Worker, functions, name_of};

thread_local! {
    static WORKER: Worker = Worker::new();
    static WASI: Vec<u32> = functions(|module, name| module.starts_with("wasi") && name != "proc_exit");
}

fuzz_target!(|turns: Vec<Turn>| {
    WORKER.with(|worker| {
        WASI.with(|wasi| worker.run(&turns, wasi));
        for (function, outcome) in worker.outcomes.borrow().iter() {
            let known = matches!(outcome.status, 0 | 8 | 21 | 28 | 44 | 52 | 58 | 76);
            assert!(known, "{}: {outcome:?}", name_of(*function));
        }
    });
});
