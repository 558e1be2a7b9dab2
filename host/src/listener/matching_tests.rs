//! Choosing a branch, against a plain reading of the rules.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn branch(name: &str, criteria: Match) -> Branch {
    Branch { name: name.into(), r#match: Some(criteria), ..Default::default() }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn to(address: &str) -> ConnectionFacts<'static> {
    ConnectionFacts { destination: Some(address.parse().unwrap()), source: Some("192.0.2.1".parse().unwrap()), ..Default::default() }
}

#[test]
fn one_open_branch_needs_nothing() {
    let matcher = Matcher::compile(&[branch("only", Match::default())]).unwrap();
    assert_eq!(matcher.needs(), Needs::default());
    assert_eq!(matcher.always(), Some(0));
    assert_eq!(matcher.select(&ConnectionFacts::default()), Some(0));
    assert_eq!(Matcher::compile(&[]).unwrap().select(&to("127.0.0.1:80")), None);
}

#[test]
fn an_exact_name_beats_a_suffix_and_a_long_suffix_a_short_one() {
    let names = |list: &[&str]| Match { server_names: strings(list), ..Default::default() };
    let branches = [
        branch("short", names(&["*.com"])),
        branch("long", names(&["*.Example.com"])),
        branch("exact", names(&["a.example.com"])),
        branch("rest", Match::default()),
    ];
    let matcher = Matcher::compile(&branches).unwrap();
    assert!(matcher.needs().sniff);
    let select = |name| matcher.select(&ConnectionFacts { server_name: name, tls: true, ..to("127.0.0.1:80") });
    assert_eq!(select(Some("a.example.com")), Some(2));
    assert_eq!(select(Some("b.example.com")), Some(1));
    assert_eq!(select(Some("x.y.example.com")), Some(1));
    assert_eq!(select(Some("example.com")), Some(0));
    assert_eq!(select(Some(".com")), Some(3), "a wildcard stands for at least one character");
    assert_eq!(select(Some("com")), Some(3));
    assert_eq!(select(Some("notexample.org")), Some(3));
    assert_eq!(select(None), Some(3));
}

#[test]
fn a_port_that_leads_nowhere_falls_back_to_open_ones() {
    let branches = [
        branch("a", Match { destination_ports: vec![443], server_names: strings(&["a.test"]), ..Default::default() }),
        branch("b", Match { server_names: strings(&["b.test"]), ..Default::default() }),
    ];
    let matcher = Matcher::compile(&branches).unwrap();
    let facts = ConnectionFacts { server_name: Some("b.test"), tls: true, ..to("127.0.0.1:443") };
    assert_eq!(matcher.select(&facts), Some(1));
}

#[test]
fn protocols_are_taken_in_the_order_of_the_client() {
    let offers = |list: &[&str]| Match { application_protocols: strings(list), ..Default::default() };
    let matcher = Matcher::compile(&[branch("h1", offers(&["http/1.1"])), branch("h2", offers(&["h2"]))]).unwrap();
    let select = |alpn| matcher.select(&ConnectionFacts { alpn, tls: true, ..to("127.0.0.1:443") });
    assert_eq!(select(b"\x02h2\x08http/1.1"), Some(1));
    assert_eq!(select(b"\x08http/1.1\x02h2"), Some(0));
    assert_eq!(select(b"\x02h"), None, "a broken list offers nothing");
    assert_eq!(select(b""), None);
}

#[test]
fn equal_matches_are_an_error_that_names_both() {
    let port = |ports: &[u32]| Match { destination_ports: ports.to_vec(), ..Default::default() };
    let errors = Matcher::compile(&[branch("one", port(&[80, 81])), branch("two", port(&[81, 82]))]).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].to_string(), "branches[1].match: matches the same connections as branches[0] (`one`)");
    assert!(Matcher::compile(&[branch("one", port(&[80, 80]))]).is_ok(), "a branch does not clash with itself");
}

#[test]
fn every_bad_field_is_named() {
    let branches = [
        branch("a", Match { destination_ports: vec![80, 70000], ..Default::default() }),
        branch("b", Match { destination_ranges: strings(&["10.0.0.0/8", "10/8"]), ..Default::default() }),
        branch("c", Match { source_ranges: strings(&["x"]), ..Default::default() }),
        branch("d", Match { server_names: strings(&["*.*.com"]), ..Default::default() }),
        branch("e", Match { application_protocols: strings(&[""]), ..Default::default() }),
    ];
    let fields: Vec<_> = Matcher::compile(&branches).unwrap_err().into_iter().map(|e| e.field).collect();
    let expected = [
        "branches[0].match.destinationPorts[1]",
        "branches[1].match.destinationRanges[1]",
        "branches[2].match.sourceRanges[0]",
        "branches[3].match.serverNames[0]",
        "branches[4].match.applicationProtocols[0]",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn lists_that_multiply_without_bound_are_refused() {
    let many = (1..=1000).collect::<Vec<u32>>();
    let ranges: Vec<String> = (0..1000).map(|i| format!("10.{}.{}.0/24", i / 256, i % 256)).collect();
    let errors =
        Matcher::compile(&[branch("x", Match { destination_ports: many, destination_ranges: ranges, ..Default::default() })]).unwrap_err();
    assert!(errors[0].problem.contains("combinations"), "{errors:?}");
}

/// How well a branch fits, by the words of the schema: `None` if it does not, else one rank per criterion, more specific is greater.
fn rank(of: &Match, facts: &ConnectionFacts<'_>) -> Option<[i32; 6]> {
    let prefix = |list: &[String], address: Option<IpAddr>| -> Option<i32> {
        if list.is_empty() {
            return Some(-1);
        }
        let parsed = list.iter().map(|text| text.parse::<Cidr>().unwrap());
        parsed.filter(|range| address.is_some_and(|a| range.contains(a))).map(|range| i32::from(range.length())).max()
    };
    let port = match (of.destination_ports.is_empty(), facts.destination) {
        (true, _) => -1,
        (false, Some(to)) if of.destination_ports.contains(&u32::from(to.port())) => 1,
        _ => return None,
    };
    let name = if of.server_names.is_empty() {
        -1
    } else {
        let fits = |pattern: &String| match pattern.strip_prefix('*') {
            Some(suffix) => facts.server_name.filter(|n| n.ends_with(suffix) && n.len() > suffix.len()).map(|_| suffix.len() as i32),
            None => facts.server_name.filter(|n| *n == pattern).map(|_| 1000),
        };
        of.server_names.iter().filter_map(fits).max()?
    };
    let transport = match of.transport() {
        Transport::Any => -1,
        Transport::Tls if facts.tls => 1,
        Transport::Plaintext if !facts.tls => 1,
        _ => return None,
    };
    let protocol = if of.application_protocols.is_empty() {
        -1
    } else {
        100 - alpn_entries(facts.alpn).position(|offer| of.application_protocols.iter().any(|p| p.as_bytes() == offer))? as i32
    };
    let destination = prefix(&of.destination_ranges, facts.destination.map(|a| a.ip()))?;
    Some([port, destination, name, transport, protocol, prefix(&of.source_ranges, facts.source)?])
}

fn some_of(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![3 => Just(Vec::new()), 2 => proptest::sample::subsequence(all, 1..=2).prop_map(|picked| strings(&picked))]
}

const RANGES: &[&str] = &["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "0.0.0.0/0", "fd00::/8", "::/0"];

fn any_match() -> impl Strategy<Value = Match> {
    let ports = prop_oneof![Just(vec![]), Just(vec![80]), Just(vec![443]), Just(vec![80, 443])];
    let names = some_of(&["a.example.com", "*.example.com", "*.com", "b.test"]);
    (ports, some_of(RANGES), names, 0..3_i32, some_of(&["h2", "http/1.1"]), some_of(RANGES)).prop_map(
        |(destination_ports, destination_ranges, server_names, transport, application_protocols, source_ranges)| Match {
            destination_ports,
            destination_ranges,
            server_names,
            transport,
            application_protocols,
            source_ranges,
        },
    )
}

const ADDRESSES: &[&str] = &["10.1.1.1", "10.1.2.1", "10.9.9.9", "192.0.2.1", "fd00::1", "2001:db8::1", "::ffff:10.1.1.1"];
const NAMES: &[Option<&str>] = &[None, Some("a.example.com"), Some("x.a.example.com"), Some("example.com"), Some("b.test"), Some("other")];
const OFFERS: &[&[u8]] = &[b"", b"\x02h2", b"\x08http/1.1\x02h2", b"\x02h2\x08http/1.1", b"\x03foo"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The tree answers what a look at every branch answers, and refuses exactly the sets where that look would find a tie.
    #[test]
    fn the_tree_agrees_with_a_look_at_every_branch(matches in proptest::collection::vec(any_match(), 1..7)) {
        let branches: Vec<Branch> = matches.iter().map(|m| branch("b", m.clone())).collect();
        let compiled = Matcher::compile(&branches);
        let mut ties = BTreeSet::new();
        for (&to, &from) in ADDRESSES.iter().flat_map(|a| ADDRESSES.iter().map(move |b| (a, b))) {
            for (port, &server_name, &alpn, tls) in NAMES.iter().flat_map(|n| OFFERS.iter().flat_map(move |o| {
                [(80_u16, n, o, true), (443, n, o, true), (1, n, o, true), (80, n, o, false)]
            })) {
                let destination = Some(SocketAddr::new(to.parse().unwrap(), port));
                let facts = ConnectionFacts { destination, source: Some(from.parse().unwrap()), tls, server_name, alpn };
                let ranked: Vec<_> = matches.iter().enumerate().filter_map(|(i, m)| Some((rank(m, &facts)?, i))).collect();
                let best = ranked.iter().max().copied();
                let tied = best.is_some_and(|(rank, _)| ranked.iter().filter(|(r, _)| *r == rank).count() > 1);
                if tied {
                    ties.insert(destination);
                } else if let Ok(matcher) = &compiled {
                    prop_assert_eq!(matcher.select(&facts), best.map(|(_, i)| i), "{:?}", facts);
                }
            }
        }
        prop_assert!(ties.is_empty() || compiled.is_err(), "a tie at {:?} was compiled", ties);
    }
}
