//! The `fault` filter: makes requests late, or fail, so that what depends on them can be seen to cope.
//!
//! A request that is meant by `when` is delayed with one probability and refused with another; both may happen. Where `headers` allows it, the client
//! asks for its own fault, as it would of Istio and Envoy.
//!
//! Always: at most `maxActive` requests are held at a time, those beyond pass; with a `seed` the same requests in the same order meet the same faults; a
//! client may ask for no more than the operator's percentage. What it does not do: slow down bodies.

pub mod config;

use std::cell::Cell;
use std::time::Duration;

use config::{Fault, Percent};
use weir_filter_matching::RequestMatcher;
use weir_sdk::Decision;
use weir_sdk::prelude::*;

/// What Envoy calls the headers that ask for a fault.
const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_PERCENT: &str = "x-envoy-fault-delay-request-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_PERCENT: &str = "x-envoy-fault-abort-request-percentage";

/// The filter.
#[derive(Debug)]
pub struct Injector {
    when: RequestMatcher,
    /// The time, unless only the client says it.
    delay: Option<(Option<Duration>, Percent)>,
    abort: Option<(Option<Failure>, Percent)>,
    by_header: bool,
    max_active: u32,
    active: Cell<u32>,
    random: Cell<u64>,
    delayed: Counter,
    aborted: Counter,
    overflowed: Counter,
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Http(u16),
    Grpc(u32),
}

/// What is known of a stream that a fault met.
#[derive(Debug, Default)]
pub struct Held {
    /// It is counted as active.
    active: bool,
}

#[register]
impl Filter for Injector {
    type Config = Fault;
    type State = Held;

    fn configure(fault: Fault, _: &Plugin) -> Result<Self, Refusal> {
        let counter = |name: &str| Counter::define(name, &[]);
        Ok(Self {
            when: fault.when.compile().map_err(|refusal| refusal.within("when"))?,
            delay: fault.delay.map(|delay| delay.check(fault.headers).map_err(|refusal| refusal.within("delay"))).transpose()?,
            abort: fault.abort.map(|abort| abort.check(fault.headers).map_err(|refusal| refusal.within("abort"))).transpose()?,
            by_header: fault.headers,
            max_active: fault.max_active,
            active: Cell::new(0),
            random: Cell::new(fault.seed.unwrap_or_else(weir_sdk::now_nanos)),
            delayed: counter("weir_fault_delays_total")?,
            aborted: counter("weir_fault_aborts_total")?,
            overflowed: counter("weir_fault_overflow_total")?,
        })
    }

    fn on_request_headers(&self, stream: &mut Stream<'_, Held>) -> Flow {
        if !self.when.matches(stream) {
            return Flow::Continue;
        }
        let delay = self.delay(stream);
        let abort = self.abort(stream);
        if delay.is_none() && abort.is_none() {
            return Flow::Continue;
        }
        if self.active.get() >= self.max_active {
            self.overflowed.increment();
            return Flow::Continue;
        }
        self.active.set(self.active.get() + 1);
        stream.state.active = true;
        let Some(delay) = delay else { return abort.map_or(Flow::Continue, |failure| failure.answer(stream, self.aborted)) };
        self.delayed.increment();
        let _ = stream.decide(Decision { rule: "", verdict: "delay", reason: &format!("{}ms", delay.as_millis()) });
        let aborted = self.aborted;
        stream.wait(async move |stream: Handle<Held>| {
            stream.sleep(delay).await;
            let after = |stream: &mut Stream<'_, Held>| abort.map_or(Flow::Continue, |failure| failure.answer(stream, aborted));
            stream.with(after).unwrap_or(Flow::Continue)
        })
    }

    fn on_log(&self, stream: &mut Stream<'_, Held>) {
        if std::mem::take(&mut stream.state.active) {
            self.active.set(self.active.get().saturating_sub(1));
        }
    }
}

impl Injector {
    /// How long this request is held.
    fn delay(&self, stream: &Stream<'_, Held>) -> Option<Duration> {
        let (time, percent) = self.delay?;
        let time = match self.number(stream, DELAY) {
            Some(millis) => Duration::from_millis(millis),
            None => time?,
        };
        self.draw(self.percent(stream, DELAY_PERCENT, percent)).then_some(time)
    }

    /// How this request fails.
    fn abort(&self, stream: &Stream<'_, Held>) -> Option<Failure> {
        let (failure, percent) = self.abort?;
        let asked = self.number(stream, ABORT).and_then(|status| u16::try_from(status).ok()).filter(|status| (200..600).contains(status));
        let asked_grpc = self.number(stream, ABORT_GRPC).and_then(|status| u32::try_from(status).ok()).filter(|status| *status <= 16);
        let failure = asked.map(Failure::Http).or(asked_grpc.map(Failure::Grpc)).or(failure)?;
        self.draw(self.percent(stream, ABORT_PERCENT, percent)).then_some(failure)
    }

    fn number(&self, stream: &Stream<'_, Held>, header: &str) -> Option<u64> {
        if self.by_header { stream.request().text(header)?.parse().ok() } else { None }
    }

    /// What the client asks for, up to what the operator allows.
    fn percent(&self, stream: &Stream<'_, Held>, header: &str, most: Percent) -> Percent {
        let asked = self.number(stream, header).and_then(|percent| u32::try_from(percent).ok());
        asked.map_or(most, |asked| Percent::whole(asked).min(most))
    }

    /// Whether chance says yes. splitmix64: good enough to spread faults, and the same everywhere.
    fn draw(&self, percent: Percent) -> bool {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        percent.holds(mixed ^ (mixed >> 31))
    }
}

impl Failure {
    fn answer(self, stream: &Stream<'_, Held>, aborted: Counter) -> Flow {
        aborted.increment();
        let _ = stream.decide(Decision { rule: "", verdict: "abort", reason: "" });
        let reply = match self {
            Self::Http(status) => stream.reply(status),
            Self::Grpc(status) => stream.reply(200).grpc_status(status),
        };
        reply.details("fault_filter_abort").body("fault filter abort").send()
    }
}
