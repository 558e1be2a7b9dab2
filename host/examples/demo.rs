//! What `make run` does: a proxy with the standard sample, something behind it, and live counters until interrupted.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

const ORIGIN: &str = "127.0.0.1:9000";
const PROXY: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:15000";
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/samples/standard.yaml");

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let sample = arguments.next().unwrap_or_else(|| SAMPLE.to_owned());
    for (address, what) in [(ORIGIN, "the upstream of the demonstration"), (PROXY, "the proxy"), (ADMIN, "the operator's pages")] {
        if TcpListener::bind(address).is_err() {
            say(&format!("{address} is taken, and {what} wants it.\n  help: end what listens there, then run this again\n"));
            return std::process::ExitCode::FAILURE;
        }
    }
    if let Err(error) = start_origin() {
        say(&format!("the upstream of the demonstration cannot listen on {ORIGIN}: {error}\n"));
        return std::process::ExitCode::FAILURE;
    }
    std::thread::spawn(live);
    say(&welcome(&sample));
    weir_proxy::cli::run(["weir-proxy", "run", "--config", &sample].map(Into::into))
}

fn welcome(sample: &str) -> String {
    let sample = Path::new(sample).canonicalize().unwrap_or_else(|_| sample.into());
    format!(
        "A proxy on http://{PROXY}/ with one Wasm filter, in front of a small server on http://{ORIGIN}/.\n\
         Its configuration is {}: change it, and the proxy follows.\n\n\
         Try:\n  \
           curl -i http://{PROXY}/                    the filter's header, x-proxied-by, is on the answer\n  \
           curl -i --http2-prior-knowledge http://{PROXY}/\n  \
           curl http://{PROXY}/headers                what the upstream got\n  \
           curl http://{ADMIN}/filters                what the filter costs\n  \
           curl http://{ADMIN}/config                 what is loaded, and why a change was refused\n\n\
         End with Ctrl-C.\n\n",
        sample.display()
    )
}

fn say(text: &str) {
    // A closed terminal is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}

/// Something to proxy to: answers what it was asked.
fn start_origin() -> std::io::Result<()> {
    let listener = TcpListener::bind(ORIGIN)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

fn answer(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut head = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            // Whoever sends more than this is not the proxy.
            if (&mut reader).take(64 << 10).read_line(&mut line).ok()? == 0 || head.len() > 256 << 10 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).ok()?;
        let body = if head.contains(" /headers ") { head } else { "hello from behind the proxy\n".to_owned() };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

/// Shows what the proxy counts: in place on a terminal, a line when something changed otherwise.
fn live() {
    let terminal = std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let Some(line) = counters() else { continue };
        if terminal {
            say(&format!("\r\x1b[2K{line}"));
        } else if line != last {
            say(&format!("{line}\n"));
        }
        last = line;
    }
}

fn counters() -> Option<String> {
    let address: SocketAddr = ADMIN.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {ADMIN}\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let sum = |name: &str| -> f64 {
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '));
        text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, one| sum + one)
    };
    Some(format!(
        "requests {:.0} (HTTP/2 {:.0}), in flight {:.0}, connections {:.0}, filter time {:.3} ms, memory {:.1} MiB",
        sum("weir_listener_http1_requests_total") + sum("weir_listener_http2_requests_total"),
        sum("weir_listener_http2_requests_total"),
        sum("weir_listener_requests"),
        sum("weir_listener_connections"),
        sum("weir_filter_cpu_seconds") * 1000.0,
        sum("process_resident_memory_bytes") / f64::from(1 << 20),
    ))
}
