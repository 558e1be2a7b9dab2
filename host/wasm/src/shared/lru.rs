//! The order in which slots were last used: a doubly linked list through a vector, every operation O(1).
//!
//! What always holds: a slot is in the list at most once; the caller names only slots it has pushed and not removed.

/// No slot.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

/// Slots from the newest to the oldest.
pub(super) struct Lru {
    links: Vec<Link>,
    newest: u32,
    oldest: u32,
}

impl Lru {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// The slot that was not used for the longest time.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Takes in a slot that is not in the list, as the newest.
    pub(super) fn push(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, Link { newer: NONE, older: NONE });
        }
        self.links[at] = Link { newer: NONE, older: self.newest };
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.links[newest as usize].newer = slot,
        }
        self.newest = slot;
    }

    /// Takes out a slot that is in the list.
    pub(super) fn remove(&mut self, slot: u32) {
        let Link { newer, older } = self.links[slot as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
    }

    /// Makes a slot of the list the newest.
    pub(super) fn touch(&mut self, slot: u32) {
        if self.newest != slot {
            self.remove(slot);
            self.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mut lru: Lru) -> Vec<u32> {
        std::iter::from_fn(|| {
            let slot = lru.oldest()?;
            lru.remove(slot);
            Some(slot)
        })
        .collect()
    }

    #[test]
    fn oldest_first() {
        let mut lru = Lru::new();
        assert_eq!(lru.oldest(), None);
        for slot in [2, 0, 1, 3] {
            lru.push(slot);
        }
        lru.touch(2);
        lru.touch(2);
        lru.touch(1);
        lru.remove(3);
        assert_eq!(drain(lru), [0, 2, 1]);
    }

    #[test]
    fn it_can_be_emptied_and_used_again() {
        let mut lru = Lru::new();
        lru.push(0);
        lru.remove(0);
        assert_eq!(lru.oldest(), None);
        lru.push(5);
        lru.push(0);
        lru.touch(5);
        assert_eq!(drain(lru), [0, 5]);
    }
}
