//! What an expression is, once it was read.

use regex_lite::Regex;

use crate::attributes::Attribute;
use crate::functions::Function;
use crate::macros::Macro;

/// A part of an expression, and the byte where it stands.
#[derive(Debug)]
pub(crate) struct Expression {
    pub(crate) kind: Kind,
    pub(crate) at: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    List(Vec<Expression>),
    Map(Vec<(Expression, Expression)>),
    Negate(Box<Expression>),
    Not(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Choose(Box<Expression>, Box<Expression>, Box<Expression>),
    /// `of[key]` and `of.key`.
    Index(Box<Expression>, Box<Expression>),
    /// `has(of.key)`.
    Has(Box<Expression>, String),
    /// A variable of a macro, by how many are inside of it.
    Variable(usize),
    Attribute(Attribute),
    Call(Function, Vec<Expression>),
    Matches(Box<Expression>, Box<Regex>),
    Macro {
        kind: Macro,
        over: Box<Expression>,
        condition: Option<Box<Expression>>,
        result: Box<Expression>,
    },
    /// Before names are resolved: a name.
    Name(String),
    /// Before names are resolved: a call, of a value if there is one.
    Named {
        of: Option<Box<Expression>>,
        name: String,
        arguments: Vec<Expression>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}
