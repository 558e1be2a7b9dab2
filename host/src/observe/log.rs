//! The process's own log: text for people, JSON for machines, with a level that can be changed while it runs.
//!
//! What always holds: one event is one line, whatever its fields hold; colours are used on terminals only.
//!
//! What it does not do: write files. Where standard error goes is the caller's choice.

use std::io::{self, IsTerminal as _, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry};
use weir_model::config;

/// Changes the level of the log.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Sets the level: `debug`, or `info,upstream=debug`.
    ///
    /// # Errors
    /// When it is not one, in a sentence.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let targets = targets(level)?;
        self.0.reload(targets).map_err(|error| format!("the level cannot be changed: {error}"))
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Starts the log of this process, on standard error.
///
/// # Errors
/// When the level is none, or there is a log already.
pub fn start(log: &config::Log) -> Result<LogLevel, String> {
    let (filter, handle) = reload::Layer::new(targets(&log.level)?);
    let terminal = io::stderr().is_terminal();
    let json = match log.format() {
        config::log::Format::Auto => !terminal,
        config::log::Format::Text => false,
        config::log::Format::Json => true,
    };
    let colors = terminal && !json && std::env::var_os("NO_COLOR").is_none();
    let writer = OneLine { to: io::stderr, colors };
    let layer = tracing_subscriber::fmt::layer();
    let layer = match json {
        true => layer.json().flatten_event(true).with_writer(writer).with_filter(filter).boxed(),
        false => layer.with_ansi(colors).with_writer(writer).with_filter(filter).boxed(),
    };
    tracing_subscriber::registry().with(layer).try_init().map_err(|error| error.to_string())?;
    Ok(LogLevel(handle))
}

/// What `level` says: a level for everything, and levels for targets. A target without `::` is a module of the proxy.
fn targets(level: &str) -> Result<Targets, String> {
    let mut targets = Targets::new().with_default(LevelFilter::INFO);
    for part in level.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let parse = |level: &str| match level.parse::<LevelFilter>() {
            // An empty text would be one.
            Ok(parsed) if !level.is_empty() => Ok(parsed),
            _ => Err(format!("{level:?} is no level: off, error, warn, info, debug or trace")),
        };
        match part.split_once('=') {
            None => targets = targets.with_default(parse(part)?),
            Some((target, level)) => targets = targets.with_target(full(target.trim()), parse(level.trim())?),
        }
    }
    Ok(targets)
}

fn full(target: &str) -> String {
    let ours = !target.contains("::") && !target.starts_with("weir_") && MODULES.contains(&target);
    if ours { format!("weir_proxy::{target}") } else { target.into() }
}

/// Modules that people name without their crate.
const MODULES: [&str; 13] =
    ["admin", "app", "filter", "http", "listener", "observe", "snapshot", "source", "tcp", "timer", "tls", "upstream", "worker"];

/// Keeps an event on its line: line ends inside of it are escaped, and control sequences that are not ours.
#[derive(Clone, Copy)]
struct OneLine<W> {
    to: W,
    colors: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter { to: self.to.make_writer(), colors: self.colors }
    }
}

struct OneLineWriter<W> {
    to: W,
    colors: bool,
}

impl<W: Write> Write for OneLineWriter<W> {
    /// The formatter writes a whole event at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (body, end) = match event.strip_suffix(b"\n") {
            Some(body) => (body, &b"\n"[..]),
            None => (event, &b""[..]),
        };
        let hostile = |byte: &u8| matches!(byte, 0..=8 | 11..=26 | 28..=31 | 127) || (*byte == 27 && !self.colors);
        if !body.iter().any(|byte| hostile(byte) || *byte == b'\n') {
            self.to.write_all(event)?;
            return Ok(event.len());
        }
        let mut clean = Vec::with_capacity(event.len() + 16);
        for byte in body {
            match byte {
                // A message that was written as several lines, such as diagnostics, stays readable on a terminal.
                b'\n' if self.colors => clean.extend_from_slice(b"\n    "),
                b'\n' => clean.extend_from_slice(b"\\n"),
                byte if hostile(byte) => write!(clean, "\\x{byte:02x}")?,
                byte => clean.push(*byte),
            }
        }
        clean.extend_from_slice(end);
        self.to.write_all(&clean)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool, event: impl FnOnce()) -> String {
        let memory = Memory::default();
        let to = memory.clone();
        let writer = OneLine { to: move || to.clone(), colors: false };
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
        let layer: Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync> =
            if json { layer.json().flatten_event(true).boxed() } else { layer.boxed() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), event);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_a_line() {
        let evil = "a\r\nERROR forged\x1b[2J\x07";
        for json in [false, true] {
            let text = logged(json, || tracing::info!(path = %evil, "hostile: {evil}"));
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(text.ends_with('\n') && !text.trim_end().contains(|c: char| c.is_control()), "{text:?}");
        }
        let text = logged(true, || tracing::info!(path = %evil, "hostile"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["path"].as_str(), value["message"].as_str()), (Some(evil), Some("hostile")));
    }

    #[test]
    fn levels_are_read_and_modules_found() {
        let chosen = targets("warn, upstream=debug, h2=trace").unwrap();
        assert!(chosen.would_enable("weir_proxy::upstream::pool", &tracing::Level::DEBUG));
        assert!(!chosen.would_enable("weir_proxy::source", &tracing::Level::INFO));
        assert!(chosen.would_enable("h2::codec", &tracing::Level::TRACE));
        assert!(targets("").unwrap().would_enable("weir_proxy", &tracing::Level::INFO));
        assert_eq!(targets("loud").unwrap_err(), "\"loud\" is no level: off, error, warn, info, debug or trace");
        assert!(targets("info,upstream=").is_err());
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        let (filter, handle) = reload::Layer::new(targets("info").unwrap());
        let level = LogLevel(handle);
        let memory = Memory::default();
        let to = memory.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || to.clone()).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::debug!("before");
            level.set("debug").unwrap();
            tracing::debug!("after");
            assert_eq!(level.get(), "debug");
            assert!(level.set("nonsense").is_err());
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("after") && !text.contains("before"), "{text}");
    }
}
