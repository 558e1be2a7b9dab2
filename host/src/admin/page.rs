//! The pages themselves: views as JSON, counters as text or JSON, and a list of them all.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use super::AdminState;
use super::http::Reply;
use crate::observe::metrics::Metrics;

/// Every page that is read, and what it shows.
pub(super) const PAGES: [(&str, &str); 10] = [
    ("/ready", "whether new traffic is welcome: 200 or 503"),
    ("/healthz", "whether the process is alive: 200"),
    ("/config", "what is loaded, from where, and what was refused"),
    ("/listeners", "where connections come in"),
    ("/clusters", "endpoints with health, ejections and load"),
    ("/filters", "filters with what they cost"),
    ("/certs", "certificates and when they end"),
    ("/stats", "counters as JSON"),
    ("/metrics", "counters for Prometheus"),
    ("/profile", "a CPU profile: ?seconds=10"),
];

/// Pages that change something.
const SWITCHES: [(&str, &str); 2] = [
    ("POST /logging?level=info,upstream=debug", "sets the level of the log; GET shows it"),
    ("POST /drain", "lets connections end and takes no new ones"),
];

/// The page at `path`.
pub(super) fn view(path: &str, state: &impl AdminState) -> Reply {
    match path {
        "/ready" => {
            let ready = state.ready();
            json(if ready.ready { 200 } else { 503 }, &ready)
        }
        "/healthz" => Reply::text(200, "ok"),
        "/config" => json(200, &state.config()),
        "/listeners" => json(200, &state.listeners()),
        "/clusters" => json(200, &state.clusters()),
        "/filters" => json(200, &state.filters()),
        "/certs" => json(200, &state.certs()),
        _ => index(&state.config().node),
    }
}

/// The counters.
pub(super) fn counters(path: &str, metrics: &Arc<Metrics>) -> Reply {
    match path {
        "/metrics" => Reply::new(200, "text/plain; version=0.0.4; charset=utf-8", metrics.render()),
        _ => json(200, &metrics.stats()),
    }
}

fn json(status: u16, view: &impl Serialize) -> Reply {
    match serde_json::to_vec_pretty(view) {
        Ok(mut body) => {
            body.push(b'\n');
            Reply::new(status, "application/json", body)
        }
        Err(error) => Reply::text(500, &error.to_string()),
    }
}

fn index(node: &str) -> Reply {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>weir-proxy</title>\n\
         <style>body{{font:15px system-ui;margin:2em}}td{{padding:.2em 1em .2em 0}}</style>\n\
         <h1>weir-proxy {}</h1><p>{}</p><table>\n",
        env!("CARGO_PKG_VERSION"),
        escaped(node)
    );
    for (path, shows) in PAGES {
        let _ = writeln!(page, "<tr><td><a href=\"{path}\">{path}</a><td>{}", escaped(shows));
    }
    for (request, does) in SWITCHES {
        let _ = writeln!(page, "<tr><td><code>{}</code><td>{}", escaped(request), escaped(does));
    }
    page.push_str("</table></html>\n");
    Reply::new(200, "text/html; charset=utf-8", page.into_bytes())
}

/// Text inside of HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
