//! A stream in memory: four header maps, attributes, and a note of everything the filters asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::native::RELAY;
use bytes::Bytes;
use weir_wasm::codec::Pairs;
use weir_wasm::{Attribute, Foreign, Headers, LocalReply, MessageMap, Path, Side, StreamHost};

/// An attribute's value, owned.
pub type Value = Attribute<'static>;

/// A [`StreamHost`] in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStream {
    maps: [Option<Pairs>; 4],
    attributes: BTreeMap<Vec<u8>, Value>,
    /// Properties that filters set, in order.
    pub set: Vec<(Vec<u8>, Vec<u8>)>,
    /// How often the stream asked to be resumed.
    pub wakes: u32,
    /// How often a filter cleared the route cache.
    pub route_clears: u32,
    /// Foreign functions that filters called on this stream.
    pub foreign_calls: Vec<(String, Vec<u8>)>,
    /// Names of foreign functions that this stream knows; each answers its arguments.
    pub foreign_known: Vec<String>,
    /// How long filters asked to hold the stream, each by its binding: `weir.stream.delay`. [`crate::Exchange::end_delays`] ends them.
    pub delays: Vec<(String, Duration)>,
    /// The number of the route action that a filter selected: `weir.route.select`.
    pub route: Option<u32>,
    /// A filter has logged it, or left it out on purpose.
    pub logged: bool,
    /// How log lines name this stream.
    pub log_id: String,
}

impl MemoryStream {
    /// A stream without messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a map there.
    pub fn set_map(&mut self, map: MessageMap, pairs: &[(&str, &str)]) {
        let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        self.maps[map as usize] = Some(Pairs(pairs.iter().map(|(name, value)| (copy(name), copy(value))).collect()));
    }

    /// Puts a map there as it is.
    pub fn set_pairs(&mut self, map: MessageMap, pairs: Pairs) {
        self.maps[map as usize] = Some(pairs);
    }

    /// A map, if it is there.
    #[must_use]
    pub fn map(&self, map: MessageMap) -> Option<&Pairs> {
        self.maps[map as usize].as_ref()
    }

    /// A header's first value, as text.
    #[must_use]
    pub fn header(&self, map: MessageMap, name: &str) -> Option<&str> {
        std::str::from_utf8(self.map(map)?.get(name.as_bytes())?).ok()
    }

    /// An attribute, by its path with dots: `source.address`.
    pub fn set_attribute_value(&mut self, path: &str, value: Value) {
        self.attributes.insert(path.replace('.', "\0").into_bytes(), value);
    }
}

impl StreamHost for MemoryStream {
    fn headers(&mut self, map: MessageMap) -> Option<&mut dyn Headers> {
        self.maps[map as usize].as_mut().map(|pairs| pairs as &mut dyn Headers)
    }

    fn make_trailers(&mut self, side: Side) -> Option<&mut dyn Headers> {
        Some(self.maps[side.trailers() as usize].get_or_insert_default())
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        self.attributes.get(path.as_bytes()).cloned()
    }

    fn set_attribute(&mut self, path: Path<'_>, value: &[u8]) -> bool {
        // A path that is set again and again, as a filter does once per request, is kept without a new allocation.
        match self.set.iter_mut().find(|(known, _)| known == path.as_bytes()) {
            Some((_, known)) => {
                known.clear();
                known.extend_from_slice(value);
            }
            None => self.set.push((path.as_bytes().to_vec(), value.to_vec())),
        }
        true
    }

    fn start_local_reply(&mut self, reply: &LocalReply) {
        let mut pairs = vec![(Bytes::from_static(b":status"), Bytes::from(reply.status.to_string()))];
        pairs.extend(reply.headers.iter().cloned());
        self.maps[MessageMap::ResponseHeaders as usize] = Some(Pairs(pairs));
        self.maps[MessageMap::ResponseTrailers as usize] = None;
    }

    fn wake(&mut self) {
        self.wakes += 1;
    }

    fn clear_route_cache(&mut self) {
        self.route_clears += 1;
    }

    fn foreign(&mut self, binding: &str, name: &str, arguments: &[u8]) -> Foreign {
        match (name, arguments.try_into().map(u32::from_le_bytes)) {
            (relay, _) if relay.starts_with(RELAY) => return Foreign::Unknown,
            ("weir.stream.delay", Ok(millis)) => {
                self.delays.push((binding.to_owned(), Duration::from_millis(millis.into())));
                return Foreign::Done(Vec::new());
            }
            ("weir.route.select", Ok(number)) => {
                self.route = Some(number);
                return Foreign::Done(Vec::new());
            }
            _ => {}
        }
        self.foreign_calls.push((name.to_owned(), arguments.to_vec()));
        if self.foreign_known.iter().any(|known| known == name) { Foreign::Done(arguments.to_vec()) } else { Foreign::Unknown }
    }

    fn logged(&mut self) {
        self.logged = true;
    }

    fn log_id(&self) -> &str {
        &self.log_id
    }
}
