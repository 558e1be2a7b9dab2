//! `%START_TIME(…)%`: a moment as text, in UTC.

use std::fmt::Write;

/// A piece of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// A letter of `strftime`.
    Field(char),
    /// So many digits of the second's fraction.
    Fraction(usize),
}

/// How a moment is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeFormat(Vec<Piece>);

impl TimeFormat {
    /// Reads a format of `strftime`; empty is ISO 8601 with milliseconds.
    pub(crate) fn parse(format: &str) -> Result<Self, String> {
        let format = if format.is_empty() { "%Y-%m-%dT%H:%M:%S.%3fZ" } else { format };
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                literal.push(letter);
                continue;
            }
            let piece = match letters.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some('f') => Piece::Fraction(9),
                Some(digits @ '1'..='9') if letters.next() == Some('f') => Piece::Fraction(digits as usize - '0' as usize),
                Some(field) if "YmdHMSTFyesjzZ".contains(field) => Piece::Field(field),
                other => {
                    let field = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "`%{field}` is no field of a time here; there are %Y %m %d %H %M %S %F %T %y %e %j %s %z %Z %f %3f %6f"
                    ));
                }
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// Writes a moment, in nanoseconds since 1970.
    pub(crate) fn write(&self, nanos: u64, out: &mut String) {
        let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day, of_year) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        for piece in &self.0 {
            let _ = match piece {
                Piece::Literal(text) => out.write_str(text),
                Piece::Fraction(digits) => {
                    let cut = 10_u64.pow(9 - u32::try_from(*digits).unwrap_or(9).min(9));
                    write!(out, "{:0digits$}", fraction / cut, digits = *digits)
                }
                Piece::Field('Y') => write!(out, "{year:04}"),
                Piece::Field('y') => write!(out, "{:02}", year % 100),
                Piece::Field('m') => write!(out, "{month:02}"),
                Piece::Field('d') => write!(out, "{day:02}"),
                Piece::Field('e') => write!(out, "{day:2}"),
                Piece::Field('j') => write!(out, "{of_year:03}"),
                Piece::Field('H') => write!(out, "{hour:02}"),
                Piece::Field('M') => write!(out, "{minute:02}"),
                Piece::Field('S') => write!(out, "{second:02}"),
                Piece::Field('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
                Piece::Field('F') => write!(out, "{year:04}-{month:02}-{day:02}"),
                Piece::Field('s') => write!(out, "{seconds}"),
                Piece::Field('z') => out.write_str("+0000"),
                Piece::Field(_) => out.write_str("UTC"),
            };
        }
    }
}

/// Year, month, day and day of the year of a day since 1970: years begin in March, in eras of 400 years.
fn date(days: u64) -> (u64, u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let of_year = if month > 2 { day + 60 + u64::from(is_leap) } else { day - 305 };
    (year, month, date, of_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: &str, nanos: u64) -> String {
        let mut out = String::new();
        TimeFormat::parse(format).unwrap_or_else(|error| panic!("{error}")).write(nanos, &mut out);
        out
    }

    #[test]
    fn moments_are_written() {
        let moment = 1_795_254_060_123_456_789;
        assert_eq!(written("", moment), "2026-11-21T09:41:00.123Z");
        assert_eq!(written("%F %T %s %6f %j %e%%", moment), "2026-11-21 09:41:00 1795254060 123456 325 21%");
        assert_eq!(written("%F %j", 951_782_400_000_000_000), "2000-02-29 060");
        assert_eq!(written("%F %j", 951_868_800_000_000_000), "2000-03-01 061");
        assert_eq!(written("%F %j", 4_107_542_399_000_000_000), "2100-02-28 059");
        assert_eq!(written("%F %j", 4_107_542_400_000_000_000), "2100-03-01 060");
        assert_eq!(written("%F %j %y %Z %z", 0), "1970-01-01 001 70 UTC +0000");
        assert!(TimeFormat::parse("%Q").is_err() && TimeFormat::parse("%3").is_err() && TimeFormat::parse("%").is_err());
    }
}
