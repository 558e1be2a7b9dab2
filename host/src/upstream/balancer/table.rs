//! The tables that a choice is looked up in, derived from endpoints, their health and the clock.
//!
//! A [`Table`] covers one subset of a cluster: load per priority, within a priority groups of endpoints (localities, or all of them together), and
//! within a group the policy's own structure. Deriving one costs time in proportion to the number of endpoints; looking up costs nearly none.

use std::collections::BTreeMap;

use super::Loads;
use super::consistent::Entry;
use super::picker::Picker;
use super::schedule::Schedule;
use super::spread::{Fitness, PriorityHealth, Spread, distribute};
use crate::upstream::Nanos;
use crate::upstream::cluster::ClusterState;
use crate::upstream::endpoint::{Availability, Endpoint};
use crate::upstream::options::{Policy, SlowStart};
use crate::upstream::set::{EndpointSet, LocalityGroup};
use crate::upstream::subset::matches;

/// What a choice depends on besides the table.
pub(crate) struct Ask<'a, L> {
    pub(crate) loads: &'a L,
    pub(crate) rng: &'a mut fastrand::Rng,
    pub(crate) now: Nanos,
    pub(crate) hash: Option<u64>,
    pub(crate) attempt: u32,
    pub(crate) excluded_priorities: u64,
}

/// Where one subset's requests go.
#[derive(Debug)]
pub(crate) struct Table {
    health: Vec<PriorityHealth>,
    spread: Spread,
    /// The priority that gets everything, if one does.
    only: Option<usize>,
    priorities: Vec<Priority>,
    overprovisioning: u32,
    panic_threshold: u32,
    /// When weights will have changed by themselves.
    pub(crate) expires: Nanos,
}

#[derive(Debug)]
struct Priority {
    /// Healthy ones; in panic all.
    healthy: Choice,
    degraded: Choice,
    /// All, for requests that avoid other priorities into this one although it has nobody fit.
    panic: bool,
}

/// Groups of endpoints, by weight.
#[derive(Debug, Default)]
struct Choice {
    groups: Vec<Group>,
    schedule: Option<Schedule>,
}

#[derive(Debug)]
struct Group {
    /// Indices in the set of endpoints.
    members: Vec<usize>,
    picker: Picker,
}

/// What a table is derived from.
pub(crate) struct Source<'a> {
    pub(crate) cluster: &'a ClusterState,
    pub(crate) set: &'a EndpointSet,
    pub(crate) labels: Option<&'a BTreeMap<String, String>>,
    pub(crate) now: Nanos,
}

/// The part of a locality that counts: members of the subset that are not draining.
struct Part<'a> {
    group: &'a LocalityGroup,
    members: Vec<(usize, Availability)>,
}

impl Part<'_> {
    fn count(&self, wanted: impl Fn(Availability) -> bool) -> u32 {
        u32::try_from(self.members.iter().filter(|member| wanted(member.1)).count()).unwrap_or(u32::MAX)
    }
}

impl Table {
    pub(crate) fn build(source: &Source<'_>, rng: &mut fastrand::Rng) -> Self {
        let set = source.set;
        let mut parts: Vec<Vec<Part<'_>>> = (0..set.priorities()).map(|_| Vec::new()).collect();
        for group in set.localities() {
            let part = source.part(group);
            if let Some(priority) = parts.get_mut(group.priority)
                && !part.members.is_empty()
            {
                priority.push(part);
            }
        }
        for priority in &mut parts {
            if priority.iter().any(|part| part.group.weight > 0) {
                priority.retain(|part| part.group.weight > 0);
            }
        }
        let health: Vec<_> = parts.iter().map(|parts| health(parts)).collect();
        let spread = Spread::new(&health, set.overprovisioning(), set.panic_threshold(), 0);
        let mut expires = Nanos::MAX;
        let priorities = parts.iter().zip(&spread.panic).map(|(parts, panic)| source.priority(parts, *panic, rng, &mut expires)).collect();
        Self {
            only: spread.only(),
            health,
            spread,
            priorities,
            overprovisioning: set.overprovisioning(),
            panic_threshold: set.panic_threshold(),
            expires,
        }
    }

    /// Whether no endpoint belongs here, fit or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.health.iter().all(|priority| priority.total == 0)
    }

    /// An endpoint's index, and whether it was chosen in panic.
    #[inline]
    pub(crate) fn pick<L: Loads>(&mut self, ask: &mut Ask<'_, L>) -> Option<(usize, bool)> {
        let (priority, fitness) = match self.only {
            Some(only) if ask.excluded_priorities == 0 => (only, Fitness::Healthy),
            _ => self.priority(ask)?,
        };
        let priority = self.priorities.get_mut(priority)?;
        let choice = if fitness == Fitness::Healthy || priority.panic { &mut priority.healthy } else { &mut priority.degraded };
        choice.pick(ask).map(|index| (index, priority.panic))
    }

    #[cold]
    fn priority<L>(&self, ask: &mut Ask<'_, L>) -> Option<(usize, Fitness)> {
        let number = ask.hash.unwrap_or_else(|| ask.rng.u64(..)) % 100;
        let number = u32::try_from(number).unwrap_or(0);
        if ask.excluded_priorities == 0 {
            return self.spread.choose(number);
        }
        let spread = Spread::new(&self.health, self.overprovisioning, self.panic_threshold, ask.excluded_priorities);
        let chosen = spread.choose(number)?;
        // Without the others a priority may be in panic that is not otherwise, and then has nobody in its table.
        let usable = |(at, fitness): (usize, Fitness)| {
            self.priorities.get(at).is_some_and(|priority| {
                priority.panic || !if fitness == Fitness::Healthy { &priority.healthy } else { &priority.degraded }.groups.is_empty()
            })
        };
        if usable(chosen) { Some(chosen) } else { self.spread.choose(number) }
    }
}

impl Choice {
    #[inline]
    fn pick<L: Loads>(&mut self, ask: &mut Ask<'_, L>) -> Option<usize> {
        let at = match &mut self.schedule {
            None => 0,
            Some(schedule) => schedule.next()?,
        };
        let group = self.groups.get_mut(at)?;
        let at = group.picker.pick(&group.members, ask)?;
        group.members.get(at).copied()
    }
}

fn health(parts: &[Part<'_>]) -> PriorityHealth {
    let mut health = PriorityHealth::default();
    for part in parts {
        health.total += part.count(|_| true);
        health.healthy += part.count(|availability| availability == Availability::Healthy);
        health.degraded += part.count(|availability| availability == Availability::Degraded);
    }
    health
}

/// Members of a group with their weights, and the group's own.
type Weighted = (Vec<(usize, f64)>, f64);

impl<'a> Source<'a> {
    fn part(&self, group: &'a LocalityGroup) -> Part<'a> {
        let checked = self.cluster.checked();
        let member = |at: &usize| {
            let endpoint = self.set.endpoints().get(*at)?;
            let belongs = self.labels.is_none_or(|labels| matches(&endpoint.labels, labels));
            let availability = endpoint.availability(checked);
            (belongs && availability != Availability::Draining).then_some((*at, availability))
        };
        Part { group, members: group.members.iter().filter_map(member).collect() }
    }

    fn priority(&self, parts: &[Part<'_>], panic: bool, rng: &mut fastrand::Rng, expires: &mut Nanos) -> Priority {
        if panic {
            return Priority { healthy: self.choice(parts, |_| true, true, rng, expires), degraded: Choice::default(), panic };
        }
        let healthy = self.choice(parts, |availability| availability == Availability::Healthy, false, rng, expires);
        let degraded = self.choice(parts, |availability| availability == Availability::Degraded, false, rng, expires);
        Priority { healthy, degraded, panic }
    }

    fn choice(
        &self,
        parts: &[Part<'_>],
        wanted: impl Fn(Availability) -> bool + Copy,
        panic: bool,
        rng: &mut fastrand::Rng,
        expires: &mut Nanos,
    ) -> Choice {
        let mut groups = Vec::new();
        if self.prefers_near() && !panic {
            for (tier, load) in self.tiers(parts, wanted) {
                self.groups(&tier, wanted, panic, f64::from(load), expires, &mut groups);
            }
        } else {
            self.groups(&parts.iter().collect::<Vec<_>>(), wanted, panic, 100.0, expires, &mut groups);
        }
        groups.retain(|group| !group.0.is_empty() && group.1 > 0.0);
        if matches!(self.cluster.options().policy, Policy::RingHash { .. } | Policy::Maglev { .. }) {
            groups = flatten(groups);
        }
        let schedule = (groups.len() > 1).then(|| Schedule::new(groups.iter().map(|group| group.1), rng));
        Choice { groups: groups.into_iter().map(|(members, _)| self.group(members, rng)).collect(), schedule }
    }

    fn prefers_near(&self) -> bool {
        self.cluster.options().zone_aware && *self.cluster.node() != crate::upstream::endpoint::Locality::default()
    }

    /// Localities by distance from here, and the part of load that each distance can take, in percent.
    fn tiers<'b>(&self, parts: &'b [Part<'a>], wanted: impl Fn(Availability) -> bool + Copy) -> Vec<(Vec<&'b Part<'a>>, u32)> {
        let mut tiers: [Vec<&Part<'_>>; 4] = Default::default();
        for part in parts {
            tiers[self.cluster.node().distance(&part.group.locality).min(3)].push(part);
        }
        let available: Vec<u32> = tiers
            .iter()
            .map(|tier| {
                let total: u32 = tier.iter().map(|part| part.count(|_| true)).sum();
                let fit: u32 = tier.iter().map(|part| part.count(wanted)).sum();
                fit.saturating_mul(self.set.overprovisioning()).checked_div(total).unwrap_or(0).min(100)
            })
            .collect();
        let mut loads = [0; 4];
        let left = distribute(&available, 100, available.iter().sum::<u32>().min(100), &mut loads);
        if let Some(first) = available.iter().position(|percent| *percent > 0) {
            loads[first] += left;
        }
        tiers.into_iter().zip(loads).filter(|tier| tier.1 > 0).collect()
    }

    /// One group per locality if localities are weighted, else one for all. Together they weigh `load`.
    fn groups(
        &self,
        parts: &[&Part<'_>],
        wanted: impl Fn(Availability) -> bool + Copy,
        panic: bool,
        load: f64,
        expires: &mut Nanos,
        into: &mut Vec<Weighted>,
    ) {
        let mut members = |part: &Part<'_>| -> Vec<(usize, f64)> {
            let fit = part.members.iter().filter(|member| wanted(member.1));
            fit.map(|member| (member.0, self.weight(&self.set.endpoints()[member.0], expires))).collect()
        };
        if !parts.iter().any(|part| part.group.weight > 0) {
            into.push((parts.iter().flat_map(|part| members(part)).collect(), load));
            return;
        }
        let share = |part: &Part<'_>| {
            let fit = f64::from(part.count(wanted)) / f64::from(part.count(|_| true).max(1));
            let fit = if panic { 1.0 } else { (fit * f64::from(self.set.overprovisioning()) / 100.0).min(1.0) };
            f64::from(part.group.weight) * fit
        };
        let all: f64 = parts.iter().map(|part| share(part)).sum();
        if all > 0.0 {
            into.extend(parts.iter().map(|part| (members(part), load * share(part) / all)));
        }
    }

    fn weight(&self, endpoint: &Endpoint, expires: &mut Nanos) -> f64 {
        let weight = f64::from(endpoint.weight);
        match &self.cluster.options().slow_start {
            Some(slow) if !matches!(self.cluster.options().policy, Policy::RingHash { .. } | Policy::Maglev { .. }) => {
                weight * slow_start_factor(slow, endpoint.state.fresh_since(), self.now, expires)
            }
            _ => weight,
        }
    }

    fn group(&self, members: Vec<(usize, f64)>, rng: &mut fastrand::Rng) -> Group {
        let policy = self.cluster.options().policy;
        let picker = match policy {
            Policy::RingHash { .. } | Policy::Maglev { .. } => {
                let entry = |member: &(usize, f64)| Entry { key: self.set.endpoints()[member.0].key.clone(), weight: member.1 };
                Picker::Hash(self.cluster.hash_tables.get(policy, members.iter().map(entry).collect()))
            }
            _ => Picker::new(policy, &members.iter().map(|member| member.1).collect::<Vec<_>>(), rng),
        };
        Group { members: members.into_iter().map(|member| member.0).collect(), picker }
    }
}

/// All groups as one, whose members weigh what they weighed in all.
fn flatten(groups: Vec<Weighted>) -> Vec<Weighted> {
    if groups.len() < 2 {
        return groups;
    }
    let mut all = Vec::new();
    for (members, weight) in groups {
        let sum: f64 = members.iter().map(|member| member.1).sum();
        all.extend(members.into_iter().map(|(at, own)| (at, own / sum * weight)));
    }
    vec![(all, 1.0)]
}

/// The part of its weight that an endpoint has after a while, and in `expires` when to look again.
fn slow_start_factor(slow: &SlowStart, since: Nanos, now: Nanos, expires: &mut Nanos) -> f64 {
    let age = now.saturating_sub(since);
    if age >= slow.window {
        return 1.0;
    }
    let step = (slow.window / 20).clamp(1_000_000, 1_000_000_000);
    *expires = (*expires).min(now.saturating_add(step));
    (age as f64 / slow.window as f64).powf(1.0 / slow.aggression).max(slow.min_weight).max(f64::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_climbs_to_the_whole_weight() {
        let slow = SlowStart { window: 100_000_000, min_weight: 0.1, aggression: 1.0 };
        let mut expires = Nanos::MAX;
        let mut at = |now| slow_start_factor(&slow, 0, now, &mut expires);
        assert_eq!([at(0), at(5_000_000), at(50_000_000), at(100_000_000)], [0.1, 0.1, 0.5, 1.0]);
        assert_eq!(expires, 5_000_000);
        let eager = SlowStart { aggression: 2.0, ..slow };
        assert_eq!(slow_start_factor(&eager, 0, 25_000_000, &mut expires), 0.5);
        let mut never = Nanos::MAX;
        assert_eq!(slow_start_factor(&slow, 0, 200_000_000, &mut never), 1.0);
        assert_eq!(never, Nanos::MAX);
    }

    #[test]
    fn flattening_keeps_shares() {
        let flat = flatten(vec![(vec![(0, 1.0), (1, 3.0)], 50.0), (vec![(2, 9.0)], 50.0)]);
        assert_eq!(flat[0].0, [(0, 12.5), (1, 37.5), (2, 50.0)]);
    }
}
