//! The plugins' timers, each shared by the filter's own ticks and by its sleeping tasks.
//!
//! The ABI has one timer a plugin, with a period. It is set to whatever comes next: the filter's tick, or the first sleeper. What always holds: a sleeper
//! wakes no earlier than it asked for; a plugin without ticks and sleepers has its timer off.

use std::cell::RefCell;

use crate::abi;

const MILLI: u64 = 1_000_000;

#[derive(Debug, Default)]
pub(crate) struct Clocks {
    list: RefCell<Vec<Clock>>,
}

#[derive(Debug, Default)]
struct Clock {
    root: u32,
    /// Of the filter's own ticks; 0 is none. All times in nanoseconds.
    period: u64,
    next: u64,
    /// What the host's timer is set to, in milliseconds.
    armed: u32,
    /// Until when, and which task.
    sleepers: Vec<(u64, u64)>,
}

impl Clocks {
    fn with<T>(&self, root: u32, run: impl FnOnce(&mut Clock) -> T) -> T {
        let mut list = self.list.borrow_mut();
        let at = list.iter().position(|clock| clock.root == root).unwrap_or_else(|| {
            list.push(Clock { root, ..Clock::default() });
            list.len() - 1
        });
        run(&mut list[at])
    }

    /// The filter wants to be called this often.
    pub(crate) fn tick_every(&self, root: u32, millis: u32) -> Result<(), abi::Status> {
        self.with(root, |clock| {
            clock.period = u64::from(millis) * MILLI;
            clock.next = abi::now() + clock.period;
            clock.arm()
        })
    }

    /// Whether the filter's own tick is due. Counts it, if so.
    pub(crate) fn is_tick(&self, root: u32) -> bool {
        self.with(root, |clock| {
            let now = abi::now();
            // The timer has milliseconds, the clock has less.
            let is_due = clock.period > 0 && now + MILLI >= clock.next;
            if is_due {
                clock.next = now + clock.period;
            }
            is_due
        })
    }

    pub(crate) fn sleep(&self, root: u32, task: u64, until: u64) {
        self.with(root, |clock| {
            clock.sleepers.push((until, task));
            // The context in effect is a stream's, perhaps: its timer is its plugin's.
            let _ = clock.arm();
        });
    }

    /// A task whose time has come.
    pub(crate) fn next_awake(&self, root: u32) -> Option<u64> {
        let now = abi::now();
        self.with(root, |clock| {
            let at = clock.sleepers.iter().position(|(until, _)| *until <= now)?;
            Some(clock.sleepers.swap_remove(at).1)
        })
    }

    /// Tasks that are gone.
    pub(crate) fn forget(&self, is_gone: impl Fn(u64) -> bool) {
        self.list.borrow_mut().iter_mut().for_each(|clock| clock.sleepers.retain(|(_, task)| !is_gone(*task)));
    }

    /// Sets the timer to what comes next.
    pub(crate) fn arm(&self, root: u32) {
        let _ = self.with(root, Clock::arm);
    }
}

impl Clock {
    fn arm(&mut self) -> Result<(), abi::Status> {
        let ticks = (self.period > 0).then_some(self.next);
        let next = self.sleepers.iter().map(|(until, _)| *until).chain(ticks).min();
        let millis = match next {
            None => 0,
            // Without sleepers the host's own period drifts less than ours.
            Some(_) if self.sleepers.is_empty() => u32::try_from(self.period / MILLI).unwrap_or(u32::MAX),
            Some(next) => u32::try_from(next.saturating_sub(abi::now()).div_ceil(MILLI)).unwrap_or(u32::MAX).max(1),
        };
        if millis == self.armed && self.sleepers.is_empty() {
            return Ok(());
        }
        self.armed = millis;
        abi::set_tick(millis)
    }
}
