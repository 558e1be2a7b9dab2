//! A program under measurement: started, waited for, weighed, stopped.
//!
//! It ends with this program, however that one ends, where util-linux' `setpriv` is there to arrange it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to accept connections: Envoy compiles its modules first.
const START: Duration = Duration::from_secs(60);
/// How long a program may take to end when it is asked to.
const END: Duration = Duration::from_secs(2);

pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; its diagnostics go to `log`.
    pub(super) fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let said = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said).spawn();
        let child = child.with_context(|| format!("{} does not start", command.get_program().display()))?;
        Ok(Self { child, log })
    }

    /// Waits until someone accepts connections on the port.
    pub(super) fn accepts(&mut self, port: u16) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", self.said());
            }
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("it does not listen on port {port}: {}", self.said())
    }

    /// The end of what it wrote.
    pub(super) fn said(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Nanoseconds that its threads, and those of its children, were on a CPU.
    pub(super) fn cpu_nanos(&self) -> u64 {
        let of_thread = |task: &Path| -> Option<u64> {
            // `on-CPU waiting timeslices`
            fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
        };
        self.tree().iter().flat_map(|pid| tasks(*pid)).filter_map(|task| of_thread(&task)).sum()
    }

    /// Resident memory of it and its children, in KiB.
    pub(super) fn resident_kib(&self) -> f64 {
        let of_process = |pid: u32| -> Option<f64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        self.tree().into_iter().filter_map(of_process).sum()
    }

    fn tree(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            let children = tasks(pid).into_iter().filter_map(|task| fs::read_to_string(task.join("children")).ok());
            let children: Vec<_> =
                children.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()).collect::<Vec<_>>()).collect();
            found.extend(children);
            next += 1;
        }
        found
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pids = self.tree();
        let signal = |signal| {
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).unwrap_or(0))) {
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
        };
        signal(Signal::TERM);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline && !matches!(self.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The folders of a process's threads.
fn tasks(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// A command that ends with this program.
pub(super) fn command(program: &Path) -> Command {
    static SETPRIV: &str = "/usr/bin/setpriv";
    if !Path::new(SETPRIV).is_file() {
        return Command::new(program);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command
}
