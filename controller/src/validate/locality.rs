//! How places count when an endpoint is chosen: shares from place to place, and who takes over.

use super::At;
use crate::api::istio::destination_rule::{Failover, LocalityLb, ZoneAwareLb};

/// Labels that say where an endpoint is.
const TOPOLOGY: [&str; 3] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

pub(super) fn check(at: &At<'_>, setting: &LocalityLb, outlier: bool) {
    at.at_most_one(&[("distribute", !setting.distribute.is_empty()), ("failover", !setting.failover.is_empty())]);
    let list = at.key("failoverPriority");
    for (index, label) in setting.failover_priority.iter().enumerate().filter(|_| !setting.failover.is_empty()) {
        if TOPOLOGY.contains(&label.as_str()) {
            list.index(index).conflict(format!("`{label}` and failover exclude each other"));
        }
    }
    let from: Vec<&str> = setting.distribute.iter().map(|share| &*share.from).collect();
    check_places(&at.key("distribute"), &from);
    at.each("distribute", &setting.distribute, |at, share| {
        let at = at.key("to");
        for (place, weight) in share.to.iter().filter(|(_, weight)| !(1..=100).contains(*weight)) {
            at.key(place).invalid(format!("{weight} is not within 1 to 100"));
        }
        let sum: u64 = share.to.values().map(|weight| u64::from(*weight)).sum();
        if sum != 100 {
            at.invalid(format!("the shares sum up to {sum}, not to 100"));
        }
        check_places(&at, &share.to.keys().map(String::as_str).collect::<Vec<_>>());
    });
    check_failover(at, &setting.failover, &setting.failover_priority, outlier);
}

pub(super) fn check_zone_aware(at: &At<'_>, setting: &ZoneAwareLb, outlier: bool) {
    at.each("failoverPriority", &setting.failover_priority, |at, label| {
        let key = label.split_once('=').map_or(&**label, |(key, _)| key);
        if TOPOLOGY.contains(&key) {
            at.invalid(format!("`{label}`: regions and zones are taken into account anyway"));
        }
    });
    check_failover(at, &setting.failover, &setting.failover_priority, outlier);
}

fn check_failover(at: &At<'_>, failover: &[Failover], priority: &[String], outlier: bool) {
    let takes_over = !failover.is_empty() || !priority.is_empty();
    if takes_over && !outlier {
        at.no_effect("nothing takes over without outlierDetection");
    }
    at.each("failover", failover, |at, failover| {
        if failover.from == failover.to {
            at.conflict("a region cannot take over for itself");
        }
        for (key, region) in [("from", &failover.from), ("to", &failover.to)] {
            if region.contains(['/', '*']) {
                at.key(key).invalid(format!("`{region}` is not the name of a region"));
            }
        }
    });
}

/// Places must be different ones, and not lie within each other.
fn check_places(at: &At<'_>, places: &[&str]) {
    for (index, place) in places.iter().enumerate().take(super::MAX_COMPARED) {
        if place.matches('*').count() > usize::from(place.ends_with('*')) {
            at.invalid(format!("`{place}`: a `*` may only stand at the end"));
        } else if place.splitn(3, '/').any(str::is_empty) {
            at.invalid(format!("`{place}` is not of the form region/zone/subzone"));
        } else if let Some(other) = places[..index].iter().find(|other| lies_within(place, other) || lies_within(other, place)) {
            at.conflict(format!("`{place}` and `{other}` overlap"));
        }
    }
}

fn lies_within(inner: &str, outer: &str) -> bool {
    let outer: Vec<&str> = outer.splitn(3, '/').collect();
    let inner: Vec<&str> = inner.splitn(3, '/').collect();
    let whole = outer.iter().position(|part| *part == "*").unwrap_or(outer.len());
    inner.len() >= whole && inner.iter().zip(&outer[..whole]).all(|(inner, outer)| inner == outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (inner, outer, expect) in [
            ("a/b/c", "a", true),
            ("a/b/c", "a/*", true),
            ("a/b/c", "a/b/c", true),
            ("a", "a/b", false),
            ("a/b/c", "a/b/d", false),
            ("a", "*", true),
            ("ab", "a", false),
        ] {
            assert_eq!(lies_within(inner, outer), expect, "{inner} {outer}");
        }
    }
}
