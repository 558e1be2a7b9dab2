//! From tokens to an expression, by precedence. Names are not resolved here.

use crate::Mistake;
use crate::expression::{Expression, Kind, Literal, Operator};
use crate::lexer::{Token, tokens};

/// How deep an expression may be nested.
const MOST_DEPTH: usize = 48;

pub(crate) fn parse(text: &str) -> Result<Expression, Mistake> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let expression = parser.choice()?;
    match parser.peek() {
        Token::End => Ok(expression),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
}

type Parsed = Result<Expression, Mistake>;

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |(_, at)| *at)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn is(&mut self, symbol: &str) -> bool {
        let is = matches!(self.peek(), Token::Symbol(known) if *known == symbol);
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Mistake> {
        if self.is(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> Mistake {
        let cause = match self.peek() {
            Token::End => "the expression ends too early".to_owned(),
            Token::Symbol(symbol) => format!("`{symbol}` stands where {wanted} is expected"),
            Token::Name(name) => format!("`{name}` stands where {wanted} is expected"),
            _ => format!("a value stands where {wanted} is expected"),
        };
        Mistake { column: self.at(), cause }
    }

    /// The whole of an expression: everything that nests comes by here.
    fn choice(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(Mistake { column: self.at(), cause: format!("it is nested more than {MOST_DEPTH} deep") });
        }
        let at = self.at();
        let mut expression = self.binary(0)?;
        if self.is("?") {
            let yes = self.choice()?;
            self.expect(":")?;
            let no = self.choice()?;
            expression = Expression { kind: Kind::Choose(Box::new(expression), Box::new(yes), Box::new(no)), at };
        }
        self.depth -= 1;
        Ok(expression)
    }

    /// Operators that bind at least as strongly as `least`.
    fn binary(&mut self, least: u8) -> Parsed {
        let mut left = self.unary()?;
        let mut links = 0;
        while let Some((strength, operator)) = self.operator().filter(|(strength, _)| *strength >= least) {
            // A chain is a tree as deep as it is long.
            links += 1;
            if links > MOST_DEPTH * 4 {
                return Err(Mistake {
                    column: self.at(),
                    cause: "the chain of operators is too long; `in [...]` may say it shorter".into(),
                });
            }
            let at = self.at();
            self.next += 1;
            let (one, other) = (Box::new(left), Box::new(self.binary(strength + 1)?));
            let kind = match operator {
                Link::Or => Kind::Or(one, other),
                Link::And => Kind::And(one, other),
                Link::Operator(operator) => Kind::Binary(operator, one, other),
            };
            left = Expression { kind, at };
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(u8, Link)> {
        use Operator as Of;
        let symbol = match self.peek() {
            Token::Symbol(symbol) => symbol,
            Token::Name(name) if name == "in" => "in",
            _ => return None,
        };
        Some(match symbol {
            "||" => (1, Link::Or),
            "&&" => (2, Link::And),
            "==" => (3, Link::Operator(Of::Equal)),
            "!=" => (3, Link::Operator(Of::Unequal)),
            "<" => (3, Link::Operator(Of::Less)),
            "<=" => (3, Link::Operator(Of::LessOrEqual)),
            ">" => (3, Link::Operator(Of::Greater)),
            ">=" => (3, Link::Operator(Of::GreaterOrEqual)),
            "in" => (3, Link::Operator(Of::In)),
            "+" => (4, Link::Operator(Of::Add)),
            "-" => (4, Link::Operator(Of::Subtract)),
            "*" => (5, Link::Operator(Of::Multiply)),
            "/" => (5, Link::Operator(Of::Divide)),
            "%" => (5, Link::Operator(Of::Remainder)),
            _ => return None,
        })
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let (mut minuses, mut nots) = (0, 0);
        while self.is("-") {
            minuses += 1;
        }
        while minuses == 0 && self.is("!") {
            nots += 1;
        }
        // The least of all numbers is only a number with its sign.
        if minuses == 1 && *self.peek() == Token::Int(i64::MIN.unsigned_abs()) {
            self.next += 1;
            return Ok(Expression { kind: Kind::Literal(Literal::Int(i64::MIN)), at });
        }
        let mut expression = self.postfix()?;
        if minuses % 2 == 1 {
            expression = Expression { kind: Kind::Negate(Box::new(expression)), at };
        } else if minuses > 0 {
            let twice = Expression { kind: Kind::Negate(Box::new(expression)), at };
            expression = Expression { kind: Kind::Negate(Box::new(twice)), at };
        }
        for _ in 0..if nots == 0 { 0 } else { 2 - nots % 2 } {
            expression = Expression { kind: Kind::Not(Box::new(expression)), at };
        }
        Ok(expression)
    }

    fn postfix(&mut self) -> Parsed {
        let mut expression = self.primary()?;
        for _ in 0..MOST_DEPTH {
            let at = self.at();
            if self.is(".") {
                let Token::Name(name) = self.peek().clone() else { return Err(self.unexpected("a name")) };
                let at = self.at();
                self.next += 1;
                let kind = if self.is("(") {
                    Kind::Named { of: Some(Box::new(expression)), name, arguments: self.list(")")? }
                } else {
                    let key = Expression { kind: Kind::Literal(Literal::Text(name.into())), at };
                    Kind::Index(Box::new(expression), Box::new(key))
                };
                expression = Expression { kind, at };
            } else if self.is("[") {
                let key = self.choice()?;
                self.expect("]")?;
                expression = Expression { kind: Kind::Index(Box::new(expression), Box::new(key)), at };
            } else {
                return Ok(expression);
            }
        }
        Err(Mistake { column: self.at(), cause: format!("it is nested more than {MOST_DEPTH} deep") })
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let kind = match self.peek() {
            Token::Symbol("(") => {
                self.next += 1;
                let inner = self.choice()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("[") => {
                self.next += 1;
                Kind::List(self.list("]")?)
            }
            Token::Symbol("{") => {
                self.next += 1;
                Kind::Map(self.entries()?)
            }
            Token::Symbol(_) | Token::End => return Err(self.unexpected("a value")),
            _ => match self.take() {
                Token::Int(number) => Kind::Literal(Literal::Int(
                    i64::try_from(number)
                        .map_err(|_| Mistake { column: at, cause: "the number is too large; `u` behind it makes it larger".into() })?,
                )),
                Token::Uint(number) => Kind::Literal(Literal::Uint(number)),
                Token::Double(number) => Kind::Literal(Literal::Double(number)),
                Token::Text(text) => Kind::Literal(Literal::Text(text.into())),
                Token::Bytes(bytes) => Kind::Literal(Literal::Bytes(bytes.into())),
                Token::Name(name) => match name.as_str() {
                    "true" | "false" => Kind::Literal(Literal::Bool(name == "true")),
                    "null" => Kind::Literal(Literal::Null),
                    "in" => {
                        self.next -= 1;
                        return Err(self.unexpected("a value"));
                    }
                    _ if self.is("(") => Kind::Named { of: None, name, arguments: self.list(")")? },
                    _ => Kind::Name(name),
                },
                Token::Symbol(_) | Token::End => Kind::Literal(Literal::Null),
            },
        };
        Ok(Expression { kind, at })
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expression>, Mistake> {
        let mut list = Vec::new();
        while !self.is(end) {
            list.push(self.choice()?);
            if !self.is(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(list)
    }

    fn entries(&mut self) -> Result<Vec<(Expression, Expression)>, Mistake> {
        let mut entries = Vec::new();
        while !self.is("}") {
            let key = self.choice()?;
            self.expect(":")?;
            entries.push((key, self.choice()?));
            if !self.is(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(entries)
    }
}

enum Link {
    Or,
    And,
    Operator(Operator),
}
