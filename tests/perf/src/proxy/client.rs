//! One plain HTTP/1.1 exchange on a connection: what a target is checked with before it is measured.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub(super) struct Client(TcpStream);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) length: usize,
}

impl Client {
    pub(super) fn connect(port: u16) -> Result<Self> {
        let wait = Duration::from_secs(10);
        let socket = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), wait)?;
        socket.set_read_timeout(Some(wait))?;
        Ok(Self(socket))
    }

    /// Sends a request without a body and reads the whole answer, which must have a length or come in chunks; those count with their framing.
    pub(super) fn ask(&mut self, method: &str, path: &str, header: &str) -> Result<Answer> {
        write!(self.0, "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n")?;
        let mut buffer = Vec::with_capacity(4096);
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(buffer.len() < 65536, "the answer's head has no end");
            self.more(&mut buffer)?;
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| format!("no status: {text}"))?;
        if text.contains("\r\ntransfer-encoding: chunked\r\n") {
            while !buffer.ends_with(b"0\r\n\r\n") {
                self.more(&mut buffer)?;
            }
            return Ok(Answer { status, length: buffer.len() - head });
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let length: usize = length.with_context(|| format!("no length: {text}"))?;
        while buffer.len() < head + length {
            self.more(&mut buffer)?;
        }
        Ok(Answer { status, length })
    }

    fn more(&mut self, buffer: &mut Vec<u8>) -> Result<()> {
        let mut chunk = [0; 16384];
        let got = self.0.read(&mut chunk)?;
        ensure!(got > 0, "the connection ended within an answer: {}", String::from_utf8_lossy(buffer));
        buffer.extend_from_slice(&chunk[..got]);
        Ok(())
    }
}
