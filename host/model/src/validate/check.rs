//! What all checks share: the list of problems, the names of resources, and the checks of single values.

use std::collections::{BTreeMap, HashMap};

use crate::address::{Address, Cidr, is_host_name};
use crate::config::{Bootstrap, secret};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::path::{At, Places, did_you_mean};
use crate::protobuf::Duration;
use crate::resource::Kind;
use crate::validate::Context;

/// Problems that are reported.
const MAX_PROBLEMS: usize = 1000;
/// Problems among which names are looked for that may have been meant: each costs a walk over all names.
const MAX_SUGGESTIONS: usize = 100;

/// A configuration being checked.
pub struct Check<'a> {
    pub(crate) found: Vec<Diagnostic>,
    pub(crate) places: &'a Places,
    pub(crate) context: &'a Context,
    pub(crate) names: Names<'a>,
    /// Whether a name that nothing has is an error.
    pub(crate) closed: bool,
}

/// The resources of a configuration by name.
#[derive(Default)]
pub(crate) struct Names<'a> {
    pub(crate) of: BTreeMap<Kind, HashMap<&'a str, usize>>,
    pub(crate) bootstrap: Option<&'a Bootstrap>,
}

impl<'a> Names<'a> {
    pub(crate) fn of(bootstrap: &'a Bootstrap) -> Self {
        let mut of: BTreeMap<Kind, HashMap<&'a str, usize>> = BTreeMap::new();
        let mut add = |kind, name: &'a str, index| {
            of.entry(kind).or_default().entry(name).or_insert(index);
        };
        bootstrap.listeners.iter().enumerate().for_each(|(index, item)| add(Kind::Listener, &item.name, index));
        bootstrap.filter_chains.iter().enumerate().for_each(|(index, item)| add(Kind::FilterChain, &item.name, index));
        bootstrap.clusters.iter().enumerate().for_each(|(index, item)| add(Kind::Cluster, &item.name, index));
        bootstrap.endpoints.iter().enumerate().for_each(|(index, item)| add(Kind::Endpoints, &item.name, index));
        bootstrap.secrets.iter().enumerate().for_each(|(index, item)| add(Kind::Secret, &item.name, index));
        Self { of, bootstrap: Some(bootstrap) }
    }

    pub(crate) fn index(&self, kind: Kind, name: &str) -> Option<usize> {
        self.of.get(&kind)?.get(name).copied()
    }

    fn all(&self, kind: Kind) -> Vec<&'a str> {
        let mut names: Vec<&str> =
            self.of.get(&kind).into_iter().flat_map(HashMap::keys).copied().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names
    }
}

/// What a duration of nothing means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zero {
    /// No limit, or at once.
    Fine,
    /// Nonsense.
    Wrong,
}

impl<'a> Check<'a> {
    pub(crate) fn new(places: &'a Places, context: &'a Context, names: Names<'a>, closed: bool) -> Self {
        Self { found: Vec::new(), places, context, names, closed }
    }

    fn push(&mut self, severity: Severity, at: &At<'_>, code: Code, message: String, help: String) {
        if self.found.len() >= MAX_PROBLEMS {
            if self.found.len() == MAX_PROBLEMS {
                let (message, help) = (format!("there are more problems than these {MAX_PROBLEMS}"), "mend these first".to_owned());
                let path = String::new();
                self.found.push(Diagnostic { severity: Severity::Error, code: Code::TooMany, place: None, path, message, help });
            }
            return;
        }
        self.found.push(Diagnostic { severity, code, place: self.places.find(at), path: at.to_string(), message, help });
    }

    pub(crate) fn error(&mut self, at: &At<'_>, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, at, code, message.into(), help.into());
    }

    pub(crate) fn warning(&mut self, at: &At<'_>, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Warning, at, code, message.into(), help.into());
    }

    /// A name of a resource, binding or action.
    pub(crate) fn name(&mut self, at: &At<'_>, name: &str) {
        let at = at.field("name");
        if name.is_empty() {
            self.error(&at, Code::Missing, "a name is missing", "names are how logs, metrics and other resources refer to it");
        } else if name.len() > 1024 || name.chars().any(char::is_control) {
            self.error(&at, Code::InvalidName, "a name has at most 1,024 bytes, and no control characters", "");
        }
    }

    /// Names that must differ within a list; empty ones are not looked at.
    pub(crate) fn distinct<'n>(&mut self, at: &At<'_>, what: &str, names: impl IntoIterator<Item = &'n str>) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (index, name) in names.into_iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let Some(first) = seen.get(name).copied() else {
                seen.insert(name, index);
                continue;
            };
            let (first, second) = (at.index(first), at.index(index));
            let (first, second) = (first.field("name"), second.field("name"));
            let place = self.places.find(&first).map_or_else(String::new, |place| format!(", at {place}"));
            self.error(
                &second,
                Code::DuplicateName,
                format!("another {what} is called `{name}`"),
                format!("the first is {first}{place}; rename one"),
            );
        }
    }

    /// A name of a resource that must exist, unless it may come later.
    pub(crate) fn reference(&mut self, at: &At<'_>, kind: Kind, name: &str) {
        if name.is_empty() {
            self.error(at, Code::Missing, format!("the name of a {} is missing", kind.label()), "");
        } else if self.closed {
            self.exists(at, kind, name);
        }
    }

    /// A name of a resource that must exist in this configuration.
    pub(crate) fn exists(&mut self, at: &At<'_>, kind: Kind, name: &str) {
        if self.names.index(kind, name).is_none() {
            let names = if self.found.len() < MAX_SUGGESTIONS { self.names.all(kind) } else { Vec::new() };
            let known = if names.is_empty() {
                format!("add it under `{}`", kind.list())
            } else {
                did_you_mean(name, names, &format!("the {}s", kind.label().trim_end_matches('s')))
            };
            self.error(at, Code::UnknownReference, format!("there is no {} `{name}`", kind.label()), known);
        }
    }

    /// A name of a secret of one kind.
    pub(crate) fn secret(&mut self, at: &At<'_>, name: &str, roots: bool) {
        self.reference(at, Kind::Secret, name);
        let index = self.names.index(Kind::Secret, name);
        let secret = index.and_then(|index| self.names.bootstrap?.secrets.get(index));
        let other = match secret.and_then(|secret| secret.kind.as_ref()) {
            Some(secret::Kind::KeyPair(_)) if roots => "a key pair, not trusted roots",
            Some(secret::Kind::TrustRoots(_)) if !roots => "trusted roots, not a key pair",
            _ => return,
        };
        self.error(at, Code::WrongKind, format!("the secret `{name}` has {other}"), "");
    }

    /// An address to listen on or to connect to: no name.
    pub(crate) fn address(&mut self, at: &At<'_>, text: &str, any_port: bool) -> Option<Address> {
        match text.parse::<Address>() {
            Ok(Address::Name { host, port }) if host == "localhost" => {
                let help = format!("write `127.0.0.1:{port}` or `[::1]:{port}`");
                self.error(at, Code::InvalidAddress, "an IP address belongs here, not a name", help);
                None
            }
            Ok(Address::Name { .. }) => {
                self.error(
                    at,
                    Code::InvalidAddress,
                    "an IP address belongs here, not a name",
                    "names are for `dns` clusters; write `10.0.0.1:8080`",
                );
                None
            }
            Ok(Address::Socket(socket)) if socket.port() == 0 && !any_port => {
                self.error(at, Code::InvalidAddress, "port 0 cannot be connected to", "write a port from 1 to 65535");
                None
            }
            Ok(address) => Some(address),
            Err(error) => {
                self.error(at, if text.is_empty() { Code::Missing } else { Code::InvalidAddress }, error.to_string(), error.help());
                None
            }
        }
    }

    pub(crate) fn ranges(&mut self, at: &At<'_>, list: &[String]) {
        for (index, text) in list.iter().enumerate() {
            if let Err(error) = text.parse::<Cidr>() {
                self.error(
                    &at.index(index),
                    Code::InvalidRange,
                    format!("`{}` is no range: {error}", short(text)),
                    "write `10.0.0.0/8`, `fd00::/8`, or one address",
                );
            }
        }
    }

    /// Returns whether there is one that makes sense.
    pub(crate) fn duration(&mut self, at: &At<'_>, value: Option<Duration>, zero: Zero) -> bool {
        let Some(value) = value else { return false };
        if std::time::Duration::try_from(value).is_err() {
            self.error(at, Code::OutOfRange, "a duration is not negative", "");
        } else if zero == Zero::Wrong && value.seconds == 0 && value.nanos == 0 {
            self.error(at, Code::OutOfRange, "a duration of nothing makes no sense here", "leave it out for the default");
        } else {
            return true;
        }
        false
    }

    pub(crate) fn durations(&mut self, at: &At<'_>, zero: Zero, list: &[(&str, Option<Duration>)]) {
        for (name, value) in list {
            self.duration(&at.field(name), *value, zero);
        }
    }

    /// Two durations of which one must not exceed the other.
    pub(crate) fn in_order(&mut self, at: &At<'_>, (low, least): (&str, Option<Duration>), (high, most): (&str, Option<Duration>)) {
        let std = crate::duration::get;
        if let (Some(least), Some(most)) = (std(least), std(most))
            && least > most
        {
            self.error(&at.field(high), Code::Conflict, format!("`{high}` is shorter than `{low}`"), "");
        }
    }

    pub(crate) fn within(&mut self, at: &At<'_>, value: u32, least: u32, most: u32) {
        if !(least..=most).contains(&value) {
            self.error(at, Code::OutOfRange, format!("{value} is out of range"), format!("write a number from {least} to {most}"));
        }
    }

    pub(crate) fn percent(&mut self, at: &At<'_>, value: Option<f64>) {
        if let Some(value) = value
            && !(0.0..=100.0).contains(&value)
        {
            self.error(at, Code::OutOfRange, format!("{value} is no percentage"), "write a number from 0 to 100");
        }
    }

    pub(crate) fn one_of(&mut self, at: &At<'_>, text: &str, known: &[&str]) {
        if !known.contains(&text) {
            let help = did_you_mean(text, known.iter().copied(), "the values");
            self.error(at, Code::UnknownValue, format!("`{}` is none of the values", short(text)), help);
        }
    }

    /// Weights that are added up.
    pub(crate) fn weights(&mut self, at: &At<'_>, weights: impl Iterator<Item = u32>) {
        if weights.map(u64::from).sum::<u64>() > u64::from(u32::MAX) {
            self.error(at, Code::OutOfRange, "the weights add up to more than 4294967295", "divide all of them by the same number");
        }
    }

    pub(crate) fn host_name(&mut self, at: &At<'_>, text: &str) {
        if !is_host_name(text) {
            self.error(at, Code::InvalidName, format!("`{}` is no host name", short(text)), "write it as DNS knows it: `a.example.com`");
        }
    }

    /// A host, with or without a port, as `:authority` has it.
    pub(crate) fn authority(&mut self, at: &At<'_>, text: &str) {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'~' | b'%');
        if text.is_empty() || text.len() > 300 || !text.bytes().all(fits) {
            self.error(at, Code::InvalidName, format!("`{}` is no host", short(text)), "write `example.com` or `example.com:8080`");
        }
    }

    /// A path of a URL without a query.
    pub(crate) fn path(&mut self, at: &At<'_>, text: &str) {
        let odd = text.chars().find(|c| c.is_control() || matches!(c, ' ' | '?' | '#'));
        if !text.starts_with('/') {
            self.error(
                at,
                Code::InvalidPath,
                "a path begins with `/`",
                if text.contains("://") { "write the path alone, without scheme and host" } else { "" },
            );
        } else if let Some(odd) = odd {
            self.error(at, Code::InvalidPath, format!("a path has no {odd:?}"), "encode it with `%`");
        }
    }

    /// The name of a header to read.
    pub(crate) fn header_name(&mut self, at: &At<'_>, name: &str) {
        let token = name.strip_prefix(':').unwrap_or(name);
        if name.is_empty() {
            self.error(at, Code::Missing, "the name of a header is missing", "");
        } else if !is_token(token) || name.len() > 1024 {
            self.error(at, Code::InvalidHeader, format!("`{}` is no name of a header", short(name)), "names are letters, digits and `-`");
        }
    }

    pub(crate) fn header_value(&mut self, at: &At<'_>, value: &str) {
        if let Some(odd) = value.chars().find(|c| c.is_control() && *c != '\t') {
            self.error(at, Code::InvalidHeader, format!("a header's value has no {odd:?}"), "write it on one line");
        } else if value.len() > 16 << 10 {
            self.error(at, Code::InvalidHeader, "a header's value has at most 16 KiB", "");
        }
    }

    /// Patterns must compile within bounds.
    pub(crate) fn regex(&mut self, at: &At<'_>, pattern: &str) -> Option<regex::Regex> {
        if pattern.is_empty() {
            self.error(at, Code::Missing, "the pattern is missing", "");
            return None;
        }
        if pattern.len() > MAX_PATTERN {
            self.error(at, Code::InvalidRegex, format!("a pattern has at most {MAX_PATTERN} bytes"), "");
            return None;
        }
        let built = regex::RegexBuilder::new(pattern).size_limit(1 << 20).nest_limit(100).build();
        match built {
            Ok(regex) => Some(regex),
            Err(regex::Error::CompiledTooBig(_)) => {
                self.error(at, Code::InvalidRegex, "the pattern is too large when compiled", "repeat less");
                None
            }
            Err(error) => {
                let text = error.to_string();
                let cause = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let help = if cause.contains("look-around") || cause.contains("backreference") {
                    "such patterns can take forever; match without them"
                } else {
                    "the syntax is RE2's"
                };
                self.error(at, Code::InvalidRegex, format!("`{}` is no regular expression: {cause}", short(pattern)), help);
                None
            }
        }
    }

    /// Protocols as ALPN names them.
    pub(crate) fn alpn(&mut self, at: &At<'_>, list: &[String]) {
        for (index, text) in list.iter().enumerate() {
            if !(1..=255).contains(&text.len()) {
                self.error(&at.index(index), Code::InvalidName, "a protocol's name has 1 to 255 bytes", "write `h2`, `http/1.1`");
            }
        }
    }
}

/// Bytes of a pattern.
const MAX_PATTERN: usize = 4096;

/// RFC 9110's token.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A text that a message can hold.
pub(crate) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if short.len() < text.len() && text.chars().count() > 80 {
        short.push('…');
    }
    short
}
