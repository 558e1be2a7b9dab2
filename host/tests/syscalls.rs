//! What a request costs in system calls: two to receive, two to send, and its share of waiting.
//!
//! The proxy runs under strace twice, with few and with many requests on the same connections; the difference is the requests'. Where strace is
//! missing or may not trace, the test says so and passes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const CONNECTIONS: usize = 32;
const FEW: usize = 5;
const MANY: usize = 105;
const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls that move bytes; anything else but waiting does not belong on a request's path.
const MOVING: [&str; 10] = ["recvfrom", "recvmsg", "read", "readv", "sendto", "sendmsg", "write", "writev", "recvmmsg", "sendmmsg"];
/// The last is the clock's of the filters, which ticks with time and not with requests.
const WAITING: [&str; 4] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "clock_nanosleep"];

#[test]
fn a_keep_alive_request_costs_two_receives_and_two_sends() {
    if let Err(why) = may_trace() {
        // Past the capture of passing tests: a check that nobody sees missing is none.
        writeln!(std::io::stderr(), "SKIPPED a_keep_alive_request_costs_two_receives_and_two_sends: {why}").unwrap();
        return;
    }
    // On a machine that has no time for the proxy connections become ready one by one, and waiting is shared by few.
    let mut failed = Vec::new();
    while let Err(why) = measure() {
        failed.push(why);
        assert!(failed.len() < TRIES, "{failed:#?}");
    }
}

/// Counts once. `Err` says what is too much.
fn measure() -> Result<(), String> {
    let (few, many) = (calls_for(FEW), calls_for(MANY));
    let requests = (CONNECTIONS * (MANY - FEW)) as f64;
    let mut each: BTreeMap<&str, f64> = BTreeMap::new();
    for (call, count) in &many {
        each.insert(call, (*count as f64 - few.get(call).copied().unwrap_or(0) as f64) / requests);
    }
    let sum = |names: &[&str]| names.iter().filter_map(|name| each.get(name)).sum::<f64>();
    let (moving, waiting, all) = (sum(&MOVING), sum(&WAITING), each.values().sum::<f64>());
    assert!(moving > 3.9, "the requests went through the proxy: {each:?}");
    if moving >= 4.05 {
        return Err(format!("a request needs {moving:.2} calls that move bytes: {each:?}"));
    }
    if all - moving - waiting >= 0.1 {
        return Err(format!("a request needs calls that neither move bytes nor wait: {each:?}"));
    }
    // A worker that waits once for every event would need two more.
    if waiting >= 1.0 {
        return Err(format!("waiting is not shared among connections: {each:?}"));
    }
    Ok(())
}

fn may_trace() -> Result<(), String> {
    let tried =
        Command::new("strace").args(["-f", "-c", "-o", "/dev/null", "true"]).output().map_err(|e| format!("no strace here: {e}"))?;
    if tried.status.success() { Ok(()) } else { Err(format!("strace may not trace: {}", String::from_utf8_lossy(&tried.stderr))) }
}

/// Ends what it started, however the test ends.
struct Traced {
    strace: Child,
}

impl Traced {
    fn proxy(&self) -> Option<Pid> {
        let pid = self.strace.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }

    /// Asks the proxy to end, and waits for strace's summary.
    fn finish(&mut self) {
        if let Some(proxy) = self.proxy() {
            let _ = kill_process(proxy, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.strace.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the proxy does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy() {
            let _ = kill_process(proxy, Signal::KILL);
        }
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// How often each call was made while so many requests went over each connection.
fn calls_for(requests: usize) -> BTreeMap<String, u64> {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let config = folder.path().join("proxy.yaml");
    fs::write(&config, configuration(port, origin)).unwrap();
    let counts = folder.path().join("counts");
    let mut traced = start(&config, &counts);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(traced.strace.try_wait().unwrap().is_none() && Instant::now() < deadline, "the proxy does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
    }
    for _ in 0..requests {
        // All at once, as in a busy proxy.
        for client in &mut clients {
            client.write_all(b"GET /a HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\n\r\n").unwrap();
        }
        for client in &mut clients {
            let answer = message(client).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
        }
    }
    drop(clients);
    traced.finish();
    summary(&fs::read_to_string(counts).unwrap())
}

fn configuration(port: u16, origin: u16) -> String {
    format!(
        "workers: 1
admin: {{address: \"off\"}}
listeners:
- name: main
  address: \"127.0.0.1:{port}\"
  defaultBranch: {{http: {{defaultAction: {{forward: {{clusters: [{{name: up}}]}}}}}}}}
clusters:
- name: up
  endpoints: {{localities: [{{endpoints: [{{address: \"127.0.0.1:{origin}\"}}]}}]}}
"
    )
}

fn start(config: &Path, counts: &Path) -> Traced {
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(counts).arg(env!("CARGO_BIN_EXE_weir-proxy")).args(["run", "-c"]).arg(config);
    Traced { strace: command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() }
}

/// `  0.00    0.000000           0        12         3 epoll_wait`; the column of errors may be empty.
fn summary(text: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| -> Option<(String, u64)> {
        let fields: Vec<_> = line.split_whitespace().collect();
        let call = *fields.last()?;
        fields.first()?.parse::<f64>().ok()?;
        Some((call.to_owned(), fields.get(3)?.parse().ok()?))
    };
    let counts: BTreeMap<_, _> = text.lines().filter_map(row).filter(|(call, _)| call != "total").collect();
    assert!(counts.len() > 5, "strace said: {text}");
    counts
}

/// Answers every request on every connection, one thread each.
fn origin() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                while message(&mut socket).is_some() && socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").is_ok() {}
            });
        }
    });
    port
}

/// The next message with its body; `None` at the end of the connection.
fn message(socket: &mut TcpStream) -> Option<String> {
    let mut got = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&got);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        match socket.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => got.extend_from_slice(&chunk[..read]),
        }
    }
}
