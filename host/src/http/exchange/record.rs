//! What is known about a request when it has ended: for counters, access logs and filters' attributes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::upstream::Endpoint;

/// Why a response is what it is, in Envoy's letters and by its numbers: filters read the bits (`response.flags`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $letters:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const ALL: &[(Self, &'static str)] = &[$((Self::$name, $letters)),*];
        }
    };
}

flags! {
    /// The upstream has no endpoint that may be used.
    NO_HEALTHY_UPSTREAM = 1 "UH";
    /// No connection to the upstream.
    UPSTREAM_CONNECTION_FAILURE = 5 "UF";
    /// A circuit breaker was open.
    UPSTREAM_OVERFLOW = 7 "UO";
    /// No route.
    NO_ROUTE = 8 "NR";
    /// No cluster of that name.
    NO_CLUSTER = 24 "NC";
    /// Retries ran out.
    RETRY_LIMIT = 15 "URX";
    /// The client went away.
    DOWNSTREAM_TERMINATION = 14 "DC";
    /// The upstream closed the connection.
    UPSTREAM_TERMINATION = 6 "UC";
    /// The upstream reset the stream.
    UPSTREAM_RESET = 4 "UR";
    /// Reset on this side.
    LOCAL_RESET = 3 "LR";
    /// The upstream took too long.
    UPSTREAM_TIMEOUT = 2 "UT";
    /// The request took too long to arrive, or nothing moved.
    STREAM_IDLE_TIMEOUT = 16 "SI";
    /// The stream lived too long.
    DURATION_TIMEOUT = 22 "DT";
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 18 "DPE";
    /// The upstream broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 23 "UPE";
    /// A filter answered. Weir's own.
    FILTER_REPLY = 31 "FR";
    /// Shed, because there was too much to do.
    OVERLOAD = 25 "OM";
}

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// As a number.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The letters with commas, or `-`.
    #[must_use]
    pub fn letters(self) -> String {
        let set: Vec<&str> = Self::ALL.iter().filter(|(flag, _)| self.0 & flag.0 != 0).map(|(_, letters)| *letters).collect();
        if set.is_empty() { "-".into() } else { set.join(",") }
    }
}

/// What is known about a request.
#[derive(Debug)]
pub struct Record {
    /// When its head had arrived.
    pub started: Instant,
    /// The same by the calendar; read only when somebody asks.
    pub started_wall: Option<SystemTime>,
    /// Bytes of body from the client.
    pub received: u64,
    /// Bytes of body to the client.
    pub sent: u64,
    /// Status that the client got; 0 before.
    pub status: u16,
    /// Why.
    pub flags: Flags,
    /// Why, in words without white space.
    pub details: Details,
    /// The action's name.
    pub route: Option<Arc<str>>,
    /// The cluster that was chosen.
    pub cluster: Option<Arc<str>>,
    /// The endpoint that was chosen last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// How often the request was sent.
    pub attempts: u32,
    /// From the start to the upstream's response head.
    pub upstream_time: Option<Duration>,
    /// `grpc-status` of the response.
    pub grpc_status: Option<u32>,
    /// Messages of a gRPC request and of its response.
    pub grpc_messages: Option<Box<[GrpcMessages; 2]>>,
    /// What filters decided: a JSON array (`weir.decision`).
    pub decision: Option<Box<str>>,
}

/// Counts the messages of a gRPC body, however it is cut into pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcMessages {
    /// Those that began.
    pub count: u64,
    /// Bytes of the current message that are to come.
    left: u64,
    /// What has arrived of the five bytes before a message.
    prefix: [u8; 5],
    filled: u8,
}

impl GrpcMessages {
    /// A piece of the body.
    pub fn see(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let skip = self.left.min(piece.len() as u64);
            self.left -= skip;
            piece = piece.get(skip as usize..).unwrap_or_default();
            let Some((byte, rest)) = piece.split_first().filter(|_| self.left == 0) else { return };
            if let Some(place) = self.prefix.get_mut(usize::from(self.filled)) {
                *place = *byte;
            }
            self.filled += 1;
            piece = rest;
            if self.filled == 5 {
                let [_, length @ ..] = self.prefix;
                *self = Self { count: self.count + 1, left: u32::from_be_bytes(length).into(), ..Self::default() };
            }
        }
    }
}

/// A detail: mostly a fixed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Details {
    /// A name of the core.
    Fixed(&'static str),
    /// A filter's.
    Made(Box<str>),
}

impl Details {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl Record {
    /// A request whose head arrived at `started`.
    #[must_use]
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            started_wall: None,
            received: 0,
            sent: 0,
            status: 0,
            flags: Flags::NONE,
            details: Details::Fixed(""),
            route: None,
            cluster: None,
            endpoint: None,
            attempts: 0,
            upstream_time: None,
            grpc_status: None,
            grpc_messages: None,
            decision: None,
        }
    }

    /// Says why, unless that was said before.
    pub fn explain(&mut self, details: &'static str, flags: Flags) {
        self.flags = self.flags.with(flags);
        if self.details.as_str().is_empty() {
            self.details = Details::Fixed(details);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_in_letters() {
        assert_eq!(Flags::NONE.letters(), "-");
        assert_eq!(Flags::UPSTREAM_TIMEOUT.with(Flags::RETRY_LIMIT).letters(), "URX,UT");
        let distinct: std::collections::BTreeSet<u32> = Flags::ALL.iter().map(|(flag, _)| flag.0).collect();
        assert_eq!(distinct.len(), Flags::ALL.len());
    }

    #[test]
    fn grpc_messages_are_counted_however_they_are_cut() {
        let body = [&[0, 0, 0, 0, 3][..], b"one", &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 1], b"x"].concat();
        for size in 1..=body.len() {
            let mut messages = GrpcMessages::default();
            body.chunks(size).for_each(|piece| messages.see(piece));
            assert_eq!((messages.count, messages.left, messages.filled), (3, 0, 0), "{size}");
        }
    }

    #[test]
    fn the_first_explanation_stays() {
        let mut record = Record::new(Instant::now());
        record.explain("upstream_timeout", Flags::UPSTREAM_TIMEOUT);
        record.explain("downstream_closed", Flags::DOWNSTREAM_TERMINATION);
        assert_eq!(record.details.as_str(), "upstream_timeout");
        assert_eq!(record.flags.letters(), "DC,UT");
    }
}
