//! Something to proxy to: an HTTP/1.1 server that answers with what it got. On loopback, for one person.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::failure::{Done, Failure};

/// The server; it ends with the process.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
}

impl Origin {
    pub(crate) fn start() -> Done<Self> {
        let failed = |error: std::io::Error| Failure::new(format!("the upstream of the demonstration cannot listen: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream));
            }
        });
        Ok(Self { address })
    }
}

/// Answers requests with their heads. `/slow?MILLISECONDS` takes that long, to be under way while something else happens.
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
        let target = head.split(' ').nth(1).unwrap_or_default();
        if let Some(millis) = target.strip_prefix("/slow?").and_then(|millis| millis.parse::<u64>().ok()) {
            std::thread::sleep(Duration::from_millis(millis.min(60_000)));
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        stream.write_all(answer.as_bytes()).ok()?;
    }
}
