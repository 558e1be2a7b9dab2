//! The configuration of the filter: from JSON to a list of changes, or to the reason why not.
//!
//! Always: a [`Rules`] that exists is valid. Names are lower case and made of the characters that HTTP allows,
//! values hold no byte that could end a header line, and no name is mentioned twice in one place.
//!
//! Deliberately not here: any host call; the order is fixed here and carried out by the plugin.

use std::fmt;

use weir_sdk::schema::{Node, Schema};
use weir_sdk::serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use weir_sdk::{Refusal, config};

/// The pseudo-headers of a request that may be set. `:status` belongs to whoever answers.
const SETTABLE_PSEUDO: [&str; 4] = [":authority", ":method", ":path", ":scheme"];

/// What to do to the two header maps of a stream.
#[config]
#[derive(Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Rules {
    /// Changes to the request's headers, before they go upstream.
    pub request: Changes,
    /// Changes to the response's headers, before they go to the client.
    pub response: Changes,
}

/// The changes to one header map, in the order in which they are made.
#[config]
#[derive(Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Changes {
    /// Names whose every value goes.
    pub remove: Vec<Name>,
    /// Names that end up with exactly this value.
    pub set: Headers,
    /// Values that are appended beside those already there.
    pub add: Headers,
}

/// A header name, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// Names and values in the order written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(Name, String)>);

impl Rules {
    /// Whether the filter would leave every message as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }

    /// Whether pseudo-headers are changed only where that makes sense.
    ///
    /// # Errors
    /// Names the first place where they are not.
    pub fn check(&self) -> Result<(), Refusal> {
        let set = |headers: &Headers| headers.0.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let may_set = [
            ("request.set", set(&self.request.set), &SETTABLE_PSEUDO[..]),
            ("request.add", set(&self.request.add), &[]),
            ("request.remove", self.request.remove.clone(), &[]),
            ("response.set", set(&self.response.set), &[]),
            ("response.add", set(&self.response.add), &[]),
            ("response.remove", self.response.remove.clone(), &[]),
        ];
        for (place, names, allowed) in may_set {
            if let Some(name) = names.iter().find(|n| n.is_pseudo() && !allowed.contains(&n.as_str())) {
                let cause = format!("a pseudo-header cannot be changed here; request.set takes {}", SETTABLE_PSEUDO.join(", "));
                return Err(Refusal::at(format!("{place}.{}", name.as_str()), cause));
            }
        }
        Ok(())
    }
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.0.is_empty() && self.add.0.is_empty()
    }
}

impl Name {
    /// The name, lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_pseudo(&self) -> bool {
        self.0.starts_with(':')
    }

    fn new(text: &str) -> Result<Self, String> {
        let token = text.strip_prefix(':').unwrap_or(text);
        match token.bytes().find(|byte| !is_token(*byte)) {
            _ if token.is_empty() => Err("a header name cannot be empty".to_owned()),
            Some(byte) => Err(format!("{text:?} is not a header name: {:?} is not allowed in one", char::from(byte))),
            None => Ok(Self(text.to_ascii_lowercase())),
        }
    }
}

/// The bytes of a `token` in RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Line ends and NUL would let a value become a header of its own; other control characters are refused alike.
fn check_value(value: &str) -> Result<(), String> {
    match value.chars().find(|c| c.is_control() && *c != '\t') {
        Some(control) => Err(format!("{control:?} is not allowed in a header value")),
        None => Ok(()),
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A value that passed [`check_value`], so that the error carries the path of the value.
struct Value(String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        check_value(&value).map_err(de::Error::custom)?;
        Ok(Self(value))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadersVisitor)
    }
}

/// Keeps the order written, and refuses the second of two equal names instead of losing the first.
struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of header names and string values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers: Vec<(Name, String)> = Vec::new();
        while let Some((name, Value(value))) = map.next_entry::<String, Value>()? {
            let name = Name::new(&name).map_err(de::Error::custom)?;
            if headers.iter().any(|(known, _)| *known == name) {
                return Err(de::Error::custom(format!("{:?} is written twice (case does not matter)", name.as_str())));
            }
            headers.push((name, value));
        }
        Ok(Headers(headers))
    }
}

impl Schema for Name {
    const NODE: Node = Node::Text;
}

impl Schema for Headers {
    const NODE: Node = Node::Map(&Node::Text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Rules, Refusal> {
        let rules: Rules = weir_sdk::parse(json.as_bytes())?;
        rules.check().map(|()| rules)
    }

    fn refused(json: &str) -> String {
        parse(json).unwrap_err().to_string()
    }

    fn pairs(headers: &Headers) -> Vec<(&str, &str)> {
        headers.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn everything_is_read_in_the_order_written() {
        let rules = parse(
            r#"{"request": {"remove": ["X-Gone", "x-too"], "set": {"X-B": "1", ":path": "/p", "x-a": ""}},
                 "response": {"add": {"Via": "weir"}}}"#,
        )
        .unwrap();
        assert_eq!(rules.request.remove.iter().map(Name::as_str).collect::<Vec<_>>(), ["x-gone", "x-too"]);
        assert_eq!(pairs(&rules.request.set), [("x-b", "1"), (":path", "/p"), ("x-a", "")]);
        assert_eq!(pairs(&rules.response.add), [("via", "weir")]);
        assert!(!rules.is_empty());
    }

    #[test]
    fn no_configuration_is_no_rules() {
        for empty in ["", " \n", "{}", r#"{"request":{}}"#] {
            assert!(parse(empty).unwrap().is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_field() {
        let cases = [
            (r#"{"reqest":{}}"#, "reqest: unknown field `reqest`, expected `request` or `response`"),
            (r#"{"request":{"ad":{}}}"#, "request.ad: unknown field `ad`"),
            (r#"{"request":{"set":{"x-n":1}}}"#, "request.set.x-n: invalid type: integer `1`"),
            (r#"{"request":{"set":["x-n"]}}"#, "request.set: invalid type: sequence"),
            (r#"{"response":{"remove":["ok","not ok"]}}"#, "response.remove[1]: \"not ok\" is not a header name: ' '"),
            (r#"{"response":{"remove":[""]}}"#, "response.remove[0]: a header name cannot be empty"),
            (r#"{"request":{"set":{"x":"a\r\nevil: 1"}}}"#, "request.set.x: '\\r' is not allowed in a header value"),
            (r#"{"request":{"add":{"x":"1","X":"2"}}}"#, "\"x\" is written twice"),
            (r#"{"request":{"add":{":path":"/"}}}"#, "request.add.:path: a pseudo-header"),
            (r#"{"response":{"set":{":status":"200"}}}"#, "response.set.:status: a pseudo-header"),
            (r#"{"request":{"remove":[":authority"]}}"#, "request.remove.:authority: a pseudo-header"),
            (r#"{} {}"#, "trailing characters"),
            (r#"{"request""#, "EOF while parsing"),
        ];
        for (json, expected) in cases {
            let said = refused(json);
            assert!(said.contains(expected), "{json}: {said}");
        }
    }
}
