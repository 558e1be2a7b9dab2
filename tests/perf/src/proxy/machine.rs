//! What makes a shared machine quiet enough to measure on: one core, and the right to run there.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::report::say;

const AUTOGROUP: &str = "/proc/self/autogroup";
/// Above whatever else runs in this session.
const NICE: i32 = -15;

/// Gives the session's scheduling group its old priority back.
pub(super) struct Priority(Option<String>);

/// Pins this program, and so all that it starts, to one core, and lifts the limit of open files as far as it goes.
///
/// With the right to do so it also raises its own priority, and that of the session's scheduling group for as long as the result lives.
pub(super) fn prepare(core: usize) -> Result<Priority> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("core {core} cannot be used"))?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).context("the limit of open files stays")?;
    Ok(Priority(raise()))
}

fn raise() -> Option<String> {
    // `/autogroup-12 nice 0`
    let before = std::fs::read_to_string(AUTOGROUP).ok()?.split_whitespace().last()?.to_owned();
    if nice(NICE).is_err() || std::fs::write(AUTOGROUP, "-20").is_err() {
        say("note: without the right to raise its priority, what else runs on this machine disturbs the figures");
        return None;
    }
    Some(before)
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && let Err(error) = std::fs::write(AUTOGROUP, before)
        {
            say(&format!("note: this session keeps its raised priority: {error}"));
        }
    }
}
