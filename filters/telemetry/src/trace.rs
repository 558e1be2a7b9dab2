//! Which trace a request belongs to: read from its headers, decided upon, handed on.
//!
//! W3C Trace Context (`traceparent`, `tracestate`) and B3 (one header or several). What always holds: headers that do not say a trace exactly say none, and
//! a new one begins; every request that goes on says whether its trace is recorded, so that all who come after decide alike; ids are never zero.

use std::cell::Cell;
use std::fmt::Write;

use weir_sdk::{AttributeSet, Stream, Values};

use crate::config::Propagation;

/// What a request says about its trace, or what is said to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    /// `None`: the caller leaves the decision to us, as B3 allows.
    pub(crate) sampled: Option<bool>,
}

/// The headers of traces, as they are read together.
#[derive(Debug)]
pub(crate) struct Headers {
    set: AttributeSet,
    formats: Vec<Propagation>,
}

const NAMES: [&str; 8] =
    ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "x-b3-parentspanid"];

impl Headers {
    pub(crate) fn new(formats: &[Propagation]) -> Self {
        let mut set = AttributeSet::new();
        for name in NAMES {
            set.add(&["request", "headers", name]);
        }
        Self { set, formats: formats.to_vec() }
    }

    /// The caller's span, in the first of the formats that says one, and whether the trace is to be recorded, which B3 may say alone.
    pub(crate) fn read<S: 'static>(&self, stream: &Stream<'_, S>) -> (Option<Context>, Option<bool>) {
        let values = self.set.read(stream);
        let found = self.formats.iter().find_map(|format| match format {
            Propagation::W3c => w3c(values.text(0)?),
            Propagation::B3Single => b3(values.text(2)?),
            Propagation::B3 => b3_multiple(&values),
        });
        // A state belongs to its parent: without one that can be read it says nothing.
        if self.formats.contains(&Propagation::W3c) && values.get(1).is_some() && values.text(0).and_then(w3c).is_none() {
            let _ = stream.request().remove("tracestate");
        }
        let alone = || {
            self.formats.iter().find_map(|format| match (format, values.text(2), values.text(5)) {
                (Propagation::B3Single, Some("0"), _) | (Propagation::B3, _, Some("0" | "false")) => Some(false),
                (Propagation::B3Single, Some("1" | "d"), _) | (Propagation::B3, _, Some("1" | "true")) => Some(true),
                _ => None,
            })
        };
        (found, found.and_then(|found| found.sampled).or_else(alone))
    }

    /// Hands the context on. `parent` is only for those who read B3.
    pub(crate) fn write<S: 'static>(&self, stream: &Stream<'_, S>, context: &Context, parent: Option<u64>) {
        let (trace, span, sampled) = (context.trace, context.span, context.sampled == Some(true));
        let headers = stream.request();
        let mut text = String::with_capacity(64);
        let bit = u8::from(sampled);
        for format in &self.formats {
            text.clear();
            // Refused only where the head is gone already.
            let _ = match format {
                Propagation::W3c => {
                    let _ = write!(text, "00-{trace:032x}-{span:016x}-0{bit}");
                    headers.set("traceparent", &text)
                }
                Propagation::B3Single => {
                    let _ = write!(text, "{trace:032x}-{span:016x}-{bit}");
                    headers.set("b3", &text)
                }
                Propagation::B3 => {
                    let _ = headers.set("x-b3-traceid", format!("{trace:032x}"));
                    let _ = headers.set("x-b3-spanid", format!("{span:016x}"));
                    if let Some(parent) = parent {
                        let _ = headers.set("x-b3-parentspanid", format!("{parent:016x}"));
                    }
                    headers.set("x-b3-sampled", bit.to_string())
                }
            };
        }
    }
}

/// Lower-case hex of exactly this length.
fn hex(text: &str, length: usize) -> Option<u128> {
    let is_hex = text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

fn context(trace: u128, span: u128, sampled: Option<bool>) -> Option<Context> {
    let span = u64::try_from(span).ok()?;
    (trace != 0 && span != 0).then_some(Context { trace, span, sampled })
}

/// `00-TRACE-SPAN-FLAGS`; later versions may say more behind that.
fn w3c(text: &str) -> Option<Context> {
    let mut parts = text.split('-');
    let version = hex(parts.next()?, 2)?;
    let (trace, span, flags) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
    if version == 0xff || version == 0 && parts.next().is_some() {
        return None;
    }
    context(trace, span, Some(flags & 1 == 1))
}

/// `TRACE-SPAN-SAMPLED-PARENT`, the last two of which may be missing.
fn b3(text: &str) -> Option<Context> {
    let mut parts = text.split('-');
    let (trace, span) = (b3_trace(parts.next()?)?, hex(parts.next()?, 16)?);
    let sampled = match parts.next() {
        None => None,
        Some("1" | "d") => Some(true),
        Some("0") => Some(false),
        Some(_) => return None,
    };
    if parts.next().is_some_and(|parent| hex(parent, 16).is_none()) || parts.next().is_some() {
        return None;
    }
    context(trace, span, sampled)
}

fn b3_multiple(values: &Values<'_>) -> Option<Context> {
    let sampled = match (values.text(6), values.text(5)) {
        (Some("1"), _) | (_, Some("1" | "true")) => Some(true),
        (_, Some("0" | "false")) => Some(false),
        _ => None,
    };
    context(b3_trace(values.text(3)?)?, hex(values.text(4)?, 16)?, sampled)
}

fn b3_trace(text: &str) -> Option<u128> {
    hex(text, 32).or_else(|| hex(text, 16))
}

/// Ids and chance: splitmix64 from a seed of the host's.
#[derive(Debug)]
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Never zero.
    pub(crate) fn id(&self) -> u64 {
        loop {
            let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            self.0.set(state);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            let id = mixed ^ mixed >> 31;
            if id != 0 {
                return id;
            }
        }
    }

    /// Whether chance says yes, so many times of a hundred.
    pub(crate) fn holds(&self, percent: f64) -> bool {
        // 53 bits: what a double holds exactly.
        percent >= 100.0 || ((self.id() >> 11) as f64 / (1_u64 << 53) as f64) * 100.0 < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn traceparent_is_read_exactly() {
        let read = |text: &str| w3c(text).map(|context| (context.trace, context.span, context.sampled));
        let fine = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(read(fine), Some((TRACE, SPAN, Some(true))));
        assert_eq!(read(&fine.replace("-01", "-02")), Some((TRACE, SPAN, Some(false))));
        assert_eq!(read(&fine.replace("00-4", "cc-4")), Some((TRACE, SPAN, Some(true))), "a later version");
        assert_eq!(read(&format!("cc{}-more", &fine[2..])), Some((TRACE, SPAN, Some(true))));
        for wrong in [
            "",
            "00",
            &fine[..54],
            &format!("{fine}-more"),
            &format!("ff{}", &fine[2..]),
            &fine.to_uppercase(),
            &fine.replace("00f067aa0ba902b7", "0000000000000000"),
            &fine.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &format!("{fine}, {fine}"),
            &fine.replace("4bf9", "+bf9"),
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn b3_is_read_in_its_short_forms() {
        let read = |text: &str| b3(text).map(|context| (context.trace, context.span, context.sampled));
        let long = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        assert_eq!(read(long), Some((TRACE, SPAN, None)));
        assert_eq!(read(&format!("{long}-1")), Some((TRACE, SPAN, Some(true))));
        assert_eq!(read(&format!("{long}-d-05e3ac9a4f6e3b90")), Some((TRACE, SPAN, Some(true))));
        assert_eq!(read("a3ce929d0e0e4736-00f067aa0ba902b7-0"), Some((0xa3ce_929d_0e0e_4736, SPAN, Some(false))));
        for wrong in ["0", "", &format!("{long}-2"), &format!("{long}-1-x"), &long[1..]] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn chance_is_fair() {
        let dice = Dice::new(1);
        let hits = (0..100_000).filter(|_| dice.holds(5.0)).count();
        assert!((4_700..5_300).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| dice.holds(100.0)) && !(0..1000).any(|_| dice.holds(0.0)));
    }
}
