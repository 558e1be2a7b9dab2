//! Route actions that a filter defines while it is configured.
//!
//! What always holds: the actions of one load of a binding are compiled once and shared by all workers; they live as long as something uses that load, so a
//! new configuration does not pile up on the old one. The same action has the same number on every worker and in every instance, so that an instance that
//! takes another's place goes on with its numbers. Choosing one takes no lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use weir_model::validate::load_action;

use crate::route::Action;

/// Actions that one binding may define.
pub const MAX_ACTIONS: usize = 200_000;

/// What the filters of one load of a binding have defined, on all workers.
#[derive(Debug, Default)]
pub struct Defined(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    actions: Vec<Arc<Action>>,
    numbers: HashMap<[u8; 32], u32>,
}

/// The same on one worker.
#[derive(Debug)]
pub struct Routes {
    shared: Arc<Defined>,
    here: RefCell<Vec<Arc<Action>>>,
}

impl Defined {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that can panic happens while it is held half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Routes {
    /// None yet here.
    #[must_use]
    pub fn new(shared: Arc<Defined>) -> Self {
        Self { shared, here: RefCell::default() }
    }

    /// The action of this number.
    #[must_use]
    #[inline]
    pub fn action(&self, number: u32) -> Option<Arc<Action>> {
        self.here.borrow().get(usize::try_from(number).ok()?.checked_sub(1)?).cloned()
    }

    /// The number of this action.
    ///
    /// # Errors
    /// Says which field is wrong, and why.
    pub fn define(&self, encoded: &[u8]) -> Result<u32, String> {
        let digest: [u8; 32] = Sha256::digest(encoded).into();
        let mut known = self.shared.known();
        let number = match known.numbers.get(&digest) {
            Some(number) => *number,
            None if known.actions.len() >= MAX_ACTIONS => return Err(format!("a filter may define at most {MAX_ACTIONS} actions")),
            None => {
                known.actions.push(Arc::new(compile(encoded)?));
                let number = u32::try_from(known.actions.len()).unwrap_or(u32::MAX);
                known.numbers.insert(digest, number);
                number
            }
        };
        let mut here = self.here.borrow_mut();
        let missing = known.actions.get(here.len()..).unwrap_or_default();
        here.extend(missing.iter().cloned());
        Ok(number)
    }
}

/// An action from its encoded form.
fn compile(encoded: &[u8]) -> Result<Action, String> {
    let action = load_action(encoded).map_err(|found| {
        let first = found.into_iter().find(weir_model::diagnostic::Diagnostic::is_error);
        first.map_or_else(String::new, |problem| {
            let help = if problem.help.is_empty() { String::new() } else { format!("; {}", problem.help) };
            let field = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
            format!("{field}{}{help}", problem.message)
        })
    })?;
    Action::compile(&action).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_one_number_on_every_worker() {
        let defined = Arc::new(Defined::default());
        let (one, other) = (Routes::new(Arc::clone(&defined)), Routes::new(Arc::clone(&defined)));
        let text = |status: u16| format!(r#"{{"name": "r{status}", "respond": {{"status": {status}}}}}"#);
        assert_eq!(one.define(text(200).as_bytes()), Ok(1));
        assert_eq!(one.define(text(201).as_bytes()), Ok(2));
        assert!(other.action(1).is_none(), "it has not defined it");
        assert_eq!(other.define(text(201).as_bytes()), Ok(2));
        assert_eq!(one.define(text(200).as_bytes()), Ok(1));
        let (here, there) = (one.action(2).expect("defined"), other.action(2).expect("defined"));
        assert!(Arc::ptr_eq(&here, &there) && &*here.name == "r201");
        assert!(one.action(0).is_none() && one.action(3).is_none());
    }

    #[test]
    fn what_cannot_work_names_its_field() {
        let routes = Routes::new(Arc::default());
        for (text, said) in [
            (r#"{"forward": {"clusters": [{"nam": "a"}]}}"#, "forward.clusters[0].nam: "),
            (r#"{"forward": {"clusters": []}}"#, "forward.clusters: it is not said where to"),
            (r#"{"name": "x"}"#, "it is not said what happens"),
            (r#"{"redirect": {"status": 200, "host": "a"}}"#, "redirect.status: 200 is no redirect; write 301"),
            (r#"{"respond": {"status": 200}"#, "this is no YAML"),
            ("\u{1}", "this is no RouteAction"),
        ] {
            let error = routes.define(text.as_bytes()).expect_err(text);
            assert!(error.starts_with(said), "{text}: {error}");
        }
        assert!(routes.action(1).is_none());
    }
}
