//! What toolchains and other proxies' SDKs import beside the ABI.
//!
//! Emscripten's helpers do nothing that matters here; AssemblyScript's `abort` says why and ends the instance. Functions of one vendor's proxy are
//! linked so that a module that merely mentions them loads, and answer UNIMPLEMENTED; loading warns of them.

use wasmtime::{Caller, FuncType, Linker, Val, ValType};

use super::{Guest, UNIMPLEMENTED, fault};
use crate::module::imports::{Group, HOST_FUNCTIONS};
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_: Caller<'_, State>, _memory: u32| {})?;
    linker.func_wrap("env", "pthread_equal", |_: Caller<'_, State>, one: u32, other: u32| u32::from(one == other))?;
    linker.func_wrap("env", "abort", abort)?;
    linker.func_wrap("env", "seed", |caller: Caller<'_, State>| {
        let mut bytes = [0; 8];
        caller.data().host.random(&mut bytes);
        u64::from_le_bytes(bytes) as f64
    })?;
    for function in HOST_FUNCTIONS.iter().filter(|function| matches!(function.group, Group::Vendor(_))) {
        let ty = FuncType::new(linker.engine(), function.params.iter().map(|_| ValType::I32), [ValType::I32]);
        for module in function.modules {
            linker.func_new(module, function.name, ty.clone(), |_, _, results| {
                results[0] = Val::I32(UNIMPLEMENTED.cast_signed());
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// AssemblyScript: message and file as pointers to UTF-16 strings, then line and column.
fn abort(caller: Caller<'_, State>, message: u32, file: u32, line: u32, column: u32) -> wasmtime::Result<()> {
    let mut guest = Guest::harmless(caller, "abort")?;
    let (message, file) = (string(&mut guest, message), string(&mut guest, file));
    Err(fault("abort", format!("the guest aborted: {message} ({file}:{line}:{column})")))
}

/// The length in bytes stands before the string.
fn string(guest: &mut Guest<'_>, pointer: u32) -> String {
    const LONGEST: u32 = 4096;
    let length = pointer.checked_sub(4).and_then(|at| guest.read_u32(at).ok()).unwrap_or(0).min(LONGEST);
    let bytes = guest.take(pointer, length).unwrap_or_default();
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(&units)
}
