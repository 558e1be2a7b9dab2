//! Lists of values, and whether a request's value stands in one.

use std::collections::HashSet;

use weir_filter_matching::{Address, Cidrs, Text, TextMatch, address_of};
use weir_sdk::{Refusal, Stream};

use crate::config::{Compare, ListMatch, Refuse, Subject};

#[derive(Debug)]
pub(crate) struct List {
    of: Subject,
    entries: Entries,
    refuse: Refuse,
}

#[derive(Debug)]
enum Entries {
    Exact(HashSet<Box<[u8]>>),
    /// In lower case.
    IgnoreCase(HashSet<Box<[u8]>>),
    Regex(Vec<Text>),
    Cidr(Cidrs),
}

impl List {
    pub(crate) fn new(list: ListMatch) -> Result<Self, Refusal> {
        if list.entries.is_empty() {
            return Err(Refusal::at("entries", "the list is empty"));
        }
        let entries = match list.compare {
            Compare::Exact => Entries::Exact(list.entries.iter().map(|entry| entry.as_bytes().into()).collect()),
            Compare::IgnoreCase => {
                Entries::IgnoreCase(list.entries.iter().map(|entry| entry.to_ascii_lowercase().into_bytes().into()).collect())
            }
            Compare::Regex => {
                let compile = |(at, entry): (usize, &String)| {
                    let text = TextMatch { regex: Some(entry.clone()), ..TextMatch::default() };
                    text.compile().map_err(|refusal| Refusal::at(format!("entries[{at}]"), refusal.cause))
                };
                Entries::Regex(list.entries.iter().enumerate().map(compile).collect::<Result<_, _>>()?)
            }
            Compare::Cidr => {
                let parse =
                    |(at, entry): (usize, &String)| Address::parse(entry).map_err(|cause| Refusal::at(format!("entries[{at}]"), cause));
                Entries::Cidr(Cidrs(list.entries.iter().enumerate().map(parse).collect::<Result<_, _>>()?))
            }
        };
        Ok(Self { of: list.of, entries, refuse: list.refuse })
    }

    /// Whether the request's value is one that is refused. What is absent stands in no list.
    pub(crate) fn refuses(&self, stream: &Stream<'_>) -> bool {
        let value = match &self.of {
            Subject::Header(name) => stream.request().get(name),
            Subject::Attribute(path) => stream.attributes().get(path),
            Subject::SourceAddress => stream.attributes().source_address().map(str::as_bytes),
        };
        let is_listed = value.is_some_and(|value| self.entries.contain(value));
        is_listed == (self.refuse == Refuse::Listed)
    }
}

impl Entries {
    fn contain(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(set) => set.contains(value),
            Self::IgnoreCase(set) => set.contains(&*value.to_ascii_lowercase()),
            Self::Regex(list) => list.iter().any(|text| text.matches(Some(value))),
            Self::Cidr(ranges) => std::str::from_utf8(value).ok().and_then(address_of).is_some_and(|address| ranges.contains(address)),
        }
    }
}
