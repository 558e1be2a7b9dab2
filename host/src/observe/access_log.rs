//! The access log: one line per request, written by a thread of its own.
//!
//! A worker renders a line into a buffer of its own. A full buffer, or one that has waited for a moment, goes through a bounded queue to the writer,
//! and comes back empty. The text is Istio's default format, so that tools that read it go on working; JSON has the same fields.
//!
//! What always holds: one request is one line, whatever bytes a client sends: control characters, quotes and backslashes are escaped; a worker
//! neither waits nor makes a system call; when the disk does not keep up, lines are dropped and counted.
//!
//! What it does not do: rotate. Whoever does renames the file, or asks for it to be [opened again](AccessLogs::reopen).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

/// A buffer of this size goes to the writer.
const FULL: usize = 32 * 1024;
/// A line longer than this is cut: no field is worth more.
const LONGEST_FIELD: usize = 8 * 1024;
/// A filter's line that is longer is cut.
const LONGEST_LINE: usize = 64 * 1024;
/// Buffers that wait for the writer.
const QUEUE: usize = 256;
/// How long a line may wait in a worker.
const LINGER: Duration = Duration::from_millis(200);
/// How often to see whether a file was renamed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Istio's default.
    Text,
    /// One object per line.
    Json,
}

/// What a line says. Empty is `-`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields are those of the format")]
pub struct Record<'a> {
    /// When the request began.
    pub start: SystemTime,
    pub method: &'a [u8],
    /// As the client sent it, query included.
    pub path: &'a [u8],
    pub protocol: &'a str,
    /// 0 if there was no response.
    pub status: u16,
    /// Envoy's letters: `UF`, `NR`, `UH`.
    pub flags: &'a str,
    /// What happened: `via_upstream`, `route_not_found`.
    pub details: &'a str,
    pub termination_details: &'a str,
    pub upstream_failure: &'a str,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub duration: Duration,
    /// From the request to the upstream's head.
    pub upstream_time: Option<Duration>,
    pub forwarded_for: &'a [u8],
    pub user_agent: &'a [u8],
    pub request_id: &'a [u8],
    pub authority: &'a [u8],
    pub upstream_host: &'a str,
    pub upstream_cluster: &'a str,
    pub upstream_local: Option<SocketAddr>,
    pub downstream_local: Option<SocketAddr>,
    pub downstream_remote: Option<SocketAddr>,
    /// SNI.
    pub server_name: &'a [u8],
    pub route: &'a str,
    /// What filters decided, as JSON. In JSON lines only: the text is Istio's.
    pub decision: &'a str,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self {
            start: UNIX_EPOCH,
            method: b"",
            path: b"",
            protocol: "",
            status: 0,
            flags: "",
            details: "",
            termination_details: "",
            upstream_failure: "",
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            upstream_time: None,
            forwarded_for: b"",
            user_agent: b"",
            request_id: b"",
            authority: b"",
            upstream_host: "",
            upstream_cluster: "",
            upstream_local: None,
            downstream_local: None,
            downstream_remote: None,
            server_name: b"",
            route: "",
            decision: "",
        }
    }
}

/// A field's value.
enum Field<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    Address(Option<SocketAddr>),
    Millis(Option<Duration>),
}

/// How a field stands in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    Bare,
    Open,
    Close,
    Both,
}

impl Record<'_> {
    /// Every field after the time, in the order of the text.
    fn fields(&self) -> [(&'static str, Quote, Field<'_>); 23] {
        use Field::{Address, Bytes, Millis, Number};
        use Quote::{Bare, Both, Close, Open};
        [
            ("method", Open, Bytes(self.method)),
            ("path", Bare, Bytes(self.path)),
            ("protocol", Close, Bytes(self.protocol.as_bytes())),
            ("response_code", Bare, Number(self.status.into())),
            ("response_flags", Bare, Bytes(self.flags.as_bytes())),
            ("response_code_details", Bare, Bytes(self.details.as_bytes())),
            ("connection_termination_details", Bare, Bytes(self.termination_details.as_bytes())),
            ("upstream_transport_failure_reason", Both, Bytes(self.upstream_failure.as_bytes())),
            ("bytes_received", Bare, Number(self.bytes_received)),
            ("bytes_sent", Bare, Number(self.bytes_sent)),
            ("duration", Bare, Millis(Some(self.duration))),
            ("upstream_service_time", Bare, Millis(self.upstream_time)),
            ("x_forwarded_for", Both, Bytes(self.forwarded_for)),
            ("user_agent", Both, Bytes(self.user_agent)),
            ("request_id", Both, Bytes(self.request_id)),
            ("authority", Both, Bytes(self.authority)),
            ("upstream_host", Both, Bytes(self.upstream_host.as_bytes())),
            ("upstream_cluster", Bare, Bytes(self.upstream_cluster.as_bytes())),
            ("upstream_local_address", Bare, Address(self.upstream_local)),
            ("downstream_local_address", Bare, Address(self.downstream_local)),
            ("downstream_remote_address", Bare, Address(self.downstream_remote)),
            ("requested_server_name", Bare, Bytes(self.server_name)),
            ("route_name", Bare, Bytes(self.route.as_bytes())),
        ]
    }

    /// Appends the line, its end included.
    fn render(&self, format: Format, line: &mut String) {
        match format {
            Format::Text => self.text(line),
            Format::Json => self.json(line),
        }
        line.push('\n');
    }

    fn text(&self, line: &mut String) {
        line.push('[');
        time(self.start, line);
        line.push(']');
        for (_, quote, field) in self.fields() {
            line.push(' ');
            if matches!(quote, Quote::Open | Quote::Both) {
                line.push('"');
            }
            match field {
                Field::Bytes(b"") | Field::Address(None) | Field::Millis(None) => line.push('-'),
                // Nothing in a line without quotes may look like two fields.
                Field::Bytes(bytes) => escape(bytes, quote != Quote::Both, line),
                other => plain(&other, line),
            }
            if matches!(quote, Quote::Close | Quote::Both) {
                line.push('"');
            }
        }
    }

    fn json(&self, line: &mut String) {
        line.push_str("{\"start_time\":\"");
        time(self.start, line);
        line.push('"');
        for (name, _, field) in self.fields() {
            let _ = write!(line, ",\"{name}\":");
            match field {
                Field::Bytes(b"") | Field::Address(None) | Field::Millis(None) => line.push_str("null"),
                Field::Bytes(bytes) => {
                    line.push('"');
                    json_escape(bytes, line);
                    line.push('"');
                }
                Field::Address(Some(address)) => {
                    let _ = write!(line, "\"{address}\"");
                }
                number => plain(&number, line),
            }
        }
        // Decisions are JSON already, unless a filter has written something else there.
        if serde_json::from_str::<&serde_json::value::RawValue>(self.decision).is_ok() {
            line.push_str(",\"decision\":");
            line.extend(self.decision.chars().filter(|c| !c.is_control()));
        }
        line.push('}');
    }
}

fn plain(field: &Field<'_>, line: &mut String) {
    let _ = match field {
        Field::Number(number) => write!(line, "{number}"),
        Field::Address(Some(address)) => write!(line, "{address}"),
        Field::Millis(Some(time)) => write!(line, "{}", time.as_millis()),
        Field::Bytes(_) | Field::Address(None) | Field::Millis(None) => Ok(()),
    };
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(LONGEST_FIELD)]
}

/// Text with everything escaped that is not printable ASCII, or is a quote or a backslash; spaces too where `bare`.
fn escape(bytes: &[u8], bare: bool, line: &mut String) {
    for byte in cut(bytes) {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            b' ' if bare => line.push_str("\\x20"),
            b' '..=b'~' => line.push(char::from(*byte)),
            other => {
                let _ = write!(line, "\\x{other:02x}");
            }
        }
    }
}

/// The inside of a JSON string. What is not UTF-8 becomes U+FFFD; what a terminal would obey is escaped, though JSON would let it stand.
fn json_escape(bytes: &[u8], line: &mut String) {
    for c in String::from_utf8_lossy(cut(bytes)).chars() {
        match c {
            '"' | '\\' => {
                line.push('\\');
                line.push(c);
            }
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
}

/// `2026-11-21T09:41:00.123Z`.
fn time(at: SystemTime, line: &mut String) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1970 to a date: years begin in March, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let _ = write!(line, "{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis());
}

/// Where a listener's lines go. A clone is another hold on the same.
#[derive(Clone, Debug)]
pub struct Sink {
    number: usize,
    format: Format,
}

/// Lines on their way.
struct Batch {
    sink: usize,
    text: String,
    lines: u64,
}

#[derive(Default)]
struct Sinks {
    paths: Vec<PathBuf>,
}

/// All access logs of a process, and the thread that writes them.
pub struct AccessLogs {
    sinks: Arc<Mutex<Sinks>>,
    queue: SyncSender<Batch>,
    empties: Arc<Mutex<Vec<String>>>,
    reopen: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
}

/// Files that lines may go to.
const MOST_SINKS: usize = 1_000;

impl AccessLogs {
    /// Starts the writer.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start() -> io::Result<Arc<Self>> {
        Self::counting(Arc::default())
    }

    /// The same, with lines that are dropped added to `dropped`.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn counting(dropped: Arc<AtomicU64>) -> io::Result<Arc<Self>> {
        let (queue, batches) = sync_channel(QUEUE);
        let logs = Arc::new(Self { sinks: Arc::default(), queue, empties: Arc::default(), reopen: Arc::default(), dropped });
        let writer = Writer {
            batches,
            sinks: Arc::clone(&logs.sinks),
            empties: Arc::clone(&logs.empties),
            reopen: Arc::clone(&logs.reopen),
            dropped: Arc::clone(&logs.dropped),
            files: HashMap::new(),
        };
        std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run())?;
        Ok(logs)
    }

    /// Where lines for `path` go: a file, `stdout` or `stderr`. The file is opened at the first line; one that cannot be opened costs its lines, which
    /// are counted.
    ///
    /// # Errors
    /// When there are too many files.
    pub fn sink(&self, path: &str, format: Format) -> Result<Sink, String> {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match sinks.paths.iter().position(|known| known == Path::new(path)) {
            Some(number) => number,
            None if sinks.paths.len() == MOST_SINKS => return Err(format!("more than {MOST_SINKS} access logs since the start")),
            None => {
                sinks.paths.push(path.into());
                sinks.paths.len() - 1
            }
        };
        Ok(Sink { number, format })
    }

    /// Where a filter's own lines for `path` go, as a number.
    ///
    /// # Errors
    /// When there are too many files.
    pub fn lines(&self, path: &str) -> Result<u32, String> {
        self.sink(path, Format::Text).map(|sink| u32::try_from(sink.number).unwrap_or(u32::MAX))
    }

    /// A worker's own view, through which it logs. Make it on the worker, and run [`WorkerLog::linger`] there.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> Rc<WorkerLog> {
        Rc::new(WorkerLog { logs: Arc::clone(self), buffers: RefCell::default(), waiting: Notify::new() })
    }

    /// Opens all files again, before the next line: what a rotating tool asks for with SIGUSR1.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Lines that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[derive(Default)]
struct Buffer {
    text: String,
    lines: u64,
}

/// A worker's own view of the access logs.
pub struct WorkerLog {
    logs: Arc<AccessLogs>,
    /// By the number of the sink.
    buffers: RefCell<Vec<Buffer>>,
    waiting: Notify,
}

impl WorkerLog {
    /// Logs a request.
    pub fn record(&self, sink: &Sink, record: &Record<'_>) {
        self.append(sink.number, |text| record.render(sink.format, text));
    }

    /// Writes a line of a filter's, which has rendered it. What would make it two lines, or is no text, is escaped.
    pub fn line(&self, sink: u32, line: &[u8]) {
        let number = sink as usize;
        // The number came from `AccessLogs::lines`.
        if number >= MOST_SINKS {
            return;
        }
        self.append(number, |text| {
            for chunk in line.get(..LONGEST_LINE).unwrap_or(line).utf8_chunks() {
                for c in chunk.valid().chars() {
                    if c.is_control() {
                        let _ = write!(text, "\\u{:04x}", u32::from(c));
                    } else {
                        text.push(c);
                    }
                }
                chunk.invalid().iter().for_each(|byte| {
                    let _ = write!(text, "\\x{byte:02x}");
                });
            }
            text.push('\n');
        });
    }

    fn append(&self, number: usize, render: impl FnOnce(&mut String)) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() <= number {
            buffers.resize_with(number + 1, Buffer::default);
        }
        let Some(buffer) = buffers.get_mut(number) else { return };
        if buffer.lines == 0 {
            self.waiting.notify_one();
        }
        render(&mut buffer.text);
        buffer.lines += 1;
        if buffer.text.len() >= FULL {
            self.hand_over(number, buffer);
        }
    }

    /// Hands over what waits.
    pub fn flush(&self) {
        for (number, buffer) in self.buffers.borrow_mut().iter_mut().enumerate() {
            if buffer.lines > 0 {
                self.hand_over(number, buffer);
            }
        }
    }

    /// Hands over lines that have waited for a moment, for ever: spawn it beside the worker's requests. It sleeps while there are no lines.
    pub async fn linger(self: Rc<Self>) {
        loop {
            self.waiting.notified().await;
            tokio::time::sleep(LINGER).await;
            self.flush();
        }
    }

    fn hand_over(&self, sink: usize, buffer: &mut Buffer) {
        let empty = match self.logs.empties.try_lock() {
            Ok(mut empties) => empties.pop(),
            Err(_) => None,
        };
        let text = std::mem::replace(&mut buffer.text, empty.unwrap_or_default());
        let lines = std::mem::take(&mut buffer.lines);
        if let Err(error) = self.logs.queue.try_send(Batch { sink, text, lines }) {
            self.logs.dropped.fetch_add(lines, Relaxed);
            let (std::sync::mpsc::TrySendError::Full(mut batch) | std::sync::mpsc::TrySendError::Disconnected(mut batch)) = error;
            batch.text.clear();
            buffer.text = batch.text;
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// An open file, and which one it is: a renamed one has another number under its name.
struct Open {
    file: File,
    identity: (u64, u64),
    looked: Instant,
}

struct Writer {
    batches: Receiver<Batch>,
    sinks: Arc<Mutex<Sinks>>,
    empties: Arc<Mutex<Vec<String>>>,
    reopen: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    files: HashMap<usize, Open>,
}

impl Writer {
    fn run(mut self) {
        loop {
            match self.batches.recv_timeout(LOOK_EVERY) {
                Ok(batch) => self.take(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, mut batch: Batch) {
        if self.reopen.swap(false, Relaxed) {
            self.files.clear();
        }
        if let Err(error) = self.write(&batch) {
            self.dropped.fetch_add(batch.lines, Relaxed);
            self.files.remove(&batch.sink);
            tracing::warn!(%error, lines = batch.lines, "lines of an access log are lost");
        }
        batch.text.clear();
        let mut empties = self.empties.lock().unwrap_or_else(PoisonError::into_inner);
        if empties.len() < QUEUE && batch.text.capacity() <= 4 * FULL {
            empties.push(batch.text);
        }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let path = self.sinks.lock().unwrap_or_else(PoisonError::into_inner).paths.get(batch.sink).cloned().unwrap_or_default();
        match path.to_str() {
            Some("stdout") => return io::stdout().write_all(batch.text.as_bytes()),
            Some("stderr") => return io::stderr().write_all(batch.text.as_bytes()),
            _ => {}
        }
        let renamed = |open: &mut Open| {
            let look = open.looked.elapsed() >= LOOK_EVERY;
            if look {
                open.looked = Instant::now();
            }
            look && identity(&path).ok() != Some(open.identity)
        };
        if self.files.get_mut(&batch.sink).is_some_and(renamed) {
            self.files.remove(&batch.sink);
        }
        let open = match self.files.entry(batch.sink) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let file = File::options().append(true).create(true).open(&path)?;
                let metadata = file.metadata()?;
                entry.insert(Open { file, identity: (metadata.dev(), metadata.ino()), looked: Instant::now() })
            }
        };
        open.file.write_all(batch.text.as_bytes())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(format: Format, record: &Record<'_>) -> String {
        let mut line = String::new();
        record.render(format, &mut line);
        line
    }

    fn some() -> Record<'static> {
        Record {
            start: UNIX_EPOCH + Duration::from_millis(1_795_254_060_123),
            method: b"GET",
            path: b"/status?x=1",
            protocol: "HTTP/1.1",
            status: 200,
            details: "via_upstream",
            bytes_sent: 135,
            duration: Duration::from_micros(4_500),
            upstream_time: Some(Duration::from_millis(4)),
            user_agent: b"curl/8 (a b)",
            authority: b"app:8000",
            upstream_host: "10.0.0.1:80",
            upstream_cluster: "outbound|8000||app",
            downstream_remote: Some(SocketAddr::from(([127, 0, 0, 1], 9))),
            ..Record::default()
        }
    }

    #[test]
    fn the_text_is_istios() {
        let expected = "[2026-11-21T09:41:00.123Z] \"GET /status?x=1 HTTP/1.1\" 200 - via_upstream - \"-\" 0 135 4 4 \"-\" \"curl/8 (a b)\" \"-\" \
                        \"app:8000\" \"10.0.0.1:80\" outbound|8000||app - - 127.0.0.1:9 - -\n";
        assert_eq!(line(Format::Text, &some()), expected);
    }

    #[test]
    fn json_has_the_same_fields() {
        let text = line(Format::Json, &some());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["start_time"], "2026-11-21T09:41:00.123Z");
        assert_eq!(value["response_code"], 200);
        assert_eq!(value["upstream_local_address"], serde_json::Value::Null);
        assert_eq!(value["downstream_remote_address"], "127.0.0.1:9");
        assert_eq!(value.as_object().unwrap().len(), 24);
        let decided = |decision| line(Format::Json, &Record { decision, ..some() });
        let value: serde_json::Value = serde_json::from_str(&decided("[{\"rule\":\n\"a\"}]")).unwrap();
        assert_eq!(value["decision"][0]["rule"], "a");
        assert_eq!(decided("no json\n"), text);
    }

    #[test]
    fn dates_are_right() {
        let date = |seconds: u64| {
            let mut text = String::new();
            time(UNIX_EPOCH + Duration::from_secs(seconds), &mut text);
            text
        };
        assert_eq!(date(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(date(951_868_800), "2000-03-01T00:00:00.000Z");
        assert_eq!(date(4_107_542_399), "2100-02-28T23:59:59.000Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn hostile_bytes_stay_inside_their_field() {
        let evil = b"a\" 200\r\n[2026] \"GET /forged\x1b[2J\\\x00\xff";
        let record = Record { path: evil, user_agent: evil, server_name: evil, ..some() };
        let text = line(Format::Text, &record);
        assert!(text.contains("\"GET a\\\"\\x20200\\r\\n[2026]\\x20\\\"GET\\x20/forged\\x1b[2J\\\\\\x00\\xff HTTP/1.1\" 200"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    proptest! {
        #[test]
        fn one_request_is_one_record(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let record = Record { path: &bytes, user_agent: &bytes, server_name: &bytes, ..some() };
            let text = line(Format::Text, &record);
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\n'));
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            let json = line(Format::Json, &record);
            prop_assert_eq!(json.find('\n'), Some(json.len() - 1));
            prop_assert!(json.chars().all(|c| c == '\n' || !c.is_control()));
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            if !bytes.is_empty() {
                let lossy = String::from_utf8_lossy(&bytes);
                prop_assert_eq!(value["path"].as_str(), Some(&*lossy));
            }
        }
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn lines(path: &Path) -> usize {
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    #[test]
    fn lines_reach_their_file_and_a_renamed_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let logs = AccessLogs::start().unwrap();
        let sink = logs.sink(path.to_str().unwrap(), Format::Text).unwrap();
        let worker = logs.worker();
        for _ in 0..1_000 {
            worker.record(&sink, &some());
        }
        assert!(worker.buffers.borrow()[0].text.len() < FULL, "full buffers are handed over");
        worker.flush();
        until("the lines are written", || lines(&path) == 1_000);
        std::fs::rename(&path, &old).unwrap();
        logs.reopen();
        worker.record(&sink, &some());
        drop(worker);
        until("the new file is written", || lines(&path) == 1);
        assert_eq!((lines(&old), logs.dropped()), (1_000, 0));
    }

    #[test]
    fn a_filters_line_is_one_line_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("filter.log");
        let logs = AccessLogs::start().unwrap();
        let log = logs.lines(path.to_str().unwrap()).unwrap();
        let worker = logs.worker();
        worker.line(log, b"one\r\ntwo \x1b[2J \xc3\xa4 \xff");
        worker.line(log, &vec![b'x'; 2 * LONGEST_LINE]);
        worker.line(u32::MAX, b"a number that nobody was given");
        drop(worker);
        until("two lines", || lines(&path) == 2);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some("one\\u000d\\u000atwo \\u001b[2J ä \\xff"));
        assert_eq!(text.lines().nth(1).map(str::len), Some(LONGEST_LINE));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (queue, batches) = sync_channel(2);
        let logs =
            Arc::new(AccessLogs { sinks: Arc::default(), queue, empties: Arc::default(), reopen: Arc::default(), dropped: Arc::default() });
        let sink = logs.sink("/nowhere", Format::Json).unwrap();
        let worker = logs.worker();
        for _ in 0..5 {
            worker.record(&sink, &some());
            worker.record(&sink, &some());
            worker.flush();
        }
        assert_eq!(logs.dropped(), 6);
        drop(batches);
        worker.record(&sink, &some());
        worker.flush();
        assert_eq!(logs.dropped(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_line_is_handed_over_after_a_moment() {
        let (queue, batches) = sync_channel(2);
        let logs =
            Arc::new(AccessLogs { sinks: Arc::default(), queue, empties: Arc::default(), reopen: Arc::default(), dropped: Arc::default() });
        let sink = logs.sink("/nowhere", Format::Text).unwrap();
        let worker = logs.worker();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(Rc::clone(&worker).linger());
        local
            .run_until(async {
                worker.record(&sink, &some());
                tokio::time::sleep(LINGER * 2).await;
                assert_eq!(batches.try_recv().unwrap().lines, 1);
                tokio::time::sleep(LINGER * 2).await;
                assert!(batches.try_recv().is_err());
            })
            .await;
    }
}
