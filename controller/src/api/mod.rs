//! What objects say, typed: the APIs that are read.
//!
//! Always: an object is read as its custom resource definition has it, strictly about types and leniently about nothing else; a field that a kind does
//! not have is told, and read past. What the values may be is not decided here but in [`crate::validate()`].

pub mod core;
pub mod decode;
pub mod istio;

use serde::de::DeserializeOwned;
use weir_model::yaml::document::Way;

use crate::object::Object;

pub use decode::{Decoded, decode};

/// An object's spec as a type; none where it does not fit, which validation says.
#[must_use]
pub fn spec<T: DeserializeOwned>(object: &Object) -> Option<T> {
    decode(&object.id, &Way::ROOT.key("spec"), object.spec()).value
}

/// The body of an object that has no spec, as a type.
#[must_use]
pub fn body<T: DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_value(serde_json::Value::Object((*object.body).clone())).ok()
}
