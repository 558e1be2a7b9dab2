//! Values, how they compare, and what they look like as text.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use crate::expression::Literal;
use crate::time;

/// A value. Times are in nanoseconds, since 1970 where they are not durations.
#[derive(Debug, Clone)]
pub enum Value<'v> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1u`
    Uint(u64),
    /// `1.0`
    Double(f64),
    /// `"text"`
    Text(Cow<'v, str>),
    /// `b"bytes"`
    Bytes(Cow<'v, [u8]>),
    /// `[1, 2]`
    List(Rc<Vec<Value<'v>>>),
    /// `{"a": 1}`, in the order written
    Map(Rc<Vec<(Value<'v>, Value<'v>)>>),
    /// `duration("1.5s")`
    Duration(i64),
    /// `timestamp("2026-01-01T00:00:00Z")`
    Timestamp(i64),
}

impl<'v> Value<'v> {
    pub(crate) fn of(literal: &'v Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(value) => Self::Bool(*value),
            Literal::Int(value) => Self::Int(*value),
            Literal::Uint(value) => Self::Uint(*value),
            Literal::Double(value) => Self::Double(*value),
            Literal::Text(value) => Self::Text(Cow::Borrowed(value)),
            Literal::Bytes(value) => Self::Bytes(Cow::Borrowed(value)),
        }
    }

    /// A text that is made here.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// What it is, for errors.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a number",
            Self::Uint(_) => "a number without sign",
            Self::Double(_) => "a number with a point",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Duration(_) => "a duration",
            Self::Timestamp(_) => "a time",
        }
    }

    /// As CEL's `string()` has it; `None` for what has no text.
    #[must_use]
    pub fn to_text(&self) -> Option<Cow<'v, str>> {
        Some(match self {
            Self::Text(text) => text.clone(),
            Self::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Self::Int(value) => Cow::Owned(value.to_string()),
            Self::Uint(value) => Cow::Owned(value.to_string()),
            Self::Double(value) => Cow::Owned(value.to_string()),
            Self::Bytes(bytes) => Cow::Owned(String::from_utf8(bytes.to_vec()).ok()?),
            Self::Duration(nanos) => Cow::Owned(time::duration_text(*nanos)),
            Self::Timestamp(nanos) => Cow::Owned(time::timestamp_text(*nanos)),
            Self::Null | Self::List(_) | Self::Map(_) => return None,
        })
    }

    /// Values of different kinds are unequal, but numbers are compared as numbers.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(one), Self::List(other)) => {
                one.len() == other.len() && one.iter().zip(&**other).all(|(one, other)| one.equals(other))
            }
            (Self::Map(one), Self::Map(other)) => {
                one.len() == other.len() && one.iter().all(|(key, value)| find(other, key).is_some_and(|known| known.equals(value)))
            }
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// Which is less; `None` where that is no question.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Bytes(one), Self::Bytes(other)) => Some(one.cmp(other)),
            (Self::Duration(one), Self::Duration(other)) | (Self::Timestamp(one), Self::Timestamp(other)) => Some(one.cmp(other)),
            (Self::Int(_) | Self::Uint(_), Self::Int(_) | Self::Uint(_)) => Some(self.whole()?.cmp(&other.whole()?)),
            (Self::Double(one), _) => compare_double(*one, other),
            (_, Self::Double(other)) => compare_double(*other, self).map(Ordering::reverse),
            _ => None,
        }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(i128::from(*value)),
            Self::Uint(value) => Some(i128::from(*value)),
            _ => None,
        }
    }
}

fn compare_double(one: f64, other: &Value<'_>) -> Option<Ordering> {
    match other {
        Value::Double(other) => one.partial_cmp(other),
        _ => {
            let other = other.whole()?;
            // Exactly: a whole number beyond 2^53 is not what it is as a double.
            let near = one.floor();
            if near.is_nan() {
                None
            } else if near >= 1.0e30 {
                Some(Ordering::Greater)
            } else if near <= -1.0e30 {
                Some(Ordering::Less)
            } else {
                let order = (near as i128).cmp(&other);
                Some(if order == Ordering::Equal && one > near { Ordering::Greater } else { order })
            }
        }
    }
}

/// The value of a key.
pub(crate) fn find<'m, 'v>(map: &'m [(Value<'v>, Value<'v>)], key: &Value<'v>) -> Option<&'m Value<'v>> {
    map.iter().find(|(known, _)| known.equals(key)).map(|(_, value)| value)
}
