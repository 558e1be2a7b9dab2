//! Metrics. Ids are an instance's own; series belong to the binding and outlive it.

use wasmtime::{Caller, Linker};

use super::{Answer, BAD_ARGUMENT, Guest, NOT_FOUND, OK, enter};
use crate::metrics::{MetricError, MetricKind, SeriesId};
use crate::stats::Counter;
use crate::vm::state::State;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "proxy_define_metric", define)?;
    linker.func_wrap("env", "proxy_increment_metric", |caller: Caller<'_, State>, id: u32, delta: i64| {
        let guest = enter!(caller, "proxy_increment_metric");
        Ok(status(guest.state().metrics.increment(SeriesId::from_raw(id), delta)))
    })?;
    linker.func_wrap("env", "proxy_record_metric", |caller: Caller<'_, State>, id: u32, value: u64| {
        let guest = enter!(caller, "proxy_record_metric");
        Ok(status(guest.state().metrics.record(SeriesId::from_raw(id), value)))
    })?;
    linker.func_wrap("env", "proxy_get_metric", |caller: Caller<'_, State>, id: u32, out: u32| {
        let mut guest = enter!(caller, "proxy_get_metric");
        match guest.state().metrics.get(SeriesId::from_raw(id)) {
            Ok(value) => {
                guest.write_u64(out, value)?;
                Ok(OK)
            }
            Err(error) => Ok(status(Err(error))),
        }
    })?;
    Ok(())
}

fn status(result: Result<(), MetricError>) -> u32 {
    match result {
        Ok(()) => OK,
        Err(MetricError::NotFound) => NOT_FOUND,
        Err(MetricError::BadArgument) => BAD_ARGUMENT,
    }
}

fn define(caller: Caller<'_, State>, kind: u32, name: u32, length: u32, out: u32) -> Answer {
    let mut guest = enter!(caller, "proxy_define_metric");
    let Some(kind) = MetricKind::from_raw(kind) else { return Ok(BAD_ARGUMENT) };
    let name = String::from_utf8_lossy(guest.take(name, length)?).into_owned();
    match define_labelled(guest.state_mut(), kind, &name, &[]) {
        Some(id) => {
            guest.write_u32(out, id.raw())?;
            Ok(OK)
        }
        None => Ok(BAD_ARGUMENT),
    }
}

pub(super) fn define_labelled(state: &mut State, kind: MetricKind, name: &str, labels: &[(&str, &str)]) -> Option<SeriesId> {
    match state.metrics.set().define(kind, name, labels) {
        Ok(id) => Some(id),
        Err(error) => {
            state.odd(Counter::MetricsRefused, "proxy_define_metric", &error.to_string());
            None
        }
    }
}
