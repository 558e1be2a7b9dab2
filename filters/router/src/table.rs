//! All routes, and how the one for a request is found.
//!
//! What always holds: the route that is found is the first of its virtual host that means the request, exactly as if they were tried one after another.
//! With many routes an index gives those that can mean a path, by the beginnings of the path; the rest are tried in their order, and only as long as they stand
//! before the best one found. Finding one allocates nothing but what regular expressions need for a path that is no UTF-8.

use std::ops;

use weir_filter_matching::split_query;

use crate::conditions::{Conditions, Request};
use crate::config::Proxy;
use crate::hosts::Hosts;
use crate::index::Index;
use crate::path::{Path, Paths};

/// Routes of one virtual host that are tried one after another: an index would cost more than it saves.
const FEW: usize = 16;

/// One way in which a route is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) path: Path,
    /// One more than the place of its conditions; 0 is none.
    pub(crate) conditions: u32,
    pub(crate) action: u32,
}

/// Entries of one virtual host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    start: u32,
    end: u32,
}

impl Range {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        // Entries are fewer than the configuration has bytes, which wasm32 counts in 32 bits.
        Self { start: start as u32, end: end as u32 }
    }

    pub(crate) fn all(self) -> ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The routes, ready for requests.
#[derive(Debug)]
pub struct Table {
    hosts: Hosts,
    paths: Paths,
    conditions: Vec<Conditions>,
    entries: Vec<Entry>,
    virtual_hosts: Vec<Range>,
    /// Of those virtual hosts that have many routes, by their place.
    indexes: Vec<(u32, Index)>,
    fall_through: bool,
}

impl Table {
    pub(crate) fn new(hosts: Hosts, paths: Paths, conditions: Vec<Conditions>, fall_through: bool) -> Self {
        Self { hosts, paths, conditions, entries: Vec::new(), virtual_hosts: Vec::new(), indexes: Vec::new(), fall_through }
    }

    /// The routes of the next virtual host, in the order in which they win.
    pub(crate) fn push(&mut self, entries: &[Entry]) {
        let start = self.entries.len();
        self.entries.extend_from_slice(entries);
        if entries.len() > FEW {
            self.indexes.push((self.virtual_hosts.len() as u32, Index::new(entries, &self.paths)));
        }
        self.virtual_hosts.push(Range::new(start, self.entries.len()));
    }

    fn conditions(&self, entry: &Entry) -> Option<&Conditions> {
        self.conditions.get((entry.conditions as usize).checked_sub(1)?)
    }

    pub(crate) fn is_for(&self, entry: &Entry, proxy: &Proxy) -> bool {
        self.conditions(entry).is_none_or(|conditions| conditions.are_for(proxy))
    }

    /// How specific an entry is, for the order that is called so.
    pub(crate) fn weight(&self, entry: &Entry) -> ((u8, usize), (bool, usize, usize)) {
        (self.paths.weight(entry.path), self.conditions(entry).map(Conditions::weight).unwrap_or_default())
    }

    /// The number of the action for a request.
    pub fn find(&self, request: &impl Request) -> Option<u32> {
        let (path, query) = split_query(request.path());
        let candidates = self.hosts.candidates(request.authority());
        let most = if self.fall_through { usize::MAX } else { 1 };
        candidates.iter().take(most).find_map(|host| self.find_in(host, request, path, query))
    }

    fn find_in(&self, host: usize, request: &impl Request, path: &[u8], query: &[u8]) -> Option<u32> {
        let entries = self.entries.get(self.virtual_hosts.get(host)?.all())?;
        let means = |entry: &Entry| {
            self.paths.means(entry.path, path) && self.conditions(entry).is_none_or(|conditions| conditions.hold(request, query))
        };
        if entries.len() <= FEW {
            return entries.iter().find(|entry| means(entry)).map(|entry| entry.action);
        }
        let at = self.indexes.binary_search_by_key(&(host as u32), |(host, _)| *host).ok()?;
        self.indexes
            .get(at)?
            .1
            .first(path, |at| entries.get(at).is_some_and(means))
            .and_then(|at| entries.get(at))
            .map(|entry| entry.action)
    }
}
