//! CEL, the Common Expression Language, over what a proxy knows of a request: `request.method == "POST" && request.headers["x-role"] != "root"`.
//!
//! A [`Program`] is compiled once and held against every request. Names are resolved while it is compiled: one that nobody knows is an error there, with its
//! column, and not a surprise later. Regular expressions are literals, and compiled with it.
//!
//! What always holds: neither compiling nor evaluating panics, whatever the text and the request say; both are bounded, in depth, in steps and in the size of
//! what they make. An expression that has no value (a header that is not there, a division by zero) is an error, never a guess; `&&` and `||` pass over an
//! error where the other side decides, as CEL asks. What it does not do: messages of protobuf, type conversions of `dyn`, functions of time zones.
//!
//! ```
//! use weir_filter_cel::{Program, Value};
//!
//! let program = Program::compile("1 + size('abc') * 2 == 7").unwrap();
//! assert_eq!(program.holds(&weir_filter_cel::Nothing), Ok(true));
//! assert_eq!(Program::compile("1 +").unwrap_err().to_string(), "column 4: the expression ends too early");
//! ```

mod attributes;
mod evaluate;
mod expression;
mod functions;
mod lexer;
mod macros;
mod parser;
mod resolve;
#[cfg(test)]
mod tests;
mod time;
mod value;

use std::fmt;

pub use attributes::{Nothing, Side, Source};
use expression::Expression;
pub use value::Value;

/// An expression, compiled.
#[derive(Debug)]
pub struct Program {
    root: Expression,
}

/// An expression that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The column of the letter where it goes wrong, from 1.
    pub column: usize,
    /// What is wrong there.
    pub cause: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.cause)
    }
}

impl std::error::Error for Mistake {}

/// An expression that has no value for this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoValue(pub String);

impl fmt::Display for NoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoValue {}

impl Program {
    /// Compiles an expression.
    ///
    /// # Errors
    /// With the column and the cause.
    pub fn compile(text: &str) -> Result<Self, Mistake> {
        let at = |mistake: Mistake| Mistake {
            column: text.get(..mistake.column).map_or(mistake.column, |before| before.chars().count()) + 1,
            ..mistake
        };
        let parsed = parser::parse(text).map_err(at)?;
        let root = resolve::resolve(parsed).map_err(at)?;
        Ok(Self { root })
    }

    /// Its value for a request.
    ///
    /// # Errors
    /// When it has none.
    pub fn evaluate<'v>(&'v self, source: &'v dyn Source) -> Result<Value<'v>, NoValue> {
        evaluate::evaluate(&self.root, source)
    }

    /// Whether it is true for a request.
    ///
    /// # Errors
    /// When it has no value, or one that is neither true nor false.
    pub fn holds(&self, source: &dyn Source) -> Result<bool, NoValue> {
        match self.evaluate(source)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(NoValue(format!("the expression is {}, neither true nor false", other.kind()))),
        }
    }

    /// Its value for a request as text: what a label, a log line or a descriptor is made of.
    ///
    /// # Errors
    /// When it has none, or one that no text stands for, such as a list.
    pub fn text(&self, source: &dyn Source) -> Result<String, NoValue> {
        let value = self.evaluate(source)?;
        value.to_text().map(std::borrow::Cow::into_owned).ok_or_else(|| NoValue(format!("{} has no text", value.kind())))
    }
}
