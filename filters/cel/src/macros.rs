//! Macros: `all`, `exists`, `exists_one`, `filter` and `map` over a list, or over a map's keys.

use std::rc::Rc;

use crate::NoValue;
use crate::evaluate::Machine;
use crate::expression::Expression;
use crate::value::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

impl Macro {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "exists" => Self::Exists,
            "exists_one" | "existsOne" => Self::ExistsOne,
            "filter" => Self::Filter,
            "map" => Self::Map,
            _ => return None,
        })
    }

    /// Runs it.
    pub(crate) fn run<'v>(
        self,
        machine: &mut Machine<'v>,
        over: &Value<'v>,
        condition: Option<&'v Expression>,
        result: &'v Expression,
    ) -> Result<Value<'v>, NoValue> {
        let items: Vec<Value<'v>> = match over {
            Value::List(list) => list.to_vec(),
            Value::Map(map) => map.iter().map(|(key, _)| key.clone()).collect(),
            other => return Err(NoValue(format!("a macro runs over a list or a map, not {}", other.kind()))),
        };
        let (mut kept, mut count, mut error) = (Vec::new(), 0, None);
        for item in items {
            machine.enter(item.clone());
            let outcome = self.one(machine, condition, result);
            machine.leave();
            match (self, outcome) {
                (Self::All, Ok(Some(Value::Bool(false)))) => return Ok(Value::Bool(false)),
                (Self::Exists, Ok(Some(Value::Bool(true)))) => return Ok(Value::Bool(true)),
                (Self::ExistsOne, Ok(Some(Value::Bool(true)))) => count += 1,
                (Self::Filter, Ok(Some(Value::Bool(true)))) => kept.push(item),
                (Self::Map, Ok(Some(value))) => kept.push(value),
                (Self::Map, Ok(None)) | (_, Ok(Some(Value::Bool(_)))) => {}
                (_, Ok(_)) => return Err(NoValue("the condition of a macro is neither true nor false".into())),
                // Another item may still decide.
                (Self::All | Self::Exists, Err(cause)) if !machine.is_spent() => error = error.or(Some(cause)),
                (_, Err(cause)) => return Err(cause),
            }
        }
        match (self, error) {
            (_, Some(cause)) => Err(cause),
            (Self::All, None) => Ok(Value::Bool(true)),
            (Self::Exists, None) => Ok(Value::Bool(false)),
            (Self::ExistsOne, None) => Ok(Value::Bool(count == 1)),
            (Self::Filter | Self::Map, None) => Ok(Value::List(Rc::new(kept))),
        }
    }

    fn one<'v>(
        self,
        machine: &mut Machine<'v>,
        condition: Option<&'v Expression>,
        result: &'v Expression,
    ) -> Result<Option<Value<'v>>, NoValue> {
        match condition.map(|condition| machine.run(condition)).transpose()? {
            Some(Value::Bool(false)) => Ok(None),
            None | Some(Value::Bool(true)) => machine.run(result).map(Some),
            Some(other) => Err(NoValue(format!("the condition of a macro is {}", other.kind()))),
        }
    }
}
