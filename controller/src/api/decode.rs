//! From the JSON of an object to a type of an API, with the way to whatever does not fit.
//!
//! Always: it follows what an API server does with a custom resource. A null is as if it were not written, a field that the type does not have is told
//! and left out, and a value of another type than the field's is refused: no text stands for a number, nor a number for a text.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::{Map, Value as Json};
use weir_model::suggest;
use weir_model::yaml::document::{Step, Way};

use crate::finding::{Code, Finding};
use crate::object::Id;

/// What came of reading.
#[derive(Debug)]
pub struct Decoded<T> {
    /// The value; none if there is an error among the findings.
    pub value: Option<T>,
    /// What was wrong, or odd.
    pub findings: Vec<Finding>,
}

/// Reads `json`, which stands at `way` in the object, as a `T`.
#[must_use]
pub fn decode<T: DeserializeOwned>(object: &Id, way: &Way, json: &Json) -> Decoded<T> {
    let notes = RefCell::new(Vec::new());
    let empty = Json::Object(Map::new());
    let json = if json.is_null() { &empty } else { json };
    let read = T::deserialize(Value { json, trail: &Trail { up: None, step: Link::Start }, notes: &notes });
    let whole = |inner: &Way| way.steps().iter().chain(inner.steps()).cloned().collect::<Way>();
    let mut findings: Vec<Finding> = notes.into_inner().into_iter().map(|note| note.finding(object, whole(&note.way))).collect();
    match read {
        Ok(value) => Decoded { value: Some(value), findings },
        Err(wrong) => {
            findings.push(Finding::new(Code::Undecodable, object, whole(&wrong.way.unwrap_or_default()), wrong.message).help(wrong.help));
            Decoded { value: None, findings }
        }
    }
}

/// A field that the type does not have.
struct Note {
    way: Way,
    name: String,
    known: &'static [&'static str],
}

impl Note {
    fn finding(&self, object: &Id, way: Way) -> Finding {
        let found = Finding::new(Code::UnknownField, object, way, format!("there is no field `{}` here", self.name));
        match suggest(&self.name, self.known.iter().copied()) {
            Some(meant) => found.help(format!("Did you mean `{meant}`?")),
            None => found,
        }
    }
}

/// Fields that are told of, of one object.
const MAX_NOTES: usize = 100;

/// What kept a value from being read.
#[derive(Debug)]
struct Wrong {
    way: Option<Way>,
    message: String,
    help: String,
}

impl Wrong {
    fn new(message: String) -> Self {
        Self { way: None, message, help: String::new() }
    }

    fn at(mut self, trail: &Trail<'_>) -> Self {
        self.way.get_or_insert_with(|| trail.way());
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("{expected} belongs here, not {found}"))
    }
}

enum Link<'a> {
    Start,
    Key(&'a str),
    Index(usize),
}

/// The way so far, as a list on the stack.
struct Trail<'a> {
    up: Option<&'a Trail<'a>>,
    step: Link<'a>,
}

impl Trail<'_> {
    fn way(&self) -> Way {
        let mut steps: Vec<Step> = std::iter::successors(Some(self), |trail| trail.up)
            .filter_map(|trail| match trail.step {
                Link::Start => None,
                Link::Key(key) => Some(Step::Key(Arc::from(key))),
                Link::Index(index) => Some(Step::Index(index)),
            })
            .collect();
        steps.reverse();
        steps.into_iter().collect()
    }
}

#[derive(Clone, Copy)]
struct Value<'de, 'a> {
    json: &'de Json,
    trail: &'a Trail<'a>,
    notes: &'a RefCell<Vec<Note>>,
}

impl<'de> Value<'de, '_> {
    /// `wanted belongs here, not what is`.
    fn refuse(&self, wanted: &str) -> Wrong {
        let found = match self.json {
            Json::Null => "nothing",
            Json::Bool(_) => "a truth value",
            Json::Number(_) => "a number",
            Json::String(_) => "a text",
            Json::Array(_) => "a list",
            Json::Object(_) => "a mapping",
        };
        let help = match self.json {
            Json::Bool(_) | Json::Number(_) if wanted == "a text" => format!("Write \"{}\", with quotes.", self.json),
            Json::String(text) if wanted != "a text" && serde_json::from_str::<Json>(text).is_ok_and(|json| !json.is_object()) => {
                format!("Write {text}, without quotes.")
            }
            _ => String::new(),
        };
        Wrong { way: Some(self.trail.way()), message: format!("{wanted} belongs here, not {found}"), help }
    }

    fn whole<T: TryFrom<i128>>(&self, least: i64, most: u64) -> Result<T, Wrong> {
        let Json::Number(number) = self.json else { return Err(self.refuse("a whole number")) };
        #[allow(clippy::cast_possible_truncation, reason = "it has no fraction, and its size is looked at below")]
        let value = match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => i128::from(value),
            (_, Some(value), _) => i128::from(value),
            (_, _, Some(value)) if value.fract() == 0.0 => value as i128,
            _ => return Err(self.refuse("a whole number")),
        };
        let inside = value >= i128::from(least) && value <= i128::from(most);
        let refused = || Wrong::new(format!("{value} is not within {least} to {most}")).at(self.trail);
        T::try_from(value).ok().filter(|_| inside).ok_or_else(refused)
    }

    /// `what` is refused here, whatever the reason, if it does not say where.
    fn place<T>(&self, what: Result<T, Wrong>) -> Result<T, Wrong> {
        what.map_err(|wrong| wrong.at(self.trail))
    }

    fn fields<V: Visitor<'de>>(&self, visitor: V, known: Known) -> Result<V::Value, Wrong> {
        let Json::Object(map) = self.json else { return Err(self.refuse("a mapping")) };
        self.place(visitor.visit_map(Fields { map: map.iter(), value: None, of: *self, known }))
    }
}

impl<'de> de::Deserializer<'de> for Value<'de, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let read = self.json.deserialize_any(visitor);
        self.place(read.map_err(|error| Wrong::new(error.to_string())))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Json::Bool(value) = self.json else { return Err(self.refuse("true or false")) };
        self.place(visitor.visit_bool(*value))
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let value = self.whole(i32::MIN.into(), i32::MAX.unsigned_abs().into())?;
        self.place(visitor.visit_i32(value))
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let value = self.whole(0, u32::MAX.into())?;
        self.place(visitor.visit_u32(value))
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let value = self.whole(i64::MIN, i64::MAX.unsigned_abs())?;
        self.place(visitor.visit_i64(value))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let value = self.whole(0, u64::MAX)?;
        self.place(visitor.visit_u64(value))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Some(value) = self.json.as_f64() else { return Err(self.refuse("a number")) };
        self.place(visitor.visit_f64(value))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Json::String(text) = self.json else { return Err(self.refuse("a text")) };
        self.place(visitor.visit_borrowed_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.json.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Json::Array(items) = self.json else { return Err(self.refuse("a list")) };
        self.place(visitor.visit_seq(Items { items: items.iter().enumerate(), of: self }))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.fields(visitor, None)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.fields(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let Json::String(text) = self.json else { return Err(self.refuse("a text")) };
        if !variants.contains(&text.as_str()) {
            let meant = suggest(text, variants.iter().copied()).map(|meant| format!("Did you mean `{meant}`?"));
            let message = format!("`{text}` is none of {}", variants.join(", "));
            return Err(Wrong { way: Some(self.trail.way()), message, help: meant.unwrap_or_default() });
        }
        let name: StrDeserializer<'_, Wrong> = text.as_str().into_deserializer();
        self.place(visitor.visit_enum(name))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 u8 u16 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'de, 'a> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Json>>,
    of: Value<'de, 'a>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((index, json)) = self.items.next() else { return Ok(None) };
        let trail = Trail { up: Some(self.of.trail), step: Link::Index(index) };
        seed.deserialize(Value { json, trail: &trail, notes: self.of.notes }).map(Some)
    }
}

/// The fields of a struct; none for a map, whose keys may be anything.
type Known = Option<&'static [&'static str]>;

struct Fields<'de, 'a> {
    map: serde_json::map::Iter<'de>,
    value: Option<(&'de str, &'de Json)>,
    of: Value<'de, 'a>,
    known: Known,
}

impl Fields<'_, '_> {
    fn note(&self, name: &str, known: &'static [&'static str]) {
        let mut notes = self.of.notes.borrow_mut();
        if notes.len() < MAX_NOTES {
            let way = Trail { up: Some(self.of.trail), step: Link::Key(name) }.way();
            notes.push(Note { way, name: name.to_owned(), known });
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        while let Some((name, json)) = self.map.next() {
            match self.known {
                Some(known) if !known.contains(&name.as_str()) => self.note(name, known),
                _ if json.is_null() => {}
                _ => {
                    self.value = Some((name, json));
                    let trail = Trail { up: Some(self.of.trail), step: Link::Key(name) };
                    return seed.deserialize(Key(name)).map(Some).map_err(|wrong| wrong.at(&trail));
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        let Some((name, json)) = self.value.take() else { return Err(de::Error::custom("a value before its key")) };
        let trail = Trail { up: Some(self.of.trail), step: Link::Key(name) };
        seed.deserialize(Value { json, trail: &trail, notes: self.of.notes })
    }
}

/// A key, which is a text even where it means a number.
struct Key<'de>(&'de str);

impl<'de> de::Deserializer<'de> for Key<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let number = self.0.parse().map_err(|_| Wrong::new(format!("the key must be a whole number, not `{}`", self.0)))?;
        visitor.visit_u32(number)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple tuple_struct map
        struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Outer {
        host_name: String,
        inner: Vec<Inner>,
        levels: BTreeMap<u32, Mode>,
        config: Json,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Inner {
        port: u32,
        weight: Option<i32>,
        share: f64,
        on: bool,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Mode {
        #[default]
        Unset,
        Strict,
    }

    fn read(json: &Json) -> (Option<Outer>, Vec<String>) {
        let id = Id { group: "".into(), kind: "Outer".into(), namespace: "n".into(), name: "o".into() };
        let read = decode(&id, &Way::ROOT.key("spec"), json);
        let show = |finding: &Finding| format!("{} {}: {} / {}", finding.code, finding.way, finding.message, finding.help);
        (read.value, read.findings.iter().map(show).collect())
    }

    #[test]
    fn values_are_read_and_nulls_are_not_there() {
        let json = json!({"hostName": "h", "inner": [{"port": 80, "weight": null, "share": 1, "on": true}, {"weight": 3.0}],
            "levels": {"80": "STRICT"}, "config": {"a": [null, 1, {"b": null}]}});
        let (value, findings) = read(&json);
        let expect = Outer {
            host_name: "h".into(),
            inner: vec![Inner { port: 80, weight: None, share: 1.0, on: true }, Inner { weight: Some(3), ..Inner::default() }],
            levels: [(80, Mode::Strict)].into(),
            config: json["config"].clone(),
        };
        assert_eq!((value, findings), (Some(expect), vec![]));
        assert_eq!(read(&Json::Null), (Some(Outer::default()), vec![]));
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_way() {
        for (json, expect) in [
            (
                json!({"inner": [{}, {"port": "80"}]}),
                "WEIR-0003 spec.inner[1].port: a whole number belongs here, not a text / Write 80, without quotes.",
            ),
            (json!({"inner": [{"port": -1}]}), "WEIR-0003 spec.inner[0].port: -1 is not within 0 to 4294967295 / "),
            (json!({"inner": [{"port": 1.5}]}), "WEIR-0003 spec.inner[0].port: a whole number belongs here, not a number / "),
            (json!({"inner": [{"on": "yes"}]}), "WEIR-0003 spec.inner[0].on: true or false belongs here, not a text / "),
            (json!({"inner": {}}), "WEIR-0003 spec.inner: a list belongs here, not a mapping / "),
            (json!({"hostName": 1}), "WEIR-0003 spec.hostName: a text belongs here, not a number / Write \"1\", with quotes."),
            (json!({"levels": {"http": "STRICT"}}), "WEIR-0003 spec.levels.http: the key must be a whole number, not `http` / "),
            (json!({"levels": {"1": "STRIKT"}}), "WEIR-0003 spec.levels.1: `STRIKT` is none of UNSET, STRICT / Did you mean `STRICT`?"),
            (json!([]), "WEIR-0003 spec: a mapping belongs here, not a list / "),
        ] {
            let (value, findings) = read(&json);
            assert_eq!((value, findings), (None, vec![expect.to_owned()]), "{json}");
        }
    }

    #[test]
    fn unknown_fields_are_told_and_read_past() {
        let (value, findings) = read(&json!({"hostname": "h", "inner": [{"prot": 1, "port": 2}], "levels": {"1": "UNSET"}}));
        assert_eq!(value.unwrap().inner[0].port, 2);
        assert_eq!(
            findings,
            [
                "WEIR-0004 spec.hostname: there is no field `hostname` here / Did you mean `hostName`?",
                "WEIR-0004 spec.inner[0].prot: there is no field `prot` here / Did you mean `port`?"
            ]
        );
    }
}
