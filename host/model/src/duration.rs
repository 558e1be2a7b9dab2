//! Durations: from the schema's type to the standard library's, and the form in which people write them.
//!
//! Always: a duration that is absent, negative or beyond what the standard library holds reads as the default. Validation has
//! refused the latter two before; what reads here only has to be safe.
//!
//! Deliberately not here: what each default is. It stands in the schema's comments and where the value is used.

use std::time::Duration as Std;

use crate::protobuf::Duration;

/// What protobuf allows: ten thousand years.
const MAX_SECONDS: i128 = 315_576_000_000;

/// The duration, if there is one that makes sense.
#[must_use]
pub fn get(value: Option<Duration>) -> Option<Std> {
    value.and_then(|value| Std::try_from(value).ok())
}

/// The duration, or this default.
#[must_use]
pub fn or(value: Option<Duration>, default: Std) -> Std {
    get(value).unwrap_or(default)
}

/// The duration with 0 s meaning none, or this default.
#[must_use]
pub fn nonzero_or(value: Option<Duration>, default: Std) -> Option<Std> {
    Some(or(value, default)).filter(|value| !value.is_zero())
}

/// From the standard library's type; what is too long becomes the longest.
#[must_use]
pub fn from_std(value: Std) -> Duration {
    let seconds = i128::from(value.as_secs()).min(MAX_SECONDS);
    Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0) }
}

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A number alone.
    #[error("a duration needs a unit")]
    NoUnit,
    /// An unknown unit.
    #[error("the units of durations are h, m, s, ms, us and ns")]
    BadUnit,
    /// Not a number where one belongs.
    #[error("not a duration")]
    Malformed,
    /// More than protobuf's ten thousand years.
    #[error("a duration is at most 10,000 years")]
    TooLong,
}

/// Reads `250ms`, `1.5s`, `1m30s`, `2h`, `-1s`, and `0`.
///
/// # Errors
/// [`DurationError`] for anything else.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if rest == "0" {
        return Ok(Duration::default());
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(bare(rest))?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total =
            total.checked_add(nanos(number, unit)?).filter(|total| *total <= MAX_SECONDS * 1_000_000_000).ok_or(DurationError::TooLong)?;
        rest = tail;
    }
    let total = if negative { -total } else { total };
    let seconds = i64::try_from(total / 1_000_000_000).map_err(|_| DurationError::TooLong)?;
    Ok(Duration { seconds, nanos: i32::try_from(total % 1_000_000_000).map_err(|_| DurationError::TooLong)? })
}

fn bare(rest: &str) -> DurationError {
    if rest.parse::<f64>().is_ok() { DurationError::NoUnit } else { DurationError::Malformed }
}

/// A number such as `1.5` of a unit, in nanoseconds. Finer parts are cut.
fn nanos(number: &str, unit: &str) -> Result<i128, DurationError> {
    let scale: i128 = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" => 1_000,
        "ns" => 1,
        _ if number.is_empty() => return Err(DurationError::Malformed),
        _ => return Err(DurationError::BadUnit),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && part.is_empty()) || part.contains('.') {
        return Err(DurationError::Malformed);
    }
    if whole.len() > 20 {
        return Err(DurationError::TooLong);
    }
    let mut sum = whole.bytes().fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0')) * scale;
    let mut step = scale;
    for digit in part.bytes().take(18) {
        step /= 10;
        sum += i128::from(digit - b'0') * step;
    }
    Ok(sum)
}

/// Writes protobuf's JSON form: `1.500s`.
#[must_use]
pub fn print(value: Duration) -> String {
    value.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write() {
        let std = |text| get(Some(parse(text).unwrap())).unwrap();
        for (text, micros) in [
            ("250ms", 250_000),
            ("1.5s", 1_500_000),
            ("1m30s", 90_000_000),
            ("2h", 7_200_000_000),
            ("0", 0),
            ("0s", 0),
            (".5s", 500_000),
            ("7us", 7),
        ] {
            assert_eq!(std(text), Std::from_micros(micros), "{text}");
        }
        assert_eq!(std("1.000000001s"), Std::new(1, 1));
        assert_eq!(parse("-1.5s").unwrap(), Duration { seconds: -1, nanos: -500_000_000 });
        assert_eq!(get(parse("-1s").ok()), None, "negative reads as absent");
        assert_eq!(or(None, Std::from_secs(3)), Std::from_secs(3));
        assert_eq!(nonzero_or(parse("0s").ok(), Std::from_secs(3)), None);
        assert_eq!(nonzero_or(None, Std::from_secs(3)), Some(Std::from_secs(3)));
    }

    #[test]
    fn what_is_none() {
        for text in ["5", "1.5", "500"] {
            assert_eq!(parse(text), Err(DurationError::NoUnit), "{text}");
        }
        for text in ["", "-", "s", "ms", "soon", "1.2.3s", ".s", "1s5x.", "--1s", "1 s "] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["1d", "1sec", "3minutes"] {
            assert_eq!(parse(text), Err(DurationError::BadUnit), "{text}");
        }
        for text in ["99999999999999999999h", "999999999999999999999999999999s", "315576000001s"] {
            assert_eq!(parse(text), Err(DurationError::TooLong), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(seconds in 0i64..315_576_000_000, nanos in 0i32..1_000_000_000) {
            let value = Duration { seconds, nanos };
            prop_assert_eq!(parse(&print(value)), Ok(value));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}|[-0-9.hmsun]{0,40}") {
            let _ = parse(&text);
        }
    }
}
