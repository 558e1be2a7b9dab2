//! All balancers of a worker.
//!
//! A configuration's clusters come and go; a balancer is found again by its cluster's name, so that it goes on where it was.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Balancer;
use crate::upstream::Nanos;
use crate::upstream::clusters::ClusterTable;

/// All balancers of a worker.
#[derive(Debug)]
pub struct Balancers<L = ()> {
    by_name: HashMap<String, Rc<RefCell<Balancer<L>>>>,
    seed: u64,
}

impl<L: Default> Balancers<L> {
    /// None yet. Workers have different seeds, so that they do not begin at the same endpoint.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { by_name: HashMap::new(), seed }
    }

    /// Balancers for the clusters of `table`, by index. Streams that hold one of an earlier table go on with it.
    pub fn apply(&mut self, table: &ClusterTable, now: Nanos) -> Vec<Rc<RefCell<Balancer<L>>>> {
        let mut before = std::mem::take(&mut self.by_name);
        let mut balancers = Vec::with_capacity(table.iter().len());
        for cluster in table.iter() {
            let balancer = before.remove(cluster.name()).unwrap_or_else(|| {
                let seed = crate::upstream::hash::xxh64(cluster.name().as_bytes(), self.seed);
                Rc::new(RefCell::new(Balancer::new(Arc::clone(cluster), seed, now)))
            });
            let current = Arc::clone(balancer.borrow().cluster());
            if !Arc::ptr_eq(&current, cluster) {
                balancer.borrow_mut().replace(Arc::clone(cluster), current.connects_like(cluster), now);
            }
            self.by_name.insert(cluster.name().to_owned(), Rc::clone(&balancer));
            balancers.push(balancer);
        }
        balancers
    }
}
