//! Figures, and how they are printed. No figure is judged here.

use rustix::time::{ClockId, clock_gettime};

/// A suite's figures.
pub(crate) struct Report {
    suite: &'static str,
    figures: Vec<(String, f64, String)>,
}

/// One line for the person who waits.
#[expect(clippy::print_stdout, reason = "printing is what this program does")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

impl Report {
    pub(crate) fn new(suite: &'static str) -> Self {
        Self { suite, figures: Vec::new() }
    }

    /// Adds `SUITE.NAME` with its value and what it means.
    pub(crate) fn figure(&mut self, name: &str, value: f64, meaning: &str) {
        say(&format!("  {name}: {}", shown(value)));
        self.figures.push((format!("{}.{name}", self.suite), value, meaning.to_owned()));
    }

    pub(crate) fn print(&self) {
        let width = self.figures.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        say("");
        for (name, value, meaning) in &self.figures {
            say(&format!("{name:<width$}  {:>10}  {meaning}", shown(*value)));
        }
        say("");
        for (name, value, _) in &self.figures {
            say(&format!("figure {name} {}", shown(*value)));
        }
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        2.0.. => format!("{value:.2}"),
        // Ratios are held against limits of two places.
        _ => format!("{value:.3}"),
    }
}

/// CPU time of this thread in nanoseconds: what others do on the machine in the meantime does not count.
pub(crate) fn cpu_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds of CPU per round: the median of `runs` runs of `rounds` rounds each.
pub(crate) fn nanos_per_round(runs: usize, rounds: u32, mut work: impl FnMut(u32) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(runs);
    work(rounds / 10 + 1)?;
    for _ in 0..runs {
        let start = cpu_nanos();
        work(rounds)?;
        times.push((cpu_nanos() - start) / f64::from(rounds));
    }
    Ok(median(times))
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
