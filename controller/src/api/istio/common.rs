//! What several kinds have in common: durations, string matches, selectors, ports.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// Labels, and other texts by name.
pub type Texts = BTreeMap<String, String>;

/// A span of time as Go writes it: `1h30m`, `2.5s`, `-1ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    /// Its length; negative ones can be written, and are refused.
    pub nanos: i64,
}

impl Duration {
    /// One millisecond: the least that is allowed nearly everywhere.
    pub const MILLISECOND: Self = Self { nanos: 1_000_000 };

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(Self::default());
        }
        if rest.is_empty() {
            return None;
        }
        let mut nanos: i128 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, unit) = rest.split_at(digits);
            let units = [
                ("ns", 1),
                ("us", 1_000),
                ("µs", 1_000),
                ("μs", 1_000),
                ("ms", 1_000_000),
                ("s", SECOND),
                ("m", 60 * SECOND),
                ("h", 3600 * SECOND),
            ];
            let length = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
            let (_, factor) = units.iter().find(|(name, _)| *name == &unit[..length])?;
            nanos = nanos.checked_add(scaled(number, *factor)?)?;
            rest = &unit[length..];
        }
        let nanos = i64::try_from(nanos).ok()?;
        Some(Self { nanos: if negative { -nanos } else { nanos } })
    }

    /// The same for who waits; nothing, if it is negative.
    #[must_use]
    pub fn std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }
}

const SECOND: i128 = 1_000_000_000;

/// `1.5` of a unit that has `factor` nanoseconds.
fn scaled(number: &str, factor: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 18 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(factor)?;
    let mut unit = factor;
    for digit in fraction.bytes() {
        let digit = digit.checked_sub(b'0')?;
        // What is less than a nanosecond is nothing.
        nanos += i128::from(digit) * unit / 10;
        unit /= 10;
    }
    Some(nanos)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nanos < 0 { "-" } else { "" };
        write!(f, "{sign}{:?}", std::time::Duration::from_nanos(self.nanos.unsigned_abs()))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl Visitor<'_> for Reads {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 1.5s")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                Duration::parse(text).ok_or_else(|| E::custom(format!("`{text}` is not a duration such as 250ms, 1.5s or 1h")))
            }
        }
        deserializer.deserialize_str(Reads)
    }
}

/// How a text is compared. At most one of its fields may be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StringMatch {
    /// It is this.
    pub exact: Option<String>,
    /// It begins so.
    pub prefix: Option<String>,
    /// All of it matches this, in RE2's syntax.
    pub regex: Option<String>,
}

/// Which workloads of the namespace are meant, by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// All of these the workload must have.
    pub match_labels: Texts,
}

/// The older form of a selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// All of these the workload must have.
    pub labels: Texts,
}

/// What a policy is attached to, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// The API group; empty for the core group.
    pub group: String,
    /// Gateway, GatewayClass, Service or ServiceEntry.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Must be empty: a policy is attached to what stands in its own namespace.
    pub namespace: String,
}

/// A port of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// Its number.
    pub number: u32,
}

/// A share of a hundred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Percent {
    /// 0 to 100.
    pub value: f64,
}

/// A port that is listened on, or that a service has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Its number.
    pub number: u32,
    /// What is spoken on it: HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS.
    pub protocol: String,
    /// Its name.
    pub name: String,
    /// The port of the endpoints, where it differs.
    pub target_port: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("1s", Some(1_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-1ms", Some(-1_000_000)),
            ("+2us", Some(2_000)),
            ("0.000000999s", Some(999)),
            ("0.0000000001s", Some(0)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1 s", None),
            ("1d", None),
            ("1S", None),
            ("99999999999999999h", None),
            ("1000000000000000000000h", None),
        ] {
            assert_eq!(Duration::parse(text).map(|duration| duration.nanos), nanos, "{text:?}");
        }
        assert_eq!(Duration { nanos: -1_500_000 }.to_string(), "-1.5ms");
    }
}
