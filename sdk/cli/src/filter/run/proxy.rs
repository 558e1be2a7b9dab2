//! The proxy's process: its log and access log as events, its pages, its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Event;
use crate::failure::{Done, Failure};

/// Lines that are kept to say why it ended.
const KEPT: usize = 20;
/// For a page, or a request that is sent again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most of an answer that is read.
const MOST: u64 = 16 << 20;

#[derive(Default)]
struct Heard {
    admin: Option<String>,
    lines: Vec<String>,
}

/// The process. Ends with this value.
pub(crate) struct Proxy {
    child: Child,
    heard: Arc<Mutex<Heard>>,
}

impl Proxy {
    pub(crate) fn start(config: &Path, send: &Sender<Event>) -> Done<Self> {
        let failed = |error: std::io::Error| Failure::new(format!("the proxy cannot be started: {error}"));
        let this = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(this);
        command.arg("run").arg("--with-parent").arg(config).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let heard = Arc::<Mutex<Heard>>::default();
        if let Some(stdout) = child.stdout.take() {
            let send = send.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Ok(value) = serde_json::from_str(&line) {
                        let _ = send.send(Event::Access(value));
                    }
                }
            });
        }
        if let Some(stderr) = child.stderr.take() {
            let (send, heard) = (send.clone(), Arc::clone(&heard));
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let value = hear(&heard, &line);
                    let _ = send.send(Event::Log(value));
                }
                let _ = send.send(Event::Ended);
            });
        }
        Ok(Self { child, heard })
    }

    /// The last things that it said.
    pub(crate) fn said(&self) -> String {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    pub(crate) fn admin(&self) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).admin.clone()
    }

    /// Where the first listener is.
    pub(crate) fn address(&self) -> Done<String> {
        let listeners = self.page("/listeners").unwrap_or_default();
        let address = listeners.get(0).and_then(|listener| listener["address"].as_str());
        address.map(str::to_owned).ok_or_else(|| Failure::new("the proxy has no listener").help("the sample needs one"))
    }

    /// An operator's page.
    pub(crate) fn page(&self, path: &str) -> Option<Value> {
        let answer = ask(&self.admin()?, "GET", path, "localhost")?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
}

fn hear(heard: &Mutex<Heard>, line: &str) -> Value {
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    // What is no JSON is from before its log began: a configuration that is wrong.
    let value: Value = serde_json::from_str(line).unwrap_or(Value::Null);
    let message = value["message"].as_str();
    if let Some(address) = message.and_then(|message| message.strip_prefix("pages on http://")) {
        heard.admin = Some(address.trim_end_matches('/').to_owned());
    }
    heard.lines.push(message.unwrap_or(line).to_owned());
    if heard.lines.len() > KEPT {
        heard.lines.remove(0);
    }
    value
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request and its whole answer, head and body.
pub(crate) fn ask(address: &str, method: &str, path: &str, authority: &str) -> Option<String> {
    let address: SocketAddr = address.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
