//! WASI preview 1 for guests that were built for it: clocks, random, the binding's environment, a console that ends in the log, and nothing else.
//!
//! Everything is allowed at any time, start functions included, and touches nothing outside the guest and the log. There are no files: descriptors
//! 1 and 2 exist, pre-opened directories do not, and whatever else is asked for answers the error that makes runtimes carry on.

use wasmtime::{Caller, FuncType, Linker, Val, ValType};

use super::{Answer, Guest};
use crate::host::Level;
use crate::module::imports::{Group, HOST_FUNCTIONS};
use crate::vm::state::State;
use crate::vm::trap::Exit;

const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const INVAL: u32 = 28;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    for module in MODULES {
        linker.func_wrap(module, "fd_write", fd_write)?;
        linker.func_wrap(module, "fd_fdstat_get", fd_fdstat_get)?;
        linker.func_wrap(module, "clock_time_get", clock_time_get)?;
        linker.func_wrap(module, "clock_res_get", clock_res_get)?;
        linker.func_wrap(module, "random_get", random_get)?;
        linker.func_wrap(module, "environ_sizes_get", environ_sizes_get)?;
        linker.func_wrap(module, "environ_get", environ_get)?;
        linker.func_wrap(module, "args_sizes_get", |caller: Caller<'_, State>, count: u32, size: u32| {
            let mut guest = Guest::harmless(caller, "args_sizes_get")?;
            guest.write_u32(count, 0)?;
            guest.write_u32(size, 0)?;
            Ok(SUCCESS)
        })?;
        linker.func_wrap(module, "args_get", |_: Caller<'_, State>, _: u32, _: u32| SUCCESS)?;
        linker.func_wrap(module, "poll_oneoff", |caller: Caller<'_, State>, _: u32, _: u32, _: u32, out: u32| {
            let mut guest = Guest::harmless(caller, "poll_oneoff")?;
            guest.write_u32(out, 0)?;
            Ok(SUCCESS)
        })?;
        linker.func_wrap(module, "sched_yield", |_: Caller<'_, State>| SUCCESS)?;
        linker.func_wrap(module, "proc_exit", |_: Caller<'_, State>, code: i32| -> wasmtime::Result<()> {
            Err(wasmtime::Error::new(Exit(code)))
        })?;
        link_absent(linker, module)?;
    }
    Ok(())
}

/// Everything else: there is no such file, or no such function.
fn link_absent(linker: &mut Linker<State>, module: &str) -> wasmtime::Result<()> {
    const HERE: [&str; 12] = [
        "fd_write",
        "fd_fdstat_get",
        "clock_time_get",
        "clock_res_get",
        "random_get",
        "environ_sizes_get",
        "environ_get",
        "args_sizes_get",
        "args_get",
        "poll_oneoff",
        "sched_yield",
        "proc_exit",
    ];
    for function in HOST_FUNCTIONS.iter().filter(|function| function.group == Group::Wasi && !HERE.contains(&function.name)) {
        let errno = match function.name {
            "fd_close" => SUCCESS,
            "fd_fdstat_set_flags" | "fd_read" | "proc_raise" => NOSYS,
            name if name.starts_with("fd_") => BADF,
            name if name.starts_with("path_") => NOENT,
            _ => NOTSUP,
        };
        let params = function.params.iter().map(|kind| if *kind == wasmparser::ValType::I64 { ValType::I64 } else { ValType::I32 });
        let ty = FuncType::new(linker.engine(), params, [ValType::I32]);
        linker.func_new(module, function.name, ty, move |_, _, results| {
            results[0] = Val::I32(errno.cast_signed());
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes to 1 and 2 become log lines, one for each line of text.
fn fd_write(caller: Caller<'_, State>, fd: u32, vectors: u32, count: u32, out: u32) -> Answer {
    const MOST_VECTORS: u32 = 1024;
    let mut guest = Guest::harmless(caller, "fd_write")?;
    let level = match fd {
        1 => Level::Info,
        2 => Level::Error,
        _ => return Ok(BADF),
    };
    if count > MOST_VECTORS {
        return Ok(INVAL);
    }
    let mut written = 0u32;
    for index in 0..count {
        let at = vectors.wrapping_add(index.wrapping_mul(8));
        let (pointer, length) = (guest.read_u32(at)?, guest.read_u32(at.wrapping_add(4))?);
        guest.take(pointer, length)?;
        let (memory, state) = guest.parts();
        let text = super::slice(memory, pointer, length, "fd_write")?;
        print(state, (fd - 1) as usize, level, text).map_err(|problem| super::fault("fd_write", problem))?;
        written = written.wrapping_add(length);
    }
    guest.write_u32(out, written)?;
    Ok(SUCCESS)
}

/// Logs the complete lines of `text`, in pieces where they are too long, and keeps what is left for the next time.
fn print(state: &mut State, console: usize, level: Level, mut text: &[u8]) -> Result<(), String> {
    const LONGEST_LINE: usize = 8 << 10;
    let mut line = std::mem::take(&mut state.console[console]);
    let wanted = level >= state.host.log_level(&state.config().name);
    while !text.is_empty() {
        let piece = &text[..text.len().min(LONGEST_LINE - line.len())];
        let end = piece.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(piece.len(), |end| end + 1);
        line.extend_from_slice(&piece[..length]);
        text = &text[length..];
        if end.is_some() || line.len() >= LONGEST_LINE {
            // A line costs something, however short.
            state.spend(0)?;
            if wanted {
                state.guest_log(level, &line);
            }
            line.clear();
        }
    }
    state.console[console] = line;
    Ok(())
}

/// A character device, for the two descriptors there are.
fn fd_fdstat_get(caller: Caller<'_, State>, fd: u32, out: u32) -> Answer {
    let mut guest = Guest::harmless(caller, "fd_fdstat_get")?;
    if !(1..=2).contains(&fd) {
        return Ok(BADF);
    }
    let mut stat = [0; 24];
    stat[0] = 2;
    // The right to write, and no other.
    stat[8] = 1 << 6;
    guest.write(out, &stat)?;
    Ok(SUCCESS)
}

fn clock_time_get(caller: Caller<'_, State>, clock: u32, _precision: u64, out: u32) -> Answer {
    let mut guest = Guest::harmless(caller, "clock_time_get")?;
    let host = &guest.state().host;
    let now = match clock {
        0 => host.wall_nanos(),
        1 => host.monotonic_nanos(),
        _ => return Ok(NOTSUP),
    };
    guest.write_u64(out, now)?;
    Ok(SUCCESS)
}

fn clock_res_get(caller: Caller<'_, State>, clock: u32, out: u32) -> Answer {
    let mut guest = Guest::harmless(caller, "clock_res_get")?;
    if clock > 1 {
        return Ok(NOTSUP);
    }
    guest.write_u64(out, 1)?;
    Ok(SUCCESS)
}

fn random_get(caller: Caller<'_, State>, pointer: u32, length: u32) -> Answer {
    const MOST: u32 = 64 << 10;
    let mut guest = Guest::harmless(caller, "random_get")?;
    if length > MOST {
        return Ok(INVAL);
    }
    guest.take(pointer, length)?;
    let host = guest.state().host.clone();
    let mut bytes = std::mem::take(&mut guest.state_mut().scratch);
    bytes.clear();
    bytes.resize(length as usize, 0);
    host.random(&mut bytes);
    let written = guest.write(pointer, &bytes);
    guest.state_mut().keep_scratch(bytes);
    written?;
    Ok(SUCCESS)
}

fn environ_sizes_get(caller: Caller<'_, State>, out_count: u32, out_size: u32) -> Answer {
    let mut guest = Guest::harmless(caller, "environ_sizes_get")?;
    let environment = &guest.state().config().environment;
    let (count, size) = (environment.len(), environment.iter().map(|(key, value)| key.len() + value.len() + 2).sum::<usize>());
    guest.write_u32(out_count, count as u32)?;
    guest.write_u32(out_size, size as u32)?;
    Ok(SUCCESS)
}

fn environ_get(caller: Caller<'_, State>, pointers: u32, buffer: u32) -> Answer {
    let mut guest = Guest::harmless(caller, "environ_get")?;
    let binding = guest.state().binding.clone();
    let mut at = buffer;
    for (index, (key, value)) in binding.config().environment.iter().enumerate() {
        let entry = format!("{key}={value}\0");
        guest.write_u32(pointers.wrapping_add(index as u32 * 4), at)?;
        guest.write(at, entry.as_bytes())?;
        at = at.wrapping_add(entry.len() as u32);
    }
    Ok(SUCCESS)
}
