//! A configuration out of pieces: the files of a folder, the documents of a file.
//!
//! Always: lists are joined in the order of the pieces; a single field may stand in one piece only. Nothing is overridden.

use crate::config::Bootstrap;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::path::{At, Places};

/// A piece of a configuration, and where in which file everything stands.
#[derive(Debug, Clone, Default)]
pub struct Fragment {
    /// What it says.
    pub bootstrap: Bootstrap,
    /// Where.
    pub places: Places,
}

/// Joins the pieces. Of a field that stands in two, the first is kept and the second reported.
#[must_use]
pub fn merge(fragments: impl IntoIterator<Item = Fragment>) -> (Fragment, Vec<Diagnostic>) {
    let mut fragments = fragments.into_iter();
    let mut merged = fragments.next().unwrap_or_default();
    let mut found = Vec::new();
    for fragment in fragments {
        let Fragment { bootstrap: new, places } = fragment;
        let have = &mut merged.bootstrap;
        let mut twice = |field: &str| found.push(set_twice(field, &merged.places, &places));
        macro_rules! single {
            ($($field:ident $name:literal,)*) => {$(
                if !is_default(&new.$field) {
                    if is_default(&have.$field) { have.$field = new.$field } else { twice($name) }
                }
            )*};
        }
        single! {
            node "node",
            admin "admin",
            workers "workers",
            limits "limits",
            discovery "discovery",
            module_cache "moduleCache",
            log "log",
            drain_timeout "drainTimeout",
        }
        have.listeners.extend(new.listeners);
        have.filter_chains.extend(new.filter_chains);
        have.clusters.extend(new.clusters);
        have.endpoints.extend(new.endpoints);
        have.secrets.extend(new.secrets);
        merged.places.join(places);
    }
    (merged, found)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn set_twice(field: &str, first: &Places, second: &Places) -> Diagnostic {
    let at = At::ROOT;
    let at = at.field(field);
    let help = first.find(&at).map_or_else(String::new, |place| format!("the first is at {place}; remove one of them"));
    Diagnostic {
        severity: Severity::Error,
        code: Code::SetTwice,
        place: second.find(&at),
        path: field.to_owned(),
        message: format!("`{field}` is set in two pieces"),
        help,
    }
}
