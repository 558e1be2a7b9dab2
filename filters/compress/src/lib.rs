//! The `compress` filter: compresses responses for clients that accept it.
//!
//! Always: what is compressed has no `content-length`, an entity tag that is weak, and `vary: accept-encoding`; a response that is compressed already, a part of one,
//! or one that is not to be changed (`no-transform`) stays as it is; bodies pass in pieces, and events at once. What it does not do: compress requests, or take
//! compression off.

mod accept;
pub mod config;
mod encoder;

use std::cell::Cell;
use std::rc::Rc;

use config::{Compress, Encoding};
use encoder::Encoder;
use weir_sdk::prelude::*;

/// The filter.
#[derive(Debug)]
pub struct Compressor {
    config: Compress,
    running: Rc<Cell<u32>>,
    compressed: Counter,
    too_many: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
}

/// What is kept of a stream.
#[derive(Debug, Default)]
pub struct State {
    /// What the client is to get.
    wanted: Option<Encoding>,
    running: Option<Running>,
}

/// A response being compressed.
#[derive(Debug)]
struct Running {
    encoder: Encoder,
    /// Every piece has to go out at once.
    flush: bool,
    _slot: Slot,
}

/// One of those that run at once.
#[derive(Debug)]
struct Slot(Rc<Cell<u32>>);

impl Slot {
    fn take(running: &Rc<Cell<u32>>) -> Self {
        running.set(running.get() + 1);
        Self(Rc::clone(running))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

#[register]
impl Filter for Compressor {
    type Config = Compress;
    type State = State;

    fn configure(config: Compress, _: &Plugin) -> Result<Self, Refusal> {
        if config.encodings.is_empty() {
            return Err(Refusal::at("encodings", "nothing is offered"));
        }
        if !(1..=9).contains(&config.gzip_level) {
            return Err(Refusal::at("gzipLevel", "it is 1 to 9"));
        }
        if config.brotli_level > 5 {
            return Err(Refusal::at("brotliLevel", "it is 0 to 5"));
        }
        if let Some(at) = config.content_types.iter().position(|kind| kind.matches('*').count() > 1 || !kind.contains('/')) {
            return Err(Refusal::at(
                format!("contentTypes[{at}]"),
                format!("{:?} is no content type with at most one star", config.content_types[at]),
            ));
        }
        Ok(Self {
            running: Rc::default(),
            compressed: Counter::define("weir_compress_responses_total", &[("result", "compressed")])?,
            too_many: Counter::define("weir_compress_responses_total", &[("result", "too_many")])?,
            bytes_in: Counter::define("weir_compress_bytes_total", &[("direction", "in")])?,
            bytes_out: Counter::define("weir_compress_bytes_total", &[("direction", "out")])?,
            config,
        })
    }

    fn on_request_headers(&self, stream: &mut Stream<'_, State>) -> Flow {
        if stream.method() != b"HEAD"
            && let Some(accepted) = stream.request().get("accept-encoding")
        {
            stream.state.wanted = accept::choose(accepted, &self.config.encodings);
        }
        Flow::Continue
    }

    fn on_response_headers(&self, stream: &mut Stream<'_, State>) -> Flow {
        if stream.end || !self.is_eligible(stream) {
            return Flow::Continue;
        }
        let wanted = stream.state.wanted.take();
        // Also of what stays as it is: another client's answer would be another.
        if !vary(stream) {
            return Flow::Continue;
        }
        let Some(encoding) = wanted else { return Flow::Continue };
        if self.running.get() >= self.config.at_once {
            self.too_many.increment();
            return Flow::Continue;
        }
        let response = stream.response();
        if response.set("content-encoding", encoding.name()).is_err() || response.remove("content-length").is_err() {
            return stream.reset();
        }
        for name in ["accept-ranges", "content-md5", "digest", "content-digest"] {
            if response.has(name) && response.remove(name).is_err() {
                return stream.reset();
            }
        }
        if let Some(tag) = response.get("etag").filter(|tag| !tag.starts_with(b"W/"))
            && response.set("etag", [b"W/", tag].concat()).is_err()
        {
            return stream.reset();
        }
        let flush = response.get("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"text/event-stream"));
        self.compressed.increment();
        stream.state.running = Some(Running { encoder: Encoder::new(encoding, &self.config), flush, _slot: Slot::take(&self.running) });
        Flow::Continue
    }

    fn on_response_body(&self, stream: &mut Stream<'_, State>) -> Flow {
        let Some(mut running) = stream.state.running.take() else { return Flow::Continue };
        let body = stream.response_body();
        self.bytes_in.add(u32::try_from(body.len()).unwrap_or(u32::MAX));
        let mut written = running.encoder.write(body.bytes(), running.flush);
        if stream.end {
            written = written.and_then(|mut out| {
                out.extend(running.encoder.finish()?);
                Ok(out)
            });
        } else {
            stream.state.running = Some(running);
        }
        self.hand_on(stream, written, false)
    }

    fn on_response_trailers(&self, stream: &mut Stream<'_, State>) -> Flow {
        match stream.state.running.take() {
            Some(running) => self.hand_on(stream, running.encoder.finish(), true),
            None => Flow::Continue,
        }
    }
}

impl Compressor {
    /// Puts what was written in the place of the piece. A response that is half compressed is worse than none.
    fn hand_on(&self, stream: &Stream<'_, State>, written: std::io::Result<Vec<u8>>, behind: bool) -> Flow {
        let Ok(out) = written else { return stream.reset() };
        self.bytes_out.add(u32::try_from(out.len()).unwrap_or(u32::MAX));
        let body = stream.response_body();
        let done = if behind { body.append(out) } else { body.replace(out) };
        match done {
            Ok(()) => Flow::Continue,
            Err(status) => {
                weir_sdk::error!("the compressed body was not taken: {status}");
                stream.reset()
            }
        }
    }

    /// Whether the response is one that could be compressed.
    fn is_eligible(&self, stream: &Stream<'_, State>) -> bool {
        let response = stream.response();
        let Some(kind) = response.get("content-type") else { return false };
        // These have no body, or a part of one.
        if matches!(stream.status(), None | Some(100..=199 | 204 | 206 | 304)) || response.has("content-range") || !self.is_type(kind) {
            return false;
        }
        let is_encoded = response.get("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        let is_fixed = response
            .get("cache-control")
            .is_some_and(|control| control.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"no-transform")));
        let length = response.text("content-length").and_then(|length| length.parse::<u64>().ok());
        !is_encoded && !is_fixed && length.is_none_or(|length| length >= u64::from(self.config.minimum_bytes))
    }

    fn is_type(&self, kind: &[u8]) -> bool {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        self.config.content_types.iter().any(|known| match known.split_once('*') {
            None => kind.eq_ignore_ascii_case(known.as_bytes()),
            Some((start, end)) => {
                kind.len() >= start.len() + end.len()
                    && kind[..start.len()].eq_ignore_ascii_case(start.as_bytes())
                    && kind[kind.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
            }
        })
    }
}

/// Says that the response depends on what the client accepts. False when that could not be said.
fn vary(stream: &Stream<'_, State>) -> bool {
    let response = stream.response();
    let known = response.get("vary").unwrap_or_default();
    let names = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding");
    if known.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(names) {
        return true;
    }
    let value = if known.is_empty() { b"accept-encoding".to_vec() } else { [known, b", accept-encoding"].concat() };
    response.set("vary", value).is_ok()
}
