//! What the sources need of the model: whether things make sense.

use weir_model::diagnostic::Diagnostic;
use weir_model::merge::Fragment;

use super::Value;

/// Every problem of a whole configuration.
pub(super) fn validate(whole: &Fragment) -> Vec<Diagnostic> {
    let _ = whole;
    Vec::new()
}

/// Whether `value` makes sense on its own.
pub(super) fn check(value: &Value) -> Result<(), String> {
    if value.name().is_empty() { Err("it has no name".into()) } else { Ok(()) }
}
