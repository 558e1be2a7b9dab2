//! The tools that make requests, how they are called and what they report.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::process::command;
use super::programs::{Program, Programs};

/// Headers that a browser or a mesh would send: a request has thirteen fields with `host` and the pseudo headers.
const HEADERS: [&str; 8] = [
    "user-agent: curl/8.5.0",
    "accept: */*",
    "accept-encoding: gzip, deflate, br",
    "x-request-id: 7b1e6c1c-6f10-4a8e-9a6e-0d6d3d6a7f11",
    "x-version: v1",
    "authorization: Bearer eyJhbGciOiJIUzI1NiJ9.abc.def",
    "cookie: session=abcdef0123456789; theme=dark",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
];

/// A path that every rule has to look at, and that all let through.
pub(super) const PATH: &str = "/api/v1/users/42";

/// What is asked of a target.
#[derive(Clone, Copy)]
pub(super) enum Load {
    /// wrk on keep-alive connections.
    Requests { connections: u32, path: &'static str },
    /// wrk with a connection for every request.
    Churn { connections: u32 },
    /// h2load: 16 connections with 8 streams each, HTTP/2 by prior knowledge.
    Streams,
    /// This program: a connection and a full TLS 1.3 handshake for every request.
    Handshakes { client_certificate: bool, post_quantum: bool },
}

/// What a tool saw.
pub(super) struct Seen {
    pub(super) answered: u64,
    pub(super) seconds: f64,
    /// Answers that are not 2xx.
    pub(super) refused: u64,
    /// Connections that broke, requests without an answer.
    pub(super) errors: u64,
}

impl Load {
    /// Whether everything that this load needs is here.
    pub(super) const fn tool(self) -> Option<Program> {
        match self {
            Self::Requests { .. } | Self::Churn { .. } => Some(Program::Wrk),
            Self::Streams => Some(Program::H2load),
            Self::Handshakes { .. } => None,
        }
    }

    /// Puts the load on a port. `rate` is what an earlier call saw, for a tool that counts requests instead of seconds.
    pub(super) fn run(self, programs: &Programs, folder: &Path, port: u16, seconds: u32, rate: f64) -> Result<Seen> {
        let tool = |program| programs.path(program).context("the tool is not here");
        match self {
            Self::Requests { connections, path } => wrk(tool(Program::Wrk)?, connections, &[], port, path, seconds),
            Self::Churn { connections } => wrk(tool(Program::Wrk)?, connections, &["connection: close"], port, PATH, seconds),
            Self::Streams => h2load(tool(Program::H2load)?, port, (rate * f64::from(seconds)) as u64),
            Self::Handshakes { client_certificate, post_quantum } => {
                let mut load = command(&std::env::current_exe()?);
                load.arg(super::handshakes::COMMAND).arg(folder).args([port.to_string(), seconds.to_string()]);
                load.args([client_certificate.to_string(), post_quantum.to_string()]);
                let said = output(&mut load)?;
                let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
                let [answered, errors, seconds] = numbers[..] else { anyhow::bail!("it said: {said}") };
                Ok(Seen { answered: answered as u64, seconds, refused: 0, errors: errors as u64 })
            }
        }
    }
}

fn headers<'a>(more: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    HEADERS.iter().chain(more).flat_map(|header| ["-H", header])
}

fn wrk(program: &Path, connections: u32, more: &[&str], port: u16, path: &str, seconds: u32) -> Result<Seen> {
    let mut load = command(program);
    load.args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s")]).args(headers(more));
    let said = output(load.arg(format!("http://127.0.0.1:{port}{path}")))?;
    read_wrk(&said).with_context(|| format!("wrk said: {said}"))
}

/// `  184230 requests in 3.00s, 213.61MB read`, and lines about what went wrong only if something did.
fn read_wrk(said: &str) -> Option<Seen> {
    let line = said.lines().find(|line| line.contains(" requests in "))?;
    let (answered, rest) = line.trim().split_once(" requests in ")?;
    let refused = said.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    // `connect 0, read 12, write 0, timeout 0`
    let errors = said.lines().find_map(|line| line.trim().strip_prefix("Socket errors: ")).unwrap_or_default();
    Some(Seen {
        answered: answered.parse().ok()?,
        seconds: seconds(rest.split(',').next()?)?,
        refused: refused.map_or(Some(0), |refused| refused.parse().ok())?,
        errors: errors.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u64>().ok()).sum(),
    })
}

/// `3.00s`, `950.12ms`, `1.05m`
fn seconds(text: &str) -> Option<f64> {
    let (number, factor) = match text {
        text if text.ends_with("ms") => (text.strip_suffix("ms")?, 1e-3),
        text if text.ends_with("us") => (text.strip_suffix("us")?, 1e-6),
        text if text.ends_with('m') => (text.strip_suffix('m')?, 60.0),
        text => (text.strip_suffix('s')?, 1.0),
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// Requests of a warm-up, before any rate is known.
const FIRST_STREAMS: u64 = 20_000;

fn h2load(program: &Path, port: u16, requests: u64) -> Result<Seen> {
    let requests = if requests == 0 { FIRST_STREAMS } else { requests };
    let mut load = command(program);
    load.args(["-c", "16", "-m", "8", "-n", &requests.to_string()]).args(headers(&[]));
    let said = output(load.arg(format!("http://127.0.0.1:{port}{PATH}")))?;
    read_h2load(&said).with_context(|| format!("h2load said: {said}"))
}

/// `finished in 1.61s, 62111.80 req/s, 65.42MB/s`
/// `requests: 100000 total, 100000 started, 100000 done, 100000 succeeded, 0 failed, 0 errored, 0 timeout`
fn read_h2load(said: &str) -> Option<Seen> {
    let line = said.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let counts = said.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count = |what: &str| -> Option<u64> { counts.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok()) };
    let succeeded = count(" succeeded")?;
    let done = count(" done")?;
    let lost = count(" total")?.checked_sub(done)? + count(" errored")? + count(" timeout")?;
    Some(Seen { answered: done, seconds: seconds(line.split(',').next()?)?, refused: done.checked_sub(succeeded)?, errors: lost })
}

fn output(command: &mut Command) -> Result<String> {
    let start = Instant::now();
    let output = command.output().with_context(|| format!("{} does not start", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the load ended after {:.1} s with {}: {said}{errors}", start.elapsed().as_secs_f64(), output.status);
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_understood() {
        let fine = "Running 3s test\n  1 threads\n  184230 requests in 3.00s, 213.61MB read\nRequests/sec:  61393.79\n";
        let seen = read_wrk(fine).unwrap();
        assert_eq!((seen.answered, seen.refused, seen.errors), (184_230, 0, 0));
        assert!((seen.seconds - 3.0).abs() < 1e-9);
        let bad =
            "  12 requests in 950.00ms, 1MB read\n  Socket errors: connect 1, read 20, write 3, timeout 4\n  Non-2xx or 3xx responses: 7\n";
        let seen = read_wrk(bad).unwrap();
        assert_eq!((seen.answered, seen.refused, seen.errors), (12, 7, 28));
        assert!((seen.seconds - 0.95).abs() < 1e-9);
        assert!(read_wrk("unable to connect").is_none());
    }

    #[test]
    fn what_h2load_says_is_understood() {
        let said = "finished in 1.61s, 62111.80 req/s, 65.42MB/s\n\
            requests: 100 total, 100 started, 98 done, 90 succeeded, 10 failed, 2 errored, 0 timeout\n";
        let seen = read_h2load(said).unwrap();
        assert_eq!((seen.answered, seen.refused, seen.errors), (98, 8, 4));
    }
}
