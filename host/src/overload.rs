//! Watches the process's memory: past its limit new connections and requests are shed until there is room again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::worker::Process;

/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// Where shedding ends again, in percent of the limit: a limit that flips with every request would shed at random.
const ENOUGH: u64 = 95;

/// The limit in bytes: what was asked for, else nine tenths of what the process's group may have, else none.
#[must_use]
pub fn limit(asked_mib: u32) -> Option<u64> {
    if asked_mib > 0 {
        return Some(u64::from(asked_mib) << 20);
    }
    let most = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group: u64 = most.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())?;
    // Old kernels write a number beyond any machine for no limit.
    (group < 1 << 50).then(|| group / 10 * 9)
}

/// Resident memory in bytes.
fn resident() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Whether to shed, given whether it was done before.
fn judge(used: u64, limit: u64, before: bool) -> bool {
    if before { used > limit / 100 * ENOUGH } else { used > limit }
}

/// Watches for ever.
pub async fn watch(process: Arc<Process>, limit: u64) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(used) = resident() else { continue };
        let before = process.overloaded.load(Ordering::Relaxed);
        let now = judge(used, limit, before);
        if now != before {
            process.overloaded.store(now, Ordering::Relaxed);
            let (used, limit) = (used >> 20, limit >> 20);
            match now {
                true => tracing::warn!(target: "overload", "{used} MiB in use, {limit} MiB allowed: new connections and requests are shed"),
                false => tracing::info!(target: "overload", "{used} MiB in use: shedding is over"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shedding_begins_above_the_limit_and_ends_well_below() {
        assert!(!judge(1000, 1000, false));
        assert!(judge(1001, 1000, false));
        assert!(judge(960, 1000, true), "not yet");
        assert!(!judge(950, 1000, true));
    }

    #[test]
    fn memory_is_read() {
        assert!(resident().expect("this runs on Linux") > 1 << 20);
        assert_eq!(limit(3), Some(3 << 20));
    }
}
