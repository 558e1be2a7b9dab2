//! Which branch of a listener serves a connection.
//!
//! The most specific match wins, the criteria in the order of the schema: destination port, destination range (longest prefix), server name
//! (exact, then the longest suffix), transport, application protocol (in the client's order), source range (longest prefix). A branch whose every
//! field matches is always eligible: when the most specific port leads nowhere, less specific ones are looked at.
//!
//! The branches are compiled into a tree of one level per criterion. Two branches that could tie occupy the same leaf, which is an error at
//! compile time, so a connection never has two equally good answers. Where nothing has to be told apart, there is no tree and no look-up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use weir_model::config::{Branch, Match, Transport};

use super::cidr::{self, Cidr};

/// How many combinations of match entries one listener may have; lists of one branch multiply.
const MOST_LEAVES: usize = 1 << 18;

/// What is known of a connection when its branch is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionFacts<'a> {
    /// Original destination, or the local address; none on a Unix socket.
    pub destination: Option<SocketAddr>,
    /// Address of the peer; none on a Unix socket.
    pub source: Option<IpAddr>,
    /// Whether it began with a ClientHello. Only looked at if [`Needs::sniff`].
    pub tls: bool,
    /// Server name of the ClientHello, lower case.
    pub server_name: Option<&'a str>,
    /// Protocols that the ClientHello offers, as it lists them: each after a length byte.
    pub alpn: &'a [u8],
}

/// What has to be found out before a branch can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The port of the destination.
    pub destination_port: bool,
    /// The address of the destination.
    pub destination_address: bool,
    /// The first bytes.
    pub sniff: bool,
}

/// Why branches cannot be told apart or understood. `field` is a path below the listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct MatchError {
    /// For example `branches[2].match.sourceRanges[0]`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The compiled matches of a listener's branches.
#[derive(Debug)]
pub struct Matcher {
    plan: Plan,
    needs: Needs,
}

#[derive(Debug)]
enum Plan {
    /// No branch at all.
    Nothing,
    /// One branch, which matches everything.
    Always(usize),
    Tree(Box<Ports>),
}

type Ports = Level<u16, Destinations>;
type Destinations = Prefixes<Names>;
type Names = NameLevel<Transports>;
type Transports = Level<bool, Protocols>;
type Protocols = Level<Box<[u8]>, Sources>;
type Sources = Prefixes<Leaf>;

/// Where the entries of one branch end.
#[derive(Debug, Default)]
struct Leaf(Option<usize>);

/// A criterion that is equal or open.
#[derive(Debug)]
struct Level<K, N> {
    exact: HashMap<K, N>,
    any: Option<Box<N>>,
}

impl<K, N> Default for Level<K, N> {
    fn default() -> Self {
        Self { exact: HashMap::new(), any: None }
    }
}

impl<K: std::hash::Hash + Eq, N: Default> Level<K, N> {
    fn child(&mut self, key: Option<K>) -> &mut N {
        match key {
            Some(key) => self.exact.entry(key).or_default(),
            None => self.any.get_or_insert_with(Box::default),
        }
    }
}

/// A criterion where the longest prefix wins.
#[derive(Debug)]
struct Prefixes<N> {
    /// Lengths that occur, longest first, for each family.
    v4: Vec<u8>,
    v6: Vec<u8>,
    ranges: HashMap<Cidr, N>,
    any: Option<Box<N>>,
}

impl<N> Default for Prefixes<N> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new(), ranges: HashMap::new(), any: None }
    }
}

impl<N: Default> Prefixes<N> {
    fn child(&mut self, range: Option<Cidr>) -> &mut N {
        let Some(range) = range else { return self.any.get_or_insert_with(Box::default) };
        let lengths = if range.network().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if let Err(at) = lengths.binary_search_by(|length| range.length().cmp(length)) {
            lengths.insert(at, range.length());
        }
        self.ranges.entry(range).or_default()
    }
}

impl<N> Prefixes<N> {
    /// The first answer of `look`, asked of the children from the longest prefix to the open one.
    fn find(&self, address: Option<IpAddr>, look: impl Fn(&N) -> Option<usize>) -> Option<usize> {
        if let Some(address) = address.map(|a| a.to_canonical()) {
            let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
            for &length in lengths {
                let child = Cidr::new(address, length).and_then(|range| self.ranges.get(&range));
                if let Some(found) = child.and_then(&look) {
                    return Some(found);
                }
            }
        }
        self.any.as_deref().and_then(look)
    }
}

/// Server names: exact ones, and suffixes that begin with a dot.
#[derive(Debug)]
struct NameLevel<N> {
    exact: HashMap<Box<str>, N>,
    suffix: HashMap<Box<str>, N>,
    any: Option<Box<N>>,
}

impl<N> Default for NameLevel<N> {
    fn default() -> Self {
        Self { exact: HashMap::new(), suffix: HashMap::new(), any: None }
    }
}

impl<N: Default> NameLevel<N> {
    fn child(&mut self, name: Option<&Name>) -> &mut N {
        match name {
            Some(Name::Exact(name)) => self.exact.entry(name.clone()).or_default(),
            Some(Name::Suffix(name)) => self.suffix.entry(name.clone()).or_default(),
            None => self.any.get_or_insert_with(Box::default),
        }
    }
}

impl<N> NameLevel<N> {
    fn find(&self, name: Option<&str>, look: impl Fn(&N) -> Option<usize>) -> Option<usize> {
        if let Some(name) = name {
            if let Some(found) = self.exact.get(name).and_then(&look) {
                return Some(found);
            }
            if !self.suffix.is_empty() {
                // The longest suffix is the one that starts at the first dot.
                for (at, _) in name.match_indices('.').filter(|(at, _)| *at > 0) {
                    if let Some(found) = self.suffix.get(&name[at..]).and_then(&look) {
                        return Some(found);
                    }
                }
            }
        }
        self.any.as_deref().and_then(look)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Exact(Box<str>),
    /// With its leading dot.
    Suffix(Box<str>),
}

/// One branch's match, parsed.
#[derive(Debug, Default)]
struct Criteria {
    ports: Vec<u16>,
    destinations: Vec<Cidr>,
    names: Vec<Name>,
    transport: Option<bool>,
    protocols: Vec<Box<[u8]>>,
    sources: Vec<Cidr>,
}

impl Criteria {
    fn parse(of: &Match, path: &str) -> Result<Self, MatchError> {
        let bad = |field: String, problem: String| MatchError { field: format!("{path}.{field}"), problem };
        let mut out = Self::default();
        for (i, &port) in of.destination_ports.iter().enumerate() {
            let port = u16::try_from(port).ok().filter(|port| *port != 0);
            out.ports.push(port.ok_or_else(|| bad(format!("destinationPorts[{i}]"), "is no port (1 to 65535)".into()))?);
        }
        out.destinations = ranges(&of.destination_ranges).map_err(|(i, e)| bad(format!("destinationRanges[{i}]"), e))?;
        out.sources = ranges(&of.source_ranges).map_err(|(i, e)| bad(format!("sourceRanges[{i}]"), e))?;
        for (i, text) in of.server_names.iter().enumerate() {
            out.names.push(server_name(text).ok_or_else(|| bad(format!("serverNames[{i}]"), format!("`{text}` is no host name")))?);
        }
        for (i, text) in of.application_protocols.iter().enumerate() {
            if text.is_empty() || text.len() > 255 {
                return Err(bad(format!("applicationProtocols[{i}]"), "must have 1 to 255 bytes".into()));
            }
            out.protocols.push(text.as_bytes().into());
        }
        out.transport = match of.transport() {
            Transport::Any => None,
            Transport::Plaintext => Some(false),
            Transport::Tls => Some(true),
        };
        Ok(out)
    }

    fn needs(&self) -> Needs {
        Needs {
            destination_port: !self.ports.is_empty(),
            destination_address: !self.destinations.is_empty(),
            sniff: !self.names.is_empty() || self.transport.is_some() || !self.protocols.is_empty(),
        }
    }

    fn is_open(&self) -> bool {
        self.needs() == Needs::default() && self.sources.is_empty()
    }

    fn leaves(&self) -> usize {
        let lists = [self.ports.len(), self.destinations.len(), self.names.len(), self.protocols.len(), self.sources.len()];
        lists.iter().fold(1, |product: usize, length| product.saturating_mul((*length).max(1)))
    }

    /// Puts the branch at each of its leaves; the branch that was there first, if one was.
    fn insert(&self, tree: &mut Ports, index: usize) -> Result<(), usize> {
        for port in entries(&self.ports) {
            for destination in entries(&self.destinations) {
                for name in entries(&self.names) {
                    for protocol in entries(&self.protocols) {
                        for source in entries(&self.sources) {
                            let names = tree.child(port.copied()).child(destination.copied());
                            let protocols = names.child(name).child(self.transport);
                            let leaf = protocols.child(protocol.cloned()).child(source.copied());
                            match leaf.0 {
                                Some(other) if other != index => return Err(other),
                                _ => leaf.0 = Some(index),
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Each entry of a list, or once nothing where it is empty.
fn entries<T>(list: &[T]) -> impl Iterator<Item = Option<&T>> {
    list.iter().map(Some).chain(list.is_empty().then_some(None))
}

fn ranges(texts: &[String]) -> Result<Vec<Cidr>, (usize, String)> {
    texts.iter().enumerate().map(|(i, text)| text.parse::<Cidr>().map_err(|e| (i, e.to_string()))).collect()
}

fn server_name(text: &str) -> Option<Name> {
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let (host, wildcard) = match lower.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (lower.as_str(), false),
    };
    let plain = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if host.len() > 253 || !host.split('.').all(plain) {
        return None;
    }
    Some(if wildcard { Name::Suffix(lower[1..].into()) } else { Name::Exact(lower.into()) })
}

impl Matcher {
    /// Compiles the matches of a listener's branches; an index is the position in the list.
    ///
    /// # Errors
    /// Every field that cannot be read, and every pair of branches that the same connection could match equally well.
    pub fn compile(branches: &[Branch]) -> Result<Self, Vec<MatchError>> {
        let mut errors = Vec::new();
        let mut needs = Needs::default();
        let mut tree = Ports::default();
        let mut leaves = 0_usize;
        let mut open = None;
        for (index, branch) in branches.iter().enumerate() {
            let path = format!("branches[{index}].match");
            let parsed = branch.r#match.as_ref().map_or_else(|| Ok(Criteria::default()), |of| Criteria::parse(of, &path));
            let criteria = match parsed {
                Ok(criteria) => criteria,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            leaves = leaves.saturating_add(criteria.leaves());
            if leaves > MOST_LEAVES {
                errors.push(MatchError {
                    field: path,
                    problem: format!("matches of this listener have more than {MOST_LEAVES} combinations"),
                });
                break;
            }
            let more = criteria.needs();
            needs.destination_port |= more.destination_port;
            needs.destination_address |= more.destination_address;
            needs.sniff |= more.sniff;
            if branches.len() == 1 && criteria.is_open() {
                open = Some(index);
            }
            if let Err(other) = criteria.insert(&mut tree, index) {
                let first = &branches[other].name;
                errors.push(MatchError { field: path, problem: format!("matches the same connections as branches[{other}] (`{first}`)") });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let plan = match open {
            Some(index) => Plan::Always(index),
            None if branches.is_empty() => Plan::Nothing,
            None => Plan::Tree(Box::new(tree)),
        };
        Ok(Self { plan, needs })
    }

    /// What [`Self::select`] looks at.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The branch that every connection meets, if there is nothing to tell apart.
    #[must_use]
    pub fn always(&self) -> Option<usize> {
        match self.plan {
            Plan::Always(index) => Some(index),
            Plan::Nothing | Plan::Tree(_) => None,
        }
    }

    /// The branch for a connection.
    #[must_use]
    pub fn select(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        match &self.plan {
            Plan::Nothing => None,
            Plan::Always(index) => Some(*index),
            Plan::Tree(ports) => {
                let port = facts.destination.map(|address| address.port());
                let exact = port.and_then(|port| ports.exact.get(&port));
                exact
                    .and_then(|next| by_destination(next, facts))
                    .or_else(|| ports.any.as_deref().and_then(|next| by_destination(next, facts)))
            }
        }
    }
}

fn by_destination(level: &Destinations, facts: &ConnectionFacts<'_>) -> Option<usize> {
    level.find(facts.destination.map(|address| address.ip()), |names| names.find(facts.server_name, |next| by_transport(next, facts)))
}

fn by_transport(level: &Transports, facts: &ConnectionFacts<'_>) -> Option<usize> {
    let exact = level.exact.get(&facts.tls).and_then(|next| by_protocol(next, facts));
    exact.or_else(|| level.any.as_deref().and_then(|next| by_protocol(next, facts)))
}

fn by_protocol(level: &Protocols, facts: &ConnectionFacts<'_>) -> Option<usize> {
    if !level.exact.is_empty() {
        for protocol in alpn_entries(facts.alpn) {
            if let Some(found) = level.exact.get(protocol).and_then(|next| by_source(next, facts)) {
                return Some(found);
            }
        }
    }
    level.any.as_deref().and_then(|next| by_source(next, facts))
}

fn by_source(level: &Sources, facts: &ConnectionFacts<'_>) -> Option<usize> {
    level.find(facts.source, |leaf| leaf.0)
}

/// The protocols of an ALPN list as a ClientHello has it; stops where the list is broken.
pub fn alpn_entries(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (&length, after) = rest.split_first()?;
        let (entry, after) = after.split_at_checked(usize::from(length))?;
        rest = after;
        Some(entry)
    })
}

/// Parses a list of ranges; the index of the first that is none.
///
/// # Errors
/// The position of the entry and what is wrong with it.
pub fn parse_ranges(texts: &[String]) -> Result<Vec<Cidr>, (usize, cidr::InvalidCidr)> {
    texts.iter().enumerate().map(|(i, text)| text.parse().map_err(|e| (i, e))).collect()
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
