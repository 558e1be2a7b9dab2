//! The header block of a message, for every version of HTTP, every filter and every rule.
//!
//! One arena holds all bytes, one list of entries says where; both are kept from message to message. Names that [`Known`] has are not stored at all.
//!
//! What always holds: pseudo headers come before all others, at most one of each; the arena is at most twice what is in use, plus a constant and the head
//! it was read from, however often values are replaced; nothing here panics or allocates per field.
//!
//! Not done here: judging. Names are taken as they are given (callers give lower case) and values may hold any byte: the parsers check what comes in and
//! the encoders what goes out. A block that passes [`MAX_BYTES`] drops what is too much and says so in [`Fields::is_overflowed`]; limits of
//! any use are the callers'.

use std::fmt;

use super::h1::line::Span;
pub use super::known::Known;

/// Most bytes that a block holds.
pub const MAX_BYTES: usize = 16 << 20;
/// What a cleared block keeps.
const KEPT_BYTES: usize = 64 << 10;
const KEPT_ENTRIES: usize = 1024;
/// Waste below this is left alone.
const MIN_WASTE: usize = 4096;

#[derive(Clone, Copy)]
struct Entry {
    /// Start of the name in the arena; without meaning for known ones.
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    known: Option<Known>,
    /// Name and value are as the parser of HTTP/1 found them, and lie in the arena like that.
    intact: bool,
}

/// One name and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name's number, if it has one.
    pub known: Option<Known>,
    /// Lower case.
    pub name: &'a [u8],
    /// Any bytes.
    pub value: &'a [u8],
    /// The parser of HTTP/1 judged name and value, and nobody changed them since.
    pub judged: bool,
}

/// A header block: pseudo headers first, then the others in order.
#[derive(Default)]
pub struct Fields {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Which known names are present.
    present: u64,
    /// How many entries are pseudo headers.
    pseudo: usize,
    /// Bytes of the arena that no entry refers to.
    waste: usize,
    overflowed: bool,
}

impl Fields {
    /// An empty block that has allocated nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), entries: Vec::new(), present: 0, pseudo: 0, waste: 0, overflowed: false }
    }

    /// An empty block with room for a usual message.
    #[must_use]
    pub fn with_capacity(bytes: usize, entries: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), entries: Vec::with_capacity(entries), ..Self::new() }
    }

    /// Removes everything and keeps the memory, unless it is unusually much.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.present = 0;
        self.pseudo = 0;
        self.waste = 0;
        self.overflowed = false;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(KEPT_BYTES);
        }
        if self.entries.capacity() > KEPT_ENTRIES {
            self.entries.shrink_to(KEPT_ENTRIES);
        }
    }

    /// Number of fields, pseudo headers included.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something was dropped because the block would have passed [`MAX_BYTES`]. Encoders refuse such a block.
    #[must_use]
    #[inline]
    pub fn is_overflowed(&self) -> bool {
        self.overflowed
    }

    /// The size as RFC 9113 section 6.5.2 counts it: names, values, and 32 for each field.
    #[must_use]
    pub fn wire_size(&self) -> usize {
        self.entries.iter().map(|entry| usize::from(entry.name_len) + entry.value_len as usize + 32).sum()
    }

    /// Memory that the block holds, used or not.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    #[inline]
    fn name_of<'a>(&'a self, entry: &Entry) -> &'a [u8] {
        match entry.known {
            Some(known) => known.name(),
            None => self.span(entry.name, u32::from(entry.name_len)),
        }
    }

    #[inline]
    fn value_of(&self, entry: &Entry) -> &[u8] {
        self.span(entry.value, entry.value_len)
    }

    #[inline]
    fn span(&self, start: u32, length: u32) -> &[u8] {
        self.bytes.get(start as usize..start as usize + length as usize).unwrap_or_default()
    }

    /// Whether there is a field of this name.
    #[must_use]
    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// The first value of a known name.
    #[must_use]
    #[inline]
    pub fn get_known(&self, known: Known) -> Option<&[u8]> {
        if !self.has(known) {
            return None;
        }
        self.entries.iter().find(|entry| entry.known == Some(known)).map(|entry| self.value_of(entry))
    }

    /// The first value of `name`, which must be lower case.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        match Known::of(name) {
            Some(known) => self.get_known(known),
            None => self.entries.iter().find(|entry| self.is_other(entry, name)).map(|entry| self.value_of(entry)),
        }
    }

    #[inline]
    fn is_other(&self, entry: &Entry, name: &[u8]) -> bool {
        entry.known.is_none() && usize::from(entry.name_len) == name.len() && self.name_of(entry) == name
    }

    #[inline]
    fn is_named(&self, entry: &Entry, known: Option<Known>, name: &[u8]) -> bool {
        if known.is_some() { entry.known == known } else { self.is_other(entry, name) }
    }

    /// Every value of `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + Clone {
        let known = Known::of(name);
        self.entries.iter().filter(move |entry| self.is_named(entry, known, name)).map(|entry| self.value_of(entry))
    }

    /// Every value of a known name, in order.
    pub fn get_all_known(&self, known: Known) -> impl Iterator<Item = &[u8]> + Clone {
        let entries = if self.has(known) { &self.entries[..] } else { &[] };
        entries.iter().filter(move |entry| entry.known == Some(known)).map(|entry| self.value_of(entry))
    }

    /// Every name and value, pseudo headers first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| (self.name_of(entry), self.value_of(entry)))
    }

    /// Every field with its number, pseudo headers first.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field<'_>> {
        self.of_entries(&self.entries)
    }

    /// The pseudo headers.
    pub fn pseudo(&self) -> impl ExactSizeIterator<Item = Field<'_>> {
        self.of_entries(self.entries.get(..self.pseudo).unwrap_or_default())
    }

    /// All but the pseudo headers.
    pub fn regular(&self) -> impl ExactSizeIterator<Item = Field<'_>> {
        self.of_entries(self.entries.get(self.pseudo..).unwrap_or_default())
    }

    fn of_entries<'a>(&'a self, entries: &'a [Entry]) -> impl ExactSizeIterator<Item = Field<'a>> {
        entries.iter().map(|entry| self.of_entry(entry))
    }

    #[inline]
    fn of_entry<'a>(&'a self, entry: &Entry) -> Field<'a> {
        Field { known: entry.known, name: self.name_of(entry), value: self.value_of(entry), judged: entry.intact }
    }

    /// The first field of a known name.
    #[must_use]
    #[inline]
    pub(super) fn find(&self, known: Known) -> Option<Field<'_>> {
        self.entries.iter().find(|entry| entry.known == Some(known)).map(|entry| self.of_entry(entry))
    }

    /// All but the pseudo headers, each with the place of its whole line in [`Fields::lines`] if that is there, is as it came and is in the usual form.
    pub(super) fn regular_lines(&self) -> impl Iterator<Item = (Field<'_>, Option<Span>)> {
        let entries = self.entries.get(self.pseudo..).unwrap_or_default();
        entries.iter().map(|entry| (self.of_entry(entry), self.line_of(entry)))
    }

    #[inline]
    fn line_of(&self, entry: &Entry) -> Option<Span> {
        let (start, value) = (entry.name as usize, entry.value as usize);
        let (colon, end) = (start + usize::from(entry.name_len), value + entry.value_len as usize);
        let usual = entry.intact && self.bytes.get(colon..value) == Some(b": ") && self.bytes.get(end..end + 2) == Some(b"\r\n");
        usual.then_some(Span { start, end: end + 2 })
    }

    /// The bytes of lines that are next to each other.
    #[inline]
    pub(super) fn lines(&self, place: Span) -> &[u8] {
        self.bytes.get(place.start..place.end).unwrap_or_default()
    }

    /// `:method`, or nothing in a response.
    #[must_use]
    #[inline]
    pub fn method(&self) -> &[u8] {
        self.get_known(Known::Method).unwrap_or_default()
    }

    /// `:path` with its query.
    #[must_use]
    #[inline]
    pub fn path(&self) -> &[u8] {
        self.get_known(Known::Path).unwrap_or_default()
    }

    /// `:authority`.
    #[must_use]
    #[inline]
    pub fn authority(&self) -> &[u8] {
        self.get_known(Known::Authority).unwrap_or_default()
    }

    /// `:scheme`.
    #[must_use]
    #[inline]
    pub fn scheme(&self) -> &[u8] {
        self.get_known(Known::Scheme).unwrap_or_default()
    }

    /// `:status`, if it is three digits from 100 on.
    #[must_use]
    #[inline]
    pub fn status(&self) -> Option<u16> {
        match *self.get_known(Known::Status)? {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
            }
            _ => None,
        }
    }
}

/// Changes.
impl Fields {
    /// Appends a field; a pseudo header is set. `name` must be lower case.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        match Known::of(name) {
            Some(known) => self.push_known(known, value),
            None if name.first() == Some(&b':') => self.set(name, value),
            None => {
                if let Some(entry) = self.write(None, name, value) {
                    self.entries.push(entry);
                }
            }
        }
    }

    /// Appends a field of a known name; a pseudo header is set.
    #[inline]
    pub fn push_known(&mut self, known: Known, value: &[u8]) {
        if known.is_pseudo() && (self.has(known) || self.pseudo != self.entries.len()) {
            return self.set_known(known, value);
        }
        if let Some(entry) = self.write(Some(known), known.name(), value) {
            self.entries.push(entry);
            self.present |= known.bit();
            self.pseudo += usize::from(known.is_pseudo());
        }
    }

    /// Writes name and value to the arena. Nothing when that would be too much.
    #[inline]
    fn write(&mut self, known: Option<Known>, name: &[u8], value: &[u8]) -> Option<Entry> {
        let start = self.bytes.len();
        let Ok(name_len) = u16::try_from(name.len()) else { return self.overflow() };
        if start + name.len() + value.len() > MAX_BYTES || self.entries.len() >= MAX_BYTES / 32 {
            return self.overflow();
        }
        if known.is_none() {
            self.bytes.extend_from_slice(name);
        }
        let value_start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        Some(Entry { name: start as u32, value: value_start, value_len: value.len() as u32, name_len, known, intact: false })
    }

    #[cold]
    fn overflow(&mut self) -> Option<Entry> {
        self.overflowed = true;
        None
    }

    /// Makes `value` the only value of `name`, which must be lower case; in the place of the first one if there is one.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        match Known::of(name) {
            Some(known) => self.set_known(known, value),
            None => self.set_named(None, name, value),
        }
    }

    /// Makes `value` the only value of a known name; in the place of the first one if there is one.
    #[inline]
    pub fn set_known(&mut self, known: Known, value: &[u8]) {
        if self.has(known) || known.is_pseudo() {
            self.set_named(Some(known), known.name(), value);
        } else {
            self.push_known(known, value);
        }
    }

    fn set_named(&mut self, known: Option<Known>, name: &[u8], value: &[u8]) {
        let Some(at) = self.entries.iter().position(|entry| self.is_named(entry, known, name)) else {
            return self.insert(known, name, value);
        };
        self.replace(at, value);
        if !name.starts_with(b":") {
            self.remove_from(at + 1, known, name);
        }
        self.compact();
    }

    /// Adds what is not there yet: a pseudo header after the other ones, a field at the end.
    fn insert(&mut self, known: Option<Known>, name: &[u8], value: &[u8]) {
        let Some(entry) = self.write(known, name, value) else { return };
        if name.first() == Some(&b':') {
            self.entries.insert(self.pseudo, entry);
            self.pseudo += 1;
        } else {
            self.entries.push(entry);
        }
        self.present |= known.map_or(0, Known::bit);
    }

    /// Replaces the value of an entry, in its place if that is large enough.
    fn replace(&mut self, at: usize, value: &[u8]) {
        let start = self.bytes.len();
        let Some(entry) = self.entries.get_mut(at) else { return };
        let (old_start, old_len) = (entry.value as usize, entry.value_len as usize);
        if value.len() <= old_len
            && let Some(place) = self.bytes.get_mut(old_start..old_start + value.len())
        {
            place.copy_from_slice(value);
            self.waste += old_len - value.len();
        } else if start + value.len() <= MAX_BYTES {
            self.bytes.extend_from_slice(value);
            self.waste += old_len;
            entry.value = start as u32;
        } else {
            self.overflowed = true;
            return;
        }
        entry.value_len = value.len() as u32;
        entry.intact = false;
    }

    /// Continues a known name's first value as a list: `, ` and `value`. Sets it when it is missing or empty.
    pub fn append_to_list(&mut self, known: Known, value: &[u8]) {
        let found = self.entries.iter().position(|entry| entry.known == Some(known) && entry.value_len > 0);
        let Some(at) = found else { return self.set_known(known, value) };
        let start = self.bytes.len();
        let Some(entry) = self.entries.get_mut(at) else { return };
        let old = entry.value as usize..entry.value as usize + entry.value_len as usize;
        let length = old.len() + 2 + value.len();
        if start + length > MAX_BYTES {
            self.overflowed = true;
            return;
        }
        entry.value = start as u32;
        entry.value_len = length as u32;
        entry.intact = false;
        self.waste += old.len();
        self.bytes.extend_from_within(old);
        self.bytes.extend_from_slice(b", ");
        self.bytes.extend_from_slice(value);
        self.compact();
    }

    /// Sets a known name to a number in decimal.
    pub fn set_number(&mut self, known: Known, number: u64) {
        let mut digits = [0; 20];
        self.set_known(known, decimal(number, &mut digits));
    }

    /// Sets `:status`.
    pub fn set_status(&mut self, status: u16) {
        self.set_number(Known::Status, u64::from(status));
    }

    /// Removes every value of `name`, which must be lower case.
    pub fn remove(&mut self, name: &[u8]) {
        match Known::of(name) {
            Some(known) => self.remove_known(known),
            None => {
                self.remove_from(0, None, name);
                self.compact();
            }
        }
    }

    /// Removes every value of a known name.
    #[inline]
    pub fn remove_known(&mut self, known: Known) {
        if self.has(known) {
            self.remove_from(0, Some(known), known.name());
            self.present &= !known.bit();
            self.compact();
        }
    }

    /// Removes entries of a name from index `first` on.
    fn remove_from(&mut self, first: usize, known: Option<Known>, name: &[u8]) {
        let mut at = first;
        while let Some(entry) = self.entries.get(at) {
            if self.is_named(entry, known, name) {
                self.waste += stored(entry);
                self.entries.remove(at);
                self.pseudo -= usize::from(at < self.pseudo);
            } else {
                at += 1;
            }
        }
    }

    /// Keeps the fields that `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let Self { bytes, entries, present, pseudo, waste, .. } = self;
        let span = |start: u32, length: usize| bytes.get(start as usize..start as usize + length).unwrap_or_default();
        *present = 0;
        *pseudo = 0;
        entries.retain(|entry| {
            let name = match entry.known {
                Some(known) => known.name(),
                None => span(entry.name, usize::from(entry.name_len)),
            };
            let value = span(entry.value, entry.value_len as usize);
            let kept = keep(Field { known: entry.known, name, value, judged: entry.intact });
            if kept {
                *present |= entry.known.map_or(0, Known::bit);
                *pseudo += usize::from(name.first() == Some(&b':'));
            } else {
                *waste += stored(entry);
            }
            kept
        });
        self.compact();
    }

    /// Makes this block a copy of another one, in the memory that it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.clone_from(&other.bytes);
        self.entries.clone_from(&other.entries);
        self.present = other.present;
        self.pseudo = other.pseudo;
        self.waste = other.waste;
        self.overflowed = other.overflowed;
    }

    /// Drops what no entry refers to when it is most of the arena.
    #[inline]
    fn compact(&mut self) {
        if self.waste > MIN_WASTE && self.waste > self.bytes.len() / 2 {
            self.rewrite();
        }
    }

    #[cold]
    fn rewrite(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.waste.min(self.bytes.len()));
        for at in 0..self.entries.len() {
            let mut entry = self.entries[at];
            let name = bytes.len() as u32;
            if entry.known.is_none() {
                bytes.extend_from_slice(self.name_of(&entry));
            }
            let value = bytes.len() as u32;
            bytes.extend_from_slice(self.value_of(&entry));
            (entry.name, entry.value, entry.intact) = (name, value, false);
            self.entries[at] = entry;
        }
        self.bytes = bytes;
        self.waste = 0;
    }
}

/// Reading a head: entries refer to its bytes, which are copied at once when it is complete.
impl Fields {
    /// Empties the block and leaves places for this many pseudo headers.
    #[inline]
    pub(super) fn begin(&mut self, pseudo: usize) {
        self.clear();
        self.entries.resize(pseudo, Entry { name: 0, value: 0, value_len: 0, name_len: 0, known: None, intact: false });
        self.pseudo = pseudo;
    }

    /// Fills one of those places. All must be filled.
    #[inline]
    pub(super) fn place_pseudo(&mut self, at: usize, known: Known, value: Span) {
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = Entry {
                name: 0,
                value: value.start as u32,
                value_len: value.len() as u32,
                name_len: known.name().len() as u16,
                known: Some(known),
                // What is missing was not judged.
                intact: value.len() > 0,
            };
            self.present |= known.bit();
        }
    }

    /// Adds a field that is not a pseudo header. Says no when its name is too long.
    #[inline]
    pub(super) fn place(&mut self, known: Option<Known>, name: Span, value: Span) -> bool {
        let name_len = known.map_or(name.len(), |known| known.name().len());
        let Ok(name_len) = u16::try_from(name_len) else { return false };
        self.present |= known.map_or(0, Known::bit);
        let (name, value, value_len) = (name.start as u32, value.start as u32, value.len() as u32);
        self.entries.push(Entry { name, value, value_len, name_len, known, intact: true });
        true
    }

    /// Takes the bytes that the entries refer to: those of the head (at most [`MAX_BYTES`]) and `suffix` after them. `upper` says that names are to be
    /// made lower case.
    #[inline]
    pub(super) fn adopt(&mut self, head: &[u8], suffix: &[u8], upper: bool) {
        let Self { bytes, entries, pseudo, .. } = self;
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(suffix);
        let regular = entries.get(*pseudo..).unwrap_or_default();
        for entry in regular.iter().filter(|_| upper) {
            if let Some(name) = bytes.get_mut(entry.name as usize..entry.name as usize + usize::from(entry.name_len)) {
                name.make_ascii_lowercase();
            }
        }
    }
}

/// Bytes of the arena that an entry refers to.
fn stored(entry: &Entry) -> usize {
    entry.value_len as usize + if entry.known.is_none() { usize::from(entry.name_len) } else { 0 }
}

/// Writes a number in decimal.
pub(crate) fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.copy_from(self);
        copy
    }

    fn clone_from(&mut self, source: &Self) {
        self.copy_from(source);
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    /// Values that are secrets are left out: this ends up in logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |field: Field<'_>| match field.known {
            Some(Known::Authorization | Known::ProxyAuthorization | Known::Cookie | Known::SetCookie) => "…".to_owned(),
            _ => field.value.escape_ascii().to_string(),
        };
        formatter.debug_map().entries(self.fields().map(|field| (field.name.escape_ascii().to_string(), shown(field)))).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(pairs: T) -> Self {
        let mut fields = Self::new();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }
}

/// What filters see. In a request `host` is another name for `:authority`, as in Envoy.
impl weir_wasm::Headers for Fields {
    fn count(&self) -> usize {
        self.len()
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        Self::get(self, self.filter_name(name))
    }

    fn visit(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in self.iter() {
            each(name, value);
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.push(self.filter_name(name), value);
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        Self::set(self, self.filter_name(name), value);
    }

    fn remove(&mut self, name: &[u8]) {
        Self::remove(self, self.filter_name(name));
    }
}

impl Fields {
    fn filter_name<'a>(&self, name: &'a [u8]) -> &'a [u8] {
        if name == b"host" && self.has(Known::Method) { Known::Authority.name() } else { name }
    }
}

#[cfg(test)]
mod tests;
