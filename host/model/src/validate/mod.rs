//! What makes a configuration valid: everything that the types and the YAML reader do not say already.
//!
//! What always holds:
//! * Every problem is reported, not only the first, with the path of the field, the cause, and what to write instead.
//! * What passes here, the proxy can run: it refuses no such configuration later for what stands in it, only for what the world lacks (a
//!   file, a port, a module).
//! * The cost is linear in the configuration.
//!
//! A resource alone, as discovery delivers it, is checked by [`validate_resource`]: what it refers to may still be on its way.
//! Deliberately not here: reading files, so certificates, keys and modules are only looked at where they stand in the configuration itself.

mod bootstrap;
mod check;
mod cluster;
mod filter;
mod http;
mod listener;
mod route;
mod secret;

use prost::Message as _;

use crate::config::{Bootstrap, Cluster, Endpoints, FilterChain, Listener, RouteAction, Secret};
use crate::diagnostic::{Code, Diagnostic, Severity, any_error};
use crate::merge::{Fragment, merge};
use crate::path::{At, Places};
use crate::resource::Resource;
use crate::yaml;
use check::{Check, Names};

/// What a configuration is checked against.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The filters in this binary; none if they are not to be checked.
    pub builtins: Option<Vec<String>>,
    /// Resources may come later, so that a name that nothing has is no error. Implied by a `discovery` in the configuration.
    pub discovery: bool,
}

/// Everything wrong with a whole configuration.
#[must_use]
pub fn validate(bootstrap: &Bootstrap, places: &Places, context: &Context) -> Vec<Diagnostic> {
    let discovery = context.discovery || bootstrap.discovery.is_some();
    let mut check = Check::new(places, context, Names::of(bootstrap), !discovery);
    bootstrap::bootstrap(&mut check, &At::ROOT, bootstrap);
    check.found
}

/// A resource that can be checked alone.
pub trait Checked: Resource {
    #[doc(hidden)]
    fn check(&self, check: &mut Check<'_>, at: &At<'_>);
}

macro_rules! checked {
    ($($type:ident: $check:path,)*) => {$(
        impl Checked for $type {
            fn check(&self, check: &mut Check<'_>, at: &At<'_>) {
                $check(check, at, self);
            }
        }
    )*};
}

checked! {
    Listener: listener::listener,
    FilterChain: filter::chain,
    Cluster: cluster::cluster,
    Endpoints: cluster::endpoints_resource,
    Secret: secret::secret,
}

/// Everything wrong with one resource. Paths begin at the resource; what it refers to is not looked for.
#[must_use]
pub fn validate_resource<R: Checked>(resource: &R, context: &Context) -> Vec<Diagnostic> {
    let places = Places::default();
    let mut check = Check::new(&places, context, Names::default(), false);
    resource.check(&mut check, &At::ROOT);
    check.found
}

/// A route action that a filter defines while it is configured, as protobuf or, when it begins with `{`, as JSON.
///
/// # Errors
/// What is wrong with it, with the paths of the fields. The clusters and filters that it names are not looked for.
pub fn load_action(encoded: &[u8]) -> Result<RouteAction, Vec<Diagnostic>> {
    let (action, mut found) = if encoded.first() == Some(&b'{') {
        yaml::parse_message("RouteAction", "action", &String::from_utf8_lossy(encoded))
    } else {
        match RouteAction::decode(encoded) {
            Ok(action) => (action, Vec::new()),
            Err(error) => {
                let (severity, code, message) = (Severity::Error, Code::Syntax, format!("this is no RouteAction: {error}"));
                return Err(vec![Diagnostic { severity, code, place: None, path: String::new(), message, help: String::new() }]);
            }
        }
    };
    if found.is_empty() {
        let (places, context) = (Places::default(), Context::default());
        let mut check = Check::new(&places, &context, Names::default(), false);
        route::action(&mut check, &At::ROOT, &action, route::Scope { chain: None, named: true });
        found = check.found;
    }
    if any_error(&found) { Err(found) } else { Ok(action) }
}

/// Reads files as pieces of one configuration and checks the whole. With an error among the diagnostics it must not be used.
///
/// A field that could not be read is not reported once more for what follows from that.
#[must_use]
pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>, context: &Context) -> (Fragment, Vec<Diagnostic>) {
    let (mut fragments, mut unread, mut offset) = (Vec::new(), Vec::new(), Offset::default());
    for (name, bytes) in files {
        let parsed = yaml::parse(name, bytes);
        for diagnostic in parsed.diagnostics {
            unread.push((offset.of(&diagnostic.path), diagnostic));
        }
        offset.add(&parsed.fragment.bootstrap);
        fragments.push(parsed.fragment);
    }
    let (fragment, twice) = merge(fragments);
    let mut found: Vec<Diagnostic> = Vec::new();
    let paths: Vec<String> = unread.iter().filter(|(_, diagnostic)| diagnostic.is_error()).map(|(path, _)| path.clone()).collect();
    found.extend(unread.into_iter().map(|(path, diagnostic)| Diagnostic { path, ..diagnostic }));
    found.extend(twice);
    // With a file that is no YAML, half of the configuration is missing: what refers to it would only be noise.
    if !paths.iter().any(String::is_empty) {
        let follows = |path: &str| paths.iter().any(|unread| within(path, unread) || within(unread, path));
        found.extend(validate(&fragment.bootstrap, &fragment.places, context).into_iter().filter(|diagnostic| !follows(&diagnostic.path)));
    }
    (fragment, found)
}

/// Whether the one path is the other, or leads to something within it.
fn within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// How many resources the pieces before had: indices count over all of them.
#[derive(Default)]
struct Offset {
    counts: [usize; 5],
}

impl Offset {
    const LISTS: [&'static str; 5] = ["listeners", "filterChains", "clusters", "endpoints", "secrets"];

    fn add(&mut self, piece: &Bootstrap) {
        let new = [piece.listeners.len(), piece.filter_chains.len(), piece.clusters.len(), piece.endpoints.len(), piece.secrets.len()];
        self.counts.iter_mut().zip(new).for_each(|(count, new)| *count += new);
    }

    /// The path in the whole.
    fn of(&self, path: &str) -> String {
        let list =
            Self::LISTS.iter().zip(self.counts).find_map(|(list, count)| Some((list, path.strip_prefix(list)?.strip_prefix('[')?, count)));
        let moved = list.and_then(|(list, rest, count)| {
            let (index, rest) = rest.split_once(']')?;
            Some(format!("{list}[{}]{rest}", index.parse::<usize>().ok()? + count))
        });
        moved.unwrap_or_else(|| path.to_owned())
    }
}
