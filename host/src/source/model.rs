//! What the sources need of the model: text into resources, and whether they make sense.

use super::Value;

/// Whether `value` makes sense on its own.
pub(super) fn check(value: &Value) -> Result<(), String> {
    if value.name().is_empty() { Err("it has no name".into()) } else { Ok(()) }
}
