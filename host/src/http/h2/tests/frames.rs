//! A client of frames written by hand.

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};

use super::*;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An integer of HPACK behind a prefix of `bits`.
fn integer(bytes: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return bytes.push(first | value as u8);
    }
    bytes.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// A literal field; `first` says whether the peer shall keep it (0x40) or not (0).
pub(super) fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    integer(&mut bytes, 0, 7, name.len());
    bytes.extend(name);
    integer(&mut bytes, 0, 7, value.len());
    bytes.extend(value);
    bytes
}

pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(0, name.as_bytes(), value.as_bytes())).collect()
}

pub(super) const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
pub(super) const POST: &[(&str, &str)] = &[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(GET))
}

pub(super) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(POST))
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

pub(super) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

#[derive(Debug)]
pub(super) struct Got {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Got {
    /// Error code of RST_STREAM or GOAWAY.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

pub(super) struct Raw {
    reader: ReadHalf<DuplexStream>,
    writer: Option<WriteHalf<DuplexStream>>,
}

impl Raw {
    pub(super) async fn new(io: DuplexStream) -> Self {
        Self::with_settings(io, &frame(SETTINGS, 0, 0, &[])).await
    }

    /// The opening was said already.
    pub(super) fn over(io: DuplexStream) -> Self {
        let (reader, writer) = split(io);
        Self { reader, writer: Some(writer) }
    }

    pub(super) async fn with_settings(io: DuplexStream, settings: &[u8]) -> Self {
        let mut raw = Self::over(io);
        raw.send(PREFACE).await;
        raw.send(settings).await;
        raw
    }

    /// Writes, if the peer still listens.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        if let Some(writer) = &mut self.writer {
            writer.write_all(bytes).await.ok();
        }
    }

    /// Writes as far as the peer lets it, beside reading.
    pub(super) fn flood(&mut self, frames: impl Iterator<Item = Vec<u8>> + 'static) -> JoinHandle<usize> {
        let mut writer = self.writer.take().expect("one flood");
        tokio::task::spawn_local(async move {
            let mut written = 0;
            for bytes in frames {
                if writer.write_all(&bytes).await.is_err() {
                    break;
                }
                written += 1;
            }
            written
        })
    }

    pub(super) async fn next(&mut self) -> Option<Got> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.reader.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Got { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of this kind.
    pub(super) async fn next_of(&mut self, kind: u8) -> Option<Got> {
        while let Some(got) = self.next().await {
            if got.kind == kind {
                return Some(got);
            }
        }
        None
    }

    /// The code that the connection ended with.
    pub(super) async fn goaway(&mut self) -> Option<u32> {
        self.next_of(GOAWAY).await.map(|got| got.code())
    }
}
