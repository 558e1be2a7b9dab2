//! Queues that filters of one `vmId` share, across workers and reloads.
//!
//! What always holds: an item is taken by one instance, whichever comes first; a queue is bounded, and when it is full the host drops what is put in and
//! counts it. What it does not do: outlive the process.

use crate::abi::{self, Status};

/// A queue. Two of the same name are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queue(u32);

impl Queue {
    pub(crate) fn of(number: u32) -> Self {
        Self(number)
    }

    /// Makes the queue of this name, unless it is there. From then on [`crate::Filter::on_queue`] is called for its items, in one of the instances that
    /// registered it.
    ///
    /// # Errors
    /// When there are too many queues.
    pub fn register(name: &str) -> Result<Self, Status> {
        abi::register_queue(name.as_bytes()).map(Self)
    }

    /// The queue of this name that a filter of this `vmId` has made: to put items in.
    ///
    /// # Errors
    /// [`Status::NotFound`] when nobody has made it, or the `vmId` is another's.
    pub fn find(vm_id: &str, name: &str) -> Result<Self, Status> {
        abi::resolve_queue(vm_id.as_bytes(), name.as_bytes()).map(Self)
    }

    /// Puts an item at the end.
    ///
    /// # Errors
    /// When the queue is gone.
    pub fn push(self, item: impl AsRef<[u8]>) -> Result<(), Status> {
        abi::enqueue(self.0, item.as_ref())
    }

    /// Takes the first item; `None` when there is none.
    ///
    /// # Errors
    /// When the queue is gone.
    pub fn pop(self) -> Result<Option<Vec<u8>>, Status> {
        match abi::dequeue(self.0) {
            Ok(item) => Ok(Some(item.to_vec())),
            Err(Status::Empty) => Ok(None),
            Err(status) => Err(status),
        }
    }
}
