//! Durations, shares, text matches and regular expressions: what each may be.

use super::At;
use super::re2;
use crate::api::istio::common::{Duration, Percent, StringMatch};

/// A millisecond or more, in whole milliseconds.
pub(super) fn duration(value: Duration) -> Result<(), String> {
    if value < Duration::MILLISECOND {
        return Err(format!("{value} is less than 1ms"));
    }
    whole_millis(value)
}

/// The same, or nothing.
pub(super) fn duration_or_zero(value: Duration) -> Result<(), String> {
    if value.nanos == 0 { Ok(()) } else { duration(value) }
}

fn whole_millis(value: Duration) -> Result<(), String> {
    if value.nanos % Duration::MILLISECOND.nanos != 0 {
        return Err(format!("{value} is not a whole number of milliseconds"));
    }
    Ok(())
}

/// Looks at a duration if it is written.
pub(super) fn check_duration(at: &At<'_>, key: &str, value: Option<Duration>) {
    at.some(key, value.as_ref(), |at, value| at.check(duration(*value)));
}

/// 0 to 100, in whole numbers.
pub(super) fn percent(value: i32) -> Result<(), String> {
    if (0..=100).contains(&value) { Ok(()) } else { Err(format!("{value} is not within 0 to 100")) }
}

/// 0 to 100.
pub(super) fn share(value: f64) -> Result<(), String> {
    if (0.0..=100.0).contains(&value) { Ok(()) } else { Err(format!("{value} is not within 0 to 100")) }
}

/// 0, or what can be told from it, to 100.
pub(super) fn check_percentage(at: &At<'_>, value: Option<&Percent>) {
    at.some("percentage", value, |at, percent| {
        let at = at.key("value");
        at.check(share(percent.value));
        if percent.value > 0.0 && percent.value < 0.0001 {
            at.invalid(format!("{} is less than 0.0001, and not 0", percent.value));
        }
    });
}

/// A regular expression in RE2's syntax.
pub(super) fn regex(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("a regular expression must not be empty".into());
    }
    if pattern.len() > 1024 {
        return Err("a regular expression must not be longer than 1024 characters".into());
    }
    re2::compile(pattern).map(drop)
}

/// Looks at a text match if it is written; only the prefix of a path may be empty.
pub(super) fn check_match(at: &At<'_>, key: &str, value: Option<&StringMatch>, empty_prefix: bool) {
    at.some(key, value, |at, value| check_text(at, value, empty_prefix));
}

/// A text match.
pub(super) fn check_text(at: &At<'_>, value: &StringMatch, empty_prefix: bool) {
    at.at_most_one(&[("exact", value.exact.is_some()), ("prefix", value.prefix.is_some()), ("regex", value.regex.is_some())]);
    if value.prefix.as_deref() == Some("") && !empty_prefix {
        at.key("prefix").invalid("a prefix must not be empty");
    }
    at.some("regex", value.regex.as_ref(), |at, pattern| at.check(regex(pattern)));
}

/// An HTTP status that may be answered with; 600 is let through, as Istio does.
pub(super) fn status(status: i64) -> Result<(), String> {
    if (200..=600).contains(&status) { Ok(()) } else { Err(format!("{status} is not a status within 200 to 599")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (nanos, fits, or_zero) in
            [(0, false, true), (999_999, false, false), (1_000_000, true, true), (1_500_000, false, false), (-1_000_000, false, false)]
        {
            let value = Duration { nanos };
            assert_eq!((duration(value).is_ok(), duration_or_zero(value).is_ok()), (fits, or_zero), "{nanos}");
        }
    }

    #[test]
    fn shares() {
        for (value, fits) in [(0.0, true), (100.0, true), (100.1, false), (-0.1, false), (f64::NAN, false)] {
            assert_eq!(share(value).is_ok(), fits, "{value}");
        }
    }
}
