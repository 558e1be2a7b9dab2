//! `weir filter run`: serves, swaps on save while requests are under way, keeps the last good one, and leaves nothing behind. And how long it takes from
//! nothing to an answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command::{command, weir};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1200);

/// A run. Ends with this value.
struct Run {
    child: Child,
    events: Receiver<Value>,
    address: String,
}

impl Run {
    fn start(project: &Path, arguments: &[&str]) -> Self {
        let mut command = command(project);
        command.args(["filter", "run", "--output", "json", "--listen", "127.0.0.1:0"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (send, events) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).unwrap_or(Value::Null));
            }
        });
        let mut run = Self { child, events, address: String::new() };
        run.address = run.until("serving")["address"].as_str().unwrap().to_owned();
        run
    }

    /// The next event of this name.
    #[track_caller]
    fn until(&self, name: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(event) = self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if event["event"] == name {
                return event;
            }
            seen.push(event);
        }
        panic!("no {name} came: {seen:?}");
    }

    fn get(&self, path: &str) -> String {
        get(&self.address, path)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// An upstream that says what it got, and answers `/slow` once it may.
fn upstream(asked: &'static AtomicBool, may: &'static AtomicBool) -> String {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", origin.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in origin.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut piece = [0; 4096];
                    let read = stream.read(&mut piece).unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    head.extend(&piece[..read]);
                }
                let end = Instant::now() + PATIENCE;
                asked.fetch_or(head.starts_with(b"GET /slow"), Ordering::AcqRel);
                while head.starts_with(b"GET /slow") && !may.load(Ordering::Acquire) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", head.len());
                let _ = stream.write_all(&[text.as_bytes(), &head].concat());
            });
        }
    });
    address
}

#[test]
fn a_save_is_swapped_while_a_request_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    weir(folder.path(), &["filter", "new", "probe"]).ok();
    let project = folder.path().join("probe");
    static ASKED: AtomicBool = AtomicBool::new(false);
    static MAY: AtomicBool = AtomicBool::new(false);
    let run = Run::start(&project, &["--upstream", &upstream(&ASKED, &MAY)]);
    let first = run.get("/");
    assert!(first.starts_with("HTTP/1.1 200") && first.contains("x-probe: hello") && first.contains("GET / HTTP/1.1"), "{first}");
    assert!(run.get("/admin").starts_with("HTTP/1.1 403"));
    let seen = run.until("request");
    assert_eq!((&seen["method"], &seen["path"], &seen["status"]), (&"GET".into(), &"/".into(), &200.into()), "{seen}");

    let source = project.join("src/lib.rs");
    let module = project.join("build/probe.wasm");
    let (text, first_module) = (std::fs::read_to_string(&source).unwrap(), std::fs::read(&module).unwrap());
    std::fs::write(&source, text.replace("x-probe", "x-second")).unwrap();
    let built = run.until("built");
    let swapped = run.until("swapped");
    let (built, swapped) = (built["millis"].as_u64().unwrap(), swapped["millis"].as_u64().unwrap());
    writeln!(std::io::stderr(), "figure sdk.rebuild_ms {built}\nfigure sdk.swap_ms {swapped}").unwrap();
    assert!(run.get("/").contains("x-second: hello"));

    // Under way while the module is replaced, by the first one again: it finishes on the one that it began with.
    let address = run.address.clone();
    let slow = std::thread::spawn(move || get(&address, "/slow"));
    while !ASKED.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::write(project.join("build/again"), first_module).unwrap();
    std::fs::rename(project.join("build/again"), &module).unwrap();
    let end = Instant::now() + PATIENCE;
    while !run.get("/").contains("x-probe: hello") {
        assert!(Instant::now() < end, "the module is not followed");
    }
    assert!(!slow.is_finished(), "the slow request was to be under way until now");
    MAY.store(true, Ordering::Release);
    assert!(slow.join().unwrap().contains("x-second: hello"), "it did not finish on the module that it began with");

    // What does not compile, or is no configuration, leaves the last good one serving.
    std::fs::write(&source, "no rust").unwrap();
    assert!(run.until("broken")["error"].as_str().unwrap().contains("src/lib.rs"));
    let sample = project.join("sample.yaml");
    let yaml = std::fs::read_to_string(&sample).unwrap();
    std::fs::write(&sample, yaml.replace("greeting: hello", "greting: hello")).unwrap();
    let refused = run.until("refused");
    assert!(refused["message"].as_str().unwrap().contains("greeting"), "{refused}");
    assert!(run.get("/").contains("x-probe: hello"));
    std::fs::write(&sample, yaml.replace("greeting: hello", "greeting: salut")).unwrap();
    run.until("swapped");
    assert!(run.get("/").contains("x-probe: salut"), "the configuration follows as well");
}

#[test]
fn the_proxy_ends_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    weir(folder.path(), &["filter", "new", "leaver"]).ok();
    let mut run = Run::start(&folder.path().join("leaver"), &[]);
    assert!(run.get("/hello").contains("GET /hello HTTP/1.1"), "the small server says what it got");
    // As hard as it gets: the command has no chance to tell its proxy.
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&run.address).is_ok() {
        assert!(Instant::now() < end, "the proxy still serves");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_run_that_cannot_be_says_why() {
    let folder = tempfile::tempdir().unwrap();
    weir(folder.path(), &["filter", "new", "odd", "--template", "rust"]).ok();
    let project = folder.path().join("odd");
    let said = |arguments: &[&str]| weir(&project, &[&["filter", "run"], arguments].concat()).failed();
    assert!(said(&["--upstream", "ftp://x"]).contains("http://HOST:PORT"));
    assert!(said(&["--sample", "nothing.yaml"]).contains("nothing.yaml"));
    std::fs::write(project.join("other.yaml"), "listeners: []\n").unwrap();
    assert!(said(&["--sample", "other.yaml"]).contains("no listener"));
}
