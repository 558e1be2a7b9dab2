//! Rules of a VirtualService that no request reaches, because earlier ones match all of theirs.

use std::collections::BTreeMap;

use super::At;
use crate::api::istio::common::StringMatch;
use crate::api::istio::virtual_service::{HttpMatch, VirtualService};

/// Matches that are compared with each other: it takes time of their square.
const MAX_COMPARED: usize = 500;

/// Tells of rules that are never reached.
pub(super) fn check(at: &At<'_>, spec: &VirtualService) {
    let nameless = |matches: &HttpMatch| HttpMatch { name: String::new(), ..matches.clone() };
    let http: Vec<Vec<HttpMatch>> = spec.http.iter().map(|route| route.matches.iter().map(nameless).collect()).collect();
    check_list(at, "http", &http.iter().map(Vec::as_slice).collect::<Vec<_>>());
    check_list(at, "tls", &spec.tls.iter().map(|route| &*route.matches).collect::<Vec<_>>());
    check_list(at, "tcp", &spec.tcp.iter().map(|route| &*route.matches).collect::<Vec<_>>());
    check_prefixes(at, &http);
}

fn check_list<T: PartialEq>(at: &At<'_>, key: &str, rules: &[&[T]]) {
    let list = at.key(key);
    let mut everything = None;
    let mut seen: Vec<(&T, usize)> = Vec::new();
    for (index, matches) in rules.iter().enumerate() {
        let rule = list.index(index);
        if matches.is_empty() {
            if let Some(first) = everything {
                rule.no_effect(format!("it is never reached: {key}[{first}] matches everything"));
            }
            everything.get_or_insert(index);
        }
        for (place, one) in matches.iter().enumerate() {
            match seen.iter().find(|(other, _)| *other == one) {
                Some((_, first)) => rule.key("match").index(place).no_effect(format!("it has no effect: {key}[{first}] matches the same")),
                None if seen.len() < MAX_COMPARED => seen.push((one, index)),
                None => {}
            }
        }
    }
}

/// A longer prefix after a shorter one that asks for no more.
fn check_prefixes(at: &At<'_>, rules: &[Vec<HttpMatch>]) {
    let list = at.key("http");
    let all: Vec<(usize, usize, &HttpMatch, &str)> = rules
        .iter()
        .enumerate()
        .flat_map(|(rule, matches)| matches.iter().enumerate().map(move |(place, one)| (rule, place, one)))
        .filter_map(|(rule, place, one)| Some((rule, place, one, one.uri.as_ref()?.prefix.as_deref().filter(|prefix| !prefix.is_empty())?)))
        .take(MAX_COMPARED)
        .collect();
    for (index, (rule, place, one, prefix)) in all.iter().enumerate() {
        let covers = |(_, _, earlier, shorter): &&(usize, usize, &HttpMatch, &str)| {
            prefix.len() > shorter.len() && prefix.starts_with(shorter) && covers(earlier, one)
        };
        if let Some((first, _, _, shorter)) = all[..index].iter().find(covers) {
            let rule = list.index(*rule);
            rule.key("match").index(*place).no_effect(format!("it has no effect: http[{first}] matches all that begins with {shorter}"));
        }
    }
}

/// Whether what `later` asks for beside the path, `earlier` asks for as well, and nothing else.
fn covers(earlier: &HttpMatch, later: &HttpMatch) -> bool {
    let bare = |one: &HttpMatch| HttpMatch {
        uri: None,
        method: None,
        authority: None,
        headers: BTreeMap::new(),
        query_params: BTreeMap::new(),
        without_headers: BTreeMap::new(),
        ..one.clone()
    };
    let all = |earlier: &BTreeMap<String, StringMatch>, later: &BTreeMap<String, StringMatch>| {
        earlier.len() == later.len() && earlier.iter().all(|(key, value)| later.get(key) == Some(value))
    };
    bare(earlier) == bare(later)
        && earlier.method == later.method
        && earlier.authority == later.authority
        && all(&earlier.headers, &later.headers)
        && all(&earlier.query_params, &later.query_params)
        && all(&earlier.without_headers, &later.without_headers)
}
