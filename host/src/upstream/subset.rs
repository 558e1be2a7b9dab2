//! Subsets: which endpoints a request may have, by label.
//!
//! A set of labels becomes a [`SubsetId`] when a route is compiled, so that a request carries a number. What the number stands for never changes in
//! the life of a cluster's state; which endpoints have the labels is looked up again with every set of endpoints.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most subsets of one cluster. A route is compiled with labels that configuration or a filter chose, and a filter must not fill memory.
pub const MAX_SUBSETS: usize = 4096;

/// A set of labels, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubsetId(u32);

impl SubsetId {
    /// Every endpoint.
    pub const ALL: Self = Self(0);
    /// A set that no configuration makes a subset: no endpoint, or any if that is the fallback.
    pub const UNKNOWN: Self = Self(u32::MAX);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Names and values.
pub type Labels = BTreeMap<String, String>;

/// Which number stands for which labels.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    known: Mutex<HashMap<Labels, u32>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Labels, u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number for `labels`, a new one if need be. `keys` are the label sets that make subsets.
    pub(crate) fn resolve(&self, labels: &Labels, keys: &[Vec<String>]) -> SubsetId {
        if labels.is_empty() {
            return SubsetId::ALL;
        }
        if !keys.iter().any(|subset| subset.iter().eq(labels.keys())) {
            return SubsetId::UNKNOWN;
        }
        let mut known = self.lock();
        if let Some(number) = known.get(labels) {
            return SubsetId(*number);
        }
        if known.len() >= MAX_SUBSETS {
            return SubsetId::UNKNOWN;
        }
        let number = u32::try_from(known.len() + 1).unwrap_or(u32::MAX);
        known.insert(labels.clone(), number);
        SubsetId(number)
    }

    /// What `subset` stands for.
    pub(crate) fn labels(&self, subset: usize) -> Option<Labels> {
        self.lock().iter().find(|(_, number)| **number as usize == subset).map(|(labels, _)| labels.clone())
    }
}

/// Whether something labelled `has` belongs to the subset `wants`.
pub(crate) fn matches(has: &Labels, wants: &Labels) -> bool {
    wants.iter().all(|(key, value)| has.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_same_labels_are_the_same_number() {
        let registry = Registry::default();
        let keys = [vec!["version".to_owned()], vec!["stage".to_owned(), "version".to_owned()]];
        let first = registry.resolve(&labels(&[("version", "1")]), &keys);
        let second = registry.resolve(&labels(&[("version", "2")]), &keys);
        let both = registry.resolve(&labels(&[("version", "1"), ("stage", "a")]), &keys);
        assert_eq!(registry.resolve(&labels(&[("version", "1")]), &keys), first);
        assert!(first != second && second != both && first != SubsetId::ALL);
        assert_eq!(registry.labels(both.index()), Some(labels(&[("version", "1"), ("stage", "a")])));
        assert_eq!(registry.resolve(&labels(&[]), &keys), SubsetId::ALL);
        assert_eq!(registry.resolve(&labels(&[("stage", "a")]), &keys), SubsetId::UNKNOWN);
    }

    #[test]
    fn their_number_is_bounded() {
        let registry = Registry::default();
        let keys = [vec!["v".to_owned()]];
        for value in 0..MAX_SUBSETS {
            assert_ne!(registry.resolve(&labels(&[("v", &value.to_string())]), &keys), SubsetId::UNKNOWN);
        }
        assert_eq!(registry.resolve(&labels(&[("v", "more")]), &keys), SubsetId::UNKNOWN);
        assert_ne!(registry.resolve(&labels(&[("v", "7")]), &keys), SubsetId::UNKNOWN);
    }
}
