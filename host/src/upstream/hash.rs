//! Hash policies: a number out of a request, so that requests which belong together find the same endpoint.
//!
//! The hash is XXH64. It must be the same in every worker, in every proxy of a mesh, and in every version of this program, which rules out hashes
//! that are seeded per process or only promise speed; this one has a published specification, and is what rings elsewhere are built with.
//!
//! Evaluation reads the request through [`HashInput`] and has no side effect; a cookie that must be generated is handed back.

use std::net::IpAddr;
use std::time::Duration;

use weir_model::config;

use super::Invalid;
use super::options::duration;

/// What hash policies read of a request.
pub trait HashInput {
    /// Calls `visit` with every value of the request header `name` (lower case), in order.
    fn headers(&self, name: &str, visit: &mut dyn FnMut(&[u8]));
    /// The request target, query included.
    fn path(&self) -> &[u8];
    /// Where the connection came from, if that is an IP address.
    fn source(&self) -> Option<IpAddr>;
}

/// What policies made of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// The number, if any policy gave one.
    pub hash: Option<u64>,
    /// Value of a `set-cookie` header for the response.
    pub set_cookie: Option<String>,
}

/// Compiled hash policies.
#[derive(Clone, Debug, Default)]
pub struct HashPolicies {
    policies: Vec<(Source, bool)>,
}

#[derive(Clone, Debug)]
enum Source {
    Header(String),
    Cookie(Cookie),
    Address,
    Query(String),
}

#[derive(Clone, Debug)]
struct Cookie {
    name: String,
    /// What follows the value of a generated one; none is generated without it.
    attributes: Option<String>,
}

impl HashPolicies {
    /// Compiles what a route says.
    ///
    /// # Errors
    /// A policy without a source, or with text that cannot stand in a cookie.
    pub fn compile(policies: &[config::HashPolicy]) -> Result<Self, Invalid> {
        use config::hash_policy::Policy as Given;
        let mut compiled = Vec::with_capacity(policies.len());
        for (at, policy) in policies.iter().enumerate() {
            let source = match &policy.policy {
                Some(Given::Header(name)) => Source::Header(name.to_ascii_lowercase()),
                Some(Given::Cookie(cookie)) => Source::Cookie(compile_cookie(cookie, at)?),
                Some(Given::SourceAddress(true)) => Source::Address,
                Some(Given::QueryParameter(name)) => Source::Query(name.clone()),
                Some(Given::SourceAddress(false)) | None => return Err(Invalid::new(format!("hash[{at}]"), "says nothing to hash")),
            };
            compiled.push((source, policy.terminal));
        }
        Ok(Self { policies: compiled })
    }

    /// Whether there is nothing to evaluate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Hashes a request. `random` makes the value of a generated cookie.
    #[must_use]
    pub fn evaluate(&self, input: &impl HashInput, random: impl FnOnce() -> u64) -> Hashed {
        let mut result = Hashed::default();
        let mut random = Some(random);
        for (source, terminal) in &self.policies {
            let found = match source {
                Source::Header(name) => hash_header(input, name),
                Source::Address => input.source().map(address),
                Source::Query(name) => query_value(input.path(), name.as_bytes()).map(|value| xxh64(value, 0)),
                Source::Cookie(cookie) => hash_cookie(input, cookie, &mut random, &mut result.set_cookie),
            };
            if let Some(found) = found {
                result.hash = Some(result.hash.map_or(found, |before| before.rotate_left(1) ^ found));
            }
            if *terminal && result.hash.is_some() {
                break;
            }
        }
        result
    }
}

fn compile_cookie(cookie: &config::hash_policy::Cookie, at: usize) -> Result<Cookie, Invalid> {
    let plain = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b';' && byte != b',');
    let named = |text: &str| !text.is_empty() && plain(text) && !text.contains('=');
    if !named(&cookie.name) || !plain(&cookie.path) || !cookie.attributes.iter().all(|(name, value)| named(name) && plain(value)) {
        return Err(Invalid::new(format!("hash[{at}].cookie"), "names and values are visible ASCII without `;` and `,`"));
    }
    let attributes = duration!(cookie.ttl).map(|ttl| cookie_attributes(cookie, ttl));
    Ok(Cookie { name: cookie.name.clone(), attributes })
}

fn cookie_attributes(cookie: &config::hash_policy::Cookie, ttl: Duration) -> String {
    let mut text = String::new();
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
    }
    if !cookie.path.is_empty() {
        text.push_str("; Path=");
        text.push_str(&cookie.path);
    }
    for (name, value) in &cookie.attributes {
        text.push_str("; ");
        text.push_str(name);
        if !value.is_empty() {
            text.push('=');
            text.push_str(value);
        }
    }
    if !cookie.attributes.keys().any(|name| name.eq_ignore_ascii_case("httponly")) {
        text.push_str("; HttpOnly");
    }
    text
}

fn hash_header(input: &impl HashInput, name: &str) -> Option<u64> {
    let mut hash = None;
    input.headers(name, &mut |value| hash = Some(xxh64(value, hash.unwrap_or(0))));
    hash
}

/// Hashes an address; the same number as a hash policy over source addresses gives.
#[must_use]
pub fn address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => xxh64(&address.octets(), 0),
        IpAddr::V6(address) => xxh64(&address.octets(), 0),
    }
}

fn hash_cookie(
    input: &impl HashInput,
    cookie: &Cookie,
    random: &mut Option<impl FnOnce() -> u64>,
    set: &mut Option<String>,
) -> Option<u64> {
    let mut hash = None;
    input.headers("cookie", &mut |header| {
        if hash.is_none() {
            hash = cookie_value(header, cookie.name.as_bytes()).map(|value| xxh64(value, 0));
        }
    });
    if hash.is_some() {
        return hash;
    }
    let attributes = cookie.attributes.as_ref()?;
    // One cookie per request: a second policy that would generate one gives no hash, and finds the first one's next time.
    let value = format!("{:016x}", random.take()?());
    *set = Some(format!("{}={value}{attributes}", cookie.name));
    Some(xxh64(value.as_bytes(), 0))
}

/// The value of the cookie `name` in a `cookie` header, without quotes around it.
#[must_use]
pub fn cookie_value<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    header.split(|byte| *byte == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// The value of the first query parameter `name` in a request target, as it stands there.
#[must_use]
pub fn query_value<'a>(target: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = target.iter().position(|byte| *byte == b'?')? + 1;
    let query = target.get(start..)?.split(|byte| *byte == b'#').next()?;
    query.split(|byte| *byte == b'&').find_map(|pair| match pair.strip_prefix(name)? {
        [] => Some(&[][..]),
        [b'=', value @ ..] => Some(value),
        _ => None,
    })
}

const PRIMES: [u64; 5] =
    [0x9e37_79b1_85eb_ca87, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0x85eb_ca77_c2b2_ae63, 0x27d4_eb2f_1656_67c5];

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

fn read_u64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// XXH64 of `bytes`.
#[must_use]
pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let mut blocks = bytes.chunks_exact(32);
    let mut hash = if bytes.len() >= 32 {
        let mut lanes =
            [seed.wrapping_add(PRIMES[0]).wrapping_add(PRIMES[1]), seed.wrapping_add(PRIMES[1]), seed, seed.wrapping_sub(PRIMES[0])];
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
                *lane = round(*lane, read_u64(word));
            }
        }
        let [a, b, c, d] = lanes;
        let mixed = a.rotate_left(1).wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
        lanes.iter().fold(mixed, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]))
    } else {
        seed.wrapping_add(PRIMES[4])
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let mut words = blocks.remainder().chunks_exact(8);
    for word in &mut words {
        hash = (hash ^ round(0, read_u64(word))).rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
    }
    let mut rest = words.remainder();
    if let Some((half, after)) = rest.split_at_checked(4) {
        hash = (hash ^ read_u64(half).wrapping_mul(PRIMES[0])).rotate_left(23).wrapping_mul(PRIMES[1]).wrapping_add(PRIMES[2]);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(PRIMES[4])).rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use weir_model::config::hash_policy::Policy;

    use super::*;

    #[derive(Default)]
    struct Request {
        headers: Vec<(&'static str, &'static str)>,
        path: &'static str,
        source: Option<IpAddr>,
    }

    impl HashInput for Request {
        fn headers(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
            self.headers.iter().filter(|header| header.0 == name).for_each(|header| visit(header.1.as_bytes()));
        }
        fn path(&self) -> &[u8] {
            self.path.as_bytes()
        }
        fn source(&self) -> Option<IpAddr> {
            self.source
        }
    }

    fn compile(policies: Vec<(Policy, bool)>) -> HashPolicies {
        let policies: Vec<_> =
            policies.into_iter().map(|(policy, terminal)| config::HashPolicy { policy: Some(policy), terminal }).collect();
        HashPolicies::compile(&policies).unwrap()
    }

    fn evaluate(policies: &HashPolicies, request: &Request) -> Hashed {
        policies.evaluate(request, || 0xabcd)
    }

    #[test]
    fn the_hash_is_the_specified_one() {
        for (input, seed, hash) in [
            ("", 0, 0xef46_db37_51d8_e999),
            ("a", 0, 0xd24e_c4f1_a98c_6e5b),
            ("abc", 0, 0x44bc_2cf5_ad77_0999),
            ("abcdefghijklmnopqrstuvwxyz0123456789", 0, 0x64f2_3ecf_1609_b766),
            ("Nobody inspects the spammish repetition", 0, 0xfbce_a83c_8a37_8bf1),
        ] {
            assert_eq!(xxh64(input.as_bytes(), seed), hash, "{input:?}");
        }
        assert_ne!(xxh64(b"a", 1), xxh64(b"a", 0));
    }

    #[test]
    fn policies_are_combined_in_order_until_a_terminal_one_gives_a_hash() {
        let header = |name: &str| Policy::Header(name.to_owned());
        let both = compile(vec![(header("X-A"), false), (header("x-b"), false)]);
        let first = compile(vec![(header("x-a"), true), (header("x-b"), false)]);
        let request = Request { headers: vec![("x-a", "1"), ("x-b", "2")], ..Default::default() };
        let (one, two) = (xxh64(b"1", 0), xxh64(b"2", 0));
        assert_eq!(evaluate(&both, &request).hash, Some(one.rotate_left(1) ^ two));
        assert_eq!(evaluate(&first, &request).hash, Some(one));
        let without = Request { headers: vec![("x-b", "2")], ..Default::default() };
        assert_eq!(evaluate(&first, &without).hash, Some(two));
        assert_eq!(evaluate(&both, &Request::default()), Hashed::default());
    }

    #[test]
    fn addresses_and_query_parameters_count() {
        let policies = compile(vec![(Policy::SourceAddress(true), false)]);
        let from = |text: &str| evaluate(&policies, &Request { source: Some(text.parse().unwrap()), ..Default::default() }).hash;
        assert_eq!(from("10.0.0.1"), from("::ffff:10.0.0.1"));
        assert_ne!(from("10.0.0.1"), from("10.0.0.2"));
        let policies = compile(vec![(Policy::QueryParameter("user".to_owned()), false)]);
        let at = |path| evaluate(&policies, &Request { path, ..Default::default() }).hash;
        assert_eq!(at("/a?x=1&user=7#f"), Some(xxh64(b"7", 0)));
        assert_eq!(at("/a?user"), Some(xxh64(b"", 0)));
        assert_eq!(at("/user=7?users=7"), None);
    }

    #[test]
    fn a_cookie_is_read_or_generated() {
        let cookie = config::hash_policy::Cookie {
            name: "sid".to_owned(),
            ttl: Some(weir_model::protobuf::Duration { seconds: 60, nanos: 0 }),
            path: "/app".to_owned(),
            attributes: [("SameSite".to_owned(), "Lax".to_owned())].into(),
        };
        let policies = compile(vec![(Policy::Cookie(cookie), false)]);
        let request = Request { headers: vec![("cookie", "asid=1; b=2"), ("cookie", "sid=\"7\"; c=3")], ..Default::default() };
        assert_eq!(evaluate(&policies, &request), Hashed { hash: Some(xxh64(b"7", 0)), set_cookie: None });
        let generated = evaluate(&policies, &Request::default());
        assert_eq!(generated.set_cookie.as_deref(), Some("sid=000000000000abcd; Max-Age=60; Path=/app; SameSite=Lax; HttpOnly"));
        let back = Request { headers: vec![("cookie", "sid=000000000000abcd")], ..Default::default() };
        assert_eq!(evaluate(&policies, &back).hash, generated.hash);
    }

    #[test]
    fn a_cookie_without_lifetime_is_not_generated_and_cannot_smuggle() {
        let cookie = config::hash_policy::Cookie { name: "sid".to_owned(), ..Default::default() };
        assert_eq!(evaluate(&compile(vec![(Policy::Cookie(cookie.clone()), false)]), &Request::default()), Hashed::default());
        let bad = config::hash_policy::Cookie { path: "/; Domain=x".to_owned(), ..cookie };
        let policy = config::HashPolicy { policy: Some(Policy::Cookie(bad)), terminal: false };
        assert_eq!(HashPolicies::compile(&[policy]).unwrap_err().path, "hash[0].cookie");
    }
}
