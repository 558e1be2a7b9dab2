//! What is known of live contexts, by their numbers.
//!
//! Open addressing with linear probing, at most half full. Hosts number contexts one after the other, so a number's own place is nearly always free: one
//! load and one comparison. What always holds: the table grows only when more contexts are alive than ever before, so a request allocates nothing.

/// Context numbers start at 1.
const FREE: u32 = 0;
const FIRST: usize = 64;

#[derive(Debug)]
pub(crate) struct Table<T> {
    places: Vec<(u32, Option<T>)>,
    live: usize,
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), live: 0 }
    }

    /// The place of a number, or the free one it would take. The table has room.
    #[inline]
    fn find(&self, id: u32) -> usize {
        let mask = self.places.len() - 1;
        let mut at = id as usize & mask;
        while self.places[at].0 != id && self.places[at].0 != FREE {
            at = (at + 1) & mask;
        }
        at
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        if self.live == 0 {
            return None;
        }
        let at = self.find(id);
        self.places[at].1.as_mut()
    }

    /// What is known of a context, made if there is nothing yet.
    #[inline]
    pub(super) fn get_or_insert_with(&mut self, id: u32, make: impl FnOnce() -> T) -> &mut T {
        if (self.live + 1) * 2 > self.places.len() {
            self.grow();
        }
        let at = self.find(id);
        let place = &mut self.places[at];
        if place.1.is_none() {
            self.live += 1;
            place.0 = id;
        }
        place.1.get_or_insert_with(make)
    }

    /// Forgets a context, and moves those up that its place kept from their own.
    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        if self.live == 0 {
            return None;
        }
        let mut hole = self.find(id);
        let value = self.places[hole].1.take()?;
        self.live -= 1;
        let mask = self.places.len() - 1;
        let mut at = (hole + 1) & mask;
        while self.places[at].0 != FREE {
            let home = self.places[at].0 as usize & mask;
            // How far each lies behind the entry's own place, around the end.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.places.swap(hole, at);
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.places[hole] = (FREE, None);
        Some(value)
    }

    #[cold]
    fn grow(&mut self) {
        let wanted = (self.places.len() * 2).max(FIRST);
        let narrow = std::mem::replace(&mut self.places, (0..wanted).map(|_| (FREE, None)).collect());
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
    fn it_agrees_with_a_hash_map_over_colliding_numbers() {
        let (mut table, mut model) = (Table::new(), HashMap::new());
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for step in 0..100_000u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Few homes, many numbers: long probes, removals in the middle of them, growth.
            let id = (random as u32 % 200 + 1) * 64 + (random >> 40) as u32 % 3;
            if random >> 60 < 9 {
                *table.get_or_insert_with(id, || 0) = step;
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
        assert!(table.live == 0 && table.places.iter().all(|(id, _)| *id == FREE));
    }
}
