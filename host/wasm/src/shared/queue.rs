//! Queues of byte strings between instances, found by (`vm_id`, name) and used by number.
//!
//! What always holds: a number is never 0 and never used again; the newest registrant of a queue is the one that is told of
//! items, outside of every lock; every item is announced to somebody who was alive then: items that came, or were left
//! unread, while nobody was registered are announced to the next registrant; a full queue drops its oldest item, and counts
//! it, because a guest built on the SDKs panics when an item is refused.
//!
//! What it does not do: tell who may use which queue. The ABI lets any instance resolve any `vm_id`'s queue; a host that
//! wants walls between tenants checks before it asks here. An announcement is a hint: the item may be gone, dropped or taken
//! by another, when the guest looks.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock};

use crate::sync::{lock, read, write};

/// Told the number of a queue that has one more item. Called outside the queues' locks, on the thread that enqueued: it
/// should only pass the word to the worker that owns the instance.
pub type Notifier = Arc<dyn Fn(u32) + Send + Sync>;

/// The bounds of one `vm_id`'s queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most queues.
    pub queues: usize,
    /// Longest name in bytes.
    pub name: usize,
    /// Most items in a queue.
    pub items: usize,
    /// Most bytes in a queue.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { queues: 64, name: 1024, items: 16_384, bytes: 4 << 20 }
    }
}

/// Why a queue did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// No queue has this number.
    #[error("shared queue: no such queue; register or resolve it first")]
    NotFound,
    /// There is no item.
    #[error("shared queue: the queue is empty")]
    Empty,
    /// The `vm_id` has as many queues as it may have.
    #[error("shared queue: this vm_id has its {max} queues already; raise the limit or use fewer names")]
    Full {
        /// How many it may have.
        max: usize,
    },
    /// The item or the name does not fit at all.
    #[error("shared queue: {size} bytes where at most {max} are allowed; raise the limit or send less")]
    TooLarge {
        /// What was given.
        size: usize,
        /// What the limit allows.
        max: usize,
    },
}

/// What one queue holds and what its bounds have cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueCounters {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: Box<str>,
    /// Items in it.
    pub depth: usize,
    /// Bytes in it.
    pub bytes: usize,
    /// Items that were dropped to make room for newer ones.
    pub dropped: u64,
}

/// All queues of an engine.
#[derive(Default)]
pub struct Queues {
    registry: RwLock<Registry>,
}

#[derive(Default)]
struct Registry {
    by_vm: HashMap<Box<str>, Names>,
    by_id: HashMap<u32, Arc<Mutex<Queue>>>,
    last_id: u32,
}

#[derive(Default)]
struct Names {
    limits: QueueLimits,
    ids: HashMap<Box<str>, u32>,
}

impl Queues {
    /// Sets the bounds for `vm_id`'s queues: those that exist drop their oldest items, and no queue is lost, to fit them.
    pub fn set_limits(&self, vm_id: &str, limits: QueueLimits) {
        let mut registry = write(&self.registry);
        let names = registry.names_mut(vm_id);
        if names.limits == limits {
            return;
        }
        names.limits = limits;
        for queue in registry.queues_of(vm_id) {
            let mut queue = lock(queue);
            queue.limits = limits;
            queue.make_room(0, 0);
        }
    }

    /// Opens queue `name` of `vm_id`, making it when absent, and has `notifier` told of its items from now on.
    ///
    /// # Errors
    /// [`QueueError::Full`] for one queue too many, [`QueueError::TooLarge`] for a name too long.
    pub fn register(&self, vm_id: &str, name: &str, notifier: &Notifier) -> Result<u32, QueueError> {
        let (id, queue) = write(&self.registry).open(vm_id, name)?;
        let waiting = {
            let mut queue = lock(&queue);
            queue.notifiers.retain(|known| !Arc::ptr_eq(known, notifier));
            queue.notifiers.push(Arc::clone(notifier));
            std::mem::take(&mut queue.unannounced)
        };
        for _ in 0..waiting {
            notifier(id);
        }
        Ok(id)
    }

    /// The number of queue `name` of `vm_id`, if it was registered.
    #[must_use]
    pub fn resolve(&self, vm_id: &str, name: &str) -> Option<u32> {
        read(&self.registry).by_vm.get(vm_id)?.ids.get(name).copied()
    }

    /// Puts `item` at the end of queue `id` and tells its registrant. Drops the oldest items where it would not fit. Does not
    /// allocate once the queue's buffer has grown to its use.
    ///
    /// # Errors
    /// [`QueueError::NotFound`]; [`QueueError::TooLarge`] for an item larger than a queue may be.
    pub fn enqueue(&self, id: u32, item: &[u8]) -> Result<(), QueueError> {
        let queue = self.queue(id)?;
        let notifier = lock(&queue).push(item)?;
        if let Some(notifier) = notifier {
            notifier(id);
        }
        Ok(())
    }

    /// Moves the oldest item of queue `id` into `out`, replacing what was there. Allocates only where `out` is too small.
    ///
    /// # Errors
    /// [`QueueError::NotFound`]; [`QueueError::Empty`]. `out` is empty then.
    pub fn dequeue(&self, id: u32, out: &mut Vec<u8>) -> Result<(), QueueError> {
        out.clear();
        let queue = self.queue(id)?;
        lock(&queue).pop(out)
    }

    /// Stops telling `notifier` about `vm_id`'s queues: its instance is gone. The newest of the other registrants is told from
    /// now on, first of what this one has left unread; without any, the next that comes. Notifiers are told apart by identity:
    /// one `Arc` per instance.
    pub fn forget_notifier(&self, vm_id: &str, notifier: &Notifier) {
        let mut left = Vec::new();
        for (id, queue) in read(&self.registry).numbered_queues_of(vm_id) {
            let mut queue = lock(queue);
            let told = queue.notifiers.last().is_some_and(|newest| Arc::ptr_eq(newest, notifier));
            queue.notifiers.retain(|known| !Arc::ptr_eq(known, notifier));
            if told {
                match queue.notifiers.last() {
                    Some(next) => left.push((id, Arc::clone(next), queue.lengths.len())),
                    None => queue.unannounced = queue.lengths.len(),
                }
            }
        }
        for (id, next, items) in left {
            for _ in 0..items {
                next(id);
            }
        }
    }

    /// The counters of every queue of `vm_id`, by number.
    #[must_use]
    pub fn counters(&self, vm_id: &str) -> Vec<QueueCounters> {
        let registry = read(&self.registry);
        let ids = registry.by_vm.get(vm_id).map(|names| &names.ids);
        let mut counters: Vec<_> = ids
            .into_iter()
            .flatten()
            .filter_map(|(name, id)| {
                let queue = lock(registry.by_id.get(id)?);
                let (depth, bytes, dropped) = (queue.lengths.len(), queue.bytes.len(), queue.dropped);
                Some(QueueCounters { id: *id, name: name.clone(), depth, bytes, dropped })
            })
            .collect();
        counters.sort_unstable_by_key(|queue| queue.id);
        counters
    }

    /// Frees every queue of `vm_id`; its numbers answer [`QueueError::NotFound`] from then on.
    pub(super) fn remove_all(&self, vm_id: &str) {
        let mut registry = write(&self.registry);
        let Some(names) = registry.by_vm.remove(vm_id) else {
            return;
        };
        for id in names.ids.values() {
            registry.by_id.remove(id);
        }
    }

    fn queue(&self, id: u32) -> Result<Arc<Mutex<Queue>>, QueueError> {
        read(&self.registry).by_id.get(&id).cloned().ok_or(QueueError::NotFound)
    }
}

impl Registry {
    fn names_mut(&mut self, vm_id: &str) -> &mut Names {
        self.by_vm.entry(vm_id.into()).or_default()
    }

    fn queues_of(&self, vm_id: &str) -> impl Iterator<Item = &Mutex<Queue>> {
        self.numbered_queues_of(vm_id).map(|(_, queue)| queue)
    }

    fn numbered_queues_of(&self, vm_id: &str) -> impl Iterator<Item = (u32, &Mutex<Queue>)> {
        let ids = self.by_vm.get(vm_id).map(|names| names.ids.values());
        ids.into_iter().flatten().filter_map(|id| Some((*id, self.by_id.get(id)?.as_ref())))
    }

    fn open(&mut self, vm_id: &str, name: &str) -> Result<(u32, Arc<Mutex<Queue>>), QueueError> {
        let names = self.names_mut(vm_id);
        if let Some(&id) = names.ids.get(name) {
            let queue = self.by_id.get(&id).ok_or(QueueError::NotFound)?;
            return Ok((id, Arc::clone(queue)));
        }
        let limits = names.limits;
        if name.len() > limits.name {
            return Err(QueueError::TooLarge { size: name.len(), max: limits.name });
        }
        let full = QueueError::Full { max: limits.queues };
        if names.ids.len() >= limits.queues {
            return Err(full);
        }
        let id = self.last_id.checked_add(1).ok_or(full)?;
        self.last_id = id;
        let queue = Arc::new(Mutex::new(Queue::new(limits)));
        self.by_id.insert(id, Arc::clone(&queue));
        self.names_mut(vm_id).ids.insert(name.into(), id);
        Ok((id, queue))
    }
}

/// Items back to back in one ring of bytes: no allocation per item.
struct Queue {
    limits: QueueLimits,
    bytes: VecDeque<u8>,
    lengths: VecDeque<usize>,
    /// Whoever registered and lives; the newest, at the end, is told.
    notifiers: Vec<Notifier>,
    /// Items, among those here, that no living registrant was told of.
    unannounced: usize,
    dropped: u64,
}

impl Queue {
    fn new(limits: QueueLimits) -> Self {
        Self { limits, bytes: VecDeque::new(), lengths: VecDeque::new(), notifiers: Vec::new(), unannounced: 0, dropped: 0 }
    }

    /// Appends `item`; returns who is to be told.
    fn push(&mut self, item: &[u8]) -> Result<Option<Notifier>, QueueError> {
        let max = self.limits.bytes;
        if item.len() > max {
            return Err(QueueError::TooLarge { size: item.len(), max });
        }
        self.make_room(1, item.len());
        self.bytes.extend(item);
        self.lengths.push_back(item.len());
        if self.notifiers.is_empty() {
            self.unannounced += 1;
        }
        Ok(self.notifiers.last().cloned())
    }

    fn pop(&mut self, out: &mut Vec<u8>) -> Result<(), QueueError> {
        let length = self.lengths.pop_front().ok_or(QueueError::Empty)?;
        let (front, back) = self.bytes.as_slices();
        let split = length.min(front.len());
        out.extend_from_slice(&front[..split]);
        out.extend_from_slice(&back[..length - split]);
        self.bytes.drain(..length);
        self.unannounced = self.unannounced.min(self.lengths.len());
        Ok(())
    }

    /// Drops the oldest items until `items` more with `bytes` together fit, or none is left.
    fn make_room(&mut self, items: usize, bytes: usize) {
        let most = self.limits.items.max(1);
        while self.lengths.len() + items > most || self.bytes.len() + bytes > self.limits.bytes {
            let Some(length) = self.lengths.pop_front() else {
                break;
            };
            self.bytes.drain(..length);
            self.dropped += 1;
        }
        self.unannounced = self.unannounced.min(self.lengths.len());
    }
}
