//! From tokens to calls: operators bind as in Go, and a dotted name is one attribute.

use std::sync::Arc;

use super::lexer::{Kind, Token, tokens, wrong};
use super::{Call, Error, MAX_DEPTH, MAX_LENGTH, Node, Value};
use crate::api::istio::common::Duration;

/// The most parentheses, brackets and signs within each other: each costs more of the stack than an operator does.
const MAX_NESTED: usize = 100;

pub(super) fn parse(text: &str) -> Result<Node, Error> {
    let failed = |error: Error| Error::new(format!("unable to parse expression '{text}': {error}"));
    if text.len() > MAX_LENGTH {
        return Err(Error::new(format!("an expression has at most {MAX_LENGTH} bytes")));
    }
    let tokens = tokens(text).map_err(failed)?;
    let mut parser = Parser { tokens, next: 0, end: text.len(), depth: 0 };
    let node = parser.binary(1).map_err(failed)?;
    if parser.peek() == Some(&Kind::End) {
        parser.next += 1;
    }
    match parser.peek() {
        None => Ok(node.0),
        Some(_) => Err(failed(parser.unexpected("end"))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    end: usize,
    depth: usize,
}

/// A node and how deep it is.
type Deep = (Node, usize);

/// What an operand is so far: what may follow depends on it.
enum Operand {
    Path(Vec<String>),
    /// A literal, a call or something in parentheses: a method may be called on it.
    Whole(Deep),
    /// What a method is about to be called on.
    Method(Deep, String),
    /// An entry of a map: Mixer calls no method on it.
    Entry(Deep),
}

/// How tightly an operator binds, and its name as a function. Those that Mixer has no function for have names that no function has.
fn operator(kind: Option<&Kind>) -> Option<(u8, &'static str)> {
    let Some(Kind::Mark(mark)) = kind else { return None };
    Some(match *mark {
        "||" => (1, "LOR"),
        "&&" => (2, "LAND"),
        "==" => (3, "EQ"),
        "!=" => (3, "NEQ"),
        "<" => (3, "LT"),
        "<=" => (3, "LEQ"),
        ">" => (3, "GT"),
        ">=" => (3, "GEQ"),
        "+" => (4, "ADD"),
        "-" => (4, "SUB"),
        "|" => (4, "OR"),
        "^" => (4, "XOR"),
        "*" => (5, "MUL"),
        "/" => (5, "QUO"),
        "%" => (5, "REM"),
        "&" => (5, "AND"),
        "<<" | ">>" | "&^" => (5, mark),
        _ => return None,
    })
}

fn call(name: &str, target: Option<Deep>, arguments: Vec<Deep>) -> Result<Deep, Error> {
    let depth = 1 + target.iter().chain(&arguments).map(|(_, depth)| *depth).max().unwrap_or_default();
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("an expression has at most {MAX_DEPTH} operators within each other")));
    }
    let arguments = arguments.into_iter().map(|(node, _)| node).collect();
    Ok((Node::Call(Box::new(Call { name: name.to_owned(), target: target.map(|(node, _)| node), arguments })), depth))
}

fn variable(parts: &[String]) -> Node {
    Node::Variable(Arc::from(parts.join(".")))
}

impl Parser {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn eat(&mut self, mark: &str) -> bool {
        let is = matches!(self.peek(), Some(Kind::Mark(found)) if *found == mark);
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, mark: &str) -> Result<(), Error> {
        if self.eat(mark) { Ok(()) } else { Err(self.unexpected(&format!("'{mark}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let (at, found) = match self.tokens.get(self.next) {
            None => (self.end, "the end".to_owned()),
            Some(token) => match &token.kind {
                Kind::Name(text) | Kind::Int(text) | Kind::Float(text) | Kind::Text(text) => (token.at, text.clone()),
                Kind::Mark(mark) => (token.at, format!("'{mark}'")),
                Kind::End => (token.at, "a new line".to_owned()),
            },
        };
        wrong(at, format!("expected {wanted}, found {found}"))
    }

    fn binary(&mut self, least: u8) -> Result<Deep, Error> {
        let mut left = self.unary()?;
        while let Some((binds, name)) = operator(self.peek()).filter(|(binds, _)| *binds >= least) {
            self.next += 1;
            let right = self.binary(binds + 1)?;
            left = call(name, None, vec![left, right])?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Deep, Error> {
        self.depth += 1;
        if self.depth > MAX_NESTED {
            return Err(Error::new(format!("an expression has at most {MAX_NESTED} parentheses within each other")));
        }
        let names = [("+", "ADD"), ("-", "SUB"), ("!", "NOT"), ("^", "XOR"), ("&", "AND")];
        let node = match names.into_iter().find(|(mark, _)| self.eat(mark)) {
            Some((_, name)) => {
                let operand = self.unary()?;
                call(name, None, vec![operand])
            }
            None => self.primary(),
        };
        self.depth -= 1;
        node
    }

    fn primary(&mut self) -> Result<Deep, Error> {
        let mut operand = self.operand()?;
        loop {
            operand = if self.eat(".") {
                let Some(Kind::Name(name)) = self.peek().cloned() else { return Err(self.unexpected("a name")) };
                self.next += 1;
                match operand {
                    Operand::Path(mut parts) => {
                        parts.push(name);
                        Operand::Path(parts)
                    }
                    Operand::Whole(target) => Operand::Method(target, name),
                    Operand::Method(..) | Operand::Entry(_) => return Err(self.no_method(&name)),
                }
            } else if self.eat("[") {
                let index = self.binary(1)?;
                self.expect("]")?;
                let map = self.value(operand)?;
                Operand::Entry(call("INDEX", None, vec![map, index])?)
            } else if self.eat("(") {
                let arguments = self.arguments()?;
                Operand::Whole(match operand {
                    Operand::Path(parts) => match parts.split_last() {
                        Some((name, [])) => call(name, None, arguments)?,
                        Some((name, target)) => call(name, Some((variable(target), 1)), arguments)?,
                        None => return Err(self.unexpected("a name")),
                    },
                    Operand::Method(target, name) => call(&name, Some(target), arguments)?,
                    Operand::Whole(_) | Operand::Entry(_) => return Err(Error::new("unexpected expression: this cannot be called")),
                })
            } else {
                return self.value(operand);
            };
        }
    }

    fn no_method(&self, name: &str) -> Error {
        let at = self.tokens.get(self.next.saturating_sub(1)).map_or(self.end, |token| token.at);
        wrong(at, format!("unexpected expression: nothing is called {name:?} here; put what it is called on in parentheses"))
    }

    fn value(&self, operand: Operand) -> Result<Deep, Error> {
        match operand {
            Operand::Path(parts) => Ok((truth(&parts).unwrap_or_else(|| variable(&parts)), 1)),
            Operand::Whole(node) | Operand::Entry(node) => Ok(node),
            Operand::Method(_, name) => Err(self.no_method(&name)),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Deep>, Error> {
        let mut arguments = Vec::new();
        while !self.eat(")") {
            arguments.push(self.binary(1)?);
            if !self.eat(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(arguments)
    }

    fn operand(&mut self) -> Result<Operand, Error> {
        if self.eat("(") {
            let inner = self.binary(1)?;
            self.expect(")")?;
            return Ok(Operand::Whole(inner));
        }
        let refused = |text: &str| Error::new(format!("{text} is no value"));
        let operand = match self.peek() {
            Some(Kind::Name(name)) => Operand::Path(vec![name.clone()]),
            Some(Kind::Int(text)) => literal(text, Value::Int64(text.parse().map_err(|_| refused(text))?)),
            Some(Kind::Float(text)) => literal(text, Value::Double(finite(text).ok_or_else(|| refused(text))?)),
            Some(Kind::Text(text)) => literal(text, constant(unquote(text).ok_or_else(|| refused(text))?)),
            _ => return Err(self.unexpected("operand")),
        };
        self.next += 1;
        Ok(operand)
    }
}

fn literal(text: &str, value: Value) -> Operand {
    Operand::Whole((Node::Constant(text.to_owned(), value), 1))
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A text that reads like a length of time is one.
fn constant(text: String) -> Value {
    Duration::parse(&text).map_or_else(|| Value::String(text.into()), |duration| Value::Duration(duration.nanos))
}

/// `true` and `false`, in any case.
fn truth(parts: &[String]) -> Option<Node> {
    let [name] = parts else { return None };
    let lower = name.to_lowercase();
    let value = match lower.as_str() {
        "true" => true,
        "false" => false,
        _ => return None,
    };
    Some(Node::Constant(lower, Value::Bool(value)))
}

/// What a literal in quotes means; bytes that are no UTF-8 become the replacement character.
fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next()?;
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    if quote == '`' {
        return Some(inner.replace('\r', ""));
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut letters = inner.chars();
    let mut count = 0;
    while let Some(letter) = letters.next() {
        count += 1;
        if letter == '\\' {
            escape(&mut letters, quote, &mut bytes)?;
        } else {
            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    (quote == '"' || count == 1).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

fn escape(letters: &mut std::str::Chars<'_>, quote: char, bytes: &mut Vec<u8>) -> Option<()> {
    let byte = |value: u32| u8::try_from(value).ok();
    let kind = letters.next()?;
    let mut digits = |first: u32, count: usize, radix: u32| {
        (0..count).try_fold(first, |value, _| value.checked_mul(radix)?.checked_add(letters.next()?.to_digit(radix)?))
    };
    match kind {
        'a' => bytes.push(7),
        'b' => bytes.push(8),
        'f' => bytes.push(12),
        'n' => bytes.push(b'\n'),
        'r' => bytes.push(b'\r'),
        't' => bytes.push(b'\t'),
        'v' => bytes.push(11),
        '\\' => bytes.push(b'\\'),
        '"' | '\'' if kind == quote => bytes.extend(u8::try_from(kind)),
        'x' => bytes.push(byte(digits(0, 2, 16)?)?),
        '0'..='7' => bytes.push(byte(digits(kind.to_digit(8)?, 2, 8)?)?),
        'u' | 'U' => {
            let letter = char::from_u32(digits(0, if kind == 'u' { 4 } else { 8 }, 16)?)?;
            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
        _ => return None,
    }
    Some(())
}
