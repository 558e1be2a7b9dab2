//! `weir filter run`: a real proxy with the filter, rebuilt and swapped on every save.
//!
//! The proxy is a process of its own, this command again, so that it is the one that serves elsewhere too. It follows the module's file: replacing that is
//! the swap, and requests that are under way finish on the old module. Always: what does not compile, or does not load, leaves the last good one serving;
//! the proxy ends with this command. On a terminal keys do something; elsewhere it prints plain lines, or JSON lines.

mod events;
mod keys;
mod origin;
mod proxy;
mod setup;
mod watch;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args;
use crate::failure::{Done, Failure};
use crate::filter::project::Project;
use crate::out::{Out, Paint};
use events::Event;
use origin::Origin;
use proxy::Proxy;
use setup::Setup;

/// Saves come in bursts: what follows within this is the same one.
const QUIET: Duration = Duration::from_millis(60);

pub(crate) fn run(args: &args::Run, out: &Out) -> Done {
    let project = Project::at(&args.project)?;
    let module = project.build(out)?;
    let origin = if args.upstream.is_none() { Some(Origin::start()?) } else { None };
    let upstream = match (&args.upstream, &origin) {
        (Some(url), _) => setup::upstream(url)?,
        (None, Some(origin)) => origin.address,
        (None, None) => return Err(Failure::new("there is no upstream")),
    };
    let folder = tempfile::tempdir().map_err(|error| Failure::new(format!("no temporary folder: {error}")))?;
    let sample = project.folder.join(&args.sample);
    let setup = Setup { sample, module, upstream, listen: setup::free(args.listen), config: folder.path().join("weir.yaml") };
    setup.write()?;
    let (send, events) = channel();
    let proxy = Proxy::start(&setup.config, &send)?;
    let _watch = watch::start(&project.folder, &setup.sample, &send)?;
    let _keys = keys::start(&send);
    events::signals(&send)?;
    let mut session =
        Session { out, project, setup, proxy, events, send, last: None, save: None, building: false, again: false, served: false };
    session.serve(args.upstream.as_deref())
}

/// A request that came by.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    authority: String,
}

/// One run, from its start to its end.
struct Session<'a> {
    out: &'a Out,
    project: Project,
    setup: Setup,
    proxy: Proxy,
    events: Receiver<Event>,
    send: Sender<Event>,
    /// What `r` sends again.
    last: Option<Request>,
    /// When the module, or the configuration, was replaced that is not serving yet.
    save: Option<Instant>,
    building: bool,
    /// Something was saved while it was being built.
    again: bool,
    served: bool,
}

impl Session<'_> {
    fn serve(&mut self, upstream: Option<&str>) -> Done {
        self.wait_until_serving()?;
        let address = self.proxy.address()?;
        let before = upstream.map_or_else(|| "a small server that says what it got".to_owned(), str::to_owned);
        let keys = if keys::are_there() { "keys: r sends the last request again, c cost, x clear, q quit\n" } else { "" };
        self.say(&json!({"event": "serving", "address": address, "admin": self.proxy.admin(), "filter": self.project.name}), |out| {
            let url = out.paint(Paint::Bold, &format!("http://{address}/"));
            format!("{} serves on {url}, in front of {before}\nsave a file, and it is built and swapped\n{keys}", self.project.name)
        });
        loop {
            match self.events.recv() {
                Ok(Event::Quit) | Err(_) => return Ok(()),
                Ok(event) => self.take(event)?,
            }
        }
    }

    /// The first configuration serves, or the proxy says why not.
    fn wait_until_serving(&mut self) -> Done {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.served {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Ended) => return Err(Failure::new(format!("the proxy does not start\n{}", self.proxy.said()))),
                Ok(Event::Quit) => return Err(Failure::new("ended before it served")),
                Ok(event) => self.take(event)?,
                Err(_) => return Err(Failure::new(format!("the proxy does not serve\n{}", self.proxy.said()))),
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Done {
        match event {
            Event::Saved => self.build(),
            Event::SampleSaved => self.set_up(),
            Event::Built(result, took) => self.built(result, took),
            Event::Log(line) => self.log(&line),
            Event::Access(line) => self.request(&line),
            Event::Key(b'r') => self.send_again(),
            Event::Key(b'c') => self.cost(),
            Event::Key(b'x') => self.out.data("\x1b[2J\x1b[H"),
            Event::Key(_) | Event::Quit => {}
            Event::Ended => return Err(Failure::new(format!("the proxy has ended\n{}", self.proxy.said()))),
        }
        Ok(())
    }

    /// Prints an event: a line of JSON, or of text.
    fn say(&self, value: &Value, text: impl FnOnce(&Out) -> String) {
        match self.out.is_json() {
            true => self.out.data(&format!("{value}\n")),
            false => self.out.data(&text(self.out)),
        }
    }

    fn build(&mut self) {
        if std::mem::replace(&mut self.building, true) {
            self.again = true;
            return;
        }
        self.say(&json!({"event": "building"}), |_| String::new());
        let (project, send, out) = (self.project.clone(), self.send.clone(), *self.out);
        std::thread::spawn(move || {
            let begun = Instant::now();
            let result = project.build(&out).map(drop);
            let _ = send.send(Event::Built(result, begun.elapsed()));
        });
    }

    fn built(&mut self, result: Done, took: Duration) {
        self.building = false;
        let millis = millis(took);
        match result {
            Ok(()) => {
                self.save = Some(Instant::now());
                self.say(&json!({"event": "built", "millis": millis}), |out| out.paint(Paint::Dim, &format!("built in {millis} ms\n")));
            }
            Err(failure) => {
                let text = failure.text();
                self.say(&json!({"event": "broken", "error": text}), |out| {
                    format!("{}\n{text}\n", out.paint(Paint::Red, "it does not compile; the last good one serves"))
                });
            }
        }
        if std::mem::take(&mut self.again) {
            self.build();
        }
    }

    fn set_up(&mut self) {
        self.save = Some(Instant::now());
        if let Err(failure) = self.setup.write() {
            let text = failure.text();
            self.say(&json!({"event": "refused", "error": text}), |out| {
                format!("{}\n{text}\n", out.paint(Paint::Red, "the sample is wrong"))
            });
        }
    }

    fn log(&mut self, line: &Value) {
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        let (level, message, target) = (text("level"), text("message"), text("target"));
        if target == "config" && message.starts_with("configuration serves") {
            self.served = true;
            if let Some(save) = self.save.take() {
                let millis = millis(save.elapsed());
                self.say(&json!({"event": "swapped", "millis": millis, "generation": line["generation"]}), |out| {
                    out.paint(Paint::Green, &format!("swapped in {millis} ms\n"))
                });
            }
            return;
        }
        if !matches!(level, "WARN" | "ERROR") && target != "filter" {
            return;
        }
        let reason = if text("reason").is_empty() { message.to_owned() } else { format!("{message}: {}", text("reason")) };
        let event = if message.contains("last good one") { "refused" } else { "log" };
        let binding = text("binding");
        self.say(&json!({"event": event, "level": level, "message": reason, "filter": binding}), |out| {
            let paint = if matches!(level, "WARN" | "ERROR") { Paint::Yellow } else { Paint::Dim };
            format!("{} {reason}\n", out.paint(paint, &format!("{level:<5} {binding}")))
        });
    }

    fn request(&mut self, line: &Value) {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let (method, path, details) = (text("method"), text("path"), text("response_code_details"));
        let (status, millis) = (line["response_code"].as_u64().unwrap_or(0), line["duration"].as_u64().unwrap_or(0));
        self.say(
            &json!({"event": "request", "method": method, "path": path, "status": status, "details": details, "millis": millis}),
            |out| {
                let paint = if status >= 400 || status == 0 { Paint::Yellow } else { Paint::Green };
                format!("{} {method} {path} {millis} ms {}\n", out.paint(paint, &status.to_string()), out.paint(Paint::Dim, &details))
            },
        );
        if !method.is_empty() {
            self.last = Some(Request { method, path, authority: text("authority") });
        }
    }

    fn send_again(&self) {
        let Some(request) = self.last.clone() else {
            return self.say(&json!({"event": "note", "message": "there was no request yet"}), |_| "there was no request yet\n".into());
        };
        let Ok(address) = self.proxy.address() else { return };
        // Its answer is in the access log, like everybody's.
        std::thread::spawn(move || proxy::ask(&address, &request.method, &request.path, &request.authority));
    }

    fn cost(&self) {
        let filters = self.proxy.page("/filters").unwrap_or_default();
        for filter in filters.as_array().into_iter().flatten() {
            let accounting = &filter["accounting"];
            let calls: u64 = accounting["calls"].as_object().into_iter().flatten().filter_map(|(_, calls)| calls.as_u64()).sum();
            let requests =
                accounting["calls"]["proxy_on_request_headers"].as_u64().or(accounting["calls"]["proxy_on_new_connection"].as_u64());
            let (micros, memory) =
                (accounting["cpuMicros"].as_u64().unwrap_or(0), accounting["peakInstanceMemoryBytes"].as_u64().unwrap_or(0));
            let each = requests.filter(|requests| *requests > 0).map_or(0.0, |requests| micros as f64 / requests as f64);
            let value = json!({"event": "cost", "filter": filter["name"], "requests": requests, "calls": calls, "micros": micros, "each": each, "memory": memory});
            self.say(&value, |out| {
                let name = out.paint(Paint::Bold, filter["name"].as_str().unwrap_or_default());
                let memory = crate::filter::inspect::bytes(memory);
                format!("{name}: {each:.1} µs a request, {} requests, {calls} callbacks, {memory} at its peak\n", requests.unwrap_or(0))
            });
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
