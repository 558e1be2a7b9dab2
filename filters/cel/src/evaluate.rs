//! From an expression to its value for one request.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use crate::NoValue;
use crate::attributes::{Attribute, Source};
use crate::expression::{Expression, Kind, Literal, Operator};
use crate::value::{Value, find};

/// The longest text that an expression makes.
pub(crate) const MOST_BYTES: usize = 64 << 10;
/// Steps of one evaluation: parts of the expression that are evaluated, those of macros once an item.
const MOST_STEPS: u32 = 20_000;

type Outcome<'v> = Result<Value<'v>, NoValue>;

pub(crate) fn evaluate<'v>(root: &'v Expression, source: &'v dyn Source) -> Outcome<'v> {
    Machine { source, variables: Vec::new(), steps: 0, bytes: 0 }.run(root)
}

/// What one evaluation needs.
pub(crate) struct Machine<'v> {
    source: &'v dyn Source,
    variables: Vec<Value<'v>>,
    steps: u32,
    /// Bytes of all texts and lists that were made.
    bytes: usize,
}

impl<'v> Machine<'v> {
    pub(crate) fn enter(&mut self, variable: Value<'v>) {
        self.variables.push(variable);
    }

    pub(crate) fn leave(&mut self) {
        self.variables.pop();
    }

    /// Whether it was given up: then no other part decides.
    pub(crate) fn is_spent(&self) -> bool {
        self.steps > MOST_STEPS || self.bytes > MOST_BYTES * 4
    }

    fn spend(&mut self, bytes: usize) -> Result<(), NoValue> {
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes > MOST_BYTES || self.is_spent() { Err(NoValue("the expression makes too much".into())) } else { Ok(()) }
    }

    pub(crate) fn run(&mut self, expression: &'v Expression) -> Outcome<'v> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(NoValue(format!("the expression takes more than {MOST_STEPS} steps")));
        }
        match &expression.kind {
            Kind::Literal(literal) => Ok(Value::of(literal)),
            Kind::Attribute(attribute) => {
                attribute.value(self.source).ok_or_else(|| NoValue(format!("this request has no {}", attribute.name())))
            }
            Kind::Variable(inside) => {
                let at = self.variables.len().checked_sub(inside + 1);
                at.and_then(|at| self.variables.get(at)).cloned().ok_or_else(|| NoValue("a variable is not there".into()))
            }
            Kind::And(one, other) => self.both(one, other, false),
            Kind::Or(one, other) => self.both(one, other, true),
            Kind::Not(of) => match self.run(of)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                other => Err(NoValue(format!("`!` of {}", other.kind()))),
            },
            Kind::Negate(of) => negate(&self.run(of)?),
            Kind::Choose(condition, yes, no) => match self.run(condition)? {
                Value::Bool(true) => self.run(yes),
                Value::Bool(false) => self.run(no),
                other => Err(NoValue(format!("the condition before `?` is {}", other.kind()))),
            },
            Kind::List(list) => {
                self.spend(list.len() * size_of::<Value<'_>>())?;
                list.iter().map(|one| self.run(one)).collect::<Result<_, _>>().map(|list| Value::List(Rc::new(list)))
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Index(of, key) => self.index(of, key),
            Kind::Has(of, key) => self.has(of, key),
            Kind::Matches(of, pattern) => match self.run(of)? {
                Value::Text(text) => Ok(Value::Bool(pattern.is_match(&text))),
                other => Err(NoValue(format!("`matches` does not work on {}", other.kind()))),
            },
            Kind::Binary(Operator::In, one, other) => self.is_in(one, other),
            Kind::Binary(operator, one, other) => {
                let (one, other) = (self.run(one)?, self.run(other)?);
                self.binary(*operator, one, other)
            }
            Kind::Call(function, arguments) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    values.push(self.run(argument)?);
                }
                let value = function.call(&values)?;
                self.spend(size(&value))?;
                Ok(value)
            }
            Kind::Macro { kind, over, condition, result } => {
                let over = self.run(over)?;
                kind.run(self, &over, condition.as_deref(), result)
            }
            Kind::Name(name) | Kind::Named { name, .. } => Err(NoValue(format!("nobody knows `{name}`"))),
        }
    }

    /// `&&` and `||`: the side that is `decides` decides, and an error of the other does not count then.
    fn both(&mut self, one: &'v Expression, other: &'v Expression, decides: bool) -> Outcome<'v> {
        let left = self.run(one);
        if matches!(left, Ok(Value::Bool(value)) if value == decides) {
            return Ok(Value::Bool(decides));
        }
        match (left, self.run(other)) {
            (_, Ok(Value::Bool(value))) if value == decides && !self.is_spent() => Ok(Value::Bool(decides)),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decides)),
            (Err(cause), _) | (_, Err(cause)) => Err(cause),
            (Ok(one), Ok(other)) => {
                let wrong = if matches!(one, Value::Bool(_)) { other } else { one };
                Err(NoValue(format!("{} is neither true nor false", wrong.kind())))
            }
        }
    }

    fn map(&mut self, entries: &'v [(Expression, Expression)]) -> Outcome<'v> {
        let mut map: Vec<(Value<'v>, Value<'v>)> = Vec::with_capacity(entries.len());
        self.spend(entries.len() * 2 * size_of::<Value<'_>>())?;
        for (key, value) in entries {
            let key = self.run(key)?;
            if !matches!(key, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Text(_)) {
                return Err(NoValue(format!("{} is no key of a map", key.kind())));
            }
            if find(&map, &key).is_some() {
                return Err(NoValue("a map has a key twice".into()));
            }
            let value = self.run(value)?;
            map.push((key, value));
        }
        Ok(Value::Map(Rc::new(map)))
    }

    fn index(&mut self, of: &'v Expression, key: &'v Expression) -> Outcome<'v> {
        let key = self.run(key)?;
        // A header by a name that is only known now: looked up, not searched.
        if let (Kind::Attribute(Attribute::Headers(side)), Value::Text(name)) = (&of.kind, &key) {
            let value = self.source.header(*side, &name.to_ascii_lowercase());
            return value
                .map(|value| Value::Text(String::from_utf8_lossy(value)))
                .ok_or_else(|| NoValue(format!("there is no header {name:?}")));
        }
        match (self.run(of)?, key) {
            (Value::List(list), Value::Int(at)) => {
                let item = usize::try_from(at).ok().and_then(|at| list.get(at));
                item.cloned().ok_or_else(|| NoValue(format!("the list has no item {at}")))
            }
            (Value::Map(map), key) => {
                find(&map, &key).cloned().ok_or_else(|| NoValue(format!("the map has no key {}", key.to_text().unwrap_or_default())))
            }
            (of, key) => Err(NoValue(format!("{} has no part named by {}", of.kind(), key.kind()))),
        }
    }

    /// `has`: an empty key asks for the value itself.
    fn has(&mut self, of: &'v Expression, key: &'v str) -> Outcome<'v> {
        if let (true, Kind::Attribute(attribute)) = (key.is_empty(), &of.kind) {
            return Ok(Value::Bool(attribute.value(self.source).is_some()));
        }
        match self.run(of)? {
            Value::Map(map) => Ok(Value::Bool(find(&map, &Value::Text(Cow::Borrowed(key))).is_some())),
            other => Err(NoValue(format!("{} has no fields", other.kind()))),
        }
    }

    fn is_in(&mut self, one: &'v Expression, other: &'v Expression) -> Outcome<'v> {
        let value = self.run(one)?;
        if let (Kind::Attribute(Attribute::Headers(side)), Value::Text(name)) = (&other.kind, &value) {
            return Ok(Value::Bool(self.source.header(*side, &name.to_ascii_lowercase()).is_some()));
        }
        // A list of literals is compared as it stands.
        if let Kind::List(list) = &other.kind
            && list.iter().all(|one| matches!(one.kind, Kind::Literal(_)))
        {
            self.steps = self.steps.saturating_add(u32::try_from(list.len() / 8).unwrap_or(u32::MAX));
            let is = |literal: &'v Literal| Value::of(literal).equals(&value);
            return Ok(Value::Bool(list.iter().any(|one| matches!(&one.kind, Kind::Literal(literal) if is(literal)))));
        }
        match self.run(other)? {
            Value::List(list) => Ok(Value::Bool(list.iter().any(|item| item.equals(&value)))),
            Value::Map(map) => Ok(Value::Bool(find(&map, &value).is_some())),
            other => Err(NoValue(format!("nothing is in {}", other.kind()))),
        }
    }

    fn binary(&mut self, operator: Operator, one: Value<'v>, other: Value<'v>) -> Outcome<'v> {
        let order = |is: fn(Ordering) -> bool| match one.compare(&other) {
            Some(order) => Ok(Value::Bool(is(order))),
            None if matches!((&one, &other), (Value::Double(_), _) | (_, Value::Double(_))) => Ok(Value::Bool(false)),
            None => Err(NoValue(format!("{} and {} have no order", one.kind(), other.kind()))),
        };
        match operator {
            Operator::Equal => Ok(Value::Bool(one.equals(&other))),
            Operator::Unequal => Ok(Value::Bool(!one.equals(&other))),
            Operator::Less => order(Ordering::is_lt),
            Operator::LessOrEqual => order(Ordering::is_le),
            Operator::Greater => order(Ordering::is_gt),
            Operator::GreaterOrEqual => order(Ordering::is_ge),
            Operator::Add if matches!(one, Value::Text(_) | Value::Bytes(_) | Value::List(_)) => {
                self.spend(size(&one).saturating_add(size(&other)))?;
                concatenated(one, other)
            }
            operator => arithmetic(operator, &one, &other),
        }
    }
}

/// About how many bytes a value has that were made for it.
fn size(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => {
            list.iter().map(|item| size_of::<Value<'_>>() + if let Value::Text(text) = item { text.len() } else { 0 }).sum()
        }
        _ => 0,
    }
}

fn negate<'v>(value: &Value<'v>) -> Outcome<'v> {
    let overflow = || NoValue("the number is too large".into());
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(overflow),
        Value::Double(value) => Ok(Value::Double(-value)),
        Value::Duration(value) => value.checked_neg().map(Value::Duration).ok_or_else(overflow),
        other => Err(NoValue(format!("`-` of {}", other.kind()))),
    }
}

fn concatenated<'v>(one: Value<'v>, other: Value<'v>) -> Outcome<'v> {
    match (one, other) {
        (Value::Text(one), Value::Text(other)) => Ok(Value::text(one.into_owned() + &other)),
        (Value::Bytes(one), Value::Bytes(other)) => Ok(Value::Bytes(Cow::Owned([&*one, &*other].concat()))),
        (Value::List(one), Value::List(other)) => Ok(Value::List(Rc::new(one.iter().chain(&*other).cloned().collect()))),
        (one, other) => Err(NoValue(format!("{} and {} are not added", one.kind(), other.kind()))),
    }
}

fn arithmetic<'v>(operator: Operator, one: &Value<'v>, other: &Value<'v>) -> Outcome<'v> {
    use Operator as Of;
    let value = match (one, other) {
        (Value::Int(one), Value::Int(other)) => match operator {
            Of::Add => one.checked_add(*other),
            Of::Subtract => one.checked_sub(*other),
            Of::Multiply => one.checked_mul(*other),
            Of::Divide => one.checked_div(*other),
            _ => one.checked_rem(*other),
        }
        .map(Value::Int),
        (Value::Uint(one), Value::Uint(other)) => match operator {
            Of::Add => one.checked_add(*other),
            Of::Subtract => one.checked_sub(*other),
            Of::Multiply => one.checked_mul(*other),
            Of::Divide => one.checked_div(*other),
            _ => one.checked_rem(*other),
        }
        .map(Value::Uint),
        (Value::Double(one), Value::Double(other)) => match operator {
            Of::Add => Some(one + other),
            Of::Subtract => Some(one - other),
            Of::Multiply => Some(one * other),
            Of::Divide => Some(one / other),
            _ => None,
        }
        .map(Value::Double),
        (Value::Timestamp(one), Value::Timestamp(other)) if operator == Of::Subtract => one.checked_sub(*other).map(Value::Duration),
        (Value::Timestamp(one), Value::Duration(other)) => match operator {
            Of::Add => one.checked_add(*other),
            Of::Subtract => one.checked_sub(*other),
            _ => None,
        }
        .map(Value::Timestamp),
        (Value::Duration(one), Value::Timestamp(other)) if operator == Of::Add => one.checked_add(*other).map(Value::Timestamp),
        (Value::Duration(one), Value::Duration(other)) => match operator {
            Of::Add => one.checked_add(*other),
            Of::Subtract => one.checked_sub(*other),
            _ => None,
        }
        .map(Value::Duration),
        _ => return Err(NoValue(format!("{} and {} do not calculate", one.kind(), other.kind()))),
    };
    value.ok_or_else(|| NoValue("the calculation has no result: too large, or a division by zero".into()))
}
