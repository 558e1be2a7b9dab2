//! Names become what they mean: attributes, variables of macros, functions. What nobody knows is refused here.

use weir_sdk::Refusal;

use crate::Mistake;
use crate::attributes::{is_root, lookup};
use crate::expression::{Expression, Kind, Literal};
use crate::functions::Function;
use crate::macros::Macro;

/// The most memory that one compiled pattern takes.
const PATTERN_SIZE: usize = 1 << 20;

pub(crate) fn resolve(expression: Expression) -> Result<Expression, Mistake> {
    Resolver { variables: Vec::new() }.one(expression)
}

struct Resolver {
    variables: Vec<String>,
}

type Resolved = Result<Expression, Mistake>;

/// `request.headers["x"]` as its segments, if that is what the expression is.
fn path(expression: &Expression) -> Option<Vec<&str>> {
    match &expression.kind {
        Kind::Name(name) => Some(vec![name]),
        Kind::Index(of, key) => match &key.kind {
            Kind::Literal(Literal::Text(text)) if !text.is_empty() => {
                let mut path = path(of)?;
                path.push(text);
                (path.len() <= 8).then_some(path)
            }
            _ => None,
        },
        _ => None,
    }
}

impl Resolver {
    fn boxed(&mut self, expression: Expression) -> Result<Box<Expression>, Mistake> {
        self.one(expression).map(Box::new)
    }

    fn all(&mut self, list: Vec<Expression>) -> Result<Vec<Expression>, Mistake> {
        list.into_iter().map(|one| self.one(one)).collect()
    }

    /// What is known of every request, if the expression is a path to it.
    fn attribute(&self, expression: &Expression) -> Result<Option<Kind>, Mistake> {
        let Some(path) = path(expression) else { return Ok(None) };
        let Some(root) = path.first().filter(|root| is_root(root) && !self.variables.iter().any(|known| known == *root)) else {
            return Ok(None);
        };
        if let Some(attribute) = lookup(&path) {
            return Ok(Some(Kind::Attribute(attribute)));
        }
        // What goes on behind an attribute is that attribute's part.
        let goes_on = (2..path.len()).any(|length| lookup(&path[..length]).is_some());
        let cause = || match path.len() {
            1 => format!("`{root}` alone is no value; write `{root}.` and what of it"),
            _ => format!("there is no attribute `{}`", path.join(".")),
        };
        if goes_on { Ok(None) } else { Err(Mistake { column: expression.at, cause: cause() }) }
    }

    fn one(&mut self, expression: Expression) -> Resolved {
        let at = expression.at;
        if let Some(kind) = self.attribute(&expression)? {
            return Ok(Expression { kind, at });
        }
        let kind = match expression.kind {
            Kind::Name(name) => match self.variables.iter().rev().position(|known| *known == name) {
                Some(inside) => Kind::Variable(inside),
                None => return Err(Mistake { column: at, cause: format!("nobody knows `{name}`") }),
            },
            Kind::List(list) => Kind::List(self.all(list)?),
            Kind::Map(entries) => {
                Kind::Map(entries.into_iter().map(|(key, value)| Ok((self.one(key)?, self.one(value)?))).collect::<Result<_, Mistake>>()?)
            }
            Kind::Negate(of) => Kind::Negate(self.boxed(*of)?),
            Kind::Not(of) => Kind::Not(self.boxed(*of)?),
            Kind::Binary(operator, one, other) => Kind::Binary(operator, self.boxed(*one)?, self.boxed(*other)?),
            Kind::And(one, other) => Kind::And(self.boxed(*one)?, self.boxed(*other)?),
            Kind::Or(one, other) => Kind::Or(self.boxed(*one)?, self.boxed(*other)?),
            Kind::Choose(condition, yes, no) => Kind::Choose(self.boxed(*condition)?, self.boxed(*yes)?, self.boxed(*no)?),
            Kind::Index(of, key) => Kind::Index(self.boxed(*of)?, self.boxed(*key)?),
            Kind::Named { of, name, arguments } => return self.named(at, of, &name, arguments),
            known => known,
        };
        Ok(Expression { kind, at })
    }

    fn named(&mut self, at: usize, of: Option<Box<Expression>>, name: &str, mut arguments: Vec<Expression>) -> Resolved {
        let wrong = |cause: String| Err(Mistake { column: at, cause });
        let kind = match (of, name, arguments.len()) {
            (None, "has", 1) => match arguments.remove(0).kind {
                Kind::Index(of, key) => match key.kind {
                    Kind::Literal(Literal::Text(key)) => self.has(at, *of, &key)?,
                    _ => return wrong("`has` asks for a field: `has(request.headers.x)`".into()),
                },
                _ => return wrong("`has` asks for a field: `has(request.headers.x)`".into()),
            },
            (Some(of), "matches", 1) => self.matches(*of, &arguments.remove(0))?,
            (None, "matches", 2) => {
                let pattern = arguments.remove(1);
                self.matches(arguments.remove(0), &pattern)?
            }
            (Some(of), name, 2 | 3) if let Some(kind) = Macro::named(name) => return self.macro_of(at, kind, *of, arguments),
            (of, name, _) => {
                let mut values = Vec::new();
                if let Some(of) = of {
                    values.push(self.one(*of)?);
                }
                values.append(&mut self.all(arguments)?);
                match Function::named(name, values.len()) {
                    Ok(function) => Kind::Call(function, values),
                    Err(cause) => return wrong(cause),
                }
            }
        };
        Ok(Expression { kind, at })
    }

    fn has(&mut self, at: usize, of: Expression, key: &str) -> Result<Kind, Mistake> {
        let whole = Kind::Index(Box::new(of), Box::new(Expression { kind: Kind::Literal(Literal::Text(key.into())), at }));
        let whole = Expression { kind: whole, at };
        if let Some(attribute) = self.attribute(&whole)? {
            return Ok(Kind::Has(Box::new(Expression { kind: attribute, at }), String::new()));
        }
        match whole.kind {
            Kind::Index(of, _) => Ok(Kind::Has(self.boxed(*of)?, key.to_owned())),
            other => Ok(other),
        }
    }

    fn matches(&mut self, of: Expression, pattern: &Expression) -> Result<Kind, Mistake> {
        let Kind::Literal(Literal::Text(text)) = &pattern.kind else {
            return Err(Mistake {
                column: pattern.at,
                cause: "a regular expression is a literal text, so that it is compiled once".into(),
            });
        };
        let compiled = regex_lite::RegexBuilder::new(text).size_limit(PATTERN_SIZE).build().map_err(|error| {
            // The last line of the library's drawing says what is wrong.
            let text = error.to_string();
            let cause = Refusal::new(text.lines().next_back().unwrap_or_default().trim_start_matches("error: "));
            Mistake { column: pattern.at, cause: format!("this is no regular expression: {cause}") }
        })?;
        Ok(Kind::Matches(self.boxed(of)?, Box::new(compiled)))
    }

    fn macro_of(&mut self, at: usize, kind: Macro, over: Expression, mut arguments: Vec<Expression>) -> Resolved {
        if arguments.len() == 3 && kind != Macro::Map {
            return Err(Mistake { column: at, cause: "only `map` takes a condition and a value".into() });
        }
        let over = self.boxed(over)?;
        let name = match arguments.remove(0) {
            Expression { kind: Kind::Name(name), .. } => name,
            other => return Err(Mistake { column: other.at, cause: "the first value of a macro is the name of its variable".into() }),
        };
        self.variables.push(name);
        let mut rest = arguments.into_iter().map(|one| self.boxed(one)).collect::<Result<Vec<_>, _>>()?.into_iter();
        self.variables.pop();
        let (condition, result) = match (rest.next(), rest.next()) {
            (condition @ Some(_), Some(result)) => (condition, result),
            (Some(result), None) => (None, result),
            _ => return Err(Mistake { column: at, cause: "a macro takes a variable and an expression".into() }),
        };
        Ok(Expression { kind: Kind::Macro { kind, over, condition, result }, at })
    }
}
