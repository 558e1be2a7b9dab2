//! Who sees an object: `exportTo`.

use std::sync::Arc;

use crate::object::Object;

/// Who sees an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    Public,
    /// These namespaces; nobody, if there are none.
    Namespaces(Vec<Arc<str>>),
}

impl Visibility {
    /// Of an object in `namespace` that says this; nothing said is everybody.
    #[must_use]
    pub fn of(export_to: &[String], namespace: &str) -> Self {
        if export_to.is_empty() || export_to.iter().any(|to| to == "*") {
            return Self::Public;
        }
        let named = export_to.iter().filter(|to| *to != "~").map(|to| if to == "." { namespace.into() } else { to.as_str().into() });
        Self::Namespaces(named.collect())
    }

    /// Of a Service, which says it in an annotation.
    #[must_use]
    pub fn of_annotation(object: &Object) -> Self {
        match object.meta.annotations.get("networking.istio.io/exportTo") {
            Some(said) => Self::of(&said.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>(), &object.id.namespace),
            None => Self::Public,
        }
    }

    /// Whether a proxy in `namespace` sees it.
    #[must_use]
    pub fn reaches(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(named) => named.iter().any(|one| **one == *namespace),
        }
    }

    /// Whether `namespace` is named.
    #[must_use]
    pub fn names(&self, namespace: &str) -> bool {
        matches!(self, Self::Namespaces(named) if named.iter().any(|one| **one == *namespace))
    }
}
