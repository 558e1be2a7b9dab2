//! Counts requests, responses and 2xx responses, and records how long each stream took. No configuration.

use crate::Action;
use crate::abi::{Counter, Histogram, now, response_header};
use crate::table::Table;

/// What is known of a stream between its callbacks.
#[derive(Clone, Copy, Default)]
struct Stream {
    start: u64,
    status: u16,
}

pub(crate) struct Filter {
    requests: Counter,
    responses: Counter,
    responses_2xx: Counter,
    latency: Histogram,
    streams: Table<Stream>,
}

impl Filter {
    pub(crate) fn configure(_text: &str) -> Option<Self> {
        Some(Self {
            requests: Counter::define("requests_total")?,
            responses: Counter::define("responses_total")?,
            responses_2xx: Counter::define("response_2xx_total")?,
            latency: Histogram::define("latency_us")?,
            streams: Table::new(),
        })
    }

    #[inline]
    pub(crate) fn request(&mut self, context: u32) -> Action {
        // A stream the table has no room for is counted all the same; only its time and status stay unknown.
        self.streams.insert(
            context,
            Stream {
                start: now(),
                status: 0,
            },
        );
        self.requests.add_one();
        Action::Continue
    }

    #[inline]
    pub(crate) fn response(&mut self, context: u32) -> Action {
        if let Some(stream) = self.streams.get_mut(context) {
            stream.status = response_header(":status").and_then(number).unwrap_or(0);
        }
        Action::Continue
    }

    #[inline]
    pub(crate) fn log(&mut self, context: u32) {
        self.responses.add_one();
        let Some(stream) = self.streams.remove(context) else {
            return;
        };
        if stream.status / 100 == 2 {
            self.responses_2xx.add_one();
        }
        self.latency
            .record(now().saturating_sub(stream.start) / 1000);
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |n, d| {
        let digit = d.checked_sub(b'0').filter(|d| *d < 10)?;
        n.checked_mul(10)?.checked_add(u16::from(digit))
    })
}
