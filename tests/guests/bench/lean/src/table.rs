//! What a filter knows of its live streams, by context id.
//!
//! Open addressing with linear probing, its places halved full at most. Hosts number contexts one after the other, so
//! an id's own place is nearly always free. It starts with room for 512 streams and doubles as more are live, so that
//! a request allocates only when there were never as many before; at [`MOST`] live streams it takes no more, and says
//! so, rather than let one stream take another's place.

/// The most streams that are known at a time: 6 MiB of places.
const MOST: usize = 1 << 17;

const FIRST: usize = 1 << 10;

/// No host gives a stream this id: it means "no context" in the ABI.
const FREE: u32 = 0;

pub(crate) struct Table<T> {
    places: Vec<(u32, T)>,
    live: usize,
}

impl<T: Copy + Default> Table<T> {
    pub(crate) fn new() -> Self {
        Self {
            places: vec![(FREE, T::default()); FIRST],
            live: 0,
        }
    }

    /// The place of an id, or the free one it would take. There is always a free one.
    #[inline]
    fn find(&self, id: u32) -> usize {
        let mask = self.places.len() - 1;
        let mut at = id as usize & mask;
        while self.places[at].0 != id && self.places[at].0 != FREE {
            at = (at + 1) & mask;
        }
        at
    }

    /// Keeps a stream's state, replacing what was known of it; false when there is no room.
    #[inline]
    pub(crate) fn insert(&mut self, id: u32, value: T) -> bool {
        let at = self.find(id);
        if self.places[at].0 == FREE {
            if self.live == MOST || id == FREE {
                return false;
            }
            if (self.live + 1) * 2 > self.places.len() {
                self.grow();
                return self.insert(id, value);
            }
            self.live += 1;
        }
        self.places[at] = (id, value);
        true
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let at = self.find(id);
        let (found, value) = &mut self.places[at];
        (*found != FREE).then_some(value)
    }

    /// Forgets a stream, and moves those up that its place kept from their own.
    #[inline]
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let mut hole = self.find(id);
        let (found, value) = self.places[hole];
        if found == FREE {
            return None;
        }
        self.live -= 1;
        let mask = self.places.len() - 1;
        let mut at = (hole + 1) & mask;
        while self.places[at].0 != FREE {
            let home = self.places[at].0 as usize & mask;
            // How far each lies behind the entry's own place, around the end.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.places[hole] = self.places[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.places[hole].0 = FREE;
        Some(value)
    }

    #[cold]
    fn grow(&mut self) {
        let wider = vec![(FREE, T::default()); self.places.len() * 2];
        let narrow = std::mem::replace(&mut self.places, wider);
        for (id, value) in narrow.into_iter().filter(|(id, _)| *id != FREE) {
            let at = self.find(id);
            self.places[at] = (id, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_agrees_with_a_hash_map_over_colliding_ids() {
        let (mut table, mut model) = (Table::new(), HashMap::new());
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for step in 0..200_000u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Few homes, many ids: long probes, removals in the middle of them, growth.
            let id = (random as u32 % 900 + 1) * 512 + (random >> 40) as u32 % 3;
            if random >> 60 < 9 {
                assert!(table.insert(id, step));
                model.insert(id, step);
            } else {
                assert_eq!(table.remove(id), model.remove(&id));
            }
            assert_eq!(table.get_mut(id).copied(), model.get(&id).copied());
            assert_eq!(table.live, model.len());
        }
        for (id, value) in model {
            assert_eq!(table.remove(id), Some(value));
        }
        assert!(table.places.iter().all(|(id, _)| *id == FREE));
    }

    #[test]
    fn a_full_table_refuses_the_next_and_keeps_the_rest() {
        let mut table = Table::new();
        for id in 1..=MOST as u32 {
            assert!(table.insert(id, id));
        }
        assert!(!table.insert(MOST as u32 + 1, 0));
        assert!(table.insert(7, 70));
        assert_eq!(table.remove(7), Some(70));
        assert!(table.insert(MOST as u32 + 1, 0));
        assert_eq!(table.remove(MOST as u32), Some(MOST as u32));
        assert_eq!(table.get_mut(0), None);
    }
}
