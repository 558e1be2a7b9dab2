//! The host functions of the Proxy-Wasm ABI, one file per group, linked under the names of 0.1.0, 0.2.0 and 0.2.1.
//!
//! Statuses are part of the contract: the SDKs panic on any they do not expect, so a function answers only what every SDK survives. A guest that
//! hands over a bad pointer, or more than its budget, is ended with an error that names the function: no status would help it. No function
//! calls back into the guest, except its allocator, during which every function that reaches beyond the guest answers an error.

mod body;
mod call;
mod clock;
mod foreign;
mod header;
mod metric;
mod property;
mod shared;
mod stream;
mod vendor;
mod wasi;

use wasmtime::{Caller, Linker};

use crate::host::MessageMap;
use crate::vm::state::{Mode, State};
use crate::vm::trap::Fault;

pub(crate) const OK: u32 = 0;
pub(crate) const NOT_FOUND: u32 = 1;
pub(crate) const BAD_ARGUMENT: u32 = 2;
pub(crate) const PARSE_FAILURE: u32 = 4;
pub(crate) const EMPTY: u32 = 7;
pub(crate) const CAS_MISMATCH: u32 = 8;
pub(crate) const INTERNAL_FAILURE: u32 = 10;
pub(crate) const UNIMPLEMENTED: u32 = 12;

/// What a host function returns: a status, or the end of the instance.
pub(crate) type Answer = wasmtime::Result<u32>;

/// Every host function there is.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    clock::link(l)?;
    header::link(l)?;
    body::link(l)?;
    stream::link(l)?;
    call::link(l)?;
    shared::link(l)?;
    metric::link(l)?;
    property::link(l)?;
    foreign::link(l)?;
    vendor::link(l)?;
    wasi::link(l)?;
    Ok(linker)
}

/// One host call: the way to the guest's memory and the instance's state.
pub(crate) struct Guest<'a> {
    caller: Caller<'a, State>,
    /// The host function, for messages.
    name: &'static str,
}

impl<'a> Guest<'a> {
    /// A call that acts on contexts or on anything outside the guest. `Err` is the status for a guest that is not in a callback.
    #[inline(always)]
    fn enter(caller: Caller<'a, State>, name: &'static str) -> wasmtime::Result<Result<Self, u32>> {
        let guest = Self::harmless(caller, name)?;
        if guest.state().mode == Mode::Running { Ok(Ok(guest)) } else { Ok(Err(guest.refuse())) }
    }

    /// A call that is allowed at any time: clocks, random, log.
    #[inline(always)]
    fn harmless(caller: Caller<'a, State>, name: &'static str) -> wasmtime::Result<Self> {
        let mut guest = Self { caller, name };
        let state = guest.state_mut();
        let goes_on = state.host_calls.count();
        if goes_on && state.memory.is_some() { Ok(guest) } else { guest.first_or_last(goes_on) }
    }

    #[cold]
    fn refuse(mut self) -> u32 {
        let name = self.name;
        self.state_mut().wrong_phase(name, "called from a start function or from the allocator, where it has no effect");
        INTERNAL_FAILURE
    }

    /// A start function runs before the instance is known. A test may end the instance.
    #[cold]
    fn first_or_last(mut self, goes_on: bool) -> wasmtime::Result<Self> {
        if !goes_on {
            return Err(fault(self.name, "ended at this host call, as asked for (fail_at_host_call)".into()));
        }
        let export = self.caller.get_export("memory").and_then(wasmtime::Extern::into_memory);
        let memory = export.ok_or_else(|| fault(self.name, "the module exports no memory".into()))?;
        self.state_mut().memory = Some(memory);
        Ok(self)
    }

    #[inline]
    fn state(&self) -> &State {
        self.caller.data()
    }

    #[inline]
    fn state_mut(&mut self) -> &mut State {
        self.caller.data_mut()
    }

    /// Guest memory and state, both to change.
    #[inline(always)]
    fn parts(&mut self) -> (&mut [u8], &mut State) {
        match self.caller.data().memory {
            Some(memory) => memory.data_and_store_mut(&mut self.caller),
            // Never: entering has found it.
            None => (&mut [], self.caller.data_mut()),
        }
    }

    /// For functions whose work depends on what the guest, or a peer, chose: compiled code sees the deadline in loops and calls of its own only.
    #[inline]
    fn in_time(&self) -> wasmtime::Result<()> {
        let state = self.state();
        if state.clock.is_past(state.overdue) { Err(wasmtime::Trap::Interrupt.into()) } else { Ok(()) }
    }

    /// Bytes that the guest hands over; they count against the callback's budget.
    #[inline]
    fn take(&mut self, pointer: u32, length: u32) -> wasmtime::Result<&[u8]> {
        self.in_time()?;
        let name = self.name;
        let (memory, state) = self.parts();
        if let Err(problem) = state.spend(length as usize) {
            return Err(fault(name, problem));
        }
        slice(memory, pointer, length, name)
    }

    /// Two of them, and the state.
    #[inline]
    fn take_two(&mut self, one: (u32, u32), two: (u32, u32)) -> wasmtime::Result<(&[u8], &[u8], &mut State)> {
        self.in_time()?;
        let name = self.name;
        let (memory, state) = self.parts();
        if let Err(problem) = state.spend(one.1 as usize + two.1 as usize) {
            return Err(fault(name, problem));
        }
        let memory = &*memory;
        Ok((slice(memory, one.0, one.1, name)?, slice(memory, two.0, two.1, name)?, state))
    }

    #[inline]
    fn read_u32(&mut self, pointer: u32) -> wasmtime::Result<u32> {
        let name = self.name;
        let bytes = slice(self.parts().0, pointer, 4, name)?;
        Ok(bytes.try_into().map(u32::from_le_bytes).unwrap_or_default())
    }

    #[inline]
    fn write(&mut self, pointer: u32, bytes: &[u8]) -> wasmtime::Result<()> {
        let name = self.name;
        write(self.parts().0, pointer, bytes, name)
    }

    #[inline]
    fn write_u32(&mut self, pointer: u32, value: u32) -> wasmtime::Result<()> {
        self.write(pointer, &value.to_le_bytes())
    }

    #[inline]
    fn write_u64(&mut self, pointer: u32, value: u64) -> wasmtime::Result<()> {
        self.write(pointer, &value.to_le_bytes())
    }

    /// Gives the guest a copy of `bytes` in memory that its allocator provides. Empty bytes are a null pointer.
    #[inline]
    fn give(&mut self, bytes: &[u8], out_pointer: u32, out_size: u32) -> Answer {
        self.give_with(bytes.len(), out_pointer, out_size, |target| {
            target.copy_from_slice(bytes);
            true
        })
    }

    /// The same for `size` bytes that `fill` writes.
    #[inline]
    fn give_with(&mut self, size: usize, out_pointer: u32, out_size: u32, fill: impl FnOnce(&mut [u8]) -> bool) -> Answer {
        let ceiling = self.state().output_limit;
        if size > ceiling {
            return Err(fault(self.name, format!("the answer has {size} bytes, more than {ceiling} (limits.host_output)")));
        }
        let pointer = if size > 0 { self.allocate(size as u32)? } else { 0 };
        let name = self.name;
        let (memory, state) = self.parts();
        if size > 0 {
            if pointer == 0 {
                state.wrong_phase(name, "the guest's allocator returned 0");
                return Ok(INTERNAL_FAILURE);
            }
            let total = memory.len();
            let Some(target) = memory.get_mut(pointer as usize..pointer as usize + size) else {
                let lie = format!("the guest's allocator returned {pointer:#x} for {size} bytes, outside of its {total} bytes of memory");
                return Err(fault(name, lie));
            };
            if !fill(target) {
                return Ok(INTERNAL_FAILURE);
            }
        }
        write(memory, out_pointer, &pointer.to_le_bytes(), name)?;
        write(memory, out_size, &(size as u32).to_le_bytes(), name)?;
        Ok(OK)
    }

    /// Calls the guest's allocator: the only call into a guest from inside a host call.
    #[inline]
    fn allocate(&mut self, size: u32) -> wasmtime::Result<u32> {
        let state = self.state_mut();
        state.mode = Mode::Allocating;
        // Behind an `Rc`, since a clone of the typed function itself is two atomic counts, 35 ns.
        let Some(allocate) = state.allocate.clone() else {
            state.mode = Mode::Running;
            return Err(fault(self.name, "the module exports neither proxy_on_memory_allocate nor malloc".into()));
        };
        let result = allocate.call(&mut self.caller, size);
        self.state_mut().mode = Mode::Running;
        result
    }
}

fn slice<'m>(memory: &'m [u8], pointer: u32, length: u32, name: &'static str) -> wasmtime::Result<&'m [u8]> {
    // A null pointer with no bytes is how guests say "nothing".
    if length == 0 {
        return Ok(&[]);
    }
    let end = (pointer as usize).checked_add(length as usize);
    end.and_then(|end| memory.get(pointer as usize..end)).ok_or_else(|| outside(name, pointer, length as usize, memory.len()))
}

#[inline]
fn write(memory: &mut [u8], pointer: u32, bytes: &[u8], name: &'static str) -> wasmtime::Result<()> {
    let size = memory.len();
    let target = (pointer as usize).checked_add(bytes.len()).and_then(|end| memory.get_mut(pointer as usize..end));
    match target {
        Some(target) => {
            target.copy_from_slice(bytes);
            Ok(())
        }
        None => Err(outside(name, pointer, bytes.len(), size)),
    }
}

#[cold]
fn outside(name: &'static str, pointer: u32, length: usize, size: usize) -> wasmtime::Error {
    fault(name, format!("the guest passed {length} bytes at {pointer:#x}, outside of its {size} bytes of memory"))
}

#[cold]
fn fault(function: &'static str, problem: String) -> wasmtime::Error {
    wasmtime::Error::new(Fault { function, problem })
}

/// A map by its ABI number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Map {
    Message(MessageMap),
    /// 4 to 7, less 4: what a callout brought.
    Delivered(usize),
}

impl Map {
    fn from_abi(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Message(MessageMap::RequestHeaders),
            1 => Self::Message(MessageMap::RequestTrailers),
            2 => Self::Message(MessageMap::ResponseHeaders),
            3 => Self::Message(MessageMap::ResponseTrailers),
            4..=7 => Self::Delivered(number as usize - 4),
            _ => return None,
        })
    }
}

/// Enters a host function or returns the status of one that may not run now.
macro_rules! enter {
    ($caller:expr, $name:literal) => {
        match Guest::enter($caller, $name)? {
            Ok(guest) => guest,
            Err(status) => return Ok(status),
        }
    };
}
use enter;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::imports::HOST_FUNCTIONS;

    #[test]
    fn the_linker_has_the_functions_that_loading_checks_against() {
        let engine = wasmtime::Engine::default();
        let linker = linker(&engine).expect("links");
        let types = |list: &[wasmparser::ValType]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        for function in HOST_FUNCTIONS {
            for module in function.modules {
                let (params, results) = (types(function.params), types(function.results));
                let name = function.name;
                let wat = format!(r#"(module (import "{module}" "{name}" (func (param {params}) (result {results}))))"#);
                let bytes = wat::parse_str(&wat).expect("valid");
                let module = wasmtime::Module::new(&engine, bytes).expect("valid");
                if let Err(error) = linker.instantiate_pre(&module) {
                    panic!("{wat}: {error:#}");
                }
            }
        }
    }
}
