//! Whether a failed attempt is made again, and how long to wait before.
//!
//! What always holds: an attempt that the upstream may have acted upon is made again only if the method is idempotent or configuration says that it
//! does not matter; a body is sent again only if all of it was kept. How many retries may run at once is a circuit breaker's business; sleeping and
//! sending is the engine's.

use std::time::Duration;

use weir_model::config;

use super::Invalid;
use super::options::duration;

/// What retry policies read of a response.
pub trait ResponseView {
    /// Its status.
    fn status(&self) -> u16;
    /// `grpc-status`, of a response without a body or of its trailers.
    fn grpc_status(&self) -> Option<u32>;
    /// Whether it has the header `name` (lower case).
    fn has_header(&self, name: &str) -> bool;
}

/// How an attempt ended.
#[derive(Clone, Copy)]
pub enum Failure<'a> {
    /// With this response, which may be a good one.
    Response(&'a dyn ResponseView),
    /// No connection, TLS included.
    Connect,
    /// The upstream refused the stream without looking at it (HTTP/2 REFUSED_STREAM, GOAWAY).
    Refused,
    /// The connection broke or the stream was reset before any of the response came.
    Reset,
    /// It took longer than one try may.
    TryTimeout,
}

/// What is known about the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// Retries so far.
    pub retries: u32,
    /// Its method may be repeated: see [`is_idempotent`].
    pub idempotent: bool,
    /// The whole body that was sent so far is kept.
    pub replayable: bool,
    /// Some of the request was handed to the connection.
    pub sent: bool,
    /// Some of the response was passed on.
    pub answered: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again, after [`RetryPolicy::backoff`].
    Retry,
    /// The policy does not name this failure. Whatever there is, is the answer.
    NotAsked,
    /// The policy names it, but there were enough attempts.
    Exhausted,
    /// The policy names it, but the upstream may have acted upon the request.
    Unsafe,
    /// The policy names it, but the body is gone, or the answer has begun.
    TooLate,
}

/// `Retry`, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    conditions: u32,
    statuses: Vec<u16>,
    headers: Vec<String>,
    /// Retries besides the first attempt.
    pub attempts: u32,
    /// Longest time of one try.
    pub per_try_timeout: Option<Duration>,
    base: Duration,
    max: Duration,
    /// How often to choose again to avoid an endpoint that was tried.
    pub host_attempts: u32,
    /// Avoid priorities that were tried.
    pub previous_priorities: bool,
    /// Bytes of body to keep.
    pub replay_limit: usize,
    unsafe_methods: bool,
}

const SERVER_ERROR: u32 = 1;
const GATEWAY_ERROR: u32 = 1 << 1;
const CONNECT_FAILURE: u32 = 1 << 2;
const REFUSED: u32 = 1 << 3;
const RESET: u32 = 1 << 4;
const RESET_BEFORE_REQUEST: u32 = 1 << 5;
const CONFLICT: u32 = 1 << 6;
const STATUSES: u32 = 1 << 7;
const HEADERS: u32 = 1 << 8;
const RATE_LIMITED: u32 = 1 << 9;
/// gRPC statuses take the bits from here on, each its own.
const GRPC: u32 = 10;

/// Names of conditions and their bits.
const CONDITIONS: [(&str, u32); 15] = [
    ("5xx", SERVER_ERROR),
    ("gateway-error", GATEWAY_ERROR),
    ("connect-failure", CONNECT_FAILURE),
    ("refused-stream", REFUSED),
    ("reset", RESET),
    ("reset-before-request", RESET_BEFORE_REQUEST),
    ("retriable-4xx", CONFLICT),
    ("retriable-status-codes", STATUSES),
    ("retriable-headers", HEADERS),
    ("envoy-ratelimited", RATE_LIMITED),
    ("cancelled", 1 << (GRPC + 1)),
    ("deadline-exceeded", 1 << (GRPC + 4)),
    ("internal", 1 << (GRPC + 13)),
    ("resource-exhausted", 1 << (GRPC + 8)),
    ("unavailable", 1 << (GRPC + 14)),
];

impl RetryPolicy {
    /// Compiles what a route says.
    ///
    /// # Errors
    /// A condition or a status that there is none of.
    pub fn compile(given: &config::Retry) -> Result<Self, Invalid> {
        let mut conditions = 0;
        let mut statuses = Vec::new();
        for (at, name) in given.on.iter().enumerate() {
            if let Some((_, bit)) = CONDITIONS.iter().find(|condition| condition.0 == name) {
                conditions |= bit;
            } else {
                let status = name.parse().ok().filter(|status| (100..600).contains(status));
                statuses.push(status.ok_or_else(|| Invalid::new(format!("retry.on[{at}]"), format!("`{name}` is no condition")))?);
                conditions |= STATUSES;
            }
        }
        for (at, status) in given.status_codes.iter().enumerate() {
            let status = u16::try_from(*status).ok().filter(|status| (100..600).contains(status));
            statuses.push(status.ok_or_else(|| Invalid::new(format!("retry.statusCodes[{at}]"), "a status has three digits"))?);
        }
        let base = duration!(given.backoff_base).unwrap_or(Duration::from_millis(25)).max(Duration::from_millis(1));
        Ok(Self {
            conditions,
            statuses,
            headers: given.headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            attempts: given.attempts,
            per_try_timeout: duration!(given.per_try_timeout).filter(|timeout| !timeout.is_zero()),
            base,
            max: duration!(given.backoff_max).unwrap_or(base.saturating_mul(10)).max(base),
            host_attempts: given.host_attempts,
            previous_priorities: given.previous_priorities,
            replay_limit: if given.replay_kib == 0 { 64 << 10 } else { (given.replay_kib as usize).saturating_mul(1 << 10) },
            unsafe_methods: given.unsafe_methods.unwrap_or(false),
        })
    }

    /// Whether to try again.
    #[must_use]
    pub fn decide(&self, failure: Failure<'_>, request: RequestFacts) -> Decision {
        if !self.asks_for(failure, request) {
            return Decision::NotAsked;
        }
        if request.retries >= self.attempts {
            return Decision::Exhausted;
        }
        if request.answered || !request.replayable {
            return Decision::TooLate;
        }
        let seen = match failure {
            Failure::Connect | Failure::Refused => false,
            Failure::Reset | Failure::TryTimeout => request.sent,
            Failure::Response(_) => true,
        };
        if seen && !request.idempotent && !self.unsafe_methods { Decision::Unsafe } else { Decision::Retry }
    }

    fn has(&self, conditions: u32) -> bool {
        self.conditions & conditions != 0
    }

    fn asks_for(&self, failure: Failure<'_>, request: RequestFacts) -> bool {
        match failure {
            Failure::Connect => self.has(CONNECT_FAILURE | SERVER_ERROR | GATEWAY_ERROR | RESET) || self.names(503),
            Failure::Refused => self.has(REFUSED | SERVER_ERROR | RESET) || self.names(503),
            Failure::Reset => self.has(SERVER_ERROR | RESET) || (self.has(RESET_BEFORE_REQUEST) && !request.sent) || self.names(503),
            Failure::TryTimeout => self.has(SERVER_ERROR | GATEWAY_ERROR | RESET) || self.names(504),
            Failure::Response(response) => self.asks_for_response(response),
        }
    }

    fn names(&self, status: u16) -> bool {
        self.has(STATUSES) && self.statuses.contains(&status)
    }

    fn asks_for_response(&self, response: &dyn ResponseView) -> bool {
        // A limiter that said no would say so again.
        if response.has_header("x-envoy-ratelimited") {
            return self.has(RATE_LIMITED);
        }
        let status = response.status();
        (status >= 500 && self.has(SERVER_ERROR))
            || (matches!(status, 502..=504) && self.has(GATEWAY_ERROR))
            || (status == 409 && self.has(CONFLICT))
            || self.names(status)
            || response.grpc_status().is_some_and(|status| (1..17).contains(&status) && self.has(1 << (GRPC + status)))
            || (self.has(HEADERS) && self.headers.iter().any(|name| response.has_header(name)))
    }

    /// How long to wait before retry number `retry`, counted from 1: by chance, below a bound that doubles. `random` is any number.
    #[must_use]
    pub fn backoff(&self, retry: u32, random: u64) -> Duration {
        let bound = self.base.saturating_mul(1_u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX)).min(self.max);
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random % bound.max(1))
    }
}

/// Whether a method may be repeated without another effect.
#[must_use]
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Response(u16, Option<u32>, &'static [&'static str]);

    impl ResponseView for Response {
        fn status(&self) -> u16 {
            self.0
        }
        fn grpc_status(&self) -> Option<u32> {
            self.1
        }
        fn has_header(&self, name: &str) -> bool {
            self.2.contains(&name)
        }
    }

    fn policy(on: &[&str]) -> RetryPolicy {
        let on = on.iter().map(|name| (*name).to_owned()).collect();
        RetryPolicy::compile(&config::Retry { attempts: 2, on, ..Default::default() }).unwrap()
    }

    const SAFE: RequestFacts = RequestFacts { retries: 0, idempotent: true, replayable: true, sent: true, answered: false };

    fn retries(on: &[&str], failure: Failure<'_>) -> bool {
        policy(on).decide(failure, SAFE) == Decision::Retry
    }

    #[test]
    fn conditions_mean_what_their_names_say() {
        let status = |status| Response(status, None, &[]);
        for (on, hit, miss) in [
            ("5xx", vec![500, 503], vec![200, 409, 429]),
            ("gateway-error", vec![502, 503, 504], vec![500, 501]),
            ("retriable-4xx", vec![409], vec![400, 429]),
            ("503", vec![503], vec![500, 502]),
        ] {
            for (statuses, wanted) in [(hit, true), (miss, false)] {
                for code in statuses {
                    assert_eq!(retries(&[on], Failure::Response(&status(code))), wanted, "{on} {code}");
                }
            }
        }
        for (on, failure, wanted) in [
            ("connect-failure", Failure::Connect, true),
            ("connect-failure", Failure::Reset, false),
            ("refused-stream", Failure::Refused, true),
            ("refused-stream", Failure::Connect, false),
            ("reset", Failure::Reset, true),
            ("reset-before-request", Failure::Reset, false),
            ("gateway-error", Failure::TryTimeout, true),
            ("5xx", Failure::Connect, true),
        ] {
            assert_eq!(retries(&[on], failure), wanted, "{on}");
        }
        let unsent = RequestFacts { sent: false, ..SAFE };
        assert_eq!(policy(&["reset-before-request"]).decide(Failure::Reset, unsent), Decision::Retry);
    }

    #[test]
    fn grpc_statuses_are_told_apart() {
        for (name, status) in [("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("internal", 13), ("unavailable", 14)]
        {
            for other in 0..20 {
                assert_eq!(retries(&[name], Failure::Response(&Response(200, Some(other), &[]))), other == status, "{name} {other}");
            }
        }
    }

    #[test]
    fn headers_and_rate_limits_are_looked_at() {
        let given = config::Retry {
            attempts: 1,
            on: vec!["retriable-headers".to_owned(), "retriable-status-codes".to_owned()],
            status_codes: vec![425],
            headers: vec!["X-Again".to_owned()],
            ..Default::default()
        };
        let policy = RetryPolicy::compile(&given).unwrap();
        let decide = |response: Response| policy.decide(Failure::Response(&response), SAFE) == Decision::Retry;
        assert!(decide(Response(200, None, &["x-again"])) && decide(Response(425, None, &[])) && !decide(Response(200, None, &[])));
        let limited = Response(503, None, &["x-envoy-ratelimited"]);
        assert!(!retries(&["5xx"], Failure::Response(&limited)));
        assert!(retries(&["envoy-ratelimited"], Failure::Response(&limited)));
    }

    #[test]
    fn nothing_unsafe_is_repeated() {
        let policy = policy(&["5xx", "connect-failure", "reset"]);
        let post = RequestFacts { idempotent: false, ..SAFE };
        let failed = Response(503, None, &[]);
        assert_eq!(policy.decide(Failure::Response(&failed), post), Decision::Unsafe);
        assert_eq!(policy.decide(Failure::Reset, post), Decision::Unsafe);
        assert_eq!(policy.decide(Failure::Reset, RequestFacts { sent: false, ..post }), Decision::Retry);
        assert_eq!(policy.decide(Failure::Connect, post), Decision::Retry);
        assert_eq!(policy.decide(Failure::Refused, post), Decision::Retry);
        let careless = RetryPolicy { unsafe_methods: true, ..policy.clone() };
        assert_eq!(careless.decide(Failure::Reset, post), Decision::Retry);
        assert_eq!(careless.decide(Failure::Connect, RequestFacts { replayable: false, ..post }), Decision::TooLate);
        assert_eq!(careless.decide(Failure::Reset, RequestFacts { answered: true, ..post }), Decision::TooLate);
        assert_eq!(careless.decide(Failure::Reset, RequestFacts { retries: 2, ..post }), Decision::Exhausted);
        assert_eq!(careless.decide(Failure::Response(&Response(200, None, &[])), post), Decision::NotAsked);
        assert!(is_idempotent(b"PUT") && !is_idempotent(b"POST") && !is_idempotent(b"PATCH") && !is_idempotent(b"get"));
    }

    #[test]
    fn waits_are_random_below_a_doubling_bound() {
        let policy = policy(&["5xx"]);
        for (retry, bound) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250), (u32::MAX, 250)] {
            let waits: Vec<_> =
                (0..1000_u64).map(|random| policy.backoff(retry, super::super::hash::xxh64(&random.to_le_bytes(), 0))).collect();
            let longest = waits.iter().max().unwrap();
            assert!(*longest < Duration::from_millis(bound) && *longest > Duration::from_millis(bound * 9 / 10), "{retry}: {longest:?}");
        }
    }

    #[test]
    fn refuses_conditions_that_there_are_none_of() {
        let error = |given| RetryPolicy::compile(&given).unwrap_err().path;
        assert_eq!(error(config::Retry { on: vec!["5xx".to_owned(), "bad-luck".to_owned()], ..Default::default() }), "retry.on[1]");
        assert_eq!(error(config::Retry { on: vec!["700".to_owned()], ..Default::default() }), "retry.on[0]");
        assert_eq!(error(config::Retry { status_codes: vec![9], ..Default::default() }), "retry.statusCodes[0]");
    }
}
