//! Virtual hosts while they are read: compiled, but neither ordered nor tied to actions, because what says how stands elsewhere in the configuration.

use std::collections::HashMap;

use weir_sdk::Refusal;

use crate::conditions::Conditions;
use crate::config::{Match, Precedence, Proxy, Route, VirtualHost};
use crate::hosts::Hosts;
use crate::path::{Path, Paths};
use crate::table::{Entry, Range, Table};

/// What was read so far.
#[derive(Debug, Default)]
pub struct Draft {
    hosts: Hosts,
    paths: Paths,
    conditions: Vec<Conditions>,
    entries: Vec<Entry>,
    virtual_hosts: Vec<Range>,
    actions: HashMap<Box<str>, Used>,
    refused: Option<Refusal>,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    number: u32,
    host: usize,
    route: usize,
}

/// An action of a route, as it was written, and the field where it first was.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// In JSON.
    pub json: Box<str>,
    /// Its path.
    pub field: String,
}

impl Draft {
    /// Compiles one more. What is wrong with it is kept for [`Draft::finish`].
    pub fn add(&mut self, host: VirtualHost) {
        let at = self.virtual_hosts.len();
        if self.refused.is_none() {
            self.refused = self.compile(at, host).err().map(|refusal| refusal.within(&format!("virtualHosts[{at}]")));
        }
    }

    fn compile(&mut self, at: usize, host: VirtualHost) -> Result<(), Refusal> {
        if host.hosts.is_empty() {
            return Err(Refusal::at("hosts", "it has no hosts, so no request is meant; `*` is all of them"));
        }
        let number = u32::try_from(at).map_err(|_| Refusal::new("there are too many virtual hosts"))?;
        for (nth, name) in host.hosts.iter().enumerate() {
            self.hosts.add(name, number).map_err(|cause| Refusal::at(format!("hosts[{nth}]"), cause))?;
        }
        let start = self.entries.len();
        for (nth, route) in host.routes.into_iter().enumerate() {
            self.route(at, nth, route, &host.gateways).map_err(|refusal| refusal.within(&format!("routes[{nth}]")))?;
        }
        self.virtual_hosts.push(Range::new(start, self.entries.len()));
        Ok(())
    }

    fn route(&mut self, host: usize, nth: usize, route: Route, gateways: &[String]) -> Result<(), Refusal> {
        let json = route.action.json();
        let action = match self.actions.get(json) {
            Some(used) => used.number,
            None => {
                let number = u32::try_from(self.actions.len()).map_err(|_| Refusal::new("there are too many actions"))?;
                self.actions.insert(json.into(), Used { number, host, route: nth });
                number
            }
        };
        let matches = if route.matches.is_empty() { vec![Match::default()] } else { route.matches };
        for (at, mut one) in matches.into_iter().enumerate() {
            let within = |refusal: Refusal| refusal.within(&format!("match[{at}]"));
            let path = match one.path.take() {
                Some(path) => self.paths.compile(path).map_err(|refusal| within(refusal.within("path")))?,
                None => Path::Any,
            };
            let conditions = match Conditions::compile(one, gateways).map_err(within)? {
                Some(conditions) => {
                    self.conditions.push(conditions);
                    u32::try_from(self.conditions.len()).map_err(|_| Refusal::new("there are too many matches"))?
                }
                None => 0,
            };
            self.entries.push(Entry { path, conditions, action });
        }
        Ok(())
    }

    /// Orders what was read for this proxy, and says which actions it needs: the number of each is its place in the list.
    ///
    /// # Errors
    /// With the field that is wrong, if one was.
    pub fn finish(self, precedence: Precedence, fall_through: bool, proxy: &Proxy) -> Result<(Table, Vec<Written>), Refusal> {
        if let Some(refusal) = self.refused {
            return Err(refusal);
        }
        let mut actions: Vec<(Box<str>, Used)> = self.actions.into_iter().collect();
        actions.sort_by_key(|(_, used)| used.number);
        let written =
            |(json, used): (Box<str>, Used)| Written { json, field: format!("virtualHosts[{}].routes[{}].action", used.host, used.route) };
        let mut table = Table::new(self.hosts, self.paths, self.conditions, fall_through);
        for range in &self.virtual_hosts {
            let mut entries: Vec<Entry> = self.entries[range.all()].iter().filter(|entry| table.is_for(entry, proxy)).copied().collect();
            if precedence == Precedence::MostSpecific {
                // The first one written stays first among equals.
                entries.sort_by_cached_key(|entry| std::cmp::Reverse(table.weight(entry)));
            }
            table.push(&entries);
        }
        Ok((table, actions.into_iter().map(written).collect()))
    }
}
