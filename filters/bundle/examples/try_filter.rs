//! `make run`: one filter, one request, in the production host, and everything that happened.
//!
//! Without arguments it runs the built-in `headers` filter with a small configuration. It opens no socket: the upstream is played here.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::ExitCode;

use weir_sdk_testing::{Exchange, Tester, Worker};
use weir_wasm::codec::Pairs;
use weir_wasm::module::callbacks::Callback;
use weir_wasm::{MessageMap, Upstreams};

const USAGE: &str = "\
Runs a Proxy-Wasm filter against one request in Weir's host and prints what happened.

usage: make run ARGS='[FILTER] [OPTIONS]'

FILTER is a built-in filter's name or the path of a .wasm file (default: headers)

  --config TEXT     the filter's configuration; @FILE reads it from a file
  --method METHOD   default GET
  --path PATH       default /hello
  -H 'NAME: VALUE'  a request header; may be repeated
  --body TEXT       the request's body
  --root-id ID      which of the module's root contexts (plugin_root_id)
  --help            this text

exit codes: 0 the request was answered, 1 the filter could not be loaded or left the request hanging, 2 bad usage";

const SAMPLE: &str =
    r#"{"request": {"set": {"x-seen-by": "weir"}, "remove": ["x-secret"]}, "response": {"add": {"x-powered-by": "wasm"}}}"#;

struct Options {
    filter: String,
    config: Option<String>,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    root_id: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print(USAGE);
        return ExitCode::SUCCESS;
    }
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(problem) => {
            complain(&format!("{problem}\n\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(report) => {
            print(&report);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "printing is what this program does")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "errors belong on standard error")]
fn complain(text: &str) {
    eprintln!("{}: {text}", paint("31", "error"));
}

/// Colour on terminals only, and never against `NO_COLOR`.
fn paint(code: &str, text: &str) -> String {
    let plain = !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

fn parse(arguments: Vec<String>) -> Result<Options, String> {
    let mut options = Options {
        filter: "headers".into(),
        config: None,
        method: "GET".into(),
        path: "/hello".into(),
        headers: Vec::new(),
        body: None,
        root_id: String::new(),
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--config" => options.config = Some(text_or_file(&value()?)?),
            "--method" => options.method = value()?,
            "--path" => options.path = value()?,
            "--body" => options.body = Some(value()?),
            "--root-id" => options.root_id = value()?,
            "-H" => {
                let header = value()?;
                let (name, value) = header.split_once(':').ok_or_else(|| format!("-H {header:?} is not of the form 'NAME: VALUE'"))?;
                options.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            flag if flag.starts_with('-') => return Err(format!("there is no option {flag}")),
            filter => options.filter = filter.to_owned(),
        }
    }
    Ok(options)
}

fn text_or_file(value: &str) -> Result<String, String> {
    match value.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("--config: {path}: {error}")),
        None => Ok(value.to_owned()),
    }
}

fn module(filter: &str) -> Result<Vec<u8>, String> {
    if let Some(builtin) = weir_filters::builtin(filter) {
        return Ok(builtin.bytes.to_vec());
    }
    let names: Vec<&str> = weir_filters::all().iter().map(|builtin| builtin.name).collect();
    std::fs::read(filter).map_err(|error| format!("{filter}: {error}\n  it is no built-in filter either; those are: {}", names.join(", ")))
}

fn run(options: &Options) -> Result<String, String> {
    let wasm = module(&options.filter)?;
    let config = options.config.clone().unwrap_or_else(|| if options.filter == "headers" { SAMPLE.into() } else { String::new() });
    let tester = Tester::new(&wasm).configuration(&config).binding(|binding| {
        binding.name = options.filter.as_str().into();
        binding.root_id.clone_from(&options.root_id);
        binding.upstreams = Upstreams::Any;
    });
    let worker = tester.start().map_err(|error| error.to_string())?;
    let mut request = worker.request(&options.method, &options.path).header("user-agent", "make-run").header("x-secret", "hunter2");
    for (name, value) in &options.headers {
        request = request.header(name, value);
    }
    if let Some(body) = &options.body {
        request = request.body(&[body]);
    }
    let exchange = request.run();
    let report = describe(options, &config, &worker, &exchange);
    match exchange.is_complete() {
        true => Ok(report),
        false => Err(format!("{report}\nthe request was left waiting: {}", waiting_for(&worker))),
    }
}

fn waiting_for(worker: &Worker) -> String {
    match worker.host.take_callout() {
        Some(callout) => {
            format!("the filter calls {} {:?} and nobody answers here", callout.upstream, callout.header(":path").unwrap_or(""))
        }
        None => "the filter paused and did not continue".into(),
    }
}

fn describe(options: &Options, config: &str, worker: &Worker, exchange: &Exchange) -> String {
    let filter = worker.filter().binding();
    let facts = filter.module().facts();
    let mut text = format!("{} {} ({} bytes, {})\n", paint("1", "filter"), options.filter, facts.size, facts.digest);
    if !config.is_empty() {
        let _ = writeln!(text, "{} {config}", paint("1", "config"));
    }
    for warning in filter.module().warnings() {
        let _ = writeln!(text, "{} {warning}", paint("33", "warning"));
    }
    let host = exchange.stream.host();
    if exchange.reached_upstream() {
        let _ = writeln!(text, "\n{}", paint("1", "what the upstream received"));
        message(&mut text, host.map(MessageMap::RequestHeaders), &exchange.request_body());
    } else {
        let _ = writeln!(text, "\n{}", paint("1", "the upstream received nothing"));
    }
    let _ = writeln!(text, "\n{}", paint("1", "what the client received"));
    message(&mut text, host.map(MessageMap::ResponseHeaders), &exchange.body());
    if let Some(reply) = exchange.local_reply() {
        let _ = writeln!(text, "  (made by the filter or for it: {})", reply.details);
    }
    let lines = worker.host.log_lines();
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{}", paint("1", "log"));
        for line in lines {
            let _ = writeln!(text, "  {:<8} {}", line.level.name(), line.message);
        }
    }
    let _ = writeln!(text, "\n{}", paint("1", "callbacks"));
    let stats = worker.stats();
    for callback in Callback::ALL.iter().copied() {
        let cost = stats.callback(callback);
        if cost.calls > 0 {
            let _ = writeln!(text, "  {:<20} {} call(s), {:.1} µs", callback.label(), cost.calls, cost.estimated_nanos() as f64 / 1000.0);
        }
    }
    text.trim_end().to_owned()
}

fn message(text: &mut String, headers: Option<&Pairs>, body: &str) {
    for (name, value) in headers.iter().flat_map(|pairs| &pairs.0) {
        let _ = writeln!(text, "  {}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    }
    if !body.is_empty() {
        let _ = writeln!(text, "\n  {body}");
    }
}
