//! The contexts of one instance, found by id in a handful of instructions.
//!
//! Ids rise, are never 0 and come back only after 2³² others. The table is a power of two with an id's slot in its low bits, so that a look-up
//! is a mask and a compare; an id whose slot is still taken is skipped, and a table more than half full doubles. Root contexts live here too.

use std::rc::Rc;

use crate::host::StreamHost;
use crate::stream::StreamCell;

/// The stream behind a context, and the place of this filter in its chain.
#[derive(Clone)]
pub(crate) struct StreamRef {
    pub(crate) cell: Rc<StreamCell<dyn StreamHost>>,
    pub(crate) stage: usize,
    /// The root context it belongs to.
    pub(crate) root: u32,
}

pub(crate) enum Context {
    Root,
    Stream(StreamRef),
}

pub(crate) struct Contexts {
    slots: Vec<Option<(u32, Context)>>,
    live: usize,
    last: u32,
}

impl Contexts {
    pub(crate) fn new() -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(16).collect(), live: 0, last: 0 }
    }

    pub(crate) fn insert(&mut self, context: Context) -> u32 {
        if self.live * 2 >= self.slots.len() {
            self.grow();
        }
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            let slot = self.slot(self.last);
            if self.slots[slot].is_none() {
                self.slots[slot] = Some((self.last, context));
                self.live += 1;
                return self.last;
            }
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Context> {
        match &self.slots[self.slot(id)] {
            Some((found, context)) if *found == id => Some(context),
            _ => None,
        }
    }

    pub(crate) fn stream(&self, id: u32) -> Option<&StreamRef> {
        match self.get(id) {
            Some(Context::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<Context> {
        let slot = self.slot(id);
        if self.slots[slot].as_ref()?.0 != id {
            return None;
        }
        self.live -= 1;
        self.slots[slot].take().map(|(_, context)| context)
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = &StreamRef> {
        self.slots.iter().flatten().filter_map(|(_, context)| match context {
            Context::Stream(stream) => Some(stream),
            Context::Root => None,
        })
    }

    fn slot(&self, id: u32) -> usize {
        id as usize & (self.slots.len() - 1)
    }

    /// Ids that differ in their low bits still do with one bit more: nothing can collide.
    fn grow(&mut self) {
        let doubled = self.slots.len() * 2;
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(doubled, || None);
        for entry in old.into_iter().flatten() {
            let slot = self.slot(entry.0);
            self.slots[slot] = Some(entry);
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
            let id = contexts.insert(Context::Root);
            assert!(id > last, "ids rise");
            last = id;
            live.push_back(id);
            if round % 3 != 0 {
                let old = live.pop_front().expect("not empty");
                assert!(contexts.get(old).is_some() && contexts.remove(old).is_some());
                assert!(contexts.get(old).is_none() && contexts.remove(old).is_none());
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
        assert_eq!(contexts.insert(Context::Root), u32::MAX);
        assert_eq!(contexts.insert(Context::Root), 1);
    }
}
