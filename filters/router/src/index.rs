//! An index over the routes of one virtual host that has many: by the text that a path must begin with.
//!
//! A path is hashed once, byte by byte; wherever a written text could end, the routes with that text are looked up. What has no such text (patterns, templates,
//! routes for every path) stands in a list of its own. Case does not count for the hash, so that routes that disregard it are found too: what is found is always
//! held against the whole route.

use crate::path::{How, Path, Paths};
use crate::table::Entry;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Index {
    /// Places of routes by the hash of their text, and in their order.
    keyed: Vec<(u64, u32)>,
    /// The first of `keyed` with a hash, by that hash; a power of two of them, half free.
    slots: Vec<u32>,
    /// The lengths of texts that a path may go on behind.
    lengths: Vec<u32>,
    others: Vec<u32>,
}

fn add(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Whole paths and beginnings of them are kept apart.
fn done(hash: u64, whole: bool) -> u64 {
    let mixed = (hash ^ u64::from(whole)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

const BEGIN: u64 = 0xcbf2_9ce4_8422_2325;

impl Index {
    pub(crate) fn new(entries: &[Entry], paths: &Paths) -> Self {
        let (mut keyed, mut lengths, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (at, entry) in (0u32..).zip(entries) {
            match (entry.path, paths.written(entry.path)) {
                (Path::Text { how, .. }, Some(text)) => {
                    let hash = text.iter().fold(BEGIN, |hash, byte| add(hash, *byte));
                    keyed.push((done(hash, how == How::Exact), at));
                    if how != How::Exact {
                        lengths.push(text.len() as u32);
                    }
                }
                _ => others.push(at),
            }
        }
        keyed.sort_unstable();
        lengths.sort_unstable();
        lengths.dedup();
        let mut slots = vec![NONE; (keyed.len() * 2 + 2).next_power_of_two()];
        for at in 0..keyed.len() {
            if at > 0 && keyed[at - 1].0 == keyed[at].0 {
                continue;
            }
            let mut slot = keyed[at].0 as usize & (slots.len() - 1);
            while slots[slot] != NONE {
                slot = (slot + 1) & (slots.len() - 1);
            }
            slots[slot] = at as u32;
        }
        Self { keyed, slots, lengths, others }
    }

    /// The first route that means the path, as `means` says of those that can.
    pub(crate) fn first(&self, path: &[u8], means: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best = NONE;
        let mut consider = |places: &mut dyn Iterator<Item = u32>| {
            if let Some(at) = places.take_while(|at| *at < best).find(|at| means(*at as usize)) {
                best = at;
            }
        };
        let mut lengths = self.lengths.iter().copied().peekable();
        let (mut hash, mut length) = (BEGIN, 0u32);
        for byte in path {
            hash = add(hash, *byte);
            length += 1;
            if lengths.next_if_eq(&length).is_some() {
                consider(&mut self.places(done(hash, false)));
            }
        }
        consider(&mut self.places(done(hash, true)));
        consider(&mut self.others.iter().copied());
        (best != NONE).then_some(best as usize)
    }

    fn places(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let mut slot = hash as usize & (self.slots.len() - 1);
        // Half of them are free, so this ends.
        let start = loop {
            match self.keyed.get(self.slots[slot] as usize) {
                None => break self.keyed.len(),
                Some((known, _)) if *known == hash => break self.slots[slot] as usize,
                Some(_) => slot = (slot + 1) & (self.slots.len() - 1),
            }
        };
        self.keyed[start..].iter().take_while(move |(known, _)| *known == hash).map(|(_, at)| *at)
    }
}
