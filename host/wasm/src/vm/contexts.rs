//! The contexts of one instance, found by id in a handful of instructions.
//!
//! Ids rise, are never 0 and come back only after 2³² others. The table is a power of two with an id's slot in its low bits, so that a look-up
//! is a mask and a compare; an id whose slot is still taken is skipped, and a table more than half full doubles. Root contexts live here too.

use std::rc::Rc;

use crate::host::StreamHost;
use crate::stream::StreamCell;

/// A stream, as those know it who must not know the proxy's own type.
pub(crate) type StreamCellRef = Rc<StreamCell<dyn StreamHost>>;

/// The stream behind a context, and the place of this filter in its chain.
#[derive(Clone, Copy)]
pub(crate) struct StreamRef<'c> {
    pub(crate) cell: &'c StreamCellRef,
    pub(crate) stage: usize,
}

/// What an id stands for.
pub(crate) enum Context {
    Root,
    /// A stream's, by the root context it belongs to.
    Stream(u32),
}

/// A context where it lies: written field by field, since a stream's life is a few nanoseconds long.
#[derive(Default)]
struct Slot {
    /// 0: nothing is here.
    id: u32,
    root: u32,
    stage: u32,
    /// `None`: a root context.
    cell: Option<StreamCellRef>,
}

pub(crate) struct Contexts {
    slots: Vec<Slot>,
    live: usize,
    last: u32,
}

impl Contexts {
    pub(crate) fn new() -> Self {
        Self { slots: std::iter::repeat_with(Slot::default).take(16).collect(), live: 0, last: 0 }
    }

    pub(crate) fn insert_root(&mut self) -> u32 {
        self.free().id
    }

    #[inline]
    pub(crate) fn insert_stream(&mut self, stream: StreamRef<'_>, root: u32) -> u32 {
        let cell = stream.cell.clone();
        let slot = self.free();
        slot.root = root;
        // A chain is far shorter.
        slot.stage = stream.stage as u32;
        slot.cell = Some(cell);
        slot.id
    }

    /// An empty slot under its new id.
    #[inline]
    fn free(&mut self) -> &mut Slot {
        if self.live * 2 >= self.slots.len() {
            self.grow();
        }
        self.live += 1;
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            let (index, id) = (self.slot(self.last), self.last);
            if self.slots[index].id == 0 {
                let slot = &mut self.slots[index];
                slot.id = id;
                return slot;
            }
        }
    }

    #[inline]
    fn find(&self, id: u32) -> Option<&Slot> {
        let slot = &self.slots[self.slot(id)];
        (slot.id == id && id != 0).then_some(slot)
    }

    pub(crate) fn get(&self, id: u32) -> Option<Context> {
        let slot = self.find(id)?;
        Some(match &slot.cell {
            Some(_) => Context::Stream(slot.root),
            None => Context::Root,
        })
    }

    #[inline]
    pub(crate) fn stream(&self, id: u32) -> Option<StreamRef<'_>> {
        let slot = self.find(id)?;
        Some(StreamRef { cell: slot.cell.as_ref()?, stage: slot.stage as usize })
    }

    /// Forgets a context. `false`: there is none of this id.
    #[inline]
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        let index = self.slot(id);
        let slot = &mut self.slots[index];
        if id == 0 || slot.id != id {
            return false;
        }
        slot.id = 0;
        slot.cell = None;
        self.live -= 1;
        true
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamRef<'_>> {
        self.slots.iter().filter_map(|slot| Some(StreamRef { cell: slot.cell.as_ref()?, stage: slot.stage as usize }))
    }

    fn slot(&self, id: u32) -> usize {
        id as usize & (self.slots.len() - 1)
    }

    /// Ids that differ in their low bits still do with one bit more: nothing can collide.
    #[cold]
    fn grow(&mut self) {
        let doubled = self.slots.len() * 2;
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(doubled, Slot::default);
        for entry in old.into_iter().filter(|slot| slot.id != 0) {
            let slot = self.slot(entry.id);
            self.slots[slot] = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_and_find_their_context() {
        let mut contexts = Contexts::new();
        let mut live = std::collections::VecDeque::new();
        let mut last = 0;
        for round in 0..10_000usize {
            let id = contexts.insert_root();
            assert!(id > last, "ids rise");
            last = id;
            live.push_back(id);
            if round % 3 != 0 {
                let old = live.pop_front().expect("not empty");
                assert!(contexts.get(old).is_some() && contexts.remove(old));
                assert!(contexts.get(old).is_none() && !contexts.remove(old));
            }
        }
        assert!(live.iter().all(|id| contexts.get(*id).is_some()));
        assert_eq!(contexts.live, live.len());
        assert!(contexts.get(0).is_none());
    }

    #[test]
    fn ids_wrap_around_zero() {
        let mut contexts = Contexts::new();
        contexts.last = u32::MAX - 1;
        assert_eq!(contexts.insert_root(), u32::MAX);
        assert_eq!(contexts.insert_root(), 1);
    }
}
