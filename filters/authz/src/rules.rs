//! Rules, compiled: who, what for, and further conditions.
//!
//! What always holds, as in Istio: what is absent never meets a condition, and always meets its `not` twin; a condition that only HTTP can meet is never met
//! on a TCP connection, which drops a whole rule of an `ALLOW` policy, and only the condition of any other: less is allowed, more is refused.

use weir_filter_matching::{Address, Cidrs, any_header_reading, every_header_reading};
use weir_sdk::Refusal;

use crate::config::{self, Action, Condition, Operation, Policy, Source};
use crate::facts::Facts;
use crate::pattern::{Account, PathPattern, Pattern, TokenIdentity, is_of_namespace, trust_domain};
use crate::trust::TrustDomains;

/// More service accounts than this Istio refuses.
const MOST_ACCOUNTS: usize = 16;

/// A rule: it matches when any of `from`, any of `to` and all of `when` do.
#[derive(Debug)]
pub(crate) struct Rule {
    from: Vec<Vec<Test>>,
    to: Vec<Vec<Test>>,
    when: Vec<Test>,
}

/// A condition, or its opposite.
#[derive(Debug)]
struct Test {
    about: About,
    not: bool,
    /// One reading of a method or a header is enough to meet it. Where that refuses, and not where it allows.
    liberal: bool,
}

/// What a condition is about, and any of the values that meet it.
#[derive(Debug)]
enum About {
    DirectAddress(Cidrs),
    RemoteAddress(Cidrs),
    DestinationAddress(Cidrs),
    DestinationPort(Vec<u16>),
    ServerName(Vec<Pattern>),
    Principal(Vec<Pattern>),
    Namespace(Vec<String>),
    Account(Vec<Account>),
    TrustDomain(Vec<Pattern>),
    Token(Vec<TokenIdentity>),
    Claim(Vec<String>, Vec<Pattern>),
    Header(String, Vec<Pattern>, bool),
    Host(Vec<Pattern>, bool),
    Method(Vec<Pattern>, bool),
    Path(Vec<PathPattern>),
}

/// What compiling needs to know of the policy.
struct Scope<'a> {
    policy: &'a Policy,
    trust: &'a TrustDomains,
    all_readings: bool,
}

impl Rule {
    pub(crate) fn new(rule: &config::Rule, policy: &Policy, trust: &TrustDomains, all_readings: bool) -> Result<Self, Refusal> {
        let scope = Scope { policy, trust, all_readings };
        let mut compiled = Self { from: Vec::new(), to: Vec::new(), when: Vec::new() };
        for (at, from) in rule.from.iter().enumerate() {
            let tests = scope.source(&from.source).map_err(|refusal| refusal.within(&format!("from[{at}].source")))?;
            compiled.from.push(tests);
        }
        for (at, to) in rule.to.iter().enumerate() {
            let tests = scope.operation(&to.operation).map_err(|refusal| refusal.within(&format!("to[{at}].operation")))?;
            compiled.to.push(tests);
        }
        for (at, condition) in rule.when.iter().enumerate() {
            scope.condition(condition, &mut compiled.when).map_err(|refusal| refusal.within(&format!("when[{at}]")))?;
        }
        Ok(compiled)
    }

    /// Whether a request of this path matches.
    pub(crate) fn matches(&self, facts: &Facts<'_>, path: &[u8]) -> bool {
        let any = |lists: &[Vec<Test>]| lists.is_empty() || lists.iter().any(|tests| tests.iter().all(|test| test.holds(facts, path)));
        any(&self.from) && any(&self.to) && self.when.iter().all(|test| test.holds(facts, path))
    }

    /// Whether a connection that is no HTTP matches.
    pub(crate) fn matches_connection(&self, facts: &Facts<'_>, action: Action) -> bool {
        let mut tests = self.from.iter().chain(&self.to).flatten().chain(&self.when);
        if action == Action::Allow && tests.any(|test| test.about.is_http()) {
            return false;
        }
        let holds = |test: &Test| test.about.is_http() || test.holds(facts, b"");
        let any = |lists: &[Vec<Test>]| lists.is_empty() || lists.iter().any(|tests| tests.iter().all(holds));
        any(&self.from) && any(&self.to) && self.when.iter().all(holds)
    }
}

impl Scope<'_> {
    fn source(&self, source: &Source) -> Result<Vec<Test>, Refusal> {
        let pairs: [(&str, &[String], &[String]); 7] = [
            ("principals", &source.principals, &source.not_principals),
            ("requestPrincipals", &source.request_principals, &source.not_request_principals),
            ("namespaces", &source.namespaces, &source.not_namespaces),
            ("serviceAccounts", &source.service_accounts, &source.not_service_accounts),
            ("trustDomains", &source.trust_domains, &source.not_trust_domains),
            ("ipBlocks", &source.ip_blocks, &source.not_ip_blocks),
            ("remoteIpBlocks", &source.remote_ip_blocks, &source.not_remote_ip_blocks),
        ];
        let written = |(_, values, not_values): &(&str, &[String], &[String])| !values.is_empty() || !not_values.is_empty();
        if !pairs.iter().any(written) {
            return Err(Refusal::new("it must not be empty"));
        }
        let named = |name: &str| pairs.iter().any(|pair| pair.0 == name && written(pair));
        if named("serviceAccounts") && (named("principals") || named("namespaces")) {
            return Err(Refusal::at("serviceAccounts", "they cannot be combined with principals or namespaces"));
        }
        let mut tests = Vec::new();
        for (name, values, not_values) in pairs {
            let twin = format!("not{}{}", name[..1].to_ascii_uppercase(), &name[1..]);
            for (field, values, not) in [(name, values, false), (&*twin, not_values, true)] {
                self.add(field, values, not, &mut tests, |values| self.of_source(name, values))?;
            }
        }
        Ok(tests)
    }

    fn of_source(&self, name: &str, values: &[String]) -> Result<About, Refusal> {
        let identities = ["principals", "requestPrincipals", "namespaces"];
        if self.policy.action == Action::Custom && identities.contains(&name) {
            return Err(Refusal::new("it is not supported with the action CUSTOM"));
        }
        Ok(match name {
            "principals" => About::Principal(self.principals(values)),
            "requestPrincipals" => About::Token(values.iter().map(|value| TokenIdentity::new(value)).collect()),
            "namespaces" => About::Namespace(values.to_vec()),
            "serviceAccounts" => self.accounts(values)?,
            "trustDomains" => About::TrustDomain(patterns(&self.trust.expand(values))),
            "ipBlocks" => About::DirectAddress(ranges(values)?),
            _ => About::RemoteAddress(ranges(values)?),
        })
    }

    fn operation(&self, operation: &Operation) -> Result<Vec<Test>, Refusal> {
        let pairs: [(&str, &[String], &str, &[String]); 4] = [
            ("hosts", &operation.hosts, "notHosts", &operation.not_hosts),
            ("methods", &operation.methods, "notMethods", &operation.not_methods),
            ("paths", &operation.paths, "notPaths", &operation.not_paths),
            ("ports", &operation.ports, "notPorts", &operation.not_ports),
        ];
        let mut tests = Vec::new();
        for (name, values, twin, not_values) in pairs {
            for (field, values, not) in [(name, values, false), (twin, not_values, true)] {
                let compile = |values: &[String]| {
                    Ok(match name {
                        "hosts" => About::Host(patterns(values), values.iter().any(|value| value == "*")),
                        "methods" => About::Method(patterns(values), values.iter().any(|value| value == "*")),
                        "paths" => About::Path(each(values, PathPattern::new)?),
                        _ => About::DestinationPort(each(values, port)?),
                    })
                };
                self.add(field, values, not, &mut tests, compile)?;
            }
        }
        match tests.is_empty() {
            true => Err(Refusal::new("it must not be empty")),
            false => Ok(tests),
        }
    }

    fn condition(&self, condition: &Condition, tests: &mut Vec<Test>) -> Result<(), Refusal> {
        if condition.values.is_empty() && condition.not_values.is_empty() {
            return Err(Refusal::new("at least one of values and notValues must be written"));
        }
        let key = condition.key.as_str();
        // Said of the key, whatever its values are.
        let kind = self.kind(key).map_err(|refusal| Refusal::at("key", refusal.cause))?;
        for (field, values, not) in [("values", &condition.values, false), ("notValues", &condition.not_values, true)] {
            self.add(field, values, not, tests, |values| self.of_key(&kind, values))?;
        }
        Ok(())
    }

    fn kind<'k>(&self, key: &'k str) -> Result<Key<'k>, Refusal> {
        let is_identity = |key: &str| matches!(key, "source.namespace" | "source.principal") || key.starts_with("request.auth.");
        if self.policy.action == Action::Custom && is_identity(key) {
            return Err(Refusal::new(format!("{key} is not supported with the action CUSTOM")));
        }
        if let Some(rest) = key.strip_prefix("request.headers") {
            return bracketed(rest, false).map(|mut names| Key::Header(names.pop().unwrap_or_default()));
        }
        if let Some(rest) = key.strip_prefix("request.auth.claims") {
            return bracketed(rest, true).map(Key::Claim);
        }
        if key.starts_with("experimental.envoy.filters.") {
            return Err(Refusal::new(format!("{key} asks for the metadata of a filter of Envoy, which this proxy has not")));
        }
        let known = [
            "source.ip",
            "remote.ip",
            "source.namespace",
            "source.principal",
            "source.serviceAccount",
            "source.trustDomain",
            "request.auth.principal",
            "request.auth.audiences",
            "request.auth.presenter",
            "destination.ip",
            "destination.port",
            "connection.sni",
        ];
        match known.contains(&key) {
            true => Ok(Key::Plain(key)),
            false => Err(Refusal::new(format!("unknown attribute: {key}"))),
        }
    }

    fn of_key(&self, key: &Key<'_>, values: &[String]) -> Result<About, Refusal> {
        let key = match key {
            Key::Header(name) => return Ok(About::Header(name.clone(), patterns(values), values.iter().any(|value| value == "*"))),
            Key::Claim(names) => return Ok(About::Claim(names.clone(), patterns(values))),
            Key::Plain(key) => *key,
        };
        Ok(match key {
            "source.ip" => About::DirectAddress(ranges(values)?),
            "remote.ip" => About::RemoteAddress(ranges(values)?),
            "destination.ip" => About::DestinationAddress(ranges(values)?),
            "destination.port" => About::DestinationPort(each(values, port)?),
            "connection.sni" => About::ServerName(patterns(values)),
            "source.principal" => About::Principal(self.principals(values)),
            "source.namespace" => About::Namespace(values.to_vec()),
            "source.serviceAccount" => self.accounts(values)?,
            "source.trustDomain" => About::TrustDomain(patterns(&self.trust.expand(values))),
            "request.auth.principal" => About::Token(values.iter().map(|value| TokenIdentity::new(value)).collect()),
            "request.auth.audiences" => About::Claim(vec!["aud".to_owned()], patterns(values)),
            _ => About::Claim(vec!["azp".to_owned()], patterns(values)),
        })
    }

    fn principals(&self, values: &[String]) -> Vec<Pattern> {
        self.trust.replace(values).iter().map(|value| Pattern::with_prefix(value, "spiffe://")).collect()
    }

    fn accounts(&self, values: &[String]) -> Result<About, Refusal> {
        if values.len() > MOST_ACCOUNTS {
            return Err(Refusal::new(format!("there are more than {MOST_ACCOUNTS}")));
        }
        each(values, |value| Account::new(value, &self.policy.namespace)).map(About::Account)
    }

    /// Adds a test, unless nothing is written.
    fn add(
        &self,
        field: &str,
        values: &[String],
        not: bool,
        tests: &mut Vec<Test>,
        compile: impl FnOnce(&[String]) -> Result<About, Refusal>,
    ) -> Result<(), Refusal> {
        if let Some(at) = values.iter().position(String::is_empty) {
            return Err(Refusal::at(format!("{field}[{at}]"), "an empty value is not allowed"));
        }
        if !values.is_empty() {
            let liberal = self.all_readings && (self.policy.action == Action::Allow) == not;
            tests.push(Test { about: compile(values).map_err(|refusal| refusal.within(field))?, not, liberal });
        }
        Ok(())
    }
}

/// The key of a condition.
enum Key<'k> {
    Plain(&'k str),
    Header(String),
    Claim(Vec<String>),
}

/// `[a]`, or `[a][b]` where that is allowed.
fn bracketed(text: &str, nested: bool) -> Result<Vec<String>, Refusal> {
    let bad = || Refusal::new(format!("{text:?} is no name in brackets"));
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or_else(bad)?;
    let names: Vec<String> = if nested { inner.split("][").map(str::to_owned).collect() } else { vec![inner.to_owned()] };
    match names.iter().any(|name| name.is_empty() || name.contains(['[', ']'])) {
        true => Err(bad()),
        false => Ok(names),
    }
}

fn patterns(values: &[String]) -> Vec<Pattern> {
    values.iter().map(|value| Pattern::new(value)).collect()
}

fn each<T>(values: &[String], compile: impl Fn(&str) -> Result<T, Refusal>) -> Result<Vec<T>, Refusal> {
    values.iter().enumerate().map(|(at, value)| compile(value).map_err(|refusal| refusal.within(&format!("[{at}]")))).collect()
}

fn ranges(values: &[String]) -> Result<Cidrs, Refusal> {
    each(values, |value| Address::parse(value).map_err(Refusal::new)).map(Cidrs)
}

fn port(value: &str) -> Result<u16, Refusal> {
    // A sign or a leading zero is another spelling, which nobody means.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|port| digits && *port > 0).ok_or_else(|| Refusal::new(format!("{value:?} is no port of 1 to 65535")))
}

impl About {
    /// Whether only an HTTP request has it.
    fn is_http(&self) -> bool {
        matches!(self, Self::Token(_) | Self::Claim(..) | Self::Header(..) | Self::Host(..) | Self::Method(..) | Self::Path(_))
    }

    fn is_met(&self, facts: &Facts<'_>, path: &[u8], liberal: bool) -> bool {
        let of = |patterns: &[Pattern], text: Option<&[u8]>| text.is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text)));
        match self {
            Self::DirectAddress(ranges) => facts.direct_address().is_some_and(|address| ranges.contains(address)),
            Self::RemoteAddress(ranges) => facts.remote_address().is_some_and(|address| ranges.contains(address)),
            Self::DestinationAddress(ranges) => facts.destination_address().is_some_and(|address| ranges.contains(address)),
            Self::DestinationPort(ports) => facts.destination_port().is_some_and(|port| ports.iter().any(|one| i64::from(*one) == port)),
            Self::ServerName(patterns) => of(patterns, facts.server_name()),
            Self::Principal(patterns) => of(patterns, facts.identity()),
            Self::Namespace(globs) => {
                facts.identity().is_some_and(|identity| globs.iter().any(|glob| is_of_namespace(glob.as_bytes(), identity)))
            }
            Self::Account(accounts) => facts.identity().is_some_and(|identity| accounts.iter().any(|account| account.is_of(identity))),
            Self::TrustDomain(patterns) => of(patterns, facts.identity().and_then(trust_domain)),
            Self::Token(identities) => {
                let (issuer, subject) = (facts.claim_text("iss"), facts.claim_text("sub"));
                issuer.zip(subject).is_some_and(|(issuer, subject)| identities.iter().any(|one| one.is(issuer, subject)))
            }
            Self::Claim(names, patterns) => facts.claim(names).is_some_and(|claim| is_claim(claim, patterns)),
            // A header, host or method that is there but empty is present.
            Self::Header(name, patterns, is_any) => {
                let is = |value: Option<&[u8]>| value.is_some_and(|value| *is_any || of(patterns, Some(value)));
                if liberal { any_header_reading(facts.headers(), name, is) } else { every_header_reading(facts.headers(), name, is) }
            }
            Self::Host(patterns, is_any) => facts.host().is_some_and(|host| *is_any || is_host(host, patterns)),
            Self::Method(patterns, is_any) => facts.method().is_some_and(|method| {
                let ignoring_case = || patterns.iter().any(|pattern| pattern.matches_ignoring_case(method));
                *is_any || of(patterns, Some(method)) || (liberal && ignoring_case())
            }),
            Self::Path(patterns) => patterns.iter().any(|pattern| pattern.matches(path)),
        }
    }
}

impl Test {
    fn holds(&self, facts: &Facts<'_>, path: &[u8]) -> bool {
        self.about.is_met(facts, path, self.liberal) != self.not
    }
}

/// A claim is a text, or a list with one.
fn is_claim(claim: &serde_json::Value, patterns: &[Pattern]) -> bool {
    let is = |value: &serde_json::Value| value.as_str().is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text.as_bytes())));
    is(claim) || claim.as_array().is_some_and(|list| list.iter().any(is))
}

/// A host is meant with its port and without, and with the root's dot and without.
fn is_host(authority: &[u8], patterns: &[Pattern]) -> bool {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let name = authority[..authority.len() - digits].strip_suffix(b":").unwrap_or(authority);
    let bare = name.strip_suffix(b".").unwrap_or(name);
    let is = |host: &[u8]| patterns.iter().any(|pattern| pattern.matches_ignoring_case(host));
    is(authority) || (name.len() < authority.len() && is(name)) || (bare.len() < name.len() && is(bare))
}
