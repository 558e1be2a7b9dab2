//! Functions, by name and by how many values they take; the value before the dot is the first.

use std::borrow::Cow;
use std::rc::Rc;

use crate::NoValue;
use crate::evaluate::MOST_BYTES;
use crate::time;
use crate::value::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Function {
    name: &'static str,
}

/// Names, and the least and the most values that they take.
const KNOWN: [(&str, usize, usize); 33] = [
    ("size", 1, 1),
    ("contains", 2, 2),
    ("startsWith", 2, 2),
    ("endsWith", 2, 2),
    ("lowerAscii", 1, 1),
    ("upperAscii", 1, 1),
    ("trim", 1, 1),
    ("split", 2, 3),
    ("join", 1, 2),
    ("replace", 3, 4),
    ("indexOf", 2, 2),
    ("lastIndexOf", 2, 2),
    ("substring", 2, 3),
    ("charAt", 2, 2),
    ("int", 1, 1),
    ("uint", 1, 1),
    ("double", 1, 1),
    ("string", 1, 1),
    ("bytes", 1, 1),
    ("bool", 1, 1),
    ("dyn", 1, 1),
    ("type", 1, 1),
    ("duration", 1, 1),
    ("timestamp", 1, 1),
    ("getFullYear", 1, 1),
    ("getMonth", 1, 1),
    ("getDate", 1, 1),
    ("getDayOfMonth", 1, 1),
    ("getDayOfWeek", 1, 1),
    ("getHours", 1, 1),
    ("getMinutes", 1, 1),
    ("getSeconds", 1, 1),
    ("getMilliseconds", 1, 1),
];

impl Function {
    /// The function of this name.
    ///
    /// # Errors
    /// Says why there is none, as the end of a sentence.
    pub(crate) fn named(name: &str, values: usize) -> Result<Self, String> {
        match KNOWN.iter().find(|(known, ..)| *known == name) {
            None => Err(format!("there is no function `{name}`")),
            Some((_, least, most)) if !(*least..=*most).contains(&values) => Err(format!("`{name}` does not take {values} values")),
            Some((name, ..)) => Ok(Self { name }),
        }
    }

    pub(crate) fn call<'v>(self, values: &[Value<'v>]) -> Result<Value<'v>, NoValue> {
        let name = self.name;
        let none = || {
            let kinds: Vec<&str> = values.iter().map(Value::kind).collect();
            NoValue(format!("`{name}` does not work on {}", kinds.join(", ")))
        };
        match values {
            [value] => one(name, value).ok_or_else(none),
            [Value::List(list), Value::Text(between)] if name == "join" => join(list, between).ok_or_else(none),
            [Value::Text(text), rest @ ..] => of_text(name, text, rest).ok_or_else(none),
            _ => Err(none()),
        }
    }
}

fn length(count: usize) -> Value<'static> {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn one<'v>(name: &str, value: &Value<'v>) -> Option<Value<'v>> {
    Some(match (name, value) {
        ("size", Value::Text(text)) => length(text.chars().count()),
        ("size", Value::Bytes(bytes)) => length(bytes.len()),
        ("size", Value::List(list)) => length(list.len()),
        ("size", Value::Map(map)) => length(map.len()),
        ("lowerAscii", Value::Text(text)) => Value::text(text.to_ascii_lowercase()),
        ("upperAscii", Value::Text(text)) => Value::text(text.to_ascii_uppercase()),
        ("trim", Value::Text(text)) => Value::text(text.trim()),
        ("join", Value::List(list)) => return join(list, ""),
        ("dyn", value) => value.clone(),
        ("type", value) => Value::Text(Cow::Borrowed(kind(value))),
        ("bool", Value::Bool(value)) => Value::Bool(*value),
        ("bool", Value::Text(text)) => Value::Bool(match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => true,
            "false" | "False" | "FALSE" | "f" | "0" => false,
            _ => return None,
        }),
        ("string", value) => Value::Text(value.to_text()?),
        ("bytes", Value::Text(text)) => Value::Bytes(Cow::Owned(text.as_bytes().to_vec())),
        ("bytes", Value::Bytes(bytes)) => Value::Bytes(bytes.clone()),
        ("duration", Value::Text(text)) => Value::Duration(time::duration(text)?),
        ("duration", Value::Duration(nanos)) => Value::Duration(*nanos),
        ("timestamp", Value::Text(text)) => Value::Timestamp(time::timestamp(text)?),
        ("timestamp", Value::Int(seconds)) => Value::Timestamp(seconds.checked_mul(1_000_000_000)?),
        ("timestamp", Value::Timestamp(nanos)) => Value::Timestamp(*nanos),
        ("int" | "uint" | "double", value) => return number(name, value),
        (name, Value::Timestamp(nanos)) => Value::Int(time::part(*nanos, name)?),
        (name, Value::Duration(nanos)) => Value::Int(match name {
            "getHours" => nanos / 3_600_000_000_000,
            "getMinutes" => nanos / 60_000_000_000,
            "getSeconds" => nanos / 1_000_000_000,
            "getMilliseconds" => nanos / 1_000_000,
            _ => return None,
        }),
        _ => return None,
    })
}

fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "null_type",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Uint(_) => "uint",
        Value::Double(_) => "double",
        Value::Text(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Duration(_) => "google.protobuf.Duration",
        Value::Timestamp(_) => "google.protobuf.Timestamp",
    }
}

fn number(name: &str, value: &Value<'_>) -> Option<Value<'static>> {
    if name == "double" {
        return Some(Value::Double(match value {
            Value::Int(value) => *value as f64,
            Value::Uint(value) => *value as f64,
            Value::Double(value) => *value,
            Value::Text(text) => text.parse().ok()?,
            _ => return None,
        }));
    }
    let whole = match value {
        Value::Int(value) => i128::from(*value),
        Value::Uint(value) => i128::from(*value),
        Value::Double(value) if value.abs() < 1e20 => value.trunc() as i128,
        Value::Text(text) => text.parse().ok()?,
        Value::Timestamp(nanos) => i128::from(nanos.div_euclid(1_000_000_000)),
        _ => return None,
    };
    match name {
        "int" => i64::try_from(whole).ok().map(Value::Int),
        _ => u64::try_from(whole).ok().map(Value::Uint),
    }
}

fn join(list: &[Value<'_>], between: &str) -> Option<Value<'static>> {
    let mut out = String::new();
    for (at, value) in list.iter().enumerate() {
        let Value::Text(text) = value else { return None };
        if at > 0 {
            out.push_str(between);
        }
        out.push_str(text);
        if out.len() > MOST_BYTES {
            return None;
        }
    }
    Some(Value::text(out))
}

fn of_text<'v>(name: &str, text: &Cow<'v, str>, rest: &[Value<'v>]) -> Option<Value<'v>> {
    Some(match (name, rest) {
        ("contains", [Value::Text(part)]) => Value::Bool(text.contains(&**part)),
        ("startsWith", [Value::Text(part)]) => Value::Bool(text.starts_with(&**part)),
        ("endsWith", [Value::Text(part)]) => Value::Bool(text.ends_with(&**part)),
        ("split", [Value::Text(between)]) => split(text, between, usize::MAX),
        ("split", [Value::Text(between), Value::Int(most)]) => split(text, between, usize::try_from(*most).unwrap_or(usize::MAX)),
        ("replace", [Value::Text(from), Value::Text(to)]) => replaced(text, from, to, usize::MAX)?,
        ("replace", [Value::Text(from), Value::Text(to), Value::Int(most)]) => {
            replaced(text, from, to, usize::try_from(*most).unwrap_or(usize::MAX))?
        }
        ("indexOf", [Value::Text(part)]) => place(text, text.find(&**part)),
        ("lastIndexOf", [Value::Text(part)]) => place(text, text.rfind(&**part)),
        ("substring", [Value::Int(from)]) => Value::text(text.get(byte(text, *from)?..)?),
        ("substring", [Value::Int(from), Value::Int(to)]) => Value::text(text.get(byte(text, *from)?..byte(text, *to)?)?),
        ("charAt", [Value::Int(at)]) => Value::text(text.get(byte(text, *at)?..)?.chars().next().map(String::from).unwrap_or_default()),
        _ => return None,
    })
}

/// Where the letter of this number begins.
fn byte(text: &str, letter: i64) -> Option<usize> {
    let letter = usize::try_from(letter).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(letter)
}

/// The number of the letter that begins there; -1 for none.
fn place(text: &str, byte: Option<usize>) -> Value<'static> {
    byte.map_or(Value::Int(-1), |byte| length(text.get(..byte).map_or(0, |before| before.chars().count())))
}

fn split<'v>(text: &str, between: &str, most: usize) -> Value<'v> {
    let parts: Vec<Value<'v>> = if most == 0 {
        Vec::new()
    } else if between.is_empty() {
        text.chars().map(Value::text).collect()
    } else {
        text.splitn(most, between).map(Value::text).collect()
    };
    Value::List(Rc::new(parts))
}

fn replaced<'v>(text: &str, from: &str, to: &str, most: usize) -> Option<Value<'v>> {
    // Every letter at worst becomes `to`.
    (text.len().saturating_add(1).saturating_mul(to.len() + 1) <= MOST_BYTES).then(|| Value::text(text.replacen(from, to, most)))
}
