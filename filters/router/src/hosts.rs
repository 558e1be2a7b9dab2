//! From a request's authority to the virtual hosts that may mean it, the most specific one first.
//!
//! What always holds: looking up allocates nothing and takes time in proportion to the authority, however many hosts there are; case and a dot at the end do
//! not count. The names of all hosts lie in one piece of memory, found by a hash.

use weir_filter_matching::split_port;

/// Candidates that a lookup can give: more than so many wildcards above each other, nobody has.
const MOST: usize = 24;
const FREE: u32 = u32::MAX;

/// The hosts.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// Indices into `entries` by hash; a power of two of them, half free.
    slots: Vec<u32>,
    has_ports: bool,
    has_prefixes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    /// `.example.org`
    Suffix,
    /// `example.`
    Prefix,
    Any,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    length: u16,
    port: u16,
    kind: Kind,
    host: u32,
}

/// Virtual hosts, the most specific one first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidates {
    list: [u32; MOST],
    count: usize,
}

impl Candidates {
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.list[..self.count].iter().map(|host| *host as usize)
    }

    fn push(&mut self, host: Option<u32>) {
        if let Some(host) = host
            && let Some(free) = self.list.get_mut(self.count)
        {
            *free = host;
            self.count += 1;
        }
    }
}

/// FNV-1a, which can go on byte by byte.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3))
    }

    fn done(self, kind: Kind, port: u16) -> u64 {
        let mixed = (self.0 ^ (u64::from(port) << 8) ^ kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    }
}

/// Of a name from its end, as suffixes need it; prefixes are hashed from their beginning.
fn hash(kind: Kind, text: &[u8]) -> Hash {
    let all = |bytes: &mut dyn Iterator<Item = &u8>| bytes.fold(Hash::new(), |hash, byte| hash.add(*byte));
    if kind == Kind::Prefix { all(&mut text.iter()) } else { all(&mut text.iter().rev()) }
}

impl Hosts {
    /// Adds what means this virtual host.
    ///
    /// # Errors
    /// Says what is wrong with it, or which virtual host has it already.
    pub(crate) fn add(&mut self, written: &str, host: u32) -> Result<(), String> {
        let (name, port) = parse(written)?;
        let (kind, text) = match name {
            "*" => (Kind::Any, ""),
            _ => match (name.strip_prefix('*'), name.strip_suffix('*')) {
                (Some(suffix), _) if suffix.starts_with('.') => (Kind::Suffix, suffix),
                (_, Some(prefix)) if prefix.ends_with('.') => (Kind::Prefix, prefix),
                (None, None) => (Kind::Exact, name),
                _ => return Err(format!("in {written:?} the `*` stands for no whole label")),
            },
        };
        let text = text.to_ascii_lowercase();
        let least = match kind {
            Kind::Any => 0,
            Kind::Exact => 1,
            Kind::Suffix | Kind::Prefix => 2,
        };
        if text.len() < least || text.contains('*') || text.len() > 253 {
            return Err(format!("{written:?} is neither a host nor a host with one `*` at either end"));
        }
        if text.bytes().any(|byte| byte <= b' ' || byte == b'/' || byte >= 0x7f) {
            return Err(format!("{written:?} is no host"));
        }
        if let Some(known) = self.find(kind, text.as_bytes(), hash(kind, text.as_bytes()), port) {
            return Err(format!("{written:?} is a host of virtualHosts[{known}] already"));
        }
        let start = u32::try_from(self.text.len()).map_err(|_| "there are too many hosts")?;
        self.text.extend_from_slice(text.as_bytes());
        self.has_ports |= port != 0;
        self.has_prefixes |= kind == Kind::Prefix;
        self.entries.push(Entry { start, length: text.len() as u16, port, kind, host });
        if self.entries.len() * 2 > self.slots.len() {
            let count = (self.entries.len() * 4).next_power_of_two();
            self.slots = vec![FREE; count];
            (0..self.entries.len()).for_each(|at| self.place(at));
        } else {
            self.place(self.entries.len() - 1);
        }
        Ok(())
    }

    fn place(&mut self, at: usize) {
        let entry = self.entries[at];
        let mut slot = hash(entry.kind, self.name(&entry)).done(entry.kind, entry.port) as usize;
        loop {
            slot &= self.slots.len() - 1;
            if self.slots[slot] == FREE {
                self.slots[slot] = at as u32;
                return;
            }
            slot += 1;
        }
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.text[entry.start as usize..][..usize::from(entry.length)]
    }

    fn find(&self, kind: Kind, text: &[u8], hash: Hash, port: u16) -> Option<u32> {
        let mut slot = hash.done(kind, port) as usize;
        loop {
            slot &= self.slots.len().checked_sub(1)?;
            // Half of them are free, so this ends.
            let entry = self.entries.get(self.slots[slot] as usize)?;
            if entry.kind == kind && entry.port == port && self.name(entry).eq_ignore_ascii_case(text) {
                return Some(entry.host);
            }
            slot += 1;
        }
    }

    /// The virtual hosts that may mean a request.
    pub(crate) fn candidates(&self, authority: &[u8]) -> Candidates {
        let (host, port) = split_port(authority);
        let host = host.strip_suffix(b".").unwrap_or(host);
        let port = port.iter().fold(0u32, |port, digit| port.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
        let ports = [if self.has_ports { u16::try_from(port).unwrap_or(0) } else { 0 }, 0];
        let ports = if ports[0] == 0 { &ports[1..] } else { &ports[..] };
        let mut found = Candidates { list: [0; MOST], count: 0 };
        // Longer names than any written one are those of no written one.
        if host.len() <= 253 {
            let mut exact = Hash::new();
            // By the place where they begin: what is found later, to the left, is longer.
            let mut suffixes = [(0usize, Hash::new()); MOST];
            let mut labels = 0;
            for (at, byte) in host.iter().enumerate().rev() {
                exact = exact.add(*byte);
                if *byte == b'.' && at > 0 {
                    suffixes[labels % MOST] = (at, exact);
                    labels += 1;
                }
            }
            ports.iter().for_each(|port| found.push(self.find(Kind::Exact, host, exact, *port)));
            for (at, hash) in (labels.saturating_sub(MOST)..labels).rev().map(|label| suffixes[label % MOST]) {
                ports.iter().for_each(|port| found.push(self.find(Kind::Suffix, &host[at..], hash, *port)));
            }
            if self.has_prefixes {
                self.prefixes(host, ports, &mut found);
            }
        }
        ports.iter().for_each(|port| found.push(self.find(Kind::Any, &[], Hash::new(), *port)));
        found
    }

    fn prefixes(&self, host: &[u8], ports: &[u16], found: &mut Candidates) {
        for at in (0..host.len().saturating_sub(1)).rev().filter(|at| host[*at] == b'.').take(MOST) {
            let prefix = &host[..=at];
            let hash = hash(Kind::Prefix, prefix);
            ports.iter().for_each(|port| found.push(self.find(Kind::Prefix, prefix, hash, *port)));
        }
    }
}

/// The name and the port of a host as it is written; 0 for every port.
fn parse(written: &str) -> Result<(&str, u16), String> {
    let (name, port) = match written.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port),
        _ => return Ok((written, 0)),
    };
    match port.parse::<u16>() {
        _ if port == "*" => Ok((name, 0)),
        Ok(port) if port > 0 => Ok((name, port)),
        _ => Err(format!("{written:?} has no port of 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    fn hosts(list: &[&str]) -> Hosts {
        let mut hosts = Hosts::default();
        list.iter().enumerate().for_each(|(at, host)| hosts.add(host, at as u32).unwrap());
        hosts
    }

    #[test]
    fn the_most_specific_host_comes_first() {
        let list = ["a.example", "*.example", "*.b.example", "a.*", "a.b.*", "*", "a.example:8080", "*.example:8080", "[::1]", "*:9"];
        let hosts = hosts(&list);
        for (authority, expected) in [
            ("a.example", &["a.example", "*.example", "a.*", "*"][..]),
            ("A.Example.", &["a.example", "*.example", "a.*", "*"]),
            ("a.example:80", &["a.example", "*.example", "a.*", "*"]),
            ("a.example:8080", &["a.example:8080", "a.example", "*.example:8080", "*.example", "a.*", "*"]),
            ("a.b.example", &["*.b.example", "*.example", "a.b.*", "a.*", "*"]),
            ("example", &["*"]),
            (".example", &["*"]),
            ("[::1]:443", &["[::1]", "*"]),
            ("", &["*"]),
            ("x:9", &["*:9", "*"]),
            ("a.example:99999", &["a.example", "*.example", "a.*", "*"]),
        ] {
            let found: Vec<&str> = hosts.candidates(authority.as_bytes()).iter().map(|at| list[at]).collect();
            assert_eq!(found, expected, "{authority}");
        }
        let long = [b"a.".repeat(200), b"example".to_vec()].concat();
        assert_eq!(hosts.candidates(&long).iter().map(|at| list[at]).collect::<Vec<_>>(), ["*"]);
        assert_eq!(Hosts::default().candidates(b"a").iter().count(), 0);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for wrong in ["", "*a.example", "a*", "a.*.b", "**", "a b", "a/b", "a:0", "a:x", "a:70000", "*.", ".*", "*.*"] {
            assert!(Hosts::default().add(wrong, 0).is_err(), "{wrong}");
        }
        let mut hosts = hosts(&["a.example", "*"]);
        assert_eq!(hosts.add("A.EXAMPLE", 7), Err("\"A.EXAMPLE\" is a host of virtualHosts[0] already".into()));
        assert!(hosts.add("a.example:1", 7).is_ok());
    }
}
