//! What the operator writes.

use std::time::Duration;

use weir_filter_matching::RequestMatch;
use weir_sdk::schema::{Node, Schema};
use weir_sdk::serde::de::{Deserialize, Deserializer, Error};
use weir_sdk::{Refusal, config};

use crate::Failure;

/// Requests that are held at a time, unless written.
const MAX_ACTIVE: u32 = 1000;
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(3600);

/// The configuration of the filter.
#[config]
#[derive(Debug)]
#[serde(default)]
pub struct Fault {
    /// Which requests; every one unless written.
    pub when: RequestMatch,
    /// Makes them late.
    pub delay: Option<Delay>,
    /// Makes them fail.
    pub abort: Option<Abort>,
    /// Whether clients may ask for their own faults by Envoy's headers, up to the percentages written here; `false` unless written.
    pub headers: bool,
    /// The most requests that are held at a time; those beyond pass. 1000 unless written.
    pub max_active: u32,
    /// Makes chance repeatable; the time unless written.
    pub seed: Option<u64>,
}

impl Default for Fault {
    fn default() -> Self {
        Self { when: RequestMatch::default(), delay: None, abort: None, headers: false, max_active: MAX_ACTIVE, seed: None }
    }
}

/// How late.
#[config]
#[derive(Debug)]
pub struct Delay {
    /// Such as `250ms` or `1.5s`. May be left out where clients say it.
    pub fixed: Option<Time>,
    /// Of requests; all unless written.
    #[serde(default)]
    pub percent: Percent,
}

/// How they fail.
#[config]
#[derive(Debug)]
pub struct Abort {
    /// The HTTP status.
    pub status: Option<u16>,
    /// Or the gRPC status.
    pub grpc_status: Option<u32>,
    /// Of requests; all unless written.
    #[serde(default)]
    pub percent: Percent,
}

impl Delay {
    pub(crate) fn check(&self, by_header: bool) -> Result<(Option<Duration>, Percent), Refusal> {
        match &self.fixed {
            None if !by_header => Err(Refusal::at("fixed", "how long is missing; write it, or allow `headers`")),
            Some(Time(time)) if *time > LONGEST => Err(Refusal::at("fixed", "the longest delay is one hour")),
            fixed => Ok((fixed.as_ref().map(|time| time.0), self.percent)),
        }
    }
}

impl Abort {
    pub(crate) fn check(&self, by_header: bool) -> Result<(Option<Failure>, Percent), Refusal> {
        let failure = match (self.status, self.grpc_status) {
            (Some(_), Some(_)) => return Err(Refusal::new("only one of status and grpcStatus may be written")),
            (Some(status), None) if !(200..=599).contains(&status) => {
                return Err(Refusal::at("status", format!("{status} is no status of 200 to 599")));
            }
            (None, Some(status)) if status > 16 => return Err(Refusal::at("grpcStatus", "a gRPC status is 0 to 16")),
            (None, None) if !by_header => {
                return Err(Refusal::new("one of status and grpcStatus must be written, or `headers` be allowed"));
            }
            (Some(status), None) => Some(Failure::Http(status)),
            (None, Some(status)) => Some(Failure::Grpc(status)),
            (None, None) => None,
        };
        Ok((failure, self.percent))
    }
}

/// A part of all requests, to a ten-thousandth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    millionths: u32,
}

const ALL: u32 = 1_000_000;

impl Default for Percent {
    fn default() -> Self {
        Self { millionths: ALL }
    }
}

impl Percent {
    /// Whole percent; all, if more.
    #[must_use]
    pub fn whole(percent: u32) -> Self {
        Self { millionths: percent.min(100) * (ALL / 100) }
    }

    /// Whether a random number falls into this part.
    #[must_use]
    pub fn holds(self, random: u64) -> bool {
        random % u64::from(ALL) < u64::from(self.millionths)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(D::Error::custom(format!("{percent} is no percentage of 0 to 100")));
        }
        Ok(Self { millionths: (percent * f64::from(ALL / 100)).round() as u32 })
    }
}

impl Schema for Percent {
    const NODE: Node = Node::Number;
}

/// A time, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = [("ms", 0.001), ("us", 0.000_001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
            .into_iter()
            .find_map(|(unit, seconds)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * seconds))
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is no time such as `250ms` or `1.5s`")))
    }
}

impl Schema for Time {
    const NODE: Node = Node::Text;
}
