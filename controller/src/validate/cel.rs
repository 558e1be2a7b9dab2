//! Whether a text is an expression in CEL's syntax.
//!
//! Deliberately not here: whether its names exist and its types fit.

/// How deep an expression may be nested.
const MAX_DEPTH: usize = 100;
/// How long an expression may be.
const MAX_LENGTH: usize = 100_000;

/// Whether it is one, or what is wrong at which character.
pub(super) fn syntax(text: &str) -> Result<(), String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("an expression is at most {MAX_LENGTH} characters long"));
    }
    let refuse = |rest: &str, what: &str| {
        let at = text[..text.len() - rest.len()].chars().count() + 1;
        format!("`{text}` is not a CEL expression: {what} at character {at}")
    };
    let mut parser = Parser { rest: text, depth: 0 };
    parser.expression().map_err(|what| refuse(parser.rest, what))?;
    parser.space();
    if parser.rest.is_empty() { Ok(()) } else { Err(refuse(parser.rest, "nothing more is expected")) }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

type Parsed = Result<(), &'static str>;

impl<'a> Parser<'a> {
    fn space(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            match self.rest.strip_prefix("//") {
                Some(comment) => self.rest = comment.find('\n').map_or("", |at| &comment[at..]),
                None => return,
            }
        }
    }

    fn take(&mut self, sign: &str) -> bool {
        self.space();
        let found = self.rest.strip_prefix(sign);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, sign: &'static str, what: &'static str) -> Parsed {
        if self.take(sign) { Ok(()) } else { Err(what) }
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deep");
        }
        self.binary()?;
        if self.take("?") {
            self.binary()?;
            self.expect(":", "`:` is expected")?;
            self.expression()?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Operands with operators between them; which binds tighter does not matter for whether it can be read.
    fn binary(&mut self) -> Parsed {
        loop {
            self.unary()?;
            if !self.operator() {
                return Ok(());
            }
        }
    }

    fn operator(&mut self) -> bool {
        if ["||", "&&", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%"].iter().any(|sign| self.take(sign)) {
            return true;
        }
        let before = self.rest;
        let found = self.identifier() == Some("in");
        if !found {
            self.rest = before;
        }
        found
    }

    fn identifier(&mut self) -> Option<&'a str> {
        self.space();
        let length = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        if word.is_empty() || word.as_bytes()[0].is_ascii_digit() {
            return None;
        }
        self.rest = rest;
        Some(word)
    }

    /// An operand with what is before and after it.
    fn unary(&mut self) -> Parsed {
        while self.take("!") || self.take("-") {}
        self.primary()?;
        loop {
            if self.take(".") {
                self.take("?");
                self.identifier().ok_or("a name is expected")?;
                if self.take("(") {
                    self.list(")")?;
                } else if self.take("{") {
                    self.map()?;
                }
            } else if self.take("[") {
                self.take("?");
                self.expression()?;
                self.expect("]", "`]` is expected")?;
            } else {
                return Ok(());
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        self.space();
        if self.text()? || self.number() {
            return Ok(());
        }
        if self.take("(") {
            self.expression()?;
            return self.expect(")", "`)` is expected");
        }
        if self.take("[") {
            return self.list("]");
        }
        if self.take("{") {
            return self.map();
        }
        self.take(".");
        match self.identifier() {
            None | Some("in") => return Err("an operand is expected"),
            Some(_) => {}
        }
        if self.take("(") {
            return self.list(")");
        }
        // The fields of a message follow its type's name.
        if self.take("{") { self.map() } else { Ok(()) }
    }

    fn list(&mut self, end: &'static str) -> Parsed {
        loop {
            if self.take(end) {
                return Ok(());
            }
            self.take("?");
            self.expression()?;
            if !self.take(",") {
                return self.expect(end, "the list does not end");
            }
        }
    }

    fn map(&mut self) -> Parsed {
        loop {
            if self.take("}") {
                return Ok(());
            }
            self.take("?");
            self.expression()?;
            self.expect(":", "`:` is expected")?;
            self.expression()?;
            if !self.take(",") {
                return self.expect("}", "the mapping does not end");
            }
        }
    }

    fn number(&mut self) -> bool {
        let bytes = self.rest.as_bytes();
        let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        let begins = digit(0) || (bytes.first() == Some(&b'.') && digit(1));
        if !begins {
            return false;
        }
        let hex = self.rest.starts_with("0x");
        let mut length = if hex { 2 } else { 0 };
        while let Some(byte) = bytes.get(length) {
            let signed = matches!(bytes.get(length + 1), Some(b'+' | b'-')) && digit(length + 2);
            let exponent = !hex && matches!(byte, b'e' | b'E') && (digit(length + 1) || signed);
            let more = if hex { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() || (*byte == b'.' && digit(length + 1)) };
            match (exponent, more) {
                (true, _) => length += 2,
                (_, true) => length += 1,
                _ => break,
            }
        }
        length += usize::from(matches!(bytes.get(length), Some(b'u' | b'U')));
        self.rest = &self.rest[length..];
        true
    }

    /// A text, which may have `r` and `b` before it.
    fn text(&mut self) -> Result<bool, &'static str> {
        let Some(length) = self.rest.find(['"', '\'']).filter(|at| *at <= 2) else { return Ok(false) };
        let (prefix, quoted) = self.rest.split_at(length);
        if !matches!(prefix.to_ascii_lowercase().as_str(), "" | "r" | "b" | "rb" | "br") {
            return Ok(false);
        }
        let raw = prefix.contains(['r', 'R']);
        let long = quoted[..1].repeat(3);
        let quote = if quoted.starts_with(&long) { &long } else { &quoted[..1] };
        let mut at = quote.len();
        while !quoted[at..].starts_with(quote) {
            let c = quoted[at..].chars().next().ok_or("a text does not end")?;
            if c == '\n' && quote.len() == 1 {
                return Err("a text does not end");
            }
            at += c.len_utf8();
            if c == '\\' && !raw {
                at += quoted[at..].chars().next().ok_or("a text does not end")?.len_utf8();
            }
        }
        self.rest = &quoted[at + quote.len()..];
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for text in [
            "response.code >= 400",
            "a.b['c'].d(1, 'x') && !(x in [1, 2u, 0x1F, 1.5e-3]) || -y < .5",
            "has(request.headers['x']) ? \"a\" : r'\\d+'",
            "{'a': 1, \"b\": [true, null,],}",
            "type.Name{field: 1}.field",
            "x.exists(i, i % 2 == 0) // all",
            "'''a\n'b'''",
            "inside",
            "b'\\x00' == b\"\"",
        ] {
            assert_eq!(syntax(text), Ok(()), "{text}");
        }
        let deep = "(".repeat(1000);
        for text in [")++++", "", "a b", "a +", "(a", "[1, 2", "{a 1}", "'x", "a ? b", "a.", "1 in", "a = b", "a &b", "'a\nb'", &deep] {
            assert!(syntax(text).is_err(), "{text}");
        }
        assert!(syntax("a + )").is_err_and(|error| error.contains("character 5")));
    }
}
