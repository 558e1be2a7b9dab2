//! The suite `sdk`: how long an author waits.
//!
//! From nothing to an answer: `weir filter new`, its tests, and a proxy that answers with the filter; then one save until its module serves. With the `weir`
//! that lies beside this program. The host that tests run in is compiled before that, by another project: what is measured is not the first filter of a user
//! but every one after it. What it does not do: judge.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::report::{Report, say};

/// For an answer of the proxy.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let weir = std::env::current_exe()?.with_file_name("weir");
    ensure!(weir.is_file(), "{} is missing: build weir-cli the same way", weir.display());
    let folder = tempfile::tempdir()?;
    let warm = Instant::now();
    project(&weir, folder.path(), "first")?;
    say(&format!(
        "  a first project, with the host that tests run in, as far as it was not compiled: {:.0} s",
        warm.elapsed().as_secs_f64()
    ));

    let begun = Instant::now();
    let project = project(&weir, folder.path(), "second")?;
    let tested = begun.elapsed();
    let serving = Serving::start(&weir, &project)?;
    ensure!(get(&serving.address)?.contains("x-second: hello"), "the filter did not mark the answer");
    report.figure(
        "new_to_answer_s",
        begun.elapsed().as_secs_f64(),
        "from nothing to a proxy that answers with a new filter, its tests passed",
    );
    report.figure("new_to_tested_s", tested.as_secs_f64(), "of it, until the tests had passed");

    let source = project.join("src/lib.rs");
    let text = std::fs::read_to_string(&source)?;
    std::fs::write(&source, text.replace("x-second", "x-saved"))?;
    let built = serving.until("built")?;
    let swapped = serving.until("swapped")?;
    ensure!(get(&serving.address)?.contains("x-saved: hello"), "the saved filter does not serve");
    report.figure("rebuild_ms", built["millis"].as_f64().unwrap_or(f64::NAN), "a save until its module is built");
    report.figure("swap_ms", swapped["millis"].as_f64().unwrap_or(f64::NAN), "a built module until it serves");
    Ok(())
}

/// A new project, with its tests passed.
fn project(weir: &Path, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let project = folder.join(name);
    for (arguments, at) in [(&["filter", "new", name][..], folder), (&["filter", "test"][..], project.as_path())] {
        let output = Command::new(weir).args(arguments).current_dir(at).output()?;
        ensure!(output.status.success(), "weir {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(project)
}

/// `weir filter run`. Ends with this value.
struct Serving {
    child: Child,
    lines: std::cell::RefCell<std::io::Lines<BufReader<std::process::ChildStdout>>>,
    address: String,
}

impl Serving {
    fn start(weir: &Path, project: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(weir);
        command.args(["filter", "run", "--output", "json", "--listen", "127.0.0.1:0"]).current_dir(project);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut serving = Self { child, lines: lines.into(), address: String::new() };
        serving.address = serving.until("serving")?["address"].as_str().context("no address")?.to_owned();
        Ok(serving)
    }

    fn until(&self, name: &str) -> anyhow::Result<Value> {
        for line in self.lines.borrow_mut().by_ref() {
            let event: Value = serde_json::from_str(&line?)?;
            if event["event"] == name {
                return Ok(event);
            }
        }
        bail!("weir filter run ended before {name}")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
