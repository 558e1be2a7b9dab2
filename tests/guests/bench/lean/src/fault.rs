//! Aborts requests: `abort PERCENT STATUS`. A request header `x-fault-abort: 1` aborts for certain.

use crate::Action;
use crate::abi::{request_header, send_local_response};

pub(crate) struct Filter {
    percent: f64,
    status: u32,
    random: u64,
}

/// The map `x-fault: abort`: one pair, its two lengths, its two strings, each ended by a zero.
const HEADERS: &[u8] = b"\x01\0\0\0\x07\0\0\0\x05\0\0\0x-fault\0abort\0";

impl Filter {
    pub(crate) fn configure(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        words.next().filter(|w| *w == "abort")?;
        let percent = words.next()?.parse().ok()?;
        let status = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self {
            percent,
            status,
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    /// Xorshift: the next number in [0, 100).
    #[inline]
    fn roll(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 * (100.0 / (1u64 << 53) as f64)
    }

    #[inline]
    pub(crate) fn request(&mut self) -> Action {
        if request_header("x-fault-abort") == Some(b"1") || self.roll() < self.percent {
            send_local_response(self.status, HEADERS, "fault");
            return Action::Pause;
        }
        Action::Continue
    }
}
