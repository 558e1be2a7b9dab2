//! Targets in turn: started, checked, warmed up, measured, stopped; then their medians.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use weir_test_guests::{Filter, Kind, bench};

use super::client::{Answer, Client};
use super::load::{PATH, Seen};
use super::process::{Process, command};
use super::programs::{Program, Programs};
use super::scenarios::{Check, Scenario, Target};
use super::{Options, certificates};
use crate::report::{Report, median, say};

/// How often a spoilt measurement is taken again.
const ATTEMPTS: u32 = 3;
/// Ports that templates may name. An origin keeps its own for the whole run.
const PORTS: [&str; 7] = ["HTTP", "HTTP2", "TLS", "MTLS", "UNBUFFERED", "RULES", "ADMIN"];

/// What all targets share: the origin, the certificates, a folder, the guests.
pub(super) struct Ground<'a> {
    pub(super) programs: &'a Programs,
    origin: u16,
    _process: Process,
    // Last: it goes when nobody uses it any more.
    folder: TempDir,
}

/// A target that runs.
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) port: u16,
}

/// One measurement.
struct Run {
    micros: f64,
    rate: f64,
    resident_mib: f64,
}

impl<'a> Ground<'a> {
    pub(super) fn new(programs: &'a Programs) -> Result<Self> {
        let nginx = programs.path(Program::Nginx).context("nginx is not here; it is the origin too, so nothing can be measured")?;
        let folder = tempfile::Builder::new().prefix("weir-perf-").tempdir()?;
        // nginx gives up root's rights before it reads anything.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        certificates::write(folder.path())?;
        fs::write(folder.path().join("big"), vec![b'x'; 1 << 20])?;
        let origin = free_ports::<1>()?[0];
        let body = "x".repeat(1024);
        let known = [("RUN", folder.path().display().to_string()), ("ORIGIN", origin.to_string()), ("BODY", body)];
        let file = folder.path().join("origin.conf");
        fs::write(&file, render(include_str!("../../peers/origin.conf"), &known)?)?;
        let mut process = Process::start(command(nginx).arg("-c").arg(&file), folder.path().join("origin.out"))?;
        process.accepts(origin).context("the origin does not start")?;
        Ok(Self { programs, origin, _process: process, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a target on fresh ports and waits until it listens.
    pub(super) fn start(&self, target: &Target) -> Result<Running> {
        let program = self.programs.path(target.program).with_context(|| format!("{:?} is not here", target.program))?;
        let ports = free_ports::<{ PORTS.len() }>()?;
        let mut known = vec![("RUN", self.folder().display().to_string()), ("ORIGIN", self.origin.to_string())];
        known.extend(PORTS.iter().zip(ports).map(|(name, port)| (*name, port.to_string())));
        if target.template.contains("_WASM@") {
            known.extend(guests(target.guests));
        }
        // The ending tells some of them how to read it.
        let ending = if matches!(target.program, Program::Weir | Program::Envoy) { "yaml" } else { "conf" };
        let file = self.folder().join(format!("target.{ending}"));
        fs::write(&file, render(target.template, &known)?)?;
        let mut command = command(program);
        match target.program {
            Program::Weir => command.args(["run", "-c"]).arg(&file),
            Program::Haproxy => command.args(["-db", "-f"]).arg(&file),
            Program::Envoy => command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c"]).arg(&file),
            _ => command.arg("-c").arg(&file),
        };
        let port = PORTS.iter().zip(ports).find(|(name, _)| **name == target.port).context("no such port")?.1;
        let mut process = Process::start(&mut command, self.folder().join("target.out"))?;
        process.accepts(port)?;
        Ok(Running { process, port })
    }
}

fn guests(kind: Kind) -> Vec<(&'static str, String)> {
    let names = [
        ("POLICY_WASM", "POLICY_CONFIG"),
        ("FAULT_WASM", "FAULT_CONFIG"),
        ("ROUTER_WASM", "ROUTER_CONFIG"),
        ("TELEMETRY_WASM", "TELEMETRY_CONFIG"),
    ];
    let values = Filter::ALL.map(|filter| (bench(kind, filter).display().to_string(), format!("{:?}", filter.config())));
    names.into_iter().zip(values).flat_map(|((wasm, config), (path, text))| [(wasm, path), (config, text)]).collect()
}

/// Ports that nobody uses now.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All at once, so that they differ.
    let sockets = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>()?;
    let mut ports = [0; N];
    for (port, socket) in ports.iter_mut().zip(&sockets) {
        *port = socket.local_addr()?.port();
    }
    Ok(ports)
}

/// Replaces every `@NAME@`. One without a value is an error.
fn render(template: &str, known: &[(&str, String)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, value) in known {
        text = text.replace(&format!("@{name}@"), value);
    }
    let left = text.match_indices('@').map(|(at, _)| text[at + 1..].split('@').next().unwrap_or_default());
    let left: Vec<_> =
        left.filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b"_0123456789".contains(&b))).collect();
    ensure!(left.is_empty(), "a template names {left:?}, which nobody fills in");
    Ok(text)
}

fn check(running: &Running, check: Check) -> Result<()> {
    let mut client = Client::connect(running.port)?;
    match check {
        Check::Nothing => {}
        Check::Answers(path, length) => {
            for _ in 0..2 {
                let answer = client.ask("GET", path, "")?;
                ensure!(answer == Answer { status: 200, length }, "{path} is answered with {answer:?}");
            }
        }
        Check::Rules => {
            let cases = [
                ("GET", PATH, "", 200),
                ("GET", "/admin", "", 403),
                ("DELETE", PATH, "", 403),
                ("PUT", PATH, "x-role: guest\r\ncontent-length: 0\r\n", 403),
                ("GET", "/", "x-version: v1\r\n", 200),
            ];
            for (method, path, header, expected) in cases {
                // A refusal may end the connection.
                let answer = Client::connect(running.port)?.ask(method, path, header)?;
                ensure!(answer.status == expected, "{method} {path} is answered with {}, not {expected}", answer.status);
            }
        }
    }
    Ok(())
}

pub(super) fn run(ground: &Ground, scenario: &Scenario, options: &Options, report: &mut Report) -> Result<()> {
    say(&format!("\n{}: {}", scenario.name, scenario.about));
    if scenario.load.tool().is_some_and(|tool| !ground.programs.has(tool)) {
        say("  SKIPPED: its load tool is not here");
        return Ok(());
    }
    let mut field: Vec<(&Target, Vec<Run>)> = Vec::new();
    for target in scenario.targets.iter().filter(|target| !options.without.iter().any(|name| name == target.name)) {
        // Once before the first round, which also fills Weir's cache of modules.
        match ground.start(target).and_then(|running| check(&running, scenario.check).with_context(|| running.process.said())) {
            Ok(()) => field.push((target, Vec::new())),
            Err(error) => say(&format!("  LEFT OUT: {}: {error:#}", target.name)),
        }
    }
    for _ in 0..options.rounds {
        for (target, runs) in &mut field {
            match attempts(ground, scenario, target, options.seconds) {
                Ok(run) => runs.push(run),
                Err(error) => say(&format!("  a run of {} does not count: {error:#}", target.name)),
            }
        }
    }
    // Half of the rounds is the least that a median is worth quoting from.
    field.retain(|(_, runs)| !runs.is_empty() && runs.len() * 2 > options.rounds as usize);
    table(&field);
    figures(scenario, &field, report);
    Ok(())
}

fn attempts(ground: &Ground, scenario: &Scenario, target: &Target, seconds: u32) -> Result<Run> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match measure(ground, scenario, target, seconds) {
            Ok(run) => return Ok(run),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("never tried")?)
}

fn measure(ground: &Ground, scenario: &Scenario, target: &Target, seconds: u32) -> Result<Run> {
    let running = ground.start(target)?;
    let load = |seconds, rate| -> Result<Seen> {
        let seen = scenario.load.run(ground.programs, ground.folder(), running.port, seconds, rate)?;
        if seen.errors > 0 || seen.answered == 0 || seen.refused as f64 > (seen.answered as f64 * scenario.refused).ceil() {
            bail!("{} errors and {} refusals in {} answers; {}", seen.errors, seen.refused, seen.answered, running.process.said());
        }
        Ok(seen)
    };
    let warm = load(1, 0.0)?;
    let before = running.process.cpu_nanos();
    let seen = load(seconds, warm.answered as f64 / warm.seconds)?;
    let nanos = running.process.cpu_nanos().checked_sub(before).context("a process of its ended meanwhile")?;
    Ok(Run {
        micros: nanos as f64 / 1e3 / seen.answered as f64,
        rate: seen.answered as f64 / seen.seconds,
        resident_mib: running.process.resident_kib() / 1024.0,
    })
}

fn values(runs: &[Run], value: fn(&Run) -> f64) -> Vec<f64> {
    runs.iter().map(value).collect()
}

fn micros(runs: &[Run]) -> f64 {
    median(values(runs, |run| run.micros))
}

fn table(field: &[(&Target, Vec<Run>)]) {
    let width = field.iter().map(|(target, _)| target.name.len()).max().unwrap_or(0);
    say(&format!("  {:<width$}  {:>10}  {:>10}  {:>10}  {:>10}", "", "us median", "us min", "per second", "MiB"));
    for (target, runs) in field {
        let least = values(runs, |run| run.micros).into_iter().fold(f64::INFINITY, f64::min);
        let (rate, resident) = (median(values(runs, |run| run.rate)), median(values(runs, |run| run.resident_mib)));
        say(&format!("  {:<width$}  {:>10.2}  {least:>10.2}  {rate:>10.0}  {resident:>10.1}", target.name, micros(runs)));
    }
}

fn figures(scenario: &Scenario, field: &[(&Target, Vec<Run>)], report: &mut Report) {
    let runs = |name: &str| field.iter().find(|(target, _)| target.name == name).map(|(_, runs)| runs.as_slice());
    for figure in scenario.figures {
        let best = figure.by.iter().map(|name| runs(name).map(micros)).collect::<Option<Vec<_>>>();
        let best = best.map(|all| all.into_iter().fold(f64::INFINITY, f64::min));
        match runs(figure.of).map(micros).zip(best) {
            Some((of, by)) => report.figure(figure.name, of / by, figure.meaning),
            None => say(&format!("  {}: no figure, one of the two was not measured", figure.name)),
        }
    }
    for (target, runs) in field {
        report.figure(&format!("{}_us", target.name), micros(runs), "CPU for one");
    }
    if let Some((name, target, meaning)) = scenario.resident
        && let Some(runs) = runs(target)
    {
        report.figure(name, median(values(runs, |run| run.resident_mib)), meaning);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenarios;
    use super::*;

    #[test]
    fn templates_are_filled_in_completely() {
        let known = [("A", "1".to_owned()), ("B_2", "two".to_owned())];
        assert_eq!(render("x @A@ y@B_2@ user@host", &known).unwrap(), "x 1 ytwo user@host");
        assert!(render("@A@ @MISSING@", &known).unwrap_err().to_string().contains("MISSING"));
    }

    #[test]
    fn figures_name_targets_and_targets_name_ports() {
        for scenario in scenarios::ALL {
            let named = |name: &str| scenario.targets.iter().any(|target| target.name == name);
            for figure in scenario.figures {
                assert!(named(figure.of) && !figure.by.is_empty() && figure.by.iter().all(|name| named(name)), "{}", figure.name);
            }
            assert!(scenario.resident.is_none_or(|(_, target, _)| named(target)));
            for target in scenario.targets {
                assert!(PORTS.contains(&target.port) && target.template.contains(&format!("@{}@", target.port)), "{}", target.name);
            }
        }
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports::<7>().unwrap().to_vec();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 7);
    }
}
