//! WASI under both names, and what toolchains and other proxies' SDKs import.

use weir_wasm::stats::TrapKind;

use super::{ON_CONFIGURE, ON_REQUEST};
use crate::guest::{Arg, I, L, Out, P, S};
use crate::table::{Row, UNIMPLEMENTED, row};

const BADF: u32 = 8;
const INVAL: u32 = 28;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;

/// Functions of WASI that answer without looking, with their parameters (`l` is 64 bits wide) and their answer.
const STUBS: &[(&str, &str, u32)] = &[
    ("fd_advise", "illi", BADF),
    ("fd_allocate", "ill", BADF),
    ("fd_close", "i", 0),
    ("fd_datasync", "i", BADF),
    ("fd_fdstat_set_flags", "ii", NOSYS),
    ("fd_fdstat_set_rights", "ill", BADF),
    ("fd_filestat_get", "ii", BADF),
    ("fd_filestat_set_size", "il", BADF),
    ("fd_filestat_set_times", "illi", BADF),
    ("fd_pread", "iiili", BADF),
    ("fd_prestat_dir_name", "iii", BADF),
    ("fd_prestat_get", "ii", BADF),
    ("fd_pwrite", "iiili", BADF),
    ("fd_read", "iiii", NOSYS),
    ("fd_readdir", "iiili", BADF),
    ("fd_renumber", "ii", BADF),
    ("fd_seek", "ilii", BADF),
    ("fd_sync", "i", BADF),
    ("fd_tell", "ii", BADF),
    ("path_create_directory", "iii", NOENT),
    ("path_filestat_get", "iiiii", NOENT),
    ("path_filestat_set_times", "iiiilli", NOENT),
    ("path_link", "iiiiiii", NOENT),
    ("path_open", "iiiiillii", NOENT),
    ("path_readlink", "iiiiii", NOENT),
    ("path_remove_directory", "iii", NOENT),
    ("path_rename", "iiiiii", NOENT),
    ("path_symlink", "iiiii", NOENT),
    ("path_unlink_file", "iii", NOENT),
    ("proc_raise", "i", NOSYS),
    ("sock_accept", "iii", NOTSUP),
    ("sock_recv", "iiiiii", NOTSUP),
    ("sock_send", "iiiii", NOTSUP),
    ("sock_shutdown", "ii", NOTSUP),
];

/// Whether `function` answers without looking at its arguments.
pub fn is_stub(function: &str) -> bool {
    STUBS.iter().any(|(name, ..)| *name == function)
}

fn numbers(params: &str, value: u32) -> Vec<Arg> {
    params.chars().map(|kind| if kind == 'l' { L(value.into()) } else { I(value) }).collect()
}

/// An `iovec` array for `fd_write`: pieces of the text at the start of the strings, which reads `report`.
fn vectors(list: &[(u32, u32)]) -> Arg {
    P(list.iter().flat_map(|(pointer, length)| [pointer.to_le_bytes(), length.to_le_bytes()]).flatten().collect())
}

#[rustfmt::skip] // one row a line, as far as that goes
pub fn wasi() -> Vec<Row> {
    const REPORT: u32 = 32768;
    let line = || vectors(&[(REPORT, 6), (0, 0), (REPORT, 3)]);
    let mut rows = Vec::new();
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        let mut group = vec![
            row(ON_REQUEST, "fd_write", [I(1), line(), I(3), Out]).cell(9),
            row(ON_REQUEST, "fd_write", [I(2), vectors(&[(REPORT, 6)]), I(1), Out]).cell(6),
            row(ON_REQUEST, "fd_write", [I(1), I(0), I(0), Out]).cell(0),
            row(ON_REQUEST, "fd_write", [I(0), line(), I(3), Out]).is(BADF),
            row(ON_REQUEST, "fd_write", [I(3), line(), I(3), Out]).is(BADF),
            row(ON_REQUEST, "fd_write", [I(1), line(), I(1025), Out]).is(INVAL),
            row(ON_REQUEST, "fd_write", [I(1), vectors(&[(0xFFFF_FFF0, 64)]), I(1), Out]).traps(TrapKind::HostCall, "fd_write"),
            row(ON_REQUEST, "fd_write", [I(1), vectors(&[(0, 0x7FFF_FFFF)]), I(1), Out]).traps(TrapKind::HostCall, "fd_write"),
            row(ON_REQUEST, "fd_fdstat_get", [I(1), Out, I(0), I(0)][..2].to_vec()).cell(2),
            row(ON_REQUEST, "fd_fdstat_get", [I(0), Out]).is(BADF),
            row(ON_REQUEST, "fd_fdstat_get", [I(3), Out]).is(BADF),
            row(ON_REQUEST, "clock_time_get", [I(0), L(1), Out]).cell(1_700_000_000_000_000_000),
            row(ON_REQUEST, "clock_time_get", [I(1), L(0), Out]).cell(1_000_000_000),
            row(ON_REQUEST, "clock_time_get", [I(2), L(0), Out]).is(NOTSUP),
            row(ON_REQUEST, "clock_res_get", [I(0), Out]).cell(1),
            row(ON_REQUEST, "clock_res_get", [I(7), Out]).is(NOTSUP),
            row(ON_REQUEST, "random_get", [Out, I(8)]).then("bytes are written", |seen| seen.answer.cells[0] != crate::story::UNTOUCHED),
            row(ON_REQUEST, "random_get", [I(65_536), I(65_536)]),
            row(ON_REQUEST, "random_get", [I(65_536), I(65_537)]).is(INVAL),
            row(ON_REQUEST, "random_get", [Out, I(0)]),
            row(ON_REQUEST, "environ_sizes_get", [Out, Out]).cell(1).then("`K=v` and a NUL", |seen| seen.answer.cells[1] as u32 == 4),
            row(ON_REQUEST, "environ_sizes_get", [Out, Out]).with(|binding| binding.environment.clear()).cell(0),
            row(ON_REQUEST, "environ_get", [Out, Out]).then("`K=v`", |seen| (seen.answer.cells[1] as u32).to_le_bytes() == *b"K=v\0" && seen.answer.cells[0] as u32 != 0),
            row(ON_REQUEST, "environ_get", [Out, Out]).with(|binding| binding.environment.clear()),
            row(ON_REQUEST, "args_sizes_get", [Out, Out]).cell(0),
            row(ON_REQUEST, "args_get", [Out, Out]),
            row(ON_REQUEST, "poll_oneoff", [Out, Out, I(1), Out]).then("no events", |seen| seen.answer.cells[2] as u32 == 0),
            row(ON_REQUEST, "sched_yield", []),
            row(ON_CONFIGURE, "clock_time_get", [I(1), L(0), Out]),
            row(ON_REQUEST, "proc_exit", [I(3)]).traps(TrapKind::Exit, "proc_exit(3)"),
            row(ON_REQUEST, "proc_exit", [I(0)]).traps(TrapKind::Exit, "proc_exit(0)"),
        ];
        for (name, params, errno) in STUBS {
            // Nothing that a guest passes makes them look.
            group.extend([0, 1, u32::MAX].map(|value| row(ON_REQUEST, name, numbers(params, value)).is(*errno)));
        }
        rows.extend(group.into_iter().map(|row| row.in_module(module)));
    }
    rows
}

#[rustfmt::skip] // one row a line, as far as that goes
pub fn helpers() -> Vec<Row> {
    // AssemblyScript's strings: the length in bytes, then UTF-16.
    let text = |text: &str| {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        [&(units.len() as u32).to_le_bytes()[..], &units].concat()
    };
    let mut rows = vec![
        row(ON_REQUEST, "emscripten_notify_memory_growth", [I(0)]),
        row(ON_REQUEST, "pthread_equal", [I(1), I(2)]).is(0),
        row(ON_REQUEST, "pthread_equal", [I(7), I(7)]).is(1),
        row(ON_REQUEST, "abort", [I(0), I(0), I(12), I(34)]).traps(TrapKind::HostCall, "the guest aborted:  (:12:34)"),
        row(ON_REQUEST, "abort", [I(0xFFFF_FFFF), I(3), I(1), I(1)]).traps(TrapKind::HostCall, "the guest aborted"),
        row(ON_REQUEST, "abort", [I(32768 + 28), I(0), I(1), I(2)]).after([crate::guest::call("proxy_log", [I(0), Arg::B(text("oh no"))])]).traps(TrapKind::HostCall, "the guest aborted: oh no"),
        row(ON_REQUEST, "seed", []).then("a number", |seen| seen.answer.cells[0] != crate::story::UNTOUCHED && f64::from_bits(seen.answer.cells[0]).is_finite()),
        row(ON_REQUEST, "envoy_resolve_dns", [S("host"), Out]).is(UNIMPLEMENTED),
        row(ON_REQUEST, "proxy_redis_init", numbers("iiiiiii", 0)).is(UNIMPLEMENTED),
        row(ON_REQUEST, "proxy_redis_call", numbers("iiiii", u32::MAX)).is(UNIMPLEMENTED),
        row(ON_REQUEST, "proxy_inject_encoded_data_to_filter_chain", numbers("iii", 0)).is(UNIMPLEMENTED),
        row(ON_REQUEST, "proxy_get_upstream_hosts", numbers("ii", u32::MAX)).is(UNIMPLEMENTED),
        row(ON_REQUEST, "proxy_set_upstream_override_host", numbers("ii", 0)).is(UNIMPLEMENTED),
    ];
    rows.extend(rows.iter().filter(|row| row.is_unimplemented()).cloned().map(|row| row.at(ON_CONFIGURE)).collect::<Vec<_>>());
    rows
}
