//! Odd messages of HTTP/1, judged by this proxy, nginx and haproxy: what this one lets through and both others refuse is a failure.
//!
//! A message is let through when the origin's answer comes back, which it gives to whole requests only. The messages are the corpus, and a set of
//! requests with one odd byte in every place that matters. Others that are not installed are left out, and the table says so.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;

use super::http1_corpus;
use super::support::{Io, Proxy, ok, to_origin, until};

/// What this proxy lets through and both others do not, and why that is right.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];
/// Silence for so long is no answer.
const SILENCE: Duration = Duration::from_secs(3);

/// Where one odd byte stands, as `@`.
const PLACES: [(&str, &str); 16] = [
    ("before", "@GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("method", "GE@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("target", "GET /a@b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("authority", "GET http://a@b/ HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    ("version", "GET / HTTP/1.1@\r\nHost: a\r\n\r\n"),
    ("host", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    ("line", "GET / HTTP/1.1\r\nHost: a\r\n@X: y\r\n\r\n"),
    ("name", "GET / HTTP/1.1\r\nHost: a\r\nX@Y: z\r\n\r\n"),
    ("colon", "GET / HTTP/1.1\r\nHost: a\r\nX@: y\r\n\r\n"),
    ("value", "GET / HTTP/1.1\r\nHost: a\r\nX: y@z\r\n\r\n"),
    ("length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3@\r\n\r\nabc"),
    ("length-name", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length@: 3\r\n\r\nabc"),
    ("coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: @chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3@\r\nabc\r\n0\r\n\r\n"),
    ("extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x@\r\nabc\r\n0\r\n\r\n"),
    ("trailer", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx@: y\r\n\r\n"),
];

/// Control bytes, punctuation, what is beyond ASCII in part, and one of each other kind.
fn odd_bytes() -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(|byte| !byte.is_ascii_alphanumeric() && *byte < 0xa2 || b"aZ09\xff".contains(byte))
}

/// A message: what it is about, and what about that is odd.
struct Message {
    about: &'static str,
    odd: String,
    bytes: Vec<u8>,
}

fn messages() -> Vec<Message> {
    let corpus = http1_corpus::requests().into_iter().map(|case| Message { about: case.name, odd: String::new(), bytes: case.bytes });
    let odd = PLACES.iter().flat_map(|(about, text)| {
        let parts: Vec<&[u8]> = text.split('@').map(str::as_bytes).collect();
        odd_bytes().map(move |byte| Message { about, odd: byte.escape_ascii().to_string(), bytes: parts.join(&byte) })
    });
    corpus.chain(odd).collect()
}

/// Somebody who judges.
struct Judge {
    name: &'static str,
    place: Place,
    /// Ends with this value.
    process: Option<Child>,
}

#[derive(Clone)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Drop for Judge {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Judge {
    /// Starts a program that is installed.
    async fn start(name: &'static str, folder: &Path, config: &str, arguments: &[&str]) -> Option<Self> {
        let places = std::env::var_os("PATH").unwrap_or_default();
        let program =
            std::env::split_paths(&places).chain(["/usr/sbin".into()]).map(|place| place.join(name)).find(|path| path.is_file())?;
        let file = folder.join(format!("{name}.conf"));
        std::fs::write(&file, config).unwrap();
        let mut process = Command::new(program);
        process.args(arguments).arg(&file).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut judge = Self { name, place: Place::Unix(folder.join(name)), process: Some(process.spawn().unwrap()) };
        until("a judge", async || {
            let ended = judge.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{name} does not run: {ended:?}");
            UnixStream::connect(folder.join(name)).await.ok()
        })
        .await;
        Some(judge)
    }

    /// Whether each message is let through.
    async fn judge(&self, messages: &Arc<Vec<Message>>) -> Vec<bool> {
        let room = Arc::new(Semaphore::new(16));
        let tasks: Vec<_> = (0..messages.len())
            .map(|at| {
                let (messages, room, place) = (Arc::clone(messages), Arc::clone(&room), self.place.clone());
                tokio::spawn(async move {
                    let _turn = room.acquire().await.unwrap();
                    let io: Box<dyn Io> = match &place {
                        Place::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
                        Place::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
                    };
                    is_let_through(io, &messages[at].bytes).await
                })
            })
            .collect();
        let mut verdicts = Vec::with_capacity(tasks.len());
        for task in tasks {
            verdicts.push(task.await.unwrap());
        }
        verdicts
    }
}

/// Whether the origin's answer comes back. The connection stays open: to some a client that ends its side is gone.
async fn is_let_through(mut io: Box<dyn Io>, message: &[u8]) -> bool {
    let mut answer = Vec::new();
    let exchange = async {
        let _ = io.write_all(message).await;
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = io.read(&mut bytes).await {
            answer.extend_from_slice(&bytes[..read]);
            if answer.ends_with(b"the origin") {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(SILENCE, exchange).await;
    answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"the origin")
}

async fn others(folder: &Path, origin: SocketAddr) -> Vec<Judge> {
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().map(|kind| format!("{kind}_temp_path temporary;\n")).collect();
    let nginx = format!(
        "daemon off; master_process off; pid nginx.pid; error_log /dev/null;\nevents {{}}\nhttp {{ access_log off;\n{temporary}
        server {{ listen unix:nginx; location / {{
            proxy_pass http://{origin}; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
        }} }} }}"
    );
    let haproxy = format!(
        "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n\
        frontend in\n bind unix@haproxy\n default_backend out\nbackend out\n server origin {origin}\n"
    );
    let prefix = format!("{}/", folder.display());
    let nginx = Judge::start("nginx", folder, &nginx, &["-p", &prefix, "-e", "/dev/null", "-c"]).await;
    let haproxy = Judge::start("haproxy", folder, &haproxy, &["-db", "-f"]).await;
    nginx.into_iter().chain(haproxy).collect()
}

/// An origin that answers whole requests, however odd, and waits for the rest of others.
async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut request, mut bytes) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    request.extend_from_slice(&bytes[..read]);
                    if is_whole(&request) {
                        request.clear();
                        let _ = stream.write_all(ok("the origin").as_bytes()).await;
                    }
                }
            });
        }
    });
    address
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let (head, body) = (String::from_utf8_lossy(&request[..end]).to_ascii_lowercase(), &request[end + 4..]);
    let length = head.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok());
    if head.contains("\r\ntransfer-encoding:") {
        return has_last_chunk(body).unwrap_or(false);
    }
    body.len() >= length.unwrap_or(0)
}

/// Whether chunks end in trailers, and those in an empty line.
fn has_last_chunk(mut body: &[u8]) -> Option<bool> {
    loop {
        let line = body.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&body[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body[line..].windows(4).any(|four| four == b"\r\n\r\n"));
        }
        body = body.get(line + 2..)?.get(size.checked_add(2)?..)?;
    }
}

/// Every message on which the judges differ, those of one verdict about one thing in one line.
fn table(messages: &[Message], judges: &[(&str, Vec<bool>)]) -> String {
    let verdict = |passes: bool| if passes { "passes" } else { "refused" };
    let mut lines = vec![(row("", judges.iter().map(|(name, _)| *name)), String::new())];
    for (at, message) in messages.iter().enumerate() {
        if judges.iter().all(|(_, verdicts)| verdicts[at] == judges[0].1[at]) {
            continue;
        }
        let line = row(message.about, judges.iter().map(|(_, verdicts)| verdict(verdicts[at])));
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, odd)) => *odd += &format!(" {}", message.odd),
            None => lines.push((line, message.odd.clone())),
        }
    }
    lines.iter().map(|(line, odd)| format!("{}\n", format!("{line}  {odd}").trim_end())).collect()
}

fn row<'a>(name: &str, cells: impl Iterator<Item = &'a str>) -> String {
    cells.fold(format!("{name:<24}"), |row, cell| row + &format!(" {cell:>8}"))
}

#[tokio::test]
async fn nothing_passes_that_nginx_and_haproxy_both_refuse() {
    let origin = origin().await;
    let proxy = Proxy::start(&to_origin(origin)).await;
    let own = Judge { name: "weir", place: Place::Tcp(proxy.address("web").await), process: None };
    let folder = TempDir::new().unwrap();
    let judges: Vec<Judge> = [own].into_iter().chain(others(folder.path(), origin).await).collect();
    let messages = Arc::new(messages());
    let mut verdicts = Vec::new();
    for judge in &judges {
        verdicts.push((judge.name, judge.judge(&messages).await));
    }
    println!("{}", table(&messages, &verdicts));
    let (own, others) = (&verdicts[0].1, &verdicts[1..]);
    for (at, case) in http1_corpus::requests().iter().enumerate() {
        // An upgrade is for a route to allow.
        assert!(own[at] == (case.expected == "ok" && case.name != "websocket"), "{}", case.name);
    }
    if others.len() < 2 {
        println!("nginx or haproxy is not here: nothing to compare with");
        return;
    }
    let all = |at: usize, wanted: bool| others.iter().all(|(_, verdicts)| verdicts[at] == wanted);
    let count = |wanted: &dyn Fn(usize) -> bool| (0..messages.len()).filter(|at| wanted(*at)).count();
    let (passed, strict) = (count(&|at| own[at]), count(&|at| !own[at] && all(at, true)));
    println!("{} messages: {passed} pass here, {strict} are refused here alone", messages.len());
    let alone: Vec<(&str, &str)> =
        (0..messages.len()).filter(|at| own[*at] && all(*at, false)).map(|at| (messages[at].about, &*messages[at].odd)).collect();
    assert!(alone.iter().all(|it| EXCEPTIONS.iter().any(|(about, odd, _)| it == &(*about, *odd))), "passes here alone: {alone:?}");
    assert!(EXCEPTIONS.iter().all(|(about, odd, _)| alone.contains(&(*about, *odd))), "passes here alone no more: one of {EXCEPTIONS:?}");
}
